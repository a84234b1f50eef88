//! What a decision costs the core, in instructions: run by `tools/instructions` under callgrind, where it is repeatable.
//!
//! Usage: `decide ROUTES REQUESTS`.

use avnology_gate::config;
use avnology_gate::flow::{Engine, NoSlots, RootId, Seed, Step, StreamId};
use avnology_gate::http::pairs;
use avnology_gate::time::Timestamp;
use avnology_gate::verdict::Action;
use serde_json::json;
use std::hint::black_box;
use std::rc::Rc;

fn engine(routes: u32) -> Engine {
    let routes: Vec<_> = (0..routes)
        .map(|n| json!({"match": {"methods": ["GET"], "path": format!("/service-{n}/items/{{id}}")}, "access": "public"}))
        .collect();
    let document = json!({"routes": routes}).to_string();
    let mut engine = Engine::new(Seed([7; 16]), Rc::new(NoSlots));
    match config::load(document.as_bytes(), &|_| None) {
        Ok(loaded) => engine.configure(RootId(1), loaded),
        Err(problems) => std::panic::panic_any(problems.to_string()),
    }
    engine
}

fn main() {
    let numbers: Vec<u32> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let (routes, requests) = match numbers.as_slice() {
        [routes, requests] => (*routes, *requests),
        _ => (10, 10),
    };
    let mut engine = engine(routes);
    let heads: Vec<Vec<u8>> = (0..10)
        .map(|n| {
            pairs::encode(&[
                (":method", "GET"),
                (":path", format!("/service-{n}/items/42?page=3").as_str()),
                (":authority", "api.example.com"),
                (":scheme", "https"),
                ("user-agent", "bench"),
                ("accept", "application/json"),
                ("x-request-id", "0f5c6d1e-8a52-4b7e-9c3f-2f7a5b1d9e44"),
            ])
        })
        .collect();
    for (stream, head) in (0..requests).zip(heads.iter().cycle()) {
        let stream = StreamId(stream);
        let step = engine.begin(stream, RootId(1), black_box(head), true, Timestamp::from_secs(1));
        let passes =
            matches!(&step, Step::Decided(verdict) if matches!(verdict.action(), Action::Forward(_)));
        assert!(passes, "every request of the bench is on a public route");
        engine.gone(stream);
    }
}
