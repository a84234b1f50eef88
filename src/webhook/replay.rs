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
        Self { by, window, status, buckets: slots.div_ceil(PLACES).max(1), sealers }
    }

    /// Where a delivery is noted.
    pub(crate) fn keys(&self, digest: [u8; 32]) -> impl Iterator<Item = SeenKey> {
        self.sealers.iter().map(move |sealer| sealer.seen_key(digest, self.buckets))
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
