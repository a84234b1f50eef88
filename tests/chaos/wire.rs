//! A client's connection: HTTP/1.1, kept alive, as little work as possible.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::provider::Identity;
use crate::stub::head_end;

/// How long a client waits. Whoever waits so long has not been answered.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    sent: Instant,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u64>,
    pub(crate) challenge: String,
    pub(crate) body: String,
    /// From the request's last byte to the answer's.
    pub(crate) took: Duration,
}

/// A request with a token. It says to be the administrator, which the service must never see.
pub(crate) fn request(method: &str, path: &str, token: &str) -> String {
    let length = if method == "GET" { "" } else { "content-length: 0\r\n" };
    format!(
        "{method} {path} HTTP/1.1\r\nhost: api.example.com\r\nauthorization: Bearer {token}\r\nx-avnology-user-id: usr_root\r\n{length}\r\n"
    )
}

impl Wire {
    /// A new connection, to any worker.
    pub(crate) fn open(gate: SocketAddr) -> Result<Self, String> {
        TcpStream::connect(gate).map_err(|error| format!("no connection: {error}")).and_then(Self::over)
    }

    /// A connection that is there.
    pub(crate) fn over(stream: TcpStream) -> Result<Self, String> {
        let set = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(PATIENCE)));
        set.map_err(|error| error.to_string())?;
        Ok(Self { stream, buffer: Vec::new(), sent: Instant::now() })
    }

    pub(crate) fn send(&mut self, request: &str) -> Result<(), String> {
        self.sent = Instant::now();
        self.stream.write_all(request.as_bytes()).map_err(|error| format!("sending: {error}"))
    }

    /// Waits for the answer to what was sent.
    pub(crate) fn answer(&mut self) -> Result<Reply, String> {
        let mut chunk = [0; 8192];
        loop {
            if let Some((mut reply, used)) = parse(&self.buffer)? {
                self.buffer.drain(..used);
                reply.took = self.sent.elapsed();
                return Ok(reply);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err("closed without an answer".to_owned()),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) => return Err(format!("no answer: {error}")),
            }
        }
    }

    pub(crate) fn ask(&mut self, request: &str) -> Result<Reply, String> {
        self.send(request)?;
        self.answer()
    }
}

fn parse(buffer: &[u8]) -> Result<Option<(Reply, usize)>, String> {
    let Some(end) = head_end(buffer) else { return Ok(None) };
    let head = String::from_utf8_lossy(&buffer[..end]);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| format!("not HTTP: {head}"))?;
    let mut reply = Reply {
        status,
        retry_after: None,
        challenge: String::new(),
        body: String::new(),
        took: Duration::ZERO,
    };
    let mut length = None;
    for (name, value) in head.split("\r\n").filter_map(|line| line.split_once(": ")) {
        match name {
            "content-length" => length = value.parse().ok(),
            "retry-after" => reply.retry_after = value.parse().ok(),
            "www-authenticate" => value.clone_into(&mut reply.challenge),
            _ => {}
        }
    }
    let length: usize = length.ok_or_else(|| format!("an answer without a length: {head}"))?;
    let Some(body) = buffer.get(end + 4..end + 4 + length) else { return Ok(None) };
    reply.body = String::from_utf8_lossy(body).into_owned();
    Ok(Some((reply, end + 4 + length)))
}

impl Reply {
    /// In a few words, for counting.
    pub(crate) fn report(&self) -> String {
        let error = self.error();
        let what = if error.is_empty() { self.body.replace('\n', " ") } else { error };
        format!("{} {}", self.status, what.trim())
    }

    /// The body's member `error`.
    pub(crate) fn error(&self) -> String {
        let json: Value = serde_json::from_str(&self.body).unwrap_or_default();
        json["error"].as_str().unwrap_or_default().to_owned()
    }

    /// The service saw who holds this token, and answered.
    pub(crate) fn serves(&self, token: &str) -> bool {
        self.status == 200 && Identity::of(token).is_some_and(|identity| identity.lines() == self.body)
    }

    /// The service saw nobody in particular, and answered.
    pub(crate) fn opened(&self) -> bool {
        self.status == 200 && self.body.is_empty()
    }

    pub(crate) fn invalid_token(&self) -> bool {
        self.status == 401
            && self.error() == "invalid_token"
            && self.challenge.contains(r#"error="invalid_token""#)
    }

    /// The token lacks this scope.
    pub(crate) fn lacks(&self, scope: &str) -> bool {
        self.status == 403
            && self.error() == "insufficient_scope"
            && self.challenge.contains(&format!(r#"error="insufficient_scope", scope="{scope}""#))
    }

    /// Without the provider nobody gets in; come again in one to so many seconds.
    pub(crate) fn unavailable(&self, at_most: u64) -> bool {
        self.status == 503
            && self.error() == "provider_unavailable"
            && self.retry_after.is_some_and(|seconds| (1..=at_most).contains(&seconds))
    }
}
