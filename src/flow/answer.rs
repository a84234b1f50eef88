//! What a callout's answer is worth, before its body is read.

use super::query::QueryKind;
use crate::http::{CallFailure, Response};
use crate::introspect::Introspection;
use crate::refusal::{Flaw, Outage, Refusal, Unusable};
use std::time::Duration;

/// The body of a 200; `None` for a session endpoint's 401, which is its no.
///
/// # Errors
/// An outage where the provider is away; unusable for everything else that is no 200.
pub(super) fn body_of<'a>(
    answer: Result<Response<'a>, CallFailure>,
    kind: QueryKind,
) -> Result<Option<&'a [u8]>, Refusal> {
    let Response { status, retry_after, body } = answer.map_err(refusal_of)?;
    Err(match status {
        200 => return Ok(Some(body)),
        // The token was the credential, and none of the gate's own.
        401 if kind == QueryKind::Session => return Ok(None),
        401 | 403 => Unusable::OurCredentials.into(),
        429 => Unusable::RateLimited(retry_after.and_then(seconds)).into(),
        500..=599 => Outage::ServerError.into(),
        _ => Unusable::Status.into(),
    })
}

fn refusal_of(failure: CallFailure) -> Refusal {
    match failure {
        CallFailure::NotStarted => Unusable::NotStarted.into(),
        CallFailure::Unreachable => Outage::Unreachable.into(),
        CallFailure::Timeout => Outage::Timeout.into(),
        CallFailure::Reset => Outage::Reset.into(),
        CallFailure::TooLarge => Unusable::TooLarge.into(),
        CallFailure::Malformed => Flaw::of_body("it has no valid status").into(),
    }
}

/// `Retry-After` in seconds (RFC 9110 section 10.2.3).
fn seconds(value: &[u8]) -> Option<Duration> {
    std::str::from_utf8(value).ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// What the body of a token's or session's answer says.
///
/// # Errors
/// Unusable where it is not what the protocol asks for.
pub(super) fn introspection_of(body: Option<&[u8]>, kind: QueryKind) -> Result<Introspection, Unusable> {
    match (body, kind) {
        (None, _) => Ok(Introspection::Inactive),
        (Some(body), QueryKind::Session) => Introspection::parse_session(body),
        (Some(body), _) => Introspection::parse(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: QueryKind = QueryKind::Introspection;

    fn answer(status: u16, retry_after: Option<&'static str>) -> Result<Response<'static>, CallFailure> {
        Ok(Response { status, retry_after: retry_after.map(str::as_bytes), body: b"{}" })
    }

    #[test]
    fn a_401_is_an_answer_about_a_session_alone() {
        assert_eq!(body_of(answer(401, None), QueryKind::Session), Ok(None));
        for kind in [QueryKind::Introspection, QueryKind::Permission] {
            assert_eq!(body_of(answer(401, None), kind), Err(Unusable::OurCredentials.into()));
        }
        assert_eq!(introspection_of(None, QueryKind::Session), Ok(Introspection::Inactive));
    }

    #[test]
    fn only_a_200_is_an_answer() {
        let week = Some(Duration::from_secs(7));
        let cases: [(u16, Option<&str>, Result<(), Refusal>); 12] = [
            (200, None, Ok(())),
            (201, None, Err(Unusable::Status.into())),
            (204, None, Err(Unusable::Status.into())),
            (302, None, Err(Unusable::Status.into())),
            (400, None, Err(Unusable::Status.into())),
            (401, None, Err(Unusable::OurCredentials.into())),
            (403, None, Err(Unusable::OurCredentials.into())),
            (429, None, Err(Unusable::RateLimited(None).into())),
            (429, Some("7"), Err(Unusable::RateLimited(week).into())),
            (429, Some("soon"), Err(Unusable::RateLimited(None).into())),
            (500, None, Err(Outage::ServerError.into())),
            (503, None, Err(Outage::ServerError.into())),
        ];
        for (status, retry_after, expected) in cases {
            assert_eq!(body_of(answer(status, retry_after), ASKED).map(|_| ()), expected, "{status}");
        }
    }

    #[test]
    fn every_failure_has_its_refusal() {
        let cases: [(CallFailure, Refusal); 6] = [
            (CallFailure::NotStarted, Unusable::NotStarted.into()),
            (CallFailure::Unreachable, Outage::Unreachable.into()),
            (CallFailure::Timeout, Outage::Timeout.into()),
            (CallFailure::Reset, Outage::Reset.into()),
            (CallFailure::TooLarge, Unusable::TooLarge.into()),
            (CallFailure::Malformed, Flaw::of_body("").into()),
        ];
        for (failure, expected) in cases {
            assert_eq!(body_of(Err(failure), ASKED), Err(expected));
        }
    }
}
