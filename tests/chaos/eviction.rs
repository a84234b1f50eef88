//! Events that end what the gate knows about somebody: how soon each worker refuses, also where an
//! answer from before the event is still to come.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::standin;
use serde_json::{Value, json};

use crate::pace::Ask;
use crate::provider::Mood;
use crate::report::{Row, Tally};
use crate::stage::{Stage, WORKERS, wrong};
use crate::wire::{Reply, Wire};

const SECRET: &str = "whsec_the_secret_of_who_tells_events";

/// How soon after an event every worker has to heed it.
const SOON: Duration = Duration::from_millis(500);

/// How often a client asks meanwhile.
const PAUSE: Duration = Duration::from_millis(5);

const ROUNDS: u64 = 20;

/// Somebody about whom there is no event.
const OTHER: &str = "tok_1_profile";

/// Delivers an event about a subject.
fn deliver(wire: &mut Wire, kind: &str, data: &Value) -> Result<Reply, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let body = json!({"type": kind, "data": data}).to_string();
    let signature = standin::sign(SECRET, now, body.as_bytes());
    wire.ask(&format!(
        "POST /events HTTP/1.1\r\nhost: api.example.com\r\nx-avnology-timestamp: {now}\r\nx-avnology-signature: {signature}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// Asks until the answer is the right one, and returns how long after the event it was asked for.
/// Until then the service must be reached as before.
fn heeded(
    wire: &mut Wire,
    ask: &Ask,
    since: Instant,
    refused: impl Fn(&Reply) -> bool,
) -> Result<Duration, String> {
    loop {
        let asked = since.elapsed();
        let reply = wire.ask(&ask.text())?;
        if refused(&reply) {
            return Ok(asked);
        }
        if !reply.serves(&ask.token) {
            return Err(wrong(&reply));
        }
        if asked > SOON * 4 {
            return Err(format!("{} is served {} ms after the event", ask.path, asked.as_millis()));
        }
        // The pace is the load, and no condition.
        thread::sleep(PAUSE);
    }
}

fn denied(reply: &Reply) -> bool {
    reply.status == 403 && reply.error() == "permission_denied"
}

/// Both workers know these answers.
fn known(row: &mut Row, wires: &mut [Wire], ask: &Ask) -> Result<(), String> {
    for wire in wires {
        for _ in 0..2 {
            let reply = wire.ask(&ask.text())?;
            row.must(reply.serves(&ask.token), || format!("before the event: {}", wrong(&reply)));
        }
    }
    Ok(())
}

/// Who is disabled, and who loses a permission: 20 rounds of each.
pub(crate) fn eviction(row: &mut Row) -> Result<(), String> {
    let mut policy = crate::stage::policy(json!({
        "provider": {"timeout": "10s"},
        "cache": {"introspection": {"ttl": "1h"}, "permissions": {"ttl": "1h"}},
        "webhooks": {"events": {"format": "avnology", "secrets": [SECRET], "replay": {}, "evict": true}}
    }));
    if let Some(routes) = policy["routes"].as_array_mut() {
        routes.push(json!({"match": {"methods": ["POST"], "path": "/events"}, "webhook": "events"}));
    }
    let stage = Stage::start(policy)?;
    let mut wires = stage.even(WORKERS as usize)?;
    let others = [Ask::get("/any", OTHER), Ask::put("/projects/other".to_owned(), OTHER)];
    for ask in &others {
        known(row, &mut wires, ask)?;
    }
    let calls = || (stage.provider.of(OTHER), stage.provider.of("other"));
    let before = calls();

    let mut slowest = Duration::ZERO;
    for round in 0..ROUNDS {
        let teller = usize::try_from(round % u64::from(WORKERS)).unwrap_or(0);
        let (user, object) = (100 + round, format!("mine_{round}"));
        let token = format!("tok_{user}_profile");
        let (any, mine) = (Ask::get("/any", &token), Ask::put(format!("/projects/{object}"), &token));
        known(row, &mut wires, &any)?;
        known(row, &mut wires, &mine)?;
        for (kind, data, revoked, ask, refused) in [
            (
                "permission.revoked",
                json!({"subject": format!("identities:usr_{user}")}),
                &object,
                &mine,
                denied as fn(&Reply) -> bool,
            ),
            ("user.disabled", json!({"id": format!("usr_{user}")}), &token, &any, Reply::invalid_token),
        ] {
            stage.provider.revoke(revoked);
            let reply = deliver(&mut wires[teller], kind, &data)?;
            let since = Instant::now();
            row.must(reply.status == 200, || format!("{kind}: {}", wrong(&reply)));
            let reply = wires[teller].ask(&ask.text())?;
            row.must(refused(&reply), || format!("{kind}, at the worker that took it: {}", wrong(&reply)));
            for wire in &mut wires {
                slowest = slowest.max(heeded(wire, ask, since, refused)?);
            }
        }
    }
    row.saw(format!("the last one refuses after {} ms in the worst of {ROUNDS} rounds", slowest.as_millis()));
    row.must(slowest <= SOON, || format!("a worker goes on for {} ms", slowest.as_millis()));

    let mut late = Tally::default();
    for round in 0..ROUNDS / 4 {
        in_flight(row, &stage, &mut wires, 200 + round, &mut late)?;
    }
    row.saw(format!("from before the event, and after it: {}", late.report()));
    row.all("answers that come after the event", &late, ROUNDS / 4 * u64::from(WORKERS) * 3);

    for ask in &others {
        known(row, &mut wires, ask)?;
    }
    let after = calls();
    row.saw(format!("{} calls about another one", after.0 - before.0 + after.1 - before.1));
    row.must(before == after, || format!("calls about another one: {before:?}, then {after:?}"));
    stage.sound(row);
    Ok(())
}

/// On each worker an introspection is under way that started before the event, and whose answer is
/// from before it.
fn in_flight(
    row: &mut Row,
    stage: &Stage,
    wires: &mut [Wire],
    user: u64,
    late: &mut Tally,
) -> Result<(), String> {
    let slow = Ask::get("/any", format!("tok_{user}_profile"));
    // Shows when a worker has heard of the event.
    let quick = Ask::get("/any", format!("tok_{user}_admin"));
    known(row, wires, &quick)?;
    stage.provider.spare(&quick.token);
    stage.provider.mood(Mood::Held);
    let mut first = stage.even(wires.len())?;
    let began = stage.provider.introspections();
    for (wire, nth) in first.iter_mut().zip(0..) {
        wire.send(&slow.text())?;
        stage.provider.more_than(began + nth)?;
    }
    stage.provider.revoke(&slow.token);
    stage.provider.revoke(&quick.token);
    let reply = deliver(&mut wires[0], "user.disabled", &json!({"id": format!("usr_{user}")}))?;
    let since = Instant::now();
    row.must(reply.status == 200, || format!("the event: {}", wrong(&reply)));
    for wire in wires.iter_mut() {
        let heard = heeded(wire, &quick, since, Reply::invalid_token)?;
        row.must(heard <= SOON, || format!("a worker hears of it after {} ms", heard.as_millis()));
    }
    let arrived = stage.requests() + u64::from(WORKERS);
    for wire in wires.iter_mut() {
        wire.send(&slow.text())?;
    }
    stage.arrived(arrived)?;
    stage.provider.mood(Mood::Well);
    for wire in &mut first {
        let reply = wire.answer()?;
        late.count(if reply.serves(&slow.token) { Ok("200, who waited") } else { Err(wrong(&reply)) });
    }
    let mut refuses = |reply: &Reply, kind| {
        late.count(if reply.invalid_token() { Ok(kind) } else { Err(wrong(reply)) });
    };
    for wire in wires.iter_mut() {
        refuses(&wire.answer()?, "401, who came later");
    }
    for wire in wires {
        refuses(&wire.ask(&slow.text())?, "401, after that");
    }
    Ok(())
}
