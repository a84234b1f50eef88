//! Runs a case against a real Envoy.
//!
//! A case runs once per HTTP version and number of workers. The corpus itself compares the results;
//! this driver sends the requests and collects the results: the answer, the access log line, what
//! the service and the provider saw, the counters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use upstream::Seen;

use crate::client::{Ask, Connection, Failure, PATIENCE, Version};
use crate::control::until;
use crate::corpus::{
    self, Case, Decision, Document, Driver, Expect, Observation, Outgoing, Step, UpstreamSaw,
};
use crate::envoy::{Envoy, Refused};
use crate::sample::Policy;
use crate::scene::{self, LINE, Line, Scene};

/// One way of running a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The client's HTTP version.
    pub version: Version,
    /// How many workers Envoy has.
    pub workers: u32,
}

/// The numbers of workers that cases are run with.
pub const WORKERS: [u32; 2] = [1, 2];

/// The ways in which a case is run.
pub fn variants(case: &Case) -> Vec<Variant> {
    let mut variants = Vec::new();
    if !case.drivers.contains(&Driver::Envoy) {
        return variants;
    }
    let pinned = case.workers().and_then(|workers| u32::try_from(workers).ok());
    for workers in WORKERS {
        // A case that names a number of workers runs with that number; one that needs a second
        // worker cannot run with one.
        if pinned.is_some_and(|pinned| pinned != workers) {
            continue;
        }
        for version in [Version::Http1, Version::Http2] {
            let requests = || case.steps.iter().filter(|step| step.request.is_some());
            let runs = requests().any(|step| spoken(step, version));
            // A case without any request is about the configuration: once is enough.
            let configuration_only =
                requests().next().is_none() && version == Version::Http1 && workers == WORKERS[0];
            if runs || configuration_only {
                variants.push(Variant { version, workers });
            }
        }
    }
    variants
}

/// Whether a step's request is sent with this version.
fn spoken(step: &Step, version: Version) -> bool {
    let Some(request) = &step.request else { return true };
    let wanted = match request.version {
        Some(corpus::Version::H1) => Some(Version::Http1),
        Some(corpus::Version::H2) => Some(Version::Http2),
        None => request.bytes.as_ref().map(|_| Version::Http1),
    };
    wanted.is_none_or(|wanted| wanted == version)
}

/// Runs a case in one way.
///
/// # Errors
/// Everything that differs from what the case expects, a line each.
pub fn run(case: &Case, version: Version, envoy: &Arc<Envoy>) -> Result<(), String> {
    let mut stage = Stage::new(case, version, envoy)?;
    if let Err(problem) = stage.play() {
        stage.problem(problem);
    }
    if stage.problems.is_empty() { Ok(()) } else { Err(stage.problems.join("\n")) }
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The number of trials so far. It may wrap round: so many are never in progress at the same time.
static TRIALS: AtomicU16 = AtomicU16::new(1);

/// A running case.
struct Stage<'c> {
    case: &'c Case,
    version: Version,
    scene: Scene,
    /// When, in Unix seconds.
    began: u64,
    /// The document in force, its cluster under the case's own name.
    in_force: Option<Value>,
    /// The names of the case's clusters here.
    clusters: BTreeMap<String, String>,
    /// How many requests the service must have seen by the end.
    forwarded: usize,
    /// Which trial of this run it is.
    trial: u16,
    /// The decisions that the counters must show.
    counted: BTreeMap<String, u64>,
    counters: BTreeMap<String, u64>,
    problems: Vec<String>,
    label: String,
}

/// A step whose requests are in progress.
struct Begun<'c> {
    step: &'c Step,
    label: String,
    expect: &'c Expect,
    exchanges: Vec<Exchange>,
    calls_before: usize,
    /// The label of the configuration that must serve it.
    configuration: String,
}

/// One request on a connection of its own.
struct Exchange {
    sent: Outgoing,
    connection: Connection,
    port: u16,
    /// How many log lines belong to earlier connections with this port: the system may reuse it
    /// once those are closed.
    earlier: usize,
    began: Instant,
}

impl<'c> Stage<'c> {
    fn new(case: &'c Case, version: Version, envoy: &Arc<Envoy>) -> Result<Self, String> {
        let mut scene = Scene::new(envoy, &case.id, case.seeded()?)?;
        let mut clusters = BTreeMap::from([("avnology".to_owned(), scene.cluster.clone())]);
        for name in &case.listener.empty_clusters {
            let local = scene.add_cluster(name, None)?;
            clusters.insert(name.clone(), local);
        }
        scene.shape.knob = case.listener.knob;
        scene.shape.raw = case.listener.raw;
        scene.shape.buffer_limit = case.listener.buffer_limit.map(u64::from);
        let counters = envoy.decisions();
        Ok(Self {
            case,
            version,
            scene,
            began: unix_time(),
            in_force: None,
            clusters,
            forwarded: 0,
            trial: TRIALS.fetch_add(1, Ordering::Relaxed),
            counted: BTreeMap::new(),
            counters,
            problems: Vec::new(),
            label: String::new(),
        })
    }

    fn problem(&mut self, problem: impl Into<String>) {
        let problem = problem.into();
        let label = &self.label;
        self.problems.push(if label.is_empty() { problem } else { format!("{label}: {problem}") });
    }

    fn play(&mut self) -> Result<(), String> {
        let document = self.case.document()?;
        if !self.configure(document, &self.case.refused, &self.case.warns) {
            return Ok(());
        }
        let mut background: Vec<Begun<'c>> = Vec::new();
        for step in &self.case.steps {
            if !spoken(step, self.version) {
                continue;
            }
            step.label().clone_into(&mut self.label);
            self.prepare(step)?;
            if let Some(config) = &step.configure {
                let document = self.case.resolve(config, self.in_force.as_ref())?;
                self.configure(document, &step.refused, &[]);
            } else if let Some(wait) = step.wait {
                std::thread::sleep(wait);
            } else if step.join {
                self.join(&mut background, step.expect.as_ref())?;
            } else if let (Some(_), Some(expect)) = (&step.request, &step.expect) {
                if let Some(patience) = step.eventually {
                    self.repeat(step, expect, patience)?;
                    continue;
                }
                let arrived = self.scene.requests();
                let begun = self.begin(step, expect)?;
                if step.background {
                    self.until_asked(&begun, arrived, !background.is_empty())?;
                    background.push(begun);
                } else {
                    self.finish(begun, false)?;
                }
            }
        }
        self.join(&mut background, None)?;
        "at the end".clone_into(&mut self.label);
        self.settle()
    }

    /// What a step changes about the provider.
    fn prepare(&self, step: &Step) -> Result<(), String> {
        if step.provider_clear {
            self.scene.provider.clear()?;
        }
        self.scene.provider.script(&step.provider)?;
        step.provider_down.map_or(Ok(()), |down| self.scene.provider.down(down))
    }

    /// Replaces the configuration; returns whether it was accepted.
    fn configure(&mut self, document: Document, refused: &[String], warns: &[String]) -> bool {
        let bytes = match &document.value {
            Some(value) => serde_json::to_vec_pretty(&self.local(value)).unwrap_or_default(),
            None => document.bytes.clone(),
        };
        match self.scene.put(Policy::Document(bytes)) {
            Ok(()) if refused.is_empty() => {
                self.in_force = document.value;
                self.report("warnings", warns);
                true
            }
            Ok(()) => {
                self.problem(format!(
                    "the configuration is taken, expected a refusal that names {refused:?}"
                ));
                false
            }
            Err(Refused(text)) => {
                if refused.is_empty() {
                    let told = self.scene.warnings();
                    self.problem(format!("the configuration is refused: {text}\n{}", told.join("\n")));
                } else {
                    self.report("problems", refused);
                }
                false
            }
        }
    }

    /// Reports each of these texts that the gate's log does not contain.
    fn report(&mut self, what: &str, wanted: &[String]) {
        let told = self.scene.warnings();
        for text in wanted.iter().filter(|text| !told.iter().any(|line| line.contains(text.as_str()))) {
            self.problem(format!("the {what} do not name {text:?}: {told:#?}"));
        }
    }

    /// A document with the cluster names of this scene.
    fn local(&self, document: &Value) -> Value {
        let mut document = document.clone();
        if let Some(cluster) = document.pointer_mut("/provider/cluster")
            && let Some(local) = cluster.as_str().and_then(|name| self.clusters.get(name))
        {
            *cluster = json!(local);
        }
        // A worker's state of an endpoint outlives a trial, and the next one may have the same
        // clusters. So each trial uses an authority with a port of its own. The realm stays what
        // the case expects.
        if let Some(authority) = document.pointer_mut("/provider/authority")
            && let Some(name) = authority.as_str().map(str::to_owned)
            && !name.contains(':')
        {
            *authority = json!(format!("{name}:{}", self.trial));
            if document.get("challenge").is_none_or(Value::is_object)
                && document.pointer("/challenge/realm").is_none()
            {
                document["challenge"]["realm"] = json!(name);
            }
        }
        document
    }

    /// Sends a step's requests.
    fn begin(&self, step: &'c Step, expect: &'c Expect) -> Result<Begun<'c>, String> {
        let calls_before = self.scene.provider.calls()?.len();
        // Requests that must share a worker use the first one, unless the case names another.
        let meets = step.parallel.is_some() || self.case.steps.iter().any(|step| step.background);
        let worker = step.worker.or(meets.then_some(0)).and_then(|worker| u32::try_from(worker).ok());
        // If some clients disconnect, they must do so before the answer, and there is no time to
        // lose.
        let stay = !step.disconnect_first && !step.disconnect_all;
        let arrived = step.parallel.filter(|_| stay).map(|_| self.scene.requests());
        let mut exchanges = Vec::new();
        let lines = self.scene.lines()?;
        for _ in 0..step.parallel.unwrap_or(1) {
            let Some(sent) = step.outgoing(unix_time(), self.began) else { continue };
            let connection = self.scene.connect(self.version, worker)?;
            let port = connection.port().map_err(|error| error.to_string())?;
            let earlier = lines.iter().filter(|line| line.is_of(port)).count();
            exchanges.push(Exchange { sent, connection, port, earlier, began: Instant::now() });
        }
        // All connections first, then all requests: they must be in progress at the same time, and
        // no other crowd may delay them.
        let _crowd = (exchanges.len() > 1).then(scene::crowd);
        let small = |exchange: &Exchange| exchange.sent.body.as_ref().is_none_or(|body| body.len() <= SMALL);
        let sent: Vec<Result<(), Failure>> = if exchanges.iter().all(small) {
            exchanges.iter_mut().map(Exchange::send).collect()
        } else {
            // Envoy may stop reading one of them until another is decided.
            std::thread::scope(|scope| {
                let sending: Vec<_> =
                    exchanges.iter_mut().map(|exchange| scope.spawn(|| exchange.send())).collect();
                sending.into_iter().filter_map(|thread| thread.join().ok()).collect()
            })
        };
        for sent in sent {
            sent.map_err(|failure| format!("sending: {failure}"))?;
        }
        if let Some(all) = arrived.map(|arrived| arrived + exchanges.len() as u64) {
            until(|| Ok(self.scene.requests() >= all)).map_err(|error| format!("not all arrive: {error}"))?;
        }
        let configuration = self.scene.shape.label.clone();
        Ok(Begun { step, label: self.label.clone(), expect, exchanges, calls_before, configuration })
    }

    /// Sends a request again until its answer is as expected.
    fn repeat(&mut self, step: &'c Step, expect: &'c Expect, patience: Duration) -> Result<(), String> {
        let end = Instant::now() + patience;
        loop {
            let (before, counted) = (self.problems.len(), self.counted.clone());
            let begun = self.begin(step, expect)?;
            self.finish(begun, false)?;
            if self.problems.len() == before || Instant::now() >= end {
                return Ok(());
            }
            self.problems.truncate(before);
            self.counted = counted;
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until the provider has been asked. If earlier requests are still waiting, this one may
    /// join their call and never make one of its own: then it is enough that the gate has received
    /// it.
    fn until_asked(&self, begun: &Begun<'c>, arrived: u64, may_join: bool) -> Result<(), String> {
        if !may_join {
            return self.scene.provider.wait_for_more_calls_than(begun.calls_before);
        }
        let all = arrived + begun.exchanges.len() as u64;
        until(|| Ok(self.scene.requests() >= all))?;
        let end = Instant::now() + OWN_CALL;
        while Instant::now() < end && self.scene.provider.calls()?.len() <= begun.calls_before {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn join(&mut self, background: &mut Vec<Begun<'c>>, expect: Option<&Expect>) -> Result<(), String> {
        let before = background.iter().map(|begun| begun.calls_before).min();
        for begun in background.drain(..) {
            self.finish(begun, true)?;
        }
        if let (Some(before), Some(expect)) = (before, expect) {
            let calls = self.scene.provider.calls()?;
            for problem in expect.check_calls(calls.get(before..).unwrap_or_default()) {
                self.problem(problem);
            }
        }
        Ok(())
    }

    /// Waits for the answers of a step and compares them.
    fn finish(&mut self, begun: Begun<'c>, in_background: bool) -> Result<(), String> {
        let Begun { step, label, expect, mut exchanges, calls_before, configuration } = begun;
        self.label = label;
        let gone = if step.disconnect_all { exchanges.len() } else { usize::from(step.disconnect_first) };
        if gone > 0 {
            self.scene.provider.wait_for_more_calls_than(calls_before)?;
            let lines = self.scene.lines()?.len();
            drop(exchanges.drain(..gone).collect::<Vec<_>>());
            // Envoy must have seen them disconnect before anything else happens.
            self.scene.wait_for_lines(lines + gone)?;
        }
        let answers: Vec<(Exchange, Result<Observation, String>)> = std::thread::scope(|scope| {
            let waiting: Vec<_> =
                exchanges.into_iter().map(|exchange| scope.spawn(|| exchange.answer())).collect();
            waiting.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        let many = answers.len() > 1;
        let mut observed = Vec::new();
        for (nth, (exchange, answer)) in answers.into_iter().enumerate() {
            let nth = if many { format!("request {nth}: ") } else { String::new() };
            match answer {
                Ok(seen) => observed.push((nth, exchange, seen)),
                Err(problem) => self.problem(format!("{nth}{problem}")),
            }
        }
        let mut told = Vec::new();
        for (nth, exchange, mut seen) in observed {
            let line = self.line(&exchange, expect, &seen)?;
            let Exchange { sent, connection, .. } = exchange;
            drop(connection);
            if let Some(line) = line {
                if line.label != configuration {
                    let label = &line.label;
                    self.problem(format!("{nth}served by configuration {label}, expected {configuration}"));
                }
                self.observe(&line, &mut seen)?;
            }
            told.push((nth, sent, seen));
        }
        let calls = self.scene.provider.calls()?.get(calls_before..).unwrap_or_default().to_vec();
        for (nth, sent, seen) in told {
            let seen = Observation { calls: (!in_background).then(|| calls.clone()), ..seen };
            self.forwarded += usize::from(seen.upstream.is_some());
            if let (Some(decision), Some(reason)) = (seen.decision, &expect.reason)
                && decision != Decision::None
            {
                *self.counted.entry(counter(decision, reason)).or_default() += 1;
            }
            for problem in expect.check(&sent, &seen) {
                self.problem(format!("{nth}{problem}"));
            }
        }
        if step.disconnect_all {
            for problem in expect.check_calls(&calls) {
                self.problem(problem);
            }
        }
        Ok(())
    }

    /// The request's access log line. Envoy writes none for what it never parsed as a request.
    fn line(
        &mut self,
        exchange: &Exchange,
        expect: &Expect,
        seen: &Observation,
    ) -> Result<Option<Line>, String> {
        let raw = exchange.sent.bytes.is_some() || expect.decided() == Decision::None || seen.closed;
        // An upgraded connection is one long request: its line comes when it ends, see
        // `Exchange::answer`.
        let patience = if raw { Duration::from_millis(200) } else { LINE };
        let line = self.scene.line(exchange.port, exchange.earlier, patience)?;
        if line.is_none() && !raw {
            self.problem("no access log line");
        }
        Ok(line)
    }

    /// Adds what the log line and the service show about a request.
    fn observe(&self, line: &Line, seen: &mut Observation) -> Result<(), String> {
        seen.details.clone_from(&line.details);
        let details = line.details.as_deref().unwrap_or_default();
        let own = details.strip_prefix("avnology_gate{").and_then(|rest| rest.strip_suffix('}'));
        seen.filter_state = Some(line.gate.clone());
        let state: Value =
            line.gate.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let member = |name: &str| state[name].as_str().map(str::to_owned);
        seen.reason = own.map(str::to_owned).or_else(|| member("reason"));
        seen.route = member("route");
        seen.subject = member("subject");
        seen.decision = match state["decision"].as_str() {
            Some("allow") => Some(Decision::Allow),
            Some("deny") => Some(Decision::Deny),
            Some("shadow_deny") => Some(Decision::ShadowDeny),
            Some("fail_open") => Some(Decision::FailOpen),
            Some(other) => return Err(format!("decision {other:?} in the filter state")),
            None if matches!(own, Some("ready" | "challenge")) => Some(Decision::Allow),
            None if own.is_some() => Some(Decision::Deny),
            // Allowed without filter state, as allowed requests are unless configured otherwise.
            None if details == "via_upstream" => None,
            None => Some(Decision::None),
        };
        if let Some(id) = &line.request_id {
            seen.upstream = self.scene.saw(id)?.map(saw);
        }
        Ok(())
    }

    /// Checks the end of a case.
    fn settle(&mut self) -> Result<(), String> {
        // Every request that reached the service must have been checked; one that arrived late, or
        // under another id, was not.
        let seen = self.scene.upstream.seen()?;
        if seen.len() != self.forwarded && self.problems.is_empty() {
            let paths: Vec<_> = seen.iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
            self.problem(format!(
                "the upstream saw {} requests, {} were expected: {paths:?}",
                seen.len(),
                self.forwarded
            ));
        }
        // Other cases use the same counters, so these may be higher.
        let counted = std::mem::take(&mut self.counted);
        let short = |now: &BTreeMap<String, u64>| {
            let moved = |name: &String| {
                now.get(name).unwrap_or(&0).saturating_sub(*self.counters.get(name).unwrap_or(&0))
            };
            counted
                .iter()
                .find(|(name, count)| moved(name) < **count)
                .map(|(name, count)| format!("{name}: {} of {count}", moved(name)))
        };
        if let Some(short) = short(&self.scene.envoy.decisions()) {
            self.problem(format!("counter {short}"));
        }
        Ok(())
    }
}

/// The time between two requests of a step that is repeated.
const PAUSE: Duration = Duration::from_millis(20);

/// The size of a body that a connection accepts even if its peer does not read.
const SMALL: usize = 4096;

/// How long a request that may join a call may take to make one of its own instead.
const OWN_CALL: Duration = Duration::from_millis(150);

fn counter(decision: Decision, reason: &str) -> String {
    let decision = match decision {
        Decision::Allow => "allow",
        Decision::Deny => "deny",
        Decision::ShadowDeny => "shadow_deny",
        Decision::FailOpen => "fail_open",
        Decision::None => "none",
    };
    format!("{decision}.{reason}")
}

impl Exchange {
    fn send(&mut self) -> Result<(), Failure> {
        self.began = Instant::now();
        match &self.sent.bytes {
            Some(bytes) => self.connection.send_raw(bytes),
            None => self.connection.send(&on_the_wire(&self.sent)),
        }
    }

    /// Waits for the answer, if there is one.
    fn answer(mut self) -> (Self, Result<Observation, String>) {
        let answer = self.connection.answer(PATIENCE);
        let elapsed = self.began.elapsed();
        let seen = match answer {
            Ok(answer) => {
                let text =
                    |(name, value): (Vec<u8>, Vec<u8>)| (String::from_utf8_lossy(&name).into_owned(), value);
                // A gRPC refusal has its status in the headers, as a trailers-only response.
                let headers = answer.headers.into_iter().chain(answer.trailers).map(text).collect();
                Ok(Observation {
                    status: answer.status,
                    headers,
                    body: answer.body,
                    elapsed,
                    ..Observation::default()
                })
            }
            Err(Failure::Closed(_)) => Ok(Observation { closed: true, elapsed, ..Observation::default() }),
            Err(failure) => Err(failure.to_string()),
        };
        if let Ok(Observation { status: 101, .. }) = seen
            && let Err(failure) = self.connection.end()
        {
            return (self, Err(failure.to_string()));
        }
        (self, seen)
    }
}

/// A request of the corpus as the client sends it.
fn on_the_wire(sent: &Outgoing) -> Ask {
    let fields = |pairs: &[(String, Vec<u8>)]| {
        pairs.iter().map(|(n, v)| (n.clone().into_bytes(), v.clone())).collect()
    };
    let mut ask = Ask {
        method: sent.method.clone(),
        path: sent.path.clone(),
        authority: sent.authority.clone(),
        headers: fields(&sent.headers),
        body: None,
        chunked: sent.chunks.is_some(),
        trailers: fields(&sent.trailers),
        incomplete: sent.incomplete,
    };
    let Some(body) = &sent.body else { return ask };
    let pieces = sent.chunks.unwrap_or(1).max(1);
    ask.body = Some(body.chunks(body.len().div_ceil(pieces).max(1)).map(<[u8]>::to_vec).collect());
    ask
}

fn saw(seen: Seen) -> UpstreamSaw {
    let bytes = |pairs: Vec<(String, String)>| pairs.into_iter().map(|(n, v)| (n, v.into_bytes())).collect();
    UpstreamSaw {
        method: seen.method,
        path: seen.path,
        headers: bytes(seen.headers),
        trailers: bytes(seen.trailers),
        body_bytes: seen.body_bytes,
        body_sha256: seen.body_sha256,
    }
}
