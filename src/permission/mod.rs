//! Permission checks: the question, and the one answer that counts.

use crate::claims::{TokenInfo, Value};
use crate::hash::{FactKey, Seed};
use crate::http::Callout;
use crate::introspect::Identity;
use crate::provider::{Endpoint, Provider};
use crate::refusal::{Refusal, Unusable};
use crate::secret::Secret;
use crate::template::{Inputs, Template};

/// The permission endpoint with the key that the gate shows it.
#[derive(Clone, Debug)]
pub(crate) struct PermissionEndpoint {
    /// Where it is, and as whom it knows the gate.
    pub endpoint: Endpoint,
    api_key: Secret<String>,
}

/// A check of one route, before the request's values are in it.
#[derive(Clone, Debug)]
pub(crate) struct CheckTemplate {
    /// The kind of object, as the provider names it.
    pub namespace: String,
    /// The object.
    pub object: Template,
    /// The relation.
    pub relation: String,
    /// Who must stand in the relation to it.
    pub subject: Template,
}

/// One relationship that the provider is asked for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Check {
    namespace: String,
    object: String,
    relation: String,
    subject: String,
}

impl CheckTemplate {
    /// The check of this request.
    ///
    /// # Errors
    /// Denied where a template has no safe value; unusable where the provider's answer is.
    pub(crate) fn resolve(&self, inputs: &Inputs, identity: &Identity) -> Result<Check, Refusal> {
        Ok(Check {
            namespace: self.namespace.clone(),
            object: self.object.resolve(inputs, Some(identity.info()))?,
            relation: self.relation.clone(),
            subject: self.subject.resolve(inputs, Some(identity.info()))?,
        })
    }

    /// Judges what needs no token: for a request that an outage opened.
    ///
    /// # Errors
    /// Denied where a template has no safe value of the request.
    pub(crate) fn validate_inputs(&self, inputs: &Inputs) -> Result<(), Refusal> {
        self.object.resolve(inputs, None)?;
        self.subject.resolve(inputs, None)?;
        Ok(())
    }
}

impl Check {
    /// What tells it from every other check.
    pub(crate) fn parts(&self) -> [&[u8]; 4] {
        [&self.namespace, &self.object, &self.relation, &self.subject].map(String::as_bytes)
    }
}

impl PermissionEndpoint {
    /// The endpoint at this path of the provider's.
    pub(crate) fn new(provider: Provider, path: String, api_key: Secret<String>) -> Self {
        let endpoint = Endpoint::new(provider, "permission", path, &[api_key.reveal()]);
        Self { endpoint, api_key }
    }

    /// The question whether the relationship exists.
    pub(crate) fn call(&self, check: &Check) -> Callout {
        let authorization = format!("Bearer {}", self.api_key.reveal());
        let headers = [("content-type", "application/json".to_owned()), ("authorization", authorization)];
        // Four strings: their JSON cannot fail.
        let body = serde_json::to_vec(check).unwrap_or_default();
        self.endpoint.callout("POST", headers, body)
    }

    /// What identifies whom the check is about.
    pub(crate) fn subject_key(&self, seed: Seed, check: &Check) -> FactKey {
        self.endpoint.key(seed, &[check.subject.as_bytes()])
    }
}

/// Reads the body of a 200: whether the relationship exists.
///
/// # Errors
/// [`Unusable::BadReply`] where it is no JSON object with exactly one boolean `allowed`.
pub(crate) fn parse(body: &[u8]) -> Result<bool, Unusable> {
    match TokenInfo::parse(body)?.member("allowed")? {
        Some(Value::Bool(allowed)) => Ok(allowed),
        _ => Err(Unusable::BadReply),
    }
}

/// Proof that every permission a route asks for was granted, or that it asks for none. Made by
/// [`Checks::outcome`] only.
#[derive(Clone, Debug)]
pub struct Granted(());

/// The checks of one request, some of them still open.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    all: Vec<CheckState>,
    any: Vec<CheckState>,
}

/// What is known about one check.
#[derive(Clone, Debug)]
enum CheckState {
    Open,
    Known(Result<bool, Refusal>),
}

/// Which check of a request an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckIndex {
    /// One of those that must all hold.
    All(usize),
    /// One of those of which one must hold.
    Any(usize),
}

impl Checks {
    /// So many open checks that must all hold, and so many of which one must.
    pub(crate) fn open(all: usize, any: usize) -> Self {
        Self { all: vec![CheckState::Open; all], any: vec![CheckState::Open; any] }
    }

    /// Notes an answer; the first one to a check counts. Returns whether this was it.
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
    /// A clear no outranks a failure: a caller who is not permitted hears so although another check
    /// broke.
    pub(crate) fn outcome(&self) -> Option<Result<Granted, Refusal>> {
        let no = |answers: &[CheckState]| answers.iter().any(|a| matches!(a, CheckState::Known(Ok(false))));
        let yes = |answers: &[CheckState]| answers.iter().any(|a| matches!(a, CheckState::Known(Ok(true))));
        let is_open = |answers: &[CheckState]| answers.iter().any(|a| matches!(a, CheckState::Open));
        let failed = |answers: &[CheckState]| answers.iter().any(|a| matches!(a, CheckState::Known(Err(_))));
        let any_holds = self.any.is_empty() || yes(&self.any);
        let any_failed = !any_holds && !is_open(&self.any);
        let denied = || Some(Err(crate::refusal::Denial::PermissionDenied.into()));
        if no(&self.all) || (any_failed && !failed(&self.any)) {
            return denied();
        }
        if is_open(&self.all) || (!any_holds && !any_failed) {
            return None;
        }
        // An unusable answer must not hide behind an outage, or a route that opens on outages would
        // open on what a caller can provoke.
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
    use crate::refusal::{Denial, Outage};

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
            assert_eq!(parse(body.as_bytes()), Err(Unusable::BadReply), "{body}");
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
        let denied = Some(Err(Refusal::Denial(Denial::PermissionDenied)));
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
        assert_eq!(outcome(&[Some(Ok(false)), None], &[]), denied);
        assert_eq!(outcome(&[Some(outage()), Some(Ok(false))], &[]), denied, "a clear no outranks a failure");
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
        assert_eq!(outcome(&[], &[Some(Ok(false)), Some(Ok(false))]), denied);
        assert_eq!(outcome(&[Some(Ok(true))], &[None, Some(Ok(true))]), Some(Ok(())));
        assert_eq!(outcome(&[None], &[Some(Ok(false))]), denied);
        assert_eq!(outcome(&[Some(outage())], &[Some(Ok(false))]), denied);
    }
}
