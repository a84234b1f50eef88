//! Facts: recalled from this worker's cache, adopted from the other workers', learnt from answers.

use super::ask::{Ask, Question};
use super::engine::Engine;
use super::state::Flight;
use crate::cache::Lookup;
use crate::cache::shared::{MAX_PAYLOAD, SharedAnswer, SharedEntry, SharedKey};
use crate::claims::TokenInfo;
use crate::hash::FactKey;
use crate::http::Header;
use crate::introspect::{Fact, Identity, Introspection};
use crate::policy::{Bound, Policy, TokenRules};
use crate::refusal::{Denial, Refusal};
use crate::template::Inputs;
use crate::time::Timestamp;
use std::cmp::Ordering;
use std::rc::Rc;
use std::time::Duration;

/// A fact as it was found.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) fact: Fact,
    /// Where it was kept, so that what is made of it can be kept beside it.
    pub(super) kept_as: Option<FactKey>,
    /// Whether it is older than its lifetime.
    pub(super) is_stale: bool,
}

impl Finding {
    /// A fact straight from the provider.
    pub(super) fn fresh(fact: Fact) -> Self {
        Self { fact, kept_as: None, is_stale: false }
    }
}

impl Engine {
    /// What is known about a token, and whether it should be asked for again.
    pub(super) fn recall_token(
        &mut self,
        ask: &Ask<'_>,
        rules: &TokenRules,
        now: Timestamp,
    ) -> Option<(Finding, bool)> {
        let kept = self.kept_token(ask.key, rules, now);
        if kept.is_none() && self.adopt(ask, now) { self.kept_token(ask.key, rules, now) } else { kept }
    }

    fn kept_token(&mut self, key: FactKey, rules: &TokenRules, now: Timestamp) -> Option<(Finding, bool)> {
        let lifetime = &rules.token_lifetime;
        let finding = |fact| Finding { fact, kept_as: Some(key), is_stale: false };
        match self.tokens.get(key, lifetime, now)? {
            Lookup::Negative => Some((finding(Fact::kept(None, now)), false)),
            Lookup::Positive { value, started, needs_refresh } => {
                let skew = rules.requirement.clock_skew;
                if value.is_past(skew, now) {
                    // A fact that has outlived its token is none. A provider that calls a token active which has expired already is
                    // believed about the latter, and not asked at every request.
                    let is_recent = now.saturating_since(started) <= lifetime.negative_ttl;
                    if !is_recent || !value.is_past(skew, started) {
                        return None;
                    }
                }
                Some((finding(Fact::kept(Some(value.clone()), started)), needs_refresh))
            }
        }
    }

    /// Whether a permission is known to be granted or not, and whether it should be asked for again.
    pub(super) fn recall_permission(
        &mut self,
        ask: &Ask<'_>,
        rules: &TokenRules,
        now: Timestamp,
    ) -> Option<(bool, bool)> {
        let kept = |engine: &mut Self| {
            Some(match engine.permissions.get(ask.key, &rules.permission_lifetime, now)? {
                Lookup::Negative => (false, false),
                Lookup::Positive { needs_refresh, .. } => (true, needs_refresh),
            })
        };
        kept(self).or_else(|| if self.adopt(ask, now) { kept(self) } else { None })
    }

    /// Takes another worker's answer over; false where there is none that this worker does not know.
    pub(super) fn adopt(&mut self, ask: &Ask<'_>, now: Timestamp) -> bool {
        if self.bound(ask.question).max_ttl.is_zero() {
            return false;
        }
        let entry = ask.place().and_then(|place| {
            let (bytes, _) = self.slots.get(&place.name())?;
            place.open(&bytes).filter(|entry| entry.started <= now)
        });
        let Some(SharedEntry { started, answer, .. }) = entry else { return false };
        let known_since = match ask.question {
            Question::Permission => self.permissions.known_since(ask.key),
            Question::Introspection | Question::Session => self.tokens.known_since(ask.key),
        };
        let is_news = match known_since.cmp(&Some(started)) {
            Ordering::Less => true,
            // Most often it is this worker's own. Of two answers of one instant the no counts.
            Ordering::Equal => answer == SharedAnswer::No,
            Ordering::Greater => false,
        };
        if !is_news {
            return false;
        }
        match (ask.question, answer) {
            (Question::Permission, SharedAnswer::Yes(_)) => {
                self.permissions.insert(ask.key, Some(((), 0)), started, now);
            }
            (Question::Permission, SharedAnswer::No) => self.permissions.insert(ask.key, None, started, now),
            (_, SharedAnswer::Yes(payload)) => {
                let Some(info) = TokenInfo::unpack(&payload) else { return false };
                self.learn_token(ask.key, Some(info), started, now);
            }
            (_, SharedAnswer::No) => self.learn_token(ask.key, None, started, now),
        }
        true
    }

    /// Takes a flight's answer about a token in, and tells the other workers.
    pub(super) fn learn_introspection(&mut self, flight: &Flight, answer: &Introspection, now: Timestamp) {
        match answer {
            // What cannot be judged is not worth keeping.
            Introspection::Active(info) if info.time("exp").is_err() || info.time("nbf").is_err() => {}
            Introspection::Active(info) => {
                self.learn_token(flight.key, Some(info.clone()), flight.started, now);
                let payload = info.packed();
                if payload.len() <= MAX_PAYLOAD {
                    self.publish(flight, SharedAnswer::Yes(payload.to_vec()), now);
                }
            }
            Introspection::Inactive => {
                self.learn_token(flight.key, None, flight.started, now);
                self.publish(flight, SharedAnswer::No, now);
            }
        }
    }

    /// Takes a flight's answer about a permission in, and tells the other workers.
    pub(super) fn learn_permission(&mut self, flight: &Flight, is_granted: bool, now: Timestamp) {
        self.permissions.insert(flight.key, is_granted.then_some(((), 0)), flight.started, now);
        self.publish(flight, if is_granted { SharedAnswer::Yes(Vec::new()) } else { SharedAnswer::No }, now);
    }

    fn learn_token(&mut self, key: FactKey, info: Option<TokenInfo>, started: Timestamp, now: Timestamp) {
        match &info {
            Some(_) => self.seen.note(key),
            None => self.seen.forget(key),
        }
        let answer = info.map(|info| {
            let bytes = info.packed().len();
            (info, bytes)
        });
        self.tokens.insert(key, answer, started, now);
    }

    fn publish(&self, flight: &Flight, answer: SharedAnswer, now: Timestamp) {
        let Bound { max_ttl, max_stale, .. } = self.bound(flight.question);
        let Some(place) = flight.place.as_ref().filter(|_| !max_ttl.is_zero()) else { return };
        // A no stays for as long as another worker might otherwise let its yes count.
        let ttl = if answer == SharedAnswer::No { max_stale } else { max_ttl };
        write(&*self.slots, place, &SharedEntry::new(answer, flight.started, ttl), now);
    }

    fn bound(&self, question: Question) -> Bound {
        match question {
            Question::Introspection | Question::Session => self.bounds.tokens,
            Question::Permission => self.bounds.permissions,
        }
    }

    /// What an outage leaves of a token: a fact that is older than its lifetime, where the route takes one, but never past `exp`. A route that
    /// opens does not open for a token that is known to be invalid, however long.
    pub(super) fn or_stale_token(
        &mut self,
        key: FactKey,
        rules: &TokenRules,
        refusal: Refusal,
        now: Timestamp,
    ) -> Result<Finding, Refusal> {
        if !matches!(refusal, Refusal::Outage(_)) {
            return Err(refusal);
        }
        if rules.open_on_outage {
            let skew = rules.requirement.clock_skew;
            match self.tokens.last_known(key) {
                Some(None) => return Err(Denial::TokenInactive.into()),
                Some(Some(info)) if info.is_past(skew, now) => return Err(Denial::TokenExpired.into()),
                _ => {}
            }
        }
        match self.tokens.stale(key, &rules.token_lifetime, now) {
            Some((info, started)) if !info.is_past(Duration::ZERO, now) => {
                let fact = Fact::kept(Some(info.clone()), started);
                Ok(Finding { fact, kept_as: Some(key), is_stale: true })
            }
            _ => Err(refusal),
        }
    }

    /// What an outage leaves of a permission.
    pub(super) fn is_stale_permission(
        &mut self,
        key: FactKey,
        rules: &TokenRules,
        refusal: &Refusal,
        now: Timestamp,
    ) -> bool {
        matches!(refusal, Refusal::Outage(_))
            && self.permissions.stale(key, &rules.permission_lifetime, now).is_some()
    }

    /// The identity headers of an admitted bearer.
    pub(super) fn rendered(
        &mut self,
        policy: &Policy,
        inputs: &Inputs,
        identity: &Identity,
        finding: &Finding,
    ) -> Result<Rc<[Header]>, Refusal> {
        let key = finding.kept_as.filter(|_| policy.renders_token_alone);
        let started = finding.fact.started();
        if let Some(headers) = key.and_then(|key| self.renderings.get(key, started, policy.id)) {
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
            self.renderings.put(key, started, policy.id, Rc::clone(&headers));
        }
        Ok(headers)
    }
}

/// Writes an answer to its slot, unless what stands there is to stay.
fn write(slots: &dyn super::SharedStore, place: &SharedKey, entry: &SharedEntry, now: Timestamp) {
    let name = place.name();
    for _ in 0..WRITES {
        let there = slots.get(&name);
        let bytes = there.as_ref().map(|(bytes, _)| bytes.as_slice());
        let Some(value) = place.replace(bytes, entry, now) else { return };
        if slots.compare_and_set(&name, &value, there.map(|(_, version)| version)) {
            return;
        }
    }
}

/// How often a write is tried that another worker comes before.
const WRITES: usize = 4;
