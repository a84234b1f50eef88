//! Statuses of the gate's own answers.

/// An HTTP status with its reason phrase and its gRPC equivalent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    /// Its reason phrase (RFC 9110 section 15).
    pub phrase: &'static str,
    /// The gRPC status. It is set explicitly: otherwise Envoy maps a 400 to 13 (INTERNAL).
    pub grpc: u8,
}

impl Status {
    /// The status with this code, as far as it is one that a configuration may choose.
    pub(crate) fn of(code: u16) -> Self {
        let known = [OK, ACCEPTED, BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, GONE];
        let other = Self { code, phrase: "", grpc: if code < 300 { 0 } else { 9 } };
        known.into_iter().find(|status| status.code == code).unwrap_or(other)
    }
}

pub(super) const OK: Status = Status { code: 200, phrase: "OK", grpc: 0 };
pub(super) const ACCEPTED: Status = Status { code: 202, phrase: "Accepted", grpc: 0 };
pub(super) const BAD_REQUEST: Status = Status { code: 400, phrase: "Bad Request", grpc: 3 };
pub(super) const UNAUTHORIZED: Status = Status { code: 401, phrase: "Unauthorized", grpc: 16 };
pub(super) const FORBIDDEN: Status = Status { code: 403, phrase: "Forbidden", grpc: 7 };
pub(super) const NOT_FOUND: Status = Status { code: 404, phrase: "Not Found", grpc: 5 };
pub(super) const CONFLICT: Status = Status { code: 409, phrase: "Conflict", grpc: 6 };
pub(super) const GONE: Status = Status { code: 410, phrase: "Gone", grpc: 5 };
pub(super) const REQUEST_TIMEOUT: Status = Status { code: 408, phrase: "Request Timeout", grpc: 4 };
pub(super) const CONTENT_TOO_LARGE: Status = Status { code: 413, phrase: "Content Too Large", grpc: 8 };
pub(super) const SERVICE_UNAVAILABLE: Status = Status { code: 503, phrase: "Service Unavailable", grpc: 14 };
