//! What a client sends: path, host, query, credentials, trace headers.

use crate::gate::{Headers, Reply, decide, document, gate, head};
use avnology_gate::flow::Engine;
use serde_json::json;
use std::borrow::Cow;
use std::cell::RefCell;
use std::thread::LocalKey;
use unicode_normalization::UnicodeNormalization;

/// A gate that is used again: nothing of a request stays, where nobody is asked or nothing is kept.
type Kept = LocalKey<RefCell<Engine>>;

fn on<T>(kept: &'static Kept, act: impl FnOnce(&mut Engine) -> T) -> T {
    kept.with(|engine| act(&mut engine.borrow_mut()))
}

/// One percent-decoding, `+` as it is; `None` for a broken escape.
fn percent_decoded(raw: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = raw;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok()?;
        let is_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
        out.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?);
        rest = &after[2..];
    }
    Some(out)
}

/// The segments of a path of which there is one reading.
fn segments(target: &[u8]) -> Option<Vec<String>> {
    if target.contains(&b'#') {
        return None;
    }
    let path = target.split(|b| *b == b'?').next()?;
    let raws: Vec<&[u8]> = path.strip_prefix(b"/")?.split(|b| *b == b'/').collect();
    let mut out = Vec::new();
    for (nth, raw) in raws.iter().enumerate() {
        if raw.is_empty() && nth + 1 < raws.len() {
            return None;
        }
        let is_allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@%".contains(b);
        if !raw.iter().all(is_allowed) {
            return None;
        }
        let text = String::from_utf8(percent_decoded(raw)?).ok()?;
        let is_odd = |c: char| c.is_control() || "/\\;".contains(c);
        let twice = text.as_bytes().windows(3).any(|w| w[0] == b'%' && percent_decoded(w).is_some());
        if text == "." || text == ".." || text.contains(is_odd) || twice {
            return None;
        }
        out.push(text);
    }
    Some(out)
}

/// What some service makes of a segment: case, NFKC, dots and spaces and a format at the end.
fn lenient(segment: &str) -> Vec<String> {
    let folded: String = segment.nfkc().flat_map(char::to_lowercase).nfkc().collect();
    let stream = folded.strip_suffix("::$data").unwrap_or(&folded);
    let bare = stream.trim_end_matches(['.', ' ']);
    let format = bare.rsplit_once('.').filter(|(_, format)| format.bytes().all(|b| b.is_ascii_alphabetic()));
    let mut readings = vec![folded.clone(), bare.to_owned()];
    readings.extend(format.map(|(name, _)| name.to_owned()));
    readings
}

/// `:path`: refused unless it has one reading, and no lenient one of a stricter route.
pub(crate) fn path(data: &[u8]) {
    thread_local! {
        static GATE: RefCell<Engine> = RefCell::new(gate(&document(json!({
            "routes": [
                {"name": "admin", "match": {"path": "/admin"}},
                {"name": "param", "match": {"path": "/p/{a}/x"}, "access": "public"},
                {"name": "all", "match": {"path": "/{*rest}"}, "access": "public"}
            ],
            "filter_state": "all"
        }))));
    }
    let seen = on(&GATE, |engine| decide(engine, head("GET", data, &[]), &mut |_| Reply::active()));
    let Some(path) = segments(data) else {
        assert_eq!(seen.reason(), "invalid_path", "{}", data.escape_ascii());
        return;
    };
    assert_ne!(seen.reason(), "invalid_path", "{}", data.escape_ascii());
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    if seen.passes() {
        let route = seen.verdict.event().route();
        let expected = matches!(path[..], ["p", a, "x"] if !a.is_empty());
        assert_eq!(route == Some("param"), expected, "{path:?} is {route:?}");
    }
    let is_admin = match path[..] {
        [one] | [one, ""] => lenient(one).iter().any(|reading| reading == "admin"),
        _ => false,
    };
    assert!(!is_admin || !seen.passes(), "{path:?} is read as /admin");
}

/// `:authority`: one host in one spelling, or refused.
pub(crate) fn host(data: &[u8]) {
    thread_local! {
        static GATE: RefCell<Engine> = RefCell::new(gate(&document(json!({"routes": [
            {"name": "exact", "match": {"path": "/", "hosts": ["api.example"]}, "access": "public"},
            {"name": "suffix", "match": {"path": "/", "hosts": ["*.example"]}, "access": "public"},
            {"name": "any", "match": {"path": "/"}, "access": "public"}
        ], "filter_state": "all"}))));
    }
    let mut request = head("GET", b"/", &[]);
    request[2].1 = data.to_vec();
    let seen = on(&GATE, |engine| decide(engine, request, &mut |_| Reply::active()));
    let text = String::from_utf8_lossy(data).to_ascii_lowercase();
    if let Some(rest) = text.strip_prefix('[') {
        let address = rest.split(']').next().unwrap_or_default();
        let is_address = address.parse::<std::net::Ipv6Addr>().is_ok();
        assert!(is_address || !seen.passes(), "{text}");
        return;
    }
    let (name, port) = text.split_once(':').unwrap_or((&text, "80"));
    let port = (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    let is_one = port && name.len() <= 253 && name.split('.').all(label);
    let expected = match name {
        _ if !is_one => None,
        "api.example" => Some("exact"),
        _ if name.ends_with(".example") => Some("suffix"),
        _ => Some("any"),
    };
    assert_eq!(seen.verdict.event().route(), expected, "{text}");
    assert_eq!(seen.passes(), is_one, "{text}");
}

/// A form's name or value, decoded once.
fn form_decoded(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = raw;
    while let [byte, after @ ..] = rest {
        let escape = rest.get(..3).filter(|_| *byte == b'%').and_then(percent_decoded);
        match escape {
            Some(decoded) => {
                out.extend(decoded);
                rest = &rest[3..];
            }
            None => {
                out.push(if *byte == b'+' { b' ' } else { *byte });
                rest = after;
            }
        }
    }
    out
}

/// The pairs of a query, raw.
fn pairs(target: &[u8]) -> Vec<&[u8]> {
    let query = target.iter().position(|b| *b == b'?').map(|at| &target[at + 1..]);
    query.map(|query| query.split(|b| *b == b'&').collect()).unwrap_or_default()
}

fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|b| *b == b'=') {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, b""),
    }
}

fn is_b64token(text: &[u8]) -> bool {
    let end = text.iter().rposition(|b| *b != b'=').map_or(0, |at| at + 1);
    let is_one = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(b);
    end > 0 && text[..end].iter().all(is_one)
}

/// The token that was asked about.
fn asked(form: &[u8]) -> Option<Vec<u8>> {
    let value = form.split(|b| *b == b'&').find_map(|pair| pair.strip_prefix(b"token="))?;
    Some(form_decoded(value))
}

const TOKEN: &str = "access_token";

/// The query of `:path`: a credential in it is read where it is one, and reaches nobody.
pub(crate) fn query(data: &[u8]) {
    thread_local! {
        static GATE: RefCell<Engine> = RefCell::new(gate(&document(json!({
            "credentials": [{"query": TOKEN}],
            "cache": {"introspection": {"ttl": "0s", "negative_ttl": "0s"}},
            "budgets": {"new_tokens": "off"},
            "routes": [{"match": {"path": "/q"}}]
        }))));
    }
    // No host passes these on.
    if data.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')) {
        return;
    }
    let target = [b"/q?".as_slice(), data].concat();
    let mut body = None;
    let seen = on(&GATE, |engine| {
        decide(engine, head("GET", &target, &[]), &mut |callout| {
            body = Some(callout.body.clone());
            Reply::active()
        })
    });
    let all = pairs(&target);
    let is_named = |pair: &&&[u8]| form_decoded(split(pair).0) == TOKEN.as_bytes();
    let named: Vec<&&[u8]> = all.iter().filter(is_named).collect();
    let token = body.as_deref().and_then(asked);
    if let Some(token) = &token {
        let [pair] = named[..] else { panic!("{} of them, and one was read", named.len()) };
        assert_eq!(*token, form_decoded(split(pair).1));
        assert!(is_b64token(token), "{}", token.escape_ascii());
    }
    assert_eq!(seen.passes(), token.is_some(), "{}", seen.reason());
    let left = seen.header(":path").expect("it has a path");
    let kept = pairs(left);
    for pair in &kept {
        for part in pair.split(|b| *b == b';') {
            let name = form_decoded(split(part).0).to_ascii_lowercase();
            assert_ne!(name, TOKEN.as_bytes(), "it reaches the service: {}", left.escape_ascii());
        }
    }
    // Nothing else is lost, and nothing made up.
    let mut rest = all.iter();
    assert!(kept.iter().all(|pair| rest.any(|other| other == pair)), "{}", left.escape_ascii());
    if all.len() < 1000 && !data.contains(&b'#') && !data.contains(&b';') {
        let plain = |pair: &&&[u8]| split(pair).0.iter().all(u8::is_ascii_alphanumeric);
        assert_eq!(all.iter().filter(plain).count(), kept.iter().filter(|p| plain(p)).count());
    }
}

/// `Authorization`, a header without a scheme and `Cookie`: which token a request has.
pub(crate) fn credential(data: &[u8]) {
    thread_local! {
        static GATE: RefCell<Engine> = RefCell::new(gate(&document(json!({
            "credentials": [
                {"header": "authorization", "scheme": "Bearer"}, {"header": "x-token"}, {"cookie": "sid"}
            ],
            "refused_token_prefixes": ["never_"],
            "strip_credential": true,
            "cache": {"introspection": {"ttl": "0s", "negative_ttl": "0s"}},
            "budgets": {"new_tokens": "off"},
            "routes": [{"match": {"path": "/c"}}]
        }))));
    }
    let names = ["authorization", "x-token", "cookie", "Authorization", "x_token", "cookie"];
    let lines = data.split(|b| *b == b'\n').filter_map(|line| line.split_first());
    let headers: Vec<(&str, &[u8])> =
        lines.take(12).map(|(which, value)| (names[usize::from(*which) % names.len()], value)).collect();
    let request: Headers = head("GET", b"/c", &headers);
    let mut body = None;
    let seen = on(&GATE, |engine| {
        decide(engine, request, &mut |callout| {
            body = Some(callout.body.clone());
            Reply::active()
        })
    });
    // Every token that some source may mean.
    let mut tokens: Vec<Vec<u8>> = Vec::new();
    for (name, value) in &headers {
        match name.to_ascii_lowercase().as_str() {
            "authorization" => {
                let space = value.iter().position(|b| *b == b' ').unwrap_or(value.len());
                if value[..space].eq_ignore_ascii_case(b"bearer") {
                    let token = value[space..]
                        .iter()
                        .position(|b| *b != b' ')
                        .map_or(&b""[..], |at| &value[space + at..]);
                    tokens.push(token.to_vec());
                }
            }
            "cookie" => tokens.extend(cookies(value, |name| name == b"sid").map(Cow::into_owned)),
            "x-token" if !value.is_empty() => tokens.push(value.to_vec()),
            _ => {}
        }
    }
    tokens.sort();
    tokens.dedup();
    match body.as_deref().and_then(asked) {
        None => assert!(!seen.passes()),
        Some(token) => {
            assert_eq!(tokens, std::slice::from_ref(&token), "another one is there too");
            assert!(is_b64token(&token) && seen.passes(), "{}", seen.reason());
        }
    }
    if tokens.is_empty() {
        let known = ["missing_token", "malformed_credential"];
        assert!(known.contains(&seen.reason()), "{}", seen.reason());
    }
    if seen.passes() {
        for (name, value) in &seen.head {
            let is_left = match name.to_ascii_lowercase().as_slice() {
                b"cookie" => cookies(value, |name| name == b"sid").next().is_some(),
                b"authorization" => value.to_ascii_lowercase().starts_with(b"bearer "),
                name => [&b"x-token"[..], b"x_token"].contains(&name) && !value.is_empty(),
            };
            assert!(!is_left, "{} is left", value.escape_ascii());
        }
    }
}

/// The values of the cookies with such a name that are not empty.
fn cookies(line: &[u8], is_it: fn(&[u8]) -> bool) -> impl Iterator<Item = Cow<'_, [u8]>> {
    line.split(|b| *b == b';').filter(|pair| pair.contains(&b'=')).filter_map(move |pair| {
        let (name, value) = split(pair);
        let value = value.trim_ascii();
        let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        let value = quoted.unwrap_or(value);
        (is_it(name.trim_ascii()) && !value.is_empty()).then_some(Cow::Borrowed(value))
    })
}

/// Headers of the request that go with a callout: in their makers' form, or not at all.
pub(crate) fn trace(data: &[u8]) {
    thread_local! {
        static GATE: RefCell<Engine> = RefCell::new(gate(&document(json!({
            "cache": {"introspection": {"ttl": "0s", "negative_ttl": "0s"}},
            "budgets": {"new_tokens": "off"},
            "routes": [{"match": {"path": "/t"}}]
        }))));
    }
    const NAMES: [&str; 4] = ["x-request-id", "traceparent", "b3", "tracestate"];
    let names = [NAMES[0], NAMES[1], NAMES[2], NAMES[3], "x_request_id", "TraceParent"];
    let lines = data.split(|b| *b == b'\n').filter_map(|line| line.split_first());
    let mut headers: Vec<(&str, &[u8])> =
        lines.take(8).map(|(which, value)| (names[usize::from(*which) % names.len()], value)).collect();
    headers.push(("authorization", b"Bearer t"));
    let request = head("GET", b"/t", &headers);
    let seen = on(&GATE, |engine| decide(engine, request, &mut |_| Reply::active()));
    assert!(seen.passes());
    let callout = &seen.callouts[0];
    for name in NAMES {
        let twins = headers.iter().filter(|(n, _)| n.to_lowercase().replace('_', "-") == name);
        let values: Vec<&[u8]> = twins.map(|(_, value)| *value).collect();
        let exact = headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let expected = match values[..] {
            [value] if exact && is_in_form(name, value) => Some(value),
            _ => None,
        };
        let mut sent = callout.headers.iter().filter(|(n, _)| *n == name);
        let went = sent.next().map(|(_, value)| value.as_bytes());
        assert_eq!((went, sent.next()), (expected, None), "{name}");
    }
}

fn is_in_form(name: &str, value: &[u8]) -> bool {
    let all = |longest: usize, is_one: fn(&u8) -> bool| {
        !value.is_empty() && value.len() <= longest && value.iter().all(is_one)
    };
    let lower_hex = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    match name {
        "x-request-id" => all(64, |b| b.is_ascii_alphanumeric() || *b == b'-'),
        "b3" => all(64, |b| b.is_ascii_hexdigit() || *b == b'-'),
        "tracestate" => all(512, |b| b.is_ascii_alphanumeric() || b"_@/=,.:*-".contains(b)),
        // `00-` 32 digits `-` 16 digits `-` 2 digits, the first two not all zero.
        _ => {
            value.len() == 55
                && [2, 35, 52].iter().all(|at| value[*at] == b'-')
                && value.iter().enumerate().all(|(at, b)| [2, 35, 52].contains(&at) || lower_hex(b))
                && value.starts_with(b"00")
                && value[3..35].iter().any(|b| *b != b'0')
                && value[36..52].iter().any(|b| *b != b'0')
        }
    }
}
