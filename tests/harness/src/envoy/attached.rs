//! An Envoy that somebody else started: in a container, with its ports published on this machine
//! and a directory in common.

use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use super::{Envoy, GLANCE, Refused, SLOW, Tables};
use crate::client;
use crate::control::{Provider, Upstream};
use crate::sample;

/// What the tests have to know about it.
pub struct Attached {
    /// Its admin port, as published.
    pub admin: SocketAddr,
    /// How many workers it has.
    pub workers: u32,
    /// The directory for its files and logs, under the same path on both sides.
    pub directory: PathBuf,
    /// The module, as Envoy sees it.
    pub module: PathBuf,
    /// The lanes that scenes may use, each by one scene at a time.
    pub lanes: Vec<Lane>,
    /// Whether it still runs.
    pub alive: Box<dyn Fn() -> bool + Send + Sync>,
    free: Arc<Pool>,
}

/// A provider, a service and a published port: what a scene needs if it cannot make its own.
#[derive(Clone, Debug)]
pub struct Lane {
    /// The name of the listener and of its clusters.
    pub name: String,
    /// Where the listener listens, in the container.
    pub inside: SocketAddr,
    /// Where that is published.
    pub outside: SocketAddr,
    /// The provider's host, as Envoy resolves it; its API is on port 8080.
    pub provider_host: String,
    /// The provider's control port.
    pub provider: Provider,
    /// The service's host, as Envoy resolves it; it is on port 8080.
    pub service_host: String,
    /// The service.
    pub service: Upstream,
}

#[derive(Default)]
struct Pool {
    lanes: Mutex<Vec<Lane>>,
    returned: Condvar,
}

/// A lane that a scene is using. Dropping this returns it.
pub struct Lease {
    /// The lane.
    pub lane: Lane,
    pool: Arc<Pool>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.lanes.lock().unwrap_or_else(PoisonError::into_inner).push(self.lane.clone());
        self.pool.returned.notify_one();
    }
}

impl Lane {
    /// The provider's cluster.
    pub fn cluster(&self) -> String {
        format!("avnology-{}", self.name)
    }

    /// The service's cluster.
    pub fn behind(&self) -> String {
        format!("upstream-{}", self.name)
    }

    fn clusters(&self) -> Vec<Value> {
        let cluster = |shipped: &str, name: &str, host: &str| {
            let mut cluster = sample::cluster(shipped, name, Some(SocketAddr::from(([0, 0, 0, 0], 8080))));
            cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
                ["address"] = json!(host);
            cluster
        };
        vec![
            cluster("avnology", &self.cluster(), &self.provider_host),
            cluster("upstream", &self.behind(), &self.service_host),
        ]
    }
}

impl Attached {
    /// Describes an Envoy in a container.
    pub fn new(
        admin: SocketAddr,
        workers: u32,
        directory: &Path,
        module: &Path,
        lanes: Vec<Lane>,
        alive: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        let pool = Pool { lanes: Mutex::new(lanes.clone()), returned: Condvar::new() };
        Self {
            admin,
            workers,
            directory: directory.to_owned(),
            module: module.to_owned(),
            lanes,
            alive: Box::new(alive),
            free: Arc::new(pool),
        }
    }

    /// Writes the bootstrap for an Envoy that is to be attached: `envoy.json` in the directory,
    /// with everything that it names. The log must go to `envoy.log` there.
    pub fn prepare(directory: &Path) -> Result<(), String> {
        let mut bootstrap =
            sample::bootstrap(&directory.join("listeners.json"), &directory.join("clusters.json"));
        bootstrap["admin"]["address"]["socket_address"] = json!({"address": "0.0.0.0", "port_value": 9901});
        let empty = json!({"version_info": "0", "resources": []}).to_string();
        for (name, text) in [
            ("envoy.json", bootstrap.to_string()),
            ("listeners.json", empty.clone()),
            ("clusters.json", empty),
        ] {
            let path = directory.join(name);
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }

    pub(super) fn lives(&self) -> bool {
        (self.alive)()
    }
}

impl Envoy {
    /// Waits until the Envoy is ready and gives it the lanes' clusters.
    pub fn attach(attached: Attached) -> Result<Self, String> {
        let lanes = attached.lanes.clone();
        let envoy = Self {
            workers: attached.workers,
            admin: attached.admin,
            directory: attached.directory.clone(),
            module: attached.module.clone(),
            // As `Attached::prepare` has written them.
            tables: Mutex::new(Tables { written: ["[]".to_owned(), "[]".to_owned()], ..Tables::default() }),
            process: None,
            attached: Some(attached),
        };
        let end = Instant::now() + SLOW;
        while envoy.get("/ready").map_or(true, |body| body.trim() != "LIVE") {
            if Instant::now() > end {
                return Err(format!("Envoy is not ready; its last words:\n{}", envoy.log()));
            }
            std::thread::sleep(GLANCE);
        }
        let clusters = lanes.iter().flat_map(Lane::clusters).collect();
        envoy.put_clusters(clusters).map_err(|Refused(text)| text)?;
        Ok(envoy)
    }

    /// A lane for a scene, once there is a free one; `None` for an Envoy of our own, where scenes
    /// make what they need.
    pub fn lease(&self) -> Option<Lease> {
        let pool = &self.attached.as_ref()?.free;
        let mut lanes = pool.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(lane) = lanes.pop() {
                return Some(Lease { lane, pool: Arc::clone(pool) });
            }
            lanes = pool.returned.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Opens a connection to a listener.
    ///
    /// A relay publishes the container's port, and Envoy would see the relay's port. So the PROXY
    /// protocol passes on ours, since access log lines are found by it.
    pub fn open(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let mut stream = client::connect(address)?;
        if self.attached.is_some() {
            let port = stream.local_addr()?.port();
            write!(stream, "PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}\r\n", address.port())?;
        }
        Ok(stream)
    }

    /// A listener as this Envoy must have it: at its lane's address, and reading the PROXY header
    /// that [`Envoy::open`] sends.
    pub(super) fn fit(&self, name: &str, mut listener: Value) -> (String, Value) {
        let lanes = self.attached.iter().flat_map(|attached| &attached.lanes);
        let address = &listener["address"]["socket_address"]["port_value"];
        let Some(lane) = lanes.into_iter().find(|lane| *address == json!(lane.outside.port())) else {
            return (name.to_owned(), listener);
        };
        let lane = lane.clone();
        listener["name"] = json!(lane.name);
        let socket = &mut listener["address"]["socket_address"];
        socket["address"] = json!(lane.inside.ip().to_string());
        socket["port_value"] = json!(lane.inside.port());
        listener["listener_filters"] = json!([{
            "name": "envoy.filters.listener.proxy_protocol",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"}
        }]);
        sample::client_as_told(&mut listener);
        (lane.name, listener)
    }
}
