//! Warnings about settings that are allowed but probably not intended.

use super::raw::{Access, DefaultAccess, Document, Require, Route, SecretSourceKind};
use crate::credential::Source;
use crate::overrides;
use crate::route::Pattern;
use std::collections::HashMap;

/// One sentence per finding.
pub(super) fn warnings(document: &Document) -> Vec<String> {
    let mut findings = Findings(Vec::new());
    let wants_token = |r: &&Route| r.webhook.is_none() && r.access() != Access::Public;
    let is_named = |r: &Require| !r.audience.is_empty() || !r.client_id.is_empty();
    let is_named_at_the_top = document.require.as_ref().is_some_and(is_named);
    let names_client = |r: Option<&Require>| is_named_at_the_top || r.is_some_and(is_named);
    let unnamed = document.routes.iter().filter(wants_token).filter(|r| !names_client(r.require.as_ref()));
    let by_default = document.default_access == Some(DefaultAccess::Required) && !names_client(None);
    for at in unnamed.map(|r| r.at.as_str()).chain(by_default.then_some("default_access")) {
        findings.add(
            at,
            " requires neither an `audience` nor a `client_id`: a token that any client was given passes",
        );
    }
    if document.shadow == Some(true) {
        findings.add("mode", " is `shadow`: nothing is refused, except where a route or webhook enforces");
    }
    if document.default_access == Some(DefaultAccess::Public) {
        findings.add("default_access", " is `public`: what no route names passes without a credential");
    }
    for route in document.routes.iter().filter(|r| r.open_on_outage == Some(true)) {
        findings.add(&route.at, ".on_provider_error is `allow`: whoever can make the provider fail passes");
    }
    for at in literal_secrets(document) {
        findings.add(
            at,
            " is a literal, which Envoy's /config_dump shows: `{\"env\": \"NAME\"}` is read from the environment",
        );
    }
    let stricter =
        document.routes.iter().find(|r| r.hosts.is_some() && (r.webhook.is_some() || is_required(r)));
    let open = document.routes.iter().filter(|r| is_open_wildcard(r)).map(|r| r.at.as_str());
    let open_default = (document.default_access == Some(DefaultAccess::Public)).then_some("default_access");
    for (open, stricter) in open.chain(open_default).zip(stricter.into_iter().cycle()) {
        findings.0.push(format!(
            "{open} lets every host in, also the one that {} guards, for paths that no other route names",
            stricter.at
        ));
    }
    findings.0.extend(near_twins(&document.routes));
    let routes = document.routes.iter().filter_map(|r| r.credentials.as_ref());
    for (at, source) in document.credentials.iter().chain(routes).flatten() {
        if matches!(source, Source::Cookie { origins, .. } if origins.is_empty()) {
            findings.add(at, " is a cookie without `origins`: pages of other sites can send it");
        }
    }
    for route in document.routes.iter().filter(|route| route.webhook.is_some()) {
        if route.methods.is_none() {
            findings.add(
                &route.at,
                " is a webhook without `methods`: the signature does not bind the method, so a delivery passes with any",
            );
        }
        let pattern = route.path.as_ref().and_then(|path| Pattern::parse(path).ok());
        if let Some(name) = pattern.as_ref().and_then(|pattern| pattern.names().next()) {
            findings.0.push(format!(
                "{} is a webhook with `{{{name}}}` in its path: the signature does not bind the path, so a delivery passes with any",
                route.at
            ));
        }
    }
    for name in &document.keep_override_headers {
        let part = overrides::find(name).map_or("part", |known| known.replaces.word());
        findings.0.push(format!(
            "keep_override_headers lets `{name}` pass: a service that reads it sees another {part} than the gate did"
        ));
    }
    for webhook in &document.webhooks {
        if !document.routes.iter().any(|r| r.webhook.as_deref() == Some(&webhook.name)) {
            findings.add(&webhook.at, " stands on no route");
        }
    }
    findings.0
}

struct Findings(Vec<String>);

impl Findings {
    /// Not inlined: the module would hold it once for each warning.
    #[inline(never)]
    fn add(&mut self, at: &str, text: &str) {
        self.0.push([at, text].concat());
    }
}

/// Where secrets stand as they are.
fn literal_secrets(document: &Document) -> impl Iterator<Item = &str> {
    let provider = document.provider.iter();
    let clients = provider.clone().filter_map(|p| p.introspection.as_ref()?.credentials.as_ref());
    let clients = clients.chain(document.routes.iter().filter_map(|r| r.introspection.as_ref()));
    clients
        .flat_map(|client| client.client_secret.iter().chain(&client.token))
        .chain(provider.filter_map(|p| p.permissions.as_ref()?.api_key.as_ref()))
        .chain(document.webhooks.iter().flat_map(|w| &w.secrets))
        .filter(|secret| matches!(secret.from, SecretSourceKind::Literal(_)))
        .map(|secret| secret.at.as_str())
}

/// Routes whose paths differ only in ASCII case or a trailing slash, which frameworks behind the
/// gate may ignore.
fn near_twins(routes: &[Route]) -> Vec<String> {
    let mut seen: HashMap<String, &Route> = HashMap::with_capacity(routes.len());
    let mut twins = Vec::new();
    for route in routes {
        let Some(path) = &route.path else { continue };
        let folded = path.to_ascii_lowercase();
        let folded = folded.strip_suffix('/').unwrap_or(&folded).to_owned();
        match seen.get(&folded) {
            Some(first) if first.path.as_ref() != Some(path) => twins.push(format!(
                "{} and {} differ only in case or a trailing slash, which services may ignore: they need the same rules",
                first.at, route.at
            )),
            Some(_) => {}
            None => drop(seen.insert(folded, route)),
        }
    }
    twins
}

fn is_required(route: &Route) -> bool {
    route.access() == Access::Required
}

fn is_open_wildcard(route: &Route) -> bool {
    let is_wildcard = route.path.as_ref().and_then(|p| Pattern::parse(p).ok()).is_some_and(|p| p.is_open());
    route.webhook.is_none() && !is_required(route) && route.hosts.is_none() && is_wildcard
}
