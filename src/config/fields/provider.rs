//! The provider, its endpoints, and as whom it is asked.

use super::{
    Choice, Field, Flag, Number, Object, ObjectOrOff, Optional, Or, Required, RequiredLater, SECRET_SHAPE,
    Secret, Span, Text, TextMap, ms, secs,
};
use crate::config::raw::ClientAuthMethod;
use std::time::Duration;

pub(crate) const CLUSTER: Field<Text, RequiredLater> = Field::new(
    "cluster",
    Text,
    RequiredLater("the name of an Envoy cluster"),
    "the name of the Envoy cluster that leads to it",
);

pub(crate) const AUTHORITY: Field<Text, RequiredLater> =
    Field::new("authority", Text, RequiredLater("the provider's host name"), "its host name");

pub(crate) const TIMEOUT: Field<Span, Or<Duration>> = Field::new(
    "timeout",
    Span { min: ms(1), max: secs(60) },
    Or(secs(1)),
    "for one callout; no decision takes longer than twice that",
);

pub(crate) const RETRIES: Field<Number, Or<u32>> = Field::new(
    "retries",
    Number { min: 0, max: 5 },
    Or(1),
    "how often Envoy asks again within the timeout: after a 5xx, a 408, a reset or a failed connection, and \
     beside a try from which nothing was heard for 0.45 × `timeout`; not for sessions. While more than \
     half of the callouts that may be are under way, only after a failed connection",
);

pub(crate) const CIRCUIT_BREAKER: Field<ObjectOrOff, Optional> = Field::new(
    "circuit_breaker",
    ObjectOrOff,
    Optional::otherwise("as below"),
    "how it is found out that an endpoint [is away](#the-provider-is-away); `off`: it is not, and no \
     route may have `on_provider_error: allow`",
);

pub(crate) const MAX_IN_FLIGHT: Field<Object, Optional> = Field::new(
    "max_in_flight",
    Object,
    Optional::otherwise("as below"),
    "callouts under way at once, for each worker; more wait here, in order. \
     [What the cluster must allow](#the-providers-cluster)",
);

pub(crate) const TRACESTATE: Field<Flag, Or<bool>> = Field::new(
    "tracestate",
    Flag,
    Or(false),
    "a request's `tracestate` goes with its callouts too; `x-request-id`, `traceparent` and `b3` always do, \
     where they are well-formed and occur once",
);

pub(crate) const INTROSPECTION: Field<Object, Optional> = Field::new(
    "introspection",
    Object,
    Optional::NONE,
    "who a token belongs to; needed where a route wants a token",
);

pub(crate) const SESSIONS: Field<Object, Optional> = Field::new(
    "sessions",
    Object,
    Optional::NONE,
    "who a session token belongs to; needed where a route has `sessions: true`",
);

pub(crate) const PERMISSIONS: Field<Object, Optional> = Field::new(
    "permissions",
    Object,
    Optional::NONE,
    "who may do what; needed where a route has permission checks",
);

/// `introspection` of the provider, whose credentials a route may replace.
pub(crate) mod introspection {
    use super::{Field, Object, Or, Required, Text};

    pub(crate) const PATH: Field<Text, Or<&str>> =
        Field::new("path", Text, Or("/oauth2/introspect"), "RFC 7662");

    pub(crate) const CREDENTIALS: Field<Object, Required> = Field::new(
        "credentials",
        Object,
        Required("an object with `method`"),
        "[the client](#the-client) that asks",
    );
}

/// `introspection.credentials`.
pub(crate) mod client {
    use super::{Choice, ClientAuthMethod, Field, Optional, Required, Secret, Text};

    pub(crate) const METHOD: Field<Choice<ClientAuthMethod>, Required> = Field::new(
        "method",
        Choice {
            words: &[
                ("client_secret_post", ClientAuthMethod::Post),
                ("client_secret_basic", ClientAuthMethod::Basic),
                ("bearer", ClientAuthMethod::Bearer),
                ("none", ClientAuthMethod::None),
            ],
        },
        Required(""),
        "how the gate shows who it is",
    );

    pub(crate) const CLIENT_ID: Field<Text, Optional> = Field::new(
        "client_id",
        Text,
        Optional::NONE,
        "needed with `client_secret_post` and `client_secret_basic`",
    );

    pub(crate) const CLIENT_SECRET: Field<Secret, Optional> =
        Field::new("client_secret", Secret, Optional::NONE, "needed with the same two");

    pub(crate) const NEXT_CLIENT_SECRET: Field<Secret, Optional> = Field::new(
        "next_client_secret",
        Secret,
        Optional::NONE,
        "tried at once where the provider refuses `client_secret`, and asked with first while it is taken: so the provider's \
         side can change at any time",
    );

    pub(crate) const TOKEN: Field<Secret, Optional> =
        Field::new("token", Secret, Optional::NONE, "needed with `bearer`");

    pub(crate) const NEXT_TOKEN: Field<Secret, Optional> =
        Field::new("next_token", Secret, Optional::NONE, "as `next_client_secret`, for `token`");
}

/// `sessions` of the provider.
pub(crate) mod sessions {
    use super::{Field, Or, Text};

    pub(crate) const PATH: Field<Text, Or<&str>> =
        Field::new("path", Text, Or("/v1/sessions/whoami"), "where sessions are asked about");
}

/// `permissions` of the provider.
pub(crate) mod permissions {
    use super::{Field, Optional, Or, Required, SECRET_SHAPE, Secret, Text, TextMap};

    pub(crate) const PATH: Field<Text, Or<&str>> =
        Field::new("path", Text, Or("/v1/permissions:check"), "where permissions are asked about");

    pub(crate) const API_KEY: Field<Secret, Required> =
        Field::new("api_key", Secret, Required(SECRET_SHAPE), "sent as a bearer token");

    pub(crate) const NEXT_API_KEY: Field<Secret, Optional> =
        Field::new("next_api_key", Secret, Optional::NONE, "as `next_client_secret`, for `api_key`");

    pub(crate) const SUBJECT: Field<Text, Or<&str>> = Field::new(
        "subject",
        Text,
        Or("identities:{token.sub}"),
        "who must hold the relation; a [template](#templates) that reads the token",
    );

    pub(crate) const NAMESPACES: Field<TextMap, Or<&[(&str, &str)]>> = Field::new(
        "namespaces",
        TextMap,
        Or(&[("project", "projects"), ("user", "identities")]),
        "short names for types, in objects and subjects",
    );
}

/// `circuit_breaker`.
pub(crate) mod breaker {
    use super::{Duration, Field, Or, Span, ms, secs};

    pub(crate) const PROBE_INTERVAL: Field<Span, Or<Duration>> = Field::new(
        "probe_interval",
        Span { min: ms(100), max: secs(60) },
        Or(secs(1)),
        "how often it is asked, by each worker, once a call has failed and until it answers (\u{b1} 20 %)",
    );
}

/// `max_in_flight`.
pub(crate) mod in_flight {
    use super::{Field, Number, Or};

    pub(crate) const NEW_TOKENS: Field<Number, Or<u32>> =
        Field::new("new_tokens", CALLOUTS, Or(64), "about tokens that were not seen active lately");

    pub(crate) const REFRESHES: Field<Number, Or<u32>> =
        Field::new("refreshes", CALLOUTS, Or(32), "about tokens that were");

    pub(crate) const PERMISSIONS: Field<Number, Or<u32>> =
        Field::new("permissions", CALLOUTS, Or(96), "permission checks");

    const CALLOUTS: Number = Number { min: 1, max: 10_000 };
}
