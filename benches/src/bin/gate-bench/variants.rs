//! The listeners that are compared: the same HTTP connection manager each time, one filter or none,
//! and an answer from Envoy itself.

use std::net::SocketAddr;
use std::path::Path;

use harness::corpus::ENVIRONMENT;
use harness::envoy::{Envoy, Options, Refused};
use harness::port::Reserved;
use harness::sample::{self, Policy, Shape};
use serde_json::{Value, json};

use crate::provider::{AUDIENCE, AUTHZ, IDENTITY, ISSUER, Provider};

/// What every request asks for: in the middle of the routes, whether they are ten or ten thousand.
pub(crate) const PATH: &str = "/service-05000/items/42";
/// The same route, answered with what a service would have seen of the identity.
const PROOF: &str = "/service-05000/items/proof";

/// How long an answer of the provider may take.
const PATIENCE: &str = "10s";

const JWKS: &str = include_str!("../../../keys/test-only.jwks.json");
const TOKEN: &str = include_str!("../../../keys/test-only.jwt");

/// A variant, by the name that its statistics have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    None,
    Public,
    Cached,
    Permission,
    Uncached,
    Ten,
    TenThousand,
    JwtAuthn,
    ExtAuthz,
    Lua,
}

/// Whose module a gate's listener runs, where two are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The module that was just built. A listener without a gate is on this side too.
    New,
    /// The one that it is compared with.
    Old,
    /// That one a second time, in a VM of its own: it shows what no difference looks like.
    Again,
}

impl Side {
    /// What a listener's name ends with.
    fn suffix(self) -> &'static str {
        match self {
            Self::New => "",
            Self::Old => "_old",
            Self::Again => "_again",
        }
    }
}

/// What a request of a variant asks of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Nothing, once it is warm.
    Nothing,
    /// One introspection.
    Introspection,
    /// One check of `ext_authz`.
    Authz,
}

impl Kind {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 10] = [
        Self::None,
        Self::Public,
        Self::Cached,
        Self::Permission,
        Self::Uncached,
        Self::Ten,
        Self::TenThousand,
        Self::JwtAuthn,
        Self::ExtAuthz,
        Self::Lua,
    ];

    /// Names the listener and its statistics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Public => "public",
            Self::Cached => "cached",
            Self::Permission => "permission",
            Self::Uncached => "uncached",
            Self::Ten => "ten",
            Self::TenThousand => "ten_thousand",
            Self::JwtAuthn => "jwt_authn",
            Self::ExtAuthz => "ext_authz",
            Self::Lua => "lua",
        }
    }

    /// What the table calls it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::None => "no filter",
            Self::Public => "gate, public route",
            Self::Cached => "gate, cached, four identity headers",
            Self::Permission => "gate, the same with a cached permission",
            Self::Uncached => "gate, uncached: one introspection a request",
            Self::Ten => "gate, cached, 10 routes",
            Self::TenThousand => "gate, cached, 10,000 routes",
            Self::JwtAuthn => "jwt_authn RS256, its cache, four claim_to_headers",
            Self::ExtAuthz => "ext_authz over HTTP, four headers",
            Self::Lua => "Lua, two header reads, one header set",
        }
    }

    /// What each request asks.
    pub(crate) fn asks(self) -> Asks {
        match self {
            Self::Uncached => Asks::Introspection,
            Self::ExtAuthz => Asks::Authz,
            _ => Asks::Nothing,
        }
    }

    /// How many of the four identity headers the service gets.
    fn headers(self) -> usize {
        match self {
            Self::None | Self::Public => 0,
            Self::Lua => 1,
            _ => IDENTITY.len(),
        }
    }

    /// The gate's policy, where the gate is what is measured.
    pub(crate) fn policy(self) -> Option<Value> {
        let (first, last) = match self {
            Self::None | Self::JwtAuthn | Self::ExtAuthz | Self::Lua => return None,
            Self::Ten => (4_995, 5_004),
            Self::TenThousand => (0, 9_999),
            Self::Public | Self::Cached | Self::Permission | Self::Uncached => (5_000, 5_000),
        };
        let route = |number: u32| {
            let mut route = json!({
                "match": {"methods": ["GET"], "path": format!("/service-{number:05}/items/{{id}}")},
            });
            if self == Self::Public {
                route["access"] = json!("public");
                return route;
            }
            route["require"] = json!({"audience": [AUDIENCE]});
            if self == Self::Permission {
                route["require"]["permissions"] =
                    json!({"all": [{"relation": "editor", "object": "project:{path.id}"}]});
            }
            if self == Self::Uncached {
                route["cache"] = json!({"introspection": {"ttl": "0s", "negative_ttl": "0s"}});
            }
            route
        };
        let mut policy = sample::policy();
        policy["routes"] = (first..=last).map(route).collect();
        // A machine that is busy with something else makes a run slow, not wrong.
        policy["provider"]["timeout"] = json!(PATIENCE);
        // Nothing goes stale within a run.
        policy["cache"] = json!({"introspection": {"ttl": "1h"}, "permissions": {"ttl": "1h"}});
        if let Some(policy) = policy.as_object_mut() {
            policy.remove("webhooks");
        }
        Some(policy)
    }

    fn filter(self) -> Option<Value> {
        let config = match self {
            Self::JwtAuthn => json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                "providers": {"avnology": {
                    "issuer": ISSUER,
                    "audiences": [AUDIENCE],
                    "forward": true,
                    "local_jwks": {"inline_string": JWKS},
                    "jwt_cache_config": {"jwt_cache_size": 1000},
                    "claim_to_headers": IDENTITY.map(|(header, claim, _)| {
                        json!({"header_name": header, "claim_name": claim})
                    }),
                }},
                "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "avnology"}}],
            }),
            Self::ExtAuthz => json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
                "http_service": {
                    "server_uri": {"uri": "http://avnology", "cluster": "avnology", "timeout": PATIENCE},
                    "path_prefix": AUTHZ,
                    "authorization_response": {
                        "allowed_upstream_headers": {"patterns": [{"prefix": "x-avnology-"}]},
                    },
                },
            }),
            Self::Lua => {
                let (header, _, value) = IDENTITY[0];
                let script = format!(
                    "function envoy_on_request(handle)\n  local headers = handle:headers()\n  \
                     if headers:get(\"authorization\") and headers:get(\":path\") then\n    \
                     headers:replace(\"{header}\", \"{value}\")\n  end\nend\n"
                );
                json!({
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                    "default_source_code": {"inline_string": script},
                })
            }
            _ => return None,
        };
        Some(json!({"name": self.name(), "typed_config": config}))
    }
}

/// The shipped plugin entry with another policy and module.
fn gate(name: &str, policy: &Value, side: Side, module: &Path) -> Value {
    let document = Policy::Document(policy.to_string().into_bytes());
    let mut shape = Shape::new(name, document, "", "/dev/null".into());
    // The same module under the same id would be the same VM, and its cache the same cache.
    shape.vm_id = (side != Side::New).then(|| format!("avnology_gate{}", side.suffix()));
    let mut listener = sample::listener(&shape, module);
    listener
        .pointer_mut("/filter_chains/0/filters/0/typed_config/http_filters/0")
        .map_or(Value::Null, Value::take)
}

/// A listener with this filter in front of an answer that Envoy gives by itself.
fn listener(name: &str, address: SocketAddr, filter: Option<Value>) -> Value {
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    });
    let filters: Vec<Value> = filter.into_iter().chain([router]).collect();
    let seen = IDENTITY.map(|(header, _, _)| format!("%REQ({header})%")).join("|");
    let answer = json!({"status": 200, "body": {"inline_string": "ok\n"}});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "http_filters": filters,
        "route_config": {"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": [
            {"match": {"path": PATH}, "direct_response": answer},
            {
                "match": {"path": PROOF},
                "direct_response": answer,
                "response_headers_to_add": [{"header": {"key": "x-seen", "value": seen}}],
            },
        ]}]},
    });
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "stat_prefix": name,
        "address": {"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }]}],
    })
}

/// One listener that serves.
pub(crate) struct Variant {
    /// Which one.
    pub kind: Kind,
    /// Whose module.
    pub side: Side,
    /// What its statistics are called.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    _port: Reserved,
}

impl Variant {
    /// Adds a listener with the gate's given policy, or with what the kind has.
    pub(crate) fn add(envoy: &Envoy, kind: Kind, policy: Option<&Value>) -> Result<Self, String> {
        let filter = match policy.cloned().or_else(|| kind.policy()) {
            Some(policy) => Some(gate(kind.name(), &policy, Side::New, &sample::module()?)),
            None => kind.filter(),
        };
        Self::listen(envoy, kind, Side::New, filter)
    }

    /// Adds the same listener with another module; none where the kind is no gate.
    pub(crate) fn beside(
        envoy: &Envoy,
        kind: Kind,
        side: Side,
        module: &Path,
    ) -> Option<Result<Self, String>> {
        let name = format!("{}{}", kind.name(), side.suffix());
        let filter = gate(&name, &kind.policy()?, side, module);
        Some(Self::listen(envoy, kind, side, Some(filter)))
    }

    fn listen(envoy: &Envoy, kind: Kind, side: Side, filter: Option<Value>) -> Result<Self, String> {
        let port = Reserved::new(0).map_err(|error| error.to_string())?;
        let name = format!("{}{}", kind.name(), side.suffix());
        envoy
            .put_raw_listener(&name, listener(&name, port.address, filter))
            .map_err(|Refused(text)| format!("{name}: {text}\n{}", envoy.log()))?;
        let variant = Self { kind, side, name, address: port.address, _port: port };
        variant.prove()?;
        Ok(variant)
    }

    /// Whether the service gets the identity headers that it should, and no others.
    fn prove(&self) -> Result<(), String> {
        use harness::client::{Ask, Version, ask};
        let request = Ask::new("GET", PROOF, "bench").header("authorization", format!("Bearer {}", token()));
        let answer = ask(self.address, Version::Http1, &request).map_err(|failure| failure.to_string())?;
        let count = self.kind.headers();
        let expected: Vec<&str> = IDENTITY
            .iter()
            .enumerate()
            .map(|(at, (_, _, value))| if at < count { *value } else { "" })
            .collect();
        let seen: Vec<String> = answer.values("x-seen").into_iter().map(|value| value.to_string()).collect();
        if answer.status != 200 || seen != [expected.join("|")] {
            let (name, status) = (&self.name, answer.status);
            return Err(format!(
                "{name}: answered {status}, and the service would see {seen:?}: {}",
                answer.text()
            ));
        }
        Ok(())
    }
}

/// An Envoy with one worker and the provider behind it.
pub(crate) fn envoy(provider: &Provider) -> Result<Envoy, String> {
    let environment = ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let module = sample::module()?;
    let envoy = Envoy::start(Options { workers: 1, environment, module, narrate: false })?;
    // The harness wants the gate's debug lines; who runs a gateway does not.
    envoy.post("/logging?wasm=warning")?;
    envoy
        .put_clusters(vec![sample::cluster("avnology", "avnology", Some(provider.address))])
        .map_err(|Refused(text)| text)?;
    Ok(envoy)
}

/// The test-only token, which every variant accepts.
pub(crate) fn token() -> &'static str {
    TOKEN.trim()
}

/// A token of the same size whose signature nobody has looked at: a different one for each number.
pub(crate) fn numbered(number: u32) -> String {
    let (stem, end) = numbered_parts();
    format!("{stem}{number:0end$}")
}

/// What stands before a [`numbered`] token's number, and how many digits that has.
pub(crate) fn numbered_parts() -> (&'static str, usize) {
    let digits = 8;
    let token = token();
    (token.get(..token.len().saturating_sub(digits)).unwrap_or_default(), digits)
}
