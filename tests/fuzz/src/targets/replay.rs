//! Deliveries that come again, at two workers that share what they have noted, where another plugin
//! writes too.

use crate::gate::{Headers, NOW, ROOT, apply, borrowed, document, gate_with, head};
use crate::targets::slots::Slots;
use crate::targets::webhook::signed;
use arbitrary::{Result, Unstructured};
use avnology_gate::config;
use avnology_gate::flow::{Engine, Output, Step, StreamId};
use avnology_gate::time::Timestamp;
use avnology_gate::verdict::Action;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

const KEYS: [&str; 2] = ["a webhook key of enough bytes", "another key of enough bytes"];
/// How long what came is remembered.
const WINDOW: Duration = Duration::from_secs(600);
const STREAM: StreamId = StreamId(5);
/// As many as a bucket has places: none of them has to leave.
const IDS: usize = 8;

/// Nothing that is signed passes twice, and no id twice without a mark.
pub(crate) fn replay(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

/// The first secret, then both, then the second one. The workers do not change at once, but none is
/// two steps ahead, and both are listed for as long as something may come again.
struct Rotation {
    /// How both are listed.
    order: [usize; 2],
    /// Of each worker.
    stages: [usize; 2],
    /// When the last worker listed both.
    both: Timestamp,
}

impl Rotation {
    fn new(order: [usize; 2], stage: usize) -> Self {
        Self { order, stages: [stage; 2], both: NOW }
    }

    fn policy(&self, stage: usize) -> Value {
        match stage {
            0 => policy(&[KEYS[0]]),
            1 => policy(&self.order.map(|nth| KEYS[nth])),
            _ => policy(&[KEYS[1]]),
        }
    }

    /// What the worker is configured with next, if it is time for that.
    fn advance(&mut self, worker: usize, now: Timestamp) -> Option<Value> {
        let (stage, other) = (self.stages[worker], self.stages[1 - worker]);
        let is_time = self.both.saturating_add(WINDOW) < now;
        if stage == 2 || other < stage || (stage == 1 && !is_time) {
            return None;
        }
        self.stages[worker] += 1;
        if stage == 0 {
            self.both = now;
        }
        Some(self.policy(stage + 1))
    }
}

fn policy(secrets: &[&str]) -> Value {
    let hook = |format: &str| json!({"format": format, "secrets": secrets, "replay": {"slots": 64}});
    let mut ids = hook("avnology");
    ids["body_only"] = json!(true);
    ids["replay"] = json!({"slots": 64, "by": "id"});
    ids["secrets"] = json!(secrets.iter().map(|secret| format!("{secret} for ids")).collect::<Vec<_>>());
    document(json!({
        "webhooks": {"content": hook("stripe"), "ids": ids},
        "routes": [{"match": {"path": "/content"}, "webhook": "content"},
            {"match": {"path": "/ids"}, "webhook": "ids"}]
    }))
}

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let store = Rc::new(Slots::default());
    let mut rotation = Rotation::new(*input.choose(&[[0, 1], [1, 0]])?, input.int_in_range(0..=1)?);
    let mut workers = [0, 1].map(|_| gate_with(&rotation.policy(rotation.stages[0]), store.clone()));
    let mut now = NOW;
    let mut passed: BTreeMap<(u64, usize), usize> = BTreeMap::new();
    let mut noted: BTreeMap<usize, Timestamp> = BTreeMap::new();
    for _ in 0..input.int_in_range(1..=120)? {
        let worker = usize::from(input.arbitrary::<bool>()?);
        match input.int_in_range(0..=15_u8)? {
            0 | 1 => tamper(&store, input)?,
            2 => now = now.saturating_add(Duration::from_secs(input.int_in_range(0..=700)?)),
            3 => {
                if let Some(policy) = rotation.advance(worker, now) {
                    let loaded = config::load(policy.to_string().as_bytes(), &|_| None).unwrap();
                    workers[worker].configure(ROOT, loaded, now);
                }
            }
            4..=7 => {
                let id = input.int_in_range(0..=IDS - 1)?;
                let body = format!(r#"{{"id":"e{id}"}}"#);
                let key = format!("{} for ids", input.choose(&KEYS)?);
                let signature = signed(key.as_bytes(), &[body.as_bytes()]);
                let headers = [("x-avnology-signature", signature.as_bytes())];
                let request = head("POST", b"/ids", &headers);
                let Some(edited) = deliver(&mut workers[worker], request, body.as_bytes(), now) else {
                    continue;
                };
                let is_marked = edited.iter().any(|(name, _)| name == b"x-avnology-webhook-duplicate");
                let is_new = noted.get(&id).is_none_or(|at| at.saturating_add(WINDOW) < now);
                assert!(is_marked || is_new, "e{id} passes twice without a mark");
                if !is_marked {
                    noted.insert(id, now);
                }
            }
            _ => {
                // Signed by a clock that may be ahead.
                let time = now.as_secs() + 300 - 50 * input.int_in_range(0..=12)?;
                let which = input.int_in_range(0..=19)?;
                let body = format!("b{which}");
                let mut value = format!("t={time}");
                for (nth, key) in KEYS.iter().enumerate() {
                    // It may be signed with either secret, or with both.
                    if which % 3 == 2 || which % 3 == nth {
                        let signature =
                            signed(key.as_bytes(), &[time.to_string().as_bytes(), b".", body.as_bytes()]);
                        value += &format!(",v1={signature}");
                    }
                }
                let request = head("POST", b"/content", &[("stripe-signature", value.as_bytes())]);
                if deliver(&mut workers[worker], request, body.as_bytes(), now).is_some() {
                    let times = passed.entry((time, which)).or_default();
                    *times += 1;
                    assert_eq!(*times, 1, "{body} of {time} passes again");
                }
            }
        }
    }
    Ok(())
}

/// The head that the service gets, if the delivery passes.
fn deliver(engine: &mut Engine, mut request: Headers, body: &[u8], now: Timestamp) -> Option<Headers> {
    let sent = request.clone();
    let mut step = engine.begin(STREAM, ROOT, &borrowed(&sent, false), now);
    if matches!(step, Step::NeedBody) {
        let mut fetch = |from: usize, len: usize| Some(body[from..from + len].to_vec());
        step = engine.body(STREAM, body.len(), true, &mut fetch, now);
    }
    while let Some(output) = engine.poll() {
        if let Output::Edit { edits, .. } = output {
            apply(&edits, &mut request);
        }
    }
    engine.gone(STREAM);
    let Step::Decided(verdict) = step else { panic!("{step:?}") };
    match verdict.action() {
        Action::Forward(edits) => {
            apply(edits, &mut request);
            Some(request)
        }
        Action::Respond { .. } => {
            let reason = verdict.event().reason().id();
            assert!(matches!(reason, "replayed" | "invalid_signature" | "stale_timestamp"), "{reason}");
            None
        }
    }
}

/// Another plugin writes what the gate has never written there.
fn tamper(store: &Slots, input: &mut Unstructured<'_>) -> Result<()> {
    let is_noted = |name: &&String| name.contains("/seen/");
    let names: Vec<String> = store.now.borrow().keys().filter(is_noted).cloned().collect();
    let (Ok(name), Ok(other)) = (input.choose(&names), input.choose(&names)) else { return Ok(()) };
    let mut value = store.now.borrow()[name].0.clone();
    match input.int_in_range(0..=4)? {
        0 => value = store.now.borrow()[other].0.clone(),
        1 => value.truncate(input.int_in_range(0..=value.len())?),
        2 => value.extend(input.arbitrary::<&[u8]>()?),
        // As whoever removes it.
        3 => value.clear(),
        _ if value.is_empty() => {}
        _ => {
            let at = input.int_in_range(0..=value.len() - 1)?;
            value[at] ^= input.arbitrary::<u8>()?;
        }
    }
    // An older value, put back, has everything that it should: that is the limit of a seal.
    if store.written.borrow().contains(&(name.clone(), value.clone())) {
        return Ok(());
    }
    let mut slots = store.now.borrow_mut();
    let version = slots[name].1 + 1;
    slots.insert(name.clone(), (value, version));
    Ok(())
}
