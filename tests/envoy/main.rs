//! A real Envoy with the packed module: the corpus over HTTP/1 and HTTP/2 with one and two workers,
//! and what only a real host can show.

#![allow(
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "the lint wall is the core's: a test may panic, takes the time and tells what is wrong"
)]

mod deploy;
#[allow(clippy::arithmetic_side_effects, reason = "it counts to a thousand")]
mod explain;
mod guide;
mod hooks;
mod host;
mod mesh;
mod metrics;
mod order;
mod protects;
mod provider;
mod provider_tls;
mod replays;
mod shipped;
#[allow(dead_code, reason = "the comparison with the reference uses the rest")]
#[allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::expect_used)]
#[path = "../differential/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use harness::corpus::{self, ENVIRONMENT};
use harness::envoy::{Envoy, Options};
use harness::{envoy_driver, sample};
use libtest_mimic::{Arguments, Failed, Trial};
use semver::{Version, VersionReq};

/// Trials mostly wait, for answers and for Envoy, so more of them run in parallel than there are
/// processors.
const THREADS: usize = 8;

/// In the name of a trial that needs another version of Envoy, and fails with this one.
/// tools/matrix counts them.
const NOT_HERE: &str = "not-with-this-envoy";

/// The result of a trial: nothing, or what is wrong.
type Outcome = Result<(), String>;

/// What a trial does with an Envoy.
type Run = fn(&Arc<Envoy>) -> Outcome;

/// Ends a trial with a message unless the condition is true.
macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err(format!($($message)+));
        }
    };
}
use ensure;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let fleet = match Envoy::version() {
        Ok(version) => Fleet { version, envoys: Arc::default() },
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    };
    let trials = [
        deploy::trials(&fleet),
        explain::trials(&fleet),
        guide::trials(&fleet),
        hooks::trials(&fleet),
        host::trials(&fleet),
        metrics::trials(),
        mesh::trials(&fleet),
        order::trials(&fleet),
        provider::trials(&fleet),
        provider_tls::trials(&fleet),
        protects::trials(&fleet),
        replays::trials(&fleet),
        shipped::trials(&fleet),
        corpus_trials(&fleet),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    match fleet.verify_shutdown() {
        Ok(()) => conclusion.exit_code(),
        Err(problem) => {
            eprintln!("\nafter all trials: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// The Envoys, one per number of workers; each starts when the first trial needs it.
#[derive(Clone)]
struct Fleet {
    version: Version,
    envoys: Arc<Mutex<BTreeMap<u32, Started>>>,
}

/// An Envoy, or why there is none.
type Started = Result<Arc<Envoy>, String>;

impl Fleet {
    fn get(&self, workers: u32) -> Started {
        let mut envoys = self.envoys.lock().unwrap_or_else(PoisonError::into_inner);
        envoys.entry(workers).or_insert_with(|| start(workers).map(Arc::new)).clone()
    }

    /// Other Envoys of the same version.
    fn apart(&self) -> Self {
        Self { version: self.version.clone(), envoys: Arc::default() }
    }

    /// A trial of what these versions of Envoy do. With another one it has another name, and what it
    /// tries must fail: a version that is not needed is not to be named.
    fn since(
        &self,
        versions: Option<&VersionReq>,
        name: &str,
        run: impl FnOnce() -> Result<(), Failed> + Send + 'static,
    ) -> Trial {
        match versions.filter(|versions| !versions.matches(&self.version)) {
            None => Trial::test(name, run),
            Some(versions) => {
                let unneeded = format!("it passes with Envoy {}, and names {versions}", self.version);
                Trial::test(format!("{name}::{NOT_HERE}"), move || {
                    run().map_or(Ok(()), |()| Err(unneeded.into()))
                })
            }
        }
    }

    /// Checks the processes after all trials.
    fn verify_shutdown(&self) -> Outcome {
        let envoys = self.envoys.lock().unwrap_or_else(PoisonError::into_inner);
        for envoy in envoys.values().flatten() {
            envoy.sound()?;
        }
        Ok(())
    }
}

fn start(workers: u32) -> Result<Envoy, String> {
    let environment = ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Envoy::start(Options { workers, environment, module: sample::module()?, narrate: false })
}

/// A trial on an Envoy with this many workers.
fn trial(fleet: &Fleet, name: &str, workers: u32, run: Run) -> Trial {
    let fleet = fleet.clone();
    Trial::test(name, move || fleet.get(workers).and_then(|envoy| run(&envoy)).map_err(Failed::from))
}

fn corpus_trials(fleet: &Fleet) -> Vec<Trial> {
    let cases = match corpus::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")) {
        Ok(cases) => cases,
        Err(problems) => return vec![Trial::test("corpus", move || Err(problems.join("\n").into()))],
    };
    let mut trials = Vec::new();
    for case in cases.into_iter().map(Arc::new) {
        for variant in envoy_driver::variants(&case) {
            let name = format!("{}::{}::w{}", case.id, variant.version, variant.workers);
            let (case, fleet) = (Arc::clone(&case), fleet.clone());
            let versions = case.envoy.clone();
            trials.push(fleet.clone().since(versions.as_ref(), &name, move || {
                let run = |envoy: Arc<Envoy>| envoy_driver::run(&case, variant.version, &envoy);
                fleet.get(variant.workers).and_then(run).map_err(|problem| report(&case.about, &problem))
            }));
        }
    }
    trials
}

fn report(about: &str, problem: &str) -> Failed {
    format!("{}\n{problem}", about.trim()).into()
}
