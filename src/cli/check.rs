//! `avnology-gate check`: every problem and warning of a policy.

use super::report::{self, Finding, Format, Severity};
use super::source::{self, Source};
use super::{advice, envoy, say, variable};
use avnology_gate::config::{self, ClusterNeeds};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Report every problem and warning of policies, in files of their own (JSON or YAML) or in Envoy's
/// (a bootstrap, a listener, an HTTP filter).
///
/// In Envoy's files it also looks at the provider's cluster. Exits with 0 if all is valid, with 1
/// if it is not or if Envoy's files have no plugin entry of the gate's, with 2 if a file cannot be
/// read. Problems and warnings go to standard error.
#[derive(Args)]
#[command(after_help = "Examples:
  avnology-gate check policy.json
  avnology-gate check --deny-warnings envoy.yaml listener.yaml
  avnology-gate check --format json policy.yaml")]
pub(super) struct Arguments {
    /// The files; `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Read secrets from this process's environment, instead of taking every variable as set.
    #[arg(long)]
    env: bool,
    /// Also print what the provider's cluster must allow for an Envoy with this many workers.
    #[arg(long, value_name = "N")]
    workers: Option<u32>,
    /// Exit with 1 for a warning too.
    #[arg(long)]
    deny_warnings: bool,
    /// How to print: `json` prints everything as one document to standard output.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What there is to say.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// What tells each policy from others, as the metric `avnology_gate_policy_info` labels it.
    pub(super) digests: Vec<String>,
    /// Problems and warnings, in the order of the files.
    pub(super) findings: Vec<Finding>,
    /// What was asked for besides.
    pub(super) lines: Vec<String>,
}

impl Judgement {
    /// Whether the module would take everything.
    pub(super) fn is_valid(&self) -> bool {
        !self.findings.iter().any(|finding| finding.severity == Severity::Problem)
    }
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let mut files = Vec::new();
    for file in &arguments.files {
        match super::read(file) {
            Ok(text) => files.push((super::name(file), text)),
            Err(error) => {
                say(&mut std::io::stderr(), &format!("{}: {error}", file.display()));
                return ExitCode::from(2);
            }
        }
    }
    let judgement = check(&files, arguments.env, arguments.workers);
    let passes = judgement.is_valid() && (judgement.findings.is_empty() || !arguments.deny_warnings);
    match arguments.format {
        Format::Json => {
            let document = json!({
                "valid": judgement.is_valid(),
                "findings": report::json(&judgement.findings),
                "notes": judgement.lines,
                "digests": judgement.digests,
            });
            say(&mut std::io::stdout(), &format!("{document:#}"));
        }
        Format::Text => {
            let text = report::text(&judgement.findings, report::is_styled());
            if !text.is_empty() {
                say(&mut std::io::stderr(), &text);
            }
            judgement.lines.iter().for_each(|line| say(&mut std::io::stdout(), line));
            if passes {
                let digests = judgement.digests.join(", ");
                say(
                    &mut std::io::stdout(),
                    &format!("the configuration is valid, with the digest {digests}"),
                );
            }
        }
    }
    if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What there is to say of these files, each with its name.
pub(super) fn check(texts: &[(String, Vec<u8>)], env: bool, workers: Option<u32>) -> Judgement {
    let mut judgement = Judgement::default();
    let (mut policies, mut files) = (Vec::new(), Vec::new());
    for (name, bytes) in texts {
        match envoy::File::read(bytes) {
            None => policies.push((name, bytes)),
            Some(Ok(file)) => files.push((name, bytes, file)),
            Some(Err(_)) => {
                let text = String::from_utf8_lossy(bytes);
                let problem = source::yaml(&text).err();
                let finding = problem.map(|problem| Finding::unreadable(name, &text, problem));
                judgement.findings.extend(finding);
            }
        }
    }
    if !judgement.is_valid() {
        return judgement;
    }
    let envoys: Vec<&envoy::File> = files.iter().map(|(_, _, file)| file).collect();
    let has_plugins = envoys.iter().any(|file| !file.plugins().is_empty());
    if policies.is_empty() && !has_plugins {
        let name = texts.first().map_or("", |(name, _)| name);
        let mut finding = Finding::of_file(Severity::Problem, name, "found no plugin entry of the gate's");
        finding.help.push("is the listener in a file of its own? Name it beside this one".to_owned());
        judgement.findings.push(finding);
        return judgement;
    }
    for (name, bytes) in policies {
        match Source::read(name, bytes) {
            Ok(source) => of_policy(&source, &|name| variable(name, env), workers, &envoys, &mut judgement),
            Err(problem) => {
                let text = String::from_utf8_lossy(bytes);
                judgement.findings.push(Finding::unreadable(name, &text, problem));
            }
        }
    }
    for (name, bytes, file) in &files {
        let text = String::from_utf8_lossy(bytes);
        let plugins = file.plugins();
        for plugin in &plugins {
            // Two entries of one file are told apart by their names.
            let label = match plugins.len() {
                1 => (*name).clone(),
                _ => format!("{name} (`{}`)", plugin.name),
            };
            let document = match &plugin.document {
                Ok(document) => document,
                Err(problem) => {
                    judgement.findings.push(Finding::of_file(Severity::Problem, &label, problem.clone()));
                    continue;
                }
            };
            let (source, unreadable) = Source::of_plugin(&label, plugin.name, &text, document);
            if let Some(problem) = unreadable {
                judgement.findings.push(Finding::unreadable(&source.name, &source.text, problem));
                continue;
            }
            let seen =
                |name: &str| plugin.variable(name).and_then(|value| value.or_else(|| variable(name, env)));
            of_policy(&source, &seen, workers, &envoys, &mut judgement);
        }
    }
    judgement
}

/// What there is to say of one policy.
fn of_policy(
    source: &Source,
    variable: &dyn Fn(&str) -> Option<String>,
    workers: Option<u32>,
    files: &[&envoy::File],
    judgement: &mut Judgement,
) {
    let value = source.value();
    let loaded = match config::load(source.document.as_bytes(), variable) {
        Ok(loaded) => loaded,
        Err(problems) => {
            for advised in advice::advised(problems.kept(), &value) {
                judgement.findings.push(problem(source, &value, advised));
            }
            if problems.beyond() > 0 {
                let more = format!("… and {} more problems", problems.beyond());
                judgement.findings.push(Finding::of_file(Severity::Problem, &source.name, more));
            }
            return;
        }
    };
    for warning in &loaded.warnings {
        let path = warning.split_whitespace().next().unwrap_or_default();
        let finding = Finding::of_file(Severity::Warning, &source.name, advice::with_names(warning, &value));
        judgement.findings.push(finding.at(source, &value, path, true));
    }
    if let Some(needs) = loaded.cluster_needs(1).filter(|_| !files.is_empty()) {
        let warnings = envoy::warnings(files, &needs.cluster);
        let finding = |warning| Finding::of_file(Severity::Warning, &source.name, warning);
        judgement.findings.extend(warnings.into_iter().map(finding));
    }
    judgement.digests.push(loaded.digest().to_owned());
    if let Some(needs) = workers.and_then(|workers| loaded.cluster_needs(workers)) {
        let ClusterNeeds { cluster, requests, retries } = needs;
        judgement.lines.push(format!(
            "cluster `{cluster}` needs max_connections, max_pending_requests and max_requests of \
             {requests} at least, and max_retries of {retries}"
        ));
    }
}

fn problem(source: &Source, value: &Value, advised: advice::Advised<'_>) -> Finding {
    let problem = advised.problem;
    // Who reads what was meant needs no list of all that there is.
    let message = match advised.help.is_empty() {
        false if problem.is_unknown_field() => format!("{}: found {}", problem.path(), problem.found()),
        _ => problem.to_string(),
    };
    let finding = Finding {
        help: advised.help,
        ..Finding::of_file(Severity::Problem, &source.name, advice::with_names(&message, value))
    };
    finding.at(source, value, problem.path(), problem.is_unknown_field())
}

#[cfg(test)]
mod tests;
