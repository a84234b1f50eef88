//! What the provider has said, kept for a while: a table per worker, and slots that all workers of
//! a process share.
//!
//! A fact keeps the time at which its callout was *started*, since that is what the provider's
//! knowledge is not older than. Nothing that reads a fact extends it: whether it still counts is
//! judged at each reading, by the lifetimes of the route that reads.

mod second_chance;
pub(crate) mod shared;

use crate::hash::FactKey;
use crate::time::Timestamp;
use second_chance::SecondChance;
use std::time::Duration;

/// How long facts count, as one route has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// How old a yes may be; zero: none is read.
    pub ttl: Duration,
    /// How old a no may be; zero: none is read.
    pub negative_ttl: Duration,
    /// How much older a yes may be while the provider is away.
    pub stale_if_error: Duration,
}

/// Answers by key. A yes carries a value, a no carries none.
///
/// The two have quotas of their own, so that no flood of bad tokens can push good ones out.
#[derive(Clone, Debug)]
pub(crate) struct Cache<V> {
    yes: SecondChance<V>,
    no: SecondChance<()>,
}

/// A fact that counts.
#[derive(Debug)]
pub(crate) enum Lookup<'c, V> {
    /// Yes, with its value.
    Positive {
        /// The value.
        value: &'c mut V,
        /// When its callout was started.
        started: Timestamp,
        /// Whether it is so old that it should be asked for again, in the background. Said once,
        /// and again after a while.
        needs_refresh: bool,
    },
    /// No.
    Negative,
}

impl<V> Cache<V> {
    /// An empty cache for so many answers.
    pub(crate) fn new(max_entries: usize) -> Self {
        let mut cache = Self { yes: SecondChance::default(), no: SecondChance::default() };
        cache.resize(max_entries);
        cache
    }

    /// Takes another bound.
    pub(crate) fn resize(&mut self, max_entries: usize) {
        self.yes.resize(max_entries, max_entries.saturating_mul(BYTES_PER_ENTRY));
        self.no.resize(max_entries.div_ceil(4), usize::MAX);
    }

    /// Takes an answer in: `Some(value, bytes)` for a yes with what its value costs, `None` for a
    /// no. `started`: when its callout was.
    ///
    /// An answer never replaces one that was asked for later. One from the future, seen before the
    /// clock went backwards, is forgotten: it could come to life again.
    pub(crate) fn insert(
        &mut self,
        key: FactKey,
        answer: Option<(V, usize)>,
        started: Timestamp,
        now: Timestamp,
    ) {
        // A host without a clock says the end of time, from which nothing would ever age.
        if started == Timestamp::from_nanos(u64::MAX) {
            return;
        }
        self.yes.forget_if(key, |at| at > now);
        self.no.forget_if(key, |at| at > now);
        let newest = self.yes.started(key).max(self.no.started(key));
        // A no is never outlived by what was known before it came, although that may have been
        // asked for later: it is asked again.
        if answer.is_none() {
            self.yes.forget_if(key, |_| true);
        }
        if newest.is_some_and(|newest| newest > started) {
            return;
        }
        match answer {
            Some((value, bytes)) => {
                // Of two answers of one instant the no counts.
                if self.no.started(key) != Some(started) {
                    self.no.forget_if(key, |_| true);
                    self.yes.insert(key, value, bytes, started);
                }
            }
            None => self.no.insert(key, (), 0, started),
        }
    }

    /// The answer to a question, if one is kept that this route may read.
    pub(crate) fn get(&mut self, key: FactKey, lifetime: &Lifetime, now: Timestamp) -> Option<Lookup<'_, V>> {
        let counts = |started: Timestamp, ttl: Duration| {
            !ttl.is_zero() && started <= now && now.saturating_since(started) <= ttl
        };
        if self.no.started(key).is_some_and(|started| counts(started, lifetime.negative_ttl)) {
            self.no.touch(key);
            return Some(Lookup::Negative);
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

    /// A yes that counts while the provider is away.
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

    /// What was heard last, however old: the value of a yes, or a no.
    pub(crate) fn last_known(&mut self, key: FactKey) -> Option<Option<&V>> {
        if self.no.started(key).is_some() {
            return Some(None);
        }
        self.yes.touch(key).map(|kept| Some(&kept.value))
    }

    /// Forgets what is from the future: the clock has gone backwards, and it would come to life
    /// again.
    pub(crate) fn forget_after(&mut self, now: Timestamp) {
        self.yes.retain(|started| started <= now);
        self.no.retain(|started| started <= now);
    }

    /// When the callout was started that brought what is kept, however old.
    pub(crate) fn known_since(&self, key: FactKey) -> Option<Timestamp> {
        self.yes.started(key).max(self.no.started(key))
    }
}

/// A fifth of its lifetime before its end, a fact that is read is asked for again.
const SOFT: u32 = 5;

/// Bytes of values for each entry that a cache may hold, on average.
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

    /// What is read at this time: the value and whether it is due, or a no.
    fn read(cache: &mut Cache<u32>, n: u32, now: u64) -> Option<Option<(u32, bool)>> {
        cache.get(key(n), &LIFETIME, at(now)).map(|memory| match memory {
            Lookup::Positive { value, needs_refresh, .. } => Some((*value, needs_refresh)),
            Lookup::Negative => None,
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
