//! Warnings about settings that are allowed but probably not intended.

use super::raw::{Access, DefaultAccess, Document, Require, Route, SecretSourceKind};
use crate::credential::Source;
use crate::overrides;
use crate::route::Pattern;
use std::collections::HashMap;

/// One sentence per finding; of many alike the first ones, and how many there are beside.
pub(super) fn warnings(document: &Document) -> Vec<String> {
    let mut findings = Findings(Vec::new());
    let routes = &document.routes;
    let wants_token = |r: &&Route| r.webhook.is_none() && r.access() != Access::Public;
    let is_named = |r: &Require| !r.audience.is_empty() || !r.client_id.is_empty();
    let is_named_at_the_top = document.require.as_ref().is_some_and(is_named);
    let names_client = |r: Option<&Require>| is_named_at_the_top || r.is_some_and(is_named);
    let unnamed = routes.iter().filter(wants_token).filter(|r| !names_client(r.require.as_ref()));
    let by_default = document.default_access == Some(DefaultAccess::Required) && !names_client(None);
    findings.add(
        &mut unnamed.map(|r| r.at.as_str()).chain(by_default.then_some("default_access")),
        " requires neither an `audience` nor a `client_id`: a token that any client was given passes",
    );
    findings.add(
        &mut (document.shadow == Some(true)).then_some("mode").into_iter(),
        " is `shadow`: nothing is refused, except where a route or webhook enforces",
    );
    let open_default = (document.default_access == Some(DefaultAccess::Public)).then_some("default_access");
    findings
        .add(&mut open_default.into_iter(), " is `public`: what no route names passes without a credential");
    findings.add(
        &mut routes.iter().filter(|r| r.open_on_outage == Some(true)).map(|r| r.at.as_str()),
        ".on_provider_error is `allow`: whoever can make the provider fail passes",
    );
    findings.add(
        &mut literal_secrets(document),
        " is a literal, which Envoy's /config_dump shows: `{\"env\": \"NAME\"}` is read from the environment",
    );
    let stricter = routes.iter().find(|r| r.hosts.is_some() && (r.webhook.is_some() || is_required(r)));
    let open = routes.iter().filter(|r| is_open_wildcard(r)).map(|r| r.at.as_str());
    let pairs = open.chain(open_default).zip(stricter.into_iter().cycle());
    findings.add_all(&mut pairs.map(|(open, stricter)| {
        format!(
            "{open} lets every host in, also the one that {} guards, for paths that no other route names",
            stricter.at
        )
    }));
    findings.add_all(&mut near_twins(routes).into_iter());
    let sources = routes.iter().filter_map(|r| r.credentials.as_ref());
    let is_for_any = |source: &Source| matches!(source, Source::Cookie { origins, .. } if origins.is_empty());
    let cookies = document.credentials.iter().chain(sources).flatten().filter(|(_, s)| is_for_any(s));
    findings.add(
        &mut cookies.map(|(at, _)| at.as_str()),
        " is a cookie without `origins`: pages of other sites can send it",
    );
    let hooks = || routes.iter().filter(|route| route.webhook.is_some());
    findings.add(
        &mut hooks().filter(|r| r.methods.is_none()).map(|r| r.at.as_str()),
        " is a webhook without `methods`: the signature does not bind the method, so a delivery passes with any",
    );
    findings.add_all(&mut hooks().filter_map(|route| {
        let pattern = Pattern::parse(route.path.as_ref()?).ok()?;
        let name = pattern.names().next()?;
        Some(format!(
            "{} is a webhook with `{{{name}}}` in its path: the signature does not bind the path, so a delivery passes with any",
            route.at
        ))
    }));
    findings.add_all(&mut document.keep_override_headers.iter().map(|name| {
        let part = overrides::find(name).map_or("part", |known| known.replaces.word());
        format!(
            "keep_override_headers lets `{name}` pass: a service that reads it sees another {part} than the gate did"
        )
    }));
    let is_used = |name: &String| routes.iter().any(|r| r.webhook.as_ref() == Some(name));
    findings.add(
        &mut document.webhooks.iter().filter(|w| !is_used(&w.name)).map(|w| w.at.as_str()),
        " stands on no route",
    );
    findings.0
}

struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, places: &mut dyn Iterator<Item = &str>, text: &str) {
        self.add_all(&mut places.map(|at| [at, text].concat()));
    }

    fn add_all(&mut self, alike: &mut dyn Iterator<Item = String>) {
        self.0.extend(alike.take(MAX_ALIKE));
        let more = alike.count();
        if more > 0 {
            self.0.push(format!("… and {more} more like the one before"));
        }
    }
}

/// The most warnings of one kind: who has more reads no more of them.
const MAX_ALIKE: usize = 20;

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
