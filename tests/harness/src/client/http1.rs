//! HTTP/1.1, written and read by hand.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::{Answer, Ask, Deadline, Failure, Fields, stopped_reading};

/// A connection and what was read beyond the last answer.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The answer to HEAD has no body, whatever its headers say.
    head: bool,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new(), head: false }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) fn send(&mut self, ask: &Ask) -> Result<(), Failure> {
        self.head = ask.method == b"HEAD";
        let mut head = Vec::new();
        head.extend_from_slice(&ask.method);
        head.push(b' ');
        // Where there is no path, as with CONNECT, the authority is the target.
        head.extend_from_slice(ask.path.as_deref().or(ask.authority.as_deref()).unwrap_or_default());
        head.extend_from_slice(b" HTTP/1.1\r\n");
        if let Some(authority) = &ask.authority {
            line(&mut head, b"host", authority);
        }
        for (name, value) in &ask.headers {
            line(&mut head, name, value);
        }
        let names = |wanted: &[u8]| ask.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
        let framed = names(b"content-length") || names(b"transfer-encoding");
        if let Some(body) = ask.body.as_ref().filter(|_| !framed) {
            if chunked(ask) {
                line(&mut head, b"transfer-encoding", b"chunked");
            } else {
                let length: usize = body.iter().map(Vec::len).sum();
                line(&mut head, b"content-length", length.to_string().as_bytes());
            }
        }
        head.extend_from_slice(b"\r\n");
        self.send_raw(&head)?;
        for piece in ask.pieces().unwrap_or_default() {
            self.piece(ask, piece)?;
        }
        if ask.body.is_some() && chunked(ask) && !ask.incomplete {
            self.end(ask)?;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, ask: &Ask) -> Result<(), Failure> {
        let last = ask.body.iter().flatten().filter_map(|piece| piece.last()).next_back();
        if let Some(last) = last {
            self.piece(ask, &[*last])?;
        }
        if chunked(ask) { self.end(ask) } else { Ok(()) }
    }

    fn piece(&mut self, ask: &Ask, piece: &[u8]) -> Result<(), Failure> {
        if !chunked(ask) {
            return self.send_raw(piece);
        }
        if piece.is_empty() {
            // An empty chunk would end the body.
            return Ok(());
        }
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(piece);
        chunk.extend_from_slice(b"\r\n");
        self.send_raw(&chunk)
    }

    fn end(&mut self, ask: &Ask) -> Result<(), Failure> {
        let mut end = b"0\r\n".to_vec();
        for (name, value) in &ask.trailers {
            line(&mut end, name, value);
        }
        end.extend_from_slice(b"\r\n");
        self.send_raw(&end)
    }

    pub(super) fn send_raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self.stream.write_all(bytes) {
            Err(error) if !stopped_reading(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn reset(self) -> Result<(), Failure> {
        crate::sys::reset(self.stream).map_err(Failure::from)
    }

    pub(super) fn answer(&mut self, deadline: &Deadline) -> Result<Answer, Failure> {
        loop {
            let head = self.until(b"\r\n\r\n", deadline)?;
            let mut answer = parse_head(&head)?;
            if answer.status == 101 {
                return Ok(answer);
            }
            if answer.status >= 200 {
                self.read_body(&mut answer, deadline)?;
                return Ok(answer);
            }
        }
    }

    fn read_body(&mut self, answer: &mut Answer, deadline: &Deadline) -> Result<(), Failure> {
        if self.head || answer.status == 204 || answer.status == 304 {
            return Ok(());
        }
        if answer.values("transfer-encoding").iter().any(|value| value.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = self.until(b"\r\n", deadline)?;
                let text = String::from_utf8_lossy(&line).into_owned();
                let digits = text.trim().split(';').next().unwrap_or_default();
                let length = usize::from_str_radix(digits, 16)
                    .map_err(|_| Failure::Garbled(format!("chunk length {digits:?}")))?;
                if length == 0 {
                    break;
                }
                let chunk = self.exactly(length, deadline)?;
                answer.body.extend_from_slice(&chunk);
                self.exactly(2, deadline)?;
            }
            loop {
                let line = self.until(b"\r\n", deadline)?;
                if line == b"\r\n" {
                    return Ok(());
                }
                answer.trailers.push(field(&line)?);
            }
        }
        match answer.header("content-length") {
            Some(length) => {
                let length =
                    length.parse().map_err(|_| Failure::Garbled(format!("content-length {length:?}")))?;
                answer.body = self.exactly(length, deadline)?;
            }
            None => {
                while self.fill(deadline)? {}
                answer.body = std::mem::take(&mut self.buffer);
            }
        }
        Ok(())
    }

    /// Reads up to and including `end`.
    fn until(&mut self, end: &[u8], deadline: &Deadline) -> Result<Vec<u8>, Failure> {
        let mut searched = 0;
        loop {
            let found = self.buffer[searched..].windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                let rest = self.buffer.split_off(searched + at + end.len());
                return Ok(std::mem::replace(&mut self.buffer, rest));
            }
            searched = self.buffer.len().saturating_sub(end.len());
            if !self.fill(deadline)? {
                let read = String::from_utf8_lossy(&self.buffer).into_owned();
                return Err(Failure::Closed(format!("after {read:?}")));
            }
        }
    }

    fn exactly(&mut self, length: usize, deadline: &Deadline) -> Result<Vec<u8>, Failure> {
        while self.buffer.len() < length {
            if !self.fill(deadline)? {
                return Err(Failure::Closed(format!("{} of {length} bytes", self.buffer.len())));
            }
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Reads more bytes; `false` at the end of the stream.
    fn fill(&mut self, deadline: &Deadline) -> Result<bool, Failure> {
        let mut part = [0; 16 * 1024];
        loop {
            deadline.arm(&self.stream)?;
            match self.stream.read(&mut part) {
                Ok(count) => {
                    self.buffer.extend_from_slice(&part[..count]);
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn chunked(ask: &Ask) -> bool {
    ask.chunked || !ask.trailers.is_empty()
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn parse_head(head: &[u8]) -> Result<Answer, Failure> {
    let garbled = || Failure::Garbled(String::from_utf8_lossy(head).into_owned());
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let status = lines.next().filter(|line| line.starts_with(b"HTTP/1.1 ")).ok_or_else(garbled)?;
    let status = String::from_utf8_lossy(status.get(9..12).unwrap_or_default()).into_owned();
    let headers = lines.filter(|line| !line.is_empty()).map(field).collect::<Result<Fields, _>>()?;
    Ok(Answer { status: status.parse().map_err(|_| garbled())?, headers, ..Answer::default() })
}

fn field(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = colon
        .map(|at| line.split_at(at))
        .ok_or_else(|| Failure::Garbled(String::from_utf8_lossy(line).into_owned()))?;
    Ok((name.to_ascii_lowercase(), value.get(1..).unwrap_or_default().trim_ascii().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    /// Answers one connection with `answer`, and returns what was received up to `until`.
    fn exchange(
        ask: &Ask,
        until: &'static [u8],
        answer: &'static [u8],
    ) -> (Vec<u8>, Result<Answer, Failure>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(until) {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                seen.push(byte[0]);
            }
            stream.write_all(answer).unwrap();
            seen
        });
        let mut connection = Connection::new(TcpStream::connect(address).unwrap());
        connection.send(ask).unwrap();
        let answer = connection.answer(&Deadline::after(Duration::from_secs(5)));
        (peer.join().unwrap(), answer)
    }

    #[test]
    fn sends_every_byte_as_asked() {
        let ask = Ask::new("GET", "/a", "b").header("X-A", b"\xA1").header("x-a", "2");
        let (seen, answer) =
            exchange(&ask, b"\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX-Y:  z\r\n\r\nhi");
        assert_eq!(seen, b"GET /a HTTP/1.1\r\nhost: b\r\nX-A: \xA1\r\nx-a: 2\r\n\r\n");
        let answer = answer.unwrap();
        assert_eq!(
            (answer.status, answer.text(), answer.header("x-y")),
            (200, "hi".to_owned(), Some("z".to_owned()))
        );
    }

    #[test]
    fn withholds_the_last_byte() {
        let ask = Ask::new("POST", "/", "b").body("abc").incomplete();
        let (seen, answer) = exchange(&ask, b"\r\n\r\nab", b"HTTP/1.1 408 Late\r\ncontent-length: 0\r\n\r\n");
        assert!(seen.starts_with(b"POST / HTTP/1.1\r\nhost: b\r\ncontent-length: 3\r\n"));
        assert_eq!(answer.unwrap().status, 408);
    }

    #[test]
    fn sends_chunks_and_trailers_and_reads_them() {
        let ask = Ask::new("POST", "/", "b").body("abc").trailer("x-t", "1");
        let (seen, answer) = exchange(
            &ask,
            b"0\r\nx-t: 1\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-z: 3\r\n\r\n",
        );
        assert!(seen.ends_with(b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n"));
        let answer = answer.unwrap();
        assert_eq!((answer.text(), answer.header("x-z")), ("hi".to_owned(), Some("3".to_owned())));
    }

    #[test]
    fn tells_an_end_from_an_answer() {
        let ask = Ask::new("GET", "/", "b");
        assert!(matches!(exchange(&ask, b"\r\n\r\n", b"").1, Err(Failure::Closed(_))));
        assert!(matches!(
            exchange(&ask, b"\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab").1,
            Err(Failure::Closed(_))
        ));
        assert!(matches!(exchange(&ask, b"\r\n\r\n", b"SSH-2.0\r\n\r\n").1, Err(Failure::Garbled(_))));
    }
}
