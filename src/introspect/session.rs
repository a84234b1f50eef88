//! Session tokens. They are not OAuth tokens, so they are not introspected but sent to the provider
//! as the session's own credential.

use super::Introspection;
use crate::claims::{TokenInfo, Value};
use crate::http::Callout;
use crate::provider::{Endpoint, Provider};
use crate::refusal::{Flaw, Unusable};
use crate::secret::Token;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The endpoint that returns a token's session. The gate sends no secret of its own to it.
#[derive(Clone, Debug)]
pub(crate) struct SessionEndpoint {
    /// The endpoint itself.
    pub endpoint: Endpoint,
}

impl SessionEndpoint {
    /// The endpoint at this path of the provider.
    pub(crate) fn new(provider: Provider, path: String) -> Self {
        Self { endpoint: Endpoint::new(provider, "session", path, &[]) }
    }

    /// The request for a token's session.
    pub(crate) fn call(&self, token: &Token) -> Callout {
        let authorization = format!("Bearer {}", token.reveal());
        let callout = self.endpoint.callout("GET", [("authorization", authorization)], Vec::new());
        Callout { retries: 0, ..callout }
    }
}

impl Introspection {
    /// Parses the body of a session endpoint's 200 response into the claims of an introspection:
    /// `sub`, `exp` and `aal`, and no other claim.
    ///
    /// # Errors
    /// [`Unusable::BadReply`] if it is not a JSON object with one `identity_id`, or a member that
    /// is read has another type.
    pub(crate) fn parse_session(body: &[u8]) -> Result<Self, Unusable> {
        let session = TokenInfo::parse(body)?;
        match session.member("active")? {
            None | Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => return Ok(Self::Inactive),
            Some(_) => return Err(Flaw::of("active", "is no boolean")),
        }
        let sub = session.text("identity_id")?.filter(|id| !id.is_empty());
        let sub = sub.ok_or(Flaw::of("identity_id", "is missing or empty"))?;
        let aal = session.template_text("aal")?;
        let expires_at = session.text("expires_at")?.map(|at| OffsetDateTime::parse(at, &Rfc3339));
        let exp = expires_at
            .transpose()
            .map_err(|_| Flaw::of("expires_at", "is no RFC 3339 time"))?
            .map(OffsetDateTime::unix_timestamp);
        let texts: Vec<_> =
            [Some(("sub", sub)), aal.as_deref().map(|aal| ("aal", aal))].into_iter().flatten().collect();
        let times: Vec<_> = exp.map(|exp| ("exp", exp)).into_iter().collect();
        Ok(Self::Active(TokenInfo::from_claims(&texts, &times)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(body: &str) -> TokenInfo {
        match Introspection::parse_session(body.as_bytes()) {
            Ok(Introspection::Active(info)) => info,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn identity_expiry_and_assurance_are_all_that_is_read() {
        let info = info(
            r#"{"id":"ses_1","identity_id":"usr_1","identity":{"x":1},"active":true,"aal":"aal2","scope":"admin",
                "client_id":"c","expires_at":"2026-09-21T15:33:21.5+02:00"}"#,
        );
        assert_eq!(info.text("sub"), Ok(Some("usr_1")));
        assert_eq!(info.text("aal"), Ok(Some("aal2")));
        assert_eq!(info.time("exp"), Ok(Some(1_789_997_601)));
        for absent in ["scope", "client_id", "identity_id", "id", "active"] {
            assert_eq!(info.member(absent), Ok(None), "{absent}");
        }
    }

    #[test]
    fn an_answer_that_names_nobody_is_useless() {
        for body in [
            "{}",
            "[]",
            r#"{"identity_id":1}"#,
            r#"{"identity_id":""}"#,
            r#"{"identity_id":"a","identity_id":"b"}"#,
            r#"{"identity_id":"a","active":"yes"}"#,
            r#"{"identity_id":"a","expires_at":"tomorrow"}"#,
            r#"{"identity_id":"a","expires_at":1}"#,
        ] {
            assert_eq!(Introspection::parse_session(body.as_bytes()), Err(Flaw::of_body("")), "{body}");
        }
        assert_eq!(Introspection::parse_session(br#"{"active":false}"#), Ok(Introspection::Inactive));
        assert_eq!(info(r#"{"identity_id":"a"}"#).member("exp"), Ok(None));
    }
}
