//! The configuration: any document, durations, templates.

use crate::gate::{NOW, ROOT, Reply, borrowed, decide, document, gate, head};
use arbitrary::{Result, Unstructured};
use avnology_gate::config as reader;
use avnology_gate::flow::{Engine, NoStore, Output, Seed, StreamId};
use serde_json::{Value, json};
use std::rc::Rc;
use std::time::Duration;

/// A document with every part that there is.
fn whole() -> Value {
    let mut document = document(json!({
        "credentials": [{"header": "authorization", "scheme": "Bearer"},
            {"cookie": "sid", "origins": ["https://a.example"]}, {"query": "access_token"}],
        "identity_headers": {"x-user": "{token.sub}", "x-mixed": "a-{path.id}-{query.q}-{header.h}"},
        "webhooks": {"hook": {"format": "avnology", "secrets": ["0123456789abcdef", {"env": "KEY"}],
            "tolerance": "5m", "max_body_bytes": 1000, "body_timeout": "2s", "trust_source_address": true}},
        "default_access": "deny", "mode": "enforce", "clock_skew": "5s", "strip_credential": true,
        "require": {"audience": ["api"], "issuer": ["https://id.example"], "client_id": ["c"]},
        "challenge": {"realm": "r", "format": "problem+json"},
        "strip_headers": ["x-old"], "keep_override_headers": ["x-http-method"],
        "refused_token_prefixes": ["rt_"], "max_token_bytes": 4096, "ready_path": "/ready",
        "filter_state": "all",
        "cache": {"introspection": {"ttl": "30s", "negative_ttl": "5s", "stale_if_error": "1m",
            "max_entries": 10}, "permissions": {"ttl": "10s"}},
        "budgets": {"new_tokens": {"per_second": 5, "burst": 10}, "refreshes": "off",
            "permissions": {"per_second": 5, "per_subject": {"per_second": 1}}},
        "routes": [
            {"name": "a", "match": {"path": "/a/{id}/{*rest}", "hosts": ["api.example", "*.example"],
                "methods": ["GET", "PUT"], "literal_suffix": true}, "preflight": true, "mode": "shadow",
                "require": {"scopes": {"all": ["read"], "any": ["x", "y"]},
                    "claims": {"/a/b": ["{path.id}", "z"], "role": "admin"},
                    "permissions": {"all": [{"relation": "r", "object": "project:{path.id}"}],
                        "any": [{"namespace": "n", "object": "o", "relation": "r", "subject": "u:{token.sub}"}]}},
                "cache": {"introspection": {"ttl": "1s"}}, "on_provider_error": "allow", "sessions": true,
                "introspection": {"credentials": {"method": "client_secret_basic", "client_id": "i",
                    "client_secret": {"env": "SECRET"}}}},
            {"name": "hook", "match": {"path": "/hook", "methods": ["POST"]}, "webhook": "hook"},
            {"name": "public", "match": {"path": "/p"}, "access": "public"},
            {"name": "optional", "match": {"path": "/o"}, "access": "optional", "strip_credential": false,
                "credentials": [{"header": "x-token"}]}
        ]
    }));
    document["provider"]["sessions"] = json!({"path": "/whoami"});
    document["provider"]["circuit_breaker"] = json!({"probe_interval": "1s"});
    document["provider"]["max_in_flight"] = json!({"new_tokens": 2, "refreshes": 3, "permissions": 4});
    document["provider"]["permissions"]["namespaces"] = json!({"project": "projects"});
    document
}

/// A value that stands where another one is expected.
fn odd(input: &mut Unstructured<'_>, depth: u32) -> Result<Value> {
    const WORDS: [&str; 36] = [
        "",
        "/",
        "/{*r}",
        "/a/{id}",
        "/{id}/{id}",
        "/A",
        "/a/",
        "/%61",
        "{token.sub}",
        "{path.id}",
        "{token./a~1b/0}",
        "{",
        "}",
        "off",
        "deny",
        "allow",
        "required",
        "public",
        "shadow",
        "1s",
        "0s",
        "99h",
        "1.5ms",
        "1d",
        "authorization",
        "x-avnology-user-id",
        "host",
        ":path",
        "x_user",
        "*.example",
        "API.example",
        "GET",
        "get",
        "avnology",
        "${SECRET}",
        "\u{ff41}",
    ];
    Ok(match input.int_in_range(0..=9)? {
        0 => Value::Null,
        1 => json!(bool::arbitrary(input)?),
        2 => json!(input.int_in_range(-1..=70_000_000)?),
        3 => json!(input.arbitrary::<u64>()?),
        4 => json!(input.arbitrary::<i32>()? as f64 / 8.0),
        5 if depth < 3 => json!([odd(input, depth + 1)?, odd(input, depth + 1)?]),
        6 if depth < 3 => json!({(*input.choose(&WORDS)?): odd(input, depth + 1)?}),
        7 => json!(input.arbitrary::<&str>()?),
        _ => json!(*input.choose(&WORDS)?),
    })
}

use arbitrary::Arbitrary;

/// Changes one place of a document.
fn change(node: &mut Value, input: &mut Unstructured<'_>) -> Result<()> {
    let len = match node {
        Value::Object(members) => members.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    if len == 0 || input.ratio(1, 6)? {
        *node = odd(input, 0)?;
        return Ok(());
    }
    let nth = input.int_in_range(0..=len - 1)?;
    match node {
        Value::Object(members) => {
            let name = members.keys().nth(nth).cloned().unwrap_or_default();
            match input.int_in_range(0..=7)? {
                0 => {
                    members.remove(&name);
                }
                1 => {
                    let value = members[&name].clone();
                    members.insert(input.arbitrary::<&str>()?.to_owned(), value);
                }
                _ => change(&mut members[&name], input)?,
            }
        }
        Value::Array(items) => match input.int_in_range(0..=7)? {
            0 => {
                items.remove(nth);
            }
            1 => items.push(items[nth].clone()),
            _ => change(&mut items[nth], input)?,
        },
        _ => {}
    }
    Ok(())
}

/// Any document: every problem told in a line with its place, or a policy under which all requests
/// are decided, and each again as before.
pub(crate) fn config(data: &[u8]) {
    let document = match data.split_first() {
        Some((0, changes)) => {
            let mut document = whole();
            let mut input = Unstructured::new(changes);
            for _ in 0..12 {
                if input.is_empty() || change(&mut document, &mut input).is_err() {
                    break;
                }
            }
            document.to_string().into_bytes()
        }
        _ => data.to_vec(),
    };
    // Every second variable is set.
    let env = |name: &str| name.len().is_multiple_of(2).then(|| format!("{name}-0123456789abcdef"));
    let loaded = match reader::load(&document, &env) {
        Ok(loaded) => loaded,
        Err(problems) => {
            let lines = problems.lines();
            assert!(!lines.is_empty() && !problems.is_empty());
            assert!(lines.iter().all(|line| !line.is_empty()), "{lines:?}");
            let again = reader::load(&document, &env).expect_err("refused once more");
            assert_eq!(lines, again.lines());
            return;
        }
    };
    let json: Value = serde_json::from_slice(&document).expect("what is taken is JSON");
    assert!(json["routes"].is_array(), "a policy without routes");
    let secret = "KEY-0123456789abcdef";
    assert!(loaded.warnings.iter().all(|warning| !warning.contains(secret)), "{:?}", loaded.warnings);
    let _ = loaded.cluster_needs(u32::MAX);
    let mut engine = Engine::new(Seed([1; 16]), Rc::new(NoStore));
    engine.configure(ROOT, loaded, NOW);
    let requests = [
        ("GET", "/a/1/x?q=2&access_token=t", ""),
        ("POST", "/hook", ""),
        ("GET", "/p", "Bearer t"),
        ("PUT", "/o", "Bearer rt_1"),
        ("OPTIONS", "/ready", "bearer t"),
    ];
    for (nth, (method, path, authorization)) in (0..).zip(requests) {
        let evil: &[u8] = b"evil";
        let request = head(
            method,
            path.as_bytes(),
            &[("authorization", authorization.as_bytes()), ("x-user", evil), ("x-avnology-user-id", evil)],
        );
        let _ = engine.begin(StreamId(nth), ROOT, &borrowed(&request, true), NOW);
    }
    while let Some(output) = engine.poll() {
        if let Output::Dispatch { flight, callout, .. } = output {
            assert!(
                callout.timeout >= Duration::from_millis(1) && callout.timeout <= Duration::from_secs(60)
            );
            assert!(callout.retries <= 5);
            engine.landed(flight, Err(avnology_gate::http::CallFailure::Malformed), NOW);
        }
    }
    // What waits for a probe is decided by the time.
    for _ in 0..100 {
        let Some(due) = engine.next_deadline(ROOT) else { break };
        engine.tick(ROOT, due);
        while engine.poll().is_some() {}
    }
    assert_eq!(engine.waiting(), 0);
}

/// A duration, as the time that a callout is given.
pub(crate) fn duration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut document = document(json!({"routes": [{"match": {"path": "/token"}}]}));
    document["provider"]["timeout"] = json!(text);
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit: u128 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => 0,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if fraction.len() > 18 {
        return;
    }
    let is_one = unit > 0 && is_number(whole) && is_number(fraction);
    let nanos = is_one.then(|| {
        let whole = whole.trim_start_matches('0');
        let whole: u128 = if whole.len() > 12 { 1 << 40 } else { format!("0{whole}").parse().unwrap() };
        let scale = 10_u128.pow(fraction.len() as u32);
        // To the nearest, a half upwards.
        whole * unit + (2 * fraction.parse::<u128>().unwrap() * unit + scale) / (2 * scale)
    });
    let expected = nanos.filter(|nanos| (1_000_000..=60_000_000_000).contains(nanos));
    let loaded = reader::load(document.to_string().as_bytes(), &|_| None);
    assert_eq!(loaded.is_ok(), expected.is_some(), "{text}");
    let Some(nanos) = expected else { return };
    let request = head("GET", b"/token", &[("authorization", b"Bearer t")]);
    let seen = decide(&mut gate(&document), request, &mut |_| Reply::active());
    assert_eq!(seen.callouts[0].timeout.as_nanos(), nanos, "{text}");
}

/// A template, as the value of an identity header.
pub(crate) fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let document = document(json!({
        "identity_headers": {"x-out": text},
        "routes": [{"match": {"path": "/t/{a}"}}]
    }));
    let loaded = reader::load(document.to_string().as_bytes(), &|_| None);
    let rendered = render(text);
    let Ok(rendered) = rendered else {
        assert!(loaded.is_err(), "{text} is taken");
        return;
    };
    if loaded.is_err() {
        return;
    }
    let request =
        head("GET", b"/t/pa?q=qv&q2=", &[("authorization", b"Bearer t"), ("h", b"hv"), ("X-Out", b"evil")]);
    let body = r#"{"active":true,"sub":"u","c":"cv","n":7}"#;
    let seen = decide(&mut gate(&document), request, &mut |_| Reply::ok(body));
    let is_carried = |text: &String| text.trim() == text && !text.contains(char::is_control);
    if rendered.as_ref().is_none_or(is_carried) {
        assert!(seen.passes(), "{}", seen.reason());
        assert_eq!(seen.header("x-out"), rendered.as_deref().map(str::as_bytes), "{text}");
    } else {
        assert!(!seen.passes());
    }
}

/// What a template gives; `None` for no header.
fn render(text: &str) -> std::result::Result<Option<String>, ()> {
    let mut out = Some(String::new());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let value = match c {
            '}' => return Err(()),
            '{' => {
                let rest = chars.as_str();
                let end = rest.find('}').ok_or(())?;
                chars = rest[end + 1..].chars();
                let (kind, name) = rest[..end].split_once('.').ok_or(())?;
                let value = match (kind, name.to_ascii_lowercase().as_str(), name) {
                    (_, "", _) => return Err(()),
                    ("path", _, "a") => Some("pa"),
                    ("query", _, "q") => Some("qv"),
                    ("header", "h", _) => Some("hv"),
                    ("header", ":method", _) => Some("GET"),
                    ("token", _, "sub" | "/sub") => Some("u"),
                    ("token", _, "c" | "/c") => Some("cv"),
                    ("token", _, "n" | "/n") => Some("7"),
                    ("token", _, "active" | "/active") => Some("true"),
                    ("path" | "query" | "header" | "token", ..) => None,
                    _ => return Err(()),
                };
                value.map(str::to_owned)
            }
            c => Some(c.to_string()),
        };
        out = out.zip(value).map(|(out, value)| out + &value);
    }
    if text.is_empty() { Err(()) } else { Ok(out) }
}
