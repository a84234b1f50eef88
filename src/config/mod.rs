//! The configuration: compiles JSON into a policy, or reports all problems together.

mod compile;
mod duration;
mod error;
pub mod fields;
mod json;
mod raw;
mod reader;
#[cfg(not(target_family = "wasm"))]
pub mod signing;
mod warn;

pub use compile::Env;
pub use error::{Problem, Problems};

#[cfg(not(target_family = "wasm"))]
use crate::http::{head::RequestHead, host::Host, path::CanonicalPath};
use crate::policy::Policy;
#[cfg(not(target_family = "wasm"))]
use crate::route::Found;
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

impl Loaded {
    /// Adds what is to be said of the plugin's `vm_id`, by which plugins share their data.
    pub fn warn_of_vm_id(&mut self, vm_id: &[u8]) {
        if vm_id.is_empty() {
            self.warnings.push(VM_ID.to_owned());
        }
    }
}

const VM_ID: &str = "`vm_config.vm_id` is empty: every plugin of the proxy whose own is empty too shares the gate's data, and can \
     replace what is cached and what is noted of deliveries. Nothing forged is believed; but it can be lost";

/// What a policy may ask of the provider's cluster, by all workers of an Envoy.
#[cfg(not(target_family = "wasm"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNeeds {
    /// The cluster's name.
    pub cluster: String,
    /// The least `max_connections`, `max_pending_requests` and `max_requests`.
    pub requests: u64,
    /// The least `max_retries`.
    pub retries: u64,
}

#[cfg(not(target_family = "wasm"))]
impl Loaded {
    /// What tells its document from others: eight hex digits, the same whatever the order of
    /// members and the white space. No secret has a part in it.
    pub fn digest(&self) -> &str {
        &self.policy.digest
    }

    /// The name of the route that bars a request: one with a more specific pattern, which a service
    /// that reads the path more leniently would take it for. `None` if nothing bars it so, or the
    /// route has no name.
    pub fn barred_by(&self, head: &RequestHead<'_>) -> Option<&str> {
        let host = Host::of(head).ok()?;
        let path = CanonicalPath::parse(head.target()?).ok()?;
        let found = self.policy.table.find(&host, &path, head.method(), self.policy.fallback.as_ref());
        match found {
            Found::Ambiguous { with } => with.name.as_deref(),
            Found::Route(..) | Found::NoMethod | Found::Nothing => None,
        }
    }

    /// What the provider's cluster must let through; `None` if no route asks the provider.
    pub fn cluster_needs(&self, workers: u32) -> Option<ClusterNeeds> {
        let provider = self.policy.probes.first()?.endpoint().provider();
        let shares = provider.max_in_flight;
        let shares = [shares.new_tokens, shares.refreshes, shares.permissions];
        let callouts = u64::from(workers).saturating_mul(shares.into_iter().map(u64::from).sum());
        let retries = callouts.saturating_mul(provider.retries.into());
        let requests = callouts.saturating_add(retries);
        Some(ClusterNeeds { cluster: provider.cluster.clone(), requests, retries })
    }
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
    let policy = policy.map(|policy| Policy { digest: node.digest(), ..policy });
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
