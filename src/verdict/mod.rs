//! From an outcome to what the host does: the only home of failure mode, shadow mode, answers and header edits.

pub mod permit;
mod respond;

pub use permit::Permit;

use crate::claims::TokenInfo;
use crate::http::{Edit, Header, LocalReply};
use crate::policy::{Access, Policy, Route, TokenRules};
use crate::refusal::{Denial, Reason, Refusal};
use crate::telemetry::{Decision, Event};
use std::rc::Rc;
use std::sync::Arc;

/// What is known about a request that goes beyond its head: kept while it waits.
#[derive(Clone, Debug)]
pub struct Dossier {
    pub(crate) policy: Rc<Policy>,
    /// `None` before a route was found, and where none was.
    pub(crate) route: Option<Arc<Route>>,
    /// What leaves the request on every path: owned headers, and a credential in the query.
    pub(crate) base_edits: Vec<Edit>,
    /// What leaves a request that carries a credential which the service must not see.
    pub(crate) credential_edits: Vec<Edit>,
    /// Rendered identity headers, once the bearer was admitted.
    pub(crate) identity_headers: Option<Rc<[Header]>>,
    /// What is known about the token, once it was introspected.
    pub(crate) token: Option<TokenInfo>,
    /// Whether an answer that it rests on is older than its lifetime.
    pub(crate) is_stale: bool,
    pub(crate) grpc: bool,
}

impl Dossier {
    /// Roughly how many bytes it keeps.
    pub(crate) fn memory_cost(&self) -> usize {
        let edits = self.base_edits.iter().chain(&self.credential_edits).map(|edit| match edit {
            Edit::Remove(name) => name.len(),
            Edit::Add(name, value) | Edit::Replace(name, value) => name.len().saturating_add(value.len()),
            Edit::AddAll(_) => 0,
        });
        let headers =
            self.identity_headers.iter().flat_map(|h| h.iter()).map(|(n, v)| n.len().saturating_add(v.len()));
        edits.chain(headers).fold(PENDING, |sum, bytes| sum.saturating_add(bytes).saturating_add(PER_ITEM))
    }

    /// The route, where one takes the request.
    pub fn route(&self) -> Option<&Route> {
        self.route.as_deref()
    }

    /// What the route asks of a token, where it asks for one.
    pub(crate) fn rules(&self) -> Option<&Arc<TokenRules>> {
        match self.route().map(|route| &route.access) {
            Some(Access::Token(rules)) => Some(rules),
            _ => None,
        }
    }

    /// Whether refusals of this request are only counted.
    fn is_shadow(&self) -> bool {
        let route = self.route();
        let webhook = match route.map(|r| &r.access) {
            Some(Access::Webhook(webhook)) => webhook.shadow,
            _ => None,
        };
        // The nearest word counts: a route that enforces does so under a policy in shadow too.
        webhook.or(route.and_then(|r| r.shadow)).unwrap_or(self.policy.shadow)
    }

    /// Whether an outage lets this request pass.
    pub(crate) fn opens_on_outage(&self) -> bool {
        matches!(self.route().map(|r| &r.access), Some(Access::Token(rules)) if rules.open_on_outage)
    }
}

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
    /// Apply these edits, in order, and let the request go on. If one cannot be applied, the request must not go on.
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

/// Leave to forward a request that was not permitted. Made by [`settle`] only, and always counted.
struct Bypass(Decision);

/// Settles a request. Consumes its dossier: it is decided once.
pub fn settle(dossier: Dossier, outcome: Result<Permit, Refusal>) -> Verdict {
    match outcome {
        Ok(permit) => {
            let reason = if dossier.is_stale { Reason::AuthenticatedStale } else { permit.reason() };
            let event = event(&dossier, Decision::Allow, reason);
            Verdict { action: Action::Forward(forward_permitted(dossier, &permit)), event }
        }
        Err(refusal) => {
            let reason = refusal.reason();
            match bypass(&dossier, &refusal) {
                Some(bypass) => {
                    let event = event(&dossier, bypass.0, reason);
                    Verdict { action: Action::Forward(forward_bypassed(dossier, &bypass)), event }
                }
                None => {
                    let event = event(&dossier, Decision::Deny, reason);
                    let reply = respond::respond(&refusal, &dossier);
                    Verdict { action: Action::Respond { edits: path_edits(dossier), reply }, event }
                }
            }
        }
    }
}

/// What a request gets whose policy is not known.
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

fn bypass(dossier: &Dossier, refusal: &Refusal) -> Option<Bypass> {
    match refusal {
        // What could not be read cannot be cleaned either, so not even shadow mode forwards it.
        Refusal::Denial(Denial::MalformedRequest) => None,
        Refusal::Outage(_) if dossier.opens_on_outage() => Some(Bypass(Decision::FailOpen)),
        _ if dossier.is_shadow() => Some(Bypass(Decision::ShadowDeny)),
        _ => None,
    }
}

/// Owned headers leave first; then verified facts go in.
fn forward_permitted(dossier: Dossier, permit: &Permit) -> Vec<Edit> {
    let webhook = permit.verified().map(|v| v.headers()).unwrap_or_default();
    let mut edits = forward(dossier);
    edits.extend(webhook.into_iter().map(|(name, value)| Edit::Add(name.into(), value.into())));
    edits
}

/// A request that passes without a permit carries the facts that were verified about it, and no others.
fn forward_bypassed(dossier: Dossier, _: &Bypass) -> Vec<Edit> {
    forward(dossier)
}

fn forward(dossier: Dossier) -> Vec<Edit> {
    let mut edits = dossier.base_edits;
    edits.extend(dossier.credential_edits);
    edits.extend(dossier.identity_headers.map(Edit::AddAll));
    if dossier.is_stale {
        edits.push(Edit::Add(b"x-avnology-stale".to_vec(), b"true".to_vec()));
    }
    edits
}

/// Of a refused request only the path is edited: the access log shows it.
fn path_edits(dossier: Dossier) -> Vec<Edit> {
    dossier
        .base_edits
        .into_iter()
        .filter(|edit| matches!(edit, Edit::Replace(name, _) if name == b":path"))
        .collect()
}

fn event(dossier: &Dossier, decision: Decision, reason: Reason) -> Event {
    let recorded = decision != Decision::Allow || dossier.policy.record_allowed;
    // Only what is told is worth a copy.
    let token = dossier.token.as_ref().filter(|_| recorded);
    Event {
        decision,
        reason,
        route: dossier.route().and_then(|r| r.name.clone()),
        subject: token.and_then(|info| info.text("sub").ok().flatten()).map(str::to_owned),
        recorded,
    }
}

/// Bytes of an undecided request beside its texts, roughly: its structs and its places in tables.
const PENDING: usize = 512;
/// Bytes of one text beside its characters, roughly.
const PER_ITEM: usize = 64;
