//! The endpoints, how they are, and their probes: what alone opens and shuts the gate.

use super::outputs::Outputs;
use super::timers::{Armed, Timer, Timers};
use super::{FlightId, Output, RootId, StreamId};
use crate::breaker::{CallOutcome, CallRefused, CircuitBreaker, ProbeOutcome, Purpose, Standing, Transition};
use crate::hash::{FactKey, Fingerprint, Seed, TrustedKeyHasher};
use crate::probe::Probe;
use crate::refusal::{Outage, Refusal, Unusable};
use crate::time::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// How each endpoint has been, as each client of it.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Health {
    seed: Seed,
    endpoints: HashMap<Fingerprint, Watched, TrustedKeyHasher>,
    /// Probes under way.
    probes: HashMap<FlightId, Fingerprint, TrustedKeyHasher>,
    next_probe: u64,
    /// Requests that waited for a probe which has told.
    concluded: Vec<StreamId>,
    /// Endpoints that are away since the last event.
    opened: Vec<Fingerprint>,
}

#[cfg_attr(test, derive(Clone))]
struct Watched {
    breaker: CircuitBreaker,
    /// How each root that names the endpoint probes it.
    homes: BTreeMap<RootId, Arc<Probe>>,
    probe: Option<UnderWay>,
    timer: Option<Armed>,
    /// Probes sent so far.
    sent: u32,
    /// Requests that wait until it is clear how the endpoint is.
    waiting: Vec<StreamId>,
}

#[cfg_attr(test, derive(Clone))]
struct UnderWay {
    flight: FlightId,
    root: RootId,
    deadline: Armed,
}

/// Where a probe or a timer goes.
pub(super) struct Sending<'e> {
    pub(super) timers: &'e mut Timers,
    pub(super) outputs: &'e mut Outputs,
}

impl Health {
    pub(super) fn new(seed: Seed) -> Self {
        Self {
            seed,
            endpoints: HashMap::default(),
            probes: HashMap::default(),
            // Odd numbers; those of other callouts are even.
            next_probe: 1,
            concluded: Vec::new(),
            opened: Vec::new(),
        }
    }

    /// A root names these endpoints now, and no others.
    pub(super) fn configure(
        &mut self,
        root: RootId,
        probes: &[Arc<Probe>],
        sending: &mut Sending<'_>,
        now: Timestamp,
    ) {
        for probe in probes {
            let interval = probe.endpoint().provider().probe_interval;
            let watched = self
                .endpoints
                .entry(probe.endpoint().fingerprint())
                .or_insert_with(|| Watched::new(CircuitBreaker::new(interval)));
            watched.homes.insert(root, Arc::clone(probe));
            if watched.take_interval() {
                self.concluded.append(&mut watched.waiting);
            }
        }
        let is_named =
            |endpoint: &Fingerprint| probes.iter().any(|probe| probe.endpoint().fingerprint() == *endpoint);
        let left: Vec<Fingerprint> = self
            .endpoints
            .iter()
            .filter(|(endpoint, watched)| watched.homes.contains_key(&root) && !is_named(endpoint))
            .map(|(endpoint, _)| *endpoint)
            .collect();
        for endpoint in left {
            self.leave(root, endpoint, sending, now);
        }
    }

    /// A root ends, and with it its callouts and its tick. Another one that names the endpoint
    /// takes over; where none does, nobody asks how it is.
    fn leave(&mut self, root: RootId, endpoint: Fingerprint, sending: &mut Sending<'_>, now: Timestamp) {
        let Some(watched) = self.endpoints.get_mut(&endpoint) else { return };
        watched.homes.remove(&root);
        if let Some(probe) = watched.probe.take_if(|probe| probe.root == root) {
            sending.timers.clear(&probe.deadline);
            self.probes.remove(&probe.flight);
            watched.breaker.on_probe_lost();
        }
        if watched.homes.is_empty() {
            if let Some(timer) = watched.timer.take() {
                sending.timers.clear(&timer);
            }
            if let Some(probe) = watched.probe.take() {
                sending.timers.clear(&probe.deadline);
                self.probes.remove(&probe.flight);
            }
            self.concluded.append(&mut watched.waiting);
            self.endpoints.remove(&endpoint);
        } else {
            if watched.take_interval() {
                self.concluded.append(&mut watched.waiting);
            }
            self.attend(endpoint, sending, now);
        }
    }

    /// Whether an endpoint may be called.
    ///
    /// # Errors
    /// The outage where it is away; unusable where it asked to be left alone.
    pub(super) fn check(
        &self,
        endpoint: Fingerprint,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let Some(watched) = self.endpoints.get(&endpoint) else { return Ok(()) };
        watched.breaker.check(purpose, now).map_err(|refused| match refused {
            CallRefused::Breaker(left) => Outage::CircuitOpen(left).into(),
            CallRefused::Paused(left) => Unusable::RateLimited(Some(left)).into(),
        })
    }

    /// What is known about an endpoint.
    pub(super) fn standing(&self, endpoint: Fingerprint) -> Standing {
        self.endpoints.get(&endpoint).map_or(Standing::There, |watched| watched.breaker.standing())
    }

    /// A request waits until it is clear how the endpoint is.
    pub(super) fn wait(&mut self, endpoint: Fingerprint, stream: StreamId) {
        if let Some(watched) = self.endpoints.get_mut(&endpoint) {
            watched.waiting.push(stream);
        }
    }

    /// An endpoint is called.
    pub(super) fn on_start(&mut self, endpoint: Fingerprint, sending: &mut Sending<'_>, now: Timestamp) {
        let Some(watched) = self.endpoints.get_mut(&endpoint) else { return };
        if watched.breaker.on_start() {
            self.attend(endpoint, sending, now);
        }
    }

    /// A call has ended. `is_hopeful`: see [`CircuitBreaker::on_probe_end`].
    pub(super) fn on_end(
        &mut self,
        endpoint: Fingerprint,
        (outcome, started, purpose): (CallOutcome, Timestamp, Purpose),
        is_hopeful: bool,
        sending: &mut Sending<'_>,
        now: Timestamp,
    ) {
        let Some(watched) = self.endpoints.get_mut(&endpoint) else { return };
        match (watched.breaker.on_end(outcome, started, purpose, now), outcome) {
            (Transition::None, CallOutcome::Failed | CallOutcome::NotStarted) => {
                let transition = watched.breaker.judge(is_hopeful, now);
                self.note(endpoint, transition);
                self.attend(endpoint, sending, now);
            }
            (Transition::None, _) => {}
            (transition, _) => {
                self.note(endpoint, transition);
                self.attend(endpoint, sending, now);
            }
        }
    }

    /// Which endpoint a callout probes, if it is a probe.
    pub(super) fn probed_by(&self, flight: FlightId) -> Option<Fingerprint> {
        self.probes.get(&flight).copied()
    }

    /// The cluster of an endpoint.
    pub(super) fn cluster(&self, endpoint: Fingerprint) -> Option<&str> {
        let probe = self.endpoints.get(&endpoint)?.homes.values().next()?;
        Some(&probe.endpoint().provider().cluster)
    }

    /// Since when an answer would clear an endpoint that may be away.
    pub(super) fn suspected_since(&self, endpoint: Fingerprint) -> Option<Timestamp> {
        self.endpoints.get(&endpoint)?.breaker.suspected_since()
    }

    /// A probe has ended.
    pub(super) fn land(
        &mut self,
        flight: FlightId,
        outcome: ProbeOutcome,
        is_hopeful: bool,
        sending: &mut Sending<'_>,
        now: Timestamp,
    ) {
        let Some(endpoint) = self.probes.remove(&flight) else { return };
        let Some(watched) = self.endpoints.get_mut(&endpoint) else { return };
        if let Some(probe) = watched.probe.take() {
            sending.timers.clear(&probe.deadline);
        }
        let transition = watched.breaker.on_probe_end(outcome, is_hopeful, now);
        self.note(endpoint, transition);
        self.attend(endpoint, sending, now);
    }

    /// The time has come for a probe, or to judge what they have shown.
    pub(super) fn wake(
        &mut self,
        endpoint: Fingerprint,
        is_hopeful: bool,
        sending: &mut Sending<'_>,
        now: Timestamp,
    ) {
        let Some(watched) = self.endpoints.get_mut(&endpoint) else { return };
        watched.timer = None;
        let transition = watched.breaker.judge(is_hopeful, now);
        self.note(endpoint, transition);
        self.attend(endpoint, sending, now);
    }

    /// A request that waited for a probe, and goes on now.
    pub(super) fn concluded(&mut self) -> Option<StreamId> {
        self.concluded.pop()
    }

    /// An endpoint that has turned out to be away.
    pub(super) fn opened(&mut self) -> Option<Fingerprint> {
        self.opened.pop()
    }

    fn note(&mut self, endpoint: Fingerprint, transition: Transition) {
        let Some(watched) = self.endpoints.get_mut(&endpoint) else { return };
        if transition == Transition::None {
            return;
        }
        self.concluded.append(&mut watched.waiting);
        if transition == Transition::Opened {
            self.opened.push(endpoint);
        }
    }

    /// Sends the probe that is due, or sets the timer for what is next.
    fn attend(&mut self, endpoint: Fingerprint, sending: &mut Sending<'_>, now: Timestamp) {
        let Some(watched) = self.endpoints.get_mut(&endpoint) else { return };
        if let Some(timer) = watched.timer.take() {
            sending.timers.clear(&timer);
        }
        // The newest: an older one may be about to go.
        let Some((root, probe)) = watched.homes.last_key_value() else { return };
        let nth = [&endpoint.bytes()[..], &watched.sent.to_le_bytes()];
        let [jitter, ..] = FactKey::of(self.seed, nth).bytes();
        let mut due = watched.breaker.probe_due(now, jitter);
        if due.is_some_and(|due| due <= now) {
            due = None;
            let flight = FlightId(self.next_probe);
            self.next_probe = self.next_probe.wrapping_add(2);
            let callout = probe.callout(self.seed);
            let deadline = now.saturating_add(callout.timeout).saturating_add(GRACE);
            let deadline = sending.timers.set(*root, deadline, Timer::Flight(flight));
            watched.breaker.on_probe(now);
            watched.sent = watched.sent.wrapping_add(1);
            watched.probe = Some(UnderWay { flight, root: *root, deadline });
            self.probes.insert(flight, endpoint);
            sending.outputs.push(Output::Dispatch { flight, root: *root, callout });
        }
        let next = due.into_iter().chain(watched.breaker.judgement_due()).min();
        watched.timer = next.map(|at| sending.timers.set(*root, at, Timer::Health(endpoint)));
    }
}

impl Watched {
    fn new(breaker: CircuitBreaker) -> Self {
        let homes = BTreeMap::new();
        Self { breaker, homes, probe: None, timer: None, sent: 0, waiting: Vec::new() }
    }

    /// Takes the newest root's interval. Returns whether it is never probed now, so that nobody
    /// has to wait for that.
    fn take_interval(&mut self) -> bool {
        let Some(probe) = self.homes.values().next_back() else { return false };
        let interval = probe.endpoint().provider().probe_interval;
        self.breaker.set_interval(interval);
        interval.is_none()
    }
}

/// How long after its timeout a callout is given up.
pub(super) const GRACE: Duration = Duration::from_millis(50);
