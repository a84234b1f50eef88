//! What a verified delivery is about: its type and id, and whether the service wants it.

use super::format::EventPlaces;
use super::json::{Found, Pointer, find};
use super::signature::MAX_ID;
use crate::http::head::{Reading, RequestHead};
use crate::http::query;
use std::borrow::Cow;

/// Where something of an event stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In this header.
    Header(String),
    /// At this pointer in the body.
    Body(Pointer),
}

/// How events are read, and which are taken.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    /// Where the type stands; the first place that names one counts. Empty: no type is read.
    pub kind: Vec<Place>,
    /// Whether only one of the places may name a type.
    pub is_exclusive: bool,
    /// The same for the id.
    pub id: Vec<Place>,
    /// Whether a delivery without an id is refused.
    pub needs_id: bool,
    /// Whether the body may be a form, with the event as JSON in its field `payload`.
    pub form: bool,
    /// Where a sender asks an endpoint to say something back, and what; empty: the gate does not.
    pub challenge: Vec<Pointer>,
    /// The types that are taken; `None`: all.
    pub allow: Option<Vec<Glob>>,
    /// Those of them that are not.
    pub deny: Vec<Glob>,
}

/// A pattern of types, in which `*` stands for any characters, none included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob(String);

/// What the head says about the event; no signature covers it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hint {
    /// `None` where it was named twice.
    kind: Option<Found>,
}

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its type, if one is read.
    pub kind: Option<String>,
    /// Whether the signature covers the type.
    pub is_kind_signed: bool,
    pub id: Option<String>,
    /// What the sender asks the endpoint to say back.
    pub challenge: Option<String>,
}

/// It names no type or no id where one is needed, or one that cannot be told, or its body cannot be
/// read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnreadableEvent;

impl Place {
    /// A pointer if it begins with a slash, else a header's name; `None` if it is neither.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.starts_with('/') {
            return Pointer::parse(text).map(Self::Body);
        }
        Some(Self::Header(text.to_ascii_lowercase()))
    }

    fn pointer(&self) -> Option<&Pointer> {
        match self {
            Self::Body(pointer) => Some(pointer),
            Self::Header(_) => None,
        }
    }
}

impl Events {
    /// Events as a format has them.
    pub(crate) fn of(places: &EventPlaces) -> Self {
        let all = |texts: &[&str]| texts.iter().filter_map(|text| Place::parse(text)).collect();
        Self {
            kind: all(places.kind),
            is_exclusive: places.exclusive,
            id: all(places.id),
            needs_id: false,
            form: places.form,
            challenge: Vec::new(),
            allow: None,
            deny: Vec::new(),
        }
    }

    /// Whether the body has to be read.
    pub(crate) fn reads_body(&self) -> bool {
        !self.challenge.is_empty() || self.kind.iter().chain(&self.id).any(|place| place.pointer().is_some())
    }

    /// Lets the gate answer for the endpoint.
    pub(crate) fn answer_challenges(&mut self) {
        self.challenge = ["/type", "/challenge"].into_iter().filter_map(Pointer::parse).collect();
    }

    /// What the head says.
    pub(super) fn hint(&self, head: &RequestHead<'_>) -> Hint {
        let mut kind = Some(Found::Nothing);
        for place in &self.kind {
            let Place::Header(name) = place else { continue };
            kind = match (head.read(name), kind) {
                (Reading::Missing, kind) => kind,
                (Reading::One(value), Some(Found::Nothing)) => {
                    Some(String::from_utf8(value.into_owned()).map_or(Found::Other, Found::Text))
                }
                (Reading::Ambiguous | Reading::One(_), _) => None,
            };
        }
        Hint { kind }
    }

    /// What stands in the body at these pointers.
    pub(super) fn find(&self, body: &[u8], pointers: &[&Pointer]) -> Result<Vec<Found>, UnreadableEvent> {
        find(&self.document(body)?, pointers).map_err(|_| UnreadableEvent)
    }

    /// Reads an event. `id`: what a signed header says.
    pub(super) fn read(&self, hint: &Hint, id: Option<&str>, body: &[u8]) -> Result<Event, UnreadableEvent> {
        let mut pointers: Vec<&Pointer> =
            self.kind.iter().chain(&self.id).filter_map(Place::pointer).collect();
        let kinds = self.kind.iter().filter(|place| place.pointer().is_some()).count();
        let ids = pointers.len().saturating_sub(kinds);
        pointers.extend(&self.challenge);
        let found = if pointers.is_empty() { Vec::new() } else { self.find(body, &pointers)? };
        let mut found = found.into_iter();
        let in_body: Vec<Found> = found.by_ref().take(kinds).collect();
        let ids: Vec<Found> = found.by_ref().take(ids).collect();
        let mut challenge = found;
        let mut event = Event::default();
        if challenge.next() == Some(Found::Text("url_verification".to_owned())) {
            let text = challenge.next().unwrap_or_default();
            event.challenge = Some(visible(text, MAX_CHALLENGE)?.ok_or(UnreadableEvent)?);
            // It is about the endpoint, and has no other place for a type, nor an id.
            return Ok(event);
        }
        let head = hint.kind.as_ref().ok_or(UnreadableEvent)?.clone();
        let mut named = in_body.into_iter().filter(|found| *found != Found::Nothing);
        let first = named.next();
        if (self.is_exclusive && named.next().is_some()) || (first.is_some() && head != Found::Nothing) {
            return Err(UnreadableEvent);
        }
        event.is_kind_signed = first.is_some();
        event.kind = visible(first.unwrap_or(head), MAX_KIND)?;
        if event.kind.is_none() && !self.kind.is_empty() {
            return Err(UnreadableEvent);
        }
        let mut named = ids.into_iter().filter(|found| *found != Found::Nothing);
        let first = named.next().filter(|_| !self.is_exclusive || named.next().is_none());
        event.id = match id {
            Some(id) => Some(id.to_owned()),
            // One that cannot stand in a header is none.
            None => visible(first.unwrap_or_default(), MAX_ID).unwrap_or_default(),
        };
        if event.id.is_none() && self.needs_id {
            return Err(UnreadableEvent);
        }
        Ok(event)
    }

    /// The JSON of a body. Which of the two it is, the signed bytes say, and no header that anybody
    /// may set: no JSON document begins like a form.
    fn document<'b>(&self, body: &'b [u8]) -> Result<Cow<'b, [u8]>, UnreadableEvent> {
        let is_json = body.trim_ascii_start().first().is_some_and(|first| b"{[\"".contains(first));
        if is_json || !self.form {
            return Ok(Cow::Borrowed(body));
        }
        let mut payloads = body.split(|b| *b == b'&').filter_map(|pair| {
            let (name, value) = pair.split_at_checked(pair.iter().position(|b| *b == b'=')?)?;
            (*query::decode(name) == *b"payload").then(|| query::decode(value.get(1..).unwrap_or_default()))
        });
        match (payloads.next(), payloads.next()) {
            (Some(payload), None) => Ok(payload),
            _ => Err(UnreadableEvent),
        }
    }

    /// Whether the service wants events of this type.
    pub(crate) fn takes(&self, kind: Option<&str>) -> bool {
        let Some(kind) = kind else { return true };
        let is_among = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(kind));
        !is_among(&self.deny) && self.allow.as_deref().is_none_or(is_among)
    }
}

/// Text that can stand in a header; `None` where there is none.
fn visible(found: Found, most: usize) -> Result<Option<String>, UnreadableEvent> {
    match found {
        Found::Nothing => Ok(None),
        Found::Text(text)
            if (1..=most).contains(&text.len()) && text.bytes().all(|b| (b'!'..=b'~').contains(&b)) =>
        {
            Ok(Some(text))
        }
        Found::Text(_) | Found::Other => Err(UnreadableEvent),
    }
}

impl Glob {
    /// `None` unless it is visible ASCII.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        (!text.is_empty() && text.bytes().all(|b| (b'!'..=b'~').contains(&b))).then(|| Self(text.to_owned()))
    }

    /// Whether this is a text of the pattern.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let (mut pattern, mut rest) = (self.0.as_bytes(), text.as_bytes());
        // Where the last star stands, and what it has not swallowed yet.
        let mut star: Option<(&[u8], &[u8])> = None;
        loop {
            match (pattern.split_first(), rest.split_first()) {
                (Some((b'*', after)), _) => {
                    star = Some((after, rest));
                    pattern = after;
                }
                (Some((a, after)), Some((b, others))) if a == b => (pattern, rest) = (after, others),
                (None, None) => return true,
                _ => {
                    let Some((after, swallowed)) = star else { return false };
                    let Some((_, swallowed)) = swallowed.split_first() else { return false };
                    star = Some((after, swallowed));
                    (pattern, rest) = (after, swallowed);
                }
            }
        }
    }
}

/// The longest type, in bytes.
pub(crate) const MAX_KIND: usize = 128;

/// The longest challenge, in bytes.
pub(crate) const MAX_CHALLENGE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::super::format::known;
    use super::*;
    use crate::http::head::head_of;

    fn events(format: &str) -> Events {
        let format = known(format).unwrap();
        Events::of(&format.events)
    }

    fn read(events: &Events, headers: &[(&str, &str)], body: &str) -> Result<Event, UnreadableEvent> {
        let hint = events.hint(&head_of(headers, false));
        events.read(&hint, None, body.as_bytes())
    }

    fn event(kind: &str, is_kind_signed: bool, id: Option<&str>) -> Event {
        Event { kind: Some(kind.to_owned()), is_kind_signed, id: id.map(str::to_owned), challenge: None }
    }

    #[test]
    fn both_shapes_of_avnologys_envelope_and_not_both_at_once() {
        let events = events("avnology");
        let read = |body: &str| read(&events, &[], body);
        assert_eq!(
            read(r#"{"event_id":"e1","event_type":"user.created"}"#),
            Ok(event("user.created", true, Some("e1")))
        );
        assert_eq!(read(r#"{"id":7,"type":"user.created"}"#), Ok(event("user.created", true, Some("7"))));
        assert_eq!(read(r#"{"type":"a"}"#), Ok(event("a", true, None)));
        for unreadable in [
            r#"{"event_type":"a","type":"a"}"#,
            r#"{"type":"a","type":"a"}"#,
            r#"{"id":"x"}"#,
            r#"{"type":""}"#,
            r#"{"type":"a b"}"#,
            r#"{"type":["a"]}"#,
            r#"{"type":"a","id":"x","id":"x"}"#,
            r#"[{"type":"a"}]"#,
            "payload=%7B%22type%22%3A%22a%22%7D",
            "",
        ] {
            assert_eq!(read(unreadable), Err(UnreadableEvent), "{unreadable}");
        }
        let needs = Events { needs_id: true, ..events.clone() };
        for unusable in
            [r#"{"type":"a","id":{}}"#, r#"{"type":"a","id":"x","event_id":"y"}"#, r#"{"type":"a"}"#]
        {
            assert_eq!(read(unusable), Ok(event("a", true, None)), "{unusable}");
            assert_eq!(tests::read(&needs, &[], unusable), Err(UnreadableEvent), "{unusable}");
        }
        let long = format!(r#"{{"type":"{}"}}"#, "a".repeat(129));
        assert_eq!(read(&long), Err(UnreadableEvent));
    }

    #[test]
    fn a_type_of_an_unsigned_header_is_marked_as_such() {
        let events = events("github");
        assert_eq!(read(&events, &[("x-github-event", "push")], "no json"), Ok(event("push", false, None)));
        assert_eq!(read(&events, &[], "{}"), Err(UnreadableEvent));
        assert_eq!(
            read(&events, &[("x-github-event", "push"), ("x_github_event", "x")], "{}"),
            Err(UnreadableEvent)
        );
        assert_eq!(read(&events, &[("x-github-event", "pu sh")], "{}"), Err(UnreadableEvent));
        let both =
            Events { kind: vec![Place::Header("x-e".into()), Place::parse("/action").unwrap()], ..events };
        assert_eq!(read(&both, &[("x-e", "push")], "{}"), Ok(event("push", false, None)));
        assert_eq!(read(&both, &[], r#"{"action":"opened"}"#), Ok(event("opened", true, None)));
        assert_eq!(
            read(&both, &[("x-e", "push")], r#"{"action":"opened"}"#),
            Err(UnreadableEvent),
            "named twice"
        );
        for form in
            ["payload=%7B%22action%22%3A%22opened%22%7D", "a=1&payload=%7B%22action%22:+%22opened%22%7D"]
        {
            assert_eq!(read(&both, &[], form), Ok(event("opened", true, None)), "{form}");
        }
        for form in ["payload={}&payload={}", "payloads={}", "payload", "a=1"] {
            assert_eq!(read(&both, &[("x-e", "push")], form), Err(UnreadableEvent), "{form}");
        }
    }

    #[test]
    fn slack_asks_for_a_word_back() {
        let mut events = events("slack");
        events.answer_challenges();
        let asked = read(&events, &[], r#"{"type":"url_verification","challenge":"3eZbrw1a","token":"x"}"#);
        assert_eq!(asked.unwrap().challenge.as_deref(), Some("3eZbrw1a"));
        let called = read(
            &events,
            &[],
            r#"{"type":"event_callback","event_id":"Ev1","event":{"type":"app_mention"}}"#,
        );
        assert_eq!(called, Ok(event("app_mention", true, Some("Ev1"))));
        for unreadable in [
            r#"{"type":"url_verification"}"#,
            r#"{"type":"url_verification","challenge":"a\nb"}"#,
            r#"{"type":"url_verification","challenge":7.5}"#,
        ] {
            assert_eq!(read(&events, &[], unreadable), Err(UnreadableEvent), "{unreadable}");
        }
        let elsewhere = Events { kind: vec![Place::parse("/event/type").unwrap()], ..events.clone() };
        for events in [elsewhere, Events { needs_id: true, ..events.clone() }] {
            let asked = read(&events, &[], r#"{"type":"url_verification","challenge":"x"}"#);
            assert_eq!(asked.unwrap().challenge.as_deref(), Some("x"), "{events:?}");
        }
        let off = Events { challenge: Vec::new(), ..events };
        assert_eq!(
            read(&off, &[], r#"{"type":"url_verification","challenge":"x"}"#),
            Ok(event("url_verification", true, None))
        );
    }

    #[test]
    fn what_is_denied_is_not_taken_and_what_is_allowed_is() {
        let globs = |texts: &[&str]| texts.iter().map(|text| Glob::parse(text).unwrap()).collect::<Vec<_>>();
        let events =
            Events { allow: Some(globs(&["user.*", "x"])), deny: globs(&["user.d*d"]), ..events("avnology") };
        for (kind, is_taken) in [
            ("user.created", true),
            ("user.", true),
            ("user", false),
            ("x", true),
            ("xx", false),
            ("user.deleted", false),
            ("User.created", false),
        ] {
            assert_eq!(events.takes(Some(kind)), is_taken, "{kind}");
        }
        assert!(Events { allow: None, ..events.clone() }.takes(Some("anything")));
        assert!(!Events { allow: None, ..events }.takes(Some("user.dd")));
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        let matches = |glob: &str, text: &str| Glob::parse(glob).unwrap().matches(text);
        for (glob, text) in [
            ("*", ""),
            ("*", "a"),
            ("a*b*c", "abbc"),
            ("a*b", "acbb"),
            ("**a", "a"),
            ("*.member.*", "o.member.removed"),
        ] {
            assert!(matches(glob, text), "{glob} {text}");
        }
        for (glob, text) in [("a", ""), ("a", "ab"), ("a*b", "a"), ("a*b*c", "acb"), ("*a", "b")] {
            assert!(!matches(glob, text), "{glob} {text}");
        }
        assert_eq!(Glob::parse(""), None);
        assert_eq!(Glob::parse("a b"), None);
    }
}
