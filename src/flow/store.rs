//! Slots that all workers of a process share.

use crate::hash::{FactKey, Seed};

/// A store with compare-and-set, shared by all workers.
///
/// *Cost*: one lock for all threads of the process. In Envoy a read that finds something takes
/// about 0.6 µs, since the host enters the VM again to allocate; one that finds nothing, and a
/// write, take about 0.1 µs. Keys must come from a small fixed set: a host never frees one.
///
/// *Trust*: none. Other plugins of the process may read every value, replace it, and put an older
/// one back. Whoever reads has to verify what it reads, and to bound what an older value can do.
pub trait SharedStore {
    /// The slot's value and its version; `None` where it was never written.
    fn get(&self, slot: &str) -> Option<(Vec<u8>, u32)>;

    /// Writes if the version is still this one, or if the slot is absent where it is `None`.
    /// Returns whether it wrote.
    fn compare_and_set(&self, slot: &str, value: &[u8], version: Option<u32>) -> bool;
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Write {
    /// It is written.
    Done,
    /// What was there stays.
    Kept,
    /// Others were before it each time.
    Lost,
}

/// Writes what is to be in the place of what is there, unless that is to stay.
pub(super) fn write(
    store: &dyn SharedStore,
    name: &str,
    value: impl Fn(Option<&[u8]>) -> Option<Vec<u8>>,
) -> Write {
    for _ in 0..WRITES {
        let current = store.get(name);
        let Some(value) = value(current.as_ref().map(|(bytes, _)| bytes.as_slice())) else {
            return Write::Kept;
        };
        if store.compare_and_set(name, &value, current.map(|(_, version)| version)) {
            return Write::Done;
        }
    }
    Write::Lost
}

/// How often a write is tried that another worker comes before. Each failure is a success of
/// another one, and there are fewer workers that write to one place at a time.
const WRITES: usize = 16;

/// Whether these warnings were not said before, in this process: every worker reads the same
/// configuration.
pub(super) fn is_first_to_say(slots: &dyn SharedStore, warnings: &[String]) -> bool {
    if warnings.is_empty() {
        return false;
    }
    let parts: Vec<&[u8]> = warnings.iter().map(|w| w.as_bytes()).collect();
    // The same in every VM, so not seeded; a collision costs a warning, nothing else.
    let digest = format!("{:?}", FactKey::of(Seed([0; 16]), parts));
    let slot = format!("avnology_gate/1/said/{}", digest.bytes().fold(0_u8, u8::wrapping_add) % SLOTS);
    match slots.get(&slot) {
        Some((said, _)) if said == digest.as_bytes() => false,
        Some((_, version)) => slots.compare_and_set(&slot, digest.as_bytes(), Some(version)),
        None => slots.compare_and_set(&slot, digest.as_bytes(), None),
    }
}

const SLOTS: u8 = 16;

/// Random bytes that are the same in every VM of the process: those of the first one that asks.
/// Other plugins can read them.
pub(super) fn common_seed(slots: &dyn SharedStore, seed: Seed) -> Seed {
    const SLOT: &str = "avnology_gate/1/print";
    // Not the seed itself, by which this VM's keys are made.
    let own = FactKey::of(seed, [&b"print"[..]]).bytes();
    let known = || slots.get(SLOT).and_then(|(bytes, _)| bytes.try_into().ok()).map(Seed);
    known().unwrap_or_else(|| {
        let _ = slots.compare_and_set(SLOT, &own, None);
        known().unwrap_or(Seed(own))
    })
}

/// Slots that nobody shares: nothing that is written is ever read.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStore;

impl SharedStore for NoStore {
    fn get(&self, _: &str) -> Option<(Vec<u8>, u32)> {
        None
    }

    fn compare_and_set(&self, _: &str, _: &[u8], _: Option<u32>) -> bool {
        true
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::HashMap;

    #[derive(Default)]
    pub(in crate::flow) struct Map(RefCell<HashMap<String, (Vec<u8>, u32)>>);

    impl SharedStore for Map {
        fn get(&self, slot: &str) -> Option<(Vec<u8>, u32)> {
            self.0.borrow().get(slot).cloned()
        }

        fn compare_and_set(&self, slot: &str, value: &[u8], version: Option<u32>) -> bool {
            let mut slots = self.0.borrow_mut();
            let current = slots.get(slot).map(|(_, v)| *v);
            if current != version {
                return false;
            }
            slots.insert(slot.to_owned(), (value.to_vec(), current.unwrap_or(0) + 1));
            true
        }
    }

    #[test]
    fn workers_have_a_seed_in_common() {
        let slots = Map::default();
        let first = common_seed(&slots, Seed([1; 16]));
        assert!(first != Seed([1; 16]) && first == common_seed(&slots, Seed([2; 16])));
        assert!(first != common_seed(&Map::default(), Seed([2; 16])));
        // What another plugin has written there is not of the length.
        let slots = Map::default();
        assert!(slots.compare_and_set("avnology_gate/1/print", b"junk", None));
        assert!(common_seed(&slots, Seed([1; 16])) != common_seed(&slots, Seed([2; 16])));
    }

    #[test]
    fn a_process_is_warned_once() {
        let slots = Map::default();
        let a = vec!["a".to_owned()];
        let b = vec!["b".to_owned()];
        assert!(!is_first_to_say(&slots, &[]));
        assert!(is_first_to_say(&slots, &a));
        assert!(!is_first_to_say(&slots, &a));
        assert!(is_first_to_say(&slots, &b));
        for n in 0..100 {
            is_first_to_say(&slots, &[n.to_string()]);
        }
        assert!(slots.0.borrow().len() <= usize::from(SLOTS));
    }
}
