//! What a host may report, and which room it concerns.

mod landing;
#[cfg(feature = "fuzzing")]
mod leftovers;
mod measuring;

use super::bodies::{Body, Claim};
use super::calls::Calls;
use super::facts::Facts;
use super::gate::{self, Callback, Gate};
use super::health::{Health, Sending};
use super::limits::Limits;
use super::meter::{self, Meter};
use super::outputs::Outputs;
use super::request::{Bearer, BodyProgress, Ending, Introspecting, Next, Receiving, Request};
use super::requests::Requests;
use super::roots::Roots;
use super::services::{Asking, Services};
use super::timers::{Timer, Timers};
use super::trace;
use super::triage::{Triage, triage};
use super::{Output, RootId, Seed, SharedStore, Step, StreamId};
use crate::config::Loaded;
use crate::http::CallFailure;
use crate::http::head::RequestHead;
use crate::refusal::Unusable;
use crate::telemetry::{Change, Configuration, Series};
use crate::time::Timestamp;
use crate::verdict::{self, Action, Passage, RequestContext};
use std::rc::Rc;
use std::sync::Arc;

/// The state of one VM. Each field is a room with a state of its own; here is only what leads from
/// one to the other.
#[cfg_attr(test, derive(Clone))]
pub struct Engine {
    roots: Roots,
    requests: Requests,
    calls: Calls,
    health: Health,
    facts: Facts,
    timers: Timers,
    meter: Meter,
    outputs: Outputs,
}

impl Engine {
    /// An engine without policies. `seed`: random, one per VM. `store`: what it shares with the
    /// other workers.
    pub fn new(seed: Seed, store: Rc<dyn SharedStore>) -> Self {
        Self::with_limits(seed, store, Limits::default())
    }

    pub(crate) fn with_limits(seed: Seed, store: Rc<dyn SharedStore>, limits: Limits) -> Self {
        Self {
            roots: Roots::default(),
            requests: Requests::new(limits),
            calls: Calls::new(limits),
            health: Health::new(seed),
            facts: Facts::new(seed, Rc::clone(&store)),
            timers: Timers::default(),
            meter: Meter::default(),
            outputs: Outputs::new(store),
        }
    }

    /// Takes a root's policy. Streams of other roots, and of this one's predecessor, keep theirs.
    ///
    /// What is known stays: it belongs to the endpoints that said it, and an endpoint that two
    /// policies name is one.
    pub fn configure(&mut self, root: RootId, loaded: Loaded, now: Timestamp) {
        self.observe_clock(now);
        self.outputs.warn_once(&loaded.warnings);
        self.roots.configure(root, loaded.policy, self.meter.labels_mut());
        self.reconfigured(root, now);
        self.conclude(now);
    }

    fn reconfigured(&mut self, root: RootId, now: Timestamp) {
        self.facts.resize(self.roots.bounds());
        self.look_for_evictions(root, now);
        self.calls.reconfigured(root);
        let Self { health, timers, outputs, meter, .. } = self;
        let probes = self.roots.probes(root);
        health.configure(root, &probes, meter.labels_mut(), &mut Sending { timers, outputs }, now);
        self.requests.bodies_mut().reserve(&self.roots.webhooks());
        self.measure(now);
    }

    fn look_for_evictions(&mut self, root: RootId, now: Timestamp) {
        if let Some(subjects) = self.roots.look_for_evictions(root, &mut self.timers, now) {
            self.facts.read_evictions(&subjects, now);
        }
    }

    /// A request's head.
    pub fn begin(&mut self, stream: StreamId, root: RootId, head: &RequestHead<'_>, now: Timestamp) -> Step {
        self.observe_clock(now);
        match gate::gate(self.requests.phase(stream), Callback::Headers) {
            Gate::Begin => {}
            Gate::Continue => return Step::Continue,
            Gate::Pause | Gate::Feed | Gate::Drain => return Step::Wait,
        }
        let Some(policy) = self.roots.policy(root) else {
            if !head.end_of_stream() {
                self.requests.answered(stream);
            }
            return Step::Decided(verdict::undecidable());
        };
        self.measure(now);
        if self.roots.is_first_use(root) {
            self.meter.count(Series::Configuration(Configuration::Accepted));
        }
        let (context, triage) = triage(policy, head, now);
        self.outputs.warn_of_underscores(&context.base_edits);
        let mut next = match triage {
            Triage::Decided(outcome) => Next::Decided(context, outcome.map(Passage::Permit)),
            Triage::Introspect(token, rules, inputs) => {
                let bearer = Bearer::new(context, rules, inputs, now);
                Introspecting::start(bearer, &token, &mut self.services(stream, root, now))
            }
            Triage::Receive(verification, webhook) => {
                let context = RequestContext { trace: trace::of(head, false), ..context };
                let body = Body::new(&context.policy, &webhook, head, now);
                // No body callback will ever come for a request that ends with its head.
                if !head.end_of_stream() {
                    self.make_room(Claim::Place(body), now);
                }
                let mut services = self.services(stream, root, now);
                let state = Receiving::new(context, webhook, verification, body, now);
                if head.end_of_stream() {
                    state.complete(&mut |_, _| None, &mut services)
                } else {
                    state.start(&services)
                }
            }
            Triage::Await(permit) if self.requests.counts().has_room_for_a_preflight() => {
                Ending::start(context, permit, now)
            }
            Triage::Await(_) => Next::Decided(context, Err(Unusable::OverLimit.into())),
        };
        // Who reads the log looks for a refusal by its id.
        if let Next::Decided(context, Err(_)) = &mut next
            && context.trace.is_empty()
        {
            context.trace = trace::of(head, false);
        }
        self.apply(stream, root, next, now)
    }

    /// More of a request's body: `received` bytes are held by the host by now, of which
    /// `fetch(from, len)` copies a range.
    pub fn body(
        &mut self,
        stream: StreamId,
        received: usize,
        end_of_stream: bool,
        fetch: &mut dyn FnMut(usize, usize) -> Option<Vec<u8>>,
        now: Timestamp,
    ) -> Step {
        self.observe_clock(now);
        match gate::gate(self.requests.phase(stream), Callback::Body) {
            Gate::Continue => return Step::Continue,
            Gate::Pause | Gate::Begin => return Step::Wait,
            Gate::Drain if received == 0 => return Step::Continue,
            Gate::Drain => {
                // Nothing of this stream passes any more, its trailers neither.
                self.requests.answered(stream);
                return Step::Wait;
            }
            Gate::Feed => {}
        }
        let progress = BodyProgress { received, is_complete: end_of_stream, fetch };
        let Some((root, request)) = self.requests.take(stream, &mut self.timers) else { return Step::Wait };
        let next = match request {
            Request::Receiving(receiving) => {
                let claim = receiving.claim(received, end_of_stream);
                claim.into_iter().for_each(|claim| self.make_room(claim, now));
                receiving.body(progress, &mut self.services(stream, root, now))
            }
            Request::Ending(ending) => ending.body(received, end_of_stream),
            other => Next::Wait(other),
        };
        self.apply(stream, root, next, now)
    }

    /// The names of a request's trailers, and with them its end. Returns beside the step the
    /// trailers that must leave before anything else. `fetch`: as for [`Self::body`].
    pub fn trailers<'t>(
        &mut self,
        stream: StreamId,
        names: impl IntoIterator<Item = &'t [u8]>,
        fetch: &mut dyn FnMut(usize, usize) -> Option<Vec<u8>>,
        now: Timestamp,
    ) -> (Step, Vec<Vec<u8>>) {
        self.observe_clock(now);
        let policy = self.requests.policy(stream);
        let is_owned = |name: &&[u8]| policy.is_none_or(|policy| policy.owned.contains(name));
        let removed = names.into_iter().filter(is_owned).map(<[u8]>::to_vec).collect();
        let step = match gate::gate(self.requests.phase(stream), Callback::Trailers) {
            Gate::Continue | Gate::Drain => Step::Continue,
            Gate::Pause | Gate::Begin => Step::Wait,
            // With trailers no body callback ever says that the body is complete.
            Gate::Feed => self
                .receive(stream, now, |request, services| match request {
                    Request::Receiving(receiving) => receiving.complete(fetch, services),
                    Request::Ending(ending) => ending.complete(),
                    other => Next::Wait(other),
                })
                .unwrap_or(Step::Wait),
        };
        (step, removed)
    }

    /// Time has passed: answers what no callback does.
    pub fn tick(&mut self, root: RootId, now: Timestamp) {
        self.observe_clock(now);
        while let Some(timer) = self.timers.pop(root, now) {
            match timer {
                Timer::Flight(flight) => self.landed(flight, Err(CallFailure::Timeout), now),
                Timer::Decision(stream) => {
                    self.step(stream, now, |request, services| request.time_out(services));
                }
                Timer::Evictions => self.look_for_evictions(root, now),
                Timer::Metrics => self.write_metrics(now),
                Timer::Health(endpoint) => {
                    let Self { calls, health, timers, outputs, .. } = self;
                    let is_hopeful = calls.is_hopeful(endpoint, health);
                    health.wake(endpoint, is_hopeful, &mut Sending { timers, outputs }, now);
                    self.conclude(now);
                }
                Timer::Measurement(stream) => {
                    // It is parked anew, and measured again later.
                    self.step(stream, now, |request, _| Next::Wait(request));
                    self.outputs.push(Output::Measure { stream });
                }
            }
        }
    }

    /// How many bytes of a request have arrived, head included. Called right after
    /// [`Step::NeedBody`], and for [`Output::Measure`].
    pub fn measured(&mut self, stream: StreamId, total_size: u64, now: Timestamp) {
        self.observe_clock(now);
        let step = self.receive(stream, now, |request, _| match request {
            Request::Receiving(receiving) => receiving.measured(total_size),
            Request::Ending(ending) => ending.measured(total_size),
            other => Next::Wait(other),
        });
        if let Some(Step::Decided(verdict)) = step {
            self.outputs.push(Output::Decide { stream, verdict });
        }
    }

    /// A stream has ended. Its flight goes on: the answer is for whoever still waits.
    pub fn gone(&mut self, stream: StreamId) {
        self.requests.remove(stream, &mut self.timers);
    }

    /// A root has ended, and with it its callouts.
    pub fn root_gone(&mut self, root: RootId, now: Timestamp) {
        self.observe_clock(now);
        self.roots.remove(root);
        for flight in self.calls.of_root(root) {
            let Self { calls, timers, outputs, .. } = self;
            let _ = calls.land(flight, &mut Sending { timers, outputs });
        }
        self.reconfigured(root, now);
        for stream in self.requests.of_root(root) {
            self.step(stream, now, |request, _| request.abandon());
        }
        self.conclude(now);
        // With the last root the VM ends, and so it takes back what it has added to the gauges.
        self.write_metrics(now);
    }

    /// What the host is to do next.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.poll()
    }

    /// When a root's tick is needed next; `None` while nothing of it waits.
    pub fn next_deadline(&self, root: RootId) -> Option<Timestamp> {
        self.timers.next(root)
    }

    /// How many streams are undecided; for tests and metrics.
    pub fn waiting(&self) -> usize {
        self.requests.counts().undecided()
    }

    /// Every event begins with this.
    fn observe_clock(&mut self, now: Timestamp) {
        self.facts.observe_clock(now);
        let set_back = self.timers.observe(now);
        if !set_back.is_zero() {
            self.requests.set_back(set_back);
        }
    }

    fn services(&mut self, stream: StreamId, root: RootId, now: Timestamp) -> Services<'_> {
        let Self { facts, calls, health, timers, outputs, requests, .. } = self;
        let asking = Asking { calls, health, timers, outputs };
        Services::new((stream, root), now, facts, asking, requests.counts())
    }

    /// One step of a stream that is undecided and not the one whose callback runs.
    fn step(
        &mut self,
        stream: StreamId,
        now: Timestamp,
        step: impl FnOnce(Request, &mut Services<'_>) -> Next,
    ) {
        let Some((root, request)) = self.requests.take(stream, &mut self.timers) else { return };
        let next = step(request, &mut self.services(stream, root, now));
        if let Step::Decided(verdict) = self.apply(stream, root, next, now) {
            self.outputs.push(Output::Decide { stream, verdict });
        }
    }

    /// One step of a stream whose body is received; `None` where it is none.
    fn receive(
        &mut self,
        stream: StreamId,
        now: Timestamp,
        step: impl FnOnce(Request, &mut Services<'_>) -> Next,
    ) -> Option<Step> {
        let (root, request) = self.requests.take(stream, &mut self.timers)?;
        let next = step(request, &mut self.services(stream, root, now));
        Some(self.apply(stream, root, next, now))
    }

    /// Refuses slower bodies until there is room for this one, or none gives way.
    fn make_room(&mut self, claim: Claim, now: Timestamp) {
        while let Some(stream) = self.requests.gives_way(claim, now) {
            self.step(stream, now, |request, _| request.give_way());
        }
    }

    /// What leaves a request leaves before it waits, so that nothing of it is kept: a client
    /// chooses how long these names are.
    fn strip(&mut self, stream: StreamId, request: &mut Request) {
        let edits = request.context_mut().take_edits();
        if !edits.is_empty() {
            self.outputs.push(Output::Edit { stream, edits });
        }
    }

    fn await_body(&mut self, stream: StreamId, root: RootId, mut request: Request, now: Timestamp) -> Step {
        request.context_mut().waits_since.get_or_insert(now);
        self.strip(stream, &mut request);
        self.requests.park(stream, root, request, &mut self.timers, now);
        Step::NeedBody
    }

    /// What a step leads to. Every step ends here, and no other place settles a request.
    fn apply(&mut self, stream: StreamId, root: RootId, next: Next, now: Timestamp) -> Step {
        match next {
            Next::Wait(mut request) => {
                request.context_mut().waits_since.get_or_insert(now);
                self.strip(stream, &mut request);
                self.requests.park(stream, root, request, &mut self.timers, now);
                Step::Wait
            }
            Next::NeedBody(receiving) => self.await_body(stream, root, Request::Receiving(receiving), now),
            Next::NeedEnd(ending) => self.await_body(stream, root, Request::Ending(ending), now),
            Next::Decided(mut context, outcome) => {
                if let Some(since) = context.waits_since {
                    let wait = now.saturating_since(since);
                    context.waited = Some(wait);
                    let is_delivery = context.webhook().is_some();
                    let series = if is_delivery { Series::WebhookWait } else { Series::DecisionWait };
                    self.outputs.push(Output::Metric { series, change: Change::Record(meter::micros(wait)) });
                }
                if let Err(refusal) = &outcome {
                    self.outputs.log_hint(refusal, now);
                }
                // Nothing follows a request that ends with its head.
                let followed = (!context.is_whole).then(|| Arc::clone(&context.policy));
                let is_empty = context.is_without_content;
                let verdict = verdict::settle(context, outcome);
                self.outputs.log_refusal(verdict.event(), now);
                if let Some(policy) = followed {
                    match verdict.action() {
                        Action::Forward(_) if is_empty => self.requests.forwarded_empty(stream, policy),
                        Action::Forward(_) => self.requests.forwarded(stream, policy),
                        Action::Respond { .. } => self.requests.answered(stream),
                    }
                }
                Step::Decided(verdict)
            }
        }
    }
}
