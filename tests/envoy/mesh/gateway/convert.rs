//! What Envoy Gateway makes of the manifests, as envoyproxy/gateway has it at d32f282 (2026-08-21).
//! Each function names the file and function that it follows.

use harness::manifests::{self, Manifest};
use serde_json::{Value, json};
use serde_json_path::JsonPath;

use crate::mesh::translate::{
    MANAGER, WASM, configuration, list, message, only, router, routes, text, tls_socket,
};

const RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
const PER_ROUTE: &str = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
const ACTION: &str = "envoy.config.rbac.v3.Action";
const FILTER: &str = "envoy.config.route.v3.FilterConfig";
const LISTENER: &str = "envoy.config.listener.v3.Listener";
const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const DNS: &str = "envoy.extensions.clusters.dns.v3.DnsCluster";
const LEAST: &str = "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest";

/// internal/xds/translator/globalresources.go, `wasmHTTPServiceClusterName`: where proxies fetch
/// modules, from Envoy Gateway itself.
pub(super) const MODULES: &str = "wasm_cluster";

/// Where Envoy Gateway serves the module that it has fetched, and the module's digest.
pub(super) struct Module {
    pub(super) url: String,
    pub(super) sha256: String,
}

/// The configuration of a Gateway's proxy.
pub(super) struct Gateway {
    pub(super) listener: Value,
    pub(super) provider: Value,
    /// The name of the service's cluster.
    pub(super) service: String,
}

impl Gateway {
    /// Without a module, where the fetch has failed.
    pub(super) fn of(manifests: &[Manifest], module: Option<&Module>) -> Result<Self, String> {
        let gateway = manifests::only(manifests, "Gateway", "avnology-gate")?;
        let service = destination(manifests::only(manifests, "HTTPRoute", "service")?);
        let mut hosts: Vec<(Vec<&str>, Value)> = Vec::new();
        let mut filters: Vec<Value> = Vec::new();
        for route in manifests.iter().filter(|it| it.kind() == "HTTPRoute") {
            let (domains, mut converted) = http_route(route)?;
            if let Some(policy) = policy_for(manifests, route, gateway)? {
                attach(policy, module, &mut converted, &mut filters)?;
            }
            hosts.push((domains, converted));
        }
        filters.extend(authorize(manifests, &mut hosts)?);
        filters.push(router());
        let hosts: Vec<(&[&str], Value)> =
            hosts.iter().map(|(domains, route)| (domains.as_slice(), route.clone())).collect();
        let traffic = manifests::only(manifests, "ClientTrafficPolicy", "avnology-gate").ok();
        let name = format!(
            "{}/{}/{}",
            gateway.namespace(),
            gateway.name(),
            text(&gateway.spec()["listeners"][0]["name"])?
        );
        let mut listener = listener(&name, traffic, routes(&hosts), filters)?;
        listener["default_filter_chain"]["filters"][0]["typed_config"]["route_config"]["ignore_port_in_host_matching"] =
            json!(true);
        for it in manifests.iter().filter(|it| it.kind() == "EnvoyPatchPolicy") {
            patch(it.spec(), &mut listener)?;
        }
        Ok(Self { listener, provider: cluster(manifests)?, service })
    }
}

/// internal/gatewayapi/helpers.go, `irRouteDestinationName`.
fn destination(route: &Manifest) -> String {
    format!("httproute/{}/{}/rule/0", route.namespace(), route.name())
}

/// internal/gatewayapi/route.go, `processHTTPRouteRules`; internal/xds/translator/route.go,
/// `buildXdsRoute`. Without a path, the Gateway API means the prefix `/`.
fn http_route(route: &Manifest) -> Result<(Vec<&str>, Value), String> {
    only(route.spec(), &["parentRefs", "hostnames", "rules"])?;
    let rule = &route.spec()["rules"][0];
    only(rule, &["matches", "backendRefs"])?;
    let path = &rule["matches"][0]["path"];
    if !path.is_null() && *path != json!({"type": "PathPrefix", "value": "/"}) {
        return Err(format!("nobody converts {path}"));
    }
    let domains: Vec<&str> = list(&route.spec()["hostnames"]).filter_map(Value::as_str).collect();
    let domains = if domains.is_empty() { vec!["*"] } else { domains };
    let destination = destination(route);
    let converted = json!({
        "name": format!("{destination}/match/0"),
        "match": {"prefix": "/"},
        "route": {"cluster": destination, "upgrade_configs": [{"upgrade_type": "websocket"}]},
        "typed_per_filter_config": {},
    });
    Ok((domains, converted))
}

/// internal/gatewayapi/envoyextensionpolicy.go, `ProcessEnvoyExtensionPolicies` and
/// `translateEnvoyExtensionPolicyForListeners`: a policy for the route comes before one for the
/// Gateway, and then that one has no say. With `mergeType` it has.
fn policy_for<'m>(
    manifests: &'m [Manifest],
    route: &Manifest,
    gateway: &Manifest,
) -> Result<Option<&'m Manifest>, String> {
    let targeting = |target: &Manifest| {
        manifests.iter().find(|it| {
            let is_it = |of: &Value| of["kind"] == target.kind() && of["name"] == target.name();
            it.kind() == "EnvoyExtensionPolicy" && list(&it.spec()["targetRefs"]).any(is_it)
        })
    };
    match (targeting(route), targeting(gateway)) {
        (Some(own), parent) if own.spec()["mergeType"].is_string() => {
            // What the parent alone has stays.
            if own.spec()["wasm"].is_array() { Err("nobody merges two lists".to_owned()) } else { Ok(parent) }
        }
        (Some(own), _) => Ok(Some(own)),
        (None, parent) => Ok(parent),
    }
}

/// internal/gatewayapi/envoyextensionpolicy.go, `buildWasms`, `buildWasm`, `irConfigNameForWasm`
/// and the end of `translateEnvoyExtensionPolicyForListeners`; internal/xds/translator/wasm.go,
/// `patchHCM` and `patchRoute`.
fn attach(
    policy: &Manifest,
    module: Option<&Module>,
    route: &mut Value,
    filters: &mut Vec<Value>,
) -> Result<(), String> {
    only(policy.spec(), &["targetRefs", "wasm", "lua", "mergeType"])?;
    for (nth, wasm) in list(&policy.spec()["wasm"]).enumerate() {
        only(wasm, &["name", "rootID", "code", "failOpen", "env", "config"])?;
        let Some(module) = module else {
            if wasm["failOpen"] != json!(true) {
                route.as_object_mut().and_then(|route| route.remove("route"));
                route["direct_response"] = json!({"status": 500});
            }
            continue;
        };
        let id = format!("envoyextensionpolicy/{}/{}/wasm/{nth}", policy.namespace(), policy.name());
        let name = format!("envoy.filters.http.wasm/{id}");
        route["typed_per_filter_config"][&name] = message(FILTER, json!({"config": {}}));
        if !filters.iter().any(|filter| filter["name"] == name.as_str()) {
            let config = plugin(wasm, &id, module);
            filters.push(json!({
                "name": name,
                "disabled": true,
                "typed_config": message(WASM, json!({"config": config})),
            }));
        }
    }
    Ok(())
}

/// internal/xds/translator/wasm.go, `wasmConfig`.
fn plugin(wasm: &Value, id: &str, module: &Module) -> Value {
    let remote = json!({
        "http_uri": {"uri": module.url, "cluster": MODULES, "timeout": "10s"},
        "sha256": module.sha256,
        "retry_policy": {
            "num_retries": 10,
            "retry_back_off": {"base_interval": "1s", "max_interval": "30s"},
        },
    });
    json!({
        "name": wasm["name"],
        "root_id": wasm["rootID"],
        "fail_open": wasm["failOpen"],
        "configuration": configuration(&wasm["config"]),
        "vm_config": {
            "vm_id": id,
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"remote": remote},
            "environment_variables": {"host_env_keys": wasm["env"]["hostKeys"]},
        },
    })
}

/// internal/xds/translator/authorization.go, `patchHCM`, `patchRoute` and `buildRBACPerRoute`.
fn authorize(manifests: &[Manifest], hosts: &mut [(Vec<&str>, Value)]) -> Result<Option<Value>, String> {
    let mut any = false;
    for policy in manifests.iter().filter(|it| it.kind() == "SecurityPolicy") {
        only(policy.spec(), &["targetRefs", "authorization"])?;
        only(&policy.spec()["authorization"], &["defaultAction"])?;
        let route = format!(
            "httproute/{}/{}/rule/0/match/0",
            policy.namespace(),
            text(&policy.spec()["targetRefs"][0]["name"])?
        );
        let (_, route) =
            hosts.iter_mut().find(|(_, it)| it["name"] == route.as_str()).ok_or("no route to authorize")?;
        let action = match policy.spec()["authorization"]["defaultAction"].as_str() {
            Some("Allow") => "ALLOW",
            _ => "DENY",
        };
        let action = message(ACTION, json!({"name": action, "action": action}));
        let matcher = json!({"on_no_match": {"action": {"name": "default", "typed_config": action}}});
        route["typed_per_filter_config"]["envoy.filters.http.rbac"] =
            message(PER_ROUTE, json!({"rbac": {"matcher": matcher}}));
        any = true;
    }
    // internal/xds/translator/httpfilters.go, `newOrderedHTTPFilter`: behind modules.
    Ok(any.then(|| json!({"name": "envoy.filters.http.rbac", "typed_config": message(RBAC, json!({}))})))
}

/// internal/xds/translator/listener.go, `buildXdsTCPListener` and `addHCMToXDSListener`;
/// internal/gatewayapi/clienttrafficpolicy.go, `translateClientTrafficPolicyForListener`.
fn listener(
    name: &str,
    traffic: Option<&Manifest>,
    routes: Value,
    filters: Vec<Value>,
) -> Result<Value, String> {
    let nothing = json!({});
    let spec = traffic.map_or(&nothing, Manifest::spec);
    only(spec, &["targetRefs", "path", "headers", "timeout", "connection", "http1", "http2"])?;
    let or = |pointer: &str, default: Value| spec.pointer(pointer).cloned().unwrap_or(default);
    let bytes = |pointer: &str, default: u64| match spec.pointer(pointer) {
        Some(quantity) => mebibytes(quantity),
        None => Ok(default),
    };
    let slashes = match or("/path/escapedSlashesAction", json!("UnescapeAndRedirect")).as_str() {
        Some("RejectRequest") => "REJECT_REQUEST",
        Some("UnescapeAndRedirect") => "UNESCAPE_AND_REDIRECT",
        other => return Err(format!("nobody converts {other:?}")),
    };
    let underscores = match or("/headers/withUnderscoresAction", json!("RejectRequest")).as_str() {
        Some("RejectRequest") => "REJECT_REQUEST",
        other => return Err(format!("nobody converts {other:?}")),
    };
    let ignored: Vec<Value> =
        list(&spec["http1"]["ignoredUpgradeTypes"]).map(|it| json!({"prefix": it["value"]})).collect();
    let mut manager = message(
        MANAGER,
        json!({
            "stat_prefix": "http-10080",
            "codec_type": "AUTO",
            "server_header_transformation": "PASS_THROUGH",
            "use_remote_address": true,
            "normalize_path": true,
            "merge_slashes": true,
            "path_with_escaped_slashes_action": slashes,
            "strip_trailing_host_dot": or("/headers/host/stripTrailingHostDot", json!(false)),
            "common_http_protocol_options": {"headers_with_underscores_action": underscores},
            "http_protocol_options": {
                "enable_trailers": or("/http1/enableTrailers", json!(false)),
                "ignore_http_11_upgrade": ignored,
            },
            "http2_protocol_options": {
                "max_concurrent_streams": or("/http2/maxConcurrentStreams", json!(100)),
                "initial_stream_window_size": bytes("/http2/initialStreamWindowSize", 65_536)?,
                "initial_connection_window_size": bytes("/http2/initialConnectionWindowSize", 1_048_576)?,
            },
            "route_config": routes,
            "http_filters": filters,
        }),
    );
    for (pointer, parent, field) in [
        ("/timeout/http/idleTimeout", "/common_http_protocol_options", "idle_timeout"),
        ("/timeout/http/streamIdleTimeout", "", "stream_idle_timeout"),
        ("/timeout/http/requestReceivedTimeout", "", "request_timeout"),
        ("/timeout/http/requestHeadersReceivedTimeout", "", "request_headers_timeout"),
    ] {
        if let (Some(limit), Some(parent)) = (spec.pointer(pointer), manager.pointer_mut(parent)) {
            parent[field] = limit.clone();
        }
    }
    let filter = json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": manager,
    });
    Ok(message(
        LISTENER,
        json!({
            "name": name,
            "default_filter_chain": {"filters": [filter], "name": name},
            "max_connections_to_accept_per_socket_event": 1,
            "per_connection_buffer_limit_bytes": bytes("/connection/bufferLimit", 32_768)?,
        }),
    ))
}

fn mebibytes(quantity: &Value) -> Result<u64, String> {
    let number = text(quantity)?.strip_suffix("Mi").and_then(|number| number.parse::<u64>().ok());
    number.and_then(|number| number.checked_mul(1 << 20)).ok_or_else(|| format!("nobody converts {quantity}"))
}

/// internal/xds/translator/jsonpatch.go, `processJSONPatches`; internal/utils/jsonpatch,
/// `ConvertPathToPointers` and `ApplyJSONPatches`.
fn patch(spec: &Value, listener: &mut Value) -> Result<(), String> {
    only(spec, &["targetRef", "type", "jsonPatches"])?;
    for it in list(&spec["jsonPatches"]) {
        only(it, &["type", "name", "operation"])?;
        let operation = &it["operation"];
        only(operation, &["op", "jsonPath", "path", "value"])?;
        if it["type"] != format!("type.googleapis.com/{LISTENER}") || it["name"] != listener["name"] {
            return Err(format!("no such resource: {} {}", it["type"], it["name"]));
        }
        if operation["op"] != "add" {
            return Err(format!("nobody converts {operation}"));
        }
        let path = JsonPath::parse(text(&operation["jsonPath"])?).map_err(|error| error.to_string())?;
        let found: Vec<String> =
            path.query_located(listener).iter().map(|node| node.location().to_json_pointer()).collect();
        if found.is_empty() {
            return Err(format!("nothing is at {}", operation["jsonPath"]));
        }
        let field = text(&operation["path"])?.trim_start_matches('/');
        for pointer in found {
            let place = listener.pointer_mut(&pointer).ok_or("it was there")?;
            place[field] = operation["value"].clone();
        }
    }
    Ok(())
}

/// internal/xds/translator: cluster.go, `buildXdsCluster`, `buildXdsClusterCircuitBreaker`,
/// `buildTypedExtensionProtocolOptions` and `buildWeightedLocalities`; translator.go,
/// `buildXdsUpstreamTLSSocketWthCert` and `buildValidationContext`. Of the Backend it takes what
/// internal/gatewayapi/backendtlspolicy.go, `processServerValidationTLSSettings`, has read.
fn cluster(manifests: &[Manifest]) -> Result<Value, String> {
    let backend = manifests::only(manifests, "Backend", "avnology")?.spec();
    let route = manifests::only(manifests, "HTTPRoute", "avnology")?;
    let traffic = manifests::only(manifests, "BackendTrafficPolicy", "avnology")?.spec();
    only(backend, &["endpoints", "tls"])?;
    only(&backend["tls"], &["wellKnownCACertificates", "sni"])?;
    only(traffic, &["targetRefs", "loadBalancer", "timeout", "circuitBreaker"])?;
    only(&traffic["timeout"], &["tcp", "http"])?;
    let limits = &traffic["circuitBreaker"];
    only(limits, &["maxConnections", "maxPendingRequests", "maxParallelRequests", "maxParallelRetries"])?;
    if backend["tls"]["wellKnownCACertificates"] != "System"
        || traffic["loadBalancer"] != json!({"type": "LeastRequest"})
        || list(&route.spec()["rules"][0]["backendRefs"]).all(|it| it["name"] != "avnology")
    {
        return Err("nobody converts such a provider".to_owned());
    }
    let (name, endpoint) = (destination(route), &backend["endpoints"][0]["fqdn"]);
    let matched = format!("{name}/tls/0");
    let names = match backend["tls"]["sni"].as_str() {
        Some(sni) => json!([{"san_type": "DNS", "matcher": {"exact": sni}}]),
        None => json!([]),
    };
    let socket = tls_socket(json!({
        "sni": backend["tls"]["sni"],
        "common_tls_context": {"combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": names},
            "validation_context_sds_secret_config": {
                "name": "system_ca_certificates",
                "sds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
            },
        }},
    }));
    let address =
        json!({"socket_address": {"address": endpoint["hostname"], "port_value": endpoint["port"]}});
    let balancing = message(LEAST, json!({"locality_lb_config": {"locality_weighted_lb_config": {}}}));
    Ok(message(
        CLUSTER,
        json!({
            "name": name,
            "cluster_type": {
                "name": "envoy.cluster.dns",
                "typed_config": message(DNS, json!({
                    "dns_refresh_rate": "30s",
                    "respect_dns_ttl": true,
                    "dns_lookup_family": "V4_PREFERRED",
                })),
            },
            "common_lb_config": {},
            "dns_lookup_family": "V4_PREFERRED",
            "ignore_health_on_host_removal": true,
            "per_connection_buffer_limit_bytes": 32_768,
            "connect_timeout": seconds(&traffic["timeout"]["tcp"]["connectTimeout"])?,
            "load_balancing_policy": {"policies": [{"typed_extension_config": {
                "name": "envoy.load_balancing_policies.least_request",
                "typed_config": balancing,
            }}]},
            "load_assignment": {"cluster_name": name, "endpoints": [{
                "lb_endpoints": [{
                    "endpoint": {"address": address},
                    "load_balancing_weight": 1,
                    "metadata": {"filter_metadata": {"envoy.transport_socket_match": {"name": matched}}},
                }],
                "load_balancing_weight": 1,
                "locality": {"region": format!("{name}/backend/0")},
            }]},
            "circuit_breakers": {"thresholds": [{
                "max_connections": limits["maxConnections"],
                "max_pending_requests": limits["maxPendingRequests"],
                "max_requests": limits["maxParallelRequests"],
                "max_retries": limits["maxParallelRetries"],
            }]},
            "transport_socket": {
                "name": "dummy.transport_socket",
                "typed_config": tls_socket(json!({"common_tls_context": {}}))["typed_config"],
            },
            "transport_socket_matches": [
                {"name": matched, "match": {"name": matched}, "transport_socket": socket},
            ],
            "typed_extension_protocol_options": {(OPTIONS): message(OPTIONS, json!({
                "common_http_protocol_options": {
                    "idle_timeout": traffic["timeout"]["http"]["connectionIdleTimeout"],
                },
                "auto_config": {
                    "http_protocol_options": {},
                    "http2_protocol_options": {
                        "initial_stream_window_size": 65_536,
                        "initial_connection_window_size": 1_048_576,
                    },
                },
            }))},
        }),
    ))
}

/// Protobuf's JSON knows no milliseconds.
fn seconds(duration: &Value) -> Result<String, String> {
    let number = text(duration)?.strip_suffix("ms").and_then(|number| number.parse::<f64>().ok());
    number.map(|number| format!("{}s", number / 1000.0)).ok_or_else(|| format!("nobody converts {duration}"))
}
