//! A webhook's delivery whose body is being hashed.

use super::Next;
use crate::flow::bodies::{Body, Claim};
use crate::flow::delivering::deliver;
use crate::flow::services::Services;
use crate::refusal::{Denial, Refusal, Unusable};
use crate::time::Timestamp;
use crate::verdict::RequestContext;
use crate::webhook::{Verification, Webhook};
use std::sync::Arc;
use std::time::Duration;

/// The state.
#[cfg_attr(test, derive(Clone))]
pub(in crate::flow) struct Receiving {
    context: RequestContext,
    webhook: Arc<Webhook>,
    verification: Verification,
    /// What it counts as; of what is held all is hashed.
    body: Body,
    /// When it is decided at the latest.
    deadline: Timestamp,
    /// When it is decided if its body has not begun.
    first_byte: Timestamp,
    /// Whether any body callback came: on a plugin entry without
    /// `allow_on_headers_stop_iteration` none ever does.
    is_heard: bool,
    /// The size of the request right after its head.
    size_at_head: Option<u64>,
}

/// Copies a range of the body that the host holds: from where, and how many bytes.
pub(in crate::flow) type Fetch<'f> = &'f mut dyn FnMut(usize, usize) -> Option<Vec<u8>>;

/// How far a body has come.
pub(in crate::flow) struct BodyProgress<'b> {
    /// Bytes that the host holds by now.
    pub(in crate::flow) received: usize,
    /// Whether that is all.
    pub(in crate::flow) is_complete: bool,
    pub(in crate::flow) fetch: Fetch<'b>,
}

impl Receiving {
    pub(in crate::flow) fn new(
        context: RequestContext,
        webhook: Arc<Webhook>,
        verification: Verification,
        body: Body,
        now: Timestamp,
    ) -> Self {
        Self {
            context,
            verification,
            body,
            deadline: now.saturating_add(webhook.body_timeout),
            first_byte: now.saturating_add(webhook.body_timeout.min(FIRST_BYTE)),
            webhook,
            is_heard: false,
            size_at_head: None,
        }
    }

    /// Begins to receive, where one body more may be received.
    pub(in crate::flow) fn start(self, services: &Services<'_>) -> Next {
        if services.counts.has_room_for_a_body(Claim::Place(self.body)) {
            Next::NeedBody(self)
        } else {
            self.refuse(Unusable::BodyMemory.into())
        }
    }

    /// More of the body.
    pub(in crate::flow) fn body(mut self, progress: BodyProgress<'_>, services: &mut Services<'_>) -> Next {
        self.is_heard = true;
        let BodyProgress { received, is_complete, fetch } = progress;
        match self.hash(received, is_complete, fetch, services) {
            Err(refusal) => self.refuse(refusal),
            Ok(()) if is_complete => self.complete(fetch, services),
            Ok(()) => Next::NeedBody(self),
        }
    }

    /// The room that a body needs which has come so far: none where that is all, since it is then
    /// decided at once, or where it is too long.
    pub(in crate::flow) fn claim(&self, received: usize, is_complete: bool) -> Option<Claim> {
        let needs_room = !is_complete && received <= self.webhook.max_body_bytes && received > self.body.held;
        needs_room.then_some(Claim::Bytes(Body { held: received, ..self.body }))
    }

    fn hash(
        &mut self,
        received: usize,
        is_complete: bool,
        fetch: Fetch<'_>,
        services: &Services<'_>,
    ) -> Result<(), Refusal> {
        // What was hashed is still held: a host that says it holds less now causes this.
        let new = received.checked_sub(self.body.held).ok_or(Unusable::Internal)?;
        if received > self.webhook.max_body_bytes {
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
    pub(in crate::flow) fn complete(self, fetch: Fetch<'_>, services: &mut Services<'_>) -> Next {
        let Self { mut context, webhook, verification, body, .. } = self;
        let mut fetch = || if body.held == 0 { Some(Vec::new()) } else { fetch(0, body.held) };
        let outcome = deliver(&webhook, verification, &mut fetch, &mut context, services);
        Next::Decided(context, outcome)
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
