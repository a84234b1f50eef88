//! Permits: only a value that requires a proof lets a request reach the upstream.

use crate::introspect::Identity;
use crate::permission::Granted;
use crate::policy::{NoRules, Route, TokenRules};
use crate::refusal::Reason;
use crate::webhook::Verified;

/// Allows forwarding one request.
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
    /// For a route that requires nothing.
    pub fn public(_: &NoRules) -> Self {
        Self { grant: Grant::Public }
    }

    /// For a request without a credential; `None` if the route requires one.
    pub fn anonymous(rules: &TokenRules) -> Option<Self> {
        rules.optional.then_some(Self { grant: Grant::Anonymous })
    }

    /// For a CORS preflight; `None` if the route does not allow those.
    pub fn preflight(route: &Route) -> Option<Self> {
        route.preflight.then_some(Self { grant: Grant::Preflight })
    }

    /// For a bearer who was admitted and has every permission that the route requires.
    pub fn identified(_: &Identity, _: Granted) -> Self {
        Self { grant: Grant::Identified }
    }

    /// For a delivery whose signature is valid.
    pub fn webhook(verified: Verified) -> Self {
        Self { grant: Grant::Webhook(verified) }
    }

    /// The reason why the request is allowed.
    pub fn reason(&self) -> Reason {
        match self.grant {
            Grant::Public => Reason::Public,
            Grant::Anonymous => Reason::Anonymous,
            Grant::Preflight => Reason::Preflight,
            Grant::Identified => Reason::Authenticated,
            Grant::Webhook(_) => Reason::WebhookVerified,
        }
    }

    /// The proof of a verified delivery, if this permit has one.
    pub fn verified(&self) -> Option<&Verified> {
        match &self.grant {
            Grant::Webhook(verified) => Some(verified),
            _ => None,
        }
    }
}
