//! Routes and their rules.

use super::{Compiler, Shared};
use crate::config::fields::route as fields;
use crate::config::raw::{self, DefaultAccess};
use crate::introspect::{IntrospectionEndpoint, Requirement};
use crate::policy::{Access, NoRules, PermissionRules, Route, TokenRules};
use crate::route::{Pattern, RouteTable};
use crate::template::{RequestValue, Template};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Compiler<'_> {
    /// The valid routes, and their table.
    pub(super) fn routes(
        &mut self,
        raws: &[raw::Route],
        shared: &Shared,
    ) -> (RouteTable<Arc<Route>>, Vec<Arc<Route>>) {
        let mut table = RouteTable::default();
        let mut routes: Vec<Arc<Route>> = Vec::with_capacity(raws.len());
        let mut places: Vec<&str> = Vec::with_capacity(raws.len());
        let mut names: BTreeMap<&str, &str> = BTreeMap::new();
        let mut named = 0_usize;
        for raw in raws {
            if let Some(name) = &raw.name
                && let Some(first) = names.insert(name, &raw.at)
            {
                self.problems.push(
                    format!("{}.name", raw.at),
                    format!("`{name}`, the name of {first} too"),
                    "a name of its own",
                );
            }
            let pattern = raw.path.as_ref().and_then(|path| match Pattern::parse(path) {
                Ok(pattern) => Some(pattern),
                Err(error) => {
                    self.problems.push(
                        format!("{}.match.path", raw.at),
                        format!("`{path}`"),
                        error.to_string(),
                    );
                    None
                }
            });
            let methods = self.methods(raw);
            let hosts = self.hosts(raw);
            let parameters =
                pattern.as_ref().map(|p| p.names().map(str::to_owned).collect()).unwrap_or_default();
            let mut route = self.route(raw, parameters, shared);
            if let Some(route) = &mut route
                && route.name.is_some()
            {
                route.number = Some(named);
                named = named.saturating_add(1);
            }
            let route = route.map(Arc::new);
            if let Some(route) = &route {
                routes.push(Arc::clone(route));
                places.push(&raw.at);
            }
            let Some(pattern) = pattern else { continue };
            for host in hosts {
                if let Some(first) = table.conflict(&host, &pattern, &methods) {
                    let mut known = routes.iter().zip(&places);
                    let other = known.find(|(known, _)| Arc::ptr_eq(known, first));
                    let other = other.map_or("another route", |(_, place)| place);
                    let found = format!("the host, path and a method of {other}");
                    self.problems.push(
                        format!("{}.match", raw.at),
                        found,
                        "a request that only one route names",
                    );
                } else if let Some(route) = &route {
                    table.insert(Arc::clone(route), &host, &pattern, &methods);
                }
            }
        }
        (table, routes)
    }

    /// Returns `None` only after reporting a problem.
    pub(super) fn route(
        &mut self,
        raw: &raw::Route,
        parameters: Vec<String>,
        shared: &Shared,
    ) -> Option<Route> {
        let at = |name: &str| format!("{}.{name}", raw.at);
        let access = if let Some(name) = &raw.webhook {
            for (field, is_there) in [
                ("access", raw.access.is_some()),
                ("require", raw.require.is_some()),
                ("credentials", raw.has_credentials),
                ("introspection", raw.introspection.is_some()),
                ("on_provider_error", raw.open_on_outage.is_some()),
                ("strip_credential", raw.strip_credential.is_some()),
                ("preflight", raw.preflight == Some(true)),
                ("cache", raw.cache.is_some()),
                ("sessions", raw.sessions.is_some()),
            ] {
                if is_there {
                    self.problems.push(
                        at(field),
                        "the field beside `webhook`",
                        "no such field: the signature is the credential",
                    );
                }
            }
            let Some(webhook) = shared.webhooks.iter().find(|w| w.name == *name) else {
                self.problems.push(at("webhook"), format!("`{name}`"), "a name that stands under `webhooks`");
                return None;
            };
            Access::Webhook(Arc::clone(webhook))
        } else if raw.access() == raw::Access::Public {
            for (field, is_there) in [
                ("require", raw.require.is_some()),
                ("credentials", raw.has_credentials),
                ("introspection", raw.introspection.is_some()),
                ("on_provider_error", raw.open_on_outage.is_some()),
                ("strip_credential", raw.strip_credential.is_some()),
                ("cache", raw.cache.is_some()),
                ("sessions", raw.sessions.is_some()),
            ] {
                if is_there {
                    self.problems.push(
                        at(field),
                        "the field beside `access: public`",
                        "no such field: no credential is looked at",
                    );
                }
            }
            Access::Public(NoRules::declared())
        } else {
            Access::Token(Arc::new(self.token_rules(raw, &parameters, shared)?))
        };
        Some(Route {
            name: raw.name.as_deref().map(Arc::from),
            number: None,
            parameters,
            access,
            enforce_percent: self.enforce_percent(&raw.at, raw.shadow, raw.enforce_percent),
            preflight: fields::PREFLIGHT.of(raw.preflight),
            literal_suffix: fields::matching::LITERAL_SUFFIX.of(raw.literal_suffix),
        })
    }

    /// Returns `None` only after reporting a problem.
    pub(super) fn token_rules(
        &mut self,
        raw: &raw::Route,
        parameters: &[String],
        shared: &Shared,
    ) -> Option<TokenRules> {
        let endpoint = match &raw.introspection {
            Some(credentials) => {
                if shared.introspection_path.is_empty() {
                    self.problems.push(
                        "provider.introspection",
                        "nothing",
                        format!("it: {} wants a token", raw.at),
                    );
                }
                self.endpoint(shared.provider.as_ref(), &shared.introspection_path, credentials)
            }
            None => self.default_endpoint(&raw.at, shared),
        };
        let empty = raw::Require::default();
        let require = raw.require.as_ref().unwrap_or(&empty);
        if let Some(require) = &raw.require
            && require.is_empty()
        {
            self.problems.push(&require.at, "no rule", "at least one rule, or no `require`");
        }
        let sources = raw.credentials.as_ref().map(|s| self.sources(s));
        let requirement = self.requirement(require, parameters, shared);
        let all = self.checks(&require.all, parameters, shared);
        let any = self.checks(&require.any, parameters, shared);
        let checks = || all.iter().chain(&any);
        let of_claims = requirement.claims.iter().flat_map(|(_, t)| t).flat_map(Template::request_values);
        let of_checks = checks().flat_map(|c| c.object.request_values().chain(c.subject.request_values()));
        let mut inputs: Vec<RequestValue> = Vec::new();
        for value in of_claims.chain(of_checks).chain(&shared.identity_values) {
            if !inputs.contains(value) {
                inputs.push(value.clone());
            }
        }
        let sessions = fields::SESSIONS.of(raw.sessions);
        if sessions && !shared.has_sessions {
            self.problems.push(
                "provider.sessions",
                "nothing",
                format!("it: {} takes session tokens", raw.at),
            );
        }
        let (token_lifetime, permission_lifetime) = shared.cache.lifetimes(raw.cache);
        let permissions = match (all.is_empty() && any.is_empty(), &shared.permission_endpoint) {
            (true, _) => None,
            (false, endpoint) => Some(PermissionRules { endpoint: endpoint.clone()?, all, any }),
        };
        Some(TokenRules {
            sessions: shared.sessions.clone().filter(|_| sessions),
            token_lifetime,
            permission_lifetime,
            optional: raw.access() == raw::Access::Optional,
            sources: sources.unwrap_or_else(|| shared.sources.clone()),
            strip_credential: raw.strip_credential.unwrap_or(shared.strip_credential),
            endpoint: endpoint?,
            requirement,
            permissions,
            inputs,
            open_on_outage: self.opens_on_outage(raw, shared),
            subjects: shared.subjects.clone(),
        })
    }

    pub(super) fn default_endpoint(
        &mut self,
        who: &str,
        shared: &Shared,
    ) -> Option<Arc<IntrospectionEndpoint>> {
        if shared.introspection_path.is_empty() {
            self.problems.push("provider.introspection", "nothing", format!("it: {who} wants a token"));
        }
        shared.default_endpoint.clone()
    }

    pub(super) fn requirement(
        &mut self,
        raw: &raw::Require,
        parameters: &[String],
        shared: &Shared,
    ) -> Requirement {
        for (name, scopes) in [("all", &raw.scopes_all), ("any", &raw.scopes_any)] {
            for (nth, scope) in scopes.iter().enumerate() {
                // RFC 6749 section 3.3; the scope appears in the challenge.
                if !scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
                    let path = format!("{}.scopes.{name}[{nth}]", raw.at);
                    self.problems.push(path, format!("`{scope}`"), "one scope, without spaces and quotes");
                }
            }
        }
        let mut claims = Vec::with_capacity(raw.claims.len());
        for (name, texts) in &raw.claims {
            let at = format!("{}.claims.{name}", raw.at);
            self.claim_name(&at, name, &format!("`{name}`"));
            let mut templates = Vec::with_capacity(texts.len());
            for text in texts {
                let Some(template) = self.template(&at, text) else { continue };
                self.parameters(&at, &template, parameters);
                templates.push(template);
            }
            claims.push((name.clone(), templates));
        }
        let top = &shared.require;
        let own_or = |own: &Vec<String>, top: &Vec<String>| match own.is_empty() {
            true => top.clone(),
            false => own.clone(),
        };
        Requirement {
            scopes_all: raw.scopes_all.clone(),
            scopes_any: raw.scopes_any.clone(),
            audience: own_or(&raw.audience, &top.audience),
            issuer: own_or(&raw.issuer, &top.issuer),
            client_id: own_or(&raw.client_id, &top.client_id),
            claims,
            clock_skew: shared.clock_skew,
        }
    }

    fn opens_on_outage(&mut self, raw: &raw::Route, shared: &Shared) -> bool {
        let opens = fields::ON_PROVIDER_ERROR.of(raw.open_on_outage);
        if opens && shared.provider.as_ref().is_some_and(|provider| provider.probe_interval.is_none()) {
            self.problems.push(
                format!("{}.on_provider_error", raw.at),
                "`allow` beside `provider.circuit_breaker: off`",
                "`deny`, or a `circuit_breaker`: without probes the provider is never away, and this never acts",
            );
        }
        opens
    }

    pub(super) fn parameters(&mut self, at: &str, template: &Template, parameters: &[String]) {
        for value in template.request_values() {
            if let RequestValue::Path(name) = value
                && !parameters.contains(name)
            {
                self.problems.push(at, format!("`{{path.{name}}}`"), "a parameter of the route's path");
            }
        }
    }

    pub(super) fn fallback(&mut self, access: DefaultAccess, shared: &Shared) -> Option<Route> {
        let access = match access {
            DefaultAccess::Deny => return None,
            DefaultAccess::Public => Access::Public(NoRules::declared()),
            DefaultAccess::Required => {
                let (token_lifetime, permission_lifetime) = shared.cache.lifetimes(None);
                Access::Token(Arc::new(TokenRules {
                    optional: false,
                    sources: shared.sources.clone(),
                    strip_credential: shared.strip_credential,
                    endpoint: self.default_endpoint("default_access", shared)?,
                    sessions: None,
                    token_lifetime,
                    permission_lifetime,
                    requirement: self.requirement(&raw::Require::default(), &[], shared),
                    permissions: None,
                    inputs: shared.identity_values.clone(),
                    open_on_outage: false,
                    subjects: shared.subjects.clone(),
                }))
            }
        };
        Some(Route {
            name: None,
            number: None,
            parameters: Vec::new(),
            access,
            enforce_percent: None,
            preflight: false,
            literal_suffix: false,
        })
    }
}

impl raw::Require {
    fn is_empty(&self) -> bool {
        let lists = [&self.scopes_all, &self.scopes_any, &self.audience, &self.issuer, &self.client_id];
        lists.iter().all(|l| l.is_empty())
            && self.claims.is_empty()
            && self.all.is_empty()
            && self.any.is_empty()
    }
}
