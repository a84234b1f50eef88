//! Token introspection (RFC 7662): the question, the answer, and what a route requires of it.

mod packed;
pub mod reply;
pub mod requirement;
mod session;

pub use reply::{Introspection, TokenInfo};
pub use requirement::{Fact, Identity, Requirement};
pub use session::SessionEndpoint;

use crate::cache::shared::{Kind, Place, Sealer};
use crate::health::BreakerRules;
use crate::http::Callout;
use crate::secret::{FactKey, Fingerprint, Secret, Seed, Token};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::sync::Arc;
use std::time::Duration;

/// The provider's host, as all its endpoints share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// The name of Envoy's cluster.
    pub cluster: String,
    /// What `:authority` says.
    pub authority: String,
    /// How long one callout may take, retries included.
    pub timeout: Duration,
    /// How often Envoy asks again within that time, where the first attempt failed.
    pub retries: u32,
    /// When it is left alone.
    pub breaker: BreakerRules,
}

impl Provider {
    /// A request to it, which Envoy's router retries. `headers`: those beside what every request has.
    pub fn callout(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Callout {
        let retries = self.retries.to_string();
        // Envoy's `5xx` covers what never became an answer too: connection failures, resets, refused streams.
        let retry: &[(&str, &str)] = match self.retries {
            0 => &[],
            _ => &[("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", &retries)],
        };
        let common = [
            (":method", method),
            (":path", path),
            (":authority", self.authority.as_str()),
            ("accept", "application/json"),
        ];
        let all = common.iter().chain(headers).chain(retry);
        Callout {
            cluster: self.cluster.clone(),
            headers: all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body,
            timeout: self.timeout,
        }
    }
}

/// An introspection endpoint with the credentials that the gate shows it.
#[derive(Clone, Debug)]
pub struct IntrospectionEndpoint {
    /// Where it is.
    pub provider: Provider,
    path: String,
    credentials: ClientAuthentication,
    fingerprint: Fingerprint,
    /// `None` without a secret: what nobody vouches for is not shared.
    sealer: Option<Arc<Sealer>>,
}

impl PartialEq for IntrospectionEndpoint {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint && self.provider == other.provider
    }
}

/// How the gate authenticates to the introspection endpoint (RFC 6749 section 2.3.1, RFC 7662 section 2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// `client_id` and `client_secret` in the form.
    Post {
        /// The client.
        client_id: String,
        /// Its secret.
        client_secret: Secret<String>,
    },
    /// HTTP Basic, both form-encoded first.
    Basic {
        /// The client.
        client_id: String,
        /// Its secret.
        client_secret: Secret<String>,
    },
    /// A bearer token of the gate's own.
    Bearer {
        /// The token.
        token: Secret<String>,
    },
    /// None: the network vouches for the gate.
    None,
}

impl ClientAuthentication {
    /// The method, the client and its secret, where there are any.
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
    /// The endpoint at this path of the provider's.
    pub fn new(provider: Provider, path: String, credentials: ClientAuthentication) -> Self {
        let [method, id, secret] = credentials.parts();
        let Provider { cluster, authority, .. } = &provider;
        let fingerprint = Fingerprint::of(&["introspection", cluster, authority, &path, method, id, secret]);
        let sealer = (!secret.is_empty()).then(|| Arc::new(Sealer::new(secret, fingerprint)));
        Self { provider, path, credentials, fingerprint, sealer }
    }

    /// The question whether a token is active.
    pub fn call(&self, token: &Token) -> Callout {
        let mut form = format!("token={}&token_type_hint=access_token", form_encode(token.reveal()));
        let authorization = match &self.credentials {
            ClientAuthentication::Post { client_id, client_secret } => {
                form.push_str("&client_id=");
                form.push_str(&form_encode(client_id));
                form.push_str("&client_secret=");
                form.push_str(&form_encode(client_secret.reveal()));
                None
            }
            ClientAuthentication::Basic { client_id, client_secret } => {
                // RFC 6749 section 2.3.1: form-encoded before they are joined, so that a colon in the id cannot move the border.
                let pair = format!("{}:{}", form_encode(client_id), form_encode(client_secret.reveal()));
                Some(format!("Basic {}", BASE64_STANDARD.encode(pair)))
            }
            ClientAuthentication::Bearer { token } => Some(format!("Bearer {}", token.reveal())),
            ClientAuthentication::None => None,
        };
        let mut headers = vec![("content-type", "application/x-www-form-urlencoded")];
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        self.provider.callout("POST", &self.path, &headers, form.into_bytes())
    }

    /// What tells it, and whom it knows the gate as, from others.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// What identifies the answer: the endpoint, as whom it is asked, and the token.
    pub fn key(&self, seed: Seed, token: &Token) -> FactKey {
        FactKey::of(seed, &[self.fingerprint.bytes(), token.reveal().as_bytes()])
    }

    /// Where the workers share the answer, if they do.
    pub fn place(&self, token: &Token) -> Option<Place> {
        self.sealer.as_ref().map(|sealer| sealer.place(Kind::Token, &[token.reveal().as_bytes()]))
    }
}

/// Form encoding that every decoder reads alike: a space as `%20`, never as `+`.
fn form_encode(text: &str) -> String {
    utf8_percent_encode(text, FORM).to_string()
}

/// All but RFC 3986's unreserved characters.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    fn call(credentials: ClientAuthentication) -> (Vec<(String, String)>, String) {
        let provider = Provider {
            cluster: "c".into(),
            authority: "idp.example".into(),
            timeout: Duration::from_secs(1),
            retries: 2,
            breaker: BreakerRules { failures: 0, window: Duration::ZERO, open_for: Duration::ZERO },
        };
        let endpoint = IntrospectionEndpoint::new(provider, "/introspect".into(), credentials);
        let callout = endpoint.call(&Secret::new("a+/b==".into()));
        (callout.headers, String::from_utf8(callout.body).unwrap())
    }

    fn authorization(headers: &[(String, String)]) -> Option<&str> {
        headers.iter().find(|(n, _)| n == "authorization").map(|(_, v)| v.as_str())
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
