//! How old a fact may be where there is no answer.

use super::{CachedFact, FactKind, Facts, Question};
use crate::cache::Lifetime;
use crate::cache::shared::Subjects;
use crate::policy::TokenRules;
use crate::refusal::{Refusal, Unusable};
use crate::telemetry::CacheOutcome;
use crate::time::Timestamp;

impl Facts {
    /// What is left where a question has no answer: a fact that is older than its lifetime, where
    /// the route takes one, and where no other worker has heard since that it is over.
    ///
    /// # Errors
    /// The refusal where there is none; a denial where the route opens, and the last answer forbids
    /// it, however long ago it came.
    pub(in crate::flow) fn or_stale<K: FactKind>(
        &mut self,
        question: &Question,
        rules: &TokenRules,
        refusal: Refusal,
        now: Timestamp,
    ) -> Result<CachedFact<K::Value>, Refusal> {
        let Some(lifetime) = stale_lifetime(K::lifetime(rules), &refusal) else { return Err(refusal) };
        let key = question.key;
        let no = question.shared_key.as_ref().map(|key| self.read_no(key, now));
        if let Some(started) = no.and_then(|no| no.started)
            && K::cache(&mut self.caches).known_since(key) <= Some(started)
        {
            self.keep::<K>(key, None, started, now);
        }
        let Self { caches, evictions, .. } = self;
        let cache = K::cache(caches);
        if rules.open_on_outage
            && matches!(refusal, Refusal::Outage(_))
            && let Some(no) = K::forbids_opening(cache.last_known(key), rules, now)
        {
            return Err(no);
        }
        let is_over = |value: &K::Value, started| {
            let slot = |subjects: &Subjects| K::subject(Some(value), question.subject, subjects);
            evictions.end(rules.subjects.as_deref(), started, slot)
        };
        match cache.stale(key, &lifetime, now) {
            Some((value, started))
                if K::may_be_stale(value, now)
                    && no.is_none_or(|no| no.admits(started))
                    && !is_over(value, started) =>
            {
                let value = Some(value.clone());
                self.tally.count(K::LABEL, CacheOutcome::Stale);
                Ok(CachedFact { value, started, cache_key: Some(key), outcome: CacheOutcome::Stale })
            }
            _ => Err(refusal),
        }
    }
}

/// How old a fact may be in the place of an answer that there is not; `None`: none may be.
fn stale_lifetime(lifetime: &Lifetime, refusal: &Refusal) -> Option<Lifetime> {
    match refusal {
        Refusal::Outage(_) => Some(*lifetime),
        // Others have taken the room. Whoever can do that must not choose how long a fact lives.
        Refusal::Unusable(
            Unusable::OverLimit
            | Unusable::InFlightLimit
            | Unusable::NewTokenBudget(_)
            | Unusable::RefreshBudget(_)
            | Unusable::PermissionBudget(_),
        ) => {
            let stale_if_error = lifetime.stale_if_error.min(lifetime.ttl);
            Some(Lifetime { stale_if_error, ..*lifetime })
        }
        // A limit of the caller's own, who would so keep what was taken from him; or an answer.
        _ => None,
    }
}
