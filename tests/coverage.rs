//! Checks that everything is either covered by a case or by a row of the attack suite, or listed as not covered with a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use harness::{attack, corpus};

#[test]
fn everything_is_covered_or_has_a_reason() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let cases =
        corpus::load(&tests.join("cases")).unwrap_or_else(|problems| panic!("{}", problems.join("\n")));
    let rows = attack::load(&tests.join("attack/rows")).unwrap_or_else(|problem| panic!("{problem}"));
    let of_cases = cases.iter().flat_map(|case| &case.covers);
    let of_rows = rows.iter().flat_map(|row| &row.covers);
    let covered: BTreeSet<&str> = of_cases.chain(of_rows).map(String::as_str).collect();
    let page = std::fs::read_to_string(tests.join("not-covered.md")).expect("tests/not-covered.md is there");
    let excused = reasons(&page);
    let mut problems = Vec::new();
    for id in corpus::coverable() {
        match (covered.contains(id.as_str()), excused.get(id.as_str())) {
            (false, None) => problems.push(format!(
                "{id} has neither a case, nor a row of the attack suite, nor a reason in tests/not-covered.md"
            )),
            (true, Some(_)) => {
                problems.push(format!("{id} has a case, and still stands in tests/not-covered.md"))
            }
            (false, Some(&"")) => problems.push(format!("{id} stands there without a reason")),
            _ => {}
        }
    }
    let known: BTreeSet<String> = corpus::coverable().into_iter().collect();
    problems
        .extend(excused.keys().filter(|id| !known.contains(**id)).map(|id| format!("{id} is not explained")));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn everything_that_can_be_covered_is_explained() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/README.md");
    let manual = std::fs::read_to_string(manual).expect("tests/cases/README.md is there");
    let unexplained: Vec<String> =
        corpus::coverable().into_iter().filter(|id| !manual.contains(&format!("| {id} |"))).collect();
    assert!(unexplained.is_empty(), "tests/cases/README.md does not explain {unexplained:?}");
}

/// The lines `- ID: reason`.
fn reasons(page: &str) -> BTreeMap<&str, &str> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("- ")?.split_once(':'));
    lines.map(|(id, reason)| (id.trim(), reason.trim())).collect()
}
