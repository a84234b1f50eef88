//! `events`.

use crate::config::compile::Compiler;
use crate::config::fields::webhook::events as fields;
use crate::config::raw;
use crate::webhook::Format;
use crate::webhook::event::{Events, Glob, Place};

impl Compiler<'_> {
    pub(super) fn events(&mut self, raw: &raw::Events, format: &Format) -> Events {
        let mut events = Events::of(&format.events);
        if let Some(kind) = &raw.kind {
            events.kind = self.places(&raw.at, "type", kind);
            events.is_exclusive = false;
        }
        if events.kind.is_empty() && raw.kind.is_none() {
            let expected = "where the type stands: this format has no place of its own for it";
            self.problems.push(format!("{}.type", raw.at), "nothing", expected);
        }
        if let Some(id) = &raw.id {
            events.id = self.places(&raw.at, "id", id);
            for place in &events.id {
                if let Place::Header(name) = place
                    && !format.signs_header(name)
                {
                    let expected = "a pointer, or a header that the signature covers: anybody could set it";
                    self.problems.push(format!("{}.id", raw.at), format!("`{name}`"), expected);
                }
            }
        }
        events.allow = raw.allow.as_ref().map(|globs| self.globs(&raw.at, "allow", globs));
        events.deny = raw.deny.as_ref().map(|globs| self.globs(&raw.at, "deny", globs)).unwrap_or_default();
        if fields::CHALLENGE.of(raw.challenge) {
            events.answer_challenges();
            if !format.events.challenge {
                let expected = "no `challenge` here: only `slack` asks an endpoint for one";
                self.problems.push(format!("{}.challenge", raw.at), "`true`", expected);
            }
        }
        events
    }

    fn places(&mut self, at: &str, field: &str, texts: &[String]) -> Vec<Place> {
        let mut places = Vec::with_capacity(texts.len());
        for text in texts {
            let at = format!("{at}.{field}");
            match Place::parse(text) {
                Some(Place::Header(name)) => places.extend(self.header_name(&at, &name).map(Place::Header)),
                Some(place) => places.push(place),
                None => self.problems.push(
                    at,
                    format!("`{text}`"),
                    "a JSON Pointer, with `~0` for a `~` and `~1` for a `/` in a name, or a header's name",
                ),
            }
        }
        places
    }

    fn globs(&mut self, at: &str, field: &str, texts: &[String]) -> Vec<Glob> {
        let mut globs = Vec::with_capacity(texts.len());
        for (nth, text) in texts.iter().enumerate() {
            match Glob::parse(text) {
                Some(glob) => globs.push(glob),
                None => self.problems.push(
                    format!("{at}.{field}[{nth}]"),
                    format!("`{text}`"),
                    "a type in visible ASCII, with `*` for any characters",
                ),
            }
        }
        globs
    }
}
