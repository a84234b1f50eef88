//! The first look at a request: everything that can be decided from its head.

use crate::credential::{self, Source};
use crate::http::Edit;
use crate::http::head::{Reading, RequestHead, normalized_eq};
use crate::http::host::Host;
use crate::http::path::CanonicalPath;
use crate::http::query;
use crate::policy::{Access, OVERRIDE_HEADERS, Policy, Route, TokenRules};
use crate::refusal::{Denial, Refusal, Unusable};
use crate::route::Found;
use crate::secret::{SESSION_PREFIX, Token};
use crate::template::Inputs;
use crate::time::Timestamp;
use crate::verdict::{Dossier, Permit};
use crate::webhook::Verification;
use std::rc::Rc;
use std::sync::Arc;

/// What the first look found.
pub(super) enum Opening {
    /// Decided.
    Decided(Result<Permit, Refusal>),
    /// The token must be introspected.
    Introspect(Token, Inputs),
    /// The body must be verified.
    Receive(Verification),
}

/// Looks at a request's head.
pub(super) fn open(policy: &Rc<Policy>, head: &RequestHead<'_>, now: Timestamp) -> (Dossier, Opening) {
    let mut dossier = Dossier {
        policy: Rc::clone(policy),
        route: None,
        base_edits: Vec::new(),
        credential_edits: Vec::new(),
        identity_headers: None,
        token: None,
        is_stale: false,
        grpc: false,
    };
    // A request has at least a method: an empty head is one that the host could not hand over.
    if head.pairs().is_empty() {
        return (dossier, Opening::Decided(Err(Denial::MalformedRequest.into())));
    }
    dossier.grpc = head.is_grpc();
    // First of all, on every path: whatever is decided later, these do not pass.
    strip_owned(policy, head, &mut dossier.base_edits);
    let opening = match locate(policy, head) {
        Err(denial) => {
            // Whose query it is cannot be said, so it is nobody's to log.
            let names: Vec<&str> = policy.credential_queries.iter().map(String::as_str).collect();
            cut_query(&names, head, &mut dossier.base_edits);
            Opening::Decided(Err(denial.into()))
        }
        Ok((route, captures, is_preflight)) => {
            dossier.route = Some(Arc::clone(route));
            look(policy, route, head, &captures, is_preflight, &mut dossier, now)
        }
    };
    (dossier, opening)
}

/// Host and path, then the route.
fn locate<'p>(
    policy: &'p Policy,
    head: &RequestHead<'_>,
) -> Result<(&'p Arc<Route>, Vec<String>, bool), Denial> {
    let host = Host::of(head)?;
    // CONNECT and `OPTIONS *` have no path that a route could name.
    let path = CanonicalPath::parse(head.target().unwrap_or_default())?;
    if head.values(":path").nth(1).is_some() {
        return Err(Denial::InvalidPath);
    }
    if head.method().is_empty() {
        return Err(Denial::MalformedRequest);
    }
    if head.is_upgrade() && head.connection_nominates() {
        return Err(Denial::NominatingConnection);
    }
    if let Some(requested) = preflight_method(head)
        && let Found::Route(route, captures) = policy.table.find(&host, &path, &requested)
        && route.preflight
    {
        return Ok((route, captures, true));
    }
    match policy.table.find(&host, &path, head.method()) {
        Found::Route(route, captures) => Ok((route, captures, false)),
        Found::Nothing => {
            policy.fallback.as_ref().map(|route| (route, Vec::new(), false)).ok_or(Denial::NoRoute)
        }
        Found::Barred => Err(Denial::NoRoute),
    }
}

/// The method that a real CORS preflight asks about (Fetch, "CORS-preflight request").
fn preflight_method(head: &RequestHead<'_>) -> Option<String> {
    let is_real =
        head.method() == "OPTIONS" && head.has("origin") && head.end_of_stream() && !head.is_upgrade();
    if !is_real {
        return None;
    }
    match head.read("access-control-request-method") {
        Reading::One(method) => String::from_utf8(method.into_owned()).ok(),
        Reading::Missing | Reading::Ambiguous => None,
    }
}

fn look(
    policy: &Policy,
    route: &Route,
    head: &RequestHead<'_>,
    captures: &[String],
    is_preflight: bool,
    dossier: &mut Dossier,
    now: Timestamp,
) -> Opening {
    // A permit that the route does not give would be a defect of ours, and lets nothing pass.
    let internal = || Opening::Decided(Err(Unusable::Internal.into()));
    if is_preflight {
        let sources = match &route.access {
            Access::Token(rules) => rules.sources.as_slice(),
            _ => &[],
        };
        cut_query(&query_names(sources), head, &mut dossier.base_edits);
        dossier.credential_edits = without_any_credential(sources, head);
        return Permit::preflight(route).map_or_else(internal, |permit| Opening::Decided(Ok(permit)));
    }
    match &route.access {
        Access::Public => Permit::public(route).map_or_else(internal, |permit| Opening::Decided(Ok(permit))),
        Access::Webhook(webhook) => match webhook.begin(head, now) {
            Err(denial) => Opening::Decided(Err(denial.into())),
            // No body callback will ever come for a request that ends with its head.
            Ok(verification) if head.end_of_stream() => {
                Opening::Decided(verification.finish().map(Permit::webhook).map_err(Refusal::from))
            }
            Ok(verification) => Opening::Receive(verification),
        },
        Access::Token(rules) => {
            cut_query(&query_names(&rules.sources), head, &mut dossier.base_edits);
            if rules.strip_credential {
                dossier.credential_edits = without_credential(&rules.sources, head);
            }
            match presented(policy, rules, head) {
                Err(denial) => Opening::Decided(Err(denial.into())),
                Ok(None) => Opening::Decided(Permit::anonymous(route).ok_or(Denial::MissingToken.into())),
                Ok(Some(token)) => Opening::Introspect(token, inputs(rules, route, head, captures)),
            }
        }
    }
}

/// The token to introspect, if the request presents one that may be an access token.
fn presented(policy: &Policy, rules: &TokenRules, head: &RequestHead<'_>) -> Result<Option<Token>, Denial> {
    let Some(token) = credential::extract(&rules.sources, head)? else { return Ok(None) };
    if token.reveal().starts_with(SESSION_PREFIX) {
        return if rules.sessions.is_some() { Ok(Some(token)) } else { Err(Denial::SessionToken) };
    }
    if policy.refused_token_prefixes.iter().any(|p| token.reveal().starts_with(p.as_str())) {
        return Err(Denial::TokenKind);
    }
    Ok(Some(token))
}

fn inputs(rules: &TokenRules, route: &Route, head: &RequestHead<'_>, captures: &[String]) -> Inputs {
    let named = route.parameters.iter().map(String::as_str).zip(captures.iter().map(String::as_str));
    Inputs::take(&rules.inputs, head, named)
}

fn strip_owned(policy: &Policy, head: &RequestHead<'_>, edits: &mut Vec<Edit>) {
    for (name, _) in head.pairs() {
        if policy.owned.contains(name) && !edits.iter().any(|e| matches!(e, Edit::Remove(n) if n == name)) {
            edits.push(Edit::Remove(name.to_vec()));
        }
    }
}

fn query_names(sources: &[Source]) -> Vec<&str> {
    sources.iter().filter_map(Source::query_name).collect()
}

/// The edits that remove every header which some service reads as one of these.
fn without_headers(names: &[&str], head: &RequestHead<'_>) -> Vec<Edit> {
    let mut found: Vec<&[u8]> = head.pairs().iter().map(|(name, _)| *name).collect();
    found.retain(|found| names.iter().any(|name| normalized_eq(found, name.as_bytes())));
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(|name| Edit::Remove(name.to_vec())).collect()
}

/// A credential in the query must reach neither the service nor any log.
fn cut_query(names: &[&str], head: &RequestHead<'_>, edits: &mut Vec<Edit>) {
    if names.is_empty() {
        return;
    }
    if let Some(path) = head.target().and_then(|target| query::cut(target, names)) {
        edits.push(Edit::Replace(b":path".to_vec(), path));
    }
}

/// The edits that take the places of these sources out of the request.
fn without_credential(sources: &[Source], head: &RequestHead<'_>) -> Vec<Edit> {
    let cookies: Vec<&str> = sources
        .iter()
        .filter_map(|source| match source {
            Source::Cookie { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let headers: Vec<&str> = sources
        .iter()
        .filter_map(|source| match source {
            Source::Header { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let mut edits = without_headers(&headers, head);
    let lines: Vec<&[u8]> = head.values("cookie").collect();
    if lines.iter().any(|line| credential::without_cookies(line, &cookies).is_some()) {
        edits.push(Edit::Remove(b"cookie".to_vec()));
        let kept = lines
            .iter()
            .map(|line| credential::without_cookies(line, &cookies).unwrap_or_else(|| line.to_vec()));
        edits.extend(kept.filter(|line| !line.is_empty()).map(|line| Edit::Add(b"cookie".to_vec(), line)));
    }
    edits
}

/// A preflight carries no credential (Fetch); one that does is not from a browser, and its credential was not looked at.
fn without_any_credential(sources: &[Source], head: &RequestHead<'_>) -> Vec<Edit> {
    let mut names = vec!["authorization", "cookie"];
    names.extend(sources.iter().filter_map(Source::header_name));
    // Nor does it carry a method or path for the service to see in place of its own.
    names.extend(OVERRIDE_HEADERS);
    without_headers(&names, head)
}
