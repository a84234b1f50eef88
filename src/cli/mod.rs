//! The subcommands of the command line.

mod sign;

use avnology_gate::config::{self, ClusterNeeds};
use clap::{Parser, Subcommand};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Avnology Gate: check a configuration before Envoy loads it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Read a plugin configuration (JSON) and report every problem and warning.
    ///
    /// Exits with 0 if the configuration is valid, with 1 if it is not, with 2 if it cannot be
    /// read.
    Check {
        /// The file; `-` is standard input.
        file: PathBuf,
        /// Read secrets from this process's environment, instead of taking every variable as set.
        #[arg(long)]
        env: bool,
        /// Also print what the provider's cluster must allow for an Envoy with this many workers.
        #[arg(long, value_name = "N")]
        workers: Option<u32>,
    },
    Sign(sign::Arguments),
}

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    let (file, env, workers) = match Arguments::parse().verb {
        Verb::Check { file, env, workers } => (file, env, workers),
        Verb::Sign(arguments) => return sign::main(&arguments),
    };
    let mut document = Vec::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut document).map(drop)
    } else {
        std::fs::read(&file).map(|bytes| document = bytes)
    };
    if let Err(error) = read {
        say(&mut std::io::stderr(), &format!("{}: {error}", file.display()));
        return ExitCode::from(2);
    }
    check(&document, env, workers)
}

fn check(document: &[u8], env: bool, workers: Option<u32>) -> ExitCode {
    let read = |name: &str| {
        if env { std::env::var(name).ok() } else { Some(stand_in(name)) }
    };
    match config::load(document, &read) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                say(&mut std::io::stdout(), &format!("warning: {warning}"));
            }
            if let Some(needs) = workers.and_then(|workers| loaded.cluster_needs(workers)) {
                let ClusterNeeds { cluster, requests, retries } = needs;
                let line = format!(
                    "cluster `{cluster}` needs max_connections, max_pending_requests and max_requests of \
                     {requests} at least, and max_retries of {retries}"
                );
                say(&mut std::io::stdout(), &line);
            }
            say(&mut std::io::stdout(), "the configuration holds");
            ExitCode::SUCCESS
        }
        Err(problems) => {
            for line in problems.lines() {
                say(&mut std::io::stdout(), &format!("problem: {line}"));
            }
            ExitCode::FAILURE
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_a_secret_is_one_in_every_format() {
        for (nth, name) in ["A", "AB", "ABC", "AVNOLOGY_WEBHOOK_SECRET"].into_iter().enumerate() {
            for key in ["utf8", "hex", "base64", "whsec"] {
                let document = format!(
                    r#"{{"routes": [{{"match": {{"methods": ["POST"], "path": "/h"}}, "webhook": "h"}}],
                    "webhooks": {{"h": {{"format": "custom", "custom": {{"signature_header": "x", "key": "{key}"}},
                    "secrets": [{{"env": "{name}"}}, {{"env": "OTHER{nth}"}}]}}}}}}"#
                );
                let loaded = config::load(document.as_bytes(), &|name| Some(stand_in(name)));
                assert!(loaded.is_ok(), "{name} {key}: {:?}", loaded.err());
            }
        }
    }
}
