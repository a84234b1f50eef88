//! HTTP as data: what the core reads of a request and what it asks its host to do.

pub mod head;
pub mod host;
pub mod pairs;
pub mod path;
pub mod query;

use std::rc::Rc;
use std::time::Duration;

/// A request that the host is asked to send, and whose answer comes back as a [`Reply`].
///
/// Carries secrets, so it has no `Debug`.
#[derive(Clone)]
pub struct Callout {
    /// The name of the host's upstream cluster.
    pub cluster: String,
    /// All headers, `:method`, `:path` and `:authority` first.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
    /// How long the host may take, at least one millisecond (a host reads less as "no limit").
    pub timeout: Duration,
}

/// How a [`Callout`] ended.
#[derive(Clone, Copy, Debug)]
pub enum Reply<'a> {
    /// A whole answer. A host's own synthetic answers (unreachable, timeout) come this way too.
    Answer {
        /// The answer's headers, serialised as [`pairs::parse`] reads them.
        headers: &'a [u8],
        /// The answer's whole body.
        body: &'a [u8],
    },
    /// The connection broke after the answer had begun, so there is neither status nor body.
    Broken,
    /// The body is longer than [`MAX_REPLY_BYTES`], and was not copied.
    TooLarge,
    /// The host would not start the callout: unknown cluster, no healthy endpoint, circuit breaker.
    NotStarted,
}

/// The longest answer body that a host hands over; a longer one is [`Reply::TooLarge`].
pub const MAX_REPLY_BYTES: usize = 128 * 1024;

/// A header to be set: name and value.
pub type Header = (Vec<u8>, Vec<u8>);

/// One change to the request's headers, applied in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Remove every value of this exact name.
    Remove(Vec<u8>),
    /// Add a value for a name that the request does not carry (any more).
    Add(Vec<u8>, Vec<u8>),
    /// Add each of these, as [`Self::Add`] does.
    AddAll(Rc<[Header]>),
    /// Replace every value of this name by one.
    Replace(Vec<u8>, Vec<u8>),
}

/// An answer that the gate gives in the service's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// The HTTP status.
    pub status: u16,
    /// Headers, every value visible ASCII.
    pub headers: Vec<(String, String)>,
    /// The body; for gRPC the message text.
    pub body: String,
    /// What `%RESPONSE_CODE_DETAILS%` reads.
    pub details: String,
    /// The gRPC status, where the request was gRPC.
    pub grpc_status: Option<u8>,
}
