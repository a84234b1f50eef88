//! Fail-open: a request without a permit is forwarded only with a proof, too.

use crate::breaker::Away;
use crate::policy::{PermissionRules, TokenRules};
use crate::refusal::{Outage, Refusal};
use crate::template::Inputs;

/// Allows forwarding a request because the provider is unavailable and its route fails open.
#[derive(Clone, Debug)]
pub struct FailOpen {
    outage: Outage,
}

impl FailOpen {
    /// Checks whether this request may be forwarded without an answer. Only this creates a
    /// [`FailOpen`], and only with the proof that the endpoint is away.
    ///
    /// # Errors
    /// The outage itself if the route does not fail open; a denial if the request's own values
    /// forbid it, since no answer of the provider would allow it either.
    pub(crate) fn check(
        outage: Outage,
        _: Away,
        rules: &TokenRules,
        inputs: &Inputs,
    ) -> Result<Self, Refusal> {
        if !rules.open_on_outage {
            return Err(outage.into());
        }
        for template in rules.requirement.claims.iter().flat_map(|(_, templates)| templates) {
            template.resolve(inputs, None)?;
        }
        for check in rules.permissions.iter().flat_map(PermissionRules::checks) {
            check.validate_inputs(inputs)?;
        }
        Ok(Self { outage })
    }

    /// The outage on which the route failed open.
    pub(super) fn outage(&self) -> Outage {
        self.outage
    }
}
