//! What a decision costs the core, in instructions: run by `tools/instructions` under callgrind, where it is repeatable.
//!
//! Usage: `decide KIND ROUTES REQUESTS`, where `KIND` is `public`, `cached` (a token that is known), `permitted` (with a permission that is
//! known) or `asked` (every token is new, and the provider is asked about it).

use avnology_gate::config;
use avnology_gate::envoy::header_map::{self, request_head};
use avnology_gate::flow::{Engine, NoStore, Output, RootId, Seed, Step, StreamId};
use avnology_gate::http::Response;
use avnology_gate::time::Timestamp;
use avnology_gate::verdict::Action;
use serde_json::json;
use std::hint::black_box;
use std::rc::Rc;

const ROOT: RootId = RootId(1);
const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

fn engine(kind: &str, routes: u32) -> Engine {
    let routes: Vec<_> = (0..routes)
        .map(|n| {
            let place = json!({"methods": ["GET"], "path": format!("/service-{n}/items/{{id}}")});
            match kind {
                "public" => json!({"match": place, "access": "public"}),
                "permitted" => json!({"match": place, "require": {"permissions": {"all": [
                    {"object": "project:{path.id}", "relation": "editor"}]}}}),
                _ => json!({"match": place, "require": {"scopes": {"all": ["profile"]}}}),
            }
        })
        .collect();
    let document = json!({
        "provider": {
            "cluster": "avnology", "authority": "id.example",
            "introspection": {"credentials": {
                "method": "client_secret_post", "client_id": "cli_gate", "client_secret": "cs_gate_secret_for_trials"}}, "permissions": {"api_key": "key"}
        },
        "routes": routes
    });
    let mut engine = Engine::new(Seed([7; 16]), Rc::new(NoStore));
    match config::load(document.to_string().as_bytes(), &|_| None) {
        Ok(loaded) => engine.configure(ROOT, loaded),
        Err(problems) => std::panic::panic_any(problems.to_string()),
    }
    engine
}

/// Answers whatever the engine asks.
fn answer(engine: &mut Engine) {
    let body = json!({
        "active": true, "allowed": true, "sub": "usr_01J9Z3N5T7", "client_id": "cli_web", "scope": "profile projects",
        "iss": "https://id.example", "aud": ["https://api.example.com"], "exp": 1_790_000_900, "iat": 1_790_000_000,
        "token_type": "Bearer", "org_id": "org_acme"
    });
    let body = body.to_string();
    while let Some(output) = engine.poll() {
        if let Output::Dispatch { flight, .. } = output {
            engine.landed(
                flight,
                Ok(Response { status: 200, retry_after: None, body: body.as_bytes() }),
                NOW,
            );
        }
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or_else(|| "public".to_owned());
    let mut number = || arguments.next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(10);
    let (routes, requests) = (number(), number());
    let mut engine = engine(&kind, routes);
    let token = format!("Bearer {}", "eyJhbGciOiJSUzI1NiJ9".repeat(31));
    let heads: Vec<Vec<u8>> = (0..10)
        .map(|n| {
            let path = format!("/service-{n}/items/42?page=3");
            let mut head = vec![
                (":method", "GET"),
                (":path", path.as_str()),
                (":authority", "api.example.com"),
                (":scheme", "https"),
                ("user-agent", "bench"),
                ("accept", "application/json"),
                ("x-request-id", "0f5c6d1e-8a52-4b7e-9c3f-2f7a5b1d9e44"),
            ];
            if kind != "public" {
                head.push(("authorization", &token));
            }
            header_map::encode(&head)
        })
        .collect();
    if let Some(head) = heads.first() {
        let first = StreamId(u32::MAX);
        drop(engine.begin(first, ROOT, &request_head(head, true), NOW));
        answer(&mut engine);
        engine.gone(first);
    }
    for (number, head) in (0..requests).zip(heads.iter().cycle()) {
        let stream = StreamId(number);
        if kind == "asked" {
            let fresh = format!("Bearer {number}.{}", "eyJhbGciOiJSUzI1NiJ9".repeat(31));
            let head = header_map::encode(&[
                (":method", "GET"),
                (":path", "/service-0/items/42"),
                (":authority", "api.example.com"),
                ("authorization", &fresh),
            ]);
            let step = engine.begin(stream, ROOT, &request_head(black_box(&head), true), NOW);
            assert!(matches!(step, Step::Wait), "a new token is asked about");
            answer(&mut engine);
            engine.gone(stream);
            continue;
        }
        let step = engine.begin(stream, ROOT, &request_head(black_box(head), true), NOW);
        let passes =
            matches!(&step, Step::Decided(verdict) if matches!(verdict.action(), Action::Forward(_)));
        assert!(passes, "every request of the bench passes, and what it needs is known");
        engine.gone(stream);
    }
}
