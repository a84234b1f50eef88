//! Reads what Envoy reads: finds the gate's plugin entries and the provider's cluster in Envoy's
//! own files, wherever in them they stand.

use std::net::IpAddr;

use serde_json::Value;

/// The message that Envoy loads a proxy-wasm module with.
const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
/// The message that holds the policy.
const STRING_VALUE: &str = "google.protobuf.StringValue";
/// The message that encrypts a connection to a cluster.
const TLS: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
/// What a whole file of Envoy's has at its top, and a policy does not.
const TOPS: [&str; 9] = [
    "@type",
    "admin",
    "dynamic_resources",
    "filter_chains",
    "http_filters",
    "node",
    "resources",
    "static_resources",
    "typed_config",
];

/// A file of Envoy's, in YAML or JSON.
#[derive(Debug)]
pub(crate) struct File(Value);

/// A plugin entry of the gate's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plugin<'f> {
    /// Its `name`; empty if it has none.
    pub(crate) name: &'f str,
    /// The policy, or why there is none.
    pub(crate) document: Result<&'f str, String>,
    variables: Option<&'f Value>,
}

impl File {
    /// Reads a file. `None`: it is none of Envoy's, but may be a policy.
    ///
    /// # Errors
    /// What is wrong with a file that is Envoy's.
    pub(crate) fn read(text: &[u8]) -> Option<Result<Self, String>> {
        let parsed: Result<serde_norway::Value, _> = serde_norway::from_slice(text);
        let value = match parsed {
            Ok(value) => value,
            // A policy is JSON, whose problems are told better by its own reader.
            Err(error) => return looks_like_yaml(text).then(|| Err(error.to_string())),
        };
        let has_a_top = |value: &serde_norway::Value| TOPS.iter().any(|name| value.get(*name).is_some());
        let is_envoys =
            has_a_top(&value) || value.as_sequence().is_some_and(|items| items.iter().any(has_a_top));
        is_envoys.then(|| Self::merged(value).map_err(|error| error.to_string()))
    }

    fn merged(mut value: serde_norway::Value) -> Result<Self, Box<dyn std::error::Error>> {
        value.apply_merge()?;
        Ok(Self(serde_json::to_value(value)?))
    }

    /// The gate's plugin entries, in their order. Other modules' are left out: an entry is the
    /// gate's if its module is called so, or its document has routes.
    pub(crate) fn plugins(&self) -> Vec<Plugin<'_>> {
        let mut found = Vec::new();
        walk(&self.0, &mut |object| {
            let Some(config) = object.get("config").filter(|_| is_of_type(object, WASM)) else { return };
            let plugin = Plugin {
                name: text(config, "/name").unwrap_or_default(),
                document: document(config),
                variables: config.pointer("/vm_config/environment_variables"),
            };
            let module = text(config, "/vm_config/code/local/filename").unwrap_or_default();
            let is_named = module.rsplit('/').next().is_some_and(|file| file.starts_with("avnology_gate"));
            let has_routes = plugin.document.as_ref().is_ok_and(|document| document.contains("\"routes\""));
            if is_named || has_routes {
                found.push(plugin);
            }
        });
        found
    }

    /// The clusters of this name: one in a whole bootstrap.
    fn clusters<'f>(&'f self, name: &str) -> Vec<&'f Value> {
        let mut found = Vec::new();
        walk(&self.0, &mut |object| {
            let is_cluster = ["connect_timeout", "lb_policy", "load_assignment"]
                .iter()
                .any(|it| object.get(*it).is_some());
            if is_cluster && text(object, "/name") == Some(name) {
                found.push(object);
            }
        });
        found
    }
}

impl Plugin<'_> {
    /// An environment variable as the module will see it: whether the entry passes it on, and the
    /// value, if that stands in the entry. Envoy gives a module no other variable.
    pub(crate) fn variable(&self, name: &str) -> Option<Option<String>> {
        let variables = self.variables?;
        if let Some(value) = variables.get("key_values").and_then(|values| text_of(values.get(name))) {
            return Some(Some(value.to_owned()));
        }
        let keys = variables.get("host_env_keys").and_then(Value::as_array)?;
        keys.iter().any(|key| key.as_str() == Some(name)).then_some(None)
    }
}

/// What stands between the gate and whoever is on the way to its provider, one sentence each.
pub(crate) fn warnings(files: &[&File], cluster: &str) -> Vec<String> {
    let found: Vec<&Value> = files.iter().flat_map(|file| file.clusters(cluster)).collect();
    if found.is_empty() {
        return vec![format!("cluster `{cluster}` is in no file given here: nothing is known of its TLS")];
    }
    let mut warnings: Vec<String> = found.into_iter().flat_map(|it| of_cluster(it, cluster)).collect();
    warnings.dedup();
    warnings
}

fn of_cluster(cluster: &Value, name: &str) -> Vec<String> {
    let socket = cluster.pointer("/transport_socket/typed_config").filter(|socket| is_of_type(socket, TLS));
    let Some(context) = socket else {
        if is_local(cluster) {
            return Vec::new();
        }
        let advice = "whoever is on the way reads tokens and answers in the provider's place";
        return vec![format!("cluster `{name}` has no TLS (`transport_socket`): {advice}")];
    };
    let mut warnings = Vec::new();
    let common = context.get("common_tls_context");
    let validation = |member: &str| {
        let places = ["validation_context", "combined_validation_context/default_validation_context"];
        places
            .iter()
            .any(|place| common.is_some_and(|it| it.pointer(&format!("/{place}/{member}")).is_some()))
    };
    // What a management server sends cannot be read here.
    let is_elsewhere = common.is_some_and(|common| {
        common.get("validation_context_sds_secret_config").is_some()
            || common.pointer("/combined_validation_context/validation_context_sds_secret_config").is_some()
    });
    if !is_elsewhere && !validation("trusted_ca") && !validation("system_root_certs") {
        warnings.push(format!(
            "cluster `{name}` takes any certificate: `validation_context` has no `trusted_ca`"
        ));
    }
    let options = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/upstream_http_protocol_options/auto_san_validation";
    let is_named = validation("match_typed_subject_alt_names")
        || context.get("auto_sni_san_validation") == Some(&Value::Bool(true))
        || cluster.pointer(options) == Some(&Value::Bool(true));
    if !is_elsewhere && !is_named {
        warnings.push(format!(
            "cluster `{name}` takes a certificate for any host: `validation_context` has no `match_typed_subject_alt_names`"
        ));
    }
    warnings
}

/// Whether all endpoints are known, and on this machine.
fn is_local(cluster: &Value) -> bool {
    let mut addresses = Vec::new();
    walk(cluster.get("load_assignment").unwrap_or(&Value::Null), &mut |object| {
        addresses.extend(object.get("endpoint").and_then(|endpoint| endpoint.get("address")));
    });
    let is_near = |address: &&Value| {
        let host = text(address, "/socket_address/address").unwrap_or_default();
        let is_loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        address.get("pipe").is_some() || is_loopback
    };
    !addresses.is_empty() && addresses.iter().all(is_near)
}

/// The policy of a plugin entry.
fn document(config: &Value) -> Result<&str, String> {
    let expected = "expected the document as a `google.protobuf.StringValue`";
    let Some(configuration) = config.get("configuration") else {
        return Err(format!("configuration: found nothing, {expected}"));
    };
    let value = text(configuration, "/value").filter(|_| is_of_type(configuration, STRING_VALUE));
    value.ok_or_else(|| {
        let kind = text(configuration, "/@type").unwrap_or("no `@type`");
        format!("configuration: found {kind}, {expected}")
    })
}

fn is_of_type(object: &Value, name: &str) -> bool {
    text(object, "/@type").is_some_and(|kind| kind.rsplit('/').next() == Some(name))
}

fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    text_of(value.pointer(pointer))
}

fn text_of(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str)
}

/// Shows every object, outer ones first.
fn walk<'v>(value: &'v Value, show: &mut impl FnMut(&'v Value)) {
    match value {
        Value::Object(members) => {
            show(value);
            members.values().for_each(|member| walk(member, show));
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, show)),
        _ => {}
    }
}

/// Whether a text that cannot be read was not meant as JSON.
fn looks_like_yaml(text: &[u8]) -> bool {
    !text.trim_ascii_start().starts_with(b"{")
        && TOPS.iter().any(|top| {
            let mut lines = text.split(|byte| *byte == b'\n');
            lines.any(|line| line.strip_prefix(top.as_bytes()).is_some_and(|rest| rest.starts_with(b":")))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        File::read(text.as_bytes()).unwrap().unwrap()
    }

    fn entry(configuration: &str) -> String {
        format!(
            "name: any\ntyped_config:\n  \"@type\": type.googleapis.com/{WASM}\n  config:\n    name: gate\n    \
             vm_config: {{code: {{local: {{filename: /opt/avnology_gate.wasm}}}}}}\n    configuration: {configuration}\n"
        )
    }

    fn cluster(address: &str, more: &str) -> String {
        let endpoint = format!(
            "{{endpoint: {{address: {{socket_address: {{address: \"{address}\", port_value: 1}}}}}}}}"
        );
        format!("name: idp\nload_assignment: {{endpoints: [{{lb_endpoints: [{endpoint}]}}]}}\n{more}")
    }

    fn of(text: &str) -> Vec<String> {
        warnings(
            &[&file(&format!("static_resources:\n  clusters:\n  - {}", text.replace('\n', "\n    ")))],
            "idp",
        )
    }

    fn tls(context: &str) -> String {
        let kind = format!("\"@type\": type.googleapis.com/{TLS}");
        cluster("192.0.2.1", &format!("transport_socket: {{name: tls, typed_config: {{{kind}, {context}}}}}"))
    }

    #[test]
    fn an_entry_is_found_wherever_it_stands() {
        let text = entry(&format!("{{\"@type\": type.googleapis.com/{STRING_VALUE}, value: '{{}}'}}"));
        let listed = format!("- {}", text.replace('\n', "\n  "));
        let deep = format!("resources:\n- filter_chains:\n  - {}", text.replace('\n', "\n    "));
        for text in [text, listed, deep] {
            let file = file(&text);
            let plugins = file.plugins();
            assert_eq!(plugins.len(), 1, "{text}");
            assert_eq!((plugins[0].name, plugins[0].document.clone()), ("gate", Ok("{}")));
        }
    }

    #[test]
    fn another_module_is_no_entry() {
        let configuration = format!("{{\"@type\": type.googleapis.com/{STRING_VALUE}, value: '{{}}'}}");
        let other = entry(&configuration).replace("avnology_gate", "other");
        assert_eq!(file(&other).plugins().len(), 0);
        let other = other.replace("'{}'", "'{\"routes\": []}'");
        assert_eq!(file(&other).plugins().len(), 1);
    }

    #[test]
    fn a_document_in_another_message_is_told() {
        let of_a_struct =
            entry("{\"@type\": type.googleapis.com/google.protobuf.Struct, value: {routes: []}}");
        let bytes = entry("{\"@type\": type.googleapis.com/google.protobuf.BytesValue, value: e30=}");
        let nothing = entry("x").replace("configuration: x", "");
        for (text, found) in [
            (bytes, "google.protobuf.BytesValue"),
            (of_a_struct, "google.protobuf.Struct"),
            (nothing, "found nothing"),
        ] {
            let file = file(&text);
            let problem = file.plugins().remove(0).document.unwrap_err();
            assert!(problem.contains(found) && problem.contains(STRING_VALUE), "{problem}");
        }
    }

    #[test]
    fn what_is_not_envoys_is_left_to_the_reader_of_policies() {
        for text in ["{\"routes\": []}", "{\"routes\": [", "", "routes: []", "\t{", "[1]"] {
            assert!(File::read(text.as_bytes()).is_none(), "{text}");
        }
        for text in ["static_resources: [", "node: {}\nadmin: \"", "node: &a {<<: 1}"] {
            assert!(File::read(text.as_bytes()).unwrap().is_err(), "{text}");
        }
    }

    #[test]
    fn a_module_sees_the_variables_that_its_entry_names() {
        let entry = entry("{}").replace(
            "vm_config: {",
            "vm_config: {environment_variables: {host_env_keys: [HOST], key_values: {KEY: value}}, ",
        );
        let file = file(&entry);
        let plugin = file.plugins().remove(0);
        assert_eq!(plugin.variable("HOST"), Some(None));
        assert_eq!(plugin.variable("KEY"), Some(Some("value".to_owned())));
        assert_eq!(plugin.variable("OTHER"), None);
    }

    #[test]
    fn a_cluster_without_tls_is_told_unless_all_of_it_is_here() {
        for far in
            [cluster("192.0.2.1", ""), cluster("idp.example", ""), "name: idp\nlb_policy: RANDOM".to_owned()]
        {
            assert!(of(&far).concat().contains("has no TLS"), "{far}");
        }
        let other_socket =
            cluster("192.0.2.1", "transport_socket: {name: raw, typed_config: {\"@type\": a/b}}");
        assert!(of(&other_socket).concat().contains("has no TLS"));
        for near in [cluster("127.0.0.1", ""), cluster("127.1.2.3", ""), cluster("::1", "")] {
            assert_eq!(of(&near), Vec::<String>::new(), "{near}");
        }
        assert!(of(&cluster("127.0.0.1", "").replace("idp", "other")).concat().contains("in no file"));
    }

    #[test]
    fn tls_that_takes_anybody_is_told() {
        let names = "match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: a}}]";
        let both =
            format!("common_tls_context: {{validation_context: {{trusted_ca: {{filename: a}}, {names}}}}}");
        let elsewhere = "common_tls_context: {validation_context_sds_secret_config: {name: a}}";
        for good in [both.as_str(), elsewhere] {
            assert_eq!(of(&tls(good)), Vec::<String>::new(), "{good}");
        }
        let no_names = of(&tls("common_tls_context: {validation_context: {trusted_ca: {filename: a}}}"));
        assert!(no_names.len() == 1 && no_names[0].contains("any host"), "{no_names:?}");
        let by_sni = "auto_sni_san_validation: true, common_tls_context: {validation_context: {trusted_ca: {filename: a}}}";
        assert_eq!(of(&tls(by_sni)), Vec::<String>::new());
        let anybody = of(&tls("sni: a"));
        assert!(anybody.len() == 2 && anybody[0].contains("any certificate"), "{anybody:?}");
    }
}
