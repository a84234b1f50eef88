//! What both meshes make of resources in the same way.

use serde_json::{Map, Value, json};

/// A message of Envoy's.
pub(super) fn message(kind: &str, mut fields: Value) -> Value {
    fields["@type"] = json!(format!("type.googleapis.com/{kind}"));
    fields
}

pub(super) const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
pub(super) const MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const LISTENER: &str = "envoy.config.listener.v3.Listener";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const STRING: &str = "google.protobuf.StringValue";
const TLS: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

/// A listener with this connection manager alone.
pub(super) fn listener(manager: Value) -> Value {
    let filter = json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": message(MANAGER, manager),
    });
    message(LISTENER, json!({"filter_chains": [{"filters": [filter]}]}))
}

/// Where a listener that [`listener`] made has its connection manager.
pub(super) fn manager(listener: &mut Value) -> &mut Value {
    &mut listener["filter_chains"][0]["filters"][0]["typed_config"]
}

pub(super) fn router() -> Value {
    json!({"name": "envoy.filters.http.router", "typed_config": message(ROUTER, json!({}))})
}

/// Virtual hosts of one route each.
pub(super) fn routes(routes: &[(&[&str], Value)]) -> Value {
    let host = |(nth, (domains, route)): (usize, &(&[&str], Value))| json!({"name": format!("host-{nth}"), "domains": domains, "routes": [route]});
    json!({"name": "routes", "virtual_hosts": routes.iter().enumerate().map(host).collect::<Vec<_>>()})
}

/// A policy as both meshes send it: JSON in a StringValue, its members in the order of their names.
pub(super) fn configuration(policy: &Value) -> Value {
    message(STRING, json!({"value": sorted(policy).to_string()}))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort();
            Value::Object(names.into_iter().map(|name| (name.clone(), sorted(&members[name]))).collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

pub(super) fn tls_socket(context: Value) -> Value {
    json!({"name": "envoy.transport_sockets.tls", "typed_config": message(TLS, context)})
}

/// Protobuf's merge: messages field by field, lists one behind the other.
pub(super) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from.iter().cloned()),
        (into, from) => *into = from.clone(),
    }
}

/// The members of an object that a converter knows; it is a mistake to drop another one in silence.
pub(super) fn only(value: &Value, known: &[&str]) -> Result<(), String> {
    let members: &Map<String, Value> = value.as_object().ok_or_else(|| format!("no object: {value}"))?;
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("nobody converts {name} of {value}")),
        None => Ok(()),
    }
}

pub(super) fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("no text: {value}"))
}

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
