//! What happens to the provider's container, and what clients of the gate see of it.
//!
//! All use the shipped configuration, but cache no answer: otherwise clients would not notice most
//! of it. One uses the shipped lifetimes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use harness::client::{self, Ask, Version};
use harness::compose::{Project, docker};
use harness::sample;
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use crate::dns::Names;
use crate::load::{self, HOST, Kind, Load, Seen};
use crate::{Outcome, Shared, copy_configuration, ensure, shipped};

/// The shipped `timeout`: it applies to each callout, so two in a row may take twice as long.
const TIMEOUT: Duration = Duration::from_secs(1);
/// What an answer may take beyond its deadline.
const GRACE: Duration = Duration::from_millis(200);
/// Envoy's default interval between DNS queries.
const RESOLVES: Duration = Duration::from_secs(5);
/// How long after its return an endpoint that was away is known to be there: the time until the
/// next probe, and its timeout.
const PROBED: Duration = Duration::from_secs(2).saturating_add(TIMEOUT);
/// What the command and the provider's start may take beyond that.
const BACK: Duration = Duration::from_secs(2);

const CLIENTS: &[(Kind, Version)] = &[
    (Kind::Token("tok_alice"), Version::Http1),
    (Kind::Token("tok_bob"), Version::Http2),
    (Kind::Token("tok_array_scope"), Version::Http1),
    (Kind::Permission, Version::Http1),
    (Kind::Permission, Version::Http2),
    (Kind::Webhook, Version::Http1),
    (Kind::Nobody, Version::Http2),
];
const PAUSE: Duration = Duration::from_millis(20);

/// The rows of the table.
pub(crate) type Table = Arc<Mutex<Vec<String>>>;

pub(crate) const HEAD: &str = "\
| what happens to the provider | tokens' holders saw | why, in Envoy's access log | slowest answer: one callout, two callouts | first 503 after | last 503 after it was undone |
|---|---|---|---|---|---|";

type Act = fn(&Project) -> Outcome;

/// A fault that one command makes and another one undoes.
struct Fault {
    name: &'static str,
    about: &'static str,
    make: Act,
    undo: Act,
    /// How long it lasts; zero for one that undoes itself.
    lasts: Duration,
    /// The time within which everything must be as before.
    recovers: Duration,
}

const KILLED: Fault = Fault {
    name: "killed",
    about: "killed for 7 s, then started",
    make: |project| act(&["kill"], project),
    undo: |project| act(&["start"], project),
    lasts: Duration::from_secs(7),
    recovers: RECOVERS,
};

/// The name is resolved again, and then a probe is answered.
const RECOVERS: Duration = RESOLVES.saturating_add(PROBED).saturating_add(BACK);

const FAULTS: &[Fault] = &[
    Fault {
        name: "paused",
        about: "paused (`docker pause`) for 4 s",
        make: |project| act(&["pause"], project),
        undo: |project| act(&["unpause"], project),
        lasts: Duration::from_secs(4),
        recovers: PROBED.saturating_add(BACK),
    },
    KILLED,
    Fault {
        name: "restarted",
        about: "restarted (`docker restart`)",
        make: |project| act(&["restart", "--time", "0"], project),
        undo: |_| Ok(()),
        lasts: Duration::ZERO,
        recovers: RECOVERS,
    },
    Fault {
        name: "cut_off",
        about: "cut off the network for 7 s",
        make: |project| network(project, &["disconnect"]),
        undo: |project| network(project, &["connect", "--alias", "avnology"]),
        lasts: Duration::from_secs(7),
        recovers: RECOVERS,
    },
];

fn act(command: &[&str], project: &Project) -> Outcome {
    let container = project.container("avnology")?;
    docker(&[command, &[container.as_str()]].concat()).map(|_| ())
}

fn network(project: &Project, command: &[&str]) -> Outcome {
    let (network, container) = (project.network(), project.container("avnology")?);
    docker(&[&["network"], command, &[network.as_str(), container.as_str()]].concat()).map(|_| ())
}

pub(crate) fn trials(shared: &Shared, table: &Table) -> Vec<Trial> {
    let mut trials: Vec<Trial> = FAULTS
        .iter()
        .map(|fault| {
            let (shared, table) = (shared.clone(), Arc::clone(table));
            Trial::test(format!("containers/provider/{}", fault.name), move || {
                shared.project().and_then(|project| run(&project, fault, &table)).map_err(Failed::from)
            })
        })
        .collect();
    let (first, last) = (Arc::clone(table), Arc::clone(table));
    trials.push(Trial::test("containers/provider/moved_while_names_are_slow", move || {
        moved(&first).map_err(Failed::from)
    }));
    trials.push(Trial::test("containers/provider/killed_while_its_answers_are_kept", move || {
        kept(&last).map_err(Failed::from)
    }));
    trials
}

/// A fault that all clients notice, since every request needs the provider.
fn run(project: &Project, fault: &Fault, table: &Table) -> Outcome {
    let seen = suffer(project, fault, fault.about, table, || Ok(()))?;
    let refused = seen.iter().filter(|seen| seen.status() == Some(503)).count();
    ensure!(refused > 0 || fault.lasts.is_zero(), "nobody noticed the fault");
    Ok(())
}

/// With the shipped policy, holders of known tokens do not notice the fault, and others are
/// refused.
fn kept(table: &Table) -> Outcome {
    // Fresh containers: no earlier trial has filled their caches.
    let project = shipped(&[])?;
    project.up(&[])?;
    project.healthy("envoy")?;
    let gate = project.published("envoy", 10_000)?;
    let stranger = Ask::new("GET", "/api/profile", HOST).bearer("tok_noscope");
    let seen =
        suffer(&project, &KILLED, "killed for 7 s, then started; with the shipped lifetimes", table, || {
            let answer =
                client::ask(gate, Version::Http1, &stranger).map_err(|failure| failure.to_string())?;
            ensure!(answer.status == 503, "a token that nobody knows: {} {}", answer.status, answer.text());
            Ok(())
        })?;
    let known = load::counts(seen.iter().filter(|seen| matches!(seen.kind, Kind::Token(_))));
    ensure!(known.len() == 1 && known["200"] > 1000, "holders of known tokens saw {}", load::report(&known));
    // Permissions are cached for longer than the fault lasts.
    let early = load::counts(seen.iter().filter(|seen| seen.at < KILLED.lasts));
    ensure!(!early.contains_key("503"), "while the provider was away: {}", load::report(&early));
    let answer = client::ask(gate, Version::Http1, &stranger).map_err(|failure| failure.to_string())?;
    ensure!(answer.status == 403, "the same token afterwards: {} {}", answer.status, answer.text());
    Ok(())
}

/// Makes the fault happen under load, and runs `meanwhile` while it lasts. Checks what the clients
/// saw, and returns it.
fn suffer(
    project: &Project,
    fault: &Fault,
    about: &str,
    table: &Table,
    meanwhile: impl FnOnce() -> Outcome,
) -> Result<Vec<Seen>, String> {
    let gate = project.published("envoy", 10_000)?;
    let lines = access_log(project).len();
    let started = started(project)?;
    let load = Load::start(gate, CLIENTS, PAUSE);
    load.hold(Duration::from_secs(1));
    let made = load.now();
    (fault.make)(project)?;
    // Existing connections may take a moment to notice.
    load.hold(fault.lasts / 2);
    meanwhile()?;
    load.hold((made + fault.lasts).saturating_sub(load.now()));
    let undone = load.now();
    (fault.undo)(project)?;
    let undone = if fault.lasts.is_zero() { made } else { undone };
    load.hold(fault.recovers + Duration::from_millis(1500));
    let seen = load.end();
    row(table, about, &seen, &access_log(project)[lines..], made, undone);
    judge(&seen)?;
    let after = |seen: &&Seen| seen.at > undone + fault.recovers;
    let healthy = |seen: &Seen| seen.status() == Some(if seen.kind == Kind::Nobody { 401 } else { 200 });
    let before: Vec<&Seen> = seen.iter().filter(|seen| seen.at + seen.took < made).collect();
    ensure!(before.len() > 100, "only {} requests before the fault", before.len());
    ensure!(
        before.iter().all(|seen| healthy(seen)),
        "before the fault: {}",
        load::report(&load::counts(before))
    );
    let after: Vec<&Seen> = seen.iter().filter(after).collect();
    ensure!(after.len() > 100, "only {} requests after the fault", after.len());
    ensure!(
        after.iter().all(|seen| healthy(seen)),
        "{:?} after the fault: {}",
        fault.recovers,
        load::report(&load::counts(after))
    );
    same_process(project, &started)?;
    Ok(seen)
}

/// Checks what every answer must meet, whatever happens to the provider.
fn judge(seen: &[Seen]) -> Outcome {
    for one in seen {
        let Seen { kind, at, took, came, .. } = one;
        let answer = came.as_ref().map_err(|problem| format!("{kind:?} at {at:?}: {problem}"))?;
        let (statuses, deadline): (&[u16], _) = match kind {
            Kind::Permission => (&[200, 503], TIMEOUT * 2),
            Kind::Token(_) | Kind::Path(..) => (&[200, 503], TIMEOUT),
            // The provider is not involved in these.
            Kind::Webhook => (&[200], TIMEOUT),
            Kind::Nobody => (&[401], TIMEOUT),
        };
        ensure!(statuses.contains(&answer.status), "{kind:?} at {at:?}: {} {}", answer.status, answer.text());
        ensure!(*took <= deadline + GRACE, "{kind:?} at {at:?}: answered {} after {took:?}", answer.status);
        if answer.status == 503 {
            ensure!(
                answer.error().as_deref() == Some("provider_unavailable")
                    && answer.header("retry-after").is_some(),
                "{kind:?} at {at:?}: a 503 that is not the gate's: {}",
                answer.text()
            );
        }
    }
    Ok(())
}

fn row(table: &Table, about: &str, seen: &[Seen], lines: &[Value], made: Duration, undone: Duration) {
    let holders =
        || seen.iter().filter(|seen| matches!(seen.kind, Kind::Token(_) | Kind::Permission | Kind::Path(..)));
    let slowest = |permission: bool| {
        let of = holders().filter(|seen| (seen.kind == Kind::Permission) == permission);
        of.map(|seen| seen.took).max().unwrap_or_default().as_millis()
    };
    let refused: Vec<Duration> =
        holders().filter(|seen| seen.status() == Some(503)).map(|seen| seen.at + seen.took).collect();
    let ended = |time: Option<&Duration>, from: Duration| {
        time.and_then(|time| time.checked_sub(from))
            .map_or("–".to_owned(), |time| format!("{} ms", time.as_millis()))
    };
    let mut reasons = std::collections::BTreeMap::<String, usize>::new();
    for line in lines.iter().filter(|line| line["status"] == 503) {
        let details = line["details"].as_str().unwrap_or_default();
        *reasons
            .entry(details.trim_start_matches("avnology_gate").trim_matches(['{', '}']).to_owned())
            .or_default() += 1;
    }
    let row = format!(
        "| {about} | {} | {} | {} ms, {} ms | {} | {} |",
        load::report(&load::counts(holders())),
        load::report(&reasons),
        slowest(false),
        slowest(true),
        ended(refused.iter().min(), made),
        ended(refused.iter().max(), undone),
    );
    table.lock().unwrap_or_else(PoisonError::into_inner).push(row);
}

fn access_log(project: &Project) -> Vec<Value> {
    project.logs("envoy").lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

pub(crate) fn started(project: &Project) -> Result<String, String> {
    docker(&["inspect", "--format", "{{.State.StartedAt}} {{.RestartCount}}", &project.container("envoy")?])
}

fn same_process(project: &Project, before: &str) -> Outcome {
    let now = started(project)?;
    ensure!(now == before, "Envoy was started anew: {before} → {now}");
    Ok(())
}

/// The provider goes away, another one takes its place under its name, and the DNS server is slow.
///
/// The containers' own resolver cannot be slowed down, so Envoy uses a DNS server of ours, on this
/// machine.
fn moved(table: &Table) -> Outcome {
    let mut project = shipped(&["tests/compose/moved.yaml"])?;
    project.up(&["avnology", "avnology-1", "upstream"])?;
    let network = project.network();
    let inspect = |what: &str, format: &str| {
        docker(&["inspect", "--format", format, what]).map(|text| text.trim().to_owned())
    };
    let gateway = inspect(&network, "{{(index .IPAM.Config 0).Gateway}}")?;
    let address = |service: &str| {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
        let text = inspect(&project.container(service)?, &format)?;
        text.parse().map_err(|_| format!("{service} is at {text:?}"))
    };
    let (old, new) = (address("avnology")?, address("avnology-1")?);
    let names = Names::serve(&gateway, "avnology", old)?;

    let mut bootstrap = sample::shipped("envoy.yaml");
    let clusters = bootstrap["static_resources"]["clusters"].as_array_mut().ok_or("no clusters")?;
    for cluster in clusters.iter_mut().filter(|cluster| cluster["name"] == "avnology") {
        cluster["typed_dns_resolver_config"] = json!({
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [{"socket_address": {
                    "protocol": "UDP", "address": names.address.ip().to_string(), "port_value": names.address.port()
                }}]
            }
        });
    }
    copy_configuration(&mut project, &sample::uncached_policy())?;
    let path = project.directory().join("envoy.yaml");
    std::fs::write(&path, bootstrap.to_string()).map_err(|error| format!("{}: {error}", path.display()))?;
    project.up(&["envoy"])?;
    project.healthy("envoy").map_err(|error| format!("{error} ({} names were asked for)", names.asked()))?;
    let started = started(&project)?;

    let load = Load::start(project.published("envoy", 10_000)?, CLIENTS, PAUSE);
    load.hold(Duration::from_secs(1));
    // The DNS server is slow, and then silent: Envoy keeps using the address that it knows.
    let delay = Duration::from_secs(3);
    names.delay(Some(delay));
    let slow = load.now();
    load.hold(RESOLVES + delay);
    names.delay(None);
    load.hold(RESOLVES);
    let made = load.now();
    docker(&["kill", &project.container("avnology")?])?;
    names.point_to(new);
    load.hold(Duration::from_secs(3));
    names.delay(Some(delay));
    let undone = load.now();
    // Envoy gives up a query without an answer after 5 s, each time it sends one.
    let recovers = 4 * RESOLVES + RESOLVES + delay + PROBED;
    let end = undone + recovers;
    // No longer than needed: four seconds of good answers are enough.
    let good_since = |load: &Load| {
        let seen = load.so_far();
        seen.iter().filter(|seen| seen.status() == Some(503)).map(|seen| seen.at + seen.took).max()
    };
    while load.now() < end && good_since(&load).is_some_and(|last| load.now() < last + Duration::from_secs(4))
    {
        load.hold(Duration::from_millis(200));
    }
    let ended = load.now();
    let lines = access_log(&project);
    let seen = load.end();
    row(
        table,
        "its name resolved slowly (3 s), then not at all; killed; a new one under its name, resolved in 3 s",
        &seen,
        &lines,
        made,
        undone,
    );
    judge(&seen)?;
    let early = seen.iter().filter(|seen| seen.at > slow && seen.at + seen.took < made);
    let early = load::counts(early);
    ensure!(!early.contains_key("503") && early["200"] > 1000, "slow names alone: {}", load::report(&early));
    let last = load::counts(seen.iter().filter(|seen| seen.at + Duration::from_secs(3) > ended));
    ensure!(!last.contains_key("503"), "after the name was resolved: {}", load::report(&last));
    ensure!(seen.iter().any(|seen| seen.status() == Some(503)), "nobody noticed that the provider was away");
    ensure!(names.asked() > 3, "our resolver was asked {} times", names.asked());
    same_process(&project, &started)
}
