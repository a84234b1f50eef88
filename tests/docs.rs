//! Holds the documentation to the code: examples compile, and the catalogue of reasons is the one that is documented.

// A helper of a test fails it as well.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use avnology_gate::config;
use avnology_gate::refusal::{PASSES, Reason};
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Every environment variable is set, each to its own value.
fn env(name: &str) -> Option<String> {
    Some(format!("value-of-{name}-long-enough"))
}

#[test]
fn the_configuration_in_the_readme_holds_without_a_warning() {
    let readme = read("README.md");
    let blocks: Vec<&str> =
        readme.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 1);
    let loaded = config::load(blocks[0].as_bytes(), &env).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn every_reason_is_documented_with_its_status_and_error() {
    let documented = read("docs/decisions.md");
    for reason in Reason::ALL {
        let answer = reason.info().answer;
        let status = if answer == PASSES { "passes".to_owned() } else { answer.status.code.to_string() };
        let error = if answer == PASSES { String::new() } else { format!("`{}`", answer.error) };
        let row = format!("| `{}` | {status} | {error} | ", reason.id());
        assert!(documented.contains(&row), "docs/decisions.md has no row that begins {row}");
    }
    let rows = documented.lines().filter(|l| {
        l.starts_with("| `") && ([" passes ", "| 2", "| 4", "| 5"].iter().any(|status| l.contains(status)))
    });
    assert_eq!(rows.count(), Reason::ALL.len(), "docs/decisions.md documents a reason that does not exist");
}

#[test]
fn every_field_of_the_configuration_is_documented() {
    let documented = read("docs/configuration.md");
    // The names that the reader asks for are the fields there are.
    let readers = ["mod.rs", "provider.rs", "limits.rs"].map(|file| read(&format!("src/config/raw/{file}")));
    for line in readers.iter().flat_map(|text| text.lines()) {
        let names = line.split('"').skip(1).step_by(2);
        for name in names.filter(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')) {
            let is_field = line.contains(&format!("(\"{name}\""));
            assert!(!is_field || documented.contains(name), "docs/configuration.md does not name `{name}`");
        }
    }
}

#[test]
fn relative_links_lead_somewhere() {
    for page in [
        "README.md",
        "docs/configuration.md",
        "docs/decisions.md",
        "docs/compose.md",
        "docs/performance.md",
        "docs/CONTRIBUTING.md",
        "CHANGELOG.md",
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let folder = folder.parent().unwrap();
        for target in read(page).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if !target.starts_with("http") && !file.is_empty() {
                assert!(folder.join(file).exists(), "{page} links to {target}");
            }
        }
    }
}
