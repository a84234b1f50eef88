//! What was written about the provider, and the secrets for it.

use super::limits;
use crate::breaker::BreakerRules;
use crate::config::reader::{JsonValue, Section};
use std::time::Duration;

#[derive(Debug)]
pub(in crate::config) struct Provider {
    pub(in crate::config) cluster: Option<String>,
    pub(in crate::config) authority: Option<String>,
    pub(in crate::config) timeout: Duration,
    pub(in crate::config) retries: u32,
    pub(in crate::config) breaker: BreakerRules,
    pub(in crate::config) introspection: Option<Introspection>,
    pub(in crate::config) permissions: Option<Permissions>,
    /// The path of the session endpoint.
    pub(in crate::config) sessions: Option<String>,
}

#[derive(Debug)]
pub(in crate::config) struct Introspection {
    pub(in crate::config) path: String,
    pub(in crate::config) credentials: Option<ClientCredentials>,
}

#[derive(Clone, Debug)]
pub(in crate::config) struct ClientCredentials {
    pub(in crate::config) path: String,
    pub(in crate::config) method: Option<ClientAuthMethod>,
    pub(in crate::config) client_id: Option<String>,
    pub(in crate::config) client_secret: Option<SecretSource>,
    pub(in crate::config) token: Option<SecretSource>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum ClientAuthMethod {
    Post,
    Basic,
    Bearer,
    None,
}

#[derive(Debug)]
pub(in crate::config) struct Permissions {
    pub(in crate::config) path: String,
    pub(in crate::config) api_key: Option<SecretSource>,
    pub(in crate::config) subject: String,
    pub(in crate::config) namespaces: Vec<(String, String)>,
}

/// Where a secret is: its place in the document, and the environment variable or the value.
#[derive(Clone)]
pub(in crate::config) struct SecretSource {
    pub(in crate::config) at: String,
    pub(in crate::config) from: SecretSourceKind,
}

#[derive(Clone)]
pub(in crate::config) enum SecretSourceKind {
    Env(String),
    Literal(String),
}

impl std::fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretSource({})", self.at)
    }
}

pub(super) fn provider(mut section: Section<'_>) -> Provider {
    let provider = Provider {
        cluster: section.text("cluster"),
        authority: section.text("authority"),
        timeout: section
            .duration("timeout", Duration::from_millis(1)..=Duration::from_secs(60))
            .unwrap_or(Duration::from_secs(1)),
        retries: limits::retries(&mut section),
        breaker: limits::breaker(&mut section),
        introspection: section.section("introspection").map(|mut section| {
            let introspection = Introspection {
                path: section.text("path").unwrap_or_else(|| "/oauth2/introspect".to_owned()),
                credentials: client_credentials(&mut section),
            };
            section.finish();
            introspection
        }),
        permissions: section.section("permissions").map(|mut section| {
            let permissions = Permissions {
                path: section.text("path").unwrap_or_else(|| "/v1/permissions:check".to_owned()),
                api_key: secret(&mut section, "api_key"),
                subject: section.text("subject").unwrap_or_else(|| "identities:{token.sub}".to_owned()),
                namespaces: section.text_map("namespaces").unwrap_or_else(|| {
                    [("project", "projects"), ("user", "identities")]
                        .map(|(a, b)| (a.to_owned(), b.to_owned()))
                        .into()
                }),
            };
            section.finish();
            permissions
        }),
        sessions: section.section("sessions").map(|mut section| {
            let path = section.text("path").unwrap_or_else(|| "/v1/sessions/whoami".to_owned());
            section.finish();
            path
        }),
    };
    section.finish();
    provider
}

pub(super) fn client_credentials(section: &mut Section<'_>) -> Option<ClientCredentials> {
    if !section.has("credentials") {
        section.take("credentials");
        section.problem("credentials", "nothing", "an object with `method`");
        return None;
    }
    let mut section = section.section("credentials")?;
    if !section.has("method") {
        section.problem(
            "method",
            "nothing",
            "`client_secret_post`, `client_secret_basic`, `bearer` or `none`",
        );
    }
    let method = section.choice(
        "method",
        &[
            ("client_secret_post", ClientAuthMethod::Post),
            ("client_secret_basic", ClientAuthMethod::Basic),
            ("bearer", ClientAuthMethod::Bearer),
            ("none", ClientAuthMethod::None),
        ],
    );
    let credentials = ClientCredentials {
        path: section.path().to_owned(),
        method,
        client_id: section.text("client_id"),
        client_secret: optional_secret(&mut section, "client_secret"),
        token: optional_secret(&mut section, "token"),
    };
    section.finish();
    Some(credentials)
}

fn secret(section: &mut Section<'_>, name: &'static str) -> Option<SecretSource> {
    if !section.has(name) {
        section.problem(name, "nothing", SECRET);
    }
    optional_secret(section, name)
}

fn optional_secret(section: &mut Section<'_>, name: &'static str) -> Option<SecretSource> {
    let (at, node) = section.take(name)?;
    secret_source(section, at, node)
}

pub(super) fn secret_source(section: &Section<'_>, at: String, node: &JsonValue) -> Option<SecretSource> {
    let from = match node {
        JsonValue::Text(text) => SecretSourceKind::Literal(text.clone()),
        JsonValue::Object(members) => match members.as_slice() {
            [(name, JsonValue::Text(env))] if name == "env" && !env.is_empty() => {
                SecretSourceKind::Env(env.clone())
            }
            _ => {
                section.sink_problem(at, "an object of another shape", SECRET);
                return None;
            }
        },
        _ => {
            section.sink_problem(at, "another type", SECRET);
            return None;
        }
    };
    Some(SecretSource { at, from })
}

const SECRET: &str = "`{\"env\": \"NAME\"}` or a string";
