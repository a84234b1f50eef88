//! Headers that the gate sets, removes and reads, and the templates of their values.

use super::Compiler;
use crate::config::raw::{Document, Permissions};
use crate::credential::Source;
use crate::http::host::Host;
use crate::overrides::{self, Replaces};
use crate::policy::{OwnedHeaders, is_reserved};
use crate::route::Pattern;
use crate::template::{Part, RequestValue, Template};

impl Compiler<'_> {
    pub(super) fn owned_names(&mut self, document: &Document) {
        for (nth, name) in document.strip_headers.iter().enumerate() {
            let lower = name.to_ascii_lowercase();
            let danger =
                danger_of_edit(name).or_else(|| is_webhooks_own(&lower).then_some("a webhook's own"));
            if let Some(danger) = danger {
                self.problems.push(
                    format!("strip_headers[{nth}]"),
                    format!("`{name}`"),
                    format!("a header that is not {danger}"),
                );
            }
        }
        for (nth, name) in document.keep_override_headers.iter().enumerate() {
            let found = format!("`{name}`");
            let at = format!("keep_override_headers[{nth}]");
            if overrides::find(name).is_none() {
                self.problems.push(at, found, "a header of the table: no other would be removed");
            } else if document.strip_headers.iter().any(|stripped| folds(stripped, name)) {
                self.problems.push(at, found, "a header that `strip_headers` does not name");
            }
        }
    }

    pub(super) fn identity_headers(&mut self, document: &Document) -> Vec<(String, Template)> {
        let mut seen: Vec<String> = Vec::new();
        let mut headers = Vec::new();
        let read_by_templates = headers_read_by_templates(document);
        for (name, text) in document.identity_headers() {
            let at = format!("identity_headers.{name}");
            let lower = name.to_ascii_lowercase();
            let folds = |other: &String| crate::http::head::normalized_eq(lower.as_bytes(), other.as_bytes());
            let danger = danger_of_edit(name)
                .or_else(|| lower.starts_with("x-envoy-").then_some("Envoy's own"))
                .or_else(|| self.read_by_credentials.iter().any(folds).then_some("read as a credential"))
                .or_else(|| read_by_templates.iter().any(folds).then_some("read by a template"))
                .or_else(|| is_webhooks_own(&lower).then_some("a webhook's own"));
            if let Some(danger) = danger {
                self.problems.push(&at, format!("`{name}`"), format!("a header that is not {danger}"));
            }
            if seen.iter().any(folds) {
                self.problems.push(&at, format!("`{name}` beside another spelling of it"), "it once");
            }
            seen.push(lower.clone());
            let Some(template) = self.template(&at, text) else { continue };
            let literal_is_plain = template.parts().iter().all(|part| match part {
                Part::Text(text) => text.bytes().all(|b| (b' '..=b'~').contains(&b)),
                _ => true,
            });
            if !literal_is_plain {
                self.problems.push(&at, "bytes outside visible ASCII", "visible ASCII around the variables");
            }
            headers.push((lower, template));
        }
        headers
    }

    /// An identity header is for every route, so its parameter must be one of some route's path.
    pub(super) fn path_parameters(&mut self, document: &Document, headers: &[(String, Template)]) {
        let mut names: Vec<String> = Vec::new();
        for path in document.routes.iter().filter_map(|route| route.path.as_ref()) {
            let Ok(pattern) = Pattern::parse(path) else { continue };
            names.extend(pattern.names().map(str::to_owned));
        }
        for (header, template) in headers {
            self.parameters(&format!("identity_headers.{header}"), template, &names);
        }
    }

    pub(super) fn template(&mut self, at: &str, text: &str) -> Option<Template> {
        let template = match Template::parse(text) {
            Ok(template) => template,
            Err(error) => {
                self.problems.push(at, format!("`{text}`"), error.to_string());
                return None;
            }
        };
        for part in template.parts() {
            if let Part::Claim(name) = part {
                self.claim_name(at, name, &format!("`{{token.{name}}}`"));
            }
        }
        for value in template.request_values() {
            let RequestValue::Header(name) = value else { continue };
            if self.owned.contains(name.as_bytes()) {
                self.problems.push(at, format!("`{{header.{name}}}`"), "a header that a client may set");
            } else if matches!(name.as_str(), "authorization" | "cookie")
                || self.read_by_credentials.contains(name)
            {
                self.problems.push(at, format!("`{{header.{name}}}`"), "a header that carries no credential");
            } else if !is_token(name) {
                self.problems.push(at, format!("`{{header.{name}}}`"), "a header name");
            }
        }
        Some(template)
    }

    /// Reports a claim's name that no answer would have, though it reads as if one had.
    pub(super) fn claim_name(&mut self, at: &str, name: &str, found: &str) {
        if let Some(pointer) = name.strip_prefix('/') {
            // RFC 6901 section 3.
            if pointer.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
                self.problems.push(
                    at,
                    found,
                    "a JSON Pointer, with `~0` for a `~` and `~1` for a `/` in a name",
                );
            }
        } else if name.contains(['.', '/']) {
            let literal = name.replace("~", "~0").replace("/", "~1");
            let nested = name.replace("~", "~0").replace(".", "/");
            let expected = format!(
                "`/{nested}` for a member within another, or `/{literal}` for one whose name is `{name}`"
            );
            self.problems.push(at, found, expected);
        }
    }

    pub(super) fn sources(&mut self, sources: &[(String, Source)]) -> Vec<Source> {
        let mut compiled: Vec<Source> = Vec::new();
        for (at, source) in sources {
            match source {
                Source::Header { name, scheme } => {
                    let lower = name.to_ascii_lowercase();
                    if !is_token(name)
                        || matches!(lower.as_str(), "host" | "cookie")
                        || is_reserved(lower.as_bytes())
                        || is_hop_by_hop(&lower)
                        || lower.starts_with("content-")
                    {
                        self.problems.push(
                            format!("{at}.header"),
                            format!("`{name}`"),
                            "a header that may carry a credential",
                        );
                    }
                    if let Some(scheme) = scheme
                        && !is_token(scheme)
                    {
                        self.problems.push(
                            format!("{at}.scheme"),
                            format!("`{scheme}`"),
                            "an authentication scheme",
                        );
                    }
                }
                Source::Cookie { name, origins } => {
                    if !is_token(name) {
                        self.problems.push(format!("{at}.cookie"), format!("`{name}`"), "a cookie name");
                    }
                    for (nth, origin) in origins.iter().enumerate() {
                        if !is_origin(origin) {
                            let expected = "an origin such as `https://app.example.com`, without path";
                            self.problems.push(
                                format!("{at}.origins[{nth}]"),
                                format!("`{origin}`"),
                                expected,
                            );
                        }
                    }
                }
                Source::Query { name } => {
                    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)) {
                        self.problems.push(
                            format!("{at}.query"),
                            format!("`{name}`"),
                            "letters, digits, `-`, `.`, `_` and `~`",
                        );
                    }
                }
            }
            let source = match source {
                Source::Header { name, scheme } => {
                    Source::Header { name: name.to_ascii_lowercase(), scheme: scheme.clone() }
                }
                other => other.clone(),
            };
            if compiled.contains(&source) {
                self.problems.push(at, "the same place twice", "it once");
            }
            compiled.push(source);
        }
        compiled
    }
}

/// Every header that a credential source reads, the default source included.
pub(super) fn credential_headers(document: &Document) -> Vec<String> {
    let routes = document.routes.iter().filter_map(|r| r.credentials.as_ref());
    let mut names: Vec<String> = document
        .credentials
        .iter()
        .chain(routes)
        .flatten()
        .filter_map(|(_, source)| source.header_name().map(str::to_ascii_lowercase))
        .collect();
    names.push("authorization".to_owned());
    names
}

/// Every query parameter that a credential source reads.
pub(super) fn credential_queries(document: &Document) -> Vec<String> {
    let routes = document.routes.iter().filter_map(|r| r.credentials.as_ref());
    let sources = document.credentials.iter().chain(routes).flatten();
    sources.filter_map(|(_, source)| source.query_name().map(str::to_owned)).collect()
}

pub(super) fn headers_read_by_templates(document: &Document) -> Vec<String> {
    let requires = document.routes.iter().filter_map(|r| r.require.as_ref());
    let checks = requires.clone().flat_map(|r| r.all.iter().chain(&r.any));
    let texts = requires
        .flat_map(|r| r.claims.iter().flat_map(|(_, texts)| texts))
        .chain(checks.flat_map(|c| c.object.iter().chain(&c.subject)))
        .map(String::as_str)
        .chain(document.identity_headers().map(|(_, text)| text))
        .chain(document.provider.iter().filter_map(|p| p.permissions.as_ref()).map(Permissions::subject));
    texts
        .filter_map(|text| Template::parse(text).ok())
        .flat_map(|t| t.request_values().cloned().collect::<Vec<_>>())
        .filter_map(|value| match value {
            RequestValue::Header(name) => Some(name),
            _ => None,
        })
        .collect()
}

pub(super) fn owned_headers(document: &Document) -> OwnedHeaders {
    let mut names: Vec<String> = document.identity_headers().map(|(n, _)| n.to_ascii_lowercase()).collect();
    names.extend(document.strip_headers.iter().map(|n| n.to_ascii_lowercase()));
    let decides_by_host = document.routes.iter().any(|route| route.hosts.is_some());
    let is_kept = |name: &str| document.keep_override_headers.iter().any(|kept| folds(kept, name));
    let overrides = overrides::ALL.iter().filter(|known| known.replaces != Replaces::Host || decides_by_host);
    names.extend(overrides.map(|known| known.name).filter(|name| !is_kept(name)).map(str::to_owned));
    // The gate's own prefix is owned without being listed.
    names.retain(|n| !is_reserved(n.as_bytes()));
    OwnedHeaders::new(names)
}

/// Whether some service reads two header names as one.
fn folds(name: &str, other: &str) -> bool {
    crate::http::head::normalized_eq(name.as_bytes(), other.as_bytes())
}

/// The headers of a webhook's signature, and those that the gate sets for a delivery.
fn is_webhooks_own(lower: &str) -> bool {
    matches!(lower, "x-avnology-signature" | "x-avnology-timestamp")
        || lower.starts_with("x-avnology-webhook-")
}

/// Why the gate must neither set nor remove a header.
pub(super) fn danger_of_edit(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        _ if lower.starts_with(':') => Some("a pseudo-header"),
        _ if !is_token(&lower) => Some("malformed"),
        "host" => Some("the authority"),
        "authorization" | "cookie" => Some("a credential"),
        _ if is_hop_by_hop(&lower) => Some("about the connection"),
        _ if lower.starts_with("content-") => Some("about the content"),
        _ => None,
    }
}

/// RFC 9110 section 7.6.1.
pub(super) fn is_hop_by_hop(lower: &str) -> bool {
    matches!(
        lower,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// RFC 9110 section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

pub(super) fn is_origin(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, authority)| {
        matches!(scheme, "http" | "https")
            && Host::parse(authority.as_bytes()).is_some()
            && !authority.bytes().any(|b| b.is_ascii_uppercase())
    })
}
