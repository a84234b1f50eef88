//! The world: two workers as a host runs them, and what must hold of them.

use super::scene::{Answer, EVIL, Kind, Request, policies};
use crate::gate::{Headers, NOW, apply, check_answer};
use crate::targets::slots::Slots;
use arbitrary::{Result, Unstructured};
use avnology_gate::config;
use avnology_gate::flow::{Engine, FlightId, Output, RootId, Seed, Step, StreamId};
use avnology_gate::http::head::{RequestHead, normalized_eq};
use avnology_gate::http::{CallFailure, Callout, Response};
use avnology_gate::telemetry::Decision;
use avnology_gate::time::Timestamp;
use avnology_gate::verdict::{Action, Verdict, undecidable};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

pub(super) struct World {
    workers: [Worker; 2],
    pub(super) store: Rc<Slots>,
    now: Timestamp,
    policies: Vec<Value>,
    streams: u32,
    /// Every token that the provider has called active, and every check that it has granted.
    vouched: BTreeSet<String>,
}

struct Worker {
    engine: Engine,
    roots: BTreeSet<RootId>,
    streams: BTreeMap<StreamId, Stream>,
    flights: BTreeMap<FlightId, (RootId, Callout)>,
    refuses_callouts: bool,
    refuses_edits: bool,
}

struct Stream {
    root: RootId,
    request: Request,
    /// As the host holds it by now.
    head: Headers,
    phase: Phase,
    received: usize,
    has_ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Undecided,
    Forwarded,
    Answered,
}

const ROOTS: [RootId; 2] = [RootId(1), RootId(2)];

impl World {
    pub(super) fn new() -> Self {
        let store = Rc::new(Slots::default());
        let worker = |seed| Worker {
            engine: Engine::narrow(Seed([seed; 16]), store.clone()),
            roots: BTreeSet::new(),
            streams: BTreeMap::new(),
            flights: BTreeMap::new(),
            refuses_callouts: false,
            refuses_edits: false,
        };
        let (workers, policies) = ([worker(1), worker(2)], policies());
        let vouched = BTreeSet::new();
        let mut world = Self { workers, store, now: NOW, policies, streams: 0, vouched };
        for worker in 0..2 {
            world.take_policy(worker, RootId(1), 0);
        }
        world
    }

    // --- what a host does

    pub(super) fn begin(&mut self, worker: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let root = *input.choose(&[ROOTS[0], ROOTS[0], ROOTS[0], ROOTS[1]])?;
        let request = Request::any(input)?;
        let has_ended = input.ratio(1, 2)?;
        self.streams += 1;
        let id = StreamId(self.streams);
        let head = request.head.clone();
        let stream = Stream { root, request, head, phase: Phase::Undecided, received: 0, has_ended };
        let (sent, source) = (stream.request.head.clone(), stream.request.source);
        self.workers[worker].streams.insert(id, stream);
        let read = || source.map(|text| text.as_bytes().to_vec());
        let pairs = sent.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
        let head = RequestHead::new(pairs, has_ended).with_source(&read);
        let step = self.workers[worker].engine.begin(id, root, &head, self.now);
        let mut decided = None;
        if matches!(step, Step::NeedBody) {
            self.drain(worker, Some(id), &mut decided);
            self.measure(worker, id);
        }
        self.finish_with(worker, id, step, decided);
        Ok(())
    }

    pub(super) fn body(&mut self, worker: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let Some(id) = self.some_open_stream(worker, input)? else { return Ok(()) };
        let now = self.now;
        let Worker { engine, streams, .. } = &mut self.workers[worker];
        let Some(stream) = streams.get_mut(&id) else { return Ok(()) };
        let len = stream.request.body.len();
        stream.received += input.int_in_range(0..=len - stream.received)?;
        stream.has_ended = input.ratio(1, 3)?;
        let can_read = input.ratio(30, 31)?;
        let body = stream.request.body.clone();
        let mut fetch = |from: usize, len: usize| {
            body.get(from..from.checked_add(len)?).filter(|_| can_read).map(<[u8]>::to_vec)
        };
        let step = engine.body(id, stream.received, stream.has_ended, &mut fetch, now);
        self.finish(worker, id, step);
        Ok(())
    }

    pub(super) fn trailers(&mut self, worker: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let Some(id) = self.some_open_stream(worker, input)? else { return Ok(()) };
        let names: [&[u8]; 4] =
            [b"x-avnology-user-id", b"X_AVNOLOGY_USER_ID", b"x-other", b"x-avnology-stale"];
        let Worker { engine, streams, .. } = &mut self.workers[worker];
        let Some(stream) = streams.get_mut(&id) else { return Ok(()) };
        stream.has_ended = true;
        let (step, removed) = engine.trailers(id, names, &mut |_, _| None, self.now);
        let is_owned = |name: &[u8]| normalized_eq(name, names[0]) || normalized_eq(name, names[3]);
        let is_public_only = stream.phase == Phase::Forwarded && stream.request.kind == Kind::Public;
        for name in names.into_iter().filter(|name| is_owned(name) && !is_public_only) {
            assert!(removed.iter().any(|other| other == name), "{} stays", name.escape_ascii());
        }
        self.finish(worker, id, step);
        Ok(())
    }

    pub(super) fn land(&mut self, worker: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let ids: Vec<FlightId> = self.workers[worker].flights.keys().copied().collect();
        let Ok(id) = input.choose(&ids) else { return Ok(()) };
        let (_, callout) = self.workers[worker].flights.remove(id).expect("it is under way");
        let answer = Answer::any(&callout, input)?;
        self.landed(worker, *id, &answer);
        Ok(())
    }

    fn landed(&mut self, worker: usize, id: FlightId, answer: &Answer) {
        self.vouched.extend(answer.vouches.clone());
        let response = match &answer.landing {
            Ok((status, retry_after, body)) => {
                Ok(Response { status: *status, retry_after: *retry_after, body: body.as_bytes() })
            }
            Err(failure) => Err(*failure),
        };
        self.workers[worker].engine.landed(id, response, self.now);
        self.drain(worker, None, &mut None);
    }

    /// The host's tick, at the time that it was asked for or later.
    pub(super) fn tick(&mut self, worker: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let root = *input.choose(&ROOTS)?;
        let late = Duration::from_millis(*input.choose(&[0, 0, 1, 400, 5_000])?);
        let due = self.workers[worker].engine.next_deadline(root);
        self.now = self.now.max(due.unwrap_or(self.now)).saturating_add(late);
        if self.workers[worker].roots.contains(&root) {
            self.workers[worker].engine.tick(root, self.now);
            self.drain(worker, None, &mut None);
        }
        Ok(())
    }

    /// The clock is set.
    pub(super) fn jump(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let by = Duration::from_millis(*input.choose(&[1, 250, 2_000, 31_000, 3_600_000])?);
        self.now = match input.ratio(1, 4)? {
            true => self.now.saturating_sub(by),
            false => self.now.saturating_add(by),
        };
        Ok(())
    }

    pub(super) fn gone(&mut self, worker: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let ids: Vec<StreamId> = self.workers[worker].streams.keys().copied().collect();
        let Ok(id) = input.choose(&ids) else { return Ok(()) };
        self.forget(worker, *id);
        Ok(())
    }

    fn forget(&mut self, worker: usize, id: StreamId) {
        self.workers[worker].streams.remove(&id);
        self.workers[worker].engine.gone(id);
        self.drain(worker, None, &mut None);
    }

    pub(super) fn configure(&mut self, worker: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let (root, policy) = (*input.choose(&ROOTS)?, input.int_in_range(0..=self.policies.len() - 1)?);
        self.take_policy(worker, root, policy);
        Ok(())
    }

    fn take_policy(&mut self, worker: usize, root: RootId, policy: usize) {
        let document = self.policies[policy].to_string();
        let loaded =
            config::load(document.as_bytes(), &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        self.workers[worker].roots.insert(root);
        self.workers[worker].engine.configure(root, loaded, self.now);
        self.drain(worker, None, &mut None);
    }

    /// A listener has drained. The host drops the root's callouts with it.
    pub(super) fn root_gone(&mut self, worker: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let root = *input.choose(&ROOTS)?;
        self.end_root(worker, root);
        Ok(())
    }

    fn end_root(&mut self, worker: usize, root: RootId) {
        self.workers[worker].roots.remove(&root);
        self.workers[worker].flights.retain(|_, (of, _)| *of != root);
        self.workers[worker].engine.root_gone(root, self.now);
        self.drain(worker, None, &mut None);
        let mut streams = self.workers[worker].streams.values();
        assert!(
            streams.all(|stream| stream.root != root || stream.phase != Phase::Undecided),
            "a stream waits for a root that is gone"
        );
    }

    pub(super) fn host_fails(&mut self, worker: usize, input: &mut Unstructured<'_>) -> Result<()> {
        self.workers[worker].refuses_callouts = input.ratio(1, 3)?;
        self.workers[worker].refuses_edits = input.ratio(1, 3)?;
        Ok(())
    }

    /// Callbacks about what is not there, and twice.
    pub(super) fn stray(&mut self, worker: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let (now, unknown) = (self.now, StreamId(u32::MAX));
        let engine = &mut self.workers[worker].engine;
        let nothing: std::result::Result<Response<'_>, _> = Err(CallFailure::Reset);
        engine.landed(FlightId(input.int_in_range(0..=1 << 40)?), nothing, now);
        assert!(matches!(engine.body(unknown, 5, true, &mut |_, _| None, now), Step::Wait));
        assert!(matches!(engine.trailers(unknown, [], &mut |_, _| None, now).0, Step::Wait));
        engine.measured(unknown, input.arbitrary()?, now);
        engine.tick(RootId(9), now);
        self.drain(worker, None, &mut None);
        let ids: Vec<StreamId> = self.workers[worker].streams.keys().copied().collect();
        if let Ok(id) = input.choose(&ids) {
            let root = self.workers[worker].streams[id].root;
            let head = RequestHead::new(Vec::new(), false);
            // Its head once more; a stream that ended with its head is not known any more.
            let stream = &self.workers[worker].streams[id];
            if stream.phase == Phase::Undecided || !stream.has_ended {
                let step = self.workers[worker].engine.begin(*id, root, &head, now);
                self.finish(worker, *id, step);
            }
        }
        Ok(())
    }

    // --- what the engine asks for

    fn finish(&mut self, worker: usize, id: StreamId, step: Step) {
        self.finish_with(worker, id, step, None);
    }

    /// Ends a stream's callback as the host's shell does.
    fn finish_with(&mut self, worker: usize, id: StreamId, step: Step, mut decided: Option<Verdict>) {
        match step {
            Step::Continue => {
                assert_eq!(self.phase(worker, id), Some(Phase::Forwarded), "an early byte passes");
            }
            Step::NeedBody => assert_eq!(self.phase(worker, id), Some(Phase::Undecided)),
            Step::Wait => {}
            Step::Decided(verdict) => {
                assert!(decided.is_none(), "decided twice");
                decided = Some(verdict);
            }
        }
        self.drain(worker, Some(id), &mut decided);
        if let Some(verdict) = decided {
            self.conclude(worker, id, &verdict);
        }
    }

    /// Carries out what the engine asks for; what was decided of the callback's own stream is its
    /// return value.
    fn drain(&mut self, worker: usize, own: Option<StreamId>, verdict: &mut Option<Verdict>) {
        while let Some(output) = self.workers[worker].engine.poll() {
            match output {
                Output::Dispatch { flight, root, callout } => {
                    assert!(self.workers[worker].roots.contains(&root), "a callout of a root that is gone");
                    if self.workers[worker].refuses_callouts {
                        let refused = Err(CallFailure::NotStarted);
                        self.workers[worker].engine.landed(flight, refused, self.now);
                    } else {
                        let before = self.workers[worker].flights.insert(flight, (root, callout));
                        assert!(before.is_none(), "{flight:?} is under way twice");
                    }
                }
                Output::Decide { stream, verdict: decided } if own == Some(stream) => {
                    let is_first = verdict.is_none() || self.workers[worker].refuses_edits;
                    assert!(is_first, "decided twice");
                    verdict.get_or_insert(decided);
                }
                Output::Decide { stream, verdict } => self.conclude(worker, stream, &verdict),
                Output::Edit { stream, edits } => {
                    assert_eq!(own, Some(stream), "an edit of a stream whose callback is over");
                    if self.workers[worker].refuses_edits {
                        self.workers[worker].engine.gone(stream);
                        // The engine knows it no more, and is told nothing more of it.
                        let stream =
                            self.workers[worker].streams.get_mut(&stream).expect("its callback runs");
                        stream.has_ended = true;
                        *verdict = Some(undecidable());
                        continue;
                    }
                    let stream = self.workers[worker].streams.get_mut(&stream).expect("its callback runs");
                    apply(&edits, &mut stream.head);
                }
                Output::Measure { stream } => self.measure(worker, stream),
                Output::Metric { series, .. } => {
                    let name = self.workers[worker].engine.metric_name(series);
                    assert!(!name.contains("tok_"), "{name}");
                }
                Output::Log { message, .. } => assert!(!message.contains("tok_"), "{message}"),
            }
        }
    }

    fn measure(&mut self, worker: usize, id: StreamId) {
        let Some(stream) = self.workers[worker].streams.get(&id) else { return };
        let head: usize = stream.request.head.iter().map(|(name, value)| name.len() + value.len()).sum();
        let size = (head + stream.received) as u64;
        self.workers[worker].engine.measured(id, size, self.now);
    }

    /// A verdict is carried out.
    fn conclude(&mut self, worker: usize, id: StreamId, verdict: &Verdict) {
        let stream = self.workers[worker].streams.get_mut(&id).expect("nobody else is decided");
        assert_eq!(stream.phase, Phase::Undecided, "decided twice");
        let event = verdict.event();
        let told = format!("{} {:?} {:?}", event.log_line(), event.filter_state(), verdict.action());
        match verdict.action() {
            Action::Forward(edits) => {
                stream.phase = Phase::Forwarded;
                apply(edits, &mut stream.head);
                let (reason, decision) = (event.reason().id(), event.decision());
                is_vouched(stream, reason, decision, &self.vouched);
            }
            Action::Respond { .. } => {
                stream.phase = Phase::Answered;
                assert!(event.decision() == Decision::Deny, "{event:?}");
                check_answer(verdict, &stream.request.head);
                assert!(!told.contains("tok_"), "{told}");
            }
        }
    }

    fn phase(&self, worker: usize, id: StreamId) -> Option<Phase> {
        self.workers[worker].streams.get(&id).map(|stream| stream.phase)
    }

    fn some_open_stream(&self, worker: usize, input: &mut Unstructured<'_>) -> Result<Option<StreamId>> {
        let streams = self.workers[worker].streams.iter();
        let ids: Vec<StreamId> = streams.filter(|(_, stream)| !stream.has_ended).map(|(id, _)| *id).collect();
        if ids.is_empty() { Ok(None) } else { input.choose(&ids).copied().map(Some) }
    }

    // --- what must hold

    /// After every callback.
    pub(super) fn check(&self) {
        for worker in &self.workers {
            let undecided = worker.streams.values().filter(|stream| stream.phase == Phase::Undecided).count();
            assert_eq!(worker.engine.waiting(), undecided, "streams that wait");
        }
    }

    /// The host stops answering, or answers everything; in the end nothing is left.
    pub(super) fn end(&mut self, input: &mut Unstructured<'_>) {
        let answers = input.arbitrary().unwrap_or(true);
        for worker in 0..2 {
            self.let_time_pass(worker);
            let ids: Vec<StreamId> = self.workers[worker].streams.keys().copied().collect();
            for id in ids {
                self.forget(worker, id);
            }
            self.workers[worker].refuses_callouts = false;
            while let Some((id, (_, callout))) = self.workers[worker].flights.pop_first() {
                let failed = Answer { landing: Err(CallFailure::Unreachable), vouches: None };
                let answer = if answers { Answer::any(&callout, input).unwrap_or(failed) } else { failed };
                // Probes of an endpoint that is away would go on for ever.
                if !id.is_probe() {
                    self.landed(worker, id, &answer);
                }
            }
            assert_eq!(self.workers[worker].engine.leftovers(), [""; 0], "left when all has ended");
            for root in ROOTS {
                self.end_root(worker, root);
            }
            let engine = &mut self.workers[worker].engine;
            assert_eq!(engine.remains(), [""; 0], "left when no root is");
            assert!(engine.poll().is_none());
        }
    }

    /// Nobody waits longer than ten minutes, whatever the provider says or does not say.
    fn let_time_pass(&mut self, worker: usize) {
        // The host's ticks come by a clock that is never set: the engine hears of a jump by then.
        for root in ROOTS {
            self.workers[worker].engine.tick(root, self.now);
            self.drain(worker, None, &mut None);
        }
        let limit = self.now.saturating_add(Duration::from_secs(600));
        let mut idle = 0;
        while self.workers[worker].engine.waiting() > 0 {
            let engine = &self.workers[worker].engine;
            let next = ROOTS.iter().filter_map(|root| Some((engine.next_deadline(*root)?, *root))).min();
            let (due, root) = next.expect("what waits has a deadline");
            idle = if due <= self.now { idle + 1 } else { 0 };
            assert!(idle < 1000, "a tick does not move its deadline");
            self.now = self.now.max(due);
            let waiting = self.workers[worker].streams.values();
            let mut waiting = waiting.filter(|stream| stream.phase == Phase::Undecided);
            let kind = waiting.next().map(|stream| (stream.root, stream.request.kind));
            assert!(self.now <= limit, "{kind:?} waits for ever, until {due:?}, since {limit:?}");
            self.workers[worker].engine.tick(root, self.now);
            self.drain(worker, None, &mut None);
        }
        self.check();
    }
}

/// Who passes was vouched for, and the service reads of him what the gate has verified.
fn is_vouched(stream: &Stream, reason: &str, decision: Decision, vouched: &BTreeSet<String>) {
    let Request { kind, token, is_signed, .. } = &stream.request;
    assert_ne!(decision, Decision::Deny, "{reason} passes");
    let token = token.map(|nth| format!("tok_{nth}"));
    let is_active = token.as_ref().is_some_and(|token| vouched.contains(token));
    let subject = token.as_ref().map(|token| token.replace("tok_", "sub_"));
    for (name, value) in &stream.head {
        let is_owned = name.to_ascii_lowercase().starts_with(b"x-avnology");
        assert!(value != EVIL, "{} says what the client said", name.escape_ascii());
        if is_owned && normalized_eq(name, b"x-avnology-user-id") {
            assert!(is_active, "an identity that nobody has vouched for");
            assert_eq!(Some(value.as_slice()), subject.as_deref().map(str::as_bytes), "somebody else's");
        }
    }
    if decision != Decision::Allow {
        return;
    }
    if reason.starts_with("authenticated") {
        assert!(is_active, "{reason} without an answer");
        let (subject, holds) = (subject.unwrap_or_default(), |relation: &str, object: u8| {
            let subject = token.clone().unwrap_or_default().replace("tok_", "identities:sub_");
            vouched.contains(&format!("{subject} {relation} {object}"))
        });
        match kind {
            Kind::Check(object) => {
                assert!(holds("r", *object) && holds("s", *object), "{subject} may not: {vouched:?}");
            }
            Kind::Open(object) => {
                assert!(holds("r", *object) || holds("s", *object), "{subject} may not: {vouched:?}");
            }
            _ => {}
        }
    }
    match kind {
        Kind::Hook => {
            let is_whole = stream.received == stream.request.body.len() && stream.has_ended;
            assert!(*is_signed, "a delivery that is not signed: {:?}", stream.request);
            assert!(is_whole, "{} bytes of {:?}", stream.received, stream.request);
        }
        Kind::Token | Kind::Check(_) | Kind::Open(_) => {
            assert!(reason.starts_with("authenticated"), "{reason}")
        }
        Kind::Optional | Kind::Public | Kind::Preflight => {}
    }
}
