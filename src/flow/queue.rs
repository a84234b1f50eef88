//! Questions that wait for a free callout: first in, first out, a line for each purpose. Only those
//! whose subject has its part of the callouts already stand aside.
//!
//! They wait here and not in Envoy, whose queue is one for all callers, and whose timeouts would
//! be taken for the provider's.

use super::{FlightId, RootId};
use crate::breaker::Purpose;
use crate::http::Callout;
use std::collections::VecDeque;

/// The lines of one worker.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Queue {
    /// None of them is empty. A list, since there are few roots.
    lines: Vec<Line>,
    /// By purpose, of all roots.
    taken: [Room; 3],
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Line {
    of: (RootId, Purpose),
    flights: VecDeque<FlightId>,
}

/// How much waits, or may wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

impl Queue {
    /// Whether a question of this size may wait: in what its purpose has of its own, or in what is
    /// left of that for all.
    pub(super) fn has_room(&self, purpose: Purpose, bytes: usize) -> bool {
        let wanted = |nth: usize| match nth == purpose.index() {
            true => Room { entries: 1, bytes },
            false => Room::default(),
        };
        let mut common = Room::default();
        for (nth, taken) in self.taken.iter().enumerate() {
            let wanted = wanted(nth);
            let entries = taken.entries.saturating_add(wanted.entries);
            let bytes = taken.bytes.saturating_add(wanted.bytes);
            common.entries = common.entries.saturating_add(entries.saturating_sub(OWN.entries));
            common.bytes = common.bytes.saturating_add(bytes.saturating_sub(OWN.bytes));
        }
        common.entries <= COMMON.entries && common.bytes <= COMMON.bytes
    }

    /// Adds one at the end of its line.
    pub(super) fn push(&mut self, flight: FlightId, root: RootId, purpose: Purpose, bytes: usize) {
        match self.lines.iter_mut().find(|line| line.of == (root, purpose)) {
            Some(line) => line.flights.push_back(flight),
            None => self.lines.push(Line { of: (root, purpose), flights: VecDeque::from([flight]) }),
        }
        if let Some(taken) = self.taken.get_mut(purpose.index()) {
            taken.entries = taken.entries.saturating_add(1);
            taken.bytes = taken.bytes.saturating_add(bytes);
        }
    }

    /// A line, in order. Each stays in line until [`Self::remove`].
    pub(super) fn line(&self, root: RootId, purpose: Purpose) -> impl Iterator<Item = FlightId> {
        let line = self.lines.iter().find(|line| line.of == (root, purpose));
        line.into_iter().flat_map(|line| &line.flights).copied()
    }

    /// Whether nobody waits, and no room is taken.
    #[cfg(feature = "fuzzing")]
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.taken == [Room::default(); 3]
    }

    /// Takes one out of its line.
    pub(super) fn remove(&mut self, flight: FlightId, root: RootId, purpose: Purpose, bytes: usize) {
        let Some(line) = self.lines.iter_mut().find(|line| line.of == (root, purpose)) else { return };
        if line.flights.front() == Some(&flight) {
            line.flights.pop_front();
        } else {
            line.flights.retain(|waiting| *waiting != flight);
        }
        self.lines.retain(|line| !line.flights.is_empty());
        if let Some(taken) = self.taken.get_mut(purpose.index()) {
            taken.entries = taken.entries.saturating_sub(1);
            taken.bytes = taken.bytes.saturating_sub(bytes);
        }
    }
}

/// What each purpose has of its own, whatever waits for the others.
const OWN: Room = Room { entries: 512, bytes: 1024 * 1024 };
/// What all share beyond that: 4,096 questions and 8 MiB in all. When everybody comes back at once,
/// it is all new tokens' for a while.
const COMMON: Room = Room { entries: 2560, bytes: 5 * 1024 * 1024 };

/// The approximate size of a callout that waits, in bytes.
pub(super) fn memory_cost(callout: &Callout) -> usize {
    let headers = callout.headers.iter().map(|(name, value)| name.len().saturating_add(value.len()));
    headers.fold(PER_CALLOUT.saturating_add(callout.body.len()), usize::saturating_add)
}

/// Approximate bytes of a callout without its headers and body.
const PER_CALLOUT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: RootId = RootId(1);

    /// A queue in which as many questions of a purpose wait as may.
    fn full_of(purpose: Purpose, bytes: usize) -> (Queue, usize) {
        let mut queue = Queue::default();
        let mut nth = 0;
        while queue.has_room(purpose, bytes) {
            queue.push(FlightId(nth), ROOT, purpose, bytes);
            nth += 1;
        }
        (queue, usize::try_from(nth).unwrap())
    }

    #[test]
    fn five_thousand_users_come_back_to_two_workers_at_once() {
        let (_, waiting) = full_of(Purpose::NewToken, 1000);
        assert_eq!(waiting, 3072);
        assert!(waiting > 2500, "half of them, and what the kernel gives one worker more");
    }

    #[test]
    fn nothing_that_waits_takes_the_room_of_another_purpose() {
        let all = [Purpose::NewToken, Purpose::Refresh, Purpose::Permission];
        for (purpose, bytes) in all.into_iter().flat_map(|purpose| [(purpose, 100), (purpose, 20_000)]) {
            let (mut queue, count) = full_of(purpose, bytes);
            assert!(count.saturating_mul(bytes) <= 6 * 1024 * 1024);
            let mut nth = 10_000;
            for other in all.into_iter().filter(|other| *other != purpose) {
                let own = std::iter::from_fn(|| {
                    nth += 1;
                    let has_room = queue.has_room(other, 2048);
                    has_room.then(|| queue.push(FlightId(nth), ROOT, other, 2048))
                });
                assert!(own.count() >= 512, "{other:?} beside {purpose:?}");
            }
            let total = |count: fn(&Room) -> usize| queue.taken.iter().map(count).sum::<usize>();
            assert!(total(|room| room.entries) <= 4096 && total(|room| room.bytes) <= 8 * 1024 * 1024);
        }
    }

    #[test]
    fn each_purpose_has_a_line() {
        let mut queue = Queue::default();
        for nth in 0..3 {
            queue.push(FlightId(nth), ROOT, Purpose::NewToken, 100);
        }
        queue.push(FlightId(9999), ROOT, Purpose::Refresh, 1);
        assert_eq!(queue.line(ROOT, Purpose::Refresh).next(), Some(FlightId(9999)));
        assert_eq!(queue.line(RootId(2), Purpose::NewToken).next(), None);
        queue.remove(FlightId(1), ROOT, Purpose::NewToken, 100);
        for expected in [0, 2] {
            assert_eq!(queue.line(ROOT, Purpose::NewToken).next(), Some(FlightId(expected)));
            queue.remove(FlightId(expected), ROOT, Purpose::NewToken, 100);
        }
        assert_eq!(queue.line(ROOT, Purpose::NewToken).next(), None);
    }

    #[test]
    fn what_has_left_is_not_counted() {
        let mut queue = Queue::default();
        for nth in 0..10_000 {
            queue.push(FlightId(nth), ROOT, Purpose::Permission, 50);
            queue.remove(FlightId(nth), ROOT, Purpose::Permission, 50);
        }
        assert_eq!(queue.taken, [Room::default(); 3]);
        assert!(queue.lines.is_empty());
    }
}
