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
mod crush;
mod eviction;
mod faults;
mod flood;
mod hooks;
mod load;
mod pace;
mod poison;
mod provider;
mod report;
mod routes;
mod second;
mod stage;
mod stub;
mod wire;

use std::process::ExitCode;
use std::time::Instant;

use faults::Outage;
use provider::Mood;
use report::Row;

/// A scenario: its name, what it requires, and what it does.
type Scenario = (&'static str, &'static str, fn(&mut Row) -> Result<(), String>);

const OUTAGE: &str = "503 within deadline + 200 ms; away within 1 s (silent: 3 × timeout + 1 s) of the first failed call, with nobody else asking; then 503 at once without a call; known tokens served, on_provider_error obeyed; back within 2 s + timeout";

const HOOKS: &str = "another webhook, known tokens, new ones and permissions: all 200 meanwhile; the flooded webhook takes deliveries after 3 s at most";

const POISON: &str = "one caller, 50 times a second for 30 s each: a token on which the provider fails, 50 of them, 50 objects: none passes, 0 of 3,000 requests of others refused, breaker shut";

const INVENTED: &str =
    "2,000 at once, provider at 400 ms: none passes, known tokens served throughout, breaker shut";

const SELDOM: &str = "one request every 3 s: the first one is opened, the next ones are decided at once; back within 2 s + timeout";

const SCENARIOS: &[Scenario] = &[
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
    ("provider_without_endpoints", OUTAGE, |row| faults::outage(row, Outage::Emptied)),
    ("provider_silent", OUTAGE, |row| faults::outage(row, Outage::Silent)),
    ("provider_late", OUTAGE, |row| faults::outage(row, Outage::Slow)),
    ("provider_reset_mid_body", OUTAGE, |row| faults::outage(row, Outage::Cut)),
    ("provider_stopped_seldom_asked", SELDOM, |row| faults::seldom(row, Outage::Stopped)),
    ("provider_without_endpoints_seldom_asked", SELDOM, |row| faults::seldom(row, Outage::Emptied)),
    (
        "provider_429",
        "503 with its Retry-After, 30 s at most, within deadline + 200 ms; no call meanwhile, but refreshes; nobody is let in",
        faults::too_many,
    ),
    ("webhook_heads", HOOKS, hooks::heads),
    ("webhook_bodies", HOOKS, hooks::bodies),
    ("webhook_names", HOOKS, hooks::names),
    ("poison_500_at_2_workers", POISON, |row| poison::poisoned(row, 2, Mood::Broken)),
    ("poison_500_at_8_workers", POISON, |row| poison::poisoned(row, 8, Mood::Broken)),
    ("poison_hang_at_2_workers", POISON, |row| poison::poisoned(row, 2, Mood::Held)),
    ("poison_hang_at_8_workers", POISON, |row| poison::poisoned(row, 8, Mood::Held)),
    (
        "probe_answered_500",
        "never away for a probe that is answered 500 from the start; away when it is gone",
        poison::probe_answered_500,
    ),
    ("invented_tokens_at_2_workers", INVENTED, |row| crush::invented(row, 2)),
    ("invented_tokens_at_8_workers", INVENTED, |row| crush::invented(row, 8)),
    (
        "rolling_deploy",
        "one of two endpoints refuses, 200 new tokens at once: nobody refused, nobody opened, breaker shut",
        |row| crush::rolling_deploy(row, 1),
    ),
    ("rolling_deploy_without_retries", "the same: nobody opened, breaker shut", |row| {
        crush::rolling_deploy(row, 0)
    }),
    (
        "silent_endpoint",
        "one of two endpoints says nothing: 0 of 40 new tokens at once refused, three times; a provider at 700 ms: all 200 served",
        crush::silent_endpoint,
    ),
    ("cold_start", "5,000 users at once, provider at 20 ms: 0 × 503", crush::cold_start),
    (
        "own_budget",
        "over his own budget, nobody keeps a permission that was taken from him",
        second::own_budget,
    ),
    (
        "second_level",
        "after 60,000 invented tokens 100 new ones cost 100 introspections at two workers; after 120,000 more a revoked one is not served stale",
        second::second_level,
    ),
    (
        "eviction",
        "500 ms after a verified event at the most both workers refuse a user, or a permission, that they have cached for 1 h; an answer that is under way is for who waited; 0 calls about another user",
        eviction::eviction,
    ),
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
