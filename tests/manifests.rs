//! The manifests of `envoy/istio` and `envoy/gateway`: they say what the shipped policy says, agree
//! with each other, and are what the projects' own definitions allow.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "the lint wall is the core's: a test may panic"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use avnology_gate::config;
use harness::manifests::{self, KUSTOMIZATIONS, Manifest};
use harness::sample;
use jsonschema::Validator;
use libtest_mimic::{Arguments, Failed, Trial};
use serde::Deserialize as _;
use serde_json::{Value, json};

type Outcome = Result<(), Failed>;

fn main() {
    let here = |name: &str, run: fn() -> Outcome| Trial::test(name, run);
    // Shown as ignored where nobody has named the definitions; make's last lines say so too.
    let definitions = |name: &str, run: fn(&Definitions) -> Outcome| {
        let trial = Trial::test(name, move || run(&Definitions::load()?));
        trial.with_ignored_flag(std::env::var_os(FOLDER).is_none())
    };
    let trials = vec![
        here("every_manifest_is_a_part_of_a_kustomization", parts),
        here("the_policy_is_the_shipped_one_but_for_the_clusters_name", policies),
        here("the_environment_comes_from_the_secret", environment),
        here("the_gate_refuses_the_placeholders_of_the_secret", placeholders),
        here("the_image_is_of_this_version", image),
        here("the_listeners_settings_are_the_shipped_ones", listener),
        here("the_capabilities_are_what_the_module_has", capabilities),
        here("a_kind_without_a_definition_has_only_known_fields", shapes),
        here("a_definition_is_made_strict", strictness),
        definitions("the_projects_definitions_allow_every_manifest", allowed),
        definitions("the_projects_definitions_refuse_a_misspelling_anywhere", misspelled),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

const NAMESPACE: &str = "avnology-gate";

fn parts() -> Outcome {
    let mut reached = BTreeSet::new();
    for kustomization in KUSTOMIZATIONS {
        for it in manifests::built(kustomization)? {
            let namespace = if it.kind() == "Namespace" { it.name() } else { it.namespace() };
            assert_eq!(namespace, NAMESPACE, "{}: {}", it.file, it.name());
            reached.insert(it.file);
        }
    }
    // Nobody's secrets are overwritten by an update of the rest.
    let secrets = ["gateway/secret.yaml".to_owned(), "istio/secret.yaml".to_owned()];
    let all: BTreeSet<String> = manifests::all()?.into_iter().map(|it| it.file).collect();
    let apart: Vec<&String> = all.difference(&reached).collect();
    assert_eq!(apart, secrets.iter().collect::<Vec<_>>());
    Ok(())
}

/// The policies in a kustomization, each with the names of the variables that its plugin is given.
fn policies_of(kustomization: &str) -> Result<Vec<(Value, Vec<String>)>, Failed> {
    let hosts = |list: &Value| -> Vec<String> {
        let name = |it: &Value| match it {
            Value::String(name) => name.clone(),
            it => {
                assert_eq!(it["valueFrom"], "HOST", "{it}");
                it["name"].as_str().unwrap().to_owned()
            }
        };
        list.as_array().into_iter().flatten().map(name).collect()
    };
    let mut found = Vec::new();
    for it in manifests::built(kustomization)? {
        let spec = it.spec();
        match it.kind() {
            "WasmPlugin" => found.push((spec["pluginConfig"].clone(), hosts(&spec["vmConfig"]["env"]))),
            "TrafficExtension" => {
                let wasm = &spec["wasm"];
                found.push((wasm["pluginConfig"].clone(), hosts(&wasm["vmConfig"]["env"])));
            }
            "EnvoyExtensionPolicy" => {
                for wasm in spec["wasm"].as_array().unwrap() {
                    found.push((wasm["config"].clone(), hosts(&wasm["env"]["hostKeys"])));
                }
            }
            "EnvoyFilter" => {
                for patch in spec["configPatches"].as_array().unwrap() {
                    let config = &patch["patch"]["value"]["typed_config"]["config"];
                    if let Some(text) = config["configuration"]["value"].as_str() {
                        let keys = &config["vm_config"]["environment_variables"]["host_env_keys"];
                        found.push((serde_json::from_str(text)?, hosts(keys)));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

fn policies() -> Outcome {
    for kustomization in KUSTOMIZATIONS {
        let policies = policies_of(kustomization)?;
        assert_eq!(policies.len(), 1, "{kustomization}");
        let mut shipped = sample::policy();
        let istio = kustomization.starts_with("istio/");
        // That these are the names of the clusters is shown by the trials in a real Envoy.
        let cluster = if istio {
            "outbound|443||api-id.avnology.net"
        } else {
            "httproute/avnology-gate/avnology/rule/0"
        };
        shipped["provider"]["cluster"] = json!(cluster);
        assert_eq!(policies[0].0, shipped, "{kustomization}");
    }
    Ok(())
}

/// The names that a container's environment takes from the Secret.
fn taken_from_the_secret(list: &Value) -> Vec<String> {
    let taken = |it: &Value| {
        let name = it["name"].as_str().unwrap();
        let from = json!({"secretKeyRef": {"name": "avnology-gate", "key": name}});
        assert_eq!(*it, json!({"name": name, "valueFrom": from}));
        name.to_owned()
    };
    list.as_array().unwrap().iter().map(taken).collect()
}

fn environment() -> Outcome {
    let mut named = sample::variables_of(sample::policy().to_string().as_bytes());
    named.sort();
    assert_eq!(named.len(), 3);
    for kustomization in KUSTOMIZATIONS {
        let built = manifests::built(kustomization)?;
        let proxy = if kustomization.starts_with("istio/") {
            let map = manifests::only(&built, "ConfigMap", "avnology-gate")?;
            let deployment: Value =
                serde_norway::from_str(map.value["data"]["deployment"].as_str().unwrap())?;
            let container = &deployment["spec"]["template"]["spec"]["containers"][0];
            assert_eq!(container["name"], "istio-proxy");
            taken_from_the_secret(&container["env"])
        } else {
            let proxy = manifests::only(&built, "EnvoyProxy", "avnology-gate")?;
            let container = "/provider/kubernetes/envoyDeployment/container/env";
            taken_from_the_secret(proxy.spec().pointer(container).unwrap())
        };
        for names in [proxy, policies_of(kustomization)?.remove(0).1] {
            assert_eq!(BTreeSet::from_iter(names), BTreeSet::from_iter(named.clone()), "{kustomization}");
        }
    }
    Ok(())
}

fn placeholders() -> Outcome {
    let policy = sample::policy().to_string();
    for mesh in ["istio", "gateway"] {
        let secret = manifests::documents(&format!("{mesh}/secret.yaml"))?.remove(0).value;
        let data: BTreeMap<String, String> = serde_json::from_value(secret["stringData"].clone())?;
        let problems = config::load(policy.as_bytes(), &|name| data.get(name).cloned()).err().unwrap();
        assert_eq!(problems.kept().len(), data.len(), "{mesh}: {problems}");
        for name in sample::variables_of(policy.as_bytes()) {
            assert!(data.contains_key(&name), "{mesh}: no {name}");
        }
    }
    Ok(())
}

fn image() -> Outcome {
    let tag = concat!("registry.example.com/avnology-gate:", env!("CARGO_PKG_VERSION"));
    for kustomization in KUSTOMIZATIONS {
        let text: String = manifests::built(kustomization)?.iter().map(|it| it.value.to_string()).collect();
        assert_eq!(text.matches("registry.example.com/").count(), 1, "{kustomization}");
        assert!(text.contains(tag), "{kustomization} has not {tag}");
    }
    Ok(())
}

/// Whether everything in `part` stands in `whole` too.
fn is_in(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            part.iter().all(|(name, part)| whole.get(name).is_some_and(|whole| is_in(part, whole)))
        }
        (part, whole) => part == whole,
    }
}

fn listener() -> Outcome {
    let shipped = sample::shipped("listener.yaml");
    let shipped = &shipped["resources"][0];
    let manager = &shipped["filter_chains"][0]["filters"][0]["typed_config"];
    let istio = manifests::documents("istio/base/listener.yaml")?.remove(0);
    let patches = istio.spec()["configPatches"].as_array().unwrap();
    assert_eq!(patches.len(), 2);
    for (patch, whole) in patches.iter().zip([shipped, manager]) {
        let value = &patch["patch"]["value"];
        let part = if patch["applyTo"] == "LISTENER" { value } else { &value["typed_config"] };
        assert!(is_in(part, whole), "{part} is not in {whole}");
    }
    let spec = manifests::documents("gateway/base/listener.yaml")?.remove(0).spec().clone();
    let http2 = &manager["http2_protocol_options"];
    // Quantities and durations are written as Kubernetes has them.
    for (pointer, as_shipped) in [
        ("/path/escapedSlashesAction", json!("RejectRequest")),
        ("/headers/withUnderscoresAction", json!("RejectRequest")),
        ("/headers/host/stripTrailingHostDot", manager["strip_trailing_host_dot"].clone()),
        ("/timeout/http/idleTimeout", manager["common_http_protocol_options"]["idle_timeout"].clone()),
        ("/timeout/http/streamIdleTimeout", manager["stream_idle_timeout"].clone()),
        ("/timeout/http/requestReceivedTimeout", manager["request_timeout"].clone()),
        ("/timeout/http/requestHeadersReceivedTimeout", manager["request_headers_timeout"].clone()),
        ("/connection/bufferLimit", mebibytes(&shipped["per_connection_buffer_limit_bytes"])),
        ("/http1/enableTrailers", manager["http_protocol_options"]["enable_trailers"].clone()),
        ("/http1/ignoredUpgradeTypes", json!([{"type": "Prefix", "value": "TLS/"}])),
        ("/http2/maxConcurrentStreams", http2["max_concurrent_streams"].clone()),
        ("/http2/initialStreamWindowSize", mebibytes(&http2["initial_stream_window_size"])),
        ("/http2/initialConnectionWindowSize", mebibytes(&http2["initial_connection_window_size"])),
    ] {
        assert_eq!(spec.pointer(pointer), Some(&as_shipped), "{pointer}");
    }
    Ok(())
}

fn mebibytes(bytes: &Value) -> Value {
    json!(format!("{}Mi", bytes.as_u64().unwrap() >> 20))
}

fn capabilities() -> Outcome {
    let listed = sample::shipped("capabilities.yaml");
    let listed = &listed["capability_restriction_config"]["allowed_capabilities"];
    let listed: BTreeSet<String> = members(listed, "").collect();
    let read = |file: &str| fs::read_to_string(sample::root().join("tools/pack").join(file));
    let imports = read("imports.txt")?;
    let mut expected: BTreeSet<String> =
        imports.lines().filter_map(|line| line.split_once('.')).map(|(_, name)| name.to_owned()).collect();
    let source = read("src/lib.rs")?;
    let exports = source.split("const EXPORTS").nth(1).and_then(|rest| rest.split("];").next()).unwrap();
    // Nobody needs leave to allocate.
    let callbacks = exports.split('"').filter(|name| name.starts_with("proxy_on_"));
    expected.extend(callbacks.filter(|name| *name != "proxy_on_memory_allocate").map(str::to_owned));
    assert_eq!(listed, expected);
    Ok(())
}

/// What kinds have at their top, whose definitions are Kubernetes' own or may be missing.
const SHAPES: [(&str, &str, &[&str]); 8] = [
    ("Namespace", "v1", &[]),
    ("Secret", "v1", &["type", "stringData"]),
    ("ConfigMap", "v1", &["data"]),
    (
        "Gateway",
        "gateway.networking.k8s.io/v1",
        &["spec/gatewayClassName", "spec/infrastructure", "spec/listeners"],
    ),
    ("HTTPRoute", "gateway.networking.k8s.io/v1", &["spec/parentRefs", "spec/hostnames", "spec/rules"]),
    (
        "ClientTrafficPolicy",
        "gateway.envoyproxy.io/v1alpha1",
        &[
            "spec/targetRefs",
            "spec/path",
            "spec/headers",
            "spec/timeout",
            "spec/connection",
            "spec/http1",
            "spec/http2",
        ],
    ),
    ("SecurityPolicy", "gateway.envoyproxy.io/v1alpha1", &["spec/targetRefs", "spec/authorization"]),
    (
        "BackendTrafficPolicy",
        "gateway.envoyproxy.io/v1alpha1",
        &["spec/targetRefs", "spec/loadBalancer", "spec/timeout", "spec/circuitBreaker"],
    ),
];

fn shapes() -> Outcome {
    for it in manifests::all()? {
        let own: Vec<String> = members(&it.value, "").chain(members(&it.value["spec"], "spec/")).collect();
        let shape = SHAPES.iter().find(|(kind, ..)| *kind == it.kind());
        assert!(shape.is_some() || DEFINED.contains(&it.kind()), "{}: {}", it.file, it.kind());
        for member in own {
            let is_usual = ["apiVersion", "kind", "metadata", "spec"].contains(&member.as_str());
            let is_known = shape.is_none_or(|(_, _, fields)| fields.contains(&member.as_str()));
            assert!(is_usual || is_known && (shape.is_some() || member.starts_with("spec/")), "{member}");
        }
        for member in members(&it.value["metadata"], "") {
            assert!(["name", "namespace"].contains(&member.as_str()), "{}: {member}", it.file);
        }
        if let Some((_, version, _)) = shape {
            assert_eq!(it.value["apiVersion"], *version, "{}", it.file);
        }
    }
    Ok(())
}

fn members(value: &Value, prefix: &str) -> impl Iterator<Item = String> {
    value.as_object().into_iter().flatten().map(move |(name, _)| format!("{prefix}{name}"))
}

/// The variable that names the folder with the projects' definitions.
const FOLDER: &str = "GATE_CRDS";

/// The kinds whose definitions the folder must have.
const DEFINED: [&str; 9] = [
    "WasmPlugin",
    "TrafficExtension",
    "EnvoyFilter",
    "ServiceEntry",
    "DestinationRule",
    "EnvoyExtensionPolicy",
    "EnvoyPatchPolicy",
    "EnvoyProxy",
    "Backend",
];

/// What may stand in a manifest, by `apiVersion` and kind.
struct Definitions(BTreeMap<String, Validator>);

impl Definitions {
    fn load() -> Result<Self, Failed> {
        let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap_or_default());
        let mut definitions = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let text = fs::read_to_string(&path)?;
            for document in serde_norway::Deserializer::from_str(&text) {
                let definition = Value::deserialize(document)?;
                let spec = &definition["spec"];
                for version in spec["versions"].as_array().into_iter().flatten() {
                    let name = format!(
                        "{}/{} {}",
                        spec["group"].as_str().unwrap_or_default(),
                        version["name"].as_str().unwrap_or_default(),
                        spec["names"]["kind"].as_str().unwrap_or_default()
                    );
                    let mut schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"].clone();
                    make_strict(&mut schema);
                    let validator =
                        jsonschema::draft202012::new(&schema).map_err(|error| format!("{name}: {error}"))?;
                    definitions.insert(name, validator);
                }
            }
        }
        for kind in DEFINED {
            let is_it = |name: &String| name.split(' ').nth(1) == Some(kind);
            if !definitions.keys().any(is_it) {
                return Err(format!("{} has no definition of {kind}", folder.display()).into());
            }
        }
        Ok(Self(definitions))
    }

    fn of(&self, it: &Manifest) -> Option<&Validator> {
        self.0.get(&format!("{} {}", it.value["apiVersion"].as_str().unwrap_or_default(), it.kind()))
    }
}

/// Makes a definition's schema refuse what its API server would silently drop: fields that it does
/// not have. What is free by design stays free.
fn make_strict(schema: &mut Value) {
    let Value::Object(members) = schema else { return };
    if members.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
        members.remove("type");
    }
    // Go's names for the sizes of numbers.
    members.remove("format");
    let is_free = members.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
    if let Some(Value::Object(properties)) = members.get_mut("properties") {
        properties.values_mut().for_each(make_strict);
        if !is_free {
            members.insert("additionalProperties".to_owned(), json!(false));
        }
    } else if let Some(others) = members.get_mut("additionalProperties") {
        make_strict(others);
    }
    if let Some(items) = members.get_mut("items") {
        make_strict(items);
    }
}

fn strictness() -> Outcome {
    let mut schema = json!({"type": "object", "properties": {
        "port": {"type": "integer", "format": "uint32", "x-kubernetes-int-or-string": true},
        "list": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {}}}},
        "free": {"type": "object", "properties": {"a": {}}, "x-kubernetes-preserve-unknown-fields": true},
    }, "oneOf": [{"properties": {"port": {}}}]});
    make_strict(&mut schema);
    let validator = jsonschema::draft202012::new(&schema).map_err(|error| error.to_string())?;
    for good in [
        json!({"port": 1}),
        json!({"port": "http"}),
        json!({"port": 1, "list": [{"name": "n"}]}),
        json!({"port": 1, "map": {"any": {"a": 1}}}),
        json!({"port": 1, "free": {"any": 1}}),
    ] {
        assert!(validator.is_valid(&good), "{good}");
    }
    for bad in [
        json!({"prot": 1}),
        json!({"port": 1, "list": [{"naem": "n"}]}),
        json!({"port": 1, "map": {"any": {"b": 1}}}),
    ] {
        assert!(!validator.is_valid(&bad), "{bad}");
    }
    Ok(())
}

fn allowed(definitions: &Definitions) -> Outcome {
    let mut held = 0;
    for it in manifests::all()? {
        let Some(definition) = definitions.of(&it) else {
            assert!(!DEFINED.contains(&it.kind()), "{}: no definition of its version", it.file);
            continue;
        };
        let errors: Vec<String> = definition
            .iter_errors(it.spec())
            .map(|error| format!("{} {}: {}: {error}", it.file, it.kind(), error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:#?}");
        held += 1;
    }
    assert!(held >= DEFINED.len(), "{held}");
    Ok(())
}

/// What the definitions leave free: policies, which are compared with the shipped one, and parts of
/// Envoy's configuration, in which the trials in a real Envoy find what is misspelt.
const FREE: [&str; 5] =
    ["/pluginConfig/", "/patch/value/", "/operation/value/", "/wasm/0/config/", "/matchLabels/"];

fn misspelled(definitions: &Definitions) -> Outcome {
    for it in manifests::all()? {
        let Some(definition) = definitions.of(&it) else { continue };
        let mut planted = 0;
        for pointer in pointers(it.spec(), "") {
            if FREE.iter().any(|free| pointer.contains(free)) {
                continue;
            }
            let mut spec = it.spec().clone();
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            let parent = spec.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            let value = parent.remove(name).unwrap();
            parent.insert(format!("{name}x"), value);
            assert!(!definition.is_valid(&spec), "{} {}: {pointer}x is allowed", it.file, it.kind());
            planted += 1;
        }
        assert!(planted > 0, "{}: no misspelling", it.file);
    }
    Ok(())
}

/// Where objects have a member, as JSON pointers.
fn pointers(value: &Value, at: &str) -> Vec<String> {
    match value {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| {
                let own = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                let below = pointers(value, &own);
                std::iter::once(own).chain(below)
            })
            .collect(),
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(nth, item)| pointers(item, &format!("{at}/{nth}"))).collect()
        }
        _ => Vec::new(),
    }
}
