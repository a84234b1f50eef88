//! What is measured of all rooms, and when it is written.

use super::Engine;
use crate::breaker::ProbeOutcome;
use crate::flow::{Output, meter};
use crate::hash::Fingerprint;
use crate::refusal::{Outage, Refusal};
use crate::telemetry::{CallLabel, Change, FactLabel, ProbeLabel, Series, Version};
use crate::time::Timestamp;

impl Engine {
    /// The name of a metric, as the host is asked to define it.
    pub fn metric_name(&self, series: Series) -> String {
        series.name(self.meter.labels())
    }

    /// Something may have changed that is measured: it is written after a while.
    pub(super) fn measure(&mut self, now: Timestamp) {
        // On a host without a clock there is no later.
        if self.meter.is_idle()
            && now < Timestamp::from_nanos(u64::MAX)
            && let Some(root) = self.roots.newest()
        {
            self.meter.arm(root, &mut self.timers, now);
        }
    }

    /// Writes what was measured, and again after a while where that may change without an event
    /// that says so.
    pub(super) fn write_metrics(&mut self, now: Timestamp) {
        self.meter.disarm(&mut self.timers);
        let gauges = self.gauges();
        self.meter.write(self.facts.tally().take(), &gauges, &mut self.outputs);
        let passes = |series| matches!(series, Series::Waiting(_) | Series::InFlight(_) | Series::HeldBytes);
        if gauges.iter().any(|(series, value)| *value > 0 && passes(*series)) {
            self.measure(now);
        }
    }

    fn gauges(&self) -> Vec<(Series, i64)> {
        let mut gauges = Vec::new();
        let mut add = |series, value| meter::add(&mut gauges, series, value);
        self.roots.digests().for_each(|digest| add(Series::Policy(digest, Version), 1));
        if self.roots.newest().is_none() {
            return gauges;
        }
        for (label, is_away) in self.health.away() {
            add(Series::Away(label), usize::from(is_away));
        }
        for kind in FactLabel::ALL {
            add(Series::Entries(*kind), self.facts.entries(*kind));
        }
        let counts = self.requests.counts();
        counts.waiting().into_iter().for_each(|(class, count)| add(Series::Waiting(class), count));
        let in_flight = self.calls.in_flight();
        in_flight.into_iter().for_each(|(purpose, count)| add(Series::InFlight(purpose), count));
        add(Series::HeldBytes, counts.bodies().held_bytes());
        gauges
    }

    /// A callout has ended, with an answer or without.
    pub(super) fn measure_call(
        &mut self,
        (endpoint, started): (Fingerprint, Timestamp),
        refusal: Option<&Refusal>,
        now: Timestamp,
    ) {
        self.measure(now);
        let Some(endpoint) = self.health.label(endpoint) else { return };
        self.meter.count(Series::Callout(endpoint, CallLabel(refusal.map(Refusal::reason))));
        if refusal == Some(&Refusal::Outage(Outage::NotStarted)) {
            return;
        }
        let time = meter::micros(now.saturating_since(started));
        let series = Series::CalloutDuration(endpoint);
        self.outputs.push(Output::Metric { series, change: Change::Record(time) });
    }

    /// A probe has ended.
    pub(super) fn measure_probe(&mut self, endpoint: Fingerprint, outcome: ProbeOutcome, now: Timestamp) {
        self.measure(now);
        let Some(endpoint) = self.health.label(endpoint) else { return };
        let outcome = match outcome {
            ProbeOutcome::Answered => ProbeLabel::Answered,
            ProbeOutcome::ServerError | ProbeOutcome::Failed => ProbeLabel::Failed,
            ProbeOutcome::Unknown => ProbeLabel::Unclear,
        };
        self.meter.count(Series::Probe(endpoint, outcome));
    }
}
