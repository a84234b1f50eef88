//! Lines that make one reading of a request, and those about what is told of it.

use std::fs;
use std::io::{Read as _, Write as _};

use harness::scene::LINE;

use super::*;
use crate::ensure;

pub(super) const PLAYS: &[(&str, Play)] = &[
    // Dot segments are resolved, for the service as for the gate.
    ("normalize_path", Play::Scene(|scene, _| Ok(get(scene, "/x/../healthz")?.status == 200))),
    ("merge_slashes", Play::Scene(|scene, _| Ok(get(scene, "//healthz")?.status == 200))),
    // Envoy refuses it, before any filter.
    (
        "path_with_escaped_slashes_action",
        Play::Scene(|scene, _| {
            let answer = get(scene, "/healthz%2Fx")?;
            Ok(answer.status == 400 && answer.error().is_none())
        }),
    ),
    (
        "strip_any_host_port",
        Play::Scene(|scene, _| Ok(authority_behind(scene, "api.example.com:10000")? == HOST)),
    ),
    (
        "strip_trailing_host_dot",
        Play::Scene(|scene, _| Ok(authority_behind(scene, "api.example.com.")? == HOST)),
    ),
    (
        "headers_with_underscores_action",
        Play::Scene(|scene, _| {
            Ok(ask(scene, &healthz().header("x_avnology_user_id", "usr_evil"))?.status == 400)
        }),
    ),
    // The service learns who really connects.
    (
        "use_remote_address",
        Play::Scene(|scene, _| {
            let seen = behind(scene, &healthz().header("x-forwarded-for", "198.51.100.7"))?;
            Ok(!seen.headers.iter().any(|(name, value)| name == "x-forwarded-for" && value == "198.51.100.7"))
        }),
    ),
    ("internal_address_config_rather_than_a_weaker_one", Play::Scene(makes_no_statistics)),
    ("stream_error_on_invalid_http_message", Play::Scene(ends_after_nonsense)),
    ("upgrade_configs", Play::Scene(refuses_another_upgrade)),
    ("enable_trailers", Play::Scene(passes_trailers)),
    ("enable_trailers_to_the_service", Play::Scene(passes_trailers)),
    (
        "suppress_envoy_headers",
        Play::Scene(|scene, _| {
            let client = get(scene, "/healthz")?.header("x-envoy-upstream-service-time").is_some();
            let seen = behind(scene, &healthz())?.headers;
            Ok(!client && !seen.iter().any(|(name, _)| name == "x-envoy-expected-rq-timeout-ms"))
        }),
    ),
    // A credential in a query that no route reads is in no access log.
    (
        "path_rather_than_a_weaker_one",
        Play::Scene(|scene, id| {
            let mut connection = scene.connect(Version::Http1, None)?;
            let port = connection.port().map_err(text)?;
            connection.ask(&Ask::new("GET", &format!("/healthz?token={id}"), HOST)).map_err(text)?;
            scene.line(port, 0, LINE)?.ok_or("no access log line")?;
            Ok(!fs::read_to_string(&scene.shape.access_log).map_err(text)?.contains(&format!("token={id}")))
        }),
    ),
];

/// A request as the service saw it.
fn behind(scene: &Scene, request: &Ask) -> Result<harness::upstream::Seen, String> {
    scene.upstream.clear()?;
    passed(&ask(scene, request)?)?;
    Ok(scene.upstream.seen()?.into_iter().next().ok_or("the service saw nothing")?)
}

/// The host as the service saw it.
fn authority_behind(scene: &Scene, authority: &str) -> Result<String, String> {
    let seen = behind(scene, &Ask::new("GET", "/healthz", authority))?;
    let host = seen.headers.into_iter().find(|(name, _)| name == "host" || name == ":authority");
    host.map(|(_, value)| value).ok_or_else(|| "the service saw no host".to_owned())
}

/// A header of the client's makes statistics, which are never freed: a list without addresses
/// trusts loopback and private ones.
fn makes_no_statistics(scene: &Scene, id: &str) -> Result<bool, String> {
    passed(&ask(scene, &healthz().header("x-envoy-upstream-alt-stat-name", id))?)?;
    Ok(scene.envoy.stats(id).is_empty())
}

/// This Envoy trusts nobody by itself: the shipped line is for nobody to trust somebody by half of it.
pub(super) fn nobody_is_trusted(envoy: &Arc<Envoy>) -> Outcome {
    let mut scene = Scene::with(envoy, "internal", &sample::forgetful_policy())?;
    "without".clone_into(&mut scene.shape.label);
    let mut listener = sample::listener(&scene.shape, &sample::module()?);
    let manager = listener.pointer_mut(Part::Manager.pointer()).and_then(Value::as_object_mut);
    ensure!(
        manager.is_some_and(|manager| manager.remove("internal_address_config").is_some()),
        "no such line"
    );
    put_listener(&scene, listener)?;
    ensure!(makes_no_statistics(&scene, &format!("{}-without", scene.shape.name))?, "it made statistics");
    Ok(())
}

/// A request without a host is answered, and then nothing more is.
fn ends_after_nonsense(scene: &Scene, _: &str) -> Result<bool, String> {
    let mut stream = open(scene)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
    let next = format!("GET /healthz HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
    stream.write_all(format!("GET /healthz HTTP/1.1\r\n\r\n{next}").as_bytes()).map_err(text)?;
    let mut read = Vec::new();
    // A connection that is closed with something unread is reset; what was read before stays read.
    let _ = stream.read_to_end(&mut read);
    let read = String::from_utf8_lossy(&read);
    ensure!(read.starts_with("HTTP/1.1 400"), "{read}");
    Ok(!read.contains("HTTP/1.1 200"))
}

fn refuses_another_upgrade(scene: &Scene, _: &str) -> Result<bool, String> {
    scene.upstream.clear()?;
    let request = healthz().header("connection", "upgrade").header("upgrade", "other");
    let status = ask(scene, &request)?.status;
    Ok(status == 403 && scene.upstream.seen()?.is_empty())
}

fn passes_trailers(scene: &Scene, _: &str) -> Result<bool, String> {
    let mut request = Ask::new("POST", "/healthz", HOST).body("a body");
    request.chunked = true;
    let seen = behind(scene, &request.trailer("x-sum", "1").trailer("x-avnology-user-id", "usr_evil"))?;
    ensure!(!seen.trailers.iter().any(|(name, _)| name == "x-avnology-user-id"), "{:?}", seen.trailers);
    Ok(seen.trailers.iter().any(|(name, value)| name == "x-sum" && value == "1"))
}
