//! What the end of a callout says.

use crate::breaker::CallOutcome;
use crate::flow::query::QueryKind;
use crate::refusal::{Outage, Refusal, Unusable};

/// How a callout has ended, and as which outage.
pub(in crate::flow) fn outcome_of<T>(
    answer: &Result<T, Refusal>,
    kind: QueryKind,
) -> (CallOutcome, Option<Outage>) {
    let outcome = match answer {
        Ok(_) => CallOutcome::Useful,
        Err(Refusal::Outage(Outage::NotStarted)) => CallOutcome::NotStarted,
        Err(Refusal::Outage(outage)) => return (CallOutcome::Failed, Some(*outage)),
        // The credential was the caller's own, and so is the limit.
        Err(Refusal::Unusable(Unusable::RateLimited(_))) if kind == QueryKind::Session => {
            CallOutcome::Useless
        }
        Err(Refusal::Unusable(Unusable::RateLimited(wish))) => CallOutcome::Limited(wish.unwrap_or_default()),
        Err(_) => CallOutcome::Useless,
    };
    (outcome, None)
}
