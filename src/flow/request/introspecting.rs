//! A request that waits for the answer about its token.

use super::opening::Unanswered;
use super::{Bearer, Checking, Next, Request};
use crate::claims::TokenInfo;
use crate::flow::calls::WaitReason;
use crate::flow::counts::Taken;
use crate::flow::facts::{CachedFact, TokenFact};
use crate::flow::query::{ProviderQuery, Question};
use crate::flow::services::{Resolution, Services};
use crate::refusal::Refusal;
use crate::secret::Token;
use crate::verdict::Passage;
use std::sync::Arc;

/// The state.
#[cfg_attr(test, derive(Clone))]
pub(in crate::flow) struct Introspecting {
    bearer: Bearer,
    question: Question,
    /// Only where an event may say that the answer is over before it comes.
    token: Option<Token>,
}

impl Introspecting {
    /// Looks the token up, and goes on at once where it is known.
    pub(in crate::flow) fn start(bearer: Bearer, token: &Token, services: &mut Services<'_>) -> Next {
        let mut next = Self::look_up(bearer, token, services);
        let context = match &mut next {
            // Nobody is told about it.
            Next::Decided(_, Ok(Passage::Permit(_))) => return next,
            Next::Decided(context, _) => context,
            Next::Wait(request) => request.context_mut(),
            Next::NeedBody(_) | Next::NeedEnd(_) => return next,
        };
        context.token_print.get_or_insert_with(|| services.facts.token_print(token.reveal().as_bytes()));
        next
    }

    fn look_up(mut bearer: Bearer, token: &Token, services: &mut Services<'_>) -> Next {
        let rules = Arc::clone(&bearer.rules);
        let trace = bearer.context.trace.clone();
        let query = ProviderQuery::token(&rules, token, services.facts.seed()).traced(&trace);
        let rates = bearer.context.policy.rates;
        bearer.is_new = !services.facts.is_recent(query.key());
        match services.lookup::<TokenFact>(&query, &rules, &rates, WaitReason::Token) {
            Resolution::Known(fact) => Checking::start(bearer, fact, services),
            Resolution::Asked { is_new, outcome } => {
                bearer.is_new = is_new;
                bearer.context.note_cache(outcome);
                let token = rules.subjects.as_ref().map(|_| token.clone());
                Next::Wait(Request::Introspecting(Self { bearer, question: query.question(), token }))
            }
            Resolution::Unavailable(refusal) => {
                bearer.fail(refusal, query.endpoint(), Unanswered::Token(query.question()), services)
            }
        }
    }

    /// The answer, or why there is none.
    pub(in crate::flow) fn resume(
        self,
        answer: Result<CachedFact<TokenInfo>, Refusal>,
        services: &mut Services<'_>,
    ) -> Next {
        let Self { bearer, question, token } = self;
        let now = services.now;
        if let (Ok(fact), Some(token)) = (&answer, &token)
            && bearer.began > fact.started
            && services.facts.is_over::<TokenFact>(
                &question,
                fact.value.as_ref(),
                &bearer.rules,
                fact.started,
            )
        {
            // Others had asked before it came, and before an event that it has to heed.
            return Self::start(bearer, token, services);
        }
        let fact = answer
            .or_else(|refusal| services.facts.or_stale::<TokenFact>(&question, &bearer.rules, refusal, now));
        match fact {
            Ok(fact) => Checking::start(bearer, fact, services),
            Err(refusal) => bearer.fail(refusal, question.endpoint, Unanswered::Token(question), services),
        }
    }

    /// The time is up.
    pub(super) fn time_out(self, services: &mut Services<'_>) -> Next {
        let refusal = services.why_late(&self.question);
        self.resume(Err(refusal), services)
    }

    /// A caller chooses how long his token is.
    pub(super) fn taken(&self) -> Taken {
        let taken = self.bearer.taken();
        let token = self.token.as_ref().map_or(0, |token| token.reveal().len());
        Taken { parked_bytes: taken.parked_bytes.saturating_add(token), ..taken }
    }

    pub(super) fn bearer(&self) -> &Bearer {
        &self.bearer
    }

    pub(super) fn bearer_mut(&mut self) -> &mut Bearer {
        &mut self.bearer
    }

    pub(super) fn into_bearer(self) -> Bearer {
        self.bearer
    }
}
