//! Signature schemes as data: which headers, which encoding, what is signed.

/// How a sender signs its deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scheme {
    /// The header with the signature.
    pub signature: &'static str,
    /// How the signature is encoded.
    pub encoding: Encoding,
    /// The header with the signed time; `None` if none is signed.
    pub timestamp: Option<&'static str>,
    /// What is signed before the body.
    pub prefix: &'static [Signed],
}

/// How signature bytes are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Lower-case hexadecimal, nothing else.
    LowerHex,
}

/// A piece of what is signed before the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signed {
    /// The timestamp header's value.
    Timestamp,
    /// These bytes.
    Literal(&'static [u8]),
}

/// Avnology: HMAC-SHA256 over `<timestamp>.<body>`.
pub(crate) const AVNOLOGY: Scheme = Scheme {
    signature: "x-avnology-signature",
    encoding: Encoding::LowerHex,
    timestamp: Some("x-avnology-timestamp"),
    prefix: &[Signed::Timestamp, Signed::Literal(b".")],
};

/// Avnology's helpers that sign only the body.
pub(crate) const AVNOLOGY_BODY_ONLY: Scheme =
    Scheme { signature: "x-avnology-signature", encoding: Encoding::LowerHex, timestamp: None, prefix: &[] };

impl Encoding {
    /// The 32 bytes of an HMAC-SHA256; `None` if the text is not exactly their encoding.
    pub(crate) fn decode(self, text: &[u8]) -> Option<[u8; 32]> {
        let Self::LowerHex = self;
        let mut bytes = [0; 32];
        let decoded = base16ct::lower::decode(text, &mut bytes).ok()?.len();
        // It takes shorter texts as well, and leaves the rest of the bytes as they were.
        (decoded == bytes.len()).then_some(bytes)
    }
}
