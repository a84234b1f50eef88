//! The provider's settings as read, and the secrets for it.

use super::limits::{self, Breaker, InFlight};
use crate::config::fields::provider::{self as fields, client, introspection, permissions, sessions};
use crate::config::fields::{Field, Presence, SECRET_SHAPE, Secret};
use crate::config::json::JsonValue;
use crate::config::reader::Section;
use std::time::Duration;

#[derive(Debug)]
pub(in crate::config) struct Provider {
    pub(in crate::config) cluster: Option<String>,
    pub(in crate::config) authority: Option<String>,
    pub(in crate::config) timeout: Option<Duration>,
    pub(in crate::config) retries: Option<u32>,
    pub(in crate::config) tracestate: Option<bool>,
    pub(in crate::config) breaker: Breaker,
    pub(in crate::config) in_flight: InFlight,
    pub(in crate::config) introspection: Option<Introspection>,
    pub(in crate::config) permissions: Option<Permissions>,
    pub(in crate::config) sessions: Option<Sessions>,
}

#[derive(Debug)]
pub(in crate::config) struct Introspection {
    pub(in crate::config) path: Option<String>,
    pub(in crate::config) credentials: Option<ClientCredentials>,
}

#[derive(Clone, Debug)]
pub(in crate::config) struct ClientCredentials {
    pub(in crate::config) path: String,
    pub(in crate::config) method: Option<ClientAuthMethod>,
    pub(in crate::config) client_id: Option<String>,
    pub(in crate::config) client_secret: Option<SecretSource>,
    pub(in crate::config) next_client_secret: Option<SecretSource>,
    pub(in crate::config) token: Option<SecretSource>,
    pub(in crate::config) next_token: Option<SecretSource>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientAuthMethod {
    Post,
    Basic,
    Bearer,
    None,
}

#[derive(Debug)]
pub(in crate::config) struct Permissions {
    pub(in crate::config) path: Option<String>,
    pub(in crate::config) api_key: Option<SecretSource>,
    pub(in crate::config) next_api_key: Option<SecretSource>,
    pub(in crate::config) subject: Option<String>,
    pub(in crate::config) namespaces: Option<Vec<(String, String)>>,
}

#[derive(Debug)]
pub(in crate::config) struct Sessions {
    pub(in crate::config) path: Option<String>,
}

/// Where a secret comes from: its path in the document, and the environment variable or the value.
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
        cluster: section.text(&fields::CLUSTER),
        authority: section.text(&fields::AUTHORITY),
        timeout: section.duration(&fields::TIMEOUT),
        retries: section.number(&fields::RETRIES),
        tracestate: section.flag(&fields::TRACESTATE),
        breaker: limits::breaker(&mut section),
        in_flight: limits::in_flight(&mut section),
        introspection: section.section(&fields::INTROSPECTION).map(|mut section| {
            let introspection = Introspection {
                path: section.text(&introspection::PATH),
                credentials: client_credentials(&mut section),
            };
            section.finish();
            introspection
        }),
        permissions: section.section(&fields::PERMISSIONS).map(|mut section| {
            let permissions = Permissions {
                path: section.text(&permissions::PATH),
                api_key: secret(&mut section, &permissions::API_KEY),
                next_api_key: secret(&mut section, &permissions::NEXT_API_KEY),
                subject: section.text(&permissions::SUBJECT),
                namespaces: section.text_map(&permissions::NAMESPACES),
            };
            section.finish();
            permissions
        }),
        sessions: section.section(&fields::SESSIONS).map(|mut section| {
            let sessions = Sessions { path: section.text(&sessions::PATH) };
            section.finish();
            sessions
        }),
    };
    section.finish();
    provider
}

pub(super) fn client_credentials(section: &mut Section<'_>) -> Option<ClientCredentials> {
    let mut section = section.section(&introspection::CREDENTIALS)?;
    let credentials = ClientCredentials {
        path: section.path().to_owned(),
        method: section.choice(&client::METHOD),
        client_id: section.text(&client::CLIENT_ID),
        client_secret: secret(&mut section, &client::CLIENT_SECRET),
        next_client_secret: secret(&mut section, &client::NEXT_CLIENT_SECRET),
        token: secret(&mut section, &client::TOKEN),
        next_token: secret(&mut section, &client::NEXT_TOKEN),
    };
    section.finish();
    Some(credentials)
}

fn secret<P: Presence>(section: &mut Section<'_>, field: &Field<Secret, P>) -> Option<SecretSource> {
    let (at, node) = section.take(field)?;
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
                section.sink_problem(at, "an object of another shape", SECRET_SHAPE);
                return None;
            }
        },
        _ => {
            section.sink_problem(at, "another type", SECRET_SHAPE);
            return None;
        }
    };
    Some(SecretSource { at, from })
}
