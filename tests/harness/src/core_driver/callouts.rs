//! Callouts, from the engine's output to the answer.

use std::time::Duration;

use avnology_gate::envoy;
use avnology_gate::flow::{FlightId, Output, RootId, StreamId};
use avnology_gate::http::{CallFailure, Callout, Edit};
use avnology_gate::verdict::Verdict;
use standin::Fault;

use super::host::{Landing, UNREACHABLE, apply, landing, synthetic};
use super::{HostEvent, Stream, World};

impl World<'_> {
    /// Handles all outputs of the engine. The decision for `current`, if there is one, is the
    /// running callback's return value.
    pub(super) fn drain(&mut self, worker: usize, current: Option<StreamId>) -> Option<Verdict> {
        let mut returned = None;
        while let Some(output) = self.workers[worker].engine.poll() {
            match output {
                Output::Dispatch { flight, root, callout } => self.dispatch(worker, flight, root, &callout),
                Output::Decide { stream, verdict } if Some(stream) == current => {
                    if returned.replace(verdict).is_some() {
                        self.problem("two decisions for the stream whose callback is running");
                    }
                }
                Output::Decide { stream, verdict } => self.decide(worker, stream, verdict),
                Output::Edit { stream, edits } => self.edit(worker, stream, &edits, current),
                Output::Measure { stream } => {
                    if let Some(total) = self.workers[worker].streams.get(&stream).map(Stream::total_size) {
                        self.workers[worker].engine.measured(stream, total, self.now);
                    }
                }
                Output::Metric { series, .. } => {
                    let name = self.workers[worker].engine.metric_name(series);
                    self.no_secret("a metric", &name);
                }
                Output::Log { message, .. } => self.no_secret("the log", &message),
            }
        }
        if current.is_none() {
            self.open(worker);
        }
        returned
    }

    /// Applies what leaves a request before it waits.
    fn edit(&mut self, worker: usize, id: StreamId, edits: &[Edit], current: Option<StreamId>) {
        if current != Some(id) {
            self.problem("an edit of a stream whose callback is not running");
        }
        let mut wrong = Vec::new();
        match self.workers[worker].streams.get_mut(&id) {
            Some(stream) => apply(edits, &mut stream.head, &mut wrong),
            None => wrong.push("an edit of a stream that there is not".to_owned()),
        }
        for problem in wrong {
            self.problem(problem);
        }
    }

    pub(super) fn dispatch(&mut self, worker: usize, flight: FlightId, root: RootId, callout: &Callout) {
        let headers = headers_of(callout);
        self.hold_to_rules(worker, root, callout, &headers);
        let host = &mut self.workers[worker];
        if host.flights.insert(flight, root).is_some() {
            self.problem("two callouts of one flight");
        }
        let known =
            callout.cluster == "avnology" && !self.case.listener.empty_clusters.contains(&callout.cluster);
        if !known {
            self.refuses_callouts = true;
            let host = &mut self.workers[worker];
            host.flights.remove(&flight);
            host.engine.landed(flight, Err(CallFailure::NotStarted), self.now);
            return;
        }
        if self.provider_down {
            self.schedule(
                Duration::ZERO,
                HostEvent::Landed { worker, flight, landing: synthetic(503, UNREACHABLE) },
            );
            return;
        }
        let named = |name: &str| {
            headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        let sent: Vec<(String, String)> =
            headers.iter().filter(|(name, _)| !name.starts_with(':')).cloned().collect();
        let request = standin::Request {
            method: named(":method"),
            path: named(":path"),
            headers: &sent,
            body: &callout.body,
        };
        // Envoy's router retries within the one timeout, if the callout's own headers ask for it.
        // Here everything is sent.
        let is_retried = named("x-envoy-retry-on").starts_with("5xx");
        let retries = if is_retried { named("x-envoy-max-retries") } else { "" };
        let mut retries: u32 = retries.parse().unwrap_or_default();
        let per_try = named("x-envoy-upstream-rq-per-try-timeout-ms").parse().map(Duration::from_millis);
        let mut start = Duration::ZERO;
        // The tries that are still under way, with when they began: a slow one goes on beside the
        // next.
        let mut tries = Vec::new();
        loop {
            let answer = self.provider.respond(&request, self.now.as_secs());
            let answers = answer.fault != Some(Fault::Hang);
            let failed = answer.status >= 500
                || answer.status == 408
                || matches!(answer.fault, Some(Fault::Reset | Fault::Garbage));
            let is_slow = !answers || per_try.as_ref().is_ok_and(|per_try| answer.delay >= *per_try);
            let next = start + if is_slow { per_try.clone().unwrap_or_default() } else { answer.delay };
            let is_last = retries == 0 || next >= callout.timeout || !(is_slow || failed);
            if is_last || is_slow {
                let end = if answers { start + answer.delay } else { Duration::MAX };
                tries.push((end, start, answer));
            }
            if is_last || tries.iter().any(|(end, ..)| *end <= next) {
                break;
            }
            retries -= 1;
            start = next;
        }
        if self.lose_callouts {
            return;
        }
        let Some((_, start, answer)) = tries.into_iter().min_by_key(|(end, ..)| *end) else { return };
        let (after, landing) = landing(answer, callout.timeout - start);
        self.schedule(start + after, HostEvent::Landed { worker, flight, landing });
    }

    fn hold_to_rules(
        &mut self,
        worker: usize,
        root: RootId,
        callout: &Callout,
        headers: &[(String, String)],
    ) {
        let Some(of) = self.workers[worker].roots.get(&root) else {
            self.problem("a callout for a root that there is not");
            return;
        };
        let mut wrong = Vec::new();
        if of.cluster.as_ref() != Some(&callout.cluster) {
            wrong.push(format!("a callout to cluster {}", callout.cluster));
        }
        if callout.timeout < Duration::from_millis(1) {
            wrong.push(format!(
                "a callout with a timeout of {:?}, which a host takes for none",
                callout.timeout
            ));
        }
        for needed in [":method", ":path", ":authority"] {
            if headers.iter().filter(|(name, _)| name == needed).count() != 1 {
                wrong.push(format!("a callout without one {needed}"));
            }
        }
        for (name, value) in headers {
            if value.bytes().any(|b| b < 0x20 || b == 0x7f)
                || name.bytes().any(|b| b <= 0x20 || b.is_ascii_uppercase())
            {
                wrong.push(format!("a callout whose header {name} holds a control character"));
            }
            if ["host", "transfer-encoding", "connection", "upgrade"].contains(&name.as_str()) {
                wrong
                    .push(format!("a callout with {name}, which would reach the wire beside the host's own"));
            }
            if name == ":path" && !value.bytes().all(|b| b.is_ascii_graphic()) {
                wrong.push(format!("a callout with the path {value:?}"));
            }
        }
        for problem in wrong {
            self.problem(problem);
        }
    }

    pub(super) fn land(&mut self, worker: usize, flight: FlightId, landing: &Landing) {
        let host = &mut self.workers[worker];
        if host.flights.remove(&flight).is_none() {
            return;
        }
        let answer = match landing {
            Landing::Answer { headers, body } => envoy::response::read(headers, body),
            Landing::Broken => Err(CallFailure::Reset),
            Landing::Oversize { headers } => envoy::response::read_oversize(headers),
        };
        host.engine.landed(flight, answer, self.now);
        self.drain(worker, None);
        self.retire(worker);
    }
}

/// The callout's headers, parsed from the bytes that the host receives.
fn headers_of(callout: &Callout) -> Vec<(String, String)> {
    let bytes = envoy::callout::headers(callout);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let pairs = envoy::header_map::parse(&bytes).unwrap_or_default();
    pairs.into_iter().map(|(name, value)| (text(name), text(value))).collect()
}
