//! The gate decides as a naive reference does, over random policies and requests.

// A panic in a helper fails the test as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::string_slice)]

#[path = "differential/gate.rs"]
mod gate;
#[path = "differential/reference.rs"]
mod reference;
#[path = "differential/world.rs"]
mod world;

use avnology_gate::config;
use avnology_gate::flow::{Engine, NoStore, Seed, StreamId};
use gate::{NOW, ROOT, decide};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::rc::Rc;
use world::{Decided, Known, Policy, Random, Request, TOKENS};

const POLICIES: u64 = 5_000;
const REQUESTS: u32 = 20;

#[test]
fn it_decides_as_the_reference_does() {
    let (mut decided, mut reasons) = (0_u64, BTreeMap::new());
    for seed in 0..POLICIES * 2 {
        let mut random = Random::new(seed, &[]);
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

/// How many requests the command line explains.
const EXPLAINED: usize = 1_000;

/// What `explain` says of a request whose token and permissions the provider answers as the
/// reference takes it to.
fn explained(document: &str, request: &Request, expected: &Decided) -> Option<Value> {
    let mut explain = Command::new(env!("CARGO_BIN_EXE_avnology-gate"));
    explain.args(["explain", "-", "--format", "json", "--method", request.method]);
    explain.args(["--host", request.authority, "--path", request.path]);
    if let Some(value) = request.authorization {
        explain.arg("--header").arg(format!("authorization: {value}"));
        let token = value.rsplit(' ').next().unwrap();
        let claims = match TOKENS.iter().find(|(name, _)| *name == token).map(|(_, known)| known) {
            // What the provider answers then is no set of claims.
            Some(Known::Garbage | Known::Fails) => return None,
            Some(Known::Active(claims)) => {
                let exp = if claims.is_expired { 1 } else { 9_000_000_000_u64 };
                serde_json::json!({"sub": claims.sub, "scope": claims.scope, "aud": claims.aud, "org_id": claims.org, "exp": exp})
            }
            None => serde_json::json!({"active": false}),
        };
        explain.arg("--claims").arg(claims.to_string());
    }
    if expected.reason == "provider_server_error" {
        return None;
    }
    explain
        .args(["--permissions", if expected.reason == "permission_denied" { "denied" } else { "granted" }]);
    let mut child = explain.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(document.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{request:?}\n{document}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn explain_says_what_the_reference_decides() {
    let (mut told, mut reasons) = (0, BTreeMap::new());
    for seed in 1_000_000_u64.. {
        let mut random = Random::new(seed, &[]);
        let policy = Policy::random(&mut random);
        let document = policy.document().to_string();
        if config::load(document.as_bytes(), &|_| None).is_err() {
            continue;
        }
        for _ in 0..REQUESTS {
            let request = Request::random(&mut random);
            let expected = reference::decide(&policy, &request);
            let Some(said) = explained(&document, &request, &expected) else { continue };
            let context = format!("seed {seed}: {request:?}\n{document}\n{said:#}");
            assert_eq!(said["decision"], expected.decision, "{context}");
            assert_eq!(said["reason"], expected.reason, "{context}");
            // Whoever is let in has a route, or the default; each other route lost for a reason.
            let others = said["others"].as_array().unwrap().len();
            let is_read = !["invalid_host", "invalid_path"].contains(&expected.reason);
            let chosen = usize::from(!said["route"].is_null());
            assert_eq!(others, if is_read { policy.routes.len() - chosen } else { 0 }, "{context}");
            let user = said["adds"].as_array().unwrap().iter().find(|it| it[0] == "x-avnology-user-id");
            assert_eq!(user.map(|it| it[1].as_str().unwrap()), expected.identity, "{context}");
            *reasons.entry(expected.reason).or_insert(0_u32) += 1;
            told += 1;
        }
        if told >= EXPLAINED {
            break;
        }
    }
    assert!(reasons.len() >= 12, "{reasons:?}");
}
