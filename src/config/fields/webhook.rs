//! A webhook.

use super::{Choice, Field, Flag, MODES, Number, Optional, Or, Required, Secrets, Span, ms, secs};
use std::time::Duration;

pub(crate) const FORMAT: Field<Choice<()>, Required> = Field::new(
    "format",
    Choice { words: &[("avnology", ())] },
    Required(""),
    "`avnology`: `X-Avnology-Signature`, lower-case hex HMAC-SHA256 of `<X-Avnology-Timestamp>.<body>`",
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
    "the signature is over the body alone; no time is signed, so none is checked, and nothing protects \
     against replay",
);

pub(crate) const TOLERANCE: Field<Span, Or<Duration>> = Field::new(
    "tolerance",
    Span { min: secs(1), max: secs(86_400) },
    Or(secs(300)),
    "how far the signed time may be from now, both ways",
);

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

/// Fields that are not implemented yet.
pub(crate) const NOT_BUILT: &[&str] = &["replay", "events", "evict", "headers", "template"];
