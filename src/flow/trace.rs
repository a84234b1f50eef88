//! What ties a callout to the request that it is for: four headers, and only in the form that their
//! makers give them. Whatever a client can send goes to the provider, so nothing else does.

use crate::http::Trace;
use crate::http::head::{Reading, RequestHead};

/// A header, with the longest value and the bytes that it may have.
type Form = (&'static str, usize, fn(u8) -> bool);

const HEADERS: [Form; 4] = [
    ("x-request-id", 64, |b| b.is_ascii_alphanumeric() || b == b'-'),
    ("traceparent", 55, |b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-')),
    ("b3", 64, |b| b.is_ascii_hexdigit() || b == b'-'),
    ("tracestate", 512, |b| b.is_ascii_alphanumeric() || b"_@/=,.:*-".contains(&b)),
];

/// The headers of a request that go with its callouts. One that is malformed, or occurs twice,
/// does not. `tracestate`: whether that one may.
pub(super) fn of(head: &RequestHead<'_>, tracestate: bool) -> Trace {
    let mut trace = Vec::new();
    for (name, longest, is_one) in HEADERS {
        if let Reading::One(value) = head.read(name)
            && (1..=longest).contains(&value.len())
            && value.iter().all(|b| is_one(*b))
            && let Ok(value) = String::from_utf8(value.into_owned())
            && (name != "traceparent" || is_traceparent(&value))
            && (name != "tracestate" || tracestate)
        {
            trace.push((name, value));
        }
    }
    trace.into()
}

/// W3C Trace Context section 3.2.2, version 00; its bytes are known to be digits and dashes.
fn is_traceparent(value: &str) -> bool {
    let is_id = |part: &str, len: usize| part.len() == len && part.bytes().any(|b| b != b'0');
    let mut parts = value.split('-');
    let mut part = || parts.next().unwrap_or_default();
    part() == "00" && is_id(part(), 32) && is_id(part(), 16) && part().len() == 2 && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::head_of;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_well_formed_headers_go_with_a_callout() {
        let kept = |name: &str, value: &str| of(&head_of(&[(name, value)], true), true).len() == 1;
        let cases = [
            ("x-request-id", "6f1c8c39-4a2b", true),
            ("x-request-id", "", false),
            ("x-request-id", "a b", false),
            ("x-request-id", "a\r\nx: y", false),
            ("traceparent", PARENT, true),
            ("traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("traceparent", "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("traceparent", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", false),
            ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1", true),
            ("b3", "0", true),
            ("b3", "d; x", false),
            ("tracestate", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", true),
            ("tracestate", "a=b c", false),
            ("x-other", "1", false),
        ];
        for (name, value, expected) in cases {
            assert_eq!(kept(name, value), expected, "{name}: {value}");
        }
        for (name, length) in [("x-request-id", 64), ("b3", 64), ("tracestate", 512)] {
            assert!(kept(name, &"a".repeat(length)) && !kept(name, &"a".repeat(length + 1)), "{name}");
        }
        let twice = head_of(&[("traceparent", PARENT), ("traceparent", PARENT)], true);
        assert!(of(&twice, true).is_empty());
        assert!(of(&head_of(&[("tracestate", "a=b")], true), false).is_empty());
    }
}
