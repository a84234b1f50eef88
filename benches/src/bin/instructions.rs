//! What a decision costs the core, in instructions and allocations: `make instructions`.
//!
//! Runs the example `decide`, whose rows are counted by valgrind, and divides by the number of
//! decisions. Fails where ten thousand routes cost more than 1.05 times the instructions of ten.
//!
//! Usage: `instructions RUNNER`, the path of a `gungraun-runner`.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use avnology_benches::DECISIONS;
use serde_json::Value;

/// What ten thousand routes may cost, of what ten do.
const LIMIT: f64 = 1.05;

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
        let ratio = row.against_ten(&rows);
        holds &= ratio.is_none_or(|ratio| ratio <= LIMIT);
        println!("{}", row.show(ratio));
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
            let metric = |tool: &str, name: &str| {
                let mut tools = summary["profiles"].as_array()?.iter();
                let profile = tools.find(|profile| profile["tool"] == tool)?;
                let counted = profile["data"]["total"]["metrics"][name]["values"]["new"].as_f64()?;
                Some(counted / DECISIONS as f64)
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

    /// The instructions, of those of the same kind with ten routes.
    fn against_ten(&self, rows: &[Self]) -> Option<f64> {
        let ten = rows.iter().find(|row| row.kind == self.kind && row.routes == 10)?;
        (self.routes != 10).then_some(self.instructions / ten.instructions)
    }

    fn show(&self, ratio: Option<f64>) -> String {
        let Self { kind, routes, instructions, allocations, bytes } = self;
        let mut line = format!(
            "{kind}, {routes} routes: {instructions:.0} instructions a decision, \
             {allocations:.2} allocations of {bytes:.0} bytes together"
        );
        if let Some(ratio) = ratio {
            let mark = if ratio <= LIMIT { "" } else { ": FAIL" };
            line.push_str(&format!("; {ratio:.3} of ten routes' instructions, at most {LIMIT}{mark}"));
        }
        line
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
        let ratios = rows.each_ref().map(|row| row.against_ten(&rows));
        assert_eq!(ratios, [None, Some(1.05), Some(1.06)]);
        assert!(!rows[1].show(ratios[1]).contains("FAIL") && rows[2].show(ratios[2]).contains("FAIL"));
    }
}
