//! What the provider answers: tokens, sessions, claims, permissions, `Retry-After`.

use crate::gate::{NOW, Reply, Seen, decide, document, gate, head};
use crate::json::Json;
use avnology_gate::config;
use avnology_gate::flow::Engine;
use serde_json::json;
use std::cell::RefCell;

/// Deeper documents than this are refused by one of the two readings first.
const DEEP: usize = 120;

/// The members of an answer that both readings take; `None` where it must be refused.
fn object(body: &[u8]) -> Option<Json> {
    Json::parse(body).filter(|json| json.members().is_some())
}

fn is_moderate(json: &Json) -> bool {
    json.depth() < DEEP && json.members().is_some_and(|members| members.len() <= 256)
}

fn ask(path: &[u8], token: &[u8], body: &[u8]) -> Seen {
    thread_local! {
        static GATE: RefCell<Engine> = RefCell::new(gate(&asking()));
    }
    GATE.with(|engine| {
        let request = head("GET", path, &[("authorization", &[b"Bearer ", token].concat())]);
        decide(&mut engine.borrow_mut(), request, &mut |callout| match callout.path.as_str() {
            "/v1/permissions:check" if path == b"/check" => Reply::ok(body),
            _ if path == b"/check" => Reply::active(),
            _ => Reply::ok(body),
        })
    })
}

fn asking() -> serde_json::Value {
    let mut document = document(json!({
        "cache": {
            "introspection": {"ttl": "0s", "negative_ttl": "0s"},
            "permissions": {"ttl": "0s", "negative_ttl": "0s"}
        },
        "budgets": {"new_tokens": "off", "permissions": "off"},
        "routes": [
            {"match": {"path": "/token"}, "sessions": true},
            {"match": {"path": "/check"},
                "require": {"permissions": {"all": [{"relation": "r", "object": "x:1"}]}}}
        ]
    }));
    document["provider"]["sessions"] = json!({});
    document
}

/// What introspection, or the session endpoint, says of a token.
pub(crate) fn answer(data: &[u8]) {
    let Some((which, body)) = data.split_first() else { return };
    let is_session = which % 4 == 0;
    let token: &[u8] = if is_session { b"avnl_ses_x" } else { b"t" };
    let seen = ask(b"/token", token, body);
    let json = object(body);
    let Some(json) = json else {
        let refused = ["provider_bad_reply"];
        assert!(refused.contains(&seen.reason()), "{}", seen.reason());
        return;
    };
    let active = json.all("active");
    let (subject, skew) = (if is_session { "identity_id" } else { "sub" }, 5);
    if seen.passes() {
        let is_active =
            active == [&Json::Bool(true)] || is_session && (active.is_empty() || active == [&Json::Null]);
        assert!(is_active, "{active:?}");
        let exp = json.all("exp");
        if let ([Json::Integer(exp)], false) = (&exp[..], is_session) {
            assert!(exp.parse::<i128>().unwrap() + skew > i128::from(NOW.as_secs()), "{exp}");
        }
        assert!(exp.len() <= 1 || is_session);
        if !is_session {
            assert!(json.all("cnf").iter().all(|cnf| **cnf == Json::Null), "a bound token");
        }
        let user = seen.header("x-avnology-user-id");
        match json.all(subject)[..] {
            [Json::Text(text)] => assert_eq!(user.unwrap_or_default(), text.as_bytes()),
            [Json::Integer(text)] if !is_session => assert_eq!(user, Some(text.as_bytes())),
            [] | [Json::Null] if !is_session => assert_eq!(user, None),
            ref other => panic!("{other:?} passes as {user:?}"),
        }
        return;
    }
    // What is plainly active is let in.
    let members = json.members().unwrap_or_default();
    let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if let ([Json::Bool(true)], [Json::Text(text)], 2) = (&active[..], &json.all(subject)[..], names.len()) {
        assert!(!is_plain(text), "{} for {text}", seen.reason());
    }
    if active == [&Json::Bool(false)] && is_moderate(&json) {
        assert_eq!(seen.reason(), "token_inactive");
    }
}

/// A claim by its name or JSON Pointer, in an identity header.
pub(crate) fn claims(data: &[u8]) {
    let mut lines = data.splitn(2, |b| *b == b'\n');
    let (Some(pointer), Some(value)) = (lines.next(), lines.next()) else { return };
    let Ok(pointer) = std::str::from_utf8(pointer) else { return };
    let text = format!("{{token./d{pointer}}}");
    let document = document(json!({
        "identity_headers": {"x-user": "{token.sub}", "x-claim": text},
        "routes": [{"match": {"path": "/token"}}]
    }));
    if config::load(document.to_string().as_bytes(), &|_| None).is_err() {
        return;
    }
    let body = [br#"{"active":true,"sub":"u","d":"#, value, b"}"].concat();
    let mut engine = gate(&document);
    let request = head("GET", b"/token", &[("authorization", b"Bearer t"), ("X_Claim", b"evil")]);
    let seen = decide(&mut engine, request, &mut |_| Reply::ok(body.clone()));
    let Some(json) = object(&body).filter(is_moderate) else {
        assert!(!seen.passes() || object(&body).is_some());
        return;
    };
    // Whoever closes the object can say anything else.
    if ["active", "sub", "exp", "nbf", "cnf", "token_type", "token_use"].iter().any(|n| json.all(n).len() > 1)
        || json.members().is_some_and(|members| members.len() != 3)
    {
        return;
    }
    let claim = format!("/d{pointer}");
    let mut found = Ok(Some(&json));
    for token in claim.split('/').skip(1) {
        let name = token.replace("~1", "/").replace("~0", "~");
        found = match found {
            Ok(Some(json @ Json::Object(_))) => match json.all(&name)[..] {
                [] => Ok(None),
                [one] => Ok(Some(one)),
                _ => Err(()),
            },
            Ok(Some(Json::List(items))) => {
                let is_index = name == "0" || !name.starts_with(['0', '+']);
                Ok(name.parse::<usize>().ok().filter(|_| is_index).and_then(|nth| items.get(nth)))
            }
            Ok(_) => Ok(None),
            Err(()) => Err(()),
        };
    }
    let Ok(found) = found else {
        assert_eq!(seen.reason(), "provider_bad_reply", "a name stands twice");
        return;
    };
    let is_word = |word: &str| {
        !word.is_empty() && !word.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control())
    };
    let text = match found {
        Some(Json::Text(text)) => Some(text.clone()),
        Some(Json::Integer(text)) => Some(text.clone()),
        Some(Json::Bool(b)) => Some(b.to_string()),
        Some(Json::List(items)) => {
            let word = |item: &Json| match item {
                Json::Text(text) if is_word(text) => Some(text.clone()),
                _ => None,
            };
            items.iter().map(word).collect::<Option<Vec<_>>>().map(|words| words.join(","))
        }
        _ => None,
    };
    let text = text.filter(|text| !text.is_empty());
    let is_carried = |text: &String| text.trim() == text && !text.contains(char::is_control);
    if text.as_ref().is_none_or(is_carried) {
        assert!(seen.passes(), "{}: {text:?}", seen.reason());
        assert_eq!(seen.header("x-claim"), text.as_deref().map(str::as_bytes));
        assert_eq!(seen.header("x-user"), Some(&b"u"[..]));
    } else {
        assert!(!seen.passes(), "{text:?} is carried");
    }
}

/// What the provider says of a permission.
pub(crate) fn permission(data: &[u8]) {
    let seen = ask(b"/check", b"t", data);
    let json = object(data);
    let allowed = json.as_ref().map(|json| json.all("allowed")).unwrap_or_default();
    assert!(!seen.passes() || allowed == [&Json::Bool(true)], "{allowed:?}");
    if json.as_ref().is_some_and(is_moderate) {
        let expected = match allowed[..] {
            [Json::Bool(true)] => "authenticated",
            [Json::Bool(false)] => "permission_denied",
            _ => "provider_bad_reply",
        };
        assert_eq!(seen.reason(), expected);
    }
}

/// `Retry-After` of a 429: seconds, or a date in one of the three forms.
pub(crate) fn retry_after(data: &[u8]) {
    let mut engine = gate(&document(json!({"routes": [{"match": {"path": "/token"}}]})));
    let request = head("GET", b"/token", &[("authorization", b"Bearer t")]);
    let limited = || Reply { status: 429, retry_after: Some(data.to_vec()), body: Vec::new() };
    let seen = decide(&mut engine, request, &mut |_| limited());
    let reply = seen.reply().expect("it is refused");
    let said = reply.headers.iter().find(|(name, _)| name == "retry-after").map(|(_, value)| value.as_str());
    let said: u64 = said.expect("it says when").parse().expect("a number");
    assert!((1..=30).contains(&said), "{said}");
    let text = String::from_utf8_lossy(data);
    let text = text.trim();
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let expected = if std::str::from_utf8(data).is_err() {
        1
    } else if number(whole) && number(fraction) {
        let whole = whole.parse::<u64>().unwrap_or(30).min(30);
        whole + u64::from(fraction.bytes().any(|b| b != b'0'))
    } else if let Ok(date) = httpdate::parse_http_date(text) {
        let date = date.duration_since(std::time::UNIX_EPOCH).map(|at| at.as_secs()).unwrap_or_default();
        date.saturating_sub(NOW.as_secs())
    } else if text.len() < 8 {
        1
    } else {
        // A spelling of a date that the other reader does not take.
        return;
    };
    assert_eq!(said, expected.clamp(1, 30), "{text}");
}
