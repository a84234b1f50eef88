//! Attacks on a real Envoy with the packed module: raw bytes over HTTP/1, raw frames over HTTP/2,
//! and a framework behind the gate that must read the request that the gate judged.
//!
//! The rows are data, in `tests/attack/rows`; README.md beside them says what each member means.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "the lint wall is the core's: a test may panic, takes the time and tells what is wrong"
)]

mod play;
mod readings;
mod stage;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use harness::attack::{self, Row};
use harness::framework::Framework;
use libtest_mimic::{Arguments, Failed, Trial};

use crate::play::Pace;
use crate::stage::Stages;

/// The result of a trial: nothing, or what is wrong.
type Outcome = Result<(), String>;

/// Ends a trial with a message unless the condition is true.
macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err(format!($($message)+));
        }
    };
}
use ensure;

/// How many listeners of each kind there are. A row mostly waits: for the provider, and for
/// connections that Envoy closes after a second.
const LANES: usize = 3;

/// The variable that asks for every variant and for floods at their full size.
const WHOLE: &str = "ATTACK_WHOLE";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One trial at a time on each of the listeners; they mostly wait.
    arguments.test_threads.get_or_insert(4 * LANES);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attack");
    let whole = std::env::var_os(WHOLE).is_some();
    let stages = Stages::default();
    let mut trials = match attack::load(&folder.join("rows")) {
        Ok(rows) => {
            let rows = rows.into_iter().enumerate();
            rows.flat_map(|(number, row)| row_trials(row, number % LANES, &stages, whole)).collect()
        }
        Err(problem) => vec![Trial::test("rows", move || Err(problem.into()))],
    };
    // Started here and not by a trial: it ends with the thread that starts it.
    let framework = Framework::start(&folder, "reads:app").map(|found| found.map(Arc::new));
    trials.extend(readings::trials(&folder.join("rows"), framework, &stages));
    let conclusion = libtest_mimic::run(&arguments, trials);
    match stages.verify_shutdown() {
        Ok(()) => conclusion.exit_code(),
        Err(problem) => {
            eprintln!("\nafter all trials: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// A row with and without the knob, on each of its listeners; in the whole suite also byte by byte.
fn row_trials(row: Row, lane: usize, stages: &Stages, whole: bool) -> Vec<Trial> {
    let row = Arc::new(row);
    let listeners: &[bool] = match (row.both, row.raw) {
        (true, _) => &[false, true],
        (false, true) => &[true],
        (false, false) => &[false],
    };
    let spoken = row.send.iter().any(|act| act.h1.is_some());
    let mut trials = Vec::new();
    for (raw, knob) in listeners.iter().flat_map(|raw| [(*raw, true), (*raw, false)]) {
        let mut paces = vec![Pace::AtOnce];
        if whole && spoken && !row.at_once && row.times.whole == 1 {
            paces.push(Pace::ByteByByte);
        }
        for pace in paces {
            let name = format!(
                "{}::{}::{}{}",
                row.id,
                if raw { "raw" } else { "shipped" },
                if knob { "knob" } else { "no-knob" },
                if pace == Pace::ByteByByte { "::bytes" } else { "" }
            );
            let (row, stages) = (Arc::clone(&row), stages.clone());
            trials.push(Trial::test(name, move || {
                let stage = stages.get(raw, knob, lane)?;
                let times = if whole { row.times.whole } else { row.times.short };
                stage.run(&row, times, pace).map_err(Failed::from)
            }));
        }
    }
    trials
}
