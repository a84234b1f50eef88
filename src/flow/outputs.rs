//! What the host is asked to do, in order, and what the operator is told.

use super::store::{self, SharedStore};
use super::{Level, Output};
use crate::http::Edit;
use crate::policy::is_reserved;
use crate::refusal::{Reason, Refusal, Unusable};
use crate::telemetry::{Decision, Event, Label};
use crate::time::Timestamp;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// The queue that the host drains.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Outputs {
    /// By which workers know what another one has said.
    store: Rc<dyn SharedStore>,
    queue: VecDeque<Output>,
    /// What was told to the operator, and when.
    last_logged: HashMap<Logged, Last>,
    has_seen_underscores: bool,
    /// In which second refusals were told of last, and of how many.
    refusals: (u64, u32),
}

/// What is logged so often at most, each apart from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Logged {
    /// A failure, and at which endpoint if at one.
    Failure(Reason, Option<Label>),
    /// A request that was not allowed, and on which route if that has a name.
    Refusal(Decision, Reason, Option<Label>),
}

/// When it was logged last, and how many there were since.
#[derive(Clone, Copy, Debug)]
struct Last {
    at: Timestamp,
    suppressed: u64,
}

impl Outputs {
    pub(super) fn new(store: Rc<dyn SharedStore>) -> Self {
        Self {
            store,
            queue: VecDeque::new(),
            last_logged: HashMap::new(),
            has_seen_underscores: false,
            refusals: (0, 0),
        }
    }

    pub(super) fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }

    pub(super) fn poll(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }

    pub(super) fn log(&mut self, level: Level, message: String) {
        self.push(Output::Log { level, message });
    }

    /// Tells once of a listener that lets names with underscores pass: services that read headers
    /// as environment variables take them for names that the gate owns. Seen by what was removed.
    pub(super) fn warn_of_underscores(&mut self, edits: &[Edit]) {
        let is_seen =
            |edit: &Edit| matches!(edit, Edit::Remove(name) if is_reserved(name) && name.contains(&b'_'));
        if !self.has_seen_underscores && edits.iter().any(is_seen) {
            self.has_seen_underscores = true;
            self.warn_once(&[UNDERSCORES.to_owned()]);
        }
    }

    /// Tells the warnings of a configuration once in a process: every worker reads the same one.
    pub(super) fn warn_once(&mut self, warnings: &[String]) {
        if store::is_first_to_say(&*self.store, warnings) {
            for warning in warnings {
                self.log(Level::Warn, format!("avnology_gate: configuration: {warning}"));
            }
        }
    }

    /// Tells what can be done about a request's failure, once a minute for each reason: a caller
    /// must not be able to flood the log. What a call has failed with was told when it did.
    pub(super) fn log_hint(&mut self, refusal: &Refusal, now: Timestamp) {
        let reason = refusal.reason();
        let is_told = |(logged, last): (&Logged, &Last)| {
            matches!(logged, Logged::Failure(of, Some(_)) if *of == reason)
                && last.at <= now
                && now.saturating_since(last.at) < HINT_EVERY
        };
        if reason.info().operator_hint.is_some() && !self.last_logged.iter().any(is_told) {
            self.log_failure(refusal, None, now);
        }
    }

    /// The same for a call that failed. `endpoint`: its label, and what it is called.
    pub(super) fn log_failed_call(
        &mut self,
        refusal: &Refusal,
        (label, name): (Label, String),
        now: Timestamp,
    ) {
        self.log_failure(refusal, Some((label, name)), now);
    }

    fn log_failure(&mut self, refusal: &Refusal, endpoint: Option<(Label, String)>, now: Timestamp) {
        let reason = refusal.reason();
        let Some(hint) = reason.info().operator_hint else { return };
        let logged = Logged::Failure(reason, endpoint.as_ref().map(|(label, _)| *label));
        let Some((since, count)) = self.is_due(logged, HINT_EVERY, now) else { return };
        let flaw = match refusal {
            Refusal::Unusable(Unusable::BadReply(flaw)) => format!(": {flaw}"),
            _ => String::new(),
        };
        let place = endpoint.map(|(_, name)| format!(" at {name}")).unwrap_or_default();
        let count = match count {
            1 => String::new(),
            _ => format!(", {count} times in {} s", since.as_secs()),
        };
        self.log(Level::Warn, format!("avnology_gate: {}{place}{count}: {hint}{flaw}", reason.id()));
    }

    /// Tells of a request that was not allowed, once a second for each reason and route.
    pub(super) fn log_refusal(&mut self, event: &Event, now: Timestamp) {
        if event.decision() == Decision::Allow {
            return;
        }
        let logged = Logged::Refusal(event.decision(), event.reason(), event.route_label);
        if self.has_logged_enough(now) {
            let last = Last { at: Timestamp::from_nanos(0), suppressed: 0 };
            let last = self.last_logged.entry(logged).or_insert(last);
            last.suppressed = last.suppressed.saturating_add(1);
            return;
        }
        let Some((_, count)) = self.is_due(logged, REFUSAL_EVERY, now) else { return };
        self.refusals.1 = self.refusals.1.saturating_add(1);
        if let Some(line) = event.refusal_line(count.saturating_sub(1)) {
            self.log(Level::Info, line);
        }
    }

    /// Whether so many refusals were told of in this second that no more are.
    fn has_logged_enough(&mut self, now: Timestamp) -> bool {
        let (second, count) = self.refusals;
        if second != now.as_secs() {
            self.refusals = (now.as_secs(), 0);
            return false;
        }
        count >= MOST_REFUSALS
    }

    /// Whether this is to be logged, and then in how much time how many there were with it.
    fn is_due(&mut self, logged: Logged, every: Duration, now: Timestamp) -> Option<(Duration, u64)> {
        let last = self.last_logged.get_mut(&logged);
        let since = last.as_ref().map_or(every, |last| now.saturating_since(last.at));
        match last {
            // A clock that was set back must not keep it silent for longer.
            Some(last) if since < every && last.at <= now => {
                last.suppressed = last.suppressed.saturating_add(1);
                None
            }
            last => {
                let suppressed = last.map_or(0, |last| last.suppressed);
                self.last_logged.insert(logged, Last { at: now, suppressed: 0 });
                Some((since, suppressed.saturating_add(1)))
            }
        }
    }
}

const UNDERSCORES: &str = "the listener lets header names with underscores pass, and a request had one that the gate owns in \
     this spelling: set `headers_with_underscores_action: REJECT_REQUEST` on it";

/// How often one failure is told to the operator.
const HINT_EVERY: Duration = Duration::from_secs(60);

/// Of how many refusals a worker tells in a second, of all kinds together.
const MOST_REFUSALS: u32 = 20;

/// How often one kind of refusal is.
const REFUSAL_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::{Denial, Flaw};
    use crate::telemetry::{Details, Labels};

    #[test]
    fn what_is_not_allowed_is_told_once_a_second_for_each_reason_and_route() {
        let mut outputs = Outputs::new(Rc::new(store::NoStore));
        let mut labels = Labels::default();
        let event = |route| Event {
            decision: Decision::Deny,
            reason: Reason::ClaimMismatch,
            route: None,
            route_label: Some(route),
            webhook: None,
            secret_index: None,
            eviction: None,
            details: Some(Box::new(Details {
                subject: Some("usr_alice".to_owned()),
                rule: Some("require.claims.org_id".to_owned()),
                token_print: Some(7),
                request_id: Some("r-1".to_owned()),
                ..Details::default()
            })),
        };
        let (one, other) = (labels.route("one"), labels.route("other"));
        for millis in [0, 1, 999, 1000, 1001] {
            outputs.log_refusal(&event(one), Timestamp::from_nanos(millis * 1_000_000));
        }
        outputs.log_refusal(&event(other), Timestamp::from_nanos(0));
        let allowed = Event { decision: Decision::Allow, ..event(other) };
        outputs.log_refusal(&allowed, Timestamp::from_secs(9));
        // The clock is set back.
        outputs.log_refusal(&event(one), Timestamp::from_nanos(0));
        let lines: Vec<String> = std::iter::from_fn(|| outputs.poll())
            .map(|output| match output {
                Output::Log { level: Level::Info, message } => message,
                _ => panic!("a line"),
            })
            .collect();
        let of = |more: &str| {
            let line = r#"{"decision":"deny","reason":"claim_mismatch","route":null,"rule":"require.claims.org_id","request_id":"r-1","token":"0000000000000007""#;
            format!("avnology_gate: {line}{more}}}")
        };
        assert_eq!(lines, [of(""), of(r#","suppressed":2"#), of(""), of(r#","suppressed":1"#)]);
    }

    #[test]
    fn of_all_kinds_of_refusals_together_twenty_are_told_in_a_second() {
        let mut outputs = Outputs::new(Rc::new(store::NoStore));
        let mut labels = Labels::default();
        let of = |route| Event {
            decision: Decision::Deny,
            reason: Reason::MissingToken,
            route: None,
            route_label: Some(route),
            webhook: None,
            secret_index: None,
            eviction: None,
            details: Some(Box::default()),
        };
        let routes: Vec<Label> = (0..100).map(|n| labels.route(&n.to_string())).collect();
        let mut told = |second: u64| {
            routes.iter().for_each(|route| outputs.log_refusal(&of(*route), Timestamp::from_secs(second)));
            std::iter::from_fn(|| outputs.poll()).count()
        };
        assert_eq!((told(1), told(2), told(2)), (20, 20, 0));
        // The next line says of how many there was none.
        outputs.log_refusal(&of(routes[99]), Timestamp::from_secs(3));
        let Some(Output::Log { message, .. }) = outputs.poll() else { panic!("a line") };
        assert!(message.contains(r#""suppressed":3"#), "{message}");
    }

    #[test]
    fn a_hint_is_not_silent_for_a_clock_that_was_set_back() {
        let mut outputs = Outputs::new(Rc::new(store::NoStore));
        let label = Labels::default().endpoint("introspection@a");
        let refusal = Refusal::from(Unusable::TooLarge);
        outputs.log_failed_call(&refusal, (label, "`/i`".to_owned()), Timestamp::from_secs(7200));
        outputs.log_hint(&refusal, Timestamp::from_secs(1800));
        assert_eq!(std::iter::from_fn(|| outputs.poll()).count(), 2);
    }

    #[test]
    fn a_failed_call_is_told_with_its_endpoint_and_how_often_it_failed() {
        let mut outputs = Outputs::new(Rc::new(store::NoStore));
        let label = Labels::default().endpoint("introspection@a");
        let refusal = Refusal::from(Unusable::TooLarge);
        for secs in [0, 1, 2, 70] {
            let name = (label, "`/i` of cluster `a`".to_owned());
            outputs.log_failed_call(&refusal, name, Timestamp::from_secs(secs));
            // The request that has asked fails with it, and that is told already.
            outputs.log_hint(&refusal, Timestamp::from_secs(secs));
        }
        let lines: Vec<String> = std::iter::from_fn(|| outputs.poll())
            .map(|output| match output {
                Output::Log { level: Level::Warn, message } => message,
                _ => panic!("a line"),
            })
            .collect();
        let of = |count: &str| {
            format!(
                "avnology_gate: provider_reply_too_large at `/i` of cluster `a`{count}: the provider's answer is longer than the gate reads"
            )
        };
        assert_eq!(lines, [of(""), of(", 3 times in 70 s")]);
    }

    #[test]
    fn a_reason_is_told_once_a_minute_and_one_without_a_hint_never() {
        let mut outputs = Outputs::new(Rc::new(store::NoStore));
        let at = Timestamp::from_secs;
        for now in [0, 59, 60, 61] {
            outputs.log_hint(&Unusable::TooLarge.into(), at(now));
            outputs.log_hint(&Denial::NoRoute.into(), at(now));
        }
        let told: Vec<Output> = std::iter::from_fn(|| outputs.poll()).collect();
        assert_eq!(told.len(), 2);
        assert!(matches!(&told[0], Output::Log { level: Level::Warn, message }
            if message.starts_with("avnology_gate: provider_reply_too_large: ")));
    }

    #[test]
    fn what_was_wrong_with_an_answer_is_named() {
        let mut outputs = Outputs::new(Rc::new(store::NoStore));
        outputs.log_hint(&Flaw::of("exp", "is no number").into(), Timestamp::from_secs(0));
        let Some(Output::Log { message, .. }) = outputs.poll() else { panic!("a line") };
        assert_eq!(
            message,
            "avnology_gate: provider_bad_reply: the provider's 200 is not what the protocol asks for: `exp` is no number"
        );
    }
}
