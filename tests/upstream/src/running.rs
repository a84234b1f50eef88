//! The upstream on its own thread.

use std::net::SocketAddr;
use std::time::Duration;

use crate::log::{Log, Seen};
use crate::server::serve;

/// A server on its own thread, for tests that are not asynchronous. Dropping it stops it and closes
/// all connections.
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    log: Log,
    _thread: service::Running,
}

impl Running {
    /// Starts on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// If the machine gives neither a port nor a thread.
    pub fn start() -> Running {
        let log = Log::default();
        let ([addr], thread) = service::Running::start(|[listener]| serve(listener, log.clone()));
        Running { addr, log, _thread: thread }
    }

    /// All requests so far, in the order in which their heads arrived.
    pub fn seen(&self) -> Vec<Seen> {
        self.log.seen()
    }

    /// Forgets all requests.
    pub fn clear(&self) {
        self.log.clear();
    }

    /// Waits until the log satisfies `wanted`, at most `timeout`; says whether it did.
    pub fn wait_until(&self, timeout: Duration, wanted: impl Fn(&[Seen]) -> bool) -> bool {
        self.log.wait_until(timeout, wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpStream};

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn connect(running: &Running) -> TcpStream {
        let socket = TcpStream::connect(running.addr).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket
    }

    /// Sends a request that closes the connection, and reads everything.
    fn raw(running: &Running, request: &[u8]) -> (String, String) {
        let mut socket = connect(running);
        socket.write_all(request).unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    fn own(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn http1_is_shown_as_sent() {
        let running = Running::start();
        let request = b"POST /a\\b<c>/../%2e?x=%zz HTTP/1.1\r\nX-B: 1\r\nX-A: caf\xe9\r\nx-b: 2\r\nconnection: close\r\n\
            transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\nx-t: 2\r\n\r\n";
        let (head, body) = raw(&running, request);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let seen: Seen = serde_json::from_str(&body).unwrap();
        assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/a\\b<c>/../%2e?x=%zz"));
        assert_eq!(
            seen.headers,
            own(&[
                ("x-b", "1"),
                ("x-a", "caf\u{fffd}"),
                ("x-b", "2"),
                ("connection", "close"),
                ("transfer-encoding", "chunked")
            ])
        );
        assert_eq!(seen.trailers, own(&[("x-t", "1"), ("x-t", "2")]));
        assert_eq!((seen.body.as_str(), seen.body_bytes, seen.complete), ("abcde", 5, true));
        // printf abcde | sha256sum
        assert_eq!(seen.body_sha256, "36bbe50ed96841d10443bcb670d6554f0a34b761be67ec9c4a8ad2c0c44ca42c");
        assert_eq!(running.seen(), [seen]);
    }

    #[test]
    fn answers_with_the_status_asked_for() {
        let running = Running::start();
        let ask = |status: &str| {
            let request = format!("GET / HTTP/1.1\r\nx-echo-status: {status}\r\nconnection: close\r\n\r\n");
            raw(&running, request.as_bytes())
        };
        assert!(ask("418").0.starts_with("HTTP/1.1 418 "));
        assert!(ask("101").0.starts_with("HTTP/1.1 200 "));
        assert!(ask("many").0.starts_with("HTTP/1.1 200 "));
        let (head, body) = ask("204");
        assert!(head.starts_with("HTTP/1.1 204 ") && !head.contains("content-length") && body.is_empty());
        let (head, body) = raw(&running, b"HEAD / HTTP/1.1\r\nconnection: close\r\n\r\n");
        assert!(head.contains("content-length: ") && body.is_empty());
    }

    #[test]
    fn own_paths_are_not_recorded() {
        let running = Running::start();
        let ask =
            |line: &str| raw(&running, format!("{line} HTTP/1.1\r\nconnection: close\r\n\r\n").as_bytes()).1;
        service::health(&format!("http://{}/__health", running.addr)).unwrap();
        ask("GET /one");
        let seen: Vec<Seen> = serde_json::from_str(&ask("GET /__seen")).unwrap();
        assert_eq!(seen, running.seen());
        assert_eq!(seen.len(), 1);
        ask("POST /__clear");
        assert!(running.seen().is_empty());
    }

    #[test]
    fn a_head_is_seen_before_its_body_and_stays_when_that_never_comes() {
        let running = Running::start();
        let mut socket = connect(&running);
        socket.write_all(b"POST /half HTTP/1.1\r\ncontent-length: 10\r\n\r\n").unwrap();
        assert!(running.wait_until(LONG, |seen| seen.len() == 1 && !seen[0].complete));
        socket.write_all(b"abc").unwrap();
        assert!(running.wait_until(LONG, |seen| seen[0].body_bytes == 3));
        socket.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        assert!(rest.is_empty());
        assert!(!running.seen()[0].complete);
    }

    #[test]
    fn websockets_come_back_as_they_are() {
        let running = Running::start();
        let mut socket = connect(&running);
        let request =
            b"GET /ws HTTP/1.1\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\r\nearly";
        socket.write_all(request).unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\nearly") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            bytes.push(byte[0]);
        }
        assert!(bytes.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
        socket.write_all(b"\x81\x00\xff").unwrap();
        let mut back = [0; 3];
        socket.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"\x81\x00\xff");
        assert!(running.seen()[0].complete);
    }

    #[test]
    fn http2_with_trailers_and_status() {
        let running = Running::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (status, body) = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(running.addr).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            let trailers = hyper::HeaderMap::from_iter([(
                hyper::header::HeaderName::from_static("x-t"),
                hyper::header::HeaderValue::from_static("1"),
            )]);
            let body =
                Full::new(Bytes::from_static(b"abcde")).with_trailers(std::future::ready(Some(Ok(trailers))));
            let request = hyper::Request::post("http://api.example.com/a?b")
                .header("x-b", "1")
                .header("x-a", "2")
                .header("x-b", "3")
                .header("x-echo-status", "201")
                .body(body)
                .unwrap();
            let answer = sender.send_request(request).await.unwrap();
            (answer.status(), answer.into_body().collect().await.unwrap().to_bytes())
        });
        let seen: Seen = serde_json::from_slice(&body).unwrap();
        assert_eq!((status.as_u16(), seen.version.as_str()), (201, "HTTP/2"));
        assert_eq!((seen.path.as_str(), seen.authority.as_deref()), ("/a?b", Some("api.example.com")));
        assert_eq!(&seen.headers[..3], own(&[("x-b", "1"), ("x-b", "3"), ("x-a", "2")]));
        assert_eq!((seen.body.as_str(), &seen.trailers), ("abcde", &own(&[("x-t", "1")])));
        assert_eq!(running.seen(), [seen]);
    }

    #[test]
    fn stopping_closes_connections() {
        let running = Running::start();
        let mut socket = connect(&running);
        socket.write_all(b"POST / HTTP/1.1\r\ncontent-length: 10\r\n\r\n").unwrap();
        assert!(running.wait_until(LONG, |seen| seen.len() == 1));
        drop(running);
        assert!(matches!(socket.read(&mut [0]), Ok(0) | Err(_)));
    }
}
