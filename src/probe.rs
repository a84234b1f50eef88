//! The gate's own question to an endpoint: whether it is there at all.
//!
//! No caller chooses anything in it, so no caller can choose that it fails.

use crate::breaker::ProbeOutcome;
use crate::hash::Seed;
use crate::http::{CallFailure, Callout, Response};
use crate::introspect::{IntrospectionEndpoint, SessionEndpoint};
use crate::permission::PermissionEndpoint;
use crate::provider::Endpoint;
use crate::secret::{SESSION_PREFIX, Secret};
use std::sync::Arc;

/// How one endpoint is probed.
#[derive(Clone, Debug)]
pub(crate) enum Probe {
    /// By a token that nobody has.
    Introspection(Arc<IntrospectionEndpoint>),
    /// By a session token that nobody has.
    Session(Arc<SessionEndpoint>),
    /// By a relationship that nothing has, of a kind that the provider knows.
    Permission {
        /// The endpoint.
        endpoint: Arc<PermissionEndpoint>,
        /// Of the first check that is configured.
        namespace: String,
        /// Of the same one.
        relation: String,
    },
}

impl Probe {
    /// The endpoint that it asks.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Introspection(endpoint) => &endpoint.endpoint,
            Self::Session(endpoint) => &endpoint.endpoint,
            Self::Permission { endpoint, .. } => &endpoint.endpoint,
        }
    }

    /// The request. Only a probe that reached nobody is sent once more, to another address: one
    /// that refuses connections is an ordinary rolling deploy, and a balancer likes it for being
    /// idle. Any answer, and silence, is final.
    pub(crate) fn callout(&self, seed: Seed) -> Callout {
        let name = self.endpoint().probe_name(seed);
        let callout = match self {
            Self::Introspection(endpoint) => endpoint.call(&Secret::new(name)),
            Self::Session(endpoint) => endpoint.call(&Secret::new(format!("{SESSION_PREFIX}{name}"))),
            Self::Permission { endpoint, namespace, relation } => endpoint.probe(namespace, relation, &name),
        };
        Callout { retries: 1, retries_unsent_only: true, ..callout }
    }
}

/// What became of a probe. `is_alone`: whether nothing else is under way at its cluster, so that no
/// caller can be why it was not started.
pub(crate) fn outcome_of(answer: &Result<Response<'_>, CallFailure>, is_alone: bool) -> ProbeOutcome {
    match answer {
        Ok(Response { status: 500.., .. }) => ProbeOutcome::ServerError,
        Ok(_) | Err(CallFailure::TooLarge) => ProbeOutcome::Answered,
        Err(CallFailure::NotStarted) if !is_alone => ProbeOutcome::Unknown,
        Err(
            CallFailure::NotStarted
            | CallFailure::Unreachable
            | CallFailure::Timeout
            | CallFailure::Reset
            | CallFailure::Malformed,
        ) => ProbeOutcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_below_500_says_that_the_endpoint_is_there() {
        let answer = |status| Ok(Response { status, retry_after: None, body: b"" });
        for status in [200, 302, 400, 401, 403, 404, 408, 429, 499] {
            assert_eq!(outcome_of(&answer(status), true), ProbeOutcome::Answered, "{status}");
        }
        for status in [500, 503, 599] {
            assert_eq!(outcome_of(&answer(status), true), ProbeOutcome::ServerError, "{status}");
        }
        use CallFailure::{Malformed, NotStarted, Reset, Timeout, TooLarge, Unreachable};
        for failure in [Unreachable, Timeout, Reset, Malformed] {
            assert_eq!(outcome_of(&Err(failure), false), ProbeOutcome::Failed, "{failure:?}");
        }
        assert_eq!(outcome_of(&Err(TooLarge), true), ProbeOutcome::Answered);
        assert_eq!(outcome_of(&Err(NotStarted), true), ProbeOutcome::Failed);
        assert_eq!(outcome_of(&Err(NotStarted), false), ProbeOutcome::Unknown);
    }
}
