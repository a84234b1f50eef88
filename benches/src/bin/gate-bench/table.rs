//! From samples to a table. A ratio is taken within a round, where both sides had the same
//! neighbours; then the median over rounds.

use std::fmt::Write as _;

use crate::against::{self, Module};
use crate::memory::Memory;
use crate::rounds::{Plan, Sample};
use crate::variants::{Kind, SECRETS, Side, Size};

/// All that was measured.
pub(crate) struct Results {
    /// What ran where.
    pub machine: Vec<(&'static str, String)>,
    /// How much was measured.
    pub plan: Plan,
    /// What the module was compared with.
    pub against: Option<Module>,
    /// Rounds with many connections.
    pub busy: Vec<Vec<Sample>>,
    /// Rounds with one connection.
    pub calm: Vec<Vec<Sample>>,
    /// What cached tokens cost, where that could be measured.
    pub memory: Option<Memory>,
}

/// A figure with what it should be.
struct Target {
    what: &'static str,
    value: Option<f64>,
    limit: Limit,
    aim: &'static str,
}

#[derive(Clone, Copy)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

/// The middle one; of an even number the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    let lower = values.len().checked_sub(1)? / 2;
    Some(f64::midpoint(*values.get(lower)?, *values.get(upper)?))
}

fn of(round: &[Sample], kind: Kind) -> Option<&Sample> {
    round.iter().find(|sample| sample.kind == kind && sample.side == Side::New)
}

/// The median over rounds of a figure that is made within a round.
fn over(rounds: &[Vec<Sample>], figure: impl Fn(&[Sample]) -> Option<f64>) -> Option<f64> {
    median(rounds.iter().filter_map(|round| figure(round)).collect())
}

fn cpu(round: &[Sample], kind: Kind) -> Option<f64> {
    of(round, kind).map(|sample| sample.cpu)
}

fn p50(round: &[Sample], kind: Kind) -> Option<f64> {
    of(round, kind).map(|sample| sample.p50)
}

/// What a variant takes beyond no filter at all.
fn added(round: &[Sample], kind: Kind, figure: fn(&[Sample], Kind) -> Option<f64>) -> Option<f64> {
    Some(figure(round, kind)? - figure(round, Kind::None)?)
}

/// What one more HMAC of the longest body takes, in the same engine.
fn hmac(round: &[Sample]) -> Option<f64> {
    let more = cpu(round, Kind::HookSecrets)? - cpu(round, Kind::Hook(Size::Large))?;
    Some(more / f64::from(SECRETS.saturating_sub(1)))
}

fn targets(results: &Results) -> Vec<Target> {
    let busy = |figure: &dyn Fn(&[Sample]) -> Option<f64>| over(&results.busy, figure);
    let against_jwt = |kind| busy(&|round| Some(cpu(round, Kind::JwtAuthn)? / cpu(round, kind)?));
    vec![
        Target {
            what: "requests per CPU time, cached with four identity headers / jwt_authn",
            value: against_jwt(Kind::Cached),
            limit: Limit::AtLeast(0.85),
            aim: "0.92",
        },
        Target {
            what: "requests per CPU time, the same with a cached permission / jwt_authn",
            value: against_jwt(Kind::Permission),
            limit: Limit::AtLeast(0.80),
            aim: "0.88",
        },
        Target {
            what: "CPU time added, ext_authz / cached with four identity headers",
            value: busy(&|round| Some(added(round, Kind::ExtAuthz, cpu)? / added(round, Kind::Cached, cpu)?)),
            limit: Limit::AtLeast(5.0),
            aim: "",
        },
        Target {
            what: "CPU time, 10,000 routes / 10 routes",
            value: busy(&|round| Some(cpu(round, Kind::TenThousand)? / cpu(round, Kind::Ten)?)),
            limit: Limit::AtMost(1.05),
            aim: "",
        },
        Target {
            what: "CPU time added, uncached / ext_authz",
            value: busy(&|round| {
                Some(added(round, Kind::Uncached, cpu)? / added(round, Kind::ExtAuthz, cpu)?)
            }),
            limit: Limit::AtMost(1.35),
            aim: "",
        },
        Target {
            what: "median latency added, uncached / ext_authz",
            value: over(&results.calm, |round| {
                Some(added(round, Kind::Uncached, p50)? / added(round, Kind::ExtAuthz, p50)?)
            }),
            limit: Limit::AtMost(1.15),
            aim: "",
        },
        Target {
            what: "an HMAC of 1 MiB alone / all that a webhook of 1 MiB costs more than one of 1 KiB",
            value: busy(&|round| {
                let whole = cpu(round, Kind::Hook(Size::Large))? - cpu(round, Kind::Hook(Size::Small))?;
                Some(hmac(round)? / whole)
            }),
            limit: Limit::AtLeast(0.68),
            aim: "",
        },
        Target {
            what: "MiB for 100,000 cached tokens of a JWT's size",
            value: results.memory.as_ref().map(|memory| mib(memory.kept())),
            limit: Limit::AtMost(32.0),
            aim: "",
        },
    ]
}

/// The table, in Markdown.
pub(crate) fn render(results: &Results) -> String {
    let mut out = String::from("# What a request costs\n\n");
    for (name, value) in &results.machine {
        let _ = writeln!(out, "- {name}: {value}");
    }
    let Plan { rounds, seconds } = results.plan;
    let _ = write!(
        out,
        "\n{rounds} rounds in alternating order, {seconds} s for each variant; one worker, {} connections. \
         CPU time is the worker's on its core (schedstat) for one request, its median with the least and the most; a ratio is taken \
         within a round, and its median stands here.\n\n",
        crate::BUSY
    );
    let _ = writeln!(
        out,
        "| listener | CPU µs a request | least – most | added | requests per CPU time: / no filter | / jwt_authn | requests/s \
         | worker busy | provider calls a request |"
    );
    let _ = writeln!(out, "|---|---|---|---|---|---|---|---|---|");
    for kind in Kind::ALL.into_iter().filter(|kind| kind.size().is_none()) {
        row(&mut out, &results.busy, kind);
    }
    hooks(&mut out, &results.busy);

    if let Some(module) = &results.against {
        against::render(&mut out, module, &results.busy);
        // Neither one connection nor memory is compared, so neither was measured.
        return out;
    }
    let _ = writeln!(
        out,
        "\nOne connection:\n\n| listener | median latency µs | added | CPU µs a request |\n|---|---|---|---|"
    );
    for kind in crate::CALM {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} |",
            kind.title(),
            show(over(&results.calm, |round| p50(round, kind)), 0),
            show(over(&results.calm, |round| added(round, kind, p50)), 0),
            show(over(&results.calm, |round| cpu(round, kind)), 1),
        );
    }
    if let Some(memory) = &results.memory {
        let _ = writeln!(
            out,
            "\n{} different tokens of {} bytes: Envoy's resident memory grew from {:.1} MiB by {:.1}, and by {:.1} where nothing is kept: \
             {} bytes a token. Where the workers share facts it grew by {:.1}.",
            memory.tokens,
            memory.size,
            mib(memory.before),
            mib(memory.grown),
            mib(memory.control),
            memory.kept() / u64::from(memory.tokens),
            mib(memory.shared),
        );
    }

    let _ = writeln!(out, "\n| target | measured | wanted | |\n|---|---|---|---|");
    for Target { what, value, limit, aim } in targets(results) {
        let (wanted, is_met) = match limit {
            Limit::AtLeast(limit) => (format!("≥ {limit:.2}"), value.map(|value| value >= limit)),
            Limit::AtMost(limit) => (format!("≤ {limit:.2}"), value.map(|value| value <= limit)),
        };
        let aim = if aim.is_empty() { String::new() } else { format!(" (aim {aim})") };
        let mark = is_met.map_or("not measured", |is_met| if is_met { "pass" } else { "short" });
        let _ = writeln!(out, "| {what} | {} | {wanted}{aim} | {mark} |", show(value, 3));
    }
    out
}

fn row(out: &mut String, rounds: &[Vec<Sample>], kind: Kind) {
    let all: Vec<f64> = rounds.iter().filter_map(|round| cpu(round, kind)).collect();
    let least = all.iter().copied().reduce(f64::min);
    let most = all.iter().copied().reduce(f64::max);
    let against = |other| over(rounds, |round| Some(cpu(round, other)? / cpu(round, kind)?));
    let _ = writeln!(
        out,
        "| {} | {} | {} – {} | {} | {} | {} | {} | {} | {} |",
        kind.title(),
        show(median(all), 2),
        show(least, 2),
        show(most, 2),
        show(over(rounds, |round| added(round, kind, cpu)), 2),
        show(against(Kind::None), 3),
        show(against(Kind::JwtAuthn), 3),
        show(over(rounds, |round| of(round, kind).map(|sample| sample.rate)), 0),
        show(over(rounds, |round| of(round, kind).map(|sample| sample.busy)), 2),
        show(over(rounds, |round| of(round, kind).map(|sample| sample.calls)), 3),
    );
}

/// Webhooks: next to a filter that only holds the body, which without any Envoy would not read.
fn hooks(out: &mut String, rounds: &[Vec<Sample>]) {
    let _ = writeln!(
        out,
        "\n| webhook | CPU µs a delivery | least – most | added to the buffer filter's | MB per second of CPU time | deliveries/s |\n\
         |---|---|---|---|---|---|"
    );
    for kind in Kind::ALL {
        let Some(size) = kind.size() else { continue };
        let all: Vec<f64> = rounds.iter().filter_map(|round| cpu(round, kind)).collect();
        let (least, most) = (all.iter().copied().reduce(f64::min), all.iter().copied().reduce(f64::max));
        let added = |round: &[Sample]| Some(cpu(round, kind)? - cpu(round, Kind::Buffer(size))?);
        let middle = median(all);
        let _ = writeln!(
            out,
            "| {} | {} | {} – {} | {} | {} | {} |",
            kind.title(),
            show(middle, 1),
            show(least, 1),
            show(most, 1),
            show(over(rounds, added), 1),
            // Bytes per microsecond are megabytes per second.
            show(middle.map(|cpu| size.bytes() as f64 / cpu), 0),
            show(over(rounds, |round| of(round, kind).map(|sample| sample.rate)), 0),
        );
    }
    let _ = writeln!(out, "\nOne HMAC more of 1 MiB: {} µs.", show(over(rounds, hmac), 0));
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

pub(crate) fn show(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
