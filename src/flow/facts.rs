//! What is known: both cache levels, and what is made of what they hold.

mod stale;

use super::evictions::Evictions;
use super::fact_kind::Caches;
pub(super) use super::fact_kind::{FactKind, PermissionFact, TokenFact};
use super::header_cache::HeaderCache;
use super::meter::CacheTally;
use super::query::{ProviderQuery, Question};
use super::store::{self, SharedStore, write};
use crate::cache::shared::{NoReading, SharedKey, SharedYes, Subjects};
use crate::cache::{Cache, Lookup};
use crate::claims::TokenInfo;
use crate::hash::{FactKey, Seed};
use crate::http::Header;
use crate::introspect::Identity;
use crate::policy::{Bound, Bounds, Policy, TokenRules};
use crate::rate_limit::RecentTokens;
use crate::refusal::{Refusal, Unusable};
use crate::telemetry::{CacheOutcome, FactLabel};
use crate::template::Inputs;
use crate::time::Timestamp;
use std::rc::Rc;
use std::time::Duration;

/// A fact as it was found.
#[derive(Clone, Debug)]
pub(super) struct CachedFact<T> {
    /// `None`: the answer was no.
    pub(super) value: Option<T>,
    /// When the callout was started that brought it.
    pub(super) started: Timestamp,
    /// Where it is kept, so that what is made of it can be kept beside it.
    pub(super) cache_key: Option<FactKey>,
    /// How it was found; a fact straight from the provider was a miss.
    pub(super) outcome: CacheOutcome,
}

/// Everything that is known, for all roots alike.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Facts {
    seed: Seed,
    /// What keys the fingerprints of tokens in the log.
    prints: Seed,
    store: Rc<dyn SharedStore>,
    caches: Caches,
    bounds: Bounds,
    header_cache: HeaderCache,
    evictions: Evictions,
    tally: CacheTally,
    /// Tokens that were active lately, as they are known here.
    recent: RecentTokens,
    /// The latest time that was heard of.
    latest: Timestamp,
}

impl<T> CachedFact<T> {
    /// A fact straight from the provider.
    pub(super) fn fresh(value: Option<T>, started: Timestamp) -> Self {
        Self { value, started, cache_key: None, outcome: CacheOutcome::Miss }
    }
}

impl Facts {
    pub(super) fn new(seed: Seed, store: Rc<dyn SharedStore>) -> Self {
        Self {
            seed,
            prints: store::common_seed(&*store, seed),
            store,
            caches: Caches { tokens: Cache::new(0), permissions: Cache::new(0) },
            bounds: Bounds::default(),
            header_cache: HeaderCache::default(),
            evictions: Evictions::default(),
            tally: CacheTally::default(),
            recent: RecentTokens::default(),
            latest: Timestamp::from_nanos(0),
        }
    }

    /// Keeps as much as these bounds allow.
    pub(super) fn resize(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.caches.tokens.resize(bounds.tokens.max_entries);
        self.caches.permissions.resize(bounds.permissions.max_entries);
    }

    /// What this worker shares with the others.
    pub(super) fn store(&self) -> &dyn SharedStore {
        &*self.store
    }

    /// What keys the questions of this worker.
    pub(super) fn seed(&self) -> Seed {
        self.seed
    }

    /// What tells a token from others in the log: the same at every worker of the process. Whoever
    /// reads the log can try neither tokens nor secrets with it, since its key is random.
    pub(super) fn token_print(&self, token: &[u8]) -> u64 {
        FactKey::of(self.prints, [token]).half()
    }

    /// Whether a token was active lately.
    pub(super) fn is_recent(&self, key: FactKey) -> bool {
        self.recent.knows(key)
    }

    /// Learns whose facts are over by now.
    pub(super) fn read_evictions(&mut self, subjects: &Subjects, now: Timestamp) {
        self.evictions.read(subjects, &*self.store, now);
    }

    /// Ends what every worker knows about a subject.
    ///
    /// # Errors
    /// Unusable where the workers could not be told.
    pub(super) fn evict(
        &mut self,
        subjects: &Subjects,
        subject: &str,
        now: Timestamp,
    ) -> Result<(), Unusable> {
        self.evictions.write(subjects, subject, &*self.store, now)
    }

    /// Whether an answer that was asked for then is over, since an event has said so.
    pub(super) fn is_over<K: FactKind>(
        &self,
        question: &Question,
        value: Option<&K::Value>,
        rules: &TokenRules,
        started: Timestamp,
    ) -> bool {
        let slot = |subjects: &Subjects| K::subject(value, question.subject, subjects);
        self.evictions.end(rules.subjects.as_deref(), started, slot)
    }

    /// Notices a clock that has gone backwards: what is known from the future would come to life
    /// again.
    pub(super) fn observe_clock(&mut self, now: Timestamp) {
        if self.latest.saturating_since(now) > TOLERATED_STEP {
            self.caches.tokens.forget_after(now);
            self.caches.permissions.forget_after(now);
            self.latest = now;
        }
        self.latest = self.latest.max(now);
    }

    /// The answer to a question from either level, and whether it should be asked for again.
    pub(super) fn get<K: FactKind>(
        &mut self,
        query: &ProviderQuery<'_>,
        rules: &TokenRules,
        now: Timestamp,
    ) -> Option<(CachedFact<K::Value>, bool)> {
        let mut was_evicted = false;
        let mut found = self.get_cached::<K>(query, rules, now, &mut was_evicted);
        if found.is_none() && self.load_shared::<K>(query, now) {
            found = self.get_again::<K>(query, rules, now);
        }
        if was_evicted {
            self.tally.count(K::LABEL, CacheOutcome::Evicted);
        }
        let outcome = found.as_ref().map_or(CacheOutcome::Miss, |(fact, _)| fact.outcome);
        self.tally.count(K::LABEL, outcome);
        found
    }

    /// The answer to a question that another worker has given meanwhile. It is the same look-up.
    pub(super) fn get_again<K: FactKind>(
        &mut self,
        query: &ProviderQuery<'_>,
        rules: &TokenRules,
        now: Timestamp,
    ) -> Option<(CachedFact<K::Value>, bool)> {
        let (fact, needs_refresh) = self.get_cached::<K>(query, rules, now, &mut false)?;
        Some((CachedFact { outcome: CacheOutcome::Shared, ..fact }, needs_refresh))
    }

    /// Counts what has become of a question that the caches did not answer.
    pub(super) fn count<K: FactKind>(&mut self, outcome: CacheOutcome) {
        self.tally.count(K::LABEL, outcome);
    }

    /// How the caches have answered since this was read last.
    pub(super) fn tally(&mut self) -> &mut CacheTally {
        &mut self.tally
    }

    /// How many answers are kept.
    pub(super) fn entries(&self, kind: FactLabel) -> usize {
        match kind {
            FactLabel::Token => self.caches.tokens.len(),
            FactLabel::Permission => self.caches.permissions.len(),
        }
    }

    fn get_cached<K: FactKind>(
        &mut self,
        query: &ProviderQuery<'_>,
        rules: &TokenRules,
        now: Timestamp,
        was_evicted: &mut bool,
    ) -> Option<(CachedFact<K::Value>, bool)> {
        let key = query.key();
        let outcome = CacheOutcome::Hit;
        let fact = |value, started| CachedFact { value, started, cache_key: Some(key), outcome };
        let Self { caches, evictions, .. } = self;
        let is_over = |value: Option<&K::Value>, started| {
            let slot = |subjects: &Subjects| K::subject(value, query.subject_slot(subjects), subjects);
            evictions.end(rules.subjects.as_deref(), started, slot)
        };
        match K::cache(caches).get(key, K::lifetime(rules), now)? {
            Lookup::Negative { started } if is_over(None, started) => {
                *was_evicted = true;
                None
            }
            Lookup::Negative { .. } => Some((fact(None, now), false)),
            Lookup::Positive { value, started, .. } if !K::counts(value, started, rules, now) => None,
            Lookup::Positive { value, started, .. } if is_over(Some(value), started) => {
                *was_evicted = true;
                None
            }
            Lookup::Positive { value, started, needs_refresh } => {
                Some((fact(Some(value.clone()), started), needs_refresh))
            }
        }
    }

    /// Takes another worker's answer over; false where there is none that this worker does not
    /// know.
    pub(super) fn load_shared<K: FactKind>(&mut self, query: &ProviderQuery<'_>, now: Timestamp) -> bool {
        if K::bound(&self.bounds).max_stale.is_zero() {
            return false;
        }
        let Some(key) = query.shared_key() else { return false };
        let no = self.read_no(key, now);
        let yes = self.store.get(&key.yes_name()).and_then(|(bytes, _)| key.read_yes(&bytes));
        let counts = |yes: &SharedYes| yes.started <= now && now <= yes.until && no.admits(yes.started);
        let yes = yes.filter(counts);
        let known_since = K::cache(&mut self.caches).known_since(query.key());
        match (yes, no.started) {
            (Some(SharedYes { started, payload: Some(payload), .. }), _) if known_since < Some(started) => {
                let Some(value) = K::unpack(&payload) else { return false };
                self.keep::<K>(query.key(), Some(value), started, now);
                true
            }
            // Most often it is this worker's own. Of two answers of one instant the no counts.
            (None, Some(started)) if known_since <= Some(started) => {
                self.keep::<K>(query.key(), None, started, now);
                true
            }
            _ => false,
        }
    }

    fn read_no(&self, key: &SharedKey, now: Timestamp) -> NoReading {
        let bucket = self.store.get(&key.no_name());
        key.read_no(bucket.as_ref().map(|(bytes, _)| bytes.as_slice()), now)
    }

    /// Takes an answer in, and gives it to the other workers. `started`: when its callout was.
    pub(super) fn insert<K: FactKind>(
        &mut self,
        question: &Question,
        value: Option<&K::Value>,
        started: Timestamp,
        now: Timestamp,
    ) {
        let payload = match value.map(K::payload) {
            // What cannot be judged is not worth keeping.
            Some(None) => return,
            Some(payload) => payload,
            None => None,
        };
        let last = K::cache(&mut self.caches).last_known(question.key);
        let had_yes = matches!(last, Some(Some(_)));
        self.keep::<K>(question.key, value.cloned(), started, now);
        let Bound { max_stale, .. } = K::bound(&self.bounds);
        let Some(key) = question.shared_key.as_ref().filter(|_| !max_stale.is_zero()) else { return };
        // A host without a clock says the end of time, which nothing would ever be later than.
        if started == Timestamp::from_nanos(u64::MAX) {
            return;
        }
        if let Some(payload) = payload {
            let yes = SharedYes::new(payload, started, max_stale);
            let _ = write(&*self.store, &key.yes_name(), |bytes| key.write_yes(bytes, &yes, now));
            return;
        }
        let slot = self.store.get(&key.yes_name());
        let slot = slot.as_ref().map(|(bytes, _)| bytes.as_slice());
        // Only a no that ends a yes is written: no flood of invented tokens fills the buckets.
        if had_yes || key.may_have_yes(slot, now) || self.read_no(key, now).started.is_some() {
            // It ends the yes that is in the slot, although that may have been asked for later.
            let known = slot.and_then(|bytes| key.read_yes(bytes)).map(|yes| yes.started);
            let started = started.max(known.unwrap_or(started));
            // It stays for as long as another worker might otherwise let its yes count.
            let until = started.saturating_add(max_stale);
            let _ = write(&*self.store, &key.no_name(), |bytes| key.write_no(bytes, started, until, now));
        }
    }

    fn keep<K: FactKind>(
        &mut self,
        key: FactKey,
        value: Option<K::Value>,
        started: Timestamp,
        now: Timestamp,
    ) {
        K::note(&mut self.recent, key, value.is_some());
        let answer = value.map(|value| {
            let bytes = K::payload(&value).map_or(0, <[u8]>::len);
            (value, bytes)
        });
        K::cache(&mut self.caches).insert(key, answer, started, now);
    }

    /// What was heard last of a question, however long ago: an inner `None` is a no.
    pub(super) fn last_known<K: FactKind>(&mut self, key: FactKey) -> Option<Option<K::Value>> {
        K::cache(&mut self.caches).last_known(key).map(|last| last.cloned())
    }

    /// The identity headers of an admitted bearer.
    ///
    /// # Errors
    /// Denied where a claim cannot be carried; unusable where the provider's answer is.
    pub(super) fn identity_headers(
        &mut self,
        policy: &Policy,
        inputs: &Inputs,
        identity: &Identity,
        fact: &CachedFact<TokenInfo>,
    ) -> Result<Rc<[Header]>, Refusal> {
        let key = fact.cache_key.filter(|_| policy.renders_token_alone);
        if let Some(headers) = key.and_then(|key| self.header_cache.get(key, fact.started, policy.id)) {
            return Ok(headers);
        }
        let mut headers = Vec::with_capacity(policy.identity_headers.len());
        for (name, template) in &policy.identity_headers {
            if let Some(value) = template.header_value(inputs, identity.info())? {
                headers.push((name.clone().into_bytes(), value));
            }
        }
        let headers: Rc<[Header]> = headers.into();
        if let Some(key) = key {
            self.header_cache.put(key, fact.started, policy.id, Rc::clone(&headers));
        }
        Ok(headers)
    }
}

/// A clock is set back by less than this without consequences.
const TOLERATED_STEP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
