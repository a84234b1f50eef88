//! Lines of the plugin entry, and of the bootstrap around it.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use harness::control::until;
use harness::corpus::WEBHOOK_SECRET;
use harness::port::Reserved;

use super::*;
use crate::ensure;

pub(super) const PLAYS: &[(&str, Play)] = &[
    ("failure_policy_rather_than_fail_open", Play::Failing(still_guards)),
    ("failure_policy", Play::Failing(|scene, _| Ok(fails(scene)? < Duration::MAX))),
    ("reload_config", Play::Failing(recovers_soon)),
    ("allow_on_headers_stop_iteration", Play::Scene(takes_a_webhook)),
    ("vm_id", Play::Given(keeps_its_data)),
    ("environment_variables_rather_than_literals", Play::Scene(keeps_its_secrets)),
    // Whoever listens on all addresses listens on this one.
    (
        "admin_address",
        Play::Alone(|envoy| Ok(TcpStream::connect(("127.0.0.2", envoy.admin().port())).is_err())),
    ),
];

/// A module that lets everything pass but the second request, at which it fails.
pub(crate) fn failing_module(envoy: &Envoy) -> Result<PathBuf, String> {
    let module = wat::parse_str(
        r#"(module
            (memory (export "memory") 1)
            (global $requests (mut i32) (i32.const 0))
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
            (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
            (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (global.set $requests (i32.add (global.get $requests) (i32.const 1)))
                (if (i32.eq (global.get $requests) (i32.const 2)) (then (unreachable)))
                (i32.const 0)))"#,
    );
    let path = envoy.directory().join("failing.wasm");
    // Trials in parallel write the same.
    let own = envoy.directory().join(format!("{:?}.wasm", std::thread::current().id()));
    fs::write(&own, module.map_err(text)?).map_err(text)?;
    fs::rename(&own, &path).map_err(text)?;
    Ok(path)
}

/// Makes the module fail, and says how long no request passes after that; the longest time if none
/// does while this waits.
fn fails(scene: &Scene) -> Result<Duration, String> {
    // A module's second request, whether its first one was here or ended the wait before.
    let statuses = [get(scene, "/healthz")?.status, get(scene, "/healthz")?.status];
    ensure!(statuses.contains(&503), "{statuses:?}");
    let began = Instant::now();
    while began.elapsed() < 2 * patience(scene) {
        if get(scene, "/healthz")?.status == 200 {
            return Ok(began.elapsed());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Duration::MAX)
}

/// The shipped pause is a tenth of a second, Envoy's a whole one: that takes as long each time,
/// however busy the machine.
fn recovers_soon(scene: &Scene, _: &str) -> Result<bool, String> {
    for _ in 0..3 {
        if fails(scene)? < Duration::from_millis(950) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What passes first after a failure was its module's first request: the second one fails again.
fn still_guards(scene: &Scene, _: &str) -> Result<bool, String> {
    ensure!(fails(scene)? < Duration::MAX, "nothing passes any more");
    Ok(get(scene, "/healthz")?.status == 503)
}

fn takes_a_webhook(scene: &Scene, id: &str) -> Result<bool, String> {
    let url = format!("http://{}/webhooks/avnology", scene.address);
    let event = json!({"type": "user.created", "id": id});
    let delivered = scene.provider.deliver(&json!({"url": url, "secret": WEBHOOK_SECRET, "event": event}))?;
    Ok(delivered["status"] == 200)
}

/// Another plugin, which has no id, does not find what this one was told.
fn keeps_its_data(scene: &mut Scene, mut listener: Value) -> Result<bool, String> {
    let policy = scene.local(&sample::policy()).to_string();
    sample::set_policy(&mut listener, &policy);
    listener["filter_chains"][0]["filters"][0]["typed_config"]["access_log"][0]["typed_config"]["log_format"]
        ["json_format"]["label"] = json!(format!("{}-given", scene.shape.label));
    put_listener(scene, listener.clone())?;
    let port = Reserved::new(0).map_err(text)?;
    let (other, name) = (port.address, format!("{}-other", scene.shape.label));
    listener["name"] = json!(name);
    listener["address"]["socket_address"]["port_value"] = json!(other.port());
    let plugin = listener.pointer_mut(Part::Plugin.pointer()).ok_or("no plugin")?;
    plugin["vm_config"].as_object_mut().and_then(|vm| vm.remove("vm_id"));
    scene.envoy.put_raw_listener(&name, listener).map_err(|Refused(text)| text)?;
    scene.provider.clear()?;
    let request = Ask::new("GET", "/api/profile", HOST).bearer("tok_alice");
    passed(&ask(scene, &request)?)?;
    passed(&harness::client::ask(other, Version::Http1, &request).map_err(text)?)?;
    scene.envoy.remove(&name, &[]);
    Ok(scene.provider.calls()?.len() == 2)
}

fn keeps_its_secrets(scene: &Scene, _: &str) -> Result<bool, String> {
    let mut dump = String::new();
    until(|| {
        dump = scene
            .envoy
            .get(&format!("/config_dump?resource=dynamic_listeners&name_regex=%5E{}%24", scene.shape.name))?;
        Ok(dump.contains("AVNOLOGY_CLIENT_SECRET"))
    })?;
    Ok(!corpus::ENVIRONMENT.iter().any(|(_, secret)| dump.contains(secret)))
}
