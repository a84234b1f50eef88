//! One endpoint that is watched: what is told of it.

use super::{Sending, Watched};
use crate::breaker::{CircuitBreaker, Transition};
use crate::flow::{Level, RootId};
use crate::hash::Fingerprint;
use crate::telemetry::Label;
use crate::time::Timestamp;

impl Watched {
    pub(super) fn new(endpoint: Fingerprint, label: Label, breaker: CircuitBreaker) -> Self {
        let (homes, waiting) = (Vec::new(), Vec::new());
        Self {
            endpoint,
            label,
            breaker,
            homes,
            probe: None,
            timer: None,
            sent: 0,
            waiting,
            away_since: None,
            prefers_next: false,
            preferred_at: None,
            refused_both_at: None,
        }
    }

    /// Tells the operator that an endpoint is away, or back. A probe is sent at most so often that
    /// no caller can fill the log with it.
    pub(super) fn tell(&mut self, transition: Transition, sending: &mut Sending<'_>, now: Timestamp) {
        let Some((_, probe)) = self.homes.last() else { return };
        let name = || probe.endpoint().name();
        match transition {
            Transition::Opened => {
                self.away_since = Some(now);
                let message = format!("avnology_gate: {} is away, and asked again by probes alone", name());
                sending.outputs.log(Level::Warn, message);
            }
            Transition::Closed => {
                let Some(since) = self.away_since.take() else { return };
                let secs = now.saturating_since(since).as_secs();
                let message = format!("avnology_gate: {} is back, after {secs} s", name());
                sending.outputs.log(Level::Warn, message);
            }
            Transition::None | Transition::Cleared => {}
        }
    }

    pub(super) fn is_named_by(&self, root: RootId) -> bool {
        self.homes.iter().any(|(home, _)| *home == root)
    }

    /// Takes the newest root's interval. Returns whether it is never probed now, so that nobody
    /// has to wait for that.
    pub(super) fn take_interval(&mut self) -> bool {
        let Some((_, probe)) = self.homes.last() else { return false };
        let interval = probe.endpoint().provider().probe_interval;
        self.breaker.set_interval(interval);
        interval.is_none()
    }
}
