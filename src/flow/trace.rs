//! What ties a callout to the request that it is for: four headers, and only in the form that their
//! makers give them. Whatever a client can send goes to the provider, so nothing else does.

use crate::http::Trace;
use crate::http::head::{Reading, RequestHead};

/// The headers of a request that go with its callouts. One that is malformed, or occurs twice,
/// does not. `tracestate`: whether that one may.
pub(super) fn of(head: &RequestHead<'_>, tracestate: bool) -> Trace {
    let read = |name: &'static str, is_valid: fn(&str) -> bool| {
        let Reading::One(value) = head.read(name) else { return None };
        let value = String::from_utf8(value.into_owned()).ok()?;
        is_valid(&value).then_some((name, value))
    };
    [
        read("x-request-id", is_request_id),
        read("traceparent", is_traceparent),
        read("b3", is_b3),
        read("tracestate", is_tracestate).filter(|_| tracestate),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn is_request_id(value: &str) -> bool {
    (1..=64).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// W3C Trace Context section 3.2.2, version 00.
fn is_traceparent(value: &str) -> bool {
    let is_hex = |part: &str, len: usize| part.len() == len && part.bytes().all(is_lower_hex);
    let is_id = |part: &str, len: usize| is_hex(part, len) && part.bytes().any(|b| b != b'0');
    let parts: Vec<&str> = value.split('-').collect();
    matches!(parts.as_slice(), ["00", trace, parent, flags]
        if is_id(trace, 32) && is_id(parent, 16) && is_hex(flags, 2))
}

fn is_b3(value: &str) -> bool {
    (1..=64).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

fn is_tracestate(value: &str) -> bool {
    (1..=512).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_@/=,.:*-".contains(&b))
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
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
        assert_eq!(of(&twice, true), []);
        assert_eq!(of(&head_of(&[("tracestate", "a=b")], true), false), []);
    }
}
