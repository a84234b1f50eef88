//! The first look at a request: everything that can be decided from its head.

use super::{edits, trace};
use crate::credential;
use crate::http::head::{Reading, RequestHead};
use crate::http::host::Host;
use crate::http::path::CanonicalPath;
use crate::http::query::Query;
use crate::policy::{Access, Policy, Route, TokenRules};
use crate::refusal::{Acknowledgement, Denial, Refusal};
use crate::route::Found;
use crate::secret::{SESSION_PREFIX, Token};
use crate::template::{Inputs, RequestValue};
use crate::time::Timestamp;
use crate::verdict::{Permit, RequestContext};
use crate::webhook::{Verification, Webhook};
use std::sync::Arc;

/// What the first look found.
pub(super) enum Triage {
    /// The request is decided.
    Decided(Result<Permit, Refusal>),
    /// Its token must be introspected.
    Introspect(Token, Arc<TokenRules>, Inputs),
    /// Its body must be verified.
    Receive(Verification, Arc<Webhook>),
    /// It may pass if no content follows.
    Await(Permit),
}

/// Where a request goes.
struct Located<'p> {
    route: &'p Arc<Route>,
    captures: Vec<String>,
    /// For a preflight that the route lets pass.
    preflight: Option<Permit>,
}

/// Looks at a request's head.
pub(super) fn triage(
    policy: Arc<Policy>,
    head: &RequestHead<'_>,
    now: Timestamp,
) -> (RequestContext, Triage) {
    let mut context = RequestContext::new(Arc::clone(&policy));
    context.is_whole = head.end_of_stream();
    // A request has at least a method: an empty head is one that the host could not hand over.
    if head.pairs().is_empty() {
        return (context, Triage::Decided(Err(Denial::MalformedRequest.into())));
    }
    context.grpc = head.is_grpc();
    context.grpc_web = head.is_grpc_web();
    // First of all, on every path: whatever is decided later, these do not pass.
    edits::strip_owned(&policy, head, &mut context.base_edits);
    if is_health_check(&policy, head) {
        return (context, Triage::Decided(Err(Acknowledgement::Ready.into())));
    }
    let triage = match locate(&policy, head) {
        Err(denial) => {
            // Whose query it is cannot be said, so it is nobody's to log.
            let names: Vec<&str> = policy.credential_queries.iter().map(String::as_str).collect();
            let (is_shadow, edits) = (context.is_shadow(), &mut context.base_edits);
            // It is refused for another reason already.
            let _ = edits::read_query(&names, std::iter::empty(), head, is_shadow, edits);
            Triage::Decided(Err(denial.into()))
        }
        Ok(located) => {
            context.route = Some(Arc::clone(located.route));
            context.note_client(head);
            authenticate(&policy, located, head, &mut context, now)
        }
    };
    (context, triage)
}

/// Whether the gate itself is asked. It answers by itself, so no ambiguous spelling can matter.
fn is_health_check(policy: &Policy, head: &RequestHead<'_>) -> bool {
    let Some(path) = &policy.ready_path else { return false };
    let target = head.target().unwrap_or_default();
    matches!(head.method(), "GET" | "HEAD") && target.split(|b| *b == b'?').next() == Some(path.as_bytes())
}

/// Host and path, then the route.
fn locate<'p>(policy: &'p Policy, head: &RequestHead<'_>) -> Result<Located<'p>, Denial> {
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
    let find = |method: &str| policy.table.find(&host, &path, method, policy.fallback.as_ref());
    let own = find(head.method());
    // A public route takes the same request with content too: nothing needs to be waited for.
    let is_open = matches!(own, Found::Route(route, _) if matches!(route.access, Access::Public(_)));
    if let Some(requested) = preflight_method(head)
        && (!is_open || head.end_of_stream())
        && let Found::Route(route, captures) = find(&requested)
        && let Some(permit) = Permit::preflight(route)
    {
        return Ok(Located { route, captures, preflight: Some(permit) });
    }
    match own {
        Found::Route(route, captures) => Ok(Located { route, captures, preflight: None }),
        Found::Nothing => {
            let route = policy.fallback.as_ref().ok_or(Denial::NoRoute)?;
            Ok(Located { route, captures: Vec::new(), preflight: None })
        }
        Found::Ambiguous { .. } | Found::NoMethod => Err(Denial::NoRoute),
    }
}

/// The method that a real CORS preflight asks about (Fetch, "CORS-preflight request").
fn preflight_method(head: &RequestHead<'_>) -> Option<String> {
    let is_real =
        head.method() == "OPTIONS" && head.has("origin") && head.may_be_empty() && !head.is_upgrade();
    if !is_real {
        return None;
    }
    match head.read("access-control-request-method") {
        Reading::One(method) => String::from_utf8(method.into_owned()).ok(),
        Reading::Missing | Reading::Ambiguous => None,
    }
}

/// The credential, or what the route asks for in its place.
fn authenticate(
    policy: &Policy,
    located: Located<'_>,
    head: &RequestHead<'_>,
    context: &mut RequestContext,
    now: Timestamp,
) -> Triage {
    let Located { route, captures, preflight } = located;
    if let Some(permit) = preflight {
        let sources = match &route.access {
            Access::Token(rules) => rules.sources.as_slice(),
            Access::Public(_) | Access::Webhook(_) => &[],
        };
        context.credential_edits = edits::without_any_credential(sources, head);
        let names = edits::query_names(sources);
        let (is_shadow, edits) = (context.is_shadow(), &mut context.base_edits);
        if let Err(denial) = edits::read_query(&names, std::iter::empty(), head, is_shadow, edits) {
            return Triage::Decided(Err(denial.into()));
        }
        let is_complete = head.end_of_stream();
        return if is_complete { Triage::Decided(Ok(permit)) } else { Triage::Await(permit) };
    }
    match &route.access {
        Access::Public(no_rules) => Triage::Decided(Ok(Permit::public(no_rules))),
        Access::Webhook(webhook) => match webhook.begin(head, now) {
            Err(denial) => Triage::Decided(Err(denial.into())),
            Ok(verification) => Triage::Receive(verification, Arc::clone(webhook)),
        },
        Access::Token(rules) => {
            if rules.strip_credential {
                context.credential_edits = edits::without_credential(&rules.sources, head);
            }
            let values = rules.inputs.iter().filter_map(RequestValue::query_name);
            let names = edits::query_names(&rules.sources);
            let (is_shadow, edits) = (context.is_shadow(), &mut context.base_edits);
            let query = match edits::read_query(&names, values, head, is_shadow, edits) {
                Ok(query) => query,
                Err(denial) => return Triage::Decided(Err(denial.into())),
            };
            match presented(policy, rules, head, &query) {
                Err(denial) => Triage::Decided(Err(denial.into())),
                Ok(None) => Triage::Decided(Permit::anonymous(rules).ok_or(Denial::MissingToken.into())),
                Ok(Some(token)) => {
                    context.trace = trace::of(head, policy.tracestate);
                    let inputs = inputs(rules, route, head, &query, &captures);
                    Triage::Introspect(token, Arc::clone(rules), inputs)
                }
            }
        }
    }
}

/// The token to introspect, if the request presents one that may be an access token.
fn presented(
    policy: &Policy,
    rules: &TokenRules,
    head: &RequestHead<'_>,
    query: &Query<'_>,
) -> Result<Option<Token>, Denial> {
    let token = credential::extract(&rules.sources, head, query, policy.max_token_bytes)?;
    let Some(token) = token else { return Ok(None) };
    if token.reveal().starts_with(SESSION_PREFIX) {
        return if rules.sessions.is_some() { Ok(Some(token)) } else { Err(Denial::SessionToken) };
    }
    if policy.refused_token_prefixes.iter().any(|p| token.reveal().starts_with(p.as_str())) {
        return Err(Denial::TokenKind);
    }
    Ok(Some(token))
}

fn inputs(
    rules: &TokenRules,
    route: &Route,
    head: &RequestHead<'_>,
    query: &Query<'_>,
    captures: &[String],
) -> Inputs {
    let named = route.parameters.iter().map(String::as_str).zip(captures.iter().map(String::as_str));
    Inputs::take(&rules.inputs, head, query, named)
}
