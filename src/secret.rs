//! Values that must not show: secrets of the configuration, tokens of requests, and the keyed hashes that stand for them.

use siphasher::sip128::{Hasher128, SipHasher24};
use std::fmt;
use std::hash::Hasher;

/// A value that never shows in logs, errors or debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for the one place that sends or compares it.
    pub const fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A bearer token as a request presented it: RFC 6750's `b64token`, at most [`MAX_TOKEN`] bytes.
pub type Token = Secret<String>;

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;

/// Random bytes that key every hash of this VM.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u8; 16]);

/// What identifies a fact: a keyed hash, so that nobody outside this VM can choose two questions with one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FactKey(u128);

impl FactKey {
    /// The key of a fact, from parts that are told apart by their length prefixes.
    pub fn of(seed: Seed, parts: &[&[u8]]) -> Self {
        let mut hasher = SipHasher24::new_with_key(&seed.0);
        for part in parts {
            hasher.write(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.write(part);
        }
        Self(hasher.finish128().as_u128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
    }

    #[test]
    fn parts_are_told_apart_and_the_seed_matters() {
        let seed = Seed([1; 16]);
        assert_eq!(FactKey::of(seed, &[b"ab", b"c"]), FactKey::of(seed, &[b"ab", b"c"]));
        assert_ne!(FactKey::of(seed, &[b"ab", b"c"]), FactKey::of(seed, &[b"a", b"bc"]));
        assert_ne!(FactKey::of(seed, &[b"ab"]), FactKey::of(seed, &[b"ab", b""]));
        assert_ne!(FactKey::of(seed, &[b"ab"]), FactKey::of(Seed([2; 16]), &[b"ab"]));
    }
}
