//! The gate, as the reference is compared with it.

use crate::world::{Decided, Known, Request, TOKENS};
use avnology_gate::envoy::header_map;
use avnology_gate::flow::{Engine, Output, RootId, Step, StreamId};
use avnology_gate::http::{Callout, Edit, Response};
use avnology_gate::time::Timestamp;
use avnology_gate::verdict::{Action, Verdict};
use serde_json::{Value, json};
use std::borrow::Cow;

pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);
pub(crate) const ROOT: RootId = RootId(1);

type Head<'h> = Vec<(Cow<'h, str>, Cow<'h, str>)>;

/// What the gate decides, and what the service reads then.
pub(crate) fn decide(engine: &mut Engine, stream: StreamId, request: &Request, now: Timestamp) -> Decided {
    let mut sent = vec![
        (":method", request.method),
        (":path", request.path),
        (":authority", request.authority),
        ("x-avnology-user-id", "evil"),
        ("X_AVNOLOGY_USER_ID", "evil"),
    ];
    sent.extend(request.authorization.map(|value| ("authorization", value)));
    let bytes = header_map::encode(&sent);
    let mut head: Head<'_> =
        sent.into_iter().map(|(name, value)| (Cow::Borrowed(name), Cow::Borrowed(value))).collect();
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

fn outcome(verdict: &Verdict, mut head: Head<'_>) -> Decided {
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
            let user = users.next().map(|(_, value)| value.as_ref());
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

fn apply(edits: &[Edit], head: &mut Head<'_>) {
    let text = |bytes: &[u8]| Cow::Owned(String::from_utf8(bytes.to_vec()).unwrap());
    for edit in edits {
        match edit {
            Edit::Remove(name) => head.retain(|(n, _)| !n.as_bytes().eq_ignore_ascii_case(name)),
            Edit::Add(name, value) => head.push((text(name), text(value))),
            Edit::AddAll(all) => head.extend(all.iter().map(|(name, value)| (text(name), text(value)))),
            Edit::Replace(name, value) => {
                head.retain(|(n, _)| !n.as_bytes().eq_ignore_ascii_case(name));
                head.push((text(name), text(value)));
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
