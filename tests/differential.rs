//! The gate decides as a naive reference does, over random policies and requests.

// A panic in a helper fails the test as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::string_slice)]

#[path = "differential/gate.rs"]
mod gate;
#[path = "differential/reference.rs"]
mod reference;
#[path = "differential/world.rs"]
mod world;

use avnology_gate::config;
use avnology_gate::flow::{Engine, NoStore, Seed, StreamId};
use gate::{NOW, ROOT, decide};
use std::collections::BTreeMap;
use std::rc::Rc;
use world::{Policy, Random, Request};

const POLICIES: u64 = 5_000;
const REQUESTS: u32 = 20;

#[test]
fn it_decides_as_the_reference_does() {
    let (mut decided, mut reasons) = (0_u64, BTreeMap::new());
    for seed in 0..POLICIES * 2 {
        let mut random = Random::new(seed, &[]);
        let policy = Policy::random(&mut random);
        let document = policy.document();
        // Two routes for one request: refused, which is not what is asked here.
        let loaded = match config::load(document.to_string().as_bytes(), &|_| None) {
            Ok(loaded) => loaded,
            Err(problems) => {
                let is_overlap =
                    |line: &String| line.contains("expected a request that only one route names");
                assert!(problems.lines().iter().all(is_overlap), "{problems}\n{document:#}");
                continue;
            }
        };
        let mut engine = Engine::new(Seed([1; 16]), Rc::new(NoStore));
        engine.configure(ROOT, loaded, NOW);
        for stream in 0..REQUESTS {
            let request = Request::random(&mut random);
            let expected = reference::decide(&policy, &request);
            // Each at a time of its own, so that no question waits after a call that failed.
            let now = NOW.saturating_add(std::time::Duration::from_secs(60 * u64::from(stream)));
            let got = decide(&mut engine, StreamId(stream), &request, now);
            assert_eq!(got, expected, "seed {seed}: {request:?}\n{document}");
            *reasons.entry(got.reason).or_insert(0_u32) += 1;
            decided += 1;
        }
    }
    assert!(decided >= 100_000, "only {decided} decisions: most policies are refused");
    // It would prove little if one answer were nearly all of them.
    assert!(reasons.len() >= 14 && reasons.values().all(|count| *count >= 50), "{reasons:?}");
}
