//! A delivery: its signature, its time, its length, and its body in any pieces.

use crate::gate::{Headers, NOW, ROOT, apply, borrowed, document, gate, head};
use arbitrary::{Result, Unstructured};
use avnology_gate::flow::{Engine, Output, Step, StreamId};
use avnology_gate::verdict::{Action, Verdict};
use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::Sha256;
use std::cell::RefCell;

const KEY: &[u8] = b"a webhook key of enough bytes";
const MAX_BODY: usize = 24;
const STREAM: StreamId = StreamId(3);

/// The signature over these pieces, in lower-case hex.
pub(crate) fn signed(key: &[u8], pieces: &[&[u8]]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    pieces.iter().for_each(|piece| mac.update(piece));
    mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect()
}

/// Passes if and only if it is signed, at a time that is near, and no longer than it may be.
pub(crate) fn webhook(data: &[u8]) {
    thread_local! {
        static GATE: RefCell<Engine> = RefCell::new(gate(&document(json!({
            "webhooks": {"hook": {"format": "avnology", "secrets": ["another key of enough bytes",
                "a webhook key of enough bytes"], "max_body_bytes": MAX_BODY}},
            "routes": [{"match": {"path": "/hook"}, "webhook": "hook"}]
        }))));
    }
    let _ = GATE.with(|engine| deliver(&mut engine.borrow_mut(), &mut Unstructured::new(data)));
}

fn deliver(engine: &mut Engine, input: &mut Unstructured<'_>) -> Result<()> {
    // What an input that was too short has left.
    engine.gone(STREAM);
    // What the sender says.
    let time = match input.int_in_range(0..=7)? {
        0 => input.arbitrary::<&[u8]>()?.to_vec(),
        1 => (NOW.as_secs() - 300 + input.int_in_range(0..=600)?).to_string().into_bytes(),
        2 => (NOW.as_secs() - 310 + input.int_in_range(0..=20)?).to_string().into_bytes(),
        3 => (NOW.as_secs() + 290 + input.int_in_range(0..=20)?).to_string().into_bytes(),
        _ => NOW.as_secs().to_string().into_bytes(),
    };
    let len = input.int_in_range(0..=MAX_BODY + 4)?;
    let body = input.bytes(len.min(input.len()))?.to_vec();
    let right = signed(KEY, &[&time, b".", &body]);
    let mut signature = right.clone().into_bytes();
    match input.int_in_range(0..=9)? {
        0 => signature = input.arbitrary::<&[u8]>()?.to_vec(),
        1 => {
            let at = input.int_in_range(0..=signature.len() - 1)?;
            signature[at] ^= input.arbitrary::<u8>()?;
        }
        2 => signature.truncate(input.int_in_range(0..=64)?),
        3 => signature.make_ascii_uppercase(),
        4 => signature.extend(b"00"),
        _ => {}
    }
    let mut headers: Vec<(&str, &[u8])> = Vec::new();
    let mut is_once = true;
    for (name, twin, value) in [
        ("x-avnology-signature", "X_Avnology_Signature", &signature),
        ("x-avnology-timestamp", "x-avnology.timestamp", &time),
    ] {
        match input.int_in_range(0..=9)? {
            0 => is_once = false,
            1 => {
                headers.extend([(name, value.as_slice()), (twin, b"1".as_slice())]);
                is_once = false;
            }
            _ => headers.push((name, value)),
        }
    }
    let announced = if input.ratio(1, 5)? { input.int_in_range(0..=MAX_BODY * 2)? } else { body.len() };
    let length = announced.to_string();
    if input.arbitrary()? {
        headers.push(("content-length", length.as_bytes()));
    }
    let mut request = head("POST", b"/hook", &headers);
    let ends_with_head = body.is_empty() && input.arbitrary()?;
    let verdict = arrive(engine, &mut request, &body, ends_with_head, input)?;

    let is_announced = headers.iter().any(|(name, _)| *name == "content-length");
    let text = String::from_utf8_lossy(&time).into_owned();
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let is_near = text.parse::<u64>().is_ok_and(|at| at.abs_diff(NOW.as_secs()) <= 300);
    let holds = is_once
        && is_plain
        && is_near
        && signature == right.as_bytes()
        && body.len() <= MAX_BODY
        && !(is_announced && announced > MAX_BODY);
    let passes = matches!(verdict.action(), Action::Forward(_));
    assert_eq!(passes, holds, "{}", verdict.event().reason().id());
    if let Action::Forward(edits) = verdict.action() {
        apply(edits, &mut request);
        let value =
            |name: &str| request.iter().find(|(n, _)| n == name.as_bytes()).map(|(_, v)| v.as_slice());
        assert_eq!(value("x-avnology-webhook-verified"), Some(&b"true"[..]));
        assert_eq!(value("x-avnology-webhook-timestamp"), Some(&time[..]));
        assert_eq!(value("x-avnology-webhook-secret-index"), Some(&b"1"[..]));
    }
    Ok(())
}

/// Hands the delivery over in pieces, until it is decided.
fn arrive(
    engine: &mut Engine,
    request: &mut Headers,
    body: &[u8],
    ends_with_head: bool,
    input: &mut Unstructured<'_>,
) -> Result<Verdict> {
    let sent = request.clone();
    let mut step = engine.begin(STREAM, ROOT, &borrowed(&sent, ends_with_head), NOW);
    let (mut received, mut pieces) = (0, 0);
    let verdict = loop {
        while let Some(output) = engine.poll() {
            match output {
                Output::Edit { edits, .. } => apply(&edits, request),
                Output::Dispatch { .. } => panic!("a webhook asks nobody"),
                _ => {}
            }
        }
        match step {
            Step::Decided(verdict) => break verdict,
            Step::NeedBody | Step::Wait => {}
            Step::Continue => panic!("undecided bytes pass"),
        }
        let left = body.len() - received;
        received += if input.is_empty() { left } else { input.int_in_range(0..=left)? };
        let mut fetch = |from: usize, len: usize| Some(body[from..from + len].to_vec());
        let is_last = received == body.len() && (input.is_empty() || input.arbitrary()?);
        step = engine.body(STREAM, received, is_last, &mut fetch, NOW);
        if matches!(step, Step::Wait) && received == body.len() && !is_last && input.arbitrary()? {
            step = engine.trailers(STREAM, [], &mut |_, _| None, NOW).0;
        }
        pieces += 1;
        assert!(pieces < 1000, "never decided");
    };
    engine.gone(STREAM);
    Ok(verdict)
}
