//! Flights: what may be asked, what is under way or waits for its turn, and what its end means.

use super::health::{GRACE, Health, Sending};
use super::limits::Limits;
use super::query::{ProviderQuery, QueryKind, Question};
use super::queue::Queue;
use super::timers::{Armed, Timer};
use super::{FlightId, Output, RootId, StreamId};
use crate::backoff::BackOff;
use crate::breaker::{CallOutcome, Purpose};
use crate::hash::{FactKey, Fingerprint, TrustedKeyHasher};
use crate::http::Callout;
use crate::permission::CheckIndex;
use crate::rate_limit::{OverBudget, RateLimiter, RateLimits};
use crate::refusal::{Outage, Refusal, Unusable};
use crate::time::Timestamp;
use std::collections::HashMap;

/// Callouts under way and those that wait for their turn, and what decides whether there may be one
/// more.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Calls {
    flights: HashMap<FlightId, Flight, TrustedKeyHasher>,
    /// Keyed by root too: a host drops a root's callouts with the root.
    by_key: HashMap<(RootId, FactKey), FlightId, TrustedKeyHasher>,
    limiters: HashMap<RootId, RateLimiter, TrustedKeyHasher>,
    back_off: BackOff,
    /// Callouts under way, of each root by purpose: each plugin has its own share.
    under_way: Vec<(RootId, [usize; 3])>,
    /// The same for the subjects of permission checks, whoever of them asks.
    of_subjects: HashMap<FactKey, usize, TrustedKeyHasher>,
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
            under_way: Vec::new(),
            of_subjects: HashMap::default(),
            queue: Queue::default(),
            next_flight: 0,
            limits,
        }
    }

    /// A root has another policy, or none: its budgets begin anew.
    pub(super) fn reconfigured(&mut self, root: RootId) {
        self.limiters.remove(&root);
        self.under_way.retain(|(_, counts)| counts.iter().any(|count| *count > 0));
    }

    /// Whether this root asks already.
    pub(super) fn is_asked(&self, root: RootId, key: FactKey) -> bool {
        self.by_key.contains_key(&(root, key))
    }

    /// Whether a question still waits for a free callout.
    pub(super) fn is_queued(&self, root: RootId, key: FactKey) -> bool {
        let flight = self.by_key.get(&(root, key)).and_then(|id| self.flights.get(id));
        flight.is_some_and(|flight| matches!(flight.stage, Stage::Waiting(_)))
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
        if flight.waiters.len() >= self.limits.waiters {
            return Err(Unusable::WaitersLimit.into());
        }
        flight.wanted_until = flight.wanted_until.max(start.wanted_until(now));
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
        let callout = query.callout(waiter.is_some());
        let subject = query.subject();
        let is_full = self.under_way(root, purpose) >= share || self.is_over_its_part(subject, share);
        if is_full && !self.queue.has_room(purpose, memory_cost(&callout)) {
            return Err(Unusable::InFlightLimit.into());
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
            self.queue.push(id, root, purpose, memory_cost(&callout));
        }
        let flight = Flight {
            root,
            endpoint: query.endpoint(),
            purpose,
            stage: Stage::Waiting(Box::new(callout)),
            share,
            subject,
            question: query.question(),
            kind: query.kind(),
            started: now,
            wanted_until,
            waiters: waiter.into_iter().collect(),
        };
        self.by_key.insert((root, query.key()), id);
        self.flights.insert(id, flight);
        if !is_full {
            self.dispatch(id, health, sending, now);
        }
        Ok(())
    }

    fn dispatch(&mut self, id: FlightId, health: &mut Health, sending: &mut Sending<'_>, now: Timestamp) {
        let Self { flights, under_way, of_subjects, .. } = self;
        let Some(flight) = flights.get_mut(&id) else { return };
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
        if !under_way.iter().any(|(of, _)| *of == root) {
            under_way.push((root, [0; 3]));
        }
        if let Some(count) = count_of(under_way, root, flight.purpose) {
            // A retry is a second call, of which the share knows nothing.
            if count.saturating_mul(2) > flight.share {
                callout.retries = 0;
            }
            *count = count.saturating_add(1);
        }
        if let Some(subject) = flight.subject {
            let count = of_subjects.entry(subject).or_default();
            *count = count.saturating_add(1);
        }
        let endpoint = flight.endpoint;
        sending.outputs.push(Output::Dispatch { flight: id, root, callout: *callout });
        health.on_start(endpoint, sending, now);
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
            if self.under_way(root, purpose) >= flight.share {
                return None;
            }
            if flight.wanted_until <= now {
                return Some((id, Unusable::InFlightLimit.into()));
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
                flight.wanted_until <= now || !self.is_over_its_part(flight.subject, flight.share)
            })
        })
    }

    fn leave_queue(&mut self, id: FlightId) {
        if let Some(Flight { root, purpose, stage: Stage::Waiting(callout), .. }) = self.flights.get(&id) {
            self.queue.remove(id, *root, *purpose, memory_cost(callout));
        }
    }

    /// Takes a flight that has ended, or will never begin; `None` where it has ended before.
    pub(super) fn land(&mut self, id: FlightId, sending: &mut Sending<'_>) -> Option<Flight> {
        self.leave_queue(id);
        let flight = self.flights.remove(&id)?;
        self.by_key.remove(&(flight.root, flight.question.key));
        if let Stage::UnderWay(deadline) = &flight.stage {
            sending.timers.clear(deadline);
            if let Some(count) = count_of(&mut self.under_way, flight.root, flight.purpose) {
                *count = count.saturating_sub(1);
            }
            if let Some(subject) = flight.subject
                && let Some(count) = self.of_subjects.get_mut(&subject)
            {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.of_subjects.remove(&subject);
                }
            }
        }
        Some(flight)
    }

    /// Whether a subject has as many callouts under way as one may have: a quarter of the share, so
    /// that one caller's objects on which the provider hangs do not stop everybody's checks.
    fn is_over_its_part(&self, subject: Option<FactKey>, share: usize) -> bool {
        let under_way = subject.and_then(|subject| self.of_subjects.get(&subject)).copied();
        under_way.unwrap_or_default() >= share.div_ceil(4)
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

    /// The flights of a root, which end with it.
    pub(super) fn of_root(&self, root: RootId) -> Vec<FlightId> {
        self.flights.iter().filter(|(_, flight)| flight.root == root).map(|(id, _)| *id).collect()
    }

    fn under_way(&self, root: RootId, purpose: Purpose) -> usize {
        let counts = self.under_way.iter().find(|(of, _)| *of == root);
        counts.and_then(|(_, counts)| counts.get(purpose.index())).copied().unwrap_or_default()
    }
}

fn count_of(counts: &mut [(RootId, [usize; 3])], root: RootId, purpose: Purpose) -> Option<&mut usize> {
    counts.iter_mut().find(|(of, _)| *of == root).and_then(|(_, counts)| counts.get_mut(purpose.index()))
}

/// Its approximate size in bytes.
fn memory_cost(callout: &Callout) -> usize {
    let headers = callout.headers.iter().map(|(name, value)| name.len().saturating_add(value.len()));
    headers.fold(PER_CALLOUT.saturating_add(callout.body.len()), usize::saturating_add)
}

/// How a callout has ended, and as which outage.
pub(super) fn outcome_of<T>(answer: &Result<T, Refusal>, kind: QueryKind) -> (CallOutcome, Option<Outage>) {
    let outcome = match answer {
        Ok(_) => CallOutcome::Useful,
        Err(Refusal::Outage(Outage::NotStarted)) => CallOutcome::NotStarted,
        Err(Refusal::Outage(outage)) => return (CallOutcome::Failed, Some(*outage)),
        // The credential was the caller's own, and so is the limit.
        Err(Refusal::Unusable(Unusable::RateLimited(_))) if kind == QueryKind::Session => {
            CallOutcome::Useless
        }
        Err(Refusal::Unusable(Unusable::RateLimited(wish))) => CallOutcome::Limited(wish.unwrap_or_default()),
        Err(_) => CallOutcome::Useless,
    };
    (outcome, None)
}

/// Approximate bytes of a callout without its headers and body.
const PER_CALLOUT: usize = 256;
