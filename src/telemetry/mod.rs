//! What the operator sees: metrics, and of a decision its filter state and log line.

mod labels;
mod metrics;

pub use labels::{Label, Labels};
pub use metrics::{
    CacheOutcome, CallLabel, Change, Configuration, FactLabel, METRICS, Metric, MetricKind, ProbeLabel,
    PurposeLabel, Series, Version, WaitingLabel,
};

use crate::refusal::Reason;
use std::borrow::Cow;
use std::sync::Arc;

/// What was done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Decision {
    /// Every rule is met; forwarded.
    Allow,
    /// Refused.
    Deny,
    /// Would have been refused; forwarded, because the rule is in shadow mode.
    ShadowDeny,
    /// The provider is unavailable; forwarded, because the route fails open.
    FailOpen,
}

impl Decision {
    /// The stable id.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::ShadowDeny => "shadow_deny",
            Self::FailOpen => "fail_open",
        }
    }
}

/// What an event of a webhook ended that was cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Eviction {
    /// What was known about its subjects.
    Done,
    /// Nothing: it names nobody whom a token names.
    Unmapped,
}

impl Eviction {
    /// The stable id.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unmapped => "unmapped",
        }
    }
}

/// What was decided about one request, and why. It contains no token, secret or body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub(crate) decision: Decision,
    pub(crate) reason: Reason,
    pub(crate) route: Option<Arc<str>>,
    /// The route's label, if it has a name.
    pub(crate) route_label: Option<Label>,
    /// The label of the route's webhook.
    pub(crate) webhook: Option<Label>,
    /// Which secret a webhook's signature holds under, counted from 0.
    pub(crate) secret_index: Option<u16>,
    pub(crate) eviction: Option<Eviction>,
    /// What the access log and the log say besides; `None` where the filter state is not set.
    pub(crate) details: Option<Box<Details>>,
}

/// What is said of a request that was not plainly allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) subject: Option<String>,
    /// Which rule of the route is not met: its path in the route, and never a value.
    pub(crate) rule: Option<String>,
    /// How the caches answered.
    pub(crate) cache: Option<CacheOutcome>,
    /// How long the request waited for calls, in milliseconds.
    pub(crate) callout_ms: Option<u64>,
    /// The request's own `x-request-id`, if it is of the usual form.
    pub(crate) request_id: Option<String>,
    /// What tells the token from others.
    pub(crate) token_print: Option<u64>,
}

impl Event {
    /// What was done.
    pub fn decision(&self) -> Decision {
        self.decision
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The route's name, if a route was found and has one.
    pub fn route(&self) -> Option<&str> {
        self.route.as_deref()
    }

    /// The token's `sub`, if a token was introspected and the filter state is set.
    pub fn subject(&self) -> Option<&str> {
        self.details.as_ref()?.subject.as_deref()
    }

    /// The counters that grow by one.
    pub fn counters(&self) -> impl Iterator<Item = Series> {
        let Self { decision, reason, route_label, .. } = *self;
        let webhook = self.webhook.map(|webhook| Series::Webhook(webhook, reason, self.secret_index));
        let eviction = self.eviction.map(Series::Eviction);
        std::iter::once(Series::Decision(decision, reason, route_label)).chain(webhook).chain(eviction)
    }

    /// JSON for the filter state `wasm.avnology_gate`; `None` if that is not set.
    pub fn filter_state(&self) -> Option<String> {
        let details = self.details.as_deref()?;
        Some(json(&State {
            decision: self.decision.id(),
            reason: self.reason.id(),
            route: self.route(),
            subject: Some(details.subject.as_deref()),
            rule: details.rule.as_deref(),
            cache: details.cache.map(CacheOutcome::id),
            callout_ms: details.callout_ms,
            secret_index: self.secret_index,
            request_id: None,
            token: None,
            suppressed: 0,
        }))
    }

    /// The same, each member in a filter state of its own: its name, to which the host puts `wasm.`
    /// in front, and its value. An access log can make an object of them, and of text in text none.
    pub fn filter_states(&self) -> Vec<(&'static str, Cow<'_, str>)> {
        let Some(details) = self.details.as_deref() else { return Vec::new() };
        let number = |number: Option<u64>| number.map(|number| Cow::Owned(number.to_string()));
        let states = [
            ("avnology_gate", self.filter_state().map(Cow::Owned)),
            ("avnology_gate.decision", Some(Cow::Borrowed(self.decision.id()))),
            ("avnology_gate.reason", Some(Cow::Borrowed(self.reason.id()))),
            ("avnology_gate.route", self.route().map(Cow::Borrowed)),
            ("avnology_gate.subject", details.subject.as_deref().map(Cow::Borrowed)),
            ("avnology_gate.rule", details.rule.as_deref().map(Cow::Borrowed)),
            ("avnology_gate.cache", details.cache.map(|cache| Cow::Borrowed(cache.id()))),
            ("avnology_gate.callout_ms", number(details.callout_ms)),
            ("avnology_gate.secret_index", number(self.secret_index.map(u64::from))),
        ];
        states.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// One line for the log of everybody's requests, at debug level.
    pub fn log_line(&self) -> String {
        format!(
            "avnology_gate: {} {} route={}",
            self.decision.id(),
            self.reason.id(),
            self.route().unwrap_or("-")
        )
    }

    /// One line for the log about a request that was not allowed; `None` for one that was.
    /// `suppressed`: how many like it had none.
    pub(crate) fn refusal_line(&self, suppressed: u64) -> Option<String> {
        let details = self.details.as_deref().filter(|_| self.decision != Decision::Allow)?;
        let line = json(&State {
            decision: self.decision.id(),
            reason: self.reason.id(),
            route: self.route(),
            subject: None,
            rule: details.rule.as_deref(),
            cache: details.cache.map(CacheOutcome::id),
            callout_ms: details.callout_ms,
            secret_index: self.secret_index,
            request_id: details.request_id.as_deref(),
            token: details.token_print.map(|print| format!("{print:016x}")),
            suppressed,
        });
        Some(format!("avnology_gate: {line}"))
    }
}

/// Serializing strings and numbers cannot fail.
fn json(state: &State<'_>) -> String {
    serde_json::to_string(state).unwrap_or_default()
}

#[derive(serde::Serialize)]
struct State<'e> {
    decision: &'static str,
    reason: &'static str,
    route: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Option<&'e str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_index: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    suppressed: u64,
}

const fn is_zero(count: &u64) -> bool {
    *count == 0
}
