//! The document as plain values: every field is known and has its type, and nothing is compared
//! yet.

pub(super) mod limits;
mod provider;
mod webhook;

use limits::{Budgets, Caches};
pub(crate) use provider::ClientAuthMethod;
use provider::client_credentials;
pub(super) use provider::{
    ClientCredentials, Introspection, Permissions, Provider, SecretSource, SecretSourceKind, Sessions,
};
pub(super) use webhook::{Custom, Events, Replay, Webhook};

use super::fields::document::{self, challenge, source};
use super::fields::route::{self, check, matching, permissions, require, scopes};
use super::fields::{Field, Objects, Optional, Presence};
use super::json::JsonValue;
use super::reader::{Section, Sink};
use crate::credential::Source;
use crate::policy::AnswerFormat;
use std::time::Duration;

#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) provider: Option<Provider>,
    pub(super) credentials: Option<Vec<(String, Source)>>,
    pub(super) identity_headers: Option<Vec<(String, String)>>,
    pub(super) routes: Vec<Route>,
    pub(super) webhooks: Vec<Webhook>,
    pub(super) default_access: Option<DefaultAccess>,
    /// Of the three kinds that may stand there.
    pub(super) require: Option<Require>,
    pub(super) shadow: Option<bool>,
    pub(super) realm: Option<String>,
    pub(super) format: Option<AnswerFormat>,
    pub(super) clock_skew: Option<Duration>,
    pub(super) strip_credential: Option<bool>,
    pub(super) strip_headers: Vec<String>,
    pub(super) keep_override_headers: Vec<String>,
    pub(super) refused_token_prefixes: Option<Vec<String>>,
    pub(super) max_token_bytes: Option<u32>,
    pub(super) ready_path: Option<String>,
    pub(super) record_allowed: Option<bool>,
    pub(super) cache: Caches,
    pub(super) budgets: Budgets,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DefaultAccess {
    Deny,
    Required,
    Public,
}

#[derive(Debug)]
pub(super) struct Route {
    pub(super) at: String,
    pub(super) name: Option<String>,
    pub(super) hosts: Option<Vec<String>>,
    pub(super) methods: Option<Vec<String>>,
    pub(super) path: Option<String>,
    pub(super) access: Option<Access>,
    pub(super) webhook: Option<String>,
    pub(super) has_credentials: bool,
    pub(super) credentials: Option<Vec<(String, Source)>>,
    pub(super) require: Option<Require>,
    pub(super) introspection: Option<ClientCredentials>,
    pub(super) open_on_outage: Option<bool>,
    pub(super) strip_credential: Option<bool>,
    pub(super) preflight: Option<bool>,
    pub(super) literal_suffix: Option<bool>,
    pub(super) cache: Option<Caches>,
    pub(super) sessions: Option<bool>,
    pub(super) shadow: Option<bool>,
    pub(super) enforce_percent: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Public,
    Optional,
    Required,
}

#[derive(Debug, Default)]
pub(super) struct Require {
    pub(super) at: String,
    pub(super) scopes_all: Vec<String>,
    pub(super) scopes_any: Vec<String>,
    pub(super) audience: Vec<String>,
    pub(super) issuer: Vec<String>,
    pub(super) client_id: Vec<String>,
    pub(super) claims: Vec<(String, Vec<String>)>,
    pub(super) all: Vec<Check>,
    pub(super) any: Vec<Check>,
}

#[derive(Debug)]
pub(super) struct Check {
    pub(super) at: String,
    pub(super) namespace: Option<String>,
    pub(super) object: Option<String>,
    pub(super) relation: Option<String>,
    pub(super) subject: Option<String>,
}

/// Reads the document's root.
pub(super) fn read(node: &JsonValue, sink: &Sink) -> Document {
    let Some(mut root) = Section::open(String::new(), node, sink) else {
        return Document::default();
    };
    let mut document = Document {
        provider: root.section(&document::PROVIDER).map(provider::provider),
        credentials: sources(&mut root, &document::CREDENTIALS),
        identity_headers: root.text_map(&document::IDENTITY_HEADERS),
        shadow: root.choice(&document::MODE),
        default_access: root.choice(&document::DEFAULT_ACCESS),
        require: root.section(&document::REQUIRE).map(top_require),
        clock_skew: root.duration(&document::CLOCK_SKEW),
        strip_credential: root.flag(&document::STRIP_CREDENTIAL),
        strip_headers: root.texts(&document::STRIP_HEADERS).unwrap_or_default(),
        keep_override_headers: root.texts_not_flag(&document::KEEP_OVERRIDE_HEADERS).unwrap_or_default(),
        refused_token_prefixes: root.texts(&document::REFUSED_TOKEN_PREFIXES),
        ready_path: root.text(&document::READY_PATH),
        max_token_bytes: root.number(&document::MAX_TOKEN_BYTES),
        record_allowed: root.choice(&document::FILTER_STATE),
        cache: limits::top_caches(&mut root).unwrap_or_default(),
        budgets: limits::budgets(&mut root),
        ..Document::default()
    };
    if let Some(mut challenge) = root.section(&document::CHALLENGE) {
        document.realm = challenge.text(&challenge::REALM);
        document.format = challenge.choice(&challenge::FORMAT);
        challenge.finish();
    }
    let routes = root.sections(&document::ROUTES).unwrap_or_default();
    document.routes = routes.into_iter().map(route).collect();
    for (name, (path, node)) in root.map(&document::WEBHOOKS).unwrap_or_default() {
        if let Some(section) = Section::open(path, node, sink) {
            document.webhooks.push(webhook::webhook(name, section));
        }
    }
    root.text(&document::SCHEMA);
    root.finish();
    document
}

fn sources<P: Presence>(
    section: &mut Section<'_>,
    field: &Field<Objects, P>,
) -> Option<Vec<(String, Source)>> {
    Some(section.sections(field)?.into_iter().filter_map(source).collect())
}

fn source(mut section: Section<'_>) -> Option<(String, Source)> {
    let at = section.path().to_owned();
    let header = section.text(&source::HEADER);
    let cookie = section.text(&source::COOKIE);
    let query = section.text(&source::QUERY);
    let source = match (header, cookie, query) {
        (Some(name), None, None) => Some(Source::Header { name, scheme: section.text(&source::SCHEME) }),
        (None, Some(name), None) => {
            Some(Source::Cookie { name, origins: section.texts(&source::ORIGINS).unwrap_or_default() })
        }
        (None, None, Some(name)) => Some(Source::Query { name }),
        _ => {
            section.problem("not exactly one place", "one of `header`, `cookie` and `query`");
            None
        }
    };
    section.finish();
    source.map(|source| (at, source))
}

fn route(mut section: Section<'_>) -> Route {
    let (mut hosts, mut methods, mut path, mut literal_suffix) = (None, None, None, None);
    if let Some(mut matching) = section.section(&route::MATCH) {
        hosts = matching.texts(&matching::HOSTS);
        methods = matching.texts(&matching::METHODS);
        path = matching.text(&matching::PATH);
        literal_suffix = matching.flag(&matching::LITERAL_SUFFIX);
        matching.finish();
    }
    let access = section.choice(&route::ACCESS);
    let introspection = section.section(&route::INTROSPECTION).and_then(|mut section| {
        let credentials = client_credentials(&mut section);
        section.finish();
        credentials
    });
    let has_credentials = section.has(&route::CREDENTIALS);
    let route = Route {
        at: section.path().to_owned(),
        name: section.text(&route::NAME),
        hosts,
        methods,
        path,
        access,
        webhook: section.text(&route::WEBHOOK),
        has_credentials,
        credentials: sources(&mut section, &route::CREDENTIALS),
        require: section.section(&route::REQUIRE).map(require),
        introspection,
        open_on_outage: section.choice(&route::ON_PROVIDER_ERROR),
        strip_credential: section.flag(&route::STRIP_CREDENTIAL),
        preflight: section.flag(&route::PREFLIGHT),
        literal_suffix,
        cache: limits::route_caches(&mut section),
        sessions: section.flag(&route::SESSIONS),
        shadow: section.choice(&route::MODE),
        enforce_percent: section.number(&route::ENFORCE_PERCENT),
    };
    section.finish();
    route
}

fn top_require(mut section: Section<'_>) -> Require {
    let require = token_rules(&mut section);
    if require.audience.is_empty() && require.issuer.is_empty() && require.client_id.is_empty() {
        section.problem("no rule", "`audience`, `issuer` or `client_id`");
    }
    section.finish();
    require
}

/// The rules that may stand at the top too.
fn token_rules(section: &mut Section<'_>) -> Require {
    Require {
        at: section.path().to_owned(),
        audience: section.texts(&require::AUDIENCE).unwrap_or_default(),
        issuer: section.texts(&require::ISSUER).unwrap_or_default(),
        client_id: section.texts(&require::CLIENT_ID).unwrap_or_default(),
        ..Require::default()
    }
}

fn require(mut section: Section<'_>) -> Require {
    let mut require = Require {
        claims: section.texts_map(&require::CLAIMS).unwrap_or_default(),
        ..token_rules(&mut section)
    };
    if let Some(mut scopes) = section.section(&require::SCOPES) {
        require.scopes_all = scopes.texts(&scopes::ALL).unwrap_or_default();
        require.scopes_any = scopes.texts(&scopes::ANY).unwrap_or_default();
        needs_all_or_any(&scopes, require.scopes_all.is_empty() && require.scopes_any.is_empty());
        scopes.finish();
    }
    if let Some(mut permissions) = section.section(&require::PERMISSIONS) {
        let mut checks = |field: &Field<Objects, Optional>| -> Vec<Check> {
            permissions.sections(field).unwrap_or_default().into_iter().map(check).collect()
        };
        require.all = checks(&permissions::ALL);
        require.any = checks(&permissions::ANY);
        needs_all_or_any(&permissions, require.all.is_empty() && require.any.is_empty());
        permissions.finish();
    }
    section.finish();
    require
}

/// Reports a rule that requires nothing: it would look like protection.
fn needs_all_or_any(section: &Section<'_>, is_empty: bool) {
    if is_empty {
        section.problem("no rule", "`all` or `any`");
    }
}

fn check(mut section: Section<'_>) -> Check {
    let check = Check {
        at: section.path().to_owned(),
        namespace: section.text(&check::NAMESPACE),
        object: section.text(&check::OBJECT),
        relation: section.text(&check::RELATION),
        subject: section.text(&check::SUBJECT),
    };
    section.finish();
    check
}
