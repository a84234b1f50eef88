//! What a decision costs the core, in instructions and allocations: `make instructions`.
//!
//! Runs the example `decide`, whose rows are counted by valgrind, and divides by the number of
//! decisions. Fails where ten thousand routes cost more than 1.05 times the instructions of ten, and
//! where a query or cookies of some shape cost more than three times those of one long name.
//!
//! Usage: `instructions RUNNER`, the path of a `gungraun-runner`.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use avnology_benches::{DECISIONS, SHAPED_DECISIONS};
use serde_json::Value;

/// What ten thousand routes may cost, of what ten do.
const LIMIT: f64 = 1.05;

/// How the name of a row of an odd shape begins.
const PARTS: [&str; 4] = ["query_", "cookies_", "headers_", "path_"];

/// What a query or cookies of any shape may cost, of what one pair of that length does.
const SHAPE_LIMIT: f64 = 3.0;

/// What was counted for one row, for one decision.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    kind: String,
    routes: u32,
    instructions: f64,
    /// A reallocation is one as well.
    allocations: f64,
    bytes: f64,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("instructions: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the rows; says whether all of them hold.
fn run() -> Result<bool, String> {
    let runner = std::env::args_os().nth(1).ok_or("usage: instructions RUNNER")?;
    let rows: Result<Vec<Row>, String> = count(Path::new(&runner))?.lines().map(Row::read).collect();
    let rows = rows?;
    if rows.is_empty() {
        return Err("nothing was counted".to_owned());
    }
    let mut holds = true;
    for row in &rows {
        let ratio = row.ratio(&rows);
        holds &= ratio.as_ref().is_none_or(Ratio::holds);
        println!("{}", row.show(ratio.as_ref()));
    }
    Ok(holds)
}

/// The counts, a JSON document a line.
fn count(runner: &Path) -> Result<String, String> {
    let folder = runner.parent().ok_or("the runner is in no folder")?;
    let folder = folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))?;
    // The library looks for its runner there.
    let mut path = OsString::from(folder);
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--profile", "bench", "--package", "avnology-benches"])
        .args(["--example", "decide", "--", "--bench", "--output-format=json"])
        .env("PATH", path)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("the example `decide`: {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}

impl Row {
    fn read(line: &str) -> Result<Self, String> {
        let read = || {
            let summary: Value = serde_json::from_str(line).ok()?;
            let (kind, routes) = summary["id"].as_str()?.rsplit_once('_')?;
            let is_shaped = PARTS.iter().any(|part| kind.starts_with(part));
            let decisions = if is_shaped { SHAPED_DECISIONS } else { DECISIONS };
            let metric = |tool: &str, name: &str| {
                let mut tools = summary["profiles"].as_array()?.iter();
                let profile = tools.find(|profile| profile["tool"] == tool)?;
                let counted = profile["data"]["total"]["metrics"][name]["values"]["new"].as_f64()?;
                Some(counted / decisions as f64)
            };
            Some(Self {
                kind: kind.to_owned(),
                routes: routes.parse().ok()?,
                instructions: metric("Callgrind", "Ir")?,
                allocations: metric("DHAT", "TotalBlocks")?,
                bytes: metric("DHAT", "TotalBytes")?,
            })
        };
        read().ok_or_else(|| format!("not the summary that was expected: {line}"))
    }

    /// The instructions, of those of the row that it is compared with.
    fn ratio(&self, rows: &[Self]) -> Option<Ratio> {
        if self.routes > 10 {
            let ten = rows.iter().find(|row| row.kind == self.kind && row.routes == 10)?;
            let value = self.instructions / ten.instructions;
            return Some(Ratio { value, limit: LIMIT, of: "ten routes'" });
        }
        let (part, shape) =
            self.kind.split_once('_').filter(|(part, _)| ["query", "cookies"].contains(part))?;
        let plain = rows.iter().find(|row| row.kind == format!("{part}_plain"))?;
        let value = self.instructions / plain.instructions;
        (shape != "plain").then_some(Ratio { value, limit: SHAPE_LIMIT, of: "one long pair's" })
    }

    fn show(&self, ratio: Option<&Ratio>) -> String {
        let Self { kind, routes, instructions, allocations, bytes } = self;
        let mut line = format!(
            "{kind}, {routes} routes: {instructions:.0} instructions a decision, \
             {allocations:.2} allocations of {bytes:.0} bytes together"
        );
        if let Some(ratio @ Ratio { value, limit, of }) = ratio {
            let mark = if ratio.holds() { "" } else { ": FAIL" };
            line.push_str(&format!("; {value:.3} of {of} instructions, at most {limit}{mark}"));
        }
        line
    }
}

/// What a row costs, of what another one does.
#[derive(Clone, Debug, PartialEq)]
struct Ratio {
    value: f64,
    limit: f64,
    of: &'static str,
}

impl Ratio {
    fn holds(&self) -> bool {
        self.value <= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(routes: u32, instructions: f64) -> Row {
        Row { kind: "cached".to_owned(), routes, instructions, allocations: 8.0, bytes: 1567.5 }
    }

    #[test]
    fn a_summary_is_divided_by_the_decisions() -> Result<(), String> {
        let metric = |each: u64| json!({"values": {"new": each * DECISIONS, "old": 1}});
        let summary = json!({"id": "cached_10000", "profiles": [
            {"tool": "DHAT", "data": {"total": {"metrics": {
                "TotalBlocks": metric(8), "TotalBytes": metric(1500)}}}},
            {"tool": "Callgrind", "data": {"total": {"metrics": {"Ir": metric(22_000)}}}},
        ]});
        let expected = Row { bytes: 1500.0, ..row(10_000, 22_000.0) };
        assert_eq!(Row::read(&summary.to_string())?, expected);
        assert!(Row::read("warning: something else").is_err());
        Ok(())
    }

    #[test]
    fn more_routes_may_cost_a_little_more() {
        let rows = [row(10, 1000.0), row(10_000, 1050.0), row(10_000, 1060.0)];
        let ratios = rows.each_ref().map(|row| row.ratio(&rows));
        assert_eq!(ratios.each_ref().map(|r| r.as_ref().map(|r| r.value)), [None, Some(1.05), Some(1.06)]);
        let fails = |nth: usize| rows[nth].show(ratios[nth].as_ref()).contains("FAIL");
        assert!(!fails(1) && fails(2));
    }

    #[test]
    fn a_shape_may_cost_three_times_a_plain_one() {
        let shaped = |kind: &str, instructions| Row { kind: kind.to_owned(), ..row(1, instructions) };
        let rows = [
            shaped("query_plain", 1000.0),
            shaped("query_pairs", 3000.0),
            shaped("query_plus", 3001.0),
            shaped("path_encoded", 9000.0),
        ];
        let holds = rows.each_ref().map(|row| row.ratio(&rows).map(|ratio| ratio.holds()));
        assert_eq!(holds, [None, Some(true), Some(false), None]);
    }
}
