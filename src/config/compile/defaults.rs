//! The defaults of fields that are not set, as the fields declare them.

use crate::cache::Lifetime;
use crate::config::fields::limits::{self as fields, Times as TimesFields};
use crate::config::fields::provider::{breaker, in_flight, introspection, permissions, sessions};
use crate::config::fields::{document, route};
use crate::config::raw::limits::{Breaker, Budget, Budgets, Caches, InFlight, Times};
use crate::config::raw::{Access, Document, Introspection, Permissions, Route, Sessions};
use crate::credential::Source;
use crate::provider::MaxInFlight;
use crate::rate_limit::{Rate, RateLimits};
use std::time::Duration;

impl Document {
    /// Header names and their templates.
    pub(super) fn identity_headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let default = self.identity_headers.is_none().then(|| document::IDENTITY_HEADERS.default());
        let written = self.identity_headers.iter().flatten().map(|(name, text)| (&**name, &**text));
        written.chain(default.into_iter().flatten().copied())
    }
}

impl Introspection {
    pub(super) fn path(&self) -> &str {
        introspection::PATH.of(self.path.as_deref())
    }
}

impl Sessions {
    pub(super) fn path(&self) -> &str {
        sessions::PATH.of(self.path.as_deref())
    }
}

impl Permissions {
    pub(super) fn path(&self) -> &str {
        permissions::PATH.of(self.path.as_deref())
    }

    pub(super) fn subject(&self) -> &str {
        permissions::SUBJECT.of(self.subject.as_deref())
    }

    pub(super) fn namespaces(&self) -> Vec<(String, String)> {
        self.namespaces.clone().unwrap_or_else(|| {
            let default = permissions::NAMESPACES.default().iter();
            default.map(|(short, name)| ((*short).to_owned(), (*name).to_owned())).collect()
        })
    }
}

impl Route {
    pub(in crate::config) fn access(&self) -> Access {
        route::ACCESS.of(self.access)
    }
}

impl Breaker {
    pub(super) fn probe_interval(self) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::On { probe_interval } => Some(breaker::PROBE_INTERVAL.of(probe_interval)),
        }
    }
}

impl InFlight {
    pub(super) fn shares(&self) -> MaxInFlight {
        MaxInFlight {
            new_tokens: in_flight::NEW_TOKENS.of(self.new_tokens),
            refreshes: in_flight::REFRESHES.of(self.refreshes),
            permissions: in_flight::PERMISSIONS.of(self.permissions),
        }
    }
}

impl Budgets {
    pub(super) fn rates(&self) -> RateLimits {
        RateLimits {
            new_tokens: rate(self.new_tokens, Some(fields::NEW_TOKENS)),
            refreshes: rate(self.refreshes, None),
            permissions: rate(self.permissions, None),
            per_subject: rate(self.per_subject, Some(fields::PER_SUBJECT)),
        }
    }
}

fn rate(budget: Option<Budget>, default: Option<Rate>) -> Option<Rate> {
    match budget {
        None => default,
        Some(Budget::Off) => None,
        Some(Budget::Rate { per_second, burst }) => {
            let per_second = per_second?;
            Some(Rate { per_second, burst: burst.unwrap_or(per_second) })
        }
    }
}

impl Caches {
    /// The lifetimes of introspections and of permissions: the route's setting, else the
    /// document's, else the default.
    pub(super) fn lifetimes(self, route: Option<Self>) -> (Lifetime, Lifetime) {
        let route = route.unwrap_or_default();
        (
            self.introspection.lifetime(route.introspection, &fields::INTROSPECTION),
            self.permissions.lifetime(route.permissions, &fields::PERMISSIONS),
        )
    }
}

impl Times {
    fn lifetime(self, route: Self, fields: &TimesFields) -> Lifetime {
        Lifetime {
            ttl: fields.ttl.of(route.ttl.or(self.ttl)),
            negative_ttl: fields.negative_ttl.of(route.negative_ttl.or(self.negative_ttl)),
            stale_if_error: fields.stale_if_error.of(route.stale_if_error.or(self.stale_if_error)),
        }
    }

    /// The size of a cache that some route reads, in entries.
    pub(super) fn entries(self) -> usize {
        let entries = fields::MAX_ENTRIES.of(self.max_entries);
        usize::try_from(entries).unwrap_or(usize::MAX)
    }
}

/// The default source of tokens.
pub(super) fn source() -> Source {
    let default = document::CREDENTIALS.default();
    Source::Header { name: default.header.to_owned(), scheme: Some(default.scheme.to_owned()) }
}
