//! One callback: the worker, the state that lasts until the callback returns, and the engine's
//! outputs.

use super::host::{self, Refused};
use super::worker::{Worker, with_worker};
use crate::flow::{FlightId, Level, Output, RootId, Step, StreamId};
use crate::http::{CallFailure, Callout, Edit};
use crate::telemetry::{Change, Event, Series};
use crate::time::Timestamp;
use crate::verdict::{Action, Verdict, undecidable};
use proxy_wasm::types::Action as Answer;
use std::time::Duration;

/// The return values of a stream's callback, as the host's numbers for the header callback; the
/// SDK's type has two of the three. `COLLECT` (`StopIteration`) holds the headers only, so that
/// body callbacks come. `HOLD` (`StopAllIterationAndWatermark`) stops everything, with
/// back-pressure, also on a host that does not let a filter stop the headers only.
pub(super) const CONTINUE: u32 = Answer::Continue as u32;
const COLLECT: u32 = Answer::Pause as u32;
pub(super) const HOLD: u32 = 4;

/// One callback: the worker, the state that lasts until the callback returns, and the engine's
/// outputs.
pub(super) struct Callback<'w> {
    pub(super) worker: &'w mut Worker,
    /// The context whose callback it is.
    own: u32,
    /// The context that host calls act on.
    effective: u32,
    /// The stream whose callback it is, and what was decided about it.
    stream: Option<StreamId>,
    verdict: Option<Verdict>,
    now: Option<Timestamp>,
    /// How many other streams it has resumed or answered.
    decided: usize,
}

/// The most other streams that one callback resumes or answers. The host acts on them after the
/// callback. Where it responds (because we refuse, or because there is no upstream), it sends each
/// response from within the deletion of the previous stream: some three hundred in a row exhaust
/// the stack. The next tick handles the rest.
const MAX_DECIDED: usize = 64;

/// Runs a callback. Returns `None` if there is no worker to run it on.
pub(super) fn callback<T>(
    own: u32,
    stream: Option<StreamId>,
    act: impl FnOnce(&mut Callback<'_>) -> T,
) -> Option<T> {
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

/// Runs a stream's callback, and refuses a stream that cannot be decided.
pub(super) fn stream_callback(
    context: u32,
    act: impl FnOnce(&mut Callback<'_>, StreamId, RootId) -> u32,
) -> u32 {
    let stream = StreamId(context);
    let act = |callback: &mut Callback<'_>| {
        let root = callback.root_of(context)?;
        // It is decided, and what was decided is not carried out yet: nothing of it may pass
        // before.
        let is_deferred = callback.worker.deferred.iter().any(|(deferred, _)| *deferred == stream);
        Some(if is_deferred { HOLD } else { act(callback, stream, root) })
    };
    callback(context, Some(stream), act).flatten().unwrap_or_else(|| {
        respond(undecidable().action());
        HOLD
    })
}

impl Callback<'_> {
    /// The time, read once per callback and only where it is needed.
    pub(super) fn now(&mut self) -> Timestamp {
        *self.now.get_or_insert_with(host::now)
    }

    fn root_of(&self, context: u32) -> Option<RootId> {
        self.worker.contexts.get(&context).copied()
    }

    /// Makes host calls act on `context`. INVARIANT(effective): if this fails, no call that is
    /// meant for `context` may follow.
    fn set_effective_context(&mut self, context: u32) -> Result<(), Refused> {
        if self.effective != context {
            host::set_effective_context(context)?;
            self.effective = context;
        }
        Ok(())
    }

    /// Makes calls that act on a root act on this one; any stream of that root will do.
    pub(super) fn set_effective_root(&mut self, root: RootId) -> Result<(), Refused> {
        if self.root_of(self.effective) == Some(root) { Ok(()) } else { self.set_effective_context(root.0) }
    }

    /// Ends a stream's callback. A decision about the stream becomes the return value, and never a
    /// call to resume it.
    pub(super) fn finish(&mut self, stream: StreamId, step: Step) -> u32 {
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

    /// Carries out all outputs of the engine.
    pub(super) fn drain(&mut self) {
        while let Some(output) = self.worker.engine.poll() {
            match output {
                Output::Dispatch { flight, root, callout } => self.dispatch(flight, root, &callout),
                Output::Decide { stream, verdict } => self.decide(stream, verdict),
                Output::Edit { stream, edits } => self.edit(stream, &edits),
                Output::Measure { stream } => self.measure(stream),
                Output::Metric { series, change } => self.change_metric(series, change),
                Output::Log { level, message } => host::log(level, &message),
            }
        }
    }

    fn dispatch(&mut self, flight: FlightId, root: RootId, callout: &Callout) {
        if let Ok(token) = self.set_effective_root(root).and_then(|()| host::dispatch(callout)) {
            self.worker.flights.insert((root, token), flight);
        } else {
            // No response will ever come.
            let now = self.now();
            self.worker.engine.landed(flight, Err(CallFailure::NotStarted), now);
        }
    }

    /// Applies what leaves a request before it waits.
    fn edit(&mut self, stream: StreamId, edits: &[Edit]) {
        // To wait now would be to go on later with the client's own identity headers.
        if !self.reach(stream) || host::edit(edits).is_err() {
            self.worker.engine.gone(stream);
            self.verdict = Some(undecidable());
        }
    }

    pub(super) fn decide(&mut self, stream: StreamId, verdict: Verdict) {
        let responds = matches!(verdict.action(), Action::Respond { .. });
        if self.stream == Some(stream) {
            self.verdict.get_or_insert(verdict);
        } else if (self.stream.is_some() && responds) || self.decided >= MAX_DECIDED {
            // Whichever stream the response is for, the host stops the stream whose callback is
            // running, whatever that callback returns. So the next tick sends the response.
            self.worker.deferred.push((stream, verdict));
        } else if self.reach(stream) {
            self.decided = self.decided.saturating_add(1);
            if self.carry_out(stream, &verdict) && host::resume().is_err() {
                self.reject_unreadable(stream);
            }
        }
    }

    /// Makes host calls act on a stream, if it still exists.
    fn reach(&mut self, stream: StreamId) -> bool {
        self.root_of(stream.0).is_some() && self.set_effective_context(stream.0).is_ok()
    }

    /// Applies a verdict to the effective stream. Returns whether the request continues.
    fn carry_out(&mut self, stream: StreamId, verdict: &Verdict) -> bool {
        match verdict.action() {
            Action::Forward(edits) if host::edit(edits).is_ok() => {
                self.record(verdict.event());
                true
            }
            // To continue now would be to forward the client's own identity headers.
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

    /// Refuses a stream that the host does not let the filter read or change as it must.
    pub(super) fn reject_unreadable(&mut self, stream: StreamId) -> u32 {
        self.worker.engine.gone(stream);
        if self.reach(stream) {
            host::log(Level::Warn, "avnology_gate: a request that cannot be read or changed was refused");
            self.carry_out(stream, &undecidable());
        }
        HOLD
    }

    pub(super) fn measure(&mut self, stream: StreamId) {
        if self.reach(stream)
            && let Some(size) = host::request_total_size()
        {
            let now = self.now();
            self.worker.engine.measured(stream, size, now);
        }
    }

    /// Reports a decision on the effective stream to the operator. A failure here does not change
    /// the decision.
    fn record(&mut self, event: &Event) {
        for counter in event.counters() {
            self.change_metric(counter, Change::Grow(1));
        }
        for (name, value) in event.filter_states() {
            let _ = host::set_filter_state(name, &value);
        }
        if self.logs_debug() {
            host::log(Level::Debug, &event.log_line());
        }
    }

    /// Changes a metric, which is defined at its first change. A failure changes no decision.
    pub(super) fn change_metric(&mut self, series: Series, change: Change) {
        let metric = match self.worker.metrics.get(&series) {
            Some(metric) => *metric,
            None => self.define_metric(series),
        };
        if let Some(metric) = metric {
            let _ = host::change_metric(metric, change);
        }
    }

    #[cold]
    fn define_metric(&mut self, series: Series) -> Option<u32> {
        let metric = host::define_metric(series.metric().kind, &self.worker.engine.metric_name(series));
        self.worker.metrics.insert(series, metric);
        metric
    }

    /// Whether the host logs at debug level. Asked once a second: an operator may change the level
    /// at any time, and a host call for each request is expensive.
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

    /// Arms each root's tick for its next deadline. A tick that is no longer needed fires once,
    /// which is cheaper than cancelling it.
    fn arm(&mut self) {
        let mut ticks = std::mem::take(&mut self.worker.ticks);
        for (root, armed) in &mut ticks {
            let due = self.worker.engine.next_deadline(*root);
            let due = if self.worker.deferred.is_empty() { due } else { Some(self.now()) };
            let Some(due) = due.filter(|due| armed.is_none_or(|armed| *due < armed)) else { continue };
            // Rounded up, so that the tick is never early; 0 would mean "never".
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
