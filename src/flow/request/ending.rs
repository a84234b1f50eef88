//! A preflight whose head does not say whether content follows: it is one where none does.
//!
//! HTTP/2 clients may end a request with an empty frame of its own, and HTTP/1 ones with an empty
//! chunk. The head is held until the end is seen, so that no request with content is forwarded.

use super::Next;
use crate::refusal::{Denial, Refusal};
use crate::time::Timestamp;
use crate::verdict::{Passage, Permit, RequestContext};
use std::time::Duration;

/// The state.
#[cfg_attr(test, derive(Clone))]
pub(in crate::flow) struct Ending {
    context: RequestContext,
    permit: Permit,
    /// When it is decided at the latest.
    deadline: Timestamp,
    /// The size of the request right after its head.
    size_at_head: Option<u64>,
}

impl Ending {
    /// Begins to wait for the end.
    pub(in crate::flow) fn start(context: RequestContext, permit: Permit, now: Timestamp) -> Next {
        let deadline = now.saturating_add(PATIENCE);
        Next::NeedEnd(Self { context, permit, deadline, size_at_head: None })
    }

    /// So much of a body, and whether that is all.
    pub(in crate::flow) fn body(self, received: usize, is_complete: bool) -> Next {
        match (received, is_complete) {
            (0, true) => self.complete(),
            (0, false) => Next::NeedEnd(self),
            _ => self.refuse(Denial::NoRoute.into()),
        }
    }

    /// It has ended, and there was no content.
    pub(in crate::flow) fn complete(self) -> Next {
        Next::Decided(self.context, Ok(Passage::Permit(self.permit)))
    }

    /// How many bytes of the request have arrived, its head included. Where none came and no body
    /// callback either, the host may make none before the head goes on: it goes on, and content
    /// that comes later stays held.
    pub(in crate::flow) fn measured(mut self, total_size: u64) -> Next {
        match self.size_at_head {
            None => {
                self.size_at_head = Some(total_size);
                Next::NeedEnd(self)
            }
            Some(size) if total_size > size => self.refuse(Denial::NoRoute.into()),
            Some(_) => {
                self.context.is_without_content = true;
                self.complete()
            }
        }
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
        self.deadline
    }

    pub(super) fn set_back(&mut self, by: Duration) {
        self.deadline = self.deadline.saturating_sub(by);
    }
}

/// How long its end may take to come: a head alone costs its sender nothing, and takes a place.
const PATIENCE: Duration = Duration::from_secs(2);
