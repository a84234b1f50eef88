//! Webhooks of every sender, and what stands behind them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use harness::client::{Ask, Version};
use harness::control::Upstream;
use harness::corpus::WEBHOOK_SECRET;
use harness::envoy::{Envoy, Refused};
use harness::scene::Scene;
use harness::{sample, standin, upstream};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{Fleet, Outcome, ensure, trial};

pub(crate) fn trials(fleet: &Fleet) -> Vec<Trial> {
    vec![trial(fleet, "hooks/a_verified_type_chooses_the_service", 1, routed_by_type)]
}

/// A delivery of Avnology's, signed unless it is forged.
fn delivery(body: &str, is_signed: bool) -> Ask {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let signed = if is_signed { body } else { "forged" };
    Ask::new("POST", "/webhooks/avnology", "api.example.com")
        .header("x-avnology-timestamp", now.to_string())
        .header("x-avnology-signature", standin::sign(WEBHOOK_SECRET, now, signed.as_bytes()))
        .body(body)
}

/// The routes of envoy/webhook-routes.yaml behind a gate that reads types.
fn routed_by_type(envoy: &Arc<Envoy>) -> Outcome {
    let mut policy = sample::forgetful_policy();
    harness::corpus::merge(&mut policy, &json!({"webhooks": {"avnology": {"events": {}}}}));
    let mut scene = Scene::with(envoy, "hooks-by-type", &policy)?;
    let (welcome, erasure) = (upstream::Running::start(), upstream::Running::start());
    let mut routes = sample::shipped("webhook-routes.yaml")["routes"].take();
    let mut name = |of: &str, address| scene.add_cluster(of, Some(address));
    let clusters = [
        ("welcome", name("welcome", welcome.addr)?),
        ("erasure", name("erasure", erasure.addr)?),
        ("upstream", scene.shape.service.clone()),
    ];
    for route in routes.as_array_mut().ok_or("no list of routes")? {
        let cluster = route.pointer_mut("/route/cluster").ok_or("a route without a cluster")?;
        let (_, here) = clusters.iter().find(|(there, _)| cluster == there).ok_or("an unknown cluster")?;
        *cluster = json!(here);
    }
    let put = |scene: &Scene, policy: &Value, label: &str| {
        let mut shape = scene.shape.clone();
        shape.label = label.to_owned();
        shape.policy = sample::Policy::Document(scene.local(policy).to_string().into_bytes());
        let mut listener = sample::listener(&shape, &sample::module()?);
        let pointer = "/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes";
        *listener.pointer_mut(pointer).ok_or("no routes")? = routes.clone();
        envoy.put_raw_listener(&shape.name, listener).map_err(|Refused(text)| text)
    };
    put(&scene, &policy, "by-type")?;
    let services = [Upstream(welcome.addr), Upstream(erasure.addr), scene.upstream];
    let reached = |ask: &Ask| -> Result<(u16, Vec<usize>), String> {
        for service in services {
            service.clear()?;
        }
        let answer = harness::client::ask(scene.address, Version::Http1, ask).map_err(|f| f.to_string())?;
        let mut counts = Vec::new();
        for service in services {
            counts.push(service.seen()?.len());
        }
        Ok((answer.status, counts))
    };
    let (created, deleted, other) =
        (r#"{"type":"user.created"}"#, r#"{"type":"user.deleted"}"#, r#"{"type":"user.updated"}"#);
    let evil = |ask: Ask| ask.header("x-avnology-webhook-type", "user.deleted");
    for (what, ask, expected) in [
        ("created", delivery(created, true), (200, vec![1, 0, 0])),
        ("deleted", delivery(deleted, true), (200, vec![0, 1, 0])),
        ("another", delivery(other, true), (200, vec![0, 0, 1])),
        ("in pieces", delivery(deleted, true).trailer("x-a", "b"), (200, vec![0, 1, 0])),
        ("the client's word against the gate's", evil(delivery(created, true)), (200, vec![1, 0, 0])),
        ("the client's word alone", evil(delivery(other, true)), (200, vec![0, 0, 1])),
        ("forged", evil(delivery(deleted, false)), (401, vec![0, 0, 0])),
    ] {
        let seen = reached(&ask)?;
        ensure!(seen == expected, "{what}: {seen:?}, expected {expected:?}");
    }
    // A delivery that shadow mode lets pass has no type.
    policy["mode"] = json!("shadow");
    put(&scene, &policy, "in-shadow")?;
    let seen = reached(&evil(delivery(deleted, false)))?;
    ensure!(seen == (200, vec![0, 0, 1]), "in shadow: {seen:?}");
    Ok(())
}
