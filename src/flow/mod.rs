//! The engine: one per VM, fed by the host's callbacks, with no clock, socket or proxy of its own.
//!
//! Every method may leave [`Output`]s; whoever drives the engine drains [`Engine::poll`] after each
//! call. A callback about a stream that is not known, or about a flight that has landed, is
//! harmless.

mod answer;
mod bodies;
mod calls;
mod counts;
mod delivering;
mod edits;
mod engine;
mod evictions;
mod fact_kind;
mod facts;
pub(crate) mod gate;
mod header_cache;
mod health;
mod limits;
mod meter;
mod outputs;
mod query;
mod queue;
mod request;
mod requests;
mod roots;
mod services;
mod shares;
mod store;
mod timers;
mod trace;
mod triage;

pub use crate::hash::Seed;
pub use engine::Engine;
pub use store::{NoStore, SharedStore};

use crate::http::{Callout, Edit};
use crate::telemetry::{Change, Series};
use crate::verdict::Verdict;

/// A request, as the host numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// A configured plugin, as the host numbers them. Two of them may share a VM, and an update's
/// stands beside the old one for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RootId(pub u32);

/// A callout, as the engine numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlightId(pub u64);

impl FlightId {
    /// Whether it is the gate's own question to an endpoint, which no request has caused.
    pub const fn is_probe(self) -> bool {
        self.0 & 1 == 1
    }
}

/// What the running callback does with its stream.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// Let pass: the stream was forwarded before.
    Continue,
    /// Hold the whole stream; no body callback is wanted.
    Wait,
    /// Hold the head, and hand over the body.
    NeedBody,
    /// Decided now: apply it, and return accordingly.
    Decided(Verdict),
}

/// How loud a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For whoever looks for one request.
    Debug,
    /// For whoever watches the gate start.
    Info,
    /// For whoever must act.
    Warn,
}

/// What the host is asked to do.
#[cfg_attr(test, derive(Clone))]
#[must_use]
pub enum Output {
    /// Send this under the root's context; its answer goes to [`Engine::landed`], a refusal to send
    /// it too, at once.
    Dispatch {
        /// Which flight it is.
        flight: FlightId,
        /// Whose callout it is.
        root: RootId,
        /// What to send.
        callout: Callout,
    },
    /// Apply a verdict. For the stream whose callback is running it becomes that callback's return
    /// value.
    Decide {
        /// The stream.
        stream: StreamId,
        /// What to do with it.
        verdict: Verdict,
    },
    /// Apply these edits to the head of the stream whose callback is running, before it waits. If
    /// one cannot be applied, the request must not go on.
    Edit {
        /// The stream.
        stream: StreamId,
        /// What leaves the request whatever is decided.
        edits: Vec<Edit>,
    },
    /// Read how many bytes of the request have arrived, and tell [`Engine::measured`].
    Measure {
        /// The stream.
        stream: StreamId,
    },
    /// Change a metric; [`Engine::metric_name`] has its name. No decision depends on it.
    Metric {
        /// Which series.
        series: Series,
        /// How it changes.
        change: Change,
    },
    /// Write to the host's log.
    Log {
        /// How loud.
        level: Level,
        /// What.
        message: String,
    },
}

#[cfg(test)]
mod tests;
