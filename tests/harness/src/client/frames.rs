//! HTTP/2 without TLS, frame by frame: several streams on one connection, in any order, and frames
//! that no client should send.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::http2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, literal, number, unpadded,
};
use super::{Answer, Deadline, Failure, Fields, stopped_reading};

/// The window that we grant: nothing that a test reads is larger.
const GRANTED: u32 = (1 << 31) - 1;

/// A connection.
pub struct Session {
    stream: TcpStream,
    buffer: Vec<u8>,
    decoder: loona_hpack::Decoder<'static>,
    /// A header block that is not complete yet.
    fragments: Vec<u8>,
    /// What has been read of each stream's answer.
    pub streams: BTreeMap<u32, Stream>,
    /// The last stream that the peer takes, and why it leaves.
    pub goaway: Option<(u32, u32)>,
    /// The peer has ended the connection.
    pub ended: bool,
}

/// A stream's answer so far.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// The answer.
    pub answer: Answer,
    /// Whether it is complete.
    pub ended: bool,
    /// The code of a reset that came before the answer was complete.
    pub reset: Option<u32>,
}

impl Session {
    /// Begins HTTP/2 on a connection.
    ///
    /// # Errors
    /// If the connection does not take the first bytes.
    pub fn over(stream: TcpStream) -> Result<Self, Failure> {
        let mut session = Self {
            stream,
            buffer: Vec::new(),
            decoder: loona_hpack::Decoder::new(),
            fragments: Vec::new(),
            streams: BTreeMap::new(),
            goaway: None,
            ended: false,
        };
        let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // SETTINGS_INITIAL_WINDOW_SIZE, and the connection's window beside it.
        let mut settings = vec![0, 4];
        settings.extend_from_slice(&GRANTED.to_be_bytes());
        frame(&mut opening, SETTINGS, 0, 0, &settings);
        frame(&mut opening, WINDOW_UPDATE, 0, 0, &(GRANTED - 65_535).to_be_bytes());
        session.write(&opening)?;
        Ok(session)
    }

    /// Sends a header block in so many frames.
    ///
    /// # Errors
    /// If the connection is broken; one that the peer has ended is no error here.
    pub fn head(&mut self, stream: u32, fields: &Fields, end: bool, frames: usize) -> Result<(), Failure> {
        let mut block = Vec::new();
        for (name, value) in fields {
            literal(&mut block, name, value);
        }
        // No frame may be larger than this before the peer has said otherwise.
        let part = block.len().div_ceil(frames.max(1)).clamp(1, 16 * 1024);
        let parts: Vec<&[u8]> = block.chunks(part).collect();
        let mut out = Vec::new();
        for (index, bytes) in parts.iter().enumerate() {
            let kind = if index == 0 { HEADERS } else { CONTINUATION };
            let mut flags = if index + 1 == parts.len() { END_HEADERS } else { 0 };
            if index == 0 && end {
                flags |= END_STREAM;
            }
            frame(&mut out, kind, flags, stream, bytes);
        }
        self.write(&out)
    }

    /// Sends a frame so many times.
    ///
    /// # Errors
    /// As [`Session::head`].
    pub fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        count: u32,
    ) -> Result<(), Failure> {
        let mut out = Vec::new();
        for _ in 0..count {
            frame(&mut out, kind, flags, stream, payload);
        }
        self.write(&out)
    }

    /// Sends DATA frames so many times, END_STREAM on the last.
    ///
    /// # Errors
    /// As [`Session::head`].
    pub fn data(&mut self, stream: u32, payload: &[u8], end: bool, count: u32) -> Result<(), Failure> {
        self.frame(DATA, 0, stream, payload, count.saturating_sub(1))?;
        self.frame(DATA, if end { END_STREAM } else { 0 }, stream, payload, 1)
    }

    /// Ends a direction of the connection, or both.
    ///
    /// # Errors
    /// The system's.
    pub fn shutdown(&self, how: Shutdown) -> Result<(), Failure> {
        Ok(self.stream.shutdown(how)?)
    }

    /// Resets the connection.
    ///
    /// # Errors
    /// The system's.
    pub fn reset(self) -> Result<(), Failure> {
        crate::sys::reset(self.stream).map_err(Failure::from)
    }

    /// Reads until the condition is true or the connection ends; says whether the condition is
    /// true.
    ///
    /// # Errors
    /// If neither happens in time, or what is read is not HTTP/2.
    pub fn read_until(&mut self, patience: Duration, holds: impl Fn(&Self) -> bool) -> Result<bool, Failure> {
        let deadline = Deadline::after(patience);
        while !holds(self) {
            if self.ended {
                return Ok(false);
            }
            self.read_frame(&deadline)?;
        }
        Ok(true)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self.stream.write_all(bytes) {
            Err(error) if !stopped_reading(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn read_frame(&mut self, deadline: &Deadline) -> Result<(), Failure> {
        let Some(head) = self.take(9, deadline)? else { return Ok(()) };
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let stream = number(&head[5..9]) & 0x7FFF_FFFF;
        let Some(payload) = self.take(length, deadline)? else { return Ok(()) };
        match kind {
            SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[], 1)?,
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, &payload, 1)?,
            HEADERS | CONTINUATION => {
                let fragment = if kind == HEADERS { unpadded(&payload, flags) } else { &payload };
                self.fragments.extend_from_slice(fragment);
                if flags & END_HEADERS != 0 {
                    self.decode(stream)?;
                }
                self.streams.entry(stream).or_default().ended |= kind == HEADERS && flags & END_STREAM != 0;
            }
            DATA => {
                let of = self.streams.entry(stream).or_default();
                of.answer.body.extend_from_slice(unpadded(&payload, flags));
                of.ended |= flags & END_STREAM != 0;
            }
            RST_STREAM if payload.len() == 4 => {
                let of = self.streams.entry(stream).or_default();
                // After a whole answer it only means that the rest of the request is not wanted.
                if !of.ended {
                    of.reset = Some(number(&payload));
                }
            }
            GOAWAY if payload.len() >= 8 => {
                self.goaway = Some((number(&payload[..4]) & 0x7FFF_FFFF, number(&payload[4..8])));
            }
            _ => {}
        }
        Ok(())
    }

    fn decode(&mut self, stream: u32) -> Result<(), Failure> {
        let block = std::mem::take(&mut self.fragments);
        let fields: Fields = self
            .decoder
            .decode(&block)
            .map_err(|error| Failure::Garbled(format!("header block: {error:?}")))?;
        let status = fields.iter().find(|(name, _)| name == b":status").map(|(_, value)| value);
        let status: Option<u16> = status.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        let answer = &mut self.streams.entry(stream).or_default().answer;
        match status {
            Some(status) if status < 200 => {}
            Some(status) => {
                answer.status = status;
                answer.headers = fields.into_iter().filter(|(name, _)| name != b":status").collect();
            }
            None => answer.trailers = fields,
        }
        Ok(())
    }

    fn take(&mut self, length: usize, deadline: &Deadline) -> Result<Option<Vec<u8>>, Failure> {
        let mut part = [0; 16 * 1024];
        while self.buffer.len() < length {
            deadline.arm(&self.stream)?;
            match self.stream.read(&mut part) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(None);
                }
                Ok(count) => self.buffer.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A peer that closes with our frames unread resets the connection.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    self.ended = true;
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let rest = self.buffer.split_off(length);
        Ok(Some(std::mem::replace(&mut self.buffer, rest)))
    }
}
