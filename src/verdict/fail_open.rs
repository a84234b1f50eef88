//! Failing open: leave to pass without a permit is a proof too.

use crate::policy::{PermissionRules, TokenRules};
use crate::refusal::{Outage, Refusal};
use crate::template::Inputs;

/// Leave to forward a request because the provider is away, and its route lets such requests pass.
#[derive(Clone, Debug)]
pub struct FailOpen {
    outage: Outage,
}

impl FailOpen {
    /// Judges whether this request may pass without an answer: the one way to make a [`FailOpen`].
    ///
    /// # Errors
    /// The outage itself where the route does not open; a denial where the request's own values
    /// forbid it, since no answer of the provider's would allow it either.
    pub(crate) fn check(outage: Outage, rules: &TokenRules, inputs: &Inputs) -> Result<Self, Refusal> {
        if !rules.open_on_outage {
            return Err(outage.into());
        }
        for (_, template) in &rules.requirement.claims {
            template.resolve(inputs, None)?;
        }
        for check in rules.permissions.iter().flat_map(PermissionRules::checks) {
            check.validate_inputs(inputs)?;
        }
        Ok(Self { outage })
    }

    /// What opened the route.
    pub(super) fn outage(&self) -> Outage {
        self.outage
    }
}
