//! The shell for Envoy: callbacks become calls of the [`Engine`], and what it asks for becomes host calls.
//!
//! Nothing is decided here. What is kept is what only a host has: context ids, callout tokens, armed ticks, metric ids. Where this shell
//! cannot do as it was told, the request is refused.

mod abi;
mod host;

use crate::config;
use crate::envoy::{header_map, response};
use crate::flow::{Engine, FlightId, Level, Output, RootId, Step, StreamId};
use crate::hash::TrustedKeyHasher;
use crate::http::{CallFailure, Callout, MAX_REPLY_BYTES};
use crate::refusal::Reason;
use crate::telemetry::{Decision, Event};
use crate::time::Timestamp;
use crate::verdict::{Action, Verdict, undecidable};
use host::{BufferType, MapType, Refused};
use proxy_wasm::types::Action as Answer;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

thread_local! {
    /// One worker's state: a virtual machine has one thread. Nothing that runs while it is borrowed makes a callback; if one came all the
    /// same, it would find no worker, and refuse.
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// Everything that outlives a callback.
struct Worker {
    engine: Engine,
    /// The root of each context; a root's is itself. Several roots are alive where an update replaces a configuration or two plugins share a
    /// virtual machine, and a stream stays with the one it was created under.
    contexts: HashMap<u32, RootId, TrustedKeyHasher>,
    /// Callouts under way. The host drops a root's with the root.
    flights: HashMap<(RootId, u32), FlightId, TrustedKeyHasher>,
    /// When each root's tick is due, where one is armed.
    ticks: BTreeMap<RootId, Option<Timestamp>>,
    /// See [`Callback::decide`].
    deferred: Vec<(StreamId, Verdict)>,
    counters: HashMap<(Decision, Reason), Option<u32>, TrustedKeyHasher>,
    /// Whether the host writes lines at debug, and when it was asked.
    debug: (bool, Option<Timestamp>),
}

/// What a stream's callback answers: the host's own numbers for the header callback. The SDK's
/// type has two of the three. `COLLECT` holds the head alone, so that body callbacks come. `HOLD`
/// stops everything, with back-pressure, also on a host that does not let a filter stop the head
/// alone.
const CONTINUE: u32 = Answer::Continue as u32;
const COLLECT: u32 = Answer::Pause as u32;
const HOLD: u32 = 4;

fn on_context_create(context: u32, parent: u32) {
    with_worker(|worker| {
        let root = RootId(if parent == 0 { context } else { parent });
        worker.contexts.insert(context, root);
        worker.ticks.entry(root).or_default();
    });
}

fn on_configure(root: u32, size: usize) -> bool {
    let configured = callback(root, None, |callback| {
        let Some(document) = host::bytes(BufferType::PluginConfiguration, 0, size) else {
            host::log(Level::Warn, "avnology_gate: the host does not hand over the configuration");
            return false;
        };
        match config::load(&document, &|name| std::env::var(name).ok()) {
            Ok(loaded) => {
                callback.worker.engine.configure(RootId(root), loaded);
                true
            }
            Err(problems) => {
                problems.lines().iter().for_each(|line| host::log(Level::Warn, line));
                false
            }
        }
    });
    configured == Some(true)
}

fn on_tick(root: u32) {
    callback(root, None, |callback| {
        let now = callback.now();
        callback.worker.engine.tick(RootId(root), now);
        for (stream, verdict) in std::mem::take(&mut callback.worker.deferred) {
            callback.decide(stream, verdict);
        }
        // Left alone, the host would go on ticking at the period that has just passed.
        if callback.set_effective_root(RootId(root)).and_then(|()| host::set_tick(0)).is_ok() {
            callback.worker.ticks.insert(RootId(root), None);
        }
    });
}

fn on_headers(context: u32, end_of_stream: bool) -> u32 {
    stream_callback(context, |callback, stream, root| {
        // What cannot be read cannot be cleaned either. An empty map is one that the host does not show.
        let head = host::map(MapType::HttpRequestHeaders).filter(|head| !head.is_empty());
        let Some(head) = head else { return callback.reject_unreadable(stream) };
        let now = callback.now();
        let step =
            callback.worker.engine.begin(stream, root, &header_map::request_head(&head, end_of_stream), now);
        if matches!(step, Step::NeedBody) {
            callback.measure(stream);
        }
        callback.finish(stream, step)
    })
}

/// Answers 1 for anything but "go on": a stream that is held should not get here, and if it does, it is held on.
fn on_body(context: u32, received: usize, end_of_stream: bool) -> u32 {
    let answer = stream_callback(context, |callback, stream, _| {
        let now = callback.now();
        let mut fetch = |from, len| host::bytes(BufferType::HttpRequestBody, from, len);
        let step = callback.worker.engine.body(stream, received, end_of_stream, &mut fetch, now);
        callback.finish(stream, step)
    });
    u32::from(answer != CONTINUE)
}

/// Answers as [`on_body`]. A request with trailers ends here, and not with a last body callback.
fn on_trailers(context: u32) -> u32 {
    let answer = stream_callback(context, |callback, stream, _| {
        let Some(trailers) = host::map(MapType::HttpRequestTrailers) else {
            return callback.reject_unreadable(stream);
        };
        let Ok(trailers) = header_map::parse(&trailers) else { return callback.reject_unreadable(stream) };
        let now = callback.now();
        let names = trailers.into_iter().map(|(name, _)| name);
        let (step, owned) = callback.worker.engine.trailers(stream, names, now);
        if host::remove_trailers(&owned).is_err() {
            return callback.reject_unreadable(stream);
        }
        callback.finish(stream, step)
    });
    u32::from(answer != CONTINUE)
}

fn on_reply(root: u32, token: u32, headers: u32, size: usize) {
    callback(root, None, |callback| {
        let Some(flight) = callback.worker.flights.remove(&(RootId(root), token)) else { return };
        let (head, body);
        let answer = if headers == 0 {
            // The connection broke after the answer had begun: there is no map, and to ask for it is an error.
            Err(CallFailure::Reset)
        } else if size > MAX_REPLY_BYTES {
            Err(CallFailure::TooLarge)
        } else {
            (head, body) = (
                host::map(MapType::HttpCallResponseHeaders),
                host::bytes(BufferType::HttpCallResponseBody, 0, size),
            );
            match (&head, &body) {
                (Some(headers), Some(body)) => response::read(headers, body),
                // A limit of our own: unlike a broken connection it must open nothing.
                _ => Err(CallFailure::TooLarge),
            }
        };
        let now = callback.now();
        callback.worker.engine.landed(flight, answer, now);
    });
}

fn on_delete(context: u32) {
    callback(context, None, |callback| match callback.worker.contexts.remove(&context) {
        Some(root) if root.0 == context => {
            callback.worker.flights.retain(|(owner, _), _| *owner != root);
            callback.worker.ticks.remove(&root);
            let now = callback.now();
            callback.worker.engine.root_gone(root, now);
        }
        Some(_) => callback.worker.engine.gone(StreamId(context)),
        None => {}
    });
}

/// One callback: the worker, and what holds until the callback returns.
struct Callback<'w> {
    worker: &'w mut Worker,
    /// The context whose callback it is.
    own: u32,
    /// The context that host calls act on.
    effective: u32,
    /// The stream whose callback it is, and what was decided about it.
    stream: Option<StreamId>,
    verdict: Option<Verdict>,
    now: Option<Timestamp>,
    /// How many other streams it has let go.
    decided: usize,
}

/// Streams that one callback lets go. The host acts on them after the callback, and where it answers (because we refuse, or because there is no
/// service to go to), each answer comes from within the deletion of the stream before it: some three hundred in a row exhaust the stack.
/// The next tick has the rest.
const MAX_DECIDED: usize = 64;

/// Runs a callback; `None` where there is no worker to run it on.
fn callback<T>(own: u32, stream: Option<StreamId>, act: impl FnOnce(&mut Callback<'_>) -> T) -> Option<T> {
    with_worker(|worker| {
        let mut callback =
            Callback { worker, own, effective: own, stream, verdict: None, now: None, decided: 0 };
        let result = act(&mut callback);
        callback.drain();
        callback.arm();
        // Nothing is called after this one.
        let _ = callback.set_effective_context(own);
        result
    })
}

/// Runs a stream's callback, and refuses a stream that nobody can decide.
fn stream_callback(context: u32, act: impl FnOnce(&mut Callback<'_>, StreamId, RootId) -> u32) -> u32 {
    let stream = StreamId(context);
    let act = |callback: &mut Callback<'_>| callback.root_of(context).map(|root| act(callback, stream, root));
    callback(context, Some(stream), act).flatten().unwrap_or_else(|| {
        respond(undecidable().action());
        HOLD
    })
}

fn with_worker<T>(act: impl FnOnce(&mut Worker) -> T) -> Option<T> {
    let result = WORKER.try_with(|cell| {
        let mut worker = cell.try_borrow_mut().ok()?;
        if worker.is_none() {
            // Without randomness there is no worker: keys that can be guessed protect nothing.
            let engine = Engine::new(host::seed()?, Rc::new(host::Slots));
            let (contexts, flights, ticks, counters) = Default::default();
            let (deferred, debug) = Default::default();
            *worker = Some(Worker { engine, contexts, flights, ticks, deferred, counters, debug });
        }
        worker.as_mut().map(act)
    });
    result.ok().flatten()
}

impl Callback<'_> {
    /// The time, read once per callback and only where it is needed.
    fn now(&mut self) -> Timestamp {
        *self.now.get_or_insert_with(host::now)
    }

    fn root_of(&self, context: u32) -> Option<RootId> {
        self.worker.contexts.get(&context).copied()
    }

    /// Makes host calls act on `context`. INVARIANT(effective): where this fails, no call may follow that is meant for `context`.
    fn set_effective_context(&mut self, context: u32) -> Result<(), Refused> {
        if self.effective != context {
            host::set_effective_context(context)?;
            self.effective = context;
        }
        Ok(())
    }

    /// Makes calls that act on a root act on this one; any stream of it will do.
    fn set_effective_root(&mut self, root: RootId) -> Result<(), Refused> {
        if self.root_of(self.effective) == Some(root) { Ok(()) } else { self.set_effective_context(root.0) }
    }

    /// Ends a stream's callback: what was decided about the stream is the return value, and never a resume.
    fn finish(&mut self, stream: StreamId, step: Step) -> u32 {
        let undecided = match step {
            Step::Continue => CONTINUE,
            Step::NeedBody => COLLECT,
            Step::Wait => HOLD,
            Step::Decided(verdict) => {
                self.verdict = Some(verdict);
                HOLD
            }
        };
        self.drain();
        match self.verdict.take() {
            None => undecided,
            Some(verdict)
                if self.set_effective_context(self.own).is_ok() && self.carry_out(stream, &verdict) =>
            {
                CONTINUE
            }
            Some(_) => HOLD,
        }
    }

    /// Does all that the engine asks for.
    fn drain(&mut self) {
        while let Some(output) = self.worker.engine.poll() {
            match output {
                Output::Dispatch { flight, root, callout } => self.dispatch(flight, root, &callout),
                Output::Decide { stream, verdict } => self.decide(stream, verdict),
                Output::Measure { stream } => self.measure(stream),
                Output::Log { level, message } => host::log(level, &message),
            }
        }
    }

    fn dispatch(&mut self, flight: FlightId, root: RootId, callout: &Callout) {
        if let Ok(token) = self.set_effective_root(root).and_then(|()| host::dispatch(callout)) {
            self.worker.flights.insert((root, token), flight);
        } else {
            // No answer will ever come.
            let now = self.now();
            self.worker.engine.landed(flight, Err(CallFailure::NotStarted), now);
        }
    }

    fn decide(&mut self, stream: StreamId, verdict: Verdict) {
        let responds = matches!(verdict.action(), Action::Respond { .. });
        if self.stream == Some(stream) {
            self.verdict.get_or_insert(verdict);
        } else if (self.stream.is_some() && responds) || self.decided >= MAX_DECIDED {
            // Whoever the answer is for, the host stops the stream whose callback is running, whatever that returns. The tick answers.
            self.worker.deferred.push((stream, verdict));
        } else if self.reach(stream) {
            self.decided = self.decided.saturating_add(1);
            if self.carry_out(stream, &verdict) && host::resume().is_err() {
                self.reject_unreadable(stream);
            }
        }
    }

    /// Makes host calls act on a stream, if it is still there.
    fn reach(&mut self, stream: StreamId) -> bool {
        self.root_of(stream.0).is_some() && self.set_effective_context(stream.0).is_ok()
    }

    /// Applies a verdict to the stream in effect: whether it goes on.
    fn carry_out(&mut self, stream: StreamId, verdict: &Verdict) -> bool {
        match verdict.action() {
            Action::Forward(edits) if host::edit(edits).is_ok() => {
                self.record(verdict.event());
                true
            }
            // To go on now would be to go on with the client's own identity headers.
            Action::Forward(_) => {
                self.reject_unreadable(stream);
                false
            }
            action @ Action::Respond { edits, .. } => {
                // For the access log only.
                let _ = host::edit(edits);
                self.record(verdict.event());
                respond(action);
                false
            }
        }
    }

    /// Refuses a stream of which the host does not show or change what it has to.
    fn reject_unreadable(&mut self, stream: StreamId) -> u32 {
        self.worker.engine.gone(stream);
        if self.reach(stream) {
            host::log(Level::Warn, "avnology_gate: a request that cannot be read or changed was refused");
            self.carry_out(stream, &undecidable());
        }
        HOLD
    }

    fn measure(&mut self, stream: StreamId) {
        if self.reach(stream)
            && let Some(size) = host::request_total_size()
        {
            let now = self.now();
            self.worker.engine.measured(stream, size, now);
        }
    }

    /// Tells the operator about a decision on the stream in effect. The decision holds whether or not this works.
    fn record(&mut self, event: &Event) {
        let define = || host::define_counter(&event.counter_name());
        let _ = self.worker.counters.entry(event.counter_key()).or_insert_with(define).map(host::count);
        let _ = event.filter_state().map(|state| host::set_filter_state(&state));
        if self.logs_debug() {
            host::log(Level::Debug, &event.log_line());
        }
    }

    /// Asked once a second: an operator may change the level at any time, and a host call for each request is dear.
    fn logs_debug(&mut self) -> bool {
        let now = self.now();
        let (debug, asked) = self.worker.debug;
        if asked.is_some_and(|at| at <= now && now.saturating_since(at) < Duration::from_secs(1)) {
            return debug;
        }
        let debug = host::logs(Level::Debug);
        self.worker.debug = (debug, Some(now));
        debug
    }

    /// Arms each root's tick for its next deadline. A tick that is no longer needed comes once, and is cheaper than taking it back.
    fn arm(&mut self) {
        let mut ticks = std::mem::take(&mut self.worker.ticks);
        for (root, armed) in &mut ticks {
            let due = self.worker.engine.next_deadline(*root);
            let due = if self.worker.deferred.is_empty() { due } else { Some(self.now()) };
            let Some(due) = due.filter(|due| armed.is_none_or(|armed| *due < armed)) else { continue };
            // Not a moment too early, and 0 would be "never".
            let wait = due.saturating_since(self.now()).as_nanos().div_ceil(1_000_000);
            let millis = u32::try_from(wait).unwrap_or(u32::MAX).max(1);
            if self.set_effective_root(*root).and_then(|()| host::set_tick(millis)).is_ok() {
                *armed = Some(due);
            }
        }
        self.worker.ticks = ticks;
    }
}

fn respond(action: &Action) {
    if let Action::Respond { reply, .. } = action
        && host::respond(reply).is_err()
    {
        host::log(Level::Warn, "avnology_gate: a request cannot be answered, and hangs");
    }
}
