//! A caller who knows tokens and objects on which the provider fails: nobody else notices, and he
//! passes nowhere.

use std::thread;

use serde_json::{Value, json};

use crate::pace::{Ask, Heard, Pace, paced};
use crate::provider::{Asker, Mood};
use crate::report::Row;
use crate::stage::{Stage, wrong};
use crate::wire::Reply;

/// How long each attack lasts, in seconds; `CHAOS_SECONDS` names another time, for trying things out.
const SECONDS: u64 = 30;

/// How often the caller sends one of his requests.
const ATTACKS: u64 = 50;

/// His connections: none of them waits for a timeout when its next request is due.
const ATTACKERS: usize = 150;

/// How often the others ask.
const OTHERS: u64 = 100;

/// Their connections.
const CLIENTS: usize = 32;

/// His own token, and a good one.
const CALLER: &str = "tok_66_profile";

/// What he may be after.
const ROUTES: [&str; 3] = ["any", "open", "stale"];
const PROJECTS: [&str; 3] = ["projects", "open-projects", "stale-projects"];

fn seconds() -> Result<u64, String> {
    match std::env::var("CHAOS_SECONDS") {
        Ok(text) => text.parse().map_err(|_| format!("CHAOS_SECONDS is no number: {text}")),
        Err(_) => Ok(SECONDS),
    }
}

/// Routes that refuse in an outage, that open, and that take what is too old. All budgets are the
/// default ones.
pub(crate) fn routes() -> Value {
    let project = json!({"permissions": {"all": [{"relation": "editor", "object": "project:{path.id}"}]}});
    let stale = json!({"introspection": {"stale_if_error": "1h"}, "permissions": {"stale_if_error": "1h"}});
    let put = |path: &str| json!({"methods": ["PUT"], "path": path});
    json!([
        {"name": "any", "match": {"path": "/any"}},
        {"name": "open", "match": {"path": "/open"}, "on_provider_error": "allow"},
        {"name": "stale", "match": {"path": "/stale"}, "cache": stale},
        {"name": "project", "match": put("/projects/{id}"), "require": project},
        {"name": "open-project", "match": put("/open-projects/{id}"), "require": project,
         "on_provider_error": "allow"},
        {"name": "stale-project", "match": put("/stale-projects/{id}"), "require": project, "cache": stale}
    ])
}

/// What he sends.
#[derive(Clone, Copy, Debug)]
enum Attack {
    /// One token.
    Token,
    /// Fifty tokens in rotation.
    Tokens,
    /// His own token, and fifty objects in rotation.
    Objects,
}

impl Attack {
    fn ask(self, nth: u64) -> Ask {
        let place = usize::try_from(nth).unwrap_or(0) % 3;
        let (route, number) = (format!("/{}", ROUTES[place]), nth % 50);
        match self {
            Self::Token => Ask::get(&route, "poison"),
            Self::Tokens => Ask::get(&route, format!("poison_{number}")),
            Self::Objects => Ask::put(format!("/{}/poison_{number}", PROJECTS[place]), CALLER),
        }
    }
}

/// He is refused, whatever the route does in an outage.
fn refused(ask: &Ask, reply: &Reply) -> Result<&'static str, String> {
    if reply.unavailable(5) { Ok("503") } else { Err(format!("{}: {}", ask.path, wrong(reply))) }
}

/// The others: every second one of them is new, and all routes are asked for. Each round has new
/// ones.
fn other(round: u64, nth: u64) -> Ask {
    let is_new = nth % 2 == 1;
    let place = usize::try_from(nth / 2).unwrap_or(0);
    let number = if is_new { 1_000_000 * (round + 1) + nth } else { 1000 + nth % 20 };
    let token = format!("tok_{number}_profile");
    match place % 6 {
        place @ 0..3 => Ask::get(&format!("/{}", ROUTES[place]), token),
        place => Ask::put(format!("/{}/good_{}", PROJECTS[place - 3], number % 100), token),
    }
}

fn served(ask: &Ask, reply: &Reply) -> Result<&'static str, String> {
    if reply.serves(&ask.token) { Ok("200") } else { Err(format!("{}: {}", ask.path, wrong(reply))) }
}

/// The attack, and the others meanwhile.
fn play(stage: &Stage, attack: Attack, round: u64, seconds: u64) -> Result<(Heard, Heard), String> {
    let mut attackers = stage.many(ATTACKERS)?;
    let mut clients = stage.many(CLIENTS)?;
    let attacks = Pace { per_second: ATTACKS, requests: ATTACKS * seconds };
    let others = Pace { per_second: OTHERS, requests: OTHERS * seconds };
    thread::scope(|scope| {
        let attacking = scope.spawn(|| paced(&mut attackers, attacks, &|nth| attack.ask(nth), &refused));
        let asking = paced(&mut clients, others, &|nth| other(round, nth), &served);
        let attacked = attacking.join().map_err(|_| "the attack panicked".to_owned())?;
        Ok((attacked?, asking?))
    })
}

/// All three attacks, one after the other.
pub(crate) fn poisoned(row: &mut Row, workers: u32, mood: Mood) -> Result<(), String> {
    let seconds = seconds()?;
    let stage = Stage::with(
        workers,
        json!({
            "routes": routes(),
            "cache": {"introspection": {"ttl": "2s"}, "permissions": {"ttl": "2s"}}
        }),
    )?;
    for (round, attack) in (0..).zip([Attack::Token, Attack::Tokens, Attack::Objects]) {
        stage.provider.mood_to(Asker::Poisoner, mood);
        let (attacked, asked) = play(&stage, attack, round, seconds)?;
        // What is held is let go.
        stage.provider.mood_to(Asker::Poisoner, Mood::Well);
        row.saw(format!("{attack:?}: he {}; others {}", attacked.report(), asked.report()));
        row.all(&format!("{attack:?}: he"), &attacked.tally, ATTACKS * seconds);
        row.all(&format!("{attack:?}: others"), &asked.tally, OTHERS * seconds);
    }
    let calls: u64 = (0..50).map(|number| stage.provider.of(&format!("poison_{number}"))).sum();
    row.saw(format!(
        "{} calls about the one token, {calls} about the others and the objects; {} probes",
        stage.provider.of("poison"),
        stage.provider.probes()
    ));
    row.must(stage.provider.probes() > 0, || "the gate did not probe".to_owned());
    stage.never_away(row);
    stage.sound(row);
    Ok(())
}

/// A provider that answers 500 to the probe, and always did, is there all the same; where it is
/// really gone, that is found out.
pub(crate) fn probe_answered_500(row: &mut Row) -> Result<(), String> {
    let seconds = seconds()?.min(10);
    let stage = Stage::start(json!({"routes": routes(), "cache": {"introspection": {"ttl": "2s"}}}))?;
    stage.provider.mood_to(Asker::Probe, Mood::Broken);
    stage.provider.mood_to(Asker::Poisoner, Mood::Broken);
    let (attacked, asked) = play(&stage, Attack::Tokens, 0, seconds)?;
    row.saw(format!("he {}; others {}", attacked.report(), asked.report()));
    row.all("he", &attacked.tally, ATTACKS * seconds);
    row.all("others", &asked.tally, OTHERS * seconds);
    let probes = stage.provider.probes();
    row.saw(format!("{probes} probes answered 500"));
    // The first use, and one a second for each of two endpoints at each of two workers, at the most.
    row.must(probes > 4, || format!("{probes} probes"));
    row.must(probes <= 4 * (seconds * 5 / 4 + 2), || format!("{probes} probes in {seconds} s"));
    stage.never_away(row);
    stage.provider.stub.stop();
    for wire in &mut stage.even(2)? {
        let reply = wire.ask(&Ask::get("/open", "tok_77_profile").text())?;
        row.must(reply.opened(), || format!("when it is gone: {}", reply.report()));
    }
    row.saw("opened when it is gone".to_owned());
    stage.provider.stub.resume()?;
    stage.sound(row);
    Ok(())
}
