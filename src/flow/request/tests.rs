//! The states alone: no engine, no streams, no ticks.

use super::*;
use crate::breaker::{CallOutcome, ProbeOutcome, Purpose};
use crate::claims::TokenInfo;
use crate::config;
use crate::flow::bodies::Body;
use crate::flow::calls::Calls;
use crate::flow::facts::{CachedFact, Facts};
use crate::flow::health::{Health, Sending};
use crate::flow::limits::Limits;
use crate::flow::outputs::Outputs;
use crate::flow::query::Question;
use crate::flow::requests::Requests;
use crate::flow::services::Asking;
use crate::flow::timers::Timers;
use crate::flow::triage::{Triage, triage};
use crate::flow::{NoStore, Output, RootId, Seed, StreamId};
use crate::http::head::head_of;
use crate::refusal::DeniedCheck;
use crate::refusal::{Denial, Flaw, Outage};
use crate::telemetry::Labels;
use std::rc::Rc;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

/// The rooms that a step may use.
struct Rooms {
    facts: Facts,
    calls: Calls,
    health: Health,
    timers: Timers,
    outputs: Outputs,
    requests: Requests,
}

impl Rooms {
    fn new(limits: Limits) -> Self {
        Self {
            facts: Facts::new(Seed([7; 16]), Rc::new(NoStore)),
            calls: Calls::new(limits),
            health: Health::new(Seed([7; 16])),
            timers: Timers::default(),
            outputs: Outputs::new(Rc::new(NoStore)),
            requests: Requests::new(limits),
        }
    }

    fn services(&mut self) -> Services<'_> {
        let Self { facts, calls, health, timers, outputs, requests } = self;
        let asking = Asking { calls, health, timers, outputs };
        Services::new((StreamId(1), RootId(1)), NOW, facts, asking, requests.counts())
    }

    /// As if calls to every endpoint had failed, and so many of its probes after them.
    fn failing(probes: u32) -> Self {
        let mut rooms = Self::new(Limits::default());
        let Self { health, timers, outputs, .. } = &mut rooms;
        let (policy, mut sending) = (policy(), Sending { timers, outputs });
        health.configure(RootId(1), &policy.probes, &mut Labels::default(), &mut sending, NOW);
        for probe in &policy.probes {
            let endpoint = probe.endpoint().fingerprint();
            health.on_start(endpoint, &mut sending, NOW);
            let end = (CallOutcome::Failed, NOW, Purpose::NewToken);
            health.on_end(endpoint, end, false, &mut sending, NOW);
        }
        for _ in 0..probes {
            let sent: Vec<_> = std::iter::from_fn(|| sending.outputs.poll()).collect();
            for output in sent {
                let Output::Dispatch { flight, .. } = output else { continue };
                health.land(flight, ProbeOutcome::Failed, false, &mut sending, NOW);
            }
        }
        while sending.outputs.poll().is_some() {}
        rooms
    }

    /// How many callouts were asked for.
    fn asked(&mut self) -> usize {
        std::iter::from_fn(|| self.outputs.poll())
            .filter(|output| matches!(output, Output::Dispatch { flight, .. } if !flight.is_probe()))
            .count()
    }
}

fn policy() -> Arc<crate::policy::Policy> {
    compiled(&document())
}

fn compiled(document: &serde_json::Value) -> Arc<crate::policy::Policy> {
    Arc::new(config::load(document.to_string().as_bytes(), &|_| None).unwrap().policy)
}

fn document() -> serde_json::Value {
    serde_json::json!({
        "provider": {
            "cluster": "avnology", "authority": "id.example", "timeout": "1s",
            "introspection": {"credentials": {"method": "none"}}, "permissions": {"api_key": "key"}
        },
        "routes": [
            {"match": {"path": "/token"}},
            {"match": {"path": "/check"}, "require": {"permissions": {
                "all": [{"relation": "a", "object": "x:1"}, {"relation": "b", "object": "x:1"}]}}},
            {"match": {"path": "/open/{id}"}, "on_provider_error": "allow",
             "require": {"permissions": {"any": [{"relation": "a", "object": "x:{path.id}"}]}}},
            {"match": {"path": "/hook"}, "webhook": "hook"}
        ],
        "webhooks": {"hook": {
            "format": "avnology", "secrets": ["a webhook key of enough bytes"],
            "body_only": true, "max_body_bytes": 8, "body_timeout": "3s"}}
    })
}

/// A request up to the point at which its token is looked up.
fn bearer(path: &str) -> (Bearer, crate::secret::Token) {
    bearer_of(policy(), path)
}

fn bearer_of(policy: Arc<crate::policy::Policy>, path: &str) -> (Bearer, crate::secret::Token) {
    let headers =
        [(":method", "GET"), (":path", path), (":authority", "api.example"), ("authorization", "Bearer t")];
    let (context, found) = triage(policy, &head_of(&headers, true), NOW);
    let Triage::Introspect(token, rules, inputs) = found else { panic!("a token route") };
    (Bearer::new(context, rules, inputs, NOW), token)
}

fn receiving(services: &Services<'_>) -> Next {
    let signature = "0".repeat(64);
    let headers = [
        (":method", "POST"),
        (":path", "/hook"),
        (":authority", "api.example"),
        ("x-avnology-signature", &signature),
    ];
    let head = head_of(&headers, false);
    let (context, found) = triage(policy(), &head, NOW);
    let Triage::Receive(verification, webhook) = found else { panic!("a webhook") };
    let body = Body::new(&context.policy, &webhook, &head, NOW);
    Receiving::new(context, webhook, verification, body, NOW).start(services)
}

fn active() -> Result<CachedFact<TokenInfo>, Refusal> {
    let info = TokenInfo::parse(br#"{"active":true,"sub":"u"}"#).unwrap();
    Ok(CachedFact::fresh(Some(info), NOW))
}

fn outage() -> Refusal {
    Outage::Unreachable.into()
}

/// What a step decided: the refusal, or how it passes.
fn decided(next: Next) -> Result<&'static str, Refusal> {
    match next {
        Next::Decided(_, Ok(Passage::Permit(_))) => Ok("permit"),
        Next::Decided(_, Ok(Passage::FailOpen(_))) => Ok("fail open"),
        Next::Decided(_, Err(refusal)) => Err(refusal),
        Next::Wait(_) => Ok("waits"),
        Next::NeedBody(_) => Ok("needs its body"),
        Next::NeedEnd(_) => Ok("needs its end"),
    }
}

fn introspecting(path: &str, rooms: &mut Rooms) -> Introspecting {
    let (bearer, token) = bearer(path);
    match Introspecting::start(bearer, &token, &mut rooms.services()) {
        Next::Wait(Request::Introspecting(state)) => state,
        next => panic!("{:?}", decided(next)),
    }
}

fn checking(path: &str, rooms: &mut Rooms) -> Checking {
    match introspecting(path, rooms).resume(active(), &mut rooms.services()) {
        Next::Wait(Request::Checking(state)) => state,
        next => panic!("{:?}", decided(next)),
    }
}

#[test]
fn an_answer_about_the_token_decides_or_leads_to_the_checks() {
    let cases = [
        ("/token", active(), Ok("permit")),
        ("/token", Ok(CachedFact::fresh(None, NOW)), Err(Denial::TokenInactive.into())),
        ("/token", Err(outage()), Err(outage())),
        ("/check", active(), Ok("waits")),
        ("/open/1", Err(outage()), Err(outage())),
        ("/open/1", Err(Flaw::of_body("").into()), Err(Flaw::of_body("").into())),
    ];
    for (path, answer, expected) in cases {
        let mut rooms = Rooms::new(Limits::default());
        let state = introspecting(path, &mut rooms);
        assert_eq!(rooms.asked(), 1, "{path}");
        assert_eq!(decided(state.resume(answer, &mut rooms.services())), expected, "{path}");
    }
}

/// The document with a webhook whose events end what is known.
fn evicting() -> serde_json::Value {
    let mut document = document();
    document["provider"]["introspection"] =
        serde_json::json!({"credentials": {"method": "bearer", "token": "a-token-of-ours"}});
    let webhook = &mut document["webhooks"]["hook"];
    (webhook["body_only"], webhook["replay"], webhook["evict"]) =
        (false.into(), serde_json::json!({}), true.into());
    document
}

#[test]
fn a_token_that_is_kept_while_its_request_waits_counts() {
    let mut rooms = Rooms::new(Limits::default());
    let mut parked = |document: &serde_json::Value| {
        let (bearer, _) = bearer_of(compiled(document), "/token");
        let token = crate::secret::Token::new("t".repeat(8000));
        match Introspecting::start(bearer, &token, &mut rooms.services()) {
            Next::Wait(request) => request.taken().parked_bytes,
            next => panic!("{:?}", decided(next)),
        }
    };
    assert_eq!(parked(&evicting()), parked(&document()) + 8000);
}

#[test]
fn a_clock_that_is_set_back_makes_nobody_ask_again_and_again() {
    let document = evicting();
    let mut rooms = Rooms::new(Limits::default());
    let (bearer, token) = bearer_of(compiled(&document), "/token");
    let subjects = bearer.rules.subjects.clone().unwrap();
    rooms.facts.evict(&subjects, "u", NOW).unwrap();
    let next = Introspecting::start(bearer, &token, &mut rooms.services());
    let Next::Wait(mut request) = next else { panic!("{:?}", decided(next)) };
    let step = Duration::from_secs(3600);
    let answer = || {
        let info = TokenInfo::parse(br#"{"active":true,"sub":"u"}"#).unwrap();
        Ok(CachedFact::fresh(Some(info), NOW.saturating_sub(step)))
    };
    let Request::Introspecting(before) = request.clone() else { panic!("asks about its token") };
    assert_eq!(
        decided(before.resume(answer(), &mut rooms.services())),
        Ok("waits"),
        "asked for before it came"
    );
    request.set_back(step);
    let Request::Introspecting(after) = request else { panic!("asks about its token") };
    assert_eq!(decided(after.resume(answer(), &mut rooms.services())), Ok("permit"));
}

#[test]
fn a_route_that_opens_does_so_when_the_probes_have_shown_that_the_provider_is_away() {
    let open = |path, rooms: &mut Rooms| {
        let (bearer, token) = bearer(path);
        let rules = Arc::clone(&bearer.rules);
        let query = crate::flow::query::ProviderQuery::token(&rules, &token, Seed([7; 16]));
        let unanswered = Unanswered::Token(query.question());
        bearer.fail(outage(), query.endpoint(), unanswered, &mut rooms.services())
    };
    for (probes, expected) in [(0, Ok("waits")), (1, Ok("waits")), (2, Ok("fail open"))] {
        assert_eq!(decided(open("/open/1", &mut Rooms::failing(probes))), expected, "{probes}");
        assert_eq!(decided(open("/token", &mut Rooms::failing(probes))), Err(outage()), "{probes}");
    }
    let denied = Err(Denial::UnresolvedTemplate.into());
    assert_eq!(decided(open("/open/a%3Ab", &mut Rooms::failing(2))), denied);
    let mut rooms = Rooms::failing(1);
    let Next::Wait(waiting) = open("/open/1", &mut rooms) else { panic!("waits") };
    let mut services = rooms.services();
    services.now = waiting.deadline(NOW);
    assert_eq!(decided(waiting.time_out(&mut services)), Err(outage()), "not beyond its time");
}

#[test]
fn the_time_is_up_is_an_answer() {
    let mut rooms = Rooms::new(Limits::default());
    let timeout = || Err(Refusal::from(Outage::Timeout));
    let waiting = Request::Introspecting(introspecting("/token", &mut rooms));
    assert_eq!(waiting.deadline(NOW), NOW.saturating_add(Duration::from_secs(2)));
    assert_eq!(decided(waiting.time_out(&mut rooms.services())), timeout());
    let waiting = Request::Checking(checking("/check", &mut rooms));
    assert_eq!(decided(waiting.time_out(&mut rooms.services())), timeout());
    let waiting = Request::Checking(checking("/open/1", &mut rooms));
    assert_eq!(decided(waiting.time_out(&mut rooms.services())), timeout(), "nothing says it is away");
    let Next::NeedBody(state) = receiving(&rooms.services()) else { panic!("receives") };
    let waiting = Request::Receiving(state);
    assert_eq!(waiting.deadline(NOW), NOW.saturating_add(Duration::from_secs(2)), "to begin");
    assert_eq!(decided(waiting.time_out(&mut rooms.services())), Err(Denial::BodyTimeout.into()));
}

#[test]
fn checks_wait_until_their_answers_are_decisive() {
    use crate::permission::CheckIndex::All;
    let mut rooms = Rooms::new(Limits::default());
    let key = crate::hash::FactKey::of(Seed([0; 16]), []);
    let endpoint = Fingerprint::of(&[]);
    let question = &Question { key, shared_key: None, endpoint, subject: None };
    let first = checking("/check", &mut rooms);
    assert_eq!(rooms.asked(), 3, "the token and both permissions");
    let Next::Wait(Request::Checking(second)) =
        first.clone().resume(All(0), question, Ok(true), NOW, &mut rooms.services())
    else {
        panic!("waits for the other")
    };
    let granted = second.clone().resume(All(1), question, Ok(true), NOW, &mut rooms.services());
    assert_eq!(decided(granted), Ok("permit"));
    let denied = second.resume(All(1), question, Ok(false), NOW, &mut rooms.services());
    assert_eq!(decided(denied), Err(Denial::PermissionDenied(DeniedCheck::All(1)).into()));
    let denied = first.resume(All(1), question, Ok(false), NOW, &mut rooms.services());
    assert_eq!(
        decided(denied),
        Err(Denial::PermissionDenied(DeniedCheck::All(1)).into()),
        "without the other answer"
    );
}

#[test]
fn a_body_is_hashed_as_far_as_the_host_holds_it() {
    let limits = Limits { held_bytes: 6, ..Limits::default() };
    let mut rooms = Rooms::new(limits);
    let Next::NeedBody(started) = receiving(&rooms.services()) else { panic!("there is room") };
    let start = || started.clone();
    let mut body = |state: Receiving, received, is_complete, handed: usize| {
        let mut fetch = |_, _| Some(vec![0; handed]);
        state.body(BodyProgress { received, is_complete, fetch: &mut fetch }, &mut rooms.services())
    };
    let internal = Err(Unusable::Internal.into());
    assert_eq!(decided(body(start(), 9, false, 9)), Err(Denial::BodyTooLarge.into()));
    assert_eq!(decided(body(start(), 7, false, 7)), Err(Unusable::BodyMemory.into()));
    assert_eq!(decided(body(start(), 4, true, 4)), Err(Denial::InvalidSignature.into()));
    assert_eq!(decided(body(start(), 4, false, 3)), internal, "fewer bytes than it says");
    let Next::NeedBody(state) = body(start(), 0, false, 0) else { panic!("nothing has come") };
    assert_eq!(state.deadline(), NOW.saturating_add(Duration::from_secs(2)));
    let Next::NeedBody(state) = body(start(), 4, false, 4) else { panic!("more is to come") };
    assert_eq!(state.deadline(), NOW.saturating_add(Duration::from_secs(3)), "it has begun");
    assert_eq!(decided(body(state, 3, false, 0)), internal, "the host has let bytes go");
}

#[test]
fn a_request_whose_root_has_ended_is_refused_and_never_opened() {
    let mut rooms = Rooms::new(Limits::default());
    let waiting = [
        Request::Introspecting(introspecting("/open/1", &mut rooms)),
        Request::Checking(checking("/open/1", &mut rooms)),
    ];
    for request in waiting {
        assert_eq!(decided(request.abandon()), Err(Unusable::Internal.into()));
    }
}
