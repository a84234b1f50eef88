//! A webhook's delivery whose body is being hashed.

use super::Next;
use crate::flow::bodies::{Body, Claim};
use crate::flow::services::Services;
use crate::refusal::{Denial, Refusal, Unusable};
use crate::time::Timestamp;
use crate::verdict::{Passage, Permit, RequestContext};
use crate::webhook::{Verification, Webhook};
use std::time::Duration;

/// The state.
#[cfg_attr(test, derive(Clone))]
pub(in crate::flow) struct Receiving {
    context: RequestContext,
    verification: Verification,
    /// What it counts as; of what is held all is hashed.
    body: Body,
    /// When it is decided at the latest.
    deadline: Timestamp,
    /// When it is decided if its body has not begun.
    first_byte: Timestamp,
    /// The longest body that is taken.
    limit: usize,
    /// Whether any body callback came: on a plugin entry without
    /// `allow_on_headers_stop_iteration` none ever does.
    is_heard: bool,
    /// The size of the request right after its head.
    size_at_head: Option<u64>,
}

/// How far a body has come.
pub(in crate::flow) struct BodyProgress<'b> {
    /// Bytes that the host holds by now.
    pub(in crate::flow) received: usize,
    /// Whether that is all.
    pub(in crate::flow) is_complete: bool,
    /// Copies a range of them: from where, and how many.
    pub(in crate::flow) fetch: &'b mut dyn FnMut(usize, usize) -> Option<Vec<u8>>,
}

impl Receiving {
    /// Begins to receive, where one body more may be received.
    pub(in crate::flow) fn start(
        context: RequestContext,
        webhook: &Webhook,
        verification: Verification,
        body: Body,
        services: &Services<'_>,
    ) -> Next {
        let state = Self {
            context,
            verification,
            body,
            deadline: services.now.saturating_add(webhook.body_timeout),
            first_byte: services.now.saturating_add(webhook.body_timeout.min(FIRST_BYTE)),
            limit: webhook.max_body_bytes,
            is_heard: false,
            size_at_head: None,
        };
        if services.counts.has_room_for_a_body(Claim::Place(body)) {
            Next::NeedBody(state)
        } else {
            state.refuse(Unusable::BodyMemory.into())
        }
    }

    /// More of the body.
    pub(in crate::flow) fn body(mut self, progress: BodyProgress<'_>, services: &Services<'_>) -> Next {
        self.is_heard = true;
        let is_complete = progress.is_complete;
        match self.hash(progress, services) {
            Err(refusal) => self.refuse(refusal),
            Ok(()) if is_complete => self.complete(),
            Ok(()) => Next::NeedBody(self),
        }
    }

    /// The room that a body needs which has come so far: none where that is all, since it is then
    /// decided at once, or where it is too long.
    pub(in crate::flow) fn claim(&self, received: usize, is_complete: bool) -> Option<Claim> {
        let needs_room = !is_complete && received <= self.limit && received > self.body.held;
        needs_room.then_some(Claim::Bytes(Body { held: received, ..self.body }))
    }

    fn hash(&mut self, progress: BodyProgress<'_>, services: &Services<'_>) -> Result<(), Refusal> {
        let BodyProgress { received, is_complete, fetch } = progress;
        // What was hashed is still held: a host that says it holds less now causes this.
        let new = received.checked_sub(self.body.held).ok_or(Unusable::Internal)?;
        if received > self.limit {
            return Err(Denial::BodyTooLarge.into());
        }
        if new == 0 {
            return Ok(());
        }
        if self.claim(received, is_complete).is_some_and(|claim| !services.counts.has_room_for_a_body(claim))
        {
            return Err(Unusable::BodyMemory.into());
        }
        // A host that hands over fewer bytes than it says it holds causes this.
        let chunk =
            fetch(self.body.held, new).filter(|chunk| chunk.len() == new).ok_or(Unusable::Internal)?;
        self.verification.feed(&chunk);
        self.body.held = received;
        Ok(())
    }

    /// The body is complete.
    pub(in crate::flow) fn complete(self) -> Next {
        let verified = self.verification.finish();
        let outcome = verified.map(|verified| Passage::Permit(Permit::webhook(verified)));
        Next::Decided(self.context, outcome.map_err(Refusal::from))
    }

    /// How many bytes of the request have arrived, its head included. Where that grows and no body
    /// callback comes, none ever will.
    pub(in crate::flow) fn measured(mut self, total_size: u64) -> Next {
        let size_at_head = *self.size_at_head.get_or_insert(total_size);
        if !self.is_heard && total_size > size_at_head {
            return self.refuse(Unusable::NoBodyCallbacks.into());
        }
        Next::NeedBody(self)
    }

    pub(super) fn time_out(self) -> Next {
        self.refuse(Denial::BodyTimeout.into())
    }

    pub(super) fn refuse(self, refusal: Refusal) -> Next {
        Next::Decided(self.context, Err(refusal))
    }

    pub(super) fn context(&self) -> &RequestContext {
        &self.context
    }

    pub(super) fn context_mut(&mut self) -> &mut RequestContext {
        &mut self.context
    }

    pub(super) fn deadline(&self) -> Timestamp {
        if self.body.held == 0 { self.first_byte } else { self.deadline }
    }

    pub(super) fn set_back(&mut self, by: Duration) {
        self.deadline = self.deadline.saturating_sub(by);
        self.first_byte = self.first_byte.saturating_sub(by);
    }

    pub(super) fn counted(&self) -> Body {
        self.body
    }

    /// Whether no body callback has come yet.
    pub(super) fn is_unheard(&self) -> bool {
        !self.is_heard
    }
}

/// How long a body may take to begin: a head alone costs its sender nothing, and takes a place.
const FIRST_BYTE: Duration = Duration::from_secs(2);
