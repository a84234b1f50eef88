//! JSON as it was written, duplicate members included.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use sha2::{Digest, Sha256};
use std::fmt;

/// A JSON value that keeps duplicate members, so that they can be refused.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum JsonValue {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<JsonValue>),
    Object(Vec<(String, JsonValue)>),
}

impl JsonValue {
    /// Describes the value for a message; never shows a value that may be a secret.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(b) => format!("`{b}`"),
            // An integer is shown; other numbers are not, since code to print them adds more to the
            // module than it is worth.
            #[expect(clippy::cast_possible_truncation, reason = "checked to be small")]
            Self::Number(n) if n.fract() == 0.0 && n.abs() < 1e15 => format!("`{}`", *n as i64),
            Self::Number(_) => "a number".to_owned(),
            Self::Text(_) => "a string".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Object(_) => "an object".to_owned(),
        }
    }
}

impl JsonValue {
    /// What tells one document from another: the same whatever the order of members and the white
    /// space. No secret that stands in the document has a part in it, so that none can be guessed
    /// from it.
    pub(super) fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        self.feed(&mut hasher, ["", ""]);
        let [a, b, c, d, ..]: [u8; 32] = hasher.finalize().into();
        format!("{:08x}", u32::from_be_bytes([a, b, c, d]))
    }

    /// `place`: the names of the two members around it, the nearest last.
    fn feed(&self, hasher: &mut Sha256, place: [&str; 2]) {
        let [_, own] = place;
        let mut part = |kind: u8, bytes: &[u8]| {
            hasher.update([kind]);
            hasher.update(length(bytes.len()));
            hasher.update(bytes);
        };
        match self {
            Self::Null => part(b'n', &[]),
            Self::Bool(is_true) => part(b'b', &[u8::from(*is_true)]),
            Self::Number(number) => part(b'f', &number.to_bits().to_le_bytes()),
            Self::Text(_) if own == SECRET => part(b's', &[]),
            Self::Text(text) => part(b't', text.as_bytes()),
            Self::List(list) => {
                part(b'l', &length(list.len()));
                list.iter().for_each(|value| value.feed(hasher, place));
            }
            Self::Object(members) => {
                part(b'o', &length(members.len()));
                let mut members: Vec<_> = members.iter().collect();
                members.sort_by_key(|(name, _)| name);
                for (name, value) in members {
                    hasher.update(length(name.len()));
                    hasher.update(name);
                    let is_secret = is_secret(place, name);
                    value.feed(hasher, [own, if is_secret { SECRET } else { name }]);
                }
            }
        }
    }
}

/// The same on targets of any word.
fn length(len: usize) -> [u8; 8] {
    u64::try_from(len).unwrap_or(u64::MAX).to_le_bytes()
}

/// Whether the member of this name holds secrets, within members of these names.
fn is_secret([around, own]: [&str; 2], name: &str) -> bool {
    match name {
        "client_secret" | "next_client_secret" | "token" | "next_token" => {
            own == "credentials" || own == "introspection"
        }
        "api_key" | "next_api_key" => own == "permissions",
        "secrets" => around == "webhooks",
        _ => false,
    }
}

/// In the place of the name of a member that holds secrets. An object in there has none: it names
/// an environment variable.
const SECRET: &str = "\0";

impl<'de> Deserialize<'de> for JsonValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = JsonValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<JsonValue, E> {
        Ok(JsonValue::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<JsonValue, E> {
        Ok(JsonValue::Bool(b))
    }

    #[expect(clippy::cast_precision_loss, reason = "no number of a configuration is that large")]
    fn visit_i64<E>(self, n: i64) -> Result<JsonValue, E> {
        Ok(JsonValue::Number(n as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "no number of a configuration is that large")]
    fn visit_u64<E>(self, n: u64) -> Result<JsonValue, E> {
        Ok(JsonValue::Number(n as f64))
    }

    fn visit_f64<E>(self, n: f64) -> Result<JsonValue, E> {
        Ok(JsonValue::Number(n))
    }

    fn visit_str<E>(self, text: &str) -> Result<JsonValue, E> {
        Ok(JsonValue::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<JsonValue, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element()? {
            list.push(node);
        }
        Ok(JsonValue::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonValue, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(JsonValue::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> String {
        serde_json::from_str::<JsonValue>(text).unwrap().digest()
    }

    #[test]
    fn a_digest_tells_documents_apart_and_neither_layouts_nor_secrets() {
        let one = digest(r#"{"a": [1, {"x": "y"}], "b": null}"#);
        assert_eq!(one.len(), 8);
        assert_eq!(one, digest("{\"b\":null,\n\"a\":[1,{\"x\":\"y\"}]}"));
        for other in [
            r#"{"a": [1, {"x": "z"}], "b": null}"#,
            r#"{"a": [1, {"x": "y"}], "b": false}"#,
            r#"{"a": [{"x": "y"}, 1], "b": null}"#,
            r#"{"a": [1, {"x": "y"}]}"#,
            r#"{"a": [1], "b": {"x": "y"}}"#,
        ] {
            assert_ne!(one, digest(other), "{other}");
        }
        let wraps = [
            (r#"{"provider": {"introspection": {"credentials": {"client_secret": @}}}}"#, true),
            (r#"{"provider": {"introspection": {"credentials": {"next_token": @}}}}"#, true),
            (r#"{"routes": [{"introspection": {"token": @}}]}"#, true),
            (r#"{"provider": {"permissions": {"next_api_key": @}}}"#, true),
            (r#"{"webhooks": {"w": {"secrets": [@]}}}"#, true),
            // What is only called so.
            (r#"{"routes": [{"require": {"claims": {"token": @}}}]}"#, false),
            (r#"{"identity_headers": {"secrets": @}}"#, false),
        ];
        for (document, is_secret) in wraps {
            let of = |value: &str| digest(&document.replace('@', value));
            assert_eq!(of(r#""one""#) == of(r#""other""#), is_secret, "{document}");
            assert_ne!(of(r#"{"env": "ONE"}"#), of(r#"{"env": "OTHER"}"#), "{document}");
        }
        let of = |value: &str| digest(&format!(r#"{{"webhooks": {{"w": {{"secrets": [{value}]}}}}}}"#));
        assert_ne!(of(r#""one""#), of(r#""one", "other""#));
    }
}
