//! Deadlines: the one owner of every point in time at which something is to happen.

use super::{FlightId, RootId, StreamId};
use crate::hash::Fingerprint;
use crate::time::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A flight is given up.
    Flight(FlightId),
    /// A stream is decided, whatever it waits for.
    Decision(StreamId),
    /// A stream whose body does not come is measured.
    Measurement(StreamId),
    /// This worker looks whose facts are over.
    Evictions,
    /// What was measured is written.
    Metrics,
    /// An endpoint is probed, or what its probes have shown is judged.
    Health(Fingerprint),
}

/// A timer that is set. Whoever holds this takes the timer back when it is no longer needed.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
#[must_use]
pub(super) struct Armed(Entry);

/// With the time of a clock that is never set back.
type Entry = (RootId, Timestamp, Timer);

/// All timers, in the order in which each root's are due.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Timers {
    due: BTreeSet<Entry>,
    /// What the clock said last.
    latest: Option<Timestamp>,
    /// By how much it was set back in all.
    set_back: Duration,
}

impl Timers {
    /// Reads the clock, and returns by how much it was set back. No timer waits longer by that.
    pub(super) fn observe(&mut self, now: Timestamp) -> Duration {
        // That is a host without a clock.
        if now == Timestamp::from_nanos(u64::MAX) {
            return Duration::ZERO;
        }
        let latest = self.latest.replace(now).unwrap_or(now);
        let by = latest.saturating_since(now);
        self.set_back = self.set_back.saturating_add(by);
        by
    }

    /// Sets a timer.
    pub(super) fn set(&mut self, root: RootId, at: Timestamp, timer: Timer) -> Armed {
        let entry = (root, at.saturating_add(self.set_back), timer);
        self.due.insert(entry);
        Armed(entry)
    }

    /// Takes a timer back. One that has fired is gone already.
    pub(super) fn clear(&mut self, armed: &Armed) {
        self.due.remove(&armed.0);
    }

    /// When the next timer of a root is due.
    pub(super) fn next(&self, root: RootId) -> Option<Timestamp> {
        self.first(root).map(|(_, at, _)| at.saturating_sub(self.set_back))
    }

    /// The next timer of a root that is due by now; it is gone with that.
    pub(super) fn pop(&mut self, root: RootId, now: Timestamp) -> Option<Timer> {
        let now = now.saturating_add(self.set_back);
        let first = self.first(root).filter(|(_, at, _)| *at <= now)?;
        self.due.remove(&first);
        Some(first.2)
    }

    /// Whether nothing is to happen.
    #[cfg(feature = "fuzzing")]
    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    fn first(&self, root: RootId) -> Option<Entry> {
        let lowest = (root, Timestamp::from_nanos(0), Timer::Flight(FlightId(0)));
        self.due.range(lowest..).next().filter(|(of, ..)| *of == root).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_root_has_its_own_timers_in_the_order_in_which_they_are_due() {
        let at = Timestamp::from_secs;
        let mut timers = Timers::default();
        let late = timers.set(RootId(1), at(9), Timer::Decision(StreamId(7)));
        let _ = timers.set(RootId(1), at(5), Timer::Measurement(StreamId(7)));
        let _ = timers.set(RootId(2), at(1), Timer::Flight(FlightId(3)));
        assert_eq!((timers.next(RootId(1)), timers.next(RootId(3))), (Some(at(5)), None));
        assert_eq!(timers.pop(RootId(1), at(4)), None);
        assert_eq!(timers.pop(RootId(1), at(9)), Some(Timer::Measurement(StreamId(7))));
        timers.clear(&late);
        timers.clear(&late);
        assert_eq!(timers.pop(RootId(1), at(9)), None);
        assert_eq!(timers.pop(RootId(2), at(9)), Some(Timer::Flight(FlightId(3))));
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_timer_wait_longer() {
        let at = Timestamp::from_secs;
        let mut timers = Timers::default();
        timers.observe(at(100));
        let _ = timers.set(ROOT, at(105), Timer::Decision(StreamId(1)));
        let cleared = timers.set(ROOT, at(106), Timer::Decision(StreamId(2)));
        timers.observe(at(10));
        assert_eq!(timers.next(ROOT), Some(at(15)));
        let _ = timers.set(ROOT, at(14), Timer::Decision(StreamId(3)));
        timers.clear(&cleared);
        timers.observe(at(u64::MAX));
        for (now, expected) in [(13, None), (14, Some(StreamId(3))), (15, Some(StreamId(1))), (99, None)] {
            timers.observe(at(now));
            assert_eq!(timers.pop(ROOT, at(now)), expected.map(Timer::Decision), "{now}");
        }
    }

    const ROOT: RootId = RootId(1);
}
