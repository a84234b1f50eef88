//! What is known: both cache levels, and what is made of what they hold.

use super::fact_kind::Caches;
pub(super) use super::fact_kind::{FactKind, PermissionFact, TokenFact};
use super::header_cache::HeaderCache;
use super::query::ProviderQuery;
use super::store::SharedStore;
use crate::cache::shared::{MAX_PAYLOAD, SharedAnswer, SharedEntry, SharedKey};
use crate::cache::{Cache, Lookup};
use crate::claims::TokenInfo;
use crate::hash::{FactKey, Seed};
use crate::http::Header;
use crate::introspect::Identity;
use crate::policy::{Bound, Bounds, Policy, TokenRules};
use crate::rate_limit::RecentTokens;
use crate::refusal::Refusal;
use crate::template::Inputs;
use crate::time::Timestamp;
use std::cmp::Ordering;
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
    /// Whether it is older than its lifetime.
    pub(super) is_stale: bool,
}

/// Everything that is known, for all roots alike.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Facts {
    seed: Seed,
    store: Rc<dyn SharedStore>,
    caches: Caches,
    bounds: Bounds,
    header_cache: HeaderCache,
    /// Tokens that were active lately, as they are known here.
    recent: RecentTokens,
    /// The latest time that was heard of.
    latest: Timestamp,
}

/// What was asked, for the answer to be kept.
#[derive(Clone, Copy)]
pub(super) struct Asked<'f> {
    pub(super) key: FactKey,
    /// Where the workers share the answer.
    pub(super) shared_key: Option<&'f SharedKey>,
    pub(super) started: Timestamp,
}

impl<T> CachedFact<T> {
    /// A fact straight from the provider.
    pub(super) fn fresh(value: Option<T>, started: Timestamp) -> Self {
        Self { value, started, cache_key: None, is_stale: false }
    }
}

impl Facts {
    pub(super) fn new(seed: Seed, store: Rc<dyn SharedStore>) -> Self {
        Self {
            seed,
            store,
            caches: Caches { tokens: Cache::new(0), permissions: Cache::new(0) },
            bounds: Bounds::default(),
            header_cache: HeaderCache::default(),
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

    /// What keys the questions of this worker.
    pub(super) fn seed(&self) -> Seed {
        self.seed
    }

    /// Whether a token was active lately.
    pub(super) fn is_recent(&self, key: FactKey) -> bool {
        self.recent.knows(key)
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
        let cached = self.get_cached::<K>(query.key(), rules, now);
        if cached.is_none() && self.load_shared::<K>(query, now) {
            return self.get_cached::<K>(query.key(), rules, now);
        }
        cached
    }

    fn get_cached<K: FactKind>(
        &mut self,
        key: FactKey,
        rules: &TokenRules,
        now: Timestamp,
    ) -> Option<(CachedFact<K::Value>, bool)> {
        let fact = |value, started| CachedFact { value, started, cache_key: Some(key), is_stale: false };
        match K::cache(&mut self.caches).get(key, K::lifetime(rules), now)? {
            Lookup::Negative => Some((fact(None, now), false)),
            Lookup::Positive { value, started, needs_refresh } => {
                let counts = K::counts(value, started, rules, now);
                counts.then(|| (fact(Some(value.clone()), started), needs_refresh))
            }
        }
    }

    /// Takes another worker's answer over; false where there is none that this worker does not
    /// know.
    pub(super) fn load_shared<K: FactKind>(&mut self, query: &ProviderQuery<'_>, now: Timestamp) -> bool {
        if K::bound(&self.bounds).max_ttl.is_zero() {
            return false;
        }
        let entry = query.shared_key().and_then(|key| {
            let (bytes, _) = self.store.get(&key.name())?;
            key.open(&bytes).filter(|entry| entry.started <= now)
        });
        let Some(SharedEntry { started, answer, .. }) = entry else { return false };
        let is_news = match K::cache(&mut self.caches).known_since(query.key()).cmp(&Some(started)) {
            Ordering::Less => true,
            // Most often it is this worker's own. Of two answers of one instant the no counts.
            Ordering::Equal => answer == SharedAnswer::No,
            Ordering::Greater => false,
        };
        if !is_news {
            return false;
        }
        let value = match answer {
            SharedAnswer::Yes(payload) => match K::unpack(&payload) {
                Some(value) => Some(value),
                None => return false,
            },
            SharedAnswer::No => None,
        };
        self.keep::<K>(query.key(), value, started, now);
        true
    }

    /// Takes an answer in, and gives it to the other workers.
    pub(super) fn insert<K: FactKind>(&mut self, asked: Asked<'_>, value: Option<&K::Value>, now: Timestamp) {
        let Asked { key, shared_key, started } = asked;
        let answer = match value {
            Some(value) => {
                let Some(payload) = K::payload(value) else { return };
                (payload.len() <= MAX_PAYLOAD).then(|| SharedAnswer::Yes(payload.to_vec()))
            }
            None => Some(SharedAnswer::No),
        };
        self.keep::<K>(key, value.cloned(), started, now);
        let Bound { max_ttl, max_stale, .. } = K::bound(&self.bounds);
        let shared_key = shared_key.filter(|_| !max_ttl.is_zero());
        if let (Some(shared_key), Some(answer)) = (shared_key, answer) {
            // A no stays for as long as another worker might otherwise let its yes count.
            let ttl = if answer == SharedAnswer::No { max_stale } else { max_ttl };
            let entry = SharedEntry::new(answer, started, ttl);
            write(&*self.store, shared_key, &entry, now);
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

    /// What an outage leaves: a fact that is older than its lifetime, where the route takes one.
    ///
    /// # Errors
    /// The refusal where there is none; a denial where the route opens, and the last answer forbids
    /// it, however long ago it came.
    pub(super) fn or_stale<K: FactKind>(
        &mut self,
        key: FactKey,
        rules: &TokenRules,
        refusal: Refusal,
        now: Timestamp,
    ) -> Result<CachedFact<K::Value>, Refusal> {
        if !matches!(refusal, Refusal::Outage(_)) {
            return Err(refusal);
        }
        let cache = K::cache(&mut self.caches);
        if rules.open_on_outage
            && let Some(no) = K::forbids_opening(cache.last_known(key), rules, now)
        {
            return Err(no);
        }
        match cache.stale(key, K::lifetime(rules), now) {
            Some((value, started)) if K::may_be_stale(value, now) => {
                let value = Some(value.clone());
                Ok(CachedFact { value, started, cache_key: Some(key), is_stale: true })
            }
            _ => Err(refusal),
        }
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

/// Writes an answer to its slot, unless what is there is to stay.
fn write(store: &dyn SharedStore, key: &SharedKey, entry: &SharedEntry, now: Timestamp) {
    let name = key.name();
    for _ in 0..WRITES {
        let current = store.get(&name);
        let bytes = current.as_ref().map(|(bytes, _)| bytes.as_slice());
        let Some(value) = key.replace(bytes, entry, now) else { return };
        if store.compare_and_set(&name, &value, current.map(|(_, version)| version)) {
            return;
        }
    }
}

/// How often a write is tried that another worker comes before.
const WRITES: usize = 4;
/// A clock is set back by less than this without consequences.
const TOLERATED_STEP: Duration = Duration::from_secs(1);
