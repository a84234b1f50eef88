//! What an expectation means, the same for every driver.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use standin::{Call, Endpoint};

use super::wire::{Outgoing, sha256, unescape};
use super::{ByEndpoint, Counts, Decision, Expect, SawCall, Wanted};

/// What a driver observed of one request.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// The connection ended without an answer; the answer's other fields are empty then.
    pub closed: bool,
    /// The status.
    pub status: u16,
    /// The answer's headers, names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The answer's body.
    pub body: Vec<u8>,
    /// The reason's id, if the driver knows it: always for a refusal.
    pub reason: Option<String>,
    /// The decision, if the driver knows it.
    pub decision: Option<Decision>,
    /// The route, if the driver knows it.
    pub route: Option<String>,
    /// The subject, if the driver knows it.
    pub subject: Option<String>,
    /// `%RESPONSE_CODE_DETAILS%`, if the driver knows it.
    pub details: Option<String>,
    /// The filter state: not known, known to be unset, or its text.
    pub filter_state: Option<Option<String>>,
    /// What the upstream saw, if it saw the request.
    pub upstream: Option<UpstreamSaw>,
    /// The provider's calls since the step began; `None` for requests in the background.
    pub calls: Option<Vec<Call>>,
    /// The time from sending to the answer.
    pub elapsed: Duration,
}

/// A request as the upstream saw it.
#[derive(Clone, Debug, Default)]
pub struct UpstreamSaw {
    /// The method.
    pub method: String,
    /// The target.
    pub path: String,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Trailers in order, names in lower case.
    pub trailers: Vec<(String, Vec<u8>)>,
    /// The body's length.
    pub body_bytes: u64,
    /// The body's SHA-256, in lower-case hex.
    pub body_sha256: String,
}

impl Expect {
    /// Whether the upstream must see the request.
    pub fn forwarded(&self) -> bool {
        self.upstream.unwrap_or_else(|| match self.decision {
            Some(Decision::Deny | Decision::None) => false,
            Some(_) => true,
            None => {
                !self.closed
                    && self.grpc_status.is_none()
                    && self.status.is_some_and(|status| (200..300).contains(&status))
            }
        })
    }

    /// The decision that must have been taken.
    pub fn decided(&self) -> Decision {
        self.decision.unwrap_or(if self.forwarded() { Decision::Allow } else { Decision::Deny })
    }

    /// All differences between the observation and the expectation; empty if it is met.
    pub fn check(&self, sent: &Outgoing, seen: &Observation) -> Vec<String> {
        let mut wrong = Vec::new();
        self.check_answer(sent, seen, &mut wrong);
        self.check_event(seen, &mut wrong);
        self.check_upstream(sent, seen, &mut wrong);
        if let Some(calls) = &seen.calls {
            wrong.extend(self.check_calls(calls));
        }
        if let Some(within) = self.within
            && seen.elapsed > within
        {
            wrong.push(format!("the answer took {:?}, expected at most {within:?}", seen.elapsed));
        }
        wrong
    }

    /// All differences between the provider's calls and the expectation.
    pub fn check_calls(&self, calls: &[Call]) -> Vec<String> {
        let mut wrong = Vec::new();
        let count = |endpoint| calls.iter().filter(|call| call.endpoint == endpoint).count();
        let by = ByEndpoint {
            introspect: count(Endpoint::Introspect),
            permissions: count(Endpoint::Permissions),
            whoami: count(Endpoint::Whoami),
            other: count(Endpoint::Other),
        };
        match &self.provider_calls {
            Some(Counts::Total(total)) if *total != calls.len() => {
                wrong.push(format!("the provider saw {} calls ({by:?}), expected {total}", calls.len()));
            }
            Some(Counts::By(expected)) if *expected != by => {
                wrong.push(format!("the provider saw {by:?}, expected {expected:?}"));
            }
            _ => {}
        }
        for expected in &self.provider_saw {
            let differences: Vec<Vec<String>> = calls.iter().map(|call| expected.differences(call)).collect();
            if !differences.iter().any(Vec::is_empty) {
                wrong.push(format!("the provider saw no such call as {expected:?}: {differences:?}"));
            }
        }
        wrong
    }

    fn check_answer(&self, sent: &Outgoing, seen: &Observation, wrong: &mut Vec<String>) {
        if self.closed != seen.closed {
            wrong.push(format!("closed without an answer: {}, expected {}", seen.closed, self.closed));
            return;
        }
        if let Some(status) = self.status
            && status != seen.status
        {
            let body = String::from_utf8_lossy(&seen.body);
            wrong.push(format!(
                "status {}, expected {status} (reason {:?}, body {body:.200})",
                seen.status, seen.reason
            ));
        }
        check_headers("answer header", &self.headers, &seen.headers, wrong);
        let text = String::from_utf8_lossy(&seen.body);
        if let Some(expected) = &self.error {
            let error = serde_json::from_slice::<Value>(&seen.body).ok();
            let error = error.as_ref().and_then(|body| body.get("error")).and_then(Value::as_str);
            if error != Some(expected) {
                wrong.push(format!("error {error:?}, expected {expected:?} (body {text:.200})"));
            }
        }
        if let Some(expected) = &self.body_contains
            && !text.contains(expected)
        {
            wrong.push(format!("the body {text:.200?} does not contain {expected:?}"));
        }
        if let Some(expected) = &self.body
            && text != *expected
        {
            wrong.push(format!("the body is {text:.200?}, expected {expected:?}"));
        }
        if let Some(expected) = self.grpc_status {
            let status = first(&seen.headers, "grpc-status");
            if status != Some(expected.to_string().as_bytes()) {
                wrong.push(format!("grpc-status {:?}, expected {expected}", status.map(lossy)));
            }
        }
        // What applies to every answer of the gate itself.
        if !self.forwarded() && self.decided() == Decision::Deny {
            let no_store = seen
                .headers
                .iter()
                .filter(|(n, _)| n == "cache-control")
                .map(|(_, v)| v.as_slice())
                .collect::<Vec<_>>();
            if no_store != [b"no-store"] {
                wrong.push("a refusal without exactly `cache-control: no-store`".to_owned());
            }
            for (name, value) in &seen.headers {
                if !value.iter().all(|b| (0x20..0x7f).contains(b)) {
                    wrong.push(format!(
                        "answer header {name} holds bytes that are not visible ASCII: {:?}",
                        lossy(value)
                    ));
                }
            }
            if sent.method == b"HEAD" && !seen.body.is_empty() {
                wrong.push("an answer to HEAD with a body".to_owned());
            }
            for secret in sent_secrets(sent) {
                let in_headers = seen.headers.iter().any(|(_, value)| contains(value, &secret));
                if contains(&seen.body, &secret) || in_headers {
                    wrong.push(format!("the answer repeats {:?}", lossy(&secret)));
                }
            }
            if let (Some(details), Some(reason)) = (&seen.details, &seen.reason)
                && *details != format!("avnology_gate{{{reason}}}")
            {
                wrong.push(format!("response code details {details:?} for reason {reason:?}"));
            }
        }
    }

    fn check_event(&self, seen: &Observation, wrong: &mut Vec<String>) {
        let decided = self.decided();
        let must_tell = decided == Decision::Deny && !self.closed;
        let mut compare = |what: &str, expected: Option<&str>, observed: Option<&str>, insist: bool| {
            if expected.is_some() && observed != expected && (observed.is_some() || insist) {
                wrong.push(format!("{what} {observed:?}, expected {expected:?}"));
            }
        };
        compare("reason", self.reason.as_deref(), seen.reason.as_deref(), must_tell);
        let observed = seen.decision.map(|decision| format!("{decision:?}"));
        compare("decision", Some(&format!("{decided:?}")), observed.as_deref(), must_tell);
        compare("route", self.route.as_deref(), seen.route.as_deref(), must_tell);
        compare("subject", self.subject.as_deref(), seen.subject.as_deref(), must_tell);
        let expected_state = self.filter_state.or(must_tell.then_some(true));
        if let (Some(expected), Some(state)) = (expected_state, &seen.filter_state) {
            match (expected, state) {
                (true, None) => wrong.push("no filter state".to_owned()),
                (false, Some(state)) => wrong.push(format!("filter state {state:?}, expected none")),
                _ => {}
            }
        }
        if !self.state.is_empty() && matches!(seen.filter_state, Some(None)) {
            wrong.push("no filter state, whose members are expected".to_owned());
        }
        if let Some(Some(state)) = &seen.filter_state {
            let parsed = serde_json::from_str::<Value>(state).ok();
            let member =
                |name: &str| parsed.as_ref().and_then(|state| state.get(name)).and_then(Value::as_str);
            for (name, expected) in &self.state {
                let found = parsed.as_ref().and_then(|state| state.get(name)).unwrap_or(&Value::Null);
                if found != expected {
                    wrong.push(format!("filter state {state}: {name} is {found}, expected {expected}"));
                }
            }
            if seen.reason.is_some() && member("reason") != seen.reason.as_deref() {
                wrong.push(format!("filter state {state} for reason {:?}", seen.reason));
            }
        }
    }

    fn check_upstream(&self, sent: &Outgoing, seen: &Observation, wrong: &mut Vec<String>) {
        let Some(saw) = seen.upstream.as_ref() else {
            if self.forwarded() {
                wrong.push(format!(
                    "the upstream saw nothing (status {}, reason {:?})",
                    seen.status, seen.reason
                ));
            }
            return;
        };
        if !self.forwarded() {
            wrong.push(format!("the upstream saw {} {}", saw.method, saw.path));
            return;
        }
        check_headers("upstream header", &self.upstream_headers, &saw.headers, wrong);
        check_headers("upstream trailer", &self.upstream_trailers, &saw.trailers, wrong);
        if let Some(expected) = &self.upstream_path
            && *expected != saw.path
        {
            wrong.push(format!("upstream path {:?}, expected {expected:?}", saw.path));
        }
        if let Some(expected) = &self.upstream_method
            && *expected != saw.method
        {
            wrong.push(format!("upstream method {:?}, expected {expected:?}", saw.method));
        }
        if sent.bytes.is_none() && !sent.incomplete {
            let body = sent.body.as_deref().unwrap_or_default();
            if saw.body_bytes != body.len() as u64 || saw.body_sha256 != sha256(body) {
                wrong.push(format!(
                    "the upstream saw a body of {} bytes, not the {} that were sent",
                    saw.body_bytes,
                    body.len()
                ));
            }
        }
        // What applies on every path: nothing that the client sent under an owned name arrives, in
        // headers or trailers.
        for (name, value) in saw.headers.iter().filter(|(name, _)| !mentions(&self.upstream_headers, name)) {
            if is_override(name) {
                wrong.push(format!("override header {name} reached the upstream"));
            }
            if is_owned(name) && sent.headers.iter().any(|(n, v)| folded(n) == folded(name) && v == value) {
                wrong.push(format!("the client's own {name} reached the upstream"));
            }
        }
        for (name, _) in &saw.trailers {
            if (is_owned(name) || is_override(name)) && !mentions(&self.upstream_trailers, name) {
                wrong.push(format!("trailer {name} reached the upstream"));
            }
        }
    }
}

impl SawCall {
    fn differences(&self, call: &Call) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut compare = |what: &str, expected: Option<&String>, observed: Option<&String>| {
            if expected.is_some() && expected != observed {
                wrong.push(format!("{what} {observed:?}"));
            }
        };
        compare("path", self.path.as_ref(), Some(&call.path));
        compare("token", self.token.as_ref(), call.token.as_ref());
        if let Some(expected) = &self.form {
            let pairs = standin::form::decode(call.body.as_bytes()).unwrap_or_default();
            let observed: BTreeMap<String, String> = pairs.iter().cloned().collect();
            if *expected != observed || pairs.len() != observed.len() {
                wrong.push(format!("form {:?}", call.body));
            }
        }
        if let Some(expected) = &self.check {
            let observed = serde_json::from_str::<Value>(&call.body).ok();
            if observed.as_ref() != Some(expected) {
                wrong.push(format!("check {}", call.body));
            }
        }
        let headers: Vec<(String, Vec<u8>)> =
            call.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
        check_headers("header", &self.headers, &headers, &mut wrong);
        wrong
    }
}

fn check_headers(
    what: &str,
    expected: &BTreeMap<String, Wanted>,
    seen: &[(String, Vec<u8>)],
    wrong: &mut Vec<String>,
) {
    for (name, wanted) in expected {
        let values: Vec<&[u8]> = seen
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
            .collect();
        let wanted: Vec<Vec<u8>> = match wanted {
            Wanted::One(value) => vec![unescape(value)],
            Wanted::Many(values) => values.iter().map(|value| unescape(value)).collect(),
            Wanted::Absent(()) => Vec::new(),
        };
        if values != wanted {
            let show = |values: Vec<&[u8]>| values.into_iter().map(lossy).collect::<Vec<_>>();
            wrong.push(format!(
                "{what} {name}: {:?}, expected {:?}",
                show(values),
                show(wanted.iter().map(Vec::as_slice).collect())
            ));
        }
    }
}

fn first<'a>(headers: &'a [(String, Vec<u8>)], name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_slice())
}

fn lossy(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && haystack.windows(needle.len()).any(|window| window == needle)
}

fn mentions(expected: &BTreeMap<String, Wanted>, name: &str) -> bool {
    expected.keys().any(|key| key.eq_ignore_ascii_case(name))
}

/// A header's name as seen by a server that treats all bytes but letters and digits as the same
/// one.
pub fn folded(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

/// Whether the name belongs to the gate, whatever the configuration says.
pub fn is_owned(name: &str) -> bool {
    folded(name).starts_with("x-avnology-")
        && !["x-avnology-signature", "x-avnology-timestamp"].contains(&name.to_ascii_lowercase().as_str())
}

/// Whether a header of this name makes a service use another method or target than the gate decided
/// about.
pub fn is_override(name: &str) -> bool {
    // Written out, and not the gate's own list: a name that leaves that one is missed here. Those
    // for the host are removed where a route names hosts, so cases name them.
    const NAMES: [&str; 23] = [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-http-verb-override",
        "x-original-method",
        "x-forwarded-method",
        "x-original-url",
        "x-original-uri",
        "x-rewrite-url",
        "x-envoy-original-path",
        "script-name",
        "path-info",
        "x-script-name",
        "x-forwarded-script-name",
        "x-traversal-path",
        "x-forwarded-uri",
        "x-forwarded-path",
        "x-forwarded-prefix",
        "x-matched-path",
        "x-invoke-path",
        "x-sendfile-type",
        "x-accel-mapping",
        "x-accel-redirect",
    ];
    NAMES.contains(&folded(name).as_str())
}

/// The tokens of a request, which no answer, log line or metric may repeat.
pub fn sent_secrets(sent: &Outgoing) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut look = |bytes: &[u8]| {
        // The stand-in's tokens are recognised by their prefixes; they are long enough not to be a
        // word.
        for prefix in [&b"tok_"[..], b"avnl_ses_", b"rt_", b"ak_"] {
            for (at, _) in bytes.windows(prefix.len()).enumerate().filter(|(_, window)| *window == prefix) {
                let token: Vec<u8> = bytes[at..]
                    .iter()
                    .copied()
                    .take_while(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(b))
                    .collect();
                if token.len() >= 7 {
                    out.push(token);
                }
            }
        }
    };
    for (_, value) in &sent.headers {
        look(value);
    }
    look(sent.path.as_deref().unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(status: u16) -> Observation {
        Observation {
            status,
            headers: vec![("cache-control".to_owned(), b"no-store".to_vec())],
            body: br#"{"error":"missing_token","message":"m"}"#.to_vec(),
            reason: Some("missing_token".to_owned()),
            decision: Some(Decision::Deny),
            ..Observation::default()
        }
    }

    #[test]
    fn what_was_not_expected_is_told() {
        let expect: Expect = serde_json::from_value(
            json!({"status": 401, "error": "missing_token", "reason": "missing_token"}),
        )
        .unwrap();
        let sent = Outgoing::default();
        assert_eq!(expect.check(&sent, &refusal(401)), Vec::<String>::new());
        assert_eq!(expect.check(&sent, &refusal(403)).len(), 1);
        let forwarded = Observation { upstream: Some(UpstreamSaw::default()), ..refusal(401) };
        assert_eq!(expect.check(&sent, &forwarded).len(), 1);
        let unsafe_answer = Observation { headers: vec![("a".to_owned(), b"\xff".to_vec())], ..refusal(401) };
        assert_eq!(expect.check(&sent, &unsafe_answer).len(), 2);
    }

    #[test]
    fn an_owned_header_of_the_client_never_counts_as_expected() {
        let expect: Expect = serde_json::from_value(json!({"status": 200})).unwrap();
        let spoof = vec![("x_avnology-user.id".to_owned(), b"usr_evil".to_vec())];
        let sent = Outgoing { headers: spoof.clone(), ..Outgoing::default() };
        let saw = UpstreamSaw { headers: spoof, body_sha256: sha256(b""), ..UpstreamSaw::default() };
        let seen = Observation { status: 200, upstream: Some(saw), ..Observation::default() };
        assert_eq!(expect.check(&sent, &seen).len(), 1);
    }
}
