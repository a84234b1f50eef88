//! Reads a JSON document member by member, and continues after a problem, so that all problems are
//! reported together.

use super::error::Problems;
use super::fields::{
    Choice, Field, Flag, Number, Object, ObjectMap, Objects, Presence, Secrets, Span, Text, TextMap, Texts,
    TextsMap,
};
use super::json::JsonValue;
use std::cell::RefCell;
use std::time::Duration;

/// Where problems are collected.
pub(super) type Sink = RefCell<Problems>;

/// A value with its path.
pub(super) type Member<'a> = (String, &'a JsonValue);

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
        match node {
            JsonValue::Text(text) if !text.is_empty() => Some(text.clone()),
            JsonValue::Text(_) => {
                self.sink.borrow_mut().push(path, "an empty string", "a string that is not empty");
                None
            }
            other => {
                self.sink.borrow_mut().push(path, other.kind(), "a string");
                None
            }
        }
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
        let expected = format!("a duration such as `250ms` or `5s`, from {min:?} to {max:?}");
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
        match node {
            JsonValue::List(items) if !items.is_empty() => {
                Some(items.iter().enumerate().map(|(nth, item)| (format!("{path}[{nth}]"), item)).collect())
            }
            JsonValue::List(_) => {
                self.sink.borrow_mut().push(path, "an empty list", "at least one item");
                None
            }
            other => {
                self.sink.borrow_mut().push(path, other.kind(), "a list");
                None
            }
        }
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

    /// An object of objects whose names are the user's, none of them opened yet.
    pub(super) fn map<P: Presence>(
        &mut self,
        field: &Field<ObjectMap, P>,
    ) -> Option<Vec<(String, Member<'a>)>> {
        self.take_map(field.into())
    }

    /// An object of strings whose names are the user's.
    pub(super) fn text_map<P: Presence>(
        &mut self,
        field: &Field<TextMap, P>,
    ) -> Option<Vec<(String, String)>> {
        self.take_text_map(field.into())
    }

    fn take_text_map(&mut self, named: Named) -> Option<Vec<(String, String)>> {
        let members = self.take_map(named)?.into_iter();
        Some(members.filter_map(|(n, (path, node))| Some((n, self.as_text(path, node)?))).collect())
    }

    /// An object whose names are the user's, each with a string or a list of them.
    pub(super) fn texts_map<P: Presence>(
        &mut self,
        field: &Field<TextsMap, P>,
    ) -> Option<Vec<(String, Vec<String>)>> {
        self.take_texts_map(field.into())
    }

    fn take_texts_map(&mut self, named: Named) -> Option<Vec<(String, Vec<String>)>> {
        let members = self.take_map(named)?.into_iter();
        let texts = |path: String, node: &JsonValue| match node {
            JsonValue::List(_) => Some(self.distinct(self.items(path, node)?)),
            node => Some(vec![self.as_text(path, node)?]),
        };
        Some(members.filter_map(|(n, (path, node))| Some((n, texts(path, node)?))).collect())
    }

    /// The members of an object whose names are the user's.
    fn take_map(&mut self, named: Named) -> Option<Vec<(String, Member<'a>)>> {
        let Self { path, members, .. } = self.take_section(named)?;
        Some(members.into_iter().map(|(n, node)| (n.to_owned(), (join(&path, n), node))).collect())
    }

    /// Fields that are not implemented yet: they are never accepted and ignored, and never offered
    /// as alternatives to an unknown name.
    pub(super) fn not_built(&mut self, names: &[&'static str]) {
        for name in names {
            let taken = self.take_named(Named { name, expected: None });
            self.asked.pop();
            if let Some((path, _)) = taken {
                let expected = format!("no `{name}`: it is not supported yet");
                self.sink.borrow_mut().push(path, "the field", expected);
            }
        }
    }

    /// Reports every member that was not read as unknown.
    pub(super) fn finish(self) {
        for (name, _) in &self.members {
            let expected = alternatives(self.asked.iter().copied());
            self.sink.borrow_mut().push(join(&self.path, name), "an unknown field", expected);
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

fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit: u64 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = match number.split_once('.') {
        Some((_, "")) => return None,
        Some((whole, fraction)) => (whole, nanoseconds(fraction, unit)?),
        None => (number, 0),
    };
    let nanos = whole.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(fraction)?;
    Some(Duration::from_nanos(nanos))
}

/// The value of the digits after the decimal point of a unit, to the nearest nanosecond.
fn nanoseconds(fraction: &str, unit: u64) -> Option<u64> {
    // Picoseconds, so that no digit is lost to rounding. The longest unit leaves room for ten times
    // as many.
    let unit = unit.checked_mul(1000)?;
    let mut picos: u64 = 0;
    for byte in fraction.bytes().rev() {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        picos = unit.checked_mul(digit.into())?.checked_add(picos)? / 10;
    }
    Some(picos.checked_add(500)? / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        let cases = [
            ("250ms", Some(Duration::from_millis(250))),
            ("1s", Some(Duration::from_secs(1))),
            ("1.5s", Some(Duration::from_millis(1500))),
            ("2m", Some(Duration::from_secs(120))),
            ("1h", Some(Duration::from_secs(3600))),
            ("0s", Some(Duration::ZERO)),
            ("0.5s", Some(Duration::from_millis(500))),
            ("1.5m", Some(Duration::from_secs(90))),
            ("0.5ms", Some(Duration::from_micros(500))),
            ("0.1h", Some(Duration::from_secs(360))),
            ("0.000000001s", Some(Duration::from_nanos(1))),
            ("59.9999999999s", Some(Duration::from_secs(60))),
            ("60.0000000009s", Some(Duration::from_nanos(60_000_000_001))),
            ("0.00000000000000000000000000001h", Some(Duration::ZERO)),
            ("0000000000000000000000000000001s", Some(Duration::from_secs(1))),
            ("18446744073s", Some(Duration::from_secs(18_446_744_073))),
            ("18446744074s", None),
            ("18446744073709551616ms", None),
            ("99999999999999999999h", None),
            ("1", None),
            ("s", None),
            ("-1s", None),
            ("1 s", None),
            ("1d", None),
            (".5s", None),
            ("1.s", None),
            ("1.2.3s", None),
            ("1..2s", None),
            (".s", None),
            ("+1s", None),
            ("1.+5s", None),
            ("1_0s", None),
            ("\u{661}s", None),
            ("1e3s", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    /// The same text read with floating point, as it once was.
    fn in_floating_point(text: &str) -> Option<Duration> {
        let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, unit) = text.split_at(digits);
        let scale = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let number = Some(number).filter(|n| !n.starts_with('.') && !n.ends_with('.'))?;
        Duration::try_from_secs_f64(number.parse::<f64>().ok()? * scale).ok()
    }

    proptest! {
        #[test]
        fn every_spelling_is_taken_or_refused_as_floating_point_did(
            text in "[0-9]{0,6}(\\.[0-9.]{0,20})?(ms|s|m|h|d|)"
        ) {
            let (now, once) = (duration(&text), in_floating_point(&text));
            prop_assert_eq!(now.is_some(), once.is_some());
            // A day is exact to less than a microsecond in floating point.
            let apart = now.unwrap_or_default().abs_diff(once.unwrap_or_default());
            prop_assert!(apart < Duration::from_micros(1), "{:?} {:?}", now, once);
        }

        #[test]
        fn no_text_is_too_much_for_a_duration(text in "[0-9.]{0,400}(ms|s|m|h)") {
            let _ = duration(&text);
        }
    }
}
