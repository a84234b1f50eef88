//! The gate on Envoy Gateway.

mod convert;

use std::fs;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use harness::client::{Ask, PATIENCE};
use harness::corpus::WEBHOOK_SECRET;
use harness::manifests::{self, Manifest};
use harness::{sample, standin};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use service::http1::Connection;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;

use super::stage::{
    CLOSED, Gate, PROVIDER, Stage, With, alone, each_object, profile, request, trials as trials_of,
};
use crate::protects::failing_module;
use crate::{Outcome, ensure};
use convert::{Gateway, MODULES, Module};

pub(super) fn trials() -> Vec<Trial> {
    let all: &[(&str, With<House>)] = &[
        ("gateway/an_extension_policy_decides", |house| {
            let gate = house.plays("gateway/base")?;
            ensure!(gate.deliver(0)? == 503, "a webhook passes without the setting that it needs");
            Ok(())
        }),
        ("gateway/a_route_without_the_policy_is_open", open_route),
        ("gateway/a_policy_of_a_routes_own_replaces_the_gate", replaced),
        ("gateway/two_policies_share_nothing", apart),
        ("gateway/nobody_takes_the_providers_route", providers_route),
        ("gateway/a_module_that_cannot_be_fetched_closes_the_routes", unfetched),
    ];
    let mut trials = trials_of(House::open, all);
    trials.push(alone("gateway/the_provider_is_who_the_manifest_names", another_host));
    trials.push(alone("gateway/a_patch_takes_webhooks", webhooks));
    trials.push(alone("gateway/a_module_that_fails_starts_anew_with_the_patch_alone", failing));
    trials
}

/// A stage, with the server that Envoy Gateway has for modules.
struct House {
    stage: Stage,
    module: Module,
    failing: Module,
    _modules: service::Running,
}

impl House {
    fn open() -> Result<Self, String> {
        Self::with_certificate_for(PROVIDER)
    }

    fn with_certificate_for(host: &str) -> Result<Self, String> {
        let stage = Stage::start(host)?;
        let read = |path| fs::read(path).map_err(|error| error.to_string());
        let modules = [read(sample::module()?)?, read(failing_module(&stage.envoy)?)?];
        let [module, failing] = modules.each_ref().map(|bytes| {
            let sha256: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            Module { url: format!("http://envoy-gateway/{sha256}.wasm"), sha256 }
        });
        let paths = [&module, &failing].map(|it| format!("/{}.wasm", it.sha256));
        let served: Arc<[(String, Vec<u8>); 2]> =
            Arc::new(paths.into_iter().zip(modules).collect::<Vec<_>>().try_into().map_err(|_| "two")?);
        let ([address], running) = service::Running::start(|[listener]| {
            service::accept(listener, move |stream| hand_out(stream, served.clone()))
        });
        let mut cluster = sample::cluster("upstream", MODULES, Some(address));
        cluster["connect_timeout"] = json!("10s");
        stage.envoy.put_clusters(vec![cluster]).map_err(|refused| refused.0)?;
        let house = Self { stage, module, failing, _modules: running };
        let gateway = house.converted(&manifests::built("gateway/base")?)?;
        house.stage.provide(gateway.provider)?;
        house.stage.serve(&gateway.service)?;
        Ok(house)
    }

    fn converted(&self, manifests: &[Manifest]) -> Result<Gateway, String> {
        Gateway::of(manifests, Some(&self.module))
    }

    fn listen(&self, name: &str, manifests: &[Manifest]) -> Result<Gate<'_>, String> {
        self.stage.listen(name, self.converted(manifests)?.listener, &[])
    }

    fn plays(&self, kustomization: &str) -> Result<Gate<'_>, String> {
        let gate = self.listen(&kustomization.replace('/', "-"), &manifests::built(kustomization)?)?;
        gate.decides()?;
        Ok(gate)
    }
}

/// Serves modules.
async fn hand_out(stream: TcpStream, modules: Arc<[(String, Vec<u8>); 2]>) {
    let mut connection = Connection::new(stream);
    while let Ok(Some((head, _))) = connection.head().await {
        let found = modules.iter().find(|(path, _)| *path == head.target);
        let (status, body) = found.map_or((404, &[][..]), |(_, module)| (200, module.as_slice()));
        // Who has left wants none.
        if connection.answer(status, &[], body.len(), body).await.is_err() {
            return;
        }
    }
}

fn find<'m>(manifests: &'m mut [Manifest], kind: &str) -> Result<&'m mut Value, String> {
    let found = manifests.iter_mut().find(|it| it.kind() == kind && it.name() == "avnology-gate");
    found.map(|it| &mut it.value).ok_or_else(|| format!("no {kind}"))
}

/// A policy of the same kind, for another target.
fn another_policy(name: &str, target: Value, spec: Value) -> Manifest {
    let mut value = json!({
        "kind": "EnvoyExtensionPolicy",
        "metadata": {"name": name, "namespace": "avnology-gate"},
        "spec": spec,
    });
    value["spec"]["targetRefs"] = json!([target]);
    Manifest { file: "of the trial".to_owned(), value }
}

fn service_route() -> Value {
    json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "service"})
}

/// A second route to the service, for a host of its own.
fn another_route() -> Manifest {
    let spec = json!({
        "parentRefs": [{"name": "avnology-gate"}],
        "hostnames": ["other.example.com"],
        "rules": [{"backendRefs": [{"name": "upstream", "port": 8080}]}],
    });
    let metadata = json!({"name": "other", "namespace": "avnology-gate"});
    Manifest {
        file: "of the trial".to_owned(),
        value: json!({"kind": "HTTPRoute", "metadata": metadata, "spec": spec}),
    }
}

fn to_the_other_route() -> Ask {
    Ask::new("GET", "/api/profile", "other.example.com")
}

fn webhooks() -> Outcome {
    // An Envoy before 1.40 takes two plugins that differ in the patch alone for one.
    let house = House::open()?;
    let gate = house.plays("gateway/webhooks")?;
    ensure!(gate.deliver(0)? == 200, "a webhook does not pass");
    ensure!(gate.deliver(1_000_000)? == 200, "a large webhook does not pass");
    ensure!(gate.deliver(1_048_576)? == 413, "too large a webhook passes");
    // By itself, Envoy Gateway gives a connection less than that.
    let mut manifests = manifests::built("gateway/webhooks")?;
    manifests.retain(|it| it.kind() != "ClientTrafficPolicy");
    let gate = house.listen("small", &manifests)?;
    ensure!(gate.deliver(10_000)? == 200, "a small webhook does not pass");
    ensure!(gate.deliver(100_000)? == 413, "a large webhook passes");
    Ok(())
}

fn open_route(house: &House) -> Outcome {
    let mut manifests = manifests::built("gateway/base")?;
    manifests.push(another_route());
    house.stage.serve("httproute/avnology-gate/other/rule/0")?;
    let gate = house.listen("all-routes", &manifests)?;
    gate.expect(&profile(), 401)?;
    gate.expect(&to_the_other_route(), 401)?;
    find(&mut manifests, "EnvoyExtensionPolicy")?["spec"]["targetRefs"] = json!([service_route()]);
    let gate = house.listen("one-route", &manifests)?;
    gate.expect(&profile(), 401)?;
    let user = gate.user_behind(to_the_other_route(), 200)?;
    ensure!(user == ["usr_root"], "the service saw {user:?}");
    Ok(())
}

fn replaced(house: &House) -> Outcome {
    let lua = json!({"lua": [{"type": "Inline", "inline": "function envoy_on_request(handle) end"}]});
    let mut merged = lua.clone();
    merged["mergeType"] = json!("StrategicMerge");
    for (name, spec, status) in [("replaced", lua, 200), ("merged", merged, 401)] {
        let mut manifests = manifests::built("gateway/base")?;
        manifests.push(another_policy("own", service_route(), spec));
        house.listen(name, &manifests)?.expect(&profile(), status)?;
    }
    Ok(())
}

/// The same policy under two names, and under one on two listeners.
fn apart(house: &House) -> Outcome {
    let gates = |names: [&str; 2], token: &str| -> Result<(usize, Vec<u16>), String> {
        let mut statuses = Vec::new();
        let (body, headers) = signed(token);
        for (nth, name) in names.into_iter().enumerate() {
            let mut manifests = manifests::built("gateway/webhooks")?;
            let policy = find(&mut manifests, "EnvoyExtensionPolicy")?;
            policy["metadata"]["name"] = json!(name);
            let webhook = &mut policy["spec"]["wasm"][0]["config"]["webhooks"]["avnology"];
            webhook["replay"] = json!({"window": "600s"});
            for patch in find(&mut manifests, "EnvoyPatchPolicy")?["spec"]["jsonPatches"]
                .as_array_mut()
                .ok_or("none")?
            {
                let path = patch["operation"]["jsonPath"].as_str().unwrap_or_default();
                let path = path.replace("/avnology-gate/wasm/", &format!("/{name}/wasm/"));
                patch["operation"]["jsonPath"] = json!(path);
            }
            let gate = house.listen(&format!("apart-{token}-{nth}"), &manifests)?;
            gate.expect(&profile().bearer(token), 200)?;
            let delivery = request("POST", "/webhooks/avnology").body(&body);
            let delivery = headers.iter().fold(delivery, |ask, (name, value)| ask.header(name, value));
            statuses.push(gate.ask(&delivery)?.status);
        }
        let calls = house.stage.provider.calls()?;
        Ok((calls.iter().filter(|call| call.body.contains(token)).count(), statuses))
    };
    let one = gates(["avnology-gate", "avnology-gate"], "tok_bob")?;
    ensure!(one == (1, vec![200, 409]), "one policy: {one:?}");
    let two = gates(["avnology-gate", "another"], "tok_string_aud")?;
    ensure!(two == (2, vec![200, 200]), "two policies: {two:?}");
    Ok(())
}

/// A delivery to be sent as often as one likes.
fn signed(id: &str) -> (String, [(&'static str, String); 2]) {
    let body = json!({"type": "user.created", "id": id}).to_string();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let signature = standin::sign(WEBHOOK_SECRET, now, body.as_bytes());
    (body, [("x-avnology-timestamp", now.to_string()), ("x-avnology-signature", signature)])
}

/// The route is there for its cluster alone.
fn providers_route(house: &House) -> Outcome {
    let mut manifests = manifests::built("gateway/base")?;
    let there = Ask::new("GET", "/healthz", "avnology-gate.invalid");
    let gate = house.listen("providers-route", &manifests)?;
    let answer = gate.ask(&there)?;
    ensure!(answer.status == 403 && answer.error().is_none(), "{} {}", answer.status, answer.text());
    manifests.retain(|it| it.kind() != "SecurityPolicy");
    let gate = house.listen("providers-open-route", &manifests)?;
    // The stand-in's own answer.
    gate.expect(&there, 404)
}

fn unfetched(house: &House) -> Outcome {
    let mut manifests = manifests::built("gateway/base")?;
    let listen = |name: &str, manifests: &[Manifest]| {
        house.stage.listen(name, Gateway::of(manifests, None)?.listener, &[])
    };
    let gate = listen("unfetched", &manifests)?;
    gate.expect(&request("GET", "/healthz"), 500)?;
    gate.expect(&profile().bearer("tok_alice"), 500)?;
    find(&mut manifests, "EnvoyExtensionPolicy")?["spec"]["wasm"][0]["failOpen"] = json!(true);
    let user = listen("unfetched-open", &manifests)?.user_behind(profile(), 200)?;
    ensure!(user == ["usr_root"], "the service saw {user:?}");
    Ok(())
}

fn failing() -> Outcome {
    let house = House::open()?;
    for (kustomization, long) in [("gateway/base", CLOSED), ("gateway/webhooks", PATIENCE)] {
        let gateway = Gateway::of(&manifests::built(kustomization)?, Some(&house.failing))?;
        let gate = house.stage.listen(&kustomization.replace('/', "-"), gateway.listener, &[])?;
        let recovers = gate.recovers_within(long)?;
        ensure!(recovers == (long == PATIENCE), "{kustomization}: it passes again: {recovers}");
    }
    Ok(())
}

/// A provider with a certificate for another host: it is believed where the manifest names that
/// one.
fn another_host() -> Outcome {
    const OTHER: &str = "api.example.com";
    let house = House::with_certificate_for(OTHER)?;
    let mut manifests = manifests::built("gateway/base")?;
    let gate = house.listen("another-host", &manifests)?;
    let shipped = house.converted(&manifests)?.provider;
    let backend = manifests.iter_mut().find(|it| it.kind() == "Backend").ok_or("no Backend")?;
    backend.value["spec"]["tls"]["sni"] = json!(OTHER);
    let mut other = house.converted(&manifests)?.provider;
    // The stand-in shows its certificate to those alone who ask for the shipped host.
    each_object(&mut other, &mut |object| {
        let named = object.get_mut("sni").filter(|sni| **sni == OTHER);
        named.into_iter().for_each(|sni| *sni = json!(PROVIDER));
        Ok(())
    })?;
    house.stage.provide(other)?;
    gate.expect(&profile().bearer("tok_alice"), 200)?;
    house.stage.provide(shipped)?;
    gate.expect(&profile().bearer("tok_bob"), 503)
}
