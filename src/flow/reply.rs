//! What a callout's answer is worth, before its body is read.

use crate::http::Reply;
use crate::http::head::RequestHead;
use crate::refusal::{Outage, Reason, Refusal, Unusable};
use std::time::Duration;

/// The body of a 200.
///
/// # Errors
/// An outage where the provider is away; unusable for everything else that is no 200.
pub(super) fn body_of<'a>(reply: &Reply<'a>) -> Result<&'a [u8], Refusal> {
    match reply {
        Reply::Answer { headers, body } => status_of(headers).map(|()| *body),
        Reply::Broken => Err(Outage::Reset.into()),
        Reply::TooLarge => Err(Unusable::TooLarge.into()),
        Reply::NotStarted => Err(Unusable::NotStarted.into()),
    }
}

fn status_of(headers: &[u8]) -> Result<(), Refusal> {
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
        200 => return Ok(()),
        401 | 403 => Unusable::OurCredentials.into(),
        429 => {
            let wish = value("retry-after").and_then(|v| v.trim().parse().ok()).map(Duration::from_secs);
            Unusable::RateLimited(wish).into()
        }
        500..=599 if is_real => Outage::ServerError.into(),
        504 => Outage::Timeout.into(),
        503 => Outage::Unreachable.into(),
        500..=599 => Outage::Reset.into(),
        _ => Unusable::Status.into(),
    })
}

/// What an operator can do about a failure; `None` where the reason says it all.
pub(super) fn advice(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::ProviderCredentials => {
            "the provider refuses the gate's own credentials: see `provider.introspection.credentials` and `provider.permissions.api_key`"
        }
        Reason::ProviderStatus => {
            "the provider's answer has a status that is no answer: see the `path`s and `authority` of `provider`"
        }
        Reason::ProviderBadReply => {
            "the provider's 200 is not what the protocol asks for: see the `path`s of `provider`"
        }
        Reason::ProviderNotStarted => {
            "Envoy would not start a callout: see `provider.cluster`, the cluster's endpoints and its circuit breakers"
        }
        Reason::ProviderReplyTooLarge => "the provider's answer is longer than the gate reads",
        Reason::ProviderRateLimited => "the provider limits the gate's rate",
        Reason::ProviderTimeout
        | Reason::ProviderUnreachable
        | Reason::ProviderReset
        | Reason::ProviderServerError => "the provider is away",
        Reason::NoBodyCallbacks => {
            "a webhook's body does not reach the filter: set `allow_on_headers_stop_iteration: true` on the plugin's configuration"
        }
        Reason::BodyMemory => {
            "webhook bodies beyond what a worker may hold: see `max_body_bytes` and `body_timeout`"
        }
        Reason::OverLimit => "more requests wait for the provider than a worker may hold",
        Reason::Internal => "the gate is in a state that it should not be in: please report it",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::pairs;

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
                body_of(&Reply::Answer { headers: &headers, body: b"" }).map(|_| ()),
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
            assert_eq!(body_of(&Reply::Answer { headers: junk, body: b"" }), Err(Unusable::BadReply.into()));
        }
        assert_eq!(body_of(&Reply::Broken), Err(Outage::Reset.into()));
        assert_eq!(body_of(&Reply::TooLarge), Err(Unusable::TooLarge.into()));
        assert_eq!(body_of(&Reply::NotStarted), Err(Unusable::NotStarted.into()));
    }
}
