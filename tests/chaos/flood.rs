//! A flood of random tokens beside the steady use of a few good ones.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::load::{Dice, Script, drive};
use crate::report::{Row, Tally};
use crate::stage::{Stage, wrong};
use crate::wire::{Reply, Wire, request};

/// How many requests; `CHAOS_REQUESTS` names another number, for trying things out.
const REQUESTS: u64 = 1_000_000;

/// How many connections.
const CLIENTS: usize = 64;

/// The good tokens.
const VALID: u64 = 50;

/// One request in so many has a good one.
const ONE_IN: u64 = 20;

/// The policy's `ttl`: a flood is many times as long.
const TTL: Duration = Duration::from_secs(5);

/// The policy's budget for tokens that nobody has seen: enough to push everything out of a cache
/// that lets itself be pushed.
const PER_SECOND: u64 = 500;
const BURST: u64 = 1000;

/// What Envoy may grow in the second half.
const GROWTH_KIB: u64 = 8 * 1024;

struct Flood;

fn valid(number: u64) -> String {
    format!("tok_{}_profile", 1000 + number)
}

impl Script for Flood {
    fn next(&self, nth: u64, dice: &mut Dice, token: &mut String) {
        token.clear();
        if nth.is_multiple_of(ONE_IN) {
            *token = valid(dice.below(VALID));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(token, "tok_{:016x}{:016x}", dice.roll(), dice.roll());
        }
    }

    fn judge(&self, token: &str, reply: &Reply) -> Result<&'static str, String> {
        let known = token.contains("_profile");
        match () {
            () if known && reply.serves(token) => Ok("hits"),
            () if known && reply.unavailable(30) => Ok("misses"),
            () if !known && reply.invalid_token() => Ok("random 401"),
            () if !known && reply.unavailable(30) => Ok("random 503"),
            () => Err(format!("{} token: {}", if known { "a good" } else { "a random" }, wrong(reply))),
        }
    }
}

fn requests() -> Result<u64, String> {
    match std::env::var("CHAOS_REQUESTS") {
        Ok(text) => text.parse().map_err(|_| format!("CHAOS_REQUESTS is no number: {text}")),
        Err(_) => Ok(REQUESTS),
    }
}

/// Half of the flood, and the memory after it.
fn part(stage: &Stage, wires: &mut [Wire], requests: u64, seed: u64) -> Result<(Tally, u64), String> {
    let tally = drive(wires, requests, seed, &Flood)?;
    stage.idle()?;
    stage.provider_idle()?;
    Ok((tally, stage.memory()?))
}

pub(crate) fn flood(row: &mut Row) -> Result<(), String> {
    let requests = requests()?;
    let stage = Stage::start(json!({
        "cache": {"introspection": {"ttl": format!("{}s", TTL.as_secs())}},
        "budgets": {"new_tokens": {"per_second": PER_SECOND, "burst": BURST}}
    }))?;
    // Who is good is known before the flood, on both workers.
    for mut wire in stage.even(2)? {
        for token in (0..VALID).map(valid) {
            let reply = wire.ask(&request("GET", "/any", &token))?;
            row.must(reply.serves(&token), || format!("before the flood: {}", wrong(&reply)));
        }
    }
    let mut wires = stage.many(CLIENTS)?;
    let began = Instant::now();
    let (warm_up, at_first) = part(&stage, &mut wires, requests / 20, 1)?;
    let (mut tally, after_half) = part(&stage, &mut wires, requests / 2, 2)?;
    let (second, after_all) = part(&stage, &mut wires, requests - requests / 2, 3)?;
    let took = began.elapsed();
    tally.merge(second);
    judge(row, &tally, requests);
    row.must(warm_up.wrong.is_empty(), || format!("warm-up: {}", warm_up.report()));

    let mib = |kib: u64| format!("{}.{}", kib / 1024, kib % 1024 * 10 / 1024);
    row.saw(format!("Envoy {} → {} → {} MiB", mib(at_first), mib(after_half), mib(after_all)));
    row.must(after_all <= after_half + GROWTH_KIB, || {
        format!("Envoy grew from {} to {} MiB in the second half", mib(after_half), mib(after_all))
    });
    asked(row, &stage, took);
    stage.sound(row);
    Ok(())
}

fn judge(row: &mut Row, tally: &Tally, requests: u64) {
    let (hits, misses) = (tally.of("hits"), tally.of("misses"));
    let share = hits * 100_000 / (hits + misses).max(1);
    row.saw(format!("{} ({}.{:03} % hits)", tally.report(), share / 1000, share % 1000));
    row.all("answers", tally, requests);
    row.must(share >= 99_900 && hits > 0, || format!("{misses} of {} good tokens refused", hits + misses));
}

/// What the provider was asked: good tokens once in their TTL, or once per worker; random ones
/// within their budget.
fn asked(row: &mut Row, stage: &Stage, took: Duration) {
    let refreshes = (0..VALID).map(|number| stage.provider.of(&valid(number))).sum::<u64>();
    let random = stage.provider.introspections() - refreshes;
    let seconds = took.as_secs();
    row.saw(format!("{refreshes} introspections of good tokens and {random} of random ones in {seconds} s"));
    // Each is asked for many times a second, so that none is left alone for long after its end.
    let least = VALID * (1 + seconds / (TTL.as_secs() + 1));
    let most = 2 * VALID * (2 + seconds / TTL.as_secs());
    row.must((least..=most).contains(&refreshes), || {
        format!("{refreshes} introspections of good tokens, {least} to {most} are in order")
    });
    let budget = 2 * (BURST + PER_SECOND * (seconds + 1));
    row.must(random <= budget, || {
        format!("{random} introspections of random tokens, the budget is {budget}")
    });
}
