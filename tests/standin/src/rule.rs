//! Scripted answers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::model::{Answer, Call, Endpoint};

/// The largest body that `body_bytes` may ask for.
const MAX_BODY_BYTES: usize = 256 * 1024 * 1024;

/// A scripted answer: which calls it is for, and what it changes about the seeded answer.
///
/// What a rule does not name stays as seeded, with two exceptions: a `status` without a body means
/// an empty body, and a body without a `status` means 200.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Rule {
    /// The endpoint.
    pub on: On,
    /// The exact token that the call is about: the introspected token, or the session token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The exact object of a permission check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// How many calls it answers; absent: every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// The status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Headers, each replacing those of the same name. `content-length` is sent as written, true or
    /// not.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, HeaderValues>,
    /// A body: a string verbatim, any other value as JSON; both as `application/json` unless
    /// `headers` says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// A body of repeated text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<Repeat>,
    /// How long the answer, or the fault, waits.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_delay")]
    pub delay: Option<Duration>,
    /// What goes wrong on the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// The endpoint a rule is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum On {
    /// Token introspection.
    Introspect,
    /// Permission checks.
    Permissions,
    /// The session behind a token.
    Whoami,
    /// The gate's probes, of every endpoint: no other rule is for them.
    Probe,
    /// Every request, also of unknown paths.
    #[default]
    Any,
}

/// What goes wrong on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// The connection is reset before any byte of the answer.
    Reset,
    /// The answer announces its whole length, sends half of it and closes.
    /// An empty answer announces one byte and sends none.
    Truncate,
    /// Bytes that are not HTTP, then the connection is closed.
    Garbage,
    /// No answer, and the connection stays open.
    Hang,
}

/// One value, or several under the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HeaderValues {
    /// One value.
    One(String),
    /// Several values, sent as several headers.
    Many(Vec<String>),
}

impl HeaderValues {
    fn as_slice(&self) -> &[String] {
        match self {
            HeaderValues::One(value) => std::slice::from_ref(value),
            HeaderValues::Many(values) => values,
        }
    }
}

/// Text, repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// The text.
    pub repeat: String,
    /// How often.
    pub count: usize,
}

/// A rule as written; becomes a [`Rule`] when its parts make sense together.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Unchecked {
    on: On,
    token: Option<String>,
    object: Option<String>,
    times: Option<u32>,
    status: Option<u16>,
    headers: BTreeMap<String, HeaderValues>,
    #[serde(deserialize_with = "present")]
    body: Option<Value>,
    body_bytes: Option<Repeat>,
    delay: Option<String>,
    fault: Option<Fault>,
}

/// Keeps `null` apart from an absent member.
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn write_delay<S: serde::Serializer>(delay: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}ms", delay.unwrap_or_default().as_millis()))
}

fn parse_delay(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number = || digits.parse::<u32>().ok().filter(|_| !digits.starts_with('+')).map(u64::from);
    match &text[digits.len()..] {
        "ms" => number().map(Duration::from_millis),
        "s" => number().map(Duration::from_secs),
        _ => None,
    }
}

impl TryFrom<Unchecked> for Rule {
    type Error = String;

    fn try_from(rule: Unchecked) -> Result<Rule, String> {
        if rule.body.is_some() && rule.body_bytes.is_some() {
            return Err("`body` and `body_bytes` exclude each other".to_owned());
        }
        if let Some(status) = rule.status.filter(|status| !(200..=599).contains(status)) {
            return Err(format!("`status` is {status}, expected 200 to 599"));
        }
        if rule
            .body_bytes
            .as_ref()
            .is_some_and(|bytes| bytes.repeat.len().saturating_mul(bytes.count) > MAX_BODY_BYTES)
        {
            return Err(format!("`body_bytes` is over {MAX_BODY_BYTES} bytes"));
        }
        for (name, values) in &rule.headers {
            hyper::header::HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("bad header name {name:?}"))?;
            for value in values.as_slice() {
                hyper::header::HeaderValue::from_str(value)
                    .map_err(|_| format!("bad value of header {name:?}"))?;
            }
        }
        let delay = rule
            .delay
            .map(|text| {
                parse_delay(&text).ok_or_else(|| format!("`delay` is {text:?}, expected e.g. 250ms or 2s"))
            })
            .transpose()?;
        Ok(Rule {
            on: rule.on,
            token: rule.token,
            object: rule.object,
            times: rule.times,
            status: rule.status,
            headers: rule.headers,
            body: rule.body,
            body_bytes: rule.body_bytes,
            delay,
            fault: rule.fault,
        })
    }
}

impl Rule {
    /// Whether the rule is for this call.
    pub(crate) fn matches(&self, call: &Call) -> bool {
        let endpoint = match self.on {
            On::Introspect => call.endpoint == Endpoint::Introspect,
            On::Permissions => call.endpoint == Endpoint::Permissions,
            On::Whoami => call.endpoint == Endpoint::Whoami,
            On::Probe | On::Any => true,
        } && call.is_probe() == (self.on == On::Probe);
        endpoint
            && self.times != Some(0)
            && self.token.as_ref().is_none_or(|token| call.token.as_ref() == Some(token))
            && self
                .object
                .as_ref()
                .is_none_or(|object| call.check.as_ref().is_some_and(|check| check.object == *object))
    }

    /// Changes the seeded answer into the scripted one.
    pub(crate) fn apply(&self, answer: &mut Answer) {
        let body = match (&self.body, &self.body_bytes) {
            (Some(Value::String(text)), _) => Some(text.clone().into_bytes()),
            (Some(value), _) => Some(value.to_string().into_bytes()),
            (None, Some(bytes)) => Some(bytes.repeat.repeat(bytes.count).into_bytes()),
            (None, None) => None,
        };
        if self.status.is_some() || body.is_some() {
            answer.status = self.status.unwrap_or(200);
            answer.headers.clear();
            if body.is_some() {
                answer.headers.push(("content-type".to_owned(), "application/json".to_owned()));
            }
            answer.body = body.unwrap_or_default();
        }
        for (name, values) in &self.headers {
            let name = name.to_ascii_lowercase();
            answer.headers.retain(|(existing, _)| *existing != name);
            answer.headers.extend(values.as_slice().iter().map(|value| (name.clone(), value.clone())));
        }
        answer.delay = self.delay.unwrap_or(answer.delay);
        answer.fault = self.fault.or(answer.fault);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Rule, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn round_trips() {
        let text = r#"{"on":"introspect","token":"t","times":2,"status":200,"headers":{"a":"1","b":["2","3"]},"body":null,"delay":"2s","fault":"truncate"}"#;
        let rule = parse(text).unwrap();
        assert_eq!(rule.body, Some(Value::Null));
        assert_eq!(rule.delay, Some(Duration::from_secs(2)));
        assert_eq!(parse(&serde_json::to_string(&rule).unwrap()).unwrap(), rule);
        assert_eq!(parse("{}").unwrap(), Rule::default());
        assert_eq!(parse(&serde_json::to_string(&Rule::default()).unwrap()).unwrap(), Rule::default());
    }

    #[test]
    fn refuses_nonsense() {
        for text in [
            r#"{"onn": "any"}"#,
            r#"{"on": "revoke"}"#,
            r#"{"body": 1, "body_bytes": {"repeat": "x", "count": 1}}"#,
            r#"{"body_bytes": {"repeat": "xxxx", "count": 9223372036854775807}}"#,
            r#"{"status": 101}"#,
            r#"{"status": 999}"#,
            r#"{"headers": {"a b": "1"}}"#,
            r#"{"headers": {"a": "1\r\nb: 2"}}"#,
            r#"{"fault": "explode"}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        for delay in ["", "1", "ms", "-1s", "+1s", "1.5s", "1m", "1 s"] {
            assert!(parse(&format!(r#"{{"delay": "{delay}"}}"#)).is_err(), "{delay}");
        }
    }
}
