//! The containers of `envoy/docker-compose.yaml`: the corpus over their published ports, and what
//! only separate hosts can show.
//!
//! `make compose-test` builds the images and runs this; `cargo test` alone does not.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "the lint wall is the core's: a test may panic, takes the time and tells what came of it"
)]

mod dns;
mod faults;
mod load;
mod shape;
mod swap;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use harness::compose::{self, Project};
use harness::corpus;
use harness::envoy::{Attached, Envoy, Lane};
use harness::{control, envoy_driver, sample};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;

/// How many cases run in parallel: each needs a provider and a service of its own, see corpus.yaml.
const LANES: u16 = 6;
/// The shipped number of workers.
const WORKERS: u32 = 2;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(usize::from(LANES));
    if let Err(problem) = interrupted() {
        eprintln!("compose-test: {problem}");
        return ExitCode::FAILURE;
    }
    let began = Instant::now();
    let stage = Stage::default();
    let corpus = libtest_mimic::run(&arguments, corpus_trials(&stage));
    let sound = stage.end();
    // One at a time: their clients measure how long answers take.
    arguments.test_threads = Some(1);
    let (shared, uncached) = (Shared::new(None), Shared::new(Some(sample::uncached_policy)));
    let (table, notes) = (faults::Table::default(), Notes::default());
    let trials = [shape::trials(&shared), faults::trials(&uncached, &table), swap::trials(&shared, &notes)];
    let faults = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    shared.end();
    uncached.end();
    let rows = std::mem::take(&mut *table.lock().unwrap_or_else(PoisonError::into_inner));
    if !rows.is_empty() {
        println!("{}\n{}\n", faults::HEAD, rows.join("\n"));
    }
    for note in notes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        println!("{note}\n");
    }
    if let Err(problem) = &sound {
        println!("compose-test: after the corpus: {problem}");
    }
    let failed = corpus.num_failed + faults.num_failed + u64::from(sound.is_err());
    println!(
        "compose-test: {} cases of the corpus and {} of the containers passed, {failed} failed, in {} s",
        corpus.num_passed,
        faults.num_passed,
        began.elapsed().as_secs()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The result of a trial: nothing, or what is wrong.
type Outcome = Result<(), String>;

/// Something that was started, or why it could not be.
type Begun<T> = Result<T, String>;

/// What is printed at the end.
type Notes = Arc<Mutex<Vec<String>>>;

fn note(notes: &Notes, text: String) {
    notes.lock().unwrap_or_else(PoisonError::into_inner).push(text);
}

/// Ends a trial with a message unless the condition is true.
macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err(format!($($message)+));
        }
    };
}
use ensure;

/// The shipped file with free ports; nothing is started yet.
fn shipped(files: &[&str]) -> Result<Project, String> {
    let mut project = Project::new(files)?;
    let [gate, control, service] = compose::free_ports();
    for (name, port) in [("GATE_PORT", gate), ("GATE_CONTROL_PORT", control), ("GATE_SERVICE_PORT", service)]
    {
        project.set(name, port.to_string());
    }
    Ok(project)
}

/// Makes the project use a copy of the shipped configuration with another policy, in its own
/// directory, where a trial may change it.
fn copy_configuration(project: &mut Project, policy: &Value) -> Outcome {
    let directory = project.directory().to_owned();
    let listener = listener_with(&policy.to_string());
    std::fs::copy(sample::root().join("envoy/envoy.yaml"), directory.join("envoy.yaml"))
        .and_then(|_| std::fs::write(directory.join("listener.yaml"), listener))
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    project.set("GATE_CONFIGURATION", directory);
    Ok(())
}

/// The shipped listener with another policy.
fn listener_with(document: &str) -> String {
    let mut file = sample::shipped("listener.yaml");
    sample::set_policy(&mut file["resources"][0], document);
    file.to_string()
}

/// The shipped file, started when the first trial needs it.
#[derive(Clone)]
struct Shared {
    /// Replaces the shipped policy.
    policy: Option<fn() -> Value>,
    project: Arc<Mutex<Option<Begun<Arc<Project>>>>>,
}

impl Shared {
    fn new(policy: Option<fn() -> Value>) -> Self {
        Self { policy, project: Arc::default() }
    }

    fn project(&self) -> Result<Arc<Project>, String> {
        let start = || {
            let mut project = shipped(&[])?;
            if let Some(policy) = self.policy {
                copy_configuration(&mut project, &policy())?;
            }
            project.up(&[])?;
            project.healthy("envoy")?;
            Ok(Arc::new(project))
        };
        self.project.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(start).clone()
    }

    fn end(&self) {
        self.project.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Removes the containers when the tests are interrupted.
fn interrupted() -> Result<(), String> {
    let mut signals = harness::interrupts().map_err(|error| error.to_string())?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            compose::abandon();
            std::process::exit(130);
        }
    });
    Ok(())
}

/// The containers for the corpus, started when the first case needs them.
#[derive(Clone, Default)]
struct Stage(Arc<Mutex<Option<Begun<Played>>>>);

/// Envoy, and the containers that it belongs to.
type Played = (Arc<Envoy>, Arc<Project>);

impl Stage {
    fn envoy(&self) -> Result<Arc<Envoy>, String> {
        let mut stage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stage.get_or_insert_with(start).as_ref().map(|(envoy, _)| Arc::clone(envoy)).map_err(Clone::clone)
    }

    /// Stops it, after a last check of the Envoy process.
    fn end(&self) -> Outcome {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(Ok((envoy, _project))) => envoy.sound(),
            _ => Ok(()),
        }
    }
}

fn start() -> Begun<Played> {
    let project = shipped(&["tests/compose/corpus.yaml"])?;
    Attached::prepare(project.directory())?;
    project.up(&[])?;
    let mut lanes = Vec::new();
    for lane in 0..LANES {
        let host = |name: &str| if lane == 0 { name.to_owned() } else { format!("{name}-{lane}") };
        let (provider_host, service_host) = (host("avnology"), host("upstream"));
        let port = 20_000 + lane;
        lanes.push(Lane {
            name: format!("lane{lane}"),
            inside: ([0, 0, 0, 0], port).into(),
            outside: project.published("envoy", port)?,
            provider: control::Provider(project.published(&provider_host, 8081)?),
            service: control::Upstream(project.published(&service_host, 8080)?),
            provider_host,
            service_host,
        });
    }
    let container = project.container("envoy")?;
    let runs = move || {
        compose::docker(&["inspect", "--format", "{{.State.Running}}", &container])
            .is_ok_and(|text| text.trim() == "true")
    };
    let module = PathBuf::from("/opt/avnology-gate/avnology_gate.wasm");
    let admin = project.published("envoy", 9901)?;
    let attached = Attached::new(admin, WORKERS, project.directory(), &module, lanes, runs);
    Ok((Arc::new(Envoy::attach(attached)?), Arc::new(project)))
}

fn corpus_trials(stage: &Stage) -> Vec<Trial> {
    let cases = match corpus::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")) {
        Ok(cases) => cases,
        Err(problems) => return vec![Trial::test("corpus", move || Err(problems.join("\n").into()))],
    };
    let mut trials = Vec::new();
    for case in cases.into_iter().map(Arc::new) {
        // Once per HTTP version: Envoy has two workers here, and no case depends on having one.
        let versions: BTreeSet<_> =
            envoy_driver::variants(&case).into_iter().map(|variant| variant.version).collect();
        for version in versions {
            let (case, stage) = (Arc::clone(&case), stage.clone());
            trials.push(Trial::test(format!("{}::{version}", case.id), move || {
                let run = |envoy: Arc<Envoy>| envoy_driver::run(&case, version, &envoy);
                stage
                    .envoy()
                    .and_then(run)
                    .map_err(|problem| Failed::from(format!("{}\n{problem}", case.about.trim())))
            }));
        }
    }
    trials
}
