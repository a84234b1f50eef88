//! HTTP as data: what the core reads of a request and what it asks its host to do.

pub mod head;
pub(crate) mod host;
pub(crate) mod path;
pub(crate) mod query;

use std::rc::Rc;
use std::time::Duration;

/// A request that the host is asked to send. Its answer comes back as a [`Response`] or as a
/// [`CallFailure`].
///
/// Carries secrets, so it has no `Debug`.
#[derive(Clone)]
pub struct Callout {
    /// The name of the host's upstream cluster.
    pub cluster: String,
    /// What `:authority` says.
    pub authority: String,
    /// The method.
    pub method: &'static str,
    /// The path, with its query.
    pub path: String,
    /// All other headers.
    pub headers: Vec<(&'static str, String)>,
    /// The whole body.
    pub body: Vec<u8>,
    /// How long the host may take, at least one millisecond (a host reads less as "no limit").
    pub timeout: Duration,
    /// How often the host asks again within that time, where an attempt fails.
    pub retries: u32,
}

/// What an upstream answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The status.
    pub status: u16,
    /// The value of `Retry-After`, as it came.
    pub retry_after: Option<&'a [u8]>,
    /// The whole body.
    pub body: &'a [u8],
}

/// Why a callout has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// The host did not start it: unknown cluster, no healthy endpoint, a limit of its own.
    NotStarted,
    /// There was no connection.
    Unreachable,
    /// There was no answer within the timeout.
    Timeout,
    /// The connection broke, before the answer was complete.
    Reset,
    /// The body is longer than [`MAX_REPLY_BYTES`], and was not copied.
    TooLarge,
    /// What the host handed over is no answer.
    Malformed,
}

/// The longest answer body that a host hands over; a longer one is [`CallFailure::TooLarge`].
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
