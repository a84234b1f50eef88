//! HTTP as data: what the core reads from a request, and what it asks the host to do.

pub(crate) mod fold;
pub mod head;
pub(crate) mod host;
pub(crate) mod path;
pub(crate) mod query;

use std::rc::Rc;
use std::time::Duration;

/// A request that the host sends for the gate. Its result is a [`Response`] or a [`CallFailure`].
///
/// It contains secrets, so it has no `Debug`.
#[derive(Clone)]
pub struct Callout {
    /// The name of the host's upstream cluster.
    pub cluster: String,
    /// The value of `:authority`.
    pub authority: String,
    /// The method.
    pub method: &'static str,
    /// The path, with its query.
    pub path: String,
    /// All other headers.
    pub headers: Vec<(&'static str, String)>,
    /// The whole body.
    pub body: Vec<u8>,
    /// The timeout, at least one millisecond (the host reads less as "no limit").
    pub timeout: Duration,
    /// How many times the host may retry a failed attempt, within that timeout.
    pub retries: u32,
    /// Whether it may only retry an attempt that found nobody to ask.
    pub retries_unsent_only: bool,
}

/// The response of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The status code.
    pub status: u16,
    /// The value of `Retry-After`, as received.
    pub retry_after: Option<&'a [u8]>,
    /// The whole body.
    pub body: &'a [u8],
}

/// Why a callout has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// The host did not start it: unknown cluster, no healthy endpoint, or a limit of the host.
    NotStarted,
    /// No connection could be established.
    Unreachable,
    /// No response arrived within the timeout.
    Timeout,
    /// The connection was reset before the response was complete.
    Reset,
    /// The body is longer than [`MAX_REPLY_BYTES`], and was not copied.
    TooLarge,
    /// What the host delivered is not a valid response.
    Malformed,
}

/// The longest response body that is read; a longer one is [`CallFailure::TooLarge`].
pub const MAX_REPLY_BYTES: usize = 128 * 1024;

/// Headers of a request that go with its callouts, for whoever looks for what belongs together.
pub(crate) type Trace = Rc<[(&'static str, String)]>;

/// A header to set: name and value.
pub type Header = (Vec<u8>, Vec<u8>);

/// One change to the request's headers, applied in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Remove every value of this exact name.
    Remove(Vec<u8>),
    /// Add a header that the request does not have (any more).
    Add(Vec<u8>, Vec<u8>),
    /// Add each of these, as [`Self::Add`] does.
    AddAll(Rc<[Header]>),
    /// Replace every value of this name by one.
    Replace(Vec<u8>, Vec<u8>),
}

/// A response that the gate sends instead of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// The HTTP status.
    pub status: u16,
    /// The headers; every value is visible ASCII.
    pub headers: Vec<(String, String)>,
    /// The body; none for gRPC, whose message is a header.
    pub body: String,
    /// The value of `%RESPONSE_CODE_DETAILS%`.
    pub details: String,
    /// The gRPC status, if the request was gRPC.
    pub grpc_status: Option<u8>,
}
