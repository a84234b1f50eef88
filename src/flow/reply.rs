//! What a callout's answer is worth, before its body is read.

use super::ask::Question;
use crate::http::Reply;
use crate::http::head::RequestHead;
use crate::introspect::Introspection;
use crate::refusal::{Outage, Refusal, Unusable};
use std::time::Duration;

/// The body of a 200; `None` for a session endpoint's 401, which is its no.
///
/// # Errors
/// An outage where the provider is away; unusable for everything else that is no 200.
pub(super) fn body_of<'a>(reply: &Reply<'a>, question: Question) -> Result<Option<&'a [u8]>, Refusal> {
    match reply {
        Reply::Answer { headers, body } => match status_of(headers) {
            Ok(200) => Ok(Some(*body)),
            // The token was the credential, and none of the gate's own.
            Ok(401) if question == Question::Session => Ok(None),
            Ok(_) => Err(Unusable::OurCredentials.into()),
            Err(refusal) => Err(refusal),
        },
        Reply::Broken => Err(Outage::Reset.into()),
        Reply::TooLarge => Err(Unusable::TooLarge.into()),
        Reply::NotStarted => Err(Unusable::NotStarted.into()),
    }
}

/// What the body of a token's or session's answer says.
///
/// # Errors
/// Unusable where it is not what the protocol asks for.
pub(super) fn introspection_of(body: Option<&[u8]>, question: Question) -> Result<Introspection, Unusable> {
    match (body, question) {
        (None, _) => Ok(Introspection::Inactive),
        (Some(body), Question::Session) => Introspection::parse_session(body),
        (Some(body), _) => Introspection::parse(body),
    }
}

/// 200, 401 or 403; everything else is no answer.
fn status_of(headers: &[u8]) -> Result<u16, Refusal> {
    let Ok(head) = RequestHead::parse(headers, true) else {
        return Err(Unusable::BadReply.into());
    };
    let value = |name: &str| head.values(name).next().and_then(|v| std::str::from_utf8(v).ok());
    let Some(status) = value(":status").and_then(|s| s.parse::<u16>().ok()) else {
        return Err(Unusable::BadReply.into());
    };
    // Envoy adds this to what an upstream really answered, and not to what it made up itself.
    let is_real = head.has("x-envoy-upstream-service-time");
    Err(match status {
        200 | 401 | 403 => return Ok(status),
        429 => {
            let wish = value("retry-after").and_then(|v| v.trim().parse().ok()).map(Duration::from_secs);
            Unusable::RateLimited(wish).into()
        }
        500..=599 if is_real => Outage::ServerError.into(),
        // Envoy's own limits (a cluster's circuit breakers), which whoever sends enough requests can reach.
        500..=599 if head.has("x-envoy-overloaded") => Unusable::NotStarted.into(),
        504 => Outage::Timeout.into(),
        503 => Outage::Unreachable.into(),
        500..=599 => Outage::Reset.into(),
        _ => Unusable::Status.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::pairs;

    const ASKED: Question = Question::Introspection;

    #[test]
    fn an_overflow_of_envoys_own_limits_is_no_outage() {
        let headers = pairs::encode(&[(":status", "503"), ("x-envoy-overloaded", "true")]);
        let reply = Reply::Answer { headers: &headers, body: b"" };
        assert_eq!(body_of(&reply, ASKED), Err(Unusable::NotStarted.into()));
    }

    #[test]
    fn a_401_is_an_answer_about_a_session_alone() {
        let headers = pairs::encode(&[(":status", "401"), ("x-envoy-upstream-service-time", "1")]);
        let reply = Reply::Answer { headers: &headers, body: b"{}" };
        assert_eq!(body_of(&reply, Question::Session), Ok(None));
        for question in [Question::Introspection, Question::Permission] {
            assert_eq!(body_of(&reply, question), Err(Unusable::OurCredentials.into()));
        }
        assert_eq!(introspection_of(None, Question::Session), Ok(Introspection::Inactive));
    }

    #[test]
    fn only_a_200_is_an_answer() {
        let real = ("x-envoy-upstream-service-time", "3");
        let none = ("x", "y");
        let cases: [(&str, (&str, &str), Result<(), Refusal>); 14] = [
            ("200", real, Ok(())),
            ("201", real, Err(Unusable::Status.into())),
            ("204", real, Err(Unusable::Status.into())),
            ("302", real, Err(Unusable::Status.into())),
            ("400", real, Err(Unusable::Status.into())),
            ("401", real, Err(Unusable::OurCredentials.into())),
            ("403", real, Err(Unusable::OurCredentials.into())),
            ("429", real, Err(Unusable::RateLimited(None).into())),
            ("429", ("retry-after", "7"), Err(Unusable::RateLimited(Some(Duration::from_secs(7))).into())),
            ("500", real, Err(Outage::ServerError.into())),
            ("503", real, Err(Outage::ServerError.into())),
            ("503", none, Err(Outage::Unreachable.into())),
            ("504", none, Err(Outage::Timeout.into())),
            ("502", none, Err(Outage::Reset.into())),
        ];
        for (status, header, expected) in cases {
            let headers = pairs::encode(&[(":status", status), header]);
            assert_eq!(
                body_of(&Reply::Answer { headers: &headers, body: b"" }, ASKED).map(|_| ()),
                expected,
                "{status}"
            );
        }
        for junk in [
            &b""[..],
            b"\x01",
            &pairs::encode(&[(":status", "2x0")]),
            &pairs::encode(&[(":status", "\u{ff}")]),
        ] {
            assert_eq!(
                body_of(&Reply::Answer { headers: junk, body: b"" }, ASKED),
                Err(Unusable::BadReply.into())
            );
        }
        assert_eq!(body_of(&Reply::Broken, ASKED), Err(Outage::Reset.into()));
        assert_eq!(body_of(&Reply::TooLarge, ASKED), Err(Unusable::TooLarge.into()));
        assert_eq!(body_of(&Reply::NotStarted, ASKED), Err(Unusable::NotStarted.into()));
    }
}
