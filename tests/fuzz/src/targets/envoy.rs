//! The byte formats of the host.

use arbitrary::Unstructured;
use avnology_gate::envoy::{header_map as map, response as read};
use avnology_gate::http::CallFailure;
use avnology_gate::http::head::{Reading, RequestHead, normalized_eq};

/// The layout of header maps, and how a head is read from one.
pub(crate) fn header_map(data: &[u8]) {
    let Ok(pairs) = map::parse(data) else {
        // A head that cannot be read has no headers, and ends nothing.
        let head = map::request_head(data, true);
        assert!(head.pairs().is_empty() && !head.end_of_stream());
        return;
    };
    // An empty input is an empty map; what follows the last pair is ignored.
    let is_same = data.is_empty() || data.starts_with(&map::encode(&pairs));
    assert!(is_same, "{pairs:?} is written otherwise");
    let head = RequestHead::new(pairs.clone(), true);
    for (name, value) in &pairs {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let same = pairs.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()));
        let twins = pairs.iter().filter(|(other, _)| normalized_eq(other, name.as_bytes())).count();
        match head.read(name) {
            Reading::One(read) => assert!(twins == 1 && read == *value),
            Reading::Ambiguous => assert!(twins > 1),
            Reading::Missing => panic!("{name} is missing"),
        }
        assert!(head.values(name).eq(same.map(|(_, value)| *value)));
    }
    let nominated = |value: &&[u8]| {
        let value = String::from_utf8_lossy(value).to_ascii_lowercase();
        let options = value.split(',').map(|option| option.trim_matches([' ', '\t', '\r', '\n', '\x0c']));
        let known = ["", "upgrade", "keep-alive", "close", "te", "http2-settings"];
        options.into_iter().any(|option| !known.contains(&option))
    };
    let expected = head.values("connection").collect::<Vec<_>>().iter().any(nominated);
    assert_eq!(head.connection_nominates(), expected);
    let _ = (head.is_grpc(), head.is_grpc_web(), head.method(), head.target(), head.may_be_empty());
}

/// A callout's answer: the provider's own, or one that the host has made.
pub(crate) fn response(data: &[u8]) {
    let mut input = Unstructured::new(data);
    if input.arbitrary().unwrap_or(false) {
        // Headers as they come, which are seldom well-formed.
        let _ =
            (read::read(input.peek_bytes(input.len()).unwrap_or_default(), b""), read::read_oversize(data));
        return;
    }
    let names =
        [":status", "x-envoy-upstream-service-time", "x-envoy-overloaded", "retry-after", "Retry-After"];
    let mut pairs: Vec<(&str, &[u8])> = Vec::new();
    while let Ok(name) = input.choose(&names) {
        let Ok(len) = input.int_in_range(0..=6) else { break };
        let Ok(value) = input.bytes(len.min(input.len())) else { break };
        pairs.push((name, value));
        if input.is_empty() || pairs.len() > 8 {
            break;
        }
    }
    let headers = map::encode(&pairs);
    let first =
        |name: &str| pairs.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
    let digits = first(":status").map(String::from_utf8_lossy).unwrap_or_default();
    let status = digits.strip_prefix('+').unwrap_or(&digits);
    let is_number = !status.is_empty() && status.bytes().all(|b| b.is_ascii_digit());
    let status = status.parse::<u16>().ok().filter(|_| is_number);
    let is_real = first("x-envoy-upstream-service-time").is_some();
    let expected = match status {
        None => Err(CallFailure::Malformed),
        Some(500..=599) if !is_real && first("x-envoy-overloaded").is_some() => Err(CallFailure::NotStarted),
        Some(504) if !is_real => Err(CallFailure::Timeout),
        Some(503) if !is_real => Err(CallFailure::Unreachable),
        Some(500..=599) if !is_real => Err(CallFailure::Reset),
        Some(status) => Ok((status, first("retry-after"))),
    };
    let got = read::read(&headers, b"body").map(|response| {
        assert_eq!(response.body, b"body");
        (response.status, response.retry_after)
    });
    assert_eq!(got, expected);
    let oversize = read::read_oversize(&headers).map(|response| response.status);
    let expected = match expected {
        Ok((200, _)) => Err(CallFailure::TooLarge),
        other => other.map(|(status, _)| status),
    };
    assert_eq!(oversize, expected);
}
