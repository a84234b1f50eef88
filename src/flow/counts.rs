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

impl Counts {
    pub(super) fn new(limits: Limits) -> Self {
        Self { waiting_new: 0, waiting_known: 0, receiving: 0, parked_bytes: 0, held_bytes: 0, limits }
    }

    /// Counts a request that waits.
    pub(super) fn add(&mut self, taken: Taken) {
        let count = self.of(taken.class);
        *count = count.saturating_add(1);
        self.parked_bytes = self.parked_bytes.saturating_add(taken.parked_bytes);
        self.held_bytes = self.held_bytes.saturating_add(taken.held_bytes);
    }

    /// Gives back what a request has taken.
    pub(super) fn release(&mut self, taken: Taken) {
        let count = self.of(taken.class);
        *count = count.saturating_sub(1);
        self.parked_bytes = self.parked_bytes.saturating_sub(taken.parked_bytes);
        self.held_bytes = self.held_bytes.saturating_sub(taken.held_bytes);
    }

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

    fn of(&mut self, class: Class) -> &mut usize {
        match class {
            Class::New => &mut self.waiting_new,
            Class::Known => &mut self.waiting_known,
            Class::Receiving => &mut self.receiving,
        }
    }
}
