//! The containers as started from the shipped file.

use std::sync::Arc;

use harness::client::{self, Ask, Version};
use harness::compose::{Project, docker};
use harness::control::{Provider, Upstream};
use harness::corpus::WEBHOOK_SECRET;
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use crate::{Outcome, Shared, ensure};

type Look = fn(&Arc<Project>) -> Outcome;

pub(crate) fn trials(shared: &Shared) -> Vec<Trial> {
    let all: &[(&str, Look)] = &[
        ("containers/shipped/containers_can_change_nothing", hardened),
        ("containers/shipped/decides", decides),
    ];
    all.iter()
        .map(|(name, run)| {
            let shared = shared.clone();
            Trial::test(*name, move || {
                shared.project().and_then(|project| run(&project)).map_err(Failed::from)
            })
        })
        .collect()
}

fn hardened(project: &Arc<Project>) -> Outcome {
    for service in ["envoy", "avnology", "upstream"] {
        let text = docker(&["inspect", &project.container(service)?])?;
        let inspected: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let it = &inspected[0];
        ensure!(it["HostConfig"]["ReadonlyRootfs"] == true, "{service} can write to its root file system");
        ensure!(it["HostConfig"]["CapDrop"] == json!(["ALL"]), "{service} has capabilities");
        let user = it["Config"]["User"].as_str().unwrap_or_default();
        ensure!(
            !user.is_empty() && !user.starts_with('0') && !user.starts_with("root"),
            "{service} runs as {user:?}"
        );
        let mounts = it["Mounts"].as_array().map(Vec::as_slice).unwrap_or_default();
        for mount in mounts.iter().filter(|mount| mount["Type"] == "bind") {
            ensure!(mount["RW"] == false, "{service} can write to {mount}");
        }
        let ports = it["HostConfig"]["PortBindings"].as_object().into_iter().flat_map(|ports| ports.values());
        for port in ports.filter_map(Value::as_array).flatten() {
            ensure!(port["HostIp"] == "127.0.0.1", "{service} listens for other machines: {port}");
        }
    }
    Ok(())
}

/// A decision in which every container takes part.
fn decides(project: &Arc<Project>) -> Outcome {
    let gate = project.published("envoy", 10_000)?;
    let provider = Provider(project.published("avnology", 8081)?);
    let service = Upstream(project.published("upstream", 8080)?);
    provider.clear()?;
    service.clear()?;
    for version in [Version::Http1, Version::Http2] {
        for (token, status) in
            [(Some("tok_alice"), 200), (Some("tok_revoked"), 401), (Some("tok_noscope"), 403), (None, 401)]
        {
            let ask =
                Ask::new("GET", "/api/profile", "api.example.com").header("x-avnology-user-id", "usr_root");
            let ask = if let Some(token) = token { ask.bearer(token) } else { ask };
            let answer = client::ask(gate, version, &ask).map_err(|failure| failure.to_string())?;
            ensure!(answer.status == status, "{version} {token:?}: {} {}", answer.status, answer.text());
        }
    }
    // From one container to the other, by its name on their network.
    let delivered = provider.deliver(&json!({
        "url": "http://envoy:10000/webhooks/avnology", "secret": WEBHOOK_SECRET, "event": {"type": "user.created"}
    }))?;
    ensure!(delivered["status"] == 200, "a webhook: {delivered}");
    let (seen, calls) = (service.seen()?, provider.calls()?.len());
    // About an active token the provider is asked once, whichever worker sees it again; about one
    // that nobody has seen active, once by each worker.
    let asked = (3..=4).contains(&calls);
    ensure!(seen.len() == 3 && asked, "the service saw {} requests, the provider {calls}", seen.len());
    let users: Vec<_> =
        seen.iter().flat_map(|seen| &seen.headers).filter(|(name, _)| name == "x-avnology-user-id").collect();
    ensure!(
        users.len() == 2 && users.iter().all(|(_, value)| value == "usr_alice"),
        "the service was told {users:?}"
    );
    Ok(())
}
