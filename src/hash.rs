//! Keyed hashes that replace secrets and queries, and the hashers of tables.

use sha2::{Digest, Sha256};
use siphasher::sip128::{Hash128, Hasher128, SipHasher24};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Random bytes that key every hash of this VM.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u8; 16]);

/// The key of a cached answer (a fact): a keyed hash, so that nobody outside this VM can find two
/// queries with the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FactKey([u64; 2]);

impl FactKey {
    /// The key of a fact, from parts that are hashed with length prefixes to keep them distinct.
    pub(crate) fn of<'p>(seed: Seed, parts: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let mut hasher = SipHasher24::new_with_key(&seed.0);
        for part in parts {
            hasher.write(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.write(part);
        }
        let Hash128 { h1, h2 } = hasher.finish128();
        Self([h1, h2])
    }

    /// Its bytes.
    pub(crate) fn bytes(self) -> [u8; 16] {
        let [first, second] = self.0;
        (u128::from(second) << 64 | u128::from(first)).to_le_bytes()
    }

    /// Half of it, for uses where a collision is harmless.
    pub(crate) const fn half(self) -> u64 {
        let [half, _] = self.0;
        half
    }

    /// An index below `places`, always the same for this key.
    pub(crate) fn place_among(self, places: usize) -> usize {
        // From other bits than those that tables use.
        let bits = usize::try_from(self.0[1] & 0xffff_ffff).unwrap_or_default();
        bits.checked_rem(places).unwrap_or_default()
    }
}

impl Hash for FactKey {
    /// Half of it: it is a hash already.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

/// For tables whose keys no client can choose: numbers that the host assigns, keyed hashes, names
/// from a configuration.
pub(crate) type TrustedKeyHasher = BuildHasherDefault<FibonacciHasher>;

/// A hasher of one number.
#[derive(Default)]
pub(crate) struct FibonacciHasher(u64);

impl Hasher for FibonacciHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.write_u64(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u16(&mut self, n: u16) {
        self.write_u64(n.into());
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    /// The discriminant of an enum.
    fn write_isize(&mut self, n: isize) {
        self.write_u64(u64::try_from(n).unwrap_or_default());
    }

    fn write_u64(&mut self, n: u64) {
        // Fibonacci hashing (Knuth, TAOCP 6.4): tables use the highest and the lowest bits.
        let product = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}

/// Identifies an endpoint and the gate's credentials there: the same in every worker, and no secret
/// can be derived from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The fingerprint of these parts, which are hashed with length prefixes to keep them distinct.
    pub(crate) fn of(parts: &[&str]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            digest.update(part);
        }
        Self(first_half(digest.finalize().into()))
    }

    /// Its bytes.
    pub(crate) const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// The first sixteen bytes.
pub(crate) fn first_half(bytes: [u8; 32]) -> [u8; 16] {
    bytes.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_apart_and_the_seed_matters() {
        let of = |seed, parts: &[&[u8]]| FactKey::of(seed, parts.iter().copied());
        let seed = Seed([1; 16]);
        assert_eq!(of(seed, &[b"ab", b"c"]), of(seed, &[b"ab", b"c"]));
        assert_ne!(of(seed, &[b"ab", b"c"]), of(seed, &[b"a", b"bc"]));
        assert_ne!(of(seed, &[b"ab"]), of(seed, &[b"ab", b""]));
        assert_ne!(of(seed, &[b"ab"]), of(Seed([2; 16]), &[b"ab"]));
    }
}
