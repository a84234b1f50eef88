//! How senders sign, as data: one table of the formats that are known by name, and the pieces that
//! a custom one is made of.
//!
//! A new format is a line in [`KNOWN`] with the page that it comes from, a vector in the tests and
//! a row in docs/webhooks.md.

use super::key::KeyEncoding;
use super::mac::Algorithm;
use std::borrow::Cow;

type Text = Cow<'static, str>;

/// How a sender signs its deliveries. What is signed ends with the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub algorithm: Algorithm,
    /// How the bytes of a signature are written.
    pub encoding: Encoding,
    /// What a configured secret is.
    pub key: KeyEncoding,
    /// How signatures stand in their header.
    pub grammar: Grammar,
    /// What is signed before the body.
    pub content: Cow<'static, [Piece]>,
    /// The headers' names; of several sets the first counts of which a header is there.
    pub names: Cow<'static, [Names]>,
    /// What the events of the format look like.
    pub events: EventPlaces,
}

/// The headers of a delivery, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    pub signature: Text,
    /// The signed time; `None` if none is signed, or if it stands beside the signature.
    pub timestamp: Option<Text>,
    /// The signed id.
    pub id: Option<Text>,
}

/// How signatures stand in their header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Grammar {
    /// One, behind this text.
    One(Text),
    /// Separated by spaces, each behind `v1,`; what is behind another version is not looked at.
    Versioned,
    /// Separated by commas, each behind `v1=`, beside the signed time behind `t=`; other names are
    /// not looked at.
    Pairs,
}

/// How the bytes of a signature are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Lower-case hexadecimal, nothing else.
    Hex,
    /// Base64 (RFC 4648 section 4) with its padding.
    Base64,
}

/// A piece of what is signed before the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The signed time, as its header has it.
    Timestamp,
    /// The signed id, as its header has it.
    Id,
    /// This text.
    Literal(Text),
}

/// Where an event's type and id stand, unless the configuration names other places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventPlaces {
    /// See [`super::event::Place`].
    pub kind: &'static [&'static str],
    /// The same for the id, beside a signed header.
    pub id: &'static [&'static str],
    /// Whether a body has only one of the places: one in two shapes could be read either way.
    pub exclusive: bool,
    /// Whether the body may be a form, with the event as JSON in its field `payload`.
    pub form: bool,
    /// Whether the sender asks an endpoint, with an event of its own, to say something back.
    pub challenge: bool,
}

const fn text(text: &'static str) -> Text {
    Cow::Borrowed(text)
}

const fn names(signature: &'static str, timestamp: Option<&'static str>, id: Option<&'static str>) -> Names {
    const fn some(name: Option<&'static str>) -> Option<Text> {
        match name {
            Some(name) => Some(text(name)),
            None => None,
        }
    }
    Names { signature: text(signature), timestamp: some(timestamp), id: some(id) }
}

const TIMESTAMP_DOT: &[Piece] = &[Piece::Timestamp, Piece::Literal(text("."))];
const ID_DOT_TIMESTAMP_DOT: &[Piece] =
    &[Piece::Id, Piece::Literal(text(".")), Piece::Timestamp, Piece::Literal(text("."))];

/// Avnology: HMAC-SHA256 over `<timestamp>.<body>`.
const AVNOLOGY: Format = avnology(TIMESTAMP_DOT, AVNOLOGY_NAMES);

/// Avnology's helpers that sign only the body.
pub(crate) const AVNOLOGY_BODY_ONLY: Format = avnology(&[], AVNOLOGY_BODY_ONLY_NAMES);

const AVNOLOGY_NAMES: &[Names] = &[names("x-avnology-signature", Some("x-avnology-timestamp"), None)];
const AVNOLOGY_BODY_ONLY_NAMES: &[Names] = &[names("x-avnology-signature", None, None)];

const fn avnology(content: &'static [Piece], names: &'static [Names]) -> Format {
    Format {
        algorithm: Algorithm::Sha256,
        encoding: Encoding::Hex,
        key: KeyEncoding::Utf8,
        grammar: Grammar::One(text("")),
        content: Cow::Borrowed(content),
        names: Cow::Borrowed(names),
        events: EventPlaces {
            kind: &["/event_type", "/type"],
            id: &["/event_id", "/id"],
            exclusive: true,
            form: false,
            challenge: false,
        },
    }
}

/// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
const STANDARD: Format = standard(STANDARD_NAMES);

const fn standard(names: &'static [Names]) -> Format {
    Format {
        algorithm: Algorithm::Sha256,
        encoding: Encoding::Base64,
        key: KeyEncoding::Whsec,
        grammar: Grammar::Versioned,
        content: Cow::Borrowed(ID_DOT_TIMESTAMP_DOT),
        names: Cow::Borrowed(names),
        events: EventPlaces { kind: &["/type"], id: &[], exclusive: false, form: false, challenge: false },
    }
}

const STANDARD_NAMES: &[Names] = &[names("webhook-signature", Some("webhook-timestamp"), Some("webhook-id"))];

/// <https://docs.svix.com/receiving/verifying-payloads/how-manual>
const SVIX: Format = standard(SVIX_NAMES);

const SVIX_NAMES: &[Names] = &[
    names("svix-signature", Some("svix-timestamp"), Some("svix-id")),
    names("webhook-signature", Some("webhook-timestamp"), Some("webhook-id")),
];

/// <https://docs.stripe.com/webhooks/signature>
const STRIPE: Format = Format {
    algorithm: Algorithm::Sha256,
    encoding: Encoding::Hex,
    key: KeyEncoding::Utf8,
    grammar: Grammar::Pairs,
    content: Cow::Borrowed(TIMESTAMP_DOT),
    names: Cow::Borrowed(&[names("stripe-signature", None, None)]),
    events: EventPlaces { kind: &["/type"], id: &["/id"], exclusive: false, form: false, challenge: false },
};

/// <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>
const GITHUB: Format = Format {
    algorithm: Algorithm::Sha256,
    encoding: Encoding::Hex,
    key: KeyEncoding::Utf8,
    grammar: Grammar::One(text("sha256=")),
    content: Cow::Borrowed(&[]),
    names: Cow::Borrowed(&[names("x-hub-signature-256", None, None)]),
    events: EventPlaces {
        kind: &["x-github-event"],
        id: &[],
        exclusive: false,
        form: true,
        challenge: false,
    },
};

/// <https://docs.slack.dev/authentication/verifying-requests-from-slack>
const SLACK: Format = Format {
    algorithm: Algorithm::Sha256,
    encoding: Encoding::Hex,
    key: KeyEncoding::Utf8,
    grammar: Grammar::One(text("v0=")),
    content: Cow::Borrowed(&[Piece::Literal(text("v0:")), Piece::Timestamp, Piece::Literal(text(":"))]),
    names: Cow::Borrowed(&[names("x-slack-signature", Some("x-slack-request-timestamp"), None)]),
    events: EventPlaces {
        kind: &["/event/type", "/type"],
        id: &["/event_id"],
        exclusive: false,
        form: true,
        challenge: true,
    },
};

/// <https://shopify.dev/docs/apps/build/webhooks/subscribe/https>
const SHOPIFY: Format = Format {
    algorithm: Algorithm::Sha256,
    encoding: Encoding::Base64,
    key: KeyEncoding::Utf8,
    grammar: Grammar::One(text("")),
    content: Cow::Borrowed(&[]),
    names: Cow::Borrowed(&[names("x-shopify-hmac-sha256", None, None)]),
    events: EventPlaces {
        kind: &["x-shopify-topic"],
        id: &[],
        exclusive: false,
        form: false,
        challenge: false,
    },
};

/// Every format by its name; what `custom` is, the configuration says.
pub(crate) const KNOWN: &[(&str, Option<&Format>)] = &[
    ("avnology", Some(&AVNOLOGY)),
    ("standard-webhooks", Some(&STANDARD)),
    ("stripe", Some(&STRIPE)),
    ("github", Some(&GITHUB)),
    ("slack", Some(&SLACK)),
    ("shopify", Some(&SHOPIFY)),
    ("svix", Some(&SVIX)),
    ("custom", None),
];

/// The format of this name, unless it is `custom`.
pub(crate) fn known(name: &str) -> Option<&'static Format> {
    KNOWN.iter().find(|(known, _)| *known == name).and_then(|(_, format)| *format)
}

impl Format {
    /// Whether a time is signed.
    pub(crate) fn signs_time(&self) -> bool {
        self.content.contains(&Piece::Timestamp)
    }

    /// Whether an id is signed.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn signs_id(&self) -> bool {
        self.content.contains(&Piece::Id)
    }

    /// Whether the signature covers this header's value.
    pub(crate) fn signs_header(&self, name: &str) -> bool {
        let is_named = |header: &Option<Text>| header.as_ref().is_some_and(|header| header == name);
        self.names.iter().any(|names| {
            (is_named(&names.timestamp) && self.signs_time())
                || (is_named(&names.id) && self.content.contains(&Piece::Id))
        })
    }

    /// The byte that an id must not hold, since the text behind it begins with it.
    pub(super) fn behind_id(&self) -> Option<u8> {
        let at = self.content.iter().position(|piece| *piece == Piece::Id)?;
        match self.content.get(at.saturating_add(1)) {
            Some(Piece::Literal(text)) => text.bytes().next(),
            _ => None,
        }
    }
}
