//! A request whose route opens while the provider is away, and whose call has failed: whether the
//! provider is away, its probe has to tell.

use super::{Bearer, Next, Request};
use crate::breaker::{Purpose, Standing};
use crate::flow::services::Services;
use crate::hash::Fingerprint;
use crate::refusal::{Outage, Unusable};
use crate::verdict::{FailOpen, Passage};

/// The state.
#[cfg_attr(test, derive(Clone))]
pub(in crate::flow) struct Opening {
    bearer: Bearer,
    outage: Outage,
    /// Whose answer is missing.
    endpoint: Fingerprint,
}

impl Opening {
    pub(super) fn new(bearer: Bearer, outage: Outage, endpoint: Fingerprint) -> Self {
        Self { bearer, outage, endpoint }
    }

    /// Goes on by what is known about the endpoint now.
    pub(in crate::flow) fn resume(self, services: &mut Services<'_>) -> Next {
        match services.standing(self.endpoint) {
            Standing::Away(away) => {
                let Bearer { context, rules, inputs, .. } = self.bearer;
                let open = FailOpen::check(self.outage, away, &rules, &inputs);
                Next::Decided(context, open.map(Passage::FailOpen))
            }
            Standing::Unclear if services.now < self.bearer.deadline => {
                let purpose = if self.bearer.is_new { Purpose::NewToken } else { Purpose::Permission };
                if !services.counts.has_room(purpose) {
                    return self.bearer.refuse(Unusable::OverLimit.into());
                }
                services.await_probe(self.endpoint);
                Next::Wait(Request::Opening(self))
            }
            Standing::Unclear | Standing::There => self.bearer.refuse(self.outage.into()),
        }
    }

    pub(super) fn bearer(&self) -> &Bearer {
        &self.bearer
    }

    pub(super) fn bearer_mut(&mut self) -> &mut Bearer {
        &mut self.bearer
    }

    pub(super) fn into_bearer(self) -> Bearer {
        self.bearer
    }
}
