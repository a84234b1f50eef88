//! What istiod and its agent make of the manifests, as istio/istio has it at 86c9f01 (2026-08-22).
//! Each function names the file and function that it follows.

use std::path::PathBuf;

use harness::manifests::{self, Manifest};
use serde_json::{Value, json};

use crate::mesh::translate::{
    self, MANAGER, WASM, configuration, list, merge, message, only, router, routes, text, tls_socket,
};

const RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";

/// What came of fetching the module.
pub(super) enum Fetched {
    Module(PathBuf),
    Nothing,
}

/// The configuration of a gateway's proxy.
pub(super) struct Istio {
    pub(super) listener: Value,
    /// What its filters discover.
    pub(super) extensions: Vec<Value>,
    pub(super) provider: Value,
    /// The name of the service's cluster.
    pub(super) service: String,
}

impl Istio {
    pub(super) fn of(manifests: &[Manifest], fetched: &Fetched) -> Result<Self, String> {
        let provider = cluster(
            manifests::only(manifests, "ServiceEntry", "avnology")?.spec(),
            manifests::only(manifests, "DestinationRule", "avnology")?.spec(),
        )?;
        let route = manifests::only(manifests, "HTTPRoute", "service")?;
        let (service, route) = self::route(route)?;
        let mut extensions = Vec::new();
        let mut filters = Vec::new();
        for it in manifests {
            let extension = match it.kind() {
                "TrafficExtension" => traffic_extension(it.name(), it)?,
                "WasmPlugin" => wasm_plugin(it)?,
                _ => continue,
            };
            filters.push(discovering(text(&extension["name"])?));
            extensions.push(extension);
        }
        filters.push(router());
        let mut listener = listener(routes(&[(&["*"], route)]), filters);
        for it in manifests.iter().filter(|it| it.kind() == "EnvoyFilter") {
            envoy_filter(it.spec(), &mut listener, &mut extensions)?;
        }
        let extensions = extensions.into_iter().map(|it| agent(it, fetched)).collect::<Result<_, _>>()?;
        Ok(Self { listener, extensions, provider, service })
    }
}

/// pilot/pkg/networking/core/gateway.go, `buildGatewayConnectionManager`; then
/// pilot/pkg/networking/core/listener_builder.go, `buildHTTPConnectionManager`. With the default
/// MeshConfig, and without telemetry.
fn listener(routes: Value, filters: Vec<Value>) -> Value {
    translate::listener(json!({
        "stat_prefix": "outbound_0.0.0.0_80",
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"subject": true, "cert": true, "dns": true, "uri": true},
        "http_protocol_options": {},
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "normalize_path": true,
        "use_remote_address": true,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "stream_idle_timeout": "0s",
        "route_config": routes,
        "http_filters": filters,
    }))
}

/// pilot/pkg/networking/core/extension/extensionfilter.go, `toEnvoyHTTPTrafficExtension` and
/// `defaultConfigSource`.
fn discovering(name: &str) -> Value {
    let kinds = [WASM, RBAC].map(|kind| format!("type.googleapis.com/{kind}"));
    json!({"name": name, "config_discovery": {
        "config_source": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
        "type_urls": kinds,
    }})
}

/// pilot/pkg/config/kube/extensions/translate.go, `translateWasmPlugin`: a TrafficExtension of a
/// name that no other can have.
fn wasm_plugin(plugin: &Manifest) -> Result<Value, String> {
    let mut spec = plugin.spec().clone();
    let mut extension = json!({});
    for name in ["targetRefs", "phase"] {
        extension[name] = spec.as_object_mut().and_then(|spec| spec.remove(name)).unwrap_or_default();
    }
    extension["wasm"] = spec;
    let translated = Manifest {
        value: json!({"metadata": plugin.value["metadata"], "spec": extension}),
        file: plugin.file.clone(),
    };
    traffic_extension(&format!("{}~istio-translated-wasmplugin", plugin.name()), &translated)
}

/// pilot/pkg/model/extensions.go, `convertToTrafficExtensionWrapper`, `buildWasmConfig`,
/// `buildDataSource` and `buildVMConfig`; the message around it is made in
/// pilot/pkg/networking/core/extension/extensionfilter.go,
/// `InsertedTrafficExtensionConfigurations`.
fn traffic_extension(name: &str, extension: &Manifest) -> Result<Value, String> {
    only(extension.spec(), &["targetRefs", "phase", "wasm"])?;
    let wasm = &extension.spec()["wasm"];
    only(wasm, &["url", "sha256", "failStrategy", "pluginName", "pluginConfig", "vmConfig"])?;
    only(&wasm["vmConfig"], &["env"])?;
    let mut values = json!({"ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION": "1"});
    let mut keys = Vec::new();
    for env in list(&wasm["vmConfig"]["env"]) {
        only(env, &["name", "value", "valueFrom"])?;
        // INLINE is what its enumeration begins with.
        match env["valueFrom"].as_str() {
            Some("HOST") => keys.push(env["name"].clone()),
            Some("INLINE") | None => values[text(&env["name"])?] = env["value"].clone(),
            other => return Err(format!("valueFrom {other:?}")),
        }
    }
    let policy = match wasm["failStrategy"].as_str() {
        Some("FAIL_OPEN") => "FAIL_OPEN",
        Some("FAIL_RELOAD") => "FAIL_RELOAD",
        Some("FAIL_CLOSE") | None => "FAIL_CLOSED",
        other => return Err(format!("failStrategy {other:?}")),
    };
    let remote = json!({
        "http_uri": {"uri": wasm["url"], "timeout": "30s", "cluster": "_"},
        "sha256": wasm["sha256"].as_str().unwrap_or_default(),
    });
    let config = json!({
        "name": format!("{}.{name}", extension.namespace()),
        "root_id": wasm["pluginName"],
        "failure_policy": policy,
        "configuration": configuration(&wasm["pluginConfig"]),
        "vm_config": {
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"remote": remote},
            "environment_variables": {"key_values": values, "host_env_keys": keys},
        },
    });
    Ok(json!({
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": format!("extensions.istio.io/trafficextension/{}.{name}", extension.namespace()),
        "typed_config": message(WASM, json!({"config": config})),
    }))
}

/// pkg/wasm/convert.go, `MaybeConvertWasmExtensionConfig`, `rewriteVMConfig`, `httpWasmFailOpen`
/// and `createHTTPDefaultFilter`: the agent beside Envoy fetches the module, for whatever extension
/// configuration has one.
fn agent(mut extension: Value, fetched: &Fetched) -> Result<Value, String> {
    let config = &mut extension["typed_config"]["config"];
    let uri = config.pointer("/vm_config/code/remote/http_uri").ok_or("nothing is to be fetched")?;
    ensure_cluster(uri)?;
    let open = config["failure_policy"] == "FAIL_OPEN";
    let variables = &mut config["vm_config"]["environment_variables"];
    if let Some(values) = variables.get_mut("key_values").and_then(Value::as_object_mut) {
        values.retain(|name, _| !name.starts_with("ISTIO_META_"));
    }
    match fetched {
        Fetched::Module(path) => config["vm_config"]["code"] = json!({"local": {"filename": path}}),
        // Without rules it allows all, and with none in the rules nothing.
        Fetched::Nothing if open => extension["typed_config"] = message(RBAC, json!({})),
        Fetched::Nothing => extension["typed_config"] = message(RBAC, json!({"rules": {}})),
    }
    Ok(extension)
}

/// Envoy's own definition wants a cluster, which the agent does not look at.
fn ensure_cluster(uri: &Value) -> Result<(), String> {
    text(&uri["cluster"]).map(|_| ())
}

/// pilot/pkg/networking/core/envoyfilter: listener_patch.go, `patchListener`, `patchNetworkFilter`
/// and `patchHTTPFilters`; extension_configuration_patch.go, `InsertedExtensionConfigurations`.
fn envoy_filter(spec: &Value, listener: &mut Value, extensions: &mut Vec<Value>) -> Result<(), String> {
    only(spec, &["targetRefs", "configPatches"])?;
    for patch in list(&spec["configPatches"]) {
        only(patch, &["applyTo", "match", "patch"])?;
        only(&patch["match"], &["context", "listener"])?;
        let (matches, value) = (&patch["match"], &patch["patch"]["value"]);
        if matches["context"] != "GATEWAY" {
            return Err(format!("no gateway: {matches}"));
        }
        let filter = &matches["listener"]["filterChain"]["filter"]["name"];
        let is_manager = filter == "envoy.filters.network.http_connection_manager";
        match (text(&patch["applyTo"])?, text(&patch["patch"]["operation"])?) {
            ("LISTENER", "MERGE") => merge(listener, value),
            ("NETWORK_FILTER", "MERGE") if is_manager => {
                only(value, &["typed_config"])?;
                if value["typed_config"]["@type"] != format!("type.googleapis.com/{MANAGER}") {
                    return Err(format!("another filter: {value}"));
                }
                merge(translate::manager(listener), &value["typed_config"]);
            }
            ("HTTP_FILTER", "INSERT_FIRST") if is_manager => {
                let filters = translate::manager(listener)["http_filters"].as_array_mut();
                filters.ok_or("no filters")?.insert(0, value.clone());
            }
            ("EXTENSION_CONFIG", "ADD") => {
                let kind = "envoy.config.core.v3.TypedExtensionConfig";
                extensions.push(message(kind, value.clone()));
            }
            other => return Err(format!("nobody converts {other:?}")),
        }
    }
    Ok(())
}

/// pilot/pkg/networking/core/cluster_builder.go, `buildCluster`; cluster_traffic_policy.go,
/// `applyConnectionPool` and `applyLoadBalancer`; cluster_tls.go, `constructUpstreamTLS`. The name
/// is of pilot/pkg/model/service.go, `BuildSubsetKey`; that of the secret, of
/// pkg/security/security.go, `GetRootResourceName`.
fn cluster(entry: &Value, rule: &Value) -> Result<Value, String> {
    only(entry, &["hosts", "exportTo", "location", "resolution", "ports"])?;
    only(rule, &["host", "exportTo", "trafficPolicy"])?;
    let (host, port) = (text(&entry["hosts"][0])?, &entry["ports"][0]["number"]);
    if rule["host"] != host || entry["resolution"] != "DNS" || entry["location"] != "MESH_EXTERNAL" {
        return Err(format!("the rule is not for {host}, or it is no host outside"));
    }
    let policy = &rule["trafficPolicy"];
    only(policy, &["tls", "loadBalancer", "connectionPool"])?;
    let (tls, tcp, http) =
        (&policy["tls"], &policy["connectionPool"]["tcp"], &policy["connectionPool"]["http"]);
    only(tls, &["mode", "sni", "caCertificates", "subjectAltNames"])?;
    only(tcp, &["connectTimeout", "maxConnections"])?;
    only(http, &["http1MaxPendingRequests", "http2MaxRequests", "maxRetries", "idleTimeout"])?;
    if tls["mode"] != "SIMPLE" || policy["loadBalancer"] != json!({"simple": "LEAST_REQUEST"}) {
        return Err(format!("nobody converts {policy}"));
    }
    let names: Vec<Value> = list(&tls["subjectAltNames"]).map(|name| json!({"exact": name})).collect();
    let secret = json!({
        "name": format!("file-root:{}", tls["caCertificates"].as_str().unwrap_or("system")),
        "sds_config": {"api_config_source": {"api_type": "GRPC", "transport_api_version": "V3"}},
    });
    let context = json!({
        "sni": tls["sni"],
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
            "combined_validation_context": {
                "default_validation_context": {"match_subject_alt_names": names},
                "validation_context_sds_secret_config": secret,
            },
        },
    });
    let name = format!("outbound|{port}||{host}");
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let address = json!({"socket_address": {"address": host, "port_value": port}});
    Ok(message(
        "envoy.config.cluster.v3.Cluster",
        json!({
            "name": name,
            "type": "STRICT_DNS",
            "dns_lookup_family": "V4_ONLY",
            "connect_timeout": tcp["connectTimeout"],
            "lb_policy": "LEAST_REQUEST",
            "common_lb_config": {},
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
            "circuit_breakers": {"thresholds": [{
                "max_connections": tcp["maxConnections"],
                "max_pending_requests": http["http1MaxPendingRequests"],
                "max_requests": http["http2MaxRequests"],
                "max_retries": http["maxRetries"],
                "track_remaining": true,
            }]},
            "transport_socket": tls_socket(context),
            "typed_extension_protocol_options": {(options): message(options, json!({
                "common_http_protocol_options": {"idle_timeout": http["idleTimeout"]},
                "explicit_http_config": {"http_protocol_options": {}},
            }))},
        }),
    ))
}

/// pilot/pkg/config/kube/gateway/conversion.go, `convertHTTPRoute`;
/// pilot/pkg/networking/core/route/route.go, `translateRoute`.
fn route(route: &Manifest) -> Result<(String, Value), String> {
    only(route.spec(), &["parentRefs", "rules"])?;
    let rule = &route.spec()["rules"][0];
    only(rule, &["matches", "backendRefs"])?;
    let (path, backend) = (&rule["matches"][0]["path"], &rule["backendRefs"][0]);
    if path["type"] != "PathPrefix" {
        return Err(format!("nobody converts {path}"));
    }
    let host = format!("{}.{}.svc.cluster.local", text(&backend["name"])?, route.namespace());
    let service = format!("outbound|{}||{host}", backend["port"]);
    let route = json!({
        "match": {"prefix": path["value"]},
        "route": {"cluster": service, "timeout": "0s"},
    });
    Ok((service, route))
}
