//! Permission checks: the request, the response, and the outcome of several checks.

use crate::claims::{TokenInfo, Value};
use crate::hash::{FactKey, Seed};
use crate::http::Callout;
use crate::introspect::Identity;
use crate::provider::{Endpoint, Provider};
use crate::refusal::{Denial, DeniedCheck, Flaw, Refusal, Unusable};
use crate::secret::Secret;
use crate::template::{Inputs, Template};

/// The permission endpoint with the API key that the gate sends to it.
#[derive(Clone, Debug)]
pub(crate) struct PermissionEndpoint {
    /// The endpoint, and the gate's identity there.
    pub endpoint: Endpoint,
    api_key: Secret<String>,
    /// What is tried where that is refused.
    next_api_key: Option<Secret<String>>,
}

/// A check of one route, before the request's values are inserted.
#[derive(Clone, Debug)]
pub(crate) struct CheckTemplate {
    /// The kind of object, as the provider names it.
    pub namespace: String,
    /// The object.
    pub object: Template,
    /// The relation.
    pub relation: String,
    /// The subject that must have the relation to the object.
    pub subject: Template,
}

/// One relationship that the provider is asked to check.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Check {
    namespace: String,
    object: String,
    relation: String,
    subject: String,
}

impl CheckTemplate {
    /// The check for this request.
    ///
    /// # Errors
    /// [`Refusal::Denial`] if a template has no safe value; [`Refusal::Unusable`] if a claim is
    /// invalid.
    pub(crate) fn resolve(&self, inputs: &Inputs, identity: &Identity) -> Result<Check, Refusal> {
        Ok(Check {
            namespace: self.namespace.clone(),
            object: self.object.resolve(inputs, Some(identity.info()))?,
            relation: self.relation.clone(),
            subject: self.subject.resolve(inputs, Some(identity.info()))?,
        })
    }

    /// Checks what needs no token, for a request that fails open.
    ///
    /// # Errors
    /// [`Refusal::Denial`] if a template has no safe value from the request.
    pub(crate) fn validate_inputs(&self, inputs: &Inputs) -> Result<(), Refusal> {
        self.object.resolve(inputs, None)?;
        self.subject.resolve(inputs, None)?;
        Ok(())
    }
}

impl Check {
    /// The id of the subject, as a token's `sub` names it.
    pub(crate) fn subject_id(&self) -> &str {
        let id = self.subject.split_once(':').map_or(self.subject.as_str(), |(_, id)| id);
        id.split('#').next().unwrap_or(id)
    }

    /// The parts that identify the check.
    pub(crate) fn parts(&self) -> [&[u8]; 4] {
        [&self.namespace, &self.object, &self.relation, &self.subject].map(String::as_bytes)
    }
}

impl PermissionEndpoint {
    /// The endpoint at this path of the provider.
    pub(crate) fn new(
        provider: Provider,
        path: String,
        api_key: Secret<String>,
        next_api_key: Option<Secret<String>>,
    ) -> Self {
        let endpoint = Endpoint::new(provider, "permission", path, &[api_key.reveal()]);
        Self { endpoint, api_key, next_api_key }
    }

    /// The request that asks whether the relationship exists.
    pub(crate) fn call(&self, check: &Check) -> Callout {
        self.call_as(&self.api_key, check)
    }

    /// The same with the key that is tried where the first is refused.
    pub(crate) fn call_as_next(&self, check: &Check) -> Option<Callout> {
        self.next_api_key.as_ref().map(|key| self.call_as(key, check))
    }

    fn call_as(&self, api_key: &Secret<String>, check: &Check) -> Callout {
        let authorization = format!("Bearer {}", api_key.reveal());
        let headers = [("content-type", "application/json".to_owned()), ("authorization", authorization)];
        // Serializing four strings cannot fail.
        let body = serde_json::to_vec(check).unwrap_or_default();
        self.endpoint.callout("POST", headers, body)
    }

    /// The request that asks about nothing that there is: whether the endpoint answers.
    pub(crate) fn probe(&self, namespace: &str, relation: &str, name: &str) -> Callout {
        self.call(&Check {
            namespace: namespace.to_owned(),
            object: name.to_owned(),
            relation: relation.to_owned(),
            subject: name.to_owned(),
        })
    }

    /// The key that identifies the check's subject.
    pub(crate) fn subject_key(&self, seed: Seed, check: &Check) -> FactKey {
        self.endpoint.key(seed, &[check.subject.as_bytes()])
    }
}

/// Parses the body of a 200 response: whether the relationship exists.
///
/// # Errors
/// [`Unusable::BadReply`] if it is not a JSON object with exactly one boolean `allowed`.
pub(crate) fn parse(body: &[u8]) -> Result<bool, Unusable> {
    match TokenInfo::parse(body)?.member("allowed")? {
        Some(Value::Bool(allowed)) => Ok(allowed),
        Some(_) => Err(Flaw::of("allowed", "is no boolean")),
        None => Err(Flaw::of("allowed", "is missing")),
    }
}

/// Proof that the permissions that a route requires were granted, or that it requires none. Only
/// [`Checks::outcome`] creates one.
#[derive(Clone, Debug)]
pub struct Granted(());

/// The checks of one request, some of them still pending.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    all: Vec<CheckState>,
    any: Vec<CheckState>,
}

/// The state of one check.
#[derive(Clone, Debug)]
enum CheckState {
    Open,
    Known(Result<bool, Refusal>),
}

/// Which check of a request an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckIndex {
    /// One of those that must all be granted.
    All(usize),
    /// One of those of which at least one must be granted.
    Any(usize),
}

impl Checks {
    /// All pending: `all` checks that must all be granted, and `any` checks of which one must be.
    pub(crate) fn open(all: usize, any: usize) -> Self {
        Self { all: vec![CheckState::Open; all], any: vec![CheckState::Open; any] }
    }

    /// Records an answer; only the first one to a check counts. Returns whether this was the first.
    pub(crate) fn note(&mut self, slot: CheckIndex, answer: Result<bool, Refusal>) -> bool {
        let place = match slot {
            CheckIndex::All(nth) => self.all.get_mut(nth),
            CheckIndex::Any(nth) => self.any.get_mut(nth),
        };
        let Some(place @ CheckState::Open) = place else { return false };
        *place = CheckState::Known(answer);
        true
    }

    /// The decision, as soon as the answers so far are decisive; `None` while they are not.
    ///
    /// A clear no outranks a failure: a caller without permission is denied even if another check
    /// failed.
    pub(crate) fn outcome(&self) -> Option<Result<Granted, Refusal>> {
        let yes = |answers: &[CheckState]| answers.iter().any(|a| matches!(a, CheckState::Known(Ok(true))));
        let is_open = |answers: &[CheckState]| answers.iter().any(|a| matches!(a, CheckState::Open));
        let failed = |answers: &[CheckState]| answers.iter().any(|a| matches!(a, CheckState::Known(Err(_))));
        let any_holds = self.any.is_empty() || yes(&self.any);
        let any_failed = !any_holds && !is_open(&self.any);
        let denied = |check| Some(Err(Denial::PermissionDenied(check).into()));
        if let Some(nth) = self.all.iter().position(|a| matches!(a, CheckState::Known(Ok(false)))) {
            return denied(DeniedCheck::All(u16::try_from(nth).unwrap_or(u16::MAX)));
        }
        if any_failed && !failed(&self.any) {
            return denied(DeniedCheck::Any);
        }
        if is_open(&self.all) || (!any_holds && !any_failed) {
            return None;
        }
        // An outage must not mask an unusable answer, or a route that fails open on outages would
        // do so on what a caller can provoke.
        let counted = self.all.iter().chain(if any_holds { &[][..] } else { &self.any });
        let failures: Vec<&Refusal> = counted
            .filter_map(|a| match a {
                CheckState::Known(Err(refusal)) => Some(refusal),
                _ => None,
            })
            .collect();
        let worst = failures.iter().find(|f| !matches!(f, Refusal::Outage(_))).or(failures.first());
        match worst {
            Some(refusal) => Some(Err((*refusal).clone())),
            None => Some(Ok(Granted(()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Outage;

    #[test]
    fn only_exactly_one_boolean_allowed_is_an_answer() {
        assert_eq!(parse(br#"{"allowed":true,"x":[]}"#), Ok(true));
        assert_eq!(parse(br#"{"allowed":false}"#), Ok(false));
        for body in [
            "",
            "true",
            "{}",
            r#"{"allowed":"true"}"#,
            r#"{"allowed":1}"#,
            r#"{"allowed":true,"allowed":true}"#,
            "[true]",
        ] {
            assert_eq!(parse(body.as_bytes()), Err(Flaw::of_body("")), "{body}");
        }
    }

    #[test]
    fn the_first_decisive_answer_decides() {
        fn outage<T>() -> Result<T, Refusal> {
            Err(Refusal::Outage(Outage::Timeout))
        }
        fn unusable<T>() -> Result<T, Refusal> {
            Err(Refusal::Unusable(Unusable::Status))
        }
        let denied = |check| Some(Err(Refusal::Denial(Denial::PermissionDenied(check))));
        use DeniedCheck::{All, Any};
        let outcome = |all: &[Option<Result<bool, Refusal>>], any: &[Option<Result<bool, Refusal>>]| {
            let mut checks = Checks::open(all.len(), any.len());
            for (nth, answer) in all.iter().enumerate() {
                if let Some(answer) = answer {
                    checks.note(CheckIndex::All(nth), answer.clone());
                }
            }
            for (nth, answer) in any.iter().enumerate() {
                if let Some(answer) = answer {
                    checks.note(CheckIndex::Any(nth), answer.clone());
                }
            }
            checks.outcome().map(|o| o.map(|_| ()))
        };
        assert_eq!(outcome(&[], &[]), Some(Ok(())));
        assert_eq!(outcome(&[Some(Ok(true)), None], &[]), None);
        assert_eq!(outcome(&[Some(Ok(false)), None], &[]), denied(All(0)));
        assert_eq!(
            outcome(&[Some(outage()), Some(Ok(false))], &[]),
            denied(All(1)),
            "a clear no outranks a failure"
        );
        assert_eq!(outcome(&[Some(outage()), None], &[]), None, "the open one may still say no");
        assert_eq!(outcome(&[Some(outage()), Some(Ok(true))], &[]), Some(outage()));
        assert_eq!(
            outcome(&[Some(outage()), Some(unusable())], &[]),
            Some(unusable()),
            "what a caller can provoke is not opened"
        );
        assert_eq!(outcome(&[], &[Some(Ok(false)), None]), None);
        assert_eq!(outcome(&[], &[Some(Ok(false)), Some(Ok(true))]), Some(Ok(())));
        assert_eq!(outcome(&[], &[Some(outage()), Some(Ok(true))]), Some(Ok(())));
        assert_eq!(outcome(&[], &[Some(outage()), Some(Ok(false))]), Some(outage()));
        assert_eq!(outcome(&[], &[Some(Ok(false)), Some(Ok(false))]), denied(Any));
        assert_eq!(outcome(&[Some(Ok(true))], &[None, Some(Ok(true))]), Some(Ok(())));
        assert_eq!(outcome(&[None], &[Some(Ok(false))]), denied(Any));
        assert_eq!(outcome(&[Some(outage())], &[Some(Ok(false))]), denied(Any));
    }
}
