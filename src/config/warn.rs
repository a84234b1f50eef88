//! What is allowed and probably not meant.

use super::raw::{Access, Document, Route};
use crate::credential::Source;
use crate::route::Pattern;

/// One sentence per finding.
pub(super) fn warnings(document: &Document) -> Vec<String> {
    let mut warnings = Vec::new();
    let wants_token = |r: &&Route| r.webhook.is_none() && r.access != Some(Access::Public);
    let names_client =
        |r: &Route| r.require.as_ref().is_some_and(|q| !q.audience.is_empty() || !q.client_id.is_empty());
    if document.routes.iter().any(|r| wants_token(&r)) && !document.routes.iter().any(names_client) {
        warnings.push(
            "no route requires an `audience` or a `client_id`: a token that any client was given passes"
                .to_owned(),
        );
    }
    for open in document.routes.iter().filter(|r| is_open_wildcard(r)) {
        let stricter =
            document.routes.iter().find(|r| r.hosts.is_some() && (r.webhook.is_some() || is_required(r)));
        if let Some(stricter) = stricter {
            warnings.push(format!(
                "{} lets every host in, also the one that {} guards, for paths that no other route names",
                open.at, stricter.at
            ));
        }
    }
    let routes = document.routes.iter().filter_map(|r| r.credentials.as_ref());
    for (at, source) in document.credentials.iter().chain(routes).flatten() {
        if matches!(source, Source::Cookie { origins, .. } if origins.is_empty()) {
            warnings.push(format!("{at} is a cookie without `origins`: pages of other sites can send it"));
        }
    }
    for webhook in &document.webhooks {
        if !document.routes.iter().any(|r| r.webhook.as_deref() == Some(&webhook.name)) {
            warnings.push(format!("{} stands on no route", webhook.at));
        }
    }
    warnings
}

fn is_required(route: &Route) -> bool {
    matches!(route.access, None | Some(Access::Required))
}

fn is_open_wildcard(route: &Route) -> bool {
    let is_wildcard = route.path.as_ref().and_then(|p| Pattern::parse(p).ok()).is_some_and(|p| p.is_open());
    route.webhook.is_none() && !is_required(route) && route.hosts.is_none() && is_wildcard
}
