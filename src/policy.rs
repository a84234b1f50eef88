//! A compiled configuration: what is true, immutable, and free of request data.

use crate::cache::Lifetime;
use crate::credential::Source;
use crate::hash::Fingerprint;
use crate::http::head::{normalize_byte, normalized_eq};
use crate::introspect::{IntrospectionEndpoint, Requirement, SessionEndpoint};
use crate::permission::{CheckTemplate, PermissionEndpoint};
use crate::rate_limit::RateLimits;
use crate::route::RouteTable;
use crate::template::{RequestValue, Template};
use crate::webhook::Webhook;
use std::sync::Arc;
use std::time::Duration;

/// One plugin's rules.
#[derive(Debug)]
pub(crate) struct Policy {
    /// Tells it from the other policies of an engine, which gives it.
    pub(crate) id: u32,
    pub(crate) table: RouteTable<Arc<Route>>,
    /// For what no route names; `None`: refused.
    pub(crate) fallback: Option<Arc<Route>>,
    /// Every query parameter that carries a credential somewhere: cut from requests that no route
    /// claims.
    pub(crate) credential_queries: Vec<String>,
    /// Every endpoint that it may ask, as whom.
    pub(crate) endpoints: Vec<Fingerprint>,
    pub(crate) identity_headers: Vec<(String, Template)>,
    /// Whether identity headers read nothing of the request, so that a token has one rendering.
    pub(crate) renders_token_alone: bool,
    pub(crate) owned: OwnedHeaders,
    pub(crate) refused_token_prefixes: Vec<String>,
    pub(crate) realm: String,
    pub(crate) format: AnswerFormat,
    /// Whether refusals that belong to no route are only counted.
    pub(crate) shadow: bool,
    /// Whether allowed requests are told to the access log too.
    pub(crate) record_allowed: bool,
    pub(crate) bounds: Bounds,
    pub(crate) rates: RateLimits,
}

/// How much a policy wants to be kept, and for how long at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Answers about tokens.
    pub(crate) tokens: Bound,
    /// Answers about permissions.
    pub(crate) permissions: Bound,
}

/// The bound of one kind of answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bound {
    /// How many.
    pub(crate) max_entries: usize,
    /// The longest time that any route lets a yes count.
    pub(crate) max_ttl: Duration,
    /// The same while the provider is away.
    pub(crate) max_stale: Duration,
}

/// One route.
#[derive(Debug)]
pub struct Route {
    pub(crate) name: Option<Arc<str>>,
    /// The names of the pattern's parameters, in order.
    pub(crate) parameters: Vec<String>,
    pub(crate) access: Access,
    /// Whether refusals are only counted, where the route says so or not.
    pub(crate) shadow: Option<bool>,
    pub(crate) preflight: bool,
}

/// What a route asks for.
#[derive(Debug)]
pub(crate) enum Access {
    /// Nothing; no credential is looked at.
    Public(NoRules),
    /// A token.
    Token(Arc<TokenRules>),
    /// A webhook's signature.
    Webhook(Arc<Webhook>),
}

/// Proof that a route asks for nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoRules(());

impl NoRules {
    /// For a route that is written as public.
    pub(crate) fn declared() -> Self {
        Self(())
    }
}

/// What a route asks of a token and its bearer.
#[derive(Debug)]
pub struct TokenRules {
    /// Whether a request without a credential passes.
    pub(crate) optional: bool,
    pub(crate) sources: Vec<Source>,
    pub(crate) strip_credential: bool,
    /// Who is asked about tokens.
    pub(crate) endpoint: Arc<IntrospectionEndpoint>,
    /// Who is asked about session tokens; `None`: they are not taken.
    pub(crate) sessions: Option<Arc<SessionEndpoint>>,
    pub(crate) token_lifetime: Lifetime,
    pub(crate) permission_lifetime: Lifetime,
    pub(crate) requirement: Requirement,
    pub(crate) permissions: Option<PermissionRules>,
    /// What the templates of rules and identity headers read of the request.
    pub(crate) inputs: Vec<RequestValue>,
    /// Whether an outage lets the request pass.
    pub(crate) open_on_outage: bool,
}

/// The permissions that a route asks for.
#[derive(Debug)]
pub(crate) struct PermissionRules {
    /// Who is asked.
    pub(crate) endpoint: Arc<PermissionEndpoint>,
    /// Every one of these.
    pub(crate) all: Vec<CheckTemplate>,
    /// At least one of these; empty: no rule.
    pub(crate) any: Vec<CheckTemplate>,
}

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerFormat {
    /// `{"error","message"}`.
    Json,
    /// RFC 9457.
    Problem,
}

/// The header names that only the gate may set, and those that would make a service see another
/// request than the gate did.
#[derive(Clone, Debug)]
pub(crate) struct OwnedHeaders {
    /// In lower case, as configured: keys of `identity_headers`, `strip_headers`, the override
    /// headers.
    names: Vec<String>,
    /// How those and the reserved ones begin.
    begins: Vec<u8>,
}

impl Default for OwnedHeaders {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl OwnedHeaders {
    /// These names beside the ones that are always owned.
    pub(crate) fn new(names: Vec<String>) -> Self {
        let mut begins: Vec<u8> =
            names.iter().filter_map(|name| name.bytes().next()).map(normalize_byte).collect();
        begins.push(b'x');
        begins.sort_unstable();
        begins.dedup();
        Self { names, begins }
    }

    /// Whether a client must not send this header or trailer.
    ///
    /// Compared with every non-alphanumeric byte read as `-`: that is how servers which hand
    /// headers on as environment variables read them.
    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        // Most names of most requests begin like none of these.
        if !name.first().is_some_and(|first| self.begins.contains(&normalize_byte(*first))) {
            return false;
        }
        if is_reserved(name) {
            return name != b"x-avnology-signature" && name != b"x-avnology-timestamp";
        }
        self.names.iter().any(|owned| normalized_eq(name, owned.as_bytes()))
    }
}

/// Whether the name is in the gate's own space, `x-avnology-`.
pub(crate) fn is_reserved(name: &[u8]) -> bool {
    const RESERVED: &[u8] = b"x-avnology-";
    name.len() >= RESERVED.len() && name.iter().zip(RESERVED).all(|(a, b)| normalize_byte(*a) == *b)
}

impl Bounds {
    /// What satisfies both.
    #[must_use]
    pub(crate) fn max(self, other: Self) -> Self {
        let max = |a: Bound, b: Bound| Bound {
            max_entries: a.max_entries.max(b.max_entries),
            max_ttl: a.max_ttl.max(b.max_ttl),
            max_stale: a.max_stale.max(b.max_stale),
        };
        Self { tokens: max(self.tokens, other.tokens), permissions: max(self.permissions, other.permissions) }
    }
}

impl PermissionRules {
    /// Every check, those that must all be granted first.
    pub(crate) fn checks(&self) -> impl Iterator<Item = &CheckTemplate> {
        self.all.iter().chain(&self.any)
    }
}

/// With these a client can make a framework see another method or path than the gate did.
pub(crate) const OVERRIDE_HEADERS: [&str; 6] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-envoy-original-path",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads may share one, as soon as a host has some.
    #[test]
    fn a_policy_is_send_and_sync() {
        fn is_shareable<T: Send + Sync>() {}
        is_shareable::<Policy>();
    }

    #[test]
    fn owned_names_in_every_spelling() {
        let owned = OwnedHeaders::new(vec!["x-user".into()]);
        for name in [
            "x-avnology-user-id",
            "X.Avnology_User~Id",
            "x_avnology_signature",
            "x-avnology-signature2",
            "x-avnology-",
            "x-user",
            "X_USER",
            "x.user",
        ] {
            assert!(owned.contains(name.as_bytes()), "{name}");
        }
        for name in [
            "x-avnology-signature",
            "x-avnology-timestamp",
            "x-avnology",
            "x-users",
            "xx-user",
            ":path",
            "\u{e9}",
        ] {
            assert!(!owned.contains(name.as_bytes()), "{name}");
        }
    }
}
