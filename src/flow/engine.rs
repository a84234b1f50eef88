//! What a host may report, and what the engine does about it.

use super::ask::Question;
use super::calls;
use super::gate::{self, Callback, Gate};
use super::open::{self, Opening};
use super::renderings::Renderings;
use super::state::{Alarm, Flight, State, Stream, Ticket};
use super::{FlightId, Level, Output, RootId, Seed, SharedStore, Step, StreamId, reply, slots};
use crate::breaker::{CallOutcome, CircuitBreaker};
use crate::cache::Cache;
use crate::claims::TokenInfo;
use crate::config::Loaded;
use crate::hash::{FactKey, Fingerprint, TrustedKeyHasher};
use crate::http::head::RequestHead;
use crate::http::{CallFailure, Response};
use crate::introspect::Fact;
use crate::permission;
use crate::policy::{Bounds, Policy};
use crate::rate_limit::{RateLimiter, RecentTokens};
use crate::refusal::{Outage, Reason, Refusal, Unusable};
use crate::time::Timestamp;
use crate::verdict;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::rc::Rc;

/// The state of one VM: policies by root, undecided streams, flights.
#[cfg_attr(test, derive(Clone))]
pub struct Engine {
    pub(super) seed: Seed,
    pub(super) slots: Rc<dyn SharedStore>,
    pub(super) policies: HashMap<RootId, Rc<Policy>, TrustedKeyHasher>,
    pub(super) next_policy: u32,
    pub(super) streams: HashMap<StreamId, Stream, TrustedKeyHasher>,
    pub(super) flights: HashMap<FlightId, Flight, TrustedKeyHasher>,
    /// Keyed by root too: Envoy drops a root's callouts with the root.
    pub(super) by_key: HashMap<(RootId, FactKey), FlightId, TrustedKeyHasher>,
    /// What the provider has said, for all roots alike.
    pub(super) tokens: Cache<TokenInfo>,
    pub(super) permissions: Cache<()>,
    pub(super) bounds: Bounds,
    pub(super) renderings: Renderings,
    /// Tokens that were active lately, as they are known here.
    pub(super) seen: RecentTokens,
    /// How each endpoint has been, as each client of it.
    pub(super) health: HashMap<Fingerprint, CircuitBreaker, TrustedKeyHasher>,
    pub(super) budgets: HashMap<RootId, RateLimiter, TrustedKeyHasher>,
    pub(super) under_way: UnderWay,
    pub(super) next_flight: u64,
    pub(super) alarms: BTreeSet<(RootId, Timestamp, Alarm)>,
    pub(super) outputs: VecDeque<Output>,
    /// Undecided streams that wait for the provider, with a token that was not seen active lately and with any other, and those whose body is
    /// received: a share each.
    pub(super) waiting_new: usize,
    pub(super) waiting: usize,
    pub(super) receiving: usize,
    /// Bytes that undecided streams keep here.
    pub(super) parked: usize,
    /// Webhook bytes that the host holds for this worker.
    pub(super) held: usize,
    /// The latest time that was heard of.
    pub(super) latest: Timestamp,
    /// When a reason was last told to the operator.
    pub(super) told: HashMap<Reason, Timestamp>,
}

/// Flights under way, of each purpose.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UnderWay {
    pub(super) new_tokens: usize,
    pub(super) refreshes: usize,
    pub(super) permissions: usize,
}

impl Engine {
    /// An engine without policies. `seed`: random, one per VM. `slots`: what it shares with the other workers.
    pub fn new(seed: Seed, slots: Rc<dyn SharedStore>) -> Self {
        Self {
            seed,
            slots,
            policies: HashMap::default(),
            next_policy: 0,
            streams: HashMap::default(),
            flights: HashMap::default(),
            by_key: HashMap::default(),
            tokens: Cache::new(0),
            permissions: Cache::new(0),
            bounds: Bounds::default(),
            renderings: Renderings::default(),
            seen: RecentTokens::default(),
            health: HashMap::default(),
            budgets: HashMap::default(),
            under_way: UnderWay::default(),
            next_flight: 0,
            alarms: BTreeSet::new(),
            outputs: VecDeque::new(),
            waiting_new: 0,
            waiting: 0,
            latest: Timestamp::from_nanos(0),
            receiving: 0,
            parked: 0,
            held: 0,
            told: HashMap::new(),
        }
    }

    /// Takes a root's policy. Streams of other roots, and of this one's predecessor, keep theirs.
    ///
    /// What is known stays: it belongs to the endpoints that said it, and an endpoint that two policies name is one.
    pub fn configure(&mut self, root: RootId, loaded: Loaded) {
        if slots::is_first_to_say(&*self.slots, &loaded.warnings) {
            for warning in loaded.warnings {
                self.log(Level::Warn, format!("avnology_gate: configuration: {warning}"));
            }
        }
        self.next_policy = self.next_policy.wrapping_add(1);
        self.policies.insert(root, Rc::new(Policy { id: self.next_policy, ..loaded.policy }));
        self.budgets.remove(&root);
        self.rebound();
    }

    /// Keeps as much as the policies want that there are now, the larger where two differ.
    fn rebound(&mut self) {
        let policies = self.policies.values();
        self.bounds = policies.clone().fold(Bounds::default(), |bounds, policy| bounds.max(policy.bounds));
        self.tokens.resize(self.bounds.tokens.max_entries);
        self.permissions.resize(self.bounds.permissions.max_entries);
        let named: HashSet<Fingerprint> =
            policies.flat_map(|policy| policy.endpoints.iter().copied()).collect();
        self.health.retain(|endpoint, _| named.contains(endpoint));
    }

    /// A request's head.
    pub fn begin(&mut self, stream: StreamId, root: RootId, head: &RequestHead<'_>, now: Timestamp) -> Step {
        match gate::gate(self.phase(stream), Callback::Headers) {
            Gate::Begin => {}
            Gate::Continue => return Step::Continue,
            Gate::Pause | Gate::Feed => return Step::Wait,
        }
        let Some(policy) = self.policies.get(&root).map(Rc::clone) else {
            self.streams.insert(stream, Stream::Answered);
            return Step::Decided(verdict::undecidable());
        };
        self.notice(now);
        let (dossier, opening) = open::open(&policy, head, now);
        match opening {
            Opening::Decided(outcome) => Step::Decided(self.settle(stream, dossier, outcome, now)),
            Opening::Receive(_) if !self.has_room_for_bodies() => {
                Step::Decided(self.settle(stream, dossier, Err(Unusable::BodyMemory.into()), now))
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

    /// The names of a request's trailers, and with them its end. Returns beside the step the trailers that must leave before anything else.
    pub fn trailers<'t>(
        &mut self,
        stream: StreamId,
        names: impl IntoIterator<Item = &'t [u8]>,
        now: Timestamp,
    ) -> (Step, Vec<Vec<u8>>) {
        // By the policy under which the stream began, whatever its root has now.
        let policy = match self.streams.get(&stream) {
            Some(Stream::Pending(pending)) => Some(&pending.dossier.policy),
            Some(Stream::Open(policy)) => Some(policy),
            Some(Stream::Answered) | None => None,
        };
        let is_owned = |name: &&[u8]| policy.is_none_or(|policy| policy.owned.contains(name));
        let removed = names.into_iter().filter(is_owned).map(<[u8]>::to_vec).collect();
        let step = match gate::gate(self.phase(stream), Callback::Trailers) {
            Gate::Continue => Step::Continue,
            Gate::Pause | Gate::Begin => Step::Wait,
            // With trailers no body callback ever says that the body is complete.
            Gate::Feed => self.finish_body(stream, None, now),
        };
        (step, removed)
    }

    /// A callout's answer, or why there is none.
    pub fn landed(&mut self, flight: FlightId, answer: Result<Response<'_>, CallFailure>, now: Timestamp) {
        self.notice(now);
        let Some(landed) = self.take_flight(flight) else { return };
        let body = reply::body_of(answer, landed.question);
        self.note_end(
            &landed,
            body.as_ref().err().map_or(CallOutcome::Answered, |e| calls::ended(e, landed.question)),
            now,
        );
        match landed.question {
            Question::Introspection | Question::Session => {
                let answer = body.and_then(|body| Ok(reply::introspection_of(body, landed.question)?));
                self.advise(answer.as_ref().err(), now);
                if let Ok(answer) = &answer {
                    self.learn_introspection(&landed, answer, now);
                }
                let fact = answer.map(|answer| Fact::new(answer, landed.started));
                for (stream, _) in landed.waiters {
                    self.introspected(stream, landed.key, fact.clone(), now);
                }
            }
            Question::Permission => {
                let answer = body.and_then(|body| match body {
                    Some(body) => Ok(permission::parse(body)?),
                    None => Ok(false),
                });
                self.advise(answer.as_ref().err(), now);
                if let Ok(is_granted) = &answer {
                    self.learn_permission(&landed, *is_granted, now);
                }
                for (stream, ticket) in landed.waiters {
                    if let Ticket::Check(slot) = ticket {
                        self.checked(stream, slot, landed.key, answer.clone(), now);
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
                    self.note_end(&late, CallOutcome::Outage, now);
                    self.advise(Some(&timeout), now);
                    for (stream, ticket) in late.waiters {
                        match ticket {
                            Ticket::Token => self.introspected(stream, late.key, Err(timeout.clone()), now),
                            Ticket::Check(slot) => {
                                self.checked(stream, slot, late.key, Err(timeout.clone()), now)
                            }
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
        self.budgets.remove(&root);
        self.rebound();
        let flights: Vec<FlightId> =
            self.flights.iter().filter(|(_, f)| f.root == root).map(|(id, _)| *id).collect();
        for flight in flights {
            if let Some(flight) = self.take_flight(flight) {
                self.note_end(&flight, CallOutcome::Unknown, now);
            }
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
        self.waiting_new.saturating_add(self.waiting).saturating_add(self.receiving)
    }
}
