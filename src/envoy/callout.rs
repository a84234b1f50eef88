//! A callout in the form that Envoy takes.

use super::header_map;
use crate::http::Callout;

/// The header map of a callout, with the headers that make Envoy's router retry.
pub fn headers(callout: &Callout) -> Vec<u8> {
    let retries = callout.retries.to_string();
    // `5xx` also covers calls without a response: connection failures, resets, refused streams.
    let retry: &[(&str, &str)] = match callout.retries {
        0 => &[],
        _ => &[("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", &retries)],
    };
    let pseudo = [(":method", callout.method), (":path", &callout.path), (":authority", &callout.authority)];
    let own = callout.headers.iter().map(|(name, value)| (*name, value.as_str()));
    let all: Vec<(&str, &str)> = pseudo.into_iter().chain(own).chain(retry.iter().copied()).collect();
    header_map::encode(&all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_router_is_asked_to_retry_only_where_it_is_to() {
        for (retries, expected) in [(0, None), (3, Some(&b"3"[..]))] {
            let callout = Callout {
                cluster: "c".into(),
                authority: "idp.example".into(),
                method: "POST",
                path: "/x".into(),
                headers: vec![("accept", "application/json".into())],
                body: Vec::new(),
                timeout: Duration::from_secs(1),
                retries,
            };
            let bytes = headers(&callout);
            let pairs = header_map::parse(&bytes).unwrap();
            let value = |name: &str| pairs.iter().find(|(n, _)| *n == name.as_bytes()).map(|(_, v)| *v);
            assert_eq!(value("x-envoy-max-retries"), expected);
            assert_eq!(value("x-envoy-retry-on"), expected.map(|_| &b"5xx"[..]));
            assert_eq!(value(":authority"), Some(&b"idp.example"[..]));
        }
    }
}
