//! From a complete body to a decision: the steps behind a webhook's signature.
//!
//! ```text
//! signature ─▶ event ─▶ challenge ─▶ type taken? ─▶ the service
//! ```

use super::services::Services;
use crate::refusal::{Acknowledgement, Denial, Refusal, Unusable};
use crate::verdict::{Passage, Permit, RequestContext};
use crate::webhook::{Verification, Webhook};

/// Judges a delivery whose body is complete. `fetch`: copies the body, all of which is hashed.
pub(super) fn deliver(
    webhook: &Webhook,
    verification: Verification,
    fetch: &mut dyn FnMut() -> Option<Vec<u8>>,
    context: &mut RequestContext,
    _services: &mut Services<'_>,
) -> Result<Passage, Refusal> {
    let mut delivery = verification.finish()?;
    // A host that does not hand over what it held until now causes this.
    let body = if webhook.reads_body() { fetch().ok_or(Unusable::Internal)? } else { Vec::new() };
    let event = delivery.event(webhook, &body).map_err(|_| Denial::UnreadableEvent)?;
    if let Some(challenge) = event.challenge {
        context.challenge = Some(challenge);
        return Err(Acknowledgement::Challenge.into());
    }
    if !webhook.events.as_ref().is_none_or(|events| events.takes(event.kind.as_deref())) {
        return Err(Acknowledgement::EventIgnored.into());
    }
    Ok(Passage::Permit(Permit::webhook(delivery.into_verified())))
}
