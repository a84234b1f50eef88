//! The list of capabilities that the module needs.

use std::sync::Arc;

use harness::client::{Ask, Version};
use harness::corpus::WEBHOOK_SECRET;
use harness::envoy::{Envoy, Refused};
use harness::sample;
use harness::scene::{LINE, Scene};
use harness::shipped::Part;
use libtest_mimic::Trial;
use serde_json::json;

use super::stage::{profile, request};
use crate::{Fleet, Outcome, Run, ensure, trial};

pub(super) fn trials(fleet: &Fleet) -> Vec<Trial> {
    let all: [(&str, Run); 2] = [
        ("capabilities/the_list_is_enough", enough),
        ("capabilities/without_the_callback_every_request_passes", unasked),
    ];
    all.into_iter().map(|(name, run)| trial(fleet, name, 1, run)).collect()
}

/// The shipped listener, whose plugin has a list of capabilities.
fn restricted(envoy: &Arc<Envoy>, name: &str, without: &str) -> Result<Scene, String> {
    let mut scene = Scene::new(envoy, name, harness::standin::Seed::embedded())?;
    scene.shape.label = name.to_owned();
    let policy = scene.local(&sample::policy());
    let mut listener = sample::listener(&scene.shape, &sample::module()?);
    sample::set_policy(&mut listener, &policy.to_string());
    let mut restriction = sample::shipped("capabilities.yaml")["capability_restriction_config"].take();
    let allowed = restriction["allowed_capabilities"].as_object_mut();
    allowed.into_iter().for_each(|allowed| drop(allowed.remove(without)));
    let plugin = listener.pointer_mut(Part::Plugin.pointer()).ok_or("no plugin")?;
    // A machine of its own: what another one has been given already does not count.
    plugin["vm_config"]["vm_id"] = json!(name);
    plugin["vm_config"]["capability_restriction_config"] = restriction.clone();
    // Where it was before 1.40, which does not know the other place, and takes no notice of it.
    plugin["capability_restriction_config"] = restriction;
    envoy.put_raw_listener(&scene.shape.name, listener).map_err(|Refused(text)| text)?;
    Ok(scene)
}

fn enough(envoy: &Arc<Envoy>) -> Outcome {
    let scene = restricted(envoy, "enough", "")?;
    let mut connection = scene.connect(Version::Http1, None)?;
    let edit = |path: &str| request("PUT", path).bearer("tok_alice");
    for (ask, status) in [
        (profile(), 401),
        (profile().bearer("tok_alice"), 200),
        (profile().bearer("tok_noscope"), 403),
        (edit("/api/projects/proj_1"), 200),
        (edit("/api/projects/proj_2"), 403),
    ] {
        let answer = connection.ask(&ask).map_err(|failure| failure.to_string())?;
        ensure!(answer.status == status, "not {status}: {} {}", answer.status, answer.text());
    }
    let url = format!("http://{}/webhooks/avnology", scene.address);
    let event = json!({"type": "user.created", "id": "enough"});
    let delivered = scene.provider.deliver(&json!({"url": url, "secret": WEBHOOK_SECRET, "event": event}))?;
    ensure!(delivered["status"] == 200, "{delivered}");
    // What it tells the operator: its refusals in the access log.
    let lines = scene.wait_for_lines(6)?;
    ensure!(lines.iter().filter(|line| line.gate.is_some()).count() == 3, "no decision in {lines:?}");
    let warnings = scene.warnings();
    ensure!(warnings.is_empty(), "{warnings:?}");
    Ok(())
}

fn unasked(envoy: &Arc<Envoy>) -> Outcome {
    let scene = restricted(envoy, "unasked", "proxy_on_request_headers")?;
    let mut connection = scene.connect(Version::Http1, None)?;
    let ask: Ask = profile().header("x-avnology-user-id", "usr_root").header("x-request-id", "unasked");
    let answer = connection.ask(&ask).map_err(|failure| failure.to_string())?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let line = scene
        .line(connection.port().map_err(|error| error.to_string())?, 0, LINE)?
        .ok_or("no access log line")?;
    ensure!(line.gate.is_none(), "a decision: {line:?}");
    let seen = scene.upstream.seen()?.pop().ok_or("the service saw nothing")?;
    let user = ("x-avnology-user-id".to_owned(), "usr_root".to_owned());
    ensure!(seen.headers.contains(&user), "the service saw {:?}", seen.headers);
    Ok(())
}
