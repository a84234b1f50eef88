//! A callout's response as Envoy passes it on: the upstream's own, or one that Envoy generates.

use super::header_map;
use crate::http::head::RequestHead;
use crate::http::{CallFailure, Response};

/// Reads a response.
///
/// # Errors
/// A [`CallFailure`] if Envoy answered instead of the provider, or if there is no status.
pub fn read<'a>(headers: &'a [u8], body: &'a [u8]) -> Result<Response<'a>, CallFailure> {
    let pairs = header_map::parse(headers).map_err(|_| CallFailure::Malformed)?;
    let head = RequestHead::new(pairs, true);
    let status = head.values(":status").next().and_then(|value| std::str::from_utf8(value).ok());
    let status: u16 = status.and_then(|text| text.parse().ok()).ok_or(CallFailure::Malformed)?;
    // Envoy sets this header on an upstream's real response, whatever the upstream sent under this
    // name, and not on a response that it generates itself.
    let is_real = head.has("x-envoy-upstream-service-time");
    match status {
        500..=599 if is_real => {}
        // A limit of Envoy's own (a cluster's circuit breakers), which anybody can reach by sending
        // enough requests.
        500..=599 if head.has("x-envoy-overloaded") => return Err(CallFailure::NotStarted),
        504 => return Err(CallFailure::Timeout),
        503 => return Err(CallFailure::Unreachable),
        500..=599 => return Err(CallFailure::Reset),
        _ => {}
    }
    Ok(Response { status, retry_after: head.values("retry-after").next(), body })
}

/// Reads an answer whose body is longer than the gate reads: its status comes first, and only a 200
/// has a body that would be read.
///
/// # Errors
/// A [`CallFailure`], as for [`read`]; [`CallFailure::TooLarge`] for a 200.
pub fn read_oversize(headers: &[u8]) -> Result<Response<'_>, CallFailure> {
    match read(headers, b"")? {
        Response { status: 200, .. } => Err(CallFailure::TooLarge),
        response => Ok(response),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_envoy_makes_up_is_a_failure_and_what_it_forwards_is_not() {
        let real = ("x-envoy-upstream-service-time", "3");
        let none = ("x", "y");
        let cases: [(&str, (&str, &str), Result<u16, CallFailure>); 9] = [
            ("200", real, Ok(200)),
            ("429", real, Ok(429)),
            ("500", real, Ok(500)),
            ("503", real, Ok(503)),
            ("404", none, Ok(404)),
            ("503", none, Err(CallFailure::Unreachable)),
            ("504", none, Err(CallFailure::Timeout)),
            ("502", none, Err(CallFailure::Reset)),
            ("503", ("x-envoy-overloaded", "true"), Err(CallFailure::NotStarted)),
        ];
        for (status, header, expected) in cases {
            let headers = header_map::encode(&[(":status", status), header]);
            assert_eq!(read(&headers, b"").map(|response| response.status), expected, "{status}");
        }
        let headers = header_map::encode(&[(":status", "429"), ("retry-after", "7")]);
        assert_eq!(read(&headers, b"").unwrap().retry_after, Some(&b"7"[..]));
    }

    #[test]
    fn a_long_body_is_too_long_where_it_would_be_read() {
        let real = ("x-envoy-upstream-service-time", "3");
        let oversize = |status: &'static str, header| {
            let headers = header_map::encode(&[(":status", status), header]);
            read_oversize(&headers).map(|response| response.status)
        };
        assert_eq!(oversize("200", real), Err(CallFailure::TooLarge));
        assert_eq!(oversize("500", real), Ok(500));
        assert_eq!(oversize("504", ("x", "y")), Err(CallFailure::Timeout));
    }

    #[test]
    fn an_answer_without_a_status_is_malformed() {
        for junk in [
            &b""[..],
            b"\x01",
            &header_map::encode(&[(":status", "2x0")]),
            &header_map::encode(&[(":status", "\u{ff}")]),
        ] {
            assert_eq!(read(junk, b"").unwrap_err(), CallFailure::Malformed);
        }
    }
}
