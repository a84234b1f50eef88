//! From an outcome to what the host does: failure mode, shadow mode, local replies and header edits
//! are decided only here.

mod context;
mod fail_open;
mod permit;
mod respond;

pub use context::RequestContext;
pub use fail_open::FailOpen;
pub use permit::Permit;

use crate::http::{Edit, LocalReply};
use crate::policy::Access;
use crate::refusal::{Acknowledgement, Denial, DeniedCheck, Reason, Refusal};
use crate::telemetry::{CacheOutcome, Decision, Details, Event};
use std::borrow::Cow;

/// What the host does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    action: Action,
    event: Event,
}

/// The part of a [`Verdict`] that the host carries out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Apply these edits, in order, and continue the request. If one cannot be applied, the request
    /// must not continue.
    Forward(Vec<Edit>),
    /// Send a local reply.
    Respond {
        /// Applied before the reply, as far as possible, so that no access log shows a credential.
        edits: Vec<Edit>,
        /// The reply.
        reply: LocalReply,
    },
}

impl Verdict {
    /// What to do.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// What to report to the operator.
    pub fn event(&self) -> &Event {
        &self.event
    }
}

/// Why a request may continue.
#[derive(Clone, Debug)]
pub enum Passage {
    /// It was permitted.
    Permit(Permit),
    /// It was not permitted, and its route fails open.
    FailOpen(FailOpen),
}

/// Allows forwarding a request that was not permitted. Only [`settle`] creates one, and it is
/// always counted.
struct Bypass(Decision, Reason, Option<Refusal>);

/// Decides a request. It consumes the context: a request is decided once.
pub fn settle(context: RequestContext, outcome: Result<Passage, Refusal>) -> Verdict {
    let bypass = match outcome {
        Ok(Passage::Permit(permit)) => {
            let reason = match context.is_stale() {
                true => Reason::AuthenticatedStale,
                false => permit.reason(),
            };
            let event = event(&context, Decision::Allow, reason, None);
            return Verdict { action: Action::Forward(forward_permitted(context, &permit)), event };
        }
        Ok(Passage::FailOpen(open)) => Bypass(Decision::FailOpen, open.outage().reason(), None),
        Err(refusal) if is_shadowed(&context, &refusal) => {
            Bypass(Decision::ShadowDeny, refusal.reason(), Some(refusal))
        }
        Err(refusal) => {
            let decision = if is_answer(&refusal) { Decision::Allow } else { Decision::Deny };
            let event = event(&context, decision, refusal.reason(), Some(&refusal));
            let reply = respond::respond(&refusal, &context);
            return Verdict { action: Action::Respond { edits: path_edits(context), reply }, event };
        }
    };
    let event = event(&context, bypass.0, bypass.1, bypass.2.as_ref());
    Verdict { action: Action::Forward(forward_bypassed(context, &bypass)), event }
}

/// No refusal at all: the request is for the gate.
const READY: Refusal = Refusal::Acknowledgement(Acknowledgement::Ready);

/// Whether the gate gives the caller what he asks for.
fn is_answer(refusal: &Refusal) -> bool {
    *refusal == READY || *refusal == Refusal::Acknowledgement(Acknowledgement::Challenge)
}

/// Whether a refusal is counted and not enforced.
fn is_shadowed(context: &RequestContext, refusal: &Refusal) -> bool {
    if *refusal == READY {
        return false;
    }
    // What could not be read cannot be sanitized either, so not even shadow mode forwards it.
    *refusal != Refusal::Denial(Denial::MalformedRequest) && context.is_shadow()
}

/// What a request gets whose policy is not known: a host that begins a stream under a root which it
/// has not configured, or not any more, causes this. So does one that does not show a request's
/// head.
pub fn undecidable() -> Verdict {
    let event = Event {
        decision: Decision::Deny,
        reason: Reason::Internal,
        route: None,
        route_label: None,
        webhook: None,
        secret_index: None,
        eviction: None,
        details: Some(Box::default()),
    };
    Verdict { action: Action::Respond { edits: Vec::new(), reply: respond::undecidable() }, event }
}

/// Owned headers are removed first; then verified values are added.
fn forward_permitted(context: RequestContext, permit: &Permit) -> Vec<Edit> {
    let webhook = permit.verified().map(|v| v.headers()).unwrap_or_default();
    let mut edits = forward(context);
    edits.extend(webhook.into_iter().map(|(name, value)| Edit::Add(name.into(), value.into())));
    edits
}

/// A request that is forwarded without a permit has the values that were verified for it, and no
/// others.
fn forward_bypassed(context: RequestContext, _: &Bypass) -> Vec<Edit> {
    forward(context)
}

fn forward(context: RequestContext) -> Vec<Edit> {
    let is_stale = context.is_stale();
    let mut edits = context.base_edits;
    edits.extend(context.credential_edits);
    edits.extend(context.identity_headers.map(Edit::AddAll));
    if is_stale {
        edits.push(Edit::Add(b"x-avnology-stale".to_vec(), b"true".to_vec()));
    }
    edits
}

/// For a refused request only the path is edited: the access log shows it.
fn path_edits(context: RequestContext) -> Vec<Edit> {
    context
        .base_edits
        .into_iter()
        .filter(|edit| matches!(edit, Edit::Replace(name, _) if name == b":path"))
        .collect()
}

fn event(context: &RequestContext, decision: Decision, reason: Reason, refusal: Option<&Refusal>) -> Event {
    // What a stale answer let pass is not plainly allowed.
    let is_plain = decision == Decision::Allow && reason != Reason::AuthenticatedStale;
    let is_recorded = !is_plain || context.policy.record_allowed;
    Event {
        decision,
        reason,
        route: context.route().and_then(|r| r.name.clone()),
        route_label: context.route_label(),
        webhook: context.webhook_label(),
        secret_index: context.secret_index,
        eviction: context.eviction,
        // Only a recorded event is worth copies.
        details: is_recorded.then(|| Box::new(details(context, refusal))),
    }
}

fn details(context: &RequestContext, refusal: Option<&Refusal>) -> Details {
    let subject = context.token.as_ref().and_then(|info| info.subject().ok().flatten());
    let waits_for_calls = context.cache.is_some_and(|cache| cache != CacheOutcome::Hit);
    let callout_ms = context.waited.filter(|_| waits_for_calls).map(|wait| wait.as_millis());
    let request_id = context.trace.iter().find(|(name, _)| *name == "x-request-id");
    Details {
        subject: subject.map(Cow::into_owned),
        rule: refusal.and_then(|refusal| broken_rule(refusal, context)),
        cache: context.cache,
        callout_ms: callout_ms.and_then(|millis| u64::try_from(millis).ok()),
        request_id: request_id.map(|(_, id)| id.clone()),
        token_print: context.token_print,
    }
}

/// The path of the rule that a request does not meet, in its route.
fn broken_rule(refusal: &Refusal, context: &RequestContext) -> Option<String> {
    let Refusal::Denial(denial) = refusal else { return None };
    let path = match denial {
        Denial::WrongIssuer => "require.issuer",
        Denial::WrongAudience => "require.audience",
        Denial::InsufficientScope => "require.scopes",
        Denial::ClientNotAllowed => "require.client_id",
        Denial::ClaimMismatch(nth) => {
            let Access::Token(rules) = &context.route()?.access else { return None };
            let (claim, _) = rules.requirement.claims.get(usize::from(*nth))?;
            return Some(format!("require.claims.{claim}"));
        }
        Denial::PermissionDenied(DeniedCheck::All(nth)) => {
            return Some(format!("require.permissions.all[{nth}]"));
        }
        Denial::PermissionDenied(DeniedCheck::Any) => "require.permissions.any",
        Denial::PermissionDenied(DeniedCheck::Former) => "require.permissions",
        _ => return None,
    };
    Some(path.to_owned())
}
