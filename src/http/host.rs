//! The host of a request, from `:authority`.

use super::head::RequestHead;
use crate::refusal::Denial;

/// A host name: lower case, without port and trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host(String);

impl Host {
    /// The request's only host.
    ///
    /// # Errors
    /// [`Denial::InvalidHost`] if there is none, more than one, or one that two servers could read
    /// differently.
    pub(crate) fn of(head: &RequestHead<'_>) -> Result<Self, Denial> {
        let mut authorities = head.values(":authority");
        let (Some(authority), None) = (authorities.next(), authorities.next()) else {
            return Err(Denial::InvalidHost);
        };
        // Envoy moves `Host` to `:authority`; a `Host` that is still present would be a second
        // host.
        if head.has("host") {
            return Err(Denial::InvalidHost);
        }
        Self::parse(authority).ok_or(Denial::InvalidHost)
    }

    /// Parses `host[:port]`.
    pub(crate) fn parse(authority: &[u8]) -> Option<Self> {
        if authority.first() == Some(&b'[') {
            return ipv6(authority);
        }
        let authority = std::str::from_utf8(authority).ok()?;
        let host = match authority.split_once(':') {
            Some((host, port)) if is_port(port) => host,
            Some(_) => return None,
            None => authority,
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if host.is_empty()
            || host.len() > MAX_HOST
            || !host.bytes().all(plain)
            || host.split('.').any(str::is_empty)
        {
            return None;
        }
        Some(Self(host.to_ascii_lowercase()))
    }

    /// The host in lower case.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

fn ipv6(authority: &[u8]) -> Option<Host> {
    let text = std::str::from_utf8(authority).ok()?;
    let (literal, rest) = text.strip_prefix('[')?.split_once(']')?;
    let port_holds = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    // An address has many spellings: the parsed form is compared.
    let address: std::net::Ipv6Addr = literal.parse().ok()?;
    port_holds.then(|| Host(format!("[{address}]")))
}

fn is_port(port: &str) -> bool {
    (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit())
}

/// RFC 1035 section 2.3.4.
const MAX_HOST: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        const CASES: [(&str, Option<&str>); 20] = [
            ("api.example.com", Some("api.example.com")),
            ("API.Example.COM:8443", Some("api.example.com")),
            ("api.example.com.", Some("api.example.com")),
            ("api.example.com.:80", Some("api.example.com")),
            ("under_score.example", Some("under_score.example")),
            ("[::1]:80", Some("[::1]")),
            ("[0:0:0:0:0:0:0:1]", Some("[::1]")),
            ("[::1]80", None),
            ("[fe80::1%25eth0]", None),
            ("[::1", None),
            ("", None),
            (".", None),
            ("a..b", None),
            ("a.example,b.example", None),
            ("user@a.example", None),
            ("a%2eexample", None),
            ("a.example:", None),
            ("a.example:123456", None),
            ("a.example:80:80", None),
            ("a.example:8x", None),
        ];
        for (authority, expected) in CASES {
            assert_eq!(Host::parse(authority.as_bytes()).as_ref().map(Host::as_str), expected, "{authority}");
        }
        assert_eq!(Host::parse(b"caf\xc3\xa9.example"), None);
        assert_eq!(Host::parse(&[b'a'; 254]), None);
    }
}
