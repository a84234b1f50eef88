//! The head of a request, read in place from the host's bytes.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// One header: name and value as received. Neither has to be UTF-8.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// A request's headers as received, pseudo-headers included.
#[derive(Clone, Debug)]
pub struct RequestHead<'a> {
    pairs: Vec<Pair<'a>>,
    end_of_stream: bool,
    source: Option<ReadSource<'a>>,
}

/// Reads the address that a request comes from, with its port. A host call, so it is made only
/// where the address counts.
#[derive(Clone, Copy)]
struct ReadSource<'a>(&'a dyn Fn() -> Option<Vec<u8>>);

impl fmt::Debug for ReadSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadSource")
    }
}

/// An address as one sender's: of IPv6 the first 64 bits, since whoever has one has the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source(u128);

impl Source {
    /// Its bytes.
    pub(crate) fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

/// The value found for one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading<'a> {
    /// No value for this exact name.
    Missing,
    /// One value.
    One(Cow<'a, [u8]>),
    /// More than one value, or another name that a server might read as this one.
    Ambiguous,
}

impl<'a> RequestHead<'a> {
    /// A head with these headers. `end_of_stream`: neither body nor trailers follow.
    pub fn new(pairs: Vec<Pair<'a>>, end_of_stream: bool) -> Self {
        Self { pairs, end_of_stream, source: None }
    }

    /// A head that the host could not read. It has no headers, as no real request does.
    pub fn unreadable() -> Self {
        Self { pairs: Vec::new(), end_of_stream: false, source: None }
    }

    /// The same head, with what reads the address that it comes from.
    #[must_use]
    pub fn with_source(self, source: &'a dyn Fn() -> Option<Vec<u8>>) -> Self {
        Self { source: Some(ReadSource(source)), ..self }
    }

    /// The address that it comes from; `None` where there is none, as on a pipe.
    pub(crate) fn source(&self) -> Option<Source> {
        let address = self.source?.0()?;
        let address: SocketAddr = std::str::from_utf8(&address).ok()?.parse().ok()?;
        Some(Source(match address.ip().to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits() >> 64 << 64,
        }))
    }

    /// All headers, in the order in which the host gave them.
    pub fn pairs(&self) -> &[Pair<'a>] {
        &self.pairs
    }

    /// Whether neither body nor trailers follow.
    pub fn end_of_stream(&self) -> bool {
        self.end_of_stream
    }

    /// Whether the head leaves open, or says, that no content follows. Its end may stand in a frame
    /// of its own: an empty DATA (RFC 9113 section 8.1) or a last chunk.
    pub fn may_be_empty(&self) -> bool {
        self.end_of_stream || self.values("content-length").all(|length| length == b"0")
    }

    /// All values of the header with this name, in any case.
    pub fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'a [u8]> + 'h {
        self.pairs
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| *value)
    }

    /// Whether the request has a header with this name.
    pub fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// Whether some server might read a header of the request as the one with this name.
    pub fn mentions(&self, name: &str) -> bool {
        self.pairs.iter().any(|(n, _)| normalized_eq(n, name.as_bytes()))
    }

    /// The value of the header with this name, if no other header could be read as it.
    ///
    /// Servers that pass headers on as environment variables (CGI, WSGI) map every non-alphanumeric
    /// byte of a name to the same one, so `x_token` and `x-token` are duplicates.
    pub fn read(&self, name: &str) -> Reading<'a> {
        let mut found = Reading::Missing;
        let mut seen = false;
        for (n, value) in &self.pairs {
            if !normalized_eq(n, name.as_bytes()) {
                continue;
            }
            if seen {
                return Reading::Ambiguous;
            }
            seen = true;
            if n.eq_ignore_ascii_case(name.as_bytes()) {
                found = Reading::One(Cow::Borrowed(value));
            }
        }
        found
    }

    /// The request's method; empty if it is missing or not UTF-8.
    pub fn method(&self) -> &'a str {
        self.values(":method").next().and_then(|m| std::str::from_utf8(m).ok()).unwrap_or_default()
    }

    /// `:path` with its query, as received.
    pub fn target(&self) -> Option<&'a [u8]> {
        self.values(":path").next()
    }

    /// Whether the request asks for a protocol upgrade (such as WebSocket).
    pub fn is_upgrade(&self) -> bool {
        self.has("upgrade")
    }

    /// Whether this is a gRPC request: `application/grpc`, alone or with a suffix.
    ///
    /// The same test as Envoy's, which makes its local replies trailers-only for these requests
    /// alone.
    pub fn is_grpc(&self) -> bool {
        let rest =
            self.values("content-type").next().and_then(|value| value.strip_prefix(b"application/grpc"));
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
    }

    /// Whether this is a gRPC-Web request: `application/grpc-web`, alone, as text, or with a
    /// suffix.
    pub fn is_grpc_web(&self) -> bool {
        self.values("content-type").next().is_some_and(|value| value.starts_with(b"application/grpc-web"))
    }

    /// Whether `Connection` names a header that the next hop would then delete (RFC 9110 section
    /// 7.6.1).
    pub fn connection_nominates(&self) -> bool {
        const HARMLESS: [&str; 5] = ["upgrade", "keep-alive", "close", "te", "http2-settings"];
        self.values("connection").flat_map(|value| value.split(|b| *b == b',')).map(<[u8]>::trim_ascii).any(
            |option| {
                !option.is_empty() && !HARMLESS.iter().any(|h| option.eq_ignore_ascii_case(h.as_bytes()))
            },
        )
    }
}

/// A head with these headers.
#[cfg(test)]
pub(crate) fn head_of<'a, N: AsRef<[u8]>, V: AsRef<[u8]>>(
    pairs: &'a [(N, V)],
    end_of_stream: bool,
) -> RequestHead<'a> {
    RequestHead::new(pairs.iter().map(|(n, v)| (n.as_ref(), v.as_ref())).collect(), end_of_stream)
}

/// Whether two header names are equal to a server that reads every non-alphanumeric byte as `-`.
pub fn normalized_eq(name: &[u8], other: &[u8]) -> bool {
    name.len() == other.len() && name.iter().zip(other).all(|(a, b)| normalize_byte(*a) == normalize_byte(*b))
}

/// A byte of a header name as such a server reads it.
pub fn normalize_byte(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head<'a>(pairs: &'a [(&'a str, &'a str)]) -> RequestHead<'a> {
        head_of(pairs, true)
    }

    #[test]
    fn a_folded_name_is_a_second_occurrence_and_never_the_value() {
        let head = head(&[("x-token", "a"), ("x_token", "b"), ("x.other", "c")]);
        assert_eq!(head.read("x-token"), Reading::Ambiguous);
        assert_eq!(head.read("x-other"), Reading::Missing);
        assert_eq!(head.read("x.other"), Reading::One(Cow::Borrowed(b"c")));
        assert_eq!(head.read("absent"), Reading::Missing);
    }

    #[test]
    fn a_source_is_an_address_without_its_port_or_half_of_one() {
        let source = |text: &'static str| {
            let read = || Some(text.as_bytes().to_vec());
            head(&[]).with_source(&read).source()
        };
        assert_eq!(head(&[]).source(), None);
        assert_eq!(source("/var/run/pipe"), None);
        assert_eq!(source("10.0.0.1:80"), source("10.0.0.1:81"));
        assert_eq!(source("10.0.0.1:80"), source("[::ffff:10.0.0.1]:80"));
        assert_ne!(source("10.0.0.1:80"), source("10.0.0.2:80"));
        assert_eq!(source("[2001:db8::1]:80"), source("[2001:db8::ffff:1]:81"));
        assert_ne!(source("[2001:db8::1]:80"), source("[2001:db8:0:1::1]:80"));
        assert!(source("[::1]:80").is_some());
    }

    #[test]
    fn grpc_is_known_by_its_media_type() {
        const CASES: [(&str, bool); 6] = [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; x=1", false),
            ("application/grpc-web", false),
            ("application/json", false),
            ("", false),
        ];
        for (value, expected) in CASES {
            assert_eq!(head(&[("content-type", value)]).is_grpc(), expected, "{value}");
        }
    }

    #[test]
    fn connection_options_beyond_the_harmless_ones_nominate() {
        const CASES: [(&str, bool); 5] = [
            ("upgrade", false),
            ("Upgrade, Keep-Alive", false),
            ("upgrade, x-avnology-user-id", true),
            ("x-other", true),
            (", ,", false),
        ];
        for (value, expected) in CASES {
            assert_eq!(head(&[("connection", value)]).connection_nominates(), expected, "{value}");
        }
    }
}
