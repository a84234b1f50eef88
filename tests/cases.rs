//! Runs every case against the core, in virtual time.

use std::path::Path;
use std::process::ExitCode;

use harness::core_driver;
use harness::corpus::{self, Driver};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let trials = match corpus::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")) {
        Ok(cases) => cases
            .into_iter()
            .filter(|case| case.drivers.contains(&Driver::Core))
            .map(|case| {
                let id = case.id.clone();
                let run = move || core_driver::run(&case).map_err(|problem| report(&case.about, &problem));
                Trial::test(id, run)
            })
            .collect(),
        Err(problems) => vec![Trial::test("corpus", move || Err(problems.join("\n").into()))],
    };
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn report(about: &str, problem: &str) -> libtest_mimic::Failed {
    format!("{}\n{problem}", about.trim()).into()
}
