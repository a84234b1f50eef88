//! `avnology-gate explain`: how a request ends, and why.

use super::decide::{Answers, Decided, Request, decide};
use super::report::{self, Finding, Format};
use super::source::Source;
use super::{advice, check, place, say, sign, variable};
use avnology_gate::config::{self, Loaded};
use avnology_gate::time::Timestamp;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Explain a request: which route it takes and why the others do not, which calls are made, the
/// decision, and the rule that led to it.
///
/// The core itself decides; nothing is sent. Exits with 0 whatever the decision is, with 1 if the
/// policy is not valid, with 2 if something cannot be read.
#[derive(Args)]
#[command(after_help = "Example:
  avnology-gate explain policy.json --method PUT --host api.example --path /orders/7 \\
    --header 'authorization: Bearer x' --claims '{\"sub\": \"alice\", \"scope\": \"read\"}'")]
pub(super) struct Arguments {
    /// The policy: JSON, YAML or Envoy's own file; `-` is standard input.
    file: PathBuf,
    /// The method.
    #[arg(long, default_value = "GET")]
    method: String,
    /// The host (`:authority`).
    #[arg(long)]
    host: String,
    /// The path, with its query.
    #[arg(long)]
    path: String,
    /// A header, as `name: value`; may be repeated.
    #[arg(long, value_name = "HEADER", value_parser = header)]
    header: Vec<(String, String)>,
    /// What the provider says of the token: its claims as JSON, `"active": false` included.
    #[arg(long, value_name = "JSON", value_parser = claims)]
    claims: Option<Value>,
    /// What the provider says to every permission check.
    #[arg(long, value_enum)]
    permissions: Option<Permissions>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Permissions {
    /// Every check is granted.
    Granted,
    /// None is.
    Denied,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected `name: value`")?;
    Ok((name.trim().to_lowercase(), value.trim().to_owned()))
}

fn claims(text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if value.is_object() { Ok(value) } else { Err("expected a JSON object".to_owned()) }
}

/// Why a request is decided as it is.
struct Explanation {
    decided: Decided,
    /// The route's index.
    route: Option<usize>,
    /// The route that bars the request, by its index.
    barred_by: Option<usize>,
    /// Each other route, and why it is not taken.
    others: Vec<(usize, Lost)>,
    /// The path of the rule in the policy.
    rule: Option<String>,
}

/// Why a route is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Path,
    Host,
    Method,
    LessSpecific,
    Barred,
}

impl Lost {
    fn words(self) -> &'static str {
        match self {
            Self::Path => "its path does not match",
            Self::Host => "its hosts do not match",
            Self::Method => "its methods do not include this one",
            Self::LessSpecific => "matches too, but is less specific",
            Self::Barred => {
                "matches, but a service that reads paths leniently may see the barring route's path"
            }
        }
    }
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let name = super::name(&arguments.file);
    let read = super::read(&arguments.file).map_err(|error| error.to_string());
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(error) => {
            say(&mut std::io::stderr(), &format!("{name}: {error}"));
            return ExitCode::from(2);
        }
    };
    let fail = |findings: &[Finding]| {
        say(&mut std::io::stderr(), &report::text(findings, report::is_styled()));
        ExitCode::FAILURE
    };
    let source = match Source::first(&name, &bytes) {
        Ok(source) => source,
        Err(problem) => {
            return fail(&[Finding::unreadable(&name, &String::from_utf8_lossy(&bytes), problem)]);
        }
    };
    let request = Request::new(&arguments.method, &arguments.host, &arguments.path, &arguments.header);
    let answers = Answers {
        claims: arguments.claims.clone(),
        permissions: arguments.permissions.map(|answer| answer == Permissions::Granted),
    };
    let Some(explanation) = explain(&source, &request, &answers, Timestamp::from_secs(sign::now())) else {
        let judgement = check::check(&[(name, bytes)], false, None);
        return fail(&judgement.findings);
    };
    let text = match arguments.format {
        Format::Json => format!("{:#}", explanation.json(&source)),
        Format::Text => explanation.text(&source),
    };
    say(&mut std::io::stdout(), &text);
    ExitCode::SUCCESS
}

/// A policy under which every route has a name, and the names.
fn named(source: &Source) -> (Value, Vec<String>) {
    let mut value = source.value();
    let mut names = Vec::new();
    let routes = value.get_mut("routes").and_then(Value::as_array_mut);
    for (nth, route) in routes.into_iter().flatten().enumerate() {
        let name = route.get("name").and_then(Value::as_str).map(str::to_owned);
        let name = name.unwrap_or_else(|| format!("routes[{nth}]"));
        if let Some(route) = route.as_object_mut() {
            route.insert("name".to_owned(), json!(name));
        }
        names.push(name);
    }
    (value, names)
}

fn load(document: &Value) -> Option<Loaded> {
    config::load(document.to_string().as_bytes(), &|name| variable(name, false)).ok()
}

/// `None` if the policy is not valid.
fn explain(source: &Source, request: &Request, answers: &Answers, now: Timestamp) -> Option<Explanation> {
    // What was read last of two fields is not what was written: the document itself must be valid.
    config::load(source.document.as_bytes(), &|name| variable(name, false)).ok()?;
    let (document, names) = named(source);
    let loaded = load(&document)?;
    let index = |name: &str| names.iter().position(|known| known == name);
    let barred_by = loaded.barred_by(&request.head()).and_then(index);
    let mut decided = decide(loaded, request, answers, now);
    let routes = document.get("routes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let taken = decided.route.as_deref().and_then(index).and_then(|nth| routes.get(nth));
    // A delivery has a body, of which nothing is known here.
    if taken.is_some_and(|route| route.get("webhook").is_some()) {
        decided = decide(load(&document)?, &request.with_body(), answers, now);
    }
    let route = match decided.decision {
        "" => undecided_route(&document, request, now).as_deref().and_then(index),
        _ => decided.route.as_deref().and_then(index),
    };
    let is_read = !["invalid_host", "invalid_path", "malformed_request"].contains(&decided.reason);
    let others = routes.iter().enumerate().filter(|(nth, _)| is_read && Some(*nth) != route);
    let others = others.map(|(nth, it)| (nth, lost(it, request, now, barred_by.is_some()))).collect();
    let rule = rule(&decided, route, barred_by, &source.value());
    Some(Explanation { decided, route, barred_by, others, rule })
}

/// The route of a request that waits for an answer: what the same policy finds if all is public.
fn undecided_route(document: &Value, request: &Request, now: Timestamp) -> Option<String> {
    let answers = Answers { claims: Some(json!({"active": false})), permissions: Some(false) };
    let mut open = document.clone();
    for route in open.get_mut("routes").and_then(Value::as_array_mut).into_iter().flatten() {
        if route.get("webhook").is_some() {
            let name = route.get("name").cloned().unwrap_or_default();
            let matching = route.get("match").cloned().unwrap_or_default();
            *route = json!({"name": name, "match": matching, "access": "public"});
        }
    }
    if let Some(open) = open.as_object_mut() {
        open.remove("webhooks");
    }
    decide(load(&open)?, request, &answers, now).route
}

fn lost(route: &Value, request: &Request, now: Timestamp, is_barred: bool) -> Lost {
    let matching = route.get("match").cloned().unwrap_or_default();
    let without = |names: &[&str]| {
        let mut matching = matching.clone();
        if let Some(members) = matching.as_object_mut() {
            names.iter().for_each(|name| drop(members.remove(*name)));
        }
        let document = json!({"routes": [{"match": matching, "access": "public"}]});
        load(&document)
            .is_some_and(|loaded| decide(loaded, request, &Answers::default(), now).reason == "public")
    };
    match () {
        () if without(&[]) && is_barred => Lost::Barred,
        () if without(&[]) => Lost::LessSpecific,
        () if without(&["methods"]) => Lost::Method,
        () if without(&["methods", "hosts"]) => Lost::Host,
        () => Lost::Path,
    }
}

/// The path of the rule that led to the decision.
fn rule(decided: &Decided, route: Option<usize>, barred_by: Option<usize>, value: &Value) -> Option<String> {
    let field = match decided.reason {
        "insufficient_scope" => "require.scopes",
        "wrong_audience" => "require.audience",
        "wrong_issuer" => "require.issuer",
        "client_not_allowed" => "require.client_id",
        "claim_mismatch" => "require.claims",
        "permission_denied" => "require.permissions",
        "missing_token" | "public" | "anonymous" => "access",
        "no_route" => {
            return Some(match barred_by {
                Some(nth) => format!("routes[{nth}].match"),
                None => "default_access".to_owned(),
            });
        }
        _ => return None,
    };
    let is_there = |path: &String| place::resolve(value, path).1;
    let own = route.map(|nth| format!("routes[{nth}].{field}"));
    let top = if route.is_some() { field } else { "default_access" };
    own.filter(is_there).or_else(|| Some(top.to_owned()).filter(is_there))
}

impl Explanation {
    /// A place of the policy: with the route's name, and its line.
    fn place(source: &Source, value: &Value, path: &str) -> String {
        let named = advice::with_names(path, value);
        match source.find(value, path, true) {
            Some(range) if place::resolve(value, path).1 => {
                let (line, column) = place::line_and_column(&source.text, range.start);
                format!("{named} ({}:{line}:{column})", source.name)
            }
            _ => named,
        }
    }

    fn text(&self, source: &Source) -> String {
        let value = source.value();
        let at = |nth: usize| Self::place(source, &value, &format!("routes[{nth}]"));
        let mut lines = Vec::new();
        let mut line = |label: &str, text: String| lines.push(format!("{label:<10}{text}"));
        line("route", self.route.map_or_else(|| "none".to_owned(), at));
        if let Some(nth) = self.barred_by {
            line("barred by", at(nth));
        }
        let near = self.others.iter().filter(|(_, lost)| *lost != Lost::Path);
        near.for_each(|(nth, lost)| line("not", format!("{}: {}", at(*nth), lost.words())));
        match self.others.iter().filter(|(_, lost)| *lost == Lost::Path).count() {
            0 => {}
            count => line("not", format!("{count} more, whose path does not match")),
        }
        for call in &self.decided.calls {
            let check = call.check.as_ref().map(|check| format!(" {check}")).unwrap_or_default();
            line("call", format!("{} {} to cluster `{}`{check}", call.method, call.path, call.cluster));
        }
        match self.decided.open {
            Some(open) => line("decision", format!("open: it depends on {open}")),
            None => {
                let status = self.decided.status.map(|status| format!(", {status}")).unwrap_or_default();
                line("decision", format!("{}, {}{status}", self.decided.decision, self.decided.reason));
            }
        }
        if let Some(rule) = &self.rule {
            let (steps, is_there) = place::resolve(&value, rule);
            let written = value.pointer(&place::pointer(&steps)).filter(|_| is_there);
            let written = written.map(|written| format!(": {written}")).unwrap_or_default();
            line("rule", format!("{}{written}", Self::place(source, &value, rule)));
        }
        self.decided.added.iter().for_each(|(name, value)| line("adds", format!("{name}: {value}")));
        self.decided.removed.iter().for_each(|name| line("removes", name.clone()));
        lines.join("\n")
    }

    fn json(&self, source: &Source) -> Value {
        let value = source.value();
        let name = |nth: usize| value.pointer(&format!("/routes/{nth}/name")).cloned();
        let route = |nth: usize| json!({"index": nth, "name": name(nth)});
        let calls = self.decided.calls.iter().map(|call| {
            json!({"cluster": call.cluster, "method": call.method, "path": call.path, "check": call.check})
        });
        let others =
            self.others.iter().map(|(nth, lost)| json!({"route": route(*nth), "because": lost.words()}));
        let is_decided = self.decided.open.is_none();
        json!({
            "route": self.route.map(route),
            "barred_by": self.barred_by.map(route),
            "others": others.collect::<Vec<_>>(),
            "calls": calls.collect::<Vec<_>>(),
            "decision": is_decided.then_some(self.decided.decision),
            "reason": is_decided.then_some(self.decided.reason),
            "depends_on": self.decided.open,
            "status": self.decided.status,
            "rule": self.rule,
            "adds": self.decided.added.iter().map(|(name, value)| json!([name, value])).collect::<Vec<_>>(),
            "removes": self.decided.removed,
        })
    }
}
