//! `avnology-gate convert`: a policy as the JSON that the module reads.

use super::report::{self, Finding};
use super::say;
use super::source::Source;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Print a policy as the JSON that the module reads.
///
/// Exits with 0 if it is printed, with 1 if there is no policy in the file, with 2 if the file
/// cannot be read. It does not judge the policy: `check` does.
#[derive(Args)]
#[command(after_help = "Example:
  avnology-gate convert policy.yaml > policy.json")]
pub(super) struct Arguments {
    /// The policy: YAML, JSON or Envoy's own file; `-` is standard input.
    file: PathBuf,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    match policy(&arguments.file) {
        Ok(source) => {
            say(&mut std::io::stdout(), &format!("{:#}", source.value()));
            ExitCode::SUCCESS
        }
        Err(status) => status,
    }
}

/// The policy of a file. Without one, what is wrong is told, and this is the exit status.
pub(super) fn policy(file: &std::path::Path) -> Result<Source, ExitCode> {
    let name = super::name(file);
    let bytes = super::read(file).map_err(|error| {
        say(&mut std::io::stderr(), &format!("{name}: {error}"));
        ExitCode::from(2)
    })?;
    Source::first(&name, &bytes).map_err(|problem| {
        let finding = Finding::unreadable(&name, &String::from_utf8_lossy(&bytes), problem);
        say(&mut std::io::stderr(), &report::text(&[finding], report::is_styled()));
        ExitCode::FAILURE
    })
}
