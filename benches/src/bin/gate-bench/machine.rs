//! What the kernel knows: cores, threads, their time on a core, memory; and the description of the
//! machine.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

/// Who runs where: the worker alone on one core, everything else on the others.
#[derive(Clone, Debug)]
pub(crate) struct Cores {
    /// The worker's.
    pub worker: usize,
    /// Everyone else's.
    pub rest: Vec<usize>,
}

impl Cores {
    /// Divides the cores that this process may use, and leaves the worker's to it: what is started
    /// from now on runs on the others.
    pub(crate) fn divide() -> Result<Self, String> {
        let mut rest = allowed().map_err(|error| format!("sched_getaffinity: {error}"))?;
        let worker = rest.pop().ok_or("no core to run on")?;
        if rest.is_empty() {
            return Err("two cores are needed: one for Envoy's worker, one for everything else".to_owned());
        }
        pin(0, &rest)?;
        Ok(Self { worker, rest })
    }
}

fn allowed() -> io::Result<Vec<usize>> {
    // SAFETY: a `cpu_set_t` is a bit field, for which all zeroes is a value; the call writes no
    // more than the size that it is told.
    let (result, set) = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set), set)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let size = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: only reads a bit below the set's size.
    Ok((0..size).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect())
}

/// Lets a thread run on these cores only; 0 is this one. Threads and processes that it starts
/// inherit that.
fn pin(thread: i32, cores: &[usize]) -> Result<(), String> {
    // SAFETY: all zeroes is the empty set, the cores came from the kernel's own set, and the call
    // only reads.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for core in cores {
            libc::CPU_SET(*core, &mut set);
        }
        libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    match result {
        0 => Ok(()),
        _ => Err(format!("sched_setaffinity: {}", io::Error::last_os_error())),
    }
}

/// Envoy's only worker thread.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    /// Envoy's process.
    pub pid: u32,
    thread: i32,
}

impl Worker {
    /// Finds the worker by its name and puts it on its core.
    pub(crate) fn find(pid: u32, cores: &Cores) -> Result<Self, String> {
        let tasks = format!("/proc/{pid}/task");
        let entries = fs::read_dir(&tasks).map_err(|error| format!("{tasks}: {error}"))?;
        let is_worker = |path: &Path| {
            fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim_end() == "wrk:worker_0")
        };
        let thread = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| is_worker(path))
            .and_then(|path| path.file_name()?.to_str()?.parse().ok())
            .ok_or_else(|| format!("{tasks}: no thread is called wrk:worker_0"))?;
        pin(thread, &[cores.worker])?;
        Ok(Self { pid, thread })
    }

    /// Nanoseconds that the worker has been on its core.
    pub(crate) fn time(&self) -> Result<u64, String> {
        let path = format!("/proc/{}/task/{}/schedstat", self.pid, self.thread);
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let first = text.split_whitespace().next().and_then(|word| word.parse().ok());
        first.ok_or_else(|| format!("{path}: {text:?}"))
    }

    /// Bytes of memory that Envoy has, of those that count.
    pub(crate) fn resident(&self) -> Result<u64, String> {
        let path = format!("/proc/{}/status", self.pid);
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: Option<u64> =
            line.and_then(|line| line.split_whitespace().next()).and_then(|word| word.parse().ok());
        kilobytes.map(|number| number * 1024).ok_or_else(|| format!("{path} has no VmRSS"))
    }
}

/// What the figures depend on, name by name.
pub(crate) fn describe(cores: &Cores, module: &Path, envoy: &Path) -> Vec<(&'static str, String)> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let size = fs::metadata(module).map_or(0, |metadata| metadata.len());
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // `…/envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`.
    let version = ask(Command::new(envoy).arg("--version"));
    let version = version.rsplit_once("version: ").map_or(version.as_str(), |(_, version)| version);
    let root = harness::sample::root();
    let commit = ask(Command::new("git").current_dir(&root).args(["describe", "--always", "--dirty"]));
    vec![
        ("date", ask(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))),
        ("processor", model.map_or_else(String::new, |(_, name)| name.to_owned())),
        ("cores", format!("worker on {}, everything else on {:?}", cores.worker, cores.rest)),
        ("load before", load.split_whitespace().take(3).collect::<Vec<_>>().join(" ")),
        ("kernel", kernel.trim().to_owned()),
        ("Envoy", version.split('/').nth(1).unwrap_or(version).to_owned()),
        ("rustc", ask(Command::new("rustc").arg("--version"))),
        ("commit", commit),
        ("module", format!("{size} bytes")),
    ]
}

/// Now, as the name of a file.
pub(crate) fn stamp() -> String {
    ask(Command::new("date").args(["-u", "+%Y%m%dT%H%M%SZ"]))
}

/// The last line that a command prints; nothing where there is no such command.
fn ask(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}
