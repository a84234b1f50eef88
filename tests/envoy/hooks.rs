//! Webhooks of every sender, and what stands behind them.

#![allow(clippy::arithmetic_side_effects, reason = "a test may panic")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use harness::client::{Ask, Version};
use harness::control::Upstream;
use harness::corpus::WEBHOOK_SECRET;
use harness::demo::Demo;
use harness::envoy::{Envoy, Refused};
use harness::scene::Scene;
use harness::{sample, standin, upstream};
use libtest_mimic::{Failed, Trial};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Fleet, Outcome, ensure, trial};

pub(crate) fn trials(fleet: &Fleet) -> Vec<Trial> {
    // Shown as ignored where `tools/senders` could not install them; make's last lines say so too.
    let is_left_out = !python().is_file();
    vec![
        trial(fleet, "hooks/a_verified_type_chooses_the_service", 1, routed_by_type),
        Trial::test("hooks/the_two_minutes_of_the_page", || two_minutes().map_err(Failed::from)),
        trial(fleet, "hooks/what_the_senders_libraries_sign_passes", 1, senders_sign)
            .with_ignored_flag(is_left_out),
        trial(fleet, "hooks/the_senders_libraries_take_what_sign_prints", 1, senders_verify)
            .with_ignored_flag(is_left_out),
    ]
}

/// Where `tools/senders` installs the senders' libraries.
fn python() -> PathBuf {
    sample::root().join(".senders/bin/python")
}

/// A delivery, as tests/senders/senders.py writes it.
#[derive(Deserialize, Serialize)]
struct Delivery {
    format: String,
    secret: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// Runs tests/senders/senders.py.
fn senders(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(python())
        .arg(sample::root().join("tests/senders/senders.py"))
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    // It may end without reading, and then says why.
    let _ = child.stdin.take().ok_or("no standard input")?.write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}

fn deliveries() -> Result<Vec<Delivery>, String> {
    let lines = senders(&[], "")?;
    lines.lines().map(|line| serde_json::from_str(line).map_err(|error| error.to_string())).collect()
}

/// A policy with a webhook for each format among these, at its name.
fn policy_of(deliveries: &[Delivery]) -> Value {
    let mut policy = json!({"routes": [], "webhooks": {}});
    for Delivery { format, secret, .. } in deliveries {
        policy["webhooks"][format] = json!({"format": format, "secrets": [secret]});
    }
    let names: Vec<String> =
        policy["webhooks"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    let route = |name| json!({"match": {"methods": ["POST"], "path": format!("/{name}")}, "webhook": name});
    policy["routes"] = names.iter().map(route).collect();
    policy
}

/// What a library signs passes as it is, and with any sampled bit changed does not.
fn senders_sign(envoy: &Arc<Envoy>) -> Outcome {
    let deliveries = deliveries()?;
    ensure!(deliveries.len() >= 20, "{} deliveries", deliveries.len());
    let scene = Scene::with(envoy, "hooks-senders", &policy_of(&deliveries))?;
    let send = |version, format: &str, headers: &[(String, Vec<u8>)], body: &[u8]| {
        let ask = Ask::new("POST", &format!("/{format}"), "api.example.com").body(body);
        let ask = headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value));
        harness::client::ask(scene.address, version, &ask).map_err(|failure| failure.to_string())
    };
    let mut changed = 0;
    for Delivery { format, headers, body, .. } in &deliveries {
        let bytes = |text: &String| text.clone().into_bytes();
        let headers: Vec<(String, Vec<u8>)> = headers.iter().map(|(n, v)| (n.clone(), bytes(v))).collect();
        for version in [Version::Http1, Version::Http2] {
            let answer = send(version, format, &headers, body.as_bytes())?;
            ensure!(
                answer.status == 200,
                "{version} {format} {body:.60}: {} {}",
                answer.status,
                answer.text()
            );
        }
        let mut refuse = |headers: &[(String, Vec<u8>)], body: &[u8], what: &str| {
            changed += 1;
            let answer = send(Version::Http1, format, headers, body)?;
            ensure!(
                answer.status == 401,
                "{format}: with {what} changed, {} {}",
                answer.status,
                answer.text()
            );
            Ok(())
        };
        let flip = |bytes: &[u8], bit: usize| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        // Odd steps: every place within a byte has its turn.
        for bit in (0..body.len() * 8).step_by((body.len() * 8 / 16) | 1) {
            refuse(&headers, &flip(body.as_bytes(), bit), &format!("bit {bit} of the body"))?;
        }
        for (at, (name, value)) in headers.iter().enumerate() {
            for bit in (0..value.len() * 8).step_by(11) {
                let other = flip(value, bit);
                // Nothing else can be in a header, or stays as it is there.
                if other.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
                    let mut headers = headers.clone();
                    headers[at].1 = other;
                    refuse(&headers, body.as_bytes(), &format!("bit {bit} of {name}"))?;
                }
            }
        }
    }
    ensure!(changed >= 500, "only {changed} bits were changed");
    let seen = scene.upstream.seen()?.len();
    ensure!(seen == deliveries.len() * 2, "the service saw {seen} of {}", deliveries.len() * 2);
    Ok(())
}

/// What `avnology-gate sign` prints, the libraries verify.
fn senders_verify(_: &Arc<Envoy>) -> Outcome {
    let mut lines = String::new();
    let mut count = 0;
    for theirs in deliveries()?.into_iter().filter(|theirs| theirs.body.starts_with('{')) {
        let mut sign = Command::new(env!("CARGO_BIN_EXE_avnology-gate"))
            .args(["sign", "--format", &theirs.format, "--secret-env", "SENDERS_SECRET"])
            .env("SENDERS_SECRET", &theirs.secret)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let written = sign.stdin.take().ok_or("no standard input")?.write_all(theirs.body.as_bytes());
        written.map_err(|error| error.to_string())?;
        let output = sign.wait_with_output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let pairs = text.lines().filter_map(|line| line.split_once(": "));
        let headers = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let ours =
            serde_json::to_string(&Delivery { headers, ..theirs }).map_err(|error| error.to_string())?;
        lines += &ours;
        lines.push('\n');
        count += 1;
    }
    let taken = senders(&["verify"], &lines)?.lines().count();
    ensure!(count >= 12 && taken == count, "{taken} of {count} were verified");
    let forged = lines.replace("invoice.paid", "invoice.void");
    ensure!(
        senders(&["verify"], &forged).is_err(),
        "the libraries take a forged delivery: this shows nothing"
    );
    Ok(())
}

/// A delivery of Avnology's, signed unless it is forged.
fn delivery(body: &str, is_signed: bool) -> Ask {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let signed = if is_signed { body } else { "forged" };
    Ask::new("POST", "/webhooks/avnology", "api.example.com")
        .header("x-avnology-timestamp", now.to_string())
        .header("x-avnology-signature", standin::sign(WEBHOOK_SECRET, now, signed.as_bytes()))
        .body(body)
}

/// The routes of envoy/webhook-routes.yaml behind a gate that reads types.
fn routed_by_type(envoy: &Arc<Envoy>) -> Outcome {
    let mut policy = sample::forgetful_policy();
    harness::corpus::merge(&mut policy, &json!({"webhooks": {"avnology": {"events": {}}}}));
    let mut scene = Scene::with(envoy, "hooks-by-type", &policy)?;
    let (welcome, erasure) = (upstream::Running::start(), upstream::Running::start());
    let mut routes = sample::shipped("webhook-routes.yaml")["routes"].take();
    let mut name = |of: &str, address| scene.add_cluster(of, Some(address));
    let clusters = [
        ("welcome", name("welcome", welcome.addr)?),
        ("erasure", name("erasure", erasure.addr)?),
        ("upstream", scene.shape.service.clone()),
    ];
    for route in routes.as_array_mut().ok_or("no list of routes")? {
        let cluster = route.pointer_mut("/route/cluster").ok_or("a route without a cluster")?;
        let (_, here) = clusters.iter().find(|(there, _)| cluster == there).ok_or("an unknown cluster")?;
        *cluster = json!(here);
    }
    let put = |scene: &Scene, policy: &Value, label: &str| {
        let mut shape = scene.shape.clone();
        shape.label = label.to_owned();
        shape.policy = sample::Policy::Document(scene.local(policy).to_string().into_bytes());
        let mut listener = sample::listener(&shape, &sample::module()?);
        let pointer = "/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes";
        *listener.pointer_mut(pointer).ok_or("no routes")? = routes.clone();
        envoy.put_raw_listener(&shape.name, listener).map_err(|Refused(text)| text)
    };
    put(&scene, &policy, "by-type")?;
    let services = [Upstream(welcome.addr), Upstream(erasure.addr), scene.upstream];
    let reached = |ask: &Ask| -> Result<(u16, Vec<usize>), String> {
        for service in services {
            service.clear()?;
        }
        let answer = harness::client::ask(scene.address, Version::Http1, ask).map_err(|f| f.to_string())?;
        let mut counts = Vec::new();
        for service in services {
            counts.push(service.seen()?.len());
        }
        Ok((answer.status, counts))
    };
    let (created, deleted, other) =
        (r#"{"type":"user.created"}"#, r#"{"type":"user.deleted"}"#, r#"{"type":"user.updated"}"#);
    let evil = |ask: Ask| ask.header("x-avnology-webhook-type", "user.deleted");
    for (what, ask, expected) in [
        ("created", delivery(created, true), (200, vec![1, 0, 0])),
        ("deleted", delivery(deleted, true), (200, vec![0, 1, 0])),
        ("another", delivery(other, true), (200, vec![0, 0, 1])),
        ("in pieces", delivery(deleted, true).trailer("x-a", "b"), (200, vec![0, 1, 0])),
        ("the client's word against the gate's", evil(delivery(created, true)), (200, vec![1, 0, 0])),
        ("the client's word alone", evil(delivery(other, true)), (200, vec![0, 0, 1])),
        ("forged", evil(delivery(deleted, false)), (401, vec![0, 0, 0])),
    ] {
        let seen = reached(&ask)?;
        ensure!(seen == expected, "{what}: {seen:?}, expected {expected:?}");
    }
    // A delivery that shadow mode lets pass has no type.
    policy["mode"] = json!("shadow");
    put(&scene, &policy, "in-shadow")?;
    let seen = reached(&evil(delivery(deleted, false)))?;
    ensure!(seen == (200, vec![0, 0, 1]), "in shadow: {seen:?}");
    Ok(())
}

/// The commands of docs/webhooks.md have the statuses that stand before them.
fn two_minutes() -> Outcome {
    let page = sample::root().join("docs/webhooks.md");
    let page = std::fs::read_to_string(page).map_err(|error| error.to_string())?;
    let (_, section) = page.split_once("## In two minutes\n").ok_or("the page has no such section")?;
    let block = |language: &str| {
        let (_, rest) = section.split_once(&format!("```{language}\n"))?;
        rest.split_once("```").map(|(block, _)| block)
    };
    let (policy, console) = block("json").zip(block("console")).ok_or("the section lacks a block")?;
    let demo = Demo::start(0, false, Some(policy.as_bytes().to_vec()))?;
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("two-minutes");
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(folder.join("hooks.json"), policy))
        .map_err(|error| error.to_string())?;
    let mut shown = Vec::new();
    let mut expected = None;
    for line in console.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            expected = comment.get(..3);
        }
        let Some(command) = line.strip_prefix("$ ") else { continue };
        // An alias is a shell's own; here each command has one.
        let command = command
            .replace("gate sign", concat!(env!("CARGO_BIN_EXE_avnology-gate"), " sign"))
            .replace("127.0.0.1:10000", &demo.gate.to_string());
        let mut shell = Command::new("sh");
        let output =
            shell.arg("-c").arg(&command).current_dir(&folder).output().map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let Some(status) = expected.take() else { continue };
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{command}: {text}{said}");
        shown.push((status, text.contains("x-avnology-webhook-type")));
    }
    let wanted = [("200", true), ("200", false), ("401", false), ("401", false), ("202", false)];
    ensure!(shown == wanted, "{shown:?}");
    Ok(())
}
