//! Stamps of subjects about whom an event said that what is known is over.
//!
//! A subject's digest chooses one of 64 stamps on one of 64 pages. A fact about it counts only if
//! its callout was started at the stamp or later; two subjects with one stamp end each other's
//! facts, which costs a question each. When each page was written last stands in a slot of its own,
//! so that a worker reads one slot to know that nothing has happened. It is a time and no count:
//! where somebody puts an older value back, the next write makes none that was seen before.
//!
//! ```text
//! page       = version stamp[8]… seal[16]
//! generation = version written[8]… seal[16]
//! ```

use super::{Place, Sealer, VERSION, timestamp};
use crate::hash::FactKey;
use crate::time::Timestamp;
use std::sync::Arc;

/// Where subjects' stamps are. The index is keyed by a secret, so that nobody can find a subject
/// that shares another one's stamp.
#[derive(Clone, Debug)]
pub(crate) struct Subjects {
    sealer: Arc<Sealer>,
}

/// A subject's stamp among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubjectSlot(u16);

/// The stamps of a page.
pub(crate) type Page = [Timestamp; STAMPS];

/// When each page was written last, in nanoseconds; later for each write.
pub(crate) type Generation = [u64; PAGES];

impl Subjects {
    /// Keyed by what keys an endpoint's places.
    pub(crate) fn new(sealer: Arc<Sealer>) -> Self {
        Self { sealer }
    }

    /// What tells these stamps from those of another key.
    pub(crate) fn name(&self) -> u32 {
        self.sealer.name
    }

    /// Where the stamp of this subject is.
    pub(crate) fn slot(&self, subject: &str) -> SubjectSlot {
        let digest = FactKey::of(self.sealer.digests, [&b"subject"[..], subject.as_bytes()]);
        let place = digest.place_among(STAMPS.saturating_mul(PAGES));
        SubjectSlot(u16::try_from(place).unwrap_or_default())
    }

    /// The name of a page's slot.
    pub(crate) fn page_name(&self, page: usize) -> String {
        format!("avnology_gate/2/evicted/{:08x}/{page}", self.sealer.name)
    }

    /// The name of the generation's slot.
    pub(crate) fn generation_name(&self) -> String {
        format!("avnology_gate/2/evicted/{:08x}", self.sealer.name)
    }

    /// The stamps of a page. One that cannot be read may have held any stamp until now.
    pub(crate) fn read_page(&self, page: usize, bytes: Option<&[u8]>, now: Timestamp) -> Page {
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { return EMPTY };
        let value = self.open(page_place(page), bytes);
        let stamps = value.and_then(|value| <&[[u8; 8]; STAMPS]>::try_from(value.as_chunks().0).ok());
        stamps.map_or([now; STAMPS], |stamps| stamps.map(|stamp| timestamp(&stamp)))
    }

    /// The page with this stamp raised; `None` where it is as late already.
    pub(crate) fn write_page(
        &self,
        slot: SubjectSlot,
        bytes: Option<&[u8]>,
        stamp: Timestamp,
        now: Timestamp,
    ) -> Option<Vec<u8>> {
        let page = slot.page();
        let mut stamps = self.read_page(page, bytes, now);
        let own = stamps.get_mut(slot.stamp()).filter(|own| **own < stamp)?;
        *own = stamp;
        let mut value = vec![VERSION];
        value.extend(stamps.iter().flat_map(|stamp| stamp.as_nanos().to_le_bytes()));
        Some(self.sealer.seal(page_place(page), value))
    }

    /// When each page was written last; `None` where that cannot be read.
    pub(crate) fn read_generation(&self, bytes: Option<&[u8]>) -> Option<Generation> {
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { return Some([0; PAGES]) };
        let value = self.open(Place::Generation, bytes)?;
        let written = <&[[u8; 8]; PAGES]>::try_from(value.as_chunks().0).ok()?;
        Some(written.map(u64::from_le_bytes))
    }

    /// The generation after a page was written.
    pub(crate) fn write_generation(&self, page: usize, bytes: Option<&[u8]>, now: Timestamp) -> Vec<u8> {
        // Where it could not be read, every page counts as written.
        let mut written = self.read_generation(bytes).unwrap_or([now.as_nanos(); PAGES]);
        if let Some(written) = written.get_mut(page) {
            *written = now.as_nanos().max(written.wrapping_add(1));
        }
        self.seal_generation(written)
    }

    /// A generation in the place of one that cannot be read: every page may have been written.
    /// `None` where it can be read.
    pub(crate) fn mend_generation(&self, bytes: Option<&[u8]>, now: Timestamp) -> Option<Vec<u8>> {
        let is_readable = self.read_generation(bytes).is_some();
        (!is_readable).then(|| self.seal_generation([now.as_nanos(); PAGES]))
    }

    fn seal_generation(&self, written: Generation) -> Vec<u8> {
        let mut value = vec![VERSION];
        value.extend(written.iter().flat_map(|written| written.to_le_bytes()));
        self.sealer.seal(Place::Generation, value)
    }

    fn open<'b>(&self, place: Place, bytes: &'b [u8]) -> Option<&'b [u8]> {
        // Nothing of ours is longer.
        let bytes = Some(bytes).filter(|bytes| bytes.len() <= MAX_VALUE)?;
        let (version, value) = self.sealer.open(place, bytes)?.split_first()?;
        (*version == VERSION).then_some(value)
    }
}

impl SubjectSlot {
    /// Its page.
    pub(crate) fn page(self) -> usize {
        usize::from(self.0).checked_div(STAMPS).unwrap_or_default()
    }

    /// Where it is on its page.
    pub(crate) fn stamp(self) -> usize {
        usize::from(self.0).checked_rem(STAMPS).unwrap_or_default()
    }
}

fn page_place(page: usize) -> Place {
    Place::Page(u32::try_from(page).unwrap_or(u32::MAX))
}

/// How many pages there are.
pub(crate) const PAGES: usize = 64;

/// How many stamps a page has.
pub(crate) const STAMPS: usize = 64;

/// No event ever came.
const NEVER: Timestamp = Timestamp::from_nanos(0);

/// A page without stamps.
pub(crate) const EMPTY: Page = [NEVER; STAMPS];

/// The longest value: a page with what is around it.
const MAX_VALUE: usize = STAMPS * 8 + 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Fingerprint;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn subjects(secret: &str) -> Subjects {
        Subjects::new(Arc::new(Sealer::new(secret.as_bytes(), Fingerprint::of(&["cluster"]))))
    }

    #[test]
    fn a_stamp_is_raised_and_never_lowered() {
        let subjects = subjects("s");
        let slot = subjects.slot("usr_1");
        let (page, stamp) = (slot.page(), slot.stamp());
        assert_eq!(subjects.read_page(page, None, at(9)), [NEVER; STAMPS]);
        let first = subjects.write_page(slot, None, at(5), at(9)).unwrap();
        let mut expected = [NEVER; STAMPS];
        expected[stamp] = at(5);
        assert_eq!(subjects.read_page(page, Some(&first), at(9)), expected);
        assert_eq!(subjects.write_page(slot, Some(&first), at(5), at(9)), None);
        assert_eq!(subjects.write_page(slot, Some(&first), at(4), at(9)), None);
        let second = subjects.write_page(slot, Some(&first), at(6), at(9)).unwrap();
        expected[stamp] = at(6);
        assert_eq!(subjects.read_page(page, Some(&second), at(9)), expected);
    }

    #[test]
    fn a_page_that_cannot_be_read_may_have_held_any_stamp() {
        let (own, others) = (subjects("s"), subjects("x"));
        let slot = own.slot("usr_1");
        let good = own.write_page(slot, None, at(5), at(9)).unwrap();
        let foreign = others.write_page(slot, None, at(5), at(9)).unwrap();
        let elsewhere = own.write_page(SubjectSlot(slot.0 ^ 64), None, at(5), at(9)).unwrap();
        for unreadable in [&good[1..], &good[..good.len() - 1], &foreign, &elsewhere, b"x", &vec![0; 4096]] {
            assert_eq!(own.read_page(slot.page(), Some(unreadable), at(9)), [at(9); STAMPS]);
        }
        assert_eq!(own.read_generation(Some(&good)), None);
    }

    #[test]
    fn every_write_of_a_page_makes_another_generation_also_after_an_older_one_was_put_back() {
        let subjects = subjects("s");
        assert_eq!(subjects.read_generation(None), Some([0; PAGES]));
        let first = subjects.write_generation(3, None, at(5));
        let second = subjects.write_generation(63, Some(&first), at(5));
        let mut expected = [0; PAGES];
        (expected[3], expected[63]) = (at(5).as_nanos(), at(5).as_nanos());
        assert_eq!(subjects.read_generation(Some(&second)), Some(expected));
        let read = |bytes: &[u8]| subjects.read_generation(Some(bytes)).unwrap()[3];
        let third = subjects.write_generation(3, Some(&second), at(5));
        let after_put_back = subjects.write_generation(3, Some(&first), at(6));
        let set_back = subjects.write_generation(3, Some(&third), at(1));
        let seen = [&first, &third, &after_put_back, &set_back].map(|bytes| read(bytes));
        let distinct: std::collections::BTreeSet<u64> = seen.into_iter().collect();
        assert_eq!(distinct.len(), seen.len());
        assert_eq!(subjects.mend_generation(Some(&second), at(9)), None);
        for mended in [
            subjects.write_generation(3, Some(b"junk"), at(9)),
            subjects.mend_generation(Some(b"junk"), at(9)).unwrap(),
        ] {
            let written = subjects.read_generation(Some(&mended)).unwrap();
            assert!(written.iter().all(|at| *at > 0), "every page may have been written: {written:?}");
        }
    }

    #[test]
    fn subjects_are_spread_over_all_stamps_by_the_secret() {
        let (one, other) = (subjects("s"), subjects("x"));
        let slots =
            |subjects: &Subjects| (0..2000).map(|n| subjects.slot(&format!("usr_{n}")).0).collect::<Vec<_>>();
        let (one, other) = (slots(&one), slots(&other));
        assert_ne!(one, other);
        let distinct: std::collections::BTreeSet<_> = one.iter().collect();
        assert!(distinct.len() > 1500 && one.iter().all(|slot| usize::from(*slot) < PAGES * STAMPS));
    }
}
