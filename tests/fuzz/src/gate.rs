//! A gate with one request: what the targets for single readers share.

use avnology_gate::config;
use avnology_gate::flow::{Engine, NoStore, Output, RootId, Seed, SharedStore, Step, StreamId};
use avnology_gate::http::head::{RequestHead, normalized_eq};
use avnology_gate::http::{Callout, Edit, LocalReply, Response};
use avnology_gate::time::Timestamp;
use avnology_gate::verdict::{Action, Verdict};
use serde_json::{Value, json};
use std::rc::Rc;

pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);
pub(crate) const ROOT: RootId = RootId(1);
const STREAM: StreamId = StreamId(7);

/// Names and values, as the host holds them.
pub(crate) type Headers = Vec<(Vec<u8>, Vec<u8>)>;

/// What the provider says.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Vec<u8>>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, retry_after: None, body: body.into() }
    }

    pub(crate) fn active() -> Self {
        Self::ok(r#"{"active":true,"sub":"u"}"#)
    }
}

/// What a request led to.
pub(crate) struct Seen {
    pub(crate) verdict: Verdict,
    /// The head after all edits.
    pub(crate) head: Headers,
    /// What the provider was asked.
    pub(crate) callouts: Vec<Callout>,
}

impl Seen {
    pub(crate) fn passes(&self) -> bool {
        matches!(self.verdict.action(), Action::Forward(_))
    }

    pub(crate) fn reason(&self) -> &'static str {
        self.verdict.event().reason().id()
    }

    /// The only value under this name.
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        let mut values = self.head.iter().filter(|(n, _)| n == name.as_bytes());
        let value = values.next().map(|(_, value)| value.as_slice());
        assert!(values.next().is_none(), "{name} stands twice");
        value
    }

    pub(crate) fn reply(&self) -> Option<&LocalReply> {
        match self.verdict.action() {
            Action::Forward(_) => None,
            Action::Respond { reply, .. } => Some(reply),
        }
    }
}

/// A document with a provider that is not probed, and these members beside it.
pub(crate) fn document(members: Value) -> Value {
    let mut document = json!({
        "provider": {
            "cluster": "avnology", "authority": "id.example", "retries": 0, "circuit_breaker": "off",
            "tracestate": true,
            "introspection": {"credentials": {"method": "none"}},
            "permissions": {"api_key": "key"}
        }
    });
    for (name, value) in members.as_object().expect("members") {
        document[name] = value.clone();
    }
    document
}

/// A gate with this document.
pub(crate) fn gate(document: &Value) -> Engine {
    gate_with(document, Rc::new(NoStore))
}

pub(crate) fn gate_with(document: &Value, store: Rc<dyn SharedStore>) -> Engine {
    let loaded = match config::load(document.to_string().as_bytes(), &|_| None) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{problems}"),
    };
    let mut engine = Engine::new(Seed([1; 16]), store);
    engine.configure(ROOT, loaded, NOW);
    while engine.poll().is_some() {}
    engine
}

/// A request's head with these headers beside what every request has.
pub(crate) fn head(method: &str, path: &[u8], headers: &[(&str, &[u8])]) -> Headers {
    let all = [(":method", method.as_bytes()), (":path", path), (":authority", b"api.example")];
    let all = all.into_iter().chain(headers.iter().copied());
    all.map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect()
}

/// A request without a body, decided.
pub(crate) fn decide(
    engine: &mut Engine,
    mut head: Headers,
    answer: &mut dyn FnMut(&Callout) -> Reply,
) -> Seen {
    let mut callouts = Vec::new();
    let sent = head.clone();
    let mut verdict = match engine.begin(STREAM, ROOT, &borrowed(&sent, true), NOW) {
        Step::Decided(verdict) => Some(verdict),
        Step::Wait => None,
        step => panic!("{step:?} for a request that has ended"),
    };
    while let Some(output) = engine.poll() {
        match output {
            Output::Dispatch { flight, callout, .. } => {
                let reply = answer(&callout);
                callouts.push(callout);
                let retry_after = reply.retry_after.as_deref();
                let response = Response { status: reply.status, retry_after, body: &reply.body };
                engine.landed(flight, Ok(response), NOW);
            }
            Output::Decide { verdict: decided, .. } => {
                assert!(verdict.replace(decided).is_none(), "decided twice");
            }
            Output::Edit { edits, .. } => apply(&edits, &mut head),
            Output::Measure { .. } | Output::Metric { .. } | Output::Log { .. } => {}
        }
    }
    engine.gone(STREAM);
    let verdict = verdict.expect("every request is decided");
    let (Action::Forward(edits) | Action::Respond { edits, .. }) = verdict.action();
    apply(edits, &mut head);
    check_answer(&verdict, &sent);
    Seen { verdict, head, callouts }
}

pub(crate) fn borrowed(head: &Headers, end_of_stream: bool) -> RequestHead<'_> {
    let pairs = head.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
    RequestHead::new(pairs, end_of_stream)
}

/// Applies edits as a host does; one that a host would misread is wrong.
pub(crate) fn apply(edits: &[Edit], head: &mut Headers) {
    let is = |name: &[u8], other: &[u8]| name.eq_ignore_ascii_case(other);
    for edit in edits {
        match edit {
            Edit::Remove(name) => {
                assert!(!name.starts_with(b":"), "a pseudo-header is removed: {}", name.escape_ascii());
                head.retain(|(other, _)| !is(other, name));
            }
            Edit::Add(name, value) => add(head, name, value),
            Edit::AddAll(all) => all.iter().for_each(|(name, value)| add(head, name, value)),
            Edit::Replace(name, value) => {
                assert!(is_writable(value), "{} cannot be written", name.escape_ascii());
                head.retain(|(other, _)| !is(other, name));
                head.push((name.clone(), value.clone()));
            }
        }
    }
}

/// INVARIANT: what the gate adds stands beside nothing that a service could read in its place.
fn add(head: &mut Headers, name: &[u8], value: &[u8]) {
    let is_cookie = name == b"cookie";
    let twin = head.iter().find(|(other, _)| !is_cookie && normalized_eq(other, name));
    assert!(twin.is_none(), "{} goes in beside {:?}", name.escape_ascii(), twin.map(|(n, _)| n));
    // What is kept of a client's own cookie is the client's.
    assert!(is_cookie || is_writable(value), "{} cannot be written", name.escape_ascii());
    head.push((name.to_vec(), value.to_vec()));
}

fn is_writable(value: &[u8]) -> bool {
    !value.iter().any(|b| matches!(b, 0 | b'\r' | b'\n'))
}

/// What holds of every answer of the gate's own.
pub(crate) fn check_answer(verdict: &Verdict, sent: &Headers) {
    let Action::Respond { reply, .. } = verdict.action() else { return };
    assert!((200..=599).contains(&reply.status), "{}", reply.status);
    for (name, value) in &reply.headers {
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name:?}");
        assert!(value.bytes().all(|b| (b' '..=b'~').contains(&b)), "{value:?}");
    }
    let kind = sent.iter().find(|(name, _)| name == b"content-type").map(|(_, value)| value.as_slice());
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    let is_grpc = rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'+');
    let is_known = verdict.event().reason().id() != "internal";
    assert!(!is_known || reply.grpc_status.is_some() == is_grpc, "{:?}", reply.grpc_status);
}
