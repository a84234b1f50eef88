//! What workers tell each other, and what is taken from somebody, while others fill whatever they
//! can.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use harness::control::until;
use serde_json::json;

use crate::load::{Dice, Script, drive};
use crate::pace::Ask;
use crate::provider::{Asker, Mood};
use crate::report::{Row, Tally};
use crate::stage::{Stage, wrong};
use crate::wire::{Reply, Wire};

/// Tokens that nobody has.
struct Invented;

impl Script for Invented {
    fn next(&self, _nth: u64, dice: &mut Dice, token: &mut String) {
        token.clear();
        // Writing to a string cannot fail.
        let _ = write!(token, "bad_{:016x}{:016x}", dice.roll(), dice.roll());
    }

    fn judge(&self, _token: &str, reply: &Reply) -> Result<&'static str, String> {
        if reply.invalid_token() { Ok("401") } else { Err(wrong(reply)) }
    }
}

fn flood(row: &mut Row, stage: &Stage, requests: u64, seed: u64) -> Result<(), String> {
    let mut wires = stage.many(64)?;
    let began = Instant::now();
    let tally = drive(&mut wires, requests, seed, &Invented)?;
    row.saw(format!("{} in {} s", tally.report(), began.elapsed().as_secs()));
    row.all("invented tokens", &tally, requests);
    Ok(())
}

/// Workers go on sharing what they know of good tokens, and that one is good no more.
///
/// The budget for new tokens would keep most of the flood away from the provider, and so from what
/// workers share; it is off here.
pub(crate) fn second_level(row: &mut Row) -> Result<(), String> {
    let stage = Stage::start(json!({
        "provider": {"timeout": "5s"},
        "cache": {"introspection": {"ttl": "2s", "stale_if_error": "1h"}},
        "budgets": {"new_tokens": "off"}
    }))?;
    flood(row, &stage, 60_000, 1)?;
    let mut wires = stage.even(2)?;
    let calls = stage.provider.introspections();
    let mut good = Tally::default();
    for number in 0..100 {
        let ask = Ask::get("/any", format!("tok_{}_profile", 2000 + number));
        for wire in &mut wires {
            let reply = wire.ask(&ask.text())?;
            good.count(if reply.serves(&ask.token) { Ok("200") } else { Err(wrong(&reply)) });
        }
    }
    let calls = stage.provider.introspections() - calls;
    row.saw(format!("100 good tokens at both workers: {}, {calls} introspections", good.report()));
    row.all("good tokens", &good, 200);
    row.must(calls == 100, || format!("{calls} introspections of 100 good tokens"));

    let ask = Ask::get("/any", "tok_3000_profile");
    for wire in &mut wires {
        let reply = wire.ask(&ask.text())?;
        row.must(reply.serves(&ask.token), || format!("before it is revoked: {}", wrong(&reply)));
    }
    stage.provider.revoke(&ask.token);
    let mut others = wires.split_off(1);
    until(|| Ok(wires[0].ask(&ask.text())?.invalid_token()))
        .map_err(|error| format!("the worker does not hear that the token is revoked: {error}"))?;
    flood(row, &stage, 120_000, 2)?;
    stage.provider.mood(Mood::Broken);
    stage.provider.mood_to(Asker::Probe, Mood::Broken);
    let mut later = Tally::default();
    for _ in 0..5 {
        let reply = others[0].ask(&ask.text())?;
        let is_refused = reply.invalid_token() || reply.unavailable(5);
        later.count(if is_refused { Ok("refused") } else { Err(wrong(&reply)) });
    }
    row.saw(format!("revoked at the one worker, at the other: {}", later.report()));
    row.all("the revoked token", &later, 5);
    // The provider does fail, and what is not revoked is served all the same.
    let lasting = Ask::get("/any", "tok_2099_profile");
    let reply = others[0].ask(&lasting.text())?;
    row.saw(format!("a lasting one {}", reply.status));
    row.must(reply.status == 200 && reply.body.contains("x-avnology-stale: true"), || {
        format!("a lasting one: {}", wrong(&reply))
    });
    stage.sound(row);
    Ok(())
}

/// The policy's `ttl` for permissions.
const TTL: Duration = Duration::from_secs(1);

/// How many permissions somebody loses.
const LOST: u64 = 50;

/// More questions than are asked here, answered or not.
const ENDLESS: u64 = 50_000;

/// Somebody loses permissions, and uses up his own budget so that nobody can be asked about them. It
/// is the default budget: 200 at once, and 50 a second.
pub(crate) fn own_budget(row: &mut Row) -> Result<(), String> {
    let stage = Stage::start(json!({
        "cache": {"introspection": {"ttl": "10m"}, "permissions": {"ttl": "1s", "stale_if_error": "1h"}}
    }))?;
    let wire = &mut stage.even(1)?[0];
    let token = "tok_5_profile";
    let mine = |number: u64| Ask::put(format!("/projects/mine_{number}"), token);
    for number in 0..LOST {
        let reply = wire.ask(&mine(number).text())?;
        row.must(reply.serves(token), || format!("before: {}", wrong(&reply)));
        stage.provider.revoke(&format!("mine_{number}"));
    }
    let granted = Instant::now();
    let mut number = 0;
    // Asks about others until he has nothing left.
    let mut spend = |wire: &mut Wire| -> Result<Reply, String> {
        loop {
            number += 1;
            let reply = wire.ask(&Ask::put(format!("/projects/other_{number}"), token).text())?;
            if reply.status != 200 {
                return Ok(reply);
            }
            if number > ENDLESS {
                return Err(format!("{number} questions about one subject, and his budget has no end"));
            }
        }
    };
    // What was heard has to be older than its lifetime.
    while granted.elapsed() < TTL + TTL / 5 {
        let last = spend(wire)?;
        row.must(last.unavailable(1), || format!("over his budget: {}", wrong(&last)));
    }
    let mut asked = Tally::default();
    for number in 0..LOST {
        spend(wire)?;
        let reply = wire.ask(&mine(number).text())?;
        asked.count(match () {
            () if reply.unavailable(1) => Ok("503"),
            // A moment came in which he had a question left, and it was this one.
            () if reply.status == 403 && reply.error() == "permission_denied" => Ok("403"),
            () => Err(wrong(&reply)),
        });
    }
    let spent = stage.decisions("deny.subject_budget");
    row.saw(format!("revoked, and over his budget: {}; {spent} × subject_budget", asked.report()));
    row.all("the revoked permissions", &asked, LOST);
    row.must(asked.of("503") > 0 && spent > 0, || "he was never over his budget".to_owned());
    until(|| Ok(wire.ask(&mine(0).text())?.error() == "permission_denied"))
        .map_err(|error| format!("he never hears of it: {error}"))?;
    stage.sound(row);
    Ok(())
}
