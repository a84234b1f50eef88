//! A delivery of any format: its signatures, its time, its id, its length, and its body in any
//! pieces.

mod senders;

use crate::gate::{Headers, NOW, ROOT, apply, borrowed, document, gate, head};
use arbitrary::{Result, Unstructured};
use avnology_gate::flow::{Engine, Output, Step, StreamId};
use avnology_gate::verdict::{Action, Verdict};
use senders::{Sender, senders};
use serde_json::json;
use std::cell::RefCell;

pub(crate) use senders::signed;

const MAX_BODY: usize = 24;
const STREAM: StreamId = StreamId(3);

/// A gate with a route for each sender.
struct Scene {
    engine: Engine,
    senders: Vec<Sender>,
}

/// Passes if and only if it is signed, at a time that is near, and no longer than it may be.
pub(crate) fn webhook(data: &[u8]) {
    thread_local! {
        static SCENE: RefCell<Scene> = RefCell::new(scene());
    }
    let _ = SCENE.with(|scene| deliver(&mut scene.borrow_mut(), &mut Unstructured::new(data)));
}

fn scene() -> Scene {
    let senders = senders();
    let mut members = json!({"webhooks": {}, "routes": []});
    for (nth, sender) in senders.iter().enumerate() {
        let mut webhook = sender.document.clone();
        webhook["max_body_bytes"] = json!(MAX_BODY);
        members["webhooks"][format!("hook{nth}")] = webhook;
        let route = json!({"match": {"path": format!("/{nth}")}, "webhook": format!("hook{nth}")});
        members["routes"].as_array_mut().unwrap().push(route);
    }
    Scene { engine: gate(&document(members)), senders }
}

fn deliver(Scene { engine, senders }: &mut Scene, input: &mut Unstructured<'_>) -> Result<()> {
    // What an input that was too short has left.
    engine.gone(STREAM);
    let which = input.int_in_range(0..=senders.len() - 1)?;
    let sender = &senders[which];
    // What the sender says.
    let time = match input.int_in_range(0..=7)? {
        0 => input.arbitrary::<&[u8]>()?.to_vec(),
        1 => (NOW.as_secs() - 300 + input.int_in_range(0..=600)?).to_string().into_bytes(),
        2 => (NOW.as_secs() - 310 + input.int_in_range(0..=20)?).to_string().into_bytes(),
        3 => (NOW.as_secs() + 290 + input.int_in_range(0..=20)?).to_string().into_bytes(),
        _ => NOW.as_secs().to_string().into_bytes(),
    };
    let id = match input.int_in_range(0..=7)? {
        0 => input.arbitrary::<&[u8]>()?.to_vec(),
        1 => vec![b'i'; input.int_in_range(250..=260)?],
        2 => input.choose(&["", "a.b", "a/b", "a:b", "a b", "a\u{7f}"])?.as_bytes().to_vec(),
        _ => b"msg_1-2".to_vec(),
    };
    let len = input.int_in_range(0..=MAX_BODY + 4)?;
    let body = input.bytes(len.min(input.len()))?.to_vec();
    let mut signatures = Vec::new();
    for _ in 0..=input.int_in_range(0..=2)? {
        let key = *input.choose(&[0, 0, 1, 1, 2])?;
        let mut signature = sender.sign(key, &time, &id, &body).into_bytes();
        change(&mut signature, input)?;
        signatures.push(signature);
    }
    // Many of them cost bytes of the input where each is chosen.
    if input.ratio(1, 16)? {
        let first = signatures[0].clone();
        signatures.resize(input.int_in_range(15..=18)?, first);
    }
    let mut headers = Headers::new();
    for (name, mut value) in sender.headers(&signatures, &time, &id) {
        match input.int_in_range(0..=15)? {
            0 => continue,
            1 => headers.push((twin(name), b"1".to_vec())),
            2 => headers.push((name.to_uppercase().into_bytes(), value.clone())),
            3 => change(&mut value, input)?,
            4 => value.extend(
                input.choose(&[&b" "[..], b",", b" v1,", b",v1=", b",t=1", b" v2,x", b",x=y"])?.iter(),
            ),
            _ => {}
        }
        headers.push((name.as_bytes().to_vec(), value));
    }
    if input.ratio(1, 8)? {
        let name = *input.choose(&["svix-id", "webhook-id", "x-avnology-timestamp", "svix_signature"])?;
        headers.push((name.as_bytes().to_vec(), b"1".to_vec()));
    }
    let announced = if input.ratio(1, 5)? { input.int_in_range(0..=MAX_BODY * 2)? } else { body.len() };
    let is_announced = input.arbitrary()?;
    let mut request = head("POST", format!("/{which}").as_bytes(), &[]);
    request.extend(headers.iter().cloned());
    if is_announced {
        request.push((b"content-length".to_vec(), announced.to_string().into_bytes()));
    }
    let ends_with_head = body.is_empty() && input.arbitrary()?;
    let verdict = arrive(engine, &mut request, &body, ends_with_head, input)?;

    let is_short = body.len() <= MAX_BODY && !(is_announced && announced > MAX_BODY);
    let expected = sender.verify(&headers, &body).filter(|_| is_short);
    let passes = matches!(verdict.action(), Action::Forward(_));
    assert_eq!(passes, expected.is_some(), "{}: {}", sender.document, verdict.event().reason().id());
    if let (Action::Forward(edits), Some(expected)) = (verdict.action(), expected) {
        apply(edits, &mut request);
        let value = |name: &str| {
            let mut values = request.iter().filter(|(n, _)| n == name.as_bytes()).map(|(_, v)| v.as_slice());
            let value = values.next();
            assert_eq!(values.next(), None, "{name} twice");
            value
        };
        assert_eq!(value("x-avnology-webhook-verified"), Some(&b"true"[..]));
        assert_eq!(value("x-avnology-webhook-timestamp"), expected.time.as_deref());
        assert_eq!(value("x-avnology-webhook-id"), expected.id.as_deref());
        let key = expected.key.to_string();
        assert_eq!(value("x-avnology-webhook-secret-index"), Some(key.as_bytes()));
    }
    Ok(())
}

/// The same name, as some servers read it.
fn twin(name: &str) -> Vec<u8> {
    name.replacen('-', "_", 1).into_bytes()
}

fn change(text: &mut Vec<u8>, input: &mut Unstructured<'_>) -> Result<()> {
    match input.int_in_range(0..=15)? {
        0 => *text = input.arbitrary::<&[u8]>()?.to_vec(),
        1 if !text.is_empty() => {
            let at = input.int_in_range(0..=text.len() - 1)?;
            text[at] ^= input.arbitrary::<u8>()?;
        }
        2 => text.truncate(input.int_in_range(0..=text.len())?),
        3 => text.make_ascii_uppercase(),
        4 => text.extend(b"00"),
        _ => {}
    }
    Ok(())
}

/// Hands a delivery over in pieces, until it is decided.
pub(crate) fn arrive(
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
            step = engine.trailers(STREAM, [], &mut fetch, NOW).0;
        }
        pieces += 1;
        assert!(pieces < 1000, "never decided");
    };
    engine.gone(STREAM);
    Ok(verdict)
}
