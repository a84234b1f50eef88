//! The document's own fields, and those of the small objects directly in it.

use super::{
    Choice, Field, Flag, MODES, Number, Object, ObjectMap, Objects, Optional, Or, Required, Span, Text,
    TextMap, Texts, secs,
};
use crate::config::raw::DefaultAccess;
use crate::policy::AnswerFormat;
use std::time::Duration;

pub(crate) const SCHEMA: Field<Text, Optional> = Field::new(
    "$schema",
    Text,
    Optional::NONE,
    "for editors: where `avnology-gate schema` was written to; the gate does not read it",
);

pub(crate) const ROUTES: Field<Objects, Required> =
    Field::new("routes", Objects, Required("a list of routes"), "the [routes](#routes)");

pub(crate) const PROVIDER: Field<Object, Optional> = Field::new(
    "provider",
    Object,
    Optional::NONE,
    "the [provider](#provider); needed where a route wants a token",
);

pub(crate) const CREDENTIALS: Field<Objects, Or<HeaderScheme>> = Field::new(
    "credentials",
    Objects,
    Or(HeaderScheme { header: "authorization", scheme: "Bearer" }),
    "[where tokens stand](#credentials)",
);

pub(crate) const IDENTITY_HEADERS: Field<TextMap, Or<&[(&str, &str)]>> = Field::new(
    "identity_headers",
    TextMap,
    Or(&[
        ("x-avnology-user-id", "{token.sub}"),
        ("x-avnology-scopes", "{token.scope}"),
        ("x-avnology-org-id", "{token.org_id}"),
        ("x-avnology-client-id", "{token.client_id}"),
    ]),
    "header name → [template](#templates); what the service is told",
);

pub(crate) const WEBHOOKS: Field<ObjectMap, Optional> =
    Field::new("webhooks", ObjectMap, Optional::NONE, "name → [webhook](#webhooks)");

pub(crate) const DEFAULT_ACCESS: Field<Choice<DefaultAccess>, Or<DefaultAccess>> = Field::new(
    "default_access",
    Choice {
        words: &[
            ("deny", DefaultAccess::Deny),
            ("required", DefaultAccess::Required),
            ("public", DefaultAccess::Public),
        ],
    },
    Or(DefaultAccess::Deny),
    "for what no route names; `required`: any valid token",
);

pub(crate) const REQUIRE: Field<Object, Optional> = Field::new(
    "require",
    Object,
    Optional::NONE,
    "rules for every route that takes a token and has none of that kind of its own",
);

pub(crate) const MODE: Field<Choice<bool>, Or<bool>> = Field::new(
    "mode",
    MODES,
    Or(false),
    "`shadow`: everything is evaluated, waits included, and counted; nothing is refused (but what cannot be \
     read at all)",
);

pub(crate) const CHALLENGE: Field<Object, Optional> =
    Field::new("challenge", Object, Optional::otherwise("as below"), "how refusals are worded");

pub(crate) const CLOCK_SKEW: Field<Span, Or<Duration>> = Field::new(
    "clock_skew",
    Span { min: Duration::ZERO, max: secs(300) },
    Or(secs(5)),
    "leeway for `exp` and `nbf`",
);

pub(crate) const STRIP_CREDENTIAL: Field<Flag, Or<bool>> = Field::new(
    "strip_credential",
    Flag,
    Or(false),
    "remove the credential before the service sees the request",
);

pub(crate) const STRIP_HEADERS: Field<Texts, Optional> = Field::new(
    "strip_headers",
    Texts,
    Optional::NONE,
    "more header names that clients may not send, such as retired identity headers",
);

pub(crate) const KEEP_OVERRIDE_HEADERS: Field<Texts, Optional> = Field::new(
    "keep_override_headers",
    Texts,
    Optional::NONE,
    "names of [headers that replace a part of the request](#headers-that-replace-a-part-of-the-request), which \
     then pass; each of them warns",
);

pub(crate) const REFUSED_TOKEN_PREFIXES: Field<Texts, Or<&[&str]>> = Field::new(
    "refused_token_prefixes",
    Texts,
    Or(&["rt_", "ak_"]),
    "tokens that cannot be access tokens: refused without asking",
);

pub(crate) const MAX_TOKEN_BYTES: Field<Number, Or<u32>> = Field::new(
    "max_token_bytes",
    Number { min: 1024, max: 32_768 },
    Or(8192),
    "a longer token is 400; Envoy's `max_request_headers_kb` must be larger",
);

pub(crate) const READY_PATH: Field<Text, Optional> = Field::new(
    "ready_path",
    Text,
    Optional::NONE,
    "a path of which GET and HEAD are answered 200 `ok` by the gate before any rule: for health checks",
);

pub(crate) const FILTER_STATE: Field<Choice<bool>, Or<bool>> = Field::new(
    "filter_state",
    Choice { words: &[("refused", false), ("all", true)] },
    Or(false),
    "`all`: allowed requests too are told to the access log",
);

pub(crate) const CACHE: Field<Object, Optional> = Field::new(
    "cache",
    Object,
    Optional::otherwise("see there"),
    "how long [answers are kept](#what-is-kept-and-for-how-long)",
);

pub(crate) const BUDGETS: Field<Object, Optional> =
    Field::new("budgets", Object, Optional::NONE, "how many calls a worker may [spend](#budgets)");

/// `challenge`.
pub(crate) mod challenge {
    use super::{AnswerFormat, Choice, Field, Optional, Or, Text};

    pub(crate) const REALM: Field<Text, Optional> = Field::new(
        "realm",
        Text,
        Optional::otherwise("the provider's authority"),
        "what `WWW-Authenticate` names",
    );

    pub(crate) const FORMAT: Field<Choice<AnswerFormat>, Or<AnswerFormat>> = Field::new(
        "format",
        Choice { words: &[("json", AnswerFormat::Json), ("problem+json", AnswerFormat::Problem)] },
        Or(AnswerFormat::Json),
        "`problem+json`: answers as RFC 9457",
    );
}

/// An item of `credentials`, the document's or a route's.
pub(crate) mod source {
    use super::{Field, Optional, Text, Texts};

    pub(crate) const HEADER: Field<Text, Optional> =
        Field::new("header", Text, Optional::NONE, "a header, its whole value unless there is a scheme");

    pub(crate) const SCHEME: Field<Text, Optional> =
        Field::new("scheme", Text, Optional::NONE, "the word before the token; beside `header`");

    pub(crate) const COOKIE: Field<Text, Optional> = Field::new("cookie", Text, Optional::NONE, "a cookie");

    pub(crate) const ORIGINS: Field<Texts, Optional> = Field::new(
        "origins",
        Texts,
        Optional::NONE,
        "unsafe methods and upgrades need one of them as `Origin`; beside `cookie`",
    );

    pub(crate) const QUERY: Field<Text, Optional> = Field::new(
        "query",
        Text,
        Optional::NONE,
        "a query parameter, which is cut out of the path before any answer, log or upstream sees it. Public \
         and webhook routes look at no credential, and leave it",
    );
}

/// A header with a scheme: the form of the default source.
#[derive(Clone, Copy)]
pub(crate) struct HeaderScheme {
    pub(crate) header: &'static str,
    pub(crate) scheme: &'static str,
}
