//! A client that sends exactly what a case specifies: duplicate headers, raw bytes, withheld bytes,
//! broken framing.
//!
//! Ready-made HTTP clients normalise what they send, which the gate's cases must avoid. Everything
//! here blocks, with a deadline on every wait.

pub mod frames;
mod http1;
mod http2;

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a client waits for anything before the test fails as stuck. Longer than any wait that a
/// case asks for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The HTTP version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge, without TLS.
    Http2,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1 => "h1",
            Self::Http2 => "h2",
        })
    }
}

/// Headers or trailers, in order, as bytes.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A request, to be sent byte for byte.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// The method.
    pub method: Vec<u8>,
    /// The target; none leaves `:path` out (HTTP/1 writes the authority in its place).
    pub path: Option<Vec<u8>>,
    /// `Host` or `:authority`; none leaves it out.
    pub authority: Option<Vec<u8>>,
    /// Headers, names as they are sent (HTTP/2 sends them in lower case).
    pub headers: Fields,
    /// The body in the pieces in which it is sent; none is a request that ends with its head.
    pub body: Option<Vec<Vec<u8>>>,
    /// Send the body without `content-length`; on HTTP/1 that makes it chunked.
    pub chunked: bool,
    /// Trailers; on HTTP/1 they make the body chunked.
    pub trailers: Fields,
    /// Withhold the body's last byte, and with it the end of the request.
    pub incomplete: bool,
}

impl Ask {
    /// A request without a body.
    pub fn new(method: &str, path: &str, authority: &str) -> Self {
        Self {
            method: method.into(),
            path: Some(path.into()),
            authority: Some(authority.into()),
            ..Self::default()
        }
    }

    /// The same request with one more header.
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// The same request with a bearer token.
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// The same request with a body.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = Some(vec![body.as_ref().to_vec()]);
        self
    }

    /// The same request with one more trailer.
    pub fn trailer(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.trailers.push((name.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// The same request without its end.
    pub fn incomplete(mut self) -> Self {
        self.incomplete = true;
        self
    }

    /// The pieces that are sent: all of them, or all but the last byte.
    fn pieces(&self) -> Option<Vec<&[u8]>> {
        let mut pieces: Vec<&[u8]> = self.body.as_ref()?.iter().map(Vec::as_slice).collect();
        if self.incomplete {
            while let Some(last) = pieces.pop() {
                if let Some((_, kept)) = last.split_last() {
                    pieces.push(kept);
                    break;
                }
            }
        }
        Some(pieces)
    }
}

/// A response.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers in order, names in lower case.
    pub headers: Fields,
    /// The whole body.
    pub body: Vec<u8>,
    /// Trailers in order.
    pub trailers: Fields,
}

impl Answer {
    /// All values of a header, or of a trailer where no header has the name.
    pub fn values(&self, name: &str) -> Vec<String> {
        let of = |fields: &Fields| {
            fields
                .iter()
                .filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
                .map(|(_, v)| String::from_utf8_lossy(v).into_owned())
                .collect::<Vec<_>>()
        };
        let headers = of(&self.headers);
        if headers.is_empty() { of(&self.trailers) } else { headers }
    }

    /// The only value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        let mut values = self.values(name);
        if values.len() == 1 { values.pop() } else { None }
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, or `null` if it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body's member `error`.
    pub fn error(&self) -> Option<String> {
        self.json()["error"].as_str().map(str::to_owned)
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The connection, or the stream, ended without an answer.
    Closed(String),
    /// Nothing arrived in time.
    Silent,
    /// What arrived is not HTTP.
    Garbled(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(how) => write!(f, "closed without an answer: {how}"),
            Self::Silent => f.write_str("no answer in time"),
            Self::Garbled(what) => write!(f, "not HTTP: {what}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Closed(error.to_string()),
        }
    }
}

/// One connection. Dropping it closes it immediately, even during a request.
pub enum Connection {
    /// HTTP/1.1.
    Http1(http1::Connection),
    /// HTTP/2.
    Http2(Box<http2::Connection>),
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr, version: Version) -> io::Result<Self> {
        Self::over(connect(address)?, version)
    }

    /// Uses `version` on an existing TCP connection.
    pub fn over(stream: TcpStream, version: Version) -> io::Result<Self> {
        Ok(match version {
            Version::Http1 => Self::Http1(http1::Connection::new(stream)),
            Version::Http2 => Self::Http2(Box::new(http2::Connection::new(stream)?)),
        })
    }

    /// The local port: it identifies the connection in access logs.
    pub fn port(&self) -> io::Result<u16> {
        let stream = match self {
            Self::Http1(connection) => connection.stream(),
            Self::Http2(connection) => connection.stream(),
        };
        Ok(stream.local_addr()?.port())
    }

    /// Sends a request. A peer that answers early may stop reading: [`Connection::answer`] reports
    /// that, not this function.
    pub fn send(&mut self, ask: &Ask) -> Result<(), Failure> {
        match self {
            Self::Http1(connection) => connection.send(ask),
            Self::Http2(connection) => connection.send(ask),
        }
    }

    /// Sends what was withheld of the last request: its body's last byte and its end.
    pub fn finish(&mut self, ask: &Ask) -> Result<(), Failure> {
        match self {
            Self::Http1(connection) => connection.finish(ask),
            Self::Http2(connection) => connection.finish(ask),
        }
    }

    /// Sends bytes as they are (HTTP/1 only).
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Http1(connection) => connection.send_raw(bytes),
            Self::Http2(_) => Err(Failure::Garbled("raw bytes are for HTTP/1".to_owned())),
        }
    }

    /// Ends the sending direction alone.
    pub fn end_sending(&self) -> Result<(), Failure> {
        let stream = match self {
            Self::Http1(connection) => connection.stream(),
            Self::Http2(connection) => connection.stream(),
        };
        Ok(stream.shutdown(Shutdown::Write)?)
    }

    /// Waits for the answer to the last request.
    pub fn answer(&mut self, patience: Duration) -> Result<Answer, Failure> {
        let deadline = Deadline::after(patience);
        match self {
            Self::Http1(connection) => connection.answer(&deadline),
            Self::Http2(connection) => connection.answer(&deadline),
        }
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, ask: &Ask) -> Result<Answer, Failure> {
        self.send(ask)?;
        self.answer(PATIENCE)
    }

    /// Whether the peer has announced that it takes no further requests on this connection (HTTP/2
    /// only: HTTP/1 announces it in an answer's headers).
    pub fn leaving(&self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(connection) => connection.leaving(),
        }
    }

    /// Ends the connection in both directions, even during a request.
    pub fn end(&self) -> Result<(), Failure> {
        let stream = match self {
            Self::Http1(connection) => connection.stream(),
            Self::Http2(connection) => connection.stream(),
        };
        Ok(stream.shutdown(Shutdown::Both)?)
    }

    /// Resets the request: a reset of the stream on HTTP/2, of the connection on HTTP/1.
    pub fn reset(self) -> Result<(), Failure> {
        match self {
            Self::Http1(connection) => connection.reset(),
            Self::Http2(mut connection) => connection.reset(),
        }
    }
}

/// Connects, with a deadline and with `TCP_NODELAY`.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends one request over a connection of its own.
pub fn ask(address: SocketAddr, version: Version, ask: &Ask) -> Result<Answer, Failure> {
    Connection::open(address, version)?.ask(ask)
}

/// The end of a wait.
struct Deadline(Instant);

impl Deadline {
    fn after(patience: Duration) -> Self {
        Self(Instant::now() + patience)
    }

    /// Lets the next read of `stream` wait until the deadline and no longer.
    fn arm(&self, stream: &TcpStream) -> Result<(), Failure> {
        let left = self.0.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::Silent);
        }
        Ok(stream.set_read_timeout(Some(left))?)
    }
}

/// Whether a write failed because the peer does not read any more.
fn stopped_reading(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted
    )
}
