//! What the operator sees: metrics, and of a decision its filter state and log line.

mod labels;
mod metrics;

pub use labels::{Label, Labels};
pub use metrics::{
    CacheOutcome, CallLabel, Change, Configuration, FactLabel, METRICS, Metric, MetricKind, ProbeLabel,
    PurposeLabel, Series, Version, WaitingLabel,
};

use crate::refusal::Reason;
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
    pub(crate) subject: Option<String>,
    /// Which secret a webhook's signature holds under, counted from 0.
    pub(crate) secret_index: Option<u16>,
    pub(crate) eviction: Option<Eviction>,
    /// Whether the filter state is set, for the access log.
    pub(crate) recorded: bool,
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

    /// The token's `sub`, if a token was introspected.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// The counters that grow by one.
    pub fn counters(&self) -> impl Iterator<Item = Series> {
        let Self { decision, reason, route_label, .. } = *self;
        let webhook = self.webhook.map(|webhook| Series::Webhook(webhook, reason, self.secret_index));
        let eviction = self.eviction.map(Series::Eviction);
        std::iter::once(Series::Decision(decision, reason, route_label)).chain(webhook).chain(eviction)
    }

    /// JSON for the filter state `wasm.avnology_gate`; `None` if the event is not recorded.
    pub fn filter_state(&self) -> Option<String> {
        let state = State {
            decision: self.decision.id(),
            reason: self.reason.id(),
            route: self.route(),
            subject: self.subject(),
            secret_index: self.secret_index,
        };
        // Serializing strings and a number cannot fail.
        self.recorded.then(|| serde_json::to_string(&state).unwrap_or_default())
    }

    /// One line for the log, at debug level.
    pub fn log_line(&self) -> String {
        format!(
            "avnology_gate: {} {} route={}",
            self.decision.id(),
            self.reason.id(),
            self.route().unwrap_or("-")
        )
    }
}

#[derive(serde::Serialize)]
struct State<'e> {
    decision: &'static str,
    reason: &'static str,
    route: Option<&'e str>,
    subject: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_index: Option<u16>,
}
