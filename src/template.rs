//! Templates: literals with `{path.NAME}`, `{query.NAME}`, `{header.NAME}` and `{token.CLAIM}` in
//! them.
//!
//! A template is evaluated in two ways. In a *check* (object, subject, claims) an unsafe value
//! denies the request, so that no value can turn a check into another one. In an *identity header*
//! a missing value omits the header.

use crate::claims::TokenInfo;
use crate::http::head::{Reading, RequestHead};
use crate::http::query::Query;
use crate::refusal::{Denial, Refusal};
use std::fmt;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

/// One piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Verbatim text.
    Text(String),
    /// A value of the request.
    Request(RequestValue),
    /// A claim of the token.
    Claim(String),
}

/// A value that a template reads from the request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum RequestValue {
    /// A parameter of the route's pattern.
    Path(String),
    /// A query parameter.
    Query(String),
    /// A header, in lower case.
    Header(String),
}

impl RequestValue {
    /// The query parameter that it is.
    pub(crate) fn query_name(&self) -> Option<&str> {
        match self {
            Self::Query(name) => Some(name),
            Self::Path(_) | Self::Header(_) => None,
        }
    }
}

/// Why a text is not a valid template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TemplateError;

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text with `{path.NAME}`, `{query.NAME}`, `{header.NAME}` or `{token.CLAIM}` in it")
    }
}

/// The values of one request that the templates of its route read.
///
/// Copied when the request begins, because its head is not kept while it waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs {
    values: Vec<(RequestValue, Input)>,
}

#[derive(Clone, Debug)]
enum Input {
    Missing,
    Value(Vec<u8>),
    Ambiguous,
}

impl Inputs {
    /// Copies the values that `wanted` names. `captures`: the pattern's parameters by name.
    pub(crate) fn take<'a>(
        wanted: &[RequestValue],
        head: &RequestHead<'_>,
        query: &Query<'_>,
        captures: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    ) -> Self {
        let input = |reading: Reading<'_>| match reading {
            Reading::Missing => Input::Missing,
            Reading::One(value) => Input::Value(value.into_owned()),
            Reading::Ambiguous => Input::Ambiguous,
        };
        let value = |wanted: &RequestValue| match wanted {
            RequestValue::Path(name) => match captures.clone().find(|(n, _)| n == name) {
                Some((_, value)) => Input::Value(value.as_bytes().to_vec()),
                None => Input::Missing,
            },
            RequestValue::Query(name) => input(query.read(name)),
            RequestValue::Header(name) => input(head.read(name)),
        };
        Self { values: wanted.iter().map(|w| (w.clone(), value(w))).collect() }
    }

    /// Their approximate size in bytes.
    pub(crate) fn memory_cost(&self) -> usize {
        self.values.iter().fold(0, |sum, (_, input)| match input {
            Input::Value(value) => sum.saturating_add(value.len()),
            Input::Missing | Input::Ambiguous => sum,
        })
    }

    fn get(&self, wanted: &RequestValue) -> &Input {
        self.values.iter().find(|(v, _)| v == wanted).map_or(&Input::Missing, |(_, input)| input)
    }
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// [`TemplateError`] if a brace is not part of one of the four forms, or the text is empty.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            if !literal.is_empty() {
                parts.push(Part::Text(literal.to_owned()));
            }
            let (variable, after) = after.split_once('}').ok_or(TemplateError)?;
            let (kind, name) = variable.split_once('.').ok_or(TemplateError)?;
            if name.is_empty()
                || name.contains('{')
                || name.chars().any(|c| c.is_whitespace() || c.is_control())
            {
                return Err(TemplateError);
            }
            parts.push(match kind {
                "path" => Part::Request(RequestValue::Path(name.to_owned())),
                "query" => Part::Request(RequestValue::Query(name.to_owned())),
                "header" => Part::Request(RequestValue::Header(name.to_ascii_lowercase())),
                "token" => Part::Claim(name.to_owned()),
                _ => return Err(TemplateError),
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let stray = |part: &Part| matches!(part, Part::Text(text) if text.contains('}'));
        if parts.is_empty() || parts.iter().any(stray) { Err(TemplateError) } else { Ok(Self { parts }) }
    }

    /// The pieces, in order.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The request values that it reads.
    pub(crate) fn request_values(&self) -> impl Iterator<Item = &RequestValue> {
        self.parts.iter().filter_map(|part| match part {
            Part::Request(value) => Some(value),
            _ => None,
        })
    }

    /// Whether it reads a claim.
    pub(crate) fn reads_token(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Claim(_)))
    }

    /// The template split at the first colon of its leading text, as in `project:{path.id}`: the
    /// text before it and the rest.
    pub(crate) fn split_type(&self) -> Option<(String, Self)> {
        let (first, tail) = self.parts.split_first()?;
        let Part::Text(text) = first else { return None };
        let (kind, rest) = text.split_once(':')?;
        let mut parts = Vec::with_capacity(self.parts.len());
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        parts.extend(tail.iter().cloned());
        (!parts.is_empty() && !kind.is_empty()).then(|| (kind.to_owned(), Self { parts }))
    }

    /// The template with this text before it.
    #[must_use]
    pub(crate) fn prefixed(mut self, text: String) -> Self {
        self.parts.insert(0, Part::Text(text));
        self
    }

    /// The text for a check. Without a token (the route fails open), claims are left out, and only
    /// the request's values are checked.
    ///
    /// # Errors
    /// [`Denial::UnresolvedTemplate`] if a value is missing, ambiguous, empty or unsafe;
    /// [`Refusal::Unusable`] if a claim is invalid.
    pub(crate) fn resolve(&self, inputs: &Inputs, token: Option<&TokenInfo>) -> Result<String, Refusal> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Request(wanted) => match inputs.get(wanted) {
                    Input::Value(value) => text.push_str(safe(value)?),
                    Input::Missing | Input::Ambiguous => return Err(Denial::UnresolvedTemplate.into()),
                },
                Part::Claim(name) => {
                    let Some(token) = token else { continue };
                    let value = token.template_text(name)?.ok_or(Denial::UnresolvedTemplate)?;
                    text.push_str(safe(value.as_bytes())?);
                }
            }
        }
        Ok(text)
    }

    /// The value of an identity header; `None` if a value is missing, empty or has no text there.
    ///
    /// # Errors
    /// [`Denial::UnusableIdentity`] if the value cannot be sent unaltered,
    /// [`Denial::UnresolvedTemplate`] if one is ambiguous; [`Refusal::Unusable`] if a claim is
    /// invalid.
    pub(crate) fn header_value(
        &self,
        inputs: &Inputs,
        token: &TokenInfo,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let mut bytes = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(literal) => bytes.extend(literal.as_bytes()),
                Part::Request(wanted) => match inputs.get(wanted) {
                    Input::Value(value) if !value.is_empty() => bytes.extend(value),
                    Input::Value(_) | Input::Missing => return Ok(None),
                    Input::Ambiguous => return Err(Denial::UnresolvedTemplate.into()),
                },
                Part::Claim(name) => match token.header_text(name)? {
                    Some(value) if !value.is_empty() => bytes.extend(value.as_bytes()),
                    _ => return Ok(None),
                },
            }
        }
        if is_carried_unaltered(&bytes) { Ok(Some(bytes)) } else { Err(Denial::UnusableIdentity.into()) }
    }
}

/// A value that may become part of a check: it has no character that could end one part of it and
/// begin another.
fn safe(value: &[u8]) -> Result<&str, Denial> {
    let plain = |b: &u8| (0x21..=0x7e).contains(b) && !b":#@/*%,?".contains(b);
    if value.is_empty() || !value.iter().all(plain) {
        return Err(Denial::UnresolvedTemplate);
    }
    std::str::from_utf8(value).map_err(|_| Denial::UnresolvedTemplate)
}

/// Whether every hop forwards the value unaltered: receivers trim white space at the ends, and
/// refuse or truncate at control characters.
fn is_carried_unaltered(value: &[u8]) -> bool {
    match std::str::from_utf8(value) {
        Ok(text) => {
            !text.starts_with(char::is_whitespace)
                && !text.ends_with(char::is_whitespace)
                && !text.contains(char::is_control)
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::head_of;

    #[test]
    fn forms() {
        for text in ["{token.sub}", "a{path.x}b{query.y}", "{header.X-Y}", "plain"] {
            assert!(Template::parse(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "{",
            "}",
            "{x}",
            "{path.}",
            "{path}",
            "{body.x}",
            "a}b",
            "{path.x",
            "{path.{x}}",
            "{token.a b}",
        ] {
            assert_eq!(Template::parse(text), Err(TemplateError), "{text}");
        }
        let (kind, rest) = Template::parse("project:{path.id}").unwrap().split_type().unwrap();
        assert_eq!((kind.as_str(), rest), ("project", Template::parse("{path.id}").unwrap()));
        assert_eq!(Template::parse("{path.id}:x").unwrap().split_type(), None);
        assert_eq!(Template::parse(":x").unwrap().split_type(), None);
        assert_eq!(Template::parse("project:").unwrap().split_type(), None);
    }

    fn inputs(template: &Template, query: &str, header: &[(&str, &[u8])]) -> Inputs {
        let target = format!("/x?{query}");
        let mut headers: Vec<(&str, &[u8])> = vec![(":path", target.as_bytes())];
        headers.extend(header);
        let head = head_of(&headers, true);
        let wanted: Vec<_> = template.request_values().cloned().collect();
        let names = wanted.iter().filter_map(RequestValue::query_name);
        let query = Query::parse(head.target(), names, 100).unwrap();
        Inputs::take(&wanted, &head, &query, [("p", "cap")].into_iter())
    }

    #[test]
    fn every_unsafe_value_of_a_check_denies() {
        let template = Template::parse("project:{query.id}").unwrap();
        let resolve = |query: &str| template.resolve(&inputs(&template, query, &[]), None);
        assert_eq!(resolve("id=proj_1"), Ok("project:proj_1".into()));
        for bad in [
            "%3A", "%23", "%40", "%2F", "*", "%25", "%2C", "%3F", "%20", "+", "%00", "%7F", "%C3%A9",
            "%0d%0a",
        ] {
            assert_eq!(resolve(&format!("id=a{bad}b")), Err(Denial::UnresolvedTemplate.into()), "{bad}");
        }
        for missing in ["", "id=", "x=1", "id=1&id=1", "id=1&ID[]=2"] {
            assert_eq!(resolve(missing), Err(Denial::UnresolvedTemplate.into()), "{missing}");
        }
    }

    #[test]
    fn identity_headers_are_left_out_or_unusable_but_never_altered() {
        let template = Template::parse("{token.c}").unwrap();
        let none = Inputs::default();
        let value = |json: &str| {
            template.header_value(&none, &TokenInfo::parse(format!(r#"{{"c":{json}}}"#).as_bytes()).unwrap())
        };
        assert_eq!(value(r#""usr_1""#), Ok(Some(b"usr_1".to_vec())));
        assert_eq!(value(r#"["a","b"]"#), Ok(Some(b"a,b".to_vec())));
        assert_eq!(value(r#""Zoë""#), Ok(Some("Zoë".as_bytes().to_vec())));
        for left_out in [r#""""#, "null", "[1]", "{}", "[]", r#"["a,b"]"#] {
            assert_eq!(value(left_out), Ok(None), "{left_out}");
        }
        for unusable in [
            r#"" a""#,
            r#""a ""#,
            r#""a\u00a0""#,
            r#""a\nb""#,
            r#""\u0000""#,
            r#""a\u007fb""#,
            r#""a\u0085b""#,
        ] {
            assert_eq!(value(unusable), Err(Denial::UnusableIdentity.into()), "{unusable}");
        }
    }

    #[test]
    fn a_header_that_folds_to_the_same_name_is_ambiguous() {
        let template = Template::parse("{header.x-tenant}").unwrap();
        let resolve = |headers: &[(&str, &[u8])]| template.resolve(&inputs(&template, "", headers), None);
        assert_eq!(resolve(&[("x-tenant", b"a")]), Ok("a".into()));
        assert!(resolve(&[("x-tenant", b"a"), ("x_tenant", b"b")]).is_err());
        assert!(resolve(&[("x_tenant", b"a")]).is_err());
        assert!(resolve(&[("x-tenant", b"\xff")]).is_err());
    }
}
