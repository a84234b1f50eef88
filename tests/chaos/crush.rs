//! Many at once who are all new: invented tokens, real users after a cold start, and a provider
//! that is just being replaced.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use harness::port::Reserved;
use serde_json::json;

use crate::pace::{Ask, Pace, burst, paced};
use crate::provider::Mood;
use crate::report::Row;
use crate::stage::{Stage, wrong};
use crate::wire::Reply;

/// How many tokens are invented.
const INVENTED: usize = 2000;

/// The provider's pace.
const LATE: Duration = Duration::from_millis(400);

/// How many tokens are known, each at every worker.
const KNOWN: u64 = 20;

/// Their holders ask so often, for so long.
const THROUGHOUT: Pace = Pace { per_second: 100, requests: 800 };

fn served(ask: &Ask, reply: &Reply) -> Result<&'static str, String> {
    if reply.serves(&ask.token) { Ok("200") } else { Err(format!("{}: {}", ask.path, wrong(reply))) }
}

fn known(nth: u64) -> Ask {
    Ask::get("/any", format!("tok_{}_profile", 1000 + nth % KNOWN))
}

/// Whoever invents a token is told so, or that there was no time to find out.
fn denied(ask: &Ask, reply: &Reply) -> Result<&'static str, String> {
    match () {
        () if reply.invalid_token() => Ok("401"),
        () if reply.unavailable(5) => Ok("503"),
        () => Err(format!("{}: {}", ask.path, wrong(reply))),
    }
}

fn any_or_open(nth: u64) -> &'static str {
    if nth.is_multiple_of(2) { "/any" } else { "/open" }
}

/// All invented tokens at once, while known ones grow old and are asked about.
pub(crate) fn invented(row: &mut Row, workers: u32) -> Result<(), String> {
    let stage = Stage::with(workers, json!({"cache": {"introspection": {"ttl": "2s"}}}))?;
    for wire in &mut stage.even(usize::try_from(workers).unwrap_or(1))? {
        for nth in 0..KNOWN {
            let ask = known(nth);
            let reply = wire.ask(&ask.text())?;
            row.must(reply.serves(&ask.token), || format!("before: {}", wrong(&reply)));
        }
    }
    // The probe has to wait like everybody.
    stage.provider.mood_to_all(Mood::Slow(LATE));
    let mut holders = stage.many(64)?;
    let mut inventors = stage.many(INVENTED)?;
    let (throughout, (crushed, sent)) = thread::scope(|scope| {
        let holding = scope.spawn(|| paced(&mut holders, THROUGHOUT, &known, &served));
        let name = |nth| Ask::get(any_or_open(nth), format!("bad_{nth}"));
        let crushed = burst(&mut inventors, &name, &denied)?;
        let throughout = holding.join().map_err(|_| "the holders panicked".to_owned())??;
        Ok::<_, String>((throughout, crushed))
    })?;
    row.saw(format!("invented, sent in {} ms: {}", sent.as_millis(), crushed.report()));
    row.saw(format!("known: {}", throughout.report()));
    row.all("invented tokens", &crushed.tally, 2000);
    row.must(crushed.tally.of("401") > 0, || "nobody was told that his token is not valid".to_owned());
    row.all("known tokens", &throughout.tally, THROUGHOUT.requests);
    // No decision takes longer than twice the timeout of 1 s.
    row.must(crushed.slowest < Duration::from_millis(2500), || format!("{:?}", crushed.slowest));
    // Whoever comes next and is real does not wait for them.
    let mut next = stage.many(16)?;
    let (after, _) = burst(&mut next, &|nth| Ask::get("/any", format!("tok_{nth}_profile")), &served)?;
    row.saw(format!("new ones after it: {}", after.report()));
    row.all("new ones after it", &after.tally, 16);
    row.saw(stage.all_decisions());
    stage.never_away(row);
    stage.sound(row);
    Ok(())
}

/// How many users come back at once.
const USERS: usize = 5000;

/// Nothing is known, and everybody comes.
pub(crate) fn cold_start(row: &mut Row) -> Result<(), String> {
    // What is to be shown is that there is room for all, and not how fast this machine is.
    let stage = Stage::start(json!({"provider": {"timeout": "3s"}}))?;
    stage.provider.mood_to_all(Mood::Slow(Duration::from_millis(20)));
    let mut wires = stage.many(USERS)?;
    let name = |nth| Ask::get("/any", format!("tok_{}_profile", 10_000 + nth));
    let (heard, sent) = burst(&mut wires, &name, &served)?;
    row.saw(format!("sent in {} ms: {}", sent.as_millis(), heard.report()));
    row.saw(stage.all_decisions());
    row.all("users", &heard.tally, 5000);
    stage.never_away(row);
    stage.sound(row);
    Ok(())
}

/// How many come while the provider is being replaced, and how often.
const CROWD: usize = 200;
const ROUNDS: u64 = 5;

/// One of two endpoints refuses connections, as in every rolling deploy.
pub(crate) fn rolling_deploy(row: &mut Row, retries: u64) -> Result<(), String> {
    let stage = Stage::start(json!({"provider": {"retries": retries}}))?;
    // Nobody listens there.
    let gone = Reserved::new(0).map_err(|error| format!("a port: {error}"))?;
    let endpoints: [SocketAddr; 2] = [stage.provider.stub.address, gone.address];
    stage.provider_at(&endpoints)?;
    let mut wires = stage.many(CROWD)?;
    let judge = |ask: &Ask, reply: &Reply| match served(ask, reply) {
        Err(_) if retries == 0 && reply.unavailable(5) => Ok("503"),
        other => other,
    };
    for round in 0..ROUNDS {
        let name = |nth| Ask::get(any_or_open(nth), format!("tok_{}_profile", 1000 * (round + 1) + nth));
        let (heard, _) = burst(&mut wires, &name, &judge)?;
        row.saw(heard.report());
        row.all("new tokens", &heard.tally, 200);
        row.must(heard.tally.of("200") > 0, || "nobody was served".to_owned());
    }
    row.saw(stage.all_decisions());
    let refused = stage.stat("cluster.avnology.upstream_cx_connect_fail");
    row.saw(format!("{refused} connections refused"));
    row.must(refused > 0, || "no connection was refused".to_owned());
    stage.never_away(row);
    stage.sound(row);
    Ok(())
}

/// How many new tokens meet a silent endpoint at once, and how often.
const TOGETHER: usize = 40;

/// One of two endpoints takes connections and says nothing; and then all that there is are slow.
pub(crate) fn silent_endpoint(row: &mut Row) -> Result<(), String> {
    let stage = Stage::start(json!({}))?;
    // The system takes its connections, and nobody ever reads from one.
    let silent = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let silent_at = silent.local_addr().map_err(|error| error.to_string())?;
    stage.provider_at(&[stage.provider.stub.address, silent_at])?;
    let mut wires = stage.many(TOGETHER)?;
    for round in 0..3 {
        let name = |nth| Ask::get(any_or_open(nth), format!("tok_{}_profile", 1000 * (round + 1) + nth));
        let (heard, _) = burst(&mut wires, &name, &served)?;
        row.saw(heard.report());
        row.all("new tokens", &heard.tally, 40);
    }
    // Envoy counts a try beside a silent one as a retry.
    let tried_again = stage.stat("cluster.avnology.upstream_rq_retry");
    row.saw(format!("{tried_again} tries beside a silent one"));
    row.must(tried_again > 0, || "the silent endpoint was never asked".to_owned());
    stage.provider_at(&[stage.provider.stub.address])?;
    stage.provider.mood_to_all(Mood::Slow(Duration::from_millis(700)));
    let mut wires = stage.many(CROWD)?;
    let name = |nth| Ask::get(any_or_open(nth), format!("tok_{}_profile", 9000 + nth));
    // Each waits for its turn too: 64 at once in a worker, and 700 ms of a deadline of 2 s.
    let (heard, _) = burst(&mut wires, &name, &served)?;
    row.saw(format!("at 700 ms: {}", heard.report()));
    row.all("new tokens of a slow provider", &heard.tally, 200);
    row.saw(stage.all_decisions());
    stage.never_away(row);
    stage.sound(row);
    Ok(())
}
