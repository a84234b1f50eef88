//! A real Prometheus with the shipped rules, and the other tools that `tools/prometheus` installs.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{self, Ask, Version};
use crate::envoy::Process;
use crate::sample;

/// How long it may take to start.
const SLOW: Duration = Duration::from_secs(60);

/// Where `tools/prometheus` puts its programs; nothing where it could not.
pub fn tools() -> Option<PathBuf> {
    let folder = sample::root().join(".prometheus");
    folder.join("installed").is_file().then(|| folder.join("bin"))
}

/// A running Prometheus. Dropping it ends it and removes what it has stored.
pub struct Prometheus {
    /// Where it listens.
    pub address: SocketAddr,
    process: Option<Process>,
    folder: PathBuf,
}

impl Prometheus {
    /// Starts one that scrapes `target`, with the shipped configuration but for its intervals.
    ///
    /// # Errors
    /// If it does not start; the text is its own.
    pub fn start(tools: &Path, target: SocketAddr, folder: &Path) -> Result<Self, String> {
        let io = |error: std::io::Error| format!("{}: {error}", folder.display());
        fs::create_dir_all(folder).map_err(io)?;
        let shipped = sample::root().join("envoy/prometheus");
        let mut configuration = sample::shipped("prometheus/prometheus.yml");
        configuration["global"] = json!({"scrape_interval": "200ms", "evaluation_interval": "200ms"});
        configuration["scrape_configs"][0]["static_configs"][0]["targets"] = json!([target.to_string()]);
        let rules = configuration["rule_files"].as_array_mut().ok_or("no rule files")?;
        for file in rules {
            *file = json!(shipped.join(file.as_str().unwrap_or_default()));
        }
        let file = folder.join("prometheus.json");
        fs::write(&file, configuration.to_string()).map_err(io)?;
        // Somebody else may get the port before Prometheus does; then it ends, and says so.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).map_err(io)?;
        let log = folder.join("prometheus.log");
        let mut command = Command::new(tools.join("prometheus"));
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).map_err(io)?);
        let process = Process::start(command)?;
        let end = Instant::now() + SLOW;
        let prometheus = Self { address, process: Some(process), folder: folder.to_owned() };
        while prometheus.get("/-/ready").is_err() {
            if Instant::now() > end || !prometheus.process.as_ref().is_some_and(Process::lives) {
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("Prometheus does not start:\n{said}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(prometheus)
    }

    /// What its API answers.
    ///
    /// # Errors
    /// If that is no success; the text is its own.
    pub fn get(&self, path: &str) -> Result<String, String> {
        let ask = Ask::new("GET", path, "prometheus").header("connection", "close");
        match client::ask(self.address, Version::Http1, &ask) {
            Ok(answer) if answer.status == 200 => Ok(answer.text()),
            Ok(answer) => Err(format!("{path}: {} {}", answer.status, answer.text())),
            Err(failure) => Err(format!("{path}: {failure}")),
        }
    }

    /// What its API has as `data`.
    ///
    /// # Errors
    /// If that is no success; the text is its own.
    pub fn data(&self, path: &str) -> Result<Value, String> {
        let mut answer: Value = serde_json::from_str(&self.get(path)?).map_err(|error| error.to_string())?;
        Ok(answer["data"].take())
    }

    /// The samples that a query has now.
    ///
    /// # Errors
    /// If the query cannot be evaluated.
    pub fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        match self.data(&format!("/api/v1/query?query={encoded}"))?["result"].take() {
            Value::Array(samples) => Ok(samples),
            other => Err(format!("{query}: {other}")),
        }
    }

    /// The only sample of a query; nothing where there is none.
    ///
    /// # Errors
    /// If the query cannot be evaluated, or has several.
    pub fn number(&self, query: &str) -> Result<Option<f64>, String> {
        let samples = self.query(query)?;
        match samples.as_slice() {
            [] => Ok(None),
            [sample] => Ok(sample["value"][1].as_str().and_then(|text| text.parse().ok())),
            several => Err(format!("{query}: {several:?}")),
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.end();
        }
        // What cannot be removed stays in the machine's temporary directory.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
