//! Where in a text a path of the policy leads.

use jsonc_parser::ast;
use jsonc_parser::common::{Range as Bytes, Ranged};
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;
use std::ops::Range;

/// A step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seg {
    /// Into the member of this name.
    Name(String),
    /// Into the item of this index.
    Index(usize),
}

/// The steps of a path such as `routes[2].match.path`, as far as the policy has them, and whether
/// that is the whole path. A name may itself contain dots.
pub(crate) fn resolve(value: &Value, path: &str) -> (Vec<Seg>, bool) {
    let mut steps = Vec::new();
    let (mut value, mut rest) = (value, path);
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let next = match value {
            Value::Array(items) => {
                index(rest).and_then(|(nth, rest)| Some((Seg::Index(nth), items.get(nth)?, rest)))
            }
            Value::Object(members) => {
                let is_end = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
                let named = members.iter().filter_map(|(name, value)| {
                    let rest = rest.strip_prefix(name.as_str()).filter(|rest| is_end(rest))?;
                    Some((Seg::Name(name.clone()), value, rest))
                });
                named.min_by_key(|(_, _, rest)| rest.len())
            }
            _ => None,
        };
        let Some((step, inner, after)) = next else { return (steps, false) };
        steps.push(step);
        (value, rest) = (inner, after);
    }
    (steps, true)
}

fn index(rest: &str) -> Option<(usize, &str)> {
    let (nth, rest) = rest.strip_prefix('[')?.split_once(']')?;
    Some((nth.parse().ok()?, rest))
}

/// The bytes of a value in JSON, or of its name if it has one.
pub(crate) fn in_json(text: &str, steps: &[Seg], is_name: bool) -> Option<Range<usize>> {
    let parsed = parse_to_ast(text, &CollectOptions::default(), &ParseOptions::default()).ok()?;
    let root = parsed.value?;
    let (mut value, mut name) = (&root, None);
    for step in steps {
        (value, name) = match (value, step) {
            (ast::Value::Object(object), Seg::Name(wanted)) => {
                let property = object.properties.iter().rfind(|property| property.name.as_str() == wanted)?;
                (&property.value, Some(property.name.range()))
            }
            (ast::Value::Array(array), Seg::Index(nth)) => (array.elements.get(*nth)?, None),
            _ => return None,
        };
    }
    let Bytes { start, end } = match name.filter(|_| is_name) {
        Some(name) => name,
        None => value.range(),
    };
    Some(first_line(text, start..end))
}

/// The bytes of a value in YAML, or of its name if it has one.
pub(crate) fn in_yaml(text: &str, steps: &[Seg], is_name: bool) -> Option<Range<usize>> {
    let stop = Stop { steps, is_name };
    let error = stop.deserialize(serde_norway::Deserializer::from_str(text)).err()?;
    let at = error.location().filter(|_| error.to_string().contains(HERE))?;
    let start = offset_of_char(text, at.line(), at.column());
    let line = text.get(start..)?.lines().next().unwrap_or_default();
    let cut = line.split(" #").next().unwrap_or_default();
    let ends: &[char] = if is_name { &[':'] } else { &[',', ']', '}'] };
    let is_quoted = cut.starts_with(['"', '\'']);
    let is_opened = cut.starts_with(['{', '[']);
    let cut = if is_quoted || is_opened { cut } else { cut.split(ends).next().unwrap_or_default() };
    Some(start..start.saturating_add(cut.trim_end().len().max(1)).min(text.len()))
}

/// What is said at the place that is looked for.
const HERE: &str = "the place that is looked for";

/// Reads YAML up to a place and fails there: the reader tells where it failed, and nothing else.
#[derive(Clone, Copy)]
struct Stop<'s> {
    steps: &'s [Seg],
    is_name: bool,
}

/// Fails at a member's name.
struct Name<'s>(&'s str, bool);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<bool, E> {
        match name == self.0 {
            true if self.1 => Err(E::custom(HERE)),
            is_it => Ok(is_it),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Stop<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Stop<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HERE)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((Seg::Index(wanted), rest)) = self.steps.split_first() else {
            return Err(A::Error::custom(HERE));
        };
        for _ in 0..*wanted {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(Self { steps: rest, ..self }).map(drop)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Some((Seg::Name(wanted), rest)) = self.steps.split_first() else {
            return Err(A::Error::custom(HERE));
        };
        let is_last = self.is_name && rest.is_empty();
        while let Some(is_it) = members.next_key_seed(Name(wanted, is_last))? {
            if is_it {
                return members.next_value_seed(Self { steps: rest, ..self });
            }
            members.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// A range without the lines after its first, which say nothing of where it is.
fn first_line(text: &str, range: Range<usize>) -> Range<usize> {
    let shown = text.get(range.clone()).unwrap_or_default();
    let length = shown.lines().next().unwrap_or_default().trim_end().len().max(1);
    range.start..range.start.saturating_add(length).min(range.end.max(range.start))
}

/// Where a line begins, counted from 0.
pub(crate) fn line_start(text: &str, line: usize) -> usize {
    let Some(before) = line.checked_sub(1) else { return 0 };
    text.match_indices('\n').nth(before).map_or(text.len(), |(at, _)| at.saturating_add(1))
}

/// The byte of a line and a column, both counted from 1, the column in bytes; the nearest one that
/// begins a character.
pub(crate) fn offset(text: &str, line: usize, column: usize) -> usize {
    let start = line_start(text, line.saturating_sub(1));
    let end = start.saturating_add(column.saturating_sub(1)).min(text.len());
    (start..=end).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(start)
}

/// The byte of a line and a column, both counted from 1, the column in characters.
pub(crate) fn offset_of_char(text: &str, line: usize, column: usize) -> usize {
    let start = line_start(text, line.saturating_sub(1));
    let rest = text.get(start..).unwrap_or_default();
    let ahead = rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at);
    start.saturating_add(ahead)
}

/// The line and the column of a byte, both counted from 1, the column in characters.
pub(crate) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count().saturating_add(1), line.chars().count().saturating_add(1))
}

/// The steps as a JSON pointer (RFC 6901).
pub(crate) fn pointer(steps: &[Seg]) -> String {
    let step = |step: &Seg| match step {
        Seg::Name(name) => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
        Seg::Index(nth) => format!("/{nth}"),
    };
    steps.iter().map(step).collect()
}
