//! Policies, requests and answers, few enough that they meet.

use crate::gate::{Headers, head};
use crate::targets::webhook::signed;
use arbitrary::{Result, Unstructured};
use avnology_gate::http::{CallFailure, Callout};
use serde_json::{Value, json};

pub(super) const KEY: &str = "a webhook key of enough bytes";
const MAX_BODY: usize = 24;

/// The policies that roots have in turn.
pub(super) fn policies() -> Vec<Value> {
    let limits = json!({"new_tokens": 2, "refreshes": 1, "permissions": 2});
    let whole = json!({
        "provider": {
            "cluster": "avnology", "authority": "id.example", "timeout": "1s", "retries": 0,
            "circuit_breaker": {"probe_interval": "1s"}, "max_in_flight": limits,
            "introspection": {"credentials":
                {"method": "client_secret_post", "client_id": "c", "client_secret": "of the client"}},
            "permissions": {"api_key": "key"}
        },
        "cache": {"introspection": {"ttl": "30s", "stale_if_error": "60s", "max_entries": 3},
            "permissions": {"ttl": "10s", "stale_if_error": "5s", "max_entries": 2}},
        "budgets": {"new_tokens": {"per_second": 5, "burst": 8}, "permissions": {"per_second": 9}},
        "strip_credential": true,
        "credentials": [{"header": "authorization", "scheme": "Bearer"}, {"cookie": "sid"},
            {"query": "access_token"}],
        "webhooks": {
            "hook": {"format": "avnology", "secrets": [KEY], "body_only": true,
                "max_body_bytes": MAX_BODY, "body_timeout": "5s"},
            "other": {"format": "avnology", "secrets": ["another key of enough bytes"], "body_only": true,
                "max_body_bytes": MAX_BODY, "trust_source_address": true}
        },
        "routes": [
            {"match": {"path": "/token"}},
            {"match": {"path": "/optional"}, "access": "optional"},
            {"match": {"path": "/public"}, "access": "public"},
            {"match": {"path": "/check/{id}"}, "require": {"permissions": {"all": [
                {"relation": "r", "object": "x:{path.id}"}, {"relation": "s", "object": "x:{path.id}"}]}}},
            {"match": {"path": "/open/{id}"}, "on_provider_error": "allow", "require": {"permissions": {"any": [
                {"relation": "r", "object": "x:{path.id}"}, {"relation": "s", "object": "x:{path.id}"}]}}},
            {"match": {"path": "/hook"}, "webhook": "hook"},
            {"match": {"path": "/other"}, "webhook": "other"},
            {"match": {"path": "/pre", "methods": ["PUT"]}, "preflight": true, "access": "public"}
        ]
    });
    let mut shadow = whole.clone();
    shadow["mode"] = json!("shadow");
    shadow["strip_credential"] = json!(false);
    let mut other = whole.clone();
    other["provider"]["introspection"]["credentials"] = json!({"method": "none"});
    other["provider"]["circuit_breaker"] = json!("off");
    other["routes"][4]["on_provider_error"] = json!("deny");
    other["webhooks"]["hook"]["max_body_bytes"] = json!(8);
    let public = json!({"routes": [{"match": {"path": "/public"}, "access": "public"}]});
    vec![whole, shadow, other, public]
}

/// What a client sends.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) kind: Kind,
    pub(super) head: Headers,
    /// Which token it shows.
    pub(super) token: Option<u8>,
    pub(super) body: Vec<u8>,
    pub(super) is_signed: bool,
    pub(super) source: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Token,
    Optional,
    Public,
    Check(u8),
    Open(u8),
    Hook,
    Preflight,
}

/// What a client may not say of itself.
pub(super) const EVIL: &[u8] = b"evil";

impl Request {
    pub(super) fn any(input: &mut Unstructured<'_>) -> Result<Self> {
        let object = input.int_in_range(0..=2_u8)?;
        let (kind, mut path) = match input.int_in_range(0..=9_u8)? {
            0 | 1 => (Kind::Token, "/token".to_owned()),
            2 => (Kind::Optional, "/optional".to_owned()),
            3 => (Kind::Public, "/public".to_owned()),
            4 | 5 => (Kind::Check(object), format!("/check/{object}")),
            6 => (Kind::Open(object), format!("/open/{object}")),
            7 => (Kind::Hook, "/hook".to_owned()),
            8 => (Kind::Hook, "/other".to_owned()),
            _ => (Kind::Preflight, "/pre".to_owned()),
        };
        let token = input.int_in_range(0..=4_u8)?;
        let mut headers: Vec<(&str, String)> = Vec::new();
        let mut shown = Some(token);
        match input.int_in_range(0..=8_u8)? {
            0 => shown = None,
            1 => headers.push(("cookie", format!("a=b; sid=tok_{token}"))),
            2 => path += &format!("?x=y&access_token=tok_{token}"),
            3 => headers.extend([
                ("cookie", format!("sid=tok_{token}")),
                ("authorization", format!("Bearer tok_{}", input.int_in_range(0..=4_u8)?)),
            ]),
            _ => headers.push(("authorization", format!("Bearer tok_{token}"))),
        }
        let body = vec![b'b'; input.int_in_range(0..=MAX_BODY + 2)?];
        let is_signed = input.ratio(3, 4)?;
        let signature = signed(KEY.as_bytes(), &[&body, if is_signed { b"" } else { b"x" }]);
        let is_signed = is_signed && path.starts_with("/hook");
        if kind == Kind::Hook {
            headers.push(("x-avnology-signature", signature));
        }
        if kind == Kind::Preflight {
            headers.extend([
                ("origin", "https://a.example".to_owned()),
                ("access-control-request-method", "PUT".to_owned()),
            ]);
        }
        let method = if kind == Kind::Preflight { "OPTIONS" } else { "POST" };
        let mut all: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
        for name in [
            "x-avnology-user-id",
            "X_Avnology_User_Id",
            "x-avnology.scopes",
            "x-avnology-webhook-verified",
            "x-http-method-override",
            "x-avnology-stale",
        ] {
            if input.arbitrary()? {
                all.push((name, EVIL));
            }
        }
        match input.int_in_range(0..=9_u8)? {
            0 => all.push(("content-type", b"application/grpc")),
            1 => all.push(("content-type", b"application/grpc-web+proto")),
            2 => all.push(("content-length", b"0")),
            3 => all.push(("upgrade", b"websocket")),
            4 => all.push(("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
            _ => {}
        }
        let source = *input.choose(&[None, Some("10.0.0.1:80"), Some("[2001:db8::1]:80"), Some("pipe")])?;
        let head = head(method, path.as_bytes(), &all);
        Ok(Self { kind, head, token: shown, body, is_signed, source })
    }
}

/// What becomes of a callout.
pub(super) struct Answer {
    pub(super) landing: std::result::Result<(u16, Option<&'static [u8]>, String), CallFailure>,
    /// The token that it vouches for, or the check that it grants.
    pub(super) vouches: Option<String>,
}

impl Answer {
    pub(super) fn any(callout: &Callout, input: &mut Unstructured<'_>) -> Result<Self> {
        const FAILURES: [CallFailure; 6] = [
            CallFailure::NotStarted,
            CallFailure::Unreachable,
            CallFailure::Timeout,
            CallFailure::Reset,
            CallFailure::TooLarge,
            CallFailure::Malformed,
        ];
        let body = String::from_utf8_lossy(&callout.body);
        let plain =
            |status, body: &str| Ok(Self { landing: Ok((status, None, body.to_owned())), vouches: None });
        match input.int_in_range(0..=15_u8)? {
            0 => Ok(Self { landing: Err(*input.choose(&FAILURES)?), vouches: None }),
            1 => plain(*input.choose(&[500, 408, 401, 403, 404, 302, 503])?, ""),
            2 => {
                let after =
                    *input.choose(&[None, Some(&b"3"[..]), Some(b"soon"), Some(b"99999999999999999999")])?;
                Ok(Self { landing: Ok((429, after, String::new())), vouches: None })
            }
            3 => plain(200, input.choose(&["", "{", "[]", "{\"active\":1}", "{\"allowed\":\"yes\"}"])?),
            4..=6 if callout.path.contains("permissions") => plain(200, r#"{"allowed":false}"#),
            4..=6 => plain(200, r#"{"active":false}"#),
            _ if callout.path.contains("permissions") => Ok(Self {
                landing: Ok((200, None, r#"{"allowed":true}"#.to_owned())),
                vouches: Some(checked(&body)),
            }),
            _ => {
                let token = body.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap_or_default();
                let nth = token.strip_prefix("tok_").unwrap_or("probe");
                let exp = match input.int_in_range(0..=3_u8)? {
                    0 => r#","exp":1790000040"#,
                    1 => r#","exp":1890000000"#,
                    _ => "",
                };
                let body = format!(r#"{{"active":true,"sub":"sub_{nth}"{exp}}}"#);
                Ok(Self { landing: Ok((200, None, body)), vouches: Some(format!("tok_{nth}")) })
            }
        }
    }
}

/// A check as it is asked, in one line.
fn checked(body: &str) -> String {
    let check: Value = serde_json::from_str(body).unwrap_or_default();
    let part = |name: &str| check[name].as_str().unwrap_or_default().to_owned();
    format!("{} {} {}", part("subject"), part("relation"), part("object"))
}
