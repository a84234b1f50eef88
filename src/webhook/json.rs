//! Reads single values out of a JSON document without building it.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// A JSON Pointer (RFC 6901) to a member of nested objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer(Vec<String>);

/// What stands at a pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing, or `null`.
    #[default]
    Nothing,
    /// A string, or an integer's JSON text.
    Text(String),
    /// Anything else.
    Other,
}

/// The document is no JSON, or an object on a pointer's way has the member twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

impl Pointer {
    /// `None` if it does not begin with a slash, or has a `~` that is neither `~0` nor `~1`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let tokens = text.strip_prefix('/')?;
        if tokens.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
            return None;
        }
        Some(Self(tokens.split('/').map(|token| crate::claims::unescape(token).into_owned()).collect()))
    }
}

/// What stands at these pointers, in one pass.
///
/// # Errors
/// See [`Unreadable`]. The document may be nested 128 deep where it is looked at.
pub(super) fn find(document: &[u8], pointers: &[&Pointer]) -> Result<Vec<Found>, Unreadable> {
    let mut found = vec![Found::Nothing; pointers.len()];
    let open = pointers.iter().enumerate().map(|(nth, pointer)| (nth, pointer.0.as_slice())).collect();
    let mut json = serde_json::Deserializer::from_slice(document);
    Walk { open, found: &mut found }.deserialize(&mut json).map_err(|_| Unreadable)?;
    json.end().map_err(|_| Unreadable)?;
    Ok(found)
}

/// The pointers that lead to a value or through it, by their numbers, with what is left of each.
type Open<'p> = Vec<(usize, &'p [String])>;

struct Walk<'w, 'p> {
    open: Open<'p>,
    found: &'w mut Vec<Found>,
}

impl Walk<'_, '_> {
    fn note(self, found: &Found) {
        for (nth, _) in self.open.iter().filter(|(_, rest)| rest.is_empty()) {
            if let Some(slot) = self.found.get_mut(*nth) {
                slot.clone_from(found);
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.note(&Found::Text(text.to_owned()));
        Ok(())
    }

    fn visit_u64<E>(self, n: u64) -> Result<(), E> {
        self.note(&Found::Text(n.to_string()));
        Ok(())
    }

    fn visit_i64<E>(self, n: i64) -> Result<(), E> {
        self.note(&Found::Text(n.to_string()));
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.note(&Found::Other);
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.note(&Found::Other);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.note(&Found::Other);
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { open, found } = self;
        Walk { open: open.clone(), found }.note(&Found::Other);
        let mut seen: Vec<usize> = Vec::new();
        while let Some(through) = members.next_key_seed(Name(&open))? {
            if through.is_empty() {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            // Which of two a service reads, nobody knows.
            if through.iter().any(|(nth, _)| seen.contains(nth)) {
                return Err(serde::de::Error::custom("a member twice"));
            }
            seen.extend(through.iter().map(|(nth, _)| *nth));
            members.next_value_seed(Walk { open: through, found })?;
        }
        Ok(())
    }
}

/// A member's name: which pointers go on through it.
struct Name<'o, 'p>(&'o Open<'p>);

impl<'de, 'p> DeserializeSeed<'de> for Name<'_, 'p> {
    type Value = Open<'p>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Open<'p>, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'p> Visitor<'_> for Name<'_, 'p> {
    type Value = Open<'p>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Open<'p>, E> {
        let through = self.0.iter().filter_map(|(nth, rest)| {
            let (first, rest) = rest.split_first()?;
            (first == name).then_some((*nth, rest))
        });
        Ok(through.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(document: &str, pointers: &[&str]) -> Result<Vec<Found>, Unreadable> {
        let pointers: Vec<Pointer> = pointers.iter().map(|text| Pointer::parse(text).unwrap()).collect();
        find(document.as_bytes(), &pointers.iter().collect::<Vec<_>>())
    }

    fn text(text: &str) -> Found {
        Found::Text(text.to_owned())
    }

    #[test]
    fn values_of_nested_members() {
        let document = r#"{"a":{"b":"x","c/d":{"~":7}},"n":null,"l":[{"a":1}],"f":1.5,"t":true,"i":-3}"#;
        let found =
            at(document, &["/a/b", "/a/c~1d/~0", "/n", "/l", "/l/0", "/f", "/t", "/i", "/a", "/z", "/a/b/c"]);
        let other = Found::Other;
        let nothing = Found::Nothing;
        let expected = [
            text("x"),
            text("7"),
            nothing.clone(),
            other.clone(),
            nothing.clone(),
            other.clone(),
            other.clone(),
            text("-3"),
            other,
            nothing.clone(),
            nothing,
        ];
        assert_eq!(found, Ok(expected.to_vec()));
        assert_eq!(at(r#"{"":{"":"x"}}"#, &["//"]), Ok(vec![text("x")]));
        assert_eq!(at("[]", &["/a"]), Ok(vec![Found::Nothing]));
    }

    #[test]
    fn a_member_that_stands_twice_on_the_way_cannot_be_read() {
        assert_eq!(at(r#"{"type":"a","type":"b"}"#, &["/type"]), Err(Unreadable));
        assert_eq!(at(r#"{"a":{},"a":{"b":"x"}}"#, &["/a/b"]), Err(Unreadable));
        assert_eq!(at(r#"{"type":"a","\u0074ype":"b"}"#, &["/type"]), Err(Unreadable));
        assert_eq!(at(r#"{"x":1,"x":2,"type":"a"}"#, &["/type"]), Ok(vec![text("a")]));
        assert_eq!(at(r#"{"o":{"type":1},"type":"a"}"#, &["/type"]), Ok(vec![text("a")]));
    }

    #[test]
    fn what_is_no_json_cannot_be_read() {
        for document in ["", "{", "{}x", "{'a':1}", "{\"a\":1,}", "\u{feff}{}", "{\"a\":\"\u{1}\"}"] {
            assert_eq!(at(document, &["/a"]), Err(Unreadable), "{document}");
        }
        assert_eq!(find(b"{\"a\":\"\xff\"}", &[&Pointer::parse("/a").unwrap()]), Err(Unreadable));
        let deep = format!("{}{}", "{\"a\":".repeat(200), "1");
        assert_eq!(at(&deep, &["/a/a/a"]), Err(Unreadable));
    }

    #[test]
    fn pointers() {
        assert_eq!(Pointer::parse("a"), None);
        assert_eq!(Pointer::parse(""), None);
        assert_eq!(Pointer::parse("/a~2"), None);
        assert_eq!(Pointer::parse("/a~"), None);
        assert_eq!(Pointer::parse("/a~01"), Some(Pointer(vec!["a~1".to_owned()])));
    }

    proptest! {
        #[test]
        fn what_serde_reads_is_found(body in "\\{(\"[ab]\":(\"[ab]{0,2}\"|[0-9]{1,3}|\\{(\"[ab]\":[0-9]{1,2})?\\}|\\[\\]|null|true),?){0,3}\\}") {
            let read: Result<serde_json::Value, _> = serde_json::from_str(&body);
            match (at(&body, &["/a", "/b/a"]), read) {
                (Ok(found), Ok(value)) => for (found, pointer) in found.iter().zip(["/a", "/b/a"]) {
                    let expected = match value.pointer(pointer) {
                        None | Some(serde_json::Value::Null) => Found::Nothing,
                        Some(serde_json::Value::String(s)) => text(s),
                        Some(serde_json::Value::Number(n)) => text(&n.to_string()),
                        Some(_) => Found::Other,
                    };
                    prop_assert_eq!(found, &expected);
                },
                (Err(_), Ok(value)) => prop_assert!(body.matches("\"a\":").count() + body.matches("\"b\":").count() > value.as_object().map_or(0, |o| o.len()), "{}", body),
                (found, Err(_)) => prop_assert_eq!(found, Err(Unreadable)),
            }
        }
    }
}
