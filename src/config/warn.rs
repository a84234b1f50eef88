//! Warnings about settings that are allowed but probably not intended.

use super::raw::{Access, DefaultAccess, Document, Route};
use crate::credential::Source;
use crate::overrides;
use crate::route::Pattern;
use std::collections::HashMap;

/// One sentence per finding.
pub(super) fn warnings(document: &Document) -> Vec<String> {
    let mut warnings = Vec::new();
    let wants_token = |r: &Route| r.webhook.is_none() && r.access() != Access::Public;
    let names_client =
        |r: &Route| r.require.as_ref().is_some_and(|q| !q.audience.is_empty() || !q.client_id.is_empty());
    let some_want_a_token =
        document.default_access == Some(DefaultAccess::Required) || document.routes.iter().any(wants_token);
    if some_want_a_token && !document.routes.iter().any(names_client) {
        warnings.push(
            "no route requires an `audience` or a `client_id`: a token that any client was given passes"
                .to_owned(),
        );
    }
    let stricter =
        document.routes.iter().find(|r| r.hosts.is_some() && (r.webhook.is_some() || is_required(r)));
    let open = document.routes.iter().filter(|r| is_open_wildcard(r)).map(|r| r.at.as_str());
    let open_default = (document.default_access == Some(DefaultAccess::Public)).then_some("default_access");
    for (open, stricter) in open.chain(open_default).zip(stricter.into_iter().cycle()) {
        warnings.push(format!(
            "{open} lets every host in, also the one that {} guards, for paths that no other route names",
            stricter.at
        ));
    }
    warnings.extend(near_twins(&document.routes));
    let routes = document.routes.iter().filter_map(|r| r.credentials.as_ref());
    for (at, source) in document.credentials.iter().chain(routes).flatten() {
        if matches!(source, Source::Cookie { origins, .. } if origins.is_empty()) {
            warnings.push(format!("{at} is a cookie without `origins`: pages of other sites can send it"));
        }
    }
    for route in document.routes.iter().filter(|route| route.webhook.is_some()) {
        if route.methods.is_none() {
            warnings.push(format!(
                "{} is a webhook without `methods`: the signature does not bind the method, so a delivery passes with any",
                route.at
            ));
        }
        let pattern = route.path.as_ref().and_then(|path| Pattern::parse(path).ok());
        if let Some(name) = pattern.as_ref().and_then(|pattern| pattern.names().next()) {
            warnings.push(format!(
                "{} is a webhook with `{{{name}}}` in its path: the signature does not bind the path, so a delivery passes with any",
                route.at
            ));
        }
    }
    for name in &document.keep_override_headers {
        let part = overrides::find(name).map_or("part", |known| known.replaces.word());
        warnings.push(format!(
            "keep_override_headers lets `{name}` pass: a service that reads it sees another {part} than the gate did"
        ));
    }
    for webhook in &document.webhooks {
        if !document.routes.iter().any(|r| r.webhook.as_deref() == Some(&webhook.name)) {
            warnings.push(format!("{} stands on no route", webhook.at));
        }
    }
    warnings
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
