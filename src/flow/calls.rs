//! Flights: what may be asked, what is under way, and what its end says about the endpoint.

use super::ask::{Ask, Question};
use super::engine::Engine;
use super::state::{Alarm, Flight, Ticket};
use super::{FlightId, Output, RootId, StreamId};
use crate::breaker::{CallOutcome, CallRefused, Purpose};
use crate::policy::Policy;
use crate::refusal::{Outage, Refusal, Unusable};
use crate::time::Timestamp;
use std::time::Duration;

impl Engine {
    /// Waits for the answer to this question, asking it where nobody has.
    ///
    /// # Errors
    /// Why it is not asked: too many wait or are under way, the endpoint is to be left alone, or the budget is used up.
    pub(super) fn join(
        &mut self,
        root: RootId,
        policy: &Policy,
        ask: &Ask<'_>,
        waiter: (StreamId, Ticket),
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if let Some(flight) = self.by_key.get(&(root, ask.key)).and_then(|id| self.flights.get_mut(id)) {
            // Those whose clients have gone stay until the flight lands.
            if flight.waiters.len() >= MAX_WAITERS {
                return Err(Unusable::OverLimit.into());
            }
            flight.waiters.push(waiter);
            return Ok(());
        }
        self.start(root, policy, ask, self.purpose(ask), Some(waiter), now)
    }

    /// What a question is asked for.
    pub(super) fn purpose(&self, ask: &Ask<'_>) -> Purpose {
        match ask.question {
            Question::Permission => Purpose::Permission,
            Question::Introspection | Question::Session if self.seen.knows(ask.key) => Purpose::Refresh,
            Question::Introspection | Question::Session => Purpose::NewToken,
        }
    }

    /// Asks again about what is known, in the background and at most once at a time. Returns whether something newer is known now, since
    /// another worker has asked already.
    pub(super) fn refresh(&mut self, root: RootId, policy: &Policy, ask: &Ask<'_>, now: Timestamp) -> bool {
        if self.by_key.contains_key(&(root, ask.key)) {
            return false;
        }
        if self.adopt(ask, now) {
            return true;
        }
        let purpose = match ask.question {
            Question::Permission => Purpose::Permission,
            Question::Introspection | Question::Session => Purpose::Refresh,
        };
        // Nobody waits for it, so nobody is told why it could not be asked.
        let _ = self.start(root, policy, ask, purpose, None, now);
        false
    }

    fn start(
        &mut self,
        root: RootId,
        policy: &Policy,
        ask: &Ask<'_>,
        purpose: Purpose,
        waiter: Option<(StreamId, Ticket)>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if *self.under_way(purpose) >= MAX_FLIGHTS {
            return Err(Unusable::OverLimit.into());
        }
        let health = self.health.entry(ask.endpoint()).or_default();
        health.check(purpose, now).map_err(|closed| match closed {
            CallRefused::Breaker(left) => Refusal::from(Outage::CircuitOpen(left)),
            CallRefused::Paused(left) => Unusable::RateLimited(Some(left)).into(),
        })?;
        let subject = policy.rates.per_subject.and_then(|_| ask.subject(self.seed));
        let budgets = self.budgets.entry(root).or_default();
        budgets.take(&policy.rates, purpose, subject, now).map_err(|wait| match purpose {
            Purpose::NewToken => Unusable::NewTokenBudget(wait),
            Purpose::Refresh => Unusable::RefreshBudget(wait),
            Purpose::Permission => Unusable::PermissionBudget(wait),
        })?;
        let provider = ask.provider();
        // The host's own timeout answers first; this is for the case that it does not.
        let deadline = now.saturating_add(provider.timeout).saturating_add(GRACE);
        let is_probe = health.on_start(deadline);
        let count = self.under_way(purpose);
        *count = count.saturating_add(1);
        let id = FlightId(self.next_flight);
        self.next_flight = self.next_flight.wrapping_add(1);
        let flight = Flight {
            root,
            key: ask.key,
            question: ask.question,
            endpoint: ask.endpoint(),
            breaker: provider.breaker,
            purpose,
            is_probe,
            place: ask.place().cloned(),
            started: now,
            deadline,
            waiters: waiter.into_iter().collect(),
        };
        self.by_key.insert((root, ask.key), id);
        self.alarms.insert((root, deadline, Alarm::Flight(id)));
        self.flights.insert(id, flight);
        self.outputs.push_back(Output::Dispatch { flight: id, root, callout: ask.call() });
        Ok(())
    }

    fn under_way(&mut self, purpose: Purpose) -> &mut usize {
        match purpose {
            Purpose::NewToken => &mut self.under_way.new_tokens,
            Purpose::Refresh => &mut self.under_way.refreshes,
            Purpose::Permission => &mut self.under_way.permissions,
        }
    }

    pub(super) fn take_flight(&mut self, id: FlightId) -> Option<Flight> {
        let flight = self.flights.remove(&id)?;
        let count = self.under_way(flight.purpose);
        *count = count.saturating_sub(1);
        self.by_key.remove(&(flight.root, flight.key));
        self.alarms.remove(&(flight.root, flight.deadline, Alarm::Flight(id)));
        Some(flight)
    }

    /// Notes what a flight's end says about its endpoint.
    pub(super) fn note_end(&mut self, flight: &Flight, ended: CallOutcome, now: Timestamp) {
        let Some(health) = self.health.get_mut(&flight.endpoint) else { return };
        if health.on_end(ended, flight.is_probe, flight.purpose, &flight.breaker, now) {
            self.advise(Some(&Outage::CircuitOpen(flight.breaker.open_for).into()), now);
        }
    }
}

/// What a failed call says about its endpoint.
pub(super) fn ended(refusal: &Refusal, question: Question) -> CallOutcome {
    match refusal {
        Refusal::Outage(_) => CallOutcome::Outage,
        // The credential was the caller's own, and so is the limit.
        Refusal::Unusable(Unusable::RateLimited(_)) if question == Question::Session => CallOutcome::Answered,
        Refusal::Unusable(Unusable::RateLimited(wish)) => CallOutcome::Limited(wish.unwrap_or_default()),
        Refusal::Unusable(Unusable::NotStarted) => CallOutcome::Unknown,
        Refusal::Unusable(_) | Refusal::Denial(_) | Refusal::Acknowledgement(_) => CallOutcome::Answered,
    }
}

/// How long after its timeout a flight is given up.
const GRACE: Duration = Duration::from_millis(50);
/// Waiters of one flight, those that have gone included: one token must not take all of a worker's places.
const MAX_WAITERS: usize = 5_000;
/// Callouts of one purpose under way for one worker: invented tokens must not keep known ones, nor permission checks, from the provider.
const MAX_FLIGHTS: usize = 10_000;
