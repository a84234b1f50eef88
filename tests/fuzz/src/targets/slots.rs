//! What workers leave each other in the host's shared data, where other plugins may write too.

use crate::gate::{Reply, decide, document, gate_with, head};
use arbitrary::{Result, Unstructured};
use avnology_gate::flow::SharedStore;
use avnology_gate::fuzzing;
use serde_json::json;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Slots, and every value that a gate has written.
#[derive(Default)]
pub(crate) struct Slots {
    pub(crate) now: RefCell<BTreeMap<String, (Vec<u8>, u32)>>,
    pub(crate) written: RefCell<BTreeSet<(String, Vec<u8>)>>,
}

impl SharedStore for Slots {
    fn get(&self, slot: &str) -> Option<(Vec<u8>, u32)> {
        self.now.borrow().get(slot).cloned()
    }

    fn compare_and_set(&self, slot: &str, value: &[u8], version: Option<u32>) -> bool {
        let mut slots = self.now.borrow_mut();
        let current = slots.get(slot).map(|(_, version)| *version);
        if current != version {
            return false;
        }
        self.written.borrow_mut().insert((slot.to_owned(), value.to_vec()));
        slots.insert(slot.to_owned(), (value.to_vec(), current.unwrap_or(0) + 1));
        true
    }
}

impl Slots {
    /// Another plugin writes to some slot: other bytes, a part, or what stood elsewhere.
    pub(crate) fn tamper(&self, input: &mut Unstructured<'_>) -> Result<()> {
        let mut slots = self.now.borrow_mut();
        let names: Vec<String> = slots.keys().cloned().collect();
        let Ok(name) = input.choose(&names) else { return Ok(()) };
        let Ok(other) = input.choose(&names) else { return Ok(()) };
        let mut value = slots[name].0.clone();
        match input.int_in_range(0..=5)? {
            0 => value.truncate(input.int_in_range(0..=value.len())?),
            1 => value.extend(input.arbitrary::<&[u8]>()?),
            2 => value = input.arbitrary::<&[u8]>()?.to_vec(),
            3 => value = slots[other].0.clone(),
            4 => {
                let written = self.written.borrow();
                let older: Vec<_> = written.iter().filter(|(slot, _)| slot == name).collect();
                if let Ok((_, older)) = input.choose(&older) {
                    value = older.clone();
                }
            }
            _ if value.is_empty() => {}
            _ => {
                let at = input.int_in_range(0..=value.len() - 1)?;
                value[at] ^= input.arbitrary::<u8>()?;
            }
        }
        let version = slots[name].1 + 1;
        slots.insert(name.clone(), (value, version));
        Ok(())
    }

    fn is_authentic(&self, name: &str) -> bool {
        let now = self.now.borrow();
        now.get(name)
            .is_some_and(|(value, _)| self.written.borrow().contains(&(name.to_owned(), value.clone())))
    }
}

/// Values that a stranger has changed are believed by nobody.
pub(crate) fn slots(data: &[u8]) {
    let _ = changed(&mut Unstructured::new(data));
}

fn changed(input: &mut Unstructured<'_>) -> Result<()> {
    let mut document = document(json!({"routes": [{"match": {"path": "/t"}}]}));
    document["provider"]["introspection"]["credentials"] =
        json!({"method": "client_secret_post", "client_id": "c", "client_secret": "a secret of the client"});
    let store = Rc::new(Slots::default());
    let mut first = gate_with(&document, store.clone());
    let request = |nth: usize| head("GET", b"/t", &[("authorization", format!("Bearer t{nth}").as_bytes())]);
    let mut yes: Vec<String> = Vec::new();
    for nth in 0..3 {
        let before: BTreeSet<String> = store.now.borrow().keys().cloned().collect();
        let body = format!(r#"{{"active":true,"sub":"u{nth}"}}"#);
        assert!(decide(&mut first, request(nth), &mut |_| Reply::ok(body.clone())).passes());
        let now = store.now.borrow();
        yes.push(now.keys().find(|name| !before.contains(*name)).expect("it is shared").clone());
    }
    for _ in 0..input.int_in_range(0..=4)? {
        store.tamper(input)?;
    }
    let mut second = gate_with(&document, store.clone());
    for (nth, slot) in yes.iter().enumerate() {
        let is_authentic = store.is_authentic(slot);
        let is_no = input.arbitrary()?;
        let no = || Reply::ok(if is_no { r#"{"active":false}"# } else { "{" });
        let seen = decide(&mut second, request(nth), &mut |_| no());
        if seen.passes() {
            assert!(is_authentic, "a value that nobody has written so is believed");
            let user = format!("u{nth}");
            assert_eq!(seen.header("x-avnology-user-id"), Some(user.as_bytes()), "somebody else's");
        } else if is_no && seen.reason() == "token_inactive" {
            // A no is heard by all: what the other one would read counts no more.
            let mut third = gate_with(&document, store.clone());
            let seen = decide(&mut third, request(nth), &mut |_| no());
            assert!(!seen.passes(), "a yes that a no has ended");
        }
    }
    Ok(())
}

/// A fact behind its seal, of a worker that may be another version: read whole, or not at all.
pub(crate) fn packed(data: &[u8]) {
    if let Some(read) = fuzzing::unpack(data) {
        assert_eq!(read, data);
    }
    if let Some(packed) = fuzzing::pack(data) {
        assert_eq!(fuzzing::unpack(&packed), Some(packed.clone()), "what is written is read");
        if let Some((last, rest)) = packed.split_last() {
            let _ = (last, fuzzing::unpack(rest));
        }
    }
}
