//! Flights: what may be asked, what is under way, and what its end says about the endpoint.

use super::limits::Limits;
use super::outputs::Outputs;
use super::query::{ProviderQuery, QueryKind, Question};
use super::timers::{Armed, Timer, Timers};
use super::{FlightId, Output, RootId, StreamId};
use crate::breaker::{BreakerRules, CallOutcome, CallRefused, CircuitBreaker, Purpose, Transition};
use crate::hash::{FactKey, Fingerprint, TrustedKeyHasher};
use crate::permission::CheckIndex;
use crate::rate_limit::{RateLimiter, RateLimits};
use crate::refusal::{Outage, Refusal, Unusable};
use crate::time::Timestamp;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Callouts under way, and what decides whether there may be one more.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Calls {
    flights: HashMap<FlightId, Flight, TrustedKeyHasher>,
    /// Keyed by root too: a host drops a root's callouts with the root.
    by_key: HashMap<(RootId, FactKey), FlightId, TrustedKeyHasher>,
    /// How each endpoint has been, as each client of it.
    breakers: HashMap<Fingerprint, CircuitBreaker, TrustedKeyHasher>,
    limiters: HashMap<RootId, RateLimiter, TrustedKeyHasher>,
    under_way: UnderWay,
    next_flight: u64,
    limits: Limits,
}

/// One callout and the streams that wait for it. No stream is special: the answer is read by
/// whoever is still there.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Flight {
    root: RootId,
    endpoint: Fingerprint,
    breaker: BreakerRules,
    purpose: Purpose,
    /// Whether it finds out if the endpoint is there again.
    is_probe: bool,
    deadline: Armed,
    pub(super) question: Question,
    pub(super) kind: QueryKind,
    pub(super) started: Timestamp,
    pub(super) waiters: Vec<Waiter>,
}

/// A stream that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) stream: StreamId,
    pub(super) reason: WaitReason,
}

/// What a waiter wants the answer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitReason {
    /// Its token.
    Token,
    /// One of its checks.
    Check(CheckIndex),
}

/// What is asked, and for whom.
pub(super) struct Start<'q, 'p> {
    pub(super) root: RootId,
    pub(super) query: &'q ProviderQuery<'p>,
    pub(super) purpose: Purpose,
    pub(super) rates: &'q RateLimits,
    /// `None`: nobody waits.
    pub(super) waiter: Option<Waiter>,
}

/// Flights under way, of each purpose.
#[derive(Clone, Copy, Debug, Default)]
struct UnderWay {
    new_tokens: usize,
    refreshes: usize,
    permissions: usize,
}

impl Calls {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            flights: HashMap::default(),
            by_key: HashMap::default(),
            breakers: HashMap::default(),
            limiters: HashMap::default(),
            under_way: UnderWay::default(),
            next_flight: 0,
            limits,
        }
    }

    /// A root has another policy, or none: its budgets begin anew. `endpoints`: those that any
    /// policy names now.
    pub(super) fn reconfigured(&mut self, root: RootId, endpoints: &HashSet<Fingerprint>) {
        self.limiters.remove(&root);
        self.breakers.retain(|endpoint, _| endpoints.contains(endpoint));
    }

    /// Whether this root asks already.
    pub(super) fn is_under_way(&self, root: RootId, key: FactKey) -> bool {
        self.by_key.contains_key(&(root, key))
    }

    /// Waits for the answer to this question, and asks it where nobody has.
    ///
    /// # Errors
    /// Why it is not asked: too many wait or are under way, the endpoint is to be left alone, or
    /// the budget is used up.
    pub(super) fn join(
        &mut self,
        start: Start<'_, '_>,
        timers: &mut Timers,
        outputs: &mut Outputs,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let key = (start.root, start.query.key());
        let Some(flight) = self.by_key.get(&key).and_then(|id| self.flights.get_mut(id)) else {
            return self.start(start, timers, outputs, now);
        };
        // Those whose clients have gone stay until the flight lands.
        if flight.waiters.len() >= self.limits.waiters {
            return Err(Unusable::OverLimit.into());
        }
        flight.waiters.extend(start.waiter);
        Ok(())
    }

    /// Asks a question that nobody has asked.
    ///
    /// # Errors
    /// See [`Self::join`].
    pub(super) fn start(
        &mut self,
        start: Start<'_, '_>,
        timers: &mut Timers,
        outputs: &mut Outputs,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let Start { root, query, purpose, rates, waiter } = start;
        if *self.under_way.of(purpose) >= self.limits.flights {
            return Err(Unusable::OverLimit.into());
        }
        let breaker = self.breakers.entry(query.endpoint()).or_default();
        breaker.check(purpose, now).map_err(|refused| match refused {
            CallRefused::Breaker(left) => Refusal::from(Outage::CircuitOpen(left)),
            CallRefused::Paused(left) => Unusable::RateLimited(Some(left)).into(),
        })?;
        let subject = rates.per_subject.and_then(|_| query.subject());
        let limiter = self.limiters.entry(root).or_default();
        limiter.take(rates, purpose, subject, now).map_err(|wait| match purpose {
            Purpose::NewToken => Unusable::NewTokenBudget(wait),
            Purpose::Refresh => Unusable::RefreshBudget(wait),
            Purpose::Permission => Unusable::PermissionBudget(wait),
        })?;
        let provider = query.provider();
        // The host's own timeout answers first; this is for the case that it does not.
        let deadline = now.saturating_add(provider.timeout).saturating_add(GRACE);
        let is_probe = breaker.on_start(deadline);
        let count = self.under_way.of(purpose);
        *count = count.saturating_add(1);
        let callout = query.callout(waiter.is_some());
        let id = FlightId(self.next_flight);
        self.next_flight = self.next_flight.wrapping_add(1);
        let flight = Flight {
            root,
            endpoint: query.endpoint(),
            breaker: provider.breaker,
            purpose,
            is_probe,
            deadline: timers.set(root, deadline, Timer::Flight(id)),
            question: query.question(),
            kind: query.kind(),
            started: now,
            waiters: waiter.into_iter().collect(),
        };
        self.by_key.insert((root, query.key()), id);
        self.flights.insert(id, flight);
        outputs.push(Output::Dispatch { flight: id, root, callout });
        Ok(())
    }

    /// Takes a flight that has ended; `None` where it has ended before.
    pub(super) fn land(&mut self, id: FlightId, timers: &mut Timers) -> Option<Flight> {
        let flight = self.flights.remove(&id)?;
        let count = self.under_way.of(flight.purpose);
        *count = count.saturating_sub(1);
        self.by_key.remove(&(flight.root, flight.question.key));
        timers.clear(&flight.deadline);
        Some(flight)
    }

    /// Notes what a flight's end says about its endpoint.
    pub(super) fn note_end(
        &mut self,
        flight: &Flight,
        outcome: CallOutcome,
        outputs: &mut Outputs,
        now: Timestamp,
    ) {
        let Flight { is_probe, purpose, breaker: rules, .. } = flight;
        let Some(breaker) = self.breakers.get_mut(&flight.endpoint) else { return };
        match breaker.on_end(outcome, *is_probe, *purpose, rules, now) {
            Transition::Opened => {
                outputs.log_hint(&Outage::CircuitOpen(rules.open_for).into(), now);
            }
            Transition::Closed | Transition::None => {}
        }
    }

    /// The flights of a root, which end with it.
    pub(super) fn of_root(&self, root: RootId) -> Vec<FlightId> {
        self.flights.iter().filter(|(_, flight)| flight.root == root).map(|(id, _)| *id).collect()
    }
}

impl UnderWay {
    fn of(&mut self, purpose: Purpose) -> &mut usize {
        match purpose {
            Purpose::NewToken => &mut self.new_tokens,
            Purpose::Refresh => &mut self.refreshes,
            Purpose::Permission => &mut self.permissions,
        }
    }
}

/// What a failed call says about its endpoint.
pub(super) fn outcome_of(refusal: &Refusal, kind: QueryKind) -> CallOutcome {
    match refusal {
        Refusal::Outage(_) => CallOutcome::Outage,
        // The credential was the caller's own, and so is the limit.
        Refusal::Unusable(Unusable::RateLimited(_)) if kind == QueryKind::Session => CallOutcome::Answered,
        Refusal::Unusable(Unusable::RateLimited(wish)) => CallOutcome::Limited(wish.unwrap_or_default()),
        Refusal::Unusable(Unusable::NotStarted) => CallOutcome::Unknown,
        Refusal::Unusable(_) | Refusal::Denial(_) | Refusal::Acknowledgement(_) => CallOutcome::Answered,
    }
}

/// How long after its timeout a flight is given up.
const GRACE: Duration = Duration::from_millis(50);
