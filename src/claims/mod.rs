//! The members of a provider's JSON response, parsed strictly and stored packed.

mod packed;
mod parse;

pub(crate) use packed::Value;

use crate::refusal::{Flaw, Unusable};
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
        let mut limit = None;
        let read = json.deserialize_map(MembersVisitor { limit: &mut limit });
        let members = match (read, limit) {
            (Ok(members), _) => members,
            (Err(_), Some(limit)) => return Err(Flaw::of_body(limit)),
            (Err(_), None) => return Err(NO_OBJECT),
        };
        json.end().map_err(|_| NO_OBJECT)?;
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
        once(self.members.get(name), name)
    }

    /// A claim as a policy names it: a member, or from a slash on a JSON Pointer (RFC 6901); `None`
    /// if it is absent or `null`.
    ///
    /// # Errors
    /// [`Unusable::BadReply`] if an object on the pointer's way has the name twice.
    pub fn claim(&self, name: &str) -> Result<Option<Value<'_>>, Unusable> {
        let Some(pointer) = name.strip_prefix('/') else { return self.member(name) };
        let mut tokens = pointer.split('/').map(unescape);
        let mut found = self.member(&tokens.next().unwrap_or_default())?;
        for token in tokens {
            found = match found {
                Some(Value::Object(mut fields)) => once(fields.get(&token), name)?,
                Some(Value::List(mut items)) => once(index(&token).and_then(|nth| items.nth(nth)), name)?,
                _ => return Ok(None),
            };
        }
        Ok(found)
    }

    /// A member that must be a string.
    ///
    /// # Errors
    /// [`Unusable::BadReply`] if it has another type or appears twice.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Unusable> {
        text_of(self.members.get(name), name)
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
            Some(_) => Err(Flaw::of("sub", "is neither a string nor an integer")),
        }
    }

    /// A point in time, which may be any JSON number, in whole seconds, rounded down.
    ///
    /// # Errors
    /// [`Unusable::BadReply`] if it is not a number or appears twice.
    pub fn time(&self, name: &str) -> Result<Option<i128>, Unusable> {
        time_of(self.members.get(name), name)
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
                .ok_or(Flaw::of("scope", "holds an item that is no scope")),
            Some(_) => Err(Flaw::of("scope", "is neither a string nor a list")),
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
            Some(Value::List(list)) => list
                .map(Value::as_text)
                .collect::<Option<Vec<_>>>()
                .ok_or(Flaw::of("aud", "holds an item that is no string")),
            Some(_) => Err(Flaw::of("aud", "is neither a string nor a list")),
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
            _ => Ok(self.claim(name)?.and_then(Value::scalar_text)),
        }
    }

    /// The text of a claim in an identity header: as in a template, and a list of plain words
    /// joined with commas. `None` for any other list: joined, it would be another one.
    ///
    /// # Errors
    /// As for [`Self::template_text`].
    pub fn header_text(&self, name: &str) -> Result<Option<Cow<'_, str>>, Unusable> {
        let text = self.template_text(name)?;
        if text.is_some() {
            return Ok(text);
        }
        let Some(Value::List(items)) = self.claim(name)? else { return Ok(None) };
        let is_plain = |word: &&str| {
            !word.is_empty() && !word.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control())
        };
        let words: Option<Vec<&str>> = items.map(|item| item.as_text().filter(is_plain)).collect();
        Ok(words.filter(|words| !words.is_empty()).map(|words| Cow::Owned(words.join(","))))
    }
}

/// A token of a JSON Pointer (RFC 6901 section 4).
pub(crate) fn unescape(token: &str) -> Cow<'_, str> {
    if token.contains('~') {
        return Cow::Owned(token.replace("~1", "/").replace("~0", "~"));
    }
    Cow::Borrowed(token)
}

/// An array's index (RFC 6901 section 4): digits without leading zeros.
fn index(token: &str) -> Option<usize> {
    let is_index = token.bytes().all(|b| b.is_ascii_digit()) && (token == "0" || !token.starts_with('0'));
    token.parse().ok().filter(|_| is_index)
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
        time_of(self.exp, "exp")
    }

    /// See [`TokenInfo::time`].
    ///
    /// # Errors
    /// The same.
    pub fn nbf(&self) -> Result<Option<i128>, Unusable> {
        time_of(self.nbf, "nbf")
    }

    /// See [`TokenInfo::text`].
    ///
    /// # Errors
    /// The same.
    pub fn token_type(&self) -> Result<Option<&'m str>, Unusable> {
        text_of(self.token_type, "token_type")
    }

    /// See [`TokenInfo::text`].
    ///
    /// # Errors
    /// The same.
    pub fn token_use(&self) -> Result<Option<&'m str>, Unusable> {
        text_of(self.token_use, "token_use")
    }

    /// See [`TokenInfo::member`].
    ///
    /// # Errors
    /// The same.
    pub fn cnf(&self) -> Result<Option<Value<'m>>, Unusable> {
        once(self.cnf, "cnf")
    }
}

fn once<'m>(value: Option<Value<'m>>, name: &str) -> Result<Option<Value<'m>>, Unusable> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Duplicate) => Err(Flaw::of_claim(name, "occurs twice")),
        value => Ok(value),
    }
}

fn text_of<'m>(value: Option<Value<'m>>, name: &str) -> Result<Option<&'m str>, Unusable> {
    match once(value, name)? {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(_) => Err(Flaw::of_claim(name, "is no string")),
    }
}

fn time_of(value: Option<Value<'_>>, name: &str) -> Result<Option<i128>, Unusable> {
    match once(value, name)? {
        None => Ok(None),
        Some(Value::Integer(secs)) => Ok(Some(secs)),
        // `as` saturates, and a JSON number is never NaN.
        #[expect(clippy::cast_possible_truncation, reason = "rounded and saturated on purpose")]
        Some(Value::Float(secs)) => Ok(Some(secs.floor() as i128)),
        Some(_) => Err(Flaw::of_claim(name, "is no number")),
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
            Self::Null | Self::Float(_) | Self::List(_) | Self::Object(_) | Self::Duplicate => None,
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

const NO_OBJECT: Unusable = Flaw::of_body("the body is no JSON object: see the `path`s of `provider`");

/// A response that is nested deeper is unusable.
pub(crate) const MAX_DEPTH: usize = 128;

#[cfg(test)]
mod tests {
    use super::parse::MAX_MEMBERS;
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
        assert_eq!(info.time("iat"), Err(Flaw::of_body("")));
        assert_eq!(info.time("absent"), Ok(None));
        assert_eq!(info.scopes(), Ok(Some(vec!["a", "b"])));
        assert_eq!(info.audiences(), Err(Flaw::of_body("")));
        assert_eq!(info.text("sub"), Err(Flaw::of_body("")));
        assert_eq!(info.template_text("sub"), Ok(Some("7".into())));
        assert_eq!(info.text("iss"), Ok(None));
        assert_eq!(info.template_text("twice"), Err(Flaw::of_body("")));
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

    #[test]
    fn a_pointer_leads_into_what_is_nested() {
        let info = info(
            r#"{"realm_access":{"roles":["admin",7,{"x":true}],"n":null,"t":1,"t":1},"a/b":{"m~n":1,"":2},
                "list":[["deep"]],"twice":{},"twice":{},"sub":"s","":{"":5}}"#,
        );
        let text = |pointer: &str| {
            info.claim(pointer).map(|v| v.map(|v| v.scalar_text().map_or("nested".into(), Cow::into_owned)))
        };
        let is = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(text("/realm_access/roles"), is("nested"));
        assert_eq!(text("/realm_access/roles/0"), is("admin"));
        assert_eq!(text("/realm_access/roles/1"), is("7"));
        assert_eq!(text("/realm_access/roles/2/x"), is("true"));
        assert_eq!(text("/a~1b/m~0n"), is("1"));
        assert_eq!(text("/a~1b/"), is("2"));
        assert_eq!(text("/list/0/0"), is("deep"));
        assert_eq!(text("/sub"), is("s"));
        assert_eq!(text("/"), is("nested"));
        assert_eq!(text("//"), is("5"));
        for absent in [
            "/realm_access/n",
            "/realm_access/roles/3",
            "/realm_access/roles/00",
            "/realm_access/roles/-",
            "/realm_access/roles/+1",
            "/realm_access/roles/0/x",
            "/realm_access/roles/",
            "/sub/x",
            "/x/y",
            "/a/b",
        ] {
            assert_eq!(text(absent), Ok(None), "{absent}");
        }
        assert!(text("/realm_access/t").is_err() && text("/twice/x").is_err());
        assert!(info.claim("/realm_access/roles").unwrap().unwrap().matches("admin"));
        assert!(!info.claim("/realm_access").unwrap().unwrap().matches("roles"));
        let again = TokenInfo::unpack(info.packed()).unwrap();
        assert_eq!(again.claim("/realm_access/roles/2/x").unwrap(), Some(Value::Bool(true)));
    }

    #[test]
    fn a_list_of_plain_words_has_a_header_text() {
        let text = |json: &str| {
            let info = info(&format!(r#"{{"c":{json}}}"#));
            info.header_text("c").unwrap().map(Cow::into_owned)
        };
        assert_eq!(text(r#"["a","b"]"#), Some("a,b".to_owned()));
        for other in
            ["[]", r#"["a",1]"#, r#"[""]"#, r#"["a,b"]"#, r#"["a b"]"#, r#"["a\u0000"]"#, r#"[["a"]]"#, "{}"]
        {
            assert_eq!(text(other), None, "{other}");
        }
    }

    #[test]
    fn the_operator_is_told_which_member_is_wrong() {
        let info = info(r#"{"exp":"1795000000","mine":1,"mine":2,"aud":1,"cnf":1,"cnf":1}"#);
        let told = |unusable: Unusable| match unusable {
            Unusable::BadReply(flaw) => flaw.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(told(info.standard_claims().exp().unwrap_err()), "`exp` is no number");
        assert_eq!(told(info.standard_claims().cnf().unwrap_err()), "`cnf` occurs twice");
        assert_eq!(told(info.audiences().unwrap_err()), "`aud` is neither a string nor a list");
        assert_eq!(told(info.claim("mine").unwrap_err()), "`mine` occurs twice");
        let many: Vec<String> = (0..=MAX_MEMBERS).map(|n| format!(r#""m{n}":1"#)).collect();
        let many = TokenInfo::parse(format!("{{{}}}", many.join(",")).as_bytes());
        assert_eq!(told(many.unwrap_err()), "it has more than 256 members");
        let deep = format!(r#"{{"x":{}"#, "[".repeat(MAX_DEPTH));
        assert_eq!(told(TokenInfo::parse(deep.as_bytes()).unwrap_err()), "it is nested deeper than 128");
        assert!(told(TokenInfo::parse(b"<html>").unwrap_err()).starts_with("the body is no JSON object"));
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
