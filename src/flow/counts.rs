//! Every number that a limit is compared with: how many requests wait, and how much they keep.

use super::StreamId;
use super::bodies::{Bodies, Body, Claim};
use super::limits::Limits;
use crate::breaker::Purpose;
use crate::telemetry::WaitingLabel;

/// Whose limits a request is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Those that wait with a token which was not seen active lately.
    New,
    /// All others that wait for the provider.
    Known,
    /// Those whose body is received.
    Receiving,
    /// Preflights whose end is still to come.
    Ending,
}

/// What one undecided request takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) class: Class,
    /// Bytes that it keeps here, roughly.
    pub(super) parked_bytes: usize,
    /// Its body, if that is received.
    pub(super) body: Option<Body>,
}

/// How much is taken of each limit.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    waiting_new: Share,
    waiting_known: Share,
    receiving: Share,
    ending: Share,
    bodies: Bodies,
    limits: Limits,
}

/// What a class takes. No class can take from another.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    streams: usize,
    /// Bytes that they keep here.
    parked_bytes: usize,
}

impl Counts {
    pub(super) fn new(limits: Limits) -> Self {
        let (waiting_new, waiting_known, receiving, ending) = Default::default();
        Self { waiting_new, waiting_known, receiving, ending, bodies: Bodies::new(limits), limits }
    }

    /// Counts a request that waits.
    pub(super) fn add(&mut self, stream: StreamId, taken: Taken) {
        let share = self.of(taken.class);
        share.streams = share.streams.saturating_add(1);
        share.parked_bytes = share.parked_bytes.saturating_add(taken.parked_bytes);
        taken.body.into_iter().for_each(|body| self.bodies.add(stream, body));
    }

    /// Gives back what a request has taken.
    pub(super) fn release(&mut self, stream: StreamId, taken: Taken) {
        let share = self.of(taken.class);
        share.streams = share.streams.saturating_sub(1);
        share.parked_bytes = share.parked_bytes.saturating_sub(taken.parked_bytes);
        taken.body.into_iter().for_each(|body| self.bodies.release(stream, body));
    }

    /// Whether one request more may wait for the provider.
    pub(super) fn has_room(&self, purpose: Purpose) -> bool {
        let Limits { waiting_new, parked_new, waiting_known, parked_known, .. } = self.limits;
        match purpose {
            Purpose::NewToken => self.waiting_new.is_below(waiting_new, parked_new),
            Purpose::Refresh | Purpose::Permission => {
                self.waiting_known.is_below(waiting_known, parked_known)
            }
        }
    }

    /// Whether a body may be received, or held as far as it has come.
    pub(super) fn has_room_for_a_body(&self, claim: Claim) -> bool {
        self.receiving.is_below(self.limits.receiving, self.limits.parked_receiving)
            && self.bodies.has_room(claim)
    }

    /// Whether one preflight more may wait for its end.
    pub(super) fn has_room_for_a_preflight(&self) -> bool {
        self.ending.is_below(self.limits.ending, self.limits.parked_ending)
    }

    pub(super) fn bodies(&self) -> &Bodies {
        &self.bodies
    }

    pub(super) fn bodies_mut(&mut self) -> &mut Bodies {
        &mut self.bodies
    }

    /// How many streams are undecided, by what they are counted as.
    pub(super) fn waiting(&self) -> [(WaitingLabel, usize); 4] {
        let Self { waiting_new, waiting_known, receiving, ending, .. } = self;
        [
            (WaitingLabel::New, waiting_new.streams),
            (WaitingLabel::Known, waiting_known.streams),
            (WaitingLabel::Receiving, receiving.streams),
            (WaitingLabel::Ending, ending.streams),
        ]
    }

    /// How many streams are undecided.
    pub(super) fn undecided(&self) -> usize {
        self.waiting().iter().fold(0, |sum, (_, streams)| sum.saturating_add(*streams))
    }

    /// Whether nothing is taken of any limit.
    #[cfg(feature = "fuzzing")]
    pub(super) fn is_empty(&self) -> bool {
        let Self { waiting_new, waiting_known, receiving, ending, .. } = self;
        let all = [waiting_new, waiting_known, receiving, ending];
        all.iter().all(|share| share.streams == 0 && share.parked_bytes == 0) && self.bodies.is_empty()
    }

    fn of(&mut self, class: Class) -> &mut Share {
        match class {
            Class::New => &mut self.waiting_new,
            Class::Known => &mut self.waiting_known,
            Class::Receiving => &mut self.receiving,
            Class::Ending => &mut self.ending,
        }
    }
}

impl Share {
    fn is_below(self, streams: usize, parked_bytes: usize) -> bool {
        self.streams < streams && self.parked_bytes < parked_bytes
    }
}
