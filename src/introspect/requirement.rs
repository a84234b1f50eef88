//! What a route requires of a token. It is checked on every request, with a cached response too.

use crate::claims::{TokenInfo, Value};
use crate::refusal::{Denial, Refusal};
use crate::template::{Inputs, Template};
use crate::time::Timestamp;
use std::time::Duration;

/// The rules of one route about the token itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requirement {
    /// All of these scopes.
    pub scopes_all: Vec<String>,
    /// At least one of these scopes; empty: no rule.
    pub scopes_any: Vec<String>,
    /// One of these audiences; empty: no rule.
    pub audience: Vec<String>,
    /// One of these issuers; empty: no rule.
    pub issuer: Vec<String>,
    /// One of these clients; empty: no rule.
    pub client_id: Vec<String>,
    /// Each of these claims with one of these values.
    pub claims: Vec<(String, Vec<Template>)>,
    /// The leeway for `exp` and `nbf`.
    pub clock_skew: Duration,
}

/// Proof that a token was introspected and meets a route's requirement. Only [`Requirement::admit`]
/// creates one.
#[derive(Clone, Debug)]
pub struct Identity {
    info: TokenInfo,
}

impl Identity {
    /// The members of the introspection response.
    pub fn info(&self) -> &TokenInfo {
        &self.info
    }
}

impl Requirement {
    /// Checks a token; `None`: it is not active.
    ///
    /// # Errors
    /// The first rule that is not met, in the order token, issuer and audience, scopes, client and
    /// claims; [`Refusal::Unusable`] if a member that a rule reads is invalid.
    pub(crate) fn admit(
        &self,
        token: Option<&TokenInfo>,
        inputs: &Inputs,
        now: Timestamp,
    ) -> Result<Identity, Refusal> {
        let info = token.ok_or(Denial::TokenInactive)?;
        self.validate_token(info, now)?;
        self.apply_rules(info, inputs)?;
        Ok(Identity { info: info.clone() })
    }

    /// Whether the token itself is valid now, whatever the route's rules are.
    ///
    /// # Errors
    /// Denied where it is not; unusable where a member that this reads is not what it must be.
    pub(crate) fn validate_token(&self, info: &TokenInfo, now: Timestamp) -> Result<(), Refusal> {
        let now = i128::from(now.as_secs());
        let skew = i128::from(self.clock_skew.as_secs());
        // RFC 7519 section 4.1.4: not accepted *on or* after.
        let standard = info.standard_claims();
        if standard.exp()?.is_some_and(|exp| exp.saturating_add(skew) <= now) {
            return Err(Denial::TokenExpired.into());
        }
        if standard.nbf()?.is_some_and(|nbf| nbf.saturating_sub(skew) > now) {
            return Err(Denial::TokenNotYetValid.into());
        }
        let is = |text: Option<&str>, allowed: &[&str]| {
            text.is_none_or(|text| allowed.iter().any(|a| text.eq_ignore_ascii_case(a)))
        };
        if !is(standard.token_type()?, &["Bearer", "access_token"]) || !is(standard.token_use()?, &["access"])
        {
            return Err(Denial::TokenType.into());
        }
        // RFC 7800 section 3.1: the presenter must prove possession of a key, which cannot be
        // checked here yet.
        if standard.cnf()?.is_some() {
            return Err(Denial::TokenBound.into());
        }
        Ok(())
    }

    fn apply_rules(&self, info: &TokenInfo, inputs: &Inputs) -> Result<(), Refusal> {
        let one_of =
            |text: Option<&str>, allowed: &[String]| text.is_some_and(|t| allowed.iter().any(|a| a == t));
        if !self.issuer.is_empty() && !one_of(info.text("iss")?, &self.issuer) {
            return Err(Denial::WrongIssuer.into());
        }
        if !self.audience.is_empty()
            && !info.audiences()?.into_iter().any(|aud| one_of(Some(aud), &self.audience))
        {
            return Err(Denial::WrongAudience.into());
        }
        if !self.scopes_all.is_empty() || !self.scopes_any.is_empty() {
            let scopes = info.scopes()?.unwrap_or_default();
            let has = |wanted: &String| scopes.iter().any(|s| s == wanted);
            if !self.scopes_all.iter().all(has)
                || !(self.scopes_any.is_empty() || self.scopes_any.iter().any(has))
            {
                return Err(Denial::InsufficientScope.into());
            }
        }
        if !self.client_id.is_empty() && !one_of(info.text("client_id")?, &self.client_id) {
            return Err(Denial::ClientNotAllowed.into());
        }
        for (nth, (name, templates)) in self.claims.iter().enumerate() {
            // A value that cannot be resolved denies, whatever the others are.
            let wanted: Result<Vec<_>, _> = templates.iter().map(|t| t.resolve(inputs, Some(info))).collect();
            let (wanted, found) = (wanted?, info.claim(name)?);
            if !found.is_some_and(|value: Value<'_>| wanted.iter().any(|wanted| value.matches(wanted))) {
                return Err(Denial::ClaimMismatch(u16::try_from(nth).unwrap_or(u16::MAX)).into());
            }
        }
        Ok(())
    }

    /// The scopes that a challenge lists: all those of the rule.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scopes_all.iter().chain(&self.scopes_any).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Flaw;

    fn admit(requirement: &Requirement, members: &str) -> Result<(), Refusal> {
        let body = format!(r#"{{"active":true,{members}"x":0}}"#);
        let info = TokenInfo::parse(body.as_bytes()).unwrap();
        requirement.admit(Some(&info), &Inputs::default(), Timestamp::from_secs(1000)).map(|_| ())
    }

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_makes_an_active_token_invalid() {
        let deny = |d: Denial| Err(Refusal::Denial(d));
        let bad = || Err(Refusal::Unusable(Flaw::of_body("")));
        let cases = [
            ("", Ok(())),
            (r#""exp":1001,"#, Ok(())),
            (r#""exp":1000,"#, deny(Denial::TokenExpired)),
            (r#""exp":1000.9,"#, deny(Denial::TokenExpired)),
            (r#""exp":-5,"#, deny(Denial::TokenExpired)),
            (r#""exp":1e300,"#, Ok(())),
            (r#""exp":null,"#, Ok(())),
            (r#""exp":"2000","#, bad()),
            (r#""exp":2000,"exp":2000,"#, bad()),
            (r#""nbf":1000,"#, Ok(())),
            (r#""nbf":1001,"#, deny(Denial::TokenNotYetValid)),
            (r#""token_type":"bearer","#, Ok(())),
            (r#""token_type":"ACCESS_TOKEN","#, Ok(())),
            (r#""token_type":"mac","#, deny(Denial::TokenType)),
            (r#""token_type":"DPoP","#, deny(Denial::TokenType)),
            (r#""token_type":1,"#, bad()),
            (r#""token_use":"access","#, Ok(())),
            (r#""token_use":"refresh","#, deny(Denial::TokenType)),
            (r#""cnf":{"jkt":"x"},"#, deny(Denial::TokenBound)),
            (r#""cnf":false,"#, deny(Denial::TokenBound)),
            (r#""cnf":null,"#, Ok(())),
            (r#""sub":5,"aud":5,"scope":5,"#, Ok(())),
        ];
        for (members, expected) in cases {
            assert_eq!(admit(&Requirement::default(), members), expected, "{members}");
        }
        let lenient = Requirement { clock_skew: Duration::from_secs(5), ..Requirement::default() };
        assert_eq!(admit(&lenient, r#""exp":996,"nbf":1005,"#), Ok(()));
        assert_eq!(admit(&lenient, r#""exp":995,"#), deny(Denial::TokenExpired));
        assert_eq!(admit(&lenient, r#""nbf":1006,"#), deny(Denial::TokenNotYetValid));
    }

    #[test]
    fn rules_are_judged_in_their_order() {
        let all = Requirement {
            scopes_all: list(&["a", "b"]),
            scopes_any: list(&["c", "d"]),
            audience: list(&["api"]),
            issuer: list(&["iss"]),
            client_id: list(&["cli"]),
            claims: vec![("org".into(), vec![Template::parse("acme").unwrap()])],
            ..Requirement::default()
        };
        let cases = [
            (r#""iss":"iss","aud":["x","api"],"scope":"b d a","client_id":"cli","org":["acme"],"#, Ok(())),
            (r#""aud":"api","scope":"b d a","client_id":"cli","org":"acme","#, Err(Denial::WrongIssuer)),
            (r#""iss":"iss","aud":"other","#, Err(Denial::WrongAudience)),
            (r#""iss":"iss","aud":"api","scope":"a b","#, Err(Denial::InsufficientScope)),
            (r#""iss":"iss","aud":"api","scope":["a","c"],"#, Err(Denial::InsufficientScope)),
            (
                r#""iss":"iss","aud":"api","scope":["a","b","c"],"client_id":"x","#,
                Err(Denial::ClientNotAllowed),
            ),
            (
                r#""iss":"iss","aud":"api","scope":["a","b","c"],"client_id":"cli","org":{},"#,
                Err(Denial::ClaimMismatch(0)),
            ),
        ];
        for (members, expected) in cases {
            assert_eq!(admit(&all, members), expected.map_err(Refusal::Denial), "{members}");
        }
    }
}
