//! From what was written to what is true: names resolved, rules compared, dangers refused.

mod headers;
mod provider;
mod routes;
mod webhooks;

use super::error::Problems;
use super::raw::Document;
use crate::credential::Source;
use crate::introspect::{IntrospectionEndpoint, Provider};
use crate::policy::{AnswerFormat, OwnedHeaders, Policy};
use crate::template::{RequestValue, Template};
use std::time::Duration;

/// Reads an environment variable.
pub type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Compiles a document, noting every problem; the policy is of use only where there is none.
pub(in crate::config) fn compile(
    document: Document,
    env: Env<'_>,
    problems: &mut Problems,
) -> (Policy, Vec<String>) {
    let warnings = super::warn::warnings(&document);
    let mut compiler = Compiler {
        env,
        problems,
        owned: OwnedHeaders::default(),
        read_by_credentials: Vec::new(),
        endpoints: Vec::new(),
    };
    let policy = compiler.policy(document);
    (policy, warnings)
}

struct Compiler<'c> {
    env: Env<'c>,
    problems: &'c mut Problems,
    owned: OwnedHeaders,
    /// Headers that carry a credential somewhere.
    read_by_credentials: Vec<String>,
    endpoints: Vec<IntrospectionEndpoint>,
}

/// What routes share.
struct Shared {
    provider: Option<Provider>,
    introspection_path: String,
    default_endpoint: Option<usize>,
    sources: Vec<Source>,
    strip_credential: bool,
    clock_skew: Duration,
    identity_values: Vec<RequestValue>,
    permissions: Option<(Template, Vec<(String, String)>)>,
    webhooks: Vec<String>,
}

impl Compiler<'_> {
    fn policy(&mut self, document: Document) -> Policy {
        self.read_by_credentials = headers::credential_headers(&document);
        self.owned = headers::owned_headers(&document);
        self.owned_names(&document);
        let identity_headers = self.identity_headers(&document);
        let sources = match &document.credentials {
            Some(sources) => self.sources(sources),
            None => {
                vec![Source::Header { name: "authorization".to_owned(), scheme: Some("Bearer".to_owned()) }]
            }
        };
        let provider = document.provider.as_ref().and_then(|p| self.provider(p));
        let introspection = document.provider.as_ref().and_then(|p| p.introspection.as_ref());
        if let Some(introspection) = introspection {
            self.request_path("provider.introspection.path", &introspection.path);
        }
        let introspection_path = introspection.map(|i| i.path.clone()).unwrap_or_default();
        let default_endpoint = introspection
            .and_then(|i| i.credentials.as_ref())
            .and_then(|c| self.endpoint(provider.as_ref(), &introspection_path, c));
        let raw_permissions = document.provider.as_ref().and_then(|p| p.permissions.as_ref());
        let subject = raw_permissions
            .and_then(|p| self.subject("provider.permissions.subject", &p.subject, &p.namespaces));
        let permissions = raw_permissions.and_then(|p| self.permissions(provider.as_ref(), p));
        let shared = Shared {
            introspection_path,
            default_endpoint,
            strip_credential: document.strip_credential,
            clock_skew: document.clock_skew,
            identity_values: identity_headers.iter().flat_map(|(_, t)| t.request_values().cloned()).collect(),
            permissions: raw_permissions.zip(subject).map(|(p, subject)| (subject, p.namespaces.clone())),
            webhooks: document.webhooks.iter().map(|w| w.name.clone()).collect(),
            provider,
            sources,
        };
        let webhooks = self.webhooks(&document.webhooks);
        let (table, routes) = self.routes(&document.routes, &shared);
        let fallback = self.fallback(document.default_access, &shared);
        Policy {
            table,
            routes,
            fallback,
            realm: self.realm(&document, shared.provider.as_ref()),
            credential_queries: headers::credential_queries(&document),
            endpoints: std::mem::take(&mut self.endpoints),
            permissions,
            webhooks,
            identity_headers,
            owned: std::mem::take(&mut self.owned),
            refused_token_prefixes: document
                .refused_token_prefixes
                .unwrap_or_else(|| vec!["rt_".to_owned(), "ak_".to_owned()]),
            format: document.format.unwrap_or(AnswerFormat::Json),
            shadow: document.shadow,
            record_allowed: document.record_allowed,
        }
    }

    fn realm(&mut self, document: &Document, provider: Option<&Provider>) -> String {
        if let Some(realm) = &document.realm {
            if !realm.bytes().all(|b| (b' '..=b'~').contains(&b)) {
                self.problems.push(
                    "challenge.realm",
                    "bytes outside visible ASCII",
                    "visible ASCII and spaces",
                );
            }
            return realm.clone();
        }
        provider.map_or_else(|| "avnology".to_owned(), |p| p.authority.clone())
    }
}
