//! The containers of `envoy/docker-compose.yaml`, started for a test and removed after it.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::control::until;
use crate::sample;

/// Containers under a project name of their own. Dropping it removes them, with their networks and
/// volumes.
pub struct Project {
    name: String,
    directory: PathBuf,
    files: Vec<PathBuf>,
    environment: Vec<(String, String)>,
}

/// The existing projects, for [`abandon`].
static LIVING: Mutex<Vec<(String, Vec<PathBuf>)>> = Mutex::new(Vec::new());

impl Project {
    /// Creates a project; nothing is started yet. `files` are merged over the shipped one.
    pub fn new(files: &[&str]) -> Result<Self, String> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name =
            format!("avnology-gate-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir_all(&directory)
            // Envoy writes here as another user.
            .and_then(|()| fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)))
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        let files: Vec<PathBuf> =
            ["envoy/docker-compose.yaml"].iter().chain(files).map(|file| sample::root().join(file)).collect();
        living().push((name.clone(), files.clone()));
        let mut project = Self { name, directory, files, environment: Vec::new() };
        project.set("GATE_DIRECTORY", project.directory.clone());
        project.set("GATE_MODULE", sample::module()?);
        Ok(project)
    }

    /// A directory that is mounted as the project's files describe, and removed with the project.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Sets a variable for the files.
    pub fn set(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.environment.push((name.to_owned(), value.as_ref().to_string_lossy().into_owned()));
    }

    /// Starts the services, or all of them, and waits until those that others depend on are
    /// healthy.
    pub fn up(&self, services: &[&str]) -> Result<(), String> {
        self.compose(&[&["up", "--detach"], services].concat()).map(|_| ())
    }

    /// Runs a compose command.
    pub fn compose(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = compose(&self.name, &self.files);
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).args(arguments);
        output(command)
    }

    /// A service's container.
    pub fn container(&self, service: &str) -> Result<String, String> {
        let id = self.compose(&["ps", "--quiet", service])?;
        match id.trim() {
            "" => Err(format!("{service} has no container")),
            id => Ok(id.to_owned()),
        }
    }

    /// Where a container's port is published.
    pub fn published(&self, service: &str, port: u16) -> Result<SocketAddr, String> {
        let text = docker(&["port", &self.container(service)?, &port.to_string()])?;
        let first = text.lines().next().unwrap_or_default();
        first.parse().map_err(|_| format!("{service}'s port {port} is published as {text:?}"))
    }

    /// The network of the containers.
    pub fn network(&self) -> String {
        format!("{}_default", self.name)
    }

    /// Waits until a service's health check succeeds.
    pub fn healthy(&self, service: &str) -> Result<(), String> {
        let id = self.container(service)?;
        let ask = || docker(&["inspect", "--format", "{{.State.Health.Status}}", &id]);
        until(|| Ok(ask()?.trim() == "healthy"))
            .map_err(|error| format!("{service} is not healthy: {error}; {}", self.logs(service)))
    }

    /// What a service has logged.
    pub fn logs(&self, service: &str) -> String {
        let read = || {
            let id = self.container(service)?;
            let output = Command::new("docker")
                .args(["logs", &id])
                .stdin(Stdio::null())
                .output()
                .map_err(|error| error.to_string())?;
            let text = [output.stdout, output.stderr].concat();
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        read().unwrap_or_else(|error: String| error)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::env::var_os("GATE_KEEP").is_some() {
            eprintln!("kept: {}, {}", self.name, self.directory.display());
            return;
        }
        remove(&self.name, &self.files);
        living().retain(|(name, _)| *name != self.name);
        // What cannot be removed stays in the machine's temporary directory.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn living() -> std::sync::MutexGuard<'static, Vec<(String, Vec<PathBuf>)>> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all existing projects, for a process that ends without dropping them.
pub fn abandon() {
    for (name, files) in living().drain(..) {
        remove(&name, &files);
        // As above.
        let _ = fs::remove_dir_all(std::env::temp_dir().join(&name));
    }
}

fn remove(name: &str, files: &[PathBuf]) {
    let mut command = compose(name, files);
    // A variable that is needed to start must also be set to stop.
    command.env("GATE_DIRECTORY", "/").args(["down", "--volumes", "--remove-orphans", "--timeout", "1"]);
    if let Err(problem) = output(command) {
        eprintln!("{name} cannot be removed: {problem}");
    }
}

/// `tools/compose` finds the installed compose command.
fn compose(name: &str, files: &[PathBuf]) -> Command {
    let mut command = Command::new(sample::root().join("tools/compose"));
    let joined = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(":");
    command.env("COMPOSE_PROJECT_NAME", name).env("COMPOSE_FILE", joined);
    command
}

/// Runs a docker command.
pub fn docker(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("docker");
    command.args(arguments);
    output(command)
}

fn output(mut command: Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    Err(format!("`{}` failed:\n{}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)))
}

/// Ports of 127.0.0.1 that are free at this moment, outside the range from which the kernel takes
/// ports for clients.
pub fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    // Different processes start at different ports.
    let mut next = 20_000 + u16::try_from(std::process::id() % 12_000).unwrap_or_default();
    let mut held = Vec::new();
    [(); COUNT].map(|()| {
        loop {
            next = if next < 32_000 { next + 1 } else { 20_000 };
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, next)) {
                held.push(listener);
                return next;
            }
        }
    })
}
