//! A request whose route opens while the provider is away, and whose call has failed: whether the
//! provider is away, its probe has to tell.

use super::{Bearer, Next, Request};
use crate::breaker::{Purpose, Standing};
use crate::flow::facts::{PermissionFact, TokenFact};
use crate::flow::query::Question;
use crate::flow::services::Services;
use crate::hash::Fingerprint;
use crate::refusal::{Outage, Refusal, Unusable};
use crate::verdict::{FailOpen, Passage};

/// The state.
#[cfg_attr(test, derive(Clone))]
pub(in crate::flow) struct Opening {
    bearer: Bearer,
    outage: Outage,
    /// Whose answer is missing.
    endpoint: Fingerprint,
    unanswered: Unanswered,
}

/// What a request has no answer to.
#[cfg_attr(test, derive(Clone))]
pub(super) enum Unanswered {
    Token(Question),
    Checks(Vec<Question>),
}

impl Opening {
    pub(super) fn new(bearer: Bearer, outage: Outage, endpoint: Fingerprint, unanswered: Unanswered) -> Self {
        Self { bearer, outage, endpoint, unanswered }
    }

    /// Goes on by what is known about the endpoint now.
    pub(in crate::flow) fn resume(self, services: &mut Services<'_>) -> Next {
        match services.standing(self.endpoint) {
            Standing::Away(away) => {
                // While it waited another answer may have come, to this worker or to another one.
                if let Some(denied) = self.denied_since(services) {
                    return self.bearer.refuse(denied);
                }
                let Bearer { context, rules, inputs, .. } = self.bearer;
                let open = FailOpen::check(self.outage, away, &rules, &inputs);
                Next::Decided(context, open.map(Passage::FailOpen))
            }
            Standing::Unclear if services.now < self.bearer.deadline => {
                let purpose = if self.bearer.is_new { Purpose::NewToken } else { Purpose::Permission };
                if !services.counts.has_room(purpose) {
                    return self.bearer.refuse(Unusable::OverLimit.into());
                }
                services.await_probe(self.endpoint);
                Next::Wait(Request::Opening(self))
            }
            Standing::Unclear | Standing::There => self.bearer.refuse(self.outage.into()),
        }
    }

    /// What was heard to be a no by now.
    fn denied_since(&self, services: &mut Services<'_>) -> Option<Refusal> {
        let (rules, now) = (&self.bearer.rules, services.now);
        let is_denied = |refusal: &Refusal| matches!(refusal, Refusal::Denial(_));
        let outage = || Refusal::Outage(self.outage);
        match &self.unanswered {
            Unanswered::Token(question) => {
                services.facts.or_stale::<TokenFact>(question, rules, outage(), now).err().filter(is_denied)
            }
            Unanswered::Checks(questions) => questions.iter().find_map(|question| {
                let fact = services.facts.or_stale::<PermissionFact>(question, rules, outage(), now);
                fact.err().filter(is_denied)
            }),
        }
    }

    /// The time is up: what is not clear now stays so.
    pub(super) fn time_out(mut self, services: &mut Services<'_>) -> Next {
        self.bearer.deadline = services.now;
        self.resume(services)
    }

    pub(super) fn bearer(&self) -> &Bearer {
        &self.bearer
    }

    pub(super) fn bearer_mut(&mut self) -> &mut Bearer {
        &mut self.bearer
    }

    pub(super) fn into_bearer(self) -> Bearer {
        self.bearer
    }
}
