//! Holds the code to its layout: who may use whom, where `unsafe` may stand, how long a file may be.

// A helper of a test fails it as well.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs;
use std::path::{Path, PathBuf};

/// Every module of the core with those that it may use beside its own; the order of the list is the order of dependencies.
const MAY_USE: [(&str, &[&str]); 17] = [
    ("time", &[]),
    ("secret", &[]),
    ("health", &["time"]),
    ("budget", &["health", "secret", "time"]),
    ("cache", &["secret", "time"]),
    ("refusal", &["health"]),
    ("http", &["refusal"]),
    ("route", &["http", "secret"]),
    ("credential", &["http", "refusal", "secret"]),
    ("introspect", &["cache", "health", "http", "refusal", "secret", "template", "time"]),
    ("template", &["http", "introspect", "refusal"]),
    ("permission", &["cache", "http", "introspect", "refusal", "secret", "template"]),
    ("webhook", &["http", "refusal", "secret", "time"]),
    (
        "policy",
        &[
            "budget",
            "cache",
            "credential",
            "http",
            "introspect",
            "permission",
            "route",
            "secret",
            "template",
            "webhook",
        ],
    ),
    (
        "config",
        &[
            "budget",
            "cache",
            "credential",
            "health",
            "http",
            "introspect",
            "permission",
            "policy",
            "route",
            "secret",
            "template",
            "webhook",
        ],
    ),
    ("telemetry", &["refusal"]),
    ("verdict", &["health", "http", "introspect", "permission", "policy", "refusal", "telemetry", "webhook"]),
];

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

#[test]
fn modules_use_only_what_lies_below_them() {
    for (path, text) in sources() {
        let own = module(&path);
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == own) else { continue };
        for used in code(&text).split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            assert!(used == own || allowed.contains(&used.as_str()), "{} uses {used}", path.display());
        }
    }
}

#[test]
fn every_module_stands_in_the_table_or_above_it() {
    for (path, _) in sources() {
        let own = module(&path);
        let is_above = ["lib", "main", "cli", "flow", "filter"].contains(&own.as_str());
        assert!(is_above || MAY_USE.iter().any(|(name, _)| *name == own), "{own} is in no row of the table");
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
            path.ends_with("tests.rs") || lines <= 480,
            "{} has {lines} lines without its tests",
            path.display()
        );
    }
}
