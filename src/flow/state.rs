//! What a stream is while it is undecided: one struct per state, each with exactly its data.

use super::ask::Question;
use super::{FlightId, RootId, StreamId};
use crate::breaker::{BreakerRules, Purpose};
use crate::cache::shared::SharedKey;
use crate::hash::{FactKey, Fingerprint};
use crate::introspect::Identity;
use crate::permission::{CheckIndex, Checks};
use crate::policy::Policy;
use crate::template::Inputs;
use crate::time::Timestamp;
use crate::verdict::Dossier;
use crate::webhook::Verification;
use std::rc::Rc;

/// A stream that the engine knows.
#[cfg_attr(test, derive(Clone))]
pub(super) enum Stream {
    /// Undecided.
    Pending(Box<Pending>),
    /// Forwarded, under this policy.
    Open(Rc<Policy>),
    /// Answered in the service's place.
    Answered,
}

/// An undecided stream.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Pending {
    pub(super) root: RootId,
    pub(super) dossier: Dossier,
    /// When it is decided at the latest.
    pub(super) deadline: Timestamp,
    /// When the tick looks at it next.
    pub(super) alarm: Timestamp,
    /// Roughly how many bytes it keeps.
    pub(super) weight: usize,
    pub(super) state: State,
}

/// ```text
/// begin ─┬─▶ Introspecting ─┬─▶ Checking ─┬─▶ decided
///        ├─▶ Receiving ─────┼─────────────┤
///        └──────────────────┴─────────────┘
/// ```
#[cfg_attr(test, derive(Clone))]
pub(super) enum State {
    /// Waits for the answer about its token.
    Introspecting(Introspecting),
    /// Waits for the answers about its permissions.
    Checking(Checking),
    /// Its body is being hashed.
    Receiving(Receiving),
}

#[cfg_attr(test, derive(Clone))]
pub(super) struct Introspecting {
    /// Whether its token was not seen active lately.
    pub(super) is_new: bool,
    pub(super) key: FactKey,
    pub(super) inputs: Inputs,
}

#[cfg_attr(test, derive(Clone))]
pub(super) struct Checking {
    pub(super) inputs: Inputs,
    pub(super) identity: Identity,
    pub(super) checks: Checks,
    /// What identifies the answers that were not known at once.
    pub(super) open: Vec<(CheckIndex, FactKey)>,
}

#[cfg_attr(test, derive(Clone))]
pub(super) struct Receiving {
    pub(super) verification: Verification,
    /// The longest body that is taken.
    pub(super) limit: usize,
    /// Bytes hashed so far, which the host holds.
    pub(super) held: usize,
    /// Whether any body callback came: on a plugin entry without `allow_on_headers_stop_iteration` none ever does.
    pub(super) heard: bool,
    /// `request.total_size` right after the head.
    pub(super) size_at_head: Option<u64>,
}

/// One callout and the streams that wait for it. No stream is special: the answer is read by whoever is still there.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Flight {
    pub(super) root: RootId,
    pub(super) key: FactKey,
    pub(super) question: Question,
    pub(super) endpoint: Fingerprint,
    pub(super) breaker: BreakerRules,
    pub(super) purpose: Purpose,
    /// Whether it finds out if the endpoint is there again.
    pub(super) is_probe: bool,
    /// Where the workers share the answer.
    pub(super) place: Option<SharedKey>,
    pub(super) started: Timestamp,
    pub(super) deadline: Timestamp,
    pub(super) waiters: Vec<(StreamId, Ticket)>,
}

/// What a waiter wants the answer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ticket {
    /// Its token.
    Token,
    /// One of its checks.
    Check(CheckIndex),
}

/// What the tick looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    Flight(FlightId),
    Stream(StreamId),
}
