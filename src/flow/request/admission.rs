//! Whether a token is what its route requires, and what is to be checked then.

use super::Bearer;
use crate::claims::TokenInfo;
use crate::flow::facts::CachedFact;
use crate::flow::services::Services;
use crate::introspect::Identity;
use crate::permission::{Check, CheckTemplate};
use crate::refusal::Refusal;

/// An admitted bearer, with the checks of this request.
pub(super) struct Admission {
    pub(super) identity: Identity,
    pub(super) all: Vec<Check>,
    pub(super) any: Vec<Check>,
}

/// Judges a bearer by what is known about the token. The identity headers are left in the request's
/// context.
///
/// # Errors
/// The first rule of the route that the token or the request breaks.
pub(super) fn admit(
    bearer: &mut Bearer,
    fact: CachedFact<TokenInfo>,
    services: &mut Services<'_>,
) -> Result<Admission, Refusal> {
    let Bearer { context, rules, inputs, .. } = bearer;
    context.token.clone_from(&fact.value);
    context.note_cache(fact.outcome);
    let identity = rules.requirement.admit(fact.value.as_ref(), inputs, services.now)?;
    let headers = services.facts.identity_headers(&context.policy, inputs, &identity, &fact)?;
    let resolve = |templates: &[CheckTemplate]| {
        templates.iter().map(|t| t.resolve(inputs, &identity)).collect::<Result<Vec<_>, _>>()
    };
    let (all, any) = match &rules.permissions {
        Some(permissions) => (resolve(&permissions.all)?, resolve(&permissions.any)?),
        None => (Vec::new(), Vec::new()),
    };
    context.identity_headers = Some(headers);
    Ok(Admission { identity, all, any })
}
