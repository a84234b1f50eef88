//! What was written: the document as plain values, every field known and of its type, nothing compared yet.

pub(super) mod limits;
mod provider;

use limits::Caches;
pub(super) use provider::{
    ClientAuthMethod, ClientCredentials, Permissions, Provider, SecretSource, SecretSourceKind,
};
use provider::{client_credentials, secret_source};

use super::reader::{JsonValue, Section, Sink};
use crate::credential::Source;
use crate::policy::AnswerFormat;
use crate::rate_limit::RateLimits;
use std::time::Duration;

#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) provider: Option<Provider>,
    pub(super) credentials: Option<Vec<(String, Source)>>,
    pub(super) identity_headers: Vec<(String, String)>,
    pub(super) routes: Vec<Route>,
    pub(super) webhooks: Vec<Webhook>,
    pub(super) default_access: DefaultAccess,
    pub(super) shadow: bool,
    pub(super) realm: Option<String>,
    pub(super) format: Option<AnswerFormat>,
    pub(super) clock_skew: Duration,
    pub(super) strip_credential: bool,
    pub(super) strip_headers: Vec<String>,
    pub(super) keep_override_headers: bool,
    pub(super) refused_token_prefixes: Option<Vec<String>>,
    pub(super) record_allowed: bool,
    pub(super) cache: Caches,
    pub(super) budgets: RateLimits,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum DefaultAccess {
    #[default]
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
    pub(super) preflight: bool,
    pub(super) cache: Option<Caches>,
    pub(super) sessions: Option<bool>,
    pub(super) shadow: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
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
    pub(super) claims: Vec<(String, String)>,
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

#[derive(Debug)]
pub(super) struct Webhook {
    pub(super) at: String,
    pub(super) name: String,
    pub(super) secrets: Vec<SecretSource>,
    pub(super) allow_short_key: bool,
    pub(super) body_only: bool,
    pub(super) tolerance: Option<Duration>,
    pub(super) max_body_bytes: usize,
    pub(super) body_timeout: Duration,
    pub(super) shadow: Option<bool>,
}

/// Reads the document's root.
pub(super) fn read(node: &JsonValue, sink: &Sink) -> Document {
    let Some(mut root) = Section::open(String::new(), node, sink) else {
        return Document::default();
    };
    let mut document = Document {
        provider: root.section("provider").map(provider::provider),
        credentials: sources(&mut root),
        identity_headers: root.text_map("identity_headers").unwrap_or_else(default_identity_headers),
        shadow: mode(&mut root).unwrap_or_default(),
        default_access: root
            .choice(
                "default_access",
                &[
                    ("deny", DefaultAccess::Deny),
                    ("required", DefaultAccess::Required),
                    ("public", DefaultAccess::Public),
                ],
            )
            .unwrap_or_default(),
        clock_skew: root
            .duration("clock_skew", Duration::ZERO..=Duration::from_secs(300))
            .unwrap_or_default(),
        strip_credential: root.flag("strip_credential").unwrap_or_default(),
        strip_headers: root.texts("strip_headers").unwrap_or_default(),
        keep_override_headers: root.flag("keep_override_headers").unwrap_or_default(),
        refused_token_prefixes: root.texts("refused_token_prefixes"),
        record_allowed: root.choice("filter_state", &[("refused", false), ("all", true)]).unwrap_or_default(),
        cache: limits::caches(&mut root, true).unwrap_or_default(),
        budgets: limits::budgets(&mut root),
        ..Document::default()
    };
    if let Some(mut challenge) = root.section("challenge") {
        document.realm = challenge.text("realm");
        document.format = challenge
            .choice("format", &[("json", AnswerFormat::Json), ("problem+json", AnswerFormat::Problem)]);
        challenge.finish();
    }
    if root.has("routes") {
        document.routes = root.sections("routes").unwrap_or_default().into_iter().map(route).collect();
    } else {
        root.take("routes");
        root.problem("routes", "nothing", "a list of routes");
    }
    for (name, path, node) in root.map("webhooks").unwrap_or_default() {
        if let Some(section) = Section::open(path, node, sink) {
            document.webhooks.push(webhook(name, section));
        }
    }
    root.finish();
    document
}

fn default_identity_headers() -> Vec<(String, String)> {
    [
        ("x-avnology-user-id", "{token.sub}"),
        ("x-avnology-scopes", "{token.scope}"),
        ("x-avnology-org-id", "{token.org_id}"),
        ("x-avnology-client-id", "{token.client_id}"),
    ]
    .map(|(name, template)| (name.to_owned(), template.to_owned()))
    .into()
}

/// Whether in shadow; `None` where nothing is said.
fn mode(section: &mut Section<'_>) -> Option<bool> {
    section.choice("mode", &[("enforce", false), ("shadow", true)])
}

fn sources(section: &mut Section<'_>) -> Option<Vec<(String, Source)>> {
    Some(section.sections("credentials")?.into_iter().filter_map(source).collect())
}

fn source(mut section: Section<'_>) -> Option<(String, Source)> {
    let at = section.path().to_owned();
    let header = section.text("header");
    let cookie = section.text("cookie");
    let query = section.text("query");
    let source = match (header, cookie, query) {
        (Some(name), None, None) => Some(Source::Header { name, scheme: section.text("scheme") }),
        (None, Some(name), None) => {
            Some(Source::Cookie { name, origins: section.texts("origins").unwrap_or_default() })
        }
        (None, None, Some(name)) => Some(Source::Query { name }),
        _ => {
            section.problem("", "not exactly one place", "one of `header`, `cookie` and `query`");
            None
        }
    };
    section.finish();
    source.map(|source| (at, source))
}

fn route(mut section: Section<'_>) -> Route {
    let (mut hosts, mut methods, mut path) = (None, None, None);
    if section.has("match") {
        if let Some(mut matching) = section.section("match") {
            hosts = matching.texts("hosts");
            methods = matching.texts("methods");
            path = matching.required_text("path");
            matching.finish();
        }
    } else {
        section.take("match");
        section.problem("match", "nothing", "an object with `path`");
    }
    let access = section.choice(
        "access",
        &[("public", Access::Public), ("optional", Access::Optional), ("required", Access::Required)],
    );
    let introspection = section.section("introspection").and_then(|mut section| {
        let credentials = client_credentials(&mut section);
        section.finish();
        credentials
    });
    let has_credentials = section.has("credentials");
    let route = Route {
        at: section.path().to_owned(),
        name: section.text("name"),
        hosts,
        methods,
        path,
        access,
        webhook: section.text("webhook"),
        has_credentials,
        credentials: sources(&mut section),
        require: section.section("require").map(require),
        introspection,
        open_on_outage: section.choice("on_provider_error", &[("deny", false), ("allow", true)]),
        strip_credential: section.flag("strip_credential"),
        preflight: section.flag("preflight").unwrap_or_default(),
        cache: limits::caches(&mut section, false),
        sessions: section.flag("sessions"),
        shadow: mode(&mut section),
    };
    section.finish();
    route
}

fn require(mut section: Section<'_>) -> Require {
    let mut require = Require {
        at: section.path().to_owned(),
        audience: section.texts("audience").unwrap_or_default(),
        issuer: section.texts("issuer").unwrap_or_default(),
        client_id: section.texts("client_id").unwrap_or_default(),
        claims: section.text_map("claims").unwrap_or_default(),
        ..Require::default()
    };
    if let Some(mut scopes) = section.section("scopes") {
        require.scopes_all = scopes.texts("all").unwrap_or_default();
        require.scopes_any = scopes.texts("any").unwrap_or_default();
        needs_all_or_any(&scopes, require.scopes_all.is_empty() && require.scopes_any.is_empty());
        scopes.finish();
    }
    if let Some(mut permissions) = section.section("permissions") {
        require.all = permissions.sections("all").unwrap_or_default().into_iter().map(check).collect();
        require.any = permissions.sections("any").unwrap_or_default().into_iter().map(check).collect();
        needs_all_or_any(&permissions, require.all.is_empty() && require.any.is_empty());
        permissions.finish();
    }
    section.finish();
    require
}

/// A rule that asks for nothing would look like protection.
fn needs_all_or_any(section: &Section<'_>, is_empty: bool) {
    if is_empty {
        section.problem("", "no rule", "`all` or `any`");
    }
}

fn check(mut section: Section<'_>) -> Check {
    let check = Check {
        at: section.path().to_owned(),
        namespace: section.text("namespace"),
        object: section.required_text("object"),
        relation: section.required_text("relation"),
        subject: section.text("subject"),
    };
    section.finish();
    check
}

fn webhook(name: String, mut section: Section<'_>) -> Webhook {
    if section.has("format") {
        section.choice("format", &[("avnology", ())]);
    } else {
        section.take("format");
        section.problem("format", "nothing", "`avnology`");
    }
    if !section.has("secrets") {
        section.problem("secrets", "nothing", "a list of secrets");
    }
    let secrets = section.list("secrets").unwrap_or_default();
    let webhook = Webhook {
        at: section.path().to_owned(),
        name,
        secrets: secrets.into_iter().filter_map(|(at, node)| secret_source(&section, at, node)).collect(),
        allow_short_key: section.flag("allow_short_key").unwrap_or_default(),
        body_only: section.flag("body_only").unwrap_or_default(),
        tolerance: section.duration("tolerance", Duration::from_secs(1)..=Duration::from_secs(86_400)),
        max_body_bytes: section
            .number("max_body_bytes", 1..=MAX_BODY)
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(1_048_576),
        body_timeout: section
            .duration("body_timeout", Duration::from_millis(1)..=Duration::from_secs(300))
            .unwrap_or(Duration::from_secs(10)),
        shadow: mode(&mut section),
    };
    section.not_built(&["replay", "events", "evict", "headers", "template"]);
    section.finish();
    webhook
}

/// One body may not be longer than what a worker holds in all.
const MAX_BODY: u32 = 64 * 1024 * 1024;
