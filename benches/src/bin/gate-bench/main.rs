//! What a request through the gate costs Envoy's worker, next to what other filters cost it: `make
//! bench`.
//!
//! One Envoy with one worker, which has a core to itself; wrk, the provider and Envoy's other
//! threads run on the other cores. The figure is the time that the worker's thread was on its core,
//! for one request: requests per second swing with the neighbours.
//!
//! `ROUNDS` (5) and `SECONDS` (3) say how much is measured, `ONLY` which listeners
//! (`none,cached,jwt_authn`), `AGAINST` which other module stands in the same rounds (see
//! [`against`]). A request that is not answered 2xx fails the run, as does a call of the provider
//! where there should be none. A target that is missed does not; it is marked.

mod against;
mod machine;
mod memory;
mod provider;
mod rounds;
mod table;
mod variants;
mod wrk;

use std::fs;
use std::process::ExitCode;

use harness::envoy::Envoy;
use harness::sample;

use against::Module;
use machine::{Cores, Worker};
use provider::Provider;
use rounds::{Bench, Plan, Sample};
use table::Results;
use variants::{Kind, Side, Variant};
use wrk::Wrk;

/// Connections, where the worker has all that it can do.
const BUSY: u32 = 16;

/// The variants whose latency is measured, over one connection.
const CALM: [Kind; 3] = [Kind::None, Kind::Uncached, Kind::ExtAuthz];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let plan = Plan { rounds: setting("ROUNDS", 5)?, seconds: setting("SECONDS", 3)? };
    let against = Module::named()?;
    // First of all: what is started later inherits it.
    let cores = Cores::divide()?;
    let machine = machine::describe(&cores, &sample::module()?, &Envoy::binary()?);
    let provider = Provider::start().map_err(|error| format!("provider: {error}"))?;
    let (busy, calm) = compare(&provider, &cores, plan, against.as_ref())?;
    // What was measured before is kept, whatever becomes of this.
    let (memory, outcome) =
        match (wanted().is_none() && against.is_none()).then(|| memory::measure(&provider, &cores)) {
            Some(Ok(memory)) => (Some(memory), Ok(())),
            Some(Err(problem)) => (None, Err(problem)),
            None => (None, Ok(())),
        };
    keep(&table::render(&Results { machine, plan, against, busy, calm, memory }))?;
    outcome
}

/// Rounds with many connections, and rounds with one.
type Both = (Vec<Vec<Sample>>, Vec<Vec<Sample>>);

fn compare(provider: &Provider, cores: &Cores, plan: Plan, against: Option<&Module>) -> Result<Both, String> {
    let envoy = variants::envoy(provider)?;
    let worker = Worker::find(envoy.pid().ok_or("Envoy has no process")?, cores)?;
    let wrk = Wrk::new(envoy.directory())?;
    let mut variants = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| is_wanted(*kind)) {
        variants.push(Variant::add(&envoy, kind, None)?);
        // What is compared is measured side by side, before the neighbours have changed.
        for side in [Side::Old, Side::Again] {
            let other = against.and_then(|other| Variant::beside(&envoy, kind, side, &other.path));
            variants.extend(other.transpose()?);
        }
    }
    let bench = Bench { envoy: &envoy, worker: &worker, provider, wrk: &wrk };
    for variant in &variants {
        bench.warm(variant)?;
    }
    let all: Vec<&Variant> = variants.iter().collect();
    let calm: Vec<&Variant> = variants.iter().filter(|variant| CALM.contains(&variant.kind)).collect();
    let busy = bench.rounds(&all, plan, BUSY)?;
    let calm = if against.is_some() { Vec::new() } else { bench.rounds(&calm, plan, 1)? };
    Ok((busy, calm))
}

/// The listeners that are to be measured, where not all of them and memory too.
fn wanted() -> Option<String> {
    std::env::var("ONLY").ok()
}

fn is_wanted(kind: Kind) -> bool {
    wanted().is_none_or(|only| only.split(',').any(|name| name == kind.name()))
}

/// A number from the environment.
fn setting(name: &str, default: u32) -> Result<u32, String> {
    match std::env::var(name) {
        Ok(text) => match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("{name} is {text:?}, expected a number above 0")),
        },
        Err(_) => Ok(default),
    }
}

/// Prints the table, and writes it where results are kept.
fn keep(table: &str) -> Result<(), String> {
    println!("{table}");
    let folder = sample::root().join("benches/results");
    let file = folder.join(format!("{}.md", machine::stamp()));
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&file, table))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    eprintln!("bench: kept as {}", file.display());
    Ok(())
}
