//! The second level: facts in slots that all workers of a process share, and that other plugins may
//! write to.
//!
//! The slots are few and fixed, since a host never frees one: a fact's key says which one is its.
//! Slot, digest (SipHash-2-4-128) and seal (HMAC-SHA256) have keys that come from the secret which
//! the gate shows the endpoint, so that nobody else can say which slot a token has, or make a value
//! that is believed. Whoever can write may put an older value back: a fact's own age bounds what
//! that brings.
//!
//! ```text
//! value = version digest[16] kind started[8] until[8] payload… seal[16]
//! ```

use crate::hash::{FactKey, Fingerprint, Seed, first_half};
use crate::time::Timestamp;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The keys of one endpoint's slots.
#[derive(Clone)]
pub(crate) struct Sealer {
    digests: Seed,
    /// Keyed once, since that costs as much as a short message.
    seals: Hmac<Sha256>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(…)")
    }
}

/// Where a question's answer is, if it is anywhere.
#[derive(Clone, Debug)]
pub(crate) struct SharedKey {
    sealer: Arc<Sealer>,
    kind: Kind,
    slot: u32,
    digest: [u8; 16],
}

/// What a question is about. Each kind has slots of its own: a caller chooses what permissions are
/// asked for, and must not so choose which token's answer is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A token.
    Token,
    /// A permission.
    Permission,
}

/// What may stand in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharedEntry {
    /// When the callout that brought it was started.
    pub started: Timestamp,
    /// When it may be forgotten.
    pub until: Timestamp,
    /// The answer.
    pub answer: SharedAnswer,
}

/// An answer that workers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SharedAnswer {
    /// Yes, with the fact's bytes.
    Yes(Vec<u8>),
    /// No: a tombstone, which keeps a yes that was asked for earlier from coming back.
    No,
}

/// What is to be done with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Write,
    Leave,
}

impl Sealer {
    /// The keys for an endpoint. `secret`: what the gate shows it; `fingerprint`: where it is and
    /// who the gate is there.
    pub(crate) fn new(secret: &str, fingerprint: Fingerprint) -> Self {
        let key = |purpose: &[u8]| {
            tag(keyed(secret.as_bytes()), &[b"avnology_gate 1", purpose, fingerprint.bytes()])
        };
        Self { digests: Seed(first_half(key(b"digest"))), seals: keyed(&key(b"seal")) }
    }

    /// Where the answer to the question with these parts is.
    pub(crate) fn key(self: &Arc<Self>, kind: Kind, question: &[&[u8]]) -> SharedKey {
        let digest = FactKey::of(self.digests, question.iter().copied()).bytes();
        // The digest's own bits: it is read where the slot is, by whoever can read there.
        let slot = u32::from_le_bytes(digest.first_chunk().copied().unwrap_or_default()) % SLOTS;
        SharedKey { sealer: Arc::clone(self), kind, slot, digest }
    }

    fn seal(&self, slot: u32, value: &[u8]) -> [u8; 16] {
        first_half(tag(self.seals.clone(), &[&slot.to_le_bytes(), value]))
    }
}

impl SharedKey {
    /// The slot's name.
    pub(crate) fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Token => "token",
            Kind::Permission => "permission",
        };
        format!("avnology_gate/1/{kind}/{}", self.slot)
    }

    /// The answer to this question, if these bytes are one that the gate has sealed.
    pub(crate) fn open(&self, bytes: &[u8]) -> Option<SharedEntry> {
        let (digest, entry) = self.unseal(bytes)?;
        (digest == self.digest).then_some(entry)
    }

    /// What to write in the place of these bytes; `None` where they must stay.
    ///
    /// Only what is later replaces an answer to the same question. A no takes the slot of another
    /// question, and keeps it from every yes until it may be forgotten.
    pub(crate) fn replace(
        &self,
        bytes: Option<&[u8]>,
        entry: &SharedEntry,
        now: Timestamp,
    ) -> Option<Vec<u8>> {
        let there = bytes.and_then(|bytes| self.unseal(bytes));
        (self.claim(there, entry, now) == Claim::Write).then(|| self.value(entry))
    }

    fn claim(&self, there: Option<([u8; 16], SharedEntry)>, entry: &SharedEntry, now: Timestamp) -> Claim {
        let Some((digest, there)) = there else { return Claim::Write };
        // One from the future was written before the clock went backwards.
        if now > there.until || there.started > now {
            return Claim::Write;
        }
        let is_later = match entry.answer {
            SharedAnswer::Yes(_) => entry.started > there.started,
            SharedAnswer::No => entry.started >= there.started,
        };
        let may_write = match (digest == self.digest, &entry.answer, &there.answer) {
            (true, _, _) => is_later,
            (false, SharedAnswer::No, _) | (false, SharedAnswer::Yes(_), SharedAnswer::Yes(_)) => true,
            (false, SharedAnswer::Yes(_), SharedAnswer::No) => false,
        };
        if may_write { Claim::Write } else { Claim::Leave }
    }

    fn value(&self, entry: &SharedEntry) -> Vec<u8> {
        let (kind, payload): (u8, &[u8]) = match &entry.answer {
            SharedAnswer::Yes(payload) => (1, payload),
            SharedAnswer::No => (0, &[]),
        };
        let mut value = vec![VERSION];
        value.extend(self.digest);
        value.push(kind);
        value.extend(entry.started.as_nanos().to_le_bytes());
        value.extend(entry.until.as_nanos().to_le_bytes());
        value.extend(payload);
        let seal = self.sealer.seal(self.slot, &value);
        value.extend(seal);
        value
    }

    /// A value with a good seal, whatever question it answers.
    fn unseal(&self, bytes: &[u8]) -> Option<([u8; 16], SharedEntry)> {
        // Nothing of ours is longer, and what is not ours costs no more than a look.
        let (value, seal) = bytes.split_last_chunk::<16>().filter(|_| bytes.len() <= MAX_VALUE)?;
        // Compared in constant time: whoever can write to the slots must not find a seal byte by
        // byte.
        let mut mac = self.sealer.seals.clone();
        update(&mut mac, &[&self.slot.to_le_bytes(), value]);
        mac.verify_truncated_left(seal).ok()?;
        let (version, rest) = value.split_first()?;
        let (digest, rest) = rest.split_first_chunk::<16>()?;
        let (kind, rest) = rest.split_first()?;
        let (started, rest) = rest.split_first_chunk::<8>()?;
        let (until, payload) = rest.split_first_chunk::<8>()?;
        let answer = match (version, kind) {
            (&VERSION, 0) => SharedAnswer::No,
            (&VERSION, 1) => SharedAnswer::Yes(payload.to_vec()),
            _ => return None,
        };
        let at = |nanos: &[u8; 8]| Timestamp::from_nanos(u64::from_le_bytes(*nanos));
        Some((*digest, SharedEntry { started: at(started), until: at(until), answer }))
    }
}

impl SharedEntry {
    /// An answer that is worth keeping for this long.
    pub(crate) fn new(answer: SharedAnswer, started: Timestamp, max_ttl: Duration) -> Self {
        Self { started, until: started.saturating_add(max_ttl), answer }
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of any length; the other branch has no path.
    Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| <Hmac<Sha256> as Mac>::new(&Default::default()))
}

fn update(mac: &mut Hmac<Sha256>, parts: &[&[u8]]) {
    for part in parts {
        mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        mac.update(part);
    }
}

fn tag(mut mac: Hmac<Sha256>, parts: &[&[u8]]) -> [u8; 32] {
    update(&mut mac, parts);
    mac.finalize().into_bytes().into()
}

/// Of the value's layout and the facts' in it. Another one is a miss.
const VERSION: u8 = 1;

/// Slots of a process, of each kind. With a thousand tokens about fifteen pairs meet in one; a host
/// spends 100 bytes on a slot beside its value.
const SLOTS: u32 = 32_768;

/// The longest payload that is shared, in bytes: all slots together stay below a bound.
pub(crate) const MAX_PAYLOAD: usize = 2048;

/// The longest value: a payload with what stands around it.
const MAX_VALUE: usize = MAX_PAYLOAD + 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(secret: &str) -> Arc<Sealer> {
        Arc::new(Sealer::new(secret, Fingerprint::of(&["cluster"])))
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn yes(started: u64) -> SharedEntry {
        SharedEntry::new(SharedAnswer::Yes(b"fact".to_vec()), at(started), Duration::from_secs(30))
    }

    fn no(started: u64) -> SharedEntry {
        SharedEntry::new(SharedAnswer::No, at(started), Duration::from_secs(30))
    }

    #[test]
    fn only_what_was_sealed_for_this_question_slot_and_secret_is_read() {
        let place = sealer("s").key(Kind::Token, &[b"token"]);
        let value = place.replace(None, &yes(1), at(1)).unwrap();
        assert_eq!(place.open(&value), Some(yes(1)));
        for nth in 0..value.len() {
            let mut forged = value.clone();
            forged[nth] ^= 1;
            assert_eq!(place.open(&forged), None, "byte {nth}");
            assert_eq!(place.open(&value[..nth]), None, "cut at {nth}");
        }
        assert_eq!(place.open(b""), None);
        let other = SharedKey { digest: sealer("s").key(Kind::Token, &[b"other"]).digest, ..place.clone() };
        assert_eq!(other.open(&value), None, "another question in the same slot");
        assert_eq!(SharedKey { slot: place.slot ^ 1, ..place.clone() }.open(&value), None, "another slot");
        assert_eq!(SharedKey { sealer: sealer("x"), ..place }.open(&value), None, "another secret");
        let elsewhere = Arc::new(Sealer::new("s", Fingerprint::of(&["elsewhere"])));
        assert_ne!(
            elsewhere.key(Kind::Token, &[b"token"]).digest,
            sealer("s").key(Kind::Token, &[b"token"]).digest
        );
    }

    #[test]
    fn what_was_asked_for_later_stays() {
        let place = sealer("s").key(Kind::Token, &[b"token"]);
        let writes = |there: &SharedEntry, entry: &SharedEntry, now: u64| {
            place.replace(Some(&place.value(there)), entry, at(now)).is_some()
        };
        assert!(writes(&yes(1), &yes(2), 3) && !writes(&yes(2), &yes(2), 3) && !writes(&yes(2), &yes(1), 3));
        assert!(writes(&yes(1), &no(1), 3) && !writes(&yes(2), &no(1), 3));
        assert!(writes(&no(1), &yes(2), 3) && !writes(&no(1), &yes(1), 3));
        assert!(writes(&yes(9), &yes(2), 3), "one from the future");
        assert!(writes(&no(5), &yes(2), 36), "one that may be forgotten");
        assert!(place.replace(Some(b"foreign"), &yes(1), at(1)).is_some());
    }

    #[test]
    fn a_tombstone_keeps_its_slot_from_others_for_its_time() {
        let place = sealer("s").key(Kind::Token, &[b"token"]);
        let other = SharedKey { digest: [7; 16], ..place.clone() };
        assert!(other.replace(Some(&place.value(&yes(5))), &yes(1), at(6)).is_some());
        assert!(other.replace(Some(&place.value(&yes(5))), &no(1), at(6)).is_some());
        assert!(other.replace(Some(&place.value(&no(5))), &yes(6), at(35)).is_none());
        assert!(other.replace(Some(&place.value(&no(5))), &yes(6), at(36)).is_some());
        assert!(other.replace(Some(&place.value(&no(5))), &no(1), at(6)).is_some());
    }
}
