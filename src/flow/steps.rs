//! The steps of an undecided stream, from one state to the next.

use super::engine::Engine;
use super::state::{Alarm, Checking, Introspecting, Pending, Question, Receiving, State, Stream, Ticket};
use super::{Output, RootId, Step, StreamId};
use crate::http::Header;
use crate::introspect::{Fact, Identity};
use crate::permission::{self, Checks, Granted, Slot};
use crate::policy::{Access, Policy, TokenRules};
use crate::refusal::{Denial, Outage, Refusal, Unusable};
use crate::secret::Token;
use crate::template::Inputs;
use crate::time::Timestamp;
use crate::verdict::{self, Dossier, Permit, Verdict};
use crate::webhook::Verification;
use std::rc::Rc;
use std::time::Duration;

impl Engine {
    pub(super) fn introspect(
        &mut self,
        stream: StreamId,
        root: RootId,
        dossier: Dossier,
        token: &Token,
        inputs: Inputs,
        now: Timestamp,
    ) -> Step {
        let policy = Rc::clone(&dossier.policy);
        let endpoint = rules_of(&dossier).and_then(|rules| policy.endpoints.get(rules.endpoint));
        let Some(endpoint) = endpoint else {
            return Step::Decided(self.settle(stream, dossier, Err(Unusable::Internal.into()), now));
        };
        let key = endpoint.key(self.seed, token);
        let timeout = endpoint.provider.timeout;
        // No decision takes longer than two callouts do, one after the other.
        let deadline = now.saturating_add(timeout.saturating_mul(2));
        let waiter = (stream, Ticket::Token);
        if !self.join(root, key, Question::Introspection, waiter, timeout, now, || endpoint.call(token)) {
            return Step::Decided(self.settle(stream, dossier, Err(Unusable::OverLimit.into()), now));
        }
        let weight = dossier.weight().saturating_add(inputs.weight());
        let state = State::Introspecting(Introspecting { inputs });
        self.park(stream, Pending { root, dossier, deadline, alarm: deadline, weight, state });
        Step::Wait
    }

    pub(super) fn introspected(&mut self, stream: StreamId, answer: Result<Fact, Refusal>, now: Timestamp) {
        let Some(mut pending) = self.take_pending(stream) else { return };
        let State::Introspecting(Introspecting { inputs }) = pending.state else {
            return self.decide(stream, pending.dossier, Err(Unusable::Internal.into()), now);
        };
        let policy = Rc::clone(&pending.dossier.policy);
        let judged = answer.and_then(|fact| {
            pending.dossier.subject = fact.subject();
            let rules = rules_of(&pending.dossier).ok_or(Unusable::Internal)?;
            let identity = rules.requirement.admit(&fact, &inputs, now)?;
            let headers = rendered(&policy, &inputs, &identity)?;
            let resolve = |templates: &[permission::CheckTemplate]| {
                templates.iter().map(|t| t.resolve(&inputs, &identity)).collect::<Result<Vec<_>, _>>()
            };
            let (all, any) = (resolve(&rules.all)?, resolve(&rules.any)?);
            pending.dossier.identity_headers = headers;
            Ok((identity, all, any))
        });
        let (identity, all, any) = match judged {
            Ok(judged) => judged,
            Err(refusal) => {
                let refusal = judge_opening(&pending.dossier, &inputs, refusal);
                return self.decide(stream, pending.dossier, Err(refusal), now);
            }
        };
        let checks = Checks::open(all.len(), any.len());
        if let Some(outcome) = checks.outcome() {
            let outcome = outcome.map(|granted: Granted| Permit::identified(&identity, granted));
            return self.decide(stream, pending.dossier, outcome, now);
        }
        let Some(endpoint) = &policy.permissions else {
            return self.decide(stream, pending.dossier, Err(Unusable::Internal.into()), now);
        };
        let root = pending.root;
        let slots = (0..all.len()).map(Slot::All).chain((0..any.len()).map(Slot::Any));
        for (slot, check) in slots.zip(all.iter().chain(&any)) {
            let key = endpoint.key(self.seed, check);
            let waiter = (stream, Ticket::Check(slot));
            let timeout = endpoint.provider.timeout;
            if !self.join(root, key, Question::Permission, waiter, timeout, now, || endpoint.call(check)) {
                return self.decide(stream, pending.dossier, Err(Unusable::OverLimit.into()), now);
            }
        }
        pending.weight = pending.dossier.weight().saturating_add(inputs.weight());
        pending.state = State::Checking(Checking { inputs, identity, checks });
        self.park(stream, pending);
    }

    pub(super) fn checked(
        &mut self,
        stream: StreamId,
        slot: Slot,
        answer: Result<bool, Refusal>,
        now: Timestamp,
    ) {
        // A request whose first answers were decisive is gone from here when the others land.
        let Some(Stream::Pending(pending)) = self.streams.get_mut(&stream) else { return };
        let State::Checking(checking) = &mut pending.state else { return };
        checking.checks.note(slot, answer);
        if let Some(outcome) = checking.checks.outcome() {
            self.grant(stream, outcome, now);
        }
    }

    pub(super) fn grant(&mut self, stream: StreamId, outcome: Result<Granted, Refusal>, now: Timestamp) {
        let Some(Pending { dossier, state, .. }) = self.take_pending(stream) else { return };
        let outcome = match (state, outcome) {
            (State::Checking(checking), Ok(granted)) => Ok(Permit::identified(&checking.identity, granted)),
            (State::Checking(checking), Err(refusal)) => {
                Err(judge_opening(&dossier, &checking.inputs, refusal))
            }
            _ => Err(Unusable::Internal.into()),
        };
        self.decide(stream, dossier, outcome, now);
    }

    pub(super) fn receive(
        &mut self,
        stream: StreamId,
        root: RootId,
        dossier: Dossier,
        verification: Verification,
        now: Timestamp,
    ) -> Step {
        let webhook = match dossier.route().map(|r| &r.access) {
            Some(Access::Webhook(index)) => dossier.policy.webhooks.get(*index),
            _ => None,
        };
        let Some(webhook) = webhook else {
            return Step::Decided(self.settle(stream, dossier, Err(Unusable::Internal.into()), now));
        };
        let deadline = now.saturating_add(webhook.body_timeout);
        let alarm = deadline.min(now.saturating_add(MEASURE_EVERY));
        let limit = webhook.max_body_bytes;
        let state =
            State::Receiving(Receiving { verification, limit, held: 0, heard: false, size_at_head: None });
        let weight = dossier.weight();
        self.park(stream, Pending { root, dossier, deadline, alarm, weight, state });
        Step::NeedBody
    }

    pub(super) fn feed(
        &mut self,
        stream: StreamId,
        received: usize,
        fetch: &mut dyn FnMut(usize, usize) -> Option<Vec<u8>>,
    ) -> Result<(), Refusal> {
        let Some(Stream::Pending(pending)) = self.streams.get_mut(&stream) else {
            return Err(Unusable::Internal.into());
        };
        let State::Receiving(receiving) = &mut pending.state else {
            return Err(Unusable::Internal.into());
        };
        receiving.heard = true;
        // What was hashed is still held: a host that holds less now has let something go.
        if received < receiving.held {
            return Err(Unusable::Internal.into());
        }
        if received > receiving.limit {
            return Err(Denial::BodyTooLarge.into());
        }
        let new = received.saturating_sub(receiving.held);
        if new == 0 {
            return Ok(());
        }
        if self.held.saturating_add(new) > MAX_HELD {
            return Err(Unusable::BodyMemory.into());
        }
        let chunk =
            fetch(receiving.held, new).filter(|chunk| chunk.len() == new).ok_or(Unusable::Internal)?;
        receiving.verification.feed(&chunk);
        receiving.held = received;
        self.held = self.held.saturating_add(new);
        Ok(())
    }

    pub(super) fn finish_body(&mut self, stream: StreamId, refusal: Option<Refusal>, now: Timestamp) -> Step {
        let Some(Pending { dossier, state, .. }) = self.take_pending(stream) else { return Step::Wait };
        let outcome = match (refusal, state) {
            (Some(refusal), _) => Err(refusal),
            (None, State::Receiving(receiving)) => {
                receiving.verification.finish().map(Permit::webhook).map_err(Refusal::from)
            }
            (None, _) => Err(Unusable::Internal.into()),
        };
        Step::Decided(self.settle(stream, dossier, outcome, now))
    }

    pub(super) fn overdue(&mut self, stream: StreamId, now: Timestamp) {
        let Some(Stream::Pending(pending)) = self.streams.get_mut(&stream) else { return };
        if now >= pending.deadline {
            match &mut pending.state {
                State::Introspecting(_) => self.refuse(stream, Outage::Timeout.into(), now),
                State::Receiving(_) => self.refuse(stream, Denial::BodyTimeout.into(), now),
                State::Checking(checking) => {
                    checking.checks.close(&Outage::Timeout.into());
                    let outcome = checking.checks.outcome().unwrap_or_else(|| Err(Unusable::Internal.into()));
                    self.grant(stream, outcome, now);
                }
            }
            return;
        }
        let is_deaf = matches!(&pending.state, State::Receiving(receiving) if !receiving.heard);
        pending.alarm =
            if is_deaf { pending.deadline.min(now.saturating_add(MEASURE_EVERY)) } else { pending.deadline };
        self.alarms.insert((pending.root, pending.alarm, Alarm::Stream(stream)));
        if is_deaf {
            self.outputs.push_back(Output::Measure { stream });
        }
    }

    /// Refuses a stream that is undecided and not the one whose callback runs.
    pub(super) fn refuse(&mut self, stream: StreamId, refusal: Refusal, now: Timestamp) {
        let Some(Pending { dossier, state, .. }) = self.take_pending(stream) else { return };
        let refusal = match &state {
            State::Introspecting(Introspecting { inputs }) | State::Checking(Checking { inputs, .. }) => {
                judge_opening(&dossier, inputs, refusal)
            }
            State::Receiving(_) => refusal,
        };
        self.decide(stream, dossier, Err(refusal), now);
    }

    pub(super) fn decide(
        &mut self,
        stream: StreamId,
        dossier: Dossier,
        outcome: Result<Permit, Refusal>,
        now: Timestamp,
    ) {
        let verdict = self.settle(stream, dossier, outcome, now);
        self.outputs.push_back(Output::Decide { stream, verdict });
    }

    pub(super) fn settle(
        &mut self,
        stream: StreamId,
        dossier: Dossier,
        outcome: Result<Permit, Refusal>,
        now: Timestamp,
    ) -> Verdict {
        if let Err(refusal @ Refusal::Unusable(_)) = &outcome {
            self.advise(Some(refusal), now);
        }
        let policy = Rc::clone(&dossier.policy);
        let verdict = verdict::settle(dossier, outcome);
        let stream_state = match verdict.action() {
            verdict::Action::Forward(_) => Stream::Open(policy),
            verdict::Action::Respond { .. } => Stream::Answered,
        };
        self.streams.insert(stream, stream_state);
        verdict
    }
}

fn rules_of(dossier: &Dossier) -> Option<&TokenRules> {
    match dossier.route().map(|r| &r.access) {
        Some(Access::Token(rules)) => Some(rules),
        _ => None,
    }
}

/// The identity headers of an admitted bearer.
fn rendered(policy: &Policy, inputs: &Inputs, identity: &Identity) -> Result<Vec<Header>, Refusal> {
    let mut headers = Vec::with_capacity(policy.identity_headers.len());
    for (name, template) in &policy.identity_headers {
        if let Some(value) = template.header_value(inputs, identity.info())? {
            headers.push((name.clone().into_bytes(), value));
        }
    }
    Ok(headers)
}

/// An outage that a route would open does not open what the request's own values forbid.
fn judge_opening(dossier: &Dossier, inputs: &Inputs, refusal: Refusal) -> Refusal {
    if !matches!(refusal, Refusal::Outage(_)) || !dossier.opens_on_outage() {
        return refusal;
    }
    let Some(rules) = rules_of(dossier) else { return refusal };
    let claims =
        rules.requirement.claims.iter().map(|(_, template)| template.resolve(inputs, None).map(drop));
    let checks = rules.all.iter().chain(&rules.any).map(|check| check.judge_without_token(inputs));
    claims.chain(checks).find_map(Result::err).unwrap_or(refusal)
}

/// Webhook bytes held for one worker.
pub(super) const MAX_HELD: usize = 64 * 1024 * 1024;
/// How often a webhook whose body does not come is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(250);
