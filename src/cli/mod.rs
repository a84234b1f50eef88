//! The subcommands of the command line.

mod advice;
mod check;
mod convert;
mod decide;
mod envoy;
mod explain;
mod manual;
mod place;
mod report;
mod routes;
mod schema;
mod sign;
mod source;

use clap::{CommandFactory, Parser, Subcommand};
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

/// Avnology Gate: judge, explain and try a policy before Envoy loads it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Check(check::Arguments),
    Explain(explain::Arguments),
    Routes(routes::Arguments),
    Convert(convert::Arguments),
    Schema(schema::Arguments),
    Sign(sign::Arguments),
    Completions(manual::Completions),
    Man(manual::Man),
}

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Check(arguments) => check::main(&arguments),
        Verb::Explain(arguments) => explain::main(&arguments),
        Verb::Schema(_) => schema::main(),
        Verb::Sign(arguments) => sign::main(&arguments),
        Verb::Routes(arguments) => routes::main(&arguments),
        Verb::Convert(arguments) => convert::main(&arguments),
        Verb::Completions(arguments) => manual::completions(&arguments, Arguments::command()),
        Verb::Man(arguments) => manual::man(&arguments, Arguments::command()),
    }
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    if file.as_os_str() != "-" {
        return std::fs::read(file);
    }
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text)?;
    Ok(text)
}

/// A file's name for messages.
fn name(file: &Path) -> String {
    if file.as_os_str() == "-" { "<stdin>".to_owned() } else { file.display().to_string() }
}

/// A variable of this process, or a value that stands for it.
fn variable(name: &str, env: bool) -> Option<String> {
    if env { std::env::var(name).ok() } else { Some(stand_in(name)) }
}

/// Writes a line. A closed pipe is no reason to panic.
fn say(out: &mut impl Write, line: &str) {
    let _ = writeln!(out, "{line}");
}

/// A value in the place of a variable's. Distinct ones, since two webhooks that name different
/// variables do not share a secret; and such that every encoding of a key can read it.
fn stand_in(name: &str) -> String {
    name.bytes().map(|byte| format!("{byte:02x}")).chain(["00".repeat(16)]).collect::<String>().repeat(2)
}
