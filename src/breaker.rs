//! How an endpoint has been of late: a circuit breaker for outages, and pauses that it asked for.

use crate::time::Timestamp;
use std::collections::VecDeque;
use std::time::Duration;

/// When an endpoint is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BreakerRules {
    /// Outages within the window that open it; zero: it never opens.
    pub failures: usize,
    /// The window.
    pub window: Duration,
    /// How long it stays open, before one call may try.
    pub open_for: Duration,
}

/// What a call is made for. A limit that one of them meets does not hold for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// About a token that was not seen active lately.
    NewToken,
    /// About one that was.
    Refresh,
    /// A permission check.
    Permission,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallOutcome {
    /// The endpoint answered, whatever it said.
    Answered,
    /// It asked to be left alone for so long.
    Limited(Duration),
    /// It is away.
    Outage,
    /// Nothing was heard of it, for a reason of our own.
    Unknown,
}

/// Why a call must not be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallRefused {
    /// The breaker is open for so much longer.
    Breaker(Duration),
    /// The endpoint has asked for so much more patience.
    Paused(Duration),
}

/// What the end of a call did to a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    /// Nothing.
    None,
    /// It is open, or open again.
    Opened,
    /// It is shut again.
    Closed,
}

/// The breaker of one endpoint, as one worker has seen the endpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct CircuitBreaker {
    outages: VecDeque<Timestamp>,
    state: State,
    /// One per [`Purpose`].
    paused_until: [Option<Timestamp>; 3],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Open(Timestamp),
    /// One call is on its way to find out, and is to be back by then.
    Probing(Timestamp),
}

impl CircuitBreaker {
    /// Whether a call may be made.
    ///
    /// # Errors
    /// [`CallRefused`] where it must not.
    pub(crate) fn check(&self, purpose: Purpose, now: Timestamp) -> Result<(), CallRefused> {
        let paused = self.paused_until.get(index(purpose)).copied().flatten();
        if let Some(until) = paused.filter(|until| is_ahead(*until, now, MAX_PAUSE)) {
            return Err(CallRefused::Paused(until.saturating_since(now)));
        }
        match self.state {
            State::Open(until) if is_ahead(until, now, MAX_OPEN) => {
                Err(CallRefused::Breaker(until.saturating_since(now)))
            }
            State::Probing(until) if is_ahead(until, now, MAX_OPEN) => {
                Err(CallRefused::Breaker(Duration::ZERO))
            }
            _ => Ok(()),
        }
    }

    /// A call is made, and is over by `deadline`. Whether it is the one that finds out how the
    /// endpoint is.
    pub(crate) fn on_start(&mut self, deadline: Timestamp) -> bool {
        let is_probe = self.state != State::Closed;
        if is_probe {
            self.state = State::Probing(deadline);
        }
        is_probe
    }

    /// A call has ended. Says what that did to the breaker.
    pub(crate) fn on_end(
        &mut self,
        outcome: CallOutcome,
        is_probe: bool,
        purpose: Purpose,
        rules: &BreakerRules,
        now: Timestamp,
    ) -> Transition {
        if let CallOutcome::Limited(wish) = outcome
            && let Some(paused) = self.paused_until.get_mut(index(purpose))
            && !wish.is_zero()
        {
            // A shorter wish does not take a longer one back.
            *paused = Some(now.saturating_add(wish.min(MAX_PAUSE)))
                .max(paused.filter(|at| is_ahead(*at, now, MAX_PAUSE)));
        }
        match (outcome, self.state) {
            (CallOutcome::Outage, State::Closed) => self.count_outage(rules, now),
            // A call that was under way when the breaker opened tells nothing new.
            (CallOutcome::Outage, _) if !is_probe => Transition::None,
            (CallOutcome::Outage, _) => {
                self.state = State::Open(now.saturating_add(rules.open_for));
                Transition::Opened
            }
            // The next call tries.
            (CallOutcome::Unknown, State::Probing(_)) if is_probe => {
                self.state = State::Open(now);
                Transition::None
            }
            (CallOutcome::Unknown, _) => Transition::None,
            (CallOutcome::Answered | CallOutcome::Limited(_), State::Closed) => Transition::None,
            // It is there again, whoever noticed.
            (CallOutcome::Answered | CallOutcome::Limited(_), _) => {
                self.state = State::Closed;
                self.outages.clear();
                Transition::Closed
            }
        }
    }

    fn count_outage(&mut self, rules: &BreakerRules, now: Timestamp) -> Transition {
        if rules.failures == 0 {
            return Transition::None;
        }
        self.outages.retain(|at| *at <= now && now.saturating_since(*at) <= rules.window);
        self.outages.push_back(now);
        if self.outages.len() < rules.failures {
            return Transition::None;
        }
        self.outages.clear();
        self.state = State::Open(now.saturating_add(rules.open_for));
        Transition::Opened
    }
}

/// Whether a point is ahead, and no farther than it can have been set: the clock may have gone
/// backwards.
fn is_ahead(until: Timestamp, now: Timestamp, farthest: Duration) -> bool {
    until > now && until.saturating_since(now) <= farthest
}

fn index(purpose: Purpose) -> usize {
    match purpose {
        Purpose::NewToken => 0,
        Purpose::Refresh => 1,
        Purpose::Permission => 2,
    }
}

/// The longest pause that an endpoint is granted.
pub(crate) const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The longest time that a breaker can be configured to stay open, or a probe to take.
pub(crate) const MAX_OPEN: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: BreakerRules =
        BreakerRules { failures: 3, window: Duration::from_secs(10), open_for: Duration::from_secs(5) };

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(1000 + secs)
    }

    fn end(breaker: &mut CircuitBreaker, ended: CallOutcome, now: u64) -> Transition {
        breaker.on_end(ended, false, Purpose::NewToken, &RULES, at(now))
    }

    fn opened() -> CircuitBreaker {
        let mut breaker = CircuitBreaker::default();
        let opened: Vec<Transition> = (0..3).map(|now| end(&mut breaker, CallOutcome::Outage, now)).collect();
        assert_eq!(opened, [Transition::None, Transition::None, Transition::Opened]);
        breaker
    }

    fn open_for(secs: u64) -> Result<(), CallRefused> {
        Err(CallRefused::Breaker(Duration::from_secs(secs)))
    }

    #[test]
    fn it_opens_after_so_many_outages_in_the_window() {
        let breaker = opened();
        for purpose in [Purpose::NewToken, Purpose::Refresh, Purpose::Permission] {
            assert_eq!(breaker.check(purpose, at(3)), open_for(4));
        }
        assert_eq!(breaker.check(Purpose::NewToken, at(7)), Ok(()));
        let mut slow = CircuitBreaker::default();
        for now in [0, 6, 12, 18, 24] {
            assert_eq!(
                end(&mut slow, CallOutcome::Outage, now),
                Transition::None,
                "never three within ten seconds"
            );
        }
        let mut other = CircuitBreaker::default();
        for ended in [CallOutcome::Answered, CallOutcome::Unknown, CallOutcome::Limited(Duration::ZERO)] {
            assert!((0..9).all(|now| end(&mut other, ended, now) == Transition::None));
        }
        let never = BreakerRules { failures: 0, ..RULES };
        assert!((0..9).all(|n| {
            other.on_end(CallOutcome::Outage, false, Purpose::Refresh, &never, at(n)) == Transition::None
        }));
    }

    #[test]
    fn one_probe_decides_how_it_goes_on() {
        let mut breaker = opened();
        assert!(breaker.on_start(at(9)), "the first call after the pause");
        assert_eq!(breaker.check(Purpose::NewToken, at(8)), open_for(0), "one at a time");
        assert_eq!(
            end(&mut breaker, CallOutcome::Outage, 8),
            Transition::None,
            "an older call says nothing about the probe"
        );
        let mut probed = |outcome, now| breaker.on_end(outcome, true, Purpose::NewToken, &RULES, at(now));
        assert_eq!(probed(CallOutcome::Outage, 8), Transition::Opened);
        assert_eq!(breaker.check(Purpose::NewToken, at(9)), open_for(4));
        assert!(breaker.on_start(at(14)));
        assert_eq!(
            breaker.on_end(CallOutcome::Answered, true, Purpose::NewToken, &RULES, at(13)),
            Transition::Closed
        );
        assert_eq!(breaker.check(Purpose::NewToken, at(13)), Ok(()));
        assert!(!breaker.on_start(at(14)), "closed again");
    }

    #[test]
    fn a_probe_that_is_never_heard_of_does_not_hold_the_breaker() {
        let mut breaker = opened();
        assert!(breaker.on_start(at(9)));
        assert_eq!(breaker.check(Purpose::NewToken, at(9)), Ok(()), "after its deadline");
        let mut breaker = opened();
        assert!(breaker.on_start(at(9)));
        assert_eq!(
            breaker.on_end(CallOutcome::Unknown, true, Purpose::NewToken, &RULES, at(8)),
            Transition::None
        );
        assert_eq!(breaker.check(Purpose::NewToken, at(8)), Ok(()));
        assert!(breaker.on_start(at(9)), "the next one probes");
    }

    #[test]
    fn a_pause_holds_for_its_purpose_alone_and_not_for_ever() {
        let mut breaker = CircuitBreaker::default();
        end(&mut breaker, CallOutcome::Limited(Duration::from_secs(3600)), 0);
        assert_eq!(
            breaker.check(Purpose::NewToken, at(1)),
            Err(CallRefused::Paused(Duration::from_secs(29)))
        );
        assert_eq!(breaker.check(Purpose::Refresh, at(1)), Ok(()));
        assert_eq!(breaker.check(Purpose::NewToken, at(30)), Ok(()));
        assert_eq!(breaker.check(Purpose::NewToken, Timestamp::from_secs(1)), Ok(()), "the clock went back");
    }
}
