//! Webhook deliveries that begin and do not end, as anybody can send them who knows a path: what
//! they take, and what they leave to others.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use harness::control::until;
use hmac::{Hmac, Mac as _};
use serde_json::json;
use sha2::Sha256;

use crate::report::{Row, Tally};
use crate::stage::{Stage, WORKERS, wrong};
use crate::wire::{Reply, Wire, request};

/// The webhook that is flooded, and another one.
const FLOODED: (&str, &str) = ("/one", "whsec_the_secret_of_webhook_one");
const OTHER: (&str, &str) = ("/two", "whsec_the_secret_of_webhook_two");

/// The longest body of both.
const MAX_BODY: usize = 1_048_576;

/// How often the others ask, on each worker, while the flood stands.
const ROUNDS: u64 = 10;

/// How long the flood stands: the policy's `body_timeout`.
const STANDS: Duration = Duration::from_secs(15);

/// How soon the flooded webhook has to take a delivery again: a body gives way when it is a second
/// old.
const SOON: Duration = Duration::from_secs(3);

/// A known token.
const KNOWN: &str = "tok_10_profile";

/// The head of a delivery.
fn head(path: &str, signature: &str, length: usize, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: api.example.com\r\nx-avnology-signature: {signature}\r\n{more}content-length: {length}\r\n\r\n"
    )
}

/// The head of a delivery that nobody has signed.
fn forged(length: usize, more: &str) -> String {
    head(FLOODED.0, &"0".repeat(64), length, more)
}

/// A delivery that is signed.
fn signed((path, secret): (&str, &str), body: &str) -> Result<String, String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|error| error.to_string())?;
    mac.update(body.as_bytes());
    let mut hex = String::new();
    for byte in mac.finalize().into_bytes() {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(head(path, &hex, body.len(), "") + body)
}

/// A stage with both webhooks, and a connection to each worker for those who mean well.
fn stage(row: &mut Row) -> Result<(Stage, Vec<Wire>), String> {
    let webhook = |(_, secret): (&str, &str)| {
        let (longest, stands) = (MAX_BODY, format!("{}s", STANDS.as_secs()));
        json!({"format": "avnology", "secrets": [secret], "body_only": true, "max_body_bytes": longest, "body_timeout": stands})
    };
    let mut policy =
        crate::stage::policy(json!({"webhooks": {"one": webhook(FLOODED), "two": webhook(OTHER)}}));
    if let Some(routes) = policy["routes"].as_array_mut() {
        for (name, path) in [("one", FLOODED.0), ("two", OTHER.0)] {
            routes.push(json!({"match": {"methods": ["POST"], "path": path}, "webhook": name}));
        }
    }
    let stage = Stage::start(policy)?;
    let mut wires = stage.even(WORKERS as usize)?;
    for wire in &mut wires {
        let reply = wire.ask(&request("GET", "/any", KNOWN))?;
        row.must(reply.serves(KNOWN), || format!("before the flood: {}", wrong(&reply)));
    }
    Ok((stage, wires))
}

/// Asks, over a new connection where the old one is cut: who is refused before the body has been
/// sent is cut off.
fn ask(stage: &Stage, wire: &mut Wire, worker: u32, text: &str) -> Result<Reply, String> {
    wire.ask(text).or_else(|_| {
        *wire = stage.one(worker)?;
        wire.ask(text)
    })
}

/// While a flood stands since this moment: the others are served, and soon the flooded webhook is
/// too.
fn others(
    row: &mut Row,
    stage: &Stage,
    wires: &mut [Wire],
    stands_since: Instant,
    length: usize,
) -> Result<(), String> {
    let (other, flooded) = (signed(OTHER, &"y".repeat(length))?, signed(FLOODED, &"z".repeat(length))?);
    let mut tally = Tally::default();
    // Of two connections, each round has a new token for each.
    let mut number = 100;
    for _ in 0..ROUNDS {
        for (wire, worker) in wires.iter_mut().zip(0..) {
            number += 1;
            let new = format!("tok_{number}_profile");
            let mut count = |what: &'static str, text: &str, right: &dyn Fn(&Reply) -> bool| {
                let counted = match ask(stage, wire, worker, text) {
                    Ok(reply) if right(&reply) => Ok(what),
                    Ok(reply) => Err(format!("{what}: {}", wrong(&reply))),
                    Err(error) => Err(format!("{what}: {error}")),
                };
                tally.count(counted);
            };
            count("another webhook", &other, &|reply| reply.status == 200);
            count("known tokens", &request("GET", "/any", KNOWN), &|reply| reply.serves(KNOWN));
            count("new tokens", &request("GET", "/any", &new), &|reply| reply.serves(&new));
            count("permissions", &request("PUT", "/projects/p", KNOWN), &|reply| reply.serves(KNOWN));
        }
    }
    row.saw(tally.report());
    row.all("the others", &tally, 4 * ROUNDS * u64::from(WORKERS));
    for (wire, worker) in wires.iter_mut().zip(0..) {
        let mut last = String::new();
        let taken = until(|| {
            let reply = ask(stage, wire, worker, &flooded);
            last = reply.as_ref().map_or_else(Clone::clone, Reply::report);
            Ok(reply.is_ok_and(|reply| reply.status == 200))
        });
        taken.map_err(|error| format!("the flooded webhook, worker {worker}: {last}, {error}"))?;
        let took = stands_since.elapsed();
        row.saw(format!("the flooded one after {} ms", took.as_millis()));
        row.must(took <= SOON, || format!("the flooded webhook takes nothing for {took:?}"));
    }
    Ok(())
}

/// More heads than a worker has places, on each worker.
pub(crate) fn heads(row: &mut Row) -> Result<(), String> {
    let (stage, mut wires) = stage(row)?;
    flood(row, &stage, &mut wires, 11_000, "")
}

/// Fewer, with 54 KB of names each that the gate takes away.
pub(crate) fn names(row: &mut Row) -> Result<(), String> {
    let (stage, mut wires) = stage(row)?;
    let names: String = (0..90).map(|n| format!("x-avnology-{n}-{}: v\r\n", "a".repeat(575))).collect();
    flood(row, &stage, &mut wires, 2600, &names)
}

/// So many heads, each with the first of two bytes.
fn flood(
    row: &mut Row,
    stage: &Stage,
    others_wires: &mut [Wire],
    count: usize,
    more: &str,
) -> Result<(), String> {
    let mut wires = stage.many(count)?;
    let before = stage.requests();
    let began = Instant::now();
    let text = forged(2, more) + "x";
    for wire in &mut wires {
        wire.send(&text)?;
    }
    stage.arrived(before + u64::try_from(count).unwrap_or(u64::MAX))?;
    let stands_since = Instant::now();
    row.saw(format!("{count} heads in {} ms", began.elapsed().as_millis()));
    others(row, stage, others_wires, stands_since, 2)?;
    row.must(began.elapsed() < STANDS, || "the flood was over too soon".to_owned());
    drop(wires);
    stage.idle()?;
    stage.sound(row);
    Ok(())
}

/// 66 bodies on each worker whose last byte does not come: more than a worker holds.
pub(crate) fn bodies(row: &mut Row) -> Result<(), String> {
    const BODIES: u32 = 66;
    let (stage, mut others_wires) = stage(row)?;
    let mut wires = stage.even((BODIES * WORKERS) as usize)?;
    let received = || stage.stat("http.chaos.downstream_cx_rx_bytes_total");
    let before = received();
    let began = Instant::now();
    let text = forged(MAX_BODY, "") + &"x".repeat(MAX_BODY - 1);
    for wire in &mut wires {
        // Who is refused meanwhile cannot send the rest.
        let _ = wire.send(&text);
    }
    // All but one of the megabytes that a worker holds are the flooded webhook's to take.
    let full = u64::from(WORKERS) * 62 * 1_048_576;
    until(|| Ok(received() - before >= full)).map_err(|error| format!("not enough arrives: {error}"))?;
    let stands_since = Instant::now();
    row.saw(format!("{} MiB in {} ms", (received() - before) / 1_048_576, began.elapsed().as_millis()));
    // As long as may be: they do not come in one piece, and need their bytes.
    others(row, &stage, &mut others_wires, stands_since, MAX_BODY)?;
    row.must(began.elapsed() < STANDS, || "the flood was over too soon".to_owned());
    drop(wires);
    stage.idle()?;
    stage.sound(row);
    Ok(())
}
