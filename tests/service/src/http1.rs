//! The server's half of HTTP/1.1, read from a socket that stays ours.
//!
//! A library would tidy up what the tests are about: the order and repetition of headers, odd
//! request targets, and answers that break off.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const MAX_HEAD: usize = 1024 * 1024;
const MAX_HEADERS: usize = 2000;

/// The head of a request.
#[derive(Debug, Clone)]
pub struct Head {
    /// The method.
    pub method: String,
    /// The request target, as sent.
    pub target: String,
    /// The headers in order, names in lower case; bytes that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    http10: bool,
}

impl Head {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(existing, _)| existing == name).map(|(_, value)| value.as_str())
    }

    /// Whether a comma-separated header has this token.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.headers
            .iter()
            .filter(|(existing, _)| existing == name)
            .flat_map(|(_, value)| value.split(','))
            .any(|one| one.trim().eq_ignore_ascii_case(token))
    }

    /// Whether the connection serves another request after this one.
    pub fn keep_alive(&self) -> bool {
        !self.has_token("connection", "close") && !self.http10
    }
}

/// Where in a request's body the reader stands.
#[derive(Debug)]
pub struct Body {
    state: State,
    expects_continue: bool,
    trailers: Vec<(String, String)>,
}

#[derive(Debug)]
enum State {
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    Done,
}

impl Body {
    /// The trailers, once the body has ended.
    pub fn into_trailers(self) -> Vec<(String, String)> {
        self.trailers
    }
}

/// A connection, and what was read of it but not used yet.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl Connection {
    /// A connection just accepted.
    pub fn new(stream: TcpStream) -> Connection {
        Connection { stream, buffer: BytesMut::new() }
    }

    /// The socket, and the bytes read but not used.
    pub fn into_parts(self) -> (TcpStream, Bytes) {
        (self.stream, self.buffer.freeze())
    }

    /// The socket.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether the connection begins with `prefix`; reads no more of it than it takes to know.
    pub async fn starts_with(&mut self, prefix: &[u8]) -> io::Result<bool> {
        loop {
            let known = self.buffer.len().min(prefix.len());
            if self.buffer[..known] != prefix[..known] {
                return Ok(false);
            }
            if known == prefix.len() {
                return Ok(true);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(false);
            }
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The next request, or `None` when the client is done. A malformed one is an error of kind
    /// `InvalidData`.
    pub async fn head(&mut self) -> io::Result<Option<(Head, Body)>> {
        loop {
            if let Some((head, length)) = parse_head(&self.buffer)? {
                let body = framing(&head)?;
                self.buffer.advance(length);
                return Ok(Some((head, body)));
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(bad("the head is too long"));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// The next part of the body as it arrives, or `None` at its end.
    pub async fn body_part(&mut self, body: &mut Body) -> io::Result<Option<Bytes>> {
        loop {
            match body.state {
                State::Done | State::Length(0) => return Ok(None),
                State::Length(rest) => {
                    let part = self.some(body, rest).await?;
                    body.state = State::Length(rest - part.len() as u64);
                    return Ok(Some(part));
                }
                State::Chunk(0) => body.state = State::ChunkEnd,
                State::Chunk(rest) => {
                    let part = self.some(body, rest).await?;
                    body.state = State::Chunk(rest - part.len() as u64);
                    return Ok(Some(part));
                }
                State::ChunkSize => match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete((length, size))) => {
                        self.buffer.advance(length);
                        body.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
                    }
                    Ok(httparse::Status::Partial) if self.buffer.len() < MAX_HEAD => self.more(body).await?,
                    _ => return Err(bad("bad chunk size")),
                },
                State::ChunkEnd => match self.buffer.get(..2) {
                    Some(b"\r\n") => {
                        self.buffer.advance(2);
                        body.state = State::ChunkSize;
                    }
                    Some(_) => return Err(bad("bad end of chunk")),
                    None => self.more(body).await?,
                },
                State::Trailers => {
                    let mut slots = vec![httparse::EMPTY_HEADER; MAX_HEADERS];
                    match httparse::parse_headers(&self.buffer, &mut slots) {
                        Ok(httparse::Status::Complete((length, trailers))) => {
                            body.trailers = owned(trailers);
                            self.buffer.advance(length);
                            body.state = State::Done;
                        }
                        Ok(httparse::Status::Partial) if self.buffer.len() < MAX_HEAD => {
                            self.more(body).await?
                        }
                        _ => return Err(bad("bad trailers")),
                    }
                }
            }
        }
    }

    async fn some(&mut self, body: &mut Body, at_most: u64) -> io::Result<Bytes> {
        if self.buffer.is_empty() {
            self.more(body).await?;
        }
        let length = usize::try_from(at_most).unwrap_or(usize::MAX).min(self.buffer.len());
        Ok(self.buffer.split_to(length).freeze())
    }

    async fn more(&mut self, body: &mut Body) -> io::Result<()> {
        if std::mem::take(&mut body.expects_continue) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        self.fill().await
    }

    /// Writes an answer, with `content-length` unless `headers` has one. `body` may be shorter than
    /// `length` says.
    pub async fn answer(
        &mut self,
        status: u16,
        headers: &[(String, String)],
        length: usize,
        body: &[u8],
    ) -> io::Result<()> {
        let reason = hyper::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let mut head = format!("HTTP/1.1 {status} {}\r\n", reason.unwrap_or_default());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let framed = headers.iter().any(|(name, _)| name == "content-length" || name == "transfer-encoding");
        let bodiless = status < 200 || status == 204 || status == 304;
        if !framed && !bodiless {
            head.push_str(&format!("content-length: {length}\r\n"));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if !bodiless {
            bytes.extend_from_slice(body);
        }
        self.stream.write_all(&bytes).await
    }

    /// Answers a malformed request, where `error` is one, before the connection is closed.
    pub async fn refuse(&mut self, error: &io::Error) {
        if error.kind() == io::ErrorKind::InvalidData {
            let close = [("connection".to_owned(), "close".to_owned())];
            let body = format!("{error}\n");
            // The client may be gone already; there is nobody left to tell.
            let _ = self.answer(400, &close, body.len(), body.as_bytes()).await;
        }
    }
}

fn owned(headers: &[httparse::Header<'_>]) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned()))
        .collect()
}

fn parse_head(bytes: &[u8]) -> io::Result<Option<(Head, usize)>> {
    let mut slots = vec![httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut slots);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) => {
            let head = Head {
                method: request.method.unwrap_or_default().to_owned(),
                target: request.path.unwrap_or_default().to_owned(),
                headers: owned(request.headers),
                http10: request.version == Some(0),
            };
            Ok(Some((head, length)))
        }
        Err(_) => Err(bad("malformed request head")),
    }
}

fn framing(head: &Head) -> io::Result<Body> {
    let mut lengths =
        head.headers.iter().filter(|(name, _)| name == "content-length").map(|(_, value)| value);
    let length = lengths.next();
    let mut encodings =
        head.headers.iter().filter(|(name, _)| name == "transfer-encoding").map(|(_, value)| value);
    let state = match (encodings.next(), length) {
        (Some(encoding), None) if encoding.eq_ignore_ascii_case("chunked") => State::ChunkSize,
        (Some(_), _) => return Err(bad("bad transfer-encoding")),
        (None, Some(length)) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            State::Length(length.parse().map_err(|_| bad("bad content-length"))?)
        }
        (None, Some(_)) => return Err(bad("bad content-length")),
        (None, None) => State::Done,
    };
    if lengths.next().is_some() || encodings.next().is_some() {
        return Err(bad("the length stands twice"));
    }
    Ok(Body { state, expects_continue: head.has_token("expect", "100-continue"), trailers: Vec::new() })
}
