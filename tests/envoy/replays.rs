//! Copies of one delivery at the same moment, on both workers: one of them is the first.

#![allow(clippy::arithmetic_side_effects, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use harness::client::PATIENCE;
use harness::control::until;
use harness::corpus::{self, WEBHOOK_SECRET};
use harness::envoy::Envoy;
use harness::scene::Scene;
use harness::{sample, standin};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{Fleet, Outcome, ensure, trial};

pub(crate) fn trials(fleet: &Fleet) -> Vec<Trial> {
    vec![
        trial(fleet, "replays/of_copies_at_once_one_is_forwarded", 2, one_is_forwarded),
        trial(fleet, "replays/of_copies_at_once_all_but_one_are_marked", 2, one_is_not_marked),
    ]
}

const COPIES: usize = 60;

const ROUNDS: usize = 3;

/// Connections that the workers share evenly.
struct Crowd {
    scene: Scene,
    streams: Vec<TcpStream>,
}

impl Crowd {
    fn gather(envoy: &Arc<Envoy>, name: &str, replay: &Value) -> Result<Self, String> {
        let mut policy = sample::forgetful_policy();
        corpus::merge(&mut policy, &json!({"webhooks": {"avnology": {"replay": replay}}}));
        let scene = Scene::with(envoy, name, &policy)?;
        let streams = (0..envoy.workers).cycle().take(COPIES).map(|worker| {
            let stream = envoy.connect_to(scene.address, &scene.shape.name, worker)?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
            Ok(stream)
        });
        let streams = streams.collect::<Result<_, String>>()?;
        Ok(Self { scene, streams })
    }

    /// Sends a copy on each connection, and the last byte of each only when the gate has all
    /// others. Returns how often each status came.
    fn send(&mut self, body: &str) -> Result<BTreeMap<u16, usize>, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let signature = standin::sign(WEBHOOK_SECRET, now, body.as_bytes());
        let head = format!(
            "POST /webhooks/avnology HTTP/1.1\r\nhost: api.example.com\r\nx-avnology-timestamp: {now}\r\nx-avnology-signature: {signature}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let copy = head + body;
        let (most, last) = copy.split_at(copy.len() - 1);
        let before = self.scene.requests();
        let problem = |error: std::io::Error| error.to_string();
        for stream in &mut self.streams {
            stream.write_all(most.as_bytes()).map_err(problem)?;
        }
        let all = before + u64::try_from(COPIES).unwrap_or(u64::MAX);
        until(|| Ok(self.scene.requests() >= all))?;
        for stream in &mut self.streams {
            stream.write_all(last.as_bytes()).map_err(problem)?;
        }
        let mut statuses = BTreeMap::new();
        for stream in &mut self.streams {
            *statuses.entry(status(stream)?).or_default() += 1;
        }
        Ok(statuses)
    }
}

/// Reads a whole answer with a length.
fn status(stream: &mut TcpStream) -> Result<u16, String> {
    let (mut text, mut chunk) = (String::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut chunk).map_err(|error| format!("no answer: {error}"))?;
        ensure!(count > 0, "closed without an answer: {text}");
        text += &String::from_utf8_lossy(&chunk[..count]);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).ok_or("no length")?;
        if body.len() >= length {
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
            return status.ok_or_else(|| format!("no status: {head}"));
        }
    }
}

fn one_is_forwarded(envoy: &Arc<Envoy>) -> Outcome {
    let mut crowd = Crowd::gather(envoy, "replays-content", &json!({}))?;
    for round in 1..=ROUNDS {
        let statuses = crowd.send(&format!(r#"{{"type":"user.created","round":{round}}}"#))?;
        ensure!(statuses == BTreeMap::from([(200, 1), (409, COPIES - 1)]), "round {round}: {statuses:?}");
        let seen = crowd.scene.upstream.seen()?.len();
        ensure!(seen == round, "round {round}: the service saw {seen} in all");
    }
    Ok(())
}

fn one_is_not_marked(envoy: &Arc<Envoy>) -> Outcome {
    let mut crowd = Crowd::gather(envoy, "replays-id", &json!({"by": "id"}))?;
    for round in 1..=ROUNDS {
        crowd.scene.upstream.clear()?;
        let statuses = crowd.send(&format!(r#"{{"id":"evt_round_{round}","type":"user.created"}}"#))?;
        ensure!(statuses == BTreeMap::from([(200, COPIES)]), "round {round}: {statuses:?}");
        let seen = crowd.scene.upstream.seen()?;
        let mark = ("x-avnology-webhook-duplicate".to_owned(), "true".to_owned());
        let marked = seen.iter().filter(|seen| seen.headers.contains(&mark)).count();
        ensure!(
            (seen.len(), marked) == (COPIES, COPIES - 1),
            "round {round}: the service saw {}, {marked} of them marked",
            seen.len()
        );
    }
    Ok(())
}
