//! Slots for a yes.
//!
//! ```text
//! value = version digest[16] started[8] until[8] displaced[8] carried payload… seal[16]
//! ```

use super::{Place, SharedKey, VERSION, timestamp};
use crate::time::Timestamp;
use std::time::Duration;

/// A yes that workers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharedYes {
    /// When the callout that brought it was started.
    pub(crate) started: Timestamp,
    /// After this no worker lets it count, not even in an outage.
    pub(crate) until: Timestamp,
    /// The fact's bytes; `None` where they are too many to be carried, and only that there is a yes
    /// is known.
    pub(crate) payload: Option<Vec<u8>>,
}

/// What is in a slot.
struct Slot {
    digest: [u8; 16],
    yes: SharedYes,
    /// Until then another yes may count somewhere that was in this slot before.
    displaced: Timestamp,
}

impl SharedYes {
    /// A yes that may count somewhere for this long.
    pub(crate) fn new(payload: &[u8], started: Timestamp, max_age: Duration) -> Self {
        let payload = (payload.len() <= MAX_PAYLOAD).then(|| payload.to_vec());
        Self { started, until: started.saturating_add(max_age), payload }
    }
}

impl SharedKey {
    /// The name of the slot. It is the endpoint's own, as a bucket is: a slot that another endpoint
    /// uses could not show whether there was a yes.
    pub(crate) fn yes_name(&self) -> String {
        let (kind, slot) = (self.kind.id(), self.place_among(SLOTS));
        format!("avnology_gate/2/{kind}/{:08x}/{slot}", self.sealer.name)
    }

    /// The yes to this question, if these bytes are one that the gate has sealed.
    pub(crate) fn read_yes(&self, bytes: &[u8]) -> Option<SharedYes> {
        self.slot(bytes).filter(|slot| slot.digest == self.digest).map(|slot| slot.yes)
    }

    /// Whether a yes to this question may count somewhere, as far as the slot can show it.
    pub(crate) fn may_have_yes(&self, bytes: Option<&[u8]>, now: Timestamp) -> bool {
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { return false };
        match self.slot(bytes) {
            // No value of the gate's: what was here before cannot be known.
            None => true,
            Some(slot) if slot.digest == self.digest => now <= slot.yes.until,
            Some(slot) => now <= slot.displaced,
        }
    }

    /// What to write in the place of these bytes; `None` where they must stay: only what is later
    /// replaces an answer to the same question.
    pub(crate) fn write_yes(&self, bytes: Option<&[u8]>, yes: &SharedYes, now: Timestamp) -> Option<Vec<u8>> {
        let bytes = bytes.filter(|bytes| !bytes.is_empty());
        let displaced = match bytes.map(|bytes| self.slot(bytes)) {
            None => Timestamp::from_nanos(0),
            // It may have taken the slot of one of this endpoint's, which is younger than this yes
            // will ever be.
            Some(None) => now.saturating_add(yes.until.saturating_since(yes.started)),
            Some(Some(there)) if there.digest == self.digest => {
                // One from the future was written before the clock went backwards.
                if there.yes.started >= yes.started && there.yes.started <= now {
                    return None;
                }
                there.displaced
            }
            Some(Some(there)) => there.displaced.max(there.yes.until),
        };
        let mut value = vec![VERSION];
        value.extend(self.digest);
        for at in [yes.started, yes.until, displaced] {
            value.extend(at.as_nanos().to_le_bytes());
        }
        value.push(u8::from(yes.payload.is_some()));
        value.extend(yes.payload.iter().flatten());
        Some(self.sealer.seal(self.yes_place(), value))
    }

    fn yes_place(&self) -> Place {
        Place::Yes(self.kind, self.place_among(SLOTS))
    }

    fn slot(&self, bytes: &[u8]) -> Option<Slot> {
        // Nothing of ours is longer, and what is not ours costs no more than a look.
        let bytes = Some(bytes).filter(|bytes| bytes.len() <= MAX_VALUE)?;
        let value = self.sealer.open(self.yes_place(), bytes)?;
        let (_, rest) = value.split_first().filter(|(version, _)| **version == VERSION)?;
        let (digest, rest) = rest.split_first_chunk::<16>()?;
        let (started, rest) = rest.split_first_chunk::<8>()?;
        let (until, rest) = rest.split_first_chunk::<8>()?;
        let (displaced, rest) = rest.split_first_chunk::<8>()?;
        let (carried, payload) = rest.split_first()?;
        let payload = (*carried == 1).then(|| payload.to_vec());
        let yes = SharedYes { started: timestamp(started), until: timestamp(until), payload };
        Some(Slot { digest: *digest, yes, displaced: timestamp(displaced) })
    }
}

/// Slots of an endpoint, of each kind. With a thousand tokens about thirty pairs meet in one; a
/// host spends 100 bytes on a slot beside its value, and keeps those of a secret that is no longer
/// used.
const SLOTS: u32 = 16_384;

/// The longest payload that is shared, in bytes: all slots together stay below a bound.
const MAX_PAYLOAD: usize = 2048;

/// The longest value: a payload with what is around it.
const MAX_VALUE: usize = MAX_PAYLOAD + 64;

#[cfg(test)]
mod tests {
    use super::super::{Kind, Sealer};
    use super::*;
    use crate::hash::Fingerprint;
    use std::sync::Arc;

    fn sealer(secret: &str) -> Arc<Sealer> {
        Arc::new(Sealer::new(secret.as_bytes(), Fingerprint::of(&["cluster"])))
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn yes(started: u64) -> SharedYes {
        SharedYes::new(b"fact", at(started), Duration::from_secs(30))
    }

    /// Another question whose answer has the same slot.
    fn neighbour(key: &SharedKey) -> SharedKey {
        let mut digest = key.digest;
        digest[15] ^= 1;
        SharedKey { digest, ..key.clone() }
    }

    #[test]
    fn only_what_was_sealed_for_this_question_slot_and_secret_is_read() {
        let key = sealer("s").key(Kind::Token, &[b"token"]);
        let value = key.write_yes(None, &yes(1), at(1)).unwrap();
        assert_eq!(key.read_yes(&value), Some(yes(1)));
        for nth in 0..value.len() {
            let mut forged = value.clone();
            forged[nth] ^= 1;
            assert_eq!(key.read_yes(&forged), None, "byte {nth}");
            assert_eq!(key.read_yes(&value[..nth]), None, "cut at {nth}");
        }
        assert_eq!(key.read_yes(b""), None);
        assert_eq!(neighbour(&key).read_yes(&value), None, "another question in the same slot");
        let mut digest = key.digest;
        digest[0] ^= 1;
        assert_eq!(SharedKey { digest, ..key.clone() }.read_yes(&value), None, "another slot");
        assert_eq!(
            SharedKey { kind: Kind::Permission, ..key.clone() }.read_yes(&value),
            None,
            "another kind"
        );
        assert_eq!(SharedKey { sealer: sealer("x"), ..key }.read_yes(&value), None, "another secret");
        let elsewhere = Arc::new(Sealer::new(b"s", Fingerprint::of(&["elsewhere"])));
        assert_ne!(
            elsewhere.key(Kind::Token, &[b"token"]).digest,
            sealer("s").key(Kind::Token, &[b"token"]).digest
        );
    }

    #[test]
    fn what_was_asked_for_later_stays() {
        let key = sealer("s").key(Kind::Token, &[b"token"]);
        let writes = |there: u64, entry: u64, now: u64| {
            let there = key.write_yes(None, &yes(there), at(now));
            key.write_yes(there.as_deref(), &yes(entry), at(now)).is_some()
        };
        assert!(writes(1, 2, 3) && !writes(2, 2, 3) && !writes(2, 1, 3));
        assert!(writes(9, 2, 3), "one from the future");
        assert!(key.write_yes(Some(b"foreign"), &yes(1), at(1)).is_some());
    }

    #[test]
    fn a_slot_shows_whether_a_yes_may_count_somewhere() {
        let key = sealer("s").key(Kind::Token, &[b"token"]);
        let other = neighbour(&key);
        assert!(!key.may_have_yes(None, at(5)) && !key.may_have_yes(Some(b""), at(5)));
        assert!(key.may_have_yes(Some(b"foreign"), at(5)), "nobody can know");
        let mine = key.write_yes(None, &yes(5), at(5)).unwrap();
        assert!(key.may_have_yes(Some(&mine), at(35)) && !key.may_have_yes(Some(&mine), at(36)));
        assert!(!other.may_have_yes(Some(&mine), at(6)), "nothing was in the slot before");
        let displaced = other.write_yes(Some(&mine), &yes(10), at(10)).unwrap();
        assert!(key.may_have_yes(Some(&displaced), at(35)) && !key.may_have_yes(Some(&displaced), at(36)));
        let over_foreign = other.write_yes(Some(b"foreign"), &yes(10), at(12)).unwrap();
        assert!(
            key.may_have_yes(Some(&over_foreign), at(42)) && !key.may_have_yes(Some(&over_foreign), at(43))
        );
    }

    #[test]
    fn a_payload_that_is_too_long_is_known_and_not_carried() {
        let key = sealer("s").key(Kind::Token, &[b"token"]);
        let long = SharedYes::new(&[0; MAX_PAYLOAD + 1], at(1), Duration::from_secs(30));
        let value = key.write_yes(None, &long, at(1)).unwrap();
        assert_eq!(key.read_yes(&value).unwrap().payload, None);
        assert!(key.may_have_yes(Some(&value), at(2)));
        let longest = SharedYes::new(&[0; MAX_PAYLOAD], at(1), Duration::from_secs(30));
        let value = key.write_yes(None, &longest, at(1)).unwrap();
        assert_eq!(key.read_yes(&value), Some(longest));
    }
}
