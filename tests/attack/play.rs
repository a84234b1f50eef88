//! Sends a row and checks what the client gets.

use std::net::Shutdown;
use std::time::{SystemTime, UNIX_EPOCH};

use harness::attack::{Act, Head, Leave, Outcome as Wanted, Row, Then};
use harness::client::frames::{Session, Stream};
use harness::client::{Answer, Failure, Fields, PATIENCE, Version};
use harness::corpus::{WEBHOOK_SECRET, unescape};
use harness::standin;

use crate::stage::{HOST, LAST, Stage};
use crate::{Outcome, ensure};

/// How fast HTTP/1 bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Each act in one write.
    AtOnce,
    /// Each byte in a packet of its own.
    ByteByByte,
}

/// Plays a row over a connection of its own.
pub(crate) fn play(stage: &Stage, row: &Row, wanted: &Wanted, pace: Pace, number: usize) -> Outcome {
    let arrived = stage.scene.requests();
    if row.send.iter().any(|act| act.h1.is_some()) {
        http1(stage, row, wanted, pace, (arrived, number))
    } else {
        http2(stage, row, wanted, (arrived, number))
    }
}

/// Whatever does not depend on the version; says whether it was such an act.
fn common(stage: &Stage, act: &Act, arrived: u64) -> Result<bool, String> {
    if let Some(count) = act.until_asked {
        stage.scene.provider.wait_for_more_calls_than(count.saturating_sub(1))?;
    } else if let Some(count) = act.until_arrived {
        harness::control::until(|| Ok(stage.scene.requests().saturating_sub(arrived) >= count))
            .map_err(|error| format!("{count} requests do not arrive: {error}"))?;
    } else if act.until_idle {
        stage.nothing_in_progress()?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn failed(failure: Failure) -> String {
    failure.to_string()
}

fn http1(stage: &Stage, row: &Row, wanted: &Wanted, pace: Pace, (arrived, number): (u64, usize)) -> Outcome {
    let mut connection = stage.scene.connect(Version::Http1, None)?;
    for act in &row.send {
        if common(stage, act, arrived)? {
            continue;
        }
        if let Some(text) = &act.h1 {
            let bytes = bytes(row, text, number)?;
            let parts: Vec<&[u8]> = match pace {
                Pace::AtOnce => vec![&bytes],
                // So long a head is about its length, and the time that it may take is limited.
                Pace::ByteByByte if bytes.len() > 4096 => vec![&bytes],
                Pace::ByteByByte => bytes.chunks(1).collect(),
            };
            for part in parts {
                connection.send_raw(part).map_err(failed)?;
            }
        } else if let Some(wanted) = &act.answer {
            let answer = connection.answer(PATIENCE).map_err(failed)?;
            check(&answer, wanted)?;
        } else if let Some(leave) = act.leave {
            match leave {
                Leave::Reset => return connection.reset().map_err(failed),
                Leave::Close => connection.end().map_err(failed)?,
                Leave::Write => connection.end_sending().map_err(failed)?,
            }
        } else {
            return Err(format!("not for HTTP/1: {act:?}"));
        }
    }
    for (index, wanted) in wanted.answers.iter().enumerate() {
        let answer =
            connection.answer(PATIENCE).map_err(|failure| format!("answer {}: {failure}", index + 1))?;
        check(&answer, wanted).map_err(|problem| format!("answer {}: {problem}", index + 1))?;
    }
    match wanted.then {
        Then::Left => Ok(()),
        Then::Closed => match connection.answer(PATIENCE) {
            // Half of an answer is one too many, too; the first frames of HTTP/2 are none.
            Err(Failure::Closed(how)) if !how.contains("HTTP/") => Ok(()),
            Err(failure) => Err(format!("then: {failure}, expected the end of the connection")),
            Ok(answer) => Err(format!("one answer too many: {} {:.300}", answer.status, answer.text())),
        },
        Then::Open => {
            let last = format!("GET {LAST} HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
            connection.send_raw(last.as_bytes()).map_err(failed)?;
            let answer =
                connection.answer(PATIENCE).map_err(|failure| format!("one more request: {failure}"))?;
            is_last(&answer)
        }
    }
}

/// The answer to the request that ends a row: any other one is an answer too many.
fn is_last(answer: &Answer) -> Outcome {
    ensure!(
        answer.status == 200 && answer.json()["path"] == LAST,
        "one more request is answered {} {:.300}",
        answer.status,
        answer.text()
    );
    Ok(())
}

fn http2(stage: &Stage, row: &Row, wanted: &Wanted, (arrived, number): (u64, usize)) -> Outcome {
    let tcp = stage.scene.envoy.open(stage.scene.address).map_err(|error| error.to_string())?;
    let mut session = Session::over(tcp).map_err(failed)?;
    let mut highest = 0;
    // A row that opens many streams names the first: the others are answered like it.
    let mut like: Vec<(u32, u32)> = Vec::new();
    for act in &row.send {
        if common(stage, act, arrived)? {
            continue;
        }
        if let Some(head) = &act.head {
            let fields = fields(row, head, number);
            for index in 0..head.count {
                let stream = head.stream + 2 * index;
                highest = highest.max(stream);
                like.push((stream, head.stream));
                let frames = usize::try_from(head.frames).unwrap_or(1);
                session.head(stream, &fields, head.end, frames).map_err(failed)?;
            }
        } else if let Some(data) = &act.data {
            session.data(data.stream, &data.text.bytes(), data.end, data.count).map_err(failed)?;
        } else if let Some(frame) = &act.frame {
            let payload = frame.payload.as_ref().map(|text| text.bytes()).unwrap_or_default();
            for index in 0..frame.streams {
                let stream = frame.stream + 2 * index;
                session.frame(frame.kind, frame.flags, stream, &payload, frame.count).map_err(failed)?;
            }
        } else if let Some(stream) = act.until_answered {
            like.push((stream, stream));
            let answered =
                |session: &Session| session.streams.get(&stream).is_some_and(|stream| stream.ended);
            session.read_until(PATIENCE, answered).map_err(failed)?;
        } else if let Some(leave) = act.leave {
            match leave {
                Leave::Reset => return session.reset().map_err(failed),
                Leave::Close => session.shutdown(Shutdown::Both).map_err(failed)?,
                Leave::Write => session.shutdown(Shutdown::Write).map_err(failed)?,
            }
        } else {
            return Err(format!("not for HTTP/2: {act:?}"));
        }
    }
    let expected: Vec<(u32, &String)> =
        like.iter().filter_map(|(stream, first)| Some((*stream, wanted.streams.get(first)?))).collect();
    let settled = |session: &Session| {
        expected.iter().filter(|(_, wanted)| *wanted != "none").all(|(stream, _)| {
            session.streams.get(stream).is_some_and(|stream| stream.ended || stream.reset.is_some())
        })
    };
    session.read_until(PATIENCE, settled).map_err(|failure| {
        let so_far: Vec<(u32, String)> =
            session.streams.iter().map(|(number, stream)| (*number, told(Some(stream)))).collect();
        format!("{failure}; so far {so_far:?}, {:?}", session.goaway)
    })?;
    let expected_streams: Vec<u32> = expected.iter().map(|(stream, _)| *stream).collect();
    for (stream, wanted) in expected {
        let got = told(session.streams.get(&stream));
        ensure!(
            got == *wanted,
            "stream {stream} is answered {got}, expected {wanted}; GOAWAY: {:?}",
            session.goaway
        );
        if let Some(stream) = session.streams.get(&stream).filter(|stream| stream.ended) {
            sound(&stream.answer)?;
        }
    }
    match wanted.then {
        Then::Left => Ok(()),
        Then::Closed => {
            session
                .read_until(PATIENCE, |session| session.ended)
                .map_err(|failure| format!("then: {failure}"))?;
            let named = |stream: &u32| expected_streams.contains(stream);
            let more =
                session.streams.iter().find(|(number, stream)| !named(number) && stream.answer.status != 0);
            ensure!(more.is_none(), "one answer too many: {more:?}");
            Ok(())
        }
        Then::Open => {
            let stream = if highest == 0 { 1 } else { highest + 2 - (highest + 1) % 2 };
            session.head(stream, &request("GET", LAST), true, 1).map_err(failed)?;
            let ended = |session: &Session| {
                session.streams.get(&stream).is_some_and(|stream| stream.ended || stream.reset.is_some())
            };
            session.read_until(PATIENCE, ended).map_err(|failure| format!("one more request: {failure}"))?;
            let got = session.streams.get(&stream).cloned().unwrap_or_default();
            is_last(&got.answer)
                .map_err(|problem| format!("{problem}; {:?}, GOAWAY {:?}", got.reset, session.goaway))
        }
    }
}

/// A stream's answer in a word or two.
fn told(stream: Option<&Stream>) -> String {
    match stream {
        Some(Stream { reset: Some(code), answer, .. }) if answer.status == 0 => format!("reset {code}"),
        Some(Stream { ended: true, answer, .. }) => word(answer),
        _ => "none".to_owned(),
    }
}

/// An answer in a word or two: only the gate's own have an error.
fn word(answer: &Answer) -> String {
    match answer.error() {
        Some(error) => format!("{} {error}", answer.status),
        None => answer.status.to_string(),
    }
}

fn check(answer: &Answer, wanted: &str) -> Outcome {
    let got = word(answer);
    ensure!(got == wanted, "{got}, expected {wanted}: {:.300}", answer.text());
    sound(answer)
}

/// What every answer of the gate's has: nothing that may be kept, and visible ASCII alone.
fn sound(answer: &Answer) -> Outcome {
    if answer.error().is_none() {
        return Ok(());
    }
    ensure!(answer.header("cache-control").as_deref() == Some("no-store"), "a refusal that may be kept");
    for (name, value) in &answer.headers {
        ensure!(
            value.iter().all(|byte| matches!(byte, b' '..=b'~')),
            "{} holds other bytes than visible ASCII",
            String::from_utf8_lossy(name)
        );
    }
    Ok(())
}

fn request(method: &str, path: &str) -> Fields {
    let pairs = [(":method", method), (":scheme", "http"), (":path", path), (":authority", HOST)];
    pairs.map(|(name, value)| (name.into(), value.into())).to_vec()
}

/// The fields of a HEADERS frame.
fn fields(row: &Row, head: &Head, number: usize) -> Fields {
    let mut fields = Fields::new();
    if let Some((method, path)) = head.request.as_deref().and_then(|text| text.split_once(' ')) {
        fields = request(method, path);
    }
    if let Some(token) = &head.token {
        let token = token.replace('#', &number.to_string());
        fields.push((b"authorization".to_vec(), format!("Bearer {token}").into_bytes()));
    }
    if head.signed {
        let (time, signature) = signature(row);
        fields.push((b"x-avnology-timestamp".to_vec(), time.into_bytes()));
        fields.push((b"x-avnology-signature".to_vec(), signature.into_bytes()));
    }
    fields.extend(head.fields.iter().map(|(name, value)| (unescape(name), value.bytes())));
    fields
}

fn signature(row: &Row) -> (String, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    (now.to_string(), standin::sign(WEBHOOK_SECRET, now, &unescape(&row.sign)))
}

/// HTTP/1 text to bytes: `\r`, `\n` and `\xNN`, the header lines `{host}`, `{signed}` and
/// `{token NAME}` (`#` is the number of the play), and `{TEXT*N}` for repeated text.
fn bytes(row: &Row, text: &str, number: usize) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let text = text.replace("\\r", "\r").replace("\\n", "\n");
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        let (inner, after) = after.split_once('}').ok_or("a brace that does not close")?;
        out.extend(unescape(before));
        if inner == "host" {
            out.extend(format!("host: {HOST}\r\n").into_bytes());
        } else if inner == "signed" {
            let (time, signature) = signature(row);
            out.extend(
                format!("x-avnology-timestamp: {time}\r\nx-avnology-signature: {signature}\r\n").into_bytes(),
            );
        } else if let Some(token) = inner.strip_prefix("token ") {
            let token = token.replace('#', &number.to_string());
            out.extend(format!("authorization: Bearer {token}\r\n").into_bytes());
        } else if let Some((repeated, count)) = inner.rsplit_once('*') {
            out.extend(unescape(repeated).repeat(count.parse().map_err(|_| format!("{{{inner}}}"))?));
        } else {
            // Braces of JSON.
            out.push(b'{');
            out.extend(unescape(inner));
            out.push(b'}');
        }
        rest = after;
    }
    out.extend(unescape(rest));
    Ok(out)
}
