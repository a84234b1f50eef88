//! The provider is stopped, has no address, is silent, late, breaks off, or has had enough: the
//! answers of the contract, in time.

use std::time::{Duration, Instant};

use harness::control::until;
use serde_json::json;

use crate::provider::Mood;
use crate::report::Row;
use crate::stage::{Stage, at_once, judge};
use crate::wire::{Reply, Wire, request};

/// The policy's `timeout`: each decision here waits for one callout at most.
const TIMEOUT: Duration = Duration::from_millis(500);

/// What an answer may take beyond its deadline.
const GRACE: Duration = Duration::from_millis(200);

/// The longest time between two probes is 1.2 s, so this is the most that a caller is told to wait,
/// in seconds.
const RETRY: u64 = 2;

/// How long after the provider's return everybody is served again.
const BACK: Duration = Duration::from_secs(2).saturating_add(TIMEOUT);

/// How many ask at once, half of them on each worker.
const CLIENTS: usize = 16;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    Stopped,
    Emptied,
    Silent,
    Slow,
    Cut,
}

impl Outage {
    fn begin(self, stage: &Stage) -> Result<(), String> {
        match self {
            Self::Stopped => stage.provider.stub.stop(),
            Self::Emptied => stage.provider_at(&[])?,
            Self::Silent => stage.provider.mood_to_all(Mood::Held),
            Self::Slow => stage.provider.mood_to_all(Mood::Slow(TIMEOUT * 4)),
            Self::Cut => stage.provider.mood_to_all(Mood::Cut),
        }
        Ok(())
    }

    fn end(self, stage: &Stage) -> Result<(), String> {
        stage.provider.mood_to_all(Mood::Well);
        match self {
            Self::Stopped => stage.provider.stub.resume(),
            Self::Emptied => stage.provider_at(&[stage.provider.stub.address]),
            Self::Silent | Self::Slow | Self::Cut => Ok(()),
        }
    }

    /// How long after the first failed call has begun a worker knows that the provider is away.
    fn known_within(self) -> Duration {
        match self {
            // The call, a probe and another one wait in vain.
            Self::Silent | Self::Slow => TIMEOUT * 3 + Duration::from_secs(1),
            Self::Stopped | Self::Emptied | Self::Cut => Duration::from_secs(1),
        }
    }
}

/// New names at each call.
struct Tokens(u64);

impl Tokens {
    fn fresh(&mut self) -> impl Fn(usize) -> String + Sync + use<> {
        self.0 += 1;
        let round = self.0;
        move |nth| format!("tok_{}_profile", round * 100 + u64::try_from(nth).unwrap_or(0))
    }
}

fn slowest(replies: &[Reply]) -> Duration {
    replies.iter().map(|reply| reply.took).max().unwrap_or_default()
}

/// A round of questions, judged: what they are called, how long they may take, and what each answer
/// must be.
struct Round {
    about: &'static str,
    within: Duration,
    method: &'static str,
    path: &'static str,
}

impl Round {
    fn ask(
        &self,
        row: &mut Row,
        wires: &mut [Wire],
        token: impl Fn(usize) -> String + Sync,
        right: impl Fn(&str, &Reply) -> bool,
    ) -> Result<(), String> {
        let replies = at_once(wires, |nth| (self.method, self.path, token(nth)))?;
        let tally = judge(&replies, "right", |nth, reply| right(&token(nth), reply));
        let (about, took) = (self.about, slowest(&replies));
        row.saw(format!("{about}: {} in {} ms", tally.report(), took.as_millis()));
        row.all(about, &tally, u64::try_from(wires.len()).unwrap_or(0));
        row.must(took <= self.within, || format!("{about}: the slowest answer took {took:?}"));
        Ok(())
    }
}

/// A real outage: refused in time, and once each worker knows of it, at once; who is known gets in
/// all the while; afterwards everybody does.
pub(crate) fn outage(row: &mut Row, outage: Outage) -> Result<(), String> {
    let stage = Stage::start(json!({
        "provider": {"timeout": "500ms", "retries": 1},
        "cache": {"introspection": {"ttl": "5m"}}
    }))?;
    let mut wires = stage.even(CLIENTS)?;
    let mut tokens = Tokens(0);
    let known = |_| "tok_10_profile".to_owned();
    let round = |about, within, method, path| Round { about, within, method, path };
    let in_time = TIMEOUT + GRACE;
    let unavailable = |_: &str, reply: &Reply| reply.unavailable(RETRY);
    let serves = |token: &str, reply: &Reply| reply.serves(token);
    round("before", in_time, "GET", "/any").ask(row, &mut wires, known, serves)?;
    round("new before", in_time, "GET", "/any").ask(row, &mut wires, tokens.fresh(), serves)?;

    outage.begin(&stage)?;
    for wire in wires.iter_mut().take(2) {
        first_failure(row, &stage, wire, &tokens.fresh()(0), outage)?;
    }
    let calls = stage.provider.introspections();
    let open = stage.decisions("deny.circuit_open");
    round("breaker open", GRACE, "GET", "/any").ask(row, &mut wires, tokens.fresh(), unavailable)?;
    let open = stage.decisions("deny.circuit_open") - open;
    row.must(open == 16, || format!("{open} × circuit_open of 16"));
    round("where outages open", GRACE, "GET", "/open")
        .ask(row, &mut wires, tokens.fresh(), |_, reply| reply.opened())?;
    let more = stage.provider.introspections() - calls;
    row.must(more == 0, || format!("{more} introspections although the breaker is open"));
    round("a known token", GRACE, "GET", "/any").ask(row, &mut wires, known, serves)?;
    round("its permission", in_time, "PUT", "/projects/p").ask(row, &mut wires, known, unavailable)?;

    let ended = Instant::now();
    outage.end(&stage)?;
    let took = recovers(&mut wires, &tokens.fresh(), ended)?;
    row.saw(format!("all well {} ms after it", took.as_millis()));
    row.must(took <= BACK + GRACE, || format!("all well only {took:?} after the outage"));
    round("afterwards", in_time, "GET", "/any").ask(row, &mut wires, tokens.fresh(), serves)?;
    stage.sound(row);
    Ok(())
}

/// One request, of which the worker learns that the provider is away, with nobody else asking. Its
/// log says when it knows.
fn first_failure(
    row: &mut Row,
    stage: &Stage,
    wire: &mut Wire,
    token: &str,
    outage: Outage,
) -> Result<(), String> {
    let told = stage.told_away();
    let began = Instant::now();
    let reply = wire.ask(&request("GET", "/any", token))?;
    until(|| Ok(stage.told_away() > told)).map_err(|error| format!("nobody finds it out: {error}"))?;
    let known = began.elapsed();
    let (took, within) = (reply.took, outage.known_within());
    row.saw(format!(
        "first call 503 in {} ms, known to be away in {} ms",
        took.as_millis(),
        known.as_millis()
    ));
    row.must(reply.unavailable(RETRY), || format!("the first call: {}", reply.report()));
    row.must(took <= TIMEOUT + GRACE, || format!("the first call took {took:?}"));
    row.must(known <= within + GRACE, || format!("known only {known:?} after the first failed call began"));
    Ok(())
}

/// How far apart requests come where hardly anybody asks.
const SELDOM: Duration = Duration::from_secs(3);

/// One request every three seconds is enough to find out: the first one is opened already, where its
/// route opens, and the next ones are decided at once.
pub(crate) fn seldom(row: &mut Row, outage: Outage) -> Result<(), String> {
    let stage = Stage::start(json!({"provider": {"timeout": "500ms", "retries": 1}}))?;
    let mut wires = stage.even(2)?;
    let mut tokens = Tokens(0);
    for wire in &mut wires {
        let token = tokens.fresh()(0);
        let reply = wire.ask(&request("GET", "/any", &token))?;
        row.must(reply.serves(&token), || format!("before: {}", reply.report()));
    }
    outage.begin(&stage)?;
    let began = Instant::now();
    let within = TIMEOUT * 2 + GRACE;
    // Each worker hears of a request every three seconds.
    for (nth, (path, within)) in (0_u32..).zip([("/open", within), ("/open", GRACE), ("/any", GRACE)]) {
        // The pace is what this is about.
        std::thread::sleep((SELDOM * nth).saturating_sub(began.elapsed()));
        for wire in &mut wires {
            let reply = wire.ask(&request("GET", path, &tokens.fresh()(0)))?;
            row.saw(format!("{path} {} in {} ms", reply.status, reply.took.as_millis()));
            let right = if path == "/open" { reply.opened() } else { reply.unavailable(RETRY) };
            row.must(right, || format!("request {nth}, {path}: {}", reply.report()));
            row.must(reply.took <= within, || format!("request {nth}, {path}: {:?}", reply.took));
        }
    }
    let open = stage.decisions("deny.circuit_open");
    row.must(open == 2, || format!("{open} × circuit_open of 2"));
    let ended = Instant::now();
    outage.end(&stage)?;
    let took = recovers(&mut wires, &tokens.fresh(), ended)?;
    row.saw(format!("all well {} ms after it", took.as_millis()));
    row.must(took <= BACK + GRACE, || format!("all well only {took:?} after the outage"));
    stage.sound(row);
    Ok(())
}

/// Waits until every connection's token is served; how long that took.
fn recovers(
    wires: &mut [Wire],
    token: &impl Fn(usize) -> String,
    since: Instant,
) -> Result<Duration, String> {
    for (nth, wire) in wires.iter_mut().enumerate() {
        let token = token(nth);
        let mut last = String::new();
        until(|| {
            let reply = wire.ask(&request("GET", "/any", &token))?;
            last = reply.report();
            Ok(reply.serves(&token))
        })
        .map_err(|error| format!("it does not recover: {last}, {error}"))?;
    }
    Ok(since.elapsed())
}

/// How long the provider wants to be left alone, in seconds.
const ALONE: u64 = 3;

/// 429 is no outage: nobody is let in for it, first-time tokens are not asked about for a while,
/// and known ones still are.
pub(crate) fn too_many(row: &mut Row) -> Result<(), String> {
    let stage = Stage::start(json!({
        "provider": {"timeout": "500ms", "retries": 1},
        "cache": {"introspection": {"ttl": "1s"}}
    }))?;
    let mut wires = stage.even(CLIENTS)?;
    let mut tokens = Tokens(0);
    let known = "tok_10_profile";
    let round = |about, path| Round { about, within: TIMEOUT + GRACE, method: "GET", path };
    let unavailable = |_: &str, reply: &Reply| reply.unavailable(ALONE);
    let serves = |token: &str, reply: &Reply| reply.serves(token);
    stage.provider.spare(known);
    round("before", "/any").ask(row, &mut wires, |_| known.to_owned(), serves)?;

    let new = |stage: &Stage| stage.provider.introspections() - stage.provider.of(known);
    let calls = new(&stage);
    stage.provider.mood(Mood::TooMany(ALONE));
    let began = Instant::now();
    // One after the other, a worker each: each may find out for itself.
    let first = wires[0].ask(&request("GET", "/any", &tokens.fresh()(0)))?;
    let other = wires[1].ask(&request("GET", "/any", &tokens.fresh()(0)))?;
    row.saw(format!("first {}, retry-after {}", first.status, first.retry_after.unwrap_or(0)));
    for (reply, least) in [(&first, ALONE), (&other, ALONE - 1)] {
        row.must(reply.unavailable(ALONE) && reply.retry_after >= Some(least), || {
            format!("a first answer: {}, retry-after {:?}", reply.report(), reply.retry_after)
        });
    }
    round("new tokens", "/any").ask(row, &mut wires, tokens.fresh(), unavailable)?;
    round("where outages open", "/open").ask(row, &mut wires, tokens.fresh(), unavailable)?;
    let more = new(&stage) - calls;
    row.saw(format!("{more} calls"));
    row.must((1..=2).contains(&more), || format!("{more} introspections of new tokens after a 429"));

    // The known token's answer grows old in the meantime, and is asked for anew.
    let asked = stage.provider.of(known);
    until(|| {
        let reply = wires[0].ask(&request("GET", "/any", known))?;
        if !reply.serves(known) {
            return Err(reply.report());
        }
        Ok(stage.provider.of(known) > asked)
    })
    .map_err(|error| format!("the known token is not refreshed: {error}"))?;
    let refreshed = began.elapsed();
    row.saw(format!("a known one refreshed after {} ms", refreshed.as_millis()));
    row.must(refreshed < Duration::from_secs(ALONE), || format!("refreshed only after {refreshed:?}"));

    stage.provider.mood(Mood::Well);
    let took = recovers(&mut wires, &tokens.fresh(), began)?;
    row.saw(format!("all well {} ms after the 429", took.as_millis()));
    let (early, late) = (Duration::from_secs(ALONE) - GRACE, Duration::from_secs(ALONE) + TIMEOUT + GRACE);
    row.must((early..late).contains(&took), || format!("all well {took:?} after the 429"));

    stage.provider.mood(Mood::TooMany(120));
    let capped = wires[0].ask(&request("GET", "/any", &tokens.fresh()(0)))?;
    row.saw(format!("120 s become {}", capped.retry_after.unwrap_or(0)));
    row.must(capped.unavailable(30) && capped.retry_after == Some(30), || {
        format!("a wait of 120 s: {}, retry-after {:?}", capped.report(), capped.retry_after)
    });
    stage.sound(row);
    Ok(())
}
