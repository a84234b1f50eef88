//! Matching a request to a route: by host, then path segment by segment, then method.

pub(crate) mod pattern;
mod reading;
pub(crate) mod table;
mod trie;

pub(crate) use pattern::Pattern;
pub(crate) use table::{Found, RouteTable};

/// What a route asks of a request, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Demand {
    /// Nothing.
    Nothing,
    /// That a credential is valid if there is one.
    ValidIfAny,
    /// A credential or a signature.
    Proof,
}

/// What the table compares of two routes.
pub(crate) trait Compared {
    /// What the route asks.
    fn demand(&self) -> Demand;

    /// Whether the end of a path, such as `.json`, is part of its last segment for this route.
    fn takes_suffix_literally(&self) -> bool;
}

/// The methods that a route matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Methods {
    /// Every method.
    Any,
    /// Only these; `GET` includes `HEAD` (RFC 9110 section 9.3.2).
    Only(Vec<String>),
}

impl Methods {
    /// Whether the route matches this method. Methods are case-sensitive (RFC 9110 section 9.1).
    pub(crate) fn covers(&self, method: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names.iter().any(|n| n == method || (n == "GET" && method == "HEAD")),
        }
    }

    /// Whether some method is matched by both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Only(a), Self::Only(b)) => {
                a.iter().any(|m| other.covers(m)) || b.iter().any(|m| self.covers(m))
            }
        }
    }
}

/// The hosts that a route matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HostPattern {
    /// This host.
    Exact(String),
    /// Every host that ends with this suffix, which begins with a dot (`*.example.com` is
    /// `.example.com`).
    Suffix(String),
    /// Every host.
    Any,
}

impl HostPattern {
    /// Parses `api.example.com` or `*.example.com`; `None` if it is neither.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let host =
            |text: &str| crate::http::host::Host::parse(text.as_bytes()).map(|h| h.as_str().to_owned());
        let no_port = text.starts_with('[') || !text.contains(':');
        match text.strip_prefix("*.") {
            Some(rest) if !rest.starts_with('[') => {
                host(rest).filter(|_| no_port).map(|h| Self::Suffix(format!(".{h}")))
            }
            Some(_) => None,
            None => host(text).filter(|_| no_port).map(Self::Exact),
        }
    }
}
