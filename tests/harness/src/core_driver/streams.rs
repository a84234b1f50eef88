//! Requests, from their headers to what the upstream saw.

use std::fmt::Debug;

use avnology_gate::envoy::header_map;
use avnology_gate::flow::{RootId, Step as Gate, StreamId};
use avnology_gate::verdict::{Action, Verdict};

use super::host::{Piece, answer, apply, head, pieces};
use super::{HostEvent, PIECE, State, Stream, World};
use crate::corpus::{Decision, Observation, Outgoing, UpstreamSaw, sent_secrets, sha256};

impl World<'_> {
    pub(super) fn is_over(&self, worker: usize, stream: StreamId) -> bool {
        self.workers[worker]
            .streams
            .get(&stream)
            .is_none_or(|stream| stream.seen.is_some() || stream.state == State::Gone)
    }

    pub(super) fn begin(&mut self, worker: usize, sent: Outgoing, eager: bool) -> StreamId {
        self.secrets.extend(sent_secrets(&sent));
        let head = head(&sent, self.version);
        let pieces = pieces(&sent, self.version);
        let upgrades = head.iter().any(|(name, _)| name == b"upgrade");
        let end_of_stream = pieces.is_empty() && !sent.incomplete && !upgrades && sent.method != b"CONNECT";
        let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        let bytes = header_map::encode(&head);
        let host = &mut self.workers[worker];
        let id = StreamId(host.next_stream);
        host.next_stream += 1;
        let root = host.root;
        let trailers =
            sent.trailers.iter().map(|(n, v)| (n.to_ascii_lowercase().into_bytes(), v.clone())).collect();
        let head_size = head.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>() as u64;
        let step = host.engine.begin(id, root, &header_map::request_head(&bytes, end_of_stream), self.now);
        host.streams.insert(
            id,
            Stream {
                root,
                sent,
                head,
                head_size,
                pieces,
                arrived: 0,
                handed: 0,
                trailers,
                state: State::Waiting,
                eager,
                began: self.now,
                seen: None,
            },
        );
        let late = self.drain(worker, Some(id));
        for nth in 1..=count {
            self.schedule(PIECE * nth, HostEvent::Piece { worker, stream: id });
        }
        match late.map_or(step, Gate::Decided) {
            Gate::Continue => self.problem("the header callback lets a request pass without a verdict"),
            Gate::Wait => {}
            Gate::NeedBody => {
                if end_of_stream {
                    self.problem("a body is awaited where none can come");
                }
                self.set_state(worker, id, State::Receiving);
                self.measure(worker, id);
            }
            Gate::Decided(verdict) => self.decide(worker, id, verdict),
        }
        self.open(worker);
        id
    }

    pub(super) fn measure(&mut self, worker: usize, id: StreamId) {
        let Some(total) = self.workers[worker].streams.get(&id).map(Stream::total_size) else { return };
        self.workers[worker].engine.measured(id, total, self.now);
        self.drain(worker, None);
    }

    /// A piece of a body arrives at the host.
    pub(super) fn arrive(&mut self, worker: usize, id: StreamId) {
        let knob = self.case.listener.knob;
        let Some(stream) = self.workers[worker].streams.get_mut(&id) else { return };
        stream.arrived += 1;
        // Without a callback the piece stays with the host, which passes it on when the request is
        // let through.
        let calls_back = match stream.state {
            State::Receiving => knob,
            State::Waiting => stream.eager,
            State::Open | State::Answered | State::Gone => false,
        };
        if calls_back {
            self.call_back(worker, id);
        }
    }

    /// Hands the next piece to the gate.
    pub(super) fn call_back(&mut self, worker: usize, id: StreamId) {
        let host = &mut self.workers[worker];
        let Some(stream) = host.streams.get_mut(&id) else { return };
        let Some(piece) = stream.pieces.get(stream.handed).copied() else { return };
        let before = stream.state;
        // What was let through is no longer buffered: the host then has only the new piece.
        let start = if before == State::Open { stream.bytes_of(stream.handed) } else { 0 };
        stream.handed += 1;
        let end = stream.bytes_of(stream.handed);
        let mut removed = Vec::new();
        let step = match piece {
            Piece::Bytes { last, .. } => {
                let held = stream
                    .sent
                    .body
                    .as_deref()
                    .unwrap_or_default()
                    .get(start..end)
                    .unwrap_or_default()
                    .to_vec();
                let mut fetch =
                    |at: usize, len: usize| held.get(at..at.checked_add(len)?).map(<[u8]>::to_vec);
                host.engine.body(id, end - start, last, &mut fetch, self.now)
            }
            Piece::Trailers => {
                let bytes = header_map::encode(&stream.trailers);
                let Ok(trailers) = header_map::parse(&bytes) else {
                    return self.problem("the driver's own trailers cannot be read".to_owned());
                };
                let names = trailers.into_iter().map(|(name, _)| name);
                let held = stream.sent.body.as_deref().unwrap_or_default();
                let held = held.get(start..end).unwrap_or_default().to_vec();
                let mut fetch =
                    |at: usize, len: usize| held.get(at..at.checked_add(len)?).map(<[u8]>::to_vec);
                let (step, owned) = host.engine.trailers(id, names, &mut fetch, self.now);
                removed = owned;
                step
            }
        };
        if let Some(stream) = host.streams.get_mut(&id) {
            stream.trailers.retain(|(name, _)| !removed.contains(name));
        }
        let late = self.drain(worker, Some(id));
        match (before, late.map_or(step, Gate::Decided)) {
            (State::Open, Gate::Continue) => {}
            (State::Open, other) => self.problem(format!(
                "a callback of a request that was let pass is answered {:?}",
                shown(&other)
            )),
            (State::Waiting, Gate::Wait) | (State::Receiving, Gate::NeedBody) => {}
            (State::Waiting, other) if matches!(other, Gate::Continue | Gate::NeedBody) => {
                self.problem(format!("a callback before the decision is answered {:?}", shown(&other)));
            }
            (State::Receiving, Gate::Wait) => self.set_state(worker, id, State::Waiting),
            (State::Receiving, Gate::Continue) => self.problem("a body passes before the decision"),
            (_, Gate::Decided(verdict)) => self.decide(worker, id, verdict),
            (state, other) => self.problem(format!("{state:?}: {:?}", shown(&other))),
        }
        self.open(worker);
    }

    /// Applies a verdict.
    pub(super) fn decide(&mut self, worker: usize, id: StreamId, verdict: Verdict) {
        let now = self.now;
        let event = verdict.event();
        let engine = &self.workers[worker].engine;
        let names: Vec<String> = event.counters().map(|series| engine.metric_name(series)).collect();
        let texts = [event.log_line(), names.join(" "), event.filter_state().unwrap_or_default()];
        for text in &texts {
            self.no_secret("the event", text);
        }
        let (decision, reason) = (event.decision(), event.reason());
        let mut counted =
            format!("avnology_gate_decisions_total.decision.{}.reason.{}", decision.id(), reason.id());
        if let Some(route) = event.route() {
            counted = format!("{counted}.route.{route}");
        }
        if names.first() != Some(&counted) || names[1..].iter().any(|name| name.contains("_decisions_")) {
            self.problem(format!("counters {names:?}"));
        }
        let decision = match decision.id() {
            "allow" => Decision::Allow,
            "deny" => Decision::Deny,
            "shadow_deny" => Decision::ShadowDeny,
            "fail_open" => Decision::FailOpen,
            other => {
                self.problem(format!("decision {other}"));
                Decision::None
            }
        };
        // A health check is allowed, and the gate's own to answer; so is a webhook's challenge.
        let is_own = reason.id() == "ready" || (reason.id() == "challenge" && decision == Decision::Allow);
        let answers = decision == Decision::Deny || is_own;
        if answers != matches!(verdict.action(), Action::Respond { .. }) {
            self.problem(format!("decision {decision:?} with the other kind of action"));
        }
        let mut seen = Observation {
            reason: Some(reason.id().to_owned()),
            decision: Some(decision),
            route: event.route().map(str::to_owned),
            subject: event.subject().map(str::to_owned),
            filter_state: Some(event.filter_state()),
            ..Observation::default()
        };
        let Some(stream) = self.workers[worker].streams.get_mut(&id) else {
            self.problem("a decision for a stream that there is not");
            return;
        };
        if stream.seen.is_some() || matches!(stream.state, State::Open | State::Answered) {
            self.problem("a second decision for the same stream");
            return;
        }
        if stream.state == State::Gone {
            self.problem("a decision for a stream that has gone");
            return;
        }
        seen.elapsed = now.saturating_since(stream.began);
        let mut wrong = Vec::new();
        match verdict.action() {
            Action::Forward(edits) => {
                apply(edits, &mut stream.head, &mut wrong);
                stream.state = State::Open;
                seen.status = 200;
                self.workers[worker].opened.push(id);
            }
            Action::Respond { edits, reply } => {
                apply(edits, &mut stream.head, &mut wrong);
                stream.state = State::Answered;
                answer(reply, &stream.sent, &mut seen, &mut wrong);
            }
        }
        if let Some(stream) = self.workers[worker].streams.get_mut(&id) {
            stream.seen = Some(seen);
            if stream.state == State::Answered {
                self.workers[worker].engine.gone(id);
            }
        }
        for problem in wrong {
            self.problem(problem);
        }
    }

    /// For streams that were let through, passes the rest of the bodies to the gate, and then the
    /// requests to the upstream.
    pub(super) fn open(&mut self, worker: usize) {
        while let Some(id) = self.workers[worker].opened.pop() {
            while self.workers[worker]
                .streams
                .get(&id)
                .is_some_and(|stream| stream.handed < stream.pieces.len())
            {
                self.call_back(worker, id);
            }
            let Some(stream) = self.workers[worker].streams.get_mut(&id) else { continue };
            let whole = stream.sent.body.clone().unwrap_or_default();
            let body = whole.get(..stream.bytes_of(stream.pieces.len())).unwrap_or_default();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let named =
                |name: &str| stream.head.iter().find(|(n, _)| n == name.as_bytes()).map(|(_, v)| text(v));
            let headers = |pairs: &[(Vec<u8>, Vec<u8>)]| {
                pairs
                    .iter()
                    .filter(|(n, _)| !n.starts_with(b":"))
                    .map(|(n, v)| (text(n), v.clone()))
                    .collect()
            };
            let saw = UpstreamSaw {
                method: named(":method").unwrap_or_default(),
                path: named(":path").unwrap_or_default(),
                headers: headers(&stream.head),
                trailers: headers(&stream.trailers),
                body_bytes: body.len() as u64,
                body_sha256: sha256(body),
            };
            if let Some(seen) = &mut stream.seen {
                seen.upstream = Some(saw);
            }
            self.workers[worker].engine.gone(id);
            self.drain(worker, None);
        }
    }

    pub(super) fn disconnect(&mut self, worker: usize, id: StreamId) {
        let Some(stream) = self.workers[worker].streams.get_mut(&id) else { return };
        if stream.seen.is_none() {
            stream.state = State::Gone;
            self.workers[worker].engine.gone(id);
            self.drain(worker, None);
        }
    }

    pub(super) fn set_state(&mut self, worker: usize, id: StreamId, state: State) {
        self.workers[worker].streams.entry(id).and_modify(|stream| stream.state = state);
    }

    /// Drops roots that were replaced and whose last stream has ended, with their callouts, as
    /// Envoy does.
    pub(super) fn retire(&mut self, worker: usize) {
        let host = &mut self.workers[worker];
        let over: Vec<RootId> = host
            .roots
            .iter()
            .filter(|(id, root)| {
                root.retired && !host.streams.values().any(|s| s.root == **id && s.seen.is_none())
            })
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            host.roots.remove(&id);
            host.flights.retain(|_, root| *root != id);
            host.engine.root_gone(id, self.now);
        }
        let flights = host.flights.clone();
        self.queue.retain(|_, event| match event {
            HostEvent::Landed { worker: of, flight, .. } => *of != worker || flights.contains_key(flight),
            _ => true,
        });
        self.drain(worker, None);
    }
}

impl Stream {
    /// How many bytes of the body are in the first `count` pieces.
    pub(super) fn bytes_of(&self, count: usize) -> usize {
        let len = |piece: &Piece| match piece {
            Piece::Bytes { len, .. } => *len,
            Piece::Trailers => 0,
        };
        self.pieces.iter().take(count).map(len).sum()
    }

    /// The request's size so far, as the host reports it.
    pub(super) fn total_size(&self) -> u64 {
        self.head_size + self.bytes_of(self.arrived) as u64
    }
}

/// A step without the verdict's contents, which may include secrets.
fn shown(step: &Gate) -> impl Debug {
    match step {
        Gate::Continue => "Continue",
        Gate::Wait => "Wait",
        Gate::NeedBody => "NeedBody",
        Gate::Decided(_) => "Decided",
    }
}
