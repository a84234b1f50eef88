//! Identity headers as they were rendered last, for the tokens that are used most: their values are
//! a fact's texts once more, so only so many are kept.

use crate::hash::FactKey;
use crate::http::Header;
use crate::time::Timestamp;
use std::rc::Rc;

/// A fixed number of renderings, each in the one place that its key says.
#[derive(Clone, Debug, Default)]
pub(super) struct HeaderCache {
    places: Vec<Option<Rendered>>,
}

#[derive(Clone, Debug)]
struct Rendered {
    key: FactKey,
    started: Timestamp,
    policy: u32,
    headers: Rc<[Header]>,
}

impl HeaderCache {
    /// What this policy made of this fact.
    pub(super) fn get(&self, key: FactKey, started: Timestamp, policy: u32) -> Option<Rc<[Header]>> {
        let rendering = self.places.get(key.place_among(PLACES))?.as_ref()?;
        let is_it = rendering.key == key && rendering.started == started && rendering.policy == policy;
        is_it.then(|| Rc::clone(&rendering.headers))
    }

    /// Keeps what this policy made of this fact.
    pub(super) fn put(&mut self, key: FactKey, started: Timestamp, policy: u32, headers: Rc<[Header]>) {
        if self.places.is_empty() {
            self.places.resize(PLACES, None);
        }
        let len =
            headers.iter().fold(0_usize, |sum, (n, v)| sum.saturating_add(n.len()).saturating_add(v.len()));
        if let Some(place) = self.places.get_mut(key.place_among(PLACES)).filter(|_| len <= MAX_BYTES) {
            *place = Some(Rendered { key, started, policy, headers });
        }
    }
}

const PLACES: usize = 4096;

/// Names and values of one rendering.
const MAX_BYTES: usize = 4096;
