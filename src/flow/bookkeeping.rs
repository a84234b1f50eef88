//! Streams, flights and alarms in their tables, and what the operator is told.

use super::engine::Engine;
use super::gate::Phase;
use super::state::{Alarm, Pending, State, Stream};
use super::{FlightId, Level, Output, RootId, StreamId};
use crate::breaker::Purpose;
use crate::refusal::Refusal;
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
            State::Introspecting(introspecting) if introspecting.is_new => &mut self.waiting_new,
            State::Introspecting(_) | State::Checking(_) => &mut self.waiting,
            State::Receiving(_) => &mut self.receiving,
        }
    }

    /// Notices a clock that has gone backwards: what is known from the future would come to life again.
    pub(super) fn notice(&mut self, now: Timestamp) {
        if self.latest.saturating_since(now) > TOLERATED_STEP {
            self.tokens.forget_after(now);
            self.permissions.forget_after(now);
            self.latest = now;
        }
        self.latest = self.latest.max(now);
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

    pub(super) fn due(&mut self, root: RootId, now: Timestamp) -> Option<Alarm> {
        let at = self.next_deadline(root).filter(|at| *at <= now)?;
        let first = (root, at, Alarm::Flight(FlightId(0)));
        let alarm = *self.alarms.range(first..).next()?;
        self.alarms.remove(&alarm);
        Some(alarm.2)
    }

    /// Whether one request more may wait for the provider.
    pub(super) fn has_room(&self, purpose: Purpose) -> bool {
        let waiting = match purpose {
            Purpose::NewToken => self.waiting_new,
            Purpose::Refresh | Purpose::Permission => self.waiting,
        };
        waiting < MAX_WAITING && self.parked < MAX_PARKED
    }

    /// Whether one body more may be received.
    pub(super) fn has_room_for_bodies(&self) -> bool {
        self.receiving < MAX_RECEIVING && self.parked < MAX_PARKED
    }

    /// Tells what can be done about a failure, once a minute per reason: a caller must not be able to flood the log.
    pub(super) fn advise(&mut self, refusal: Option<&Refusal>, now: Timestamp) {
        let Some(reason) = refusal.map(Refusal::reason) else { return };
        let Some(advice) = reason.info().operator_hint else { return };
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

/// How often one reason is told to the operator.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Streams of one worker that wait for the provider, of each share: whoever invents tokens must not keep those out whose token is known.
const MAX_WAITING: usize = 15_000;
/// A clock is set back by less than this without consequences.
const TOLERATED_STEP: Duration = Duration::from_secs(1);
/// Streams of one worker whose body is received: whoever withholds bodies must not keep others from the provider.
const MAX_RECEIVING: usize = 5_000;
/// Bytes that a worker keeps of undecided requests.
const MAX_PARKED: usize = 64 * 1024 * 1024;
