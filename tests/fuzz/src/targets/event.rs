//! What a signed delivery is about: any body, and any places for its type and id.

mod naive;

use super::webhook::{arrive, signed};
use crate::gate::{Headers, NOW, apply, document, gate_with, head};
use crate::targets::slots::Slots;
use arbitrary::{Result, Unstructured};
use avnology_gate::verdict::{Action, Verdict};
use naive::{Outcome, Places};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::rc::Rc;

const KEY: &str = "a webhook key of enough bytes";

/// Few, so that they meet.
const NAMES: [&str; 8] = ["type", "id", "a", "b", "", "a/b", "~", "é"];
const KINDS: [&str; 8] = ["a", "b", "user.a", "user.b", "url_verification", "a b", "", "ü"];
const GLOBS: [&str; 8] = ["*", "a", "user.*", "*.a", "u*r*b", "**b", "url*", "b*"];

/// What is taken is what a naive reading of the body takes, and the service learns what that read.
pub(crate) fn event(data: &[u8]) {
    let _ = deliver(&mut Unstructured::new(data));
}

fn deliver(input: &mut Unstructured<'_>) -> Result<()> {
    let mut places = Places::of(*input.choose(&naive::FORMATS)?);
    let mut webhook = json!({"format": places.format.name, "secrets": [KEY], "max_body_bytes": 100_000});
    match places.format.name {
        "avnology" => webhook["body_only"] = json!(true),
        "custom" => {
            webhook["custom"] = json!({"signature_header": "x-sig", "content": "{id}.{body}",
                "id_header": "x-id"});
        }
        _ => {}
    }
    let mut events = json!({});
    if places.kinds.is_empty() || input.arbitrary()? {
        places.kinds = some_places(&["x-kind", "X-Other"], input)?;
        places.is_exclusive = false;
        events["type"] = json!(places.kinds);
    }
    if input.arbitrary()? {
        places.ids = some_places(&[], input)?;
        events["id"] = json!(places.ids);
    }
    for (name, globs) in [("allow", &mut places.allow), ("deny", &mut places.deny)] {
        if input.arbitrary()? {
            let some: Vec<&str> = pick(&GLOBS, 2, input)?;
            events[name] = json!(some);
            *globs = Some(some);
        }
    }
    places.challenge = places.format.name == "slack" && input.arbitrary()?;
    events["challenge"] = json!(places.challenge);
    let names_id = !places.ids.is_empty() || places.format.name == "custom";
    places.needs_id = names_id && input.arbitrary()?;
    if places.needs_id {
        webhook["replay"] = json!({"by": "id"});
    }
    if places.needs_id && input.ratio(1, 4)? {
        // Only the id is read, and from where the format has it.
        let read = Places::of(places.format);
        if read.ids.is_empty() && read.format.name != "custom" {
            return Ok(());
        }
        places = Places { kinds: Vec::new(), needs_id: true, ..read };
    } else {
        webhook["events"] = events;
    }
    let body = any_body(places.format.form, &places.first_names(), input)?;
    let mut headers: Vec<(&str, &[u8])> = Vec::new();
    for name in ["x-kind", "x-other", "x_kind", "x-github-event", "x-shopify-topic"] {
        if input.ratio(1, 3)? {
            headers.push((name, input.choose(&KINDS)?.as_bytes()));
        }
    }
    let time = NOW.as_secs().to_string();
    let signature = match places.format.name {
        "stripe" => {
            let signature = signed(KEY.as_bytes(), &[time.as_bytes(), b".", &body]);
            format!("t={time},v1={signature}")
        }
        "slack" => format!("v0={}", signed(KEY.as_bytes(), &[b"v0:", time.as_bytes(), b":", &body])),
        "custom" => signed(KEY.as_bytes(), &[b"header.", &body]),
        _ => places.format.prefix.to_owned() + &signed(KEY.as_bytes(), &[&body]),
    };
    let mut sent = headers.clone();
    sent.extend([
        (places.format.header, signature.as_bytes()),
        ("x-slack-request-timestamp", time.as_bytes()),
    ]);
    sent.push(("x-id", b"header"));
    let signed_id = (places.format.name == "custom").then_some("header");

    let members =
        json!({"webhooks": {"hook": webhook}, "routes": [{"match": {"path": "/"}, "webhook": "hook"}]});
    let mut engine = gate_with(&document(members), Rc::new(Slots::default()));
    let mut request = head("POST", b"/", &sent);
    let verdict = arrive(&mut engine, &mut request, &body, false, input)?;
    let outcome = outcome(&verdict, &mut request);
    let expected = places.read(&headers, signed_id, &body);
    let is_text = places.document(&body).is_some_and(|document| String::from_utf8(document).is_ok());
    // What is no UTF-8 may be refused wherever it stands.
    let is_refused = !is_text && outcome == Outcome::Unreadable;
    assert!(is_refused || outcome == expected, "{outcome:?}, not {expected:?}: {}", body.escape_ascii());
    Ok(())
}

/// What became of a delivery.
fn outcome(verdict: &Verdict, request: &mut Headers) -> Outcome {
    match verdict.action() {
        Action::Forward(edits) => {
            apply(edits, request);
            let value = |name: &str| {
                let value = request.iter().find(|(n, _)| n == name.as_bytes()).map(|(_, v)| v.clone());
                value.map(|value| String::from_utf8(value).unwrap())
            };
            assert_eq!(value("x-avnology-webhook-duplicate"), None, "it is the first");
            Outcome::Taken { kind: value("x-avnology-webhook-type"), id: value("x-avnology-webhook-id") }
        }
        Action::Respond { reply, .. } => match (reply.status, verdict.event().reason().id()) {
            (400, "unreadable_event") => Outcome::Unreadable,
            (202, "event_ignored") => Outcome::Ignored,
            (200, _) => Outcome::Challenge(reply.body.clone()),
            (status, reason) => panic!("{status} {reason}"),
        },
    }
}

/// Some, none of them twice.
fn pick<T: Copy + Ord>(all: &[T], most: usize, input: &mut Unstructured<'_>) -> Result<Vec<T>> {
    let picked: Result<BTreeSet<T>> =
        (0..input.int_in_range(1..=most)?).map(|_| input.choose(all).copied()).collect();
    Ok(picked?.into_iter().collect())
}

/// Pointers, and some of these headers' names, none of them twice.
fn some_places(headers: &[&str], input: &mut Unstructured<'_>) -> Result<Vec<String>> {
    let mut places: Vec<String> = Vec::new();
    for _ in 0..input.int_in_range(1..=3)? {
        let place = if !headers.is_empty() && input.ratio(1, 4)? {
            (*input.choose(headers)?).to_owned()
        } else {
            let depth = input.int_in_range(1..=3)?;
            let names: Result<Vec<&str>> = (0..depth).map(|_| input.choose(&NAMES).copied()).collect();
            names?.iter().map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1"))).collect()
        };
        if !places.contains(&place) {
            places.push(place);
        }
    }
    Ok(places)
}

/// JSON, or nearly, or a form with it.
fn any_body(may_be_form: bool, first_names: &[String], input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    if input.ratio(1, 16)? {
        return Ok(input.arbitrary::<&[u8]>()?.to_vec());
    }
    let mut body = Vec::new();
    write_value(&mut body, 0, first_names, input)?;
    if input.ratio(1, 8)? && !body.is_empty() {
        let at = input.int_in_range(0..=body.len() - 1)?;
        body[at] ^= input.arbitrary::<u8>()?;
    }
    if may_be_form && input.arbitrary()? {
        let mut form = Vec::new();
        for _ in 0..input.int_in_range(0..=2)? {
            form.extend(*input.choose(&[
                &b"a=1&"[..],
                b"&",
                b"payload&",
                b"payload=%7B%7D&",
                b"=x&",
                b"p%61yload=&",
            ])?);
        }
        form.extend(*input.choose(&[&b"payload="[..], b"p%61yload=", b"PAYLOAD=", b" payload="])?);
        for byte in body {
            match byte {
                b' ' if input.arbitrary()? => form.push(b'+'),
                b'a'..=b'z' | b'0'..=b'9' => form.push(byte),
                b'{' | b':' if input.ratio(1, 4)? => form.push(byte),
                _ => form.extend(format!("%{byte:02X}").bytes()),
            }
        }
        form.extend(*input.choose(&[&b""[..], b"&", b"&b=", b"%", b"&payload=1"])?);
        return Ok(form);
    }
    Ok(body)
}

fn write_value(
    out: &mut Vec<u8>,
    depth: usize,
    first_names: &[String],
    input: &mut Unstructured<'_>,
) -> Result<()> {
    let kind = match depth {
        _ if input.is_empty() => 3,
        0 if input.ratio(3, 4)? => 0,
        _ => input.int_in_range(0..=15_u8)?,
    };
    match kind {
        0..=6 if depth < 4 => {
            out.push(b'{');
            for nth in 0..input.int_in_range(0..=4)? {
                if nth > 0 {
                    out.push(b',');
                }
                let own = !first_names.is_empty() && input.ratio(3, 4)?;
                let name = if own { input.choose(first_names)?.as_str() } else { *input.choose(&NAMES)? };
                write_text(out, name, input)?;
                out.push(b':');
                write_value(out, depth + 1, &[], input)?;
            }
            out.push(b'}');
        }
        7 => {
            let long = "x".repeat(*input.choose(&[127, 128, 129, 256, 257, 1024, 1025])?);
            write_text(out, &long, input)?;
        }
        8 => out.extend(input.arbitrary::<u64>()?.to_string().bytes()),
        9 => out.extend(*input.choose(&[
            &b"1.5"[..],
            b"-0",
            b"1e999",
            b"18446744073709551616",
            b"-7",
            b"01",
            b"1E2",
        ])?),
        10 => out.extend(*input.choose(&[
            &b"null"[..],
            b"true",
            b"[]",
            b"[{\"a\":1}]",
            b"[[\"\\ud800\"]]",
            b"nul",
        ])?),
        11 => out.extend(*input.choose(&[
            &b"\"\\ud800\""[..],
            b"\"\xff\"",
            b"\"\t\"",
            b"\"\\n\"",
            b" \"a\" ",
            b"\"\\x\"",
        ])?),
        12 => {
            let deep = input.int_in_range(100..=140)?;
            let open = *input.choose(&[&b"{\"a\":"[..], b"["])?;
            (0..deep).for_each(|_| out.extend(open));
            out.push(b'1');
            out.extend(vec![if open.len() == 1 { b']' } else { b'}' }; deep]);
        }
        _ => {
            let text = *input.choose(&KINDS)?;
            write_text(out, text, input)?;
        }
    }
    Ok(())
}

/// A string, in one of its spellings.
fn write_text(out: &mut Vec<u8>, text: &str, input: &mut Unstructured<'_>) -> Result<()> {
    if input.ratio(1, 8)? {
        let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
        out.extend(format!("\"{units}\"").bytes());
    } else {
        out.extend(Value::from(text).to_string().bytes());
    }
    Ok(())
}
