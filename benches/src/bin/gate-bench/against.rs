//! One module against another, in the same rounds.
//!
//! Every gate's listener stands there three times: with the new module, with the old one, and with
//! the old one again. The three are measured one after the other and each has a VM of its own, so
//! a ratio within a round compares what had the same neighbours.
//!
//! Two things make a difference that is none. Rounds scatter, and a VM has its luck for as long as
//! it lives: where its code lies, how its tables came to be placed. More rounds help against the
//! first alone. So a row is called worse only if both of these hold:
//!
//! - the interval that holds the ratio's true median in at least 15 of 16 cases lies above 1. It
//!   goes from one of the sorted ratios to another, so it supposes nothing of how they scatter;
//!   five rounds are the least that have one;
//! - the ratio's median is farther from 1 than the old module's median against itself is, on any
//!   row.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use crate::rounds::Sample;
use crate::table::{median, show};
use crate::variants::{Kind, Side};

/// The module that the new one is compared with.
pub(crate) struct Module {
    /// Where it is, from the root.
    pub path: PathBuf,
    size: u64,
}

impl Module {
    /// What `AGAINST` names; a file that is not there is found out before anything is measured.
    pub(crate) fn named() -> Result<Option<Self>, String> {
        let Some(path) = std::env::var_os("AGAINST").filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let path = PathBuf::from(path);
        let found = path.canonicalize().and_then(|path| Ok((fs::metadata(&path)?.len(), path)));
        let (size, path) = found.map_err(|error| format!("AGAINST={}: {error}", path.display()))?;
        Ok(Some(Self { path, size }))
    }
}

/// Writes the comparison below the table.
pub(crate) fn render(out: &mut String, module: &Module, rounds: &[Vec<Sample>]) {
    let name = module.path.file_name().unwrap_or_default().to_string_lossy();
    let _ = writeln!(
        out,
        "\nCPU time against {name} ({} bytes), within each round: new / old, and old / old as a control.\n\n\
         | listener | new / old | least – most | old / old | least – most | |\n|---|---|---|---|---|---|",
        module.size
    );
    let rows: Vec<Row> = Kind::ALL.into_iter().filter_map(|kind| Row::of(rounds, kind)).collect();
    let noise = noise(&rows);
    let mut worse = Vec::new();
    for row in &rows {
        let verdict = row.verdict(noise);
        if verdict == Verdict::Worse {
            worse.push(row.kind.title());
        }
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} |",
            row.kind.title(),
            range(&row.new),
            range(&row.control),
            verdict.text()
        );
    }
    let _ =
        writeln!(out, "\nThe noise: the old module's median differs from itself by a factor of {noise:.3}.");
    let _ = if rows.iter().all(|row| interval(&row.new).is_none()) {
        writeln!(out, "Nothing can be said with {} rounds; five are the least.", rounds.len())
    } else if worse.is_empty() {
        writeln!(out, "No row is worse by more than the noise.")
    } else {
        writeln!(out, "Worse by more than the noise: {}.", worse.join("; "))
    };
}

/// The ratios of one kind, a round each.
struct Row {
    kind: Kind,
    new: Vec<f64>,
    control: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Worse,
    Better,
    Noise,
    Unknown,
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Self::Worse => "worse",
            Self::Better => "better",
            Self::Noise => "within the noise",
            Self::Unknown => "too few rounds",
        }
    }
}

impl Row {
    /// None for what is no gate, or was not measured.
    fn of(rounds: &[Vec<Sample>], kind: Kind) -> Option<Self> {
        let ratios = |over: Side| -> Vec<f64> {
            let ratio = |round: &Vec<Sample>| {
                let cpu = |side| {
                    round.iter().find(|sample| sample.kind == kind && sample.side == side).map(|it| it.cpu)
                };
                Some(cpu(over)? / cpu(Side::Old)?)
            };
            rounds.iter().filter_map(ratio).collect()
        };
        let row = Self { kind, new: ratios(Side::New), control: ratios(Side::Again) };
        (!row.new.is_empty()).then_some(row)
    }

    fn verdict(&self, noise: f64) -> Verdict {
        let (Some((low, high)), Some(middle)) = (interval(&self.new), median(self.new.clone())) else {
            return Verdict::Unknown;
        };
        if low > 1.0 && middle > noise {
            Verdict::Worse
        } else if high < 1.0 && middle < 1.0 / noise {
            Verdict::Better
        } else {
            Verdict::Noise
        }
    }
}

/// The factor by which a control's median is away from 1, of the row where that is the most.
fn noise(rows: &[Row]) -> f64 {
    let factors = rows.iter().filter_map(|row| median(row.control.clone())).map(|it| it.max(1.0 / it));
    factors.fold(1.0, f64::max)
}

/// Between which two of the values the true median is in at least 15 of 16 cases.
///
/// Each value is below the true median as a coin falls, so the chance that fewer than `n` are is
/// the binomial's.
fn interval(values: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    // The chance of exactly `below` values on one side, and of at most so many.
    let mut exactly = 0.5_f64.powi(i32::try_from(count).ok()?);
    let mut at_most = exactly;
    let mut outer = None;
    let mut below = 0;
    while at_most * 2.0 <= 1.0 / 16.0 {
        outer = Some((*sorted.get(below)?, *sorted.get(count - 1 - below)?));
        below += 1;
        exactly *= (count + 1 - below) as f64 / below as f64;
        at_most += exactly;
    }
    outer
}

fn range(values: &[f64]) -> String {
    let least = values.iter().copied().reduce(f64::min);
    let most = values.iter().copied().reduce(f64::max);
    format!("{} | {} – {}", show(median(values.to_vec()), 3), show(least, 3), show(most, 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(new: &[f64], control: &[f64]) -> Row {
        Row { kind: Kind::Cached, new: new.to_vec(), control: control.to_vec() }
    }

    #[test]
    fn an_interval_leaves_out_what_chance_allows() {
        let of = |count: u32| interval(&(1..=count).map(f64::from).collect::<Vec<_>>());
        assert_eq!(of(0), None);
        assert_eq!(of(4), None);
        assert_eq!(of(5), Some((1.0, 5.0)));
        assert_eq!(of(8), Some((1.0, 8.0)));
        // Two of nine on one side: 2 * (1 + 9) / 512 is little enough, with 36 more it is not.
        assert_eq!(of(9), Some((2.0, 8.0)));
        assert_eq!(of(20), Some((6.0, 15.0)));
    }

    #[test]
    fn a_row_is_worse_where_rounds_agree_and_the_control_does_not() {
        let worse = row(&[1.06, 1.05, 1.04, 1.08, 1.02], &[1.01, 0.99, 1.0, 1.02, 0.98]);
        assert_eq!(worse.verdict(1.0), Verdict::Worse);
        assert_eq!(worse.verdict(1.07), Verdict::Noise, "a VM's luck goes as far");
        let scattered = row(&[1.06, 1.05, 0.97, 1.08, 1.02], &[]);
        assert_eq!(scattered.verdict(1.0), Verdict::Noise);
        assert_eq!(row(&[0.9, 0.91, 0.92, 0.93, 0.94], &[]).verdict(1.05), Verdict::Better);
        assert_eq!(row(&[1.5; 4], &[]).verdict(1.0), Verdict::Unknown);
    }

    #[test]
    fn the_noise_is_the_farthest_control() {
        let rows = [row(&[], &[1.0, 1.01, 1.02]), row(&[], &[0.95, 0.8, 1.1]), row(&[], &[])];
        assert_eq!(noise(&rows), 1.0 / 0.95);
        assert_eq!(noise(&[]), 1.0);
    }
}
