//! The introspection response (RFC 7662 section 2.2).

use crate::claims::{TokenInfo, Value};
use crate::refusal::{Flaw, Unusable};

/// The result of an introspection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Introspection {
    /// The token is active.
    Active(TokenInfo),
    /// The token is not active: expired, revoked, unknown, or issued to another client.
    Inactive,
}

impl Introspection {
    /// Parses the body of a 200 response.
    ///
    /// # Errors
    /// [`Unusable::BadReply`] if it is not a JSON object with exactly one boolean `active`, or is
    /// nested deeper than [`MAX_DEPTH`](crate::claims::MAX_DEPTH).
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Unusable> {
        let info = TokenInfo::parse(body)?;
        match info.member("active")? {
            Some(Value::Bool(true)) => Ok(Self::Active(info)),
            Some(Value::Bool(false)) => Ok(Self::Inactive),
            Some(_) => Err(Flaw::of("active", "is no boolean")),
            None => Err(Flaw::of("active", "is missing")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exactly_one_boolean_active_is_an_answer() {
        const CASES: [&str; 18] = [
            "",
            "null",
            "true",
            "[]",
            "{}",
            r#"{"active":"true"}"#,
            r#"{"active":1}"#,
            r#"{"active":null}"#,
            r#"{"active":true,"active":true}"#,
            r#"{"active":true,"active":false}"#,
            r#"{"Active":true}"#,
            r#"{"active":true"#,
            r#"{"active":true}x"#,
            r#"{"active":true,}"#,
            "<html>",
            "{\"active\":true,\"sub\":\"\u{1}\"}",
            r#"{"active":true,"sub":"\ud800"}"#,
            "\u{feff}{\"active\":true}",
        ];
        for body in CASES {
            assert_eq!(Introspection::parse(body.as_bytes()), Err(Flaw::of_body("")), "{body}");
        }
        assert_eq!(Introspection::parse(b"{\"active\":true,\"x\":\"\xff\"}"), Err(Flaw::of_body("")));
        assert_eq!(
            Introspection::parse(br#" {"active":false,"sub":1,"sub":2} "#),
            Ok(Introspection::Inactive)
        );
        assert!(matches!(
            Introspection::parse(br#"{"active":true,"x":{"a":1,"a":2}}"#),
            Ok(Introspection::Active(_))
        ));
    }
}
