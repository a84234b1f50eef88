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

/// What is to be written where a thing is noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// The bucket; `None`: it stays as it is.
    pub(crate) bytes: Option<Vec<u8>>,
    /// Whether the thing was not noted before, nor may have been.
    pub(crate) is_new: bool,
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

    /// Notes the thing in the bucket with these bytes; `None` where there never was one. `at`: its
    /// own time. `until`: when it, and what came before it, cannot come again any more.
    ///
    /// A bucket that cannot be read may have held anything, signed by a clock that is ahead too. It
    /// is begun anew, and takes nothing of a time before `until`.
    pub(crate) fn note(&self, bytes: Option<&[u8]>, at: Timestamp, until: Timestamp, now: Timestamp) -> Note {
        let Some(mut bucket) = self.bucket(bytes) else {
            return Note { bytes: Some(self.seal(&Bucket::new(until))), is_new: false };
        };
        if bucket.find(&self.digest).is_some() || at <= bucket.stamp {
            return Note { bytes: None, is_new: false };
        }
        bucket.insert(Entry { digest: self.digest, at, until }, now);
        Note { bytes: Some(self.seal(&bucket)), is_new: true }
    }

    fn seal(&self, bucket: &Bucket) -> Vec<u8> {
        self.sealer.seal(self.place(), bucket.bytes())
    }

    fn place(&self) -> Place {
        Place::Seen(self.bucket)
    }

    /// `None` where it cannot be read; an empty one is what is left of one that somebody removed.
    fn bucket(&self, bytes: Option<&[u8]>) -> Option<Bucket> {
        let Some(bytes) = bytes else { return Some(Bucket::new(Timestamp::from_nanos(0))) };
        let value = self.sealer.open(self.place(), bytes).filter(|_| bytes.len() <= MAX_VALUE)?;
        Bucket::parse(value)
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
        let Note { bytes, is_new } = key.note(bucket.as_deref(), at(signed), at(now + 600), at(now));
        *bucket = bytes.or(bucket.take());
        is_new
    }

    #[test]
    fn what_is_noted_is_not_noted_twice() {
        let keys = keys("s");
        let mut bucket = None;
        assert!(note(&keys[0], &mut bucket, 5, 6));
        assert!(!note(&keys[0], &mut bucket, 5, 6), "the same");
        assert!(!note(&keys[0], &mut bucket, 8, 9), "nor with another time");
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
        assert!(!note(&keys[0], &mut bucket, 10, 21), "it has left");
        assert!(!note(&keys[19], &mut bucket, 11, 21), "another one of that time");
        assert!(note(&keys[19], &mut bucket, 12, 21));
    }

    #[test]
    fn a_bucket_that_cannot_be_read_takes_nothing_until_what_it_held_is_over() {
        let (keys, others) = (keys("s"), keys("x"));
        let mut foreign = None;
        assert!(note(&others[0], &mut foreign, 5, 6));
        let mut cut = None;
        assert!(note(&keys[0], &mut cut, 5, 6));
        cut.as_mut().unwrap().pop();
        let long = vec![7; MAX_VALUE + 1];
        for unreadable in [foreign, cut, Some(long), Some(vec![1]), Some(Vec::new())] {
            let mut bucket = unreadable;
            assert!(!note(&keys[1], &mut bucket, 9, 9), "it may have been there");
            assert!(!note(&keys[1], &mut bucket, 309, 10), "signed by a clock that is ahead");
            assert!(!note(&keys[2], &mut bucket, 609, 400) && note(&keys[2], &mut bucket, 610, 400));
            assert!(!note(&keys[2], &mut bucket, 610, 400), "it notes again");
        }
    }
}
