//! The kinds of facts, and what differs between them.

use crate::cache::shared::{SubjectSlot, Subjects};
use crate::cache::{Cache, Lifetime};
use crate::claims::TokenInfo;
use crate::hash::FactKey;
use crate::policy::{Bound, Bounds, TokenRules};
use crate::rate_limit::RecentTokens;
use crate::refusal::{Denial, DeniedCheck, Refusal};
use crate::telemetry::FactLabel;
use crate::time::Timestamp;
use std::time::Duration;

/// A kind of fact. All kinds take one path from the caches to the answer; here is what differs.
pub(super) trait FactKind {
    /// What a positive answer holds.
    type Value: Clone;

    /// What the metrics call it.
    const LABEL: FactLabel;

    fn cache(caches: &mut Caches) -> &mut Cache<Self::Value>;

    fn bound(bounds: &Bounds) -> Bound;

    fn lifetime(rules: &TokenRules) -> &Lifetime;

    /// The value of bytes that [`Self::payload`] gave, perhaps in another worker.
    fn unpack(payload: &[u8]) -> Option<Self::Value>;

    /// What the other workers are given; `None` where the value cannot be judged, and so is not
    /// worth keeping.
    fn payload(value: &Self::Value) -> Option<&[u8]>;

    /// Whether a positive answer within its lifetime still counts.
    fn counts(_value: &Self::Value, _started: Timestamp, _rules: &TokenRules, _now: Timestamp) -> bool {
        true
    }

    /// Where it stands whether what is known about the subject is over. `value`: what a positive
    /// answer holds. `asked`: of a question whose subject is known before its answer.
    fn subject(
        value: Option<&Self::Value>,
        asked: Option<SubjectSlot>,
        subjects: &Subjects,
    ) -> Option<SubjectSlot>;

    /// Whether a positive answer beyond its lifetime may count.
    fn may_be_stale(_value: &Self::Value, _now: Timestamp) -> bool {
        true
    }

    /// Why a route that opens does not open for what was heard last: `Some(None)` is a no.
    fn forbids_opening(
        last: Option<Option<&Self::Value>>,
        rules: &TokenRules,
        now: Timestamp,
    ) -> Option<Refusal>;

    /// Notes what was heard about a key.
    fn note(_recent: &mut RecentTokens, _key: FactKey, _is_positive: bool) {}
}

/// Facts about tokens, of introspections and of sessions.
pub(super) enum TokenFact {}

/// Facts about permissions.
pub(super) enum PermissionFact {}

/// This worker's caches.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Caches {
    pub(super) tokens: Cache<TokenInfo>,
    pub(super) permissions: Cache<()>,
}

impl FactKind for TokenFact {
    type Value = TokenInfo;

    const LABEL: FactLabel = FactLabel::Token;

    fn cache(caches: &mut Caches) -> &mut Cache<TokenInfo> {
        &mut caches.tokens
    }

    fn bound(bounds: &Bounds) -> Bound {
        bounds.tokens
    }

    fn lifetime(rules: &TokenRules) -> &Lifetime {
        &rules.token_lifetime
    }

    fn unpack(payload: &[u8]) -> Option<TokenInfo> {
        TokenInfo::unpack(payload)
    }

    fn payload(info: &TokenInfo) -> Option<&[u8]> {
        let is_readable = info.time("exp").is_ok() && info.time("nbf").is_ok();
        is_readable.then(|| info.packed())
    }

    /// A fact that has outlived its token is none. A provider that calls a token active which had
    /// expired already is believed about the latter, and not asked at every request.
    fn counts(info: &TokenInfo, started: Timestamp, rules: &TokenRules, now: Timestamp) -> bool {
        let skew = rules.requirement.clock_skew;
        if !info.is_past(skew, now) {
            return true;
        }
        let is_recent = now.saturating_since(started) <= rules.token_lifetime.negative_ttl;
        is_recent && info.is_past(skew, started)
    }

    fn subject(
        info: Option<&TokenInfo>,
        _asked: Option<SubjectSlot>,
        subjects: &Subjects,
    ) -> Option<SubjectSlot> {
        info?.subject().ok().flatten().map(|subject| subjects.slot(&subject))
    }

    fn may_be_stale(info: &TokenInfo, now: Timestamp) -> bool {
        !info.is_past(Duration::ZERO, now)
    }

    /// An active token may have been no access token, bound to a key, or not valid yet: the
    /// provider called it active, and no request passed by it.
    fn forbids_opening(
        last: Option<Option<&TokenInfo>>,
        rules: &TokenRules,
        now: Timestamp,
    ) -> Option<Refusal> {
        match last? {
            None => Some(Denial::TokenInactive.into()),
            Some(info) => rules.requirement.validate_token(info, now).err(),
        }
    }

    fn note(recent: &mut RecentTokens, key: FactKey, is_positive: bool) {
        if is_positive { recent.note(key) } else { recent.forget(key) }
    }
}

impl FactKind for PermissionFact {
    type Value = ();

    const LABEL: FactLabel = FactLabel::Permission;

    fn cache(caches: &mut Caches) -> &mut Cache<()> {
        &mut caches.permissions
    }

    fn bound(bounds: &Bounds) -> Bound {
        bounds.permissions
    }

    fn lifetime(rules: &TokenRules) -> &Lifetime {
        &rules.permission_lifetime
    }

    fn unpack(_: &[u8]) -> Option<()> {
        Some(())
    }

    fn subject(_value: Option<&()>, asked: Option<SubjectSlot>, _subjects: &Subjects) -> Option<SubjectSlot> {
        asked
    }

    fn payload((): &()) -> Option<&[u8]> {
        Some(&[])
    }

    fn forbids_opening(last: Option<Option<&()>>, _rules: &TokenRules, _now: Timestamp) -> Option<Refusal> {
        last?.is_none().then(|| Denial::PermissionDenied(DeniedCheck::Former).into())
    }
}
