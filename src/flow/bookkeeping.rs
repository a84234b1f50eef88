//! Streams, flights and alarms in their tables, and what the operator is told.

use super::engine::Engine;
use super::gate::Phase;
use super::state::{Alarm, Flight, Pending, Question, State, Stream, Ticket};
use super::{FlightId, Level, Output, RootId, StreamId, reply};
use crate::http::Callout;
use crate::refusal::Refusal;
use crate::secret::FactKey;
use crate::time::Timestamp;
use std::time::Duration;

impl Engine {
    pub(super) fn phase(&self, stream: StreamId) -> Phase {
        match self.streams.get(&stream) {
            None => Phase::Unknown,
            Some(Stream::Open(_)) => Phase::Open,
            Some(Stream::Answered) => Phase::Answered,
            Some(Stream::Pending(pending)) => match pending.state {
                State::Introspecting(_) | State::Checking(_) => Phase::Waiting,
                State::Receiving(_) => Phase::Receiving,
            },
        }
    }

    pub(super) fn park(&mut self, stream: StreamId, pending: Pending) {
        self.alarms.insert((pending.root, pending.alarm, Alarm::Stream(stream)));
        *self.share_of(&pending.state) = self.share_of(&pending.state).saturating_add(1);
        self.parked = self.parked.saturating_add(pending.weight);
        self.streams.insert(stream, Stream::Pending(Box::new(pending)));
    }

    /// The count that a stream in this state belongs to.
    fn share_of(&mut self, state: &State) -> &mut usize {
        match state {
            State::Introspecting(_) | State::Checking(_) => &mut self.waiting,
            State::Receiving(_) => &mut self.receiving,
        }
    }

    pub(super) fn take_pending(&mut self, stream: StreamId) -> Option<Pending> {
        if !matches!(self.streams.get(&stream), Some(Stream::Pending(_))) {
            return None;
        }
        let Some(Stream::Pending(pending)) = self.streams.remove(&stream) else { return None };
        self.alarms.remove(&(pending.root, pending.alarm, Alarm::Stream(stream)));
        *self.share_of(&pending.state) = self.share_of(&pending.state).saturating_sub(1);
        self.parked = self.parked.saturating_sub(pending.weight);
        if let State::Receiving(receiving) = &pending.state {
            self.held = self.held.saturating_sub(receiving.held);
        }
        Some(*pending)
    }

    /// Waits for the flight with this question, starting it where there is none. False where there are too many: of waiters, since those
    /// whose clients have gone stay until the flight lands, or of flights of this kind.
    #[expect(clippy::too_many_arguments, reason = "one call, and each is another thing")]
    pub(super) fn join(
        &mut self,
        root: RootId,
        key: FactKey,
        question: Question,
        waiter: (StreamId, Ticket),
        timeout: Duration,
        now: Timestamp,
        call: impl FnOnce() -> Callout,
    ) -> bool {
        if let Some(flight) = self.by_key.get(&(root, key)).and_then(|id| self.flights.get_mut(id)) {
            let has_room = flight.waiters.len() < MAX_WAITERS;
            if has_room {
                flight.waiters.push(waiter);
            }
            return has_room;
        }
        let flights_of_kind = match question {
            Question::Introspection => &mut self.introspections,
            Question::Permission => &mut self.checks,
        };
        if *flights_of_kind >= MAX_FLIGHTS {
            return false;
        }
        *flights_of_kind = flights_of_kind.saturating_add(1);
        let id = FlightId(self.next_flight);
        self.next_flight = self.next_flight.wrapping_add(1);
        // The host's own timeout answers first; this is for the case that it does not.
        let deadline = now.saturating_add(timeout).saturating_add(GRACE);
        let flight = Flight { root, key, question, started: now, deadline, waiters: vec![waiter] };
        self.by_key.insert((root, key), id);
        self.alarms.insert((root, deadline, Alarm::Flight(id)));
        self.flights.insert(id, flight);
        self.outputs.push_back(Output::Dispatch { flight: id, root, callout: call() });
        true
    }

    pub(super) fn take_flight(&mut self, id: FlightId) -> Option<Flight> {
        let flight = self.flights.remove(&id)?;
        let flights_of_kind = match flight.question {
            Question::Introspection => &mut self.introspections,
            Question::Permission => &mut self.checks,
        };
        *flights_of_kind = flights_of_kind.saturating_sub(1);
        self.by_key.remove(&(flight.root, flight.key));
        self.alarms.remove(&(flight.root, flight.deadline, Alarm::Flight(id)));
        Some(flight)
    }

    pub(super) fn due(&mut self, root: RootId, now: Timestamp) -> Option<Alarm> {
        let at = self.next_deadline(root).filter(|at| *at <= now)?;
        let first = (root, at, Alarm::Flight(FlightId(0)));
        let alarm = *self.alarms.range(first..).next()?;
        self.alarms.remove(&alarm);
        Some(alarm.2)
    }

    /// Tells what can be done about a failure, once a minute per reason: a caller must not be able to flood the log.
    pub(super) fn advise(&mut self, refusal: Option<&Refusal>, now: Timestamp) {
        let Some(reason) = refusal.map(Refusal::reason) else { return };
        let Some(advice) = reply::advice(reason) else { return };
        if self.told.get(&reason).is_some_and(|at| now.saturating_since(*at) < TELL_EVERY) {
            return;
        }
        self.told.insert(reason, now);
        self.log(Level::Warn, format!("avnology_gate: {}: {advice}", reason.id()));
    }

    pub(super) fn log(&mut self, level: Level, message: String) {
        self.outputs.push_back(Output::Log { level, message });
    }
}

/// How long after its timeout a flight is given up.
const GRACE: Duration = Duration::from_millis(50);
/// How often one reason is told to the operator.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Waiters of one flight, those that have gone included.
const MAX_WAITERS: usize = 20_000;
/// Callouts of one kind under way for one worker: tokens must not keep permission checks from the provider.
const MAX_FLIGHTS: usize = 10_000;
