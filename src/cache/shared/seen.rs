//! Buckets for what was seen once and must not count twice: webhooks' deliveries.

use super::bucket::{Bucket, Entry, MAX_VALUE};
use super::{Place, Sealer};
use crate::hash::first_half;
use crate::time::Timestamp;
use std::sync::Arc;

/// Where it is noted that something was seen.
#[derive(Clone, Debug)]
pub(crate) struct SeenKey {
    sealer: Arc<Sealer>,
    digest: [u8; 16],
    bucket: u32,
}

/// What a bucket says about one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeenReading {
    /// Whether it is noted.
    pub(crate) is_noted: bool,
    /// What is no later than this may have been noted, and may have left.
    pub(crate) floor: Timestamp,
    /// Whether the bucket could be read.
    pub(crate) is_readable: bool,
}

impl Sealer {
    /// Where the thing with this digest is noted, among so many buckets: a power of two, so that
    /// the buckets of no two sizes have one number.
    pub(crate) fn seen_key(self: &Arc<Self>, digest: [u8; 32], buckets: u32) -> SeenKey {
        let digest = first_half(digest);
        let bits = u32::from_le_bytes(digest.first_chunk().copied().unwrap_or_default());
        let bucket = buckets.saturating_add(bits.checked_rem(buckets).unwrap_or_default());
        SeenKey { sealer: Arc::clone(self), digest, bucket }
    }
}

impl SeenKey {
    /// The name of the bucket.
    pub(crate) fn name(&self) -> String {
        format!("avnology_gate/2/seen/{:08x}/{}", self.sealer.name, self.bucket)
    }

    /// What the bucket says. One that cannot be read may have held anything until now.
    pub(crate) fn read(&self, bytes: Option<&[u8]>, now: Timestamp) -> SeenReading {
        let bucket = self.parse(bytes);
        let is_readable = bucket.is_some();
        let bucket = bucket.unwrap_or(Bucket::new(now));
        SeenReading { is_noted: bucket.find(&self.digest).is_some(), floor: bucket.stamp, is_readable }
    }

    /// A bucket in the place of one that cannot be read: it may have held anything until now.
    /// `None` where it can be read.
    pub(crate) fn mend(&self, bytes: Option<&[u8]>, now: Timestamp) -> Option<Vec<u8>> {
        let is_readable = self.parse(bytes).is_some();
        (!is_readable).then(|| self.sealer.seal(self.place(), Bucket::new(now).bytes()))
    }

    /// The bucket with the thing noted; `None` where it is noted already, or may have been.
    /// `at`: its own time. `until`: when it cannot come again any more.
    pub(crate) fn write(
        &self,
        bytes: Option<&[u8]>,
        at: Timestamp,
        until: Timestamp,
        now: Timestamp,
    ) -> Option<Vec<u8>> {
        let mut bucket = self.parse(bytes).unwrap_or(Bucket::new(now));
        if bucket.find(&self.digest).is_some() || at <= bucket.stamp {
            return None;
        }
        bucket.insert(Entry { digest: self.digest, at, until }, now);
        Some(self.sealer.seal(self.place(), bucket.bytes()))
    }

    fn place(&self) -> Place {
        Place::Seen(self.bucket)
    }

    /// `None` where it cannot be read.
    fn parse(&self, bytes: Option<&[u8]>) -> Option<Bucket> {
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
            return Some(Bucket::new(Timestamp::from_nanos(0)));
        };
        let bytes = Some(bytes).filter(|bytes| bytes.len() <= MAX_VALUE)?;
        Bucket::parse(self.sealer.open(self.place(), bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Fingerprint;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    /// Things of one bucket.
    fn keys(secret: &str) -> Vec<SeenKey> {
        let sealer = Arc::new(Sealer::new(secret.as_bytes(), Fingerprint::of(&["webhook"])));
        let digest = |nth: u8| {
            let mut digest = [7; 32];
            digest[15] = nth;
            digest
        };
        (0..20).map(|nth| sealer.seen_key(digest(nth), 512)).collect()
    }

    fn note(key: &SeenKey, bucket: &mut Option<Vec<u8>>, signed: u64, now: u64) -> bool {
        let written = key.write(bucket.as_deref(), at(signed), at(now + 600), at(now));
        let is_written = written.is_some();
        *bucket = written.or(bucket.take());
        is_written
    }

    #[test]
    fn what_is_noted_is_not_noted_twice() {
        let keys = keys("s");
        let mut bucket = None;
        assert!(!keys[0].read(None, at(9)).is_noted);
        assert!(note(&keys[0], &mut bucket, 5, 6));
        assert!(!note(&keys[0], &mut bucket, 5, 6), "the same");
        assert!(!note(&keys[0], &mut bucket, 8, 9), "nor with another time");
        assert!(
            keys[0].read(bucket.as_deref(), at(9)).is_noted
                && !keys[1].read(bucket.as_deref(), at(9)).is_noted
        );
        assert!(note(&keys[1], &mut bucket, 5, 6));
    }

    #[test]
    fn what_has_left_raises_the_floor_and_nothing_at_or_before_it_is_noted_again() {
        let keys = keys("s");
        let mut bucket = None;
        for (key, signed) in keys.iter().zip(10..20) {
            assert!(note(key, &mut bucket, signed, 20));
        }
        assert!(bucket.as_ref().unwrap().len() <= MAX_VALUE);
        let reading = keys[0].read(bucket.as_deref(), at(21));
        assert_eq!(reading, SeenReading { is_noted: false, floor: at(11), is_readable: true });
        assert!(!note(&keys[0], &mut bucket, 10, 21), "it has left");
        assert!(!note(&keys[19], &mut bucket, 11, 21), "another one of that time");
        assert!(note(&keys[19], &mut bucket, 12, 21));
    }

    #[test]
    fn a_bucket_that_cannot_be_read_lets_nothing_pass_that_was_signed_by_now() {
        let (keys, others) = (keys("s"), keys("x"));
        let mut foreign = None;
        assert!(note(&others[0], &mut foreign, 5, 6));
        let mut cut = None;
        assert!(note(&keys[0], &mut cut, 5, 6));
        cut.as_mut().unwrap().pop();
        for unreadable in [foreign, cut, Some(vec![7; MAX_VALUE + 1]), Some(vec![1])] {
            let mut bucket = unreadable;
            assert_eq!(keys[1].read(bucket.as_deref(), at(9)).floor, at(9));
            assert!(!note(&keys[1], &mut bucket, 9, 9) && note(&keys[1], &mut bucket, 10, 9));
            assert!(!note(&keys[2], &mut bucket, 9, 30), "it stays so");
        }
    }
}
