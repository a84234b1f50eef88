//! The metrics: one table, from which the code, the documentation and the tests take them.
//!
//! A host's metric has a name and no labels. So labels are written into the name, as
//! `NAME.LABEL.VALUE.LABEL.VALUE`, in the order of the table; a label without a value is left out.
//! The `stats_tags` of the shipped bootstrap make labels of them again.

use super::labels::{Label, Labels};
use super::{Decision, Eviction};
use crate::refusal::Reason;
use std::borrow::Cow;

/// What a metric is, as Envoy and Prometheus call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down: the sum of what every virtual machine of the process has.
    Gauge,
    /// Its records are counted by size.
    Histogram,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name, without what the host puts in front.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($kind:ident $name:literal [$($label:literal)*] $variant:ident $(($($part:ident: $Part:ty),*))? => $help:literal;)*) => {
        /// Every metric.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: MetricKind::$kind,
            labels: &[$($label),*],
            help: $help,
        }),*];

        /// One series: a metric with the values of its labels.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Series { $(#[doc = $help] $variant $(($($Part),*))?),* }

        impl Series {
            /// Its line of the table.
            pub const fn metric(self) -> &'static Metric {
                match self {
                    $(Self::$variant { .. } => const {
                        &Metric {
                            name: $name,
                            kind: MetricKind::$kind,
                            labels: &[$($label),*],
                            help: $help,
                        }
                    },)*
                }
            }

            /// The values of its labels.
            fn values(self, labels: &Labels) -> Vec<Option<Cow<'_, str>>> {
                match self {
                    $(Self::$variant $(($($part),*))? => vec![$($($part.value(labels)),*)?],)*
                }
            }
        }
    };
}

metrics! {
    Counter "avnology_gate_decisions_total" ["decision" "reason" "route"]
        Decision(decision: Decision, reason: Reason, route: Option<Label>) =>
        "requests by what was decided, why, and the route if it has a name";
    Counter "avnology_gate_webhooks_total" ["webhook" "outcome" "secret"]
        Webhook(webhook: Label, outcome: Reason, secret: Option<u16>) =>
        "deliveries by webhook, reason, and the secret under which the signature is valid, counted from 0";
    Counter "avnology_gate_evictions_total" ["outcome"]
        Eviction(eviction: Eviction) =>
        "events that are to end cached answers: `done`, or `unmapped` if they name nobody whom a token names";
    Counter "avnology_gate_cache_total" ["kind" "outcome"]
        Cache(kind: FactLabel, outcome: CacheOutcome) =>
        "questions by how the cache answered them; a look-up is a `hit`, `shared` (from another worker) or a `miss`, and the others come on top";
    Counter "avnology_gate_callouts_total" ["endpoint" "outcome"]
        Callout(endpoint: Label, outcome: CallLabel) =>
        "calls to the provider that have ended: `answered`, or the reason that each refusal would have";
    Counter "avnology_gate_probes_total" ["endpoint" "outcome"]
        Probe(endpoint: Label, outcome: ProbeLabel) =>
        "the gate's own questions whether an endpoint is there";
    Counter "avnology_gate_configurations_total" ["outcome"]
        Configuration(outcome: Configuration) =>
        "`accepted`: by each worker, with its first request under that policy; `refused`: once for each attempt";
    Gauge "avnology_gate_endpoint_away" ["endpoint"]
        Away(endpoint: Label) =>
        "for how many workers an endpoint is away: its breaker is open";
    Gauge "avnology_gate_cache_entries" ["kind"]
        Entries(kind: FactLabel) =>
        "answers kept, by all workers together";
    Gauge "avnology_gate_requests_waiting" ["class"]
        Waiting(class: WaitingLabel) =>
        "requests that are undecided, by what their places are counted for";
    Gauge "avnology_gate_callouts_in_flight" ["purpose"]
        InFlight(purpose: PurposeLabel) =>
        "calls to the provider under way";
    Gauge "avnology_gate_webhook_held_bytes" []
        HeldBytes =>
        "bytes of webhook bodies that are held until their signature is checked";
    Gauge "avnology_gate_policy_info" ["digest" "version"]
        Policy(digest: Label, version: Version) =>
        "the policies in force: one for each worker and one for the main thread, with the digest that `avnology-gate check` prints and the version of the module";
    Histogram "avnology_gate_decision_wait_microseconds" []
        DecisionWait =>
        "how long a request was held that could not be decided at once; webhooks apart";
    Histogram "avnology_gate_callout_duration_microseconds" ["endpoint"]
        CalloutDuration(endpoint: Label) =>
        "from the start of a call to the provider to its end";
    Histogram "avnology_gate_webhook_wait_microseconds" []
        WebhookWait =>
        "from a delivery's head to its decision, the time in which its body arrives included";
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$word_doc])* $word,)* }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$word),*];

            /// The stable id.
            pub const fn id(self) -> &'static str {
                match self { $(Self::$word => $text,)* }
            }
        }

        impl Value for $name {
            fn value(self, _: &Labels) -> Option<Cow<'_, str>> {
                Some(self.id().into())
            }
        }
    )*};
}

words! {
    /// What an answer is about.
    FactLabel {
        /// A token or a session.
        Token "token",
        /// A permission.
        Permission "permission",
    }
    /// How a cache has answered a question. Of several of a request the last one in this order
    /// stands for all.
    CacheOutcome {
        /// By what this worker knows.
        Hit "hit",
        /// By what another worker has heard.
        Shared "shared",
        /// It did not, but the same was being asked already.
        Coalesced "coalesced",
        /// Not.
        Miss "miss",
        /// By what is older than its lifetime, since the provider did not answer.
        Stale "stale",
        /// It answered, and the same is asked again in the background.
        Refresh "refresh",
        /// What it knew was over, since an event has said so.
        Evicted "evicted",
    }
    /// What has become of a probe.
    ProbeLabel {
        /// The endpoint is there.
        Answered "answered",
        /// It is not.
        Failed "failed",
        /// It shows nothing.
        Unclear "unclear",
    }
    /// What has become of a configuration.
    Configuration {
        /// It is in force.
        Accepted "accepted",
        /// It has problems, which the log names; what was in force before stays.
        Refused "refused",
    }
    /// What an undecided request is counted as.
    WaitingLabel {
        /// It waits with a token that was not seen active lately.
        New "new",
        /// It waits for the provider, with any other.
        Known "known",
        /// Its body is received.
        Receiving "receiving",
        /// It is a preflight whose end is still to come.
        Ending "ending",
    }
    /// What a call is made for.
    PurposeLabel {
        /// A token that was not seen active lately.
        NewToken "new_token",
        /// A token that was.
        Refresh "refresh",
        /// A permission.
        Permission "permission",
    }
}

/// How a call to the provider has ended: `None` where its answer is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallLabel(pub Option<Reason>);

/// The version of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version;

/// What a label may hold.
trait Value {
    /// Its text; `None` if it is left out.
    fn value(self, labels: &Labels) -> Option<Cow<'_, str>>;
}

impl Value for Label {
    fn value(self, labels: &Labels) -> Option<Cow<'_, str>> {
        Some(labels.text(self).into())
    }
}

impl Value for Option<Label> {
    fn value(self, labels: &Labels) -> Option<Cow<'_, str>> {
        self?.value(labels)
    }
}

impl Value for Option<u16> {
    fn value(self, _: &Labels) -> Option<Cow<'_, str>> {
        Some(self?.to_string().into())
    }
}

impl Value for Decision {
    fn value(self, _: &Labels) -> Option<Cow<'_, str>> {
        Some(self.id().into())
    }
}

impl Value for Reason {
    fn value(self, _: &Labels) -> Option<Cow<'_, str>> {
        Some(self.id().into())
    }
}

impl Value for Eviction {
    fn value(self, _: &Labels) -> Option<Cow<'_, str>> {
        Some(self.id().into())
    }
}

impl Value for CallLabel {
    fn value(self, _: &Labels) -> Option<Cow<'_, str>> {
        Some(self.0.map_or("answered", Reason::id).into())
    }
}

impl Value for Version {
    fn value(self, _: &Labels) -> Option<Cow<'_, str>> {
        Some(env!("CARGO_PKG_VERSION").into())
    }
}

impl Series {
    /// The name, as the host is asked to define it.
    pub(crate) fn name(self, labels: &Labels) -> String {
        let metric = self.metric();
        let mut name = metric.name.to_owned();
        for (label, value) in metric.labels.iter().zip(self.values(labels)) {
            if let Some(value) = value {
                for part in [".", label, ".", &value] {
                    name.push_str(part);
                }
            }
        }
        name
    }
}

/// How a series changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A counter grows by this much.
    Grow(u64),
    /// A gauge moves by this much.
    Move(i64),
    /// A histogram has one record more, of this size.
    Record(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_tables_labels_in_order_and_none_without_a_value() {
        let mut labels = Labels::default();
        let route = labels.route("projects");
        let name = |series: Series| series.name(&labels);
        let decision = |route| Series::Decision(Decision::Deny, Reason::NoRoute, route);
        assert_eq!(name(decision(None)), "avnology_gate_decisions_total.decision.deny.reason.no_route");
        assert_eq!(
            name(decision(Some(route))),
            "avnology_gate_decisions_total.decision.deny.reason.no_route.route.projects"
        );
        assert_eq!(name(Series::HeldBytes), "avnology_gate_webhook_held_bytes");
        let policy = name(Series::Policy(route, Version));
        assert_eq!(
            policy,
            format!("avnology_gate_policy_info.digest.projects.version.{}", env!("CARGO_PKG_VERSION"))
        );
    }

    /// `promtool` asks for the same of names and units.
    #[test]
    fn names_are_as_prometheus_wants_them() {
        for Metric { name, kind, labels, help } in METRICS {
            assert!(name.starts_with("avnology_gate_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
            assert_eq!(name.ends_with("_microseconds"), *kind == MetricKind::Histogram, "{name}");
            assert!(labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_lowercase())), "{name}");
            assert!(!help.is_empty(), "{name}");
        }
    }
}
