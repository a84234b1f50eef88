//! What the host is asked to do, in order, and what the operator is told.

use super::store::{self, SharedStore};
use super::{Level, Output};
use crate::refusal::{Reason, Refusal, Unusable};
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
    /// When a reason was last told to the operator.
    last_logged: HashMap<Reason, Timestamp>,
}

impl Outputs {
    pub(super) fn new(store: Rc<dyn SharedStore>) -> Self {
        Self { store, queue: VecDeque::new(), last_logged: HashMap::new() }
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

    /// Tells the warnings of a configuration once in a process: every worker reads the same one.
    pub(super) fn warn_once(&mut self, warnings: &[String]) {
        if store::is_first_to_say(&*self.store, warnings) {
            for warning in warnings {
                self.log(Level::Warn, format!("avnology_gate: configuration: {warning}"));
            }
        }
    }

    /// Tells what can be done about a failure, once a minute for each reason: a caller must not be
    /// able to flood the log.
    pub(super) fn log_hint(&mut self, refusal: &Refusal, now: Timestamp) {
        let reason = refusal.reason();
        let Some(hint) = reason.info().operator_hint else { return };
        if self.last_logged.get(&reason).is_some_and(|at| now.saturating_since(*at) < LOG_EVERY) {
            return;
        }
        self.last_logged.insert(reason, now);
        let flaw = match refusal {
            Refusal::Unusable(Unusable::BadReply(flaw)) => format!(": {flaw}"),
            _ => String::new(),
        };
        self.log(Level::Warn, format!("avnology_gate: {}: {hint}{flaw}", reason.id()));
    }
}

/// How often one reason is told to the operator.
const LOG_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::{Denial, Flaw};

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
