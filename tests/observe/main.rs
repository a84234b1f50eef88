//! What operators look at, against a real gate: the alerts and the dashboard in a real Prometheus,
//! and every command of the pages about operating.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "the lint wall is the core's: a test may panic, takes the time and tells what is wrong"
)]

mod live;
mod names;
mod page;
mod rules;
mod tasks;

use std::process::ExitCode;

use harness::prometheus;
use libtest_mimic::{Arguments, Failed, Trial};

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

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = names::trials();
    match prometheus::tools() {
        Some(tools) => {
            trials.extend(rules::trials(&tools));
            trials.extend(live::trials(&tools));
            trials.extend(tasks::trials(&tools));
        }
        None if std::env::var_os("CI").is_some() => {
            trials.push(Trial::test("tools", || Err("tools/prometheus has installed nothing".into())));
        }
        None => eprintln!("observe: no Prometheus; `tools/prometheus` installs it"),
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    live::end();
    conclusion.exit_code()
}

/// A trial of this name.
fn trial(name: &str, run: impl FnOnce() -> Outcome + Send + 'static) -> Trial {
    Trial::test(name, move || run().map_err(Failed::from))
}
