//! The gate decides as a naive reference does, over random policies and requests.

// A panic in a helper fails the test as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::string_slice)]

#[path = "differential/reference.rs"]
mod reference;
#[path = "differential/world.rs"]
mod world;

use avnology_gate::config;
use avnology_gate::envoy::header_map;
use avnology_gate::flow::{Engine, NoStore, Output, RootId, Seed, Step, StreamId};
use avnology_gate::http::{Callout, Edit, Response};
use avnology_gate::time::Timestamp;
use avnology_gate::verdict::{Action, Verdict};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;
use world::{Decided, Known, Policy, Random, Request, TOKENS};

const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);
const ROOT: RootId = RootId(1);
const POLICIES: u64 = 5_000;
const REQUESTS: u32 = 20;

#[test]
fn it_decides_as_the_reference_does() {
    let (mut decided, mut reasons) = (0_u64, BTreeMap::new());
    for seed in 0..POLICIES * 2 {
        let mut random = Random(seed);
        let policy = Policy::random(&mut random);
        let document = policy.document();
        // Two routes for one request: refused, which is not what is asked here.
        let loaded = match config::load(document.to_string().as_bytes(), &|_| None) {
            Ok(loaded) => loaded,
            Err(problems) => {
                let is_overlap =
                    |line: &String| line.contains("expected a request that only one route names");
                assert!(problems.lines().iter().all(is_overlap), "{problems}\n{document:#}");
                continue;
            }
        };
        let mut engine = Engine::new(Seed([1; 16]), Rc::new(NoStore));
        engine.configure(ROOT, loaded, NOW);
        for stream in 0..REQUESTS {
            let request = Request::random(&mut random);
            let expected = reference::decide(&policy, &request);
            // Each at a time of its own, so that no question waits after a call that failed.
            let now = NOW.saturating_add(std::time::Duration::from_secs(60 * u64::from(stream)));
            let got = decide(&mut engine, StreamId(stream), &request, now);
            assert_eq!(got, expected, "seed {seed}: {request:?}\n{document}");
            *reasons.entry(got.reason).or_insert(0_u32) += 1;
            decided += 1;
        }
    }
    assert!(decided >= 100_000, "only {decided} decisions: most policies are refused");
    // It would prove little if one answer were nearly all of them.
    assert!(reasons.len() >= 14 && reasons.values().all(|count| *count >= 50), "{reasons:?}");
}

/// What the gate decides, and what the service reads then.
fn decide(engine: &mut Engine, stream: StreamId, request: &Request, now: Timestamp) -> Decided {
    let mut head = vec![
        (":method", request.method),
        (":path", request.path),
        (":authority", request.authority),
        ("x-avnology-user-id", "evil"),
        ("X_AVNOLOGY_USER_ID", "evil"),
    ];
    head.extend(request.authorization.map(|value| ("authorization", value)));
    let bytes = header_map::encode(&head);
    let mut verdict = match engine.begin(stream, ROOT, &header_map::request_head(&bytes, true), now) {
        Step::Decided(verdict) => Some(verdict),
        step => {
            assert!(matches!(step, Step::Wait), "{step:?}");
            None
        }
    };
    while let Some(output) = engine.poll() {
        match output {
            Output::Dispatch { flight, callout, .. } => {
                let (status, body) = answer(&callout);
                let body = body.to_string();
                let response = Response { status, retry_after: None, body: body.as_bytes() };
                engine.landed(flight, Ok(response), now);
            }
            Output::Decide { verdict: decided, .. } => {
                assert!(verdict.replace(decided).is_none(), "decided twice");
            }
            Output::Edit { edits, .. } => apply(&edits, &mut head),
            _ => {}
        }
    }
    engine.gone(stream);
    outcome(&verdict.expect("every request is decided"), head)
}

fn outcome(verdict: &Verdict, mut head: Vec<(&str, &str)>) -> Decided {
    let event = verdict.event();
    let mut decided = Decided {
        decision: event.decision().id(),
        reason: event.reason().id(),
        status: None,
        identity: None,
    };
    match verdict.action() {
        Action::Respond { reply, .. } => decided.status = Some(reply.status),
        Action::Forward(edits) => {
            apply(edits, &mut head);
            let mut users =
                head.iter().filter(|(name, _)| name.to_lowercase().replace('_', "-") == "x-avnology-user-id");
            let user = users.next().map(|(_, value)| *value);
            assert_eq!(users.next(), None);
            let known = ["alice", "bob", "rob", "old"].into_iter().find(|known| Some(*known) == user);
            assert_eq!(known.is_some(), user.is_some(), "{user:?} reached the service");
            decided.identity = known;
            // A refusal that is only counted has a status of its own all the same.
            if decided.decision == "shadow_deny" {
                decided.status = Some(event.reason().info().answer.status.code);
            }
        }
    }
    decided
}

fn apply(edits: &[Edit], head: &mut Vec<(&str, &str)>) {
    let leak = |bytes: &[u8]| -> &'static str { String::from_utf8(bytes.to_vec()).unwrap().leak() };
    for edit in edits {
        match edit {
            Edit::Remove(name) => head.retain(|(n, _)| !n.as_bytes().eq_ignore_ascii_case(name)),
            Edit::Add(name, value) => head.push((leak(name), leak(value))),
            Edit::AddAll(all) => head.extend(all.iter().map(|(name, value)| (leak(name), leak(value)))),
            Edit::Replace(name, value) => {
                head.retain(|(n, _)| !n.as_bytes().eq_ignore_ascii_case(name));
                head.push((leak(name), leak(value)));
            }
        }
    }
}

/// What the provider says.
fn answer(callout: &Callout) -> (u16, Value) {
    let body = String::from_utf8(callout.body.clone()).unwrap();
    if callout.path.contains("permissions") {
        let check: Value = serde_json::from_str(&body).unwrap();
        return match check["object"].as_str().unwrap() {
            "fails" => (500, json!({})),
            object => (200, json!({"allowed": object == "granted"})),
        };
    }
    let token = body.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap();
    match TOKENS.iter().find(|(name, _)| *name == token).map(|(_, known)| known) {
        None => (200, json!({"active": false})),
        Some(Known::Garbage) => (200, json!({"active": "yes"})),
        Some(Known::Fails) => (500, json!({})),
        Some(Known::Active(claims)) => {
            let end = NOW.as_secs();
            let exp = if claims.is_expired { end - 100 } else { end + 1_000_000 };
            (
                200,
                json!({"active": true, "sub": claims.sub, "scope": claims.scope, "aud": claims.aud, "org_id": claims.org, "exp": exp}),
            )
        }
    }
}
