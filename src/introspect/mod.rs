//! Token introspection (RFC 7662): the request, the response, and what a route requires of it.

pub(crate) mod reply;
pub(crate) mod requirement;
mod session;

pub(crate) use reply::Introspection;
pub(crate) use requirement::{Identity, Requirement};
pub(crate) use session::SessionEndpoint;

use crate::http::Callout;
use crate::provider::{Endpoint, Provider};
use crate::secret::{Secret, Token};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// An introspection endpoint with the credentials that the gate sends to it.
#[derive(Clone, Debug)]
pub(crate) struct IntrospectionEndpoint {
    /// The endpoint, and the gate's identity there.
    pub endpoint: Endpoint,
    credentials: ClientAuthentication,
    /// What is tried where those are refused.
    next: Option<ClientAuthentication>,
}

/// How the gate authenticates to the introspection endpoint (RFC 6749 section 2.3.1, RFC 7662
/// section 2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientAuthentication {
    /// `client_id` and `client_secret` in the form.
    Post {
        /// The client id.
        client_id: String,
        /// The client secret.
        client_secret: Secret<String>,
    },
    /// HTTP Basic, both form-encoded first.
    Basic {
        /// The client id.
        client_id: String,
        /// The client secret.
        client_secret: Secret<String>,
    },
    /// The gate's own bearer token.
    Bearer {
        /// The token.
        token: Secret<String>,
    },
    /// None: the endpoint trusts the network.
    None,
}

impl ClientAuthentication {
    /// The method, the client id and the secret; empty if there is none.
    fn parts(&self) -> [&str; 3] {
        match self {
            Self::Post { client_id, client_secret } => ["post", client_id, client_secret.reveal()],
            Self::Basic { client_id, client_secret } => ["basic", client_id, client_secret.reveal()],
            Self::Bearer { token } => ["bearer", "", token.reveal()],
            Self::None => ["none", "", ""],
        }
    }
}

impl IntrospectionEndpoint {
    /// The endpoint at this path of the provider.
    pub(crate) fn new(
        provider: Provider,
        path: String,
        credentials: ClientAuthentication,
        next: Option<ClientAuthentication>,
    ) -> Self {
        let endpoint = Endpoint::new(provider, "introspection", path, &credentials.parts());
        Self { endpoint, credentials, next }
    }

    /// Whether both are the same endpoint with the same credentials.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.endpoint.fingerprint() == other.endpoint.fingerprint() && self.next == other.next
    }

    /// The request that introspects a token.
    pub(crate) fn call(&self, token: &Token) -> Callout {
        self.call_as(&self.credentials, token)
    }

    /// The same with the credentials that are tried where the first are refused.
    pub(crate) fn call_as_next(&self, token: &Token) -> Option<Callout> {
        self.next.as_ref().map(|credentials| self.call_as(credentials, token))
    }

    fn call_as(&self, credentials: &ClientAuthentication, token: &Token) -> Callout {
        let mut form = format!("token={}&token_type_hint=access_token", form_encode(token.reveal()));
        let authorization = match credentials {
            ClientAuthentication::Post { client_id, client_secret } => {
                form.push_str("&client_id=");
                form.push_str(&form_encode(client_id));
                form.push_str("&client_secret=");
                form.push_str(&form_encode(client_secret.reveal()));
                None
            }
            ClientAuthentication::Basic { client_id, client_secret } => {
                // RFC 6749 section 2.3.1: form-encoded before they are joined, so that a colon in
                // the id cannot shift the separator.
                let pair = format!("{}:{}", form_encode(client_id), form_encode(client_secret.reveal()));
                Some(format!("Basic {}", BASE64_STANDARD.encode(pair)))
            }
            ClientAuthentication::Bearer { token } => Some(format!("Bearer {}", token.reveal())),
            ClientAuthentication::None => None,
        };
        let content_type = ("content-type", "application/x-www-form-urlencoded".to_owned());
        let authorization = authorization.map(|value| ("authorization", value));
        self.endpoint.callout("POST", [content_type].into_iter().chain(authorization), form.into_bytes())
    }
}

/// Form encoding that every decoder reads in the same way: a space as `%20`, never as `+`.
fn form_encode(text: &str) -> String {
    utf8_percent_encode(text, FORM).to_string()
}

/// All but RFC 3986's unreserved characters.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::MaxInFlight;
    use std::time::Duration;

    fn call(credentials: ClientAuthentication) -> (Vec<(&'static str, String)>, String) {
        let provider = Provider {
            cluster: "c".into(),
            authority: "idp.example".into(),
            timeout: Duration::from_secs(1),
            retries: 2,
            probe_interval: None,
            max_in_flight: MaxInFlight { new_tokens: 1, refreshes: 1, permissions: 1 },
        };
        let endpoint = IntrospectionEndpoint::new(provider, "/introspect".into(), credentials, None);
        let callout = endpoint.call(&Secret::new("a+/b==".into()));
        (callout.headers, String::from_utf8(callout.body).unwrap())
    }

    fn authorization<'h>(headers: &'h [(&'static str, String)]) -> Option<&'h str> {
        headers.iter().find(|(n, _)| *n == "authorization").map(|(_, v)| v.as_str())
    }

    #[test]
    fn client_authentication() {
        let id = || "id:x y".to_owned();
        let secret = || Secret::new("s&=+%é".to_owned());
        let token = "token=a%2B%2Fb%3D%3D&token_type_hint=access_token";
        let (headers, body) = call(ClientAuthentication::Post { client_id: id(), client_secret: secret() });
        assert_eq!(authorization(&headers), None);
        assert_eq!(body, format!("{token}&client_id=id%3Ax%20y&client_secret=s%26%3D%2B%25%C3%A9"));
        let (headers, body) = call(ClientAuthentication::Basic { client_id: id(), client_secret: secret() });
        assert_eq!(
            authorization(&headers),
            Some(format!("Basic {}", BASE64_STANDARD.encode("id%3Ax%20y:s%26%3D%2B%25%C3%A9")).as_str())
        );
        assert_eq!(body, token);
        let (headers, body) = call(ClientAuthentication::Bearer { token: Secret::new("t".into()) });
        assert_eq!((authorization(&headers), body.as_str()), (Some("Bearer t"), token));
        let (headers, _) = call(ClientAuthentication::None);
        assert_eq!(authorization(&headers), None);
    }
}
