//! Token buckets for calls, so that one kind of call cannot use up what another needs.

use crate::breaker::{Purpose, is_ahead};
use crate::hash::{FactKey, TrustedKeyHasher};
use crate::time::Timestamp;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// A token bucket's size and flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Calls a second in the long run, at least one.
    pub per_second: u32,
    /// Calls at once, at least one.
    pub burst: u32,
}

/// What a worker may spend; `None`: without a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RateLimits {
    /// On tokens that were not seen active lately.
    pub new_tokens: Option<Rate>,
    /// On tokens that were.
    pub refreshes: Option<Rate>,
    /// On permission checks.
    pub permissions: Option<Rate>,
    /// On permission checks for one subject.
    pub per_subject: Option<Rate>,
}

/// What a worker has left.
#[derive(Clone, Debug, Default)]
pub(crate) struct RateLimiter {
    new_tokens: Bucket,
    refreshes: Bucket,
    permissions: Bucket,
    subjects: HashMap<FactKey, Bucket, TrustedKeyHasher>,
    /// Before which it is not worth looking for full buckets.
    next_sweep: Option<Timestamp>,
}

/// Whose budget is used up, and for how much longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OverBudget {
    /// The subject's own.
    Own(Duration),
    /// One that it shares with others.
    Shared(Duration),
}

/// A token bucket; a new one is full.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// When it is full again: the bucket as one number (GCRA). `None`: it was never drawn from.
    full_at: Option<Timestamp>,
}

impl RateLimiter {
    /// Takes one call out of its purpose's budget, and where `subject` is one, out of that
    /// subject's.
    ///
    /// # Errors
    /// Whose budget is used up, and how long it takes until there is a call in it.
    pub(crate) fn take(
        &mut self,
        rates: &RateLimits,
        purpose: Purpose,
        subject: Option<FactKey>,
        now: Timestamp,
    ) -> Result<(), OverBudget> {
        // The subject's first: who is over it must not use up what all share.
        if let (Some(rate), Some(subject)) = (rates.per_subject, subject)
            && self.has_bucket(subject, rate, now)
        {
            self.subjects.entry(subject).or_default().take(rate, now).map_err(OverBudget::Own)?;
        }
        let (bucket, rate) = match purpose {
            Purpose::NewToken => (&mut self.new_tokens, rates.new_tokens),
            Purpose::Refresh => (&mut self.refreshes, rates.refreshes),
            Purpose::Permission => (&mut self.permissions, rates.permissions),
        };
        rate.map_or(Ok(()), |rate| bucket.take(rate, now).map_err(OverBudget::Shared))
    }

    /// Whether a subject has a bucket, or gets one. Where too many have one that is not full, the
    /// next subject goes without: to refuse it would be to let them lock it out.
    fn has_bucket(&mut self, subject: FactKey, rate: Rate, now: Timestamp) -> bool {
        if self.subjects.len() < MAX_SUBJECTS || self.subjects.contains_key(&subject) {
            return true;
        }
        // At most once in the time that refills a call, before which hardly any is full.
        if self.next_sweep.is_none_or(|at| !is_ahead(at, now, rate.interval())) {
            self.next_sweep = Some(now.saturating_add(rate.interval()));
            self.subjects.retain(|_, bucket| !bucket.is_full(rate, now));
        }
        self.subjects.len() < MAX_SUBJECTS
    }
}

impl Rate {
    /// The time that refills one call.
    fn interval(self) -> Duration {
        Duration::from_secs(1).checked_div(self.per_second).unwrap_or(Duration::from_secs(1))
    }

    /// The time that refills all.
    fn whole(self) -> Duration {
        self.interval().saturating_mul(self.burst)
    }
}

impl Bucket {
    fn take(&mut self, rate: Rate, now: Timestamp) -> Result<(), Duration> {
        // After the clock went backwards no more than a whole bucket is to be waited for.
        self.full_at = self.full_at.map(|at| at.min(now.saturating_add(rate.whole())));
        let debt = self.full_at.map_or(Duration::ZERO, |at| at.saturating_since(now));
        let after = debt.saturating_add(rate.interval());
        if after > rate.whole() {
            return Err(after.saturating_sub(rate.whole()));
        }
        self.full_at = Some(now.saturating_add(after));
        Ok(())
    }

    fn is_full(&self, rate: Rate, now: Timestamp) -> bool {
        self.full_at.is_none_or(|at| at <= now || at.saturating_since(now) > rate.whole())
    }
}

/// Buckets of subjects that are not full, at most.
const MAX_SUBJECTS: usize = 10_000;

/// Keys that were seen positive lately: two generations, of which the older goes when the younger
/// is full. Halves of them, since a wrong yes costs no more than a call out of the wrong budget.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecentTokens {
    young: HashSet<u64, TrustedKeyHasher>,
    old: HashSet<u64, TrustedKeyHasher>,
}

impl RecentTokens {
    /// Notes a key.
    pub(crate) fn note(&mut self, key: FactKey) {
        let key = key.half();
        if self.young.len() >= MAX_SEEN && !self.young.contains(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key);
    }

    /// Forgets a key.
    pub(crate) fn forget(&mut self, key: FactKey) {
        let key = key.half();
        self.young.remove(&key);
        self.old.remove(&key);
    }

    /// Whether a key was noted lately.
    pub(crate) fn knows(&self, key: FactKey) -> bool {
        let key = key.half();
        self.young.contains(&key) || self.old.contains(&key)
    }
}

/// Keys of one generation.
const MAX_SEEN: usize = 50_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Seed;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(1_000_000_000_000 + millis * 1_000_000)
    }

    fn key(n: u32) -> FactKey {
        FactKey::of(Seed([0; 16]), [&n.to_le_bytes()[..]])
    }

    const RATES: RateLimits = RateLimits {
        new_tokens: Some(Rate { per_second: 10, burst: 3 }),
        refreshes: None,
        permissions: Some(Rate { per_second: 100, burst: 100 }),
        per_subject: Some(Rate { per_second: 1, burst: 2 }),
    };

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut budgets = RateLimiter::default();
        let mut take = |now| budgets.take(&RATES, Purpose::NewToken, None, at(now));
        assert_eq!([take(0), take(0), take(0)], [Ok(()); 3]);
        let left = |millis| Err(OverBudget::Shared(Duration::from_millis(millis)));
        assert_eq!(take(0), left(100));
        assert_eq!(take(40), left(60));
        assert_eq!(take(100), Ok(()));
        assert_eq!(take(100), left(100));
        assert_eq!([take(9000), take(9000), take(9000)], [Ok(()); 3]);
        assert!(take(9000).is_err());
        assert!(take(0).is_err(), "the clock went backwards: not more than a bucket's wait");
        assert_eq!(take(300), Ok(()));
    }

    #[test]
    fn purposes_do_not_share_and_one_without_a_rate_has_no_bound() {
        let mut budgets = RateLimiter::default();
        while budgets.take(&RATES, Purpose::NewToken, None, at(0)).is_ok() {}
        for _ in 0..1000 {
            assert_eq!(budgets.take(&RATES, Purpose::Refresh, None, at(0)), Ok(()));
        }
        assert_eq!(budgets.take(&RATES, Purpose::Permission, None, at(0)), Ok(()));
    }

    #[test]
    fn a_subject_over_its_share_takes_nothing_from_others() {
        let mut budgets = RateLimiter::default();
        let mut take = |subject| budgets.take(&RATES, Purpose::Permission, Some(key(subject)), at(0)).is_ok();
        let greedy = (0..1000).filter(|_| take(1)).count();
        assert_eq!(greedy, 2);
        let others = (2..1000).filter(|subject| take(*subject)).count();
        assert_eq!(others, 98);
    }

    #[test]
    fn subjects_are_bounded_and_full_buckets_make_room() {
        let rates = RateLimits { permissions: None, ..RATES };
        let mut budgets = RateLimiter::default();
        let mut take = |subject, now| budgets.take(&rates, Purpose::Permission, Some(key(subject)), at(now));
        for subject in 0..10_000 {
            assert_eq!(take(subject, 0), Ok(()));
        }
        for _ in 0..9 {
            assert_eq!(take(10_000, 0), Ok(()), "it has no bucket, and is not locked out");
        }
        assert!((0..4).any(|_| take(9999, 0) == Err(OverBudget::Own(Duration::from_secs(1)))));
        assert_eq!(take(10_000, 3000), Ok(()));
        assert_eq!(budgets.subjects.len(), 1, "full buckets made room");
    }

    #[test]
    fn what_was_seen_is_known_for_a_generation_at_least() {
        let mut seen = RecentTokens::default();
        for n in 0..120_000 {
            seen.note(key(n));
        }
        assert!((70_000..120_000).all(|n| seen.knows(key(n))));
        assert!(!seen.knows(key(0)));
        assert!(seen.young.len() + seen.old.len() <= 2 * MAX_SEEN);
        seen.forget(key(119_999));
        assert!(!seen.knows(key(119_999)));
    }
}
