//! Reads a JSON document member by member, and continues after a problem, so that all problems are
//! reported together.

mod maps;

pub(super) use maps::TextsByName;

use super::duration::{duration, spelled};
use super::error::{Problems, UNKNOWN_FIELD};
use super::fields::{
    Choice, Field, Flag, Number, Object, ObjectOrOff, Objects, Presence, Secrets, Span, Text, Texts,
};
use super::json::JsonValue;
use std::cell::RefCell;
use std::time::Duration;

/// Where problems are collected.
pub(super) type Sink = RefCell<Problems>;

/// A value with its path.
pub(super) type Member<'a> = (String, &'a JsonValue);

/// The word `off` in the place of an object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Off;

/// A field without its type: its name, and what is expected if it is missing. The functions that
/// take this are compiled once, and not for each type of field.
struct Named {
    name: &'static str,
    expected: Option<&'static str>,
}

impl<K, P: Presence> From<&Field<K, P>> for Named {
    fn from(field: &Field<K, P>) -> Self {
        Self { name: field.name, expected: field.presence.expected() }
    }
}

/// An object that is being read. Members that are left at the end are unknown.
pub(super) struct Section<'a> {
    path: String,
    members: Vec<(&'a str, &'a JsonValue)>,
    asked: Vec<&'static str>,
    sink: &'a Sink,
}

/// A member's path, or the object's own path if the name is empty.
pub(super) fn join(path: &str, name: &str) -> String {
    match (path, name) {
        (path, "") => path.to_owned(),
        ("", name) => name.to_owned(),
        (path, name) => format!("{path}.{name}"),
    }
}

impl<'a> Section<'a> {
    /// Opens an object; reports a problem if the node is not one.
    pub(super) fn open(path: String, node: &'a JsonValue, sink: &'a Sink) -> Option<Self> {
        let JsonValue::Object(members) = node else {
            sink.borrow_mut().push(path, node.kind(), "an object");
            return None;
        };
        let mut seen: Vec<(&str, &JsonValue)> = Vec::with_capacity(members.len());
        for (name, value) in members {
            if seen.iter().any(|(n, _)| n == name) {
                sink.borrow_mut().push(join(&path, name), "the field twice", "it once");
            } else {
                seen.push((name, value));
            }
        }
        Some(Self { path, members: seen, asked: Vec::new(), sink })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Reports a problem of the object itself.
    pub(super) fn problem(&self, found: &str, expected: &str) {
        self.sink.borrow_mut().push(self.path.clone(), found, expected);
    }

    pub(super) fn sink_problem(&self, path: String, found: &str, expected: &str) {
        self.sink.borrow_mut().push(path, found, expected);
    }

    pub(super) fn has<K, P>(&self, field: &Field<K, P>) -> bool {
        self.holds(field.name)
    }

    fn holds(&self, name: &str) -> bool {
        self.members.iter().any(|(n, _)| *n == name)
    }

    /// Takes out a member of any type; reports a problem if it is required and missing.
    pub(super) fn take<K, P: Presence>(&mut self, field: &Field<K, P>) -> Option<Member<'a>> {
        self.take_named(field.into())
    }

    fn take_named(&mut self, Named { name, expected }: Named) -> Option<Member<'a>> {
        self.asked.push(name);
        let Some(at) = self.members.iter().position(|(n, _)| *n == name) else {
            if let Some(expected) = expected {
                self.sink_problem(join(&self.path, name), "nothing", expected);
            }
            return None;
        };
        let (_, node) = self.members.remove(at);
        Some((join(&self.path, name), node))
    }

    pub(super) fn text<P: Presence>(&mut self, field: &Field<Text, P>) -> Option<String> {
        self.take_text(field.into())
    }

    fn take_text(&mut self, named: Named) -> Option<String> {
        let (path, node) = self.take_named(named)?;
        self.as_text(path, node)
    }

    fn as_text(&self, path: String, node: &JsonValue) -> Option<String> {
        let (found, expected) = match node {
            JsonValue::Text(text) if !text.is_empty() => return Some(text.clone()),
            JsonValue::Text(_) => ("an empty string".to_owned(), "a string that is not empty"),
            other => (other.kind(), "a string"),
        };
        self.sink_problem(path, &found, expected);
        None
    }

    pub(super) fn flag<P: Presence>(&mut self, field: &Field<Flag, P>) -> Option<bool> {
        self.take_flag(field.into())
    }

    fn take_flag(&mut self, named: Named) -> Option<bool> {
        let (path, node) = self.take_named(named)?;
        match node {
            JsonValue::Bool(flag) => Some(*flag),
            other => {
                self.sink.borrow_mut().push(path, other.kind(), "`true` or `false`");
                None
            }
        }
    }

    pub(super) fn number<P: Presence>(&mut self, field: &Field<Number, P>) -> Option<u32> {
        self.take_number(field.into(), field.kind)
    }

    fn take_number(&mut self, named: Named, Number { min, max }: Number) -> Option<u32> {
        let (path, node) = self.take_named(named)?;
        match node {
            JsonValue::Number(n) if n.fract() == 0.0 && *n >= f64::from(min) && *n <= f64::from(max) =>
            {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "within the range"
                )]
                Some(*n as u32)
            }
            other => {
                let expected = format!("a whole number from {min} to {max}");
                self.sink.borrow_mut().push(path, other.kind(), expected);
                None
            }
        }
    }

    /// A number with `ms`, `s`, `m` or `h`.
    pub(super) fn duration<P: Presence>(&mut self, field: &Field<Span, P>) -> Option<Duration> {
        self.take_duration(field.into(), field.kind)
    }

    fn take_duration(&mut self, named: Named, Span { min, max }: Span) -> Option<Duration> {
        let (path, node) = self.take_named(named)?;
        let found = match node {
            JsonValue::Text(text) => match duration(text) {
                Some(duration) if (min..=max).contains(&duration) => return Some(duration),
                _ => format!("`{text}`"),
            },
            other => other.kind(),
        };
        let expected =
            format!("a duration such as `250ms` or `5s`, from {} to {}", spelled(min), spelled(max));
        self.sink.borrow_mut().push(path, found, expected);
        None
    }

    pub(super) fn choice<T: Copy, P: Presence>(&mut self, field: &Field<Choice<T>, P>) -> Option<T> {
        let words = field.kind.words;
        let nth = self.take_choice(field.into(), &|nth| words.get(nth).map(|(word, _)| *word))?;
        words.get(nth).map(|(_, value)| *value)
    }

    /// The index of the member's word among those that `word` returns.
    fn take_choice(
        &mut self,
        Named { name, expected }: Named,
        word: &dyn Fn(usize) -> Option<&'static str>,
    ) -> Option<usize> {
        let mut words = (0..).map_while(word);
        let (path, found) = match self.take_named(Named { name, expected: None }) {
            Some((path, JsonValue::Text(text))) => match words.position(|word| word == text) {
                Some(nth) => return Some(nth),
                None => (path, format!("`{text}`")),
            },
            Some((path, other)) => (path, other.kind()),
            None if expected.is_some() => (join(&self.path, name), "nothing".to_owned()),
            None => return None,
        };
        self.sink.borrow_mut().push(path, found, alternatives((0..).map_while(word)));
        None
    }

    /// A list of distinct strings, none empty; an empty list is a problem.
    pub(super) fn texts<P: Presence>(&mut self, field: &Field<Texts, P>) -> Option<Vec<String>> {
        self.take_texts(field.into())
    }

    fn take_texts(&mut self, named: Named) -> Option<Vec<String>> {
        let items = self.take_list(named)?;
        Some(self.distinct(items))
    }

    fn distinct(&self, items: Vec<Member<'_>>) -> Vec<String> {
        let mut texts = Vec::with_capacity(items.len());
        for (path, node) in items {
            let Some(text) = self.as_text(path.clone(), node) else { continue };
            if texts.contains(&text) {
                self.sink.borrow_mut().push(path, format!("`{text}` twice"), "it once");
            } else {
                texts.push(text);
            }
        }
        texts
    }

    /// A list of strings under a name that once was a flag's.
    pub(super) fn texts_not_flag<P: Presence>(&mut self, field: &Field<Texts, P>) -> Option<Vec<String>> {
        match self.members.iter().find(|(name, _)| *name == field.name) {
            Some((_, JsonValue::Bool(_))) => {
                let (path, node) = self.take(field)?;
                self.sink_problem(path, &node.kind(), "a list of the header names; it is no flag any more");
                None
            }
            _ => self.texts(field),
        }
    }

    /// The items of a list of secrets.
    pub(super) fn secrets<P: Presence>(&mut self, field: &Field<Secrets, P>) -> Option<Vec<Member<'a>>> {
        self.take_list(field.into())
    }

    /// A list's items with their paths; an empty list is a problem.
    fn take_list(&mut self, named: Named) -> Option<Vec<Member<'a>>> {
        let (path, node) = self.take_named(named)?;
        self.items(path, node)
    }

    fn items<'n>(&self, path: String, node: &'n JsonValue) -> Option<Vec<Member<'n>>> {
        let (found, expected) = match node {
            JsonValue::List(items) if !items.is_empty() => {
                let items = items.iter().enumerate();
                return Some(items.map(|(nth, item)| (format!("{path}[{nth}]"), item)).collect());
            }
            JsonValue::List(_) => ("an empty list".to_owned(), "at least one item"),
            other => (other.kind(), "a list"),
        };
        self.sink_problem(path, &found, expected);
        None
    }

    /// A list's objects.
    pub(super) fn sections<P: Presence>(&mut self, field: &Field<Objects, P>) -> Option<Vec<Self>> {
        self.take_sections(field.into())
    }

    fn take_sections(&mut self, named: Named) -> Option<Vec<Self>> {
        let items = self.take_list(named)?;
        let sink = self.sink;
        Some(items.into_iter().filter_map(|(path, node)| Self::open(path, node, sink)).collect())
    }

    pub(super) fn section<P: Presence>(&mut self, field: &Field<Object, P>) -> Option<Self> {
        self.take_section(field.into())
    }

    fn take_section(&mut self, named: Named) -> Option<Self> {
        let (path, node) = self.take_named(named)?;
        Self::open(path, node, self.sink)
    }

    /// An object, or `Err` for the word `off` in its place.
    pub(super) fn section_or_off<P: Presence>(
        &mut self,
        field: &Field<ObjectOrOff, P>,
    ) -> Option<Result<Self, Off>> {
        let (path, node) = self.take_named(field.into())?;
        match node {
            JsonValue::Text(word) if word == "off" => Some(Err(Off)),
            JsonValue::Object(_) => Self::open(path, node, self.sink).map(Ok),
            other => {
                let found =
                    if let JsonValue::Text(word) = other { format!("`{word}`") } else { other.kind() };
                self.sink.borrow_mut().push(path, found, "an object or `off`");
                None
            }
        }
    }

    /// Fields that there were once: a document that has one was written for something else.
    pub(super) fn gone(&mut self, names: &[&'static str], now: &str) {
        for name in names {
            let taken = self.take_named(Named { name, expected: None });
            self.asked.pop();
            if let Some((path, _)) = taken {
                self.sink.borrow_mut().push(path, "the field, which is gone", now);
            }
        }
    }

    /// Reports every member that was not read as unknown.
    pub(super) fn finish(self) {
        for (name, _) in &self.members {
            let expected = alternatives(self.asked.iter().copied());
            self.sink.borrow_mut().push(join(&self.path, name), UNKNOWN_FIELD, expected);
        }
    }
}

fn alternatives<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let words: Vec<String> = words.map(|w| format!("`{w}`")).collect();
    match words.split_last() {
        Some((last, front)) if !front.is_empty() => format!("{} or {last}", front.join(", ")),
        Some((last, _)) => last.clone(),
        None => "nothing".to_owned(),
    }
}
