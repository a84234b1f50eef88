//! The members of a provider's JSON response, parsed strictly and stored packed.

mod packed;
mod parse;

pub(crate) use packed::Value;

use crate::refusal::Unusable;
use crate::time::Timestamp;
use packed::Members;
use parse::{MembersVisitor, push_integer};
use serde::de::Deserializer;
use std::borrow::Cow;
use std::time::Duration;

/// The members of an active token's introspection response; cheap to clone.
///
/// A member that no decision reads may have any value; one that a decision reads must have the
/// right type and appear once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    members: Members,
}

impl TokenInfo {
    /// Parses a JSON object.
    ///
    /// # Errors
    /// [`Unusable::BadReply`] if the bytes are not a JSON object, or one nested deeper than
    /// [`MAX_DEPTH`].
    pub fn parse(body: &[u8]) -> Result<Self, Unusable> {
        let mut json = serde_json::Deserializer::from_slice(body);
        // `Packing` bounds the depth exactly.
        json.disable_recursion_limit();
        let members = json.deserialize_map(MembersVisitor).map_err(|_| Unusable::BadReply)?;
        json.end().map_err(|_| Unusable::BadReply)?;
        Ok(Self { members })
    }

    /// An object of these strings and times, in whole seconds.
    pub fn from_claims(texts: &[(&str, &str)], times: &[(&str, i64)]) -> Self {
        let text = |(name, text): &(&str, &str)| {
            let mut value = Vec::new();
            packed::push_text(&mut value, text);
            ((*name).to_owned(), value)
        };
        let time = |(name, secs): &(&str, i64)| {
            let mut value = Vec::new();
            push_integer(&mut value, *secs);
            ((*name).to_owned(), value)
        };
        let members: Vec<_> = texts.iter().map(text).chain(times.iter().map(time)).collect();
        Self { members: Members::pack(&members) }
    }

    /// The members as bytes, for [`Self::unpack`].
    pub fn packed(&self) -> &[u8] {
        self.members.bytes()
    }

    /// Reads bytes that [`Self::packed`] returned, perhaps in another worker; `None` if they are
    /// invalid.
    pub fn unpack(bytes: &[u8]) -> Option<Self> {
        Members::unpack(bytes).map(|members| Self { members })
    }

    /// The claims that every request reads, in one pass.
    pub fn standard_claims(&self) -> StandardClaims<'_> {
        let [exp, nbf, token_type, token_use, cnf] = self.members.first();
        StandardClaims { exp, nbf, token_type, token_use, cnf }
    }

    /// A member; `None` if it is absent or `null`.
    ///
    /// # Errors
    /// [`Unusable::BadReply`] if it appears twice.
    pub fn member(&self, name: &str) -> Result<Option<Value<'_>>, Unusable> {
        once(self.members.get(name))
    }

    /// A member that must be a string.
    ///
    /// # Errors
    /// [`Unusable::BadReply`] if it has another type or appears twice.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Unusable> {
        text_of(self.members.get(name))
    }

    /// Who the token is about: a string, or an integer's JSON text, since some providers number
    /// their users (RFC 7662 section 2.2 asks for a string).
    ///
    /// # Errors
    /// [`Unusable::BadReply`] if it has another type or appears twice.
    pub fn subject(&self) -> Result<Option<Cow<'_, str>>, Unusable> {
        match self.member("sub")? {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(Cow::Borrowed(text))),
            Some(Value::Integer(n)) => Ok(Some(Cow::Owned(n.to_string()))),
            Some(_) => Err(Unusable::BadReply),
        }
    }

    /// A point in time, which may be any JSON number, in whole seconds, rounded down.
    ///
    /// # Errors
    /// [`Unusable::BadReply`] if it is not a number or appears twice.
    pub fn time(&self, name: &str) -> Result<Option<i128>, Unusable> {
        time_of(self.members.get(name))
    }

    /// Whether `exp` has passed (RFC 7519 section 4.1.4: not accepted *on or* after), with this
    /// leeway. An absent or invalid `exp` has not.
    pub fn is_past(&self, skew: Duration, now: Timestamp) -> bool {
        let skew = i128::from(skew.as_secs());
        matches!(self.time("exp"), Ok(Some(exp)) if exp.saturating_add(skew) <= i128::from(now.as_secs()))
    }

    /// The scopes: a space-separated string (RFC 7662 section 2.2), or an array of strings.
    ///
    /// # Errors
    /// [`Unusable::BadReply`] if it is neither.
    pub fn scopes(&self) -> Result<Option<Vec<&str>>, Unusable> {
        match self.member("scope")? {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.split(' ').filter(|s| !s.is_empty()).collect())),
            // An element with a space would be one scope here and two in the header that the
            // service reads.
            Some(Value::List(list)) => list
                .map(|v| v.as_text().filter(|scope| !scope.contains(' ')))
                .collect::<Option<Vec<_>>>()
                .map(Some)
                .ok_or(Unusable::BadReply),
            Some(_) => Err(Unusable::BadReply),
        }
    }

    /// The scopes joined by single spaces; the provider's own string if it has that form already.
    fn scope_text(&self) -> Result<Option<Cow<'_, str>>, Unusable> {
        match self.member("scope")? {
            Some(Value::Text(text))
                if !text.is_empty()
                    && !text.starts_with(' ')
                    && !text.ends_with(' ')
                    && !text.contains("  ") =>
            {
                Ok(Some(Cow::Borrowed(text)))
            }
            _ => Ok(self.scopes()?.map(|scopes| Cow::Owned(scopes.join(" ")))),
        }
    }

    /// The audiences: a string or an array of strings.
    ///
    /// # Errors
    /// [`Unusable::BadReply`] if it is neither.
    pub fn audiences(&self) -> Result<Vec<&str>, Unusable> {
        match self.member("aud")? {
            None => Ok(Vec::new()),
            Some(Value::Text(text)) => Ok(vec![text]),
            Some(Value::List(list)) => {
                list.map(Value::as_text).collect::<Option<Vec<_>>>().ok_or(Unusable::BadReply)
            }
            Some(_) => Err(Unusable::BadReply),
        }
    }

    /// The text of a claim in a template: strings byte for byte, integers and booleans as their
    /// JSON text, scopes joined by spaces; `None` for an absent claim and for arrays, objects and
    /// other numbers, which have no unique text.
    ///
    /// # Errors
    /// [`Unusable::BadReply`] if the claim appears twice, or has another type than RFC 7662
    /// requires.
    pub fn template_text(&self, name: &str) -> Result<Option<Cow<'_, str>>, Unusable> {
        match name {
            "scope" => Ok(self.scope_text()?),
            "aud" => self.audiences().and_then(|_| Ok(self.member(name)?.and_then(Value::scalar_text))),
            "exp" | "nbf" | "iat" => self.time(name).map(|t| t.map(|t| Cow::Owned(t.to_string()))),
            "sub" => self.subject(),
            "iss" | "client_id" | "username" | "token_type" | "jti" => {
                Ok(self.text(name)?.map(Cow::Borrowed))
            }
            _ => Ok(self.member(name)?.and_then(Value::scalar_text)),
        }
    }
}

/// The claims that every request reads, in the order in which they are packed.
#[derive(Clone, Copy, Debug)]
pub struct StandardClaims<'m> {
    exp: Option<Value<'m>>,
    nbf: Option<Value<'m>>,
    token_type: Option<Value<'m>>,
    token_use: Option<Value<'m>>,
    cnf: Option<Value<'m>>,
}

impl<'m> StandardClaims<'m> {
    /// See [`TokenInfo::time`].
    ///
    /// # Errors
    /// The same.
    pub fn exp(&self) -> Result<Option<i128>, Unusable> {
        time_of(self.exp)
    }

    /// See [`TokenInfo::time`].
    ///
    /// # Errors
    /// The same.
    pub fn nbf(&self) -> Result<Option<i128>, Unusable> {
        time_of(self.nbf)
    }

    /// See [`TokenInfo::text`].
    ///
    /// # Errors
    /// The same.
    pub fn token_type(&self) -> Result<Option<&'m str>, Unusable> {
        text_of(self.token_type)
    }

    /// See [`TokenInfo::text`].
    ///
    /// # Errors
    /// The same.
    pub fn token_use(&self) -> Result<Option<&'m str>, Unusable> {
        text_of(self.token_use)
    }

    /// See [`TokenInfo::member`].
    ///
    /// # Errors
    /// The same.
    pub fn cnf(&self) -> Result<Option<Value<'m>>, Unusable> {
        once(self.cnf)
    }
}

fn once(value: Option<Value<'_>>) -> Result<Option<Value<'_>>, Unusable> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Duplicate) => Err(Unusable::BadReply),
        value => Ok(value),
    }
}

fn text_of(value: Option<Value<'_>>) -> Result<Option<&str>, Unusable> {
    match once(value)? {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(_) => Err(Unusable::BadReply),
    }
}

fn time_of(value: Option<Value<'_>>) -> Result<Option<i128>, Unusable> {
    match once(value)? {
        None => Ok(None),
        Some(Value::Integer(secs)) => Ok(Some(secs)),
        // `as` saturates, and a JSON number is never NaN.
        #[expect(clippy::cast_possible_truncation, reason = "rounded and saturated on purpose")]
        Some(Value::Float(secs)) => Ok(Some(secs.floor() as i128)),
        Some(_) => Err(Unusable::BadReply),
    }
}

impl<'m> Value<'m> {
    fn as_text(self) -> Option<&'m str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn scalar_text(self) -> Option<Cow<'m, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Integer(n) => Some(Cow::Owned(n.to_string())),
            Self::Bool(b) => Some(Cow::Borrowed(if b { "true" } else { "false" })),
            Self::Null | Self::Float(_) | Self::List(_) | Self::Object | Self::Duplicate => None,
        }
    }

    /// Whether a claim has this value: an array matches if it contains it, an object never does.
    pub fn matches(self, wanted: &str) -> bool {
        match self {
            Self::List(mut items) => items.any(|v| v.scalar_text().is_some_and(|t| t == wanted)),
            other => other.scalar_text().is_some_and(|t| t == wanted),
        }
    }
}

/// A response that is nested deeper is unusable.
pub(crate) const MAX_DEPTH: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_depth_is_bounded_exactly() {
        let nested = |n: usize| format!(r#"{{"active":true,"x":{}{}}}"#, "[".repeat(n), "]".repeat(n));
        assert!(TokenInfo::parse(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
        assert!(TokenInfo::parse(nested(MAX_DEPTH).as_bytes()).is_err());
        let bomb = format!(r#"{{"active":true,"x":{}"#, r#"{"a":"#.repeat(20_000));
        assert!(TokenInfo::parse(bomb.as_bytes()).is_err());
    }

    fn info(body: &str) -> TokenInfo {
        TokenInfo::parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn a_member_that_is_read_must_have_its_type_and_stand_once() {
        let info = info(
            r#"{"exp":1.9,"nbf":-0.5,"iat":"x","scope":"a  b ","aud":["x",1],"sub":7,"iss":null,"twice":1,"twice":1,"org":12,"flag":true,"half":0.5}"#,
        );
        assert_eq!(info.time("exp"), Ok(Some(1)));
        assert_eq!(info.time("nbf"), Ok(Some(-1)));
        assert_eq!(info.time("iat"), Err(Unusable::BadReply));
        assert_eq!(info.time("absent"), Ok(None));
        assert_eq!(info.scopes(), Ok(Some(vec!["a", "b"])));
        assert_eq!(info.audiences(), Err(Unusable::BadReply));
        assert_eq!(info.text("sub"), Err(Unusable::BadReply));
        assert_eq!(info.template_text("sub"), Ok(Some("7".into())));
        assert_eq!(info.text("iss"), Ok(None));
        assert_eq!(info.template_text("twice"), Err(Unusable::BadReply));
        assert_eq!(info.template_text("org"), Ok(Some("12".into())));
        assert_eq!(info.template_text("flag"), Ok(Some("true".into())));
        assert_eq!(info.template_text("half"), Ok(None));
        assert_eq!(info.template_text("scope"), Ok(Some("a b".into())));
    }

    #[test]
    fn claims_match_by_their_text() {
        const CASES: [(&str, &str, bool); 9] = [
            (r#""x""#, "x", true),
            (r#""x""#, "X", false),
            ("12", "12", true),
            ("12.0", "12", false),
            ("true", "true", true),
            (r#"["a",3]"#, "3", true),
            (r#"["a"]"#, "b", false),
            (r#"{"a":1}"#, "", false),
            (r#"[["a"]]"#, "a", false),
        ];
        for (json, wanted, expected) in CASES {
            let info = info(&format!(r#"{{"c":{json}}}"#));
            assert_eq!(info.member("c").unwrap().unwrap().matches(wanted), expected, "{json} {wanted}");
        }
    }

    proptest! {
        #[test]
        fn hostile_answers_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = TokenInfo::parse(&body);
        }

        #[test]
        fn numbers_of_any_size_are_times(n in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
            let body = format!(r#"{{"exp":{n:e}}}"#);
            prop_assert!(TokenInfo::parse(body.as_bytes()).unwrap().time("exp").is_ok());
        }
    }
}
