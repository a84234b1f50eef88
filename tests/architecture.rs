//! Checks the code's layout: which module may use which, where `unsafe` may appear, how long a file
//! may be.

// A panic in a helper fails the test as well.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the bottom up: each may use those that come before it, and no other.
const ORDER: [&str; 25] = [
    "time",
    "secret",
    "hash",
    "refusal",
    "telemetry",
    "breaker",
    "backoff",
    "rate_limit",
    "cache",
    "http",
    "overrides",
    "provider",
    "claims",
    "route",
    "credential",
    "template",
    "introspect",
    "permission",
    "probe",
    "webhook",
    "policy",
    "config",
    "verdict",
    "flow",
    "envoy",
];

/// The modules of `flow`, from the bottom up. `request` is a folder of states, which may use each
/// other.
const FLOW: [&str; 28] = [
    "gate",
    "limits",
    "store",
    "query",
    "answer",
    "header_cache",
    "timers",
    "outputs",
    "meter",
    "evictions",
    "fact_kind",
    "facts",
    "health",
    "queue",
    "shares",
    "calls",
    "trace",
    "edits",
    "triage",
    "bodies",
    "counts",
    "services",
    "delivering",
    "request",
    "requests",
    "roots",
    "engine",
    "mod",
];

/// The modules above the core: hosts, the command line, and what only the fuzzers use.
const HOSTS: [&str; 5] = ["filter", "cli", "fuzzing", "lib", "main"];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.into_iter().map(|(path, text)| (path.strip_prefix(&root).unwrap().to_owned(), text)).collect()
}

/// The text before a file's tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap()
}

fn module(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules that a file names after this prefix, such as `crate::` or `super::`.
fn named<'t>(text: &'t str, after: &'t str) -> impl Iterator<Item = String> + 't {
    let braced =
        |rest: &str| rest.strip_prefix('{').and_then(|rest| rest.split('}').next()).map(str::to_owned);
    code(text).split(after).skip(1).flat_map(move |rest| {
        let names = braced(rest).unwrap_or_else(|| rest.to_owned());
        let is_list = rest.starts_with('{');
        let heads: Vec<&str> = if is_list { names.split(',').collect() } else { vec![&names] };
        let head = |name: &str| {
            name.trim().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>()
        };
        heads.into_iter().map(head).filter(|name| !name.is_empty()).collect::<Vec<_>>()
    })
}

/// The modules that a file of the crate names.
fn used(text: &str) -> impl Iterator<Item = String> + '_ {
    named(text, "crate::")
}

#[test]
fn the_rooms_of_the_flow_use_only_what_lies_below_them() {
    let place = |room: &str| FLOW.iter().position(|name| *name == room);
    for (path, text) in sources().into_iter().filter(|(path, _)| path.starts_with("flow")) {
        let mut parts = path.components().skip(1).map(|part| part.as_os_str().to_string_lossy());
        let own = parts.next().unwrap().trim_end_matches(".rs").to_owned();
        let is_nested = parts.next().is_some();
        if path.ends_with("tests.rs") {
            continue;
        }
        let place_of_own = place(&own).unwrap_or_else(|| panic!("flow/{own} is in no row of the order"));
        let nested = is_nested.then(|| named(&text, "crate::flow::")).into_iter().flatten();
        let here = (!is_nested || path.ends_with("mod.rs")).then(|| named(&text, "super::"));
        for used in nested.chain(here.into_iter().flatten()) {
            // Any other name is a state of `request`, or a type of `flow` itself.
            let Some(place_of_used) = place(&used) else { continue };
            assert!(
                used == own || place_of_used < place_of_own,
                "{} uses flow/{used}, which does not lie below it",
                path.display()
            );
        }
    }
}

#[test]
fn comments_are_at_most_a_hundred_columns_wide() {
    for (path, text) in sources() {
        for (nth, line) in text.lines().enumerate() {
            let is_comment = line.trim_start().starts_with("//");
            let width = line.chars().count();
            assert!(!is_comment || width <= 100, "{}:{} has {width} columns", path.display(), nth + 1);
        }
    }
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let place = |module: &str| ORDER.iter().position(|name| *name == module);
    for (path, text) in sources() {
        let own = module(&path);
        let Some(place_of_own) = place(&own) else {
            assert!(HOSTS.contains(&own.as_str()), "{own} is in no row of the order");
            continue;
        };
        for used in used(&text).filter(|used| *used != own) {
            let is_below = place(&used).is_some_and(|place| place < place_of_own);
            assert!(is_below, "{} uses {used}, which does not lie below it", path.display());
        }
    }
}

#[test]
fn unsafe_stands_in_one_file() {
    for (path, text) in sources() {
        let has_unsafe = ["unsafe {", "unsafe(", "unsafe fn", "unsafe extern", "unsafe impl"]
            .iter()
            .any(|form| text.contains(form));
        assert_eq!(has_unsafe, path == Path::new("filter/abi.rs"), "{}", path.display());
    }
}

#[test]
fn the_core_reads_no_clock_and_opens_no_socket() {
    for (path, text) in sources() {
        if path.starts_with("filter") || path.starts_with("cli") {
            continue;
        }
        for forbidden in [
            "SystemTime",
            "Instant::",
            "std::net::Tcp",
            "std::net::Udp",
            "std::env",
            "std::fs",
            "std::thread",
        ] {
            assert!(!code(&text).contains(forbidden), "{} names {forbidden}", path.display());
        }
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for (path, text) in sources() {
        let lines = code(&text).lines().count();
        assert!(
            path.ends_with("tests.rs") || lines <= 400,
            "{} has {lines} lines without its tests",
            path.display()
        );
    }
}
