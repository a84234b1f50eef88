//! The gate on Istio.

mod convert;

use harness::client::PATIENCE;
use harness::control::until;
use harness::corpus::ENVIRONMENT;
use harness::manifests::{self, Manifest};
use harness::sample;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::stage::{CLOSED, Gate, PROVIDER, Stage, With, alone, profile, request, trials as trials_of};
use crate::protects::failing_module;
use crate::{Outcome, ensure};
use convert::{Fetched, Istio};

pub(super) fn trials() -> Vec<Trial> {
    let all: &[(&str, With<Stage>)] = &[
        ("istio/a_traffic_extension_decides", |stage| {
            let gate = plays(stage, "istio/traffic-extension")?;
            ensure!(gate.deliver(0)? == 503, "a webhook passes without the setting that it needs");
            Ok(())
        }),
        ("istio/a_wasm_plugin_decides", |stage| {
            let gate = plays(stage, "istio/wasm-plugin")?;
            ensure!(gate.deliver(0)? == 503, "a webhook passes without the setting that it needs");
            Ok(())
        }),
        ("istio/an_envoy_filter_takes_webhooks", |stage| {
            let gate = plays(stage, "istio/webhooks")?;
            ensure!(gate.deliver(0)? == 200, "a webhook does not pass");
            ensure!(gate.deliver(1_000_000)? == 200, "a large webhook does not pass");
            ensure!(gate.deliver(1_048_576)? == 413, "too large a webhook passes");
            Ok(())
        }),
        ("istio/a_module_that_cannot_be_fetched_denies_all", unfetched),
        ("istio/fail_open_allows_all_where_the_module_cannot_be_fetched", fail_open),
        ("istio/plugins_without_a_vm_id_share_what_they_know", shared_data),
        ("istio/an_inline_value_can_be_read_in_the_dump", inline),
        ("istio/the_listener_is_hardened_by_its_envoy_filter", hardened),
        ("istio/a_route_can_switch_the_gate_off", switched_off),
        ("istio/a_policy_comes_by_itself_and_is_refused_by_itself", updated),
    ];
    let mut trials = trials_of(stage, all);
    trials.push(alone("istio/a_module_that_fails_starts_anew_with_fail_reload", failing));
    trials.push(alone("istio/the_provider_is_who_the_manifest_names", another_host));
    trials
}

/// All that a kustomization makes of a gateway, its module fetched.
fn converted(kustomization: &str) -> Result<Istio, String> {
    Istio::of(&manifests::built(kustomization)?, &Fetched::Module(sample::module()?))
}

fn stage() -> Result<Stage, String> {
    let stage = Stage::start(PROVIDER)?;
    // The base, and with it both clusters, is the same in all three.
    let istio = converted("istio/webhooks")?;
    stage.provide(istio.provider)?;
    stage.serve(&istio.service)?;
    Ok(stage)
}

fn listen<'s>(stage: &'s Stage, name: &str, istio: Istio) -> Result<Gate<'s>, String> {
    stage.listen(name, istio.listener, &istio.extensions)
}

fn plays<'s>(stage: &'s Stage, kustomization: &str) -> Result<Gate<'s>, String> {
    let gate = listen(stage, &kustomization.replace('/', "-"), converted(kustomization)?)?;
    gate.decides()?;
    Ok(gate)
}

/// A kustomization with an edit.
fn edited(kustomization: &str, edit: impl Fn(&mut Manifest)) -> Result<Vec<Manifest>, String> {
    let mut manifests = manifests::built(kustomization)?;
    manifests.iter_mut().for_each(edit);
    Ok(manifests)
}

/// A policy comes by itself and not in a listener: what is open has it at its next request, and one
/// that is refused changes nothing.
fn updated(stage: &Stage) -> Outcome {
    let mut istio = converted("istio/webhooks")?;
    let [extension] = &mut istio.extensions[..] else { return Err("not one extension".to_owned()) };
    let with = |policy: String| {
        let mut changed = extension.clone();
        let place = changed.pointer_mut("/typed_config/config/configuration/value").ok_or("no policy")?;
        *place = json!(policy);
        Ok::<Value, String>(changed)
    };
    let (original, bad) = (extension.clone(), with(r#"{"routes": []}"#.to_owned())?);
    let mut policy = sample::policy();
    policy["routes"] = json!([{"match": {"path": "/elsewhere"}, "access": "public"}]);
    let other = with(policy.to_string())?;
    let gate = listen(stage, "updated", istio)?;
    gate.decides()?;
    let mut connection = gate.connect()?;
    let mut status = |path: &str| {
        connection
            .ask(&request("GET", path))
            .map(|answer| answer.status)
            .map_err(|failure| failure.to_string())
    };
    ensure!(status("/healthz")? == 200, "not the original policy");
    gate.extend(&other)?;
    until(|| Ok(status("/healthz")? == 403))?;
    ensure!(status("/elsewhere")? == 200, "not the other policy");
    gate.extend(&original)?;
    until(|| Ok(status("/healthz")? == 200))?;

    let counted = |name: &str| stage.envoy.stats(name).values().sum::<u64>();
    let rejections = "extension_config_discovery.http_filter.avnology-gate.update_rejected";
    let (rejected, refused) = (counted(rejections), counted("outcome.refused"));
    gate.extend(&bad)?;
    until(|| Ok(counted(rejections) > rejected))?;
    ensure!(counted("outcome.refused") > refused, "the gate counts no refusal");
    gate.decides()
}

fn unfetched(stage: &Stage) -> Outcome {
    for kustomization in ["istio/traffic-extension", "istio/wasm-plugin", "istio/webhooks"] {
        let istio = Istio::of(&manifests::built(kustomization)?, &Fetched::Nothing)?;
        let gate = listen(stage, &format!("unfetched-{}", kustomization.replace('/', "-")), istio)?;
        gate.expect(&request("GET", "/healthz"), 403)?;
        gate.expect(&profile().bearer("tok_alice"), 403)?;
    }
    Ok(())
}

/// What the manifests do not say, and why.
fn fail_open(stage: &Stage) -> Outcome {
    let manifests = edited("istio/traffic-extension", |it| {
        if it.kind() == "TrafficExtension" {
            it.value["spec"]["wasm"]["failStrategy"] = json!("FAIL_OPEN");
        }
    })?;
    let gate = listen(stage, "fail-open", Istio::of(&manifests, &Fetched::Nothing)?)?;
    let user = gate.user_behind(profile(), 200)?;
    ensure!(user == ["usr_root"], "the service saw {user:?}");
    Ok(())
}

/// Two plugins whose environments differ are two machines; what they share is by the id that Istio
/// gives neither.
fn shared_data(stage: &Stage) -> Outcome {
    let asked = |kustomization: &str, name: &str, token: &str| -> Result<usize, String> {
        let mut count = 0;
        for other in [false, true] {
            let manifests = edited(kustomization, |it| {
                if other && it.kind() == "TrafficExtension" {
                    let env = it.value["spec"]["wasm"]["vmConfig"]["env"].as_array_mut();
                    env.into_iter().for_each(|env| env.push(json!({"name": "OTHER", "value": "1"})));
                }
                if other && it.kind() == "EnvoyFilter" && it.name() == "avnology-gate" {
                    let config = "/spec/configPatches/1/patch/value/typed_config/config/vm_config/vm_id";
                    it.value.pointer_mut(config).into_iter().for_each(|id| *id = json!("other"));
                }
            })?;
            let istio = Istio::of(&manifests, &Fetched::Module(sample::module()?))?;
            let gate = listen(stage, &format!("{name}-{other}"), istio)?;
            gate.expect(&profile().bearer(token), 200)?;
            let calls = stage.provider.calls()?;
            count = calls.iter().filter(|call| call.body.contains(token)).count();
        }
        Ok(count)
    };
    let calls = asked("istio/traffic-extension", "no-id", "tok_bob")?;
    ensure!(calls == 1, "the second plugin asked: {calls}");
    ensure!(stage.envoy.log().contains("`vm_config.vm_id` is empty"), "the log says nothing of the id");
    let calls = asked("istio/webhooks", "own-id", "tok_string_aud")?;
    ensure!(calls == 2, "plugins with ids of their own share what they know: {calls}");
    Ok(())
}

fn inline(stage: &Stage) -> Outcome {
    let [secret, (name, shown), webhook] = ENVIRONMENT;
    let manifests = edited("istio/wasm-plugin", |it| {
        if it.kind() == "WasmPlugin" {
            it.value["spec"]["vmConfig"]["env"][1] =
                json!({"name": name, "valueFrom": "INLINE", "value": shown});
        }
    })?;
    let istio = Istio::of(&manifests, &Fetched::Module(sample::module()?))?;
    let gate = listen(stage, "inline", istio)?;
    gate.decides()?;
    let dump = stage.envoy.get("/config_dump?resource=ecds_filters")?;
    ensure!(dump.contains(shown), "it is not there");
    ensure!(!dump.contains(secret.1) && !dump.contains(webhook.1), "a secret is there");
    Ok(())
}

fn hardened(stage: &Stage) -> Outcome {
    let without: Vec<Manifest> = manifests::built("istio/webhooks")?
        .into_iter()
        .filter(|it| it.name() != "avnology-gate-listener")
        .collect();
    let bare = Istio::of(&without, &Fetched::Module(sample::module()?))?;
    let bare = listen(stage, "bare", bare)?;
    let hard = listen(stage, "hardened", converted("istio/webhooks")?)?;
    let underscored = request("GET", "/healthz").header("x_avnology_user_id", "usr_root");
    bare.expect(&underscored, 200)?;
    bare.expect(&underscored, 200)?;
    // It is told once, however often it is seen.
    let told = || stage.envoy.log().matches("lets header names with underscores pass").count();
    until(|| Ok(told() > 0)).map_err(|_| "the log says nothing of it")?;
    ensure!(told() == 1, "told {} times", told());
    hard.expect(&underscored, 400)?;
    // Whom Istio waits for: nobody, and so for ever.
    let timeouts = |gate: &str| -> Result<Value, String> {
        let dump =
            stage.envoy.get(&format!("/config_dump?resource=dynamic_listeners&name_regex=%5E{gate}%24"))?;
        let dump: Value = serde_json::from_str(&dump).map_err(|error| error.to_string())?;
        let manager = "/configs/0/active_state/listener/filter_chains/0/filters/0/typed_config";
        Ok(dump.pointer(manager).ok_or("no manager")?["stream_idle_timeout"].clone())
    };
    ensure!(timeouts("bare")? == "0s", "{}", timeouts("bare")?);
    ensure!(timeouts("hardened")? == "30s", "{}", timeouts("hardened")?);
    Ok(())
}

/// An EnvoyFilter can do that for a route of the gate's own listener.
fn switched_off(stage: &Stage) -> Outcome {
    let mut istio = converted("istio/traffic-extension")?;
    let hosts =
        super::translate::manager(&mut istio.listener).pointer_mut("/route_config/virtual_hosts/0/routes");
    let routes = hosts.and_then(Value::as_array_mut).ok_or("no routes")?;
    let mut open = routes[0].clone();
    open["match"] = json!({"prefix": "/open"});
    let off = super::translate::message("envoy.config.route.v3.FilterConfig", json!({"disabled": true}));
    open["typed_per_filter_config"] =
        json!({(istio.extensions[0]["name"].as_str().unwrap_or_default()): off});
    routes.insert(0, open);
    let gate = listen(stage, "switched-off", istio)?;
    gate.expect(&profile(), 401)?;
    let user = gate.user_behind(request("GET", "/open"), 200)?;
    ensure!(user == ["usr_root"], "the service saw {user:?}");
    // It is a prefix, as any other.
    gate.expect(&request("GET", "/opener"), 200)
}

fn failing() -> Outcome {
    let stage = Stage::start(PROVIDER)?;
    stage.serve(&converted("istio/traffic-extension")?.service)?;
    let module = failing_module(&stage.envoy)?;
    let all =
        [("istio/wasm-plugin", CLOSED), ("istio/traffic-extension", PATIENCE), ("istio/webhooks", PATIENCE)];
    for (kustomization, long) in all {
        let istio = Istio::of(&manifests::built(kustomization)?, &Fetched::Module(module.clone()))?;
        let gate = listen(&stage, &kustomization.replace('/', "-"), istio)?;
        let recovers = gate.recovers_within(long)?;
        ensure!(recovers == (long == PATIENCE), "{kustomization}: it passes again: {recovers}");
    }
    Ok(())
}

/// A provider with a certificate for another host.
fn another_host() -> Outcome {
    let stage = Stage::start("api.example.com")?;
    stage.serve(&converted("istio/traffic-extension")?.service)?;
    for (name, named, token, status) in
        [("unnamed", false, "tok_alice", 200), ("named", true, "tok_bob", 503)]
    {
        let manifests = edited("istio/traffic-extension", |it| {
            let tls = it.value.pointer_mut("/spec/trafficPolicy/tls").and_then(Value::as_object_mut);
            if !named && let Some(tls) = tls {
                tls.remove("subjectAltNames");
            }
        })?;
        let istio = Istio::of(&manifests, &Fetched::Module(sample::module()?))?;
        stage.provide(istio.provider.clone())?;
        let gate = listen(&stage, name, istio)?;
        gate.expect(&profile().bearer(token), status)?;
    }
    Ok(())
}
