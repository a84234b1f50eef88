//! Questions to the provider: what is asked, what identifies the answer, where it may be found.

use crate::cache::shared::{Kind, SharedKey};
use crate::hash::{FactKey, Fingerprint, Seed};
use crate::http::Callout;
use crate::introspect::{IntrospectionEndpoint, SessionEndpoint};
use crate::permission::{Check, PermissionEndpoint};
use crate::policy::TokenRules;
use crate::provider::{Endpoint, Provider};
use crate::secret::{SESSION_PREFIX, Token};
use std::cell::OnceCell;

/// A question.
pub(super) struct Ask<'p> {
    pub(super) question: Question,
    pub(super) key: FactKey,
    target: Target<'p>,
    place: OnceCell<Option<SharedKey>>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Whether a token is active.
    Introspection,
    /// Whose session a token is.
    Session,
    /// Whether a permission is granted.
    Permission,
}

enum Target<'p> {
    Introspection(&'p IntrospectionEndpoint, &'p Token),
    Session(&'p SessionEndpoint, &'p Token),
    Permission(&'p PermissionEndpoint, &'p Check),
}

impl<'p> Target<'p> {
    fn endpoint(&self) -> &'p Endpoint {
        match self {
            Self::Introspection(endpoint, _) => &endpoint.endpoint,
            Self::Session(endpoint, _) => &endpoint.endpoint,
            Self::Permission(endpoint, _) => &endpoint.endpoint,
        }
    }
}

impl<'p> Ask<'p> {
    /// About a token; `None` for a session token where none is taken, which does not get here.
    pub(super) fn token(rules: &'p TokenRules, token: &'p Token, seed: Seed) -> Option<Self> {
        if token.reveal().starts_with(SESSION_PREFIX) {
            let endpoint = rules.sessions.as_deref()?;
            let (question, key) =
                (Question::Session, endpoint.endpoint.key(seed, &[token.reveal().as_bytes()]));
            return Some(Self::new(question, key, Target::Session(endpoint, token)));
        }
        let endpoint = &*rules.endpoint;
        let key = endpoint.endpoint.key(seed, &[token.reveal().as_bytes()]);
        Some(Self::new(Question::Introspection, key, Target::Introspection(endpoint, token)))
    }

    /// About a permission.
    pub(super) fn permission(endpoint: &'p PermissionEndpoint, check: &'p Check, seed: Seed) -> Self {
        let key = endpoint.endpoint.key(seed, &check.parts());
        Self::new(Question::Permission, key, Target::Permission(endpoint, check))
    }

    fn new(question: Question, key: FactKey, target: Target<'p>) -> Self {
        Self { question, key, target, place: OnceCell::new() }
    }

    pub(super) fn call(&self) -> Callout {
        match self.target {
            Target::Introspection(endpoint, token) => endpoint.call(token),
            Target::Session(endpoint, token) => endpoint.call(token),
            Target::Permission(endpoint, check) => endpoint.call(check),
        }
    }

    pub(super) fn provider(&self) -> &'p Provider {
        self.target.endpoint().provider()
    }

    /// What tells the endpoint, and whom it knows the gate as, from others.
    pub(super) fn endpoint(&self) -> Fingerprint {
        self.target.endpoint().fingerprint()
    }

    /// Whom a permission check is about.
    pub(super) fn subject(&self, seed: Seed) -> Option<FactKey> {
        match self.target {
            Target::Permission(endpoint, check) => Some(endpoint.subject_key(seed, check)),
            Target::Introspection(..) | Target::Session(..) => None,
        }
    }

    /// Where the workers share the answer, if they do. Found out once, since it costs a hash of the token.
    pub(super) fn place(&self) -> Option<&SharedKey> {
        let place = self.place.get_or_init(|| match self.target {
            Target::Introspection(endpoint, token) => {
                endpoint.endpoint.shared_key(Kind::Token, &[token.reveal().as_bytes()])
            }
            Target::Session(endpoint, token) => {
                endpoint.endpoint.shared_key(Kind::Token, &[token.reveal().as_bytes()])
            }
            Target::Permission(endpoint, check) => {
                endpoint.endpoint.shared_key(Kind::Permission, &check.parts())
            }
        });
        place.as_ref()
    }
}
