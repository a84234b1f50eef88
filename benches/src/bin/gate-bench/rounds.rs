//! Rounds: each variant once, in alternating order, and what must hold of every single measurement.

use std::time::{Duration, Instant};

use harness::envoy::Envoy;

use crate::machine::Worker;
use crate::provider::{Calls, Provider};
use crate::variants::{Asks, Kind, Side, Variant};
use crate::wrk::Wrk;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Rounds.
    pub rounds: u32,
    /// Seconds for one variant in one round.
    pub seconds: u32,
}

/// One variant in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Whose.
    pub kind: Kind,
    /// With whose module.
    pub side: Side,
    /// The worker's microseconds on its core for one request.
    pub cpu: f64,
    /// Requests per second, which swing with the neighbours.
    pub rate: f64,
    /// The part of the round that the worker was on its core: much less than all of it, and it
    /// waited for its clients.
    pub busy: f64,
    /// The median latency in microseconds.
    pub p50: f64,
    /// Calls of the provider for one request.
    pub calls: f64,
}

/// Everything that a measurement needs.
pub(crate) struct Bench<'b> {
    /// The one Envoy.
    pub envoy: &'b Envoy,
    /// Its worker.
    pub worker: &'b Worker,
    /// The one provider.
    pub provider: &'b Provider,
    /// The one client.
    pub wrk: &'b Wrk,
}

/// What Envoy counted of a listener's requests.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    begun: u64,
    good: u64,
    bad: u64,
}

impl Bench<'_> {
    /// Measures the variants, in the given order in even rounds and from the end in odd ones.
    pub(crate) fn rounds(
        &self,
        variants: &[&Variant],
        plan: Plan,
        connections: u32,
    ) -> Result<Vec<Vec<Sample>>, String> {
        let mut rounds = Vec::new();
        for number in 0..plan.rounds {
            let mut order = variants.to_vec();
            if number % 2 == 1 {
                order.reverse();
            }
            let round: Result<Vec<Sample>, String> =
                order.into_iter().map(|variant| self.measure(variant, connections, plan.seconds)).collect();
            rounds.push(round?);
            eprintln!("bench: {connections} connections, round {} of {}", number + 1, plan.rounds);
        }
        Ok(rounds)
    }

    /// Sends requests for a while and measures nothing: caches fill, connections open, code gets
    /// compiled.
    pub(crate) fn warm(&self, variant: &Variant) -> Result<(), String> {
        let report = self.wrk.run(variant.address, variant.kind.load(), 16, 1)?;
        match report.errors {
            0 => Ok(()),
            errors => Err(format!("{}: {errors} errors in wrk\n{}", variant.name, self.envoy.log())),
        }
    }

    /// Measures one variant once.
    fn measure(&self, variant: &Variant, connections: u32, seconds: u32) -> Result<Sample, String> {
        let Variant { kind, side, name, .. } = variant;
        let (kind, side) = (*kind, *side);
        self.quiet(name)?;
        let (calls, counts, time) = (self.provider.calls(), self.counts(name), self.worker.time()?);
        let report = self.wrk.run(variant.address, kind.load(), connections, seconds)?;
        self.quiet(name)?;
        let spent = self.worker.time()? - time;
        let calls = self.provider.calls().since(calls);
        let now = self.counts(name);
        let counts = Counts {
            begun: now.begun - counts.begun,
            good: now.good - counts.good,
            bad: now.bad - counts.bad,
        };
        judge(kind, counts, calls, report.errors, u64::from(connections))
            .map_err(|problem| format!("{name}: {problem}\n{}", self.envoy.log()))?;
        let requests = counts.good as f64;
        Ok(Sample {
            kind,
            side,
            cpu: spent as f64 / 1000.0 / requests,
            rate: report.requests as f64 / report.duration as f64 * 1e6,
            busy: spent as f64 / 1000.0 / report.duration as f64,
            p50: report.p50 as f64,
            calls: calls.total() as f64 / requests,
        })
    }

    /// Waits until nothing of a variant is in flight any more.
    fn quiet(&self, name: &str) -> Result<(), String> {
        let filter =
            format!("%5E(http%5C.{name}%5C.downstream_cx|cluster%5C.avnology%5C.upstream_rq)_active%24");
        let end = Instant::now() + Duration::from_secs(10);
        while self.envoy.stats(&filter).values().any(|gauge| *gauge > 0) {
            if Instant::now() > end {
                return Err(format!("{name}: connections stay open"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn counts(&self, name: &str) -> Counts {
        let prefix = format!("http.{name}.downstream_rq_");
        let counters = self.envoy.stats(&format!("%5Ehttp%5C.{name}%5C.downstream_rq_"));
        let counter = |name: &str| counters.get(&format!("{prefix}{name}")).copied().unwrap_or_default();
        let bad = ["1xx", "3xx", "4xx", "5xx"].map(counter).iter().sum();
        Counts { begun: counter("total"), good: counter("2xx"), bad }
    }
}

/// What fails the run: an answer that is not 2xx, and another number of calls than there should be.
fn judge(kind: Kind, counts: Counts, calls: Calls, errors: u64, connections: u64) -> Result<(), String> {
    let Counts { begun, good, bad } = counts;
    // wrk leaves at the end with a request in flight on each connection.
    if bad > 0 || errors > 0 || good == 0 || begun > good + connections {
        return Err(format!(
            "{begun} requests, {good} answered 2xx, {bad} otherwise, {errors} errors in wrk"
        ));
    }
    let asked = match kind.asks() {
        Asks::Nothing => None,
        Asks::Introspection => Some(calls.introspections),
        Asks::Authz => Some(calls.authz),
    };
    let others = calls.total() - asked.unwrap_or(0);
    let fits = others == 0 && asked.is_none_or(|asked| (good..=begun).contains(&asked));
    if !fits {
        return Err(format!("{begun} requests, {good} of them answered, and the provider got {calls:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Counts = Counts { begun: 116, good: 100, bad: 0 };

    #[test]
    fn every_request_is_answered_2xx() {
        let none = Calls::default();
        assert_eq!(judge(Kind::Lua, GOOD, none, 0, 16), Ok(()));
        assert!(judge(Kind::Lua, GOOD, none, 1, 16).is_err());
        assert!(judge(Kind::Lua, GOOD, none, 0, 15).is_err(), "one was neither answered nor left behind");
        assert!(judge(Kind::Lua, Counts { bad: 1, ..GOOD }, none, 0, 16).is_err());
        assert!(judge(Kind::Lua, Counts::default(), none, 0, 16).is_err());
    }

    #[test]
    fn the_provider_is_asked_as_often_as_it_should_be() {
        let authz = |authz| Calls { authz, ..Calls::default() };
        assert!(judge(Kind::JwtAuthn, GOOD, authz(1), 0, 16).is_err());
        for (calls, fits) in [(99, false), (100, true), (116, true), (117, false)] {
            assert_eq!(judge(Kind::ExtAuthz, GOOD, authz(calls), 0, 16).is_ok(), fits, "{calls}");
        }
        let other = Calls { introspections: 1, ..authz(100) };
        assert!(judge(Kind::ExtAuthz, GOOD, other, 0, 16).is_err());
    }
}
