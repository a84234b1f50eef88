//! From a step to the bytes that a driver sends.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::{Repeated, Step, Text, Version};

/// A request, ready for the wire.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// The method.
    pub method: Vec<u8>,
    /// The target; `None` leaves it out.
    pub path: Option<Vec<u8>>,
    /// The authority; `None` leaves it out.
    pub authority: Option<Vec<u8>>,
    /// All further headers, in order, names as written; no framing header unless the case wrote it.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Option<Vec<u8>>,
    /// How many pieces; with `Some`, no content-length.
    pub chunks: Option<usize>,
    /// Trailers, in order.
    pub trailers: Vec<(String, Vec<u8>)>,
    /// Withhold the body's last byte.
    pub incomplete: bool,
    /// One HTTP version only.
    pub version: Option<Version>,
    /// These bytes instead of everything above.
    pub bytes: Option<Vec<u8>>,
}

impl Step {
    /// The request for the wire, signed at `now` in a case that began at `begin`, both in Unix
    /// seconds; `None` if the step sends none.
    pub fn outgoing(&self, now: u64, begin: u64) -> Option<Outgoing> {
        let request = self.request.as_ref()?;
        let omitted = |name: &str| request.omit.iter().any(|o| o == name);
        let pairs =
            |pairs: &[(String, Text)]| pairs.iter().map(|(n, v)| (n.clone(), v.bytes())).collect::<Vec<_>>();
        let body = request.body.as_ref().map(Text::bytes);
        let mut headers = pairs(&request.headers);
        if let Some(sign) = &self.sign {
            headers.extend(sign.headers(body.as_deref().unwrap_or_default(), now, begin));
        }
        Some(Outgoing {
            method: unescape(&request.method),
            path: (!omitted(":path")).then(|| request.path.bytes()),
            authority: (!omitted(":authority")).then(|| unescape(&request.authority)),
            headers,
            body,
            chunks: request.chunks,
            trailers: pairs(&request.trailers),
            incomplete: request.incomplete,
            version: request.version,
            bytes: request
                .bytes
                .as_ref()
                .map(|bytes| unescape(&bytes.replace("\\r", "\r").replace("\\n", "\n"))),
        })
    }
}

impl Text {
    /// The bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Plain(text) => unescape(text),
            Self::Repeated(Repeated { repeat, count, before, after }) => {
                [unescape(before), unescape(repeat).repeat(*count), unescape(after)].concat()
            }
        }
    }
}

/// Text to bytes; `\xNN` is one byte, and every other backslash is itself.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escaped = after
            .strip_prefix(b"x")
            .filter(|_| *byte == b'\\')
            .and_then(|digits| digits.split_at_checked(2))
            .and_then(|(digits, after)| {
                Some((u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?, after))
            });
        let (byte, after) = escaped.unwrap_or((*byte, after));
        out.push(byte);
        rest = after;
    }
    out
}

/// The SHA-256 of bytes, in lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_escaped_and_everything_else_is_itself() {
        assert_eq!(unescape(r"a\xffb\n\x0"), b"a\xffb\\n\\x0");
        assert_eq!(unescape("ü"), "ü".as_bytes());
    }
}
