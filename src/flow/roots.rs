//! The policies in force, by root.

use super::RootId;
use super::bodies::HookId;
use super::evictions::EVERY;
use super::timers::{Armed, Timer, Timers};
use crate::cache::shared::Subjects;
use crate::hash::TrustedKeyHasher;
use crate::policy::{Bounds, Policy, PolicyLabels};
use crate::probe::Probe;
use crate::telemetry::{Label, Labels};
use crate::time::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;

/// What each root was configured with last.
#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Roots {
    policies: HashMap<RootId, Arc<Policy>, TrustedKeyHasher>,
    /// When a root looks next whose facts are over.
    evictions: HashMap<RootId, Armed, TrustedKeyHasher>,
    /// What labels each policy, in the order in which they came.
    digests: Vec<(RootId, Label)>,
    /// Roots whose policy no request has met yet.
    unused: Vec<RootId>,
    next_policy: u32,
}

impl Roots {
    /// The policy of a root, for requests that begin now.
    pub(super) fn policy(&self, root: RootId) -> Option<Arc<Policy>> {
        self.policies.get(&root).map(Arc::clone)
    }

    /// Takes a root's policy. Requests that have begun keep theirs.
    pub(super) fn configure(&mut self, root: RootId, policy: Policy, names: &mut Labels) {
        self.next_policy = self.next_policy.wrapping_add(1);
        let labels = PolicyLabels {
            routes: policy.route_names.iter().map(|name| names.route(name)).collect(),
            webhooks: policy.webhooks.iter().map(|webhook| names.webhook(&webhook.name)).collect(),
        };
        let digest = names.policy(&policy.digest);
        self.policies.insert(root, Arc::new(Policy { id: self.next_policy, labels, ..policy }));
        self.digests.retain(|(of, _)| *of != root);
        self.digests.push((root, digest));
        self.unused.retain(|of| *of != root);
        self.unused.push(root);
    }

    pub(super) fn remove(&mut self, root: RootId) {
        self.policies.remove(&root);
        self.digests.retain(|(of, _)| *of != root);
        self.unused.retain(|of| *of != root);
    }

    /// Whether this is the first request under a root's policy.
    pub(super) fn is_first_use(&mut self, root: RootId) -> bool {
        let place = self.unused.iter().position(|of| *of == root);
        place.is_some_and(|place| self.unused.swap_remove(place) == root)
    }

    /// The digest of each policy in force.
    pub(super) fn digests(&self) -> impl Iterator<Item = Label> {
        self.digests.iter().map(|(_, digest)| *digest)
    }

    /// The root that was configured last.
    pub(super) fn newest(&self) -> Option<RootId> {
        self.digests.last().map(|(root, _)| *root)
    }

    /// Where it stands whose facts are over, if some webhook of the root's says so. The root looks
    /// there now, and again after a while.
    pub(super) fn look_for_evictions(
        &mut self,
        root: RootId,
        timers: &mut Timers,
        now: Timestamp,
    ) -> Option<Arc<Subjects>> {
        if let Some(armed) = self.evictions.remove(&root) {
            timers.clear(&armed);
        }
        let subjects = self.policies.get(&root)?.subjects.clone()?;
        self.evictions.insert(root, timers.set(root, now.saturating_add(EVERY), Timer::Evictions));
        Some(subjects)
    }

    /// Whether no root is configured.
    #[cfg(feature = "fuzzing")]
    pub(super) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// How much all of them together want to be kept, the larger where two differ.
    pub(super) fn bounds(&self) -> Bounds {
        self.policies.values().fold(Bounds::default(), |bounds, policy| bounds.max(policy.bounds))
    }

    /// Every webhook that some policy names, with its longest body.
    pub(super) fn webhooks(&self) -> Vec<(HookId, usize)> {
        let of = |policy: &Arc<Policy>| -> Vec<_> {
            policy.webhooks.iter().map(|w| (HookId::new(policy, w), w.max_body_bytes)).collect()
        };
        self.policies.values().flat_map(of).collect()
    }

    /// How the endpoints of a root's policy are probed.
    pub(super) fn probes(&self, root: RootId) -> Vec<Arc<Probe>> {
        self.policies.get(&root).map(|policy| policy.probes.clone()).unwrap_or_default()
    }
}
