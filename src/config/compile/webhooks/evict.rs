//! `evict`.

use crate::config::compile::Compiler;
use crate::config::raw;
use crate::webhook::Format;
use crate::webhook::event::{Events, Place};
use crate::webhook::evict::{DEFAULT, Evict};

impl Compiler<'_> {
    pub(super) fn evict(
        &mut self,
        raw: &raw::Webhook,
        format: &Format,
        events: &mut Option<Events>,
    ) -> Option<Evict> {
        let at = format!("{}.evict", raw.at);
        let rules = match raw.evict.as_ref()? {
            Err(false) => return None,
            Err(true) => Evict::new(DEFAULT.iter().map(|(kind, at)| (*kind, at.to_vec()))),
            Ok(rules) => Evict::new(
                rules.iter().map(|(kind, at)| (kind.as_str(), at.iter().map(String::as_str).collect())),
            ),
        };
        let Ok(evict) = rules.map_err(|text| {
            let expected =
                "a type in visible ASCII with `*` for any characters, and JSON Pointers to the subjects";
            self.problems.push(&at, format!("`{text}`"), expected);
        }) else {
            return None;
        };
        if raw.replay.is_none() {
            let expected =
                "`replay` beside it: whoever sends an old event again would end cached answers again";
            self.problems.push(&at, "no `replay`", expected);
        }
        if raw.format.is_some() && !format.signs_time() {
            let found = "a format without a signed time";
            self.problems.push(&at, found, "one with it: an old event could come again at any time");
        }
        if matches!(&raw.evict, Some(Ok(rules)) if rules.is_empty()) {
            self.problems.push(&at, "no rule", "a type with pointers to its subjects, or `true`");
        }
        let events = events.get_or_insert_with(|| Events::of(&format.events));
        if events.kind.is_empty() {
            // By its id alone it was to be known again; now its type counts too.
            events.kind = Events::of(&format.events).kind;
        }
        let is_signed = |place: &Place| matches!(place, Place::Body(_));
        if events.kind.is_empty() || !events.kind.iter().all(is_signed) {
            let expected = "`events.type` in the signed body: anybody could set a header";
            self.problems.push(&at, "a type that is not signed", expected);
        }
        Some(evict)
    }
}
