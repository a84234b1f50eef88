//! The endpoints, how they are, and their probes: what alone opens and shuts the gate.

mod watched;

use super::outputs::Outputs;
use super::timers::{Armed, Timer, Timers};
use super::{FlightId, Level, Output, RootId, StreamId};
use crate::breaker::{CallOutcome, CallRefused, CircuitBreaker, ProbeOutcome, Purpose, Standing, Transition};
use crate::hash::{FactKey, Fingerprint, Seed};
use crate::probe::Probe;
use crate::refusal::{Outage, Refusal, Unusable};
use crate::telemetry::{Label, Labels};
use crate::time::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// How each endpoint has been, as each client of it.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Health {
    seed: Seed,
    /// A list: a policy names a handful, and tables cost code.
    endpoints: Vec<Watched>,
    next_probe: u64,
    /// Requests that waited for a probe which has told.
    concluded: Vec<StreamId>,
    /// Endpoints that are away since the last event.
    opened: Vec<Fingerprint>,
}

#[cfg_attr(test, derive(Clone))]
struct Watched {
    endpoint: Fingerprint,
    label: Label,
    breaker: CircuitBreaker,
    /// How each root that names the endpoint probes it, the newest last.
    homes: Vec<(RootId, Arc<Probe>)>,
    probe: Option<UnderWay>,
    timer: Option<Armed>,
    /// Probes sent so far.
    sent: u32,
    /// Requests that wait until it is clear how the endpoint is.
    waiting: Vec<StreamId>,
    /// Since when it is away.
    away_since: Option<Timestamp>,
    /// Whether it took the second of the gate's credentials last, and refused the first.
    prefers_next: bool,
    /// When it changed which of them it takes.
    preferred_at: Option<Timestamp>,
    /// When it refused both.
    refused_both_at: Option<Timestamp>,
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
            endpoints: Vec::new(),
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
        labels: &mut Labels,
        sending: &mut Sending<'_>,
        now: Timestamp,
    ) {
        for probe in probes {
            let interval = probe.endpoint().provider().probe_interval;
            let endpoint = probe.endpoint().fingerprint();
            if self.watched(endpoint).is_none() {
                let label = labels.endpoint(&probe.endpoint().label());
                self.endpoints.push(Watched::new(endpoint, label, CircuitBreaker::new(interval)));
            }
            let Some(watched) = self.watched_mut(endpoint) else { continue };
            watched.homes.retain(|(home, _)| *home != root);
            watched.homes.push((root, Arc::clone(probe)));
            if watched.take_interval() {
                let mut waiting = std::mem::take(&mut watched.waiting);
                self.concluded.append(&mut waiting);
            }
        }
        let is_named =
            |endpoint: &Fingerprint| probes.iter().any(|probe| probe.endpoint().fingerprint() == *endpoint);
        let left: Vec<Fingerprint> = self
            .endpoints
            .iter()
            .filter(|watched| watched.is_named_by(root) && !is_named(&watched.endpoint))
            .map(|watched| watched.endpoint)
            .collect();
        for endpoint in left {
            self.leave(root, endpoint, sending, now);
        }
    }

    /// A root ends, and with it its callouts and its tick. Another one that names the endpoint
    /// takes over; where none does, nobody asks how it is.
    fn leave(&mut self, root: RootId, endpoint: Fingerprint, sending: &mut Sending<'_>, now: Timestamp) {
        let Some(watched) = self.watched_mut(endpoint) else { return };
        watched.homes.retain(|(home, _)| *home != root);
        let is_left = watched.homes.is_empty();
        if let Some(probe) = watched.probe.take_if(|probe| is_left || probe.root == root) {
            sending.timers.clear(&probe.deadline);
            watched.breaker.on_probe_lost();
        }
        if !is_left {
            if watched.take_interval() {
                let mut waiting = std::mem::take(&mut watched.waiting);
                self.concluded.append(&mut waiting);
            }
            return self.attend(endpoint, sending, now);
        }
        if let Some(timer) = watched.timer.take() {
            sending.timers.clear(&timer);
        }
        let mut waiting = std::mem::take(&mut watched.waiting);
        self.concluded.append(&mut waiting);
        self.endpoints.retain(|watched| watched.endpoint != endpoint);
    }

    fn watched(&self, endpoint: Fingerprint) -> Option<&Watched> {
        self.endpoints.iter().find(|watched| watched.endpoint == endpoint)
    }

    fn watched_mut(&mut self, endpoint: Fingerprint) -> Option<&mut Watched> {
        self.endpoints.iter_mut().find(|watched| watched.endpoint == endpoint)
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
        let Some(watched) = self.watched(endpoint) else { return Ok(()) };
        watched.breaker.check(purpose, now).map_err(|refused| match refused {
            CallRefused::Breaker(left) => Outage::CircuitOpen(left).into(),
            CallRefused::Paused(left) => Unusable::RateLimited(Some(left)).into(),
        })
    }

    /// What is known about an endpoint.
    pub(super) fn standing(&self, endpoint: Fingerprint) -> Standing {
        self.watched(endpoint).map_or(Standing::There, |watched| watched.breaker.standing())
    }

    /// A request waits until it is clear how the endpoint is.
    pub(super) fn wait(&mut self, endpoint: Fingerprint, stream: StreamId) {
        if let Some(watched) = self.watched_mut(endpoint) {
            watched.waiting.push(stream);
        }
    }

    /// An endpoint is called.
    pub(super) fn on_start(&mut self, endpoint: Fingerprint, sending: &mut Sending<'_>, now: Timestamp) {
        let Some(watched) = self.watched_mut(endpoint) else { return };
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
        let Some(watched) = self.watched_mut(endpoint) else { return };
        match (watched.breaker.on_end(outcome, started, purpose, now), outcome) {
            (Transition::None, CallOutcome::Failed | CallOutcome::NotStarted) => {
                let transition = watched.breaker.judge(is_hopeful, now);
                self.note(endpoint, transition, sending, now);
                self.attend(endpoint, sending, now);
            }
            (Transition::None, _) => {}
            (transition, _) => {
                self.note(endpoint, transition, sending, now);
                self.attend(endpoint, sending, now);
            }
        }
    }

    /// Which endpoint a callout probes, if it is a probe.
    pub(super) fn probed_by(&self, flight: FlightId) -> Option<Fingerprint> {
        let is_its = |watched: &&Watched| watched.probe.as_ref().is_some_and(|probe| probe.flight == flight);
        self.endpoints.iter().find(is_its).map(|watched| watched.endpoint)
    }

    /// Whether an endpoint is asked with the second of the gate's credentials first.
    pub(super) fn prefers_next(&self, endpoint: Fingerprint) -> bool {
        self.watched(endpoint).is_some_and(|watched| watched.prefers_next)
    }

    /// An endpoint has refused one of the gate's credentials, and taken the other: it is asked with
    /// that one first from now on.
    ///
    /// A caller may choose a question on which the two differ, so it changes only so often.
    pub(super) fn prefer(
        &mut self,
        endpoint: Fingerprint,
        next: bool,
        sending: &mut Sending<'_>,
        now: Timestamp,
    ) {
        let Some(watched) = self.watched_mut(endpoint) else { return };
        if watched.prefers_next == next || is_within(watched.preferred_at, PREFERRED_FOR, now) {
            return;
        }
        watched.prefers_next = next;
        watched.preferred_at = Some(now);
        let Some((_, probe)) = watched.homes.last() else { return };
        let name = probe.endpoint().name();
        let (taken, refused) = if next { ("next", "first") } else { ("first", "next") };
        let message = format!(
            "avnology_gate: {name} takes the gate's {taken} credential, and refuses the {refused} one"
        );
        sending.outputs.log(Level::Warn, message);
    }

    /// An endpoint has refused both of the gate's credentials.
    pub(super) fn refused_both(&mut self, endpoint: Fingerprint, now: Timestamp) {
        if let Some(watched) = self.watched_mut(endpoint) {
            watched.refused_both_at = Some(now);
        }
    }

    /// Whether an endpoint that refuses one of the gate's credentials may be asked with the other:
    /// not right after it has refused both.
    pub(super) fn may_try_other(&self, endpoint: Fingerprint, now: Timestamp) -> bool {
        let watched = self.watched(endpoint);
        watched.is_some_and(|watched| !is_within(watched.refused_both_at, REFUSED_FOR, now))
    }

    /// What labels an endpoint's metrics.
    pub(super) fn label(&self, endpoint: Fingerprint) -> Option<Label> {
        self.watched(endpoint).map(|watched| watched.label)
    }

    /// What an endpoint is called, for whoever reads the log.
    pub(super) fn name(&self, endpoint: Fingerprint) -> Option<(Label, String)> {
        let watched = self.watched(endpoint)?;
        let (_, probe) = watched.homes.first()?;
        Some((watched.label, probe.endpoint().name()))
    }

    /// Every endpoint's label, and whether it is away.
    pub(super) fn away(&self) -> impl Iterator<Item = (Label, bool)> {
        let is_away = |watched: &Watched| matches!(watched.breaker.standing(), Standing::Away(_));
        self.endpoints.iter().map(move |watched| (watched.label, is_away(watched)))
    }

    /// The cluster of an endpoint.
    pub(super) fn cluster(&self, endpoint: Fingerprint) -> Option<&str> {
        let (_, probe) = self.watched(endpoint)?.homes.first()?;
        Some(&probe.endpoint().provider().cluster)
    }

    /// Since when an answer would clear an endpoint that may be away.
    pub(super) fn suspected_since(&self, endpoint: Fingerprint) -> Option<Timestamp> {
        self.watched(endpoint)?.breaker.suspected_since()
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
        let Some(endpoint) = self.probed_by(flight) else { return };
        let Some(watched) = self.watched_mut(endpoint) else { return };
        if let Some(probe) = watched.probe.take() {
            sending.timers.clear(&probe.deadline);
        }
        let transition = watched.breaker.on_probe_end(outcome, is_hopeful, now);
        self.note(endpoint, transition, sending, now);
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
        let Some(watched) = self.watched_mut(endpoint) else { return };
        watched.timer = None;
        let transition = watched.breaker.judge(is_hopeful, now);
        self.note(endpoint, transition, sending, now);
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

    /// Whether no endpoint is watched, and nobody waits for a probe.
    #[cfg(feature = "fuzzing")]
    pub(super) fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.concluded.is_empty() && self.opened.is_empty()
    }

    fn note(
        &mut self,
        endpoint: Fingerprint,
        transition: Transition,
        sending: &mut Sending<'_>,
        now: Timestamp,
    ) {
        let Some(watched) = self.watched_mut(endpoint) else { return };
        if transition == Transition::None {
            return;
        }
        watched.tell(transition, sending, now);
        let mut waiting = std::mem::take(&mut watched.waiting);
        self.concluded.append(&mut waiting);
        if transition == Transition::Opened {
            self.opened.push(endpoint);
        }
    }

    /// Sends the probe that is due, or sets the timer for what is next.
    fn attend(&mut self, endpoint: Fingerprint, sending: &mut Sending<'_>, now: Timestamp) {
        let Self { seed, endpoints, next_probe, .. } = self;
        let Some(watched) = endpoints.iter_mut().find(|watched| watched.endpoint == endpoint) else { return };
        if let Some(timer) = watched.timer.take() {
            sending.timers.clear(&timer);
        }
        // The newest: an older one may be about to go.
        let Some((root, probe)) = watched.homes.last() else { return };
        let root = *root;
        let nth = [&endpoint.bytes()[..], &watched.sent.to_le_bytes()];
        let [jitter, ..] = FactKey::of(*seed, nth).bytes();
        let mut due = watched.breaker.probe_due(now, jitter);
        if due.is_some_and(|due| due <= now) {
            due = None;
            let flight = FlightId(*next_probe);
            *next_probe = next_probe.wrapping_add(2);
            let callout = probe.callout(*seed);
            let deadline = now.saturating_add(callout.timeout).saturating_add(GRACE);
            let deadline = sending.timers.set(root, deadline, Timer::Flight(flight));
            watched.breaker.on_probe(now);
            watched.sent = watched.sent.wrapping_add(1);
            watched.probe = Some(UnderWay { flight, root, deadline });
            sending.outputs.push(Output::Dispatch { flight, root, callout });
        }
        let next = due.into_iter().chain(watched.breaker.judgement_due()).min();
        watched.timer = next.map(|at| sending.timers.set(root, at, Timer::Health(endpoint)));
    }
}

/// Whether that was so lately. A clock that was set back does not make it last.
fn is_within(at: Option<Timestamp>, span: Duration, now: Timestamp) -> bool {
    at.is_some_and(|at| at <= now && now.saturating_since(at) < span)
}

/// How long a credential is asked with first at least.
const PREFERRED_FOR: Duration = Duration::from_secs(10);

/// How long the other credential is not tried after both were refused.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// How long after its timeout a callout is given up.
pub(super) const GRACE: Duration = Duration::from_millis(50);
