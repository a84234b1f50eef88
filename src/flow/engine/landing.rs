//! What the end of a callout leads to.

use super::Engine;
use crate::breaker::{CallOutcome, Standing};
use crate::flow::calls::{self, Flight, WaitReason};
use crate::flow::facts::{CachedFact, PermissionFact, TokenFact};
use crate::flow::health::Sending;
use crate::flow::query::QueryKind;
use crate::flow::request::{Next, Request};
use crate::flow::{FlightId, answer};
use crate::hash::Fingerprint;
use crate::http::{CallFailure, Response};
use crate::introspect::Introspection;
use crate::permission;
use crate::probe;
use crate::refusal::{Outage, Refusal, Unusable};
use crate::time::Timestamp;
use std::time::Duration;

impl Engine {
    /// A callout's answer, or why there is none.
    pub fn landed(&mut self, flight: FlightId, answer: Result<Response<'_>, CallFailure>, now: Timestamp) {
        self.observe_clock(now);
        if let Some(endpoint) = self.health.probed_by(flight) {
            self.probed(flight, endpoint, &answer, now);
            return self.conclude(now);
        }
        if self.asks_as_other(flight, &answer, now) {
            return;
        }
        let Self { calls, timers, outputs, .. } = self;
        let Some(flight) = calls.land(flight, &mut Sending { timers, outputs }) else { return };
        let body = answer::body_of(answer, flight.kind, now);
        match flight.kind {
            QueryKind::Introspection | QueryKind::Session => {
                let answer = body.and_then(|body| Ok(answer::introspection_of(body, flight.kind)?));
                self.measure_call((flight.endpoint, flight.started), answer.as_ref().err(), now);
                self.note_end(&flight, calls::outcome_of(&answer, flight.kind), now);
                self.introspected(&flight, answer, now);
            }
            QueryKind::Permission => {
                let answer = body.and_then(|body| match body {
                    Some(body) => Ok(permission::parse(body)?),
                    None => Ok(false),
                });
                self.measure_call((flight.endpoint, flight.started), answer.as_ref().err(), now);
                self.note_end(&flight, calls::outcome_of(&answer, flight.kind), now);
                self.checked(&flight, answer, now);
            }
        }
        self.advance(&flight, now);
        self.conclude(now);
    }

    /// Where the provider refuses the gate's own credentials, the question is asked once more with
    /// the others, if there are any.
    fn asks_as_other(
        &mut self,
        id: FlightId,
        answer: &Result<Response<'_>, CallFailure>,
        now: Timestamp,
    ) -> bool {
        let is_refused = matches!(answer, Ok(Response { status: 401 | 403, .. }));
        let Some(flight) = self.calls.flight(id).filter(|_| is_refused) else { return false };
        let (endpoint, started) = (flight.endpoint, flight.started);
        let Self { calls, health, timers, outputs, .. } = self;
        let is_asked = calls.ask_as_other(id, health, &mut Sending { timers, outputs }, now);
        if is_asked {
            self.measure_call((endpoint, started), Some(&Unusable::OurCredentials.into()), now);
        }
        is_asked
    }

    fn note_end(&mut self, flight: &Flight, end: (CallOutcome, Option<Outage>), now: Timestamp) {
        let Self { calls, health, timers, outputs, .. } = self;
        if flight.is_second && end.0 == CallOutcome::Useful {
            health.prefer(flight.endpoint, flight.uses_next, &mut Sending { timers, outputs }, now);
        }
        if flight.is_second && end.0 == CallOutcome::Useless {
            health.refused_both(flight.endpoint, now);
        }
        calls.note_end(flight, end, health, &mut Sending { timers, outputs }, now);
    }

    fn probed(
        &mut self,
        flight: FlightId,
        endpoint: Fingerprint,
        answer: &Result<Response<'_>, CallFailure>,
        now: Timestamp,
    ) {
        let Self { calls, health, timers, outputs, .. } = self;
        let is_alone = calls.is_idle(health.cluster(endpoint), health);
        let is_hopeful = calls.is_hopeful(endpoint, health);
        let outcome = probe::outcome_of(answer, is_alone);
        health.land(flight, outcome, is_hopeful, &mut Sending { timers, outputs }, now);
        self.measure_probe(endpoint, outcome, now);
    }

    /// A callout is free: starts what waits for one.
    fn advance(&mut self, landed: &Flight, now: Timestamp) {
        loop {
            let Self { calls, health, timers, outputs, .. } = self;
            let mut sending = Sending { timers, outputs };
            let next = calls.advance(landed.root, landed.purpose, health, &mut sending, now);
            let Some((flight, refusal)) = next else { return };
            self.give_up(flight, &refusal, now);
        }
    }

    /// Ends a flight whose callout was never started.
    fn give_up(&mut self, flight: FlightId, refusal: &Refusal, now: Timestamp) {
        let Self { calls, timers, outputs, .. } = self;
        let Some(flight) = calls.land(flight, &mut Sending { timers, outputs }) else { return };
        match flight.kind {
            QueryKind::Introspection | QueryKind::Session => {
                self.introspected(&flight, Err(refusal.clone()), now);
            }
            QueryKind::Permission => self.checked(&flight, Err(refusal.clone()), now),
        }
    }

    /// Lets those go on that waited until it was clear how an endpoint is. What waits for a callout
    /// to one that is away waits for nothing.
    pub(super) fn conclude(&mut self, now: Timestamp) {
        while let Some(endpoint) = self.health.opened() {
            let refused = Refusal::from(Outage::CircuitOpen(Duration::ZERO));
            if matches!(self.health.standing(endpoint), Standing::Away(_)) {
                for flight in self.calls.queued_at(endpoint) {
                    self.give_up(flight, &refused, now);
                }
            }
        }
        while let Some(stream) = self.health.concluded() {
            self.step(stream, now, |request, services| match request {
                Request::Opening(state) => state.resume(services),
                other => Next::Wait(other),
            });
        }
    }

    fn log_failed_call(&mut self, endpoint: Fingerprint, refusal: &Refusal, now: Timestamp) {
        match self.health.name(endpoint) {
            Some(name) => self.outputs.log_failed_call(refusal, name, now),
            None => self.outputs.log_hint(refusal, now),
        }
    }

    fn introspected(&mut self, flight: &Flight, answer: Result<Introspection, Refusal>, now: Timestamp) {
        let answer = answer.map(|answer| match answer {
            Introspection::Active(info) => Some(info),
            Introspection::Inactive => None,
        });
        match &answer {
            Ok(value) => {
                self.facts.insert::<TokenFact>(&flight.question, value.as_ref(), flight.started, now)
            }
            Err(refusal) => self.log_failed_call(flight.endpoint, refusal, now),
        }
        for waiter in &flight.waiters {
            let fact = answer.clone().map(|value| CachedFact::fresh(value, flight.started));
            self.step(waiter.stream, now, |request, services| match request {
                Request::Introspecting(state) => state.resume(fact, services),
                // It has gone on without this answer.
                other => Next::Wait(other),
            });
        }
    }

    fn checked(&mut self, flight: &Flight, answer: Result<bool, Refusal>, now: Timestamp) {
        match &answer {
            Ok(is_granted) => {
                let value = is_granted.then_some(&());
                self.facts.insert::<PermissionFact>(&flight.question, value, flight.started, now);
            }
            Err(refusal) => self.log_failed_call(flight.endpoint, refusal, now),
        }
        for waiter in &flight.waiters {
            let WaitReason::Check(check) = waiter.reason else { continue };
            let answer = answer.clone();
            self.step(waiter.stream, now, |request, services| match request {
                Request::Checking(state) => {
                    state.resume(check, &flight.question, answer, flight.started, services)
                }
                other => Next::Wait(other),
            });
        }
    }
}
