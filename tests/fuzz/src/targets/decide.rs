//! Policies and requests: the gate decides as the naive reference does.

use crate::differential::{self, NOW, ROOT};
use crate::reference;
use crate::world::{Policy, Random, Request};
use avnology_gate::config;
use avnology_gate::flow::{Engine, NoStore, Seed, StreamId};
use std::rc::Rc;
use std::time::Duration;

/// Bytes choose a policy, and then requests.
pub(crate) fn decide(data: &[u8]) {
    let mut random = Random::new(0, data);
    let policy = Policy::random(&mut random);
    let document = policy.document();
    // Two routes for one request are refused.
    let Ok(loaded) = config::load(document.to_string().as_bytes(), &|_| None) else { return };
    let mut engine = Engine::new(Seed([1; 16]), Rc::new(NoStore));
    engine.configure(ROOT, loaded, NOW);
    for stream in 0..6 {
        let request = Request::random(&mut random);
        let expected = reference::decide(&policy, &request);
        // Each at a time of its own, so that no question waits after a call that failed.
        let now = NOW.saturating_add(Duration::from_secs(60 * u64::from(stream)));
        let got = differential::decide(&mut engine, StreamId(stream), &request, now);
        assert_eq!(got, expected, "{request:?}\n{document}");
    }
}
