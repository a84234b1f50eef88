//! The engine: one per VM, fed by the host's callbacks, with no clock, socket or proxy of its own.
//!
//! Every method may leave [`Output`]s; whoever drives the engine drains [`Engine::poll`] after each call. A callback about a stream that is
//! not known, or about a flight that has landed, is harmless.

pub mod gate;
mod open;
mod reply;
mod slots;
mod state;

pub use crate::secret::Seed;
pub use slots::SharedSlots;

use crate::config::Loaded;
use crate::http::{Callout, Header, Reply};
use crate::introspect::{Fact, Identity, Introspection};
use crate::permission::{self, Checks, Granted, Slot};
use crate::policy::{Access, Policy, TokenRules};
use crate::refusal::{Denial, Outage, Reason, Refusal, Unusable};
use crate::secret::{FactKey, Token};
use crate::template::Inputs;
use crate::time::Timestamp;
use crate::verdict::{self, Dossier, Permit, Verdict};
use crate::webhook::Verification;
use gate::{Callback, Gate, Phase};
use open::Opening;
use state::{Alarm, Checking, Flight, Introspecting, Pending, Question, Receiving, State, Stream, Ticket};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// A request, as the host numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// A configured plugin, as the host numbers them. Two of them may share a VM, and an update's stands beside the old one for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RootId(pub u32);

/// A callout, as the engine numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlightId(pub u64);

/// What the running callback does with its stream.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// Let pass: the stream was forwarded before.
    Continue,
    /// Hold the whole stream; no body callback is wanted.
    Wait,
    /// Hold the head, and hand over the body.
    NeedBody,
    /// Decided now: apply it, and return accordingly.
    Decided(Verdict),
}

/// How loud a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For whoever looks for one request.
    Debug,
    /// For whoever watches the gate start.
    Info,
    /// For whoever must act.
    Warn,
}

/// What the host is asked to do.
#[cfg_attr(test, derive(Clone))]
#[must_use]
pub enum Output {
    /// Send this under the root's context; its answer goes to [`Engine::landed`], a refusal to send it too, at once.
    Dispatch {
        /// Which flight it is.
        flight: FlightId,
        /// Whose callout it is.
        root: RootId,
        /// What to send.
        callout: Callout,
    },
    /// Apply a verdict. For the stream whose callback is running it becomes that callback's return value.
    Decide {
        /// The stream.
        stream: StreamId,
        /// What to do with it.
        verdict: Verdict,
    },
    /// Read how many bytes of the request have arrived, and tell [`Engine::measured`].
    Measure {
        /// The stream.
        stream: StreamId,
    },
    /// Write to the host's log.
    Log {
        /// How loud.
        level: Level,
        /// What.
        message: String,
    },
}

/// The state of one VM: policies by root, undecided streams, flights.
#[cfg_attr(test, derive(Clone))]
pub struct Engine {
    seed: Seed,
    policies: HashMap<RootId, Rc<Policy>>,
    streams: HashMap<StreamId, Stream>,
    flights: HashMap<FlightId, Flight>,
    /// Keyed by root too: Envoy drops a root's callouts with the root.
    by_key: HashMap<(RootId, FactKey), FlightId>,
    next_flight: u64,
    alarms: BTreeSet<(RootId, Timestamp, Alarm)>,
    outputs: VecDeque<Output>,
    pending: usize,
    /// Webhook bytes that the host holds for this worker.
    held: usize,
    /// When a reason was last told to the operator.
    told: HashMap<Reason, Timestamp>,
}

impl Engine {
    /// An engine without policies. `seed`: random, one per VM.
    pub fn new(seed: Seed) -> Self {
        Self {
            seed,
            policies: HashMap::new(),
            streams: HashMap::new(),
            flights: HashMap::new(),
            by_key: HashMap::new(),
            next_flight: 0,
            alarms: BTreeSet::new(),
            outputs: VecDeque::new(),
            pending: 0,
            held: 0,
            told: HashMap::new(),
        }
    }

    /// Takes a root's policy. Streams of other roots, and of this one's predecessor, keep theirs.
    pub fn configure(&mut self, root: RootId, loaded: Loaded, slots: &mut dyn SharedSlots) {
        if slots::is_first_to_say(slots, &loaded.warnings) {
            for warning in loaded.warnings {
                self.log(Level::Warn, format!("avnology_gate: configuration: {warning}"));
            }
        }
        self.policies.insert(root, Rc::new(loaded.policy));
    }

    /// A request's head. `head`: the host's serialised header map; `end_of_stream`: neither body nor trailers follow.
    pub fn begin(
        &mut self,
        stream: StreamId,
        root: RootId,
        head: &[u8],
        end_of_stream: bool,
        now: Timestamp,
    ) -> Step {
        match gate::gate(self.phase(stream), Callback::Headers) {
            Gate::Begin => {}
            Gate::Continue => return Step::Continue,
            Gate::Pause | Gate::Feed => return Step::Wait,
        }
        let Some(policy) = self.policies.get(&root).map(Rc::clone) else {
            self.streams.insert(stream, Stream::Answered);
            return Step::Decided(verdict::undecidable());
        };
        let (dossier, opening) = open::open(&policy, head, end_of_stream, now);
        match opening {
            Opening::Decided(outcome) => Step::Decided(self.settle(stream, dossier, outcome, now)),
            _ if self.pending >= MAX_PENDING => {
                Step::Decided(self.settle(stream, dossier, Err(Unusable::OverLimit.into()), now))
            }
            Opening::Introspect(token, inputs) => self.introspect(stream, root, dossier, &token, inputs, now),
            Opening::Receive(verification) => self.receive(stream, root, dossier, verification, now),
        }
    }

    /// More of a request's body: `received` bytes are held by the host by now, of which `fetch(from, len)` copies a range.
    pub fn body(
        &mut self,
        stream: StreamId,
        received: usize,
        end_of_stream: bool,
        fetch: &mut dyn FnMut(usize, usize) -> Option<Vec<u8>>,
        now: Timestamp,
    ) -> Step {
        match gate::gate(self.phase(stream), Callback::Body) {
            Gate::Continue => return Step::Continue,
            Gate::Pause | Gate::Begin => return Step::Wait,
            Gate::Feed => {}
        }
        match self.feed(stream, received, fetch) {
            Err(refusal) => self.finish_body(stream, Some(refusal), now),
            Ok(()) if end_of_stream => self.finish_body(stream, None, now),
            Ok(()) => Step::NeedBody,
        }
    }

    /// A request's trailers, and with them its end. Returns beside the step the trailers that must leave before anything else.
    pub fn trailers(
        &mut self,
        stream: StreamId,
        root: RootId,
        trailers: &[u8],
        now: Timestamp,
    ) -> (Step, Vec<Vec<u8>>) {
        let owned = |name: &[u8]| self.policies.get(&root).is_none_or(|policy| policy.owned.contain(name));
        let removed =
            reply::names(trailers).into_iter().filter(|name| owned(name)).map(<[u8]>::to_vec).collect();
        let step = match gate::gate(self.phase(stream), Callback::Trailers) {
            Gate::Continue => Step::Continue,
            Gate::Pause | Gate::Begin => Step::Wait,
            // With trailers no body callback ever says that the body is complete.
            Gate::Feed => self.finish_body(stream, None, now),
        };
        (step, removed)
    }

    /// A callout's answer.
    pub fn landed(&mut self, flight: FlightId, reply: Reply<'_>, now: Timestamp) {
        let Some(landed) = self.take_flight(flight) else { return };
        let body = reply::body_of(&reply);
        match landed.question {
            Question::Introspection => {
                let answer =
                    body.and_then(|b| Ok(Introspection::parse(b)?)).map(|i| Fact::new(i, landed.started));
                self.advise(answer.as_ref().err(), now);
                for (stream, _) in landed.waiters {
                    self.introspected(stream, answer.clone(), now);
                }
            }
            Question::Permission => {
                let answer = body.and_then(|b| Ok(permission::parse(b)?));
                self.advise(answer.as_ref().err(), now);
                for (stream, ticket) in landed.waiters {
                    if let Ticket::Check(slot) = ticket {
                        self.checked(stream, slot, answer.clone(), now);
                    }
                }
            }
        }
    }

    /// Time has passed: answers what no callback does.
    pub fn tick(&mut self, root: RootId, now: Timestamp) {
        while let Some(alarm) = self.due(root, now) {
            match alarm {
                Alarm::Flight(flight) => {
                    let Some(late) = self.take_flight(flight) else { continue };
                    let timeout = Refusal::from(Outage::Timeout);
                    self.advise(Some(&timeout), now);
                    for (stream, ticket) in late.waiters {
                        match ticket {
                            Ticket::Token => self.introspected(stream, Err(timeout.clone()), now),
                            Ticket::Check(slot) => self.checked(stream, slot, Err(timeout.clone()), now),
                        }
                    }
                }
                Alarm::Stream(stream) => self.overdue(stream, now),
            }
        }
    }

    /// How many bytes of a request have arrived, head included. Called right after [`Step::NeedBody`], and for [`Output::Measure`].
    pub fn measured(&mut self, stream: StreamId, total_size: u64, now: Timestamp) {
        let Some(Stream::Pending(pending)) = self.streams.get_mut(&stream) else { return };
        let State::Receiving(receiving) = &mut pending.state else { return };
        let size_at_head = *receiving.size_at_head.get_or_insert(total_size);
        if !receiving.heard && total_size > size_at_head {
            self.refuse(stream, Unusable::NoBodyCallbacks.into(), now);
        }
    }

    /// A stream has ended. Its flight goes on: the answer is for whoever still waits.
    pub fn gone(&mut self, stream: StreamId) {
        drop(self.take_pending(stream));
        self.streams.remove(&stream);
    }

    /// A root has ended, and with it its callouts.
    pub fn root_gone(&mut self, root: RootId, now: Timestamp) {
        self.policies.remove(&root);
        let flights: Vec<FlightId> =
            self.flights.iter().filter(|(_, f)| f.root == root).map(|(id, _)| *id).collect();
        for flight in flights {
            drop(self.take_flight(flight));
        }
        let is_its = |stream: &Stream| matches!(stream, Stream::Pending(pending) if pending.root == root);
        let orphans: Vec<StreamId> =
            self.streams.iter().filter(|(_, s)| is_its(s)).map(|(id, _)| *id).collect();
        for stream in orphans {
            self.refuse(stream, Unusable::Internal.into(), now);
        }
    }

    /// What the host is to do next.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When a root's tick is needed next; `None` while nothing of it waits.
    pub fn next_deadline(&self, root: RootId) -> Option<Timestamp> {
        let first = (root, Timestamp::from_nanos(0), Alarm::Flight(FlightId(0)));
        self.alarms.range(first..).next().filter(|(r, ..)| *r == root).map(|(_, at, _)| *at)
    }

    /// How many streams wait; for tests and metrics.
    pub fn waiting(&self) -> usize {
        self.pending
    }

    // --- steps of a stream ---

    fn introspect(
        &mut self,
        stream: StreamId,
        root: RootId,
        dossier: Dossier,
        token: &Token,
        inputs: Inputs,
        now: Timestamp,
    ) -> Step {
        let policy = Rc::clone(&dossier.policy);
        let endpoint = rules_of(&dossier).and_then(|rules| policy.endpoints.get(rules.endpoint));
        let Some(endpoint) = endpoint else {
            return Step::Decided(self.settle(stream, dossier, Err(Unusable::Internal.into()), now));
        };
        let key = endpoint.key(self.seed, token);
        let timeout = endpoint.provider.timeout;
        // No decision takes longer than two callouts do, one after the other.
        let deadline = now.saturating_add(timeout.saturating_mul(2));
        self.join(root, key, Question::Introspection, (stream, Ticket::Token), timeout, now, || {
            endpoint.call(token)
        });
        let state = State::Introspecting(Introspecting { inputs });
        self.park(stream, Pending { root, dossier, deadline, alarm: deadline, state });
        Step::Wait
    }

    fn introspected(&mut self, stream: StreamId, answer: Result<Fact, Refusal>, now: Timestamp) {
        let Some(mut pending) = self.take_pending(stream) else { return };
        let State::Introspecting(Introspecting { inputs }) = pending.state else {
            return self.decide(stream, pending.dossier, Err(Unusable::Internal.into()), now);
        };
        let policy = Rc::clone(&pending.dossier.policy);
        let judged = answer.and_then(|fact| {
            pending.dossier.subject = fact.subject();
            let rules = rules_of(&pending.dossier).ok_or(Unusable::Internal)?;
            let identity = rules.requirement.admit(&fact, &inputs, now)?;
            let headers = rendered(&policy, &inputs, &identity)?;
            let resolve = |templates: &[permission::CheckTemplate]| {
                templates.iter().map(|t| t.resolve(&inputs, &identity)).collect::<Result<Vec<_>, _>>()
            };
            let (all, any) = (resolve(&rules.all)?, resolve(&rules.any)?);
            pending.dossier.identity_headers = headers;
            Ok((identity, all, any))
        });
        let (identity, all, any) = match judged {
            Ok(judged) => judged,
            Err(refusal) => {
                let refusal = judge_opening(&pending.dossier, &inputs, refusal);
                return self.decide(stream, pending.dossier, Err(refusal), now);
            }
        };
        let checks = Checks::open(all.len(), any.len());
        if let Some(outcome) = checks.outcome() {
            let outcome = outcome.map(|granted: Granted| Permit::identified(&identity, granted));
            return self.decide(stream, pending.dossier, outcome, now);
        }
        let Some(endpoint) = &policy.permissions else {
            return self.decide(stream, pending.dossier, Err(Unusable::Internal.into()), now);
        };
        let root = pending.root;
        let slots = (0..all.len()).map(Slot::All).chain((0..any.len()).map(Slot::Any));
        for (slot, check) in slots.zip(all.iter().chain(&any)) {
            let key = endpoint.key(self.seed, check);
            let waiter = (stream, Ticket::Check(slot));
            self.join(root, key, Question::Permission, waiter, endpoint.provider.timeout, now, || {
                endpoint.call(check)
            });
        }
        pending.state = State::Checking(Checking { inputs, identity, checks });
        self.park(stream, pending);
    }

    fn checked(&mut self, stream: StreamId, slot: Slot, answer: Result<bool, Refusal>, now: Timestamp) {
        // A request whose first answers were decisive is gone from here when the others land.
        let Some(Stream::Pending(pending)) = self.streams.get_mut(&stream) else { return };
        let State::Checking(checking) = &mut pending.state else { return };
        checking.checks.note(slot, answer);
        if let Some(outcome) = checking.checks.outcome() {
            self.grant(stream, outcome, now);
        }
    }

    fn grant(&mut self, stream: StreamId, outcome: Result<Granted, Refusal>, now: Timestamp) {
        let Some(Pending { dossier, state, .. }) = self.take_pending(stream) else { return };
        let outcome = match (state, outcome) {
            (State::Checking(checking), Ok(granted)) => Ok(Permit::identified(&checking.identity, granted)),
            (State::Checking(checking), Err(refusal)) => {
                Err(judge_opening(&dossier, &checking.inputs, refusal))
            }
            _ => Err(Unusable::Internal.into()),
        };
        self.decide(stream, dossier, outcome, now);
    }

    fn receive(
        &mut self,
        stream: StreamId,
        root: RootId,
        dossier: Dossier,
        verification: Verification,
        now: Timestamp,
    ) -> Step {
        let webhook = match dossier.route().map(|r| &r.access) {
            Some(Access::Webhook(index)) => dossier.policy.webhooks.get(*index),
            _ => None,
        };
        let Some(webhook) = webhook else {
            return Step::Decided(self.settle(stream, dossier, Err(Unusable::Internal.into()), now));
        };
        let deadline = now.saturating_add(webhook.body_timeout);
        let alarm = deadline.min(now.saturating_add(MEASURE_EVERY));
        let limit = webhook.max_body_bytes;
        let state =
            State::Receiving(Receiving { verification, limit, held: 0, heard: false, size_at_head: None });
        self.park(stream, Pending { root, dossier, deadline, alarm, state });
        Step::NeedBody
    }

    fn feed(
        &mut self,
        stream: StreamId,
        received: usize,
        fetch: &mut dyn FnMut(usize, usize) -> Option<Vec<u8>>,
    ) -> Result<(), Refusal> {
        let Some(Stream::Pending(pending)) = self.streams.get_mut(&stream) else {
            return Err(Unusable::Internal.into());
        };
        let State::Receiving(receiving) = &mut pending.state else {
            return Err(Unusable::Internal.into());
        };
        receiving.heard = true;
        if received > receiving.limit {
            return Err(Denial::BodyTooLarge.into());
        }
        let new = received.saturating_sub(receiving.held);
        if new == 0 {
            return Ok(());
        }
        if self.held.saturating_add(new) > MAX_HELD {
            return Err(Unusable::BodyMemory.into());
        }
        let chunk =
            fetch(receiving.held, new).filter(|chunk| chunk.len() == new).ok_or(Unusable::Internal)?;
        receiving.verification.feed(&chunk);
        receiving.held = received;
        self.held = self.held.saturating_add(new);
        Ok(())
    }

    fn finish_body(&mut self, stream: StreamId, refusal: Option<Refusal>, now: Timestamp) -> Step {
        let Some(Pending { dossier, state, .. }) = self.take_pending(stream) else { return Step::Wait };
        let outcome = match (refusal, state) {
            (Some(refusal), _) => Err(refusal),
            (None, State::Receiving(receiving)) => {
                receiving.verification.finish().map(Permit::webhook).map_err(Refusal::from)
            }
            (None, _) => Err(Unusable::Internal.into()),
        };
        Step::Decided(self.settle(stream, dossier, outcome, now))
    }

    fn overdue(&mut self, stream: StreamId, now: Timestamp) {
        let Some(Stream::Pending(pending)) = self.streams.get_mut(&stream) else { return };
        if now >= pending.deadline {
            match &mut pending.state {
                State::Introspecting(_) => self.refuse(stream, Outage::Timeout.into(), now),
                State::Receiving(_) => self.refuse(stream, Denial::BodyTimeout.into(), now),
                State::Checking(checking) => {
                    checking.checks.close(&Outage::Timeout.into());
                    let outcome = checking.checks.outcome().unwrap_or_else(|| Err(Unusable::Internal.into()));
                    self.grant(stream, outcome, now);
                }
            }
            return;
        }
        let is_deaf = matches!(&pending.state, State::Receiving(receiving) if !receiving.heard);
        pending.alarm =
            if is_deaf { pending.deadline.min(now.saturating_add(MEASURE_EVERY)) } else { pending.deadline };
        self.alarms.insert((pending.root, pending.alarm, Alarm::Stream(stream)));
        if is_deaf {
            self.outputs.push_back(Output::Measure { stream });
        }
    }

    /// Refuses a stream that is undecided and not the one whose callback runs.
    fn refuse(&mut self, stream: StreamId, refusal: Refusal, now: Timestamp) {
        let Some(Pending { dossier, state, .. }) = self.take_pending(stream) else { return };
        let refusal = match &state {
            State::Introspecting(Introspecting { inputs }) | State::Checking(Checking { inputs, .. }) => {
                judge_opening(&dossier, inputs, refusal)
            }
            State::Receiving(_) => refusal,
        };
        self.decide(stream, dossier, Err(refusal), now);
    }

    fn decide(
        &mut self,
        stream: StreamId,
        dossier: Dossier,
        outcome: Result<Permit, Refusal>,
        now: Timestamp,
    ) {
        let verdict = self.settle(stream, dossier, outcome, now);
        self.outputs.push_back(Output::Decide { stream, verdict });
    }

    fn settle(
        &mut self,
        stream: StreamId,
        dossier: Dossier,
        outcome: Result<Permit, Refusal>,
        now: Timestamp,
    ) -> Verdict {
        if let Err(refusal @ Refusal::Unusable(_)) = &outcome {
            self.advise(Some(refusal), now);
        }
        let verdict = verdict::settle(dossier, outcome);
        let stream_state = match verdict.action() {
            verdict::Action::Forward(_) => Stream::Open,
            verdict::Action::Respond { .. } => Stream::Answered,
        };
        self.streams.insert(stream, stream_state);
        verdict
    }

    // --- streams, flights, alarms ---

    fn phase(&self, stream: StreamId) -> Phase {
        match self.streams.get(&stream) {
            None => Phase::Unknown,
            Some(Stream::Open) => Phase::Open,
            Some(Stream::Answered) => Phase::Answered,
            Some(Stream::Pending(pending)) => match pending.state {
                State::Introspecting(_) | State::Checking(_) => Phase::Waiting,
                State::Receiving(_) => Phase::Receiving,
            },
        }
    }

    fn park(&mut self, stream: StreamId, pending: Pending) {
        self.alarms.insert((pending.root, pending.alarm, Alarm::Stream(stream)));
        self.pending = self.pending.saturating_add(1);
        self.streams.insert(stream, Stream::Pending(Box::new(pending)));
    }

    fn take_pending(&mut self, stream: StreamId) -> Option<Pending> {
        if !matches!(self.streams.get(&stream), Some(Stream::Pending(_))) {
            return None;
        }
        let Some(Stream::Pending(pending)) = self.streams.remove(&stream) else { return None };
        self.alarms.remove(&(pending.root, pending.alarm, Alarm::Stream(stream)));
        self.pending = self.pending.saturating_sub(1);
        if let State::Receiving(receiving) = &pending.state {
            self.held = self.held.saturating_sub(receiving.held);
        }
        Some(*pending)
    }

    /// Waits for the flight with this question, starting it where there is none.
    #[expect(clippy::too_many_arguments, reason = "one call, and each is another thing")]
    fn join(
        &mut self,
        root: RootId,
        key: FactKey,
        question: Question,
        waiter: (StreamId, Ticket),
        timeout: Duration,
        now: Timestamp,
        call: impl FnOnce() -> Callout,
    ) {
        if let Some(flight) = self.by_key.get(&(root, key)).and_then(|id| self.flights.get_mut(id)) {
            flight.waiters.push(waiter);
            return;
        }
        let id = FlightId(self.next_flight);
        self.next_flight = self.next_flight.wrapping_add(1);
        // The host's own timeout answers first; this is for the case that it does not.
        let deadline = now.saturating_add(timeout).saturating_add(GRACE);
        let flight = Flight { root, key, question, started: now, deadline, waiters: vec![waiter] };
        self.by_key.insert((root, key), id);
        self.alarms.insert((root, deadline, Alarm::Flight(id)));
        self.flights.insert(id, flight);
        self.outputs.push_back(Output::Dispatch { flight: id, root, callout: call() });
    }

    fn take_flight(&mut self, id: FlightId) -> Option<Flight> {
        let flight = self.flights.remove(&id)?;
        self.by_key.remove(&(flight.root, flight.key));
        self.alarms.remove(&(flight.root, flight.deadline, Alarm::Flight(id)));
        Some(flight)
    }

    fn due(&mut self, root: RootId, now: Timestamp) -> Option<Alarm> {
        let at = self.next_deadline(root).filter(|at| *at <= now)?;
        let first = (root, at, Alarm::Flight(FlightId(0)));
        let alarm = *self.alarms.range(first..).next()?;
        self.alarms.remove(&alarm);
        Some(alarm.2)
    }

    // --- the operator ---

    /// Tells what can be done about a failure, once a minute per reason: a caller must not be able to flood the log.
    fn advise(&mut self, refusal: Option<&Refusal>, now: Timestamp) {
        let Some(reason) = refusal.map(Refusal::reason) else { return };
        let Some(advice) = reply::advice(reason) else { return };
        if self.told.get(&reason).is_some_and(|at| now.saturating_since(*at) < TELL_EVERY) {
            return;
        }
        self.told.insert(reason, now);
        self.log(Level::Warn, format!("avnology_gate: {}: {advice}", reason.id()));
    }

    fn log(&mut self, level: Level, message: String) {
        self.outputs.push_back(Output::Log { level, message });
    }
}

fn rules_of(dossier: &Dossier) -> Option<&TokenRules> {
    match dossier.route().map(|r| &r.access) {
        Some(Access::Token(rules)) => Some(rules),
        _ => None,
    }
}

/// The identity headers of an admitted bearer.
fn rendered(policy: &Policy, inputs: &Inputs, identity: &Identity) -> Result<Vec<Header>, Refusal> {
    let mut headers = Vec::with_capacity(policy.identity_headers.len());
    for (name, template) in &policy.identity_headers {
        if let Some(value) = template.header_value(inputs, identity.info())? {
            headers.push((name.clone().into_bytes(), value));
        }
    }
    Ok(headers)
}

/// An outage that a route would open does not open what the request's own values forbid.
fn judge_opening(dossier: &Dossier, inputs: &Inputs, refusal: Refusal) -> Refusal {
    if !matches!(refusal, Refusal::Outage(_)) || !dossier.opens_on_outage() {
        return refusal;
    }
    let Some(rules) = rules_of(dossier) else { return refusal };
    let claims =
        rules.requirement.claims.iter().map(|(_, template)| template.resolve(inputs, None).map(drop));
    let checks = rules.all.iter().chain(&rules.any).map(|check| check.judge_without_token(inputs));
    claims.chain(checks).find_map(Result::err).unwrap_or(refusal)
}

/// Undecided streams of one worker.
const MAX_PENDING: usize = 20_000;
/// Webhook bytes held for one worker.
const MAX_HELD: usize = 64 * 1024 * 1024;
/// How often a webhook whose body does not come is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(250);
/// How long after its timeout a flight is given up.
const GRACE: Duration = Duration::from_millis(50);
/// How often one reason is told to the operator.
const TELL_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
