//! The provider's endpoints, and the secrets that the gate sends to them.

use super::Compiler;
use crate::config::fields::provider as fields;
use crate::config::raw::{self, ClientAuthMethod, SecretSource, SecretSourceKind};
use crate::http::host::Host;
use crate::introspect::{ClientAuthentication, IntrospectionEndpoint};
use crate::permission::PermissionEndpoint;
use crate::provider::Provider;
use crate::secret::Secret;
use crate::template::{Part, Template};
use std::sync::Arc;

impl Compiler<'_> {
    pub(super) fn provider(&mut self, provider: &raw::Provider) -> Option<Provider> {
        if provider.cluster.is_none() && !self.problems.has("provider.cluster") {
            self.problems.push("provider.cluster", "nothing", fields::CLUSTER.presence.0);
        }
        match &provider.authority {
            None if self.problems.has("provider.authority") => {}
            None => self.problems.push("provider.authority", "nothing", fields::AUTHORITY.presence.0),
            Some(authority) if Host::parse(authority.as_bytes()).is_none() => {
                self.problems.push(
                    "provider.authority",
                    format!("`{authority}`"),
                    "a host name with an optional port",
                );
            }
            Some(_) => {}
        }
        Some(Provider {
            cluster: provider.cluster.clone()?,
            authority: provider.authority.clone()?,
            timeout: fields::TIMEOUT.of(provider.timeout),
            retries: fields::RETRIES.of(provider.retries),
            probe_interval: provider.breaker.probe_interval(),
            max_in_flight: provider.in_flight.shares(),
        })
    }

    pub(super) fn request_path(&mut self, at: &str, path: &str) {
        if !path.starts_with('/') || !path.bytes().all(|b| (b'!'..=b'~').contains(&b) && b != b'#') {
            self.problems.push(at, format!("`{path}`"), "a path that begins with `/`, in visible ASCII");
        }
    }

    /// The endpoint with these credentials, shared by all routes that use the same client.
    pub(super) fn endpoint(
        &mut self,
        provider: Option<&Provider>,
        path: &str,
        raw: &raw::ClientCredentials,
    ) -> Option<Arc<IntrospectionEndpoint>> {
        let (credentials, next) = self.client_authentication(raw)?;
        let endpoint = IntrospectionEndpoint::new(provider?.clone(), path.to_owned(), credentials, next);
        if let Some(same) = self.endpoints.iter().find(|e| e.is_same(&endpoint)) {
            return Some(Arc::clone(same));
        }
        let endpoint = Arc::new(endpoint);
        self.endpoints.push(Arc::clone(&endpoint));
        Some(endpoint)
    }

    pub(super) fn client_authentication(
        &mut self,
        raw: &raw::ClientCredentials,
    ) -> Option<(ClientAuthentication, Option<ClientAuthentication>)> {
        let at = |name: &str| format!("{}.{name}", raw.path);
        let method = raw.method?;
        let (wants_client, wants_token) = match method {
            ClientAuthMethod::Post | ClientAuthMethod::Basic => (true, false),
            ClientAuthMethod::Bearer => (false, true),
            ClientAuthMethod::None => (false, false),
        };
        for (name, wanted, is_there) in [
            ("client_id", wants_client, raw.client_id.is_some()),
            ("client_secret", wants_client, raw.client_secret.is_some()),
            ("token", wants_token, raw.token.is_some()),
        ] {
            match (wanted, is_there) {
                (true, false) => self.problems.push(at(name), "nothing", "a value: the method needs it"),
                (false, true) => {
                    self.problems.push(at(name), "a value", "nothing: the method does not use it")
                }
                _ => {}
            }
        }
        for (name, is_of_use, is_there) in [
            ("next_client_secret", wants_client, raw.next_client_secret.is_some()),
            ("next_token", wants_token, raw.next_token.is_some()),
        ] {
            if is_there && !is_of_use {
                self.problems.push(at(name), "a value", "nothing: the method does not use it");
            }
        }
        Some(match method {
            ClientAuthMethod::Post | ClientAuthMethod::Basic => {
                let client_secret = raw.client_secret.as_ref().and_then(|s| self.secret(s));
                let next = raw.next_client_secret.as_ref().and_then(|s| self.secret(s));
                let client_id = raw.client_id.clone()?;
                let with = |client_secret| {
                    let client_id = client_id.clone();
                    if method == ClientAuthMethod::Post {
                        ClientAuthentication::Post { client_id, client_secret }
                    } else {
                        ClientAuthentication::Basic { client_id, client_secret }
                    }
                };
                self.another(&at("next_client_secret"), client_secret.as_ref(), next.as_ref());
                (with(client_secret?), next.map(with))
            }
            ClientAuthMethod::Bearer => {
                let token = self.header_secret(raw.token.as_ref()?)?;
                let next = raw.next_token.as_ref().and_then(|s| self.header_secret(s));
                self.another(&at("next_token"), Some(&token), next.as_ref());
                let with = |token| ClientAuthentication::Bearer { token };
                (with(token), next.map(with))
            }
            ClientAuthMethod::None => (ClientAuthentication::None, None),
        })
    }

    /// A second credential that is the first one changes nothing where that is refused.
    fn another(&mut self, at: &str, first: Option<&Secret<String>>, next: Option<&Secret<String>>) {
        if next.is_some() && first == next {
            self.problems.push(at, "the secret that is in use", "another one");
        }
    }

    pub(super) fn secret(&mut self, source: &SecretSource) -> Option<Secret<String>> {
        let (value, place) = match &source.from {
            SecretSourceKind::Env(name) if !is_variable(name) => {
                let expected = "a variable's name: letters, digits and `_`, without `$` and braces";
                self.problems.push(&source.at, "no name of an environment variable", expected);
                return None;
            }
            SecretSourceKind::Env(name) => match (self.env)(name) {
                Some(value) => (value, format!("the environment variable {}", shown(name))),
                None => {
                    self.problems.push(
                        &source.at,
                        format!("no environment variable {}", shown(name)),
                        "it to be set, and handed to the plugin",
                    );
                    return None;
                }
            },
            SecretSourceKind::Literal(value) => (value.clone(), "a string".to_owned()),
        };
        // Files often end with a line break, which is never part of a secret.
        let value = value.trim();
        if value.is_empty() {
            self.problems.push(&source.at, format!("{place} that is empty"), "a secret");
            return None;
        }
        if is_placeholder(value) {
            let expected = "the secret itself: anybody can know what stands where it is to stand";
            self.problems.push(&source.at, format!("{place} that is a placeholder"), expected);
            return None;
        }
        Some(Secret::new(value.to_owned()))
    }

    /// A secret that is sent in a header as it is.
    pub(super) fn header_secret(&mut self, source: &SecretSource) -> Option<Secret<String>> {
        let secret = self.secret(source)?;
        if !secret.reveal().bytes().all(|b| (b'!'..=b'~').contains(&b)) {
            self.problems.push(
                &source.at,
                "a secret with bytes outside visible ASCII",
                "one that can stand in a header",
            );
            return None;
        }
        Some(secret)
    }

    pub(super) fn permissions(
        &mut self,
        provider: Option<&Provider>,
        raw: &raw::Permissions,
    ) -> Option<PermissionEndpoint> {
        self.request_path("provider.permissions.path", raw.path());
        let api_key = self.header_secret(raw.api_key.as_ref()?)?;
        let next = raw.next_api_key.as_ref().and_then(|s| self.header_secret(s));
        self.another("provider.permissions.next_api_key", Some(&api_key), next.as_ref());
        Some(PermissionEndpoint::new(provider?.clone(), raw.path().to_owned(), api_key, next))
    }

    pub(super) fn subject(
        &mut self,
        at: &str,
        text: &str,
        namespaces: &[(String, String)],
    ) -> Option<Template> {
        let template = self.check_template(at, text)?;
        if !template.reads_token() {
            self.problems.push(
                at,
                format!("`{text}`"),
                "a `{token.…}` in it: anybody would be the same subject",
            );
        }
        match template.split_type() {
            Some((kind, rest)) => Some(rest.prefixed(format!("{}:", alias(&kind, namespaces)))),
            None => {
                self.problems.push(
                    at,
                    format!("`{text}`"),
                    "a type before a colon, as in `identities:{token.sub}`",
                );
                None
            }
        }
    }

    pub(super) fn check_template(&mut self, at: &str, text: &str) -> Option<Template> {
        let template = self.template(at, text)?;
        let is_plain = |part: &Part| match part {
            Part::Text(text) => text.bytes().all(|b| (b'!'..=b'~').contains(&b)),
            _ => true,
        };
        if !template.parts().iter().all(is_plain) {
            self.problems.push(at, format!("`{text}`"), "visible ASCII without spaces around the variables");
        }
        Some(template)
    }
}

pub(super) fn alias(kind: &str, namespaces: &[(String, String)]) -> String {
    namespaces
        .iter()
        .find(|(name, _)| name == kind)
        .map_or_else(|| kind.to_owned(), |(_, namespace)| namespace.clone())
}

/// Whether nobody put the secret in: a template's, a shell's or a chart's variable that was not
/// replaced, or the word that a document has in its place.
fn is_placeholder(value: &str) -> bool {
    let between = |open: &str, close: &str| {
        value.split_once(open).and_then(|(_, rest)| rest.split_once(close)).map(|(inner, _)| inner)
    };
    let is_whole = |open: &str, close: &str| value.starts_with(open) && value.ends_with(close);
    let is_upper = |name: &str| is_variable(name) && !name.bytes().any(|b| b.is_ascii_lowercase());
    let letters: Vec<u8> = value.bytes().filter(u8::is_ascii_alphanumeric).take(9).collect();
    let begins =
        |word: &str| letters.get(..word.len()).is_some_and(|l| l.eq_ignore_ascii_case(word.as_bytes()));
    // `${NAME:-default}` too. A generated secret may hold single ones of these bytes.
    between("${", "}").is_some_and(|inner| inner.split(':').next().is_some_and(is_variable))
        || between("{{", "}}").is_some()
        || is_whole("$(", ")")
        || is_whole("<", ">")
        || value.strip_prefix('$').is_some_and(is_upper)
        || begins("changeme")
        || begins("replaceme")
}

/// What POSIX calls a name.
fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// A variable's name, unless it looks like a secret that was written in its place.
fn shown(name: &str) -> String {
    let is_name = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    if is_name { format!("`{name}`") } else { "of the name that is given".to_owned() }
}
