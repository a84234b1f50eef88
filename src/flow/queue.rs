//! Questions that wait for a free callout: first in, first out, a line for each purpose.
//!
//! They wait here and not in Envoy, whose queue is one for all callers, and whose timeouts would
//! be taken for the provider's.

use super::{FlightId, RootId};
use crate::breaker::Purpose;
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
    /// Whether a question of this size may wait.
    pub(super) fn has_room(&self, purpose: Purpose, bytes: usize) -> bool {
        let most = room_of(purpose);
        let taken = self.taken.get(purpose.index()).copied().unwrap_or(most);
        taken.entries < most.entries && taken.bytes.saturating_add(bytes) <= most.bytes
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

/// How much of a purpose may wait: 4,096 questions and 8 MiB in all. What anybody can ask has half
/// of it, and no part of what only the bearers of known tokens can.
const fn room_of(purpose: Purpose) -> Room {
    match purpose {
        Purpose::NewToken => Room { entries: 2048, bytes: 4 * 1024 * 1024 },
        Purpose::Refresh | Purpose::Permission => Room { entries: 1024, bytes: 2 * 1024 * 1024 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: RootId = RootId(1);

    #[test]
    fn each_purpose_has_a_line_and_room_of_its_own() {
        let mut queue = Queue::default();
        let mut nth = 0;
        while queue.has_room(Purpose::NewToken, 100) {
            queue.push(FlightId(nth), ROOT, Purpose::NewToken, 100);
            nth += 1;
        }
        assert_eq!(nth, 2048);
        assert!(queue.has_room(Purpose::Refresh, 100) && queue.has_room(Purpose::Permission, 100));
        assert!(!queue.has_room(Purpose::Permission, 2 * 1024 * 1024 + 1));
        queue.push(FlightId(9999), ROOT, Purpose::Refresh, 1);
        assert_eq!(queue.line(ROOT, Purpose::Refresh).collect::<Vec<_>>(), [FlightId(9999)]);
        assert_eq!(queue.line(RootId(2), Purpose::NewToken).next(), None);
        queue.remove(FlightId(1), ROOT, Purpose::NewToken, 100);
        for expected in [0, 2, 3] {
            assert_eq!(queue.line(ROOT, Purpose::NewToken).next(), Some(FlightId(expected)));
            queue.remove(FlightId(expected), ROOT, Purpose::NewToken, 100);
        }
        assert!(
            queue.has_room(Purpose::NewToken, 400) && !queue.has_room(Purpose::NewToken, 5 * 1024 * 1024)
        );
        let mut all = Room::default();
        for purpose in [Purpose::NewToken, Purpose::Refresh, Purpose::Permission] {
            all.entries += room_of(purpose).entries;
            all.bytes += room_of(purpose).bytes;
        }
        assert_eq!(all, Room { entries: 4096, bytes: 8 * 1024 * 1024 });
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
