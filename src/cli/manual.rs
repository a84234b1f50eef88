//! `avnology-gate completions` and `avnology-gate man`: what a shell and a reader want.

use clap::{Args, Command};
use clap_complete::Shell;
use std::io::Write as _;
use std::process::ExitCode;

/// Print the completions of a shell.
#[derive(Args)]
#[command(after_help = "Example:
  avnology-gate completions bash > /etc/bash_completion.d/avnology-gate")]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

/// Print the manual page, of all verbs or of one.
#[derive(Args)]
#[command(after_help = "Example:
  avnology-gate man check | man -l -")]
pub(super) struct Man {
    /// The verb.
    verb: Option<String>,
}

pub(super) fn completions(arguments: &Completions, mut command: Command) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "avnology-gate", &mut text);
    print(&text)
}

pub(super) fn man(arguments: &Man, mut command: Command) -> ExitCode {
    // A verb's full name, and with it its page's, is only known then.
    command.build();
    let wanted = match &arguments.verb {
        None => Some(command),
        Some(verb) => command.find_subcommand(verb).cloned(),
    };
    let mut text = Vec::new();
    match wanted.map(|command| clap_mangen::Man::new(command).render(&mut text)) {
        Some(Ok(())) => print(&text),
        _ => {
            super::say(&mut std::io::stderr(), "no such verb: see `avnology-gate --help`");
            ExitCode::from(2)
        }
    }
}

/// A closed pipe is no reason to panic.
fn print(text: &[u8]) -> ExitCode {
    let _ = std::io::stdout().write_all(text);
    ExitCode::SUCCESS
}
