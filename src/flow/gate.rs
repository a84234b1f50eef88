//! The gate: what each callback may answer in each phase of a stream, as one table.
//!
//! INVARIANT(gate): no byte of a request passes before its stream is [`Phase::Open`], and a stream
//! is decided once.

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Its header callback has not been seen.
    Unknown,
    /// It waits for the provider.
    Waiting,
    /// Its body is being verified.
    Receiving,
    /// It was forwarded.
    Open,
    /// It was forwarded as a request without content.
    Empty,
    /// It was answered in the service's place.
    Answered,
}

/// What the host reports about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Callback {
    /// The request's head.
    Headers,
    /// More of its body.
    Body,
    /// Its trailers.
    Trailers,
}

/// What the callback does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Gate {
    /// Look at the head and decide, or begin to wait.
    Begin,
    /// Hand the bytes to the verifier; hold them until it is satisfied.
    Feed,
    /// Hold.
    Pause,
    /// Let pass what holds no byte; hold everything from the first byte on.
    Drain,
    /// Let pass.
    Continue,
}

/// The table.
///
/// | phase | headers | body, trailers |
/// |---|---|---|
/// | unknown | begin | pause |
/// | waiting | pause | pause |
/// | receiving | pause | feed |
/// | open | continue | continue |
/// | empty | drain | drain |
/// | answered | pause | pause |
pub(crate) const fn gate(phase: Phase, callback: Callback) -> Gate {
    match (phase, callback) {
        (Phase::Unknown, Callback::Headers) => Gate::Begin,
        (Phase::Receiving, Callback::Body | Callback::Trailers) => Gate::Feed,
        (Phase::Open, _) => Gate::Continue,
        (Phase::Empty, _) => Gate::Drain,
        // A stream that waits is held by its header callback's status, and no other callback should
        // come. They pause all the same: a host that called them and heard "continue" would release
        // the request undecided.
        (Phase::Unknown | Phase::Waiting | Phase::Receiving | Phase::Answered, _) => Gate::Pause,
    }
}
