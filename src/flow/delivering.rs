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
use crate::cache::shared::{Note, SeenKey};
use crate::refusal::{Acknowledgement, Denial, Refusal, Unusable};
use crate::telemetry::Eviction;
use crate::time::Timestamp;
use crate::verdict::{Passage, Permit, RequestContext};
use crate::webhook::replay::{Replay, ReplayBy};
use crate::webhook::{Delivery, Verification, Webhook};
use std::cell::Cell;

/// Judges a delivery whose body is complete. `fetch`: copies the body, all of which is hashed.
pub(super) fn deliver(
    webhook: &Webhook,
    verification: Verification,
    fetch: &mut dyn FnMut() -> Option<Vec<u8>>,
    context: &mut RequestContext,
    services: &mut Services<'_>,
) -> Result<Passage, Refusal> {
    let mut delivery = verification.finish()?;
    context.secret_index = u16::try_from(delivery.secret_index()).ok();
    // A host that does not hand over what it held until now causes this.
    let body = if webhook.reads_body() { fetch().ok_or(Unusable::Internal)? } else { Vec::new() };
    let event = delivery.event(webhook, &body).map_err(|_| Denial::UnreadableEvent)?;
    if let Some(challenge) = event.challenge {
        context.challenge = Some(challenge.into());
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
    let is_new = seen.as_ref().is_none_or(|seen| seen.is_new(services.facts.store()));
    // What came before has done so already, and a webhook on trial changes nothing.
    if let (Some(stamps), Some(subjects), true, false) =
        (&context.policy.subjects, &subjects, is_new, context.is_on_trial())
    {
        for subject in subjects {
            services.facts.evict(stamps, subject, services.now)?;
        }
        let ends_something = !subjects.is_empty();
        context.eviction = Some(if ends_something { Eviction::Done } else { Eviction::Unmapped });
    }
    if let (Some(seen), Some(replay)) = (&seen, &webhook.replay)
        && (!is_new || !seen.note(services.facts.store())?)
    {
        match replay.by {
            ReplayBy::Content => return Err(Denial::Replayed.into()),
            ReplayBy::Id => delivery.mark_duplicate(),
        }
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
        Some(Self { keys, former_keys, at, until: now.saturating_add(replay.window), now })
    }

    /// Whether it is new everywhere, as things are. What others have damaged is mended meanwhile:
    /// else it would refuse whatever comes.
    fn is_new(&self, store: &dyn SharedStore) -> bool {
        let mut is_new = true;
        for key in self.keys.iter().chain(&self.former_keys) {
            let bucket = store.get(&key.name());
            let note = self.note_of(key, bucket.as_ref().map(|(bytes, _)| bytes.as_slice()));
            is_new &= note.is_new;
            if !note.is_new && note.bytes.is_some() {
                let mended = |bytes: Option<&[u8]>| {
                    let note = self.note_of(key, bytes);
                    note.bytes.filter(|_| !note.is_new)
                };
                // Where others were before it each time, one of them has mended it.
                let _ = store::write(store, &key.name(), mended);
            }
        }
        is_new
    }

    fn note_of(&self, key: &SeenKey, bytes: Option<&[u8]>) -> Note {
        key.note(bytes, self.at, self.until, self.now)
    }

    /// Notes what was new. Returns whether no other worker was faster: all of them note in one
    /// order, so that one of them is.
    fn note(&self, store: &dyn SharedStore) -> Result<bool, Unusable> {
        for key in &self.keys {
            let is_new = Cell::new(false);
            let written = store::write(store, &key.name(), |bytes| {
                let note = self.note_of(key, bytes);
                is_new.set(note.is_new);
                note.bytes
            });
            match written {
                Write::Done if is_new.get() => {}
                Write::Done | Write::Kept => return Ok(false),
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
    fn seen(digest: u8, signed: u64) -> Seen {
        let secrets = [Secret::new(b"one".to_vec()), Secret::new(b"other".to_vec())];
        let replay = Replay::new("hook", &secrets, 64, (ReplayBy::Content, Duration::from_secs(600), 409));
        let (at, digest) = (Timestamp::from_secs(signed), [digest; 32]);
        Seen {
            keys: replay.keys(digest).collect(),
            former_keys: replay.former_keys(digest).collect(),
            at,
            until: at.saturating_add(replay.window),
            now: at,
        }
    }

    #[test]
    fn whichever_buckets_others_have_damaged_what_they_may_have_held_is_refused_and_nothing_later() {
        for nth in 0..22 {
            let store = Map::default();
            let first = seen(1, 100);
            for key in first.keys.iter().chain(&first.former_keys).skip(nth) {
                assert_eq!(store::write(&store, &key.name(), |_| Some(b"junk".to_vec())), Write::Done);
            }
            assert!(!first.is_new(&store), "{nth}");
            let later = seen(1, 701);
            assert!(later.is_new(&store), "{nth}");
            assert_eq!(later.note(&store), Ok(true), "{nth}");
            assert!(!later.is_new(&store) && !first.is_new(&store), "{nth}");
        }
    }
}
