//! What a request may use of the engine while it takes a step, and the one path to an answer.

use super::calls::{Calls, Start, WaitReason, Waiter};
use super::counts::Counts;
use super::facts::{CachedFact, FactKind, Facts};
use super::health::{Health, Sending};
use super::outputs::Outputs;
use super::query::{ProviderQuery, QueryKind, Question};
use super::timers::Timers;
use super::{RootId, StreamId};
use crate::breaker::{Purpose, Standing};
use crate::hash::Fingerprint;
use crate::policy::TokenRules;
use crate::rate_limit::RateLimits;
use crate::refusal::{Outage, Refusal, Unusable};
use crate::telemetry::CacheOutcome;
use crate::time::Timestamp;

/// The rooms of the engine, as a step of one request sees them. A step looks up and asks; it can
/// neither set a timer nor send anything by itself.
pub(super) struct Services<'e> {
    stream: StreamId,
    root: RootId,
    pub(super) now: Timestamp,
    pub(super) facts: &'e mut Facts,
    /// The counts without the request that takes the step.
    pub(super) counts: &'e Counts,
    asking: Asking<'e>,
}

/// What it takes to ask.
pub(super) struct Asking<'e> {
    pub(super) calls: &'e mut Calls,
    pub(super) health: &'e mut Health,
    pub(super) timers: &'e mut Timers,
    pub(super) outputs: &'e mut Outputs,
}

/// What became of a question.
#[derive(Debug)]
pub(super) enum Resolution<T> {
    /// The answer is known.
    Known(CachedFact<T>),
    /// It was asked. `is_new`: about a token that was not seen active lately.
    Asked { is_new: bool, outcome: CacheOutcome },
    /// It cannot be asked now.
    Unavailable(Refusal),
}

impl<'e> Services<'e> {
    pub(super) fn new(
        (stream, root): (StreamId, RootId),
        now: Timestamp,
        facts: &'e mut Facts,
        asking: Asking<'e>,
        counts: &'e Counts,
    ) -> Self {
        Self { stream, root, now, facts, counts, asking }
    }

    /// Looks in the caches, then asks.
    pub(super) fn lookup<K: FactKind>(
        &mut self,
        query: &ProviderQuery<'_>,
        rules: &TokenRules,
        rates: &RateLimits,
        reason: WaitReason,
    ) -> Resolution<K::Value> {
        match self.known::<K>(query, rules, rates) {
            Some(fact) => Resolution::Known(fact),
            None => self.ask::<K>(query, rules, rates, reason),
        }
    }

    /// The answer from either level of the cache. One that grows old is asked for again, in the
    /// background and at most once at a time.
    pub(super) fn known<K: FactKind>(
        &mut self,
        query: &ProviderQuery<'_>,
        rules: &TokenRules,
        rates: &RateLimits,
    ) -> Option<CachedFact<K::Value>> {
        let (fact, needs_refresh) = self.facts.get::<K>(query, rules, self.now)?;
        if needs_refresh && self.refresh::<K>(query, rates) {
            // A no that another worker has heard counts for this request already.
            return self.facts.get_again::<K>(query, rules, self.now).map(|(newer, _)| newer);
        }
        Some(fact)
    }

    /// Asks again about what is known. Returns whether something newer is known now, since another
    /// worker has asked already.
    fn refresh<K: FactKind>(&mut self, query: &ProviderQuery<'_>, rates: &RateLimits) -> bool {
        if self.asking.calls.is_asked(self.root, query.key()) {
            return false;
        }
        if self.facts.load_shared::<K>(query, self.now) {
            return true;
        }
        let purpose = match query.kind() {
            QueryKind::Permission => Purpose::Permission,
            QueryKind::Introspection | QueryKind::Session => Purpose::Refresh,
        };
        let start = Start { root: self.root, query, purpose, rates, waiter: None };
        let Asking { calls, health, timers, outputs } = &mut self.asking;
        // Nobody waits for it, so nobody is told why it could not be asked.
        if calls.start(start, health, &mut Sending { timers, outputs }, self.now).is_ok() {
            self.facts.count::<K>(CacheOutcome::Refresh);
        }
        false
    }

    /// What is known about an endpoint.
    pub(super) fn standing(&self, endpoint: Fingerprint) -> Standing {
        self.asking.health.standing(endpoint)
    }

    /// The request goes on when it is clear how an endpoint is.
    pub(super) fn await_probe(&mut self, endpoint: Fingerprint) {
        self.asking.health.wait(endpoint, self.stream);
    }

    /// Why a question has no answer in time.
    pub(super) fn why_late(&self, question: &Question) -> Refusal {
        match self.asking.calls.why_queued(self.root, question.key) {
            Some(limit) => limit.into(),
            None => Outage::Timeout.into(),
        }
    }

    /// Waits for the answer. Where it cannot be asked for, there may be a stale one.
    pub(super) fn ask<K: FactKind>(
        &mut self,
        query: &ProviderQuery<'_>,
        rules: &TokenRules,
        rates: &RateLimits,
        reason: WaitReason,
    ) -> Resolution<K::Value> {
        let purpose = match query.kind() {
            QueryKind::Permission => Purpose::Permission,
            QueryKind::Introspection | QueryKind::Session => {
                if self.facts.is_recent(query.key()) {
                    Purpose::Refresh
                } else {
                    Purpose::NewToken
                }
            }
        };
        let waiter = Some(Waiter { stream: self.stream, reason });
        let start = Start { root: self.root, query, purpose, rates, waiter };
        let is_asked = self.asking.calls.is_asked(self.root, query.key());
        let asked = if self.counts.has_room(purpose) {
            let Asking { calls, health, timers, outputs } = &mut self.asking;
            calls.join(start, health, &mut Sending { timers, outputs }, self.now)
        } else {
            Err(Unusable::OverLimit.into())
        };
        match asked {
            Ok(()) => {
                let outcome = if is_asked { CacheOutcome::Coalesced } else { CacheOutcome::Miss };
                if is_asked {
                    self.facts.count::<K>(outcome);
                }
                Resolution::Asked { is_new: purpose == Purpose::NewToken, outcome }
            }
            Err(refusal) => match self.facts.or_stale::<K>(&query.question(), rules, refusal, self.now) {
                Ok(fact) => Resolution::Known(fact),
                Err(refusal) => Resolution::Unavailable(refusal),
            },
        }
    }
}
