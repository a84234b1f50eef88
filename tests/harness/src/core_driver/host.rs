//! How the host represents things: header maps, bodies in pieces, failed callouts, edits, local
//! replies.

use std::time::Duration;

use avnology_gate::envoy::header_map;
use avnology_gate::http::{Edit, LocalReply, MAX_REPLY_BYTES};
use standin::{Answer, Fault};

use crate::corpus::{Observation, Outgoing, Version};

#[derive(Clone, Copy, Debug)]
pub(super) enum Piece {
    Bytes { len: usize, last: bool },
    Trailers,
}

pub(super) enum Landing {
    Answer { headers: Vec<u8>, body: Vec<u8> },
    Broken,
    Oversize { headers: Vec<u8> },
}

/// The header map that the host passes to the filter.
pub(super) fn head(sent: &Outgoing, version: Version) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut out: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut authority: Vec<Vec<u8>> = sent.authority.iter().cloned().collect();
    let mut rest: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let has = |name: &str| sent.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let upgrades = version == Version::H1 && has("upgrade");
    for (name, value) in &sent.headers {
        let name = name.to_ascii_lowercase().into_bytes();
        let joined: Option<&[u8]> = match name.as_slice() {
            b"host" if version == Version::H1 => {
                authority.push(value.clone());
                continue;
            }
            b"connection" | b"upgrade" | b"keep-alive" | b"proxy-connection" if !upgrades => continue,
            b"authorization" => Some(b","),
            b"cookie" if version == Version::H2 => Some(b"; "),
            _ => None,
        };
        match (joined, rest.iter_mut().find(|(n, _)| *n == name)) {
            (Some(separator), Some((_, first))) => {
                first.extend(separator);
                first.extend(value);
            }
            _ => rest.push((name, value.clone())),
        }
    }
    if !authority.is_empty() {
        out.push((b":authority".to_vec(), authority.join(&b","[..])));
    }
    if let Some(path) = &sent.path {
        out.push((b":path".to_vec(), path.clone()));
    }
    out.push((b":method".to_vec(), sent.method.clone()));
    out.push((b":scheme".to_vec(), b"http".to_vec()));
    out.extend(rest);
    match (&sent.body, sent.chunks) {
        (Some(_), Some(_)) if version == Version::H1 => {
            out.push((b"transfer-encoding".to_vec(), b"chunked".to_vec()))
        }
        (Some(_), None) if version == Version::H1 && !sent.trailers.is_empty() => {
            out.push((b"transfer-encoding".to_vec(), b"chunked".to_vec()));
        }
        (Some(body), None) if !has("content-length") => {
            out.push((b"content-length".to_vec(), body.len().to_string().into_bytes()));
        }
        _ => {}
    }
    out.push((b"x-forwarded-proto".to_vec(), b"http".to_vec()));
    out.push((b"x-request-id".to_vec(), b"6f1c8c39-4a2b-4c0e-9a55-0d5c3a1b2c3d".to_vec()));
    out
}

/// The body and the trailers as the pieces in which they arrive.
pub(super) fn pieces(sent: &Outgoing, version: Version) -> Vec<Piece> {
    let mut out = Vec::new();
    let body = sent.body.as_deref().unwrap_or_default();
    let len = body.len().saturating_sub(usize::from(sent.incomplete));
    let count = sent.chunks.unwrap_or(1).max(1);
    let size = len.div_ceil(count).max(1);
    let mut left = len;
    while left > 0 {
        let len = left.min(size);
        left -= len;
        out.push(Piece::Bytes { len, last: false });
    }
    if sent.incomplete {
        return out;
    }
    if !sent.trailers.is_empty() {
        out.push(Piece::Trailers);
        return out;
    }
    // A chunked HTTP/1 body ends with an empty piece of its own; other bodies end with their last
    // byte.
    match (sent.chunks, version, out.last_mut()) {
        (None, _, Some(Piece::Bytes { last, .. }))
        | (Some(_), Version::H2, Some(Piece::Bytes { last, .. })) => *last = true,
        (Some(_), _, _) => out.push(Piece::Bytes { len: 0, last: true }),
        // An empty body with a content-length ends with the headers.
        (None, _, _) => {}
    }
    out
}

/// How the host delivers an answer of the provider, and when.
pub(super) fn landing(answer: Answer, timeout: Duration) -> (Duration, Landing) {
    let late = (timeout, synthetic(504, "upstream request timeout"));
    if answer.delay >= timeout {
        return late;
    }
    let landing = match answer.fault {
        Some(Fault::Hang) => return late,
        Some(Fault::Reset) => synthetic(503, UNREACHABLE),
        Some(Fault::Garbage) => synthetic(
            502,
            "upstream connect error or disconnect/reset before headers. reset reason: protocol error",
        ),
        Some(Fault::Truncate) => Landing::Broken,
        None => {
            let mut headers = vec![(":status".to_owned(), answer.status.to_string())];
            headers.extend(answer.headers);
            if !headers.iter().any(|(name, _)| name == "content-length") {
                headers.push(("content-length".to_owned(), answer.body.len().to_string()));
            }
            // Distinguishes a real answer from the host's own.
            headers.push(("x-envoy-upstream-service-time".to_owned(), answer.delay.as_millis().to_string()));
            let headers = header_map::encode(&headers);
            if answer.body.len() > MAX_REPLY_BYTES {
                Landing::Oversize { headers }
            } else {
                Landing::Answer { headers, body: answer.body }
            }
        }
    };
    (answer.delay, landing)
}

pub(super) const UNREACHABLE: &str =
    "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";

/// An answer that the host generates itself.
pub(super) fn synthetic(status: u16, text: &str) -> Landing {
    let headers = [
        (":status", status.to_string()),
        ("content-length", text.len().to_string()),
        ("content-type", "text/plain".to_owned()),
    ];
    Landing::Answer { headers: header_map::encode(&headers), body: text.as_bytes().to_vec() }
}

/// Applies edits to a header map, as the host does.
pub(super) fn apply(edits: &[Edit], head: &mut Vec<(Vec<u8>, Vec<u8>)>, wrong: &mut Vec<String>) {
    for edit in edits {
        let is = |name: &[u8], other: &[u8]| name.eq_ignore_ascii_case(other);
        match edit {
            Edit::Remove(name) => {
                if name.starts_with(b":") {
                    wrong.push(format!("a pseudo-header is removed: {}", name.escape_ascii()));
                }
                head.retain(|(n, _)| !is(n, name));
            }
            Edit::Add(name, value) => {
                if head.iter().any(|(n, _)| is(n, name)) {
                    wrong.push(format!("{} is added beside another value", name.escape_ascii()));
                }
                head.push((name.clone(), value.clone()));
            }
            Edit::AddAll(headers) => {
                let each: Vec<Edit> =
                    headers.iter().map(|(name, value)| Edit::Add(name.clone(), value.clone())).collect();
                apply(&each, head, wrong);
            }
            Edit::Replace(name, value) => {
                let at = head.iter().position(|(n, _)| is(n, name));
                head.retain(|(n, _)| !is(n, name));
                head.insert(at.unwrap_or(head.len()).min(head.len()), (name.clone(), value.clone()));
            }
        }
        if let Edit::Add(name, value) | Edit::Replace(name, value) = edit {
            // The host refuses such a value later, and answers 503 itself.
            if value.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')) || name.iter().any(u8::is_ascii_uppercase)
            {
                wrong.push(format!("{} cannot be written to a request", name.escape_ascii()));
            }
        }
    }
}

/// A local reply as the client sees it.
pub(super) fn answer(reply: &LocalReply, sent: &Outgoing, seen: &mut Observation, wrong: &mut Vec<String>) {
    if !(200..=599).contains(&reply.status) {
        wrong.push(format!("a local reply with status {}", reply.status));
    }
    seen.status = reply.status;
    seen.details = Some(reply.details.clone());
    seen.headers =
        reply.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
    for (name, _) in &reply.headers {
        if name.starts_with(':') || name.bytes().any(|b| b.is_ascii_uppercase() || b <= 0x20) {
            wrong.push(format!("a local reply with the header name {name:?}"));
        }
    }
    // What Envoy treats as gRPC.
    let is_grpc = sent.headers.iter().any(|(name, value)| {
        let rest =
            value.strip_prefix(b"application/grpc").filter(|_| name.eq_ignore_ascii_case("content-type"));
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
    });
    match reply.grpc_status {
        Some(status) if is_grpc => {
            // The host's trailers-only answer.
            seen.status = 200;
            seen.headers.retain(|(name, _)| name != "content-type");
            seen.headers.push(("content-type".to_owned(), b"application/grpc".to_vec()));
            let named: Vec<_> =
                seen.headers.iter().filter(|(n, _)| n == "grpc-status").map(|(_, v)| v.as_slice()).collect();
            // Envoy keeps the status of the headers, and the message unless there is a body.
            if !reply.body.is_empty() || !named.contains(&status.to_string().as_bytes()) {
                wrong.push("a gRPC answer with a body, or whose headers have another status".to_owned());
            }
        }
        Some(_) => wrong.push("a gRPC status for a request that is not gRPC".to_owned()),
        None if is_grpc => wrong.push("no gRPC status for a gRPC request".to_owned()),
        None if sent.method == b"HEAD" => {}
        None => seen.body = reply.body.clone().into_bytes(),
    }
}
