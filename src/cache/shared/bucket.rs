//! Buckets of eight places, of which the oldest leaves a trace when it has to leave.
//!
//! Where all places are taken, the entry with the earliest time leaves, and the bucket's stamp is
//! raised to that time. So whoever asks about an entry that is gone learns that it may have been
//! there, and no entry is ever forgotten silently.
//!
//! ```text
//! value = version stamp[8] (digest[16] at[8] until[8])…
//! ```

use super::{VERSION, timestamp};
use crate::time::Timestamp;

/// A bucket.
pub(super) struct Bucket {
    /// What has left was no later than this.
    pub(super) stamp: Timestamp,
    entries: Vec<Entry>,
}

/// One place.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) digest: [u8; 16],
    /// By which the earliest is found.
    pub(super) at: Timestamp,
    /// Until when it is needed.
    pub(super) until: Timestamp,
}

impl Bucket {
    /// Without entries.
    pub(super) fn new(stamp: Timestamp) -> Self {
        Self { stamp, entries: Vec::new() }
    }

    /// `None` where this is no bucket.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let (_, rest) = value.split_first().filter(|(version, _)| **version == VERSION)?;
        let (stamp, mut rest) = rest.split_first_chunk::<8>()?;
        let mut bucket = Self::new(timestamp(stamp));
        while !rest.is_empty() {
            let (digest, after) = rest.split_first_chunk::<16>()?;
            let (at, after) = after.split_first_chunk::<8>()?;
            let (until, after) = after.split_first_chunk::<8>()?;
            bucket.entries.push(Entry { digest: *digest, at: timestamp(at), until: timestamp(until) });
            rest = after;
        }
        Some(bucket)
    }

    /// The bytes of [`Self::parse`].
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut value = vec![VERSION];
        value.extend(self.stamp.as_nanos().to_le_bytes());
        for Entry { digest, at, until } in &self.entries {
            value.extend(digest);
            value.extend(at.as_nanos().to_le_bytes());
            value.extend(until.as_nanos().to_le_bytes());
        }
        value
    }

    /// The time of the entry with this digest.
    pub(super) fn find(&self, digest: &[u8; 16]) -> Option<Timestamp> {
        self.entries.iter().find(|entry| entry.digest == *digest).map(|entry| entry.at)
    }

    /// Adds an entry, in the place of the one with its digest if there is one.
    pub(super) fn insert(&mut self, entry: Entry, now: Timestamp) {
        let Self { stamp, entries } = self;
        entries.retain(|other| other.digest != entry.digest);
        // One whose time is over leaves a trace too: where times were made longer since, what it
        // stood for might count again. It costs nothing otherwise.
        let over = |entry: &&Entry| entry.until < now;
        *stamp = entries.iter().filter(over).map(|entry| entry.at).fold(*stamp, Timestamp::max);
        entries.retain(|entry| entry.until >= now);
        while entries.len() >= PLACES
            && let Some((earliest, _)) = entries.iter().enumerate().min_by_key(|(_, entry)| entry.at)
        {
            *stamp = entries.swap_remove(earliest).at.max(*stamp);
        }
        entries.push(entry);
    }
}

/// Places of a bucket.
pub(super) const PLACES: usize = 8;

/// The longest value: all places with what is around them, and a seal.
pub(super) const MAX_VALUE: usize = PLACES * 32 + 32;
