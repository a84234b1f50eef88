use super::gate::{Callback, Gate, Phase};
use super::limits::Limits;
use super::store::tests::Map;
use super::*;
use crate::config;
use crate::http::head::{RequestHead, head_of};
use crate::http::{CallFailure, Edit, Response};
use crate::refusal::Reason;
use crate::telemetry::{CacheOutcome, Change, Decision, FactLabel, Series};
use crate::time::Timestamp;
use crate::verdict::Action;
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

const ROOT: RootId = RootId(1);
const STREAM: StreamId = StreamId(7);
const KEY: &str = "a webhook key of enough bytes";

fn engine() -> Engine {
    engine_with(Limits::default())
}

/// Without probes, and so without a route that opens.
fn engine_with(limits: Limits) -> Engine {
    engine_of(limits, "off", "deny")
}

fn engine_of(limits: Limits, breaker: &str, on_provider_error: &str) -> Engine {
    let mut engine = Engine::with_limits(Seed([3; 16]), Rc::new(NoStore), limits);
    engine.configure(ROOT, config::load(&document(breaker, on_provider_error), &|_| None).unwrap(), at(0));
    while engine.poll().is_some() {}
    engine
}

fn document(breaker: &str, on_provider_error: &str) -> Vec<u8> {
    let mut document = serde_json::json!({
        "provider": {
            "cluster": "avnology", "authority": "id.example", "timeout": "1s",
            "circuit_breaker": breaker,
            "introspection": {"credentials": {"method": "none"}}, "permissions": {"api_key": "key"}
        },
        "routes": [
            {"name": "token", "match": {"path": "/token"}},
            {"name": "public", "match": {"path": "/public"}, "access": "public"},
            {"name": "check", "match": {"path": "/check/{id}"},
             "require": {"permissions": {"all": [{"relation": "a", "object": "x:{path.id}"}, {"relation": "b", "object": "x:{path.id}"}]}}},
            {"name": "open", "match": {"path": "/open/{id}"}, "on_provider_error": on_provider_error,
             "require": {"permissions": {"all": [{"relation": "a", "object": "x:{path.id}"}]}}},
            {"name": "hook", "match": {"path": "/hook"}, "webhook": "hook"}
        ],
        "webhooks": {"hook": {"format": "avnology", "secrets": [KEY], "body_only": true, "max_body_bytes": 8}}
    });
    if breaker != "off" {
        document["provider"]["circuit_breaker"] = serde_json::json!({"probe_interval": breaker});
    }
    document.to_string().into_bytes()
}

/// A request's headers, owned.
type Headers = Vec<(String, String)>;

fn head(path: &str, headers: &[(&str, &str)]) -> Headers {
    let mut all = vec![(":method", "POST"), (":path", path), (":authority", "api.example")];
    all.extend(headers);
    all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn bearer(path: &str) -> Headers {
    head(path, &[("authorization", "Bearer t")])
}

fn begin(engine: &mut Engine, stream: StreamId, headers: &Headers, last: bool, now: Timestamp) -> Step {
    let pairs = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
    engine.begin(stream, ROOT, &RequestHead::new(pairs, last), now)
}

fn answered(status: u16, body: &str) -> Result<Response<'_>, CallFailure> {
    Ok(Response { status, retry_after: None, body: body.as_bytes() })
}

fn signed(body: &[u8]) -> String {
    use hmac::Mac;
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect()
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(1_700_000_000_000_000_000 + millis * 1_000_000)
}

fn land(engine: &mut Engine, flight: FlightId, body: &str, now: Timestamp) {
    engine.landed(flight, answered(200, body), now);
}

/// Drains the engine: flights asked for, and decisions.
fn drain(engine: &mut Engine) -> (Vec<FlightId>, Vec<(StreamId, Decision, Reason)>) {
    let (mut flights, mut decisions) = (Vec::new(), Vec::new());
    while let Some(output) = engine.poll() {
        match output {
            Output::Dispatch { flight, .. } if flight.is_probe() => {}
            Output::Dispatch { flight, .. } => flights.push(flight),
            Output::Decide { stream, verdict } => {
                decisions.push((stream, verdict.event().decision(), verdict.event().reason()));
            }
            Output::Edit { .. } | Output::Measure { .. } | Output::Metric { .. } | Output::Log { .. } => {}
        }
    }
    (flights, decisions)
}

#[test]
fn a_flight_is_shared_by_all_who_wait_and_outlives_the_first() {
    let mut engine = engine();
    for n in 0..200 {
        assert!(matches!(begin(&mut engine, StreamId(n), &bearer("/token"), true, at(0)), Step::Wait));
    }
    engine.gone(StreamId(0));
    let (flights, decisions) = drain(&mut engine);
    assert_eq!((flights.len(), decisions.len()), (1, 0));
    land(&mut engine, flights[0], r#"{"active":true,"sub":"u"}"#, at(5));
    let (flights, decisions) = drain(&mut engine);
    assert_eq!(flights, []);
    assert_eq!(decisions.len(), 199);
    assert!(decisions.iter().all(|(_, d, r)| (*d, *r) == (Decision::Allow, Reason::Authenticated)));
    assert_eq!(engine.waiting(), 0);
    assert_eq!(at_rest(&mut engine), None);
}

/// What is left to do once what was measured is written.
fn at_rest(engine: &mut Engine) -> Option<Timestamp> {
    let due = engine.next_deadline(ROOT)?;
    engine.tick(ROOT, due);
    assert_eq!(drain(engine), (vec![], vec![]));
    engine.next_deadline(ROOT)
}

#[test]
fn a_flood_of_invented_tokens_takes_no_place_of_known_ones() {
    let known = bearer("/token");
    let invented = |n: u32| head("/token", &[("authorization", &format!("Bearer invented{n}"))]);
    let flooded =
        [Limits { waiting_new: 1, ..Limits::default() }, Limits { parked_new: 1, ..Limits::default() }];
    for limits in flooded {
        let mut engine = engine_with(limits);
        assert!(matches!(begin(&mut engine, STREAM, &known, true, at(0)), Step::Wait));
        let (flights, _) = drain(&mut engine);
        land(&mut engine, flights[0], r#"{"active":true,"sub":"u"}"#, at(5));
        assert_eq!(drain(&mut engine).1.len(), 1);
        let later = at(60_000);
        assert!(matches!(begin(&mut engine, StreamId(8), &invented(1), true, later), Step::Wait));
        let Step::Decided(verdict) = begin(&mut engine, StreamId(9), &invented(2), true, later) else {
            panic!("decided")
        };
        assert_eq!(verdict.event().reason(), Reason::OverLimit, "{limits:?}");
        assert!(matches!(begin(&mut engine, StreamId(10), &known, true, later), Step::Wait), "{limits:?}");
    }
}

#[test]
fn bodies_that_do_not_come_take_no_bytes_of_what_waits_for_the_provider() {
    let mut engine = engine_with(Limits { parked_receiving: 1, ..Limits::default() });
    let hook = head("/hook", &[("x-avnology-signature", &signed(b""))]);
    assert!(matches!(begin(&mut engine, StreamId(1), &hook, false, at(0)), Step::NeedBody));
    let Step::Decided(verdict) = begin(&mut engine, StreamId(2), &hook, false, at(0)) else {
        panic!("decided")
    };
    assert_eq!(verdict.event().reason(), Reason::BodyMemory);
    assert!(matches!(begin(&mut engine, STREAM, &bearer("/token"), true, at(0)), Step::Wait));
    let (flights, _) = drain(&mut engine);
    land(&mut engine, flights[0], r#"{"active":true,"sub":"u"}"#, at(5));
    assert_eq!(drain(&mut engine).1.len(), 1);
    assert!(matches!(begin(&mut engine, STREAM, &bearer("/token"), true, at(60_000)), Step::Wait));
}

#[test]
fn every_limit_of_what_waits_refuses_one_request_more() {
    let request = bearer("/token");
    let limited = [
        (Limits { waiters: 2, ..Limits::default() }, Reason::WaitersLimit),
        (Limits { parked_new: 1024, ..Limits::default() }, Reason::OverLimit),
    ];
    for (limits, reason) in limited {
        let mut engine = engine_with(limits);
        for n in 0..2 {
            assert!(matches!(begin(&mut engine, StreamId(n), &request, true, at(0)), Step::Wait));
        }
        let Step::Decided(verdict) = begin(&mut engine, StreamId(2), &request, true, at(0)) else {
            panic!("decided: {limits:?}")
        };
        assert_eq!(verdict.event().reason(), reason, "{limits:?}");
        engine.gone(StreamId(0));
        let is_room_again = matches!(begin(&mut engine, StreamId(3), &request, true, at(0)), Step::Wait);
        assert_eq!(is_room_again, limits.waiters > 2, "a waiter that has gone keeps its place: {limits:?}");
    }
    let mut engine = engine_with(Limits { receiving: 1, ..Limits::default() });
    let hook = head("/hook", &[("x-avnology-signature", &signed(b""))]);
    assert!(matches!(begin(&mut engine, StreamId(0), &hook, false, at(0)), Step::NeedBody));
    let Step::Decided(verdict) = begin(&mut engine, StreamId(1), &hook, false, at(0)) else {
        panic!("decided")
    };
    assert_eq!(verdict.event().reason(), Reason::BodyMemory);
}

#[test]
fn names_that_leave_anyway_take_no_room_while_a_request_waits() {
    let mut engine = engine_with(Limits { parked_receiving: 2048, ..Limits::default() });
    let name = format!("x-avnology-{}", "a".repeat(4000));
    let signature = signed(b"");
    let request = head("/hook", &[("x-avnology-signature", &signature), (&name, "v")]);
    for n in 0..3 {
        let step = begin(&mut engine, StreamId(n), &request, false, at(0));
        assert!(matches!(step, Step::NeedBody), "webhook {n}");
        let edits = std::iter::from_fn(|| engine.poll()).find_map(|output| match output {
            Output::Edit { stream, edits } => Some((stream, edits)),
            _ => None,
        });
        let removed = Edit::Remove(name.clone().into_bytes());
        assert_eq!(edits, Some((StreamId(n), vec![removed])), "it leaves before the request waits");
    }
}

#[test]
fn a_clock_that_is_set_back_leaves_nothing_of_the_future() {
    let mut engine = engine();
    assert!(matches!(begin(&mut engine, STREAM, &bearer("/token"), true, at(3_600_000)), Step::Wait));
    let (flights, _) = drain(&mut engine);
    land(&mut engine, flights[0], r#"{"active":true,"sub":"u"}"#, at(3_600_005));
    assert_eq!(drain(&mut engine).1.len(), 1);
    let Step::Decided(_) = begin(&mut engine, StreamId(8), &bearer("/public"), true, at(0)) else {
        panic!("decided")
    };
    assert!(matches!(begin(&mut engine, StreamId(9), &bearer("/token"), true, at(3_600_010)), Step::Wait));
}

/// What waits for its end is parked anew whenever it is measured.
#[test]
fn a_clock_that_is_set_back_makes_no_request_wait_longer() {
    let preflight =
        head("/token", &[("origin", "https://a.example"), ("access-control-request-method", "PUT")]);
    let config = r#"{"routes": [{"match": {"path": "/token", "methods": ["PUT"]}, "access": "public",
        "preflight": true}]}"#;
    let ending = move || {
        let mut engine = engine();
        engine.configure(ROOT, config::load(config.as_bytes(), &|_| None).unwrap(), at(3_600_000));
        let mut head = preflight.clone();
        head[0].1 = "OPTIONS".to_owned();
        assert!(matches!(begin(&mut engine, STREAM, &head, false, at(3_600_000)), Step::NeedBody));
        engine
    };
    let receiving = || {
        let mut engine = engine();
        let hook = head("/hook", &[("x-avnology-signature", &signed(b""))]);
        assert!(matches!(begin(&mut engine, STREAM, &hook, false, at(3_600_000)), Step::NeedBody));
        engine
    };
    let begun = || {
        let mut engine = receiving();
        let mut fetch = |_: usize, len: usize| Some(vec![b'x'; len]);
        assert!(matches!(engine.body(STREAM, 1, false, &mut fetch, at(3_600_000)), Step::NeedBody));
        engine
    };
    for (mut engine, seconds) in [(ending(), 2), (receiving(), 2), (begun(), 10)] {
        engine.measured(STREAM, 100, at(3_600_000));
        engine.tick(ROOT, at(0));
        while engine.waiting() > 0 {
            let due = engine.next_deadline(ROOT).unwrap();
            assert!(due <= at(seconds * 1000), "it waits until {due:?}");
            engine.tick(ROOT, due);
            drain(&mut engine);
        }
    }
}

#[test]
fn a_callout_that_never_returns_is_answered_by_the_tick() {
    let mut engine = engine();
    assert!(matches!(begin(&mut engine, STREAM, &bearer("/token"), true, at(0)), Step::Wait));
    let (flights, _) = drain(&mut engine);
    engine.tick(ROOT, at(1000));
    assert_eq!(drain(&mut engine).1, []);
    let deadline = engine.next_deadline(ROOT).unwrap();
    assert!(deadline > at(1000) && deadline < at(2000));
    engine.tick(ROOT, deadline);
    assert_eq!(drain(&mut engine).1, [(STREAM, Decision::Deny, Reason::Timeout)]);
    assert_eq!(at_rest(&mut engine), None);
    // The answer comes after all: nobody is resumed twice.
    land(&mut engine, flights[0], r#"{"active":true}"#, at(1500));
    assert_eq!(drain(&mut engine), (vec![], vec![]));
}

#[test]
fn the_first_decisive_permission_decides_and_the_other_lands_in_the_void() {
    let mut engine = engine();
    assert!(matches!(begin(&mut engine, STREAM, &bearer("/check/1"), true, at(0)), Step::Wait));
    let (flights, _) = drain(&mut engine);
    land(&mut engine, flights[0], r#"{"active":true,"sub":"u"}"#, at(1));
    let (checks, decisions) = drain(&mut engine);
    assert_eq!((checks.len(), decisions.len()), (2, 0));
    land(&mut engine, checks[1], r#"{"allowed":false}"#, at(2));
    assert_eq!(drain(&mut engine).1, [(STREAM, Decision::Deny, Reason::PermissionDenied)]);
    land(&mut engine, checks[0], r#"{"allowed":true}"#, at(3));
    assert_eq!(drain(&mut engine), (vec![], vec![]));
}

#[test]
fn an_outage_opens_only_what_the_request_itself_does_not_forbid() {
    let cases = [
        ("/open/1", Decision::FailOpen, Reason::Unreachable),
        ("/open/a%3Ab", Decision::Deny, Reason::UnresolvedTemplate),
        ("/check/1", Decision::Deny, Reason::Unreachable),
    ];
    for (path, decision, reason) in cases {
        let mut host = Host::new();
        host.request(STREAM, path, "t", 0);
        host.land(Err(CallFailure::Unreachable), 1);
        if path.starts_with("/open") {
            assert_eq!(host.decisions, [], "{path}: it waits for the probe");
        }
        for _ in 0..2 {
            host.land_probe(Err(CallFailure::Unreachable), 1);
        }
        assert_eq!(host.decisions, [(STREAM, decision, reason)], "{path}");
    }
    for reply in [Err(CallFailure::TooLarge), answered(404, ""), answered(200, "x")] {
        let mut host = Host::new();
        host.request(STREAM, "/open/1", "t", 0);
        host.land(reply, 1);
        host.land_probe(Err(CallFailure::Unreachable), 1);
        assert_eq!(host.decisions[0].1, Decision::Deny, "{reply:?}: a caller may provoke it");
    }
}

/// An engine with its host: what is under way, and what was decided.
struct Host {
    engine: Engine,
    calls: VecDeque<FlightId>,
    probes: VecDeque<FlightId>,
    decisions: Vec<(StreamId, Decision, Reason)>,
    warnings: Vec<String>,
}

impl Host {
    fn new() -> Self {
        let engine = engine_of(Limits::default(), "1s", "allow");
        let (calls, probes) = Default::default();
        Self { engine, calls, probes, decisions: Vec::new(), warnings: Vec::new() }
    }

    fn request(&mut self, stream: StreamId, path: &str, token: &str, now: u64) {
        let headers = head(path, &[("authorization", &format!("Bearer {token}"))]);
        if let Step::Decided(verdict) = begin(&mut self.engine, stream, &headers, true, at(now)) {
            self.decisions.push((stream, verdict.event().decision(), verdict.event().reason()));
        }
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Dispatch { flight, .. } if flight.is_probe() => self.probes.push_back(flight),
                Output::Dispatch { flight, .. } => self.calls.push_back(flight),
                Output::Decide { stream, verdict } => {
                    self.decisions.push((stream, verdict.event().decision(), verdict.event().reason()));
                }
                Output::Log { level: Level::Warn, message } => self.warnings.push(message),
                Output::Edit { .. } | Output::Measure { .. } | Output::Metric { .. } | Output::Log { .. } => {
                }
            }
        }
    }

    /// The oldest call ends.
    fn land(&mut self, answer: Result<Response<'_>, CallFailure>, now: u64) {
        let flight = self.calls.pop_front().expect("a call");
        self.engine.landed(flight, answer, at(now));
        self.drain();
    }

    /// The probe that is under way ends.
    fn land_probe(&mut self, answer: Result<Response<'_>, CallFailure>, now: u64) {
        let flight = self.probes.pop_front().expect("a probe");
        self.engine.landed(flight, answer, at(now));
        self.drain();
    }

    /// Ticks until so late; probes are answered like this, and their times are returned.
    fn ticks(&mut self, until: u64, answer: Result<Response<'_>, CallFailure>) -> Vec<u64> {
        let mut probed = Vec::new();
        while let Some(due) = self.engine.next_deadline(ROOT).filter(|due| *due <= at(until)) {
            self.engine.tick(ROOT, due);
            self.drain();
            let now = (due.as_nanos() - at(0).as_nanos()) / 1_000_000;
            while !self.probes.is_empty() {
                probed.push(now);
                self.land_probe(answer, now);
            }
        }
        probed
    }

    fn is_away(&mut self, now: u64) -> bool {
        self.decisions.clear();
        self.request(StreamId(999), "/token", &format!("asks{now}"), now);
        let is_open = self.decisions.iter().any(|(_, _, reason)| *reason == Reason::CircuitOpen);
        if !is_open {
            self.engine.gone(StreamId(999));
            let flight = self.calls.pop_back().expect("it is asked");
            land(&mut self.engine, flight, r#"{"active":false}"#, at(now));
            self.drain();
        }
        self.decisions.clear();
        is_open
    }
}

const DOWN: Result<Response<'static>, CallFailure> = Err(CallFailure::Unreachable);

#[test]
fn an_endpoint_is_away_by_its_probe_alone_and_back_by_its_probe_alone() {
    let mut host = Host::new();
    host.request(STREAM, "/token", "first", 0);
    host.land_probe(answered(401, ""), 1);
    host.land(answered(200, r#"{"active":false}"#), 1);
    // Fifty calls a second that fail, each on a token of its own, and a probe that is answered.
    for nth in 0..500_u64 {
        let now = 10 + nth * 20;
        let stream = StreamId(1000 + u32::try_from(nth).unwrap());
        host.request(stream, "/open/1", &format!("poison{nth}"), now);
        host.land(answered(500, ""), now + 1);
        host.ticks(now + 19, answered(200, "{}"));
    }
    host.ticks(13_000, answered(200, "{}"));
    let opened = host.decisions.iter().filter(|(_, decision, _)| *decision != Decision::Deny).count();
    assert_eq!((host.decisions.len(), opened), (501, 0));
    assert!(!host.is_away(13_001));
    host.ticks(19_999, answered(200, "{}"));
    // It is really away: the first call that fails shows it, whatever was before.
    host.request(STREAM, "/token", "next", 20_000);
    host.land(DOWN, 20_000);
    host.land_probe(DOWN, 20_000);
    assert!(host.probes.len() == 1, "the second probe at once");
    host.land_probe(DOWN, 20_001);
    assert!(host.is_away(20_002));
    let probed = host.ticks(30_000, DOWN);
    assert!((8..=12).contains(&probed.len()), "about once a second: {probed:?}");
    let gaps: Vec<u64> = probed.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (800..=1200).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap != gaps[0]), "spread: {gaps:?}");
    assert!(host.is_away(30_001));
    let probed = host.ticks(32_000, answered(403, ""));
    assert_eq!(probed.len(), 1, "one that is answered is enough");
    assert!(!host.is_away(32_001));
}

#[test]
fn a_root_that_goes_hands_its_probe_over() {
    let mut host = Host::new();
    let document = br#"{"provider": {"cluster": "avnology", "authority": "id.example",
        "introspection": {"credentials": {"method": "none"}}}, "routes": [{"match": {"path": "/t"}}]}"#;
    let other = RootId(2);
    host.request(STREAM, "/token", "t", 0);
    host.land_probe(answered(200, ""), 1);
    host.engine.configure(other, config::load(document, &|_| None).unwrap(), at(1));
    host.land(DOWN, 2000);
    host.land_probe(DOWN, 2000);
    let lost = host.probes.pop_front().expect("under way, and of the newest root");
    host.engine.root_gone(other, at(2001));
    host.drain();
    assert_eq!(host.probes.len(), 1, "the other root probes");
    host.engine.landed(lost, DOWN, at(2002));
    assert!(!host.is_away(2002), "what is lost is not heard");
    host.request(STREAM, "/token", "u", 2003);
    host.land(DOWN, 2003);
    host.land_probe(DOWN, 2004);
    host.land_probe(DOWN, 2005);
    assert!(host.is_away(2006));
    host.engine.root_gone(ROOT, at(2007));
    assert_eq!(host.engine.next_deadline(ROOT), None, "nobody asks for it any more");
}

#[test]
fn more_questions_than_may_be_under_way_wait_here_and_in_order() {
    let mut host = Host::new();
    for n in 0..200_u32 {
        host.request(StreamId(n), "/token", &format!("t{n}"), 0);
    }
    assert_eq!((host.calls.len(), host.probes.len(), host.decisions.len()), (64, 1, 0));
    host.land_probe(answered(200, ""), 1);
    for now in 0..136 {
        host.land(answered(200, r#"{"active":true,"sub":"u"}"#), now);
        assert_eq!(host.calls.len(), 64, "the next one at once");
    }
    assert_eq!(host.decisions.len(), 136);
    assert!(host.decisions.iter().zip(0..).all(|((stream, ..), n)| *stream == StreamId(n)), "in order");
    // Whoever has waited too long is told why, and its question is not asked any more.
    for n in 200..300_u32 {
        host.request(StreamId(n), "/token", &format!("t{n}"), 1000);
    }
    host.decisions.clear();
    host.engine.tick(ROOT, at(2900));
    host.drain();
    let timed_out = host.decisions.iter().filter(|(.., reason)| *reason == Reason::Timeout).count();
    assert_eq!(timed_out, 64);
    assert_eq!(host.calls.len(), 128, "as many more are under way, and their hosts say nothing");
    host.engine.tick(ROOT, at(3001));
    host.drain();
    assert!(host.decisions.iter().any(|(.., reason)| *reason == Reason::InFlightLimit));
}

#[test]
fn objects_on_which_the_provider_hangs_take_a_quarter_of_the_checks_and_no_more() {
    let mut host = Host::new();
    let mut stream = 0;
    let mut ask = |host: &mut Host, token: &str, object: u32| {
        stream += 1;
        host.request(StreamId(stream), &format!("/open/{token}{object}"), token, 0);
        StreamId(stream)
    };
    for token in ["hostile", "other"] {
        ask(&mut host, token, 0);
        host.land(answered(200, &format!(r#"{{"active":true,"sub":"{token}"}}"#)), 0);
        host.land(answered(200, r#"{"allowed":true}"#), 0);
    }
    host.decisions.clear();
    // Within the burst of a subject's own budget.
    for object in 1..150 {
        ask(&mut host, "hostile", object);
    }
    assert_eq!(host.calls.len(), 24, "a quarter of 96");
    let others: Vec<StreamId> = (1..150).map(|object| ask(&mut host, "other", object)).collect();
    assert_eq!(host.calls.len(), 48);
    host.calls.drain(..24);
    for _ in 1..150 {
        host.land(answered(200, r#"{"allowed":true}"#), 5);
    }
    let decided: Vec<StreamId> = host.decisions.iter().map(|(stream, ..)| *stream).collect();
    assert_eq!(decided, others, "all of them, past those of the other");
}

#[test]
fn a_question_that_was_sent_is_asked_again_only_while_half_of_the_callouts_are_free() {
    let mut engine = engine();
    let mut retries = Vec::new();
    for n in 0..64_u32 {
        let request = head("/token", &[("authorization", &format!("Bearer t{n}"))]);
        assert!(matches!(begin(&mut engine, StreamId(n), &request, true, at(0)), Step::Wait));
        while let Some(output) = engine.poll() {
            if let Output::Dispatch { callout, .. } = output {
                assert_eq!(callout.retries, 1);
                retries.push(callout.retries_unsent_only);
            }
        }
    }
    assert_eq!(retries, [vec![false; 33], vec![true; 31]].concat());
}

#[test]
fn what_waits_for_a_callout_to_an_endpoint_that_is_away_is_answered_at_once() {
    let mut host = Host::new();
    for n in 0..100_u32 {
        host.request(StreamId(n), "/token", &format!("t{n}"), 0);
    }
    host.land_probe(answered(200, ""), 1);
    host.land(Err(CallFailure::Timeout), 1000);
    host.land_probe(Err(CallFailure::Timeout), 1500);
    assert_eq!(host.decisions.len(), 1);
    host.land_probe(Err(CallFailure::Timeout), 1600);
    let refused = host.decisions.iter().filter(|(.., reason)| *reason == Reason::CircuitOpen).count();
    assert_eq!((host.decisions.len(), refused), (36, 35));
}

#[test]
fn an_endpoint_that_goes_and_comes_back_is_told_each_time() {
    let mut host = Host::new();
    let mut told = |answer: Result<Response<'_>, CallFailure>, now: u64| {
        if answer.is_err() {
            host.request(StreamId(1), "/token", "t", now);
            host.land(answer, now);
            host.land_probe(answer, now);
            host.engine.gone(StreamId(1));
        }
        host.ticks(now + 2000, answer);
        std::mem::take(&mut host.warnings)
            .into_iter()
            .filter(|line| line.contains(" is away") || line.contains(" is back"))
            .collect::<Vec<_>>()
    };
    let away = [
        "avnology_gate: `/oauth2/introspect` of cluster `avnology` is away, and asked again by probes alone",
    ];
    assert_eq!(told(Err(CallFailure::Unreachable), 10_000), away);
    let back = told(answered(401, ""), 12_100);
    assert!(back.len() == 1 && back[0].contains("cluster `avnology` is back, after "), "{back:?}");
    assert_eq!(told(answered(401, ""), 20_000), [""; 0]);
    assert_eq!(told(Err(CallFailure::Unreachable), 30_000), away, "again, within the minute");
}

#[test]
fn a_second_probe_that_is_not_started_is_not_sent_again_at_once() {
    let mut host = Host::new();
    host.request(STREAM, "/token", "first", 0);
    host.land_probe(answered(200, ""), 1);
    host.land(answered(200, r#"{"active":false}"#), 1);
    host.request(STREAM, "/token", "hangs", 1900);
    host.request(StreamId(8), "/token", "fails", 2000);
    host.calls.pop_front().expect("it hangs");
    host.land(DOWN, 2001);
    host.land_probe(DOWN, 2002);
    // The cluster has lost its last endpoint while a call is under way.
    host.land_probe(Err(CallFailure::NotStarted), 2002);
    assert!(host.probes.is_empty(), "a host that refuses does so at once, and would be asked for ever");
    host.engine.tick(ROOT, at(2801));
    host.drain();
    assert!(host.probes.is_empty());
    host.engine.tick(ROOT, at(3202));
    host.drain();
    assert_eq!(host.probes.len(), 1, "at its next time");
}

#[test]
fn one_roots_checks_of_a_subject_do_not_keep_another_roots_waiting() {
    let mut host = Host::new();
    let other = RootId(2);
    host.engine.configure(other, config::load(&document("1s", "allow"), &|_| None).unwrap(), at(0));
    host.drain();
    host.request(STREAM, "/open/0", "t", 0);
    host.land(answered(200, r#"{"active":true,"sub":"u"}"#), 0);
    host.land(answered(200, r#"{"allowed":true}"#), 0);
    for n in 1..25_u32 {
        host.request(StreamId(n + 100), &format!("/open/{n}"), "t", 10);
    }
    assert_eq!(host.calls.len(), 24);
    let headers = head("/open/99", &[("authorization", "Bearer t")]);
    let pairs = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
    let step = host.engine.begin(StreamId(500), other, &RequestHead::new(pairs, true), at(20));
    assert!(matches!(step, Step::Wait));
    host.drain();
    host.decisions.clear();
    while !host.calls.is_empty() {
        host.land(answered(200, r#"{"allowed":true}"#), 30);
    }
    assert!(host.decisions.iter().any(|(stream, ..)| *stream == StreamId(500)), "it is asked");
}

#[test]
fn a_root_that_goes_takes_its_probe_interval_with_it() {
    let mut host = Host::new();
    let other = RootId(2);
    host.request(STREAM, "/token", "t", 0);
    host.land_probe(answered(200, ""), 1);
    host.engine.configure(other, config::load(&document("off", "deny"), &|_| None).unwrap(), at(1));
    host.engine.root_gone(other, at(2));
    host.drain();
    host.land(DOWN, 2000);
    host.land_probe(DOWN, 2000);
    host.land_probe(DOWN, 2001);
    assert!(host.is_away(2002));
}

#[test]
fn a_clock_that_is_set_back_does_not_keep_an_endpoint_away() {
    let mut host = Host::new();
    host.request(STREAM, "/token", "t", 3_600_000);
    host.land_probe(answered(200, ""), 3_600_001);
    host.land(DOWN, 3_602_000);
    host.land_probe(DOWN, 3_602_000);
    host.land_probe(DOWN, 3_602_001);
    assert!(host.is_away(3_602_002));
    // An hour back. The host's timers take no notice of that.
    host.engine.tick(ROOT, at(3_000));
    host.drain();
    let due = host.engine.next_deadline(ROOT).unwrap();
    assert!(due <= at(5_000), "{due:?}");
    assert_eq!(host.ticks(5_000, answered(200, "")).len(), 1);
    host.decisions.clear();
    host.request(STREAM, "/token", "u", 5_001);
    assert!(host.decisions.iter().all(|(.., reason)| *reason != Reason::CircuitOpen));
}

#[test]
fn a_known_token_whose_question_failed_waits_among_known_ones() {
    let mut host = Host::new();
    host.engine = engine_of(Limits { waiting_new: 1, ..Limits::default() }, "1s", "allow");
    host.request(StreamId(1), "/open/1", "known", 0);
    host.land_probe(answered(200, ""), 0);
    host.land(answered(200, r#"{"active":true,"sub":"u"}"#), 0);
    host.land(answered(200, r#"{"allowed":true}"#), 0);
    host.probes.clear();
    host.request(StreamId(2), "/open/1", "known", 60_000);
    host.land(DOWN, 60_001);
    host.request(StreamId(3), "/open/1", "invented", 60_002);
    host.decisions.clear();
    host.request(StreamId(4), "/open/1", "known", 60_003);
    assert_eq!(host.decisions, [], "it waits for the probe");
}

#[test]
fn a_part_of_his_own_that_is_full_makes_no_grant_live_longer() {
    let mut host = Host::new();
    let mut document: serde_json::Value = serde_json::from_slice(&document("1s", "allow")).unwrap();
    document["cache"] = serde_json::json!({"introspection": {"ttl": "1h"},
        "permissions": {"ttl": "10s", "stale_if_error": "10m"}});
    host.engine.configure(ROOT, config::load(document.to_string().as_bytes(), &|_| None).unwrap(), at(0));
    host.request(StreamId(1), "/open/mine", "t", 0);
    host.land(answered(200, r#"{"active":true,"sub":"u"}"#), 0);
    host.land(answered(200, r#"{"allowed":true}"#), 0);
    // Objects on which the provider hangs, enough to keep the caller's part full.
    for n in 100..148_u32 {
        host.request(StreamId(n), &format!("/open/hangs{n}"), "t", 10_500);
    }
    host.decisions.clear();
    host.request(StreamId(2), "/open/mine", "t", 10_501);
    assert_eq!(host.calls.len(), 24);
    for now in [11_551, 12_501] {
        host.engine.tick(ROOT, at(now));
        host.drain();
    }
    let own: Vec<_> = host.decisions.iter().filter(|(stream, ..)| *stream == StreamId(2)).collect();
    assert_eq!(own, [&(StreamId(2), Decision::Deny, Reason::SubjectBudget)]);
}

#[test]
fn an_opening_request_does_not_pass_what_was_heard_to_be_a_no_while_it_waited() {
    let mut host = Host::new();
    host.request(StreamId(1), "/open/1", "t", 0);
    host.land_probe(answered(200, ""), 1);
    let first = host.calls.pop_front().unwrap();
    // Another root asks about the same token, and fails.
    let other = RootId(2);
    host.engine.configure(other, config::load(&document("1s", "allow"), &|_| None).unwrap(), at(2));
    let headers = head("/open/1", &[("authorization", "Bearer t")]);
    let pairs = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
    assert!(matches!(
        host.engine.begin(StreamId(2), other, &RequestHead::new(pairs, true), at(10)),
        Step::Wait
    ));
    host.drain();
    host.land(DOWN, 900);
    assert_eq!(host.decisions, []);
    host.engine.landed(first, answered(200, r#"{"active":false}"#), at(901));
    host.drain();
    host.decisions.clear();
    host.land_probe(DOWN, 902);
    host.land_probe(DOWN, 903);
    assert_eq!(host.decisions, [(StreamId(2), Decision::Deny, Reason::TokenInactive)]);
}

#[test]
fn a_token_that_cannot_be_asked_about_does_not_open_what_its_bearer_was_denied() {
    let mut host = Host::new();
    for (nth, allowed) in (1..).zip([false, true]) {
        host.request(StreamId(nth), &format!("/open/{allowed}"), "t", 0);
        if nth == 1 {
            host.land_probe(answered(200, ""), 0);
            host.land(answered(200, r#"{"active":true,"sub":"u"}"#), 0);
        }
        host.land(answered(200, &format!(r#"{{"allowed":{allowed}}}"#)), 0);
    }
    host.decisions.clear();
    // Long after every lifetime.
    let later = 600_000;
    host.request(StreamId(3), "/open/false", "t", later);
    host.land(DOWN, later);
    while !host.probes.is_empty() && host.decisions.is_empty() {
        host.land_probe(DOWN, later);
    }
    host.request(StreamId(4), "/open/true", "t", later);
    host.request(StreamId(5), "/open/false", "another", later);
    let decided: Vec<_> = host.decisions.iter().map(|(stream, decision, _)| (stream.0, *decision)).collect();
    assert_eq!(decided, [(3, Decision::Deny), (4, Decision::FailOpen), (5, Decision::FailOpen)]);
    assert_eq!(host.decisions[0].2, Reason::PermissionDenied);
}

#[test]
fn one_subject_takes_no_more_places_than_one_token() {
    let limits = Limits { waiting_known: 15, waiters: 5, ..Limits::default() };
    let mut host = Host::new();
    host.engine = engine_of(limits, "1s", "allow");
    for (nth, token) in (1..).zip(["hostile", "other"]) {
        host.request(StreamId(nth), "/token", token, 0);
        host.land(answered(200, &format!(r#"{{"active":true,"sub":"{token}"}}"#)), 0);
    }
    host.decisions.clear();
    for n in 0..100_u32 {
        host.request(StreamId(100 + n), &format!("/open/{}", n % 4), "hostile", 1);
    }
    host.decisions.clear();
    host.request(StreamId(3), "/open/1", "other", 2);
    assert_eq!(host.decisions, [], "it waits for its answer");
}

#[test]
fn not_even_shadow_mode_forwards_what_cannot_be_read_and_so_not_be_cleaned() {
    let document = br#"{"mode":"shadow","routes":[{"match":{"path":"/public"},"access":"public"}]}"#;
    let mut engine = Engine::new(Seed([3; 16]), Rc::new(NoStore));
    engine.configure(ROOT, config::load(document, &|_| None).unwrap(), at(0));
    let Step::Decided(verdict) = engine.begin(StreamId(1), ROOT, &RequestHead::unreadable(), at(0)) else {
        panic!("decided")
    };
    assert_eq!(
        (verdict.event().decision(), verdict.event().reason()),
        (Decision::Deny, Reason::MalformedRequest)
    );
    let readable = head("/elsewhere", &[]);
    let Step::Decided(verdict) = begin(&mut engine, STREAM, &readable, true, at(0)) else {
        panic!("decided")
    };
    assert_eq!(verdict.event().decision(), Decision::ShadowDeny);
}

#[test]
fn bodies_are_bounded_in_all() {
    let mut engine = engine_with(Limits { held_bytes: 10, ..Limits::default() });
    let request = head("/hook", &[("x-avnology-signature", &signed(b"12345678"))]);
    let mut fetch = |_, n| Some(vec![0; n]);
    for stream in [StreamId(1), StreamId(2)] {
        assert!(matches!(begin(&mut engine, stream, &request, false, at(0)), Step::NeedBody));
    }
    assert!(matches!(engine.body(StreamId(1), 6, false, &mut fetch, at(1)), Step::NeedBody));
    assert!(matches!(engine.body(StreamId(2), 4, false, &mut fetch, at(1)), Step::NeedBody));
    let Step::Decided(verdict) = engine.body(StreamId(2), 5, false, &mut fetch, at(1)) else {
        panic!("decided")
    };
    assert_eq!(verdict.event().reason(), Reason::BodyMemory);
    assert!(
        matches!(engine.body(StreamId(1), 8, false, &mut fetch, at(1)), Step::NeedBody),
        "what a decided stream held is given back"
    );
}

#[test]
fn the_webhooks_of_two_configurations_have_reserves_of_their_own() {
    let mut engine = engine_with(Limits { receiving: 8, ..Limits::default() });
    let other = RootId(2);
    let document = serde_json::json!({
        "routes": [{"match": {"path": "/hook"}, "webhook": "hook"}],
        "webhooks": {"hook": {"format": "avnology", "secrets": [KEY], "body_only": true}}
    });
    engine.configure(other, config::load(document.to_string().as_bytes(), &|_| None).unwrap(), at(0));
    let request = head("/hook", &[("x-avnology-signature", &signed(b""))]);
    let begin_at = |engine: &mut Engine, root, stream| {
        let pairs = request.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        engine.begin(StreamId(stream), root, &RequestHead::new(pairs, false), at(0))
    };
    // Two of its own, and the four that are common.
    for n in 0..6 {
        assert!(matches!(begin_at(&mut engine, ROOT, n), Step::NeedBody), "{n}");
    }
    assert!(matches!(begin_at(&mut engine, ROOT, 6), Step::Decided(_)));
    for n in 7..9 {
        assert!(matches!(begin_at(&mut engine, other, n), Step::NeedBody), "{n}");
    }
    assert!(matches!(begin_at(&mut engine, other, 9), Step::Decided(_)));
    // With the other one its reserve goes.
    engine.root_gone(other, at(1));
    for n in 10..12 {
        assert!(matches!(begin_at(&mut engine, ROOT, n), Step::NeedBody), "{n}");
    }
}

#[test]
fn a_host_that_calls_no_body_callback_is_found_out() {
    let mut engine = engine();
    let request = head("/hook", &[("x-avnology-signature", &signed(b""))]);
    assert!(matches!(begin(&mut engine, STREAM, &request, false, at(0)), Step::NeedBody));
    engine.measured(STREAM, 133, at(0));
    engine.tick(ROOT, engine.next_deadline(ROOT).unwrap());
    assert!(matches!(engine.poll(), Some(Output::Measure { stream: STREAM })));
    engine.measured(STREAM, 133, at(250));
    assert_eq!(drain(&mut engine).1, [], "a silent client is not a deaf host");
    engine.tick(ROOT, engine.next_deadline(ROOT).unwrap());
    engine.measured(STREAM, 136, at(500));
    assert_eq!(drain(&mut engine).1, [(STREAM, Decision::Deny, Reason::NoBodyCallbacks)]);
}

#[test]
fn a_root_takes_its_streams_and_flights_with_it() {
    let mut engine = engine();
    assert!(matches!(begin(&mut engine, STREAM, &bearer("/token"), true, at(0)), Step::Wait));
    let (flights, _) = drain(&mut engine);
    engine.root_gone(ROOT, at(1));
    assert_eq!(drain(&mut engine).1, [(STREAM, Decision::Deny, Reason::Internal)]);
    assert_eq!(engine.next_deadline(ROOT), None);
    land(&mut engine, flights[0], r#"{"active":true}"#, at(2));
    assert_eq!(drain(&mut engine), (vec![], vec![]));
    let Step::Decided(verdict) = begin(&mut engine, StreamId(8), &bearer("/public"), true, at(3)) else {
        panic!("decided")
    };
    assert_eq!(verdict.event().decision(), Decision::Deny, "without a policy nothing passes");
}

/// What a host may report, in any order, lies included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    Headers { last: bool },
    Body { last: bool },
    Trailers,
    Answer { yes: bool },
    Tick,
    Gone,
}

const REPORTS: [Report; 9] = [
    Report::Headers { last: false },
    Report::Headers { last: true },
    Report::Body { last: false },
    Report::Body { last: true },
    Report::Trailers,
    Report::Answer { yes: true },
    Report::Answer { yes: false },
    Report::Tick,
    Report::Gone,
];

/// One history of a stream, and what it has led to.
#[derive(Clone)]
struct History {
    engine: Engine,
    flights: VecDeque<FlightId>,
    decided: u32,
    open: bool,
    /// Whether the request ended with its head, once that was seen: the engine forgets one that did
    /// when it is decided, so that a head after it is another request's.
    is_whole: Option<bool>,
    received: usize,
    reports: Vec<Report>,
}

impl History {
    /// One report more. Holds the engine to the gate's invariant: no byte before the stream is
    /// open, and one decision.
    fn then(&self, request: &Headers, report: Report) -> Self {
        let mut next = self.clone();
        next.reports.push(report);
        let now = at(u64::try_from(self.reports.len()).unwrap() * 600);
        let engine = &mut next.engine;
        let mut step = None;
        match report {
            Report::Headers { last } => {
                next.is_whole.get_or_insert(last);
                step = Some(begin(engine, STREAM, request, last, now));
            }
            Report::Body { last } => {
                next.received += 3;
                step = Some(engine.body(STREAM, next.received, last, &mut |_, n| Some(vec![b'x'; n]), now));
            }
            Report::Trailers => step = Some(engine.trailers(STREAM, [], &mut |_, _| None, now).0),
            Report::Answer { yes } => {
                let body = if yes {
                    r#"{"active":true,"sub":"u","allowed":true}"#
                } else {
                    r#"{"active":false,"allowed":false}"#
                };
                if let Some(flight) = next.flights.pop_front() {
                    land(engine, flight, body, now);
                }
            }
            Report::Tick => engine.tick(ROOT, now),
            Report::Gone => {
                engine.gone(STREAM);
                (next.decided, next.open, next.received, next.is_whole) = (0, false, 0, None);
            }
        }
        let passes = match &step {
            Some(Step::Decided(verdict)) => {
                next.open = matches!(verdict.action(), Action::Forward(_));
                next.decided += 1;
                next.open
            }
            Some(Step::Continue) => true,
            Some(Step::Wait | Step::NeedBody) | None => false,
        };
        while let Some(output) = next.engine.poll() {
            match output {
                Output::Dispatch { flight, .. } => next.flights.push_back(flight),
                Output::Decide { stream, verdict } => {
                    assert_eq!(stream, STREAM);
                    next.open = matches!(verdict.action(), Action::Forward(_));
                    next.decided += 1;
                }
                Output::Edit { .. } | Output::Measure { .. } | Output::Metric { .. } | Output::Log { .. } => {
                }
            }
        }
        assert!(!passes || next.open, "a byte passed before the stream was open: {:?}", next.reports);
        assert!(next.decided <= 1, "decided twice: {:?}", next.reports);
        if next.decided == 1 && next.is_whole == Some(true) {
            // Nothing that is heard of it from here on may pass.
            (next.decided, next.open, next.is_whole) = (0, false, None);
        }
        next
    }

    /// All continuations of up to so many reports; returns how many were played.
    fn enumerate(&self, request: &Headers, depth: usize) -> usize {
        if depth == 0 {
            return 1;
        }
        REPORTS.into_iter().map(|report| self.then(request, report).enumerate(request, depth - 1)).sum()
    }
}

#[test]
fn no_sequence_of_callbacks_passes_a_byte_undecided_or_decides_twice() {
    let requests = [
        bearer("/token"),
        bearer("/check/1"),
        head("/public", &[]),
        head("/hook", &[("x-avnology-signature", &signed(b"xxx"))]),
    ];
    for request in &requests {
        let start = History {
            engine: engine(),
            flights: VecDeque::new(),
            decided: 0,
            open: false,
            is_whole: None,
            received: 0,
            reports: Vec::new(),
        };
        assert_eq!(start.enumerate(request, 6), REPORTS.len().pow(6));
    }
}

/// On a host that makes no callbacks before the head goes on, a preflight goes on without its end.
#[test]
fn content_after_a_preflight_that_went_on_stays_held() {
    let config = r#"{"routes": [{"match": {"path": "/p"}, "access": "public", "preflight": true},
        {"match": {"methods": ["PUT"], "path": "/x"}, "preflight": true, "access": "public"}]}"#;
    let mut engine = Engine::new(Seed([7; 16]), Rc::new(NoStore));
    engine.configure(ROOT, config::load(config.as_bytes(), &|_| None).unwrap(), at(0));
    let head = [
        (":method", "OPTIONS"),
        (":path", "/x"),
        (":authority", "api.example.com"),
        ("origin", "https://app.example.com"),
        ("access-control-request-method", "PUT"),
    ];
    let head = head.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    assert!(matches!(begin(&mut engine, STREAM, &head, false, at(0)), Step::NeedBody));
    engine.measured(STREAM, 100, at(0));
    assert!(engine.poll().is_none(), "its end may still come");
    engine.measured(STREAM, 100, at(1));
    let mut outputs = std::iter::from_fn(|| engine.poll());
    let decided = outputs.find(|output| !matches!(output, Output::Metric { .. }));
    let Some(Output::Decide { verdict, .. }) = decided else { panic!("a decision") };
    assert!(matches!(verdict.action(), Action::Forward(_)));
    let mut fetch = |_: usize, len: usize| Some(vec![b'x'; len]);
    assert!(matches!(engine.body(STREAM, 0, false, &mut fetch, at(2)), Step::Continue));
    let mut ended = engine.clone();
    assert!(
        matches!(ended.trailers(STREAM, [], &mut |_, _| None, at(2)).0, Step::Continue),
        "no content has come"
    );
    assert!(matches!(engine.body(STREAM, 3, false, &mut fetch, at(2)), Step::Wait), "content");
    assert!(matches!(engine.body(STREAM, 0, true, &mut fetch, at(2)), Step::Wait), "its end");
    assert!(matches!(engine.trailers(STREAM, [], &mut |_, _| None, at(2)).0, Step::Wait), "its trailers");
}

/// They need no credential, so that anybody can send them and never end them.
#[test]
fn preflights_that_do_not_end_take_no_place_of_webhooks() {
    let limits = Limits { receiving: 1, ending: 2, ..Limits::default() };
    for limits in [limits, Limits { parked_receiving: 1, ending: 9, parked_ending: 1024, ..limits }] {
        let mut engine = engine_with(limits);
        let config = r#"{"routes": [{"match": {"methods": ["PUT"], "path": "/p"}, "access": "public",
            "preflight": true}, {"match": {"path": "/hook"}, "webhook": "hook"}], "webhooks": {"hook":
            {"format": "avnology", "secrets": ["a webhook key of enough bytes"], "body_only": true}}}"#;
        engine.configure(ROOT, config::load(config.as_bytes(), &|_| None).unwrap(), at(0));
        let mut preflight =
            head("/p", &[("origin", "https://a.example"), ("access-control-request-method", "PUT")]);
        preflight[0].1 = "OPTIONS".to_owned();
        for n in 0..2 {
            let step = begin(&mut engine, StreamId(n), &preflight, false, at(0));
            assert!(matches!(step, Step::NeedBody), "{n}");
        }
        let Step::Decided(verdict) = begin(&mut engine, StreamId(2), &preflight, false, at(0)) else {
            panic!("one more than may wait")
        };
        assert_eq!(verdict.event().reason(), Reason::OverLimit);
        let delivery = head("/hook", &[("x-avnology-signature", &signed(b""))]);
        assert!(matches!(begin(&mut engine, STREAM, &delivery, false, at(0)), Step::NeedBody));
        assert_eq!(engine.waiting(), 3);
        engine.gone(StreamId(0));
        assert!(matches!(begin(&mut engine, StreamId(3), &preflight, false, at(0)), Step::NeedBody));
    }
}

#[test]
fn the_gate_opens_for_open_streams_only() {
    let phases =
        [Phase::Unknown, Phase::Waiting, Phase::Receiving, Phase::Open, Phase::Empty, Phase::Answered];
    let callbacks = [Callback::Headers, Callback::Body, Callback::Trailers];
    let open: HashSet<_> = phases
        .into_iter()
        .flat_map(|p| callbacks.into_iter().map(move |c| (p, c)))
        .filter(|(p, c)| gate::gate(*p, *c) == Gate::Continue)
        .map(|(p, _)| p)
        .collect();
    assert_eq!(open, HashSet::from([Phase::Open]));
}

#[test]
fn what_a_webhook_has_done_is_told() {
    let document = r#"{"provider": {"cluster": "avnology", "authority": "id.example", "introspection": {"credentials":
            {"method": "client_secret_post", "client_id": "cli", "client_secret": "a secret of enough bytes"}}},
        "routes": [{"match": {"methods": ["POST"], "path": "/hook"}, "webhook": "hook"}], "filter_state": "all",
        "webhooks": {"hook": {"format": "stripe", "secrets": ["another key of enough bytes", "a webhook key of enough bytes"],
            "replay": {}, "evict": {"user.*": "/user"}}}}"#;
    let mut engine = Engine::new(Seed([7; 16]), Rc::new(NoStore));
    engine.configure(ROOT, config::load(document.as_bytes(), &|_| None).unwrap(), at(0));
    let mut told = |body: &str| {
        let format = crate::webhook::format::known("stripe").unwrap();
        let signed =
            crate::webhook::sign::sign(format, &[KEY.as_bytes()], at(0).as_secs(), "", body.as_bytes())
                .unwrap();
        let mut headers = vec![(":method", "POST"), (":path", "/hook"), (":authority", "api.example")];
        headers.extend(signed.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        assert!(matches!(engine.begin(STREAM, ROOT, &head_of(&headers, false), at(0)), Step::NeedBody));
        let mut fetch = |from, len| body.as_bytes().get(from..).map(|rest: &[u8]| rest[..len].to_vec());
        let Step::Decided(verdict) = engine.body(STREAM, body.len(), true, &mut fetch, at(0)) else {
            panic!("it is complete")
        };
        engine.gone(STREAM);
        let names: Vec<String> =
            verdict.event().counters().map(|series| engine.metric_name(series)).collect();
        (verdict.event().filter_state().unwrap_or_default(), names.join(" "))
    };
    let state =
        r#"{"decision":"allow","reason":"webhook_verified","route":null,"subject":null,"secret_index":1}"#;
    let counted = |more: &str| {
        let webhook = "avnology_gate_webhooks_total.webhook.hook.outcome.webhook_verified.secret.1";
        format!("avnology_gate_decisions_total.decision.allow.reason.webhook_verified {webhook}{more}")
    };
    let cases = [
        (r#"{"type":"user.gone","user":"u"}"#, " avnology_gate_evictions_total.outcome.done"),
        (
            r#"{"type":"user.gone","user":"groups:g#member"}"#,
            " avnology_gate_evictions_total.outcome.unmapped",
        ),
        (r#"{"type":"user.gone"}"#, " avnology_gate_evictions_total.outcome.unmapped"),
        (r#"{"type":"other","user":"u"}"#, ""),
    ];
    for (body, more) in cases {
        assert_eq!(told(body), (state.to_owned(), counted(more)), "{body}");
    }
    let (refused, _) = told("{}");
    assert!(refused.contains(r#""reason":"unreadable_event""#), "{refused}");
    let lines = std::iter::from_fn(|| engine.poll()).filter_map(|output| match output {
        Output::Log { level: Level::Warn, message } => Some(message),
        _ => None,
    });
    assert!(lines.into_iter().any(|line| line.contains("unreadable_event: a signed delivery has no type")));
}

#[test]
fn a_client_without_a_token_is_the_address_that_it_comes_from() {
    let config = r#"{"mode": "shadow", "routes": [{"match": {"path": "/r"}, "mode": "shadow", "enforce_percent": 50}],
        "provider": {"cluster": "c", "authority": "a", "introspection": {"credentials": {"method": "none"}}}}"#;
    let mut engine = Engine::new(Seed([7; 16]), Rc::new(NoStore));
    engine.configure(ROOT, config::load(config.as_bytes(), &|_| None).unwrap(), at(0));
    let headers = head("/r", &[]);
    let mut decided = |address: &str| {
        let pairs = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let source = || Some(address.as_bytes().to_vec());
        let head = RequestHead::new(pairs, true).with_source(&source);
        let Step::Decided(verdict) = engine.begin(STREAM, ROOT, &head, at(0)) else { panic!("no token") };
        verdict.event().decision()
    };
    let addresses: Vec<String> = (0..200).map(|n| format!("10.0.0.{n}")).collect();
    let first: Vec<Decision> = addresses.iter().map(|address| decided(&format!("{address}:1"))).collect();
    let again: Vec<Decision> = addresses.iter().map(|address| decided(&format!("{address}:2"))).collect();
    assert_eq!(first, again);
    let enforced = first.iter().filter(|decision| **decision == Decision::Deny).count();
    assert!((60..140).contains(&enforced), "{enforced}");
    assert!(first.iter().all(|decision| matches!(decision, Decision::Deny | Decision::ShadowDeny)));
}

// What one caller may do to others, tried.

fn engine_json(document: serde_json::Value, store: Rc<dyn SharedStore>) -> Engine {
    let mut engine = Engine::with_limits(Seed([3; 16]), store, Limits::default());
    let loaded = config::load(document.to_string().as_bytes(), &|_| None).unwrap();
    engine.configure(ROOT, loaded, at(0));
    while engine.poll().is_some() {}
    engine
}

fn rotating(retries: u32) -> serde_json::Value {
    serde_json::json!({
        "provider": {"cluster": "c", "authority": "id.example", "timeout": "1s", "circuit_breaker": "off", "retries": retries,
            "introspection": {"credentials": {"method": "client_secret_post", "client_id": "i", "client_secret": "first-secret", "next_client_secret": "next-secret"}},
            "permissions": {"api_key": "first-key", "next_api_key": "next-key"}},
        "routes": [{"name": "t", "match": {"path": "/token"}},
            {"name": "check", "match": {"path": "/check/{id}"}, "require": {"permissions": {"all": [{"relation": "a", "object": "x:{path.id}"}]}}}]
    })
}

fn outputs(engine: &mut Engine) -> (Vec<(FlightId, bool, String)>, Vec<String>, Vec<(StreamId, Reason)>) {
    let (mut calls, mut logs, mut decided) = (vec![], vec![], vec![]);
    while let Some(output) = engine.poll() {
        match output {
            Output::Dispatch { flight, callout, .. } if !flight.is_probe() => {
                let auth = callout
                    .headers
                    .iter()
                    .find(|(n, _)| *n == "authorization")
                    .map(|(_, v)| v.clone())
                    .unwrap_or_default();
                calls.push((flight, callout.retries_unsent_only, auth));
            }
            Output::Log { message, .. } => logs.push(message),
            Output::Decide { stream, verdict } => decided.push((stream, verdict.event().reason())),
            _ => {}
        }
    }
    (calls, logs, decided)
}

fn tok(n: u32) -> Headers {
    head("/token", &[("authorization", &format!("Bearer t{n}"))])
}

#[test]
fn what_another_worker_has_asked_again_is_one_look_up() {
    let doc = || rotating(0);
    let store: Rc<dyn SharedStore> = Rc::new(Map::default());
    let (mut a, mut b) = (engine_json(doc(), store.clone()), engine_json(doc(), store));
    let ask = |e: &mut Engine, now: u64| {
        let step = begin(e, STREAM, &tok(1), true, at(now));
        let (calls, ..) = outputs(e);
        for (f, ..) in calls {
            land(e, f, r#"{"active":true,"sub":"u"}"#, at(now + 1));
        }
        outputs(e);
        e.gone(STREAM);
        matches!(step, Step::Decided(_))
    };
    assert!(!ask(&mut a, 1000));
    assert!(ask(&mut b, 1100));
    // a refreshes near the end of the lifetime, then b.
    assert!(ask(&mut a, 29_000));
    let counts = |e: &mut Engine| {
        let due = e.next_deadline(ROOT).unwrap();
        e.tick(ROOT, due);
        let mut c = vec![];
        while let Some(o) = e.poll() {
            if let Output::Metric {
                series: Series::Cache(FactLabel::Token, outcome),
                change: Change::Grow(n),
            } = o
            {
                c.push((outcome, n));
            }
        }
        c
    };
    counts(&mut b);
    assert!(ask(&mut b, 29_500));
    assert_eq!(counts(&mut b), [(CacheOutcome::Hit, 1)], "one look-up, one count");
}

#[test]
fn a_second_credentials_call_is_hedged_no_more_than_a_first() {
    let mut engine = engine_json(rotating(1), Rc::new(NoStore));
    for n in 0..64 {
        let _ = begin(&mut engine, StreamId(n), &tok(n), true, at(0));
    }
    let (calls, ..) = outputs(&mut engine);
    assert!(calls.last().unwrap().1);
    let (last, ..) = calls[63].clone();
    engine.landed(last, answered(401, ""), at(1));
    let (calls, ..) = outputs(&mut engine);
    assert_eq!(calls.len(), 1);
    assert!(calls[0].1, "63 of 64 are under way, and this one may be hedged");
}

#[test]
fn a_second_credentials_call_waits_where_the_endpoint_asked_for_it() {
    let mut engine = engine_json(rotating(1), Rc::new(NoStore));
    for n in 0..2 {
        let _ = begin(&mut engine, StreamId(n), &tok(n), true, at(0));
    }
    let (calls, ..) = outputs(&mut engine);
    engine.landed(calls[0].0, Ok(Response { status: 429, retry_after: Some(b"20"), body: b"" }), at(1));
    outputs(&mut engine);
    engine.landed(calls[1].0, answered(401, ""), at(2));
    assert_eq!(outputs(&mut engine).0.len(), 0, "the endpoint asked for 20 s");
}

#[test]
fn a_routes_own_next_secret_is_tried() {
    let mut doc = rotating(0);
    doc["provider"]["introspection"]["credentials"].as_object_mut().unwrap().remove("next_client_secret");
    doc["routes"][0]["introspection"] = serde_json::json!({"credentials": {"method": "client_secret_post", "client_id": "i", "client_secret": "first-secret", "next_client_secret": "next-secret"}});
    let mut engine = engine_json(doc, Rc::new(NoStore));
    let _ = begin(&mut engine, STREAM, &tok(0), true, at(0));
    let (calls, ..) = outputs(&mut engine);
    engine.landed(calls[0].0, answered(401, ""), at(2));
    assert_eq!(outputs(&mut engine).0.len(), 1, "the route's next_client_secret is tried");
}

#[test]
fn three_hundred_policies_have_a_digest_each() {
    let mut engine = engine_json(rotating(0), Rc::new(NoStore));
    let mut names = HashSet::new();
    for n in 0..300 {
        let mut doc = rotating(0);
        doc["max_token_bytes"] = serde_json::json!(2000 + n);
        engine.configure(ROOT, config::load(doc.to_string().as_bytes(), &|_| None).unwrap(), at(n));
        let due = engine.next_deadline(ROOT).unwrap();
        engine.tick(ROOT, due);
        while let Some(o) = engine.poll() {
            if let Output::Metric { series: s @ Series::Policy(..), change: Change::Move(1) } = o {
                names.insert(engine.metric_name(s));
            }
        }
    }
    assert_eq!(names.len(), 300);
}

#[test]
fn a_configured_name_with_an_underscore_warns_of_no_listener() {
    let mut doc = rotating(0);
    doc["identity_headers"] = serde_json::json!({"x_user": "{token.sub}"});
    let mut engine = engine_json(doc, Rc::new(Map::default()));
    let _ = begin(&mut engine, STREAM, &head("/token", &[("x_user", "me")]), true, at(0));
    let (_, logs, _) = outputs(&mut engine);
    assert!(!logs.iter().any(|l| l.contains("underscores")), "{logs:?}");
}

#[test]
fn a_second_call_that_cannot_be_sent_is_an_answer_too() {
    let mut engine = engine_json(rotating(0), Rc::new(NoStore));
    let _ = begin(&mut engine, STREAM, &tok(0), true, at(0));
    let (calls, ..) = outputs(&mut engine);
    engine.landed(calls[0].0, answered(401, ""), at(1));
    let (calls, ..) = outputs(&mut engine);
    engine.landed(calls[0].0, Err(CallFailure::NotStarted), at(1));
    assert_eq!(outputs(&mut engine).2, [(STREAM, Reason::NotStarted)]);
    assert_eq!(at_rest(&mut engine), None);
}

#[test]
fn gauges_come_back_to_zero_whatever_comes_between() {
    let mut engine = engine_json(rotating(0), Rc::new(NoStore));
    let mut gauges: std::collections::BTreeMap<String, i64> = Default::default();
    let mut follow = |e: &mut Engine| {
        let mut calls = vec![];
        while let Some(o) = e.poll() {
            match o {
                Output::Metric { series, change: Change::Move(by) } => {
                    let g = gauges.entry(e.metric_name(series)).or_default();
                    *g += by;
                    assert!(*g >= 0);
                }
                Output::Dispatch { flight, .. } => calls.push(flight),
                _ => {}
            }
        }
        (calls, gauges.clone())
    };
    for n in 0..5 {
        let _ = begin(&mut engine, StreamId(n), &tok(n), true, at(0));
    }
    engine.tick(ROOT, at(1000 - 1));
    engine.tick(ROOT, at(1000));
    follow(&mut engine);
    let mut doc = rotating(0);
    doc["max_token_bytes"] = 2000.into();
    engine.configure(RootId(2), config::load(doc.to_string().as_bytes(), &|_| None).unwrap(), at(1001));
    engine.tick(RootId(2), at(1002));
    engine.tick(RootId(1), at(100)); // an hour back would be the same
    follow(&mut engine);
    engine.root_gone(ROOT, at(101));
    follow(&mut engine);
    for t in 1..5 {
        engine.tick(RootId(2), at(101 + t * 1000));
    }
    follow(&mut engine);
    engine.root_gone(RootId(2), at(9000));
    let (_, now) = follow(&mut engine);
    assert!(now.values().all(|v| *v == 0), "{now:#?}");
}

/// Each answer of the provider's refuses what the gate showed it.
#[test]
fn where_both_credentials_are_refused_calls_do_not_double() {
    let mut engine = engine_json(rotating(0), Rc::new(NoStore));
    let mut made = 0;
    for n in 0..100 {
        let _ = begin(&mut engine, StreamId(n), &tok(1), true, at(u64::from(n)));
        loop {
            let (calls, ..) = outputs(&mut engine);
            if calls.is_empty() {
                break;
            }
            for (flight, ..) in calls {
                made += 1;
                engine.landed(flight, answered(401, ""), at(u64::from(n)));
            }
        }
    }
    assert_eq!(made, 101);
}

/// The objects of one are refused with the first key alone, those of the other with the next one.
#[test]
fn whoever_chooses_what_is_refused_moves_the_preferred_key_at_most_every_ten_seconds() {
    let mut engine = engine_json(rotating(0), Rc::new(NoStore));
    let mut lines = 0;
    for n in 0..200_u32 {
        let request = head(&format!("/check/{n}"), &[("authorization", "Bearer t")]);
        let now = at(u64::from(n) * 100);
        let _ = begin(&mut engine, StreamId(n), &request, true, now);
        loop {
            let (calls, logs, _) = outputs(&mut engine);
            lines += logs.iter().filter(|line| line.contains("takes the gate's")).count();
            if calls.is_empty() {
                break;
            }
            for (flight, _, key) in calls {
                let answer = match (key.as_str(), n % 2) {
                    ("", _) => answered(200, r#"{"active":true,"sub":"u"}"#),
                    ("Bearer first-key", 0) | ("Bearer next-key", 1) => answered(401, ""),
                    _ => answered(200, r#"{"allowed":true}"#),
                };
                engine.landed(flight, answer, now);
            }
        }
        engine.gone(StreamId(n));
    }
    assert!((1..=3).contains(&lines), "{lines} moves in 20 s");
}

#[test]
fn a_delivery_ends_what_is_cached_from_whatever_address_it_comes() {
    let document = r#"{"provider": {"cluster": "avnology", "authority": "id.example", "introspection": {"credentials":
            {"method": "client_secret_post", "client_id": "cli", "client_secret": "a secret of enough bytes"}}},
        "routes": [{"match": {"methods": ["POST"], "path": "/hook"}, "webhook": "hook"}],
        "webhooks": {"hook": {"format": "stripe", "secrets": ["a webhook key of enough bytes"], "mode": "shadow",
            "enforce_percent": 50, "replay": {}, "evict": {"user.*": "/user"}}}}"#;
    let mut engine = Engine::new(Seed([7; 16]), Rc::new(Map::default()));
    engine.configure(ROOT, config::load(document.as_bytes(), &|_| None).unwrap(), at(0));
    for n in 0..20 {
        let (address, body) = (format!("10.0.0.{n}:1"), format!(r#"{{"type":"user.gone","user":"u{n}"}}"#));
        let format = crate::webhook::format::known("stripe").unwrap();
        let signed =
            crate::webhook::sign::sign(format, &[KEY.as_bytes()], at(0).as_secs(), "", body.as_bytes())
                .unwrap();
        let mut headers = vec![(":method", "POST"), (":path", "/hook"), (":authority", "api.example")];
        headers.extend(signed.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let source = || Some(address.as_bytes().to_vec());
        let pairs = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let head = RequestHead::new(pairs, false).with_source(&source);
        assert!(matches!(engine.begin(STREAM, ROOT, &head, at(0)), Step::NeedBody));
        let mut fetch = |from, len| body.as_bytes().get(from..).map(|rest: &[u8]| rest[..len].to_vec());
        let Step::Decided(verdict) = engine.body(STREAM, body.len(), true, &mut fetch, at(0)) else {
            panic!("it is complete")
        };
        engine.gone(STREAM);
        assert!(verdict.event().eviction.is_some(), "{address}");
    }
}

/// Their keys are random, so whoever reads the log can try no guesses with them.
#[test]
fn a_tokens_fingerprint_is_that_of_the_process() {
    let printed = |seed: u8, store: Rc<dyn SharedStore>| {
        let mut engine = Engine::with_limits(Seed([seed; 16]), store, Limits::default());
        engine.configure(ROOT, config::load(rotating(0).to_string().as_bytes(), &|_| None).unwrap(), at(0));
        let _ = begin(&mut engine, STREAM, &tok(1), true, at(0));
        let (calls, ..) = outputs(&mut engine);
        land(&mut engine, calls[0].0, r#"{"active":false}"#, at(1));
        let line = outputs(&mut engine).1.into_iter().find(|line| line.contains("\"token\":\"")).unwrap();
        line.split("\"token\":\"").nth(1).unwrap()[..16].to_owned()
    };
    let store: Rc<dyn SharedStore> = Rc::new(Map::default());
    let ours = printed(1, Rc::clone(&store));
    assert_eq!(ours, printed(2, store));
    assert_ne!(printed(3, Rc::new(NoStore)), printed(4, Rc::new(NoStore)));
}
