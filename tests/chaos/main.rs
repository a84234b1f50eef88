//! What must hold when everything happens at once: a real Envoy with two workers, a provider that
//! misbehaves, and more clients than are welcome.
//!
//! `make chaos` runs this; `cargo test` alone does not. It takes minutes and both of a small
//! machine's processors. Every answer is judged: its status, its error, and what the service saw of
//! the caller. The last thing printed is a table; the exit code tells whether all rows pass.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "the lint wall is the core's: a test may panic, takes the time and tells what came of it"
)]

mod crowd;
mod faults;
mod flood;
mod hooks;
mod load;
mod provider;
mod report;
mod routes;
mod stage;
mod stub;
mod wire;

use std::process::ExitCode;
use std::time::Instant;

use faults::Outage;
use report::Row;

/// A scenario: its name, what it requires, and what it does.
type Scenario = (&'static str, &'static str, fn(&mut Row) -> Result<(), String>);

const OUTAGE: &str = "503 within deadline + 200 ms, then at once without a call; known tokens served, on_provider_error obeyed; all well 3 s later";

const HOOKS: &str = "another webhook, known tokens, new ones and permissions: all 200 meanwhile; the flooded webhook takes deliveries after 3 s at most";

const SCENARIOS: [Scenario; 12] = [
    (
        "one_new_token",
        "1,000 concurrent requests: 1,000 right answers, ≤ 2 introspections",
        crowd::one_new_token,
    ),
    (
        "everybody_leaves",
        "the answer is cached although every client of its flight has gone",
        crowd::everybody_leaves,
    ),
    (
        "two_routes",
        "one token on routes with different scopes: each decided apart, in both orders, cold, hot and in one flight; ≤ 2 introspections",
        routes::two_routes,
    ),
    ("provider_stopped", OUTAGE, |row| faults::outage(row, Outage::Stopped)),
    ("provider_late", OUTAGE, |row| faults::outage(row, Outage::Slow)),
    ("provider_reset_mid_body", OUTAGE, |row| faults::outage(row, Outage::Cut)),
    (
        "provider_429",
        "503 with its Retry-After, 30 s at most, within deadline + 200 ms; no call meanwhile, but refreshes; nobody is let in",
        faults::too_many,
    ),
    ("webhook_heads", HOOKS, hooks::heads),
    ("webhook_bodies", HOOKS, hooks::bodies),
    ("webhook_names", HOOKS, hooks::names),
    (
        "few_tokens",
        "100,000 requests over 1,000 tokens: all answers right, ≤ 1,050 introspections",
        crowd::few_tokens,
    ),
    (
        "flood",
        "1,000,000 random tokens: ≥ 99.9 % hits for good ones, across their TTL; second half ≤ first + 8 MiB",
        flood::flood,
    ),
];

fn main() -> ExitCode {
    // Scenarios whose names contain one of the words; options are cargo's own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let chosen = SCENARIOS
        .iter()
        .filter(|(name, ..)| words.is_empty() || words.iter().any(|word| name.contains(word.as_str())));
    let mut rows = Vec::new();
    for (name, required, run) in chosen {
        let began = Instant::now();
        eprint!("{name} ... ");
        let mut row = Row::new(name, required);
        // One after the other: they measure times and memory.
        if let Err(problem) = run(&mut row) {
            row.fails(problem);
        }
        eprintln!("{} ({} s)", if row.failed() { "FAIL" } else { "pass" }, began.elapsed().as_secs());
        eprint!("{}", row.problems());
        rows.push(row);
    }
    println!("\n{}", report::table(&rows));
    if rows.is_empty() || rows.iter().any(Row::failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
