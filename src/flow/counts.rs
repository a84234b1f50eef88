//! Every number that a limit is compared with: how many requests wait, and how much they keep.

use super::limits::Limits;
use crate::breaker::Purpose;

/// Whose limits a request is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Those that wait with a token which was not seen active lately.
    New,
    /// All others that wait for the provider.
    Known,
    /// Those whose body is received.
    Receiving,
}

/// What one undecided request takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) class: Class,
    /// Bytes that it keeps here, roughly.
    pub(super) parked_bytes: usize,
    /// Bytes of its body that the host holds.
    pub(super) held_bytes: usize,
}

/// How much is taken of each limit.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    waiting_new: Share,
    waiting_known: Share,
    receiving: Share,
    /// Webhook bytes that the host holds for this worker.
    held_bytes: usize,
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
        let (waiting_new, waiting_known, receiving) = Default::default();
        Self { waiting_new, waiting_known, receiving, held_bytes: 0, limits }
    }

    /// Counts a request that waits.
    pub(super) fn add(&mut self, taken: Taken) {
        let share = self.of(taken.class);
        share.streams = share.streams.saturating_add(1);
        share.parked_bytes = share.parked_bytes.saturating_add(taken.parked_bytes);
        self.held_bytes = self.held_bytes.saturating_add(taken.held_bytes);
    }

    /// Gives back what a request has taken.
    pub(super) fn release(&mut self, taken: Taken) {
        let share = self.of(taken.class);
        share.streams = share.streams.saturating_sub(1);
        share.parked_bytes = share.parked_bytes.saturating_sub(taken.parked_bytes);
        self.held_bytes = self.held_bytes.saturating_sub(taken.held_bytes);
    }

    /// Whether one request more may wait for the provider.
    pub(super) fn has_room(&self, purpose: Purpose) -> bool {
        let Limits { waiting_new, parked_new, waiting_known, parked_known, .. } = self.limits;
        match purpose {
            Purpose::NewToken => self.waiting_new.is_below(waiting_new, parked_new),
            Purpose::Refresh | Purpose::Permission => self.waiting_known.is_below(waiting_known, parked_known),
        }
    }

    /// Whether one body more may be received.
    pub(super) fn has_room_for_a_body(&self) -> bool {
        self.receiving.is_below(self.limits.receiving, self.limits.parked_receiving)
    }

    /// Whether the host may hold so many bytes more.
    pub(super) fn has_room_for_bytes(&self, bytes: usize) -> bool {
        self.held_bytes.saturating_add(bytes) <= self.limits.held_bytes
    }

    /// How many streams are undecided.
    pub(super) fn undecided(&self) -> usize {
        let Self { waiting_new, waiting_known, receiving, .. } = self;
        waiting_new.streams.saturating_add(waiting_known.streams).saturating_add(receiving.streams)
    }

    fn of(&mut self, class: Class) -> &mut Share {
        match class {
            Class::New => &mut self.waiting_new,
            Class::Known => &mut self.waiting_known,
            Class::Receiving => &mut self.receiving,
        }
    }
}

impl Share {
    fn is_below(self, streams: usize, parked_bytes: usize) -> bool {
        self.streams < streams && self.parked_bytes < parked_bytes
    }
}
