//! Compiles a document: resolves names, compares rules, refuses dangerous settings.

mod checks;
mod defaults;
mod headers;
mod matching;
mod provider;
mod routes;
mod webhooks;

use super::error::Problems;
use super::fields::document as fields;
use super::fields::provider as provider_fields;
use super::raw::limits::Caches;
use super::raw::{Document, Require};
use crate::cache::Lifetime;
use crate::cache::shared::Subjects;
use crate::credential::Source;
use crate::introspect::{IntrospectionEndpoint, SessionEndpoint};
use crate::permission::PermissionEndpoint;
use crate::policy::{Access, Bound, Bounds, OwnedHeaders, Policy, PolicyLabels, Route, TokenRules};
use crate::probe::Probe;
use crate::provider::Provider;
use crate::template::{RequestValue, Template};
use crate::webhook::Webhook;
use std::sync::Arc;
use std::time::Duration;

/// Reads an environment variable.
pub type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Compiles a document and reports every problem. There is a policy only if there is no problem.
pub(in crate::config) fn compile(
    document: Document,
    env: Env<'_>,
    problems: &mut Problems,
) -> (Option<Policy>, Vec<String>) {
    let warnings = super::warn::warnings(&document);
    let mut compiler = Compiler {
        env,
        problems,
        owned: OwnedHeaders::default(),
        read_by_credentials: Vec::new(),
        endpoints: Vec::new(),
    };
    let policy = compiler.policy(document);
    (policy, warnings)
}

struct Compiler<'c> {
    env: Env<'c>,
    problems: &'c mut Problems,
    owned: OwnedHeaders,
    /// Headers that carry a credential on some route.
    read_by_credentials: Vec<String>,
    /// Each client of the introspection endpoint once.
    endpoints: Vec<Arc<IntrospectionEndpoint>>,
}

/// What the routes share.
struct Shared {
    provider: Option<Provider>,
    introspection_path: String,
    default_endpoint: Option<Arc<IntrospectionEndpoint>>,
    sources: Vec<Source>,
    strip_credential: bool,
    clock_skew: Duration,
    /// What applies where a route has no rule of that kind.
    require: Require,
    identity_values: Vec<RequestValue>,
    /// The default subject, and the aliases of namespaces.
    permissions: Option<(Template, Vec<(String, String)>)>,
    permission_endpoint: Option<Arc<PermissionEndpoint>>,
    webhooks: Vec<Arc<Webhook>>,
    subjects: Option<Arc<Subjects>>,
    cache: Caches,
    has_sessions: bool,
    sessions: Option<Arc<SessionEndpoint>>,
}

impl Compiler<'_> {
    fn policy(&mut self, mut document: Document) -> Option<Policy> {
        let require = document.require.take().unwrap_or_default();
        self.read_by_credentials = headers::credential_headers(&document);
        self.owned = headers::owned_headers(&document);
        self.owned_names(&document);
        let identity_headers = self.identity_headers(&document);
        self.path_parameters(&document, &identity_headers);
        let sources = match &document.credentials {
            Some(sources) => self.sources(sources),
            None => vec![defaults::source()],
        };
        let provider = document.provider.as_ref().and_then(|p| self.provider(p));
        let introspection = document.provider.as_ref().and_then(|p| p.introspection.as_ref());
        if let Some(introspection) = introspection {
            self.request_path("provider.introspection.path", introspection.path());
        }
        let introspection_path = introspection.map(|i| i.path().to_owned()).unwrap_or_default();
        let default_endpoint = introspection
            .and_then(|i| i.credentials.as_ref())
            .and_then(|c| self.endpoint(provider.as_ref(), &introspection_path, c));
        let raw_permissions = document.provider.as_ref().and_then(|p| p.permissions.as_ref());
        let subject = raw_permissions
            .and_then(|p| self.subject("provider.permissions.subject", p.subject(), &p.namespaces()));
        let permission_endpoint =
            raw_permissions.and_then(|p| self.permissions(provider.as_ref(), p)).map(Arc::new);
        let sessions = document.provider.as_ref().and_then(|p| p.sessions.as_ref()).and_then(|sessions| {
            self.request_path("provider.sessions.path", sessions.path());
            let provider = provider.clone()?;
            Some(Arc::new(SessionEndpoint::new(provider, sessions.path().to_owned())))
        });
        let webhooks = self.webhooks(&document.webhooks);
        let subjects = self.subjects(&webhooks, default_endpoint.as_deref());
        let shared = Shared {
            introspection_path,
            default_endpoint,
            strip_credential: fields::STRIP_CREDENTIAL.of(document.strip_credential),
            clock_skew: fields::CLOCK_SKEW.of(document.clock_skew),
            require,
            identity_values: identity_headers.iter().flat_map(|(_, t)| t.request_values().cloned()).collect(),
            permissions: raw_permissions.zip(subject).map(|(p, subject)| (subject, p.namespaces())),
            cache: document.cache,
            has_sessions: document.provider.as_ref().is_some_and(|p| p.sessions.is_some()),
            permission_endpoint,
            sessions,
            subjects,
            webhooks,
            provider,
            sources,
        };
        self.ready_path(&document);
        let (table, routes) = self.routes(&document.routes, &shared);
        let default_access = fields::DEFAULT_ACCESS.of(document.default_access);
        let fallback = self.fallback(default_access, &shared).map(Arc::new);
        let realm = self.realm(&document, shared.provider.as_ref());
        if !self.problems.is_empty() {
            return None;
        }
        let bounds = bounds(routes.iter().chain(&fallback), shared.cache);
        let probes = self.probes(&shared, &routes);
        Some(Policy {
            id: 0,
            labels: PolicyLabels::default(),
            digest: String::new(),
            route_names: routes.iter().filter_map(|route| route.name.clone()).collect(),
            bounds,
            rates: document.budgets.rates(),
            renders_token_alone: shared.identity_values.is_empty(),
            table,
            fallback,
            realm,
            credential_queries: headers::credential_queries(&document),
            probes,
            webhooks: shared.webhooks,
            subjects: shared.subjects,
            identity_headers,
            owned: std::mem::take(&mut self.owned),
            refused_token_prefixes: document.refused_token_prefixes.unwrap_or_else(|| {
                fields::REFUSED_TOKEN_PREFIXES.default().iter().map(|p| (*p).to_owned()).collect()
            }),
            max_token_bytes: usize::try_from(fields::MAX_TOKEN_BYTES.of(document.max_token_bytes))
                .unwrap_or(usize::MAX),
            tracestate: provider_fields::TRACESTATE.of(document.provider.as_ref().and_then(|p| p.tracestate)),
            ready_path: document.ready_path,
            format: fields::challenge::FORMAT.of(document.format),
            shadow: fields::MODE.of(document.shadow),
            record_allowed: fields::FILTER_STATE.of(document.record_allowed),
        })
    }

    /// Of how many clients in a hundred refusals are enforced; `None` where no mode is configured.
    pub(super) fn enforce_percent(
        &mut self,
        at: &str,
        shadow: Option<bool>,
        percent: Option<u32>,
    ) -> Option<u8> {
        if percent.is_some() && shadow != Some(true) {
            let expected = "`mode: shadow` beside it: otherwise all are enforced";
            self.problems.push(format!("{at}.enforce_percent"), "the field alone", expected);
        }
        let is_shadow = shadow?;
        let percent = if is_shadow { percent.unwrap_or(0) } else { 100 };
        u8::try_from(percent).ok()
    }

    /// Where it stands whose facts are over, if some webhook says so.
    fn subjects(
        &mut self,
        webhooks: &[Arc<Webhook>],
        endpoint: Option<&IntrospectionEndpoint>,
    ) -> Option<Arc<Subjects>> {
        let evicting = webhooks.iter().find(|webhook| webhook.evict.is_some())?;
        let subjects = endpoint.and_then(|endpoint| endpoint.endpoint.subjects());
        if subjects.is_none() && !self.problems.has("provider.introspection.credentials") {
            self.problems.push(
                format!("webhooks.{}.evict", evicting.name),
                "no secret of `provider.introspection`",
                "one: with it the workers tell each other whose answers are over",
            );
        }
        subjects.map(Arc::new)
    }

    /// A probe for each endpoint that some route may call.
    fn probes(&self, shared: &Shared, routes: &[Arc<Route>]) -> Vec<Arc<Probe>> {
        let tokens = self.endpoints.iter().map(|endpoint| Probe::Introspection(Arc::clone(endpoint)));
        let sessions = shared.sessions.iter().map(|endpoint| Probe::Session(Arc::clone(endpoint)));
        let checks = routes.iter().find_map(|route| match &route.access {
            Access::Token(rules) => {
                let permissions = rules.permissions.as_ref()?;
                let first = permissions.checks().next()?;
                Some(Probe::Permission {
                    endpoint: Arc::clone(&permissions.endpoint),
                    namespace: first.namespace.clone(),
                    relation: first.relation.clone(),
                })
            }
            Access::Public(_) | Access::Webhook(_) => None,
        });
        tokens.chain(sessions).chain(checks).map(Arc::new).collect()
    }

    fn realm(&mut self, document: &Document, provider: Option<&Provider>) -> String {
        if let Some(realm) = &document.realm {
            if !realm.bytes().all(|b| (b' '..=b'~').contains(&b)) {
                self.problems.push(
                    "challenge.realm",
                    "bytes outside visible ASCII",
                    "visible ASCII and spaces",
                );
            }
            return realm.clone();
        }
        provider.map_or_else(|| "avnology".to_owned(), |p| p.authority.clone())
    }
}

/// The bounds of a cache; it has no entries if no route would read it.
fn bounds<'r>(routes: impl Iterator<Item = &'r Arc<Route>> + Clone, cache: Caches) -> Bounds {
    let bound = |lifetime: fn(&TokenRules) -> &Lifetime, entries: usize| {
        let lifetimes = routes.clone().filter_map(|route| match &route.access {
            Access::Token(rules) => Some(lifetime(rules)),
            Access::Public(_) | Access::Webhook(_) => None,
        });
        let is_read =
            |l: &Lifetime| !(l.ttl.is_zero() && l.negative_ttl.is_zero() && l.stale_if_error.is_zero());
        Bound {
            max_entries: if lifetimes.clone().any(is_read) { entries } else { 0 },
            max_ttl: lifetimes.clone().map(|l| l.ttl).max().unwrap_or_default(),
            max_stale: lifetimes.map(|l| l.ttl.saturating_add(l.stale_if_error)).max().unwrap_or_default(),
        }
    };
    Bounds {
        tokens: bound(|rules| &rules.token_lifetime, cache.introspection.entries()),
        permissions: bound(|rules| &rules.permission_lifetime, cache.permissions.entries()),
    }
}
