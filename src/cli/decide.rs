//! Decides a request with the core itself, and answers its calls.

use avnology_gate::config::Loaded;
use avnology_gate::envoy::header_map;
use avnology_gate::flow::{Engine, NoStore, Output, RootId, Seed, Step, StreamId};
use avnology_gate::http::head::RequestHead;
use avnology_gate::http::{Callout, Edit, Response};
use avnology_gate::time::Timestamp;
use avnology_gate::verdict::{Action, Verdict};
use serde_json::{Value, json};
use std::rc::Rc;

/// A request's head.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    has_body: bool,
}

/// What the provider is taken to say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    /// The members of the answer about the token.
    pub(crate) claims: Option<Value>,
    /// Whether every permission check is granted.
    pub(crate) permissions: Option<bool>,
}

/// A call to the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// Where it goes.
    pub(crate) cluster: String,
    /// Its method.
    pub(crate) method: &'static str,
    /// Its path.
    pub(crate) path: String,
    /// The permission check, if it is one.
    pub(crate) check: Option<Value>,
}

/// How a request ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decided {
    /// The calls that are made, in their order.
    pub(crate) calls: Vec<Call>,
    /// What the decision hangs on, if there is none yet.
    pub(crate) open: Option<&'static str>,
    /// `allow`, `deny` and so on; empty if there is none yet.
    pub(crate) decision: &'static str,
    /// The reason's id.
    pub(crate) reason: &'static str,
    /// The route's name.
    pub(crate) route: Option<String>,
    /// The status of a refusal.
    pub(crate) status: Option<u16>,
    /// What is added to the request.
    pub(crate) added: Vec<(String, String)>,
    /// What is taken from it.
    pub(crate) removed: Vec<String>,
}

impl Request {
    /// A request without a body. Names of `headers` in lower case.
    pub(crate) fn new(method: &str, host: &str, path: &str, headers: &[(String, String)]) -> Self {
        let own = [(":method", method), (":scheme", "https"), (":authority", host), (":path", path)];
        let rest = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let bytes = header_map::encode(&own.into_iter().chain(rest).collect::<Vec<_>>());
        Self { bytes, has_body: false }
    }

    /// The same request with a body, which is not known.
    pub(crate) fn with_body(&self) -> Self {
        Self { has_body: true, ..self.clone() }
    }

    /// As the core reads it.
    pub(crate) fn head(&self) -> RequestHead<'_> {
        header_map::request_head(&self.bytes, !self.has_body)
    }
}

/// Decides one request at this time.
pub(crate) fn decide(loaded: Loaded, request: &Request, answers: &Answers, now: Timestamp) -> Decided {
    const ROOT: RootId = RootId(1);
    const STREAM: StreamId = StreamId(2);
    let mut engine = Engine::new(Seed([0; 16]), Rc::new(NoStore));
    engine.configure(ROOT, loaded, now);
    // What a policy asks by itself when it is loaded is no request's.
    while engine.poll().is_some() {}
    let mut decided = Decided::default();
    match engine.begin(STREAM, ROOT, &request.head(), now) {
        Step::Decided(verdict) => decided.settle(&verdict),
        Step::NeedBody => decided.open = Some("the signature of the body"),
        Step::Wait | Step::Continue => {}
    }
    while let Some(output) = engine.poll() {
        match output {
            Output::Dispatch { flight, callout, .. } if !flight.is_probe() => {
                let call = Call::of(&callout);
                let answer = answers.to(&call);
                decided.calls.push(call);
                match answer {
                    Ok(body) => {
                        let response = Response { status: 200, retry_after: None, body: body.as_bytes() };
                        engine.landed(flight, Ok(response), now);
                    }
                    Err(open) => decided.open = Some(open),
                }
            }
            Output::Edit { edits, .. } => decided.apply(&edits),
            Output::Decide { verdict, .. } => {
                decided.open = None;
                decided.settle(&verdict);
            }
            _ => {}
        }
    }
    decided
}

impl Call {
    fn of(callout: &Callout) -> Self {
        let check = serde_json::from_slice(&callout.body).ok();
        let check = check.filter(|body: &Value| body.get("relation").is_some());
        let Callout { cluster, method, path, .. } = callout.clone();
        Self { cluster, method, path, check }
    }
}

impl Answers {
    /// The answer's body, or what is not known.
    fn to(&self, call: &Call) -> Result<String, &'static str> {
        if call.check.is_some() {
            let granted =
                self.permissions.ok_or("the provider's answer about the permission (--permissions)")?;
            return Ok(json!({ "allowed": granted }).to_string());
        }
        let claims = self.claims.as_ref().ok_or("the provider's answer about the token (--claims)")?;
        let mut body = json!({"active": true});
        if let (Some(body), Some(claims)) = (body.as_object_mut(), claims.as_object()) {
            body.extend(claims.clone());
        }
        Ok(body.to_string())
    }
}

impl Decided {
    fn settle(&mut self, verdict: &Verdict) {
        let event = verdict.event();
        self.decision = event.decision().id();
        self.reason = event.reason().id();
        self.route = event.route().map(str::to_owned);
        match verdict.action() {
            Action::Forward(edits) => self.apply(edits),
            Action::Respond { reply, .. } => {
                self.status = Some(reply.status);
            }
        }
    }

    fn apply(&mut self, edits: &[Edit]) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for edit in edits {
            match edit {
                Edit::Remove(name) => self.removed.push(text(name)),
                Edit::Add(name, value) | Edit::Replace(name, value) => {
                    self.added.push((text(name), text(value)));
                }
                Edit::AddAll(all) => {
                    self.added.extend(all.iter().map(|(name, value)| (text(name), text(value))));
                }
            }
        }
    }
}
