//! Stamps of subjects: what is known about one counts only if it was asked for at its stamp or
//! later.
//!
//! The stamps themselves are in what the workers share. Here is this worker's copy, which its tick
//! brings up to date; the worker that verifies an event has it at once.

use super::store::{SharedStore, Write, write};
use crate::cache::shared::{EMPTY, Generation, PAGES, Page, STAMPS, SubjectSlot, Subjects};
use crate::hash::TrustedKeyHasher;
use crate::refusal::Unusable;
use crate::time::Timestamp;
use std::collections::HashMap;
use std::time::Duration;

/// The stamps of each key, as far as some root wants them.
#[derive(Clone, Debug, Default)]
pub(super) struct Evictions {
    boards: HashMap<u32, Board, TrustedKeyHasher>,
}

#[derive(Clone, Debug, Default)]
struct Board {
    /// As it was read last.
    generation: Option<Generation>,
    /// The pages that have a stamp.
    pages: HashMap<usize, Box<Page>, TrustedKeyHasher>,
}

impl Evictions {
    /// Brings the stamps of a key up to date.
    pub(super) fn read(&mut self, subjects: &Subjects, store: &dyn SharedStore, now: Timestamp) {
        let board = self.board(subjects, now);
        let bytes = store.get(&subjects.generation_name());
        let generation = subjects.read_generation(bytes.as_ref().map(|(bytes, _)| bytes.as_slice()));
        if generation.is_some() && generation == board.generation {
            return;
        }
        for page in 0..PAGES {
            let of_page = |generation: &Option<Generation>| generation.as_ref()?.get(page).copied();
            let (last, times) = (of_page(&board.generation), of_page(&generation));
            // One that was never written has no stamps.
            if times.is_some() && times == last.or(Some(0)) {
                continue;
            }
            let bytes = store.get(&subjects.page_name(page));
            let read = subjects.read_page(page, bytes.as_ref().map(|(bytes, _)| bytes.as_slice()), now);
            board.raise(page, &read);
        }
        if generation.is_none() {
            // Else all pages would be read each time.
            let _ = write(store, &subjects.generation_name(), |bytes| subjects.mend_generation(bytes, now));
        }
        board.generation = generation;
    }

    /// Ends what every worker knows about a subject.
    ///
    /// # Errors
    /// Unusable where the workers could not be told.
    pub(super) fn write(
        &mut self,
        subjects: &Subjects,
        subject: &str,
        store: &dyn SharedStore,
        now: Timestamp,
    ) -> Result<(), Unusable> {
        let stamp = now.saturating_add(SETTLE);
        let slot = subjects.slot(subject);
        let page = slot.page();
        let written =
            write(store, &subjects.page_name(page), |bytes| subjects.write_page(slot, bytes, stamp, now));
        if written == Write::Lost {
            return Err(Unusable::SharedWrite);
        }
        // Also where the stamp was there already: whoever wrote it may not have come to this.
        let told = write(store, &subjects.generation_name(), |bytes| {
            Some(subjects.write_generation(page, bytes, now))
        });
        if told == Write::Lost {
            return Err(Unusable::SharedWrite);
        }
        let board = self.board(subjects, now);
        let mut own = EMPTY;
        if let Some(own) = own.get_mut(slot.stamp()) {
            *own = stamp;
        }
        board.raise(page, &own);
        Ok(())
    }

    /// The stamps of a key. Where there are those of another one, as before the secret was changed,
    /// any subject may have one there: nobody can tell which, and what is known starts anew.
    fn board(&mut self, subjects: &Subjects, now: Timestamp) -> &mut Board {
        let is_another = !self.boards.is_empty();
        self.boards.entry(subjects.name()).or_insert_with(|| {
            let mut board = Board::default();
            for page in (0..PAGES).filter(|_| is_another) {
                board.raise(page, &[now.saturating_add(SETTLE); STAMPS]);
            }
            board
        })
    }

    /// Whether what was asked for at this time about a subject is over. `slot` is asked for only
    /// where some event has ever come.
    pub(super) fn end(
        &self,
        subjects: Option<&Subjects>,
        started: Timestamp,
        slot: impl FnOnce(&Subjects) -> Option<SubjectSlot>,
    ) -> bool {
        let Some(subjects) = subjects else { return false };
        let Some(board) = self.boards.get(&subjects.name()).filter(|board| !board.pages.is_empty()) else {
            return false;
        };
        let stamp = slot(subjects).and_then(|slot| board.pages.get(&slot.page())?.get(slot.stamp()));
        stamp.is_some_and(|stamp| started < *stamp)
    }
}

impl Board {
    fn raise(&mut self, page: usize, read: &Page) {
        let own = self.pages.entry(page).or_insert_with(|| Box::new(EMPTY));
        own.iter_mut().zip(read).for_each(|(own, read)| *own = (*own).max(*read));
    }
}

/// How long after an event what the provider says may still be from before it.
pub(super) const SETTLE: Duration = Duration::from_secs(2);

/// How often a worker looks whether there were events.
pub(super) const EVERY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::shared::Sealer;
    use crate::flow::store::NoStore;
    use crate::flow::store::tests::Map;
    use crate::hash::Fingerprint;
    use std::sync::Arc;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn subjects() -> Subjects {
        Subjects::new(Arc::new(Sealer::new(b"secret", Fingerprint::of(&["cluster"]))))
    }

    fn is_over(evictions: &Evictions, subject: &str, started: u64) -> bool {
        evictions.end(Some(&subjects()), at(started), |subjects| Some(subjects.slot(subject)))
    }

    #[test]
    fn what_one_worker_hears_the_others_know_once_they_look() {
        let (store, subjects) = (Map::default(), subjects());
        let (mut one, mut other) = (Evictions::default(), Evictions::default());
        other.read(&subjects, &store, at(1));
        assert!(!is_over(&one, "usr_1", 1));
        one.write(&subjects, "usr_1", &store, at(10)).unwrap();
        assert!(is_over(&one, "usr_1", 11) && !is_over(&one, "usr_1", 12) && !is_over(&one, "usr_2", 1));
        assert!(!is_over(&other, "usr_1", 11));
        other.read(&subjects, &store, at(10));
        assert!(
            is_over(&other, "usr_1", 11) && !is_over(&other, "usr_1", 12) && !is_over(&other, "usr_2", 1)
        );
        let mut new = Evictions::default();
        new.read(&subjects, &store, at(20));
        assert!(is_over(&new, "usr_1", 11), "a worker that began later");
    }

    #[test]
    fn under_another_key_anything_may_be_over_and_under_the_first_one_nothing_is() {
        let (store, subjects) = (Map::default(), subjects());
        let other = Subjects::new(Arc::new(Sealer::new(b"next", Fingerprint::of(&["cluster"]))));
        let mut worker = Evictions::default();
        worker.read(&subjects, &store, at(10));
        assert!(!is_over(&worker, "usr_1", 1));
        worker.read(&other, &store, at(20));
        let started = |secs| worker.end(Some(&other), at(secs), |other| Some(other.slot("usr_1")));
        assert!(started(20) && started(21) && !started(22), "the event may have come a moment ago");
        assert!(!is_over(&worker, "usr_1", 1), "the first one's are as before");
    }

    #[test]
    fn what_cannot_be_read_ends_everything_until_now() {
        let (store, subjects) = (Map::default(), subjects());
        let mut worker = Evictions::default();
        worker.write(&subjects, "usr_1", &store, at(10)).unwrap();
        worker.read(&subjects, &store, at(10));
        let page = subjects.slot("usr_1").page();
        assert_eq!(write(&store, &subjects.page_name(page), |_| Some(b"junk".to_vec())), Write::Done);
        assert_eq!(write(&store, &subjects.generation_name(), |_| Some(b"junk".to_vec())), Write::Done);
        worker.read(&subjects, &store, at(30));
        assert!(is_over(&worker, "usr_1", 29) && !is_over(&worker, "usr_1", 30));
    }

    #[test]
    fn what_others_have_damaged_ends_everything_once_and_not_each_time() {
        let (store, subjects) = (Map::default(), subjects());
        let page = subjects.slot("usr_1").page();
        assert_eq!(write(&store, &subjects.page_name(page), |_| Some(b"junk".to_vec())), Write::Done);
        assert_eq!(write(&store, &subjects.generation_name(), |_| Some(b"junk".to_vec())), Write::Done);
        let mut worker = Evictions::default();
        for now in [30, 31, 32, 33] {
            worker.read(&subjects, &store, at(now));
        }
        assert!(is_over(&worker, "usr_1", 29) && !is_over(&worker, "usr_1", 32));
    }

    #[test]
    fn an_event_after_the_generation_was_damaged_is_heard() {
        let (store, subjects) = (Map::default(), subjects());
        let (mut one, mut other) = (Evictions::default(), Evictions::default());
        one.write(&subjects, "usr_1", &store, at(10)).unwrap();
        other.read(&subjects, &store, at(10));
        assert_eq!(write(&store, &subjects.generation_name(), |_| Some(b"junk".to_vec())), Write::Done);
        one.write(&subjects, "usr_1", &store, at(20)).unwrap();
        other.read(&subjects, &store, at(21));
        assert!(is_over(&other, "usr_1", 21));
        let mut new = Evictions::default();
        new.read(&subjects, &store, at(21));
        assert!(is_over(&new, "usr_1", 21), "a worker that began later");
    }

    #[test]
    fn who_cannot_tell_the_others_says_so() {
        struct Busy;
        impl SharedStore for Busy {
            fn get(&self, _: &str) -> Option<(Vec<u8>, u32)> {
                None
            }
            fn compare_and_set(&self, _: &str, _: &[u8], _: Option<u32>) -> bool {
                false
            }
        }
        let mut worker = Evictions::default();
        assert_eq!(worker.write(&subjects(), "usr_1", &Busy, at(1)), Err(Unusable::SharedWrite));
        assert!(!is_over(&worker, "usr_1", 1), "the sender tries again");
        assert_eq!(worker.write(&subjects(), "usr_1", &NoStore, at(1)), Ok(()));
        assert!(is_over(&worker, "usr_1", 1));
    }
}
