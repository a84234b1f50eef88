//! The provider and the service of these scenarios: they do little, quickly, and count.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::control::until;
use serde_json::Value;

use crate::stub::{Does, Request, Serve, Stub, lock, reply};

/// How long a held answer waits for its release at most.
const HELD: Duration = Duration::from_secs(60);

/// What is known of a token, which its name says: `tok_7_profile` is active and user 7's, with that
/// scope, or those between dots; every other name is inactive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    number: u64,
    scope: String,
}

impl Identity {
    /// What a token's name says.
    pub(crate) fn of(token: &str) -> Option<Self> {
        let (number, scope) = token.strip_prefix("tok_")?.split_once('_')?;
        Some(Self { number: number.parse().ok()?, scope: scope.replace('.', " ") })
    }

    /// Whether it has this scope.
    pub(crate) fn holds(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|held| held == scope)
    }

    /// The introspection's answer.
    fn json(&self) -> String {
        let Self { number, scope } = self;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        format!(
            r#"{{"active":true,"sub":"usr_{number}","client_id":"cli_{}","org_id":"org_{}","scope":"{scope}","token_type":"Bearer","exp":{}}}"#,
            number % 3,
            number % 7,
            now + 3600
        )
    }

    /// The headers that the service must see, a line each, in order.
    pub(crate) fn lines(&self) -> String {
        let Self { number, scope } = self;
        format!(
            "x-avnology-client-id: cli_{}\nx-avnology-org-id: org_{}\nx-avnology-scopes: {scope}\nx-avnology-user-id: usr_{number}\n",
            number % 3,
            number % 7
        )
    }
}

/// How the provider behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It answers.
    Well,
    /// 500.
    Broken,
    /// It answers so late.
    Slow(Duration),
    /// It answers when it is well again.
    Held,
    /// It resets the connection within the answer's body.
    Cut,
    /// 429, with so many seconds to wait.
    TooMany(u64),
}

/// Who asks, which the name of the token or object says: it may behave differently to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Clients.
    Anybody,
    /// A client who knows names on which it fails: they begin with `poison`.
    Poisoner,
    /// The gate, with its probe.
    Probe,
}

impl Asker {
    fn of(name: &str) -> Self {
        let name = name.strip_prefix("avnl_ses_").unwrap_or(name);
        match () {
            () if name.starts_with("avnology-gate-probe-") => Self::Probe,
            () if name.starts_with("poison") => Self::Poisoner,
            () => Self::Anybody,
        }
    }
}

/// What it has been asked.
struct State {
    /// By [`Asker`].
    moods: [Mood; 3],
    /// Tokens that are answered well, whatever the mood.
    spared: BTreeSet<String>,
    /// Tokens and objects to which it says no.
    revoked: BTreeSet<String>,
    /// By token or object.
    calls: HashMap<String, u64>,
    introspections: u64,
    probes: u64,
    /// Calls with wrong credentials, or of unknown paths.
    strange: u64,
}

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

/// A provider at work.
pub(crate) struct Provider {
    pub(crate) stub: Stub,
    inner: Arc<Inner>,
}

impl Provider {
    pub(crate) fn start() -> Result<Self, String> {
        let state = State {
            moods: [Mood::Well; 3],
            spared: BTreeSet::new(),
            revoked: BTreeSet::new(),
            calls: HashMap::new(),
            introspections: 0,
            probes: 0,
            strange: 0,
        };
        let inner = Arc::new(Inner { state: Mutex::new(state), changed: Condvar::new() });
        let serve: Arc<dyn Serve> = Arc::<Inner>::clone(&inner);
        Ok(Self { stub: Stub::start(serve)?, inner })
    }

    /// Changes how it behaves to clients; what was held is answered when it is well.
    pub(crate) fn mood(&self, mood: Mood) {
        self.mood_to(Asker::Anybody, mood);
    }

    /// Changes how it behaves to whoever asks.
    pub(crate) fn mood_to_all(&self, mood: Mood) {
        lock(&self.inner.state).moods = [mood; 3];
        self.inner.changed.notify_all();
    }

    /// Changes how it behaves to some.
    pub(crate) fn mood_to(&self, asker: Asker, mood: Mood) {
        lock(&self.inner.state).moods[asker as usize] = mood;
        self.inner.changed.notify_all();
    }

    /// Says no to this token or object from now on.
    pub(crate) fn revoke(&self, name: &str) {
        lock(&self.inner.state).revoked.insert(name.to_owned());
    }

    /// Answers this token well from now on.
    pub(crate) fn spare(&self, token: &str) {
        lock(&self.inner.state).spared.insert(token.to_owned());
    }

    /// How many introspections there were, without probes.
    pub(crate) fn introspections(&self) -> u64 {
        lock(&self.inner.state).introspections
    }

    /// How many probes there were.
    pub(crate) fn probes(&self) -> u64 {
        lock(&self.inner.state).probes
    }

    /// How many calls about this token or object there were.
    pub(crate) fn of(&self, token: &str) -> u64 {
        lock(&self.inner.state).calls.get(token).copied().unwrap_or(0)
    }

    /// How many calls were none that the gate should make.
    pub(crate) fn strange(&self) -> u64 {
        lock(&self.inner.state).strange
    }

    /// Waits until there are more introspections than so many.
    pub(crate) fn more_than(&self, count: u64) -> Result<(), String> {
        until(|| Ok(self.introspections() > count))
            .map_err(|error| format!("the provider is not asked: {error}"))
    }
}

impl Inner {
    /// Waits until the mood is another one, or for so long.
    fn wait(&self, asker: Asker, mood: Mood, time: Duration) {
        let end = Instant::now() + time;
        let state = lock(&self.state);
        let left = end.saturating_duration_since(Instant::now());
        drop(
            self.changed
                .wait_timeout_while(state, left, |state| state.moods[asker as usize] == mood)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Counts a question about a token or an object. Whether it was revoked.
    fn count(&self, name: &str, asker: Asker, is_introspection: bool, is_strange: bool) -> bool {
        let mut state = lock(&self.state);
        state.strange += u64::from(is_strange);
        if asker == Asker::Probe {
            state.probes += 1;
        } else {
            state.introspections += u64::from(is_introspection);
            *state.calls.entry(name.to_owned()).or_default() += 1;
        }
        state.revoked.contains(name)
    }

    /// Does what the mood says, with the answer that would be a good one.
    fn moody(&self, name: &str, asker: Asker, good: &str) -> Does {
        let mood = {
            let state = lock(&self.state);
            if state.spared.contains(name) { Mood::Well } else { state.moods[asker as usize] }
        };
        match mood {
            Mood::Well => {}
            Mood::Slow(time) => self.wait(asker, mood, time),
            Mood::Held => self.wait(asker, mood, HELD),
            Mood::Broken => return Does::Answers(reply("500 Internal Server Error", "", "{}")),
            Mood::Cut => {
                let whole = reply("200 OK", "", good);
                return Does::Breaks(whole[..whole.len() - good.len() / 2].to_vec());
            }
            Mood::TooMany(seconds) => {
                let body = r#"{"error":{"code":"AVNOLOGY_AUTH_021"}}"#;
                let wait = format!("retry-after: {seconds}\r\n");
                return Does::Answers(reply("429 Too Many Requests", &wait, body));
            }
        }
        Does::Answers(reply("200 OK", "", good))
    }
}

impl Serve for Inner {
    fn answer(&self, request: &Request<'_>) -> Does {
        let body = std::str::from_utf8(request.body).unwrap_or_default();
        match request.path() {
            "/oauth2/introspect" => {
                // Tokens here hold nothing that a form writes otherwise.
                let member = |name: &str| {
                    let mut pairs = body.split('&').filter_map(|pair| pair.split_once('='));
                    pairs.find(|(key, _)| *key == name).map_or("", |(_, value)| value)
                };
                let token = member("token");
                let asker = Asker::of(token);
                let is_revoked = self.count(token, asker, true, member("client_id") != "cli_gate");
                match Identity::of(token).filter(|_| !is_revoked) {
                    Some(identity) => self.moody(token, asker, &identity.json()),
                    None => self.moody(token, asker, r#"{"active":false}"#),
                }
            }
            "/v1/permissions:check" => {
                let check: Value = serde_json::from_str(body).unwrap_or_default();
                let object = check["object"].as_str().unwrap_or_default();
                let asker = Asker::of(object);
                let is_revoked = self.count(object, asker, false, object.is_empty());
                let is_allowed = !is_revoked && asker != Asker::Probe;
                self.moody(object, asker, &format!(r#"{{"allowed":{is_allowed}}}"#))
            }
            _ => {
                lock(&self.state).strange += 1;
                Does::Answers(reply("404 Not Found", "", "{}"))
            }
        }
    }
}

/// The service: it answers with the headers of the gate's that it saw, a line each, in order.
pub(crate) struct Service;

impl Serve for Service {
    fn answer(&self, request: &Request<'_>) -> Does {
        let of_the_gate = |(name, _): &(&str, &str)| name.starts_with("x-avnology-");
        let mut lines: Vec<String> =
            request.headers().filter(of_the_gate).map(|(name, value)| format!("{name}: {value}\n")).collect();
        lines.sort();
        Does::Answers(reply("200 OK", "", &lines.concat()))
    }
}
