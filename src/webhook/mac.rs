//! HMAC (RFC 2104) with the digests that senders use.

use hmac::{Hmac, Mac as _};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

/// The digest of an HMAC. It is a webhook's, and no request chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// 20 bytes. HMAC does not need what SHA-1 has lost (RFC 6194 section 3.3).
    Sha1,
    /// 32 bytes.
    Sha256,
    /// 64 bytes.
    Sha512,
}

/// An HMAC that is being computed.
#[derive(Clone)]
pub(super) enum Mac {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha512(Box<Hmac<Sha512>>),
}

impl Algorithm {
    /// The length of its tags, in bytes.
    pub(super) fn tag_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl Mac {
    /// `None` if there is no HMAC with this key. HMAC takes a key of any length, so that would be a
    /// fault of the gate, and must not let a request pass.
    pub(super) fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        Some(match algorithm {
            Algorithm::Sha1 => Self::Sha1(Hmac::new_from_slice(key).ok()?),
            Algorithm::Sha256 => Self::Sha256(Hmac::new_from_slice(key).ok()?),
            Algorithm::Sha512 => Self::Sha512(Box::new(Hmac::new_from_slice(key).ok()?)),
        })
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(mac) => mac.update(bytes),
            Self::Sha256(mac) => mac.update(bytes),
            Self::Sha512(mac) => mac.update(bytes),
        }
    }

    /// Whether this is the tag: compared in constant time.
    pub(super) fn is(&self, tag: &[u8]) -> bool {
        match self {
            Self::Sha1(mac) => mac.clone().verify_slice(tag).is_ok(),
            Self::Sha256(mac) => mac.clone().verify_slice(tag).is_ok(),
            Self::Sha512(mac) => mac.clone().verify_slice(tag).is_ok(),
        }
    }

    /// The tag, for whoever signs.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn tag(self) -> Vec<u8> {
        match self {
            Self::Sha1(mac) => mac.finalize().into_bytes().to_vec(),
            Self::Sha256(mac) => mac.finalize().into_bytes().to_vec(),
            Self::Sha512(mac) => mac.finalize().into_bytes().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// RFC 2202 section 3 and RFC 4231 section 4.3, test case 2 of each.
    #[test]
    fn known_vectors() {
        let cases = [
            (Algorithm::Sha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (Algorithm::Sha256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            (
                Algorithm::Sha512,
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
        ];
        for (algorithm, expected) in cases {
            let mut mac = Mac::new(algorithm, b"Jefe").unwrap();
            mac.update(b"what do ya want ");
            mac.update(b"for nothing?");
            let tag = mac.clone().tag();
            assert_eq!(hex(&tag), expected);
            assert_eq!(tag.len(), algorithm.tag_len());
            assert!(mac.is(&tag));
            assert!(!mac.is(&tag[1..]) && !mac.is(b""));
            let mut other = tag;
            other[0] ^= 1;
            assert!(!mac.is(&other));
        }
    }
}
