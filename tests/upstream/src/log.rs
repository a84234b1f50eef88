//! What the upstream received.

#![allow(clippy::disallowed_methods, reason = "the rule is for the core; a wait here reads the clock")]

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// How much of a body is kept as text.
const KEPT_BODY: usize = 4096;

/// The log is bounded, so that a long load run does not eat the machine: over this, the oldest
/// goes.
const MAX_SEEN: usize = 200_000;

/// A request as the upstream received it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// `HTTP/1.1` or `HTTP/2`.
    pub version: String,
    /// The method.
    pub method: String,
    /// The path with its query; over HTTP/1.1 the exact request target.
    pub path: String,
    /// `:authority` of HTTP/2. Over HTTP/1.1 the host is an ordinary header.
    pub authority: Option<String>,
    /// The headers in order, names in lower case, without pseudo-headers; bytes that are not UTF-8
    /// are replaced.
    pub headers: Vec<(String, String)>,
    /// The trailers, likewise.
    pub trailers: Vec<(String, String)>,
    /// How many bytes of body came.
    pub body_bytes: u64,
    /// The body's SHA-256 in lower-case hex; empty while `complete` is false.
    pub body_sha256: String,
    /// The first 4 KiB of the body; bytes that are not UTF-8 are replaced.
    pub body: String,
    /// Whether the whole body came.
    pub complete: bool,
}

#[derive(Debug, Default)]
struct Entries {
    /// The number of the first entry; an entry keeps its number when older ones go.
    first: u64,
    seen: VecDeque<Seen>,
}

/// The log of a server; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Log {
    inner: Arc<(Mutex<Entries>, Condvar)>,
}

impl Log {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.inner.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All requests since the start or the last [`clear`](Log::clear), in the order in which their
    /// heads arrived.
    pub fn seen(&self) -> Vec<Seen> {
        self.entries().seen.iter().cloned().collect()
    }

    /// Forgets all requests; one whose body is still arriving does not come back.
    pub fn clear(&self) {
        let mut entries = self.entries();
        entries.first += entries.seen.len() as u64;
        entries.seen.clear();
    }

    /// Waits until the log satisfies `wanted`, at most `timeout`; says whether it did.
    pub fn wait_until(&self, timeout: Duration, wanted: impl Fn(&[Seen]) -> bool) -> bool {
        let end = Instant::now() + timeout;
        let mut entries = self.entries();
        while !wanted(entries.seen.make_contiguous()) {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return false };
            entries = self.inner.1.wait_timeout(entries, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Records the head of a request.
    pub(crate) fn begin(&self, head: Seen) -> Recording {
        let mut entries = self.entries();
        if entries.seen.len() >= MAX_SEEN {
            entries.seen.pop_front();
            entries.first += 1;
        }
        let number = entries.first + entries.seen.len() as u64;
        entries.seen.push_back(head.clone());
        self.inner.1.notify_all();
        Recording { log: self.clone(), number, seen: head, hash: Sha256::new(), kept: Vec::new() }
    }
}

/// A request that is still arriving.
pub(crate) struct Recording {
    log: Log,
    number: u64,
    seen: Seen,
    hash: Sha256,
    kept: Vec<u8>,
}

impl Recording {
    /// Records a part of the body.
    pub(crate) fn body(&mut self, part: &[u8]) {
        self.hash.update(part);
        self.seen.body_bytes += part.len() as u64;
        let room = KEPT_BODY - self.kept.len();
        self.kept.extend_from_slice(&part[..part.len().min(room)]);
        if room > 0 {
            self.seen.body = String::from_utf8_lossy(&self.kept).into_owned();
        }
        self.publish();
    }

    /// Records the end of the request.
    pub(crate) fn end(mut self, trailers: Vec<(String, String)>) -> Seen {
        self.seen.trailers = trailers;
        self.seen.body_sha256 =
            std::mem::take(&mut self.hash).finalize().iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
        self.seen.complete = true;
        self.publish();
        self.seen
    }

    fn publish(&self) {
        let mut entries = self.log.entries();
        let index = self.number.checked_sub(entries.first).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| entries.seen.get_mut(index)) {
            entry.clone_from(&self.seen);
            self.log.inner.1.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(path: &str) -> Seen {
        Seen { method: "GET".to_owned(), path: path.to_owned(), ..Seen::default() }
    }

    #[test]
    fn completes_entries_in_place() {
        let log = Log::default();
        let mut first = log.begin(head("/1"));
        log.begin(head("/2")).end(Vec::new());
        first.body(b"abc");
        assert_eq!((log.seen()[0].body_bytes, log.seen()[0].complete), (3, false));
        assert_eq!(log.seen()[0].body_sha256, "");
        first.end(vec![("t".to_owned(), "1".to_owned())]);
        let seen = log.seen();
        assert_eq!(seen.iter().map(|seen| seen.path.as_str()).collect::<Vec<_>>(), ["/1", "/2"]);
        assert_eq!((seen[0].complete, seen[0].trailers.len(), seen[0].body.as_str()), (true, 1, "abc"));
        // printf abc | sha256sum
        assert_eq!(seen[0].body_sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_cleared_entry_does_not_come_back() {
        let log = Log::default();
        let old = log.begin(head("/old"));
        log.clear();
        let new = log.begin(head("/new"));
        old.end(Vec::new());
        assert_eq!(log.seen(), [head("/new")]);
        new.end(Vec::new());
        assert!(log.seen()[0].complete);
    }

    #[test]
    fn keeps_the_start_of_long_bodies() {
        let log = Log::default();
        let mut recording = log.begin(head("/"));
        recording.body(&[b'a'; 4000]);
        recording.body(&[b'b'; 4000]);
        recording.body(&[b'c'; 1]);
        let seen = recording.end(Vec::new());
        assert_eq!((seen.body.len(), seen.body_bytes, seen.body.ends_with('b')), (4096, 8001, true));
    }
}
