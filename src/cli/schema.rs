//! `avnology-gate schema`: the JSON Schema of a policy, from the fields' declaration.

use super::say;
use avnology_gate::config::fields::describe::{Absent, Declared, Object, Type};
use avnology_gate::config::fields::tables;
use clap::Args;
use serde_json::{Map, Value, json};
use std::process::ExitCode;

/// Print the JSON Schema of a policy (draft 2020-12), for editors and other programs.
///
/// A policy may name it as `$schema`. It knows names, types and ranges of numbers; what only
/// `check` sees, such as two routes for one request, it does not.
#[derive(Args)]
#[command(after_help = "Example:
  avnology-gate schema > policy.schema.json")]
pub(super) struct Arguments {}

pub(super) fn main() -> ExitCode {
    say(&mut std::io::stdout(), &format!("{:#}", schema()));
    ExitCode::SUCCESS
}

fn schema() -> Value {
    let mut schema = object(&tables::document());
    if let Some(members) = schema.as_object_mut() {
        members.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        members.insert("title".to_owned(), json!("Avnology Gate's policy"));
    }
    schema
}

fn object(object: &Object) -> Value {
    let properties: Map<String, Value> =
        object.all().map(|field| (field.name.to_owned(), property(field))).collect();
    let required = |fields: &[Declared]| -> Vec<&str> {
        fields.iter().filter(|field| field.absent == Absent::Refused).map(|field| field.name).collect()
    };
    let mut schema = json!({
        "type": "object", "properties": properties, "required": required(&object.fields),
        "additionalProperties": false,
    });
    // The fields of another object may be left out together.
    if let (Some(members), Some(like)) = (schema.as_object_mut(), &object.like) {
        let names = required(&like.fields);
        let needs: Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), json!(names))).collect();
        members.insert("dependentRequired".to_owned(), json!(needs));
    }
    schema
}

fn property(field: &Declared) -> Value {
    let mut schema = of_type(&field.kind);
    if let Some(members) = schema.as_object_mut() {
        members.insert("description".to_owned(), json!(field.meaning));
        if let Absent::Default(default) = &field.absent
            && let Ok(default) = serde_json::from_str::<Value>(default)
        {
            members.insert("default".to_owned(), default);
        }
    }
    schema
}

fn of_type(kind: &Type) -> Value {
    let text = || json!({"type": "string", "minLength": 1});
    let texts = || json!({"type": "array", "items": text(), "minItems": 1, "uniqueItems": true});
    let one_or_more = || json!({"anyOf": [text(), texts()]});
    let map = |value: Value| json!({"type": "object", "additionalProperties": value});
    let variable = json!({
        "type": "object", "properties": {"env": text()}, "required": ["env"], "additionalProperties": false,
    });
    let secret = || json!({"anyOf": [{"type": "string"}, variable]});
    match kind {
        Type::Text => text(),
        Type::Flag => json!({"type": "boolean"}),
        Type::Number { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Type::Duration { .. } => json!({"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?(ms|s|m|h)$"}),
        Type::Words(words) => json!({ "enum": words }),
        Type::Texts => texts(),
        Type::OneOrMore => one_or_more(),
        Type::TextMap => map(text()),
        Type::TextsMap => map(one_or_more()),
        Type::FlagOrTextsMap => json!({"anyOf": [{"type": "boolean"}, map(one_or_more())]}),
        Type::Secret => secret(),
        Type::Secrets => json!({"type": "array", "items": secret(), "minItems": 1}),
        Type::Object(inner) => object(inner),
        Type::ObjectOrOff(inner) => json!({"anyOf": [object(inner), {"const": "off"}]}),
        Type::Objects(inner) => json!({"type": "array", "items": object(inner), "minItems": 1}),
        Type::ObjectMap(inner) => map(object(inner)),
    }
}
