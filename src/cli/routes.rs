//! `avnology-gate routes`: the routes of a policy in short.

use super::report::Format;
use super::{convert, say};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// List the routes of a policy: methods, hosts, path, name, and what each asks for.
///
/// Exits with 0 if they are listed, with 1 if there is no policy in the file, with 2 if the file
/// cannot be read. It does not judge the policy: `check` does.
#[derive(Args)]
#[command(after_help = "Example:
  avnology-gate routes policy.yaml")]
pub(super) struct Arguments {
    /// The policy: JSON, YAML or Envoy's own file; `-` is standard input.
    file: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let source = match convert::policy(&arguments.file) {
        Ok(source) => source,
        Err(status) => return status,
    };
    let value = source.value();
    let routes = value.get("routes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = match arguments.format {
        Format::Json => format!("{:#}", json!(routes.iter().map(as_json).collect::<Vec<_>>())),
        Format::Text => table(routes),
    };
    say(&mut std::io::stdout(), &text);
    ExitCode::SUCCESS
}

/// What a route asks for: `public`, `optional`, `required` or its webhook.
fn access(route: &Value) -> String {
    let text = |name: &str| route.get(name).and_then(Value::as_str);
    match text("webhook") {
        Some(webhook) => format!("webhook {webhook}"),
        None => text("access").unwrap_or("required").to_owned(),
    }
}

/// The kinds of rules of a route, in their order.
fn rules(route: &Value) -> Vec<&str> {
    const KINDS: [&str; 6] = ["scopes", "audience", "issuer", "client_id", "claims", "permissions"];
    KINDS.into_iter().filter(|kind| route.get("require").is_some_and(|it| it.get(kind).is_some())).collect()
}

fn as_json(route: &Value) -> Value {
    json!({
        "name": route.get("name"), "match": route.get("match"), "access": access(route),
        "rules": rules(route),
    })
}

fn table(routes: &[Value]) -> String {
    let list = |route: &Value, name: &str| {
        let items = route.pointer(&format!("/match/{name}")).and_then(Value::as_array);
        let words = items.map(|items| items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","));
        words.unwrap_or_else(|| "*".to_owned())
    };
    let text = |route: &Value, pointer: &str| {
        route.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned()
    };
    let head = ["#", "methods", "hosts", "path", "name", "access", "rules"].map(str::to_owned);
    let rows = routes.iter().enumerate().map(|(nth, route)| {
        let rules = rules(route);
        let rules = if rules.is_empty() { "-".to_owned() } else { rules.join(",") };
        let (path, name) = (text(route, "/match/path"), text(route, "/name"));
        [nth.to_string(), list(route, "methods"), list(route, "hosts"), path, name, access(route), rules]
    });
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(rows).collect();
    let mut widths = [0_usize; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
