//! Deliveries that were seen before.

use crate::cache::shared::{Sealer, SeenKey};
use crate::hash::Fingerprint;
use crate::secret::Secret;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// How a webhook knows a delivery again.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    /// By what.
    pub by: ReplayBy,
    /// How long it is remembered, counted from when it came.
    pub window: Duration,
    /// The status for one that came before; unused where these are only marked.
    pub status: u16,
    buckets: u32,
    /// One for each secret: a delivery is noted under all of them, so that whichever leaves takes
    /// nothing along, and no rotation refuses what it cannot read.
    sealers: Vec<Arc<Sealer>>,
}

/// By what a delivery is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplayBy {
    /// What is signed. It has a signed time, so that the same content is never sent anew.
    Content,
    /// Its id, which a sender keeps when it sends anew: such a delivery is marked, and not refused.
    Id,
}

impl Replay {
    /// `slots`: how many deliveries of the webhook are remembered at the most.
    pub(crate) fn new(
        name: &str,
        secrets: &[Secret<Vec<u8>>],
        slots: u32,
        (by, window, status): (ReplayBy, Duration, u16),
    ) -> Self {
        let kind = match by {
            ReplayBy::Content => "content",
            ReplayBy::Id => "id",
        };
        let fingerprint = Fingerprint::of(&["webhook", name, kind]);
        let sealer = |secret: &Secret<Vec<u8>>| Arc::new(Sealer::new(secret.reveal(), fingerprint));
        let sealers = secrets.iter().map(sealer).collect();
        let enough = |buckets: &u32| buckets.saturating_mul(PLACES) >= slots;
        let buckets = SIZES.into_iter().find(enough).unwrap_or(MOST_BUCKETS);
        Self { by, window, status, buckets, sealers }
    }

    /// Where a delivery is noted.
    pub(crate) fn keys(&self, digest: [u8; 32]) -> impl Iterator<Item = SeenKey> {
        self.sealers.iter().map(move |sealer| sealer.seen_key(digest, self.buckets))
    }

    /// Where it may have been noted while there were more buckets, or fewer: no update forgets it.
    pub(crate) fn former_keys(&self, digest: [u8; 32]) -> impl Iterator<Item = SeenKey> {
        let others = SIZES.into_iter().filter(|buckets| *buckets != self.buckets);
        others
            .flat_map(move |buckets| self.sealers.iter().map(move |sealer| sealer.seen_key(digest, buckets)))
    }
}

/// What stands for a delivery: the webhook's name, then what it is known by.
pub(super) fn digest_of(name: &str) -> Sha256 {
    let mut digest = Sha256::new();
    digest.update(u64::try_from(name.len()).unwrap_or(u64::MAX).to_le_bytes());
    digest.update(name);
    digest
}

/// Deliveries of a bucket.
const PLACES: u32 = 8;

/// How many buckets there may be: few sizes, so that all of them can be looked through.
const SIZES: [u32; 11] = [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, MOST_BUCKETS];

const MOST_BUCKETS: u32 = 8192;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn replay(slots: u32) -> Replay {
        let secrets = [Secret::new(b"one".to_vec()), Secret::new(b"other".to_vec())];
        Replay::new("hook", &secrets, slots, (ReplayBy::Content, Duration::ZERO, 409))
    }

    #[test]
    fn as_many_buckets_as_it_takes_rounded_up_to_a_power_of_two() {
        for (slots, buckets) in [(64, 8), (65, 16), (4096, 512), (4097, 1024), (65_536, 8192)] {
            assert_eq!(replay(slots).buckets, buckets, "{slots}");
        }
        assert!(SIZES.iter().all(|size| size.is_power_of_two()));
    }

    #[test]
    fn the_places_of_all_sizes_are_looked_through_and_no_two_are_one() {
        let places = |slots: u32| -> BTreeSet<String> {
            let replay = replay(slots);
            let names: Vec<String> =
                replay.keys([7; 32]).chain(replay.former_keys([7; 32])).map(|key| key.name()).collect();
            let places: BTreeSet<String> = names.iter().cloned().collect();
            assert_eq!((names.len(), places.len()), (22, 22));
            places
        };
        assert_eq!(places(64), places(65_536));
    }
}
