//! A callout in the form that Envoy takes.

use super::header_map;
use crate::http::Callout;
use std::time::Duration;

/// The header map of a callout, with the headers that make Envoy's router retry.
pub fn headers(callout: &Callout) -> Vec<u8> {
    let retries = callout.retries.to_string();
    let per_try = per_try(callout.timeout).as_millis().to_string();
    let retry: &[(&str, &str)] = match callout.retries {
        0 => &[],
        // Both say that no request was sent.
        _ if callout.retries_unsent_only => {
            &[("x-envoy-retry-on", "connect-failure,refused-stream"), ("x-envoy-max-retries", &retries)]
        }
        _ => &[
            // `5xx` also covers calls without a response: connection failures, resets, refused
            // streams. 408 is no 5xx, and says the same.
            ("x-envoy-retry-on", "5xx,retriable-status-codes"),
            ("x-envoy-retriable-status-codes", "408"),
            ("x-envoy-max-retries", &retries),
            ("x-envoy-upstream-rq-per-try-timeout-ms", &per_try),
            // The first try goes on beside the second: a slow provider still answers, and a silent
            // endpoint costs a part of the timeout.
            ("x-envoy-hedge-on-per-try-timeout", "true"),
        ],
    };
    let pseudo = [(":method", callout.method), (":path", &callout.path), (":authority", &callout.authority)];
    let own = callout.headers.iter().map(|(name, value)| (*name, value.as_str()));
    let all: Vec<(&str, &str)> = pseudo.into_iter().chain(own).chain(retry.iter().copied()).collect();
    header_map::encode(&all)
}

/// After which Envoy tries again beside the first try, in whole milliseconds: a second one that
/// takes as long still ends within the timeout.
pub fn per_try(timeout: Duration) -> Duration {
    let millis = timeout.as_millis().saturating_mul(45).checked_div(100).unwrap_or_default();
    // None would mean none to Envoy.
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callout(retries: u32, retries_unsent_only: bool) -> Callout {
        Callout {
            cluster: "c".into(),
            authority: "idp.example".into(),
            method: "POST",
            path: "/x".into(),
            headers: vec![("accept", "application/json".into())],
            body: Vec::new(),
            timeout: Duration::from_secs(1),
            retries,
            retries_unsent_only,
        }
    }

    #[test]
    fn what_was_never_sent_is_retried_without_a_second_call_beside_the_first() {
        for (retries, expected) in [(0, None), (3, Some(&b"3"[..]))] {
            let bytes = headers(&callout(retries, true));
            let pairs = header_map::parse(&bytes).unwrap();
            let value = |name: &str| pairs.iter().find(|(n, _)| *n == name.as_bytes()).map(|(_, v)| *v);
            assert_eq!(value("x-envoy-max-retries"), expected);
            let unsent = b"connect-failure,refused-stream";
            assert_eq!(value("x-envoy-retry-on"), expected.map(|_| &unsent[..]));
            assert_eq!(value("x-envoy-retriable-status-codes"), None);
            assert_eq!(value("x-envoy-upstream-rq-per-try-timeout-ms"), None);
            assert_eq!(value("x-envoy-hedge-on-per-try-timeout"), None);
        }
    }

    #[test]
    fn the_router_is_asked_to_retry_only_where_it_is_to() {
        for (retries, expected) in [(0, None), (3, Some(&b"3"[..]))] {
            let bytes = headers(&callout(retries, false));
            let pairs = header_map::parse(&bytes).unwrap();
            let value = |name: &str| pairs.iter().find(|(n, _)| *n == name.as_bytes()).map(|(_, v)| *v);
            assert_eq!(value("x-envoy-max-retries"), expected);
            let only = |text: &'static str| expected.map(|_| text.as_bytes());
            assert_eq!(value("x-envoy-retry-on"), only("5xx,retriable-status-codes"));
            assert_eq!(value("x-envoy-retriable-status-codes"), only("408"));
            assert_eq!(value("x-envoy-upstream-rq-per-try-timeout-ms"), only("450"));
            assert_eq!(value("x-envoy-hedge-on-per-try-timeout"), only("true"));
            assert_eq!(value(":authority"), Some(&b"idp.example"[..]));
        }
    }

    #[test]
    fn a_try_takes_less_than_half_of_the_time_and_never_none() {
        for (timeout, expected) in [(1000, 450), (60_000, 27_000), (3, 1), (1, 1)] {
            assert_eq!(per_try(Duration::from_millis(timeout)), Duration::from_millis(expected));
        }
    }
}
