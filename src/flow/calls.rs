//! Flights: what may be asked, what is under way or waits for its turn, and what its end means.

mod credentials;
mod outcome;

pub(super) use outcome::outcome_of;

use super::health::{GRACE, Health, Sending};
use super::limits::Limits;
use super::query::{ProviderQuery, QueryKind, Question};
use super::queue::{Queue, memory_cost};
use super::shares::Shares;
use super::timers::{Armed, Timer};
use super::{FlightId, Output, RootId, StreamId};
use crate::backoff::BackOff;
use crate::breaker::{CallOutcome, Purpose};
use crate::hash::{FactKey, Fingerprint, TrustedKeyHasher};
use crate::http::Callout;
use crate::permission::CheckIndex;
use crate::rate_limit::{OverBudget, RateLimiter, RateLimits};
use crate::refusal::{Outage, Refusal, Unusable};
use crate::telemetry::PurposeLabel;
use crate::time::Timestamp;
use std::collections::HashMap;
use std::time::Duration;

/// Callouts under way and those that wait for their turn, and what decides whether there may be one
/// more.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Calls {
    flights: HashMap<FlightId, Flight, TrustedKeyHasher>,
    /// Keyed by root too: a host drops a root's callouts with the root.
    by_key: HashMap<(RootId, FactKey), FlightId, TrustedKeyHasher>,
    limiters: HashMap<RootId, RateLimiter, TrustedKeyHasher>,
    back_off: BackOff,
    shares: Shares,
    queue: Queue,
    next_flight: u64,
    limits: Limits,
}

/// One callout and the streams that wait for it. No stream is special: the answer is read by
/// whoever is still there.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Flight {
    pub(super) root: RootId,
    pub(super) endpoint: Fingerprint,
    pub(super) purpose: Purpose,
    stage: Stage,
    /// The same question with the gate's other credentials, where there are any and they were not
    /// tried.
    other: Option<Box<Callout>>,
    /// Whether it is asked with the second of the gate's credentials.
    pub(super) uses_next: bool,
    /// Whether the others were refused.
    pub(super) is_second: bool,
    /// How many of its purpose may be under way.
    share: usize,
    /// Whom a permission check is about.
    subject: Option<FactKey>,
    pub(super) question: Question,
    pub(super) kind: QueryKind,
    /// When its callout was started.
    pub(super) started: Timestamp,
    /// When the last one that waits will have given up.
    wanted_until: Timestamp,
    pub(super) waiters: Vec<Waiter>,
}

#[cfg_attr(test, derive(Clone))]
enum Stage {
    /// It waits for a free callout.
    Waiting(Box<Callout>),
    UnderWay(Armed),
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

impl Start<'_, '_> {
    /// No decision takes longer than two callouts do, one after the other.
    fn wanted_until(&self, now: Timestamp) -> Timestamp {
        now.saturating_add(self.query.provider().timeout.saturating_mul(2))
    }
}

impl Calls {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            flights: HashMap::default(),
            by_key: HashMap::default(),
            limiters: HashMap::default(),
            back_off: BackOff::default(),
            shares: Shares::default(),
            queue: Queue::default(),
            next_flight: 0,
            limits,
        }
    }

    /// A root has another policy, or none: its budgets begin anew.
    pub(super) fn reconfigured(&mut self, root: RootId) {
        self.limiters.remove(&root);
        self.shares.tidy();
    }

    /// Whether this root asks already.
    pub(super) fn is_asked(&self, root: RootId, key: FactKey) -> bool {
        self.by_key.contains_key(&(root, key))
    }

    /// Callouts under way, by purpose.
    pub(super) fn in_flight(&self) -> [(PurposeLabel, usize); 3] {
        self.shares.in_flight()
    }

    /// Why a question still waits for a free callout, if it does.
    pub(super) fn why_queued(&self, root: RootId, key: FactKey) -> Option<Unusable> {
        let flight = self.by_key.get(&(root, key)).and_then(|id| self.flights.get(id))?;
        let is_queued = matches!(flight.stage, Stage::Waiting(_));
        is_queued.then(|| self.why_full(root, flight.subject, flight.share))
    }

    /// Whose limit keeps a question from being asked: who can fill a limit of his own must not make
    /// a fact live longer with that.
    fn why_full(&self, root: RootId, subject: Option<FactKey>, share: usize) -> Unusable {
        match self.shares.is_over_part(root, subject, share) {
            true => Unusable::SubjectBudget(Duration::from_secs(1)),
            false => Unusable::InFlightLimit,
        }
    }

    /// Waits for the answer to this question, and asks it where nobody has.
    ///
    /// # Errors
    /// Why it is not asked: too many wait, the endpoint is to be left alone, the question failed
    /// just now, or a budget is used up.
    pub(super) fn join(
        &mut self,
        start: Start<'_, '_>,
        health: &mut Health,
        sending: &mut Sending<'_>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let key = (start.root, start.query.key());
        let Some(flight) = self.by_key.get(&key).and_then(|id| self.flights.get_mut(id)) else {
            return self.start(start, health, sending, now);
        };
        // Those whose clients have gone stay until the flight lands.
        let waiters = flight.waiters.len().max(self.shares.waiters(flight.root, flight.subject));
        if waiters >= self.limits.waiters {
            return Err(Unusable::WaitersLimit.into());
        }
        flight.wanted_until = flight.wanted_until.max(start.wanted_until(now));
        if start.waiter.is_some() {
            self.shares.wait(flight.root, flight.subject);
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
        health: &mut Health,
        sending: &mut Sending<'_>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let wanted_until = start.wanted_until(now);
        let Start { root, query, purpose, rates, waiter } = start;
        health.check(query.endpoint(), purpose, now)?;
        self.back_off.check(query.key(), now)?;
        let share = query.provider().max_in_flight.of(purpose);
        let uses_next = health.prefers_next(query.endpoint());
        let (callout, other) = match query.callouts(waiter.is_some()) {
            (first, Some(next)) if uses_next => (next, Some(first)),
            callouts => callouts,
        };
        let subject = query.subject();
        if waiter.is_some() && self.shares.waiters(root, subject) >= self.limits.waiters {
            return Err(Unusable::WaitersLimit.into());
        }
        let is_full =
            self.shares.under_way(root, purpose) >= share || self.shares.is_over_part(root, subject, share);
        let cost =
            other.iter().fold(memory_cost(&callout), |sum, other| sum.saturating_add(memory_cost(other)));
        if is_full && !self.queue.has_room(purpose, cost) {
            return Err(self.why_full(root, subject, share).into());
        }
        let limiter = self.limiters.entry(root).or_default();
        limiter.take(rates, purpose, subject, now).map_err(|over| match (over, purpose) {
            (OverBudget::Own(wait), _) => Unusable::SubjectBudget(wait),
            (OverBudget::Shared(wait), Purpose::NewToken) => Unusable::NewTokenBudget(wait),
            (OverBudget::Shared(wait), Purpose::Refresh) => Unusable::RefreshBudget(wait),
            (OverBudget::Shared(wait), Purpose::Permission) => Unusable::PermissionBudget(wait),
        })?;
        let id = FlightId(self.next_flight);
        // Even numbers; those of probes are odd.
        self.next_flight = self.next_flight.wrapping_add(2);
        if is_full {
            self.queue.push(id, root, purpose, cost);
        }
        let flight = Flight {
            root,
            endpoint: query.endpoint(),
            purpose,
            stage: Stage::Waiting(Box::new(callout)),
            uses_next: uses_next && other.is_some(),
            other: other.map(Box::new),
            is_second: false,
            share,
            subject,
            question: query.question(),
            kind: query.kind(),
            started: now,
            wanted_until,
            waiters: waiter.into_iter().collect(),
        };
        if waiter.is_some() {
            self.shares.wait(root, subject);
        }
        self.by_key.insert((root, query.key()), id);
        self.flights.insert(id, flight);
        if !is_full {
            self.dispatch(id, health, sending, now);
        }
        Ok(())
    }

    fn dispatch(&mut self, id: FlightId, health: &mut Health, sending: &mut Sending<'_>, now: Timestamp) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let timeout = match &flight.stage {
            Stage::Waiting(callout) => callout.timeout,
            Stage::UnderWay(_) => return,
        };
        let root = flight.root;
        // The host's own timeout answers first; this is for the case that it does not.
        let deadline = now.saturating_add(timeout).saturating_add(GRACE);
        let armed = sending.timers.set(root, deadline, Timer::Flight(id));
        let Stage::Waiting(mut callout) = std::mem::replace(&mut flight.stage, Stage::UnderWay(armed)) else {
            return;
        };
        flight.started = now;
        // A retry is a second call, of which the share knows nothing. One of a call that was never
        // sent is the first.
        let under_way = self.shares.begin(root, flight.purpose, flight.subject);
        callout.retries_unsent_only = under_way.saturating_mul(2) > flight.share;
        let endpoint = flight.endpoint;
        sending.outputs.push(Output::Dispatch { flight: id, root, callout: *callout });
        health.on_start(endpoint, sending, now);
    }

    /// A flight under way.
    pub(super) fn flight(&self, id: FlightId) -> Option<&Flight> {
        self.flights.get(&id)
    }

    /// Starts what waits, as far as there are free callouts. Returns what waited for nothing: it
    /// has to be landed with this refusal, and this called again.
    pub(super) fn advance(
        &mut self,
        root: RootId,
        purpose: Purpose,
        health: &mut Health,
        sending: &mut Sending<'_>,
        now: Timestamp,
    ) -> Option<(FlightId, Refusal)> {
        while let Some(id) = self.next_in_line(root, purpose, now) {
            let flight = self.flights.get(&id)?;
            if self.shares.under_way(root, purpose) >= flight.share {
                return None;
            }
            if flight.wanted_until <= now {
                return Some((id, self.why_full(root, flight.subject, flight.share).into()));
            }
            if let Err(refusal) = health.check(flight.endpoint, purpose, now) {
                return Some((id, refusal));
            }
            self.leave_queue(id);
            self.dispatch(id, health, sending, now);
        }
        None
    }

    /// Those whose subject has its part already stand aside. At most a line is looked at.
    fn next_in_line(&self, root: RootId, purpose: Purpose, now: Timestamp) -> Option<FlightId> {
        self.queue.line(root, purpose).find(|id| {
            self.flights.get(id).is_some_and(|flight| {
                flight.wanted_until <= now || !self.shares.is_over_part(root, flight.subject, flight.share)
            })
        })
    }

    fn leave_queue(&mut self, id: FlightId) {
        if let Some(Flight { root, purpose, stage: Stage::Waiting(callout), other, .. }) =
            self.flights.get(&id)
        {
            let both = std::iter::once(callout).chain(other);
            let cost = both.fold(0_usize, |sum, callout| sum.saturating_add(memory_cost(callout)));
            self.queue.remove(id, *root, *purpose, cost);
        }
    }

    /// Takes a flight that has ended, or will never begin; `None` where it has ended before.
    pub(super) fn land(&mut self, id: FlightId, sending: &mut Sending<'_>) -> Option<Flight> {
        self.leave_queue(id);
        let flight = self.flights.remove(&id)?;
        self.by_key.remove(&(flight.root, flight.question.key));
        let has_begun = match &flight.stage {
            Stage::UnderWay(deadline) => {
                sending.timers.clear(deadline);
                true
            }
            Stage::Waiting(_) => false,
        };
        let ended = (flight.waiters.len(), has_begun);
        self.shares.end(flight.root, flight.purpose, flight.subject, ended);
        Some(flight)
    }

    /// Notes what the end of a callout says about its question and its endpoint.
    pub(super) fn note_end(
        &mut self,
        flight: &Flight,
        (outcome, outage): (CallOutcome, Option<Outage>),
        health: &mut Health,
        sending: &mut Sending<'_>,
        now: Timestamp,
    ) {
        match (outcome, outage) {
            (CallOutcome::Failed, Some(outage)) => self.back_off.failed(flight.question.key, outage, now),
            (CallOutcome::NotStarted, _) => {}
            _ => self.back_off.answered(flight.question.key),
        }
        let is_hopeful = self.is_hopeful(flight.endpoint, health);
        let end = (outcome, flight.started, flight.purpose);
        health.on_end(flight.endpoint, end, is_hopeful, sending, now);
    }

    /// Whether an endpoint that may be away can be cleared by a call that is under way.
    pub(super) fn is_hopeful(&self, endpoint: Fingerprint, health: &Health) -> bool {
        let Some(since) = health.suspected_since(endpoint) else { return false };
        self.under_way_at(|flight| flight.endpoint == endpoint && flight.started >= since)
    }

    /// Whether nothing is under way at a cluster.
    pub(super) fn is_idle(&self, cluster: Option<&str>, health: &Health) -> bool {
        !self.under_way_at(|flight| health.cluster(flight.endpoint) == cluster)
    }

    /// At most as many flights are looked at as may be under way, and what waits.
    fn under_way_at(&self, is_meant: impl Fn(&Flight) -> bool) -> bool {
        self.flights.values().any(|flight| matches!(flight.stage, Stage::UnderWay(_)) && is_meant(flight))
    }

    /// What waits for a free callout to an endpoint.
    pub(super) fn queued_at(&self, endpoint: Fingerprint) -> Vec<FlightId> {
        let is_meant =
            |flight: &Flight| matches!(flight.stage, Stage::Waiting(_)) && flight.endpoint == endpoint;
        self.flights.iter().filter(|(_, flight)| is_meant(flight)).map(|(id, _)| *id).collect()
    }

    /// Whether nothing is asked, and no share or place in the queue taken.
    #[cfg(feature = "fuzzing")]
    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty() && self.by_key.is_empty() && self.queue.is_empty() && self.shares.is_empty()
    }

    /// The flights of a root, which end with it.
    pub(super) fn of_root(&self, root: RootId) -> Vec<FlightId> {
        self.flights.iter().filter(|(_, flight)| flight.root == root).map(|(id, _)| *id).collect()
    }
}
