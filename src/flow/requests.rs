//! The table of streams: the one owner of what waits, and of its counts.

use super::bodies::{Bodies, Claim};
use super::counts::{Class, Counts, Taken};
use super::gate::Phase;
use super::limits::Limits;
use super::request::Request;
use super::timers::{Armed, Timer, Timers};
use super::{RootId, StreamId};
use crate::hash::TrustedKeyHasher;
use crate::policy::Policy;
use crate::time::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The streams of which more may be heard. A stream that passed with its head is none of them.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Requests {
    streams: HashMap<StreamId, Stream, TrustedKeyHasher>,
    counts: Counts,
}

#[cfg_attr(test, derive(Clone))]
enum Stream {
    /// Undecided.
    Parked(Box<Parked>),
    /// Forwarded, under this policy.
    Open(Arc<Policy>),
    /// Forwarded, under this policy, as a request without content.
    Empty(Arc<Policy>),
    /// Answered in the service's place.
    Answered,
}

/// An undecided request, with what it is counted for and what watches over it.
#[cfg_attr(test, derive(Clone))]
struct Parked {
    root: RootId,
    taken: Taken,
    deadline: Armed,
    measurement: Option<Armed>,
    request: Request,
}

impl Requests {
    pub(super) fn new(limits: Limits) -> Self {
        Self { streams: HashMap::default(), counts: Counts::new(limits) }
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn bodies_mut(&mut self) -> &mut Bodies {
        self.counts.bodies_mut()
    }

    /// The stream whose body has to give way so that there is room for this one.
    pub(super) fn gives_way(&self, claim: Claim, now: Timestamp) -> Option<StreamId> {
        let is_received = |stream: &StreamId| self.phase(*stream) == Phase::Receiving;
        // Whoever refuses one after the other until there is room must get on with each.
        self.counts.bodies().gives_way(claim, now).filter(is_received)
    }

    pub(super) fn phase(&self, stream: StreamId) -> Phase {
        match self.streams.get(&stream) {
            None => Phase::Unknown,
            Some(Stream::Open(_)) => Phase::Open,
            Some(Stream::Empty(_)) => Phase::Empty,
            Some(Stream::Answered) => Phase::Answered,
            Some(Stream::Parked(parked)) => match parked.taken.class {
                Class::New | Class::Known => Phase::Waiting,
                Class::Receiving | Class::Ending => Phase::Receiving,
            },
        }
    }

    /// The policy under which a stream began, whatever its root has now; `None` for one that is
    /// answered or not known.
    pub(super) fn policy(&self, stream: StreamId) -> Option<&Policy> {
        match self.streams.get(&stream)? {
            Stream::Parked(parked) => Some(&parked.request.context().policy),
            Stream::Open(policy) | Stream::Empty(policy) => Some(policy),
            Stream::Answered => None,
        }
    }

    /// Keeps a request until it is taken.
    pub(super) fn park(
        &mut self,
        stream: StreamId,
        root: RootId,
        request: Request,
        timers: &mut Timers,
        now: Timestamp,
    ) {
        let deadline = timers.set(root, request.deadline(now), Timer::Decision(stream));
        let measurement = request
            .awaits_callbacks()
            .then(|| timers.set(root, now.saturating_add(MEASURE_EVERY), Timer::Measurement(stream)));
        let taken = request.taken();
        self.counts.add(stream, taken);
        let parked = Parked { root, taken, deadline, measurement, request };
        self.streams.insert(stream, Stream::Parked(Box::new(parked)));
    }

    /// Takes an undecided request out, with its root. Nothing is counted for it any more.
    pub(super) fn take(&mut self, stream: StreamId, timers: &mut Timers) -> Option<(RootId, Request)> {
        if !matches!(self.streams.get(&stream), Some(Stream::Parked(_))) {
            return None;
        }
        let Some(Stream::Parked(parked)) = self.streams.remove(&stream) else { return None };
        self.release(stream, &parked, timers);
        Some((parked.root, parked.request))
    }

    /// A stream of which more may be heard was forwarded.
    pub(super) fn forwarded(&mut self, stream: StreamId, policy: Arc<Policy>) {
        self.streams.insert(stream, Stream::Open(policy));
    }

    /// A stream of which nothing but its end may be heard was forwarded.
    pub(super) fn forwarded_empty(&mut self, stream: StreamId, policy: Arc<Policy>) {
        self.streams.insert(stream, Stream::Empty(policy));
    }

    /// A stream of which more may be heard was answered.
    pub(super) fn answered(&mut self, stream: StreamId) {
        self.streams.insert(stream, Stream::Answered);
    }

    /// The clock was set back by so much: nothing that waits waits longer by that, however often it
    /// is parked anew.
    pub(super) fn set_back(&mut self, by: Duration) {
        for stream in self.streams.values_mut() {
            if let Stream::Parked(parked) = stream {
                parked.request.set_back(by);
            }
        }
    }

    /// A stream is gone.
    pub(super) fn remove(&mut self, stream: StreamId, timers: &mut Timers) {
        if let Some(Stream::Parked(parked)) = self.streams.remove(&stream) {
            self.release(stream, &parked, timers);
        }
    }

    /// Gives back what an undecided request has taken, and its timers.
    fn release(&mut self, stream: StreamId, parked: &Parked, timers: &mut Timers) {
        timers.clear(&parked.deadline);
        parked.measurement.iter().for_each(|armed| timers.clear(armed));
        self.counts.release(stream, parked.taken);
    }

    /// Whether no stream is known, and nothing is taken.
    #[cfg(feature = "fuzzing")]
    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.counts.is_empty()
    }

    /// The undecided streams of a root.
    pub(super) fn of_root(&self, root: RootId) -> Vec<StreamId> {
        let is_its = |stream: &Stream| matches!(stream, Stream::Parked(parked) if parked.root == root);
        self.streams.iter().filter(|(_, stream)| is_its(stream)).map(|(id, _)| *id).collect()
    }
}

/// How often a webhook whose body does not come is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(250);
