//! Many who ask the same at the same time, all who leave, and many who ask for few.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::load::{Dice, Script, drive};
use crate::provider::Mood;
use crate::report::{Row, Tally};
use crate::stage::{Stage, at_once, judge, wrong};
use crate::wire::{Reply, request};

/// How many ask at the same time.
const CROWD: usize = 1000;

/// Whether an answer is right.
type Right = fn(&Reply) -> bool;

/// A new token, for everybody at once: one that holds, one that does not, one of which nothing is
/// heard in time, and one that holds while there is no service to go to. However a crowd leaves, it
/// leaves at once, and the module must survive that.
pub(crate) fn one_new_token(row: &mut Row) -> Result<(), String> {
    // Nobody's deadline passes while everybody arrives.
    let stage = Stage::start(json!({"provider": {"timeout": "3s", "retries": 0}}))?;
    let served: Right = |reply| reply.serves("tok_1_profile");
    crowd(row, &stage, "tok_1_profile", true, "served as usr_1", served)?;
    crowd(row, &stage, "tok_off", true, "401 invalid_token", Reply::invalid_token)?;
    crowd(row, &stage, "tok_2_profile", false, "503 provider_unavailable", |reply| reply.unavailable(5))?;
    stage.service_goes()?;
    crowd(row, &stage, "tok_3_profile", true, "503 of Envoy's own", |reply| {
        reply.status == 503 && reply.body == "no healthy upstream"
    })?;
    stage.sound(row);
    Ok(())
}

/// A thousand ask with this token and wait until all are there; then the provider answers, or does
/// not.
fn crowd(
    row: &mut Row,
    stage: &Stage,
    token: &str,
    answers: bool,
    kind: &'static str,
    right: Right,
) -> Result<(), String> {
    let mut wires = stage.many(CROWD)?;
    let before = stage.requests();
    stage.provider.mood(Mood::Held);
    let text = request("GET", "/any", token);
    let began = Instant::now();
    for wire in &mut wires {
        wire.send(&text)?;
    }
    stage.arrived(before + 1000)?;
    if answers {
        stage.provider.mood(Mood::Well);
    }
    let mut tally = Tally::default();
    for wire in &mut wires {
        let reply = wire.answer()?;
        tally.count(if right(&reply) { Ok(kind) } else { Err(wrong(&reply)) });
    }
    let took = began.elapsed();
    stage.provider.mood(Mood::Well);
    let calls = stage.provider.of(token);
    row.saw(format!("{}, {calls} introspections", tally.report()));
    row.all(token, &tally, 1000);
    row.must((1..=2).contains(&calls), || format!("{token}: {calls} introspections"));
    // The first one's deadline is the flight's, and the last one's is not much later.
    row.must(took < Duration::from_secs(4), || format!("{token}: all answers took {took:?}"));
    if let Err(problem) = stage.envoy.sound() {
        row.fails(format!("after {token}: {problem}"));
    }
    Ok(())
}

/// Whoever waits for an answer leaves before it comes. Whoever asks later gets it all the same.
pub(crate) fn everybody_leaves(row: &mut Row) -> Result<(), String> {
    let stage = Stage::start(json!({"provider": {"timeout": "10s"}}))?;
    let token = "tok_2_profile";
    let mut wires = stage.many(CROWD)?;
    stage.provider.mood(Mood::Held);
    for wire in &mut wires {
        wire.send(&request("GET", "/any", token))?;
    }
    stage.arrived(1000)?;
    stage.provider.more_than(0)?;
    drop(wires);
    stage.idle()?;
    stage.provider.mood(Mood::Well);
    stage.provider_idle()?;
    let asked = stage.provider.of(token);
    let mut later = stage.even(40)?;
    let replies = at_once(&mut later, |_| ("GET", "/any", token.to_owned()))?;
    let tally = judge(&replies, "served as usr_2", |_, reply| reply.serves(token));
    let calls = stage.provider.of(token);
    row.saw(format!(
        "1,000 left, {asked} introspections under way; later {}, {} introspections more",
        tally.report(),
        calls - asked
    ));
    row.all("later", &tally, 40);
    row.must((1..=2).contains(&asked), || format!("{asked} introspections for those who left"));
    row.must(calls == asked, || format!("{} introspections more for those who came later", calls - asked));
    stage.sound(row);
    Ok(())
}

/// A hundred thousand requests over a thousand tokens.
pub(crate) fn few_tokens(row: &mut Row) -> Result<(), String> {
    struct Thousand;
    impl Script for Thousand {
        fn next(&self, _nth: u64, dice: &mut Dice, token: &mut String) {
            *token = format!("tok_{}_profile", dice.below(1000));
        }
        fn judge(&self, token: &str, reply: &Reply) -> Result<&'static str, String> {
            if reply.serves(token) { Ok("served as who they are") } else { Err(wrong(reply)) }
        }
    }
    // Nothing ends while this runs.
    let cache = json!({"introspection": {"ttl": "10m"}});
    let stage = Stage::start(json!({"cache": cache, "provider": {"timeout": "5s"}}))?;
    let mut wires = stage.many(32)?;
    let began = Instant::now();
    let tally = drive(&mut wires, 100_000, 1, &Thousand)?;
    let took = began.elapsed().max(Duration::from_millis(1));
    let calls = stage.provider.introspections();
    row.saw(format!("{} in {} s, {calls} introspections", tally.report(), took.as_secs()));
    row.all("answers", &tally, 100_000);
    row.must((1000..=1050).contains(&calls), || format!("{calls} introspections"));
    stage.sound(row);
    Ok(())
}
