//! The steps of an undecided stream, from one state to the next.

use super::ask::Ask;
use super::engine::Engine;
use super::facts::Finding;
use super::state::{Alarm, Checking, Introspecting, Pending, Receiving, State, Stream, Ticket};
use super::{Output, RootId, Step, StreamId};
use crate::breaker::Purpose;
use crate::hash::FactKey;
use crate::introspect::Fact;
use crate::permission::{self, CheckIndex, Checks, Granted};
use crate::policy::{Access, PermissionRules, Policy, TokenRules};
use crate::refusal::{Denial, Outage, Refusal, Unusable};
use crate::secret::Token;
use crate::template::Inputs;
use crate::time::Timestamp;
use crate::verdict::{self, Dossier, Permit, Verdict};
use crate::webhook::Verification;
use std::rc::Rc;
use std::sync::Arc;
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
        let rules = dossier.rules().map(Arc::clone);
        let rules = rules.as_deref();
        let asked = rules.and_then(|rules| Some((rules, Ask::token(rules, token, self.seed)?)));
        let Some((rules, ask)) = asked else {
            return Step::Decided(self.settle(stream, dossier, Err(Unusable::Internal.into()), now));
        };
        // No decision takes longer than two callouts do, one after the other.
        let deadline = now.saturating_add(ask.provider().timeout.saturating_mul(2));
        let key = ask.key;
        let known = self.recall_token(&ask, rules, now).and_then(|(finding, is_due)| {
            let is_newer_known = is_due && self.refresh(root, &policy, &ask, now);
            // A no that another worker has heard counts for this request already.
            if is_newer_known {
                self.recall_token(&ask, rules, now).map(|(newer, _)| newer)
            } else {
                Some(finding)
            }
        });
        let finding = match known {
            Some(finding) => Ok(finding),
            None => {
                let waiter = (stream, Ticket::Token);
                let purpose = self.purpose(&ask);
                let joined = if self.has_room(purpose) {
                    self.join(root, &policy, &ask, waiter, now)
                } else {
                    Err(Unusable::OverLimit.into())
                };
                match joined {
                    Ok(()) => {
                        let weight = dossier.memory_cost().saturating_add(inputs.memory_cost());
                        let state = State::Introspecting(Introspecting {
                            is_new: purpose == Purpose::NewToken,
                            key,
                            inputs,
                        });
                        self.park(
                            stream,
                            Pending { root, dossier, deadline, alarm: deadline, weight, state },
                        );
                        return Step::Wait;
                    }
                    Err(refusal) => self.or_stale_token(key, rules, refusal, now),
                }
            }
        };
        let seeker = Seeker { stream, root, dossier, inputs, deadline };
        match self.judge(seeker, finding, now) {
            Some((dossier, outcome)) => Step::Decided(self.settle(stream, dossier, outcome, now)),
            None => Step::Wait,
        }
    }

    pub(super) fn introspected(
        &mut self,
        stream: StreamId,
        key: FactKey,
        answer: Result<Fact, Refusal>,
        now: Timestamp,
    ) {
        let Some(Pending { root, dossier, deadline, state, .. }) = self.take_pending(stream) else { return };
        let State::Introspecting(Introspecting { inputs, .. }) = state else {
            return self.decide(stream, dossier, Err(Unusable::Internal.into()), now);
        };
        let finding = match (answer, dossier.rules()) {
            (Ok(fact), _) => Ok(Finding::fresh(fact)),
            (Err(refusal), Some(rules)) => self.or_stale_token(key, rules, refusal, now),
            (Err(refusal), None) => Err(refusal),
        };
        let seeker = Seeker { stream, root, dossier, inputs, deadline };
        if let Some((dossier, outcome)) = self.judge(seeker, finding, now) {
            self.decide(stream, dossier, outcome, now);
        }
    }

    /// Judges a request by what was found out about its token; `None` where it now waits for its permissions.
    fn judge(
        &mut self,
        seeker: Seeker,
        finding: Result<Finding, Refusal>,
        now: Timestamp,
    ) -> Option<(Dossier, Result<Permit, Refusal>)> {
        let Seeker { stream, root, mut dossier, inputs, deadline } = seeker;
        let policy = Rc::clone(&dossier.policy);
        let Some(rules) = dossier.rules().map(Arc::clone) else {
            return Some((dossier, Err(Unusable::Internal.into())));
        };
        let rules = &*rules;
        let judged = finding.and_then(|finding| {
            dossier.token = finding.fact.token().cloned();
            let identity = rules.requirement.admit(&finding.fact, &inputs, now)?;
            let headers = self.rendered(&policy, &inputs, &identity, &finding)?;
            let resolve = |templates: &[permission::CheckTemplate]| {
                templates.iter().map(|t| t.resolve(&inputs, &identity)).collect::<Result<Vec<_>, _>>()
            };
            let (all, any) = match &rules.permissions {
                Some(permissions) => (resolve(&permissions.all)?, resolve(&permissions.any)?),
                None => (Vec::new(), Vec::new()),
            };
            dossier.identity_headers = Some(headers);
            dossier.is_stale |= finding.is_stale;
            Ok((identity, all, any))
        });
        let (identity, all, any) = match judged {
            Ok(judged) => judged,
            Err(refusal) => {
                let refusal = judge_opening(&dossier, rules, &inputs, refusal);
                return Some((dossier, Err(refusal)));
            }
        };
        let mut checks = Checks::open(all.len(), any.len());
        let outcome = match &rules.permissions {
            None => checks.outcome(),
            Some(PermissionRules { endpoint, .. }) => {
                let slots = (0..all.len()).map(CheckIndex::All).chain((0..any.len()).map(CheckIndex::Any));
                let asks: Vec<_> = slots
                    .zip(all.iter().chain(&any))
                    .map(|(slot, check)| (slot, Ask::permission(endpoint, check, self.seed)))
                    .collect();
                let open = self.check_known(root, &policy, rules, &asks, &mut checks, now);
                match checks.outcome() {
                    None => {
                        let waits = self.check_open(stream, root, &mut dossier, &open, &mut checks, now);
                        match checks.outcome() {
                            None => {
                                let weight = dossier.memory_cost().saturating_add(inputs.memory_cost());
                                let state =
                                    State::Checking(Checking { inputs, identity, checks, open: waits });
                                self.park(
                                    stream,
                                    Pending { root, dossier, deadline, alarm: deadline, weight, state },
                                );
                                return None;
                            }
                            outcome => outcome,
                        }
                    }
                    outcome => outcome,
                }
            }
        };
        let outcome = match outcome {
            Some(Ok(granted)) => Ok(Permit::identified(&identity, granted)),
            Some(Err(refusal)) => Err(judge_opening(&dossier, rules, &inputs, refusal)),
            None => Err(Unusable::Internal.into()),
        };
        Some((dossier, outcome))
    }

    /// Notes the permissions that are known; returns the questions that are left.
    fn check_known<'a, 'p>(
        &mut self,
        root: RootId,
        policy: &Policy,
        rules: &TokenRules,
        asks: &'a [(CheckIndex, Ask<'p>)],
        checks: &mut Checks,
        now: Timestamp,
    ) -> Vec<&'a (CheckIndex, Ask<'p>)> {
        let mut open = Vec::new();
        for slot_and_ask in asks {
            let (slot, ask) = slot_and_ask;
            match self.recall_permission(ask, rules, now) {
                None => open.push(slot_and_ask),
                Some((is_granted, is_due)) => {
                    let is_newer_known = is_due && self.refresh(root, policy, ask, now);
                    let newer = if is_newer_known { self.recall_permission(ask, rules, now) } else { None };
                    checks.note(*slot, Ok(newer.map_or(is_granted, |(newer, _)| newer)));
                }
            }
        }
        open
    }

    /// Asks for the permissions that are not known, and notes what cannot be asked; returns what is waited for.
    fn check_open(
        &mut self,
        stream: StreamId,
        root: RootId,
        dossier: &mut Dossier,
        open: &[&(CheckIndex, Ask<'_>)],
        checks: &mut Checks,
        now: Timestamp,
    ) -> Vec<(CheckIndex, FactKey)> {
        let policy = Rc::clone(&dossier.policy);
        let mut waits = Vec::with_capacity(open.len());
        for (slot, ask) in open {
            let joined = if self.has_room(Purpose::Permission) {
                self.join(root, &policy, ask, (stream, Ticket::Check(*slot)), now)
            } else {
                Err(Unusable::OverLimit.into())
            };
            match joined {
                Ok(()) => waits.push((*slot, ask.key)),
                Err(refusal) => {
                    let (answer, is_stale) = self.or_stale_permission(dossier, ask.key, Err(refusal), now);
                    dossier.is_stale |= checks.note(*slot, answer) && is_stale;
                }
            }
        }
        waits
    }

    /// What an outage leaves of a permission, and whether that is older than its lifetime.
    fn or_stale_permission(
        &mut self,
        dossier: &Dossier,
        key: FactKey,
        answer: Result<bool, Refusal>,
        now: Timestamp,
    ) -> (Result<bool, Refusal>, bool) {
        match (&answer, dossier.rules()) {
            (Err(refusal), Some(rules)) if self.is_stale_permission(key, rules, refusal, now) => {
                (Ok(true), true)
            }
            _ => (answer, false),
        }
    }

    pub(super) fn checked(
        &mut self,
        stream: StreamId,
        slot: CheckIndex,
        key: FactKey,
        answer: Result<bool, Refusal>,
        now: Timestamp,
    ) {
        // A request whose first answers were decisive is gone from here when the others land.
        let Some(Stream::Pending(pending)) = self.streams.get(&stream) else { return };
        let dossier = pending.dossier.clone();
        let (answer, is_stale) = self.or_stale_permission(&dossier, key, answer, now);
        let Some(Stream::Pending(pending)) = self.streams.get_mut(&stream) else { return };
        let State::Checking(checking) = &mut pending.state else { return };
        pending.dossier.is_stale |= checking.checks.note(slot, answer) && is_stale;
        if let Some(outcome) = checking.checks.outcome() {
            self.grant(stream, outcome, now);
        }
    }

    pub(super) fn grant(&mut self, stream: StreamId, outcome: Result<Granted, Refusal>, now: Timestamp) {
        let Some(Pending { dossier, state, .. }) = self.take_pending(stream) else { return };
        let outcome = match (state, outcome, dossier.rules()) {
            (State::Checking(checking), Ok(granted), _) => {
                Ok(Permit::identified(&checking.identity, granted))
            }
            (State::Checking(checking), Err(refusal), Some(rules)) => {
                Err(judge_opening(&dossier, rules, &checking.inputs, refusal))
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
        let Some(Access::Webhook(webhook)) = dossier.route().map(|r| &r.access) else {
            return Step::Decided(self.settle(stream, dossier, Err(Unusable::Internal.into()), now));
        };
        let deadline = now.saturating_add(webhook.body_timeout);
        let alarm = deadline.min(now.saturating_add(MEASURE_EVERY));
        let limit = webhook.max_body_bytes;
        let state =
            State::Receiving(Receiving { verification, limit, held: 0, heard: false, size_at_head: None });
        let weight = dossier.memory_cost();
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
            let timeout = Refusal::from(Outage::Timeout);
            match &mut pending.state {
                State::Introspecting(introspecting) => {
                    let key = introspecting.key;
                    self.introspected(stream, key, Err(timeout), now);
                }
                State::Receiving(_) => self.refuse(stream, Denial::BodyTimeout.into(), now),
                State::Checking(checking) => {
                    for (slot, key) in std::mem::take(&mut checking.open) {
                        self.checked(stream, slot, key, Err(timeout.clone()), now);
                    }
                    self.refuse(stream, timeout, now);
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
            State::Introspecting(Introspecting { inputs, .. }) | State::Checking(Checking { inputs, .. }) => {
                match dossier.rules() {
                    Some(rules) => judge_opening(&dossier, rules, inputs, refusal),
                    None => refusal,
                }
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

/// A request that is about to be judged.
struct Seeker {
    stream: StreamId,
    root: RootId,
    dossier: Dossier,
    inputs: Inputs,
    deadline: Timestamp,
}

/// An outage that a route would open does not open what the request's own values forbid.
fn judge_opening(dossier: &Dossier, rules: &TokenRules, inputs: &Inputs, refusal: Refusal) -> Refusal {
    if !matches!(refusal, Refusal::Outage(_)) || !dossier.opens_on_outage() {
        return refusal;
    }
    let claims =
        rules.requirement.claims.iter().map(|(_, template)| template.resolve(inputs, None).map(drop));
    let checks =
        rules.permissions.iter().flat_map(PermissionRules::checks).map(|check| check.validate_inputs(inputs));
    claims.chain(checks).find_map(Result::err).unwrap_or(refusal)
}

/// Webhook bytes held for one worker.
pub(super) const MAX_HELD: usize = 64 * 1024 * 1024;
/// How often a webhook whose body does not come is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(250);
