//! Senders, as the pages that describe them say: who signs what, and what holds. Nothing of
//! `src/webhook` is used.

use crate::gate::{Headers, NOW};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

/// How a sender writes its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// One signature behind some text.
    One,
    /// `t=…,v1=…,v1=…`.
    Stripe,
    /// `v1,… v1,…`.
    Standard,
}

/// A sender, and the webhook that is configured for it.
pub(super) struct Sender {
    pub(super) document: Value,
    style: Style,
    algorithm: &'static str,
    is_hex: bool,
    prefix: &'static str,
    /// With `{t}` and `{id}`; the body follows.
    content: &'static str,
    /// Of the signature, the time and the id; empty: none.
    names: Names,
    /// Those that count where one of them is there.
    instead: Option<Names>,
    /// Accepted are the first two.
    keys: [Vec<u8>; 3],
}

type Names = [&'static str; 3];

/// What a delivery that holds says.
pub(super) struct Expected {
    pub(super) key: usize,
    pub(super) time: Option<Vec<u8>>,
    pub(super) id: Option<Vec<u8>>,
}

const STANDARD_NAMES: Names = ["webhook-signature", "webhook-timestamp", "webhook-id"];
const SVIX_NAMES: Names = ["svix-signature", "svix-timestamp", "svix-id"];

/// One of each format that is known by its name, and custom ones.
pub(super) fn senders() -> Vec<Sender> {
    let known = |format, names| Sender::new(format, names);
    let versioned = |format, names| Sender {
        style: Style::Standard,
        is_hex: false,
        content: "{id}.{t}.",
        ..known(format, names)
    };
    let mut body_only = known("avnology", ["x-avnology-signature", "", ""]);
    body_only.document["body_only"] = json!(true);
    let timed = ["x-avnology-signature", "x-avnology-timestamp", ""];
    let slack = ["x-slack-signature", "x-slack-request-timestamp", ""];
    let mut all = vec![
        Sender { content: "{t}.", ..known("avnology", timed) },
        body_only,
        versioned("standard-webhooks", STANDARD_NAMES),
        versioned("svix", SVIX_NAMES),
        Sender { instead: Some(SVIX_NAMES), ..versioned("svix", STANDARD_NAMES) },
        Sender { style: Style::Stripe, content: "{t}.", ..known("stripe", ["stripe-signature", "", ""]) },
        Sender { prefix: "sha256=", ..known("github", ["x-hub-signature-256", "", ""]) },
        Sender { prefix: "v0=", content: "v0:{t}:", ..known("slack", slack) },
        Sender { is_hex: false, ..known("shopify", ["x-shopify-hmac-sha256", "", ""]) },
    ];
    for nth in 0..24 {
        all.push(Sender::custom(nth));
    }
    for (nth, sender) in all.iter_mut().enumerate() {
        // Of its own: no secret may stand under two webhooks.
        sender.keys = ["another key", "a webhook's key", "no key of ours"]
            .map(|key| format!("{key} of enough bytes {nth}").into_bytes());
        sender.document["secrets"] = json!([sender.secret(0), sender.secret(1)]);
    }
    all
}

impl Sender {
    fn new(format: &str, names: Names) -> Self {
        Self {
            document: json!({"format": format}),
            style: Style::One,
            algorithm: "sha256",
            is_hex: true,
            prefix: "",
            content: "",
            names,
            instead: None,
            keys: [const { Vec::new() }; 3],
        }
    }

    /// Every algorithm with every encoding of signatures and keys.
    fn custom(nth: usize) -> Self {
        let algorithm = ["sha1", "sha256", "sha512"][nth % 3];
        let is_hex = (nth / 3).is_multiple_of(2);
        let key = ["utf8", "hex", "base64", "whsec"][nth / 6];
        let content = ["", "{t}.", "{id}/{t}:", "v0:{t}:{id}.", "{id} x "][nth % 5];
        let prefix = ["", "sha=", "a b,"][nth / 5 % 3];
        let mut sender =
            Self { algorithm, is_hex, prefix, content, ..Self::new("custom", ["x-sig", "", ""]) };
        let custom = &mut sender.document["custom"];
        *custom = json!({"signature_header": "X-Sig", "algorithm": algorithm, "key": key,
            "encoding": if is_hex { "hex" } else { "base64" },
            "content": format!("{}{{body}}", content.replace("{t}", "{timestamp}"))});
        if !prefix.is_empty() {
            custom["prefix"] = json!(prefix);
        }
        if content.contains("{t}") {
            custom["timestamp_header"] = json!("x-time");
            sender.names[1] = "x-time";
        }
        if content.contains("{id}") {
            custom["id_header"] = json!("x-id");
            sender.names[2] = "x-id";
        }
        sender
    }

    /// A key as it stands in a document.
    fn secret(&self, nth: usize) -> String {
        let key = &self.keys[nth];
        let encoding = match self.style {
            Style::Standard => "whsec",
            _ => self.document["custom"]["key"].as_str().unwrap_or("utf8"),
        };
        match (encoding, nth) {
            ("utf8", _) => String::from_utf8(key.clone()).unwrap(),
            ("hex", 0) => hex(key),
            ("hex", _) => hex(key).to_uppercase(),
            ("base64", _) | ("whsec", 0) => STANDARD.encode(key),
            _ => format!("whsec_{}", STANDARD_NO_PAD.encode(key)),
        }
    }

    /// The text of a signature.
    pub(super) fn sign(&self, key: usize, time: &[u8], id: &[u8], body: &[u8]) -> String {
        let mut content = Vec::new();
        let mut rest = self.content;
        while let Some(first) = rest.chars().next() {
            let (piece, len): (&[u8], usize) = match rest {
                _ if rest.starts_with("{t}") => (time, 3),
                _ if rest.starts_with("{id}") => (id, 4),
                _ => (&rest.as_bytes()[..first.len_utf8()], first.len_utf8()),
            };
            content.extend_from_slice(piece);
            rest = &rest[len..];
        }
        content.extend_from_slice(body);
        let tag = tag(self.algorithm, &self.keys[key], &content);
        if self.is_hex { hex(&tag) } else { STANDARD.encode(tag) }
    }

    /// The headers that this sender sets; it has one signature where its style has room for one.
    pub(super) fn headers(
        &self,
        signatures: &[Vec<u8>],
        time: &[u8],
        id: &[u8],
    ) -> Vec<(&'static str, Vec<u8>)> {
        let all = |before: &[u8], between: &[u8]| {
            signatures.iter().map(|s| [before, s].concat()).collect::<Vec<_>>().join(between)
        };
        let value = match self.style {
            Style::One => [self.prefix.as_bytes(), &signatures[0]].concat(),
            Style::Stripe => [b"t=", time, b",", &all(b"v1=", b",")].concat(),
            Style::Standard => all(b"v1,", b" "),
        };
        let headers = [(self.names[0], value), (self.names[1], time.to_vec()), (self.names[2], id.to_vec())];
        headers.into_iter().filter(|(name, _)| !name.is_empty()).collect()
    }

    /// What these headers and this body are, to somebody who reads them slowly.
    pub(super) fn verify(&self, headers: &Headers, body: &[u8]) -> Option<Expected> {
        let is_there = |names: &Names| names.iter().any(|name| !named(headers, name).is_empty());
        let names = self.instead.filter(is_there).unwrap_or(self.names);
        let header = String::from_utf8(only(headers, names[0])?).ok()?;
        let mut signatures = Vec::new();
        let mut times = Vec::new();
        match self.style {
            Style::One => signatures.push(header.strip_prefix(self.prefix)?),
            Style::Stripe => {
                for item in header.split(',') {
                    match &item.splitn(2, '=').collect::<Vec<_>>()[..] {
                        ["t", time] => times.push(time.as_bytes().to_vec()),
                        ["v1", signature] => signatures.push(*signature),
                        [_, _] => {}
                        _ => return None,
                    }
                }
            }
            Style::Standard => {
                for item in header.split(' ') {
                    match &item.splitn(2, ',').collect::<Vec<_>>()[..] {
                        ["v1", signature] => signatures.push(*signature),
                        [_, _] | [""] => {}
                        _ => return None,
                    }
                }
            }
        }
        if signatures.is_empty() || signatures.len() > 16 || !signatures.iter().all(|s| self.is_formed(s)) {
            return None;
        }
        if !names[1].is_empty() {
            times.push(only(headers, names[1])?);
        }
        let time = if self.content.contains("{t}") { Some(times.first()?.clone()) } else { None };
        if times.len() > 1 || !time.iter().all(|time| is_near(time)) {
            return None;
        }
        let id = if names[2].is_empty() { None } else { Some(only(headers, names[2])?) };
        if let Some(id) = &id {
            let end = self.content.split("{id}").nth(1)?.bytes().next()?;
            if !(1..=256).contains(&id.len()) || id.iter().any(|b| !b.is_ascii_graphic() || *b == end) {
                return None;
            }
        }
        let holds = |key: usize| {
            let right =
                self.sign(key, time.as_deref().unwrap_or_default(), id.as_deref().unwrap_or_default(), body);
            signatures.contains(&right.as_str())
        };
        let key = [0, 1].into_iter().find(|key| holds(*key))?;
        Some(Expected { key, time, id })
    }

    /// Whether a signature could be one, right or wrong.
    fn is_formed(&self, signature: &str) -> bool {
        let length = match self.algorithm {
            "sha1" => 20,
            "sha256" => 32,
            _ => 64,
        };
        if self.is_hex {
            let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
            return signature.len() == length * 2 && signature.bytes().all(is_digit);
        }
        let bytes = STANDARD.decode(signature).unwrap_or_default();
        bytes.len() == length && STANDARD.encode(bytes) == signature
    }
}

/// The headers that some server reads under this name.
fn named<'h>(headers: &'h Headers, name: &str) -> Vec<&'h (Vec<u8>, Vec<u8>)> {
    let folded = |name: &[u8]| {
        let fold = |b: &u8| if b.is_ascii_alphanumeric() { b.to_ascii_lowercase() } else { b'-' };
        name.iter().map(fold).collect::<Vec<u8>>()
    };
    headers.iter().filter(|(other, _)| folded(other) == folded(name.as_bytes())).collect()
}

/// The value of a header that is there once, under its own name.
fn only(headers: &Headers, name: &str) -> Option<Vec<u8>> {
    match named(headers, name)[..] {
        [(own, value)] if own.to_ascii_lowercase() == name.as_bytes() => Some(value.clone()),
        _ => None,
    }
}

fn is_near(time: &[u8]) -> bool {
    let text = String::from_utf8_lossy(time);
    // A number has one spelling.
    text.parse::<u64>().is_ok_and(|at| at.to_string() == text && at.abs_diff(NOW.as_secs()) <= 300)
}

fn tag(algorithm: &str, key: &[u8], content: &[u8]) -> Vec<u8> {
    fn of<M: Mac>(mac: M, content: &[u8]) -> Vec<u8> {
        mac.chain_update(content).finalize().into_bytes().to_vec()
    }
    match algorithm {
        "sha1" => of(Hmac::<Sha1>::new_from_slice(key).unwrap(), content),
        "sha256" => of(Hmac::<Sha256>::new_from_slice(key).unwrap(), content),
        _ => of(Hmac::<Sha512>::new_from_slice(key).unwrap(), content),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The signature over these pieces, in lower-case hex.
pub(crate) fn signed(key: &[u8], pieces: &[&[u8]]) -> String {
    hex(&tag("sha256", key, &pieces.concat()))
}
