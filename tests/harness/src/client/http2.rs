//! HTTP/2 without TLS, one request at a time, written frame by frame.
//!
//! A library would refuse to send half of what the cases need (paths that are not URIs, names and
//! values that are not text, requests without `:path`), so only the reading side of HPACK comes
//! from a library.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{Answer, Ask, Deadline, Failure, Fields, PATIENCE, stopped_reading};

/// A connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    decoder: loona_hpack::Decoder<'static>,
    /// The request that is being sent or answered.
    current: u32,
    /// How many bytes the peer lets us send.
    connection_window: i64,
    stream_window: i64,
    initial_window: i64,
    reply: Reply,
    /// The peer has sent GOAWAY.
    leaving: bool,
}

/// What has been read of the answer to the current request.
#[derive(Default)]
struct Reply {
    answer: Answer,
    /// Header blocks of the final answer: the first contains headers, the second trailers.
    blocks: usize,
    fragments: Vec<u8>,
    ended: bool,
    failed: Option<String>,
}

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// The largest frame that every peer must accept.
const FRAME: usize = 16 * 1024;
/// The window that we grant: nothing that a test reads is larger.
const GRANTED: u32 = (1 << 31) - 1;
/// The window that every peer starts with.
const DEFAULT_WINDOW: i64 = 65_535;

impl Connection {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        let mut connection = Self {
            stream,
            buffer: Vec::new(),
            decoder: loona_hpack::Decoder::new(),
            current: 0,
            connection_window: DEFAULT_WINDOW,
            stream_window: DEFAULT_WINDOW,
            initial_window: DEFAULT_WINDOW,
            reply: Reply::default(),
            leaving: false,
        };
        let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // SETTINGS_INITIAL_WINDOW_SIZE, and the connection's window beside it.
        let mut settings = vec![0, 4];
        settings.extend_from_slice(&GRANTED.to_be_bytes());
        frame(&mut opening, SETTINGS, 0, 0, &settings);
        frame(&mut opening, WINDOW_UPDATE, 0, 0, &(GRANTED - 65_535).to_be_bytes());
        connection.stream.write_all(&opening)?;
        Ok(connection)
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) fn leaving(&self) -> bool {
        self.leaving
    }

    pub(super) fn send(&mut self, ask: &Ask) -> Result<(), Failure> {
        self.current = if self.current == 0 { 1 } else { self.current + 2 };
        self.stream_window = self.initial_window;
        self.reply = Reply::default();
        let mut block = Vec::new();
        literal(&mut block, b":method", &ask.method);
        if ask.method != b"CONNECT" || ask.path.is_some() {
            literal(&mut block, b":scheme", b"http");
        }
        if let Some(path) = &ask.path {
            literal(&mut block, b":path", path);
        }
        if let Some(authority) = &ask.authority {
            literal(&mut block, b":authority", authority);
        }
        for (name, value) in &ask.headers {
            literal(&mut block, &name.to_ascii_lowercase(), value);
        }
        let named = ask.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"content-length"));
        // With a length and trailers, an HTTP/1 service behind the proxy could get no trailers.
        if let Some(body) = ask.body.as_ref().filter(|_| !ask.chunked && !named && ask.trailers.is_empty()) {
            let length: usize = body.iter().map(Vec::len).sum();
            literal(&mut block, b"content-length", length.to_string().as_bytes());
        }
        // An empty body with a `content-length` ends with the headers.
        let pieces = ask.pieces().filter(|pieces| ask.chunked || ask.incomplete || !pieces.is_empty());
        self.block(&block, pieces.is_none() && ask.trailers.is_empty())?;
        let Some(pieces) = pieces else {
            return if ask.trailers.is_empty() { Ok(()) } else { self.trailers(ask) };
        };
        let last = pieces.len();
        for (index, piece) in pieces.into_iter().enumerate() {
            let ends = index + 1 == last && ask.trailers.is_empty() && !ask.incomplete;
            self.data(piece, ends)?;
        }
        if last == 0 && ask.trailers.is_empty() && !ask.incomplete {
            self.data(b"", true)?;
        }
        if ask.trailers.is_empty() || ask.incomplete { Ok(()) } else { self.trailers(ask) }
    }

    pub(super) fn finish(&mut self, ask: &Ask) -> Result<(), Failure> {
        let last: Vec<u8> = ask
            .body
            .iter()
            .flatten()
            .filter_map(|piece| piece.last())
            .next_back()
            .copied()
            .into_iter()
            .collect();
        self.data(&last, ask.trailers.is_empty())?;
        if ask.trailers.is_empty() { Ok(()) } else { self.trailers(ask) }
    }

    fn trailers(&mut self, ask: &Ask) -> Result<(), Failure> {
        let mut block = Vec::new();
        for (name, value) in &ask.trailers {
            literal(&mut block, &name.to_ascii_lowercase(), value);
        }
        self.block(&block, true)
    }

    /// Sends a header block, in several frames where it is long.
    fn block(&mut self, block: &[u8], ends: bool) -> Result<(), Failure> {
        let mut out = Vec::new();
        let count = block.len().div_ceil(FRAME).max(1);
        for index in 0..count {
            let part = &block[index * FRAME..((index + 1) * FRAME).min(block.len())];
            let kind = if index == 0 { HEADERS } else { CONTINUATION };
            let mut flags = if index + 1 == count { END_HEADERS } else { 0 };
            if index == 0 && ends {
                flags |= END_STREAM;
            }
            frame(&mut out, kind, flags, self.current, part);
        }
        self.write(&out)
    }

    /// Sends body bytes, as far as the peer's windows allow; reads frames while it waits for more.
    fn data(&mut self, mut bytes: &[u8], ends: bool) -> Result<(), Failure> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let open = self.connection_window.min(self.stream_window).max(0);
            let count = bytes.len().min(FRAME).min(usize::try_from(open).unwrap_or(FRAME));
            let (now, later) = bytes.split_at(count);
            if count > 0 || bytes.is_empty() {
                let mut out = Vec::new();
                let flags = if later.is_empty() && ends { END_STREAM } else { 0 };
                frame(&mut out, DATA, flags, self.current, now);
                self.write(&out)?;
                self.connection_window -= count as i64;
                self.stream_window -= count as i64;
            }
            bytes = later;
            if bytes.is_empty() || self.reply.ended || self.reply.failed.is_some() {
                return Ok(());
            }
            if self.connection_window.min(self.stream_window) <= 0 && !self.read_frame(&deadline)? {
                return Ok(());
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self.stream.write_all(bytes) {
            Err(error) if !stopped_reading(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn reset(&mut self) -> Result<(), Failure> {
        let mut out = Vec::new();
        // CANCEL.
        frame(&mut out, RST_STREAM, 0, self.current, &8_u32.to_be_bytes());
        self.write(&out)?;
        // Closing with frames unread would turn the end into a reset of the connection, and the
        // reset of the stream might get lost.
        self.stream.shutdown(std::net::Shutdown::Write)?;
        let deadline = Deadline::after(Duration::from_secs(5));
        while self.read_frame(&deadline).unwrap_or(false) {}
        Ok(())
    }

    pub(super) fn answer(&mut self, deadline: &Deadline) -> Result<Answer, Failure> {
        while !self.reply.ended {
            if let Some(how) = &self.reply.failed {
                return Err(Failure::Closed(how.clone()));
            }
            if !self.read_frame(deadline)? {
                return Err(Failure::Closed("the connection ended".to_owned()));
            }
        }
        Ok(std::mem::take(&mut self.reply.answer))
    }

    /// Reads and handles one frame; `false` at the end of the connection.
    fn read_frame(&mut self, deadline: &Deadline) -> Result<bool, Failure> {
        let Some(head) = self.take(9, deadline)? else { return Ok(false) };
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let stream = number(&head[5..9]) & 0x7FFF_FFFF;
        let Some(payload) = self.take(length, deadline)? else { return Ok(false) };
        let ours = stream == self.current;
        match kind {
            SETTINGS if flags & ACK == 0 => {
                for setting in payload.chunks_exact(6) {
                    if setting[..2] == [0, 4] {
                        let window = i64::from(number(&setting[2..6]));
                        self.stream_window += window - self.initial_window;
                        self.initial_window = window;
                    }
                }
                let mut out = Vec::new();
                frame(&mut out, SETTINGS, ACK, 0, &[]);
                self.write(&out)?;
            }
            PING if flags & ACK == 0 => {
                let mut out = Vec::new();
                frame(&mut out, PING, ACK, 0, &payload);
                self.write(&out)?;
            }
            WINDOW_UPDATE if payload.len() == 4 => {
                let more = i64::from(number(&payload) & 0x7FFF_FFFF);
                if stream == 0 {
                    self.connection_window += more;
                } else if ours {
                    self.stream_window += more;
                }
            }
            HEADERS | CONTINUATION => {
                let fragment = if kind == HEADERS { unpadded(&payload, flags) } else { &payload };
                self.reply.fragments.extend_from_slice(fragment);
                if flags & END_HEADERS != 0 {
                    self.decode(ours)?;
                }
                // A CONTINUATION does not carry END_STREAM; the HEADERS frame before it did.
                self.reply.ended |= ours && kind == HEADERS && flags & END_STREAM != 0;
            }
            DATA if ours => {
                self.reply.answer.body.extend_from_slice(unpadded(&payload, flags));
                self.reply.ended |= flags & END_STREAM != 0;
            }
            // After a whole answer, NO_ERROR only means that the rest of the request is not wanted.
            RST_STREAM if ours && payload.len() == 4 && !self.reply.ended => {
                self.reply.failed = Some(format!("RST_STREAM, code {}", number(&payload)));
            }
            GOAWAY if payload.len() >= 8 => {
                self.leaving = true;
                let (last, code) = (number(&payload[..4]) & 0x7FFF_FFFF, number(&payload[4..8]));
                if last < self.current || code != 0 {
                    let why = String::from_utf8_lossy(&payload[8..]).into_owned();
                    self.reply.failed.get_or_insert(format!("GOAWAY, code {code} {why}"));
                }
            }
            _ => {}
        }
        Ok(true)
    }

    /// Decodes a whole header block into the answer. Blocks of other streams are decoded too: the
    /// dynamic table belongs to the connection.
    fn decode(&mut self, ours: bool) -> Result<(), Failure> {
        let block = std::mem::take(&mut self.reply.fragments);
        let fields: Fields = self
            .decoder
            .decode(&block)
            .map_err(|error| Failure::Garbled(format!("header block: {error:?}")))?;
        if !ours {
            return Ok(());
        }
        if self.reply.blocks > 0 {
            self.reply.answer.trailers = fields;
            return Ok(());
        }
        let status = fields.iter().find(|(name, _)| name == b":status").map(|(_, value)| value);
        let status: u16 = status
            .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok())
            .ok_or_else(|| Failure::Garbled("no :status".to_owned()))?;
        if status >= 200 {
            self.reply.blocks = 1;
            self.reply.answer.status = status;
            self.reply.answer.headers = fields.into_iter().filter(|(name, _)| name != b":status").collect();
        }
        Ok(())
    }

    fn take(&mut self, length: usize, deadline: &Deadline) -> Result<Option<Vec<u8>>, Failure> {
        let mut part = [0; 16 * 1024];
        while self.buffer.len() < length {
            deadline.arm(&self.stream)?;
            match self.stream.read(&mut part) {
                Ok(0) => return Ok(None),
                Ok(count) => self.buffer.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let rest = self.buffer.split_off(length);
        Ok(Some(std::mem::replace(&mut self.buffer, rest)))
    }
}

pub(super) fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

pub(super) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A literal header field without indexing (RFC 7541 section 6.2.2).
pub(super) fn literal(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(0);
    string(out, name);
    string(out, value);
}

/// A string without Huffman coding (RFC 7541 sections 5.1 and 5.2).
fn string(out: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    if length < 127 {
        out.push(length as u8);
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push((length % 128) as u8 | 128);
            length /= 128;
        }
        out.push(length as u8);
    }
    out.extend_from_slice(text);
}

pub(super) fn unpadded(payload: &[u8], flags: u8) -> &[u8] {
    let (padding, rest) = match payload.split_first() {
        Some((padding, rest)) if flags & PADDED != 0 => (usize::from(*padding), rest),
        _ => (0, payload),
    };
    let rest = if flags & PRIORITY != 0 { rest.get(5..).unwrap_or_default() } else { rest };
    rest.get(..rest.len().saturating_sub(padding)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_strings_have_long_lengths() {
        for length in [0, 1, 126, 127, 128, 254, 255, 16_384, 70_000] {
            let value = vec![b'v'; length];
            let mut block = Vec::new();
            literal(&mut block, b"x-long", &value);
            let decoded = loona_hpack::Decoder::new().decode(&block).unwrap();
            assert_eq!(decoded, [(b"x-long".to_vec(), value)], "{length}");
        }
    }

    #[test]
    fn padding_and_priority_are_no_content() {
        assert_eq!(unpadded(b"abc", 0), b"abc");
        assert_eq!(unpadded(b"\x02abc\0\0", PADDED), b"abc");
        assert_eq!(unpadded(b"\x01\0\0\0\0\x07ab\0", PADDED | PRIORITY), b"ab");
        assert_eq!(unpadded(b"\x09ab", PADDED), b"");
    }
}
