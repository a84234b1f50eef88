//! Runs a case against the core alone, in virtual time.
//!
//! Simulates the host: workers, streams, root contexts, callouts with their delays and failures,
//! ticks, bodies in pieces. What Envoy does before its filters (refusing, normalising, stripping)
//! is not simulated, except for the few things that change what the filter receives: repeated
//! `authorization` and `host` lines are joined, HTTP/2 cookie crumbs too, and `connection` is
//! dropped if there is no upgrade.
//!
//! Besides what the case expects, every step is checked for what no case needs to state: one
//! decision per stream, no byte upstream before it, no callout to a foreign cluster or with a line
//! break in a header, no secret in a log line, no deadline that a tick does not move.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use avnology_gate::config::{self, Loaded};
use avnology_gate::flow::{Engine, FlightId, RootId, Seed, SharedStore, StreamId};
use avnology_gate::time::Timestamp;
use serde_json::Value;
use standin::Provider;

use crate::corpus::{Case, Document, Expect, Observation, Outgoing, Step, Version};

mod callouts;
mod host;
mod streams;

use host::{Landing, Piece, UNREACHABLE, synthetic};

/// Runs a case as HTTP/1 and as HTTP/2.
///
/// # Errors
/// Everything that differs from what the case expects, a line each.
pub fn run(case: &Case) -> Result<(), String> {
    let mut problems = Vec::new();
    for version in [Version::H1, Version::H2] {
        let mut world = World::new(case, version);
        if let Err(problem) = world.run() {
            world.problems.push(problem);
        }
        problems.extend(world.problems.into_iter().map(|problem| format!("{version:?}: {problem}")));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// When every case begins.
const START: Timestamp = Timestamp::from_secs(1_790_000_000);
/// The time between two pieces of a body.
const PIECE: Duration = Duration::from_millis(1);
/// The time between two requests of a step that is repeated.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest time that any decision may take; a request that takes longer hangs.
const HANGS: Duration = Duration::from_secs(120);

/// The host and everything around it.
struct World<'c> {
    case: &'c Case,
    version: Version,
    now: Timestamp,
    workers: Vec<Worker>,
    slots: Rc<Slots>,
    provider: Provider,
    provider_down: bool,
    lose_callouts: bool,
    /// Whether a callout went to a cluster that has no host.
    refuses_callouts: bool,
    /// Whether some webhook ends what is known.
    evicts: bool,
    queue: BTreeMap<(Timestamp, u64), HostEvent>,
    host_events: u64,
    in_force: Option<Value>,
    secrets: BTreeSet<Vec<u8>>,
    problems: Vec<String>,
    label: String,
}

struct Worker {
    engine: Engine,
    /// The root that new streams belong to.
    root: RootId,
    roots: BTreeMap<RootId, Root>,
    streams: BTreeMap<StreamId, Stream>,
    /// Callouts in flight, with the root that they belong to.
    flights: BTreeMap<FlightId, RootId>,
    next_stream: u32,
    /// Streams that were let through, and whose bodies are still to follow.
    opened: Vec<StreamId>,
}

struct Root {
    cluster: Option<String>,
    retired: bool,
}

/// One request, as the host stores it.
struct Stream {
    root: RootId,
    sent: Outgoing,
    head: Vec<(Vec<u8>, Vec<u8>)>,
    head_size: u64,
    /// The body and the trailers, as they arrive.
    pieces: Vec<Piece>,
    /// How many of them the host has.
    arrived: usize,
    /// How many of them the gate has received.
    handed: usize,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
    state: State,
    eager: bool,
    began: Timestamp,
    seen: Option<Observation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Status 4: no callback until the decision.
    Waiting,
    /// Status 1: the headers are held, body callbacks come.
    Receiving,
    /// Let through.
    Open,
    /// Answered by the gate.
    Answered,
    /// The client went away.
    Gone,
}

enum HostEvent {
    Piece { worker: usize, stream: StreamId },
    Gone { worker: usize, stream: StreamId },
    Nothing,
    Landed { worker: usize, flight: FlightId, landing: Landing },
}

/// Shared data: one table for all workers.
#[derive(Default)]
struct Slots(RefCell<BTreeMap<String, (Vec<u8>, u32)>>);

impl SharedStore for Slots {
    fn get(&self, slot: &str) -> Option<(Vec<u8>, u32)> {
        self.0.borrow().get(slot).cloned()
    }

    fn compare_and_set(&self, slot: &str, value: &[u8], cas: Option<u32>) -> bool {
        let mut slots = self.0.borrow_mut();
        let current = slots.get(slot).map(|(_, cas)| *cas);
        if current != cas {
            return false;
        }
        slots.insert(slot.to_owned(), (value.to_vec(), current.unwrap_or(0) + 1));
        true
    }
}

/// A step whose requests are still in progress.
struct StepInFlight<'c> {
    step: &'c Step,
    label: String,
    expect: &'c Expect,
    streams: Vec<StreamId>,
    worker: usize,
    calls_before: usize,
}

impl<'c> World<'c> {
    fn new(case: &'c Case, version: Version) -> Self {
        let secrets = case.environment().into_values().map(String::into_bytes).collect();
        Self {
            case,
            version,
            now: START,
            workers: Vec::new(),
            slots: Rc::default(),
            provider: Provider::default(),
            provider_down: false,
            lose_callouts: false,
            refuses_callouts: false,
            evicts: false,
            queue: BTreeMap::new(),
            host_events: 0,
            in_force: None,
            secrets,
            problems: Vec::new(),
            label: String::new(),
        }
    }

    fn run(&mut self) -> Result<(), String> {
        self.provider = Provider::new(self.case.seeded()?);
        for nth in 0..self.case.workers().unwrap_or(1) {
            self.workers.push(Worker {
                engine: Engine::new(Seed([u8::try_from(nth).unwrap_or(u8::MAX); 16]), self.slots.clone()),
                root: RootId(0),
                roots: BTreeMap::new(),
                streams: BTreeMap::new(),
                flights: BTreeMap::new(),
                next_stream: 100,
                opened: Vec::new(),
            });
        }
        let document = self.case.document()?;
        if !self.configure(document, &self.case.refused, &self.case.warns) {
            return Ok(());
        }
        let mut background: Vec<StepInFlight<'c>> = Vec::new();
        for step in &self.case.steps {
            if step
                .request
                .as_ref()
                .and_then(|request| request.version)
                .is_some_and(|version| version != self.version)
            {
                continue;
            }
            step.label().clone_into(&mut self.label);
            self.prepare(step);
            if let Some(config) = &step.configure {
                let document = self.case.resolve(config, self.in_force.as_ref())?;
                self.configure(document, &step.refused, &[]);
            } else if let Some(wait) = step.wait {
                let until = self.now.saturating_add(wait);
                self.schedule(wait, HostEvent::Nothing);
                self.run_on(move |world| world.now >= until)?;
            } else if step.join {
                self.join(&mut background, step.expect.as_ref())?;
            } else if let (Some(_), Some(expect)) = (&step.request, &step.expect) {
                if let Some(patience) = step.eventually {
                    self.repeat(step, expect, patience)?;
                    continue;
                }
                let step_in_flight = self.begin_step(step, expect);
                if step.background {
                    self.until_asked(&step_in_flight)?;
                    background.push(step_in_flight);
                } else {
                    self.finish(step_in_flight, false)?;
                }
            }
            self.now = self.now.saturating_add(PIECE);
        }
        self.join(&mut background, None)?;
        self.settle()
    }

    /// What a step changes about the provider.
    fn prepare(&mut self, step: &Step) {
        if step.provider_clear {
            self.provider.clear();
        }
        self.provider.script(step.provider.clone());
        self.lose_callouts = step.lose_callouts;
        let Some(down) = step.provider_down else { return };
        self.provider_down = down;
        if down {
            // Connections with a call in progress break.
            for (_, event) in self.queue.iter_mut() {
                if let HostEvent::Landed { landing, .. } = event {
                    *landing = synthetic(503, UNREACHABLE);
                }
            }
        }
    }

    /// Gives every worker a document; returns whether it was accepted.
    fn configure(&mut self, document: Document, refused: &[String], warns: &[String]) -> bool {
        let environment = self.case.environment();
        let env = |name: &str| environment.get(name).cloned();
        let first = match config::load(&document.bytes, &env) {
            Ok(loaded) => loaded,
            Err(problems) => {
                let text = problems.to_string();
                if refused.is_empty() {
                    self.problem(format!("the configuration is refused: {text}"));
                }
                for expected in refused.iter().filter(|expected| !text.contains(*expected)) {
                    self.problem(format!("the problems do not name {expected:?}: {text}"));
                }
                self.no_secret("the problems", &text);
                return false;
            }
        };
        if !refused.is_empty() {
            self.problem(format!("the configuration is taken, expected a refusal that names {refused:?}"));
            return false;
        }
        let warnings = first.warnings.join("\n");
        for expected in warns.iter().filter(|expected| !warnings.contains(*expected)) {
            self.problem(format!("the warnings do not name {expected:?}: {warnings:?}"));
        }
        self.no_secret("the warnings", &warnings);
        let hooks = document.value.as_ref().and_then(|value| value.pointer("/webhooks")?.as_object());
        let evicts = |hook: &Value| hook.get("evict").is_some_and(|evict| *evict != Value::Bool(false));
        self.evicts |= hooks.is_some_and(|hooks| hooks.values().any(evicts));
        let pointer = document.value.as_ref().and_then(|value| value.pointer("/provider/cluster"));
        let cluster = pointer.and_then(Value::as_str).map(str::to_owned);
        let mut first = Some(first);
        for nth in 0..self.workers.len() {
            let Some(loaded) = first.take().or_else(|| reload(&document, &env)) else {
                self.problem("the same document loads once and not twice");
                return false;
            };
            let worker = &mut self.workers[nth];
            let old = worker.root;
            worker.root = RootId(old.0 + 1);
            if let Some(root) = worker.roots.get_mut(&old) {
                root.retired = true;
            }
            worker.roots.insert(worker.root, Root { cluster: cluster.clone(), retired: false });
            worker.engine.configure(worker.root, loaded, self.now);
            self.drain(nth, None);
            self.retire(nth);
        }
        self.in_force = document.value;
        true
    }

    /// Sends a request again until its answer is as expected.
    fn repeat(&mut self, step: &'c Step, expect: &'c Expect, patience: Duration) -> Result<(), String> {
        let end = self.now.saturating_add(patience);
        loop {
            let before = self.problems.len();
            let step_in_flight = self.begin_step(step, expect);
            self.finish(step_in_flight, false)?;
            if self.problems.len() == before || self.now >= end {
                return Ok(());
            }
            self.problems.truncate(before);
            let next = self.now.saturating_add(PAUSE);
            self.schedule(PAUSE, HostEvent::Nothing);
            self.run_on(move |world| world.now >= next)?;
        }
    }

    fn begin_step(&mut self, step: &'c Step, expect: &'c Expect) -> StepInFlight<'c> {
        let worker = step.worker.unwrap_or(0);
        let calls_before = self.provider.calls().len();
        let mut streams = Vec::new();
        for _ in 0..step.parallel.unwrap_or(1) {
            let Some(sent) = step.outgoing(self.now.as_secs(), START.as_secs()) else { continue };
            streams.push(self.begin(worker, sent, step.eager));
        }
        let gone = if step.disconnect_all { streams.len() } else { usize::from(step.disconnect_first) };
        for stream in streams.iter().take(gone) {
            self.schedule(PIECE, HostEvent::Gone { worker, stream: *stream });
        }
        StepInFlight { step, label: self.label.clone(), expect, streams, worker, calls_before }
    }

    /// Continues until the provider has been asked on behalf of the step, the step's requests are
    /// decided, or all that they will ever send has arrived.
    fn until_asked(&mut self, step_in_flight: &StepInFlight<'c>) -> Result<(), String> {
        let (worker, streams, before) =
            (step_in_flight.worker, step_in_flight.streams.clone(), step_in_flight.calls_before);
        self.run_on(move |world| {
            let has_sent = |id: &StreamId| {
                world.workers[worker]
                    .streams
                    .get(id)
                    .is_some_and(|s| s.sent.incomplete && s.arrived == s.pieces.len())
            };
            world.provider.calls().len() > before
                || streams.iter().all(|stream| world.is_over(worker, *stream) || has_sent(stream))
        })
    }

    fn join(
        &mut self,
        background: &mut Vec<StepInFlight<'c>>,
        expect: Option<&Expect>,
    ) -> Result<(), String> {
        let before = background.iter().map(|step_in_flight| step_in_flight.calls_before).min();
        for step_in_flight in background.drain(..) {
            self.finish(step_in_flight, true)?;
        }
        if let (Some(before), Some(expect)) = (before, expect) {
            let calls = self.provider.calls().get(before..).unwrap_or_default();
            for problem in expect.check_calls(calls) {
                self.problem(problem);
            }
        }
        Ok(())
    }

    fn finish(&mut self, step_in_flight: StepInFlight<'c>, in_background: bool) -> Result<(), String> {
        let StepInFlight { step, label, expect, streams, worker, calls_before } = step_in_flight;
        let waited = streams.clone();
        self.label = label;
        self.run_on(move |world| waited.iter().all(|stream| world.is_over(worker, *stream)))?;
        if step.disconnect_all {
            // No client waits any more, but the calls must still be counted.
            self.run_on(move |world| world.workers[worker].flights.is_empty())?;
        }
        let calls = self.provider.calls().get(calls_before..).unwrap_or_default().to_vec();
        let gone = if step.disconnect_all { streams.len() } else { usize::from(step.disconnect_first) };
        for (nth, id) in streams.iter().enumerate() {
            let Some(mut stream) = self.workers[worker].streams.remove(id) else { continue };
            let Some(seen) = stream.seen.take() else {
                if nth >= gone {
                    self.problem("the client went away before a decision");
                }
                continue;
            };
            if nth < gone {
                self.problem("the client that goes away was decided before it could");
                continue;
            }
            let seen = Observation { calls: (!in_background).then(|| calls.clone()), ..seen };
            for problem in expect.check(&stream.sent, &seen) {
                let nth = if streams.len() > 1 { format!("request {nth}: ") } else { String::new() };
                self.problem(format!("{nth}{problem}"));
            }
        }
        if step.disconnect_all {
            for problem in expect.check_calls(&calls) {
                self.problem(problem);
            }
        }
        self.retire(worker);
        Ok(())
    }

    /// Lets everything in progress end: nothing may be left that ticks for ever.
    fn settle(&mut self) -> Result<(), String> {
        "after the last step".clone_into(&mut self.label);
        self.lose_callouts = false;
        // A provider that is away is probed until it is back.
        self.provider_down = false;
        self.provider.clear();
        // An endpoint without a host is probed for ever, and a worker looks for ever whether an event
        // has ended what it knows.
        let may_tick_for_ever = |world: &Self| {
            (world.refuses_callouts || world.evicts)
                && world.workers.iter().all(|worker| worker.engine.waiting() == 0)
        };
        self.run_on(|world| {
            world.queue.is_empty() && (world.next_tick().is_none() || may_tick_for_ever(world))
        })
    }

    // --- time

    /// Runs until `done`, from one event or deadline to the next.
    fn run_on(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        let limit = self.now.saturating_add(HANGS.max(self.longest_wait()));
        let mut idle_ticks = 0;
        while !done(self) {
            let event = self.queue.first_key_value().map(|(key, _)| *key);
            let tick = self.next_tick();
            let Some(next) = event.map(|(at, _)| at).into_iter().chain(tick.map(|(at, ..)| at)).min() else {
                return Err(format!("{}: hangs: nothing will ever happen", self.label));
            };
            if next > limit {
                return Err(format!("{}: hangs: no end within {HANGS:?}", self.label));
            }
            self.now = self.now.max(next);
            match (event, tick) {
                (Some(key), tick) if tick.is_none_or(|(at, ..)| key.0 <= at) => {
                    idle_ticks = 0;
                    if let Some(event) = self.queue.remove(&key) {
                        self.handle(event);
                    }
                }
                (_, Some((at, worker, root))) => {
                    self.workers[worker].engine.tick(root, self.now);
                    self.drain(worker, None);
                    idle_ticks = if self.next_tick().is_some_and(|(next, ..)| next <= at) {
                        idle_ticks + 1
                    } else {
                        0
                    };
                    if idle_ticks > 50 {
                        return Err(format!("{}: a tick does not move its deadline", self.label));
                    }
                }
                (_, None) => {}
            }
        }
        Ok(())
    }

    /// The next tick of any root; Envoy's ticks have whole milliseconds, and the shell rounds up.
    fn next_tick(&self) -> Option<(Timestamp, usize, RootId)> {
        let all = self.workers.iter().enumerate();
        let deadlines = all.flat_map(|(nth, worker)| {
            worker
                .roots
                .keys()
                .filter_map(move |root| Some((worker.engine.next_deadline(*root)?, nth, *root)))
        });
        let round = |at: Timestamp| Timestamp::from_nanos(at.as_nanos().div_ceil(1_000_000) * 1_000_000);
        deadlines.map(|(at, nth, root)| (round(at).max(self.now), nth, root)).min()
    }

    fn longest_wait(&self) -> Duration {
        self.case.steps.iter().filter_map(|step| step.wait).max().unwrap_or_default()
    }

    fn schedule(&mut self, after: Duration, event: HostEvent) {
        self.host_events += 1;
        self.queue.insert((self.now.saturating_add(after), self.host_events), event);
    }

    fn handle(&mut self, event: HostEvent) {
        match event {
            HostEvent::Piece { worker, stream } => self.arrive(worker, stream),
            HostEvent::Gone { worker, stream } => self.disconnect(worker, stream),
            HostEvent::Landed { worker, flight, landing } => self.land(worker, flight, &landing),
            HostEvent::Nothing => {}
        }
    }

    // --- problems

    fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(format!("{}: {}", self.label, problem.into()));
    }

    fn no_secret(&mut self, place: &str, text: &str) {
        let told = self
            .secrets
            .iter()
            .find(|secret| text.as_bytes().windows(secret.len().max(1)).any(|w| w == **secret));
        if let Some(secret) = told {
            let secret = String::from_utf8_lossy(secret).into_owned();
            self.problem(format!("{place} tell the secret {secret:?}: {text}"));
        }
    }
}

fn reload(document: &Document, env: &dyn Fn(&str) -> Option<String>) -> Option<Loaded> {
    config::load(&document.bytes, env).ok()
}
