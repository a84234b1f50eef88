//! What is measured between two callbacks that write it: sums, and the last written gauges.

use super::Output;
use super::RootId;
use super::outputs::Outputs;
use super::timers::{Armed, Timer, Timers};
use crate::telemetry::{CacheOutcome, Change, FactLabel, Labels, Series};
use crate::time::Timestamp;
use std::time::Duration;

/// What this VM has measured and not written yet.
#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Meter {
    labels: Labels,
    /// By how much counters have grown.
    sums: Vec<(Series, u64)>,
    /// What this VM has added to each gauge.
    gauges: Vec<(Series, i64)>,
    armed: Option<Armed>,
}

impl Meter {
    pub(super) fn labels(&self) -> &Labels {
        &self.labels
    }

    pub(super) fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    /// A counter grows by one, with the next tick.
    pub(super) fn count(&mut self, series: Series) {
        match self.sums.iter_mut().find(|(of, _)| *of == series) {
            Some((_, sum)) => *sum = sum.saturating_add(1),
            None => self.sums.push((series, 1)),
        }
    }

    /// Whether nothing is to be written.
    pub(super) const fn is_idle(&self) -> bool {
        self.armed.is_none()
    }

    /// Has what is measured written after a while.
    pub(super) fn arm(&mut self, root: RootId, timers: &mut Timers, now: Timestamp) {
        self.disarm(timers);
        self.armed = Some(timers.set(root, now.saturating_add(EVERY), Timer::Metrics));
    }

    /// What is measured is written now.
    pub(super) fn disarm(&mut self, timers: &mut Timers) {
        if let Some(armed) = self.armed.take() {
            timers.clear(&armed);
        }
    }

    /// Writes the sums, and the gauges that differ from what was written. A gauge is one figure for
    /// all VMs of the process, so each writes by how much its own has changed.
    pub(super) fn write(
        &mut self,
        sums: impl Iterator<Item = (Series, u64)>,
        gauges: &[(Series, i64)],
        outputs: &mut Outputs,
    ) {
        for (series, sum) in self.sums.drain(..).chain(sums) {
            outputs.push(Output::Metric { series, change: Change::Grow(sum) });
        }
        let mut write = |series, by| outputs.push(Output::Metric { series, change: Change::Move(by) });
        let now = |series: Series| gauges.iter().find(|(of, _)| *of == series).map(|(_, value)| *value);
        for (series, written) in &mut self.gauges {
            let by = now(*series).unwrap_or_default().saturating_sub(*written);
            if by != 0 {
                write(*series, by);
                *written = written.saturating_add(by);
            }
        }
        for (series, value) in gauges {
            if !self.gauges.iter().any(|(of, _)| of == series) {
                // Also where it is 0: a series that nobody has written is not there.
                write(*series, *value);
                self.gauges.push((*series, *value));
            }
        }
    }
}

/// How the caches have answered since it was written.
#[derive(Clone, Debug, Default)]
pub(super) struct CacheTally {
    tokens: [u64; CacheOutcome::ALL.len()],
    permissions: [u64; CacheOutcome::ALL.len()],
}

impl CacheTally {
    pub(super) fn count(&mut self, kind: FactLabel, outcome: CacheOutcome) {
        let counts = match kind {
            FactLabel::Token => &mut self.tokens,
            FactLabel::Permission => &mut self.permissions,
        };
        if let Some(count) = counts.get_mut(outcome as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// What was counted; it is counted from 0 again.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Series, u64)> + use<> {
        let Self { tokens, permissions } = std::mem::take(self);
        let of = |kind, counts: [u64; CacheOutcome::ALL.len()]| {
            let series = CacheOutcome::ALL.iter().map(move |outcome| Series::Cache(kind, *outcome));
            series.zip(counts).filter(|(_, count)| *count > 0)
        };
        of(FactLabel::Token, tokens).chain(of(FactLabel::Permission, permissions))
    }
}

/// A gauge that is made of several parts.
pub(super) fn add(gauges: &mut Vec<(Series, i64)>, series: Series, value: usize) {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    match gauges.iter_mut().find(|(of, _)| *of == series) {
        Some((_, sum)) => *sum = sum.saturating_add(value),
        None => gauges.push((series, value)),
    }
}

/// A duration, as the histograms count it.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// How long a sum waits at most until it is written.
const EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::store::NoStore;
    use crate::telemetry::PurposeLabel;
    use std::rc::Rc;

    fn written(outputs: &mut Outputs) -> Vec<(Series, Change)> {
        let next = || match outputs.poll()? {
            Output::Metric { series, change } => Some((series, change)),
            _ => panic!("something else"),
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn sums_are_written_once_and_gauges_by_their_differences() {
        let (mut meter, mut outputs) = (Meter::default(), Outputs::new(Rc::new(NoStore)));
        let refresh = Series::InFlight(PurposeLabel::Refresh);
        let hit = Series::Cache(FactLabel::Token, CacheOutcome::Hit);
        let mut tally = CacheTally::default();
        tally.count(FactLabel::Token, CacheOutcome::Hit);
        tally.count(FactLabel::Token, CacheOutcome::Hit);
        meter.count(Series::HeldBytes);
        meter.count(Series::HeldBytes);
        meter.write(tally.take(), &[(refresh, 3), (Series::HeldBytes, 0)], &mut outputs);
        assert_eq!(
            written(&mut outputs),
            [
                (Series::HeldBytes, Change::Grow(2)),
                (hit, Change::Grow(2)),
                (refresh, Change::Move(3)),
                (Series::HeldBytes, Change::Move(0)),
            ]
        );
        meter.write(tally.take(), &[(refresh, 3), (Series::HeldBytes, 7)], &mut outputs);
        assert_eq!(written(&mut outputs), [(Series::HeldBytes, Change::Move(7))]);
        // What is gone is taken back.
        meter.write(tally.take(), &[], &mut outputs);
        assert_eq!(
            written(&mut outputs),
            [(refresh, Change::Move(-3)), (Series::HeldBytes, Change::Move(-7))]
        );
        meter.write(tally.take(), &[(refresh, 1)], &mut outputs);
        assert_eq!(written(&mut outputs), [(refresh, Change::Move(1))]);
    }

    #[test]
    fn parts_of_one_gauge_are_added() {
        let mut gauges = Vec::new();
        for value in [1, 2, usize::MAX] {
            add(&mut gauges, Series::HeldBytes, value);
        }
        assert_eq!(gauges, [(Series::HeldBytes, i64::MAX)]);
    }
}
