//! Policies change and Envoy restarts, while clients send requests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::client::{Answer, Ask, Connection, Failure, PATIENCE, Version};
use harness::compose::{Project, docker};
use harness::control::{Provider, Upstream, until};
use harness::sample;
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use crate::faults::started;
use crate::load::{self, HOST, Kind, Load, Seen};
use crate::{Notes, Outcome, Shared, copy_configuration, ensure, listener_with, note, shipped};

pub(crate) fn trials(shared: &Shared, notes: &Notes) -> Vec<Trial> {
    let (first, last) = (Arc::clone(notes), Arc::clone(notes));
    let shared = shared.clone();
    vec![
        Trial::test("containers/policy/swapped_under_load", move || swapped(&first).map_err(Failed::from)),
        Trial::test("containers/envoy/restarted_while_clients_hold_connections", move || {
            shared.project().and_then(|project| restarted(&project, &last)).map_err(Failed::from)
        }),
    ]
}

/// The two policies that take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Policy {
    A,
    B,
}

impl Policy {
    fn other(self) -> Self {
        if self == Self::A { Self::B } else { Self::A }
    }

    /// Each sets a header that the other one does not, and has a route that the other one lacks.
    fn document(self) -> Value {
        let (own, header, claim) = match self {
            Self::A => ("/only-a", "x-avnology-org-id", "{token.org_id}"),
            Self::B => ("/only-b", "x-avnology-client-id", "{token.client_id}"),
        };
        let mut policy = sample::forgetful_policy();
        policy["identity_headers"] = json!({"x-avnology-user-id": "{token.sub}", header: claim});
        policy["routes"] = json!([
            {"name": "both", "match": {"path": "/both"}},
            {"name": "own", "match": {"path": own}}
        ]);
        policy.as_object_mut().map(|members| members.remove("webhooks"));
        policy
    }

    /// Which policy answered; an error where it was neither, or both.
    fn of(path: &str, answer: &Answer) -> Result<Self, String> {
        let echo = answer.json();
        let has = |name: &str| {
            echo["headers"].as_array().is_some_and(|pairs| pairs.iter().any(|pair| pair[0] == name))
        };
        let set = (has("x-avnology-user-id"), has("x-avnology-org-id"), has("x-avnology-client-id"));
        let refused = answer.status == 403 && answer.error().as_deref() == Some("no_route");
        match (path, answer.status, set) {
            ("/both" | "/only-a", 200, (true, true, false)) => Ok(Self::A),
            ("/both" | "/only-b", 200, (true, false, true)) => Ok(Self::B),
            ("/only-a", _, _) if refused => Ok(Self::B),
            ("/only-b", _, _) if refused => Ok(Self::A),
            _ => Err(format!("neither policy answers {path} so: {} {}", answer.status, answer.text())),
        }
    }
}

/// Replaces the listener file atomically: writes a file beside it, then renames that.
fn put(directory: &Path, text: &str) -> Outcome {
    let (next, file) = (directory.join("listener.yaml.next"), directory.join("listener.yaml"));
    fs::write(&next, text)
        .and_then(|()| fs::rename(&next, &file))
        .map_err(|error| format!("{}: {error}", file.display()))
}

fn swapped(notes: &Notes) -> Outcome {
    let mut project = shipped(&[])?;
    let directory = project.directory().to_owned();
    copy_configuration(&mut project, &Policy::A.document())?;
    project.up(&[])?;
    project.healthy("envoy")?;
    let gate = project.published("envoy", 10_000)?;
    // Whenever a policy is replaced, a request of Bob's is waiting for the provider.
    let provider = Provider(project.published("avnology", 8081)?);
    provider.rule(json!({"on": "introspect", "token": "tok_bob", "delay": "700ms"}))?;
    let started = started(&project)?;

    let mut clients = Vec::new();
    for version in [Version::Http1, Version::Http2] {
        for path in ["/both", "/only-a", "/only-b"] {
            clients.push((Kind::Path(path, "tok_alice"), version));
            clients.push((Kind::Path(path, "tok_bob"), version));
        }
    }
    // Connections that stay idle while policies change.
    let mut idle: Vec<Connection> = Vec::new();
    for version in [Version::Http1, Version::Http2] {
        let mut connection = Connection::open(gate, version).map_err(|error| error.to_string())?;
        let answer = connection
            .ask(&Ask::new("GET", "/both", HOST).bearer("tok_alice"))
            .map_err(|failure| failure.to_string())?;
        ensure!(Policy::of("/both", &answer)? == Policy::A, "the first policy does not serve");
        idle.push(connection);
    }

    let load = Load::start(gate, &clients, Duration::from_millis(5));
    let mut policy = Policy::A;
    let mut latest = Duration::ZERO;
    let (mut swaps, mut refused) = (0_u32, 0_u32);
    let mut whole = policy.document();
    whole["surprise"] = json!(true);
    let bad = [
        ("an unknown field", listener_with(&whole.to_string())),
        ("no JSON", listener_with("{")),
        ("no YAML", "resources: [".to_owned()),
        ("no listener", r#"{"resources": [{"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "gate"}]}"#.to_owned()),
    ];
    // The times between which only this policy may answer requests on new connections.
    let mut spans: Vec<(Policy, Duration, Duration)> = Vec::new();
    load.hold(Duration::from_secs(1));
    let mut since = Duration::ZERO;
    for round in 0..11 {
        spans.push((policy, since, load.now()));
        let began = Instant::now();
        policy = policy.other();
        put(&directory, &listener_with(&policy.document().to_string()))?;
        until(|| {
            let answer = fresh(gate)?;
            Ok(Policy::of("/both", &answer)? == policy)
        })
        .map_err(|error| format!("swap {round} does not serve: {error}; {}", tail(&project)))?;
        latest = latest.max(began.elapsed());
        swaps += 1;
        // The other worker may switch a moment later.
        load.hold(Duration::from_millis(200));
        since = load.now();
        load.hold(Duration::from_millis(700));
        if round % 3 == 1 {
            let (what, text) = &bad[usize::try_from(refused).unwrap_or(0) % bad.len()];
            let before = rejections(&project);
            put(&directory, text)?;
            until(|| Ok(rejections(&project) > before))
                .map_err(|error| format!("{what} is not refused: {error}; {}", tail(&project)))?;
            refused += 1;
            load.hold(Duration::from_millis(700));
        }
    }
    spans.push((policy, since, load.now()));
    // The idle connections get one more answer, from the old policy and with a request to
    // reconnect, or are closed.
    let mut late = Vec::new();
    for mut connection in idle {
        match connection.ask(&Ask::new("GET", "/both", HOST).bearer("tok_alice")) {
            Ok(answer) => late.push(format!("{:?}", Policy::of("/both", &answer)?)),
            Err(failure) => late.push(failure.to_string()),
        }
    }
    let seen = load.end();

    let mut counts = BTreeMap::<String, usize>::new();
    let mut alone = 0_usize;
    for one in &seen {
        let Kind::Path(path, token) = one.kind else { continue };
        let answer =
            one.came.as_ref().map_err(|problem| format!("{path} {token} at {:?}: {problem}", one.at))?;
        let by = Policy::of(path, answer).map_err(|problem| format!("at {:?}: {problem}", one.at))?;
        *counts.entry(format!("{by:?}, {}", answer.status)).or_default() += 1;
        let span = spans.iter().find(|(_, from, to)| one.fresh && one.at >= *from && one.at < *to);
        if let Some((expected, ..)) = span {
            alone += 1;
            ensure!(
                by == *expected,
                "{path} at {:?}: a new connection was served by {by:?}, {expected:?} is in force",
                one.at
            );
        }
    }
    let slow = seen.iter().filter(|one| one.took > Duration::from_millis(650)).count();
    ensure!(slow > 50, "only {slow} requests waited for the provider");
    ensure!(
        counts.len() == 4 && counts.values().all(|count| *count > 200),
        "both policies must serve: {counts:?}"
    );
    ensure!(started == crate::faults::started(&project)?, "Envoy was started anew");
    let fresh = seen.iter().filter(|one| one.fresh).count();
    note(
        notes,
        format!(
            "policy swapped under load: {swaps} swaps and {refused} refused files, {} requests ({slow} of them waited for the provider for 700 ms): {}; \
         none reset, none by neither; {fresh} new connections, {alone} of them with one policy in force and served by that one; \
         a swap served after at most {} ms; connections that were idle through all of it: {}",
            seen.len(),
            load::report(&counts),
            latest.as_millis(),
            late.join(", ")
        ),
    );
    Ok(())
}

/// An answer on a connection of its own.
fn fresh(gate: std::net::SocketAddr) -> Result<Answer, String> {
    harness::client::ask(gate, Version::Http1, &Ask::new("GET", "/both", HOST).bearer("tok_alice"))
        .map_err(|failure| failure.to_string())
}

/// How many listener files Envoy has refused so far; it logs each.
fn rejections(project: &Project) -> usize {
    let logs = project.logs("envoy");
    logs.lines().filter(|line| !line.starts_with('{') && line.contains("[warning][config]")).count()
}

fn tail(project: &Project) -> String {
    let logs = project.logs("envoy");
    let lines: Vec<&str> = logs.lines().filter(|line| !line.starts_with('{')).collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// A container that restarts drops its connections; no client gets an answer that it should not
/// have.
fn restarted(project: &Project, notes: &Notes) -> Outcome {
    let gate = project.published("envoy", 10_000)?;
    let clients = [
        (Kind::Token("tok_alice"), Version::Http1),
        (Kind::Token("tok_bob"), Version::Http2),
        (Kind::Permission, Version::Http1),
        (Kind::Webhook, Version::Http2),
        (Kind::Nobody, Version::Http1),
        (Kind::Nobody, Version::Http2),
    ];
    let idle = [Version::Http1, Version::Http2]
        .into_iter()
        .map(|version| {
            let mut connection = Connection::open(gate, version).map_err(|error| error.to_string())?;
            connection
                .ask(&Ask::new("GET", "/api/profile", HOST).bearer("tok_alice"))
                .map_err(|failure| failure.to_string())?;
            Ok(connection)
        })
        .collect::<Result<Vec<_>, String>>()?;
    let provider = Provider(project.published("avnology", 8081)?);
    Upstream(project.published("upstream", 8080)?).clear()?;
    provider.rule(json!({"on": "introspect", "token": "tok_array_scope", "delay": "900ms"}))?;
    // Looked up first: this takes longer than the request waits.
    let container = project.container("envoy")?;
    let mut waiting = Connection::open(gate, Version::Http1).map_err(|error| error.to_string())?;
    let load = Load::start(gate, &clients, Duration::from_millis(10));
    load.hold(Duration::from_secs(1));
    waiting
        .send(&Ask::new("GET", "/api/profile", HOST).bearer("tok_array_scope"))
        .map_err(|failure| failure.to_string())?;
    load.hold(Duration::from_millis(100));
    let made = load.now();
    docker(&["restart", "--time", "5", &container])?;
    // How long it takes to start depends on the machine.
    project.healthy("envoy")?;
    let back = load.now() + Duration::from_millis(500);
    load.hold(Duration::from_millis(2500));
    let seen = load.end();
    provider.clear()?;
    // The waiting request has ended, and was not let through.
    let parked = waiting.answer(PATIENCE);
    ensure!(matches!(parked, Err(Failure::Closed(_))), "a request that waited over the restart: {parked:?}");
    let service = Upstream(project.published("upstream", 8080)?);
    let of_the_waiting =
        |(name, value): &(String, String)| name == "authorization" && value.ends_with("tok_array_scope");
    let reached = service.seen()?.iter().any(|seen| seen.headers.iter().any(of_the_waiting));
    ensure!(!reached, "a request that waited over the restart reached the service");
    for mut connection in idle {
        let late = connection.ask(&Ask::new("GET", "/api/profile", HOST).bearer("tok_alice"));
        ensure!(late.is_err(), "a connection outlived its Envoy");
    }
    let good = |seen: &Seen| {
        let status = if seen.kind == Kind::Nobody { 401 } else { 200 };
        seen.status() == Some(status)
    };
    for one in &seen {
        // Every answer that arrived was right.
        ensure!(one.came.is_err() || good(one), "{:?} at {:?}: {:?}", one.kind, one.at, one.status());
    }
    let first =
        seen.iter().filter(|one| one.at > made && one.came.is_err()).map(|one| one.at).min().unwrap_or(made);
    let again =
        seen.iter().filter(|one| one.came.is_err()).map(|one| one.at + one.took).max().unwrap_or(made);
    let last = seen.iter().filter(|one| one.at > back);
    ensure!(
        last.clone().count() > 50 && last.clone().all(good),
        "after the restart: {}",
        load::report(&load::counts(last))
    );
    let answered = seen.iter().filter(|one| one.came.is_ok()).count();
    let held = seen.iter().filter(|one| !one.fresh && one.came.is_err()).count();
    note(
        notes,
        format!(
            "Envoy restarted while clients hold connections: {answered} requests answered, all rightly; {held} of 6 connections in use ended under a request, \
         {} attempts to connect failed, within {} ms; the request that waited for the provider was closed unanswered",
            seen.len() - answered - held,
            (again - first).as_millis()
        ),
    );
    Ok(())
}
