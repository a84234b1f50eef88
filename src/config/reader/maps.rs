//! Objects whose names are the user's, and what stands for one value or several.

use super::{Member, Named, Section, join};
use crate::config::fields::{Field, FlagOrTextsMap, ObjectMap, OneOrMore, Presence, TextMap, TextsMap};
use crate::config::json::JsonValue;

/// Lists of strings, by the user's names.
pub(in crate::config) type TextsByName = Vec<(String, Vec<String>)>;

impl<'a> Section<'a> {
    /// An object of objects whose names are the user's, none of them opened yet.
    pub(in crate::config) fn map<P: Presence>(
        &mut self,
        field: &Field<ObjectMap, P>,
    ) -> Option<Vec<(String, Member<'a>)>> {
        self.take_map(field.into())
    }

    /// An object of strings whose names are the user's.
    pub(in crate::config) fn text_map<P: Presence>(
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
    pub(in crate::config) fn texts_map<P: Presence>(
        &mut self,
        field: &Field<TextsMap, P>,
    ) -> Option<TextsByName> {
        let members = self.take_map(field.into())?.into_iter();
        Some(members.filter_map(|(n, (path, node))| Some((n, self.one_or_more_at(path, node)?))).collect())
    }

    /// Such an object, or `Err` for a flag in its place.
    pub(in crate::config) fn flag_or_texts_map<P: Presence>(
        &mut self,
        field: &Field<FlagOrTextsMap, P>,
    ) -> Option<Result<TextsByName, bool>> {
        let (path, node) = self.take_named(field.into())?;
        match node {
            JsonValue::Bool(flag) => Some(Err(*flag)),
            JsonValue::Object(_) => {
                let Self { path, members, .. } = Self::open(path, node, self.sink)?;
                let read =
                    |(n, node): (&str, _)| Some((n.to_owned(), self.one_or_more_at(join(&path, n), node)?));
                Some(Ok(members.into_iter().filter_map(read).collect()))
            }
            other => {
                self.sink_problem(path, &other.kind(), "`true`, `false` or an object");
                None
            }
        }
    }

    /// A string, or a list of distinct ones.
    pub(in crate::config) fn one_or_more<P: Presence>(
        &mut self,
        field: &Field<OneOrMore, P>,
    ) -> Option<Vec<String>> {
        let (path, node) = self.take_named(field.into())?;
        self.one_or_more_at(path, node)
    }

    fn one_or_more_at(&self, path: String, node: &JsonValue) -> Option<Vec<String>> {
        match node {
            JsonValue::List(_) => Some(self.distinct(self.items(path, node)?)),
            node => Some(vec![self.as_text(path, node)?]),
        }
    }

    /// The members of an object whose names are the user's.
    fn take_map(&mut self, named: Named) -> Option<Vec<(String, Member<'a>)>> {
        let Self { path, members, .. } = self.take_section(named)?;
        Some(members.into_iter().map(|(n, node)| (n.to_owned(), (join(&path, n), node))).collect())
    }
}
