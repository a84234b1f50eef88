//! A route: which requests it matches, and what it requires of a token.

use super::{
    Choice, Field, Flag, MODES, Number, Object, Objects, Optional, Or, Required, Text, Texts, TextsMap,
};
use crate::config::raw::Access;

pub(crate) const NAME: Field<Text, Optional> =
    Field::new("name", Text, Optional::NONE, "shown in the access log and the filter state; unique");

pub(crate) const MATCH: Field<Object, Required> =
    Field::new("match", Object, Required("an object with `path`"), "which requests it is for");

pub(crate) const ACCESS: Field<Choice<Access>, Or<Access>> = Field::new(
    "access",
    Choice {
        words: &[("public", Access::Public), ("optional", Access::Optional), ("required", Access::Required)],
    },
    Or(Access::Required),
    "`public`: no credential is looked at; `optional`: anonymous passes, a token that is there must hold",
);

pub(crate) const REQUIRE: Field<Object, Optional> =
    Field::new("require", Object, Optional::NONE, "[rules](#rules) for the token");

pub(crate) const WEBHOOK: Field<Text, Optional> =
    Field::new("webhook", Text, Optional::NONE, "in place of `access`: the name of a [webhook](#webhooks)");

pub(crate) const CREDENTIALS: Field<Objects, Optional> =
    Field::new("credentials", Objects, Optional::otherwise("the document's"), "for this route");

pub(crate) const STRIP_CREDENTIAL: Field<Flag, Optional> =
    Field::new("strip_credential", Flag, Optional::otherwise("the document's"), "for this route");

pub(crate) const INTROSPECTION: Field<Object, Optional> = Field::new(
    "introspection",
    Object,
    Optional::otherwise("the provider's"),
    "another client for this route: some providers call another client's token inactive",
);

pub(crate) const ON_PROVIDER_ERROR: Field<Choice<bool>, Or<bool>> = Field::new(
    "on_provider_error",
    Choice { words: &[("deny", false), ("allow", true)] },
    Or(false),
    "`allow`: pass while the provider [is away](#the-provider-is-away), as the gate's own probe has shown. \
     Nothing else is opened, nor what was last heard to be a no; identity headers are still removed",
);

pub(crate) const SESSIONS: Field<Flag, Or<bool>> = Field::new(
    "sessions",
    Flag,
    Or(false),
    "take session tokens (`avnl_ses_…`) too, and ask `provider.sessions` about them. Of a session `sub`, \
     `exp` and `aal` are known and nothing else: scopes, audience, issuer and client never hold",
);

pub(crate) const CACHE: Field<Object, Optional> = Field::new(
    "cache",
    Object,
    Optional::otherwise("the document's"),
    "other [lifetimes](#what-is-kept-and-for-how-long) for this route",
);

pub(crate) const PREFLIGHT: Field<Flag, Or<bool>> =
    Field::new("preflight", Flag, Or(false), "let CORS preflights for this route pass, without credentials");

pub(crate) const MODE: Field<Choice<bool>, Optional> = Field::new(
    "mode",
    MODES,
    Optional::otherwise("the document's"),
    "the nearest word counts: webhook, route, document",
);

pub(crate) const ENFORCE_PERCENT: Field<Number, Optional> = Field::new(
    "enforce_percent",
    Number { min: 0, max: 100 },
    Optional::otherwise("0"),
    "beside `mode: shadow`: of so many clients in a hundred refusals are enforced. A client is the token's subject, and without \
     one the address that it comes from (so whoever drops his token may change sides, and behind one proxy all are one client); \
     whoever is enforced stays so when this grows",
);

/// `match`.
pub(crate) mod matching {
    use super::{Field, Flag, Optional, Or, Required, Text, Texts};

    pub(crate) const PATH: Field<Text, Required> = Field::new(
        "path",
        Text,
        Required("a string"),
        "literals, `{param}` (one segment), a last `{*rest}`. Compared decoded and with case",
    );

    pub(crate) const HOSTS: Field<Texts, Optional> = Field::new(
        "hosts",
        Texts,
        Optional::otherwise("every host"),
        "`api.example.com` or `*.example.com`, without port",
    );

    pub(crate) const METHODS: Field<Texts, Optional> = Field::new(
        "methods",
        Texts,
        Optional::otherwise("every method"),
        "registered ones, in upper case; `GET` covers `HEAD`",
    );

    pub(crate) const LITERAL_SUFFIX: Field<Flag, Or<bool>> = Field::new(
        "literal_suffix",
        Flag,
        Or(false),
        "`true`: the service takes no format off a path's end, so `/admin.json` is not \
         [read as `/admin`](#one-path-and-its-other-readings)",
    );
}

/// `require`.
pub(crate) mod require {
    use super::{Field, Object, Optional, Texts, TextsMap};

    pub(crate) const SCOPES: Field<Object, Optional> =
        Field::new("scopes", Object, Optional::NONE, "what the token was granted");

    pub(crate) const AUDIENCE: Field<Texts, Optional> =
        Field::new("audience", Texts, Optional::NONE, "`aud` holds one of them; else 401 `invalid_token`");

    pub(crate) const ISSUER: Field<Texts, Optional> =
        Field::new("issuer", Texts, Optional::NONE, "`iss` is one of them; else 401 `invalid_token`");

    pub(crate) const CLIENT_ID: Field<Texts, Optional> =
        Field::new("client_id", Texts, Optional::NONE, "`client_id` is one of them; else 403");

    pub(crate) const CLAIMS: Field<TextsMap, Optional> = Field::new(
        "claims",
        TextsMap,
        Optional::NONE,
        "each named [claim](#claims) has the value of its [template](#templates), or one of several (an array: \
         contains it); else 403",
    );

    pub(crate) const PERMISSIONS: Field<Object, Optional> =
        Field::new("permissions", Object, Optional::NONE, "what the provider is asked");
}

/// `require.scopes`.
pub(crate) mod scopes {
    use super::{Field, Optional, Texts};

    pub(crate) const ALL: Field<Texts, Optional> =
        Field::new("all", Texts, Optional::NONE, "the token has them all; else 403 `insufficient_scope`");

    pub(crate) const ANY: Field<Texts, Optional> =
        Field::new("any", Texts, Optional::NONE, "the token has one of them; else 403 `insufficient_scope`");
}

/// `require.permissions`.
pub(crate) mod permissions {
    use super::{Field, Objects, Optional};

    pub(crate) const ALL: Field<Objects, Optional> = Field::new(
        "all",
        Objects,
        Optional::NONE,
        "the provider allows all of these [checks](#checks); else 403",
    );

    pub(crate) const ANY: Field<Objects, Optional> = Field::new(
        "any",
        Objects,
        Optional::NONE,
        "the provider allows one of these [checks](#checks); else 403",
    );
}

/// A check.
pub(crate) mod check {
    use super::{Field, Optional, Required, Text};

    pub(crate) const NAMESPACE: Field<Text, Optional> = Field::new(
        "namespace",
        Text,
        Optional::otherwise("the type before the colon in `object`"),
        "the type in the provider's own terms",
    );

    pub(crate) const OBJECT: Field<Text, Required> =
        Field::new("object", Text, Required("a string"), "what it is about; a [template](#templates)");

    pub(crate) const RELATION: Field<Text, Required> =
        Field::new("relation", Text, Required("a string"), "what the subject must be to it");

    pub(crate) const SUBJECT: Field<Text, Optional> = Field::new(
        "subject",
        Text,
        Optional::otherwise("`provider.permissions.subject`"),
        "who must hold the relation; a template that reads the token",
    );
}
