//! Questions to the provider: what is asked, what identifies the answer, where it may be found.

use crate::cache::shared::{Kind, SharedKey, SubjectSlot, Subjects};
use crate::hash::{FactKey, Fingerprint, Seed};
use crate::http::Callout;
use crate::introspect::{IntrospectionEndpoint, SessionEndpoint};
use crate::permission::{Check, PermissionEndpoint};
use crate::policy::TokenRules;
use crate::provider::{Endpoint, Provider};
use crate::secret::{SESSION_PREFIX, Token};
use std::cell::OnceCell;

/// A question.
pub(super) struct ProviderQuery<'p> {
    key: FactKey,
    seed: Seed,
    target: Target<'p>,
    trace: &'p [(&'static str, String)],
    /// Where it stands whose facts are over.
    subjects: Option<&'p Subjects>,
    shared_key: OnceCell<Option<SharedKey>>,
}

/// What identifies a question, for whoever waits for its answer.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// In this worker.
    pub(super) key: FactKey,
    /// Where the workers share the answer, if they do.
    pub(super) shared_key: Option<SharedKey>,
    /// Who is asked.
    pub(super) endpoint: Fingerprint,
    /// Where it stands whether what is known about its subject is over: of a permission check,
    /// where some webhook may say so.
    pub(super) subject: Option<SubjectSlot>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueryKind {
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

impl<'p> ProviderQuery<'p> {
    /// About a token. Where session tokens are taken, one is no OAuth token.
    pub(super) fn token(rules: &'p TokenRules, token: &'p Token, seed: Seed) -> Self {
        match &rules.sessions {
            Some(endpoint) if token.reveal().starts_with(SESSION_PREFIX) => {
                Self::new(Target::Session(endpoint, token), rules, seed)
            }
            _ => Self::new(Target::Introspection(&rules.endpoint, token), rules, seed),
        }
    }

    /// About a permission.
    pub(super) fn permission(
        rules: &'p TokenRules,
        endpoint: &'p PermissionEndpoint,
        check: &'p Check,
        seed: Seed,
    ) -> Self {
        Self::new(Target::Permission(endpoint, check), rules, seed)
    }

    fn new(target: Target<'p>, rules: &'p TokenRules, seed: Seed) -> Self {
        let key = target.with_parts(|endpoint, parts| endpoint.key(seed, parts));
        let subjects = rules.subjects.as_deref();
        Self { key, seed, target, trace: &[], subjects, shared_key: OnceCell::new() }
    }

    /// With the headers of the request that it is for.
    pub(super) fn traced(mut self, trace: &'p [(&'static str, String)]) -> Self {
        self.trace = trace;
        self
    }

    /// What identifies the answer in this worker.
    pub(super) fn key(&self) -> FactKey {
        self.key
    }

    pub(super) fn question(&self) -> Question {
        let shared_key = self.shared_key().cloned();
        let subject = self.subjects.and_then(|subjects| self.subject_slot(subjects));
        Question { key: self.key, shared_key, endpoint: self.endpoint(), subject }
    }

    /// Where it stands whether what is known about a check's subject is over.
    pub(super) fn subject_slot(&self, subjects: &Subjects) -> Option<SubjectSlot> {
        match self.target {
            Target::Permission(_, check) => Some(subjects.slot(check.subject_id())),
            Target::Introspection(..) | Target::Session(..) => None,
        }
    }

    pub(super) fn kind(&self) -> QueryKind {
        match self.target {
            Target::Introspection(..) => QueryKind::Introspection,
            Target::Session(..) => QueryKind::Session,
            Target::Permission(..) => QueryKind::Permission,
        }
    }

    /// `is_awaited`: whether a request waits for it, whose headers then go with it. In the
    /// background it belongs to none.
    ///
    /// Beside it the same with the credentials that are tried where the first are refused, if there
    /// are any.
    pub(super) fn callouts(&self, is_awaited: bool) -> (Callout, Option<Callout>) {
        let (mut callout, mut next) = match self.target {
            Target::Introspection(endpoint, token) => (endpoint.call(token), endpoint.call_as_next(token)),
            Target::Session(endpoint, token) => (endpoint.call(token), None),
            Target::Permission(endpoint, check) => (endpoint.call(check), endpoint.call_as_next(check)),
        };
        for callout in std::iter::once(&mut callout).chain(&mut next).filter(|_| is_awaited) {
            callout.headers.extend_from_slice(self.trace);
        }
        (callout, next)
    }

    pub(super) fn provider(&self) -> &'p Provider {
        self.target.endpoint().provider()
    }

    /// What tells the endpoint, and whom it knows the gate as, from others.
    pub(super) fn endpoint(&self) -> Fingerprint {
        self.target.endpoint().fingerprint()
    }

    /// Whom a permission check is about.
    pub(super) fn subject(&self) -> Option<FactKey> {
        match self.target {
            Target::Permission(endpoint, check) => Some(endpoint.subject_key(self.seed, check)),
            Target::Introspection(..) | Target::Session(..) => None,
        }
    }

    /// Where the workers share the answer, if they do. It is found out once, since that costs a
    /// hash of the token.
    pub(super) fn shared_key(&self) -> Option<&SharedKey> {
        let kind = match self.kind() {
            QueryKind::Introspection | QueryKind::Session => Kind::Token,
            QueryKind::Permission => Kind::Permission,
        };
        let find = || self.target.with_parts(|endpoint, parts| endpoint.shared_key(kind, parts));
        self.shared_key.get_or_init(find).as_ref()
    }
}

impl<'p> Target<'p> {
    fn endpoint(&self) -> &'p Endpoint {
        match self {
            Self::Introspection(endpoint, _) => &endpoint.endpoint,
            Self::Session(endpoint, _) => &endpoint.endpoint,
            Self::Permission(endpoint, _) => &endpoint.endpoint,
        }
    }

    /// Hands the parts of the question over, which tell it from every other one to the endpoint.
    fn with_parts<T>(&self, then: impl FnOnce(&Endpoint, &[&[u8]]) -> T) -> T {
        match self {
            Self::Introspection(_, token) | Self::Session(_, token) => {
                then(self.endpoint(), &[token.reveal().as_bytes()])
            }
            Self::Permission(_, check) => then(self.endpoint(), &check.parts()),
        }
    }
}
