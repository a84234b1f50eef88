//! Buckets for a no, so that a yes which was asked for earlier counts nowhere any more.
//!
//! Where a [bucket](super::bucket) is full, the oldest no leaves, and the bucket's stamp says that
//! one has left: a yes of the bucket counts only if its callout was started after the stamp. So a
//! no that is lost costs a question, and never lets a yes live.

use super::bucket::{Bucket, Entry, MAX_VALUE};
use super::{Place, SharedKey};
use crate::time::Timestamp;

/// What a bucket says about one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoReading {
    /// When the callout was started that brought a no, where there is one.
    pub(crate) started: Option<Timestamp>,
    /// A yes counts only if its callout was started later.
    stamp: Timestamp,
}

impl NoReading {
    /// Whether a yes whose callout was started then counts beside this. Of two answers of one
    /// instant the no counts.
    pub(crate) fn admits(&self, yes: Timestamp) -> bool {
        yes > self.stamp && self.started.is_none_or(|no| yes > no)
    }
}

impl SharedKey {
    /// The name of the bucket. It is the endpoint's own: a no that another endpoint overwrites
    /// could not be told from none.
    pub(crate) fn no_name(&self) -> String {
        let (kind, bucket) = (self.kind.id(), self.place_among(BUCKETS));
        format!("avnology_gate/2/no-{kind}/{:08x}/{bucket}", self.sealer.name)
    }

    /// What the bucket says about this question.
    pub(crate) fn read_no(&self, bytes: Option<&[u8]>, now: Timestamp) -> NoReading {
        let bucket = self.bucket(bytes, now);
        let mine = bucket.find(&self.digest);
        // One from the future was written before the clock went backwards. It is no answer yet, and
        // still outdoes every yes that was asked for before it.
        let future = mine.filter(|started| *started > now);
        let stamp = bucket.stamp.max(future.unwrap_or(bucket.stamp));
        NoReading { started: mine.filter(|started| *started <= now), stamp }
    }

    /// The bucket with this no in it; `None` where it has a later one.
    pub(crate) fn write_no(
        &self,
        bytes: Option<&[u8]>,
        started: Timestamp,
        until: Timestamp,
        now: Timestamp,
    ) -> Option<Vec<u8>> {
        let mut bucket = self.bucket(bytes, now);
        if bucket.find(&self.digest).is_some_and(|there| there >= started) {
            return None;
        }
        bucket.insert(Entry { digest: self.digest, at: started, until }, now);
        Some(self.sealer.seal(self.no_place(), bucket.bytes()))
    }

    fn no_place(&self) -> Place {
        Place::No(self.kind, self.place_among(BUCKETS))
    }

    /// A bucket that cannot be read may have held any no that was heard until now.
    fn bucket(&self, bytes: Option<&[u8]>, now: Timestamp) -> Bucket {
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
            return Bucket::new(Timestamp::from_nanos(0));
        };
        // Nothing of ours is longer.
        let bytes = Some(bytes).filter(|bytes| bytes.len() <= MAX_VALUE);
        let value = bytes.and_then(|bytes| self.sealer.open(self.no_place(), bytes));
        value.and_then(Bucket::parse).unwrap_or(Bucket::new(now))
    }
}

/// Buckets of an endpoint, of each kind: places for 8,192 that were known and are not any more.
const BUCKETS: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::super::{Kind, Sealer};
    use super::*;
    use crate::hash::Fingerprint;
    use std::sync::Arc;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    /// Questions of one bucket.
    fn keys(secret: &str) -> Vec<SharedKey> {
        let sealer = Arc::new(Sealer::new(secret.as_bytes(), Fingerprint::of(&["cluster"])));
        let key = sealer.key(Kind::Token, &[b"token"]);
        let other = |nth: u8| {
            let mut digest = key.digest;
            digest[15] = nth;
            SharedKey { digest, ..key.clone() }
        };
        (0..20).map(other).collect()
    }

    fn write(key: &SharedKey, bucket: &mut Option<Vec<u8>>, started: u64, now: u64) -> bool {
        let written = key.write_no(bucket.as_deref(), at(started), at(started + 30), at(now));
        let is_written = written.is_some();
        *bucket = written.or(bucket.take());
        is_written
    }

    #[test]
    fn a_no_outdoes_a_yes_that_was_asked_for_earlier() {
        let keys = keys("s");
        let mut bucket = None;
        assert!(keys[0].read_no(None, at(9)).admits(at(1)));
        assert!(write(&keys[0], &mut bucket, 5, 6));
        let reading = keys[0].read_no(bucket.as_deref(), at(9));
        assert_eq!(reading.started, Some(at(5)));
        assert_eq!([4, 5, 6].map(|yes| reading.admits(at(yes))), [false, false, true]);
        assert!(keys[1].read_no(bucket.as_deref(), at(9)).admits(at(1)), "another question");
        assert!(!write(&keys[0], &mut bucket, 5, 9) && !write(&keys[0], &mut bucket, 4, 9));
        assert!(write(&keys[0], &mut bucket, 7, 9));
        assert_eq!(keys[0].read_no(bucket.as_deref(), at(9)).started, Some(at(7)));
    }

    #[test]
    fn a_no_that_is_lost_costs_a_question_and_never_lets_a_yes_live() {
        let keys = keys("s");
        let mut bucket = None;
        for (key, started) in keys.iter().zip(10..) {
            assert!(write(key, &mut bucket, started, started));
        }
        assert!(bucket.as_ref().unwrap().len() <= MAX_VALUE);
        for (key, started) in keys.iter().zip(10..) {
            let reading = key.read_no(bucket.as_deref(), at(40));
            assert!(!reading.admits(at(started)), "a yes that was asked for before the no of {started}");
            assert_eq!(reading.started.is_some(), started >= 22, "eight of twenty are left");
        }
        assert!(keys[0].read_no(bucket.as_deref(), at(40)).admits(at(30)), "one that was asked for later");
        let mut bucket = None;
        for (key, started) in keys.iter().zip([1, 1, 1, 1, 1, 1, 1, 1, 50]) {
            assert!(write(key, &mut bucket, started, started));
        }
        let reading = keys[9].read_no(bucket.as_deref(), at(50));
        assert!(!reading.admits(at(1)) && reading.admits(at(2)), "those whose time was over leave a trace");
    }

    #[test]
    fn a_bucket_that_cannot_be_read_admits_nothing_older_than_now() {
        let (keys, others) = (keys("s"), keys("x"));
        let mut foreign = None;
        assert!(write(&others[0], &mut foreign, 5, 6));
        let mut cut = None;
        assert!(write(&keys[0], &mut cut, 5, 6));
        cut.as_mut().unwrap().pop();
        for unreadable in [foreign, cut, Some(vec![7; MAX_VALUE + 1])] {
            let mut bucket = unreadable;
            let reading = keys[1].read_no(bucket.as_deref(), at(9));
            assert!(!reading.admits(at(9)) && reading.admits(at(10)));
            assert!(write(&keys[1], &mut bucket, 9, 9));
            assert!(!keys[2].read_no(bucket.as_deref(), at(12)).admits(at(9)), "it stays so");
            assert!(keys[2].read_no(bucket.as_deref(), at(12)).admits(at(10)));
        }
    }

    #[test]
    fn a_no_from_the_future_is_no_answer_and_outdoes_every_yes_before_it() {
        let keys = keys("s");
        let mut bucket = None;
        assert!(write(&keys[0], &mut bucket, 50, 50));
        let reading = keys[0].read_no(bucket.as_deref(), at(9));
        assert_eq!(reading.started, None);
        assert!(!reading.admits(at(8)) && !reading.admits(at(50)) && reading.admits(at(51)));
        assert!(write(&keys[1], &mut bucket, 9, 9));
        assert!(!keys[0].read_no(bucket.as_deref(), at(9)).admits(at(8)), "another no does not end it");
    }
}
