//! Events, read slowly: each place by itself, from the whole body anew.

use crate::json::Json;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// What a format says of its deliveries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    pub(super) name: &'static str,
    /// With the signature.
    pub(super) header: &'static str,
    pub(super) prefix: &'static str,
    kinds: &'static [&'static str],
    ids: &'static [&'static str],
    pub(super) form: bool,
}

const fn format(
    name: &'static str,
    (header, prefix): (&'static str, &'static str),
    kinds: &'static [&'static str],
    ids: &'static [&'static str],
    form: bool,
) -> Format {
    Format { name, header, prefix, kinds, ids, form }
}

/// Those that differ in where an event stands.
pub(super) const FORMATS: [Format; 5] = [
    format("avnology", ("x-avnology-signature", ""), &["/event_type", "/type"], &["/event_id", "/id"], false),
    format("stripe", ("stripe-signature", ""), &["/type"], &["/id"], false),
    format("github", ("x-hub-signature-256", "sha256="), &["x-github-event"], &[], true),
    format("slack", ("x-slack-signature", "v0="), &["/event/type", "/type"], &["/event_id"], true),
    format("custom", ("x-sig", ""), &[], &[], false),
];

/// Where an event stands, and which are taken.
pub(super) struct Places {
    pub(super) format: Format,
    pub(super) kinds: Vec<String>,
    pub(super) is_exclusive: bool,
    pub(super) ids: Vec<String>,
    pub(super) needs_id: bool,
    pub(super) challenge: bool,
    pub(super) allow: Option<Vec<&'static str>>,
    pub(super) deny: Option<Vec<&'static str>>,
}

/// What becomes of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Unreadable,
    Challenge(String),
    Ignored,
    /// With what the signature covers.
    Taken {
        kind: Option<String>,
        id: Option<String>,
    },
}

impl Places {
    pub(super) fn of(format: Format) -> Self {
        let all = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Self {
            format,
            kinds: all(format.kinds),
            is_exclusive: format.name == "avnology",
            ids: all(format.ids),
            needs_id: false,
            challenge: false,
            allow: None,
            deny: None,
        }
    }

    /// The names of the members that are looked at first.
    pub(super) fn first_names(&self) -> Vec<String> {
        let challenge = if self.challenge { &["/type", "/challenge"][..] } else { &[] };
        let places = self.kinds.iter().chain(&self.ids).map(String::as_str).chain(challenge.iter().copied());
        places.filter_map(|place| place.split('/').nth(1)).map(unescaped).collect()
    }

    /// The JSON of a body; what cannot begin a form is JSON already.
    pub(super) fn document(&self, body: &[u8]) -> Option<Vec<u8>> {
        let first = body.iter().find(|b| !b.is_ascii_whitespace());
        let is_json = first.is_some_and(|first| matches!(first, b'{' | b'[' | b'"'));
        if self.format.form && !is_json { payload(body) } else { Some(body.to_vec()) }
    }

    pub(super) fn read(&self, headers: &[(&str, &[u8])], signed_id: Option<&str>, body: &[u8]) -> Outcome {
        self.reading(headers, signed_id, body).unwrap_or(Outcome::Unreadable)
    }

    fn reading(&self, headers: &[(&str, &[u8])], signed_id: Option<&str>, body: &[u8]) -> Option<Outcome> {
        let is_pointer = |place: &&String| place.starts_with('/');
        let in_body: Vec<&str> =
            self.kinds.iter().chain(&self.ids).filter(is_pointer).map(String::as_str).collect();
        let document = if in_body.is_empty() && !self.challenge {
            "{}".to_owned()
        } else {
            String::from_utf8_lossy(&self.document(body)?).into_owned()
        };
        // What cannot be read at one place cannot be read.
        let values = in_body.iter().map(|place| at(&document, place)).collect::<Option<Vec<_>>>()?;
        let at = |place: &str| at(&document, place);
        if self.challenge {
            let (asks, word) = (at("/type")?, at("/challenge")?);
            if asks == Json::Text("url_verification".to_owned()) {
                return Some(Outcome::Challenge(visible(&word, 1024)?));
            }
        }
        let kinds = self.kinds.iter().filter(is_pointer).count();
        let named =
            |values: &[Json]| values.iter().filter(|v| **v != Json::Null).cloned().collect::<Vec<_>>();
        let signed = named(&values[..kinds]);
        let mut unsigned = Vec::new();
        for place in self.kinds.iter().filter(|place| !is_pointer(place)) {
            let fold = |name: &str| name.to_lowercase().replace('_', "-");
            let found: Vec<_> = headers.iter().filter(|(name, _)| fold(name) == fold(place)).collect();
            match found[..] {
                [] => {}
                [(name, value)] if *name == place.to_lowercase() => {
                    unsigned.push(Json::Text(String::from_utf8_lossy(value).into_owned()));
                }
                [_] => {}
                _ => return None,
            }
        }
        let is_twice = unsigned.len() > 1
            || (!unsigned.is_empty() && !signed.is_empty())
            || (self.is_exclusive && signed.len() > 1);
        let mut kind = None;
        if !self.kinds.is_empty() {
            let first = signed.first().or(unsigned.first()).filter(|_| !is_twice)?;
            kind = Some(visible(first, 128)?);
        }
        let ids = named(&values[kinds..]);
        let id = match (signed_id, ids.first()) {
            (Some(id), _) => Some(id.to_owned()),
            (None, Some(first)) if !(self.is_exclusive && ids.len() > 1) => visible(first, 256),
            _ => None,
        };
        if self.needs_id && id.is_none() {
            return None;
        }
        if let Some(kind) = &kind {
            let is_among = |globs: &Vec<&str>| globs.iter().any(|glob| fits(glob, kind));
            if self.deny.as_ref().is_some_and(is_among) || !self.allow.as_ref().is_none_or(is_among) {
                return Some(Outcome::Ignored);
            }
        }
        Some(Outcome::Taken { kind: kind.filter(|_| !signed.is_empty()), id })
    }
}

/// The bytes of a form's only `payload`.
fn payload(form: &[u8]) -> Option<Vec<u8>> {
    let mut payloads = Vec::new();
    for pair in form.split(|b| *b == b'&') {
        if let Some(at) = pair.iter().position(|b| *b == b'=')
            && decoded(&pair[..at]) == b"payload"
        {
            payloads.push(decoded(&pair[at + 1..]));
        }
    }
    if payloads.len() == 1 { payloads.pop() } else { None }
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).filter(|hex| *first == b'%' && hex.iter().all(u8::is_ascii_hexdigit));
        bytes.push(match hex {
            Some(hex) => u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap(),
            None if *first == b'+' => b' ',
            None => *first,
        });
        rest = if hex.is_some() { &after[2..] } else { after };
    }
    bytes
}

/// What stands at a pointer; `None` where that cannot be told. Beside the way there anything may
/// stand that has JSON's form.
fn at(document: &str, pointer: &str) -> Option<Json> {
    let mut value: &RawValue = serde_json::from_str(document).ok()?;
    for token in pointer.split('/').skip(1) {
        let token = unescaped(token);
        if !value.get().starts_with('{') {
            own(value)?;
            return Some(Json::Null);
        }
        let members: Members<'_> = serde_json::from_str(value.get()).ok()?;
        let found: Vec<&RawValue> = members.0.iter().filter(|(n, _)| *n == token).map(|(_, v)| *v).collect();
        value = match found[..] {
            [] => return Some(Json::Null),
            [one] => one,
            _ => return None,
        };
    }
    own(value)
}

fn unescaped(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// A value, as far as it is looked at: what an array or an object holds is not.
fn own(value: &RawValue) -> Option<Json> {
    match value.get().as_bytes()[0] {
        b'{' => serde_json::from_str::<Members<'_>>(value.get()).ok().map(|_| Json::Object(Vec::new())),
        b'[' => Some(Json::List(Vec::new())),
        _ => Json::parse(value.get().as_bytes()),
    }
}

/// The text of a value, where it can stand in a header.
fn visible(value: &Json, most: usize) -> Option<String> {
    let (Json::Text(text) | Json::Integer(text)) = value else { return None };
    let is_visible = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    is_visible.then(|| text.clone())
}

fn fits(glob: &str, text: &str) -> bool {
    match glob.split_at_checked(1) {
        None => text.is_empty(),
        Some(("*", rest)) => (0..=text.len()).any(|from| fits(rest, &text[from..])),
        Some((first, rest)) => text.strip_prefix(first).is_some_and(|text| fits(rest, text)),
    }
}

/// An object's members, none of them lost.
struct Members<'m>(Vec<(String, &'m RawValue)>);

impl<'de: 'm, 'm> Deserialize<'de> for Members<'m> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reading)
    }
}
