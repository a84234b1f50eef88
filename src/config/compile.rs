//! From what was written to what is true: names resolved, rules compared, dangers refused.

use super::error::Problems;
use super::raw::{self, DefaultAccess, Document, From, Method, SecretSource};
use crate::credential::Source;
use crate::http::host::Host;
use crate::introspect::{ClientAuthentication, IntrospectionEndpoint, Provider, Requirement};
use crate::permission::{CheckTemplate, PermissionEndpoint};
use crate::policy::{Access, AnswerFormat, OwnedHeaders, Policy, Route, TokenRules, is_reserved};
use crate::route::{Conflict, HostPattern, Methods, Pattern, RouteTable};
use crate::secret::Secret;
use crate::template::{Part, RequestValue, Template};
use crate::webhook::{Webhook, scheme};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Reads an environment variable.
pub type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Compiles a document, noting every problem; the policy is of use only where there is none.
pub(super) fn compile(document: Document, env: Env<'_>, problems: &mut Problems) -> (Policy, Vec<String>) {
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
    /// Headers that carry a credential somewhere.
    read_by_credentials: Vec<String>,
    endpoints: Vec<IntrospectionEndpoint>,
}

/// What routes share.
struct Shared {
    provider: Option<Provider>,
    introspection_path: String,
    default_endpoint: Option<usize>,
    sources: Vec<Source>,
    strip_credential: bool,
    clock_skew: Duration,
    identity_values: Vec<RequestValue>,
    permissions: Option<(Template, Vec<(String, String)>)>,
    webhooks: Vec<String>,
}

impl Compiler<'_> {
    fn policy(&mut self, document: Document) -> Policy {
        self.read_by_credentials = credential_headers(&document);
        self.owned = owned_headers(&document);
        self.owned_names(&document);
        let identity_headers = self.identity_headers(&document);
        let sources = match &document.credentials {
            Some(sources) => self.sources(sources),
            None => {
                vec![Source::Header { name: "authorization".to_owned(), scheme: Some("Bearer".to_owned()) }]
            }
        };
        let provider = document.provider.as_ref().and_then(|p| self.provider(p));
        let introspection = document.provider.as_ref().and_then(|p| p.introspection.as_ref());
        if let Some(introspection) = introspection {
            self.request_path("provider.introspection.path", &introspection.path);
        }
        let introspection_path = introspection.map(|i| i.path.clone()).unwrap_or_default();
        let default_endpoint = introspection
            .and_then(|i| i.credentials.as_ref())
            .and_then(|c| self.endpoint(provider.as_ref(), &introspection_path, c));
        let raw_permissions = document.provider.as_ref().and_then(|p| p.permissions.as_ref());
        let subject = raw_permissions
            .and_then(|p| self.subject("provider.permissions.subject", &p.subject, &p.namespaces));
        let permissions = raw_permissions.and_then(|p| self.permissions(provider.as_ref(), p));
        let shared = Shared {
            introspection_path,
            default_endpoint,
            strip_credential: document.strip_credential,
            clock_skew: document.clock_skew,
            identity_values: identity_headers.iter().flat_map(|(_, t)| t.request_values().cloned()).collect(),
            permissions: raw_permissions.zip(subject).map(|(p, subject)| (subject, p.namespaces.clone())),
            webhooks: document.webhooks.iter().map(|w| w.name.clone()).collect(),
            provider,
            sources,
        };
        let webhooks = self.webhooks(&document.webhooks);
        let (table, routes) = self.routes(&document.routes, &shared);
        let fallback = self.fallback(document.default_access, &shared);
        Policy {
            table,
            routes,
            fallback,
            realm: self.realm(&document, shared.provider.as_ref()),
            sources: shared.sources,
            endpoints: std::mem::take(&mut self.endpoints),
            permissions,
            webhooks,
            identity_headers,
            owned: std::mem::take(&mut self.owned),
            refused_token_prefixes: document
                .refused_token_prefixes
                .unwrap_or_else(|| vec!["rt_".to_owned(), "ak_".to_owned()]),
            format: document.format.unwrap_or(AnswerFormat::Json),
            shadow: document.shadow,
            record_allowed: document.record_allowed,
        }
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

    // --- headers ---

    fn owned_names(&mut self, document: &Document) {
        for (nth, name) in document.strip_headers.iter().enumerate() {
            let danger = danger_of_edit(name);
            if let Some(danger) = danger {
                self.problems.push(
                    format!("strip_headers[{nth}]"),
                    format!("`{name}`"),
                    format!("a header that is not {danger}"),
                );
            }
        }
    }

    fn identity_headers(&mut self, document: &Document) -> Vec<(String, Template)> {
        let mut seen: Vec<String> = Vec::new();
        let mut headers = Vec::new();
        let read_by_templates = headers_read_by_templates(document);
        for (name, text) in &document.identity_headers {
            let at = format!("identity_headers.{name}");
            let lower = name.to_ascii_lowercase();
            let folds = |other: &String| crate::http::head::folds_to(lower.as_bytes(), other.as_bytes());
            let danger = danger_of_edit(name)
                .or_else(|| lower.starts_with("content-").then_some("about the content"))
                .or_else(|| lower.starts_with("x-envoy-").then_some("Envoy's own"))
                .or_else(|| self.read_by_credentials.iter().any(folds).then_some("read as a credential"))
                .or_else(|| read_by_templates.iter().any(folds).then_some("read by a template"))
                .or_else(|| {
                    matches!(lower.as_str(), "x-avnology-signature" | "x-avnology-timestamp")
                        .then_some("a webhook's own")
                });
            if let Some(danger) = danger {
                self.problems.push(&at, format!("`{name}`"), format!("a header that is not {danger}"));
            }
            if seen.iter().any(folds) {
                self.problems.push(&at, format!("`{name}` beside another spelling of it"), "it once");
            }
            seen.push(lower.clone());
            let Some(template) = self.template(&at, text) else { continue };
            let literal_is_plain = template.parts().iter().all(|part| match part {
                Part::Text(text) => text.bytes().all(|b| (b' '..=b'~').contains(&b)),
                _ => true,
            });
            if !literal_is_plain {
                self.problems.push(&at, "bytes outside visible ASCII", "visible ASCII around the variables");
            }
            headers.push((lower, template));
        }
        headers
    }

    fn template(&mut self, at: &str, text: &str) -> Option<Template> {
        let template = match Template::parse(text) {
            Ok(template) => template,
            Err(error) => {
                self.problems.push(at, format!("`{text}`"), error.to_string());
                return None;
            }
        };
        for value in template.request_values() {
            let RequestValue::Header(name) = value else { continue };
            if self.owned.contain(name.as_bytes()) {
                self.problems.push(at, format!("`{{header.{name}}}`"), "a header that a client may set");
            } else if matches!(name.as_str(), "authorization" | "cookie")
                || self.read_by_credentials.contains(name)
            {
                self.problems.push(at, format!("`{{header.{name}}}`"), "a header that carries no credential");
            } else if !is_token(name) {
                self.problems.push(at, format!("`{{header.{name}}}`"), "a header name");
            }
        }
        Some(template)
    }

    fn sources(&mut self, sources: &[(String, Source)]) -> Vec<Source> {
        let mut compiled: Vec<Source> = Vec::new();
        for (at, source) in sources {
            match source {
                Source::Header { name, scheme } => {
                    let lower = name.to_ascii_lowercase();
                    if !is_token(name)
                        || matches!(lower.as_str(), "host" | "cookie")
                        || is_reserved(lower.as_bytes())
                        || is_hop_by_hop(&lower)
                    {
                        self.problems.push(
                            format!("{at}.header"),
                            format!("`{name}`"),
                            "a header that may carry a credential",
                        );
                    }
                    if let Some(scheme) = scheme
                        && !is_token(scheme)
                    {
                        self.problems.push(
                            format!("{at}.scheme"),
                            format!("`{scheme}`"),
                            "an authentication scheme",
                        );
                    }
                }
                Source::Cookie { name, origins } => {
                    if !is_token(name) {
                        self.problems.push(format!("{at}.cookie"), format!("`{name}`"), "a cookie name");
                    }
                    for (nth, origin) in origins.iter().enumerate() {
                        if !is_origin(origin) {
                            let expected = "an origin such as `https://app.example.com`, without path";
                            self.problems.push(
                                format!("{at}.origins[{nth}]"),
                                format!("`{origin}`"),
                                expected,
                            );
                        }
                    }
                }
                Source::Query { name } => {
                    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)) {
                        self.problems.push(
                            format!("{at}.query"),
                            format!("`{name}`"),
                            "letters, digits, `-`, `.`, `_` and `~`",
                        );
                    }
                }
            }
            let source = match source {
                Source::Header { name, scheme } => {
                    Source::Header { name: name.to_ascii_lowercase(), scheme: scheme.clone() }
                }
                other => other.clone(),
            };
            if compiled.contains(&source) {
                self.problems.push(at, "the same place twice", "it once");
            }
            compiled.push(source);
        }
        compiled
    }

    // --- provider ---

    fn provider(&mut self, provider: &raw::Provider) -> Option<Provider> {
        if provider.cluster.is_none() {
            self.problems.push("provider.cluster", "nothing", "the name of an Envoy cluster");
        }
        match &provider.authority {
            None => self.problems.push("provider.authority", "nothing", "the provider's host name"),
            Some(authority) if Host::parse(authority.as_bytes()).is_none() => {
                self.problems.push(
                    "provider.authority",
                    format!("`{authority}`"),
                    "a host name with an optional port",
                );
            }
            Some(_) => {}
        }
        Some(Provider {
            cluster: provider.cluster.clone()?,
            authority: provider.authority.clone()?,
            timeout: provider.timeout,
        })
    }

    fn request_path(&mut self, at: &str, path: &str) {
        if !path.starts_with('/') || !path.bytes().all(|b| (b'!'..=b'~').contains(&b) && b != b'#') {
            self.problems.push(at, format!("`{path}`"), "a path that begins with `/`, in visible ASCII");
        }
    }

    /// The index of the endpoint with these credentials, shared by those who ask as the same client.
    fn endpoint(
        &mut self,
        provider: Option<&Provider>,
        path: &str,
        raw: &raw::ClientCredentials,
    ) -> Option<usize> {
        let credentials = self.client_authentication(raw)?;
        let endpoint =
            IntrospectionEndpoint { provider: provider?.clone(), path: path.to_owned(), credentials };
        Some(self.endpoints.iter().position(|e| *e == endpoint).unwrap_or_else(|| {
            self.endpoints.push(endpoint);
            self.endpoints.len().saturating_sub(1)
        }))
    }

    fn client_authentication(&mut self, raw: &raw::ClientCredentials) -> Option<ClientAuthentication> {
        let at = |name: &str| format!("{}.{name}", raw.path);
        let method = raw.method?;
        let (wants_client, wants_token) = match method {
            Method::Post | Method::Basic => (true, false),
            Method::Bearer => (false, true),
            Method::None => (false, false),
        };
        for (name, wanted, is_there) in [
            ("client_id", wants_client, raw.client_id.is_some()),
            ("client_secret", wants_client, raw.client_secret.is_some()),
            ("token", wants_token, raw.token.is_some()),
        ] {
            match (wanted, is_there) {
                (true, false) => self.problems.push(at(name), "nothing", "a value: the method needs it"),
                (false, true) => {
                    self.problems.push(at(name), "a value", "nothing: the method does not use it")
                }
                _ => {}
            }
        }
        Some(match method {
            Method::Post | Method::Basic => {
                let client_id = raw.client_id.clone();
                let client_secret = raw.client_secret.as_ref().and_then(|s| self.secret(s));
                let (client_id, client_secret) = (client_id?, client_secret?);
                if method == Method::Post {
                    ClientAuthentication::Post { client_id, client_secret }
                } else {
                    ClientAuthentication::Basic { client_id, client_secret }
                }
            }
            Method::Bearer => {
                ClientAuthentication::Bearer { token: self.header_secret(raw.token.as_ref()?)? }
            }
            Method::None => ClientAuthentication::None,
        })
    }

    fn secret(&mut self, source: &SecretSource) -> Option<Secret<String>> {
        let (value, place) = match &source.from {
            From::Env(name) => match (self.env)(name) {
                Some(value) => (value, format!("the environment variable `{name}`")),
                None => {
                    self.problems.push(
                        &source.at,
                        format!("no environment variable `{name}`"),
                        "it to be set, and handed to the plugin",
                    );
                    return None;
                }
            },
            From::Literal(value) => (value.clone(), "a string".to_owned()),
        };
        // A line end behind a secret is a habit of files, never part of one.
        let value = value.trim();
        if value.is_empty() {
            self.problems.push(&source.at, format!("{place} that is empty"), "a secret");
            return None;
        }
        Some(Secret::new(value.to_owned()))
    }

    /// A secret that stands in a header as it is.
    fn header_secret(&mut self, source: &SecretSource) -> Option<Secret<String>> {
        let secret = self.secret(source)?;
        if !secret.reveal().bytes().all(|b| (b'!'..=b'~').contains(&b)) {
            self.problems.push(
                &source.at,
                "a secret with bytes outside visible ASCII",
                "one that can stand in a header",
            );
            return None;
        }
        Some(secret)
    }

    fn permissions(
        &mut self,
        provider: Option<&Provider>,
        raw: &raw::Permissions,
    ) -> Option<PermissionEndpoint> {
        self.request_path("provider.permissions.path", &raw.path);
        let api_key = self.header_secret(raw.api_key.as_ref()?)?;
        Some(PermissionEndpoint { provider: provider?.clone(), path: raw.path.clone(), api_key })
    }

    fn subject(&mut self, at: &str, text: &str, namespaces: &[(String, String)]) -> Option<Template> {
        let template = self.check_template(at, text)?;
        if !template.reads_token() {
            self.problems.push(
                at,
                format!("`{text}`"),
                "a `{token.…}` in it: anybody would be the same subject",
            );
        }
        match template.split_type() {
            Some((kind, rest)) => Some(rest.prefixed(format!("{}:", alias(&kind, namespaces)))),
            None => {
                self.problems.push(
                    at,
                    format!("`{text}`"),
                    "a type before a colon, as in `identities:{token.sub}`",
                );
                None
            }
        }
    }

    fn check_template(&mut self, at: &str, text: &str) -> Option<Template> {
        let template = self.template(at, text)?;
        let is_plain = |part: &Part| match part {
            Part::Text(text) => text.bytes().all(|b| (b'!'..=b'~').contains(&b)),
            _ => true,
        };
        if !template.parts().iter().all(is_plain) {
            self.problems.push(at, format!("`{text}`"), "visible ASCII without spaces around the variables");
        }
        Some(template)
    }

    // --- webhooks ---

    fn webhooks(&mut self, raws: &[raw::Webhook]) -> Vec<Webhook> {
        let mut owners: BTreeMap<String, String> = BTreeMap::new();
        let mut webhooks = Vec::with_capacity(raws.len());
        for raw in raws {
            let mut secrets = Vec::with_capacity(raw.secrets.len());
            for source in &raw.secrets {
                let Some(secret) = self.secret(source) else { continue };
                let key = secret.reveal();
                if key.len() < MIN_KEY && !raw.allow_short_key {
                    let expected = format!("at least {MIN_KEY} bytes, or `allow_short_key`");
                    self.problems.push(&source.at, "a key that is too short", expected);
                }
                match owners.get(key) {
                    Some(owner) if *owner == raw.name => {
                        self.problems.push(&source.at, "the same secret twice", "it once")
                    }
                    Some(owner) => self.problems.push(
                        &source.at,
                        format!("a secret that `webhooks.{owner}` has too"),
                        "a secret of its own: a delivery to one would pass at the other",
                    ),
                    None => drop(owners.insert(key.clone(), raw.name.clone())),
                }
                secrets.push(Secret::new(key.clone().into_bytes()));
            }
            if raw.body_only && raw.tolerance.is_some() {
                let expected = "no `tolerance` beside `body_only`: no time is signed";
                self.problems.push(format!("{}.tolerance", raw.at), "a tolerance", expected);
            }
            webhooks.push(Webhook {
                name: raw.name.clone(),
                scheme: if raw.body_only { scheme::AVNOLOGY_BODY_ONLY } else { scheme::AVNOLOGY },
                secrets,
                tolerance: raw.tolerance.unwrap_or(Duration::from_secs(300)),
                max_body_bytes: raw.max_body_bytes,
                body_timeout: raw.body_timeout,
                shadow: raw.shadow,
            });
        }
        webhooks
    }

    // --- routes ---

    fn routes(&mut self, raws: &[raw::Route], shared: &Shared) -> (RouteTable, Vec<Route>) {
        let mut table = RouteTable::default();
        let mut routes: Vec<Route> = Vec::with_capacity(raws.len());
        let mut names: BTreeMap<&str, &str> = BTreeMap::new();
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
            let route = self.route(raw, parameters, shared);
            // The index stands even for a route with problems, so that later messages name the right one.
            let index = routes.len();
            routes.push(route);
            let Some(pattern) = pattern else { continue };
            for host in hosts {
                if let Err(Conflict { with }) = table.insert(index, &host, &pattern, &methods) {
                    let other = raws.get(with).map(|r| r.at.as_str()).unwrap_or_default();
                    let found = format!("the host, path and a method of {other}");
                    self.problems.push(
                        format!("{}.match", raw.at),
                        found,
                        "a request that only one route names",
                    );
                }
            }
        }
        (table, routes)
    }

    fn methods(&mut self, raw: &raw::Route) -> Methods {
        let Some(names) = &raw.methods else { return Methods::Any };
        for (nth, name) in names.iter().enumerate() {
            if !is_token(name) || name.bytes().any(|b| b.is_ascii_lowercase()) {
                self.problems.push(
                    format!("{}.match.methods[{nth}]", raw.at),
                    format!("`{name}`"),
                    "a method in upper case",
                );
            }
        }
        Methods::Only(names.clone())
    }

    fn hosts(&mut self, raw: &raw::Route) -> Vec<HostPattern> {
        let Some(names) = &raw.hosts else { return vec![HostPattern::Any] };
        let mut hosts = Vec::with_capacity(names.len());
        for (nth, name) in names.iter().enumerate() {
            match HostPattern::parse(name) {
                Some(host) => hosts.push(host),
                None => {
                    let expected = "a host without port, or `*.` and a suffix";
                    self.problems.push(
                        format!("{}.match.hosts[{nth}]", raw.at),
                        format!("`{name}`"),
                        expected,
                    );
                }
            }
        }
        hosts
    }

    fn route(&mut self, raw: &raw::Route, parameters: Vec<String>, shared: &Shared) -> Route {
        let at = |name: &str| format!("{}.{name}", raw.at);
        let access = if let Some(name) = &raw.webhook {
            for (field, is_there) in [
                ("access", raw.access.is_some()),
                ("require", raw.require.is_some()),
                ("credentials", raw.has_credentials),
                ("introspection", raw.introspection.is_some()),
                ("on_provider_error", raw.open_on_outage.is_some()),
                ("strip_credential", raw.strip_credential.is_some()),
                ("preflight", raw.preflight),
            ] {
                if is_there {
                    self.problems.push(
                        at(field),
                        "the field beside `webhook`",
                        "no such field: the signature is the credential",
                    );
                }
            }
            match shared.webhooks.iter().position(|w| w == name) {
                Some(index) => Access::Webhook(index),
                None => {
                    self.problems.push(
                        at("webhook"),
                        format!("`{name}`"),
                        "a name that stands under `webhooks`",
                    );
                    Access::Webhook(usize::MAX)
                }
            }
        } else if raw.access == Some(raw::Access::Public) {
            for (field, is_there) in [
                ("require", raw.require.is_some()),
                ("credentials", raw.has_credentials),
                ("introspection", raw.introspection.is_some()),
                ("on_provider_error", raw.open_on_outage.is_some()),
                ("strip_credential", raw.strip_credential.is_some()),
            ] {
                if is_there {
                    self.problems.push(
                        at(field),
                        "the field beside `access: public`",
                        "no such field: no credential is looked at",
                    );
                }
            }
            Access::Public
        } else {
            self.token_rules(raw, &parameters, shared)
                .map_or(Access::Public, |rules| Access::Token(Box::new(rules)))
        };
        Route {
            name: raw.name.as_deref().map(Rc::from),
            parameters,
            access,
            shadow: raw.shadow,
            preflight: raw.preflight,
        }
    }

    /// `None` only with a problem noted.
    fn token_rules(
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
        let mut inputs: Vec<RequestValue> =
            requirement.claims.iter().flat_map(|(_, t)| t.request_values().cloned()).collect();
        inputs.extend(
            checks().flat_map(|c| c.object.request_values().chain(c.subject.request_values())).cloned(),
        );
        inputs.extend(shared.identity_values.iter().cloned());
        inputs.sort();
        inputs.dedup();
        Some(TokenRules {
            optional: raw.access == Some(raw::Access::Optional),
            sources: sources.unwrap_or_else(|| shared.sources.clone()),
            strip_credential: raw.strip_credential.unwrap_or(shared.strip_credential),
            endpoint: endpoint?,
            requirement,
            all,
            any,
            inputs,
            open_on_outage: raw.open_on_outage.unwrap_or_default(),
        })
    }

    fn default_endpoint(&mut self, who: &str, shared: &Shared) -> Option<usize> {
        if shared.introspection_path.is_empty() {
            self.problems.push("provider.introspection", "nothing", format!("it: {who} wants a token"));
        }
        shared.default_endpoint
    }

    fn requirement(&mut self, raw: &raw::Require, parameters: &[String], shared: &Shared) -> Requirement {
        for (name, scopes) in [("all", &raw.scopes_all), ("any", &raw.scopes_any)] {
            for (nth, scope) in scopes.iter().enumerate() {
                // RFC 6749 section 3.3; it stands in the challenge.
                if !scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
                    let path = format!("{}.scopes.{name}[{nth}]", raw.at);
                    self.problems.push(path, format!("`{scope}`"), "one scope, without spaces and quotes");
                }
            }
        }
        let mut claims = Vec::with_capacity(raw.claims.len());
        for (name, text) in &raw.claims {
            let at = format!("{}.claims.{name}", raw.at);
            if let Some(template) = self.template(&at, text) {
                self.parameters(&at, &template, parameters);
                claims.push((name.clone(), template));
            }
        }
        Requirement {
            scopes_all: raw.scopes_all.clone(),
            scopes_any: raw.scopes_any.clone(),
            audience: raw.audience.clone(),
            issuer: raw.issuer.clone(),
            client_id: raw.client_id.clone(),
            claims,
            clock_skew: shared.clock_skew,
        }
    }

    fn parameters(&mut self, at: &str, template: &Template, parameters: &[String]) {
        for value in template.request_values() {
            if let RequestValue::Path(name) = value
                && !parameters.contains(name)
            {
                self.problems.push(at, format!("`{{path.{name}}}`"), "a parameter of the route's path");
            }
        }
    }

    fn checks(&mut self, raws: &[raw::Check], parameters: &[String], shared: &Shared) -> Vec<CheckTemplate> {
        raws.iter().filter_map(|raw| self.check(raw, parameters, shared)).collect()
    }

    fn check(&mut self, raw: &raw::Check, parameters: &[String], shared: &Shared) -> Option<CheckTemplate> {
        let at = |name: &str| format!("{}.{name}", raw.at);
        let Some((default_subject, namespaces)) = &shared.permissions else {
            self.problems.push(
                "provider.permissions",
                "nothing usable",
                format!("it: {} is a permission check", raw.at),
            );
            return None;
        };
        let object = raw.object.as_ref().and_then(|text| self.check_template(&at("object"), text))?;
        let (namespace, object) = match &raw.namespace {
            Some(namespace) => (namespace.clone(), object),
            None => match object.split_type() {
                Some((kind, rest)) => (alias(&kind, namespaces), rest),
                None => {
                    let expected =
                        "`namespace` beside it, or a type before a colon, as in `project:{path.id}`";
                    self.problems.push(at("object"), "no type", expected);
                    return None;
                }
            },
        };
        let relation = raw.relation.clone()?;
        for (field, text) in [("namespace", &namespace), ("relation", &relation)] {
            if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
                self.problems.push(at(field), format!("`{text}`"), "letters, digits, `-`, `_` and `.`");
            }
        }
        let subject = match &raw.subject {
            Some(text) => self.subject(&at("subject"), text, namespaces)?,
            None => default_subject.clone(),
        };
        self.parameters(&at("object"), &object, parameters);
        self.parameters(&at("subject"), &subject, parameters);
        Some(CheckTemplate { namespace, object, relation, subject })
    }

    fn fallback(&mut self, access: DefaultAccess, shared: &Shared) -> Option<Route> {
        let access = match access {
            DefaultAccess::Deny => return None,
            DefaultAccess::Public => Access::Public,
            DefaultAccess::Required => Access::Token(Box::new(TokenRules {
                optional: false,
                sources: shared.sources.clone(),
                strip_credential: shared.strip_credential,
                endpoint: self.default_endpoint("default_access", shared)?,
                requirement: Requirement { clock_skew: shared.clock_skew, ..Requirement::default() },
                all: Vec::new(),
                any: Vec::new(),
                inputs: shared.identity_values.clone(),
                open_on_outage: false,
            })),
        };
        Some(Route { name: None, parameters: Vec::new(), access, shadow: false, preflight: false })
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

fn alias(kind: &str, namespaces: &[(String, String)]) -> String {
    namespaces
        .iter()
        .find(|(name, _)| name == kind)
        .map_or_else(|| kind.to_owned(), |(_, namespace)| namespace.clone())
}

/// Every header that some source reads, the default's too.
fn credential_headers(document: &Document) -> Vec<String> {
    let routes = document.routes.iter().filter_map(|r| r.credentials.as_ref());
    let mut names: Vec<String> = document
        .credentials
        .iter()
        .chain(routes)
        .flatten()
        .filter_map(|(_, source)| source.header_name().map(str::to_ascii_lowercase))
        .collect();
    names.push("authorization".to_owned());
    names
}

fn headers_read_by_templates(document: &Document) -> Vec<String> {
    let requires = document.routes.iter().filter_map(|r| r.require.as_ref());
    let checks = requires.clone().flat_map(|r| r.all.iter().chain(&r.any));
    let texts = requires
        .flat_map(|r| r.claims.iter().map(|(_, text)| text))
        .chain(checks.flat_map(|c| c.object.iter().chain(&c.subject)))
        .chain(document.identity_headers.iter().map(|(_, text)| text))
        .chain(document.provider.iter().filter_map(|p| p.permissions.as_ref()).map(|p| &p.subject));
    texts
        .filter_map(|text| Template::parse(text).ok())
        .flat_map(|t| t.request_values().cloned().collect::<Vec<_>>())
        .filter_map(|value| match value {
            RequestValue::Header(name) => Some(name),
            _ => None,
        })
        .collect()
}

fn owned_headers(document: &Document) -> OwnedHeaders {
    let mut names: Vec<String> =
        document.identity_headers.iter().map(|(n, _)| n.to_ascii_lowercase()).collect();
    names.extend(document.strip_headers.iter().map(|n| n.to_ascii_lowercase()));
    if !document.keep_override_headers {
        names.extend(OVERRIDE_HEADERS.iter().map(|n| (*n).to_owned()));
    }
    // The gate's own space is owned without being listed.
    names.retain(|n| !is_reserved(n.as_bytes()));
    OwnedHeaders::new(names)
}

/// With these a client can make a framework see another method or path than the gate did.
const OVERRIDE_HEADERS: [&str; 6] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-envoy-original-path",
];

/// Why the gate must neither set nor remove a header.
fn danger_of_edit(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        _ if lower.starts_with(':') => Some("a pseudo-header"),
        _ if !is_token(&lower) => Some("malformed"),
        "host" => Some("the authority"),
        "authorization" | "cookie" => Some("a credential"),
        _ if is_hop_by_hop(&lower) => Some("about the connection"),
        _ => None,
    }
}

/// RFC 9110 section 7.6.1.
fn is_hop_by_hop(lower: &str) -> bool {
    matches!(
        lower,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn is_origin(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, authority)| {
        matches!(scheme, "http" | "https")
            && Host::parse(authority.as_bytes()).is_some()
            && !authority.bytes().any(|b| b.is_ascii_uppercase())
    })
}

/// Bytes of an HMAC key.
const MIN_KEY: usize = 16;
