//! A compiled configuration: immutable, and free of request data.

use crate::cache::Lifetime;
use crate::cache::shared::Subjects;
use crate::credential::Source;
use crate::hash::{FactKey, Seed};
use crate::http::head::{normalize_byte, normalized_eq};
use crate::introspect::{IntrospectionEndpoint, Requirement, SessionEndpoint};
use crate::permission::{CheckTemplate, PermissionEndpoint};
use crate::probe::Probe;
use crate::rate_limit::RateLimits;
use crate::route::{Compared, Demand, RouteTable};
use crate::telemetry::Label;
use crate::template::{RequestValue, Template};
use crate::webhook::Webhook;
use std::sync::Arc;
use std::time::Duration;

/// The rules of one plugin.
#[derive(Debug)]
pub(crate) struct Policy {
    /// Identifies the policy within its engine, which assigns the id.
    pub(crate) id: u32,
    /// What labels its metrics, which its engine assigns.
    pub(crate) labels: PolicyLabels,
    /// What tells its document from others.
    pub(crate) digest: String,
    /// The names of its routes that have one, as they are numbered.
    pub(crate) route_names: Vec<Arc<str>>,
    pub(crate) table: RouteTable<Arc<Route>>,
    /// For requests that no route matches; `None`: they are refused.
    pub(crate) fallback: Option<Arc<Route>>,
    /// Every query parameter that is a credential on some route: removed from requests that no
    /// route matches.
    pub(crate) credential_queries: Vec<String>,
    /// A probe for each endpoint that it may call.
    pub(crate) probes: Vec<Arc<Probe>>,
    /// Every webhook.
    pub(crate) webhooks: Vec<Arc<Webhook>>,
    /// Where it stands whose facts are over; `None` where no webhook says so.
    pub(crate) subjects: Option<Arc<Subjects>>,
    pub(crate) identity_headers: Vec<(String, Template)>,
    /// Whether identity headers read nothing from the request, so that a token has one rendering.
    pub(crate) renders_token_alone: bool,
    pub(crate) owned: OwnedHeaders,
    pub(crate) refused_token_prefixes: Vec<String>,
    /// The longest token that is taken, in bytes.
    pub(crate) max_token_bytes: usize,
    /// Whether a request's `tracestate` goes with its callouts.
    pub(crate) tracestate: bool,
    /// Where the gate itself is asked whether it is ready.
    pub(crate) ready_path: Option<String>,
    pub(crate) realm: String,
    pub(crate) format: AnswerFormat,
    /// Whether refusals are counted and not enforced, unless a route or webhook configures it.
    pub(crate) shadow: bool,
    /// Whether allowed requests set the filter state for the access log too.
    pub(crate) record_allowed: bool,
    pub(crate) bounds: Bounds,
    pub(crate) rates: RateLimits,
}

/// The labels of a policy's metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicyLabels {
    /// Of each named route, as they are numbered.
    pub(crate) routes: Vec<Label>,
    /// Of each webhook, as they are numbered.
    pub(crate) webhooks: Vec<Label>,
}

/// Who has sent a request, as one of a hundred equal parts of all clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Client {
    /// From 0 to 99.
    percentile: u8,
}

impl Client {
    /// The client with this name: the same part at every worker and under every policy.
    pub(crate) fn of(name: &[u8]) -> Self {
        let part = FactKey::of(Seed(*b"avnology clients"), [name]).place_among(100);
        Self { percentile: u8::try_from(part).unwrap_or_default() }
    }

    /// Whether it is one of so many clients in a hundred: then also of any more.
    pub(crate) fn is_among(self, percent: u8) -> bool {
        self.percentile < percent
    }
}

/// How many answers a policy caches, and for how long at most.
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
    /// How many answers.
    pub(crate) max_entries: usize,
    /// The highest age at which any route uses a positive answer.
    pub(crate) max_ttl: Duration,
    /// The same while the provider is unavailable.
    pub(crate) max_stale: Duration,
}

/// One route.
#[derive(Debug)]
pub struct Route {
    pub(crate) name: Option<Arc<str>>,
    /// Its position among the routes that have a name.
    pub(crate) number: Option<usize>,
    /// The names of the pattern's parameters, in order.
    pub(crate) parameters: Vec<String>,
    pub(crate) access: Access,
    /// Of how many clients in a hundred refusals are enforced, and of the others counted alone;
    /// `None` if the route configures no mode.
    pub(crate) enforce_percent: Option<u8>,
    pub(crate) preflight: bool,
    /// Whether a suffix such as `.json` makes another path, for the service too.
    pub(crate) literal_suffix: bool,
}

/// What a route requires.
#[derive(Debug)]
pub(crate) enum Access {
    /// Nothing; no credential is read.
    Public(NoRules),
    /// A token.
    Token(Arc<TokenRules>),
    /// A webhook's signature.
    Webhook(Arc<Webhook>),
}

/// Proof that a route requires nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoRules(());

impl NoRules {
    /// For a route that is configured as public.
    pub(crate) fn declared() -> Self {
        Self(())
    }
}

/// What a route requires of a token and its bearer.
#[derive(Debug)]
pub struct TokenRules {
    /// Whether a request without a credential is allowed.
    pub(crate) optional: bool,
    pub(crate) sources: Vec<Source>,
    pub(crate) strip_credential: bool,
    /// The endpoint that introspects tokens.
    pub(crate) endpoint: Arc<IntrospectionEndpoint>,
    /// The endpoint for session tokens; `None`: they are not accepted.
    pub(crate) sessions: Option<Arc<SessionEndpoint>>,
    pub(crate) token_lifetime: Lifetime,
    pub(crate) permission_lifetime: Lifetime,
    pub(crate) requirement: Requirement,
    pub(crate) permissions: Option<PermissionRules>,
    /// What the templates of rules and identity headers read from the request.
    pub(crate) inputs: Vec<RequestValue>,
    /// Whether the request is allowed in an outage.
    pub(crate) open_on_outage: bool,
    /// The policy's.
    pub(crate) subjects: Option<Arc<Subjects>>,
}

/// The permissions that a route requires.
#[derive(Debug)]
pub(crate) struct PermissionRules {
    /// The endpoint that checks them.
    pub(crate) endpoint: Arc<PermissionEndpoint>,
    /// All of these.
    pub(crate) all: Vec<CheckTemplate>,
    /// At least one of these; empty: no rule.
    pub(crate) any: Vec<CheckTemplate>,
}

/// The format of the gate's responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerFormat {
    /// `{"error","message"}`.
    Json,
    /// Problem details (RFC 9457).
    Problem,
}

/// The header names that only the gate may set, and those that would make a service see another
/// request than the gate did.
#[derive(Clone, Debug)]
pub(crate) struct OwnedHeaders {
    /// In lower case: keys of `identity_headers`, `strip_headers`, the
    /// [overrides](crate::overrides) that are not kept.
    names: Vec<String>,
    /// The first bytes of those and of the reserved names.
    begins: Vec<u8>,
}

impl Default for OwnedHeaders {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl OwnedHeaders {
    /// These names, besides the ones that are always owned.
    pub(crate) fn new(names: Vec<String>) -> Self {
        let mut begins = vec![b'x'];
        for first in names.iter().filter_map(|name| name.bytes().next()).map(normalize_byte) {
            if !begins.contains(&first) {
                begins.push(first);
            }
        }
        Self { names, begins }
    }

    /// Whether a client must not send this header or trailer.
    ///
    /// Compared with every non-alphanumeric byte read as `-`, as servers read them that pass
    /// headers on as environment variables.
    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        // Most names of most requests begin with none of these bytes.
        if !name.first().is_some_and(|first| self.begins.contains(&normalize_byte(*first))) {
            return false;
        }
        if is_reserved(name) {
            return name != b"x-avnology-signature" && name != b"x-avnology-timestamp";
        }
        self.names.iter().any(|owned| normalized_eq(name, owned.as_bytes()))
    }
}

/// Whether the name has the gate's own prefix, `x-avnology-`.
pub(crate) fn is_reserved(name: &[u8]) -> bool {
    const RESERVED: &[u8] = b"x-avnology-";
    name.len() >= RESERVED.len() && name.iter().zip(RESERVED).all(|(a, b)| normalize_byte(*a) == *b)
}

impl Compared for Arc<Route> {
    fn demand(&self) -> Demand {
        match &self.access {
            Access::Public(_) => Demand::Nothing,
            Access::Token(rules) if rules.optional => Demand::ValidIfAny,
            Access::Token(_) | Access::Webhook(_) => Demand::Proof,
        }
    }

    fn takes_suffix_literally(&self) -> bool {
        self.literal_suffix
    }
}

impl Bounds {
    /// The larger bound of both, for each value.
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
    /// All checks; those that must all be granted come first.
    pub(crate) fn checks(&self) -> impl Iterator<Item = &CheckTemplate> {
        self.all.iter().chain(&self.any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_one_of_clients_and_grows_by_new_ones_alone() {
        let clients: Vec<Client> = (0..10_000).map(|n| Client::of(format!("usr_{n}").as_bytes())).collect();
        let enforced = |percent| clients.iter().filter(|client| client.is_among(percent)).count();
        assert_eq!((enforced(0), enforced(100)), (0, 10_000));
        assert!((2_300..2_700).contains(&enforced(25)), "{}", enforced(25));
        for client in &clients {
            assert!((1..=100).all(|percent| !client.is_among(percent - 1) || client.is_among(percent)));
        }
    }

    /// Threads may share a policy, if a host ever has threads.
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
