//! Permits: what unlocks the upstream is a value that only a proof can make.

use crate::introspect::Identity;
use crate::permission::Granted;
use crate::policy::{NoRules, Route, TokenRules};
use crate::refusal::Reason;
use crate::webhook::Verified;

/// Leave to forward one request.
#[derive(Clone, Debug)]
pub struct Permit {
    grant: Grant,
}

#[derive(Clone, Debug)]
enum Grant {
    Public,
    Anonymous,
    Preflight,
    Identified,
    Webhook(Verified),
}

impl Permit {
    /// For a route that asks for nothing.
    pub fn public(_: &NoRules) -> Self {
        Self { grant: Grant::Public }
    }

    /// For a request without a credential; `None` where the route asks for one.
    pub fn anonymous(rules: &TokenRules) -> Option<Self> {
        rules.optional.then_some(Self { grant: Grant::Anonymous })
    }

    /// For a CORS preflight; `None` where the route does not let those pass.
    pub fn preflight(route: &Route) -> Option<Self> {
        route.preflight.then_some(Self { grant: Grant::Preflight })
    }

    /// For a bearer who was admitted and has every permission that the route asks for.
    pub fn identified(_: &Identity, _: Granted) -> Self {
        Self { grant: Grant::Identified }
    }

    /// For a delivery whose signature holds.
    pub fn webhook(verified: Verified) -> Self {
        Self { grant: Grant::Webhook(verified) }
    }

    /// The reason for which the request passes.
    pub fn reason(&self) -> Reason {
        match self.grant {
            Grant::Public => Reason::Public,
            Grant::Anonymous => Reason::Anonymous,
            Grant::Preflight => Reason::Preflight,
            Grant::Identified => Reason::Authenticated,
            Grant::Webhook(_) => Reason::WebhookVerified,
        }
    }

    /// What a verified delivery tells the service.
    pub fn verified(&self) -> Option<&Verified> {
        match &self.grant {
            Grant::Webhook(verified) => Some(verified),
            _ => None,
        }
    }
}
