//! Cached answers of the provider: a table per worker, and slots that all workers of a process
//! share.
//!
//! A fact is one cached answer. It has the time at which its callout was *started*, since the
//! provider answered no earlier than that. Reading a fact never extends it: each read checks its
//! age, by the lifetimes of the route that reads.

mod second_chance;
pub(crate) mod shared;

use crate::hash::FactKey;
use crate::time::Timestamp;
use second_chance::SecondChance;
use std::time::Duration;

/// How long one route uses facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// How old a positive answer may be; zero: none is read.
    pub ttl: Duration,
    /// How old a negative answer may be; zero: none is read.
    pub negative_ttl: Duration,
    /// How much older a positive answer may be while the provider is unavailable.
    pub stale_if_error: Duration,
}

/// Answers by key. A positive answer has a value, a negative one has none.
///
/// Each kind has its own quota, so that no flood of bad tokens can evict good ones.
#[derive(Clone, Debug)]
pub(crate) struct Cache<V> {
    yes: SecondChance<V>,
    no: SecondChance<()>,
}

/// A fact that is fresh enough.
#[derive(Debug)]
pub(crate) enum Lookup<'c, V> {
    /// A positive answer.
    Positive {
        /// The value.
        value: &'c mut V,
        /// When its callout was started.
        started: Timestamp,
        /// Whether it is so old that it should be refreshed in the background. True once, and again
        /// after a while.
        needs_refresh: bool,
    },
    /// A negative answer.
    Negative {
        /// When its callout was started.
        started: Timestamp,
    },
}

impl<V> Cache<V> {
    /// An empty cache for this many answers.
    pub(crate) fn new(max_entries: usize) -> Self {
        let mut cache = Self { yes: SecondChance::default(), no: SecondChance::default() };
        cache.resize(max_entries);
        cache
    }

    /// How many answers are stored.
    pub(crate) fn len(&self) -> usize {
        self.yes.len().saturating_add(self.no.len())
    }

    /// Changes the bound.
    pub(crate) fn resize(&mut self, max_entries: usize) {
        self.yes.resize(max_entries, max_entries.saturating_mul(BYTES_PER_ENTRY));
        self.no.resize(max_entries.div_ceil(4), usize::MAX);
    }

    /// Stores an answer: `Some((value, bytes))` if positive, with the size of its value, `None` if
    /// negative. `started`: when its callout was started.
    ///
    /// An answer never replaces one whose callout was started later. One from the future, stored
    /// before the clock went backwards, is removed: it could become valid again.
    pub(crate) fn insert(
        &mut self,
        key: FactKey,
        answer: Option<(V, usize)>,
        started: Timestamp,
        now: Timestamp,
    ) {
        // A host without a clock reports the latest time there is, and such an answer would never
        // age.
        if started == Timestamp::from_nanos(u64::MAX) {
            return;
        }
        self.yes.forget_if(key, |at| at > now);
        self.no.forget_if(key, |at| at > now);
        let newest = self.yes.started(key).max(self.no.started(key));
        // A negative answer removes every positive one that arrived before it, even one whose
        // callout was started later: the next request asks again.
        if answer.is_none() {
            self.yes.forget_if(key, |_| true);
        }
        if newest.is_some_and(|newest| newest > started) {
            return;
        }
        match answer {
            Some((value, bytes)) => {
                // Of two answers with the same start, the negative one applies.
                if self.no.started(key) != Some(started) {
                    self.no.forget_if(key, |_| true);
                    self.yes.insert(key, value, bytes, started);
                }
            }
            None => self.no.insert(key, (), 0, started),
        }
    }

    /// The cached answer, if there is one that this route may use.
    pub(crate) fn get(&mut self, key: FactKey, lifetime: &Lifetime, now: Timestamp) -> Option<Lookup<'_, V>> {
        let counts = |started: Timestamp, ttl: Duration| {
            !ttl.is_zero() && started <= now && now.saturating_since(started) <= ttl
        };
        let no = self.no.started(key).filter(|started| counts(*started, lifetime.negative_ttl));
        if let Some(started) = no {
            self.no.touch(key);
            return Some(Lookup::Negative { started });
        }
        let kept = self.yes.touch(key).filter(|kept| counts(kept.started, lifetime.ttl))?;
        let age = now.saturating_since(kept.started);
        let fifth = lifetime.ttl.checked_div(SOFT).unwrap_or_default();
        let needs_refresh = age >= lifetime.ttl.saturating_sub(fifth) && now >= kept.refresh_after;
        if needs_refresh {
            kept.refresh_after = now.saturating_add(fifth.checked_div(SOFT).unwrap_or_default());
        }
        Some(Lookup::Positive { started: kept.started, needs_refresh, value: &mut kept.value })
    }

    /// A positive answer that may be used while the provider is unavailable.
    pub(crate) fn stale(
        &mut self,
        key: FactKey,
        lifetime: &Lifetime,
        now: Timestamp,
    ) -> Option<(&mut V, Timestamp)> {
        let ttl = lifetime.ttl.saturating_add(lifetime.stale_if_error);
        let kept = self.yes.touch(key)?;
        let counts = !lifetime.stale_if_error.is_zero()
            && kept.started <= now
            && now.saturating_since(kept.started) <= ttl;
        counts.then_some((&mut kept.value, kept.started))
    }

    /// The last answer, however old: the value of a positive one, or an inner `None` for a negative
    /// one.
    pub(crate) fn last_known(&mut self, key: FactKey) -> Option<Option<&V>> {
        if self.no.started(key).is_some() {
            return Some(None);
        }
        self.yes.touch(key).map(|kept| Some(&kept.value))
    }

    /// Removes answers from the future: the clock has gone backwards, and they could become valid
    /// again.
    pub(crate) fn forget_after(&mut self, now: Timestamp) {
        self.yes.retain(|started| started <= now);
        self.no.retain(|started| started <= now);
    }

    /// When the callout of the cached answer was started, however long ago.
    pub(crate) fn known_since(&self, key: FactKey) -> Option<Timestamp> {
        self.yes.started(key).max(self.no.started(key))
    }
}

/// A fact that is read in the last fifth of its lifetime is refreshed.
const SOFT: u32 = 5;

/// Bytes of values that a cache may have per entry, on average.
const BYTES_PER_ENTRY: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Seed;

    const LIFETIME: Lifetime = Lifetime {
        ttl: Duration::from_secs(30),
        negative_ttl: Duration::from_secs(5),
        stale_if_error: Duration::from_secs(60),
    };

    fn key(n: u32) -> FactKey {
        FactKey::of(Seed([0; 16]), [&n.to_le_bytes()[..]])
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(1000 + secs)
    }

    /// What is read at this time: the value and whether a refresh is due, or a negative answer.
    fn read(cache: &mut Cache<u32>, n: u32, now: u64) -> Option<Option<(u32, bool)>> {
        cache.get(key(n), &LIFETIME, at(now)).map(|memory| match memory {
            Lookup::Positive { value, needs_refresh, .. } => Some((*value, needs_refresh)),
            Lookup::Negative { .. } => None,
        })
    }

    #[test]
    fn a_fact_counts_for_its_lifetime_from_its_start_and_no_reading_extends_it() {
        let mut cache = Cache::new(10);
        cache.insert(key(1), Some((7, 1)), at(0), at(1));
        cache.insert(key(2), None, at(0), at(1));
        for now in 0..24 {
            assert_eq!(read(&mut cache, 1, now), Some(Some((7, false))));
            assert_eq!(read(&mut cache, 2, now), (now <= 5).then_some(None), "{now}");
        }
        assert_eq!(read(&mut cache, 1, 30), Some(Some((7, true))));
        assert_eq!(read(&mut cache, 1, 31), None);
        assert_eq!(read(&mut cache, 3, 0), None);
        let off = Lifetime { ttl: Duration::ZERO, negative_ttl: Duration::ZERO, ..LIFETIME };
        assert!(cache.get(key(1), &off, at(0)).is_none());
        assert!(cache.get(key(2), &off, at(0)).is_none());
    }

    #[test]
    fn a_fact_is_due_in_its_last_fifth_and_said_so_once_in_a_while() {
        let mut cache = Cache::new(10);
        cache.insert(key(1), Some((7, 1)), at(0), at(0));
        let due: Vec<bool> = (22..30)
            .filter_map(|now| read(&mut cache, 1, now).flatten().map(|(_, needs_refresh)| needs_refresh))
            .collect();
        assert_eq!(due, [false, false, true, false, true, false, true, false]);
    }

    #[test]
    fn the_answer_that_was_asked_for_later_counts() {
        let mut cache = Cache::new(10);
        cache.insert(key(1), None, at(5), at(6));
        cache.insert(key(1), Some((1, 1)), at(4), at(7));
        cache.insert(key(1), Some((1, 1)), at(5), at(7));
        assert_eq!(read(&mut cache, 1, 7), Some(None), "a yes that was asked for before the no");
        cache.insert(key(1), Some((2, 1)), at(6), at(7));
        assert_eq!(read(&mut cache, 1, 7), Some(Some((2, false))));
        cache.insert(key(1), None, at(6), at(8));
        assert_eq!(read(&mut cache, 1, 8), Some(None));
        assert!(cache.stale(key(1), &LIFETIME, at(8)).is_none(), "a no deletes what could be stale");
        cache.insert(key(1), Some((3, 1)), at(9), at(9));
        cache.insert(key(1), None, at(7), at(10));
        assert!(cache.stale(key(1), &LIFETIME, at(10)).is_none(), "also one that was asked for later");
    }

    #[test]
    fn what_was_learnt_before_the_clock_went_backwards_does_not_come_back() {
        let mut cache = Cache::new(10);
        cache.insert(key(1), Some((1, 1)), at(100), at(100));
        assert_eq!(read(&mut cache, 1, 50), None, "from the future");
        cache.insert(key(1), None, at(50), at(50));
        assert_eq!(read(&mut cache, 1, 51), Some(None));
        assert_eq!(read(&mut cache, 1, 100), None);
        for (n, secs) in [(2, 200), (3, 50)] {
            cache.insert(key(n), Some((n, 1)), at(secs), at(secs));
        }
        cache.forget_after(at(60));
        assert_eq!(read(&mut cache, 2, 200), None);
        assert_eq!(read(&mut cache, 3, 60), Some(Some((3, false))));
        cache.insert(key(4), Some((4, 1)), Timestamp::from_nanos(u64::MAX), Timestamp::from_nanos(u64::MAX));
        assert!(cache.known_since(key(4)).is_none(), "a host without a clock");
    }

    #[test]
    fn a_stale_yes_counts_for_its_time_only() {
        let mut cache = Cache::new(10);
        cache.insert(key(1), Some((1, 1)), at(0), at(0));
        assert!(cache.stale(key(1), &LIFETIME, at(90)).is_some());
        assert!(cache.stale(key(1), &LIFETIME, at(91)).is_none());
        let strict = Lifetime { stale_if_error: Duration::ZERO, ..LIFETIME };
        assert!(cache.stale(key(1), &strict, at(1)).is_none());
    }

    #[test]
    fn no_flood_of_either_kind_pushes_the_other_out() {
        let mut cache = Cache::new(100);
        cache.insert(key(0), Some((1, 1)), at(0), at(0));
        for n in 1..10_000 {
            cache.insert(key(n), None, at(0), at(0));
        }
        assert_eq!(read(&mut cache, 0, 1), Some(Some((1, false))));
        cache.insert(key(20_000), None, at(0), at(0));
        for n in 1..10_000 {
            cache.insert(key(n), Some((n, 1)), at(1), at(1));
        }
        assert_eq!(read(&mut cache, 20_000, 1), Some(None));
    }
}
