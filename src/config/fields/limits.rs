//! Lifetimes of answers, and budgets for calls.

use super::{Field, Number, Object, ObjectOrOff, Optional, Or, Required, Span, secs};
use crate::rate_limit::Rate;
use std::time::Duration;

/// `cache`, the document's or a route's.
pub(crate) mod cache {
    use super::{Field, Object, Optional};

    pub(crate) const INTROSPECTION: Field<Object, Optional> =
        Field::new("introspection", Object, Optional::otherwise("as below"), ANSWERS);

    pub(crate) const PERMISSIONS: Field<Object, Optional> =
        Field::new("permissions", Object, Optional::otherwise("as below"), ANSWERS);

    const ANSWERS: &str = "for what the provider's endpoint of that name has said";
}

/// How long one kind of answer counts.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) ttl: Field<Span, Or<Duration>>,
    pub(crate) negative_ttl: Field<Span, Or<Duration>>,
    pub(crate) stale_if_error: Field<Span, Or<Duration>>,
}

pub(crate) const INTROSPECTION: Times = Times::new(secs(30), secs(5));
pub(crate) const PERMISSIONS: Times = Times::new(secs(10), secs(2));

impl Times {
    const fn new(ttl: Duration, negative_ttl: Duration) -> Self {
        let hour = Span { min: Duration::ZERO, max: secs(3600) };
        let day = Span { min: Duration::ZERO, max: secs(86_400) };
        Self {
            ttl: Field::new(
                "ttl",
                hour,
                Or(ttl),
                "how old a yes may be, counted from when it was asked for; `0s`: ask every time. So a \
                 revoked token passes for so long at most, and for `stale_if_error` while it cannot be \
                 asked about. It never counts past the token's `exp`",
            ),
            negative_ttl: Field::new("negative_ttl", hour, Or(negative_ttl), "the same for a no"),
            stale_if_error: Field::new(
                "stale_if_error",
                day,
                Or(Duration::ZERO),
                "how much longer a yes counts where its own question has no answer: the call failed or could \
                 not be made, the provider [is away](#the-provider-is-away), or (for one further `ttl` at \
                 most) others have used up a limit of the gate's. The service sees `x-avnology-stale: true`, the reason is `authenticated_stale`. Never \
                 past `exp`, and never after a no",
            ),
        }
    }
}

pub(crate) const MAX_ENTRIES: Field<Number, Or<u32>> = Field::new(
    "max_entries",
    Number { min: 1, max: 1_000_000 },
    Or(10_000),
    "of each kind, per worker; a quarter as many for a no, apart. At the top only",
);

/// `budgets`.
pub(crate) mod budgets {
    use super::{Field, ObjectOrOff, Optional};

    pub(crate) const NEW_TOKENS: Field<ObjectOrOff, Optional> = Field::new(
        "new_tokens",
        ObjectOrOff,
        Optional::otherwise("500 a second, 5000 at once"),
        "for tokens that were not seen active lately: what a flood of invented tokens uses up",
    );

    pub(crate) const REFRESHES: Field<ObjectOrOff, Optional> =
        Field::new("refreshes", ObjectOrOff, Optional::NONE, "for tokens that were");

    pub(crate) const PERMISSIONS: Field<ObjectOrOff, Optional> = Field::new(
        "permissions",
        ObjectOrOff,
        Optional::NONE,
        "for permission checks; `off` switches `per_subject` off too",
    );

    pub(crate) const PER_SUBJECT: Field<ObjectOrOff, Optional> = Field::new(
        "per_subject",
        ObjectOrOff,
        Optional::otherwise("50 a second, 200 at once"),
        "for permission checks of one subject; may stand without a budget for all",
    );
}

/// For a worker. A load that is ordinary in production stays below: a cold start of 5,000 users at
/// once is one burst.
pub(crate) const NEW_TOKENS: Rate = Rate { per_second: 500, burst: 5000 };

/// For one subject at one worker.
pub(crate) const PER_SUBJECT: Rate = Rate { per_second: 50, burst: 200 };

/// One budget.
pub(crate) mod rate {
    use super::{Field, Number, Optional, Required};

    pub(crate) const PER_SECOND: Field<Number, Required> = Field::new(
        "per_second",
        CALLS,
        Required("how many calls a second"),
        "so many calls a second in the long run",
    );

    pub(crate) const BURST: Field<Number, Optional> =
        Field::new("burst", CALLS, Optional::otherwise("`per_second`"), "so many at once");

    const CALLS: Number = Number { min: 1, max: 1_000_000 };
}
