//! The credential of a request: where it may be, and what makes it malformed.

use crate::http::head::{Reading, RequestHead, normalized_eq};
use crate::http::query::{self, MOST_PAIRS, Query};
use crate::refusal::Denial;
use crate::secret::{Secret, Token};
use std::borrow::Cow;

/// One place where a token may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A header, with or without a scheme before the token.
    Header {
        /// The header's name, in lower case.
        name: String,
        /// The scheme, compared without regard to case.
        scheme: Option<String>,
    },
    /// A cookie.
    Cookie {
        /// The cookie's name, case-sensitive.
        name: String,
        /// The origins from which unsafe methods and upgrades are accepted; empty: from all.
        origins: Vec<String>,
    },
    /// A query parameter.
    Query {
        /// The parameter's name.
        name: String,
    },
}

/// The token of a request; `None` if it has none. `max_bytes`: the longest that is taken.
///
/// # Errors
/// [`Denial::MalformedCredential`] if a source violates the grammar or appears twice,
/// [`Denial::ConflictingCredentials`] if two sources have different tokens, [`Denial::CrossSite`]
/// if an unsafe request from an unlisted origin has its token only in a cookie.
pub(crate) fn extract(
    sources: &[Source],
    head: &RequestHead<'_>,
    query: &Query<'_>,
    max_bytes: usize,
) -> Result<Option<Token>, Denial> {
    let reads_cookies = sources.iter().any(|source| matches!(source, Source::Cookie { .. }));
    let cookies = if reads_cookies { cookies(head)? } else { Vec::new() };
    let mut found: Option<Cow<'_, str>> = None;
    let mut cookie_origins: Option<&[String]> = None;
    let mut vouched = false;
    for source in sources {
        let Some(token) = source.read(head, query, &cookies, max_bytes)? else { continue };
        if found.as_ref().is_some_and(|f| *f != token) {
            return Err(Denial::ConflictingCredentials);
        }
        match source {
            Source::Cookie { origins, .. } if !origins.is_empty() => cookie_origins = Some(origins),
            // A page of another site cannot set a header, nor know the token for a query.
            _ => vouched = true,
        }
        found = Some(token);
    }
    if let Some(origins) = cookie_origins
        && !vouched
        && (!is_safe(head.method()) || head.is_upgrade())
        && !comes_from(head, origins)
    {
        return Err(Denial::CrossSite);
    }
    Ok(found.map(|token| Secret::new(token.into_owned())))
}

/// Whether the request's method is safe (RFC 9110 section 9.2.1).
fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

fn comes_from(head: &RequestHead<'_>, origins: &[String]) -> bool {
    match head.read("origin") {
        Reading::One(origin) => origins.iter().any(|o| o.as_bytes() == origin.as_ref()),
        Reading::Missing | Reading::Ambiguous => false,
    }
}

impl Source {
    fn read<'a>(
        &self,
        head: &RequestHead<'a>,
        query: &Query<'a>,
        cookies: &[Cookie<'a>],
        max_bytes: usize,
    ) -> Result<Option<Cow<'a, str>>, Denial> {
        let value = match self {
            Self::Header { name, scheme } => match head.read(name) {
                Reading::Missing => return Ok(None),
                Reading::Ambiguous => return Err(Denial::MalformedCredential),
                Reading::One(value) => match scheme {
                    Some(scheme) if is_followed_by_tab(&value, scheme) => {
                        return Err(Denial::MalformedCredential);
                    }
                    Some(scheme) => match after_scheme(value, scheme) {
                        Some(token) => token,
                        None => return Ok(None),
                    },
                    None if value.is_empty() => return Ok(None),
                    None => value,
                },
            },
            Self::Cookie { name, .. } => match cookie(cookies, name)? {
                None | Some(b"") => return Ok(None),
                Some(value) => Cow::Borrowed(value),
            },
            Self::Query { name } => match query.read(name) {
                Reading::Missing => return Ok(None),
                Reading::Ambiguous => return Err(Denial::MalformedCredential),
                Reading::One(value) if value.is_empty() => return Ok(None),
                Reading::One(value) => value,
            },
        };
        if value.len() > max_bytes || !is_b64token(&value) {
            return Err(Denial::MalformedCredential);
        }
        let text = match value {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).ok(),
            Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).ok(),
        };
        text.map(Some).ok_or(Denial::MalformedCredential)
    }

    /// The header that this source reads, in lower case.
    pub(crate) fn header_name(&self) -> Option<&str> {
        match self {
            Self::Header { name, .. } => Some(name),
            Self::Cookie { .. } => Some("cookie"),
            Self::Query { .. } => None,
        }
    }

    /// Whether a header with this name and value carries what this source reads as a credential,
    /// be it malformed. A name that a server may read as the source's own counts as it.
    pub(crate) fn is_credential(&self, name: &[u8], value: &[u8]) -> bool {
        let Self::Header { name: own, scheme } = self else { return false };
        normalized_eq(name, own.as_bytes())
            && match scheme {
                Some(scheme) => after_scheme(Cow::Borrowed(value), scheme).is_some(),
                None => !value.is_empty(),
            }
    }

    /// The query parameter that this source reads.
    pub(crate) fn query_name(&self) -> Option<&str> {
        match self {
            Self::Query { name } => Some(name),
            _ => None,
        }
    }
}

/// Whether a tab stands where a space has to: some services take it for one, and would read a token
/// that was not looked at.
fn is_followed_by_tab(value: &[u8], scheme: &str) -> bool {
    value.split_at_checked(scheme.len()).is_some_and(|(begins, rest)| {
        begins.eq_ignore_ascii_case(scheme.as_bytes()) && rest.first() == Some(&b'\t')
    })
}

/// The text after the scheme and its spaces; `None` if the value has another scheme or none, and is
/// therefore not a credential for the gate.
///
/// Envoy joins two `Authorization` headers with a comma before a filter sees them. If the first has
/// this scheme, the comma violates the token's grammar, and the request is refused.
fn after_scheme<'a>(value: Cow<'a, [u8]>, scheme: &str) -> Option<Cow<'a, [u8]>> {
    let end = value.iter().position(|b| *b == b' ').unwrap_or(value.len());
    if !value.get(..end)?.eq_ignore_ascii_case(scheme.as_bytes()) {
        return None;
    }
    let spaces = value.iter().skip(end).take_while(|b| **b == b' ').count();
    let start = end.saturating_add(spaces);
    Some(match value {
        Cow::Borrowed(value) => Cow::Borrowed(value.get(start..)?),
        Cow::Owned(value) => Cow::Owned(value.get(start..)?.to_vec()),
    })
}

/// RFC 6750 section 2.1: `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
fn is_b64token(value: &[u8]) -> bool {
    // Without an early exit, which most tokens would not take.
    if !value.is_empty() && value.iter().fold(true, |all, b| all & is_b64char(*b)) {
        return true;
    }
    let body = value.iter().position(|b| !is_b64char(*b)).unwrap_or(value.len());
    body > 0 && value.iter().skip(body).all(|b| *b == b'=')
}

/// A table, since every request checks each byte of its token.
fn is_b64char(byte: u8) -> bool {
    const CHARS: [bool; 256] = {
        let mut table = [false; 256];
        let mut rest = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/".as_slice();
        while let [first, after @ ..] = rest {
            #[expect(clippy::indexing_slicing, reason = "a byte's place, while compiling")]
            (table[*first as usize] = true);
            rest = after;
        }
        table
    };
    CHARS.get(usize::from(byte)).is_some_and(|is_one| *is_one)
}

/// A cookie: its name and its value.
type Cookie<'a> = (&'a [u8], &'a [u8]);

/// All cookies of a request.
fn cookies<'a>(head: &RequestHead<'a>) -> Result<Vec<Cookie<'a>>, Denial> {
    let mut cookies = Vec::new();
    for cookie in head.values("cookie").flat_map(cookie_pairs) {
        if cookies.len() >= MOST_PAIRS {
            return Err(Denial::MalformedCredential);
        }
        cookies.push(cookie);
    }
    Ok(cookies)
}

/// The value of the cookie with this name. One whose name is this only after decoding is a second
/// occurrence, and never the value.
fn cookie<'a>(cookies: &[Cookie<'a>], name: &str) -> Result<Option<&'a [u8]>, Denial> {
    let mut named = cookies.iter().filter(|(raw, _)| query::decodes_to(raw, name.as_bytes()));
    match (named.next(), named.next()) {
        (_, Some(_)) => Err(Denial::MalformedCredential),
        (Some((raw, value)), None) if *raw == name.as_bytes() => Ok(Some(value)),
        _ => Ok(None),
    }
}

/// The pairs of a `Cookie` header (RFC 6265 section 4.2.1); what has no `=` is not a pair.
fn cookie_pairs(line: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    line.split(|b| *b == b';').filter_map(|pair| {
        let at = pair.iter().position(|b| *b == b'=')?;
        Some((pair.get(..at)?.trim_ascii(), unquoted(pair.get(at.saturating_add(1)..)?.trim_ascii())))
    })
}

/// RFC 6265 section 4.1.1: a value may stand in DQUOTEs, which are no part of what it says.
fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

/// A `Cookie` header without the credentials in cookies with these names; `None` if it has none of
/// them. An empty cookie is no credential, and stays.
pub(crate) fn without_cookies(line: &[u8], names: &[&str]) -> Option<Vec<u8>> {
    let is_one = |raw: &[u8], value: &[u8]| {
        !value.is_empty() && names.iter().any(|name| query::decodes_to(raw, name.as_bytes()))
    };
    let is_named = |pair: &&[u8]| cookie_pairs(pair).any(|(raw, value)| is_one(raw, value));
    if !line.split(|b| *b == b';').any(|pair| is_named(&pair)) {
        return None;
    }
    let kept: Vec<&[u8]> =
        line.split(|b| *b == b';').filter(|pair| !is_named(pair)).map(<[u8]>::trim_ascii).collect();
    Some(kept.join(&b"; "[..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_TOKEN: usize = 8192;
    use crate::http::head::head_of;
    use proptest::prelude::*;

    fn bearer() -> Source {
        Source::Header { name: "authorization".into(), scheme: Some("Bearer".into()) }
    }

    fn extracted(sources: &[Source], headers: &[(&str, &[u8])]) -> Result<Option<String>, Denial> {
        let head = head_of(headers, true);
        let names = sources.iter().filter_map(Source::query_name);
        let query = Query::parse(head.target(), names, MOST_PAIRS).unwrap();
        extract(sources, &head, &query, MAX_TOKEN).map(|t| t.map(|t| t.reveal().clone()))
    }

    #[test]
    fn the_authorization_header() {
        let none = Ok(None);
        let bad = Err(Denial::MalformedCredential);
        let token = |t: &str| Ok(Some(t.to_owned()));
        let cases: [(&[u8], Result<Option<String>, Denial>); 15] = [
            (b"Bearer abc", token("abc")),
            (b"bEARER   abc==", token("abc==")),
            (b"Basic abc", none.clone()),
            (b"abc", none.clone()),
            (b"", none.clone()),
            (b"Bearer\tabc", bad.clone()),
            (b"Basic x,Bearer y", none.clone()),
            (b"Bearer", bad.clone()),
            (b"Bearer ", bad.clone()),
            (b"Bearer a,Bearer b", bad.clone()),
            (b"Bearer a b", bad.clone()),
            (b"Bearer =", bad.clone()),
            (b"Bearer a=b", bad.clone()),
            (b"Bearer \xff", bad.clone()),
            (b"Bearer \"a\"", bad.clone()),
        ];
        for (value, expected) in cases {
            assert_eq!(
                extracted(&[bearer()], &[("authorization", value)]),
                expected,
                "{}",
                String::from_utf8_lossy(value)
            );
        }
        let long = [b"Bearer ".to_vec(), vec![b'a'; MAX_TOKEN]].concat();
        assert!(extracted(&[bearer()], &[("authorization", &long)]).unwrap().is_some());
        let longer = [b"Bearer ".to_vec(), vec![b'a'; MAX_TOKEN + 1]].concat();
        assert_eq!(extracted(&[bearer()], &[("authorization", &longer)]), Err(Denial::MalformedCredential));
        assert_eq!(
            extracted(&[bearer()], &[("authorization", b"Bearer a"), ("authorization", b"Basic b")]),
            Err(Denial::MalformedCredential)
        );
    }

    #[test]
    fn two_sources_must_agree() {
        let sources = [
            bearer(),
            Source::Header { name: "x-token".into(), scheme: None },
            Source::Query { name: "access_token".into() },
        ];
        assert_eq!(
            extracted(&sources, &[("authorization", b"Bearer a"), ("x-token", b"a")]),
            Ok(Some("a".into()))
        );
        assert_eq!(
            extracted(&sources, &[("authorization", b"Bearer a"), ("x-token", b"b")]),
            Err(Denial::ConflictingCredentials)
        );
        assert_eq!(extracted(&sources, &[(":path", b"/x?access_token=a%2Bb")]), Ok(Some("a+b".into())));
        assert_eq!(
            extracted(&sources, &[(":path", b"/x?access_token=a+b")]),
            Err(Denial::MalformedCredential)
        );
        assert_eq!(
            extracted(&sources, &[(":path", b"/x?access_token=a&ACCESS_TOKEN=a")]),
            Err(Denial::MalformedCredential)
        );
    }

    #[test]
    fn a_cookie_vouches_for_unsafe_requests_of_listed_origins_only() {
        let cookie =
            Source::Cookie { name: "session".into(), origins: vec!["https://app.example.com".into()] };
        let site: (&str, &[u8]) = ("origin", b"https://app.example.com");
        let other: (&str, &[u8]) = ("origin", b"https://evil.example");
        let jar: (&str, &[u8]) = ("cookie", b"a=1; session=tok; b");
        let (get, post): ((&str, &[u8]), (&str, &[u8])) = ((":method", b"GET"), (":method", b"POST"));
        let sources = [cookie, bearer()];
        assert_eq!(extracted(&sources, &[get, jar]), Ok(Some("tok".into())));
        assert_eq!(extracted(&sources, &[post, jar]), Err(Denial::CrossSite));
        assert_eq!(extracted(&sources, &[post, jar, other]), Err(Denial::CrossSite));
        assert_eq!(extracted(&sources, &[post, jar, site]), Ok(Some("tok".into())));
        assert_eq!(extracted(&sources, &[post, jar, site, site]), Err(Denial::CrossSite));
        assert_eq!(extracted(&sources, &[get, jar, ("upgrade", b"websocket")]), Err(Denial::CrossSite));
        assert_eq!(
            extracted(&sources, &[post, jar, ("authorization", b"Bearer tok")]),
            Ok(Some("tok".into()))
        );
        assert_eq!(
            extracted(&sources, &[get, jar, ("cookie", b"session=tok")]),
            Err(Denial::MalformedCredential)
        );
        assert_eq!(extracted(&sources, &[get, ("cookie", b"session")]), Ok(None));
        assert_eq!(extracted(&sources, &[get, ("cookie", b"session=")]), Ok(None));
        assert_eq!(extracted(&sources, &[get, ("cookie", b"session=\"\"")]), Ok(None));
        assert_eq!(extracted(&sources, &[get, ("cookie", b"session=\"tok\"")]), Ok(Some("tok".into())));
        for half in [&b"session=\"tok"[..], b"session=tok\"", b"session=\"", b"session=\"\"tok\"\""] {
            assert_eq!(
                extracted(&sources, &[get, ("cookie", half)]),
                Err(Denial::MalformedCredential),
                "{}",
                String::from_utf8_lossy(half)
            );
        }
    }

    #[test]
    fn cookies_are_cut_out_of_their_line() {
        assert_eq!(without_cookies(b"a=1; session=x; b=2", &["session"]), Some(b"a=1; b=2".to_vec()));
        assert_eq!(without_cookies(b"session=x", &["session"]), Some(Vec::new()));
        for kept in ["a=1", "session=; a=1", "session=\"\"", "session", "Session=x"] {
            assert_eq!(without_cookies(kept.as_bytes(), &["session"]), None, "{kept}");
        }
        assert_eq!(without_cookies(b"session=\"x\"; a=1", &["session"]), Some(b"a=1".to_vec()));
    }

    proptest! {
        #[test]
        fn a_token_is_always_of_the_grammar(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(Some(token)) = extracted(&[bearer()], &[("authorization", &[b"Bearer ".to_vec(), value].concat())]) {
                prop_assert!(is_b64token(token.as_bytes()));
            }
        }
    }
}
