//! The table of streams, and every count and limit that they have.

use super::gate::Phase;
use super::limits::Limits;
use super::request::{Class, Request};
use super::timers::{Armed, Timer, Timers};
use super::{RootId, StreamId};
use crate::breaker::Purpose;
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
    /// Answered in the service's place.
    Answered,
}

/// An undecided request, with what it is counted for and what watches over it.
#[cfg_attr(test, derive(Clone))]
struct Parked {
    root: RootId,
    class: Class,
    memory_cost: usize,
    deadline: Armed,
    measurement: Option<Armed>,
    request: Request,
}

/// How much is taken of each limit.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    /// Streams that wait for the provider, with a token that was not seen active lately.
    waiting_new: usize,
    /// All others that wait for the provider.
    waiting_known: usize,
    /// Streams whose body is received.
    receiving: usize,
    /// Bytes that undecided streams keep here.
    parked_bytes: usize,
    /// Webhook bytes that the host holds for this worker.
    held_bytes: usize,
    limits: Limits,
}

impl Requests {
    pub(super) fn new(limits: Limits) -> Self {
        let counts =
            Counts { waiting_new: 0, waiting_known: 0, receiving: 0, parked_bytes: 0, held_bytes: 0, limits };
        Self { streams: HashMap::default(), counts }
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn phase(&self, stream: StreamId) -> Phase {
        match self.streams.get(&stream) {
            None => Phase::Unknown,
            Some(Stream::Open(_)) => Phase::Open,
            Some(Stream::Answered) => Phase::Answered,
            Some(Stream::Parked(parked)) => match parked.class {
                Class::New | Class::Known => Phase::Waiting,
                Class::Receiving => Phase::Receiving,
            },
        }
    }

    /// The policy under which a stream began, whatever its root has now; `None` for one that is
    /// answered or not known.
    pub(super) fn policy(&self, stream: StreamId) -> Option<&Policy> {
        match self.streams.get(&stream)? {
            Stream::Parked(parked) => Some(&parked.request.context().policy),
            Stream::Open(policy) => Some(policy),
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
        let class = request.class();
        let memory_cost = request.memory_cost();
        let deadline = timers.set(root, request.deadline(), Timer::Decision(stream));
        let measurement = request
            .awaits_callbacks()
            .then(|| timers.set(root, now.saturating_add(MEASURE_EVERY), Timer::Measurement(stream)));
        let count = self.counts.of(class);
        *count = count.saturating_add(1);
        self.counts.parked_bytes = self.counts.parked_bytes.saturating_add(memory_cost);
        self.counts.held_bytes = self.counts.held_bytes.saturating_add(request.held_bytes());
        let parked = Parked { root, class, memory_cost, deadline, measurement, request };
        self.streams.insert(stream, Stream::Parked(Box::new(parked)));
    }

    /// Takes an undecided request out, with its root. Nothing is counted for it any more.
    pub(super) fn take(&mut self, stream: StreamId, timers: &mut Timers) -> Option<(RootId, Request)> {
        if !matches!(self.streams.get(&stream), Some(Stream::Parked(_))) {
            return None;
        }
        let Some(Stream::Parked(parked)) = self.streams.remove(&stream) else { return None };
        self.counts.release(&parked, timers);
        Some((parked.root, parked.request))
    }

    /// A stream of which more may be heard was forwarded.
    pub(super) fn forwarded(&mut self, stream: StreamId, policy: Arc<Policy>) {
        self.streams.insert(stream, Stream::Open(policy));
    }

    /// A stream of which more may be heard was answered.
    pub(super) fn answered(&mut self, stream: StreamId) {
        self.streams.insert(stream, Stream::Answered);
    }

    /// A stream is gone.
    pub(super) fn remove(&mut self, stream: StreamId, timers: &mut Timers) {
        if let Some(Stream::Parked(parked)) = self.streams.remove(&stream) {
            self.counts.release(&parked, timers);
        }
    }

    /// The undecided streams of a root.
    pub(super) fn of_root(&self, root: RootId) -> Vec<StreamId> {
        let is_its = |stream: &Stream| matches!(stream, Stream::Parked(parked) if parked.root == root);
        self.streams.iter().filter(|(_, stream)| is_its(stream)).map(|(id, _)| *id).collect()
    }
}

impl Counts {
    /// Whether one request more may wait for the provider.
    pub(super) fn has_room(&self, purpose: Purpose) -> bool {
        let has_place = match purpose {
            Purpose::NewToken => self.waiting_new < self.limits.waiting_new,
            Purpose::Refresh | Purpose::Permission => self.waiting_known < self.limits.waiting_known,
        };
        has_place && self.parked_bytes < self.limits.parked_bytes
    }

    /// Whether one body more may be received.
    pub(super) fn has_room_for_a_body(&self) -> bool {
        self.receiving < self.limits.receiving && self.parked_bytes < self.limits.parked_bytes
    }

    /// Whether the host may hold so many bytes more.
    pub(super) fn has_room_for_bytes(&self, bytes: usize) -> bool {
        self.held_bytes.saturating_add(bytes) <= self.limits.held_bytes
    }

    /// How many streams are undecided.
    pub(super) fn undecided(&self) -> usize {
        self.waiting_new.saturating_add(self.waiting_known).saturating_add(self.receiving)
    }

    /// Gives back what an undecided request has taken.
    fn release(&mut self, parked: &Parked, timers: &mut Timers) {
        timers.clear(&parked.deadline);
        parked.measurement.iter().for_each(|armed| timers.clear(armed));
        let count = self.of(parked.class);
        *count = count.saturating_sub(1);
        self.parked_bytes = self.parked_bytes.saturating_sub(parked.memory_cost);
        self.held_bytes = self.held_bytes.saturating_sub(parked.request.held_bytes());
    }

    fn of(&mut self, class: Class) -> &mut usize {
        match class {
            Class::New => &mut self.waiting_new,
            Class::Known => &mut self.waiting_known,
            Class::Receiving => &mut self.receiving,
        }
    }
}

/// How often a webhook whose body does not come is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(250);
