//! The path of a request, decoded once. Whatever two servers could read differently is refused.

use crate::refusal::Denial;
use std::borrow::Cow;

/// A path as decoded segments. `/a/b/` is `["a", "b", ""]`, `/` is `[""]`.
///
/// INVARIANT(canonical): no segment is a dot segment or contains `/`, `\`, `;`, a control character
/// or what a second decoding would change, and only the last may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CanonicalPath<'a> {
    segments: Vec<Cow<'a, str>>,
}

impl<'a> CanonicalPath<'a> {
    /// Parses a request target (`:path`, query included).
    ///
    /// # Errors
    /// [`Denial::InvalidPath`] if the path is ambiguous. Envoy's own path normalization is not
    /// relied on: it may be off, and some ambiguous paths pass it.
    pub(crate) fn parse(target: &'a [u8]) -> Result<Self, Denial> {
        // A fragment is never sent (RFC 9110 section 7.1), so `#` is invalid in path and query.
        if target.contains(&b'#') {
            return Err(Denial::InvalidPath);
        }
        let path = target.split(|b| *b == b'?').next().unwrap_or_default();
        let Some((b'/', rest)) = path.split_first() else {
            return Err(Denial::InvalidPath);
        };
        let mut segments = Vec::with_capacity(8);
        let mut raws = rest.split(|b| *b == b'/').peekable();
        while let Some(raw) = raws.next() {
            if raw.is_empty() && raws.peek().is_some() {
                return Err(Denial::InvalidPath);
            }
            segments.push(segment(raw).ok_or(Denial::InvalidPath)?);
        }
        Ok(Self { segments })
    }

    /// The decoded segments; at least one.
    pub(crate) fn segments(&self) -> &[Cow<'a, str>] {
        &self.segments
    }
}

/// Decodes one raw segment; `None` if it is ambiguous.
fn segment(raw: &[u8]) -> Option<Cow<'_, str>> {
    let mut encoded = false;
    let mut rest = raw;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (digits, after) = after.split_first_chunk::<2>()?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                encoded = true;
                rest = after;
            }
            byte if !is_pchar(*byte) => return None,
            _ => {}
        }
    }
    let decoded = if encoded { percent_encoding::percent_decode(raw).into() } else { Cow::Borrowed(raw) };
    let decoded = match decoded {
        Cow::Borrowed(bytes) => Cow::Borrowed(std::str::from_utf8(bytes).ok()?),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).ok()?),
    };
    is_plain_segment(&decoded).then_some(decoded)
}

/// Whether every server reads a decoded segment in the same way. Literals in patterns have the same
/// grammar.
pub(crate) fn is_plain_segment(decoded: &str) -> bool {
    decoded != "."
        && decoded != ".."
        && !decoded.contains(|c: char| c.is_control() || matches!(c, '/' | '\\' | ';'))
        && !decodes_again(decoded.as_bytes())
}

/// Whether a second decoding would change the bytes.
fn decodes_again(bytes: &[u8]) -> bool {
    bytes.windows(3).any(|w| matches!(w, [b'%', a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

/// RFC 3986 section 3.3, without `%` (handled separately) and without `;` (it begins a parameter
/// for some servers, and is a plain character for others).
fn is_pchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b'='
                | b':'
                | b'@'
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_paths_are_decoded_once() {
        const CASES: [(&str, &[&str]); 9] = [
            ("/", &[""]),
            ("/a", &["a"]),
            ("/a/b/", &["a", "b", ""]),
            ("/a%20b", &["a b"]),
            ("/caf%C3%A9?x=/../y", &["café"]),
            ("/v1/permissions:check", &["v1", "permissions:check"]),
            ("/100%25", &["100%"]),
            ("/%61dmin", &["admin"]),
            ("/...", &["..."]),
        ];
        for (target, expected) in CASES {
            let path = CanonicalPath::parse(target.as_bytes()).unwrap();
            assert_eq!(path.segments(), expected, "{target}");
        }
    }

    #[test]
    fn whatever_two_servers_could_read_differently_is_refused() {
        const CASES: [&[u8]; 44] = [
            b"",
            b"*",
            b"a",
            b"?x",
            b"http://a/",
            b"//a",
            b"/a//b",
            b"//",
            b"/.",
            b"/a/./b",
            b"/a/..",
            b"/a/../b",
            b"/%2e",
            b"/%2E%2e/b",
            b"/.%2e",
            b"/a/..;/b",
            b"/a/..;x",
            b"/a/%2e%2e;/b",
            b"/..%3bx",
            b"/a;p=1",
            b"/a%3B",
            b"/a%2fb",
            b"/a%2Fb",
            b"/a%5cb",
            b"/a\\b",
            b"/a%00",
            b"/a\x00",
            b"/a%7f",
            b"/a\x7f",
            b"/a%C2%80",
            b"/a\tb",
            b"/a b",
            b"/%252e%252e",
            b"/%25%32%65",
            b"/a%",
            b"/a%2",
            b"/a%zz",
            b"/%C0%AE",
            b"/%ff",
            b"/caf\xc3\xa9",
            b"/a#b",
            b"/a?x#b",
            b"/a\"b",
            b"/a{b}",
        ];
        for target in CASES {
            assert_eq!(
                CanonicalPath::parse(target),
                Err(Denial::InvalidPath),
                "{:?}",
                String::from_utf8_lossy(target)
            );
        }
    }

    proptest! {
        #[test]
        fn the_invariant_holds_for_whatever_is_accepted(target in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'%'), Just(b'.'), Just(b'2'), Just(b'e'), Just(b'5'), Just(b';'), any::<u8>()], 0..40)) {
            if let Ok(path) = CanonicalPath::parse(&target) {
                let (last, front) = path.segments().split_last().unwrap();
                prop_assert!(front.iter().all(|s| !s.is_empty()));
                for s in front.iter().chain([last]) {
                    prop_assert!(is_plain_segment(s));
                    let again = percent_encoding::percent_decode_str(s).decode_utf8().unwrap();
                    prop_assert_eq!(again.as_ref(), s.as_ref());
                }
            }
        }
    }
}
