//! A webhook.

use super::{
    Choice, Field, Flag, FlagOrTextsMap, MODES, Number, Object, Optional, Or, Required, Secrets, Span, ms,
    secs,
};
use crate::webhook::format::{Format, KNOWN};
use std::time::Duration;

pub(crate) const FORMAT: Field<Choice<Option<&Format>>, Required> = Field::new(
    "format",
    Choice { words: KNOWN },
    Required(""),
    "[how the sender signs](webhooks.md#formats); `custom`: as `custom` says",
);

pub(crate) const CUSTOM: Field<Object, Optional> = Field::new(
    "custom",
    Object,
    Optional::NONE,
    "beside `format: custom`: [how the sender signs](#custom-format)",
);

pub(crate) const SECRETS: Field<Secrets, Required> = Field::new(
    "secrets",
    Secrets,
    Required("a list of secrets"),
    "one or more, all accepted (rotation); at least 16 bytes. No secret may stand under two webhooks",
);

pub(crate) const ALLOW_SHORT_KEY: Field<Flag, Or<bool>> =
    Field::new("allow_short_key", Flag, Or(false), "accept shorter ones");

pub(crate) const BODY_ONLY: Field<Flag, Or<bool>> = Field::new(
    "body_only",
    Flag,
    Or(false),
    "`avnology` alone: the signature is over the body alone; no time is signed, so none is checked",
);

pub(crate) const TOLERANCE: Field<Span, Or<Duration>> = Field::new(
    "tolerance",
    Span { min: secs(1), max: secs(86_400) },
    Or(secs(300)),
    "how far the signed time may be from now, both ways",
);

pub(crate) const SIGNATURE_STATUS: Field<Number, Or<u32>> = Field::new(
    "signature_status",
    Number { min: 400, max: 499 },
    Or(401),
    "the status for a signature that does not hold, or a signed time that is out of tolerance. Some senders give \
     an endpoint up after a 4xx, and others only after `410`",
);

pub(crate) const EVENTS: Field<Object, Optional> =
    Field::new("events", Object, Optional::NONE, "[which events are taken](#events)");

pub(crate) const REPLAY: Field<Object, Optional> =
    Field::new("replay", Object, Optional::NONE, "[refuses a delivery that came before](#replay)");

pub(crate) const MAX_BODY_BYTES: Field<Number, Or<u32>> = Field::new(
    "max_body_bytes",
    // One body may not be longer than what a worker holds in all.
    Number { min: 1, max: 64 * 1024 * 1024 },
    Or(1_048_576),
    "longer is 413. Envoy's `per_connection_buffer_limit_bytes` must be larger. Of all webhooks together at \
     most 67108864: a worker has one full body of each in reserve",
);

pub(crate) const BODY_TIMEOUT: Field<Span, Or<Duration>> = Field::new(
    "body_timeout",
    Span { min: ms(1), max: secs(300) },
    Or(secs(10)),
    "slower is 408; its first byte is waited for two seconds at most",
);

pub(crate) const TRUST_SOURCE_ADDRESS: Field<Flag, Or<bool>> = Field::new(
    "trust_source_address",
    Flag,
    Or(false),
    "an address (Envoy's `source.address`; of IPv6 its first 64 bits) takes at most half of what the webhook may \
     receive and hold. Only where it is the sender's, and not a proxy's that all of them come through",
);

pub(crate) const MODE: Field<Choice<bool>, Optional> = Field::new(
    "mode",
    MODES,
    Optional::otherwise("the route's"),
    "the nearest word counts: webhook, route, document",
);

pub(crate) const ENFORCE_PERCENT: Field<Number, Optional> = Field::new(
    "enforce_percent",
    Number { min: 0, max: 100 },
    Optional::otherwise("0"),
    "beside `mode: shadow`: of so many clients in a hundred refusals are enforced. A client is the \
     address that a delivery comes from. From 1 on the webhook's events end what is cached, whoever sends them",
);

pub(crate) const EVICT: Field<FlagOrTextsMap, Or<bool>> = Field::new(
    "evict",
    FlagOrTextsMap,
    Or(false),
    "[whose cached answers its events end](webhooks.md#events-that-revoke): `true` for the table there, or type → \
     pointers to the subjects. Needs `replay`, a signed time, a type in the signed body, and an introspection \
     client with a secret",
);

/// `custom`.
pub(crate) mod custom {
    use super::super::{Choice, Field, Optional, Or, Required, Text};
    use crate::webhook::format::Encoding;
    use crate::webhook::key::KeyEncoding;
    use crate::webhook::mac::Algorithm;

    pub(crate) const SIGNATURE_HEADER: Field<Text, Required> =
        Field::new("signature_header", Text, Required("a header's name"), "the header with the signature");

    pub(crate) const PREFIX: Field<Text, Optional> =
        Field::new("prefix", Text, Optional::NONE, "what stands in it before the signature, as `sha256=`");

    pub(crate) const ALGORITHM: Field<Choice<Algorithm>, Or<Algorithm>> = Field::new(
        "algorithm",
        Choice {
            words: &[("sha256", Algorithm::Sha256), ("sha512", Algorithm::Sha512), ("sha1", Algorithm::Sha1)],
        },
        Or(Algorithm::Sha256),
        "the digest of the HMAC",
    );

    pub(crate) const ENCODING: Field<Choice<Encoding>, Or<Encoding>> = Field::new(
        "encoding",
        Choice { words: &[("hex", Encoding::Hex), ("base64", Encoding::Base64)] },
        Or(Encoding::Hex),
        "of the signature: lower-case hex, or base64 with its padding",
    );

    pub(crate) const KEY: Field<Choice<KeyEncoding>, Or<KeyEncoding>> = Field::new(
        "key",
        Choice {
            words: &[
                ("utf8", KeyEncoding::Utf8),
                ("hex", KeyEncoding::Hex),
                ("base64", KeyEncoding::Base64),
                ("whsec", KeyEncoding::Whsec),
            ],
        },
        Or(KeyEncoding::Utf8),
        "what a secret is: the key itself, or an encoding of it; `whsec`: base64 with or without padding and \
         `whsec_`",
    );

    pub(crate) const CONTENT: Field<Text, Or<&str>> = Field::new(
        "content",
        Text,
        Or("{body}"),
        "what is signed: text with `{timestamp}`, `{id}` and, last, `{body}`; behind each of the first two stands \
         text that begins with neither letter, digit, `-` nor `_`",
    );

    pub(crate) const TIMESTAMP_HEADER: Field<Text, Optional> = Field::new(
        "timestamp_header",
        Text,
        Optional::NONE,
        "the header with the signed time, in Unix seconds",
    );

    pub(crate) const ID_HEADER: Field<Text, Optional> =
        Field::new("id_header", Text, Optional::NONE, "the header with the signed id");
}

/// `replay`.
pub(crate) mod replay {
    use super::super::{Choice, Field, Number, Optional, Or, Span, secs};
    use crate::webhook::replay::ReplayBy;

    pub(crate) const WINDOW: Field<Span, Optional> = Field::new(
        "window",
        Span { min: secs(1), max: secs(172_800) },
        Optional::otherwise("twice the `tolerance`, or `600s` without one"),
        "how long a delivery is remembered; at least twice the `tolerance`, or one that was signed ahead of time \
         would pass again",
    );

    pub(crate) const BY: Field<Choice<ReplayBy>, Or<ReplayBy>> = Field::new(
        "by",
        Choice { words: &[("content", ReplayBy::Content), ("id", ReplayBy::Id)] },
        Or(ReplayBy::Content),
        "`content`: what is signed, which needs a signed time; a second one is refused. `id`: the event's id; a \
         second one is forwarded with `x-avnology-webhook-duplicate: true`",
    );

    pub(crate) const STATUS: Field<Number, Or<u32>> = Field::new(
        "status",
        Number { min: 200, max: 499 },
        Or(409),
        "the status for a second one, 2xx or 4xx. After a 2xx the sender does not try again, though the service may \
         never have had the first one",
    );

    pub(crate) const SLOTS: Field<Number, Or<u32>> = Field::new(
        "slots",
        Number { min: 64, max: 65_536 },
        Or(4096),
        "how many deliveries are remembered, at about 50 bytes each; rounded up to a power of two",
    );
}

/// `events`.
pub(crate) mod events {
    use super::super::{Field, Flag, OneOrMore, Optional, Or, Texts};

    pub(crate) const TYPE: Field<OneOrMore, Optional> = Field::new(
        "type",
        OneOrMore,
        Optional::otherwise("the format's"),
        "where the type stands: pointers into the body (`/event/type`) and header names; the first that is there \
         counts. A delivery without a type is 400, and so is one whose header and body both name one",
    );

    pub(crate) const ID: Field<OneOrMore, Optional> = Field::new(
        "id",
        OneOrMore,
        Optional::otherwise("the format's"),
        "the same for the id; a header only if the signature covers it",
    );

    pub(crate) const ALLOW: Field<Texts, Optional> = Field::new(
        "allow",
        Texts,
        Optional::otherwise("all"),
        "the types that are taken, with `*` for any characters; others are answered 202 and not forwarded",
    );

    pub(crate) const DENY: Field<Texts, Optional> =
        Field::new("deny", Texts, Optional::NONE, "those of them that are not taken");

    pub(crate) const CHALLENGE: Field<Flag, Or<bool>> = Field::new(
        "challenge",
        Flag,
        Or(false),
        "`slack` alone: a signed `url_verification` is answered by the gate",
    );
}
