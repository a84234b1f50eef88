//! A real Envoy with two workers or more, a provider and a service of its own: what each scenario plays on.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;

use harness::control::until;
use harness::corpus::ENVIRONMENT;
use harness::envoy::{Envoy, Options, Refused};
use harness::port::Reserved;
use harness::sample::{self, Policy, Shape};
use serde_json::{Value, json};

use crate::provider::{Provider, Service};
use crate::report::{Row, Tally};
use crate::stub::Stub;
use crate::wire::{Reply, Wire, request};

/// As shipped.
pub(crate) const WORKERS: u32 = 2;

/// The listener's name, and that of its statistics.
const NAME: &str = "chaos";

/// A stage. Dropping it ends everything.
pub(crate) struct Stage {
    pub(crate) envoy: Envoy,
    pub(crate) provider: Provider,
    port: Reserved,
    _service: Stub,
}

/// The policy of all scenarios: the shipped provider, routes for what is asked here, and what the
/// scenario changes at the top.
pub(crate) fn policy(changes: Value) -> Value {
    let shipped = sample::policy();
    let mut policy = json!({
        "provider": shipped["provider"],
        "credentials": shipped["credentials"],
        "identity_headers": shipped["identity_headers"],
        "routes": [
            {"name": "any", "match": {"path": "/any"}},
            {"name": "open", "match": {"path": "/open"}, "on_provider_error": "allow"},
            {"name": "profile", "match": {"path": "/profile"}, "require": {"scopes": {"all": ["profile"]}}},
            {"name": "admin", "match": {"path": "/admin"}, "require": {"scopes": {"all": ["admin"]}}},
            {"name": "project", "match": {"methods": ["PUT"], "path": "/projects/{id}"},
             "require": {"permissions": {"all": [{"relation": "editor", "object": "project:{path.id}"}]}}}
        ]
    });
    merge(&mut policy, changes);
    policy
}

fn merge(into: &mut Value, changes: Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (name, change) in changes {
                merge(into.entry(name).or_insert(Value::Null), change);
            }
        }
        (into, change) => *into = change,
    }
}

impl Stage {
    /// Starts everything, with as many workers as are shipped.
    pub(crate) fn start(changes: Value) -> Result<Self, String> {
        Self::with(WORKERS, changes)
    }

    /// Starts everything.
    pub(crate) fn with(workers: u32, changes: Value) -> Result<Self, String> {
        let port = Reserved::new(0).map_err(|error| format!("a port: {error}"))?;
        let provider = Provider::start()?;
        let service = Stub::start(std::sync::Arc::new(Service))?;
        let environment = ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let module = sample::module()?;
        let envoy = Envoy::start(Options { workers, environment, module, narrate: false })?;
        // A line per refused request would be all that a flood's disk is good for.
        envoy.post("/logging?wasm=info")?;
        let refused = |Refused(text)| text;
        let clusters = vec![
            sample::cluster("avnology", "avnology", Some(provider.stub.address)),
            sample::cluster("upstream", "upstream", Some(service.address)),
        ];
        envoy.put_clusters(clusters).map_err(refused)?;
        let document = policy(changes).to_string().into_bytes();
        let mut shape = Shape::new(NAME, Policy::Document(document), "upstream", PathBuf::from("/dev/null"));
        shape.address = port.address;
        envoy.put_listener(&shape).map_err(|Refused(text)| format!("{text}\n{}", envoy.log()))?;
        Ok(Self { envoy, provider, port, _service: service })
    }

    /// Takes the service's only endpoint away.
    pub(crate) fn service_goes(&self) -> Result<(), String> {
        let empty = sample::cluster("upstream", "upstream", None);
        self.envoy.put_clusters(vec![empty]).map_err(|Refused(text)| text)
    }

    /// The provider's endpoints are at these addresses from now on.
    pub(crate) fn provider_at(&self, addresses: &[SocketAddr]) -> Result<(), String> {
        let mut cluster = sample::cluster("avnology", "avnology", addresses.first().copied());
        let endpoint = |address: &SocketAddr| {
            let place = json!({"address": address.ip().to_string(), "port_value": address.port()});
            json!({"endpoint": {"address": {"socket_address": place}}})
        };
        if let Some(endpoints) = cluster.pointer_mut("/load_assignment/endpoints/0/lb_endpoints") {
            *endpoints = addresses.iter().map(endpoint).collect();
        }
        self.envoy.put_clusters(vec![cluster]).map_err(|Refused(text)| text)
    }

    /// The gate's decisions of a kind, such as `deny.circuit_open`; of all kinds that begin so,
    /// where the name ends with a dot.
    pub(crate) fn decisions(&self, kind: &str) -> u64 {
        let counts = self.envoy.decisions();
        let is_meant = |name: &str| name == kind || (kind.ends_with('.') && name.starts_with(kind));
        counts.iter().filter(|(name, _)| is_meant(name)).map(|(_, count)| count).sum()
    }

    /// All the gate's decisions, on one line.
    pub(crate) fn all_decisions(&self) -> String {
        let counts = self.envoy.decisions();
        let text = counts.iter().map(|(name, count)| format!("{name} ×{count}"));
        text.collect::<Vec<_>>().join(", ")
    }

    /// What must hold where the provider was never away: the breaker was shut, and nothing opened.
    pub(crate) fn never_away(&self, row: &mut Row) {
        let (open, opened) = (self.decisions("deny.circuit_open"), self.decisions("fail_open."));
        row.must(open == 0, || format!("{open} × circuit_open"));
        row.must(opened == 0, || format!("{opened} requests were let in for an outage"));
        let told = self.told_away();
        row.must(told == 0, || format!("{told} workers say that the provider is away"));
    }

    /// How often a worker has said that the provider is away, which each does once a minute.
    pub(crate) fn told_away(&self) -> usize {
        self.envoy.log().matches("avnology_gate: circuit_open: ").count()
    }

    /// A counter or gauge of Envoy's.
    pub(crate) fn stat(&self, name: &str) -> u64 {
        let filter = format!("%5E{}%24", name.replace('.', "%5C."));
        self.envoy.stats(&filter).get(name).copied().unwrap_or(0)
    }

    /// Waits until the gate has had so many requests.
    pub(crate) fn arrived(&self, count: u64) -> Result<(), String> {
        until(|| Ok(self.stat(&format!("http.{NAME}.downstream_rq_total")) >= count))
            .map_err(|error| format!("not all {count} requests arrive: {error}"))
    }

    /// How many requests the gate has had.
    pub(crate) fn requests(&self) -> u64 {
        self.stat(&format!("http.{NAME}.downstream_rq_total"))
    }

    /// Waits until Envoy has no request in hand.
    pub(crate) fn idle(&self) -> Result<(), String> {
        until(|| Ok(self.stat(&format!("http.{NAME}.downstream_rq_active")) == 0))
            .map_err(|error| format!("requests are still in hand: {error}"))
    }

    /// Waits until Envoy has no call to the provider in hand.
    pub(crate) fn provider_idle(&self) -> Result<(), String> {
        let gauges = ["cluster.avnology.upstream_rq_active", "cluster.avnology.upstream_rq_pending_active"];
        until(|| Ok(gauges.iter().all(|gauge| self.stat(gauge) == 0)))
            .map_err(|error| format!("calls are still in hand: {error}"))
    }

    /// Opens so many connections, the same number to each worker.
    pub(crate) fn even(&self, count: usize) -> Result<Vec<Wire>, String> {
        let workers = (0..self.envoy.workers).cycle().take(count);
        workers.map(|worker| self.one(worker)).collect()
    }

    /// Opens a connection to this worker.
    pub(crate) fn one(&self, worker: u32) -> Result<Wire, String> {
        self.envoy.connect_to(self.port.address, NAME, worker).and_then(Wire::over)
    }

    /// Opens so many connections, as the kernel shares them out; each worker gets a quarter of its
    /// share at the least, where they are many.
    pub(crate) fn many(&self, count: usize) -> Result<Vec<Wire>, String> {
        let before: Vec<u64> = self.accepted();
        let wires: Vec<Wire> = (0..count).map(|_| Wire::open(self.port.address)).collect::<Result<_, _>>()?;
        let now = || self.accepted().iter().zip(&before).map(|(now, before)| now - before).collect();
        let all = u64::try_from(count).unwrap_or(u64::MAX);
        until(|| {
            let now: Vec<u64> = now();
            Ok(now.iter().sum::<u64>() >= all)
        })?;
        let shares: Vec<u64> = now();
        // Of a few the kernel may give one worker none.
        let share = Some(all / u64::from(self.envoy.workers)).filter(|share| *share >= 32);
        let least = share.unwrap_or(0) / 4;
        if shares.iter().any(|share| *share < least) {
            return Err(format!("the workers share {count} connections as {shares:?}"));
        }
        Ok(wires)
    }

    /// How many connections each worker has accepted.
    fn accepted(&self) -> Vec<u64> {
        let name = |worker| format!("listener.{NAME}.worker_{worker}.downstream_cx_total");
        (0..self.envoy.workers).map(|worker| self.stat(&name(worker))).collect()
    }

    /// The memory of Envoy's process that is in use, in KiB.
    pub(crate) fn memory(&self) -> Result<u64, String> {
        let pid = self.envoy.pid().ok_or("Envoy has no process")?;
        let status =
            std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        line.trim().trim_end_matches(" kB").parse().map_err(|_| format!("VmRSS: {line}"))
    }

    /// What must hold after every scenario: the module is whole, and the provider was asked for
    /// nothing strange.
    pub(crate) fn sound(&self, row: &mut Row) {
        if let Err(problem) = self.envoy.sound() {
            row.fails(problem);
        }
        let strange = self.provider.strange();
        row.must(strange == 0, || format!("{strange} calls that the gate should not make"));
    }
}

/// What one client asks: method, path, token.
pub(crate) type Question = (&'static str, &'static str, String);

/// Asks on all connections at the same time, each from a thread of its own so that all times are
/// true; answers in the connections' order.
pub(crate) fn at_once(
    wires: &mut [Wire],
    question: impl Fn(usize) -> Question + Sync,
) -> Result<Vec<Reply>, String> {
    let question = &question;
    thread::scope(|scope| {
        let asking: Vec<_> = wires
            .iter_mut()
            .enumerate()
            .map(|(nth, wire)| {
                scope.spawn(move || {
                    let (method, path, token) = question(nth);
                    wire.ask(&request(method, path, &token))
                })
            })
            .collect();
        asking.into_iter().map(|asked| asked.join().map_err(|_| "a client panicked".to_owned())?).collect()
    })
}

/// Judges answers; what is not right is told as it was.
pub(crate) fn judge(replies: &[Reply], kind: &'static str, right: impl Fn(usize, &Reply) -> bool) -> Tally {
    let mut tally = Tally::default();
    for (nth, reply) in replies.iter().enumerate() {
        tally.count(if right(nth, reply) { Ok(kind) } else { Err(wrong(reply)) });
    }
    tally
}

/// What was not right about it: it need not be its status alone.
pub(crate) fn wrong(reply: &Reply) -> String {
    let retry = reply.retry_after.map(|seconds| format!(", retry-after {seconds}")).unwrap_or_default();
    format!("{}{retry}", reply.report())
}
