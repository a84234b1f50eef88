//! The subcommands of the command line.

mod envoy;
mod sign;

use avnology_gate::config::{self, ClusterNeeds};
use clap::{Parser, Subcommand};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
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
    /// Read plugin configurations (JSON), or Envoy's own files (YAML or JSON) that hold them, and
    /// report every problem and warning.
    ///
    /// In Envoy's files (a bootstrap, a listener, an HTTP filter) it also looks at the provider's
    /// cluster. Exits with 0 if all is valid, with 1 if it is not or if Envoy's files have no
    /// plugin entry of the gate's, with 2 if a file cannot be read.
    Check {
        /// The files; `-` is standard input.
        #[arg(required = true)]
        files: Vec<PathBuf>,
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
    let (files, env, workers) = match Arguments::parse().verb {
        Verb::Check { files, env, workers } => (files, env, workers),
        Verb::Sign(arguments) => return sign::main(&arguments),
    };
    let mut texts = Vec::new();
    for file in files {
        match read(&file) {
            Ok(text) => texts.push(text),
            Err(error) => {
                say(&mut std::io::stderr(), &format!("{}: {error}", file.display()));
                return ExitCode::from(2);
            }
        }
    }
    match check(&texts, env, workers) {
        Ok(lines) => {
            lines.iter().for_each(|line| say(&mut std::io::stdout(), line));
            say(&mut std::io::stdout(), "the configuration holds");
            ExitCode::SUCCESS
        }
        Err(lines) => {
            lines.iter().for_each(|line| say(&mut std::io::stdout(), line));
            ExitCode::FAILURE
        }
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

/// What there is to say of these files: `Err` if one does not hold.
fn check(texts: &[Vec<u8>], env: bool, workers: Option<u32>) -> Result<Vec<String>, Vec<String>> {
    let (mut policies, mut files, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for text in texts {
        match envoy::File::read(text) {
            None => policies.push(text),
            Some(Ok(file)) => files.push(file),
            Some(Err(error)) => return Err(vec![format!("problem: {error}")]),
        }
    }
    let plugins: Vec<envoy::Plugin<'_>> = files.iter().flat_map(envoy::File::plugins).collect();
    if policies.is_empty() && plugins.is_empty() {
        let advice = "is the listener in a file of its own? Name it beside this one";
        return Err(vec![format!("problem: found no plugin entry of the gate's; {advice}")]);
    }
    let mut holds = true;
    let many = policies.len().saturating_add(plugins.len()) > 1;
    let mut judge = |name: &str, judged: Result<Vec<String>, Vec<String>>| {
        holds &= judged.is_ok();
        let label = if many && !name.is_empty() { format!("`{name}`: ") } else { String::new() };
        lines.extend(judged.unwrap_or_else(|lines| lines).into_iter().map(|line| format!("{label}{line}")));
    };
    for policy in policies {
        judge("", of_policy(policy, &|name| variable(name, env), workers, &files));
    }
    for plugin in &plugins {
        let seen = |name: &str| plugin.variable(name).and_then(|value| value.or_else(|| variable(name, env)));
        let judged = match &plugin.document {
            Ok(document) => of_policy(document.as_bytes(), &seen, workers, &files),
            Err(problem) => Err(vec![format!("problem: {problem}")]),
        };
        judge(plugin.name, judged);
    }
    if holds { Ok(lines) } else { Err(lines) }
}

/// A variable of this process, or a value that stands for it.
fn variable(name: &str, env: bool) -> Option<String> {
    if env { std::env::var(name).ok() } else { Some(stand_in(name)) }
}

/// What there is to say of one policy: `Err` if it does not hold.
fn of_policy(
    document: &[u8],
    variable: &dyn Fn(&str) -> Option<String>,
    workers: Option<u32>,
    files: &[envoy::File],
) -> Result<Vec<String>, Vec<String>> {
    let loaded = config::load(document, variable).map_err(|problems| {
        problems.lines().iter().map(|line| format!("problem: {line}")).collect::<Vec<_>>()
    })?;
    let mut lines: Vec<String> =
        loaded.warnings.iter().map(|warning| format!("warning: {warning}")).collect();
    if let Some(needs) = loaded.cluster_needs(1).filter(|_| !files.is_empty()) {
        let warnings = envoy::warnings(files, &needs.cluster);
        lines.extend(warnings.into_iter().map(|warning| format!("warning: {warning}")));
    }
    if let Some(needs) = workers.and_then(|workers| loaded.cluster_needs(workers)) {
        let ClusterNeeds { cluster, requests, retries } = needs;
        lines.push(format!(
            "cluster `{cluster}` needs max_connections, max_pending_requests and max_requests of \
             {requests} at least, and max_retries of {retries}"
        ));
    }
    Ok(lines)
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

    fn shipped(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("envoy").join(name);
        std::fs::read_to_string(path).unwrap()
    }

    fn checked(texts: &[&str]) -> Result<String, String> {
        let texts: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        check(&texts, false, None).map(|lines| lines.join("\n")).map_err(|lines| lines.join("\n"))
    }

    #[test]
    fn the_shipped_files_hold_and_lack_tls_until_it_is_switched_on() {
        let (bootstrap, listener) = (shipped("envoy.yaml"), shipped("listener.yaml"));
        let without = checked(&[&bootstrap, &listener]).unwrap();
        assert!(
            without.starts_with("warning: cluster `avnology` has no TLS") && without.lines().count() == 1,
            "{without}"
        );
        assert_eq!(checked(&[&bootstrap.replace("#TLS ", ""), &listener]), Ok(String::new()));
        let alone = checked(&[&listener]).unwrap();
        assert!(alone.contains("is in no file given here"), "{alone}");
    }

    #[test]
    fn a_bootstrap_without_the_plugin_is_a_problem_unless_a_policy_stands_beside_it() {
        let bootstrap = shipped("envoy.yaml");
        let problem = checked(&[&bootstrap]).unwrap_err();
        assert!(problem.starts_with("problem: found no plugin entry"), "{problem}");
        let policy = "{\"routes\": [{\"match\": {\"path\": \"/x\"}, \"access\": \"public\"}]}";
        assert_eq!(checked(&[&bootstrap, policy]), Ok(String::new()));
    }

    #[test]
    fn a_policy_in_a_listener_is_judged_as_if_it_stood_alone() {
        let listener = shipped("listener.yaml").replace("\"routes\": [", "\"roots\": [");
        assert!(checked(&[&listener]).unwrap_err().contains("roots"));
        let listener = shipped("listener.yaml")
            .replace("[AVNOLOGY_CLIENT_SECRET, AVNOLOGY_API_KEY,", "[AVNOLOGY_API_KEY,");
        let problem = checked(&[&listener]).unwrap_err();
        assert!(problem.contains("no environment variable `AVNOLOGY_CLIENT_SECRET`"), "{problem}");
        assert!(checked(&["static_resources: ["]).unwrap_err().starts_with("problem: "));
    }

    #[test]
    fn two_entries_are_told_apart() {
        let listener =
            shipped("listener.yaml").replace("\"ready_path\": \"/gate/ready\"", "\"ready_path\": 1");
        let other = listener.replace("name: avnology_gate\n", "name: other\n");
        let problems = checked(&[&listener, &other]).unwrap_err();
        assert!(
            problems.contains("`avnology_gate`: problem: ") && problems.contains("`other`: problem: "),
            "{problems}"
        );
    }
}
