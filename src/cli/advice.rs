//! What a person meant, and which problems are only another one's consequence.

use avnology_gate::config::Problem;
use serde_json::{Value, json};

/// A problem, and what helps.
pub(crate) struct Advised<'p> {
    /// The problem.
    pub(crate) problem: &'p Problem,
    /// What helps, a sentence each.
    pub(crate) help: Vec<String>,
}

/// The problems without those that another one explains.
pub(crate) fn advised<'p>(problems: &'p [Problem], value: &Value) -> Vec<Advised<'p>> {
    let misspelt: Vec<String> =
        problems.iter().filter_map(|it| Some(join(parent(it.path()), &meant(it)?))).collect();
    // A route whose `access` is not known is read as one that wants a token.
    let access_is_unknown = |expected: &str| {
        let route = expected.strip_prefix("it: ").and_then(|text| text.split(' ').next());
        let access = route.map(|route| join(route, "access"));
        access
            .is_some_and(|access| problems.iter().any(|it| it.path() == access) || misspelt.contains(&access))
    };
    let is_explained = |problem: &Problem| {
        let path = problem.path();
        let is_missing = problem.found().starts_with("nothing");
        let is_about_parameters = problem.expected() == "a parameter of the route's path";
        let others = || problems.iter().map(Problem::path).filter(|other| *other != path);
        (is_missing && problem.alike() == 0 && access_is_unknown(problem.expected()))
            || (is_missing && misspelt.iter().any(|name| is_within(path, name)))
            || (problem.found() == "no rule" && others().any(|other| is_within(other, path)))
            || (is_about_parameters
                && others().any(|other| {
                    let route = other.split(".match").next().filter(|route| *route != other);
                    route.is_some_and(|route| is_within(path, route))
                }))
    };
    let kept = problems.iter().filter(|problem| !is_explained(problem));
    kept.map(|problem| Advised { problem, help: help(problem, value) }).collect()
}

fn help(problem: &Problem, value: &Value) -> Vec<String> {
    let mut help = Vec::new();
    help.extend(meant(problem).map(|word| format!("did you mean `{word}`?")));
    help.extend(wrapped(problem, value));
    help
}

/// The word that a misspelt one stands for.
fn meant(problem: &Problem) -> Option<String> {
    let written = if problem.is_unknown_field() {
        let path = problem.path();
        path.rsplit_once('.').map_or(path, |(_, name)| name)
    } else {
        problem.found().strip_prefix('`')?.strip_suffix('`')?
    };
    // Anything but a list of words is a description.
    let words = problem.expected().strip_prefix('`')?.strip_suffix('`')?;
    let words = words.split('`').step_by(2);
    let written = written.to_lowercase();
    let near = words.map(|word| (strsim::damerau_levenshtein(&written, &word.to_lowercase()), word));
    let (distance, word) = near.min()?;
    (distance <= (word.len() / 3).max(1)).then(|| word.to_owned())
}

/// How `all` and `any` are written by whom a list or a single item was enough.
fn wrapped(problem: &Problem, value: &Value) -> Option<String> {
    let path = problem.path();
    let is_rule = path.ends_with(".scopes") || path.ends_with(".permissions");
    let (steps, true) = super::place::resolve(value, path) else { return None };
    let found = value.pointer(&super::place::pointer(&steps))?;
    if !is_rule || path.starts_with("provider") || found.is_object() {
        return None;
    }
    let items = if found.is_array() { found.clone() } else { json!([found]) };
    let is_fit = |item: &Value| if path.ends_with(".scopes") { item.is_string() } else { item.is_object() };
    let fits = items.as_array().is_some_and(|items| !items.is_empty() && items.iter().all(is_fit));
    fits.then(|| format!("write `{}`, or `any` for `all`", json!({ "all": items })))
}

/// Whether a path leads to this place or into it.
fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

/// A message with each route's name beside its index.
pub(crate) fn with_names(message: &str, value: &Value) -> String {
    const ROUTE: &str = "routes[";
    let mut parts = message.split(ROUTE);
    let mut named = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        named.push_str(ROUTE);
        let route = part.split_once(']').and_then(|(nth, rest)| {
            let name = value.get("routes")?.get(nth.parse::<usize>().ok()?)?.get("name")?.as_str()?;
            Some(format!("{nth}] (`{name}`){rest}"))
        });
        named.push_str(route.as_deref().unwrap_or(part));
    }
    named
}
