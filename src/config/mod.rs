//! The configuration: compiles JSON into a policy, or reports all problems together.

mod compile;
mod error;
pub mod fields;
mod json;
mod raw;
mod reader;
mod warn;

pub use compile::Env;
pub use error::{Problem, Problems};

use crate::policy::Policy;
use json::JsonValue;
use reader::Sink;

/// A valid configuration.
#[derive(Debug)]
pub struct Loaded {
    /// Its rules.
    pub(crate) policy: Policy,
    /// Settings that are allowed but probably not intended, one sentence each.
    pub warnings: Vec<String>,
}

/// Reads and compiles a document.
///
/// # Errors
/// All [`Problems`], each with its JSON path.
pub fn load(document: &[u8], env: Env<'_>) -> Result<Loaded, Problems> {
    let mut problems = Problems::default();
    let node: JsonValue = match serde_json::from_slice(document) {
        Ok(node) => node,
        Err(error) => {
            problems.push(
                "",
                describe(document, &error),
                "a JSON document, as a `google.protobuf.StringValue`",
            );
            return Err(problems);
        }
    };
    let sink = Sink::new(problems);
    let raw = raw::read(&node, &sink);
    let mut problems = sink.into_inner();
    let (policy, warnings) = compile::compile(raw, env, &mut problems);
    policy.map(|policy| Loaded { policy, warnings }).ok_or(problems)
}

fn describe(document: &[u8], error: &serde_json::Error) -> String {
    if document.is_empty() {
        return "nothing".to_owned();
    }
    // A `Struct` reaches a filter as protobuf bytes: field 1, length-delimited.
    if document.first() == Some(&0x0a) && document.contains(&0x12) {
        return "protobuf bytes, as of a `google.protobuf.Struct`".to_owned();
    }
    // The error's text contains line and column, and no value.
    format!("something else at line {}, column {}", error.line(), error.column())
}

#[cfg(test)]
mod tests;
