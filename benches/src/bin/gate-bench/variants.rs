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

/// As in the shipped listener.
const BUFFER_LIMIT: u32 = 2_097_152;

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
    /// Envoy's own filter that holds a body, and does nothing with it.
    Buffer(Size),
    Hook(Size),
    /// The longest body, hashed with [`SECRETS`] secrets.
    HookSecrets,
    /// The longest body, whose event is read.
    HookEvents,
}

/// How long a webhook's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    /// 1 KiB.
    Small,
    /// 100 KiB.
    Middle,
    /// 1 MiB.
    Large,
}

impl Size {
    pub(crate) const ALL: [Self; 3] = [Self::Small, Self::Middle, Self::Large];

    /// Bytes.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Small => 1 << 10,
            Self::Middle => 100 << 10,
            Self::Large => 1 << 20,
        }
    }
}

/// How many secrets [`Kind::HookSecrets`] has. Each beyond the first costs one HMAC more, and nothing
/// else: that is what an HMAC alone costs in the same engine.
pub(crate) const SECRETS: u32 = 5;

/// What a webhook's sender signs with: the last of the secrets.
const SECRET: &str = "bench_secret_of_a_sender_0";

/// A delivery's body, and its signature.
pub(crate) fn delivery(size: Size) -> (String, String) {
    let (before, after) = (r#"{"type":"bench","text":""#, r#""}"#);
    let text = "x".repeat(size.bytes().saturating_sub(before.len() + after.len()));
    let body = format!("{before}{text}{after}");
    let signature = harness::standin::sign_body_only(SECRET, body.as_bytes());
    (body, signature)
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

/// What the requests of a variant are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// All with one token.
    One,
    /// Each with the next of many tokens.
    Many,
    /// Deliveries of a webhook.
    Delivery(Size),
}

impl Kind {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 18] = [
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
        Self::Buffer(Size::Small),
        Self::Hook(Size::Small),
        Self::Buffer(Size::Middle),
        Self::Hook(Size::Middle),
        Self::Buffer(Size::Large),
        Self::Hook(Size::Large),
        Self::HookSecrets,
        Self::HookEvents,
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
            Self::Buffer(Size::Small) => "buffer_1k",
            Self::Buffer(Size::Middle) => "buffer_100k",
            Self::Buffer(Size::Large) => "buffer_1m",
            Self::Hook(Size::Small) => "hook_1k",
            Self::Hook(Size::Middle) => "hook_100k",
            Self::Hook(Size::Large) => "hook_1m",
            Self::HookSecrets => "hook_secrets",
            Self::HookEvents => "hook_events",
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
            Self::Buffer(Size::Small) => "Envoy's buffer filter, 1 KiB",
            Self::Buffer(Size::Middle) => "Envoy's buffer filter, 100 KiB",
            Self::Buffer(Size::Large) => "Envoy's buffer filter, 1 MiB",
            Self::Hook(Size::Small) => "gate, webhook, 1 KiB",
            Self::Hook(Size::Middle) => "gate, webhook, 100 KiB",
            Self::Hook(Size::Large) => "gate, webhook, 1 MiB",
            Self::HookSecrets => "gate, webhook, 1 MiB, five secrets",
            Self::HookEvents => "gate, webhook, 1 MiB, its type read",
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

    /// What its requests are.
    pub(crate) fn load(self) -> Load {
        match self {
            Self::Buffer(size) | Self::Hook(size) => Load::Delivery(size),
            Self::HookSecrets | Self::HookEvents => Load::Delivery(Size::Large),
            _ if self.asks() == Asks::Nothing => Load::One,
            _ => Load::Many,
        }
    }

    /// How long the bodies are, where it is a webhook's.
    pub(crate) fn size(self) -> Option<Size> {
        match self.load() {
            Load::Delivery(size) => Some(size),
            Load::One | Load::Many => None,
        }
    }

    /// The policy, where a webhook is what is measured.
    fn hook_policy(self) -> Option<Value> {
        let secrets = match self {
            Self::Hook(_) | Self::HookEvents => 1,
            Self::HookSecrets => SECRETS,
            _ => return None,
        };
        // The signer's is the last one, although all are compared wherever it stands.
        let secrets: Vec<String> =
            (0..secrets).rev().map(|nth| format!("{}{nth}", SECRET.trim_end_matches('0'))).collect();
        let mut webhook = json!({"format": "avnology", "body_only": true, "secrets": secrets});
        if self == Self::HookEvents {
            webhook["events"] = json!({});
        }
        Some(json!({
            "routes": [{"match": {"methods": ["POST"], "path": "/service-05000/items/{id}"}, "webhook": "hook"}],
            "webhooks": {"hook": webhook},
        }))
    }

    /// How many of the four identity headers the service gets.
    fn headers(self) -> usize {
        match self {
            Self::None | Self::Public => 0,
            _ if self.size().is_some() => 0,
            Self::Lua => 1,
            _ => IDENTITY.len(),
        }
    }

    /// The gate's policy, where the gate is what is measured.
    pub(crate) fn policy(self) -> Option<Value> {
        let (first, last) = match self {
            Self::Hook(_) | Self::HookSecrets | Self::HookEvents => return self.hook_policy(),
            Self::None | Self::JwtAuthn | Self::ExtAuthz | Self::Lua | Self::Buffer(_) => return None,
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
            Self::Buffer(_) => json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
                "max_request_bytes": BUFFER_LIMIT,
            }),
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
        "per_connection_buffer_limit_bytes": BUFFER_LIMIT,
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
        if let Some(size) = self.kind.size() {
            return self.prove_deliveries(size);
        }
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

impl Variant {
    /// Whether a delivery passes, and a forged one only where nobody looks.
    fn prove_deliveries(&self, size: Size) -> Result<(), String> {
        use harness::client::{Ask, Version, ask};
        let (body, signature) = delivery(size);
        let forged = body.replacen('x', "y", 1);
        for (body, expected) in [(body, 200), (forged, if self.kind.policy().is_some() { 401 } else { 200 })]
        {
            let request =
                Ask::new("POST", PROOF, "bench").header("x-avnology-signature", &signature).body(body);
            let answer =
                ask(self.address, Version::Http1, &request).map_err(|failure| failure.to_string())?;
            if answer.status != expected {
                let (name, status) = (&self.name, answer.status);
                return Err(format!("{name}: answered {status}, not {expected}: {}", answer.text()));
            }
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
