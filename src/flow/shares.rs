//! Who has how many of the callouts: each plugin by purpose, and each subject of its checks.

use super::RootId;
use crate::breaker::Purpose;
use crate::hash::{FactKey, TrustedKeyHasher};
use crate::telemetry::PurposeLabel;
use std::collections::HashMap;

/// What is taken of the shares.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Shares {
    /// Callouts under way, by root. A list, since there are few.
    under_way: Vec<(RootId, [usize; 3])>,
    /// The same for each subject of a root's permission checks: only what lands of a root lets go
    /// on what waits of it.
    of_subjects: HashMap<(RootId, FactKey), Part, TrustedKeyHasher>,
}

/// What a subject has of the checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Part {
    under_way: usize,
    /// Requests that wait for the answer to a check about it.
    waiters: usize,
}

impl Shares {
    /// A callout begins. Returns how many were under way before it.
    pub(super) fn begin(&mut self, root: RootId, purpose: Purpose, subject: Option<FactKey>) -> usize {
        if let Some(part) = self.part(root, subject) {
            part.under_way = part.under_way.saturating_add(1);
        }
        if !self.under_way.iter().any(|(of, _)| *of == root) {
            self.under_way.push((root, [0; 3]));
        }
        let Some(count) = self.count(root, purpose) else { return 0 };
        let before = *count;
        *count = count.saturating_add(1);
        before
    }

    /// One more waits for a check about a subject.
    pub(super) fn wait(&mut self, root: RootId, subject: Option<FactKey>) {
        if let Some(part) = self.part(root, subject) {
            part.waiters = part.waiters.saturating_add(1);
        }
    }

    /// A question has ended, for which so many waited, and whose callout had begun or not.
    pub(super) fn end(
        &mut self,
        root: RootId,
        purpose: Purpose,
        subject: Option<FactKey>,
        (waiters, has_begun): (usize, bool),
    ) {
        if has_begun && let Some(count) = self.count(root, purpose) {
            *count = count.saturating_sub(1);
        }
        let Some(subject) = subject else { return };
        if let Some(part) = self.of_subjects.get_mut(&(root, subject)) {
            part.waiters = part.waiters.saturating_sub(waiters);
            part.under_way = part.under_way.saturating_sub(usize::from(has_begun));
            if *part == Part::default() {
                self.of_subjects.remove(&(root, subject));
            }
        }
    }

    /// Callouts of a root and purpose that are under way.
    pub(super) fn under_way(&self, root: RootId, purpose: Purpose) -> usize {
        let counts = self.under_way.iter().find(|(of, _)| *of == root);
        counts.and_then(|(_, counts)| counts.get(purpose.index())).copied().unwrap_or_default()
    }

    /// Callouts under way of all roots, by purpose.
    pub(super) fn in_flight(&self) -> [(PurposeLabel, usize); 3] {
        let sum = |purpose: Purpose| {
            let of = |(_, counts): &(RootId, [usize; 3])| counts.get(purpose.index()).copied();
            self.under_way.iter().filter_map(of).fold(0, usize::saturating_add)
        };
        [
            (PurposeLabel::NewToken, sum(Purpose::NewToken)),
            (PurposeLabel::Refresh, sum(Purpose::Refresh)),
            (PurposeLabel::Permission, sum(Purpose::Permission)),
        ]
    }

    /// Whether a subject has as many callouts under way as one may have: a quarter of the share, so
    /// that one caller's objects on which the provider hangs do not stop everybody's checks.
    pub(super) fn is_over_part(&self, root: RootId, subject: Option<FactKey>, share: usize) -> bool {
        self.of(root, subject).under_way >= share.div_ceil(4)
    }

    /// Requests that wait for the answers to checks about a subject.
    pub(super) fn waiters(&self, root: RootId, subject: Option<FactKey>) -> usize {
        self.of(root, subject).waiters
    }

    /// Forgets roots of which nothing is under way.
    pub(super) fn tidy(&mut self) {
        self.under_way.retain(|(_, counts)| counts.iter().any(|count| *count > 0));
    }

    /// Whether nothing is under way, and nobody waits.
    #[cfg(feature = "fuzzing")]
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.iter().all(|(_, counts)| *counts == [0; 3]) && self.of_subjects.is_empty()
    }

    fn of(&self, root: RootId, subject: Option<FactKey>) -> Part {
        let part = subject.and_then(|subject| self.of_subjects.get(&(root, subject)));
        part.copied().unwrap_or_default()
    }

    fn part(&mut self, root: RootId, subject: Option<FactKey>) -> Option<&mut Part> {
        subject.map(|subject| self.of_subjects.entry((root, subject)).or_default())
    }

    fn count(&mut self, root: RootId, purpose: Purpose) -> Option<&mut usize> {
        let counts = self.under_way.iter_mut().find(|(of, _)| *of == root);
        counts.and_then(|(_, counts)| counts.get_mut(purpose.index()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Seed;

    #[test]
    fn what_has_ended_leaves_nothing() {
        let mut shares = Shares::default();
        let (root, purpose) = (RootId(1), Purpose::Permission);
        let subject = Some(FactKey::of(Seed([0; 16]), [&b"s"[..]]));
        for before in 0..3 {
            shares.wait(root, subject);
            assert_eq!(shares.begin(root, purpose, subject), before);
        }
        assert!(shares.is_over_part(root, subject, 12) && !shares.is_over_part(root, subject, 13));
        assert!(!shares.is_over_part(RootId(2), subject, 1) && !shares.is_over_part(root, None, 1));
        assert_eq!((shares.waiters(root, subject), shares.under_way(root, purpose)), (3, 3));
        assert_eq!(shares.under_way(root, Purpose::NewToken), 0);
        shares.wait(root, subject);
        shares.end(root, purpose, subject, (1, false));
        for _ in 0..3 {
            shares.end(root, purpose, subject, (1, true));
        }
        shares.tidy();
        assert!(shares.under_way.is_empty() && shares.of_subjects.is_empty());
    }
}
