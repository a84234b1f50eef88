//! `replay`.

use crate::config::compile::Compiler;
use crate::config::fields::webhook::replay as fields;
use crate::config::raw;
use crate::secret::Secret;
use crate::webhook::Format;
use crate::webhook::event::Events;
use crate::webhook::replay::{Replay, ReplayBy};
use std::time::Duration;

impl Compiler<'_> {
    /// `tolerance`: `None` where the format is not known, and nothing is said about it.
    pub(super) fn replay(
        &mut self,
        raw: &raw::Replay,
        (name, secrets): (&str, &[Secret<Vec<u8>>]),
        (format, tolerance): (&Format, Option<Duration>),
        events: &mut Option<Events>,
    ) -> Replay {
        let by = fields::BY.of(raw.by);
        let signed_within = tolerance.filter(|_| format.signs_time());
        match by {
            ReplayBy::Content if tolerance.is_some() && !format.signs_time() => self.problems.push(
                format!("{}.by", raw.at),
                "`content`",
                "`id`: no time is signed here, so the sender sends the same bytes anew",
            ),
            ReplayBy::Content => {}
            ReplayBy::Id => {
                // Where nothing else reads events, their type is not needed.
                let no_kind = || Events { kind: Vec::new(), ..Events::of(&format.events) };
                let events = events.get_or_insert_with(no_kind);
                events.needs_id = true;
                if tolerance.is_some() && events.id.is_empty() && !format.signs_id() {
                    let expected = "`events.id` that says where it stands: this format signs none";
                    self.problems.push(format!("{}.by", raw.at), "`id`", expected);
                }
            }
        }
        let least = signed_within.map(|tolerance| tolerance.saturating_mul(2));
        let window = raw.window.or(least).unwrap_or(WINDOW);
        if let Some(least) = least.filter(|least| window < *least) {
            self.problems.push(
                format!("{}.window", raw.at),
                format!("{}s", window.as_secs()),
                format!("at least {}s, twice the `tolerance`", least.as_secs()),
            );
        }
        let status = fields::STATUS.of(raw.status);
        if (300..400).contains(&status) {
            self.problems.push(format!("{}.status", raw.at), format!("`{status}`"), "2xx or 4xx");
        }
        let status = u16::try_from(status).unwrap_or(409);
        Replay::new(name, secrets, fields::SLOTS.of(raw.slots), (by, window, status))
    }
}

/// How long a delivery without a signed time is remembered.
const WINDOW: Duration = Duration::from_secs(600);
