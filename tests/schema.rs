//! The printed JSON Schema takes and refuses what the gate does, over the whole corpus.

// A panic in a helper fails the test as well.
#![allow(clippy::unwrap_used, clippy::panic)]

use avnology_gate::config::{self, Problem};
use harness::corpus;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn schema() -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_avnology-gate")).arg("schema").output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the shape of a document already shows: a name, a type, what is missing.
fn is_structural(problem: &Problem) -> bool {
    const SHAPES: [&str; 7] = [
        "an object",
        "an object or `off`",
        "a list",
        "a string",
        "a string that is not empty",
        "at least one item",
        "`true` or `false`",
    ];
    // Fields that there are, beside the one that is there: `scheme` beside `header`, and so on.
    let is_beside = [".scheme", ".origins"].iter().any(|name| problem.path().ends_with(name));
    (problem.is_unknown_field() && !is_beside)
        || SHAPES.contains(&problem.expected())
        || problem.expected().starts_with("a whole number from ")
}

#[test]
fn it_takes_every_good_and_refuses_every_malformed_document_of_the_corpus() {
    let schema = schema();
    assert!(jsonschema::meta::is_valid(&schema));
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let cases = corpus::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases"))
        .unwrap_or_else(|problems| panic!("{}", problems.join("\n")));
    let (mut good, mut malformed) = (0, 0);
    let mut judge = |id: &str, value: &Value| {
        let errors = || validator.iter_errors(value).map(|it| format!("{}: {it}", it.instance_path()));
        match config::load(value.to_string().as_bytes(), &|name| Some(format!("{name}-0123456789abcdef"))) {
            Ok(_) => {
                good += 1;
                assert_eq!(errors().collect::<Vec<_>>(), Vec::<String>::new(), "{id}: {value}");
            }
            Err(problems) if problems.kept().iter().any(is_structural) => {
                malformed += 1;
                assert!(!validator.is_valid(value), "{id}: {problems}\n{value}");
            }
            Err(_) => {}
        }
    };
    for case in &cases {
        let mut in_force = None;
        let documents = std::iter::once(case.document().unwrap()).chain(
            case.steps
                .iter()
                .filter_map(|step| step.configure.as_ref())
                .map(|config| case.resolve(config, None).unwrap()),
        );
        for document in documents {
            let Some(value) = document.value else { continue };
            judge(&case.id, &value);
            in_force.get_or_insert(value);
        }
        // What a patch of the document in force makes of it.
        for config in case.steps.iter().filter_map(|step| step.configure.as_ref()) {
            if let Some(value) = case.resolve(config, in_force.as_ref()).unwrap().value {
                judge(&case.id, &value);
            }
        }
    }
    assert!(good > 100 && malformed > 20, "{good} good, {malformed} malformed");
}

#[test]
fn a_policy_may_name_its_schema() {
    let policy =
        r#"{"$schema": "policy.schema.json", "routes": [{"match": {"path": "/a"}, "access": "public"}]}"#;
    assert!(config::load(policy.as_bytes(), &|_| None).is_ok());
    let value: Value = serde_json::from_str(policy).unwrap();
    assert!(jsonschema::draft202012::is_valid(&schema(), &value));
    assert!(config::load(policy.replace("\"policy.schema.json\"", "1").as_bytes(), &|_| None).is_err());
}
