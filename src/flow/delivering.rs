//! From a complete body to a decision: the steps behind a webhook's signature.
//!
//! ```text
//! signature ─▶ event ─▶ challenge ─▶ seen before? ─▶ whose facts are over
//!     ─▶ type taken? ─▶ the service
//! ```
//!
//! What is noted is noted last: a sender whose delivery was refused for the gate's own reasons
//! sends it again.

use super::services::Services;
use super::store::{self, SharedStore, Write};
use crate::cache::shared::SeenKey;
use crate::refusal::{Acknowledgement, Denial, Refusal, Unusable};
use crate::time::Timestamp;
use crate::verdict::{Passage, Permit, RequestContext};
use crate::webhook::replay::{Replay, ReplayBy};
use crate::webhook::{Delivery, Verification, Webhook};

/// Judges a delivery whose body is complete. `fetch`: copies the body, all of which is hashed.
pub(super) fn deliver(
    webhook: &Webhook,
    verification: Verification,
    fetch: &mut dyn FnMut() -> Option<Vec<u8>>,
    context: &mut RequestContext,
    services: &mut Services<'_>,
) -> Result<Passage, Refusal> {
    let mut delivery = verification.finish()?;
    // A host that does not hand over what it held until now causes this.
    let body = if webhook.reads_body() { fetch().ok_or(Unusable::Internal)? } else { Vec::new() };
    let event = delivery.event(webhook, &body).map_err(|_| Denial::UnreadableEvent)?;
    if let Some(challenge) = event.challenge {
        context.challenge = Some(challenge);
        return Err(Acknowledgement::Challenge.into());
    }
    let is_taken = webhook.events.as_ref().is_none_or(|events| events.takes(event.kind.as_deref()));
    let subjects = delivery.subjects(webhook, &body).map_err(|_| Denial::UnreadableEvent)?;
    if !is_taken && subjects.is_none() {
        return Err(Acknowledgement::EventIgnored.into());
    }
    let seen = match &webhook.replay {
        Some(replay) => {
            Some(Seen::of(webhook, replay, &delivery, services.now).ok_or(Denial::UnreadableEvent)?)
        }
        None => None,
    };
    let is_noted = seen.as_ref().is_some_and(|seen| seen.is_noted(services.facts.store()));
    let by_content = |seen: &Seen| seen.by == ReplayBy::Content;
    if is_noted && seen.as_ref().is_some_and(by_content) {
        return Err(Denial::Replayed.into());
    }
    // What came before has done so already, and a webhook on trial changes nothing.
    if let (Some(stamps), false, false) = (&context.policy.subjects, is_noted, context.is_shadow()) {
        for subject in subjects.iter().flatten() {
            services.facts.evict(stamps, subject, services.now)?;
        }
    }
    if let Some(seen) = &seen
        && (is_noted || !seen.note(services.facts.store())?)
    {
        if by_content(seen) {
            return Err(Denial::Replayed.into());
        }
        delivery.mark_duplicate();
    }
    if !is_taken {
        return Err(Acknowledgement::EventIgnored.into());
    }
    Ok(Passage::Permit(Permit::webhook(delivery.into_verified())))
}

/// Whether a delivery came before, in what the workers share.
struct Seen {
    /// Where it is noted: under each secret, since any of them may leave.
    keys: Vec<SeenKey>,
    /// Where else it may have been noted.
    former_keys: Vec<SeenKey>,
    by: ReplayBy,
    /// When it was signed, or when it came where it is known by its id.
    at: Timestamp,
    until: Timestamp,
    now: Timestamp,
}

impl Seen {
    fn of(webhook: &Webhook, replay: &Replay, delivery: &Delivery, now: Timestamp) -> Option<Self> {
        let at = match replay.by {
            ReplayBy::Content => delivery.signed_at()?,
            ReplayBy::Id => now,
        };
        let digest = delivery.digest(webhook)?;
        let (keys, former_keys) = (replay.keys(digest).collect(), replay.former_keys(digest).collect());
        Some(Self { keys, former_keys, by: replay.by, at, until: now.saturating_add(replay.window), now })
    }

    /// Whether it is noted, or was signed no later than what has left since.
    fn is_noted(&self, store: &dyn SharedStore) -> bool {
        let mut is_noted = false;
        // All of them, so that what is damaged is mended at once.
        for key in self.keys.iter().chain(&self.former_keys) {
            let bucket = store.get(&key.name());
            let reading = key.read(bucket.as_ref().map(|(bytes, _)| bytes.as_slice()), self.now);
            if !reading.is_readable {
                // Else it would refuse whatever comes, for ever.
                let _ = store::write(store, &key.name(), |bytes| key.mend(bytes, self.now));
            }
            is_noted |= reading.is_noted || (self.by == ReplayBy::Content && self.at <= reading.floor);
        }
        is_noted
    }

    /// Notes it. Returns whether no other worker was faster.
    fn note(&self, store: &dyn SharedStore) -> Result<bool, Unusable> {
        for key in &self.keys {
            match store::write(store, &key.name(), |bytes| key.write(bytes, self.at, self.until, self.now)) {
                Write::Done => {}
                Write::Kept => return Ok(false),
                Write::Lost => return Err(Unusable::SharedWrite),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::store::tests::Map;
    use crate::secret::Secret;
    use std::time::Duration;

    /// A delivery that is signed at this second and comes then.
    fn seen(by: ReplayBy, digest: u8, signed: u64) -> Seen {
        let secrets = [Secret::new(b"one".to_vec()), Secret::new(b"other".to_vec())];
        let replay = Replay::new("hook", &secrets, 64, (by, Duration::from_secs(600), 409));
        let (at, digest) = (Timestamp::from_secs(signed), [digest; 32]);
        Seen {
            keys: replay.keys(digest).collect(),
            former_keys: replay.former_keys(digest).collect(),
            by,
            at,
            until: at.saturating_add(replay.window),
            now: at,
        }
    }

    #[test]
    fn a_bucket_that_others_have_damaged_refuses_what_was_signed_until_then_and_nothing_later() {
        for nth in 0..22 {
            let store = Map::default();
            let first = seen(ReplayBy::Content, 1, 100);
            for key in first.keys.iter().chain(&first.former_keys).skip(nth) {
                assert_eq!(store::write(&store, &key.name(), |_| Some(b"junk".to_vec())), Write::Done);
            }
            assert!(first.is_noted(&store), "{nth}");
            let later = seen(ReplayBy::Content, 1, 101);
            assert!(!later.is_noted(&store), "{nth}");
            assert_eq!(later.note(&store), Ok(true), "{nth}");
            assert!(later.is_noted(&store) && first.is_noted(&store), "{nth}");
        }
    }

    #[test]
    fn a_bucket_that_others_have_damaged_marks_no_delivery_for_ever() {
        let store = Map::default();
        let first = seen(ReplayBy::Id, 1, 100);
        assert_eq!(store::write(&store, &first.keys[0].name(), |_| Some(b"junk".to_vec())), Write::Done);
        assert!(!first.is_noted(&store));
        assert_eq!(first.note(&store), Ok(false), "it may have been there");
        let later = seen(ReplayBy::Id, 1, 101);
        assert!(!later.is_noted(&store));
        assert_eq!(later.note(&store), Ok(true));
    }
}
