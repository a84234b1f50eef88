//! Path patterns of literals, `{param}` and a trailing `{*rest}`, segment by segment.

use crate::http::path::is_plain_segment;
use std::fmt;

/// A path pattern such as `/orgs/{org_id}/{*rest}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    segments: Vec<Segment>,
}

/// One segment of a [`Pattern`], most specific first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Exactly this decoded text; empty only as the last segment (a trailing slash).
    Literal(String),
    /// Any one segment that is not empty.
    Param(String),
    /// Everything after the slash, which may be empty. Always last.
    Rest(String),
}

/// The most segments that the table can rank.
const MAX_SEGMENTS: usize = 63;

/// Why a text is not a valid pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PatternError(&'static str);

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Segment {
    /// The text of a literal.
    pub(crate) fn literal(&self) -> Option<&str> {
        match self {
            Self::Literal(text) => Some(text),
            Self::Param(_) | Self::Rest(_) => None,
        }
    }
}

impl Pattern {
    /// Parses a pattern. Its literals are not percent-encoded.
    ///
    /// # Errors
    /// [`PatternError`], which describes a valid pattern.
    pub(crate) fn parse(text: &str) -> Result<Self, PatternError> {
        let rest = text.strip_prefix('/').ok_or(PatternError("a path that begins with `/`"))?;
        let raws: Vec<&str> = rest.split('/').collect();
        if raws.len() > MAX_SEGMENTS {
            return Err(PatternError("a path of at most 63 segments"));
        }
        let last = raws.len().saturating_sub(1);
        let mut segments: Vec<Segment> = Vec::with_capacity(raws.len());
        for (nth, raw) in raws.into_iter().enumerate() {
            let segment = Self::segment(raw)?;
            match &segment {
                Segment::Literal(text) if text.is_empty() && nth != last => {
                    return Err(PatternError("a path without empty segments"));
                }
                Segment::Rest(_) if nth != last => {
                    return Err(PatternError("a path whose `{*rest}` is its last segment"));
                }
                Segment::Param(name) | Segment::Rest(name)
                    if segments.iter().any(|s| s.name() == Some(name)) =>
                {
                    return Err(PatternError("a path whose parameter names differ"));
                }
                _ => {}
            }
            segments.push(segment);
        }
        Ok(Self { segments })
    }

    fn segment(raw: &str) -> Result<Segment, PatternError> {
        if let Some(inner) = raw.strip_prefix('{').and_then(|r| r.strip_suffix('}')) {
            let (name, rest) = match inner.strip_prefix('*') {
                Some(name) => (name, true),
                None => (inner, false),
            };
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(PatternError("parameter names of letters, digits and `_`"));
            }
            return Ok(if rest { Segment::Rest(name.to_owned()) } else { Segment::Param(name.to_owned()) });
        }
        if raw.contains(['{', '}']) {
            return Err(PatternError("segments that are a literal or one `{param}` as a whole"));
        }
        let is_foreign =
            |open: char, close: &str| raw.starts_with(open) && raw.ends_with(close) && raw.len() > 1;
        if is_foreign(':', "") || is_foreign('<', ">") || is_foreign('[', "]") {
            return Err(PatternError("a parameter written `{name}`, as in `/users/{id}`"));
        }
        if raw.contains('*') {
            return Err(PatternError("`{*rest}` where the path is to go on, and no other `*`"));
        }
        if raw.contains(['%', '?', '#']) || !is_plain_segment(raw) {
            return Err(PatternError(
                "literals written decoded, without `%`, `?`, `#`, `;`, `\\`, controls and dot segments",
            ));
        }
        Ok(Segment::Literal(raw.to_owned()))
    }

    /// The segments, in order.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The names of its parameters, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(Segment::name)
    }

    /// Whether it ends in `{*rest}`.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.segments.last(), Some(Segment::Rest(_)))
    }
}

impl Segment {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Param(name) | Self::Rest(name) => Some(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_hold() {
        for text in [
            "/",
            "/a",
            "/a/",
            "/a/{id}",
            "/a/{id}/",
            "/orgs/{org_id}/{*rest}",
            "/{*all}",
            "/café",
            "/v1/x:check",
        ] {
            assert!(Pattern::parse(text).is_ok(), "{text}");
        }
        assert_eq!(Pattern::parse("/a/{x}/{*y}").unwrap().names().collect::<Vec<_>>(), ["x", "y"]);
    }

    #[test]
    fn patterns_that_do_not() {
        const CASES: [(&str, &str); 12] = [
            ("", "begins with `/`"),
            ("a", "begins with `/`"),
            ("//", "empty segments"),
            ("/a//b", "empty segments"),
            ("/{*rest}/a", "last segment"),
            ("/{x}/{x}", "differ"),
            ("/{}", "letters"),
            ("/{a-b}", "letters"),
            ("/a{b}", "as a whole"),
            ("/a/*", "no other `*`"),
            ("/a%20b", "decoded"),
            ("/a/..", "dot segments"),
        ];
        for (text, expected) in CASES {
            let error = Pattern::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
