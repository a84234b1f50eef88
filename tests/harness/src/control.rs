//! The stand-in provider and the example upstream, as seen from outside: over HTTP only, so that
//! containers can be driven the same way.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use standin::{Call, Rule, Seed};
use upstream::Seen;

use crate::client::{self, Answer, Ask, PATIENCE, Version};

/// The interval at which a condition is checked.
const GLANCE: Duration = Duration::from_millis(2);

/// A stand-in provider's control port.
#[derive(Clone, Copy, Debug)]
pub struct Provider(pub SocketAddr);

/// An example upstream.
#[derive(Clone, Copy, Debug)]
pub struct Upstream(pub SocketAddr);

impl Provider {
    /// Appends rules.
    pub fn script(&self, rules: &[Rule]) -> Result<(), String> {
        if rules.is_empty() {
            return Ok(());
        }
        self.post("/script", &json!(rules)).map(|_| ())
    }

    /// Appends one rule, written as JSON.
    pub fn rule(&self, rule: Value) -> Result<(), String> {
        self.post("/script", &json!([rule])).map(|_| ())
    }

    /// Forgets rules and calls.
    pub fn clear(&self) -> Result<(), String> {
        self.post("/clear", &Value::Null).map(|_| ())
    }

    /// Replaces what the provider knows.
    pub fn seed(&self, seed: &Seed) -> Result<(), String> {
        self.post("/seed", &json!(seed)).map(|_| ())
    }

    /// Closes the provider's port and all its connections, or opens it again.
    pub fn down(&self, down: bool) -> Result<(), String> {
        self.post(if down { "/stop-accepting" } else { "/resume" }, &Value::Null).map(|_| ())
    }

    /// Makes the provider deliver a webhook; returns the receiver's answer.
    pub fn deliver(&self, delivery: &Value) -> Result<Value, String> {
        self.post("/deliver", delivery)
    }

    /// The calls since the start or since [`Provider::clear`].
    pub fn calls(&self) -> Result<Vec<Call>, String> {
        let answer = ask(self.0, "GET", "/calls", &Value::Null)?;
        serde_json::from_slice(&answer.body).map_err(|error| format!("/calls: {error}"))
    }

    /// How many probes of the gate's there were since the start or since [`Provider::clear`].
    pub fn probes(&self) -> Result<usize, String> {
        let answer = ask(self.0, "GET", "/probes", &Value::Null)?;
        serde_json::from_slice(&answer.body).map_err(|error| format!("/probes: {error}"))
    }

    /// Waits until there are more than `count` calls.
    pub fn wait_for_more_calls_than(&self, count: usize) -> Result<(), String> {
        until(|| Ok(self.calls()?.len() > count))
            .map_err(|error| format!("the provider is not asked: {error}"))
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        Ok(ask(self.0, "POST", path, body)?.json())
    }
}

impl Upstream {
    /// The requests that arrived.
    pub fn seen(&self) -> Result<Vec<Seen>, String> {
        let answer = ask(self.0, "GET", "/__seen", &Value::Null)?;
        serde_json::from_slice(&answer.body).map_err(|error| format!("/__seen: {error}"))
    }

    /// Forgets them.
    pub fn clear(&self) -> Result<(), String> {
        ask(self.0, "POST", "/__clear", &Value::Null).map(|_| ())
    }
}

/// Waits until a condition is true.
pub fn until(mut holds: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > end {
            return Err(format!("not within {PATIENCE:?}"));
        }
        std::thread::sleep(GLANCE);
    }
    Ok(())
}

fn ask(address: SocketAddr, method: &str, path: &str, body: &Value) -> Result<Answer, String> {
    let mut ask = Ask::new(method, path, "control").header("connection", "close");
    if !body.is_null() {
        ask = ask.header("content-type", "application/json").body(body.to_string());
    } else if method == "POST" {
        ask = ask.body("");
    }
    match client::ask(address, Version::Http1, &ask) {
        Ok(answer) if answer.status == 200 => Ok(answer),
        Ok(answer) => Err(format!("{method} {path}: {} {}", answer.status, answer.text())),
        Err(failure) => Err(format!("{method} {path}: {failure}")),
    }
}
