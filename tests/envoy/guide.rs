//! `seed_guide_flows`: the three things that Avnology's FastAPI guide has a service do itself, done
//! by the gate in front of one: the bearer dependency (profile), the permission dependency (project
//! editor) and the webhook endpoint. All with the shipped policy.

use std::sync::Arc;

use harness::client::{self, Answer, Ask, Version};
use harness::corpus::WEBHOOK_SECRET;
use harness::envoy::{Envoy, Refused};
use harness::sample;
use harness::scene::Scene;
use harness::standin;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{Fleet, Outcome, Run, ensure, trial};

pub(crate) fn trials(fleet: &Fleet) -> Vec<Trial> {
    let all: &[(&str, Run)] = &[
        ("seed_guide_flows/profile", profile),
        ("seed_guide_flows/project_editor", project_editor),
        ("seed_guide_flows/webhook", webhook),
        ("seed_guide_flows/webhook_signed_as_the_guide_does", webhook_body_only),
    ];
    let workers = [1, 2];
    let named = |workers, name: &str| format!("{name}::w{workers}");
    workers
        .into_iter()
        .flat_map(|workers| {
            all.iter().map(move |(name, run)| trial(fleet, &named(workers, name), workers, *run))
        })
        .collect()
}

fn send(
    scene: &Scene,
    version: Version,
    method: &str,
    path: &str,
    token: Option<&str>,
) -> Result<Answer, String> {
    let mut request = Ask::new(method, path, "api.example.com");
    if let Some(token) = token {
        request = request.bearer(token);
    }
    client::ask(scene.address, version, &request)
        .map_err(|failure| format!("{version} {method} {path}: {failure}"))
}

fn header<'v>(echo: &'v Value, name: &str) -> Option<&'v str> {
    let pairs = echo["headers"].as_array()?;
    pairs.iter().find(|pair| pair[0] == name)?[1].as_str()
}

/// The guide's first flow: introspect, 401 when inactive, else user id, scopes and organisation go
/// on to the handler.
fn profile(envoy: &Arc<Envoy>) -> Outcome {
    let scene = Scene::with(envoy, "guide-profile", &sample::forgetful_policy())?;
    for version in [Version::Http1, Version::Http2] {
        let answer = send(&scene, version, "GET", "/api/profile", Some("tok_alice"))?;
        ensure!(answer.status == 200, "{version}: {} {}", answer.status, answer.text());
        let echo = answer.json();
        for (name, value) in [
            ("x-avnology-user-id", "usr_alice"),
            ("x-avnology-scopes", "profile projects"),
            ("x-avnology-org-id", "org_acme"),
        ] {
            ensure!(
                header(&echo, name) == Some(value),
                "{version}: the handler got {name} {:?}",
                header(&echo, name)
            );
        }
        for (token, status, error) in [
            (None, 401, "missing_token"),
            (Some("tok_revoked"), 401, "invalid_token"),
            (Some("tok_unknown"), 401, "invalid_token"),
            (Some("tok_expired"), 401, "invalid_token"),
            (Some("tok_noscope"), 403, "insufficient_scope"),
        ] {
            let answer = send(&scene, version, "GET", "/api/profile", token)?;
            ensure!(answer.status == status, "{version} {token:?}: {} {}", answer.status, answer.text());
            ensure!(answer.error().as_deref() == Some(error), "{version} {token:?}: {}", answer.text());
        }
    }
    let introspection = scene.provider.calls()?.into_iter().next().ok_or("the provider was not asked")?;
    for part in ["token=tok_alice", "token_type_hint=access_token", "client_id=cli_gate"] {
        ensure!(introspection.body.contains(part), "the introspection lacks {part}");
    }
    Ok(())
}

/// The second one: `subject=user:{sub}`, a relation, an object built from the path; 403 when
/// denied.
fn project_editor(envoy: &Arc<Envoy>) -> Outcome {
    let scene = Scene::with(envoy, "guide-editor", &sample::forgetful_policy())?;
    for version in [Version::Http1, Version::Http2] {
        scene.provider.clear()?;
        let answer = send(&scene, version, "PUT", "/api/projects/proj_1", Some("tok_alice"))?;
        ensure!(answer.status == 200, "{version}: {} {}", answer.status, answer.text());
        let checks: Vec<Value> =
            scene.provider.calls()?.iter().filter_map(|call| Some(json!(call.check.as_ref()?))).collect();
        let expected = json!({"namespace": "projects", "object": "proj_1", "relation": "editor", "subject": "identities:usr_alice"});
        ensure!(checks == [expected], "{version}: the provider was asked {checks:?}");
        let answer = send(&scene, version, "PUT", "/api/projects/proj_2", Some("tok_alice"))?;
        ensure!(answer.error().as_deref() == Some("permission_denied"), "{version}: {}", answer.text());
        let answer = send(&scene, version, "PUT", "/api/projects/proj_1", None)?;
        ensure!(answer.status == 401, "{version}: {}", answer.text());
    }
    Ok(())
}

/// Makes the provider deliver an event through the gate; returns the gate's answer.
fn deliver(scene: &Scene, secret: &str, more: &Value) -> Result<(u64, Value), String> {
    let mut delivery = json!({
        "url": format!("http://{}/webhooks/avnology", scene.address),
        "secret": secret,
        "event": {"type": "user.created", "data": {"id": "usr_carol"}}
    });
    harness::corpus::merge(&mut delivery, more);
    let delivered = scene.provider.deliver(&delivery)?;
    let body =
        delivered["body"].as_str().and_then(|body| serde_json::from_str(body).ok()).unwrap_or_default();
    Ok((delivered["status"].as_u64().unwrap_or_default(), body))
}

/// The third one: the signature over the raw body, 401 when wrong, then dispatch by type.
fn webhook(envoy: &Arc<Envoy>) -> Outcome {
    let scene = Scene::with(envoy, "guide-webhook", &sample::forgetful_policy())?;
    let (status, echo) = deliver(&scene, WEBHOOK_SECRET, &json!({}))?;
    ensure!(status == 200, "{status} {echo}");
    ensure!(header(&echo, "x-avnology-webhook-verified") == Some("true"), "not marked as verified: {echo}");
    let event: Value = serde_json::from_str(echo["body"].as_str().unwrap_or_default()).unwrap_or_default();
    ensure!(event["type"] == "user.created", "the service cannot dispatch: {echo}");
    for (secret, more, error) in [
        ("whsec_of_somebody_else_entirely", json!({}), "invalid_signature"),
        (WEBHOOK_SECRET, json!({"timestamp": 1_700_000_000}), "stale_timestamp"),
        (WEBHOOK_SECRET, json!({"body_only": true}), "invalid_signature"),
    ] {
        let (status, answer) = deliver(&scene, secret, &more)?;
        ensure!(status == 401 && answer["error"] == error, "{error}: {status} {answer}");
    }
    let seen = scene.upstream.seen()?.len();
    ensure!(seen == 1, "the service saw {seen} deliveries");
    Ok(())
}

/// The guide's own helper signs the body alone: a mode that a policy has to enable.
fn webhook_body_only(envoy: &Arc<Envoy>) -> Outcome {
    let mut scene = Scene::new(envoy, "guide-body-only", standin::Seed::embedded())?;
    let mut policy = sample::policy();
    harness::corpus::merge(
        &mut policy,
        &json!({"webhooks": {"avnology": {"body_only": true, "tolerance": null}}}),
    );
    scene.configure(&policy).map_err(|Refused(text)| text)?;
    let (status, answer) = deliver(&scene, WEBHOOK_SECRET, &json!({"body_only": true}))?;
    ensure!(status == 200, "{status} {answer}");
    let (status, answer) = deliver(&scene, WEBHOOK_SECRET, &json!({}))?;
    ensure!(status == 401, "a timestamped signature in body-only mode: {status} {answer}");
    let (status, answer) = deliver(&scene, "whsec_of_somebody_else_entirely", &json!({"body_only": true}))?;
    ensure!(status == 401, "{status} {answer}");
    Ok(())
}
