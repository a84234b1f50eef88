//! How an endpoint has been of late: whether it is away, and the pauses that it asked for.
//!
//! A caller chooses the token and the object of a call, and so perhaps that the provider fails on
//! it. What fails on a caller's question is therefore evidence about that question alone. Whether
//! the endpoint is *away* is found out with the gate's own question, the probe.

use crate::time::Timestamp;
use std::time::Duration;

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

impl Purpose {
    /// Its place in a table of one entry per purpose.
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::NewToken => 0,
            Self::Refresh => 1,
            Self::Permission => 2,
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallOutcome {
    /// It brought an answer to its question.
    Useful,
    /// The endpoint answered, and said nothing of use.
    Useless,
    /// It asked to be left alone for so long.
    Limited(Duration),
    /// No connection, no answer in time, a reset, or an answer that says so.
    Failed,
    /// The host did not start it.
    NotStarted,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeOutcome {
    /// The endpoint answered it below 500: whatever it said, it is there.
    Answered,
    /// The endpoint answered it with 5xx.
    ServerError,
    /// Nobody answered it.
    Failed,
    /// Nothing was heard of it, for a reason that says nothing about the endpoint.
    Unknown,
}

/// Proof that an endpoint is away. Only [`CircuitBreaker`] creates one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Away(());

/// What is known about an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Standing {
    /// Nothing says that it is away.
    There,
    /// A call failed, and its probe has not told yet what that means.
    Unclear,
    /// It is away.
    Away(Away),
}

/// Why a call must not be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallRefused {
    /// The endpoint is away; it is probed again in so long.
    Breaker(Duration),
    /// The endpoint has asked for so much more patience.
    Paused(Duration),
}

/// What an event did to a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Transition {
    /// Nothing.
    None,
    /// It is clear now that the endpoint is there.
    Cleared,
    /// It is away now: the breaker is open.
    Opened,
    /// It is there again: the breaker is shut.
    Closed,
}

/// The breaker of one endpoint, as one worker has seen the endpoint.
#[derive(Clone, Debug)]
pub(crate) struct CircuitBreaker {
    /// How often it is probed; `None`: never, and so it is never away.
    interval: Option<Duration>,
    suspicion: Option<Suspicion>,
    is_away: bool,
    /// Whether the endpoint was called at all.
    is_used: bool,
    /// Whether the probe was once answered below 500, so that a 5xx to it says something.
    is_probe_answerable: bool,
    is_probing: bool,
    last_probe: Option<Timestamp>,
    /// One per [`Purpose`].
    paused_until: [Option<Timestamp>; 3],
}

/// Calls fail, and nothing useful was heard since.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    /// When the first call that failed was started.
    since: Timestamp,
    /// When that was noticed.
    noticed: Timestamp,
    /// Probes that failed in a row.
    failed_probes: u32,
    /// Whether the first of them has just failed, so that the second one is sent at once.
    is_second_due: bool,
}

impl CircuitBreaker {
    /// The breaker of an endpoint that was never called. `interval`: how often it is probed while
    /// that is needed; `None`: never.
    pub(crate) fn new(interval: Option<Duration>) -> Self {
        Self {
            interval,
            suspicion: None,
            is_away: false,
            is_used: false,
            is_probe_answerable: false,
            is_probing: false,
            last_probe: None,
            paused_until: [None; 3],
        }
    }

    /// Takes another interval.
    pub(crate) fn set_interval(&mut self, interval: Option<Duration>) {
        self.interval = interval;
        if interval.is_none() {
            self.suspicion = None;
            self.is_away = false;
        }
    }

    /// Whether a call may be made.
    ///
    /// # Errors
    /// [`CallRefused`] where it must not.
    pub(crate) fn check(&self, purpose: Purpose, now: Timestamp) -> Result<(), CallRefused> {
        if self.is_away {
            let next = self.probe_due(now, 0).unwrap_or(now);
            return Err(CallRefused::Breaker(next.saturating_since(now)));
        }
        let paused = self.paused_until.get(purpose.index()).copied().flatten();
        match paused.filter(|until| is_ahead(*until, now, MAX_PAUSE)) {
            Some(until) => Err(CallRefused::Paused(until.saturating_since(now))),
            None => Ok(()),
        }
    }

    /// What is known about the endpoint.
    pub(crate) fn standing(&self) -> Standing {
        match self.suspicion {
            _ if self.is_away => Standing::Away(Away(())),
            Some(_) => Standing::Unclear,
            None => Standing::There,
        }
    }

    /// A call is made. Returns whether it is the first one.
    pub(crate) fn on_start(&mut self) -> bool {
        !std::mem::replace(&mut self.is_used, true)
    }

    /// A probe was sent of which nothing will be heard: its root has gone.
    pub(crate) fn on_probe_lost(&mut self) {
        self.is_probing = false;
        self.last_probe = None;
    }

    /// A call has ended that was started at this time.
    pub(crate) fn on_end(
        &mut self,
        outcome: CallOutcome,
        started: Timestamp,
        purpose: Purpose,
        now: Timestamp,
    ) -> Transition {
        match outcome {
            CallOutcome::Limited(wish) => self.pause(wish, purpose, now),
            CallOutcome::Failed | CallOutcome::NotStarted if self.interval.is_some() => {
                let first =
                    Suspicion { since: started, noticed: now, failed_probes: 0, is_second_due: false };
                self.suspicion.get_or_insert(first);
            }
            // While it is away only a probe ends that: this may be what was under way before.
            CallOutcome::Useful
                if !self.is_away && self.suspicion.is_some_and(|suspicion| started >= suspicion.since) =>
            {
                self.suspicion = None;
                return Transition::Cleared;
            }
            _ => {}
        }
        Transition::None
    }

    fn pause(&mut self, wish: Duration, purpose: Purpose, now: Timestamp) {
        let Some(paused) = self.paused_until.get_mut(purpose.index()).filter(|_| !wish.is_zero()) else {
            return;
        };
        // A shorter wish does not take a longer one back.
        *paused = Some(now.saturating_add(wish.min(MAX_PAUSE)))
            .max(paused.filter(|at| is_ahead(*at, now, MAX_PAUSE)));
    }

    /// When the next probe is to be sent, if one is to be. `jitter`: any number; it spreads the
    /// probes of several workers.
    pub(crate) fn probe_due(&self, now: Timestamp, jitter: u8) -> Option<Timestamp> {
        let interval = self.interval?;
        if self.is_probing || !self.is_used {
            return None;
        }
        let Some(last) = self.last_probe.filter(|last| *last <= now) else {
            // The first use tells whether the endpoint answers the probe at all.
            return Some(now);
        };
        let after = |percent: u32, interval: Duration| {
            Some(last.saturating_add(interval.checked_div(100).unwrap_or_default().saturating_mul(percent)))
        };
        match self.suspicion? {
            // The second one at once, so that one lost packet is not half of an outage. Once: a
            // host that refuses to start it does so at once too.
            Suspicion { is_second_due: true, .. } => Some(now),
            // However seldom it is probed while it is away, that it is away shows soon.
            Suspicion { failed_probes: 0, .. } => after(LEAST, interval.min(SOON)),
            Suspicion { .. } => after(LEAST.saturating_add(u32::from(jitter) % SPREAD), interval),
        }
    }

    /// When [`Self::judge`] is to be called, if it is.
    pub(crate) fn judgement_due(&self) -> Option<Timestamp> {
        let suspicion =
            self.suspicion.filter(|suspicion| !self.is_away && suspicion.failed_probes >= ENOUGH)?;
        Some(suspicion.noticed.saturating_add(PATIENCE))
    }

    /// A probe is sent.
    pub(crate) fn on_probe(&mut self, now: Timestamp) {
        self.is_probing = true;
        self.last_probe = Some(now);
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.is_second_due = false;
        }
    }

    /// Since when an answer would clear the endpoint.
    pub(crate) fn suspected_since(&self) -> Option<Timestamp> {
        self.suspicion.map(|suspicion| suspicion.since)
    }

    /// A probe has ended. `is_hopeful`: whether a call is under way that was started since the
    /// first one failed, and may bring an answer yet.
    pub(crate) fn on_probe_end(
        &mut self,
        outcome: ProbeOutcome,
        is_hopeful: bool,
        now: Timestamp,
    ) -> Transition {
        self.is_probing = false;
        match outcome {
            // An endpoint that answers its probe with 5xx from the start is there all the same.
            ProbeOutcome::Answered | ProbeOutcome::ServerError
                if outcome == ProbeOutcome::Answered || !self.is_probe_answerable =>
            {
                self.is_probe_answerable |= outcome == ProbeOutcome::Answered;
                let had_suspicion = self.suspicion.take().is_some();
                match std::mem::take(&mut self.is_away) {
                    true => Transition::Closed,
                    false if had_suspicion => Transition::Cleared,
                    false => Transition::None,
                }
            }
            ProbeOutcome::Unknown => Transition::None,
            ProbeOutcome::Answered | ProbeOutcome::ServerError | ProbeOutcome::Failed => {
                if let Some(suspicion) = &mut self.suspicion {
                    suspicion.failed_probes = suspicion.failed_probes.saturating_add(1);
                    suspicion.is_second_due = suspicion.failed_probes == 1;
                }
                self.judge(is_hopeful, now)
            }
        }
    }

    /// Judges what the probes have shown. Two that fail at once can hit the one of several
    /// endpoints that is just being replaced, so answers that may still come are waited for, a
    /// little.
    pub(crate) fn judge(&mut self, is_hopeful: bool, now: Timestamp) -> Transition {
        let Some(due) = self.judgement_due() else { return Transition::None };
        if is_hopeful && is_ahead(due, now, PATIENCE) {
            return Transition::None;
        }
        self.is_away = true;
        Transition::Opened
    }
}

/// Whether a point is ahead, and no farther than it can have been set: the clock may have gone
/// backwards.
pub(crate) fn is_ahead(until: Timestamp, now: Timestamp, farthest: Duration) -> bool {
    until > now && until.saturating_since(now) <= farthest
}

/// The longest pause that an endpoint is granted.
pub(crate) const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Probes that fail in a row before an endpoint is away.
const ENOUGH: u32 = 2;
/// How long after the first failed call answers to other calls are waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// The longest time after one suspicion until the next one is probed.
const SOON: Duration = Duration::from_secs(1);
/// The shortest time between two probes, in percent of the interval.
const LEAST: u32 = 80;
/// How much longer it may be, in percent of the interval.
const SPREAD: u32 = 41;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Option<Duration> = Some(Duration::from_secs(1));

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos((1_000_000 + millis) * 1_000_000)
    }

    /// A breaker whose endpoint was used, and has answered its first probe.
    fn known() -> CircuitBreaker {
        let mut breaker = CircuitBreaker::new(SECOND);
        assert!(breaker.on_start());
        assert_eq!(breaker.probe_due(at(0), 0), Some(at(0)), "the first use");
        breaker.on_probe(at(0));
        assert_eq!(breaker.probe_due(at(0), 0), None, "one at a time");
        assert_eq!(breaker.on_probe_end(ProbeOutcome::Answered, false, at(1)), Transition::None);
        assert_eq!(breaker.probe_due(at(5000), 0), None, "nothing has failed");
        breaker
    }

    fn end(breaker: &mut CircuitBreaker, outcome: CallOutcome, started: u64, now: u64) -> Transition {
        breaker.on_end(outcome, at(started), Purpose::NewToken, at(now))
    }

    fn probe(breaker: &mut CircuitBreaker, outcome: ProbeOutcome, now: u64) -> Transition {
        breaker.on_probe(at(now));
        breaker.on_probe_end(outcome, false, at(now))
    }

    fn is_away(breaker: &CircuitBreaker) -> bool {
        matches!(breaker.standing(), Standing::Away(_))
    }

    #[test]
    fn it_is_away_when_two_probes_in_a_row_fail_and_there_again_when_one_is_answered() {
        let mut breaker = known();
        assert_eq!(end(&mut breaker, CallOutcome::Failed, 2000, 2010), Transition::None);
        assert_eq!(breaker.probe_due(at(2010), 0), Some(at(800)), "overdue");
        assert_eq!(probe(&mut breaker, ProbeOutcome::Failed, 2010), Transition::None);
        assert!(matches!(breaker.standing(), Standing::Unclear));
        assert_eq!(breaker.probe_due(at(2011), 0), Some(at(2011)), "the second one at once");
        assert_eq!(breaker.check(Purpose::NewToken, at(2011)), Ok(()));
        assert_eq!(probe(&mut breaker, ProbeOutcome::Failed, 2012), Transition::Opened);
        for purpose in [Purpose::NewToken, Purpose::Refresh, Purpose::Permission] {
            let left = Err(CallRefused::Breaker(Duration::from_millis(800)));
            assert_eq!(breaker.check(purpose, at(2012)), left);
        }
        assert_eq!(end(&mut breaker, CallOutcome::Useful, 2005, 2020), Transition::None);
        assert!(is_away(&breaker), "no caller's answer ends it");
        let due = |jitter| breaker.probe_due(at(2012), jitter);
        assert_eq!((due(0), due(40)), (Some(at(2812)), Some(at(3212))));
        assert!((0..=255).all(|jitter| due(jitter) >= Some(at(2812)) && due(jitter) <= Some(at(3212))));
        assert_eq!(probe(&mut breaker, ProbeOutcome::Failed, 2900), Transition::None);
        assert_eq!(probe(&mut breaker, ProbeOutcome::Answered, 3800), Transition::Closed);
        assert_eq!(breaker.check(Purpose::NewToken, at(3800)), Ok(()));
    }

    #[test]
    fn nothing_that_a_caller_asks_opens_it() {
        let mut breaker = known();
        for nth in 0..1000 {
            assert_eq!(end(&mut breaker, CallOutcome::Failed, 2000 + nth, 2001 + nth), Transition::None);
        }
        assert!(matches!(breaker.standing(), Standing::Unclear));
        assert_eq!(probe(&mut breaker, ProbeOutcome::Failed, 3010), Transition::None);
        assert_eq!(probe(&mut breaker, ProbeOutcome::Answered, 3011), Transition::Cleared);
        let due = |breaker: &CircuitBreaker, now| breaker.probe_due(at(now), 0);
        assert_eq!(due(&breaker, 3012), None);
        let _ = end(&mut breaker, CallOutcome::Failed, 3011, 3012);
        assert_eq!(due(&breaker, 3012), Some(at(3811)), "not more often than about once a second");
        for outcome in [CallOutcome::Useless, CallOutcome::Limited(Duration::ZERO)] {
            let mut breaker = known();
            assert_eq!(end(&mut breaker, outcome, 2000, 2001), Transition::None);
            assert_eq!(due(&breaker, 2001), None, "{outcome:?}");
        }
    }

    #[test]
    fn an_answer_to_a_call_that_was_started_since_clears_it() {
        let mut breaker = known();
        let _ = end(&mut breaker, CallOutcome::Failed, 2000, 2400);
        assert_eq!(end(&mut breaker, CallOutcome::Useful, 1999, 2401), Transition::None);
        assert_eq!(probe(&mut breaker, ProbeOutcome::Failed, 2410), Transition::None);
        assert_eq!(end(&mut breaker, CallOutcome::Useful, 2000, 2411), Transition::Cleared);
        let _ = end(&mut breaker, CallOutcome::Failed, 2412, 2413);
        assert_eq!(probe(&mut breaker, ProbeOutcome::Failed, 3300), Transition::None, "the first in a row");
    }

    #[test]
    fn answers_that_may_still_come_are_waited_for_but_not_for_long() {
        let hopeful = |breaker: &mut CircuitBreaker, now| {
            breaker.on_probe(at(now));
            breaker.on_probe_end(ProbeOutcome::Failed, true, at(now))
        };
        let mut breaker = known();
        let _ = end(&mut breaker, CallOutcome::Failed, 2000, 2000);
        assert_eq!(hopeful(&mut breaker, 2000), Transition::None);
        assert_eq!(breaker.judgement_due(), None);
        assert_eq!(hopeful(&mut breaker, 2001), Transition::None);
        assert_eq!(breaker.judgement_due(), Some(at(2500)));
        let mut cleared = breaker.clone();
        assert_eq!(end(&mut cleared, CallOutcome::Useful, 2000, 2400), Transition::Cleared);
        assert_eq!(breaker.clone().judge(false, at(2100)), Transition::Opened, "nothing is under way");
        assert_eq!(breaker.judge(true, at(2499)), Transition::None);
        assert_eq!(breaker.judge(true, at(2500)), Transition::Opened);
        let mut silent = known();
        let _ = end(&mut silent, CallOutcome::Failed, 2000, 3000);
        let _ = hopeful(&mut silent, 4000);
        assert_eq!(hopeful(&mut silent, 5000), Transition::Opened);
    }

    #[test]
    fn a_5xx_to_the_probe_counts_where_it_was_answered_before() {
        let mut breaker = known();
        let _ = end(&mut breaker, CallOutcome::Failed, 2000, 2001);
        assert_eq!(probe(&mut breaker, ProbeOutcome::ServerError, 2002), Transition::None);
        assert_eq!(probe(&mut breaker, ProbeOutcome::ServerError, 2003), Transition::Opened);
        let mut never = CircuitBreaker::new(SECOND);
        assert!(never.on_start());
        for now in 0..10 {
            let _ = end(&mut never, CallOutcome::Failed, now, now);
            assert_eq!(probe(&mut never, ProbeOutcome::ServerError, now), Transition::Cleared);
        }
        let _ = end(&mut never, CallOutcome::Failed, 20, 20);
        let _ = probe(&mut never, ProbeOutcome::Failed, 21);
        assert_eq!(probe(&mut never, ProbeOutcome::Failed, 22), Transition::Opened, "nobody answers");
        assert_eq!(probe(&mut never, ProbeOutcome::ServerError, 23), Transition::Closed, "it is back");
    }

    #[test]
    fn a_long_interval_delays_the_return_and_not_the_discovery() {
        let mut breaker = CircuitBreaker::new(Some(Duration::from_secs(60)));
        assert!(breaker.on_start());
        assert_eq!(probe(&mut breaker, ProbeOutcome::Answered, 0), Transition::None);
        let _ = end(&mut breaker, CallOutcome::Failed, 1, 1);
        assert_eq!(breaker.probe_due(at(1), 0), Some(at(800)));
        let _ = probe(&mut breaker, ProbeOutcome::Failed, 800);
        assert_eq!(probe(&mut breaker, ProbeOutcome::Failed, 801), Transition::Opened);
        assert_eq!(breaker.probe_due(at(802), 0), Some(at(48_801)));
    }

    #[test]
    fn a_probe_that_is_not_heard_of_says_nothing() {
        let mut breaker = known();
        let _ = end(&mut breaker, CallOutcome::NotStarted, 2000, 2001);
        for now in [2002, 2003, 2004] {
            assert_eq!(probe(&mut breaker, ProbeOutcome::Unknown, now), Transition::None);
        }
        assert!(matches!(breaker.standing(), Standing::Unclear));
        assert_eq!(probe(&mut breaker, ProbeOutcome::Failed, 3000), Transition::None);
        assert_eq!(breaker.probe_due(at(3001), 0), Some(at(3001)), "the second one at once");
        assert_eq!(probe(&mut breaker, ProbeOutcome::Unknown, 3001), Transition::None);
        assert_eq!(breaker.probe_due(at(3001), 0), Some(at(3801)), "but not again and again");
        assert_eq!(probe(&mut breaker, ProbeOutcome::Failed, 3801), Transition::Opened);
    }

    #[test]
    fn without_a_probe_it_is_never_away() {
        let mut breaker = CircuitBreaker::new(None);
        assert!(breaker.on_start());
        let _ = end(&mut breaker, CallOutcome::Failed, 0, 1);
        assert_eq!(breaker.probe_due(at(2), 0), None);
        assert!(matches!(breaker.standing(), Standing::There));
        let mut off = known();
        let _ = end(&mut off, CallOutcome::Failed, 0, 1);
        let _ = probe(&mut off, ProbeOutcome::Failed, 2);
        let _ = probe(&mut off, ProbeOutcome::Failed, 3);
        off.set_interval(None);
        assert!(matches!(off.standing(), Standing::There));
    }

    #[test]
    fn a_pause_holds_for_its_purpose_alone_and_not_for_ever() {
        let mut breaker = known();
        let _ = end(&mut breaker, CallOutcome::Limited(Duration::from_secs(3600)), 0, 0);
        let left = Err(CallRefused::Paused(Duration::from_secs(29)));
        assert_eq!(breaker.check(Purpose::NewToken, at(1000)), left);
        let _ = end(&mut breaker, CallOutcome::Limited(Duration::from_secs(1)), 0, 1000);
        assert_eq!(breaker.check(Purpose::NewToken, at(1000)), left, "the longer wish");
        assert_eq!(breaker.check(Purpose::Refresh, at(1000)), Ok(()));
        assert_eq!(breaker.check(Purpose::NewToken, at(30_000)), Ok(()));
        assert_eq!(breaker.check(Purpose::NewToken, Timestamp::from_secs(1)), Ok(()), "the clock went back");
    }
}
