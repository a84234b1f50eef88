//! A real Envoy as a child process, whose listeners and clusters come and go while it runs.

mod attached;
mod sound;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{self, Ask, PATIENCE, Version};
use crate::sample::{self, Shape};
use crate::sys;

pub use attached::{Attached, Lane, Lease};

/// How long Envoy may take for anything: to start, to compile the module, to apply an update.
const SLOW: Duration = Duration::from_secs(60);

/// The interval at which a condition is checked.
const GLANCE: Duration = Duration::from_millis(4);

/// How Envoy is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--concurrency`.
    pub workers: u32,
    /// The environment: the gate's secrets.
    pub environment: Vec<(String, String)>,
    /// The module.
    pub module: PathBuf,
    /// Pass on what Envoy writes to standard output: access log lines that are sent there.
    pub narrate: bool,
}

/// An Envoy that is running. Dropping it ends the process and removes its directory.
pub struct Envoy {
    /// How many workers it has.
    pub workers: u32,
    admin: SocketAddr,
    directory: PathBuf,
    module: PathBuf,
    tables: Mutex<Tables>,
    process: Option<Process>,
    attached: Option<Attached>,
}

/// The configuration that Envoy was last given.
#[derive(Default)]
struct Tables {
    version: u64,
    listeners: BTreeMap<String, Value>,
    clusters: BTreeMap<String, Value>,
    /// The contents of the two files.
    written: [String; 2],
}

/// The child process, owned by a thread of its own: the kernel ends the child when that thread
/// ends, and the thread ends with this process.
pub(crate) struct Process {
    /// Dropping it asks the thread to end the child.
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
    id: u32,
}

/// Envoy refused an update; the text is Envoy's.
#[derive(Debug)]
pub struct Refused(pub String);

impl Envoy {
    /// Finds the binary: `ENVOY_BIN`, or else the one that `make setup` installed.
    pub fn binary() -> Result<PathBuf, String> {
        let (path, hint) = match std::env::var_os("ENVOY_BIN") {
            Some(path) => (PathBuf::from(path), "ENVOY_BIN names it"),
            None => (sample::root().join(".envoy/envoy"), "`make setup` installs it, or set ENVOY_BIN"),
        };
        if path.is_file() { Ok(path) } else { Err(format!("no Envoy at {}: {hint}", path.display())) }
    }

    /// The binary's version, as it says itself.
    pub fn version() -> Result<semver::Version, String> {
        let binary = Self::binary()?;
        let output = Command::new(&binary).arg("--version").output();
        let output = output.map_err(|error| format!("{}: {error}", binary.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        // `PATH  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`; between releases `1.41.0-dev`.
        let version = text.split_once(" version: ").and_then(|(_, rest)| rest.split('/').nth(1));
        let version = version.and_then(|version| semver::Version::parse(version).ok());
        let version = version.ok_or_else(|| format!("{} says no version: {text}", binary.display()))?;
        Ok(semver::Version::new(version.major, version.minor, version.patch))
    }

    /// Starts Envoy and waits until it is ready.
    pub fn start(options: Options) -> Result<Self, String> {
        Self::start_edited(options, |_| Ok(()))
    }

    /// The same, with a bootstrap that differs.
    pub fn start_edited(
        options: Options,
        edit: impl FnOnce(&mut Value) -> Result<(), String>,
    ) -> Result<Self, String> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("avnology-gate-{}-{number}", std::process::id()));
        let io = |error: std::io::Error| format!("{}: {error}", directory.display());
        fs::create_dir_all(&directory).map_err(io)?;
        let mut envoy = Self {
            workers: options.workers,
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            directory: directory.clone(),
            module: options.module,
            tables: Mutex::default(),
            process: None,
            attached: None,
        };
        envoy.write(&mut envoy.tables()).map_err(io)?;
        let mut bootstrap = sample::bootstrap(&envoy.listener_file(), &envoy.cluster_file());
        edit(&mut bootstrap)?;
        fs::write(directory.join("envoy.json"), bootstrap.to_string()).map_err(io)?;
        let log = File::create(envoy.log_file()).map_err(io)?;

        let mut command = Command::new(Self::binary()?);
        command
            .env_clear()
            .envs(options.environment)
            .arg("--config-path")
            .arg(directory.join("envoy.json"))
            .args(["--concurrency", &options.workers.to_string()])
            .arg("--admin-address-path")
            .arg(directory.join("admin"))
            // The Envoys on one machine are independent of each other.
            .arg("--disable-hot-restart")
            // The tests read decisions from access log lines.
            .args(["--file-flush-interval-msec", "5"])
            // An old listener's active requests finish; its idle connections are closed soon.
            .args(["--drain-time-s", "5", "--drain-strategy", "immediate"])
            // The gate's debug lines are searched for secrets.
            .args(["--log-level", "warning", "--component-log-level", "wasm:debug"])
            // Ctrl-C must reach this process only, which then stops Envoy.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(if options.narrate { Stdio::inherit() } else { Stdio::null() })
            .stderr(log);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        envoy.process = Some(Process::start(command)?);

        let end = Instant::now() + SLOW;
        loop {
            let address =
                fs::read_to_string(directory.join("admin")).ok().and_then(|text| text.trim().parse().ok());
            if let Some(address) = address {
                envoy.admin = address;
                if envoy.get("/ready").is_ok_and(|body| body.trim() == "LIVE") {
                    return Ok(envoy);
                }
            }
            let ended = !envoy.process.as_ref().is_some_and(Process::lives);
            if ended || Instant::now() > end {
                let how = if ended { "ended at start-up" } else { "is not ready" };
                let log = fs::read_to_string(envoy.log_file()).unwrap_or_default();
                let tail = &log[log.char_indices().rev().nth(4000).map_or(0, |(at, _)| at)..];
                return Err(format!("Envoy {how}; its last words:\n{tail}"));
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// The directory for logs, removed with the process.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Envoy's own log, including the gate's lines.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// The admin port.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Whether the process still runs.
    pub fn lives(&self) -> bool {
        match &self.attached {
            Some(attached) => attached.lives(),
            None => self.process.as_ref().is_some_and(Process::lives),
        }
    }

    /// The process id, if we started the process.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.id)
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("envoy.log")
    }

    fn listener_file(&self) -> PathBuf {
        self.directory.join("listeners.json")
    }

    fn cluster_file(&self) -> PathBuf {
        self.directory.join("clusters.json")
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a GET to the admin port.
    pub fn get(&self, path: &str) -> Result<String, String> {
        self.admin_ask("GET", path)
    }

    /// Sends a POST to the admin port.
    pub fn post(&self, path: &str) -> Result<String, String> {
        self.admin_ask("POST", path)
    }

    fn admin_ask(&self, method: &str, path: &str) -> Result<String, String> {
        let ask = Ask::new(method, path, "admin").header("connection", "close");
        match client::ask(self.admin, Version::Http1, &ask) {
            Ok(answer) if answer.status == 200 => Ok(answer.text()),
            Ok(answer) => Err(format!("{path}: {} {}", answer.status, answer.text())),
            Err(failure) => Err(format!("{path}: {failure}")),
        }
    }

    /// The counters and gauges whose names match a regular expression, without those that are zero
    /// or were never used.
    pub fn stats(&self, filter: &str) -> BTreeMap<String, u64> {
        let text = self.get(&format!("/stats?usedonly&filter={filter}")).unwrap_or_default();
        let pairs = text.lines().filter_map(|line| line.split_once(": "));
        pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
    }

    /// The gate's decisions of all routes together, by `decision.reason`.
    pub fn decisions(&self) -> BTreeMap<String, u64> {
        let mut decisions = BTreeMap::new();
        for (name, count) in self.stats("avnology_gate_decisions_total") {
            let mut parts = name.split('.').skip(2);
            if let (Some("decision"), Some(decision), Some("reason"), Some(reason)) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            {
                *decisions.entry(format!("{decision}.{reason}")).or_default() += count;
            }
        }
        decisions
    }

    /// Adds or replaces clusters and waits until Envoy uses them.
    pub fn put_clusters(&self, clusters: Vec<Value>) -> Result<(), Refused> {
        let names: Vec<String> =
            clusters.iter().map(|cluster| cluster["name"].as_str().unwrap_or_default().to_owned()).collect();
        let version = self.update(|tables| {
            tables.clusters.extend(names.iter().cloned().zip(clusters));
        });
        for name in &names {
            self.taken("clusters", name, version, None)?;
        }
        Ok(())
    }

    /// Adds or replaces a listener and waits until it serves. A refused one changes nothing: the
    /// previous one keeps serving.
    pub fn put_listener(&self, shape: &Shape) -> Result<(), Refused> {
        self.put_raw_listener(&shape.name, sample::listener(shape, &self.module))
    }

    /// Like [`Envoy::put_listener`], for a listener that is built by hand.
    pub fn put_raw_listener(&self, name: &str, listener: Value) -> Result<(), Refused> {
        let (name, listener) = self.fit(name, listener);
        let label = sample::label(&listener).map(str::to_owned);
        let version = self.update(|tables| {
            tables.listeners.insert(name.clone(), listener);
        });
        self.taken("listeners", &name, version, label.as_deref())
    }

    /// Removes a listener and clusters. Their connections drain; this does not wait for that.
    pub fn remove(&self, listener: &str, clusters: &[String]) {
        self.update(|tables| {
            tables.listeners.remove(listener);
            tables.clusters.retain(|name, _| !clusters.contains(name));
        });
    }

    fn update(&self, change: impl FnOnce(&mut Tables)) -> u64 {
        let mut tables = self.tables();
        change(&mut tables);
        tables.version += 1;
        self.write(&mut tables).unwrap_or_else(|error| panic!("{}: {error}", self.directory.display()));
        tables.version
    }

    /// Writes the files whose content has changed, each by a rename: Envoy watches for moves.
    fn write(&self, tables: &mut Tables) -> std::io::Result<()> {
        let Tables { version, listeners, clusters, written } = tables;
        let files = [(self.cluster_file(), clusters), (self.listener_file(), listeners)];
        for ((file, resources), written) in files.into_iter().zip(written) {
            let resources: Vec<&Value> = resources.values().collect();
            let text = json!(resources).to_string();
            if *written == text {
                continue;
            }
            let response = json!({"version_info": version.to_string(), "resources": resources});
            let next = file.with_extension("next");
            fs::write(&next, response.to_string())?;
            fs::rename(&next, &file)?;
            *written = text;
        }
        Ok(())
    }

    /// Waits until Envoy has applied this version of a resource, or a later one, or has refused it.
    /// A listener is identified by its label: Envoy keeps the old version number if it replaces
    /// filter chains only, and reports no version number of what it refused.
    fn taken(&self, kind: &str, name: &str, version: u64, label: Option<&str>) -> Result<(), Refused> {
        let path = match kind {
            "listeners" => format!("/config_dump?resource=dynamic_listeners&name_regex={}", exactly(name)),
            _ => format!("/config_dump?resource=dynamic_active_clusters&name_regex={}", exactly(name)),
        };
        let number = |value: &Value| {
            value["version_info"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0_u64)
        };
        let end = Instant::now() + SLOW;
        loop {
            let dump: Value =
                self.get(&path).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            for entry in dump["configs"].as_array().into_iter().flatten() {
                let active = if kind == "listeners" { &entry["active_state"] } else { entry };
                let error = &entry["error_state"];
                if error.is_object() && sample::label(&error["failed_configuration"]) == label {
                    return Err(Refused(error["details"].as_str().unwrap_or_default().to_owned()));
                }
                let is_it = if label.is_some() {
                    sample::label(&active["listener"]) == label
                } else {
                    number(active) >= version
                };
                if is_it && !entry["warming_state"].is_object() {
                    return Ok(());
                }
            }
            // Neither is a refusal, and no test may mistake it for one.
            assert!(self.lives(), "Envoy has ended:\n{}", self.log());
            assert!(
                Instant::now() < end,
                "Envoy took neither version {version} of {name} nor refused it: {dump}"
            );
            std::thread::sleep(GLANCE);
        }
    }

    /// Opens a connection that a certain worker has accepted.
    ///
    /// The kernel chooses the worker, and only the listener's statistics show which one it was, so
    /// one connection is opened at a time until the right worker accepts one. `stat_prefix` names
    /// the listener.
    pub fn connect_to(
        &self,
        address: SocketAddr,
        stat_prefix: &str,
        worker: u32,
    ) -> Result<TcpStream, String> {
        if self.workers == 1 {
            return self.open(address).map_err(|error| error.to_string());
        }
        let accepted =
            || self.stats(&format!("%5Elistener%5C.{stat_prefix}%5C.worker_.*downstream_cx_total"));
        let total = |counters: &BTreeMap<String, u64>| counters.values().sum::<u64>();
        let wanted = format!("worker_{worker}.");
        let end = Instant::now() + PATIENCE;
        let mut before = accepted();
        // The others stay open until the right one is found: the kernel must choose anew, not
        // repeat itself.
        let mut others = Vec::new();
        while Instant::now() < end {
            let stream = self.open(address).map_err(|error| error.to_string())?;
            let after = loop {
                let now = accepted();
                if total(&now) > total(&before) || Instant::now() > end {
                    break now;
                }
                std::thread::sleep(GLANCE);
            };
            let grown = |(name, count): (&String, &u64)| {
                name.contains(&wanted) && before.get(name).unwrap_or(&0) < count
            };
            if after.iter().any(grown) {
                return Ok(stream);
            }
            others.push(stream);
            before = after;
        }
        Err(format!("worker {worker} accepted none of {} connections", others.len()))
    }
}

/// A regular expression for this name alone, as a part of a query.
fn exactly(name: &str) -> String {
    let mut query = "%5E".to_owned();
    for byte in name.bytes() {
        match byte {
            b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => query.push(byte.into()),
            // A mesh's cluster has `|` in its name.
            _ => query += &format!("%5C%{byte:02X}"),
        }
    }
    query + "%24"
}

impl Drop for Envoy {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.end();
        }
        if std::env::var_os("GATE_KEEP").is_none() {
            // What cannot be removed stays in the machine's temporary directory.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

impl Process {
    /// Ends the child, and waits until it has ended.
    pub(crate) fn end(self) {
        drop(self.stop);
        // The thread only waits for the child.
        let _ = self.thread.join();
    }

    /// Whether the child still runs.
    pub(crate) fn lives(&self) -> bool {
        !self.thread.is_finished()
    }

    pub(crate) fn start(mut command: Command) -> Result<Self, String> {
        let (started, outcome) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut child = match sys::die_with_us(&mut command).spawn() {
                Ok(child) => child,
                Err(error) => {
                    // The receiver waits just below.
                    let _ =
                        started.send(Err(format!("{}: {error}", command.get_program().to_string_lossy())));
                    return;
                }
            };
            let _ = started.send(Ok(child.id()));
            // Checks regularly whether the child has ended by itself, until it is asked to end it.
            while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(Duration::from_millis(50)) {
                if !matches!(child.try_wait(), Ok(None)) {
                    return;
                }
            }
            // A child that has just ended cannot be killed, and is waited for all the same.
            let _ = child.kill();
            let _ = child.wait();
        });
        let id = outcome.recv().map_err(|error| error.to_string())??;
        Ok(Self { stop, thread, id })
    }
}
