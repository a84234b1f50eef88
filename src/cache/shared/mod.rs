//! The second level: facts that all workers of a process share, in a store that other plugins may
//! write to.
//!
//! A yes has a slot ([`yes`]) and a no a place in a bucket ([`no`]), so that no flood of one kind
//! pushes the other out. Slots and buckets are few and fixed, since a host never frees one: a
//! fact's key chooses its own. Places, digests (SipHash-2-4-128) and seals (HMAC-SHA256) have keys
//! that come from the secret which the gate shows the endpoint, so that nobody else can find out
//! where a token is, or make a value that is believed. Whoever can write may put an older value
//! back: a fact's own age bounds what that brings.

mod bucket;
mod evicted;
mod no;
mod seen;
mod yes;

pub(crate) use evicted::{EMPTY, Generation, PAGES, Page, STAMPS, SubjectSlot, Subjects};
pub(crate) use no::NoReading;
pub(crate) use seen::{Note, SeenKey};
pub(crate) use yes::SharedYes;

use crate::hash::{FactKey, Fingerprint, Seed, first_half};
use crate::time::Timestamp;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;
use std::sync::Arc;

/// The keys of one endpoint's places.
#[derive(Clone)]
pub(crate) struct Sealer {
    digests: Seed,
    /// It is keyed once, since that costs as much as a short message.
    seals: Hmac<Sha256>,
    /// What tells the endpoint's buckets from those of others.
    name: u32,
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
    digest: [u8; 16],
}

/// What a question is about. Each kind has places of its own: a caller chooses what permissions are
/// asked for, and must not so choose which token's answer is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A token.
    Token,
    /// A permission.
    Permission,
}

/// What a value is sealed for.
#[derive(Clone, Copy)]
enum Place {
    /// A slot for a yes.
    Yes(Kind, u32),
    /// A bucket for a no.
    No(Kind, u32),
    /// A bucket for what was seen.
    Seen(u32),
    /// A page of subjects' stamps.
    Page(u32),
    /// How often pages were written.
    Generation,
}

impl Place {
    fn bytes(self) -> [u8; 6] {
        let byte = |kind| match kind {
            Kind::Token => b't',
            Kind::Permission => b'p',
        };
        let (answer, kind, number) = match self {
            Self::Yes(kind, number) => (b'y', byte(kind), number),
            Self::No(kind, number) => (b'n', byte(kind), number),
            Self::Seen(number) => (b's', 0, number),
            Self::Page(number) => (b'e', b'p', number),
            Self::Generation => (b'e', b'g', 0),
        };
        let [a, b, c, d] = number.to_le_bytes();
        [answer, kind, a, b, c, d]
    }
}

impl Kind {
    fn id(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Permission => "permission",
        }
    }
}

impl Sealer {
    /// The keys for an endpoint. `secret`: what the gate shows it; `fingerprint`: where it is and
    /// who the gate is there.
    pub(crate) fn new(secret: &[u8], fingerprint: Fingerprint) -> Self {
        let key = |purpose: &[u8]| tag(keyed(secret), &[b"avnology_gate 2", purpose, fingerprint.bytes()]);
        let name = key(b"name");
        Self {
            digests: Seed(first_half(key(b"digest"))),
            seals: keyed(&key(b"seal")),
            name: u32::from_le_bytes(name.first_chunk().copied().unwrap_or_default()),
        }
    }

    /// Where the answer to the question with these parts is.
    pub(crate) fn key(self: &Arc<Self>, kind: Kind, question: &[&[u8]]) -> SharedKey {
        let digest = FactKey::of(self.digests, question.iter().copied()).bytes();
        SharedKey { sealer: Arc::clone(self), kind, digest }
    }

    /// The value with its seal. `place`: where it is written, and it is good nowhere else.
    fn seal(&self, place: Place, mut value: Vec<u8>) -> Vec<u8> {
        let seal: [u8; 16] = first_half(tag(self.seals.clone(), &[&place.bytes(), &value]));
        value.extend(seal);
        value
    }

    /// What was sealed for this place.
    fn open<'v>(&self, place: Place, bytes: &'v [u8]) -> Option<&'v [u8]> {
        let (value, seal) = bytes.split_last_chunk::<16>()?;
        // It is compared in constant time: whoever can write to the store must not find a seal byte
        // by byte.
        let mut mac = self.seals.clone();
        update(&mut mac, &[&place.bytes(), value]);
        mac.verify_truncated_left(seal).ok()?;
        Some(value)
    }
}

impl SharedKey {
    /// One of so many places. By the digest's own bits: whoever can read the place reads them
    /// there.
    fn place_among(&self, places: u32) -> u32 {
        let bits = u32::from_le_bytes(self.digest.first_chunk().copied().unwrap_or_default());
        bits.checked_rem(places).unwrap_or_default()
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

fn timestamp(nanos: &[u8; 8]) -> Timestamp {
    Timestamp::from_nanos(u64::from_le_bytes(*nanos))
}

/// Of the values' layout and the facts' in them. Another one is a miss.
const VERSION: u8 = 2;
