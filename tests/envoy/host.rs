//! What only a real host can show: the order of its callbacks, its buffers, its updates, its broken
//! connections.

use std::sync::Arc;
use std::time::Duration;

use harness::client::{Answer, Ask, Connection, PATIENCE, Version};
use harness::control::until;
use harness::envoy::{Envoy, Refused};
use harness::sample::{self, Policy};
use harness::scene::{self, LINE, Line, Scene};
use harness::standin;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{Fleet, Outcome, Run, ensure, trial};

const BOTH: [Version; 2] = [Version::Http1, Version::Http2];
const HOST: &str = "api.example.com";

/// The trials; each runs on the first worker of a one-worker Envoy, with requests of both HTTP
/// versions.
pub(crate) fn trials(fleet: &Fleet) -> Vec<Trial> {
    let all: &[(&str, Run)] = &[
        ("host/bytes_that_are_no_text_in_every_header", bytes_that_are_no_text),
        ("host/a_body_waits_for_the_answer_with_the_knob", |envoy| a_body_waits(envoy, true)),
        ("host/a_body_waits_for_the_answer_without_the_knob", |envoy| a_body_waits(envoy, false)),
        ("host/two_hundred_requests_are_one_introspection", two_hundred_requests),
        ("host/the_first_of_two_hundred_clients_leaves", the_first_leaves),
        ("host/every_client_of_a_flight_leaves", everybody_leaves),
        ("host/clients_reset_while_they_wait", clients_reset),
        ("host/a_replaced_listener_and_its_successor_ask_about_one_token", replaced_while_asking),
        ("host/a_refused_update_leaves_the_old_policy_serving", a_refused_update),
        ("host/two_plugins_in_one_vm_decide_each_by_its_own_document", two_plugins),
        ("host/a_struct_is_refused_and_told_what_is_expected", a_struct),
        ("host/the_shipped_buffers_hold_the_largest_webhook", the_largest_webhook),
        ("host/a_grpc_web_filter_in_front_keeps_the_status", grpc_web_in_front),
        ("host/an_offer_of_tls_is_no_upgrade", an_offer_of_tls),
        ("host/a_long_lived_route_outlives_the_limits_of_others", a_long_lived_route),
    ];
    all.iter().map(|(name, run)| trial(fleet, name, 1, *run)).collect()
}

/// A policy with one route `/any` for any active token, and the shipped webhook. Its timeout is far
/// longer than the delays of these tests, however busy the machine.
fn any_token() -> Value {
    let mut policy = sample::forgetful_policy();
    policy["provider"]["timeout"] = json!("10s");
    policy["routes"] = json!([
        {"name": "public", "match": {"path": "/public"}, "access": "public"},
        {"name": "any", "match": {"path": "/any"}},
        {"name": "hooks", "match": {"methods": ["POST"], "path": "/webhooks/avnology"}, "webhook": "avnology"}
    ]);
    policy
}

fn ask(scene: &Scene, version: Version, ask: &Ask) -> Result<(Answer, Line), String> {
    let mut connection = scene.connect(version, None)?;
    let port = connection.port().map_err(|error| error.to_string())?;
    // The system may reuse the port of an earlier connection.
    let earlier = scene.lines()?.iter().filter(|line| line.is_of(port)).count();
    let answer = connection.ask(ask).map_err(|failure| format!("{version}: {failure}"))?;
    let line = scene.line(port, earlier, LINE)?.ok_or("no access log line")?;
    Ok((answer, line))
}

/// Sends a good request, to show that the worker still works.
fn still_decides(scene: &Scene) -> Outcome {
    let (answer, _) = ask(scene, Version::Http1, &Ask::new("GET", "/any", HOST).bearer("tok_alice"))?;
    ensure!(answer.status == 200, "after it all, a good request is answered {}", answer.status);
    Ok(())
}

/// Waits until no request of the scene is active in Envoy.
fn nothing_under_way(scene: &Scene) -> Outcome {
    let name = format!("http.{}.downstream_rq_active", scene.shape.name);
    let active = || scene.envoy.stats(&format!("%5Ehttp%5C.{}%5C.downstream_rq_active%24", scene.shape.name));
    until(|| Ok(active().get(&name).copied().unwrap_or(0) == 0))
        .map_err(|error| format!("requests are left behind: {error}"))
}

fn bytes_that_are_no_text(envoy: &Arc<Envoy>) -> Outcome {
    let mut policy = any_token();
    policy["credentials"] = json!([
        {"header": "authorization", "scheme": "Bearer"},
        {"header": "x-token"},
        {"cookie": "session", "origins": ["https://app.example.com"]}
    ]);
    policy["routes"][1]["require"] = json!({"claims": {"sub": "{header.x-wanted}"}});
    let scene = Scene::with(envoy, "no-text", &policy)?;
    let bytes: &[u8] = b"\xA1\xB1\xFF\x80";
    // Each header is read by other code; its value is one that a string type would refuse. The
    // number is the expected status if the request is otherwise good.
    let headers: &[(&str, u16)] = &[
        ("x-token", 400),
        ("x-wanted", 403),
        ("origin", 200),
        ("connection", 200),
        ("content-type", 200),
        ("x-avnology-user-id", 200),
        ("x-avnology-signature", 200),
        ("x-http-method-override", 200),
        ("access-control-request-method", 200),
        ("x-unheard-of", 200),
    ];
    for version in BOTH {
        for (name, expected) in headers {
            if *name == "connection" && version == Version::Http2 {
                continue;
            }
            let mut request = Ask::new("GET", "/any", HOST).header(name, bytes);
            if *name != "x-token" {
                request = request.bearer("tok_alice");
            }
            if *name != "x-wanted" {
                request = request.header("x-wanted", "usr_alice");
            }
            let (answer, _) = ask(&scene, version, &request)?;
            ensure!(answer.status == *expected, "{version} {name}: {} {}", answer.status, answer.text());
        }
        let bearer = Ask::new("GET", "/any", HOST).header("authorization", [b"Bearer ", bytes].concat());
        let (answer, _) = ask(&scene, version, &bearer)?;
        ensure!(answer.error().as_deref() == Some("invalid_request"), "{version} bearer: {}", answer.text());
        let another = Ask::new("GET", "/any", HOST).header("authorization", bytes);
        let (answer, _) = ask(&scene, version, &another)?;
        ensure!(
            answer.error().as_deref() == Some("missing_token"),
            "{version} other scheme: {}",
            answer.text()
        );
        for name in ["x-avnology-signature", "x-avnology-timestamp"] {
            let good =
                if name == "x-avnology-signature" { "x-avnology-timestamp" } else { "x-avnology-signature" };
            let request =
                Ask::new("POST", "/webhooks/avnology", HOST).header(name, bytes).header(good, "1").body("{}");
            let (answer, _) = ask(&scene, version, &request)?;
            ensure!(
                answer.error().as_deref() == Some("invalid_signature"),
                "{version} {name}: {}",
                answer.text()
            );
        }
        // The gate ignores the other pairs of a cookie.
        let cookie = Ask::new("GET", "/any", HOST)
            .header("x-wanted", "usr_alice")
            .header("cookie", b"a=\xFF; session=tok_alice");
        let (answer, _) = ask(&scene, version, &cookie)?;
        ensure!(answer.status == 200, "{version} cookie: {}", answer.text());
    }
    // Envoy's HTTP/2 codec accepts such a path; its HTTP/1 codec refuses it before the gate.
    let mut path = Ask::new("GET", "/", HOST);
    path.path = Some(b"/any/\xFF".to_vec());
    let (answer, _) = ask(&scene, Version::Http2, &path)?;
    ensure!(answer.error().as_deref() == Some("invalid_path"), "path: {}", answer.text());
    let cookie = Ask::new("GET", "/any", HOST).header("x-wanted", "usr_alice").bearer("tok_alice");
    ensure!(ask(&scene, Version::Http1, &cookie)?.0.status == 200, "the worker no longer decides");
    Ok(())
}

/// A body and trailers arrive long before the provider answers, and exceed Envoy's buffer.
fn a_body_waits(envoy: &Arc<Envoy>, knob: bool) -> Outcome {
    let mut scene = Scene::new(envoy, "body-waits", standin::Seed::embedded())?;
    scene.shape.knob = knob;
    scene.shape.buffer_limit = Some(16_384);
    scene.configure(&any_token()).map_err(|Refused(text)| text)?;
    let body = "b".repeat(100_000);
    for version in BOTH {
        for (token, status, trailers) in [
            ("tok_alice", 200, false),
            ("tok_revoked", 401, false),
            ("tok_alice", 200, true),
            ("tok_revoked", 401, true),
        ] {
            let what = format!("{version} {token} trailers: {trailers}");
            scene.provider.clear()?;
            scene.provider.rule(json!({"on": "introspect", "delay": "900ms"}))?;
            let before = scene.upstream.seen()?.len();
            let mut request = Ask::new("POST", "/any", HOST).bearer(token).body(&body);
            if trailers {
                request = request.trailer("x-avnology-user-id", "usr_evil").trailer("x-checksum", "1");
            }
            let mut connection = scene.connect(version, None)?;
            // Envoy reads no more than it can buffer: sending ends only when the answer has
            // arrived.
            let answer = std::thread::scope(|scope| {
                let exchange = scope.spawn(|| connection.ask(&request));
                scene.provider.wait_for_more_calls_than(0)?;
                let early = scene.upstream.seen()?.len();
                ensure!(
                    early == before,
                    "{what}: the service saw the request while the provider was being asked"
                );
                exchange
                    .join()
                    .map_err(|_| "the client panicked")?
                    .map_err(|failure| format!("{what}: {failure}"))
            })?;
            ensure!(answer.status == status, "{what}: {} {}", answer.status, answer.text());
            let seen = scene.upstream.seen()?;
            if status != 200 {
                ensure!(seen.len() == before, "{what}: the service saw a refused request");
                continue;
            }
            let last = seen.last().ok_or("the service saw nothing")?;
            ensure!(
                last.body_bytes == 100_000 && last.complete,
                "{what}: the service saw {} bytes",
                last.body_bytes
            );
            let names: Vec<&str> = last.trailers.iter().map(|(name, _)| name.as_str()).collect();
            ensure!(
                names == if trailers { vec!["x-checksum"] } else { vec![] },
                "{what}: trailers {names:?}"
            );
        }
    }
    nothing_under_way(&scene)
}

/// This many connections, each with the same request in progress.
fn crowd(scene: &Scene, version: Version, token: &str) -> Result<Vec<Connection>, String> {
    let request = Ask::new("GET", "/any", HOST).bearer(token);
    let mut connections = Vec::new();
    for _ in 0..200 {
        connections.push(scene.connect(version, None)?);
    }
    let before = scene.requests();
    let _crowd = scene::crowd();
    for connection in &mut connections {
        connection.send(&request).map_err(|failure| failure.to_string())?;
    }
    until(|| Ok(scene.requests().saturating_sub(before) >= 200))?;
    Ok(connections)
}

fn all_pass(connections: Vec<Connection>) -> Outcome {
    for (nth, mut connection) in connections.into_iter().enumerate() {
        let answer = connection.answer(PATIENCE).map_err(|failure| format!("client {nth}: {failure}"))?;
        ensure!(answer.status == 200, "client {nth}: {} {}", answer.status, answer.text());
        let user = answer.json()["headers"].to_string();
        ensure!(user.contains(r#"["x-avnology-user-id","usr_alice"]"#), "client {nth}: {user}");
    }
    Ok(())
}

fn two_hundred_requests(envoy: &Arc<Envoy>) -> Outcome {
    let scene = Scene::with(envoy, "two-hundred", &any_token())?;
    for version in BOTH {
        scene.provider.clear()?;
        // Long enough for all of them to arrive first; `crowd` makes sure that they have.
        scene.provider.rule(json!({"on": "introspect", "delay": "1500ms"}))?;
        all_pass(crowd(&scene, version, "tok_alice")?)?;
        let calls = scene.provider.calls()?.len();
        ensure!(calls == 1, "{version}: {calls} introspections");
    }
    Ok(())
}

fn the_first_leaves(envoy: &Arc<Envoy>) -> Outcome {
    let scene = Scene::with(envoy, "first-leaves", &any_token())?;
    for version in BOTH {
        scene.provider.clear()?;
        scene.provider.rule(json!({"on": "introspect", "delay": "1500ms"}))?;
        let mut connections = crowd(&scene, version, "tok_alice")?;
        let lines = scene.lines()?.len();
        drop(connections.remove(0));
        scene.wait_for_lines(lines.saturating_add(1))?;
        all_pass(connections)?;
        let calls = scene.provider.calls()?.len();
        ensure!(calls == 1, "{version}: {calls} introspections");
        let seen = scene.upstream.seen()?.len();
        ensure!(seen % 199 == 0, "{version}: the service saw {seen} requests");
    }
    nothing_under_way(&scene)
}

fn everybody_leaves(envoy: &Arc<Envoy>) -> Outcome {
    let scene = Scene::with(envoy, "everybody-leaves", &any_token())?;
    for version in BOTH {
        scene.provider.clear()?;
        scene.provider.rule(json!({"on": "introspect", "times": 1, "delay": "1500ms"}))?;
        let lines = scene.lines()?.len();
        drop(crowd(&scene, version, "tok_alice")?);
        scene.wait_for_lines(lines.saturating_add(200))?;
        let calls = scene.provider.calls()?.len();
        ensure!(calls == 1, "{version}: {calls} introspections");
        // This request joins the callout that no client waits for any more, or finds it finished:
        // either way it is decided.
        still_decides(&scene)?;
        let seen = scene.upstream.seen()?;
        ensure!(seen.iter().all(|seen| seen.method == "GET"), "{version}: {seen:?}");
    }
    nothing_under_way(&scene)
}

fn clients_reset(envoy: &Arc<Envoy>) -> Outcome {
    let scene = Scene::with(envoy, "resets", &any_token())?;
    for version in BOTH {
        scene.provider.clear()?;
        scene.provider.rule(json!({"on": "introspect", "times": 2, "delay": "1500ms"}))?;
        let webhook = Ask::new("POST", "/webhooks/avnology", HOST)
            .header("x-avnology-timestamp", now().to_string())
            .header("x-avnology-signature", "0".repeat(64))
            .body("x".repeat(10_000));
        let waits = Ask::new("POST", "/any", HOST).bearer("tok_alice").body("a body");
        let (before, lines) = (scene.requests(), scene.lines()?.len());
        let mut connections = Vec::new();
        for request in [Ask::new("GET", "/any", HOST).bearer("tok_bob"), waits, webhook.incomplete()] {
            let mut connection = scene.connect(version, None)?;
            connection.send(&request).map_err(|failure| failure.to_string())?;
            connections.push(connection);
        }
        until(|| Ok(scene.requests().saturating_sub(before) >= 3))?;
        scene.provider.wait_for_more_calls_than(1)?;
        for connection in connections {
            connection.reset().map_err(|failure| failure.to_string())?;
        }
        scene.wait_for_lines(lines.saturating_add(3))?;
        ensure!(
            scene.upstream.seen()?.iter().all(|seen| seen.method == "GET"),
            "{version}: a reset request arrived"
        );
        still_decides(&scene)?;
    }
    nothing_under_way(&scene)
}

/// The old listener's introspection is in progress when its successor gets a request with the same
/// token: two roots, two callouts, one VM.
fn replaced_while_asking(envoy: &Arc<Envoy>) -> Outcome {
    let mut scene = Scene::with(envoy, "replaced", &any_token())?;
    let mut stricter = any_token();
    stricter["routes"][1]["require"] = json!({"scopes": {"all": ["nobody-has-this"]}});
    for version in BOTH {
        scene.configure(&any_token()).map_err(|Refused(text)| text)?;
        scene.provider.clear()?;
        scene.provider.rule(json!({"on": "introspect", "delay": "1500ms"}))?;
        let request = Ask::new("GET", "/any", HOST).bearer("tok_alice");
        let mut old = scene.connect(version, None)?;
        old.send(&request).map_err(|failure| failure.to_string())?;
        scene.provider.wait_for_more_calls_than(0)?;
        scene.configure(&stricter).map_err(|Refused(text)| text)?;
        let mut new = scene.connect(version, None)?;
        new.send(&request).map_err(|failure| failure.to_string())?;
        let old = old
            .answer(PATIENCE)
            .map_err(|failure| format!("{version}: the old listener's request: {failure}"))?;
        let new = new
            .answer(PATIENCE)
            .map_err(|failure| format!("{version}: the new listener's request: {failure}"))?;
        ensure!(old.status == 200, "{version}: the old listener's request: {} {}", old.status, old.text());
        ensure!(
            new.error().as_deref() == Some("insufficient_scope"),
            "{version}: the new one's: {}",
            new.text()
        );
        let calls = scene.provider.calls()?.len();
        ensure!(calls == 2, "{version}: {calls} introspections, expected one of each listener");
    }
    nothing_under_way(&scene)
}

fn a_refused_update(envoy: &Arc<Envoy>) -> Outcome {
    let mut scene = Scene::with(envoy, "refused-update", &any_token())?;
    for bad in [
        json!({"routes": []}),
        json!({"routes": [{"match": {"path": "/any"}, "acess": "public"}]}),
        json!("no object"),
    ] {
        match scene.configure(&bad) {
            Ok(()) => return Err(format!("taken: {bad}")),
            Err(Refused(text)) => ensure!(text.contains(&scene.shape.name), "refused with {text:?}"),
        }
        for version in BOTH {
            let (answer, _) = ask(&scene, version, &Ask::new("GET", "/any", HOST))?;
            ensure!(
                answer.error().as_deref() == Some("missing_token"),
                "{version} after {bad}: {}",
                answer.text()
            );
            still_decides(&scene)?;
        }
    }
    let told = scene.warnings().join("\n");
    ensure!(told.contains("acess"), "the log does not name the field: {told}");
    scene.put_back()
}

/// Two plugins in one filter chain: one VM, two roots, and every request passes both.
fn two_plugins(envoy: &Arc<Envoy>) -> Outcome {
    let scene = Scene::new(envoy, "two-plugins", standin::Seed::embedded())?;
    let mut outer = any_token();
    outer["routes"] = json!([{"name": "outer", "match": {"path": "/{*rest}"}, "access": "public"}]);
    outer["routes"][0]["match"]["methods"] = json!(["GET"]);
    let mut shape = scene.shape.clone();
    let document = |policy: &Value| Policy::Document(scene.local(policy).to_string().into_bytes());
    shape.policy = document(&outer);
    let mut listener = sample::listener(&shape, &sample::module()?);
    shape.policy = document(&any_token());
    let inner = sample::listener(&shape, &sample::module()?);
    let filters = "/filter_chains/0/filters/0/typed_config/http_filters";
    let mut entry = inner.pointer(filters).and_then(|filters| filters.get(0)).cloned().ok_or("no filter")?;
    entry["name"] = json!("inner");
    let chain = listener.pointer_mut(filters).and_then(Value::as_array_mut).ok_or("no filters")?;
    chain.insert(1, entry);
    envoy.put_raw_listener(&shape.name, listener).map_err(|Refused(text)| text)?;
    for version in BOTH {
        let cases = [
            (Ask::new("GET", "/any", HOST).bearer("tok_alice"), 200, None),
            (Ask::new("GET", "/any", HOST), 401, Some("missing_token")),
            (Ask::new("GET", "/other", HOST), 403, Some("no_route")),
            (Ask::new("PUT", "/any", HOST).bearer("tok_alice").body("x"), 403, Some("no_route")),
            (Ask::new("GET", "/public", HOST), 200, None),
        ];
        for (request, status, error) in cases {
            let (answer, line) = ask(&scene, version, &request)?;
            let path = String::from_utf8_lossy(request.path.as_deref().unwrap_or_default()).into_owned();
            ensure!(answer.status == status, "{version} {path}: {} {}", answer.status, answer.text());
            ensure!(
                error.is_none() || answer.error().as_deref() == error,
                "{version} {path}: {}",
                answer.text()
            );
            // Shows which of the two refused: the outer one allows no other method than GET, the
            // inner one no other path.
            if request.method == b"PUT" {
                let seen = line.gate.unwrap_or_default();
                ensure!(
                    !seen.contains("any"),
                    "{version}: the inner plugin saw what the outer one refused: {seen}"
                );
            }
        }
    }
    Ok(())
}

fn a_struct(envoy: &Arc<Envoy>) -> Outcome {
    let mut scene = Scene::new(envoy, "struct", standin::Seed::embedded())?;
    match scene.put(Policy::Struct(scene.local(&any_token()))) {
        Ok(()) => Err("taken".to_owned()),
        Err(_) => {
            let told = scene.warnings().join("\n");
            ensure!(told.contains("StringValue"), "the log does not name StringValue: {told}");
            Ok(())
        }
    }
}

/// Some clients offer TLS on every plain request, and expect an answer to the request.
fn an_offer_of_tls(envoy: &Arc<Envoy>) -> Outcome {
    let mut policy = any_token();
    policy["credentials"] = json!([
        {"header": "authorization", "scheme": "Bearer"},
        {"cookie": "session", "origins": ["https://app.example.com"]}
    ]);
    let scene = Scene::with(envoy, "offer-of-tls", &policy)?;
    // To the gate this is no upgrade either, which would need an `Origin`.
    let request = Ask::new("GET", "/any", HOST)
        .header("cookie", "session=tok_alice")
        .header("connection", "Upgrade, x-any")
        .header("upgrade", "TLS/1.2");
    let (answer, line) = ask(&scene, Version::Http1, &request)?;
    ensure!(answer.status == 200, "a cookie: {} {:?}", answer.status, line.details);
    for offer in ["TLS/1.2", "TLS/1.0"] {
        let request = Ask::new("GET", "/any", HOST)
            .bearer("tok_alice")
            .header("connection", "Upgrade")
            .header("upgrade", offer);
        let (answer, line) = ask(&scene, Version::Http1, &request)?;
        ensure!(answer.status == 200, "{offer}: {} {:?}", answer.status, line.details);
    }
    Ok(())
}

/// The shipped listener, but the limits that are for all other routes are short.
fn a_long_lived_route(envoy: &Arc<Envoy>) -> Outcome {
    let mut scene = Scene::new(envoy, "long-lived", standin::Seed::embedded())?;
    let mut policy = any_token();
    policy["routes"] = json!([{"name": "all", "match": {"path": "/{*rest}"}, "access": "public"}]);
    scene.shape.policy = Policy::Document(scene.local(&policy).to_string().into_bytes());
    let mut listener = sample::listener(&scene.shape, &sample::module()?);
    let manager = listener.pointer_mut("/filter_chains/0/filters/0/typed_config").ok_or("no manager")?;
    manager["stream_idle_timeout"] = json!("0.3s");
    let routes = manager.pointer_mut("/route_config/virtual_hosts/0/routes").ok_or("no routes")?;
    ensure!(routes[0]["route"]["timeout"] == "0s", "the first route has a limit: {}", routes[0]);
    let last = routes.as_array().map_or(0, Vec::len).saturating_sub(1);
    routes[last]["route"]["timeout"] = json!("0.2s");
    envoy.put_raw_listener(&scene.shape.name, listener).map_err(|Refused(text)| text)?;
    for version in BOTH {
        for (path, is_cut) in [("/any", true), ("/streams/any", false)] {
            // The request goes on for longer than both limits, and then ends.
            let mut connection = scene.connect(version, None)?;
            let request = Ask::new("POST", path, HOST).body("xy").incomplete();
            connection.send(&request).map_err(|failure| format!("{version}: {failure}"))?;
            let early = connection.answer(Duration::from_millis(900));
            match (is_cut, early) {
                (true, Ok(answer)) => {
                    ensure!(matches!(answer.status, 408 | 504), "{version} {path}: {}", answer.status);
                }
                (true, Err(failure)) => return Err(format!("{version} {path} is not cut: {failure}")),
                (false, Ok(answer)) => return Err(format!("{version} {path} is cut: {}", answer.status)),
                (false, Err(_)) => {}
            }
        }
    }
    Ok(())
}

/// The filter makes gRPC of gRPC-Web before the gate sees it, and another status of the gate's
/// answer unless that has none of its own.
fn grpc_web_in_front(envoy: &Arc<Envoy>) -> Outcome {
    let mut scene = Scene::new(envoy, "grpc-web", standin::Seed::embedded())?;
    scene.shape.policy = Policy::Document(scene.local(&any_token()).to_string().into_bytes());
    let mut listener = sample::listener(&scene.shape, &sample::module()?);
    let filters = "/filter_chains/0/filters/0/typed_config/http_filters";
    let chain = listener.pointer_mut(filters).and_then(Value::as_array_mut).ok_or("no filters")?;
    let kind = "type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb";
    chain.insert(0, json!({"name": "envoy.filters.http.grpc_web", "typed_config": {"@type": kind}}));
    envoy.put_raw_listener(&scene.shape.name, listener).map_err(|Refused(text)| text)?;
    for version in BOTH {
        for (credential, grpc_status, http_status) in
            [("Bearer", "3", 400), ("Basic x", "16", 401), ("Bearer tok_revoked", "16", 401)]
        {
            for kind in ["application/grpc-web+proto", "application/grpc-web-text"] {
                let request = Ask::new("POST", "/any", HOST)
                    .header("content-type", kind)
                    .header("authorization", credential)
                    .body("AAAAAAA=");
                let (answer, _) = ask(&scene, version, &request)?;
                let status = answer.header("grpc-status");
                ensure!(
                    answer.status == http_status && status.as_deref() == Some(grpc_status),
                    "{version} {kind} {credential}: {} {status:?} {:?}",
                    answer.status,
                    answer.headers
                );
                ensure!(answer.header("grpc-message").is_some(), "no message: {:?}", answer.headers);
            }
        }
    }
    Ok(())
}

/// Both protocols have a buffer limit of their own in Envoy, and both must be larger than the
/// gate's limit for a webhook.
fn the_largest_webhook(envoy: &Arc<Envoy>) -> Outcome {
    let scene = Scene::with(envoy, "largest-webhook", &sample::policy())?;
    let limit = sample::policy().pointer("/webhooks/avnology/max_body_bytes").and_then(Value::as_u64);
    let limit = usize::try_from(limit.ok_or("no limit")?).map_err(|error| error.to_string())?;
    for version in BOTH {
        for (length, status) in [(limit, 200), (limit.saturating_add(1), 413)] {
            let body = "w".repeat(length);
            let time = now();
            let mut request = Ask::new("POST", "/webhooks/avnology", HOST)
                .header("x-avnology-timestamp", time.to_string())
                .header(
                    "x-avnology-signature",
                    standin::sign(harness::corpus::WEBHOOK_SECRET, time, body.as_bytes()),
                )
                .body(&body);
            // Without a `content-length`, the gate has to count the bytes itself.
            request.chunked = true;
            let (answer, line) = ask(&scene, version, &request)?;
            ensure!(answer.status == status, "{version} {length}: {} {:.200}", answer.status, answer.text());
            if status == 413 {
                let details = line.details.unwrap_or_default();
                ensure!(
                    details == "avnology_gate{body_too_large}",
                    "{version}: the 413 is not the gate's: {details}"
                );
            }
        }
    }
    Ok(())
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
