//! What the gate counts of a scripted run, as Envoy's admin port shows it.

#![allow(clippy::arithmetic_side_effects, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use harness::client::{Ask, Version};
use harness::control::until;
use harness::corpus::WEBHOOK_SECRET;
use harness::envoy::{Envoy, Refused};
use harness::scene::Scene;
use harness::{sample, standin};
use libtest_mimic::{Failed, Trial};
use serde_json::json;

use crate::{Outcome, ensure, start};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("metrics/a_scripted_run_is_counted", || counted().map_err(Failed::from)),
        Trial::test("metrics/gauges_follow_what_they_measure", || followed().map_err(Failed::from)),
    ]
}

const HOST: &str = "api.example.com";

/// The series of this metric, by what follows its name.
fn series(envoy: &Envoy, metric: &str) -> BTreeMap<String, u64> {
    let prefix = format!("wasmcustom.{metric}");
    let all = envoy.stats(&format!("wasmcustom.{metric}"));
    all.into_iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?.to_owned(), value)))
        .collect()
}

/// Waits until the series of a metric are these, once what is 0 is left out.
fn are(envoy: &Envoy, metric: &str, expected: &[(&str, u64)]) -> Outcome {
    let expected: BTreeMap<String, u64> =
        expected.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let found = || {
        let mut found = series(envoy, metric);
        found.retain(|_, value| *value > 0);
        found
    };
    until(|| Ok(found() == expected)).map_err(|_| format!("{metric}: {:#?}, not {expected:#?}", found()))
}

fn delivery(body: &str, secret: &str) -> Ask {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ask::new("POST", "/webhooks/avnology", HOST)
        .header("x-avnology-timestamp", now.to_string())
        .header("x-avnology-signature", standin::sign(secret, now, body.as_bytes()))
        .body(body)
}

/// A gate of its own: nobody else's requests are counted.
fn gate(name: &str, policy: &serde_json::Value) -> Result<(Arc<Envoy>, Scene), String> {
    let envoy = Arc::new(start(2)?);
    let scene = Scene::with(&envoy, name, policy)?;
    Ok((envoy, scene))
}

fn counted() -> Outcome {
    let mut policy = sample::policy();
    policy["cache"] = json!({"introspection": {"ttl": "60s", "stale_if_error": "1h"}});
    let (envoy, mut scene) = gate("metrics", &policy)?;
    let send = |scene: &Scene, worker: u32, ask: &Ask| -> Result<u16, String> {
        let mut connection = scene.connect(Version::Http1, Some(worker))?;
        connection.ask(ask).map(|answer| answer.status).map_err(|failure| failure.to_string())
    };
    let profile = |token: &str| Ask::new("GET", "/api/profile", HOST).bearer(token);
    let steps = [
        (0, profile("tok_alice"), 200),
        (0, profile("tok_alice"), 200),
        (1, profile("tok_alice"), 200),
        (0, profile("tok_revoked"), 401),
        (0, profile("tok_array_scope"), 200),
        (0, Ask::new("GET", "/api/profile", HOST), 401),
        (0, Ask::new("GET", "/nowhere", HOST), 403),
        (0, Ask::new("GET", "/healthz", HOST), 200),
        (0, Ask::new("PUT", "/api/projects/proj_1", HOST).bearer("tok_alice").body("{}"), 200),
        (0, Ask::new("PUT", "/api/projects/proj_2", HOST).bearer("tok_alice").body("{}"), 403),
        (0, delivery("{\"n\":1}", WEBHOOK_SECRET), 200),
        (0, delivery("{\"n\":2}", "a secret that is another one"), 401),
    ];
    for (nth, (worker, ask, expected)) in steps.iter().enumerate() {
        let status = send(&scene, *worker, ask)?;
        ensure!(status == *expected, "step {nth}: {status}, not {expected}");
    }
    let decisions = [
        (".decision.allow.reason.authenticated.route.profile", 4),
        (".decision.allow.reason.authenticated.route.update-project", 1),
        (".decision.allow.reason.public.route.health", 1),
        (".decision.allow.reason.webhook_verified.route.hooks", 1),
        (".decision.deny.reason.invalid_signature.route.hooks", 1),
        (".decision.deny.reason.missing_token.route.profile", 1),
        (".decision.deny.reason.no_route", 1),
        (".decision.deny.reason.permission_denied.route.update-project", 1),
        (".decision.deny.reason.token_inactive.route.profile", 1),
    ];
    are(&envoy, "avnology_gate_decisions_total", &decisions)?;
    let webhooks = [
        (".webhook.avnology.outcome.invalid_signature", 1),
        (".webhook.avnology.outcome.webhook_verified.secret.0", 1),
    ];
    are(&envoy, "avnology_gate_webhooks_total", &webhooks)?;
    let cache = [
        (".kind.permission.outcome.miss", 2),
        (".kind.token.outcome.hit", 3),
        (".kind.token.outcome.miss", 3),
        (".kind.token.outcome.shared", 1),
    ];
    are(&envoy, "avnology_gate_cache_total", &cache)?;
    let (introspection, permission) =
        (format!("introspection@{}", scene.cluster), format!("permission@{}", scene.cluster));
    let calls = [
        (&*format!(".endpoint.{introspection}.outcome.answered"), 3),
        (&*format!(".endpoint.{permission}.outcome.answered"), 2),
    ];
    are(&envoy, "avnology_gate_callouts_total", &calls)?;
    are(&envoy, "avnology_gate_configurations_total", &[(".outcome.accepted", 2)])?;

    // What is refused is counted once, and what is in force stays.
    let is_refused = scene.configure(&json!({"routes": []})).is_err();
    ensure!(is_refused, "an empty policy is taken");
    let configurations = [(".outcome.accepted", 2), (".outcome.refused", 1)];
    are(&envoy, "avnology_gate_configurations_total", &configurations)?;
    scene.put_back()?;
    envoy.sound()
}

fn followed() -> Outcome {
    let mut policy = sample::policy();
    policy["provider"]["timeout"] = json!("500ms");
    let (envoy, mut scene) = gate("gauges", &policy)?;
    let version = env!("CARGO_PKG_VERSION");
    let digests = |policy: &serde_json::Value, scene: &Scene| -> Result<String, String> {
        let text = scene.local(policy).to_string();
        let loaded = avnology_gate::config::load(text.as_bytes(), &|_| Some("x".repeat(64)));
        loaded.map(|loaded| loaded.digest().to_owned()).map_err(|problems| problems.to_string())
    };
    let first = digests(&policy, &scene)?;
    let info = |digest: &str| format!(".digest.{digest}.version.{version}");
    // Both workers and the main thread, and not the VM in which a configuration is only tried.
    are(&envoy, "avnology_gate_policy_info", &[(&info(&first), 3)])?;

    scene.provider.rule(json!({"on": "introspect", "delay": "5s"}))?;
    let profile = Ask::new("GET", "/api/profile", HOST).bearer("tok_alice");
    let mut waiting = scene.connect(Version::Http1, Some(0))?;
    waiting.send(&profile).map_err(|failure| failure.to_string())?;
    let status = waiting.answer(harness::client::PATIENCE).map_err(|failure| failure.to_string())?.status;
    scene.provider.clear()?;
    ensure!(status == 503, "after its timeout: {status}");
    are(&envoy, "avnology_gate_requests_waiting", &[])?;
    are(&envoy, "avnology_gate_callouts_in_flight", &[])?;

    let status = waiting.ask(&profile).map_err(|failure| failure.to_string())?.status;
    ensure!(status == 200 || status == 503, "{status}");
    until(|| Ok(waiting.ask(&profile).is_ok_and(|answer| answer.status == 200)))?;
    are(&envoy, "avnology_gate_cache_entries", &[(".kind.token", 1)])?;

    // Away, for the worker that has asked; and back.
    let away = format!(".endpoint.introspection@{}", scene.cluster);
    scene.provider.down(true)?;
    let asks = |token: &str| Ask::new("GET", "/api/profile", HOST).bearer(token);
    let mut other = scene.connect(Version::Http1, Some(0))?;
    other.ask(&asks("tok_bob")).map_err(|failure| failure.to_string())?;
    are(&envoy, "avnology_gate_endpoint_away", &[(&away, 1)])?;
    scene.provider.down(false)?;
    are(&envoy, "avnology_gate_endpoint_away", &[])?;

    // Another policy takes the place of the first, and then the gate goes.
    policy["ready_path"] = json!("/other/ready");
    scene.configure(&policy).map_err(|Refused(text)| text)?;
    drop((waiting, other));
    let second = digests(&policy, &scene)?;
    are(&envoy, "avnology_gate_policy_info", &[(&info(&second), 3)])?;
    envoy.remove(&scene.shape.name, &[]);
    for gauge in ["policy_info", "cache_entries", "endpoint_away", "requests_waiting"] {
        are(&envoy, &format!("avnology_gate_{gauge}"), &[])?;
    }
    envoy.sound()
}
