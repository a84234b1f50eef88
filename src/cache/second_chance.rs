//! A bounded table that evicts what was not read recently: CLOCK (Corbató, 1968), the second-chance
//! queue.
//!
//! It resists scans: an entry that is read between two rounds of the hand stays, and one that is
//! not is evicted. Its weakness: it does not count reads, so if more entries are read once per
//! round than fit, it is no better than a queue.

use crate::hash::{FactKey, TrustedKeyHasher};
use crate::time::Timestamp;
use std::collections::HashMap;

/// The table: entries in a ring, and the position of each.
#[derive(Clone, Debug)]
pub(super) struct SecondChance<V> {
    /// Keyed by half the key; the entry has the whole key.
    places: HashMap<u64, u32, TrustedKeyHasher>,
    ring: Ring<Kept<V>>,
    hand: usize,
    max_entries: usize,
    bytes: usize,
    max_bytes: usize,
}

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Kept<V> {
    key: FactKey,
    pub(super) started: Timestamp,
    /// It is not refreshed before this time.
    pub(super) refresh_after: Timestamp,
    pub(super) value: V,
    bytes: u32,
    was_read: bool,
}

impl<V> Default for SecondChance<V> {
    fn default() -> Self {
        let ring = Ring { chunks: Vec::new(), len: 0 };
        Self { places: HashMap::default(), ring, hand: 0, max_entries: 0, bytes: 0, max_bytes: 0 }
    }
}

impl<V> SecondChance<V> {
    pub(super) fn resize(&mut self, max_entries: usize, max_bytes: usize) {
        (self.max_entries, self.max_bytes) = (max_entries, max_bytes);
        while self.ring.len() > max_entries || self.bytes > max_bytes {
            self.evict();
        }
    }

    pub(super) fn started(&self, key: FactKey) -> Option<Timestamp> {
        self.place(key).and_then(|place| self.ring.get(place)).map(|kept| kept.started)
    }

    fn place(&self, key: FactKey) -> Option<usize> {
        let place = *self.places.get(&key.half())? as usize;
        self.ring.get(place).filter(|kept| kept.key == key).map(|_| place)
    }

    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    /// Returns the entry and marks it as read.
    pub(super) fn touch(&mut self, key: FactKey) -> Option<&mut Kept<V>> {
        let place = self.place(key)?;
        let kept = self.ring.get_mut(place)?;
        kept.was_read = true;
        Some(kept)
    }

    pub(super) fn forget_if(&mut self, key: FactKey, is_to_go: impl FnOnce(Timestamp) -> bool) {
        if let Some(place) = self.place(key)
            && self.ring.get(place).is_some_and(|kept| is_to_go(kept.started))
        {
            self.remove(place);
        }
    }

    /// Removes every entry for whose start time `stays` is false.
    pub(super) fn retain(&mut self, stays: impl Fn(Timestamp) -> bool) {
        let mut place = 0;
        while let Some(kept) = self.ring.get(place) {
            // The last one moves here, and is checked next.
            if stays(kept.started) { place = place.saturating_add(1) } else { self.remove(place) }
        }
    }

    /// Inserts an entry, in place of an older one with this key or of entries that were not read
    /// recently.
    pub(super) fn insert(&mut self, key: FactKey, value: V, bytes: usize, started: Timestamp) {
        let was_read =
            self.place(key).and_then(|place| self.ring.get(place)).is_some_and(|kept| kept.was_read);
        // The entry with this key, or with a key that has the same half.
        if let Some(place) = self.places.get(&key.half()) {
            self.remove(*place as usize);
        }
        let Ok(size) = u32::try_from(bytes) else { return };
        if self.max_entries == 0 || bytes > self.max_bytes {
            return;
        }
        while self.ring.len() >= self.max_entries || self.bytes.saturating_add(bytes) > self.max_bytes {
            self.evict();
        }
        let Ok(place) = u32::try_from(self.ring.len()) else { return };
        let refresh_after = Timestamp::from_nanos(0);
        self.ring.push(Kept { key, started, refresh_after, value, bytes: size, was_read });
        self.places.insert(key.half(), place);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Moves the hand to an entry that was not read since it last passed, and removes it. Two
    /// rounds at most.
    fn evict(&mut self) {
        loop {
            if self.hand >= self.ring.len() {
                self.hand = 0;
            }
            let Some(kept) = self.ring.get_mut(self.hand) else { return };
            if kept.was_read {
                kept.was_read = false;
                self.hand = self.hand.saturating_add(1);
                continue;
            }
            self.remove(self.hand);
            // The newest entry has moved here; its turn is in the next round.
            self.hand = self.hand.saturating_add(1);
            return;
        }
    }

    fn remove(&mut self, place: usize) {
        let Some(gone) = self.ring.swap_remove(place) else { return };
        self.places.remove(&gone.key.half());
        self.bytes = self.bytes.saturating_sub(gone.bytes as usize);
        if let Some(moved) = self.ring.get(place)
            && let Some(entry) = self.places.get_mut(&moved.key.half())
            && let Ok(place) = u32::try_from(place)
        {
            *entry = place;
        }
    }
}

/// A vector in chunks: it grows without being copied, and so leaves no freed copy behind. A
/// module's memory never shrinks.
#[derive(Clone, Debug)]
struct Ring<T> {
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Ring<T> {
    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, place: usize) -> Option<&T> {
        self.chunks.get(place / CHUNK)?.get(place % CHUNK)
    }

    fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.chunks.get_mut(place / CHUNK)?.get_mut(place % CHUNK)
    }

    fn push(&mut self, entry: T) {
        if self.chunks.last().is_none_or(|chunk| chunk.len() >= CHUNK) {
            // A small table gets no larger chunk than it needs.
            let room = if self.chunks.is_empty() { 0 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(room));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(entry);
            self.len = self.len.saturating_add(1);
        }
    }

    /// Removes an entry, and moves the last one to its place.
    fn swap_remove(&mut self, place: usize) -> Option<T> {
        if place >= self.len {
            return None;
        }
        let last = self.chunks.last_mut()?.pop()?;
        if self.chunks.last().is_some_and(Vec::is_empty) {
            self.chunks.pop();
        }
        self.len = self.len.saturating_sub(1);
        match self.get_mut(place) {
            Some(entry) => Some(std::mem::replace(entry, last)),
            None => Some(last),
        }
    }
}

/// Entries per chunk.
const CHUNK: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Seed;
    use proptest::prelude::*;

    fn key(n: u32) -> FactKey {
        FactKey::of(Seed([0; 16]), [&n.to_le_bytes()[..]])
    }

    fn clock(max_entries: usize, max_bytes: usize) -> SecondChance<u32> {
        let mut clock = SecondChance::default();
        clock.resize(max_entries, max_bytes);
        clock
    }

    const AT: Timestamp = Timestamp::from_secs(1);

    #[test]
    fn a_ring_is_a_vector() {
        let (mut ring, mut vector) = (Ring { chunks: Vec::new(), len: 0 }, Vec::new());
        for n in 0..3000_usize {
            ring.push(n);
            vector.push(n);
            if n % 3 == 0 {
                let place = n * 7919 % (vector.len() + 1);
                let expected = (place < vector.len()).then(|| vector.swap_remove(place));
                assert_eq!(ring.swap_remove(place), expected);
            }
            assert_eq!(ring.len(), vector.len());
        }
        assert!((0..=vector.len()).all(|place| ring.get(place) == vector.get(place)));
        while let Some(last) = vector.len().checked_sub(1) {
            assert_eq!(ring.swap_remove(last), vector.pop());
        }
        assert!(ring.chunks.is_empty());
    }

    #[test]
    fn what_is_read_stays_while_a_scan_passes() {
        let mut clock = clock(100, 1_000_000);
        for hot in 0..50 {
            clock.insert(key(hot), hot, 1, AT);
        }
        for cold in 1000..20_000 {
            if cold % 40 == 0 {
                assert!((0..50).all(|hot| clock.touch(key(hot)).is_some()), "{cold}");
            }
            clock.insert(key(cold), cold, 1, AT);
            assert!(clock.ring.len() <= 100);
        }
    }

    proptest! {
        #[test]
        fn bounds_hold_and_every_entry_is_found(
            steps in proptest::collection::vec((0_u32..40, 0_usize..30, 0_u8..4), 0..300),
            max_entries in 0_usize..20,
        ) {
            let mut clock = clock(max_entries, 100);
            for (n, bytes, what) in steps {
                match what {
                    0 => drop(clock.touch(key(n))),
                    1 => clock.forget_if(key(n), |_| true),
                    _ => clock.insert(key(n), n, bytes, AT),
                }
                prop_assert!(clock.ring.len() <= max_entries);
                prop_assert!(clock.bytes <= 100);
                prop_assert_eq!(clock.ring.len(), clock.places.len());
                prop_assert_eq!(clock.ring.chunks.iter().flatten().map(|k| k.bytes as usize).sum::<usize>(), clock.bytes);
                for kept in clock.ring.chunks.iter().flatten() {
                    prop_assert_eq!(key(kept.value), kept.key);
                    prop_assert!(clock.places.contains_key(&kept.key.half()));
                }
            }
            clock.resize(1, 5);
            prop_assert!(clock.ring.len() <= 1 && clock.bytes <= 5);
        }
    }
}
