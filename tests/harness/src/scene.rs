//! One listener of a running Envoy with everything that belongs to it: its own stand-in, its own
//! upstream, its own clusters.
//!
//! Scenes share the process, its workers and their VMs, and nothing else, so that many run in
//! parallel.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use standin::Seed;
use upstream::Seen;

use crate::client::{Connection, PATIENCE, Version};
use crate::control::{Provider, Upstream, until};
use crate::envoy::{Envoy, Lease, Refused};
use crate::port::Reserved;
use crate::sample::{self, Policy, Shape};

/// A scene. Dropping it removes its listener and clusters.
pub struct Scene {
    /// The process that runs it.
    pub envoy: Arc<Envoy>,
    /// Its listener's configuration; [`Scene::put`] applies it.
    pub shape: Shape,
    /// Where the listener listens.
    pub address: SocketAddr,
    /// The provider.
    pub provider: Provider,
    /// The service.
    pub upstream: Upstream,
    /// The cluster of the provider: what `provider.cluster` must name.
    pub cluster: String,
    clusters: Vec<String>,
    labels: u64,
    around: Around,
}

/// The two servers of a scene, and the port of its listener.
enum Around {
    /// Started for it.
    Own { standin: standin::Running, _service: upstream::Running, _port: Reserved },
    /// Lent to it; the lane's clusters stay.
    Lent { _lease: Lease },
}

/// A line of the access log.
#[derive(Clone, Debug, Deserialize)]
pub struct Line {
    /// The client's address and port.
    pub client: Option<String>,
    /// `x-request-id`, as the upstream sees it.
    pub request_id: Option<String>,
    /// `%RESPONSE_CODE%`.
    pub status: Option<u16>,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: Option<String>,
    /// The gate's filter state, as it is JSON.
    #[serde(deserialize_with = "state")]
    pub gate: Option<String>,
    /// Which configuration served the request.
    pub label: String,
}

/// The members that are there, of which two are numbers; none where no member is there.
fn state<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let members = BTreeMap::<String, Option<String>>::deserialize(deserializer)?;
    let there = members.into_iter().filter_map(|(name, text)| Some((name, text?)));
    let state: serde_json::Map<String, Value> = there
        .map(|(name, text)| {
            let number = matches!(name.as_str(), "callout_ms" | "secret_index").then(|| text.parse::<u64>());
            let value = number.and_then(Result::ok).map_or(Value::String(text), Value::from);
            (name, value)
        })
        .collect();
    Ok((!state.is_empty()).then(|| Value::Object(state).to_string()))
}

impl Line {
    /// Whether it belongs to a request on a connection with this client port.
    pub fn is_of(&self, port: u16) -> bool {
        let of_client =
            |client: &String| client.rsplit_once(':').is_some_and(|(_, of)| of.parse() == Ok(port));
        self.client.as_ref().is_some_and(of_client)
    }
}

impl Scene {
    /// Starts the provider, the service and their clusters. There is no listener yet.
    pub fn new(envoy: &Arc<Envoy>, name: &str, seed: Seed) -> Result<Self, String> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let readable: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        let name = format!("s{number}-{readable}");
        if let Some(lease) = envoy.lease() {
            return Self::lent(envoy, &name, number, &seed, lease);
        }
        let standin = standin::Running::start(seed);
        let service = upstream::Running::start();
        let api = standin.api;
        let (cluster, behind) = (format!("avnology-{name}"), format!("upstream-{name}"));
        let access_log = envoy.directory().join(format!("{name}.log"));
        let port = Reserved::new(0).map_err(|error| format!("a port: {error}"))?;
        let address = port.address;
        let mut shape = Shape::new(&name, Policy::Shipped, &behind, access_log);
        shape.address = address;
        let scene = Self {
            envoy: Arc::clone(envoy),
            shape,
            address,
            provider: Provider(standin.control),
            upstream: Upstream(service.addr),
            cluster: cluster.clone(),
            clusters: vec![cluster.clone(), behind.clone()],
            labels: 0,
            around: Around::Own { standin, _service: service, _port: port },
        };
        let clusters = vec![
            sample::cluster("avnology", &cluster, Some(api)),
            sample::cluster("upstream", &behind, Some(scene.upstream.0)),
        ];
        envoy.put_clusters(clusters).map_err(|Refused(text)| text)?;
        Ok(scene)
    }

    /// A scene in a lane of an Envoy in a container.
    fn lent(envoy: &Arc<Envoy>, name: &str, number: u64, seed: &Seed, lease: Lease) -> Result<Self, String> {
        let lane = &lease.lane;
        // Resets what the scene before this one has left.
        lane.provider.down(false)?;
        lane.provider.clear()?;
        lane.provider.seed(seed)?;
        lane.service.clear()?;
        let access_log = envoy.directory().join(format!("{name}.log"));
        let mut shape = Shape::new(name, Policy::Shipped, &lane.behind(), access_log);
        shape.address = lane.outside;
        Ok(Self {
            envoy: Arc::clone(envoy),
            shape,
            address: lane.outside,
            provider: lane.provider,
            upstream: lane.service,
            cluster: lane.cluster(),
            clusters: Vec::new(),
            // The listener is the one of the scene before: its labels must not repeat.
            labels: number * 1000,
            around: Around::Lent { _lease: lease },
        })
    }

    /// A scene whose listener serves `policy`, which names the provider's cluster `avnology`.
    pub fn with(envoy: &Arc<Envoy>, name: &str, policy: &Value) -> Result<Self, String> {
        let mut scene = Self::new(envoy, name, Seed::embedded())?;
        scene.configure(policy).map_err(|Refused(text)| text)?;
        Ok(scene)
    }

    /// A further cluster, of this scene alone: with an address, or without any endpoint.
    pub fn add_cluster(&mut self, name: &str, address: Option<SocketAddr>) -> Result<String, String> {
        let name = format!("{name}-{}", self.shape.name);
        self.clusters.push(name.clone());
        let cluster = sample::cluster("avnology", &name, address);
        self.envoy.put_clusters(vec![cluster]).map_err(|Refused(text)| text)?;
        Ok(name)
    }

    /// The address of the provider's API, for what a cluster cannot do; unknown for one in a
    /// container.
    pub fn provider_api(&self) -> Option<SocketAddr> {
        match &self.around {
            Around::Own { standin, .. } => Some(standin.api),
            Around::Lent { .. } => None,
        }
    }

    /// A policy with the provider's cluster under its name in this scene.
    pub fn local(&self, policy: &Value) -> Value {
        let mut policy = policy.clone();
        if let Some(cluster) = policy.pointer_mut("/provider/cluster")
            && cluster == "avnology"
        {
            *cluster = json!(self.cluster);
        }
        policy
    }

    /// Makes the listener serve `policy`. If it is refused, the previous policy stays in effect.
    pub fn configure(&mut self, policy: &Value) -> Result<(), Refused> {
        let policy = serde_json::to_vec_pretty(&self.local(policy)).unwrap_or_default();
        self.put(Policy::Document(policy))
    }

    /// Makes the listener serve `policy` as it is.
    pub fn put(&mut self, policy: Policy) -> Result<(), Refused> {
        let before = (self.shape.policy.clone(), self.shape.label.clone());
        self.labels += 1;
        self.shape.label = self.labels.to_string();
        self.shape.policy = policy;
        match self.envoy.put_listener(&self.shape) {
            Ok(()) => Ok(()),
            Err(refused) => {
                (self.shape.policy, self.shape.label) = before;
                Err(refused)
            }
        }
    }

    /// Restores what was served last, after an update that was refused.
    pub fn put_back(&mut self) -> Result<(), String> {
        self.envoy.put_listener(&self.shape).map_err(|Refused(text)| text)
    }

    /// Opens a connection, to a certain worker or to any.
    pub fn connect(&self, version: Version, worker: Option<u32>) -> Result<Connection, String> {
        match worker {
            Some(worker) => {
                let stream = self.envoy.connect_to(self.address, &self.shape.name, worker)?;
                Connection::over(stream, version).map_err(|error| error.to_string())
            }
            None => self
                .envoy
                .open(self.address)
                .and_then(|stream| Connection::over(stream, version))
                .map_err(|error| error.to_string()),
        }
    }

    /// The gate's own log lines at warning or above, of this scene's plugin.
    pub fn warnings(&self) -> Vec<String> {
        let plugin = format!(" {} ", self.shape.name);
        let log = self.envoy.log();
        let lines = log.lines().filter(|line| line.contains("wasm log") && line.contains(&plugin));
        lines
            .filter(|line| line.contains("[warning]") || line.contains("[error]"))
            .map(str::to_owned)
            .collect()
    }

    /// How many requests have reached the listener's filters so far.
    pub fn requests(&self) -> u64 {
        let name = format!("http.{}.downstream_rq_total", self.shape.name);
        self.envoy
            .stats(&format!("%5Ehttp%5C.{}%5C.downstream_rq_total%24", self.shape.name))
            .get(&name)
            .copied()
            .unwrap_or(0)
    }

    /// All access log lines so far.
    pub fn lines(&self) -> Result<Vec<Line>, String> {
        read_lines(&self.shape.access_log)
    }

    /// The access log line of the `nth` request on a connection with this client port, once it is
    /// there. Envoy writes a line when it has finished the request, too.
    pub fn line(&self, port: u16, nth: usize, patience: Duration) -> Result<Option<Line>, String> {
        let end = Instant::now() + patience;
        loop {
            let lines = self.lines()?;
            if let Some(line) = lines.iter().filter(|line| line.is_of(port)).nth(nth) {
                return Ok(Some(line.clone()));
            }
            if Instant::now() > end {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What the service saw of the request with this id.
    pub fn saw(&self, request_id: &str) -> Result<Option<Seen>, String> {
        let named = |seen: &Seen| {
            seen.headers.iter().any(|(name, value)| name == "x-request-id" && value == request_id)
        };
        Ok(self.upstream.seen()?.into_iter().find(named))
    }

    /// Waits until the log has this many lines.
    pub fn wait_for_lines(&self, count: usize) -> Result<Vec<Line>, String> {
        until(|| Ok(self.lines()?.len() >= count))
            .map_err(|error| format!("{count} access log lines: {error}"))?;
        self.lines()
    }
}

fn read_lines(path: &PathBuf) -> Result<Vec<Line>, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        // Envoy creates the file with its first line.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    // The last line may still be incomplete.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).map_err(|error| format!("{line}: {error}"))).collect()
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.envoy.remove(&self.shape.name, &self.clusters);
    }
}

/// How long a log line may take.
pub const LINE: Duration = PATIENCE;

/// Locked while a scene sends many requests that must be in progress together: crowds of different
/// scenes would delay each other.
pub fn crowd() -> MutexGuard<'static, ()> {
    static CROWD: Mutex<()> = Mutex::new(());
    CROWD.lock().unwrap_or_else(PoisonError::into_inner)
}
