//! Checks the reader and the compiler against the declarations.

use super::describe::{Absent, Declared, Object, Type};
use super::tables::document;
use crate::config::load;
use crate::config::tests::{base, env, lines};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The way to an object of the document: the fields, and their types, from the root.
type Way = Vec<(&'static str, Type)>;

/// Every object, with the way to it.
fn objects() -> Vec<(Way, Object)> {
    fn walk(object: &Object, way: &Way, found: &mut Vec<(Way, Object)>) {
        found.push((way.clone(), object.clone()));
        for field in object.all() {
            if let Some(inner) = field.object() {
                let mut way = way.clone();
                way.push((field.name, field.kind.clone()));
                walk(inner, &way, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(&document(), &Way::new(), &mut found);
    found
}

/// The object at the end of the way, created if it is missing, and its path.
fn reach<'v>(document: &'v mut Value, way: &Way) -> (String, &'v mut Map<String, Value>) {
    let mut path = String::new();
    let mut at = document;
    for (name, kind) in way {
        let separator = if path.is_empty() { "" } else { "." };
        path = format!("{path}{separator}{name}");
        let next = at.as_object_mut().unwrap().entry(*name).or_insert(Value::Null);
        at = match kind {
            Type::Objects(_) => {
                path += "[0]";
                if !next.is_array() {
                    *next = json!([{}]);
                }
                &mut next[0]
            }
            Type::ObjectMap(_) => {
                path += ".hook";
                if !next.is_object() {
                    *next = json!({"hook": {}});
                }
                &mut next["hook"]
            }
            _ => {
                if !next.is_object() {
                    *next = json!({});
                }
                next
            }
        };
    }
    (path, at.as_object_mut().unwrap())
}

/// The base, with what an object at the end of the way needs around it.
fn base_for(way: &Way) -> Value {
    let mut document = base();
    if way.last().is_some_and(|(name, _)| *name == "custom") {
        document["webhooks"]["hook"]["format"] = json!("custom");
        document["webhooks"]["hook"]["custom"] = json!({"signature_header": "x-signature"});
    }
    document
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The fields that a message offers instead of an unknown one, in an object with these members.
fn offered(way: &Way, members: &[(&str, Value)]) -> BTreeSet<String> {
    let mut document = base();
    let (path, object) = reach(&mut document, way);
    object.extend(members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    object.insert("?".to_owned(), json!(1));
    let begin = format!("{}: found an unknown field, expected ", below(&path, "?"));
    let lines = lines(&document);
    let line = lines.iter().find_map(|line| line.strip_prefix(&begin));
    let line = line.unwrap_or_else(|| panic!("{begin}\n{lines:#?}"));
    line.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_reader_knows_the_declared_fields_and_no_others() {
    let objects = objects();
    assert!(objects.len() > 20, "{}", objects.len());
    for (way, object) in objects {
        let declared: BTreeSet<String> = object.all().map(|field| field.name.to_owned()).collect();
        // Some fields are known only beside another one.
        let mut read = offered(&way, &[]);
        for field in object.all() {
            read.extend(offered(&way, &[(field.name, json!("x"))]));
        }
        assert_eq!(read, declared, "{:?}", way.iter().map(|(name, _)| name).collect::<Vec<_>>());
    }
}

#[test]
fn a_required_field_is_missed_by_its_name() {
    for (way, object) in objects() {
        for field in object.all().filter(|field| field.absent == Absent::Refused) {
            let mut document = base();
            let (path, object) = reach(&mut document, &way);
            object.remove(field.name);
            let begin = format!("{}: found nothing, expected ", below(&path, field.name));
            let lines = lines(&document);
            assert!(lines.iter().any(|line| line.starts_with(&begin)), "{begin}\n{lines:#?}");
        }
    }
}

#[test]
fn a_default_that_is_written_out_changes_nothing() {
    // Lines are sorted, since a map prints its members in any order.
    let policy = |document: &str| {
        let loaded = load(document.as_bytes(), &env);
        let loaded = loaded.unwrap_or_else(|problems| panic!("{document}\n{problems}"));
        let mut lines: Vec<String> = format!("{loaded:#?}").lines().map(str::to_owned).collect();
        lines.retain(|line| !line.trim_start().starts_with("digest: "));
        lines.sort();
        lines
    };
    let mut tried = 0;
    for (way, object) in objects() {
        for field in object.all() {
            let Absent::Default(json) = &field.absent else { continue };
            let mut document = base_for(&way);
            let (path, object) = reach(&mut document, &way);
            object.remove(field.name);
            let silent = document.to_string();
            let (_, object) = reach(&mut document, &way);
            object.insert(field.name.to_owned(), json!("@"));
            let written = document.to_string().replace("\"@\"", json);
            let (silent, written) = (policy(&silent), policy(&written));
            let apart: Vec<_> = silent.iter().zip(&written).filter(|(a, b)| a != b).collect();
            assert!(apart.is_empty() && silent.len() == written.len(), "{path} {}: {apart:?}", field.name);
            tried += 1;
        }
    }
    assert!(tried > 30, "{tried}");
}

#[test]
fn a_meaning_fits_into_a_row() {
    for (_, object) in objects() {
        for Declared { name, meaning, .. } in object.all() {
            assert!(!meaning.is_empty() && !meaning.contains(['|', '\n']), "{name}: {meaning}");
            assert!(!meaning.contains("  "), "{name}: {meaning}");
        }
    }
}
