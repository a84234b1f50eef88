//! `avnology-gate explain` says what Envoy with the module does, for generated policies and
//! requests.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use harness::client::{Ask, Version};
use harness::envoy::{Envoy, Refused};
use harness::sample;
use harness::scene::{LINE, Scene};
use harness::standin::Seed;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::world::{Known, Policy, Random, Request, TOKENS};
use crate::{Fleet, Outcome, Run, ensure, trial};

/// How many requests are compared.
const REQUESTS: usize = 1_000;
/// How many of them go to each policy.
const TO_EACH: usize = 25;

pub(crate) fn trials(fleet: &Fleet) -> Vec<Trial> {
    let run: Run = explains;
    vec![trial(fleet, "explain_agrees_with_envoy", 1, run)]
}

/// The provider's seed: the tokens of the generated requests, and one object that they may edit.
fn seed() -> Result<Seed, String> {
    let mut seed = serde_json::to_value(Seed::embedded()).map_err(|error| error.to_string())?;
    let mut permissions = Vec::new();
    for (name, known) in &TOKENS {
        let Known::Active(claims) = known else { continue };
        let expires_in = if claims.is_expired { -100 } else { 100_000 };
        seed["tokens"][name] = json!({
            "sub": claims.sub, "scope": claims.scope, "aud": claims.aud, "org_id": claims.org,
            "expires_in": expires_in,
        });
        permissions.push(json!({
            "namespace": "projects", "object": "granted", "relation": "editor",
            "subject": format!("identities:{}", claims.sub),
        }));
    }
    seed["permissions"] = json!(permissions);
    serde_json::from_value(seed).map_err(|error| error.to_string())
}

/// A generated policy at the shipped provider, without anything that one request leaves to another.
fn policy(random: &mut Random<'_>) -> Value {
    let mut policy = Policy::random(random).document();
    let shipped = sample::forgetful_policy();
    policy["provider"] = shipped["provider"].clone();
    policy["cache"] = shipped["cache"].clone();
    policy["filter_state"] = json!("all");
    policy
}

/// Whether Envoy hands a request to its filters as it was sent.
fn is_plain(request: &Request) -> bool {
    !request.path.contains(['%', ';', '@'])
        && !request.path.contains("//")
        && !request.path.contains("/..")
        && !request.authority.contains('@')
}

fn explained(document: &str, request: &Request, seed: &Seed, granted: bool) -> Result<Value, String> {
    let mut explain = Command::new(env!("CARGO_BIN_EXE_avnology-gate"));
    explain.args(["explain", "-", "--format", "json", "--method", request.method]);
    explain.args(["--host", request.authority, "--path", request.path]);
    if let Some(value) = request.authorization {
        explain.arg("--header").arg(format!("authorization: {value}"));
        let token = value.rsplit(' ').next().and_then(|token| seed.tokens.get(token));
        let claims = token.map_or(json!({"active": false}), |token| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let mut claims = token.claims.clone();
            let exp = now.saturating_add_signed(token.expires_in.unwrap_or_default());
            claims.insert("exp".to_owned(), exp.into());
            Value::Object(claims)
        });
        explain.arg("--claims").arg(claims.to_string());
    }
    explain.args(["--permissions", if granted { "granted" } else { "denied" }]);
    let mut child =
        explain.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    child
        .stdin
        .take()
        .ok_or("no standard input")?
        .write_all(document.as_bytes())
        .map_err(|it| it.to_string())?;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {request:?} {document}"))
}

/// What `explain` says when its permission is answered as the provider's seed has it.
fn said(document: &str, request: &Request, seed: &Seed) -> Result<Value, String> {
    let said = explained(document, request, seed, false)?;
    let checks = said["calls"].as_array().into_iter().flatten().map(|call| &call["check"]);
    let mut asked = checks.filter(|check| !check.is_null());
    let holds = |check: &Value| seed.permissions.iter().any(|known| json!(known) == *check);
    if asked.any(holds) { explained(document, request, seed, true) } else { Ok(said) }
}

fn explains(envoy: &Arc<Envoy>) -> Outcome {
    let seed = seed()?;
    let mut scene = Scene::new(envoy, "explain", seed.clone())?;
    let (mut compared, mut reasons) = (0, BTreeMap::new());
    for number in 2_000_000_u64.. {
        let mut random = Random::new(number, &[]);
        let policy = policy(&mut random);
        let document = policy.to_string();
        // Two routes for one request: refused, by both.
        match scene.configure(&policy) {
            Ok(()) => {}
            Err(Refused(text)) => {
                ensure!(text.contains("Unable") || text.contains("onfigur"), "seed {number}: {text}");
                continue;
            }
        }
        let mut connection = scene.connect(Version::Http2, None)?;
        let port = connection.port().map_err(|error| error.to_string())?;
        let mut sent = 0;
        while sent < TO_EACH {
            let request = Request::random(&mut random);
            if !is_plain(&request) {
                continue;
            }
            let mut ask = Ask::new(request.method, request.path, request.authority);
            if let Some(value) = request.authorization {
                ask = ask.header("authorization", value);
            }
            let answer = connection.ask(&ask).map_err(|failure| format!("{request:?}: {failure}"))?;
            let line = scene.line(port, sent, LINE)?.ok_or("no line in the access log")?;
            let gate: Value =
                serde_json::from_str(line.gate.as_deref().unwrap_or("null")).unwrap_or_default();
            let said = said(&document, &request, &seed)?;
            let context = format!("seed {number}: {request:?}\n{document}\n{said:#}\nEnvoy: {line:?}");
            ensure!(said["decision"] == gate["decision"], "{context}");
            ensure!(said["reason"] == gate["reason"], "{context}");
            let status = if said["decision"] == "deny" { said["status"].clone() } else { json!(200) };
            ensure!(status == json!(answer.status), "{context}");
            if answer.status == 200 && request.method != "HEAD" {
                let echo = answer.json();
                let user = |pairs: &Value| {
                    let pairs = pairs.as_array()?;
                    Some(pairs.iter().find(|pair| pair[0] == "x-avnology-user-id")?[1].clone())
                };
                ensure!(user(&said["adds"]) == user(&echo["headers"]), "{context}\n{echo}");
            }
            *reasons.entry(said["reason"].to_string()).or_insert(0_u32) += 1;
            (sent, compared) = (sent + 1, compared + 1);
        }
        if compared >= REQUESTS {
            break;
        }
    }
    ensure!(reasons.len() >= 10, "{compared} requests, {reasons:?}");
    Ok(())
}
