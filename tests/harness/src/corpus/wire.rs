//! From a step to the bytes that a driver sends.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::{Absolute, Repeated, Sign, SinceBegin, Step, Text, Version, WEBHOOK_SECRET, When, WrittenTime};

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

impl Sign {
    fn headers(&self, body: &[u8], now: u64, begin: u64) -> Vec<(String, Vec<u8>)> {
        let secret = self.secret.as_deref().unwrap_or(WEBHOOK_SECRET);
        let timestamp = match &self.timestamp {
            When::Relative(offset) => now.saturating_add_signed(*offset).to_string(),
            When::Absolute(Absolute { absolute }) => absolute.to_string(),
            When::SinceBegin(SinceBegin { since_begin }) => {
                begin.saturating_add_signed(*since_begin).to_string()
            }
            When::Written(WrittenTime { text }) => text.replace("{now}", &now.to_string()),
        };
        let timestamp = unescape(&timestamp);
        let over = self.over.as_ref().map_or_else(|| body.to_vec(), Text::bytes);
        let signed = if self.body_only { over } else { [timestamp.as_slice(), b".", &over].concat() };
        // The scheme is Avnology's either way: HMAC-SHA256 over these bytes.
        let hex = standin::sign_body_only(secret, &signed);
        let usual = || {
            let mut headers = vec![("x-avnology-signature".to_owned(), "{hex}".to_owned())];
            if !self.body_only {
                headers.insert(0, ("x-avnology-timestamp".to_owned(), "{timestamp}".to_owned()));
            }
            headers
        };
        let fill = |template: &str| {
            let text = template
                .replace("{hex}", &hex)
                .replace("{HEX}", &hex.to_uppercase())
                .replace("{base64}", &base64(&hex));
            match text.split_once("{timestamp}") {
                Some((before, after)) => [unescape(before), timestamp.clone(), unescape(after)].concat(),
                None => unescape(&text),
            }
        };
        let headers = self.headers.clone().unwrap_or_else(usual);
        headers.into_iter().map(|(name, template)| (name, fill(&template))).collect()
    }
}

/// The base64 form of bytes in hex.
fn base64(hex: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    let mut out = String::new();
    for chunk in digits.chunks(6) {
        let bits = chunk.iter().fold(0, |bits, digit| bits << 4 | digit) << (4 * (6 - chunk.len()));
        for at in 0..4 {
            let has_bits = at * 6 < chunk.len() * 4;
            let index = (bits >> (18 - 6 * at)) as usize & 63;
            out.push(if has_bits { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    out
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

    #[test]
    fn base64_of_hex() {
        for (hex, expected) in
            [("", ""), ("66", "Zg=="), ("666f", "Zm8="), ("666f6f", "Zm9v"), ("fbff", "+/8=")]
        {
            assert_eq!(base64(hex), expected);
        }
    }

    #[test]
    fn a_body_is_signed_as_avnology_signs() {
        let sign = Sign { timestamp: When::Relative(-10), ..Sign::default() };
        let headers = sign.headers(b"{}", 1_000, 900);
        assert_eq!(headers[0], ("x-avnology-timestamp".to_owned(), b"990".to_vec()));
        assert_eq!(headers[1].1, standin::sign(WEBHOOK_SECRET, 990, b"{}").into_bytes());
        let sign = Sign { body_only: true, ..Sign::default() };
        let headers = sign.headers(b"{}", 1_000, 900);
        assert_eq!(
            headers,
            [(
                "x-avnology-signature".to_owned(),
                standin::sign_body_only(WEBHOOK_SECRET, b"{}").into_bytes()
            )]
        );
    }
}
