//! A request whose route opens while the provider is away, and whose call has failed: whether the
//! provider is away, its probe has to tell.

use super::{Bearer, Next, Request};
use crate::breaker::{Purpose, Standing};
use crate::flow::facts::{PermissionFact, TokenFact};
use crate::flow::query::{ProviderQuery, Question};
use crate::flow::services::Services;
use crate::hash::Fingerprint;
use crate::permission::{CheckIndex, Checks};
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
                let fact = services.facts.or_stale::<TokenFact>(question, rules, outage(), now);
                let denied = fact.err().filter(is_denied);
                denied.or_else(|| self.denied_by_what_is_known(question, services))
            }
            Unanswered::Checks(questions) => questions.iter().find_map(|question| {
                let fact = services.facts.or_stale::<PermissionFact>(question, rules, outage(), now);
                fact.err().filter(is_denied)
            }),
        }
    }

    /// A token that cannot be asked about may be known from before: what its bearer was denied then
    /// is not opened now.
    fn denied_by_what_is_known(&self, token: &Question, services: &mut Services<'_>) -> Option<Refusal> {
        let (Bearer { rules, inputs, .. }, now) = (&self.bearer, services.now);
        let info = services.facts.last_known::<TokenFact>(token.key)??;
        let identity = match rules.requirement.admit(Some(&info), inputs, now) {
            Ok(identity) => identity,
            Err(refusal) => return Some(refusal),
        };
        let permissions = rules.permissions.as_ref()?;
        let (all, any) = (permissions.all.len(), permissions.any.len());
        let mut checks = Checks::open(all, any);
        let indices = (0..all).map(CheckIndex::All).chain((0..any).map(CheckIndex::Any));
        for (index, template) in indices.zip(permissions.checks()) {
            let check = match template.resolve(inputs, &identity) {
                Ok(check) => check,
                Err(refusal) => return Some(refusal),
            };
            let query =
                ProviderQuery::permission(rules, &permissions.endpoint, &check, services.facts.seed());
            let outage = Refusal::Outage(self.outage);
            let _ = match services.facts.or_stale::<PermissionFact>(&query.question(), rules, outage, now) {
                Ok(fact) => checks.note(index, Ok(fact.value.is_some())),
                Err(Refusal::Denial(_)) => checks.note(index, Ok(false)),
                Err(_) => false,
            };
        }
        checks.outcome()?.err()
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
