//! Clients that send requests without pause while something happens to the containers, and what
//! they saw.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::client::{Answer, Ask, Connection, Version};
use harness::corpus::WEBHOOK_SECRET;
use harness::standin;

/// How long a client waits before it gives up.
const PATIENCE: Duration = Duration::from_secs(8);

/// The host of all requests.
pub(crate) const HOST: &str = "api.example.com";

/// What a client requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A request with a token, decided by one callout.
    Token(&'static str),
    /// A request with a token, decided by two callouts, one after the other.
    Permission,
    /// A signed webhook: the provider is not asked.
    Webhook,
    /// A request without a token: the provider is not asked either.
    Nobody,
    /// A GET of this path with a token.
    Path(&'static str, &'static str),
}

/// One request and its result.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) kind: Kind,
    /// When it was sent, from the beginning of the load.
    pub(crate) at: Duration,
    pub(crate) took: Duration,
    /// The answer, or why there is none.
    pub(crate) came: Result<Answer, String>,
    /// Whether it was the first request of its connection.
    pub(crate) fresh: bool,
}

impl Seen {
    pub(crate) fn status(&self) -> Option<u16> {
        self.came.as_ref().ok().map(|answer| answer.status)
    }
}

impl Kind {
    fn ask(self) -> Ask {
        match self {
            Self::Token(token) => Ask::new("GET", "/api/profile", HOST).bearer(token),
            Self::Permission => Ask::new("PUT", "/api/projects/proj_1", HOST).bearer("tok_alice").body("{}"),
            Self::Webhook => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let body = r#"{"type":"user.created"}"#;
                Ask::new("POST", "/webhooks/avnology", HOST)
                    .header("x-avnology-timestamp", now.to_string())
                    .header("x-avnology-signature", standin::sign(WEBHOOK_SECRET, now, body.as_bytes()))
                    .body(body)
            }
            Self::Nobody => Ask::new("GET", "/api/profile", HOST),
            Self::Path(path, token) => Ask::new("GET", path, HOST).bearer(token),
        }
    }
}

/// Running clients. Dropping this stops them.
pub(crate) struct Load {
    began: Instant,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Seen>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts one client per entry, each with a connection of its own and this pause between its
    /// requests.
    pub(crate) fn start(gate: SocketAddr, clients: &[(Kind, Version)], pause: Duration) -> Self {
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<Seen>>>::default());
        let began = Instant::now();
        let clients = clients
            .iter()
            .map(|(kind, version)| {
                let (kind, version) = (*kind, *version);
                let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
                std::thread::spawn(move || {
                    let mut connection = None;
                    while !stop.load(Ordering::Relaxed) {
                        let one = once(gate, kind, version, &mut connection, began);
                        seen.lock().unwrap_or_else(PoisonError::into_inner).push(one);
                        std::thread::sleep(pause);
                    }
                })
            })
            .collect();
        Self { began, stop, seen, clients }
    }

    /// How long it has been running.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Lets it run for this long.
    pub(crate) fn hold(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// What was seen so far.
    pub(crate) fn so_far(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops the clients after their current requests, and returns what they saw.
    pub(crate) fn end(mut self) -> Vec<Seen> {
        self.halt();
        let mut seen = self.so_far();
        seen.sort_by_key(|seen| seen.at);
        seen
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            // A client that panicked has already printed why.
            let _ = client.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Sends one request, on the existing connection or on a new one.
fn once(
    gate: SocketAddr,
    kind: Kind,
    version: Version,
    held: &mut Option<Connection>,
    began: Instant,
) -> Seen {
    let at = began.elapsed();
    let fresh = held.is_none();
    let came = (|| {
        let mut connection = match held.take() {
            Some(connection) => connection,
            None => Connection::open(gate, version).map_err(|error| format!("no connection: {error}"))?,
        };
        connection.send(&kind.ask()).map_err(|failure| failure.to_string())?;
        let answer = connection.answer(PATIENCE).map_err(|failure| failure.to_string())?;
        let closes = answer.values("connection").iter().any(|value| value.eq_ignore_ascii_case("close"));
        if !closes && !connection.leaving() {
            *held = Some(connection);
        }
        Ok(answer)
    })();
    Seen { kind, at, took: began.elapsed() - at, came, fresh }
}

/// How often each result occurred: a status, or an error message.
pub(crate) fn counts<'s>(seen: impl IntoIterator<Item = &'s Seen>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for seen in seen {
        let what = match &seen.came {
            Ok(answer) => answer.status.to_string(),
            Err(problem) => problem.clone(),
        };
        *counts.entry(what).or_default() += 1;
    }
    counts
}

/// The counts on one line.
pub(crate) fn report(counts: &BTreeMap<String, usize>) -> String {
    counts.iter().map(|(what, count)| format!("{what} ×{count}")).collect::<Vec<_>>().join(", ")
}
