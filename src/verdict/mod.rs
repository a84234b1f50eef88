//! From an outcome to what the host does: the only home of failure mode, shadow mode, answers and
//! header edits.

mod context;
mod fail_open;
mod permit;
mod respond;

pub use context::RequestContext;
pub use fail_open::FailOpen;
pub use permit::Permit;

use crate::http::{Edit, LocalReply};
use crate::refusal::{Denial, Reason, Refusal};
use crate::telemetry::{Decision, Event};

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
    /// Apply these edits, in order, and let the request go on. If one cannot be applied, the
    /// request must not go on.
    Forward(Vec<Edit>),
    /// Answer in the service's place.
    Respond {
        /// Applied before the answer, as far as possible, so that no access log shows a credential.
        edits: Vec<Edit>,
        /// The answer.
        reply: LocalReply,
    },
}

impl Verdict {
    /// What to do.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// What to tell the operator.
    pub fn event(&self) -> &Event {
        &self.event
    }
}

/// Why a request may go on.
#[derive(Clone, Debug)]
pub enum Passage {
    /// It was permitted.
    Permit(Permit),
    /// It was not, and its route opens.
    FailOpen(FailOpen),
}

/// Leave to forward a request that was not permitted. [`settle`] alone makes one, and it is always
/// counted.
struct Bypass(Decision, Reason);

/// Settles a request. It consumes the context: a request is decided once.
pub fn settle(context: RequestContext, outcome: Result<Passage, Refusal>) -> Verdict {
    let bypass = match outcome {
        Ok(Passage::Permit(permit)) => {
            let reason = match context.is_stale {
                true => Reason::AuthenticatedStale,
                false => permit.reason(),
            };
            let event = event(&context, Decision::Allow, reason);
            return Verdict { action: Action::Forward(forward_permitted(context, &permit)), event };
        }
        Ok(Passage::FailOpen(open)) => Bypass(Decision::FailOpen, open.outage().reason()),
        Err(refusal) if is_shadowed(&context, &refusal) => Bypass(Decision::ShadowDeny, refusal.reason()),
        Err(refusal) => {
            let event = event(&context, Decision::Deny, refusal.reason());
            let reply = respond::respond(&refusal, &context);
            return Verdict { action: Action::Respond { edits: path_edits(context), reply }, event };
        }
    };
    let event = event(&context, bypass.0, bypass.1);
    Verdict { action: Action::Forward(forward_bypassed(context, &bypass)), event }
}

/// Whether a refusal is only counted.
fn is_shadowed(context: &RequestContext, refusal: &Refusal) -> bool {
    // What could not be read cannot be cleaned either, so not even shadow mode forwards it.
    *refusal != Refusal::Denial(Denial::MalformedRequest) && context.is_shadow()
}

/// What a request gets whose policy is not known: a host that begins a stream under a root which it
/// has not configured, or not any more, causes this. So does one that does not show a request's head.
pub fn undecidable() -> Verdict {
    let event = Event {
        decision: Decision::Deny,
        reason: Reason::Internal,
        route: None,
        subject: None,
        recorded: true,
    };
    Verdict { action: Action::Respond { edits: Vec::new(), reply: respond::undecidable() }, event }
}

/// Owned headers leave first; then verified facts go in.
fn forward_permitted(context: RequestContext, permit: &Permit) -> Vec<Edit> {
    let webhook = permit.verified().map(|v| v.headers()).unwrap_or_default();
    let mut edits = forward(context);
    edits.extend(webhook.into_iter().map(|(name, value)| Edit::Add(name.into(), value.into())));
    edits
}

/// A request that passes without a permit carries the facts that were verified about it, and no
/// others.
fn forward_bypassed(context: RequestContext, _: &Bypass) -> Vec<Edit> {
    forward(context)
}

fn forward(context: RequestContext) -> Vec<Edit> {
    let mut edits = context.base_edits;
    edits.extend(context.credential_edits);
    edits.extend(context.identity_headers.map(Edit::AddAll));
    if context.is_stale {
        edits.push(Edit::Add(b"x-avnology-stale".to_vec(), b"true".to_vec()));
    }
    edits
}

/// Of a refused request only the path is edited: the access log shows it.
fn path_edits(context: RequestContext) -> Vec<Edit> {
    context
        .base_edits
        .into_iter()
        .filter(|edit| matches!(edit, Edit::Replace(name, _) if name == b":path"))
        .collect()
}

fn event(context: &RequestContext, decision: Decision, reason: Reason) -> Event {
    let recorded = decision != Decision::Allow || context.policy.record_allowed;
    // Only what is told is worth a copy.
    let token = context.token.as_ref().filter(|_| recorded);
    Event {
        decision,
        reason,
        route: context.route().and_then(|r| r.name.clone()),
        subject: token.and_then(|info| info.text("sub").ok().flatten()).map(str::to_owned),
        recorded,
    }
}
