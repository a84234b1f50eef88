//! What the fuzzers ask an engine: whether something is left when all has ended.

use super::Engine;
use crate::flow::limits::Limits;
use crate::flow::{Seed, SharedStore};
use std::rc::Rc;

impl Engine {
    /// An engine whose limits are so small that a handful of requests meets each of them.
    pub fn narrow(seed: Seed, store: Rc<dyn SharedStore>) -> Self {
        let limits = Limits {
            waiting_new: 4,
            waiting_known: 4,
            receiving: 4,
            ending: 2,
            parked_new: 8 * 1024,
            parked_known: 8 * 1024,
            parked_receiving: 8 * 1024,
            parked_ending: 4 * 1024,
            held_bytes: 64,
            waiters: 3,
        };
        Self::with_limits(seed, store, limits)
    }

    /// The rooms in which something of a request is left: none, once every stream is gone and
    /// every callout has landed. Probes go on, and know whom their end would let go on.
    pub fn leftovers(&self) -> Vec<&'static str> {
        left(&[("requests", self.requests.is_empty()), ("calls", self.calls.is_empty())])
    }

    /// The rooms in which anything is left: none, once every root is gone too.
    pub fn remains(&self) -> Vec<&'static str> {
        left(&[
            ("requests", self.requests.is_empty()),
            ("calls", self.calls.is_empty()),
            ("health", self.health.is_empty()),
            ("timers", self.timers.is_empty()),
            ("roots", self.roots.is_empty()),
        ])
    }
}

fn left(rooms: &[(&'static str, bool)]) -> Vec<&'static str> {
    rooms.iter().filter(|(_, is_empty)| !is_empty).map(|(name, _)| *name).collect()
}
