//! Every way in which a callout ends in Envoy without a usable answer: always 503, always with its
//! own reason, never a hanging request.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::client::{Ask, Version};
use harness::envoy::{Envoy, Refused};
use harness::sample;
use harness::scene::{LINE, Scene};
use harness::standin;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{Fleet, Outcome, Run, ensure, trial};

pub(crate) fn trials(fleet: &Fleet) -> Vec<Trial> {
    let all: &[(&str, Run)] = &[
        ("provider/unknown_cluster", |envoy| other_cluster(envoy, "nowhere", "provider_not_started")),
        ("provider/cluster_without_endpoints", empty_cluster),
        ("provider/connection_refused", connection_refused),
        ("provider/silent", |envoy| fault(envoy, json!({"fault": "hang"}), "provider_timeout")),
        ("provider/slow", |envoy| fault(envoy, json!({"delay": "5s"}), "provider_timeout")),
        ("provider/garbage", |envoy| fault(envoy, json!({"fault": "garbage"}), "provider_reset")),
        ("provider/reset_before_the_answer", |envoy| {
            fault(envoy, json!({"fault": "reset"}), "provider_unreachable")
        }),
        ("provider/reset_within_the_answer", |envoy| {
            fault(envoy, json!({"fault": "truncate"}), "provider_reset")
        }),
        ("provider/two_megabytes", two_megabytes),
        ("provider/server_error", |envoy| {
            fault(envoy, json!({"status": 500, "body": {}}), "provider_server_error")
        }),
    ];
    all.iter().map(|(name, run)| trial(fleet, name, 1, *run)).collect()
}

/// With `timeout` 1 s, a decision may take two seconds; the rest is for a busy machine.
const AT_MOST: Duration = Duration::from_millis(3500);

fn policy(cluster: &str) -> Value {
    let mut policy = sample::forgetful_policy();
    policy["provider"]["cluster"] = json!(cluster);
    policy["routes"] = json!([{"name": "any", "match": {"path": "/any"}}]);
    policy.as_object_mut().map(|members| members.remove("webhooks"));
    policy
}

/// Sends requests over both versions, with a body and without one.
fn all_refused(scene: &Scene, reason: &str) -> Outcome {
    for version in [Version::Http1, Version::Http2] {
        // A token of its own for each request: one whose call failed is not asked about again.
        let ask = |method: &str| {
            Ask::new(method, "/any", "api.example.com").bearer(&format!("tok_{method}_{version}"))
        };
        let get = ask("GET");
        let post = ask("POST").body("a body");
        for request in [get, post] {
            let mut connection = scene.connect(version, None)?;
            let port = connection.port().map_err(|error| error.to_string())?;
            let began = Instant::now();
            let answer = connection.ask(&request).map_err(|failure| format!("{version}: {failure}"))?;
            let took = began.elapsed();
            ensure!(answer.status == 503, "{version}: {} {}", answer.status, answer.text());
            ensure!(
                answer.error().as_deref() == Some("provider_unavailable"),
                "{version}: {}",
                answer.text()
            );
            ensure!(answer.header("retry-after").is_some(), "{version}: no retry-after");
            ensure!(took < AT_MOST, "{version}: took {took:?}");
            let line = scene.line(port, 0, LINE)?.ok_or("no access log line")?;
            let details = line.details.unwrap_or_default();
            ensure!(
                details == format!("avnology_gate{{{reason}}}"),
                "{version}: {details}, expected {reason}"
            );
        }
    }
    ensure!(scene.upstream.seen()?.is_empty(), "the service saw a refused request");
    Ok(())
}

fn fault(envoy: &Arc<Envoy>, rule: Value, reason: &str) -> Outcome {
    let scene = Scene::with(envoy, reason, &policy("avnology"))?;
    scene.provider.rule(rule)?;
    all_refused(&scene, reason)?;
    recovers(&scene)
}

fn two_megabytes(envoy: &Arc<Envoy>) -> Outcome {
    let rule = json!({"status": 200, "body_bytes": {"repeat": "x", "count": 2_000_000}});
    fault(envoy, rule, "provider_reply_too_large")
}

fn other_cluster(envoy: &Arc<Envoy>, cluster: &str, reason: &str) -> Outcome {
    let mut scene = Scene::with(envoy, reason, &policy(cluster))?;
    all_refused(&scene, reason)?;
    scene.configure(&policy("avnology")).map_err(|Refused(text)| text)?;
    recovers(&scene)
}

fn empty_cluster(envoy: &Arc<Envoy>) -> Outcome {
    let mut scene = Scene::new(envoy, "empty", standin::Seed::embedded())?;
    let cluster = scene.add_cluster("empty", None)?;
    scene.configure(&policy(&cluster)).map_err(|Refused(text)| text)?;
    all_refused(&scene, "provider_not_started")
}

fn connection_refused(envoy: &Arc<Envoy>) -> Outcome {
    let mut scene = Scene::new(envoy, "refused", standin::Seed::embedded())?;
    // A port that was free a moment ago, and on which nobody listens.
    let address = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| error.to_string())?;
    let cluster = scene.add_cluster("refused", Some(address))?;
    scene.configure(&policy(&cluster)).map_err(|Refused(text)| text)?;
    all_refused(&scene, "provider_unreachable")
}

/// Once the provider answers again, so does the gate.
fn recovers(scene: &Scene) -> Outcome {
    scene.provider.clear()?;
    let request = Ask::new("GET", "/any", "api.example.com").bearer("tok_alice");
    let mut connection = scene.connect(Version::Http1, None)?;
    let answer = connection.ask(&request).map_err(|failure| failure.to_string())?;
    ensure!(answer.status == 200, "after the fault: {} {}", answer.status, answer.text());
    Ok(())
}
