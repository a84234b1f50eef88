//! Questions whose calls failed, and when each may be asked again.
//!
//! A call that fails is evidence about its own question. To ask it again at once would be to let
//! whoever found such a question make as many calls as he sends requests.

use crate::breaker::is_ahead;
use crate::hash::{FactKey, TrustedKeyHasher};
use crate::refusal::Outage;
use crate::time::Timestamp;
use std::collections::HashMap;
use std::time::Duration;

/// The questions that failed last: two generations, of which the older goes when the younger is
/// full. One that is forgotten is asked again, which costs a call.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackOff {
    young: HashMap<FactKey, Failed, TrustedKeyHasher>,
    old: HashMap<FactKey, Failed, TrustedKeyHasher>,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    outage: Outage,
    delay: Duration,
    until: Timestamp,
}

impl BackOff {
    /// Why a question is not asked again yet, if it is not.
    pub(crate) fn check(&self, key: FactKey, now: Timestamp) -> Result<(), Outage> {
        match self.get(key) {
            Some(failed) if is_ahead(failed.until, now, failed.delay) => Err(failed.outage),
            _ => Ok(()),
        }
    }

    /// A call for this question has failed.
    pub(crate) fn failed(&mut self, key: FactKey, outage: Outage, now: Timestamp) {
        let last = self.get(key).map(|failed| failed.delay);
        let delay = last.map_or(FIRST, |delay| delay.saturating_mul(2).min(LONGEST));
        if self.young.len() >= MOST && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, Failed { outage, delay, until: now.saturating_add(delay) });
    }

    /// A call for this question was answered.
    pub(crate) fn answered(&mut self, key: FactKey) {
        if !(self.young.is_empty() && self.old.is_empty()) {
            self.young.remove(&key);
            self.old.remove(&key);
        }
    }

    fn get(&self, key: FactKey) -> Option<&Failed> {
        self.young.get(&key).or_else(|| self.old.get(&key))
    }
}

/// After the first failure.
const FIRST: Duration = Duration::from_millis(250);
/// After many of them.
const LONGEST: Duration = Duration::from_secs(5);
/// Questions of one generation.
const MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Seed;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos((1_000_000 + millis) * 1_000_000)
    }

    fn key(n: u32) -> FactKey {
        FactKey::of(Seed([0; 16]), [&n.to_le_bytes()[..]])
    }

    #[test]
    fn a_question_waits_twice_as_long_each_time_it_fails() {
        let mut back_off = BackOff::default();
        let mut now = 0;
        for delay in [250, 500, 1000, 2000, 4000, 5000, 5000] {
            assert_eq!(back_off.check(key(1), at(now)), Ok(()));
            back_off.failed(key(1), Outage::ServerError, at(now));
            assert_eq!(back_off.check(key(1), at(now + delay - 1)), Err(Outage::ServerError));
            assert_eq!(back_off.check(key(2), at(now)), Ok(()), "another question");
            now += delay;
        }
        back_off.failed(key(1), Outage::Timeout, at(now));
        assert_eq!(back_off.check(key(1), at(0)), Ok(()), "the clock went backwards");
        back_off.answered(key(1));
        assert_eq!(back_off.check(key(1), at(now)), Ok(()));
        back_off.failed(key(1), Outage::Timeout, at(now));
        assert_eq!(back_off.check(key(1), at(now + 250)), Ok(()), "from the beginning");
    }

    #[test]
    fn it_keeps_a_generation_at_least_and_two_at_most() {
        let mut back_off = BackOff::default();
        for n in 0..20_000 {
            back_off.failed(key(n), Outage::ServerError, at(0));
        }
        let is_known = |n: u32| back_off.check(key(n), at(1)).is_err();
        assert!((20_000 - 4096..20_000).all(is_known));
        assert!(!is_known(0));
        assert!(back_off.young.len() + back_off.old.len() <= 2 * MOST);
    }
}
