//! Declarations as data, for the tables and other descriptions of the configuration.

use super::document::HeaderScheme;
use super::{
    Choice, Field, Flag, FlagOrTextsMap, Number, ObjectMap, ObjectOrOff, Objects, OneOrMore, Optional, Or,
    Required, RequiredLater, Secret, Secrets, Span, Text, TextMap, Texts, TextsMap,
};
pub(super) use crate::config::duration::spelled;
use std::time::Duration;

/// One field.
#[derive(Clone, Debug)]
pub struct Declared {
    /// Its name.
    pub name: &'static str,
    /// Its type and range.
    pub kind: Type,
    /// What applies if it is not set.
    pub absent: Absent,
    /// A sentence, in Markdown.
    pub meaning: &'static str,
}

/// The type and range of a field.
#[derive(Clone, Debug)]
pub enum Type {
    /// A string.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number within a range.
    Number {
        /// The least.
        min: u32,
        /// The greatest.
        max: u32,
    },
    /// A number with a unit of time, within a range.
    Duration {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// One of these words.
    Words(Vec<&'static str>),
    /// A list of strings.
    Texts,
    /// A string or a list of them.
    OneOrMore,
    /// An object of strings whose names are the user's.
    TextMap,
    /// An object whose names are the user's, each with a string or a list of them.
    TextsMap,
    /// `true`, `false`, or such an object.
    FlagOrTextsMap,
    /// An environment variable or a string.
    Secret,
    /// A list of secrets.
    Secrets,
    /// An object.
    Object(Object),
    /// An object or `off`.
    ObjectOrOff(Object),
    /// A list of objects.
    Objects(Object),
    /// An object of objects, whose names are the user's.
    ObjectMap(Object),
}

/// What applies if a field is not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The document is refused.
    Refused,
    /// There is no default value; this describes what applies.
    Otherwise(&'static str),
    /// This default, written as JSON.
    Default(String),
}

/// An object's fields.
#[derive(Clone, Debug)]
pub struct Object {
    /// Where they are documented.
    pub place: Place,
    /// Its own fields.
    pub fields: Vec<Declared>,
    /// Another object whose fields it also has.
    pub like: Option<Box<Object>>,
}

/// Where an object's fields are documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the table of this name.
    Table(&'static str),
    /// In the table of the enclosing object.
    Around,
    /// In the table of this name, which has more fields than these.
    PartOf(&'static str),
}

impl Declared {
    /// The fields of the objects that it contains, if any.
    pub fn object(&self) -> Option<&Object> {
        match &self.kind {
            Type::Object(object)
            | Type::ObjectOrOff(object)
            | Type::Objects(object)
            | Type::ObjectMap(object) => Some(object),
            _ => None,
        }
    }
}

impl Object {
    /// All its fields.
    pub fn all(&self) -> impl Iterator<Item = &Declared> {
        self.fields.iter().chain(self.like.iter().flat_map(|like| &like.fields))
    }
}

/// Describes a field that contains no object.
pub(super) fn field<K: Plain, P: Told<K>>(field: &Field<K, P>) -> Declared {
    describe(field, field.kind.describe())
}

/// Describes a field that contains this object, or several of this kind.
pub(super) fn holding<K: Holder, P: Told<K>>(field: &Field<K, P>, object: Object) -> Declared {
    describe(field, K::holding(object))
}

fn describe<K, P: Told<K>>(field: &Field<K, P>, kind: Type) -> Declared {
    Declared { name: field.name, kind, absent: field.presence.told(&field.kind), meaning: field.meaning }
}

/// A type without fields.
pub(super) trait Plain {
    fn describe(&self) -> Type;
}

/// A type with fields.
pub(super) trait Holder {
    fn holding(object: Object) -> Type;
}

/// What applies if a field of type `K` is not set.
pub(super) trait Told<K> {
    fn told(&self, kind: &K) -> Absent;
}

/// A type that has defaults of this kind.
pub(super) trait Writes<V> {
    /// The value in JSON.
    fn json(&self, value: V) -> String;
}

impl<K> Told<K> for Required {
    fn told(&self, _: &K) -> Absent {
        Absent::Refused
    }
}

impl<K> Told<K> for RequiredLater {
    fn told(&self, _: &K) -> Absent {
        Absent::Refused
    }
}

impl<K> Told<K> for Optional {
    fn told(&self, _: &K) -> Absent {
        Absent::Otherwise(self.otherwise)
    }
}

impl<V: Copy, K: Writes<V>> Told<K> for Or<V> {
    fn told(&self, kind: &K) -> Absent {
        Absent::Default(kind.json(self.0))
    }
}

impl Plain for Text {
    fn describe(&self) -> Type {
        Type::Text
    }
}

impl Plain for Flag {
    fn describe(&self) -> Type {
        Type::Flag
    }
}

impl Plain for Number {
    fn describe(&self) -> Type {
        Type::Number { min: self.min, max: self.max }
    }
}

impl Plain for Span {
    fn describe(&self) -> Type {
        Type::Duration { min: self.min, max: self.max }
    }
}

impl<T> Plain for Choice<T> {
    fn describe(&self) -> Type {
        Type::Words(self.words.iter().map(|(word, _)| *word).collect())
    }
}

impl Plain for Texts {
    fn describe(&self) -> Type {
        Type::Texts
    }
}

impl Plain for OneOrMore {
    fn describe(&self) -> Type {
        Type::OneOrMore
    }
}

impl Plain for TextMap {
    fn describe(&self) -> Type {
        Type::TextMap
    }
}

impl Plain for TextsMap {
    fn describe(&self) -> Type {
        Type::TextsMap
    }
}

impl Plain for FlagOrTextsMap {
    fn describe(&self) -> Type {
        Type::FlagOrTextsMap
    }
}

impl Writes<bool> for FlagOrTextsMap {
    fn json(&self, value: bool) -> String {
        value.to_string()
    }
}

impl Plain for Secret {
    fn describe(&self) -> Type {
        Type::Secret
    }
}

impl Plain for Secrets {
    fn describe(&self) -> Type {
        Type::Secrets
    }
}

impl Holder for super::Object {
    fn holding(object: Object) -> Type {
        Type::Object(object)
    }
}

impl Holder for ObjectOrOff {
    fn holding(object: Object) -> Type {
        Type::ObjectOrOff(object)
    }
}

impl Holder for Objects {
    fn holding(object: Object) -> Type {
        Type::Objects(object)
    }
}

impl Holder for ObjectMap {
    fn holding(object: Object) -> Type {
        Type::ObjectMap(object)
    }
}

impl Writes<&str> for Text {
    fn json(&self, value: &str) -> String {
        quoted(value)
    }
}

impl Writes<bool> for Flag {
    fn json(&self, value: bool) -> String {
        value.to_string()
    }
}

impl Writes<u32> for Number {
    fn json(&self, value: u32) -> String {
        value.to_string()
    }
}

impl Writes<Duration> for Span {
    fn json(&self, value: Duration) -> String {
        quoted(&spelled(value))
    }
}

impl<T: Copy + PartialEq> Writes<T> for Choice<T> {
    fn json(&self, value: T) -> String {
        let word = self.words.iter().find(|(_, meant)| *meant == value);
        quoted(word.map_or("", |(word, _)| *word))
    }
}

impl Writes<&[&str]> for Texts {
    fn json(&self, value: &[&str]) -> String {
        let items: Vec<String> = value.iter().map(|text| quoted(text)).collect();
        format!("[{}]", items.join(", "))
    }
}

impl Writes<&[(&str, &str)]> for TextMap {
    fn json(&self, value: &[(&str, &str)]) -> String {
        let members: Vec<String> =
            value.iter().map(|(name, text)| format!("{}: {}", quoted(name), quoted(text))).collect();
        format!("{{{}}}", members.join(", "))
    }
}

impl Writes<HeaderScheme> for Objects {
    fn json(&self, value: HeaderScheme) -> String {
        format!("[{}]", TextMap.json(&[("header", value.header), ("scheme", value.scheme)]))
    }
}

/// Quotes a default: none contains a character that JSON escapes.
fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}
