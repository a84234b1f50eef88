//! An undecided request: one enum, one file for each state. A step consumes the state and returns
//! the next.
//!
//! ```text
//! triage ─┬─▶ Introspecting ─┬─▶ Checking ─┬─▶ Opening ─┬─▶ decided
//!         ├─▶ Receiving ─────┼─────────────┼────────────┤
//!         ├─▶ Ending ────────┼─────────────┼────────────┤
//!         └──────────────────┴─────────────┴────────────┘
//! ```

mod admission;
mod checking;
mod ending;
mod introspecting;
mod opening;
mod receiving;

pub(super) use checking::Checking;
pub(super) use ending::Ending;
pub(super) use introspecting::Introspecting;
pub(super) use opening::Opening;
use opening::Unanswered;
pub(super) use receiving::{BodyProgress, Receiving};

use super::counts::{Class, Taken};
use super::services::Services;
use crate::hash::Fingerprint;
use crate::policy::TokenRules;
use crate::refusal::{Denial, Refusal, Unusable};
use crate::template::Inputs;
use crate::time::Timestamp;
use crate::verdict::{Passage, Permit, RequestContext};
use std::sync::Arc;
use std::time::Duration;

/// An undecided request.
#[cfg_attr(test, derive(Clone))]
pub(super) enum Request {
    /// It waits for the answer about its token.
    Introspecting(Introspecting),
    /// It waits for the answers about its permissions.
    Checking(Checking),
    /// Its route opens if the provider is away, and it waits until that is clear.
    Opening(Opening),
    /// Its body is being hashed.
    Receiving(Receiving),
    /// It is a preflight if nothing more comes.
    Ending(Ending),
}

/// What a step leads to.
#[must_use]
pub(super) enum Next {
    /// The request waits for the provider.
    Wait(Request),
    /// The request waits for more of its body.
    NeedBody(Receiving),
    /// The request waits for its end.
    NeedEnd(Ending),
    /// The request is decided.
    Decided(RequestContext, Result<Passage, Refusal>),
}

/// A request that presents a token, from state to state.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Bearer {
    pub(super) context: RequestContext,
    pub(super) rules: Arc<TokenRules>,
    pub(super) inputs: Inputs,
    /// When it came.
    pub(super) began: Timestamp,
    /// When it is decided at the latest.
    pub(super) deadline: Timestamp,
    /// Whether its token was not seen active lately, as far as is known.
    pub(super) is_new: bool,
}

impl Request {
    pub(super) fn context(&self) -> &RequestContext {
        match self {
            Self::Introspecting(state) => &state.bearer().context,
            Self::Checking(state) => &state.bearer().context,
            Self::Opening(state) => &state.bearer().context,
            Self::Receiving(state) => state.context(),
            Self::Ending(state) => state.context(),
        }
    }

    pub(super) fn context_mut(&mut self) -> &mut RequestContext {
        match self {
            Self::Introspecting(state) => &mut state.bearer_mut().context,
            Self::Checking(state) => &mut state.bearer_mut().context,
            Self::Opening(state) => &mut state.bearer_mut().context,
            Self::Receiving(state) => state.context_mut(),
            Self::Ending(state) => state.context_mut(),
        }
    }

    /// When it is decided at the latest.
    pub(super) fn deadline(&self, now: Timestamp) -> Timestamp {
        match self {
            Self::Introspecting(state) => state.bearer().deadline(now),
            Self::Checking(state) => state.bearer().deadline(now),
            Self::Opening(state) => state.bearer().deadline(now),
            Self::Receiving(state) => state.deadline(),
            Self::Ending(state) => state.deadline(),
        }
    }

    /// The clock was set back by so much.
    pub(super) fn set_back(&mut self, by: Duration) {
        let bearer = match self {
            Self::Introspecting(state) => state.bearer_mut(),
            Self::Checking(state) => state.bearer_mut(),
            Self::Opening(state) => state.bearer_mut(),
            Self::Receiving(state) => return state.set_back(by),
            Self::Ending(state) => return state.set_back(by),
        };
        bearer.deadline = bearer.deadline.saturating_sub(by);
        bearer.began = bearer.began.saturating_sub(by);
    }

    /// What it takes while it waits.
    pub(super) fn taken(&self) -> Taken {
        match self {
            Self::Introspecting(state) => state.taken(),
            Self::Checking(state) => state.bearer().taken(),
            Self::Opening(state) => state.bearer().taken(),
            Self::Receiving(state) => Taken {
                class: Class::Receiving,
                parked_bytes: state.context().memory_cost(),
                body: Some(state.counted()),
            },
            Self::Ending(state) => {
                Taken { class: Class::Ending, parked_bytes: state.context().memory_cost(), body: None }
            }
        }
    }

    /// Whether no body callback has come although one should.
    pub(super) fn awaits_callbacks(&self) -> bool {
        match self {
            Self::Receiving(state) => state.is_unheard(),
            Self::Ending(_) => true,
            Self::Introspecting(_) | Self::Checking(_) | Self::Opening(_) => false,
        }
    }

    /// The time is up: an answer like any other.
    pub(super) fn time_out(self, services: &mut Services<'_>) -> Next {
        match self {
            Self::Introspecting(state) => state.time_out(services),
            Self::Checking(state) => state.time_out(services),
            Self::Opening(state) => state.time_out(services),
            Self::Receiving(state) => state.time_out(),
            Self::Ending(state) => state.refuse(Denial::NoRoute.into()),
        }
    }

    /// Its body is the slowest, and another one needs its room. Only a received body is chosen.
    pub(super) fn give_way(self) -> Next {
        match self {
            Self::Receiving(state) => state.refuse(Unusable::BodyDisplaced.into()),
            other => Next::Wait(other),
        }
    }

    /// Its root has ended, and with it every callout that it waits for. A host that ends a root
    /// before its streams causes this.
    pub(super) fn abandon(self) -> Next {
        let refusal = Unusable::Internal.into();
        match self {
            Self::Introspecting(state) => state.into_bearer().refuse(refusal),
            Self::Checking(state) => state.into_bearer().refuse(refusal),
            Self::Opening(state) => state.into_bearer().refuse(refusal),
            Self::Receiving(state) => state.refuse(refusal),
            Self::Ending(state) => state.refuse(refusal),
        }
    }
}

impl Bearer {
    pub(super) fn new(
        context: RequestContext,
        rules: Arc<TokenRules>,
        inputs: Inputs,
        now: Timestamp,
    ) -> Self {
        let deadline = now.saturating_add(longest(&rules));
        Self { context, rules, inputs, began: now, deadline, is_new: true }
    }

    /// When it is decided at the latest, also where the clock was set back since it began.
    fn deadline(&self, now: Timestamp) -> Timestamp {
        self.deadline.min(now.saturating_add(longest(&self.rules)))
    }

    /// Ends the request without an answer of this endpoint's. Where its route opens in an outage,
    /// it waits until it is clear whether this is one.
    fn fail(
        self,
        refusal: Refusal,
        endpoint: Fingerprint,
        unanswered: Unanswered,
        services: &mut Services<'_>,
    ) -> Next {
        match refusal {
            Refusal::Outage(outage) if self.rules.open_on_outage => {
                Opening::new(self, outage, endpoint, unanswered).resume(services)
            }
            refusal => self.refuse(refusal),
        }
    }

    fn permit(self, permit: Permit) -> Next {
        Next::Decided(self.context, Ok(Passage::Permit(permit)))
    }

    fn refuse(self, refusal: Refusal) -> Next {
        Next::Decided(self.context, Err(refusal))
    }

    fn taken(&self) -> Taken {
        let class = if self.is_new { Class::New } else { Class::Known };
        Taken { class, parked_bytes: self.memory_cost(), body: None }
    }

    fn memory_cost(&self) -> usize {
        self.context.memory_cost().saturating_add(self.inputs.memory_cost())
    }
}

/// No decision takes longer than two callouts do, one after the other.
fn longest(rules: &TokenRules) -> Duration {
    rules.endpoint.endpoint.provider().timeout.saturating_mul(2)
}

#[cfg(test)]
mod tests;
