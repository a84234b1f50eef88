//! What a callout's answer is worth, before its body is read.

use super::query::QueryKind;
use crate::http::{CallFailure, Response};
use crate::introspect::Introspection;
use crate::refusal::{Flaw, Outage, Refusal, Unusable};
use crate::time::Timestamp;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The body of a 200; `None` for a session endpoint's 401, which is its no.
///
/// # Errors
/// An outage where the provider is away; unusable for everything else that is no 200.
pub(super) fn body_of<'a>(
    answer: Result<Response<'a>, CallFailure>,
    kind: QueryKind,
    now: Timestamp,
) -> Result<Option<&'a [u8]>, Refusal> {
    let Response { status, retry_after, body } = answer.map_err(refusal_of)?;
    Err(match status {
        200 => return Ok(Some(body)),
        // The token was the credential, and none of the gate's own.
        401 if kind == QueryKind::Session => return Ok(None),
        401 | 403 => Unusable::OurCredentials.into(),
        429 => Unusable::RateLimited(retry_after.and_then(|value| wait(value, now))).into(),
        // RFC 9110 section 15.5.9: the server gave up on this request, and not the client.
        408 => Outage::Timeout.into(),
        500..=599 => Outage::ServerError.into(),
        _ => Unusable::Status.into(),
    })
}

fn refusal_of(failure: CallFailure) -> Refusal {
    match failure {
        CallFailure::NotStarted => Outage::NotStarted.into(),
        CallFailure::Unreachable => Outage::Unreachable.into(),
        CallFailure::Timeout => Outage::Timeout.into(),
        CallFailure::Reset => Outage::Reset.into(),
        CallFailure::TooLarge => Unusable::TooLarge.into(),
        CallFailure::Malformed => Flaw::of_body("it has no valid status").into(),
    }
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date in one of the three forms of section
/// 5.6.7. Some providers write a fraction, which is rounded up.
fn wait(value: &[u8], now: Timestamp) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let wait = if is_number(whole) && is_number(fraction) {
        let begun = u64::from(fraction.bytes().any(|b| b != b'0'));
        // More digits than a number has are a long wait too.
        Duration::from_secs(whole.parse().unwrap_or(u64::MAX).saturating_add(begun))
    } else {
        Timestamp::from_secs(date(text)?).saturating_since(now)
    };
    Some(wait.min(LONGEST_WAIT))
}

/// A date in seconds of Unix time. Spelt as RFC 3339 asks, it is read by the parser that there is.
fn date(text: &str) -> Option<u64> {
    let mut parts = [""; 9];
    let found = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    parts.iter_mut().zip(found).for_each(|(part, found)| *part = found);
    let (year, month, day, [hour, minute, second]) = match parts {
        [_, day, month, year, hour, minute, second, "GMT", ""] => (year, month, day, [hour, minute, second]),
        [_, month, day, hour, minute, second, year, "", ""] => (year, month, day, [hour, minute, second]),
        _ => return None,
    };
    let month = b"JanFebMarAprMayJunJulAugSepOctNovDec".chunks(3).position(|m| m == month.as_bytes())?;
    let century = match (year.len(), year.as_bytes().first()) {
        (2, Some(b'0'..=b'6')) => "20",
        (2, _) => "19",
        _ => "",
    };
    let month = month.saturating_add(1);
    let at = format!("{century}{year}-{month:02}-{day:0>2}T{hour}:{minute}:{second}Z");
    u64::try_from(OffsetDateTime::parse(&at, &Rfc3339).ok()?.unix_timestamp()).ok()
}

/// No provider means more, and no pause is as long.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

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
    const NOW: Timestamp = Timestamp::from_secs(0);

    fn answer(status: u16, retry_after: Option<&'static str>) -> Result<Response<'static>, CallFailure> {
        Ok(Response { status, retry_after: retry_after.map(str::as_bytes), body: b"{}" })
    }

    #[test]
    fn a_401_is_an_answer_about_a_session_alone() {
        assert_eq!(body_of(answer(401, None), QueryKind::Session, NOW), Ok(None));
        for kind in [QueryKind::Introspection, QueryKind::Permission] {
            assert_eq!(body_of(answer(401, None), kind, NOW), Err(Unusable::OurCredentials.into()));
        }
        assert_eq!(introspection_of(None, QueryKind::Session), Ok(Introspection::Inactive));
    }

    #[test]
    fn only_a_200_is_an_answer() {
        let week = Some(Duration::from_secs(7));
        let cases: [(u16, Option<&str>, Result<(), Refusal>); 13] = [
            (200, None, Ok(())),
            (201, None, Err(Unusable::Status.into())),
            (204, None, Err(Unusable::Status.into())),
            (302, None, Err(Unusable::Status.into())),
            (400, None, Err(Unusable::Status.into())),
            (401, None, Err(Unusable::OurCredentials.into())),
            (403, None, Err(Unusable::OurCredentials.into())),
            (408, None, Err(Outage::Timeout.into())),
            (429, None, Err(Unusable::RateLimited(None).into())),
            (429, Some("7"), Err(Unusable::RateLimited(week).into())),
            (429, Some("soon"), Err(Unusable::RateLimited(None).into())),
            (500, None, Err(Outage::ServerError.into())),
            (503, None, Err(Outage::ServerError.into())),
        ];
        for (status, retry_after, expected) in cases {
            assert_eq!(body_of(answer(status, retry_after), ASKED, NOW).map(|_| ()), expected, "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::from_nanos(1_790_000_000_500_000_000);
        let ms = |n| Some(Duration::from_millis(n));
        let cases = [
            ("20", ms(20_000)),
            (" 20 ", ms(20_000)),
            ("0", ms(0)),
            ("19.5", ms(20_000)),
            ("19.000", ms(19_000)),
            ("99999999999999999999999", Some(LONGEST_WAIT)),
            ("Mon, 21 Sep 2026 14:13:40 GMT", ms(19_500)),
            ("Monday, 21-Sep-26 14:13:40 GMT", ms(19_500)),
            ("Mon Sep 21 14:13:40 2026", ms(19_500)),
            ("Mon, 21 Sep 2026 14:13:19 GMT", ms(0)),
            ("Monday, 21-Sep-95 14:13:40 GMT", ms(0)),
            ("Sun Nov  8 08:49:37 2026", Some(LONGEST_WAIT)),
            ("Mon, 21 Sep 2026 14:13:60 GMT", None),
            ("Mon, 21 Abc 2026 14:13:40 GMT", None),
            ("Mon, 21 Sep 2026T14:13:40 GMT", None),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(LONGEST_WAIT)),
            ("", None),
            (".", None),
            ("1.", None),
            (".5", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            ("soon", None),
            ("Mon, 21 Sep 2026 14:13:40 CEST", None),
            ("Mon, 32 Sep 2026 14:13:40 GMT", None),
        ];
        for (text, expected) in cases {
            assert_eq!(wait(text.as_bytes(), now), expected, "{text}");
        }
        assert_eq!(wait(b"\xff", now), None);
    }

    #[test]
    fn every_failure_has_its_refusal() {
        let cases: [(CallFailure, Refusal); 6] = [
            (CallFailure::NotStarted, Outage::NotStarted.into()),
            (CallFailure::Unreachable, Outage::Unreachable.into()),
            (CallFailure::Timeout, Outage::Timeout.into()),
            (CallFailure::Reset, Outage::Reset.into()),
            (CallFailure::TooLarge, Unusable::TooLarge.into()),
            (CallFailure::Malformed, Flaw::of_body("").into()),
        ];
        for (failure, expected) in cases {
            assert_eq!(body_of(Err(failure), ASKED, NOW), Err(expected));
        }
    }
}
