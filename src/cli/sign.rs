//! `avnology-gate sign`: a delivery as its sender would sign it.

use super::{say, stand_in};
use avnology_gate::config::signing::{Signer, formats};
use clap::Args;
use clap::builder::PossibleValuesParser;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Sign a webhook's body as its sender would, and print the headers to send with it.
///
/// Exits with 0 if they are printed, with 1 if the policy, the secret or the id cannot be used,
/// with 2 if something cannot be read.
#[derive(Args)]
#[command(after_help = "Example:
  avnology-gate sign --format stripe --secret-env STRIPE_WEBHOOK_SECRET event.json
  avnology-gate sign --policy policy.json --webhook stripe event.json --curl http://127.0.0.1:10000/webhooks/stripe | sh")]
pub(super) struct Arguments {
    /// The body; `-` is standard input.
    #[arg(default_value = "-")]
    body: PathBuf,
    /// Who sends it.
    #[arg(long, requires = "secret_env", conflicts_with = "policy", required_unless_present = "policy")]
    #[arg(value_parser = PossibleValuesParser::new(formats()))]
    format: Option<String>,
    /// The environment variable that holds the secret, as the sender hands it out.
    #[arg(long, value_name = "VAR", requires = "format")]
    secret_env: Option<String>,
    /// A plugin configuration (JSON): format and secret are those of its webhook.
    #[arg(long, value_name = "FILE", requires = "webhook")]
    policy: Option<PathBuf>,
    /// The webhook's name in the policy.
    #[arg(long, value_name = "NAME", requires = "policy")]
    webhook: Option<String>,
    /// Which of the webhook's secrets signs, counted from 0.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "policy")]
    secret_index: usize,
    /// The delivery's id, where the format signs one; a new one each second unless given.
    #[arg(long)]
    id: Option<String>,
    /// When it was sent, in Unix seconds, where the format signs a time; now unless given.
    #[arg(long, value_name = "N")]
    timestamp: Option<u64>,
    /// Print a curl command that sends the body to this URL.
    #[arg(long, value_name = "URL")]
    curl: Option<String>,
}

/// Why nothing is printed: the exit status, and lines for standard error.
type Failure = (u8, Vec<String>);

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    match run(arguments) {
        Ok(text) => {
            say(&mut std::io::stdout(), &text);
            ExitCode::SUCCESS
        }
        Err((status, lines)) => {
            lines.iter().for_each(|line| say(&mut std::io::stderr(), line));
            ExitCode::from(status)
        }
    }
}

fn run(arguments: &Arguments) -> Result<String, Failure> {
    let signer = signer(arguments)?;
    let body = read(&arguments.body)?;
    let timestamp = arguments.timestamp.unwrap_or_else(now);
    let id = arguments.id.clone().unwrap_or_else(|| format!("msg_{timestamp}"));
    let headers = signer.headers(arguments.secret_index, timestamp, &id, &body);
    let headers = headers.ok_or_else(|| {
        let secrets = signer.secrets();
        let problem = if arguments.secret_index < secrets {
            format!("--id {id}: expected visible ASCII, without what separates it from what is signed next")
        } else {
            format!("--secret-index {}: the webhook has {secrets}", arguments.secret_index)
        };
        (1, vec![problem])
    })?;
    Ok(match &arguments.curl {
        Some(url) => curl(url, &headers, &arguments.body, &body),
        None => headers.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("\n"),
    })
}

fn signer(arguments: &Arguments) -> Result<Signer, Failure> {
    let env = |name: &str| std::env::var(name).ok();
    match arguments {
        Arguments { format: Some(format), secret_env: Some(variable), .. } => {
            let secret = env(variable)
                .filter(|secret| !secret.trim().is_empty())
                .ok_or_else(|| (2, vec![format!("{variable}: no such variable in the environment")]))?;
            Signer::of_format(format, &secret)
                .map_err(|expected| (1, vec![format!("{variable}: expected {expected}")]))
        }
        Arguments { policy: Some(policy), webhook: Some(webhook), .. } => {
            Signer::of_policy(&read(policy)?, webhook, &env, &|name| Some(stand_in(name))).map_err(
                |problems| (1, problems.lines().iter().map(|line| format!("problem: {line}")).collect()),
            )
        }
        _ => Err((2, vec!["either --format and --secret-env, or --policy and --webhook".to_owned()])),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(file).map(|read| bytes = read)
    };
    read.map(|()| bytes).map_err(|error| (2, vec![format!("{}: {error}", file.display())]))
}

fn curl(url: &str, headers: &[(String, String)], file: &Path, body: &[u8]) -> String {
    // What curl sends unless told otherwise is a form's.
    let is_json = body.trim_ascii_start().first().is_some_and(|first| b"{[".contains(first));
    let media_type = is_json.then(|| ("content-type".to_owned(), "application/json".to_owned()));
    let mut command = format!("curl -i {}", quoted(url));
    for (name, value) in media_type.iter().chain(headers) {
        let _ = write!(command, " -H {}", quoted(&format!("{name}: {value}")));
    }
    let _ = write!(command, " --data-binary {}", quoted(&format!("@{}", file.display())));
    command
}

/// One word for a shell.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[allow(clippy::disallowed_methods, reason = "a sender takes the time; only the core is given it")]
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
