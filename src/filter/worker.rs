//! One worker's state: everything that outlives a callback.

use super::host;
use crate::flow::{Engine, FlightId, RootId, StreamId};
use crate::hash::TrustedKeyHasher;
use crate::telemetry::Series;
use crate::time::Timestamp;
use crate::verdict::Verdict;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

thread_local! {
    /// One worker's state; a virtual machine has one thread. Nothing that runs while it is borrowed
    /// triggers a callback; if one came all the same, it would find no worker, and refuse.
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// Everything that outlives a callback.
pub(super) struct Worker {
    pub(super) engine: Engine,
    /// The root of each context; a root's own entry is itself. Several roots exist while an update
    /// replaces a configuration, or if two plugins share a virtual machine. A stream stays with the
    /// root under which it was created.
    pub(super) contexts: HashMap<u32, RootId, TrustedKeyHasher>,
    /// Callouts in progress. The host drops a root's callouts with the root.
    pub(super) flights: HashMap<(RootId, u32), FlightId, TrustedKeyHasher>,
    /// When each root's tick is due, if one is armed.
    pub(super) ticks: BTreeMap<RootId, Option<Timestamp>>,
    /// See `Callback::decide`.
    pub(super) deferred: Vec<(StreamId, Verdict)>,
    /// The host's metrics; `None` for one that it would not define.
    pub(super) metrics: HashMap<Series, Option<u32>, TrustedKeyHasher>,
    /// Whether the host logs at debug level, and when it was last asked.
    pub(super) debug: (bool, Option<Timestamp>),
}

pub(super) fn with_worker<T>(act: impl FnOnce(&mut Worker) -> T) -> Option<T> {
    let result = WORKER.try_with(|cell| {
        let mut worker = cell.try_borrow_mut().ok()?;
        if worker.is_none() {
            // Without randomness there is no worker: keys that can be guessed protect nothing.
            let engine = Engine::new(host::seed()?, Rc::new(host::Slots));
            let (contexts, flights, ticks, metrics) = Default::default();
            let (deferred, debug) = Default::default();
            *worker = Some(Worker { engine, contexts, flights, ticks, deferred, metrics, debug });
        }
        worker.as_mut().map(act)
    });
    result.ok().flatten()
}
