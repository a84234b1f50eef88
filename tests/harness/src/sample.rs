//! The shipped Envoy configuration, with the few changes that a local run or a case needs.
//!
//! Everything is an edit of the parsed files under `envoy/`: what is tested is what is shipped.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The root of the repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// The loadable module that `make build` writes, or the file that `GATE_MODULE` names.
pub fn module() -> Result<PathBuf, String> {
    let path = std::env::var_os("GATE_MODULE")
        .map_or_else(|| root().join("target/avnology_gate.wasm"), PathBuf::from);
    match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) => Err(format!("{}: {error}; `make build` makes it", path.display())),
    }
}

/// The configuration of the gate's plugin entry.
#[derive(Clone, Debug)]
pub enum Policy {
    /// The document, in the StringValue that the shipped file has; in a BytesValue where it is not
    /// UTF-8.
    Document(Vec<u8>),
    /// The document as a `google.protobuf.Struct`.
    Struct(Value),
    /// The document of the shipped file.
    Shipped,
}

/// How a listener differs from the shipped one.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The name of the listener and of the plugin, so that log lines can be told apart.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The gate's configuration.
    pub policy: Policy,
    /// The cluster of the service.
    pub service: String,
    /// Where access log lines go.
    pub access_log: PathBuf,
    /// A label in every access log line: which configuration served the request.
    pub label: String,
    /// `allow_on_headers_stop_iteration`.
    pub knob: bool,
    /// Leave out what normalises and refuses requests before the gate sees them, and let CONNECT
    /// reach it.
    pub raw: bool,
    /// `per_connection_buffer_limit_bytes`, where it differs.
    pub buffer_limit: Option<u64>,
    /// `vm_id`, where it differs: another id is another VM.
    pub vm_id: Option<String>,
    /// Whether the plugin is in the filter chain at all.
    pub gate: bool,
    /// Environment variables that the plugin is handed beside the shipped ones.
    pub variables: Vec<String>,
}

impl Shape {
    /// The shipped listener under another name and at another place.
    pub fn new(name: &str, policy: Policy, service: &str, access_log: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            policy,
            service: service.to_owned(),
            access_log,
            label: "1".to_owned(),
            knob: true,
            raw: false,
            buffer_limit: None,
            vm_id: None,
            gate: true,
            variables: Vec::new(),
        }
    }
}

/// The environment variables that a policy names.
pub fn variables_of(policy: &[u8]) -> Vec<String> {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                let named = members.get("env").filter(|_| members.len() == 1).and_then(Value::as_str);
                found.extend(named.map(str::to_owned));
                members.values().for_each(|value| walk(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    serde_json::from_slice(policy).iter().for_each(|policy| walk(policy, &mut found));
    found.sort();
    found.dedup();
    found
}

/// A file of `envoy/`, parsed.
pub fn shipped(name: &str) -> Value {
    parsed(name, |text| text)
}

/// The same, once its text was edited.
fn parsed(name: &str, edit: impl FnOnce(String) -> String) -> Value {
    let path = root().join("envoy").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut value: serde_norway::Value =
        serde_norway::from_str(&edit(text)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    value.apply_merge().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::to_value(value).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The value at a pointer that the shipped file must have: an edit that finds nothing is a mistake,
/// not a no-op.
fn place<'v>(value: &'v mut Value, pointer: &str) -> &'v mut Value {
    value.pointer_mut(pointer).unwrap_or_else(|| panic!("the shipped configuration has no {pointer}"))
}

fn remove(value: &mut Value, pointer: &str, names: &[&str]) {
    let Some(object) = place(value, pointer).as_object_mut() else { panic!("{pointer} is no object") };
    for name in names {
        assert!(object.remove(*name).is_some(), "the shipped configuration has no {pointer}/{name}");
    }
}

/// The shipped bootstrap, with an admin port that the system chooses, and with listeners and
/// clusters from the given files. It has no clusters of its own: each case brings its own pair.
pub fn bootstrap(listeners: &Path, clusters: &Path) -> Value {
    let mut bootstrap = shipped("envoy.yaml");
    *place(&mut bootstrap, "/admin/address/socket_address/port_value") = json!(0);
    *place(&mut bootstrap, "/dynamic_resources/lds_config/path_config_source/path") = json!(listeners);
    let mut cds = place(&mut bootstrap, "/dynamic_resources/lds_config").clone();
    *place(&mut cds, "/path_config_source/path") = json!(clusters);
    place(&mut bootstrap, "/dynamic_resources")["cds_config"] = cds;
    *place(&mut bootstrap, "/static_resources/clusters") = json!([]);
    bootstrap
}

/// One of the shipped clusters, under another name and at another address.
pub fn cluster(shipped_name: &str, name: &str, address: Option<SocketAddr>) -> Value {
    cluster_of(&shipped("envoy.yaml"), shipped_name, name, address)
}

/// The same, with the lines for TLS switched on as the file says.
pub fn cluster_with_tls(shipped_name: &str, name: &str, address: Option<SocketAddr>) -> Value {
    let bootstrap = parsed("envoy.yaml", |text| text.replace("#TLS ", ""));
    cluster_of(&bootstrap, shipped_name, name, address)
}

fn cluster_of(bootstrap: &Value, shipped_name: &str, name: &str, address: Option<SocketAddr>) -> Value {
    let mut cluster = bootstrap["static_resources"]["clusters"]
        .as_array()
        .and_then(|clusters| clusters.iter().find(|cluster| cluster["name"] == shipped_name))
        .cloned()
        .unwrap_or_else(|| panic!("the shipped configuration has no cluster {shipped_name}"));
    cluster["@type"] = json!("type.googleapis.com/envoy.config.cluster.v3.Cluster");
    cluster["name"] = json!(name);
    *place(&mut cluster, "/load_assignment/cluster_name") = json!(name);
    match address {
        Some(address) => {
            let socket = place(
                &mut cluster,
                "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address",
            );
            socket["address"] = json!(address.ip().to_string());
            socket["port_value"] = json!(address.port());
        }
        None => *place(&mut cluster, "/load_assignment/endpoints") = json!([]),
    }
    cluster
}

/// The shipped listener in another shape.
pub fn listener(shape: &Shape, module: &Path) -> Value {
    let mut listener = shipped("listener.yaml")["resources"][0].take();
    listener["name"] = json!(shape.name);
    listener["stat_prefix"] = json!(shape.name);
    let socket = place(&mut listener, "/address/socket_address");
    socket["address"] = json!(shape.address.ip().to_string());
    socket["port_value"] = json!(shape.address.port());
    if let Some(limit) = shape.buffer_limit {
        *place(&mut listener, "/per_connection_buffer_limit_bytes") = json!(limit);
        // Envoy accepts no smaller HTTP/2 window than 65535.
        let window = json!(limit.max(65_535));
        *place(&mut listener, &format!("{MANAGER}/http2_protocol_options/initial_stream_window_size")) =
            window;
    }

    let manager = place(&mut listener, MANAGER);
    *place(manager, "/stat_prefix") = json!(shape.name);
    let routes = place(manager, "/route_config/virtual_hosts/0/routes").as_array_mut();
    for route in routes.expect("a list") {
        *place(route, "/route/cluster") = json!(shape.service);
    }
    *place(manager, "/access_log/0/typed_config/path") = json!(shape.access_log);
    place(manager, "/access_log/0/typed_config/log_format/json_format")["label"] = json!(shape.label);
    if shape.raw {
        remove(manager, "", &HARDENING);
        remove(manager, "/common_http_protocol_options", &["headers_with_underscores_action"]);
        let upgrades = place(manager, "/upgrade_configs").as_array_mut();
        upgrades.expect("a list").push(json!({"upgrade_type": "CONNECT"}));
        let routes = place(manager, "/route_config/virtual_hosts/0/routes").as_array_mut();
        routes
            .expect("a list")
            .push(json!({"match": {"connect_matcher": {}}, "route": {"cluster": shape.service}}));
    }
    if !shape.gate {
        place(manager, "/http_filters").as_array_mut().expect("a list").remove(0);
        return listener;
    }

    let plugin = place(manager, "/http_filters/0/typed_config/config");
    // Log lines about a configuration contain one of the two, those about a request both.
    plugin["name"] = json!(shape.name);
    plugin["root_id"] = json!(shape.name);
    *place(plugin, "/allow_on_headers_stop_iteration") = json!(shape.knob);
    *place(plugin, "/vm_config/code/local/filename") = json!(module);
    if let Some(id) = &shape.vm_id {
        *place(plugin, "/vm_config/vm_id") = json!(id);
    }
    let keys = place(plugin, "/vm_config/environment_variables/host_env_keys");
    keys.as_array_mut().expect("a list").extend(shape.variables.iter().map(|name| json!(name)));
    match &shape.policy {
        Policy::Document(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => *place(plugin, "/configuration/value") = json!(text),
            Err(_) => {
                let value = STANDARD.encode(bytes);
                plugin["configuration"] =
                    json!({"@type": "type.googleapis.com/google.protobuf.BytesValue", "value": value});
            }
        },
        Policy::Struct(value) => {
            plugin["configuration"] =
                json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": value});
        }
        Policy::Shipped => {}
    }
    listener
}

/// The policy of the shipped listener.
pub fn policy() -> Value {
    let mut listener = shipped("listener.yaml");
    let pointer = format!("/resources/0{MANAGER}/http_filters/0/typed_config/config/configuration/value");
    let text = place(&mut listener, &pointer).as_str().unwrap_or_default().to_owned();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("the shipped policy: {error}"))
}

/// The shipped policy, but no answer is cached: every request that needs the provider asks it.
pub fn uncached_policy() -> Value {
    let mut policy = policy();
    let zero = json!({"ttl": "0s", "negative_ttl": "0s"});
    policy["cache"] = json!({"introspection": zero, "permissions": zero});
    policy
}

/// The shipped policy, but without caching, retries and circuit breaker: what happens is what the
/// provider just did.
pub fn forgetful_policy() -> Value {
    let mut policy = uncached_policy();
    policy["provider"]["retries"] = json!(0);
    policy["provider"]["circuit_breaker"] = json!("off");
    policy
}

/// The label of a listener that [`listener`] made: Envoy keeps an old version number over some
/// updates, so the label tells them apart.
pub fn label(listener: &Value) -> Option<&str> {
    listener.pointer(&format!("{MANAGER}/access_log/0/typed_config/log_format/json_format/label"))?.as_str()
}

/// Gives a listener another policy, in the StringValue that the shipped one has.
pub fn set_policy(listener: &mut Value, document: &str) {
    let pointer = format!("{MANAGER}/http_filters/0/typed_config/config/configuration/value");
    *place(listener, &pointer) = json!(document);
}

/// Makes access log lines name the client that a relay reports, and not the relay.
pub fn client_as_told(listener: &mut Value) {
    *place(listener, &format!("{MANAGER}/access_log/0/typed_config/log_format/json_format/client")) =
        json!("%DOWNSTREAM_REMOTE_ADDRESS%");
}

const MANAGER: &str = "/filter_chains/0/filters/0/typed_config";

/// What the shipped listener sets to make requests unambiguous before the gate sees them.
const HARDENING: [&str; 6] = [
    "normalize_path",
    "merge_slashes",
    "path_with_escaped_slashes_action",
    "strip_any_host_port",
    "strip_trailing_host_dot",
    "use_remote_address",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policys_variables_are_found_and_handed_on() {
        let policy =
            br#"{"a": {"env": "ONE"}, "b": [{"env": "TWO"}, {"env": "ONE"}, {"env": "NO", "more": 1}]}"#;
        assert_eq!(variables_of(policy), ["ONE", "TWO"]);
        assert_eq!(variables_of(b"no json"), [""; 0]);
        let mut shape = Shape::new("n", Policy::Shipped, "s", "/tmp/log".into());
        shape.variables = vec!["ONE".to_owned()];
        let text = listener(&shape, Path::new("/m.wasm")).to_string();
        assert!(text.contains(r#""AVNOLOGY_WEBHOOK_SECRET","ONE"]"#), "{text}");
    }

    #[test]
    fn the_shipped_files_can_be_edited() {
        let mut shape = Shape::new("n", Policy::Document(b"{}".to_vec()), "s", "/tmp/log".into());
        shape.raw = true;
        let listener = listener(&shape, Path::new("/m.wasm"));
        let text = listener.to_string();
        assert!(!text.contains("/etc/envoy") && !text.contains("merge_slashes"), "{text}");
        let text = bootstrap(Path::new("/l.json"), Path::new("/c.json")).to_string();
        assert!(
            !text.contains("/etc/envoy") && text.contains("/l.json") && text.contains("/c.json"),
            "{text}"
        );
        for name in ["avnology", "upstream"] {
            let text = cluster(name, "n", Some(SocketAddr::from(([127, 0, 0, 1], 7)))).to_string();
            assert!(!text.contains("8080") && text.contains("127.0.0.1"), "{text}");
        }
        assert_eq!(policy()["default_access"], "deny");
    }
}
