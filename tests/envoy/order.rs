//! The gate's place among other filters: what docs/deploy.md says of each, on both sides of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::client::{self, Answer, Ask, Version};
use harness::corpus::WEBHOOK_SECRET;
use harness::envoy::{Envoy, Refused};
use harness::sample::{self, Policy};
use harness::scene::Scene;
use harness::standin;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use service::http1::{Connection, Head};

use crate::{Fleet, Outcome, Run, ensure, trial};

pub(crate) fn trials(fleet: &Fleet) -> Vec<Trial> {
    let all: &[(&str, Run)] = &[
        ("order/cors", cors),
        ("order/jwt_authn", jwt_authn),
        ("order/lua", lua),
        ("order/a_routes_rewrite", rewrite),
        ("order/buffer", buffer),
        ("order/decompressor", decompressor),
        ("order/compressor", compressor),
        ("order/local_ratelimit", local_ratelimit),
        ("order/rbac", rbac),
        ("order/ext_authz", ext_authz),
        ("order/ext_proc", ext_proc),
        ("order/a_small_buffer_limit", small_buffer),
        ("order/a_proxy_in_front", proxy_in_front),
    ];
    all.iter().map(|(name, run)| trial(fleet, name, 1, *run)).collect()
}

const HOST: &str = "api.example.com";
const MANAGER: &str = "/filter_chains/0/filters/0/typed_config";
const JWT: &str = include_str!("../../benches/keys/test-only.jwt");
const JWKS: &str = include_str!("../../benches/keys/test-only.jwks.json");

/// Where the other filter is.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Before,
    After,
}

const SIDES: [Side; 2] = [Side::Before, Side::After];

/// A filter of Envoy's own.
fn filter(name: &str, kind: &str, mut config: Value) -> Value {
    config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.http.{kind}"));
    json!({"name": name, "typed_config": config})
}

/// The gate with another filter beside it, and with a listener that was edited.
fn scene(
    envoy: &Arc<Envoy>,
    name: &str,
    side: Side,
    other: Option<Value>,
    edit: impl FnOnce(&mut Value),
) -> Result<Scene, String> {
    let mut seed = standin::Seed::embedded();
    let alice = seed.tokens.get("tok_alice").ok_or("no tok_alice")?.clone();
    seed.tokens.insert(JWT.trim().to_owned(), alice);
    let mut policy = sample::forgetful_policy();
    policy["routes"] = json!([
        {"name": "public", "match": {"path": "/public"}, "access": "public"},
        {"name": "any", "match": {"path": "/any"}},
        {"name": "hooks", "match": {"methods": ["POST"], "path": "/webhooks/avnology"}, "webhook": "avnology"}
    ]);
    let mut scene = Scene::new(envoy, name, seed)?;
    scene.shape.policy = Policy::Document(scene.local(&policy).to_string().into_bytes());
    let mut listener = sample::listener(&scene.shape, &sample::module()?);
    let manager = listener.pointer_mut(MANAGER).ok_or("no manager")?;
    let chain = manager["http_filters"].as_array_mut().ok_or("no filters")?;
    let at = usize::from(side == Side::After);
    chain.splice(at..at, other);
    edit(manager);
    envoy.put_raw_listener(&scene.shape.name, listener).map_err(|Refused(text)| text)?;
    Ok(scene)
}

fn send(scene: &Scene, ask: &Ask) -> Result<Answer, String> {
    client::ask(scene.address, Version::Http1, ask).map_err(|failure| failure.to_string())
}

fn get(path: &str) -> Ask {
    Ask::new("GET", path, HOST)
}

/// Checks a status, and the gate's error where there is one.
fn is(answer: &Answer, status: u16, error: Option<&str>) -> Outcome {
    let found = answer.error();
    ensure!(
        answer.status == status && found.as_deref() == error,
        "{} {found:?}, expected {status} {error:?}: {}",
        answer.status,
        answer.text()
    );
    Ok(())
}

/// In front, it answers preflights, and refusals have its headers; behind, neither.
fn cors(envoy: &Arc<Envoy>) -> Outcome {
    for side in SIDES {
        let other = filter("envoy.filters.http.cors", "cors.v3.Cors", json!({}));
        let scene = scene(envoy, "order-cors", side, Some(other), |manager| {
            manager["route_config"]["virtual_hosts"][0]["typed_per_filter_config"] = json!({
                "envoy.filters.http.cors": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
                    "allow_origin_string_match": [{"exact": "https://app.example.com"}],
                    "allow_methods": "GET",
                }
            });
        })?;
        let from = |ask: Ask| ask.header("origin", "https://app.example.com");
        let preflight =
            from(Ask::new("OPTIONS", "/any", HOST)).header("access-control-request-method", "GET");
        let preflight = send(&scene, &preflight)?;
        let refused = send(&scene, &from(get("/any")))?;
        is(&refused, 401, Some("missing_token"))?;
        let is_told = refused.header("access-control-allow-origin").is_some();
        match side {
            Side::Before => {
                is(&preflight, 200, None)?;
                ensure!(is_told, "the page cannot read the refusal: {:?}", refused.headers);
            }
            Side::After => {
                is(&preflight, 401, Some("missing_token"))?;
                ensure!(!is_told, "{:?}", refused.headers);
            }
        }
        ensure!(scene.upstream.seen()?.is_empty(), "the service saw a preflight");
    }
    Ok(())
}

/// In front, it takes the token away unless it is to forward it.
fn jwt_authn(envoy: &Arc<Envoy>) -> Outcome {
    let other = |forward: bool| {
        let provider = json!({"issuer": "https://api-id.avnology.net", "forward": forward, "local_jwks": {"inline_string": JWKS}});
        let rules = json!([{"match": {"prefix": "/any"}, "requires": {"provider_name": "avnology"}}]);
        let config = json!({"providers": {"avnology": provider}, "rules": rules});
        Some(filter("envoy.filters.http.jwt_authn", "jwt_authn.v3.JwtAuthentication", config))
    };
    let (good, bad) = (get("/any").bearer(JWT.trim()), get("/any").bearer("tok_alice"));
    for side in SIDES {
        let scene = scene(envoy, "order-jwt", side, other(true), |_| ())?;
        is(&send(&scene, &good)?, 200, None)?;
        scene.provider.clear()?;
        // Only jwt_authn minds that this is no JWT.
        let answer = send(&scene, &bad)?;
        ensure!(answer.status == 401 && answer.error().is_none(), "{} {}", answer.status, answer.text());
        let asked = scene.provider.calls()?.len();
        ensure!(asked == usize::from(side == Side::After), "the provider was asked {asked} times");
    }
    let scene = scene(envoy, "order-jwt-taken", Side::Before, other(false), |_| ())?;
    is(&send(&scene, &good)?, 401, Some("missing_token"))
}

/// In front, the gate judges what it made of the request; behind, the service gets what nobody has
/// judged.
fn lua(envoy: &Arc<Envoy>) -> Outcome {
    let code = "function envoy_on_request(handle)\n  handle:headers():replace(':path', '/any')\n  \
                handle:headers():replace('x-avnology-user-id', 'usr_root')\nend\n";
    for side in SIDES {
        let other = filter(
            "envoy.filters.http.lua",
            "lua.v3.Lua",
            json!({"default_source_code": {"inline_string": code}}),
        );
        let scene = scene(envoy, "order-lua", side, Some(other), |_| ())?;
        let answer = send(&scene, &get("/public"))?;
        match side {
            Side::Before => {
                is(&answer, 401, Some("missing_token"))?;
                let answer = send(&scene, &get("/public").bearer("tok_alice"))?;
                is(&answer, 200, None)?;
                ensure!(!answer.text().contains("usr_root"), "{}", answer.text());
            }
            Side::After => {
                is(&answer, 200, None)?;
                ensure!(answer.json()["path"] == "/any", "{}", answer.text());
                ensure!(answer.text().contains("usr_root"), "{}", answer.text());
            }
        }
    }
    Ok(())
}

/// A route rewrites behind all filters: the policy names the client's paths.
fn rewrite(envoy: &Arc<Envoy>) -> Outcome {
    let scene = scene(envoy, "order-rewrite", Side::Before, None, |manager| {
        for route in
            manager["route_config"]["virtual_hosts"][0]["routes"].as_array_mut().into_iter().flatten()
        {
            route["route"]["prefix_rewrite"] = json!("/any/");
        }
    })?;
    let answer = send(&scene, &get("/public"))?;
    is(&answer, 200, None)?;
    ensure!(answer.json()["path"] == "/any/public", "{}", answer.text());
    Ok(())
}

/// A signed delivery.
fn delivery(body: &[u8]) -> Ask {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ask::new("POST", "/webhooks/avnology", HOST)
        .header("x-avnology-timestamp", now.to_string())
        .header("x-avnology-signature", standin::sign(WEBHOOK_SECRET, now, body))
        .body(body)
}

/// In front, its own limit comes first.
fn buffer(envoy: &Arc<Envoy>) -> Outcome {
    for side in SIDES {
        let other =
            filter("envoy.filters.http.buffer", "buffer.v3.Buffer", json!({"max_request_bytes": 4096}));
        let scene = scene(envoy, "order-buffer", side, Some(other), |_| ())?;
        is(&send(&scene, &delivery(&[b'x'; 2048]))?, 200, None)?;
        is(
            &send(&scene, &delivery(&[b'x'; 2048]).header("x-avnology-signature", "0"))?,
            401,
            Some("invalid_signature"),
        )?;
        let answer = send(&scene, &Ask::new("POST", "/any", HOST).body([b'x'; 8192]))?;
        match side {
            Side::Before => is(&answer, 413, None)?,
            Side::After => is(&answer, 401, Some("missing_token"))?,
        }
    }
    Ok(())
}

/// A limit that other configurations have, and a webhook that is longer.
fn small_buffer(envoy: &Arc<Envoy>) -> Outcome {
    let name = "order-small-buffer";
    let mut scene = scene(envoy, name, Side::Before, None, |_| ())?;
    let large = [b'x'; 300_000];
    is(&send(&scene, &delivery(&large))?, 200, None)?;
    scene.shape.buffer_limit = Some(32_768);
    scene.shape.label = "small".to_owned();
    envoy.put_listener(&scene.shape).map_err(|Refused(text)| text)?;
    is(&send(&scene, &delivery(&[b'x'; 2048]))?, 200, None)?;
    for version in [Version::Http1, Version::Http2] {
        let answer = client::ask(scene.address, version, &delivery(&large));
        let answer = answer.map_err(|failure| format!("{version}: {failure}"))?;
        ensure!(
            answer.status == 413 && answer.error().is_none(),
            "{version}: {} {}",
            answer.status,
            answer.text()
        );
    }
    Ok(())
}

/// Whose address the service is told.
fn proxy_in_front(envoy: &Arc<Envoy>) -> Outcome {
    for (hops, expected) in [(0, "127.0.0.1"), (1, "203.0.113.7")] {
        let scene = scene(envoy, "order-proxy", Side::Before, None, |manager| {
            manager["xff_num_trusted_hops"] = json!(hops);
        })?;
        let answer = send(&scene, &get("/public").header("x-forwarded-for", "203.0.113.7"))?;
        let told = format!(r#"["x-envoy-external-address","{expected}"]"#);
        ensure!(answer.text().contains(&told), "{hops} hops: {}", answer.text());
    }
    Ok(())
}

/// In front, it changes what was signed.
fn decompressor(envoy: &Arc<Envoy>) -> Outcome {
    let plain = br#"{"type":"user.created"}"#;
    let crc: u32 = 0x74ba_774f;
    let length = u16::try_from(plain.len()).map_err(|error| error.to_string())?;
    // RFC 1952, with one block that is stored.
    let gzip = [
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 1][..],
        &length.to_le_bytes(),
        &(!length).to_le_bytes(),
        plain,
        &crc.to_le_bytes(),
        &u32::from(length).to_le_bytes(),
    ]
    .concat();
    let library = json!({
        "name": "gzip",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.compression.gzip.decompressor.v3.Gzip"},
    });
    for side in SIDES {
        let config = json!({"decompressor_library": library});
        let other = filter("envoy.filters.http.decompressor", "decompressor.v3.Decompressor", config);
        let scene = scene(envoy, "order-decompressor", side, Some(other), |_| ())?;
        let answer = send(&scene, &delivery(&gzip).header("content-encoding", "gzip"))?;
        match side {
            Side::Before => is(&answer, 401, Some("invalid_signature"))?,
            Side::After => {
                is(&answer, 200, None)?;
                let seen = scene.upstream.seen()?;
                let bytes = seen.last().map(|seen| seen.body_bytes);
                ensure!(bytes.and_then(|bytes| u16::try_from(bytes).ok()) == Some(length), "{bytes:?}");
            }
        }
    }
    Ok(())
}

/// It compresses what passes on both sides, and refusals in front alone.
fn compressor(envoy: &Arc<Envoy>) -> Outcome {
    let library = json!({
        "name": "gzip",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip"},
    });
    for side in SIDES {
        let other = filter(
            "envoy.filters.http.compressor",
            "compressor.v3.Compressor",
            json!({"compressor_library": library}),
        );
        let scene = scene(envoy, "order-compressor", side, Some(other), |_| ())?;
        let compressed = |ask: Ask| ask.header("accept-encoding", "gzip");
        let answer = send(&scene, &compressed(get("/public")))?;
        let coding = answer.header("content-encoding");
        ensure!(answer.status == 200 && coding.as_deref() == Some("gzip"), "{} {coding:?}", answer.status);
        let refused = send(&scene, &compressed(get("/any")))?;
        let is_compressed = refused.header("content-encoding").is_some();
        ensure!(
            refused.status == 401 && is_compressed == (side == Side::Before),
            "{} {is_compressed}",
            refused.status
        );
    }
    Ok(())
}

/// In front, whoever has no token uses the limit up too; behind, only those who passed.
fn local_ratelimit(envoy: &Arc<Envoy>) -> Outcome {
    let on = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
    let config = json!({
        "stat_prefix": "order",
        "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"},
        "filter_enabled": on,
        "filter_enforced": on,
    });
    for side in SIDES {
        let other =
            filter("envoy.filters.http.local_ratelimit", "local_ratelimit.v3.LocalRateLimit", config.clone());
        let scene = scene(envoy, "order-limit", side, Some(other), |_| ())?;
        is(&send(&scene, &get("/any"))?, 401, Some("missing_token"))?;
        let answer = send(&scene, &get("/any").bearer("tok_alice"))?;
        is(&answer, if side == Side::Before { 429 } else { 200 }, None)?;
        let asked = scene.provider.calls()?.len();
        ensure!(asked == usize::from(side == Side::After), "the provider was asked {asked} times");
        is(&send(&scene, &get("/any").bearer("tok_alice"))?, 429, None)?;
    }
    Ok(())
}

/// Behind, it can go by what the gate says of the caller; in front, the caller says it.
fn goes_by_the_caller(scene: &Scene, side: Side) -> Outcome {
    let bob = get("/any").bearer("tok_bob").header("x-avnology-user-id", "usr_alice");
    let status = send(scene, &bob)?.status;
    ensure!(status == if side == Side::Before { 200 } else { 403 }, "bob: {status}");
    let status = send(scene, &get("/any").bearer("tok_alice"))?.status;
    ensure!(status == if side == Side::Before { 403 } else { 200 }, "alice: {status}");
    Ok(())
}

fn rbac(envoy: &Arc<Envoy>) -> Outcome {
    let alice = json!({"header": {"name": "x-avnology-user-id", "string_match": {"exact": "usr_alice"}}});
    let policy = json!({"permissions": [{"any": true}], "principals": [alice]});
    let rules = json!({"action": "ALLOW", "policies": {"alice": policy}});
    for side in SIDES {
        let other = filter("envoy.filters.http.rbac", "rbac.v3.RBAC", json!({"rules": rules}));
        goes_by_the_caller(&scene(envoy, "order-rbac", side, Some(other), |_| ())?, side)?;
    }
    Ok(())
}

fn ext_authz(envoy: &Arc<Envoy>) -> Outcome {
    let (address, _server) = serve(|head| {
        let is_alice = head.header("x-avnology-user-id") == Some("usr_alice");
        (if is_alice { 200 } else { 403 }, String::new())
    });
    let cluster = put_server(envoy, "order-ext-authz", address)?;
    let config = json!({
        "allowed_headers": {"patterns": [{"exact": "x-avnology-user-id"}]},
        "http_service": {"server_uri": {"uri": "http://judge", "cluster": cluster, "timeout": "10s"}},
    });
    for side in SIDES {
        let other = filter("envoy.filters.http.ext_authz", "ext_authz.v3.ExtAuthz", config.clone());
        goes_by_the_caller(&scene(envoy, "order-authz", side, Some(other), |_| ())?, side)?;
    }
    Ok(())
}

/// As with Lua: in front, the gate judges what it made of the request.
fn ext_proc(envoy: &Arc<Envoy>) -> Outcome {
    let (address, _server) = serve(|_| {
        let set = |name: &str, value: &str| {
            let header = json!({"key": name, "rawValue": STANDARD.encode(value)});
            json!({"header": header, "appendAction": "OVERWRITE_IF_EXISTS_OR_ADD"})
        };
        let headers = [set("authorization", "Bearer tok_bob"), set("x-avnology-user-id", "usr_root")];
        let answer = json!({"requestHeaders": {"response": {"headerMutation": {"setHeaders": headers}}}});
        (200, answer.to_string())
    });
    let cluster = put_server(envoy, "order-ext-proc", address)?;
    let config = json!({
        "http_service": {
            "http_service": {"http_uri": {"uri": "http://processor/", "cluster": cluster, "timeout": "10s"}},
        },
        "message_timeout": "10s",
        "processing_mode": {"request_header_mode": "SEND", "response_header_mode": "SKIP"},
    });
    for side in SIDES {
        let other = filter("envoy.filters.http.ext_proc", "ext_proc.v3.ExternalProcessor", config.clone());
        let scene = scene(envoy, "order-proc", side, Some(other), |_| ())?;
        let answer = send(&scene, &get("/any").bearer("tok_alice"))?;
        is(&answer, 200, None)?;
        let user = if side == Side::Before { "usr_bob" } else { "usr_root" };
        ensure!(answer.text().contains(&format!(r#"["x-avnology-user-id","{user}"]"#)), "{}", answer.text());
    }
    Ok(())
}

/// A server of one answer.
type Answerer = fn(&Head) -> (u16, String);

fn serve(answerer: Answerer) -> (SocketAddr, service::Running) {
    let ([address], running) = service::Running::start(|[listener]| {
        service::accept(listener, move |stream| async move {
            let mut connection = Connection::new(stream);
            while let Ok(Some((head, mut body))) = connection.head().await {
                while let Ok(Some(_)) = connection.body_part(&mut body).await {}
                let (status, body) = answerer(&head);
                // Who has left wants none.
                if connection.answer(status, &[], body.len(), body.as_bytes()).await.is_err() {
                    return;
                }
            }
        })
    });
    (address, running)
}

fn put_server(envoy: &Envoy, name: &str, address: SocketAddr) -> Result<String, String> {
    envoy
        .put_clusters(vec![sample::cluster("upstream", name, Some(address))])
        .map_err(|Refused(text)| text)?;
    Ok(name.to_owned())
}
