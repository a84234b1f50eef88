//! The signatures of a delivery, and what else its head says under them.

use super::format::{Encoding, Format, Grammar, Names, Piece};
use crate::http::head::{Reading, RequestHead};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// What a head claims: nothing of it is authentic yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    /// The bytes of each signature, all of the algorithm's length.
    pub(super) signatures: Vec<Vec<u8>>,
    /// Plain decimal digits.
    pub(super) timestamp: Option<String>,
    /// Visible ASCII.
    pub(super) id: Option<String>,
}

impl Claimed {
    /// What this head claims; `None` if anything is missing, damaged or doubled.
    pub(super) fn read(format: &Format, head: &RequestHead<'_>) -> Option<Self> {
        let names = names_of(format, head)?;
        let header = one(head, &names.signature)?;
        let mut claimed = Self { signatures: Vec::new(), timestamp: None, id: None };
        claimed.read_signatures(format, std::str::from_utf8(&header).ok()?)?;
        if let Some(name) = &names.timestamp {
            claimed.timestamp = Some(plain_digits(&one(head, name)?)?);
        }
        if let Some(name) = &names.id {
            claimed.id = Some(plain_id(&one(head, name)?, format.behind_id())?);
        }
        // What the format signs is there: the two agree, or nothing could be verified.
        let has = |piece| match piece {
            &Piece::Timestamp => claimed.timestamp.is_some(),
            &Piece::Id => claimed.id.is_some(),
            Piece::Literal(_) => true,
        };
        format.content.iter().all(has).then_some(claimed)
    }

    fn read_signatures(&mut self, format: &Format, header: &str) -> Option<()> {
        let length = format.algorithm.tag_len();
        match &format.grammar {
            Grammar::One(prefix) => {
                let text = header.strip_prefix(&**prefix)?;
                self.signatures.push(format.encoding.decode(text, length)?);
            }
            Grammar::Versioned => {
                for item in header.split(' ').filter(|item| !item.is_empty()) {
                    let (version, text) = item.split_once(',')?;
                    if version == "v1" {
                        self.signatures.push(format.encoding.decode(text, length)?);
                    }
                }
            }
            Grammar::Pairs => {
                for item in header.split(',') {
                    match item.split_once('=')? {
                        ("t", _) if self.timestamp.is_some() => return None,
                        ("t", time) => self.timestamp = Some(plain_digits(time.as_bytes())?),
                        ("v1", text) => self.signatures.push(format.encoding.decode(text, length)?),
                        _ => {}
                    }
                }
            }
        }
        (1..=MAX_SIGNATURES).contains(&self.signatures.len()).then_some(())
    }
}

impl Encoding {
    /// The bytes, if there are so many, and the text is exactly their encoding.
    pub(super) fn decode(self, text: &str, length: usize) -> Option<Vec<u8>> {
        let bytes = match self {
            Self::Hex => base16ct::lower::decode_vec(text).ok(),
            // No other text has the same bytes: neither padding nor the last bits are free.
            Self::Base64 => STANDARD.decode(text).ok(),
        };
        bytes.filter(|bytes| bytes.len() == length)
    }

    /// The text of these bytes, for whoever signs.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => base16ct::lower::encode_string(bytes),
            Self::Base64 => STANDARD.encode(bytes),
        }
    }
}

/// The set of names that counts: a delivery that mixes two is judged by the first.
pub(super) fn names_of<'f>(format: &'f Format, head: &RequestHead<'_>) -> Option<&'f Names> {
    let is_there = |names: &&Names| {
        let all = [Some(&names.signature), names.timestamp.as_ref(), names.id.as_ref()];
        all.into_iter().flatten().any(|name| head.mentions(name))
    };
    format.names.iter().find(is_there).or(format.names.first())
}

fn one<'a>(head: &RequestHead<'a>, name: &str) -> Option<Cow<'a, [u8]>> {
    match head.read(name) {
        Reading::One(value) => Some(value),
        Reading::Missing | Reading::Ambiguous => None,
    }
}

/// Decimal digits without a sign or a leading zero: a time has one spelling.
fn plain_digits(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let is_plain = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    is_plain.then(|| text.to_owned())
}

/// An id without the byte that ends it in what is signed.
pub(super) fn plain_id(text: &[u8], end: Option<u8>) -> Option<String> {
    let is_plain = (1..=MAX_ID).contains(&text.len())
        && text.iter().all(|b| (b'!'..=b'~').contains(b) && Some(*b) != end);
    is_plain.then(|| String::from_utf8(text.to_vec()).ok())?
}

/// The most signatures of a delivery that are compared: a sender has two while it rotates.
pub(crate) const MAX_SIGNATURES: usize = 16;

/// The longest id, in bytes.
pub(crate) const MAX_ID: usize = 256;

#[cfg(test)]
mod tests {
    use super::super::format::known;
    use super::*;
    use crate::http::head::head_of;

    const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const B64: &str = "ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=";

    fn read(format: &str, headers: &[(&str, &str)]) -> Option<(usize, Option<String>, Option<String>)> {
        let format = known(format).unwrap();
        let claimed = Claimed::read(format, &head_of(headers, false))?;
        Some((claimed.signatures.len(), claimed.timestamp, claimed.id))
    }

    fn some(
        n: usize,
        timestamp: Option<&str>,
        id: Option<&str>,
    ) -> Option<(usize, Option<String>, Option<String>)> {
        Some((n, timestamp.map(str::to_owned), id.map(str::to_owned)))
    }

    #[test]
    fn stripe_names_its_time_beside_its_signatures() {
        let stripe = |header: &str| read("stripe", &[("stripe-signature", header)]);
        assert_eq!(stripe(&format!("t=12,v1={HEX}")), some(1, Some("12"), None));
        assert_eq!(stripe(&format!("t=12,v1={HEX},v1={HEX},v0=junk")), some(2, Some("12"), None));
        for damaged in [
            format!("v1={HEX}"),
            "t=12".to_owned(),
            format!("t=12,v0={HEX}"),
            format!("t=12,t=12,v1={HEX}"),
            format!("t=012,v1={HEX}"),
            format!("t=12, v1={HEX}"),
            format!("t=12,v1={HEX},"),
            format!("t=12,v1={HEX}00"),
            format!("t=12,v1={}", HEX.to_uppercase()),
            String::new(),
        ] {
            assert_eq!(stripe(&damaged), None, "{damaged}");
        }
    }

    #[test]
    fn standard_webhooks_have_versions_and_an_id_without_dots() {
        let standard = |signature: &str, id: &str| {
            let time = ("webhook-timestamp", "12");
            read("standard-webhooks", &[("webhook-signature", signature), ("webhook-id", id), time])
        };
        let one = format!("v1,{B64}");
        assert_eq!(standard(&one, "msg_1"), some(1, Some("12"), Some("msg_1")));
        assert_eq!(standard(&format!("v1a,x {one} v1,{B64}"), "msg_1"), some(2, Some("12"), Some("msg_1")));
        for (signature, id) in [
            (one.as_str(), "msg.1"),
            (&one, "msg 1"),
            (&one, ""),
            (&one, &"m".repeat(257)),
            (&format!("v1a,{B64}"), "msg_1"),
            (B64, "msg_1"),
            (&format!("v1,{}", B64.trim_end_matches('=')), "msg_1"),
            (&format!("v1,{}9=", &B64[..42]), "msg_1"),
            (&format!("{one},{one}"), "msg_1"),
            (&vec![one.as_str(); 17].join(" "), "msg_1"),
        ] {
            assert_eq!(standard(signature, id), None, "{signature} {id}");
        }
    }

    #[test]
    fn svix_falls_back_only_where_none_of_its_own_headers_is_there() {
        let own = [
            ("svix-signature", format!("v1,{B64}")),
            ("svix-id", "a".into()),
            ("svix-timestamp", "1".into()),
        ];
        let other = [
            ("webhook-signature", format!("v1,{B64}")),
            ("webhook-id", "b".into()),
            ("webhook-timestamp", "2".into()),
        ];
        let svix = |headers: &[&(&str, String)]| {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            read("svix", &headers)
        };
        assert_eq!(svix(&own.each_ref()), some(1, Some("1"), Some("a")));
        assert_eq!(svix(&other.each_ref()), some(1, Some("2"), Some("b")));
        let both: Vec<_> = other.iter().chain(&own).collect();
        assert_eq!(svix(&both), some(1, Some("1"), Some("a")));
        for stray in ["svix-id", "svix_signature", "Svix-Timestamp"] {
            let stray = (stray, "1".to_owned());
            let mixed: Vec<_> = other.iter().chain([&stray]).collect();
            assert_eq!(svix(&mixed), None, "{}", stray.0);
        }
    }

    #[test]
    fn one_signature_stands_behind_its_prefix() {
        let github = |header: &str| read("github", &[("x-hub-signature-256", header)]);
        assert_eq!(github(&format!("sha256={HEX}")), some(1, None, None));
        for damaged in
            [HEX, &format!("sha1={HEX}"), &format!("SHA256={HEX}"), &format!("sha256={HEX},sha256={HEX}")]
        {
            assert_eq!(github(damaged), None, "{damaged}");
        }
        let slack = |time: &str| {
            let signature = format!("v0={HEX}");
            read("slack", &[("x-slack-signature", &signature), ("x-slack-request-timestamp", time)])
        };
        assert_eq!(slack("12"), some(1, Some("12"), None));
        assert_eq!(slack("+12"), None);
        assert_eq!(read("shopify", &[("x-shopify-hmac-sha256", B64)]), some(1, None, None));
        assert_eq!(read("shopify", &[("x-shopify-hmac-sha256", HEX)]), None);
    }
}
