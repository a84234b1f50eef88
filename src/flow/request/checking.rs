//! A request whose bearer is admitted, and that waits for the answers about its permissions.

use super::admission::{Admission, admit};
use super::opening::Unanswered;
use super::{Bearer, Next, Request};
use crate::claims::TokenInfo;
use crate::flow::calls::WaitReason;
use crate::flow::facts::{CachedFact, PermissionFact};
use crate::flow::query::{ProviderQuery, Question};
use crate::flow::services::{Resolution, Services};
use crate::introspect::Identity;
use crate::permission::{Check, CheckIndex, Checks};
use crate::refusal::Refusal;
use crate::time::Timestamp;
use crate::verdict::Permit;
use std::sync::Arc;

/// The state.
#[cfg_attr(test, derive(Clone))]
pub(in crate::flow) struct Checking {
    bearer: Bearer,
    identity: Identity,
    checks: Checks,
    /// What identifies the answers that were not known at once.
    open: Vec<(CheckIndex, Question)>,
    /// What identifies those that there are not.
    failed: Vec<Question>,
}

impl Checking {
    /// Judges a request by what is known about its token, and asks for its permissions.
    pub(in crate::flow) fn start(
        mut bearer: Bearer,
        fact: CachedFact<TokenInfo>,
        services: &mut Services<'_>,
    ) -> Next {
        let Admission { identity, all, any } = match admit(&mut bearer, fact, services) {
            Ok(admitted) => admitted,
            Err(refusal) => return bearer.refuse(refusal),
        };
        bearer.is_new = false;
        let checks = Checks::open(all.len(), any.len());
        let mut state = Self { bearer, identity, checks, open: Vec::new(), failed: Vec::new() };
        state.ask(&all, &any, services);
        state.next(services)
    }

    /// The answer to one check, or why there is none.
    pub(in crate::flow) fn resume(
        mut self,
        check: CheckIndex,
        question: &Question,
        answer: Result<bool, Refusal>,
        started: Timestamp,
        services: &mut Services<'_>,
    ) -> Next {
        let is_late = answer.is_ok() && self.bearer.began > started;
        if is_late && services.facts.is_over::<PermissionFact>(question, None, &self.bearer.rules, started) {
            // Others had asked before it came, and before an event that it has to heed.
            if let Err(refusal) = self.ask_again(check, services) {
                return self.bearer.refuse(refusal);
            }
        } else {
            self.note(check, question, answer, services);
        }
        self.next(services)
    }

    /// The time is up for every answer that is still to come.
    pub(super) fn time_out(mut self, services: &mut Services<'_>) -> Next {
        for (check, question) in std::mem::take(&mut self.open) {
            let refusal = services.why_late(&question);
            self.note(check, &question, Err(refusal), services);
        }
        // Every check has an answer now, so this is decided.
        self.next(services)
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

    /// Notes the permissions that are known, and where these decide nothing, asks for the others.
    fn ask(&mut self, all: &[Check], any: &[Check], services: &mut Services<'_>) {
        let rules = Arc::clone(&self.bearer.rules);
        let Some(permissions) = &rules.permissions else { return };
        let rates = self.bearer.context.policy.rates;
        let indices = (0..all.len()).map(CheckIndex::All).chain((0..any.len()).map(CheckIndex::Any));
        let (seed, trace) = (services.facts.seed(), self.bearer.context.trace.clone());
        let mut unknown = Vec::new();
        for (index, check) in indices.zip(all.iter().chain(any)) {
            let query = ProviderQuery::permission(&rules, &permissions.endpoint, check, seed).traced(&trace);
            match services.known::<PermissionFact>(&query, &rules, &rates) {
                Some(fact) => {
                    self.bearer.context.note_cache(fact.outcome);
                    let _ = self.checks.note(index, Ok(fact.value.is_some()));
                }
                None => unknown.push((index, query)),
            }
        }
        if self.checks.outcome().is_some() {
            return;
        }
        for (index, query) in unknown {
            self.ask_one(index, &query, services);
        }
    }

    fn ask_one(&mut self, index: CheckIndex, query: &ProviderQuery<'_>, services: &mut Services<'_>) {
        let rules = Arc::clone(&self.bearer.rules);
        let rates = self.bearer.context.policy.rates;
        match services.ask::<PermissionFact>(query, &rules, &rates, WaitReason::Check(index)) {
            Resolution::Asked { outcome, .. } => {
                self.bearer.context.note_cache(outcome);
                self.open.push((index, query.question()));
            }
            Resolution::Known(fact) => {
                let is_first = self.checks.note(index, Ok(fact.value.is_some()));
                if is_first {
                    self.bearer.context.note_cache(fact.outcome);
                }
            }
            Resolution::Unavailable(refusal) => {
                self.failed.push(query.question());
                let _ = self.checks.note(index, Err(refusal));
            }
        }
    }

    /// Asks once more for one permission, whose answer is over.
    fn ask_again(&mut self, index: CheckIndex, services: &mut Services<'_>) -> Result<(), Refusal> {
        let rules = Arc::clone(&self.bearer.rules);
        let Some(permissions) = &rules.permissions else { return Ok(()) };
        let template = match index {
            CheckIndex::All(nth) => permissions.all.get(nth),
            CheckIndex::Any(nth) => permissions.any.get(nth),
        };
        let Some(template) = template else { return Ok(()) };
        let check = template.resolve(&self.bearer.inputs, &self.identity)?;
        let (seed, trace) = (services.facts.seed(), self.bearer.context.trace.clone());
        let query = ProviderQuery::permission(&rules, &permissions.endpoint, &check, seed).traced(&trace);
        self.open.retain(|(open, _)| *open != index);
        self.ask_one(index, &query, services);
        Ok(())
    }

    /// Notes an answer, or what an outage leaves of one.
    fn note(
        &mut self,
        check: CheckIndex,
        question: &Question,
        answer: Result<bool, Refusal>,
        services: &mut Services<'_>,
    ) {
        let (rules, now) = (&self.bearer.rules, services.now);
        let (answer, outcome) = match answer {
            Ok(answer) => (Ok(answer), None),
            Err(refusal) => match services.facts.or_stale::<PermissionFact>(question, rules, refusal, now) {
                Ok(fact) => (Ok(fact.value.is_some()), Some(fact.outcome)),
                Err(refusal) => {
                    self.failed.push(question.clone());
                    (Err(refusal), None)
                }
            },
        };
        // The first answer to a check counts.
        if self.checks.note(check, answer) {
            outcome.into_iter().for_each(|outcome| self.bearer.context.note_cache(outcome));
        }
    }

    fn next(self, services: &mut Services<'_>) -> Next {
        match self.checks.outcome() {
            None => Next::Wait(Request::Checking(self)),
            Some(Ok(granted)) => self.bearer.permit(Permit::identified(&self.identity, granted)),
            Some(Err(refusal)) => match &self.bearer.rules.permissions {
                Some(permissions) => {
                    let endpoint = permissions.endpoint.endpoint.fingerprint();
                    self.bearer.fail(refusal, endpoint, Unanswered::Checks(self.failed), services)
                }
                None => self.bearer.refuse(refusal),
            },
        }
    }
}
