//! The provider on sockets: the API port with real faults, and the control port.

#![allow(clippy::disallowed_methods, reason = "the model is given the time; the server reads the clock")]

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use service::http1::{Body, Connection};
use service::pause;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::model::{Answer, Call, Provider, Request};
use crate::rule::{Fault, Rule};
use crate::seed::{self, Seed};
use crate::webhook::{Delivery, deliver};

/// The largest request body that either port takes.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// The provider, and a signal for those who wait for calls.
#[derive(Default)]
struct Shared {
    provider: Mutex<Provider>,
    called: Condvar,
}

impl Shared {
    fn new(provider: Provider) -> Arc<Shared> {
        Arc::new(Shared { provider: Mutex::new(provider), called: Condvar::new() })
    }

    fn provider(&self) -> MutexGuard<'_, Provider> {
        self.provider.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens or closes the API port.
struct Command {
    accept: bool,
    done: oneshot::Sender<io::Result<()>>,
}

#[derive(Clone)]
struct Handle {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
}

impl Handle {
    /// Asks the API port to open or close; the receiver resolves when it has.
    fn accept(&self, accept: bool) -> oneshot::Receiver<io::Result<()>> {
        let (done, receiver) = oneshot::channel();
        // If the port is gone, `done` is dropped with the command and the receiver says so.
        let _ = self.commands.send(Command { accept, done });
        receiver
    }
}

fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the server has stopped")
}

/// Serves the provider until the future is dropped, which also closes all connections.
pub async fn serve(provider: Provider, api: TcpListener, control: TcpListener) -> io::Result<()> {
    let (commands, receiver) = mpsc::unbounded_channel();
    serve_shared(Handle { shared: Shared::new(provider), commands }, receiver, api, control).await
}

async fn serve_shared(
    handle: Handle,
    commands: mpsc::UnboundedReceiver<Command>,
    api: TcpListener,
    control: TcpListener,
) -> io::Result<()> {
    let shared = handle.shared.clone();
    tokio::select! {
        result = api_port(shared, commands, api) => result,
        () = control_port(handle, control) => Ok(()),
    }
}

async fn api_port(
    shared: Arc<Shared>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    listener: TcpListener,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let mut listener = Some(listener);
    let mut reserved = None;
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => pending().await,
            }
        };
        tokio::select! {
            accepted = accepted => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, shared.clone()));
                }
                Err(_) => pause().await,
            },
            Some(_) = connections.join_next() => {}
            Some(command) = commands.recv() => {
                let result = if !command.accept {
                    listener = None;
                    connections.shutdown().await;
                    reserved = reserve(address).ok();
                    Ok(())
                } else if listener.is_some() {
                    Ok(())
                } else {
                    // Given back first: the address is bound anew.
                    drop(reserved.take());
                    TcpListener::bind(address).await.map(|opened| listener = Some(opened))
                };
                // Whoever asked may have left.
                let _ = command.done.send(result);
            }
        }
    }
}

/// Holds an address without listening: connections are refused, and no other process is given the
/// port meanwhile.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    // Without this, the last packet of an answer can wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let mut connection = Connection::new(stream);
    // Errors end the connection, and that is all there is to do about them.
    if let Err(error) = requests(&mut connection, &shared).await {
        connection.refuse(&error).await;
    }
}

async fn requests(connection: &mut Connection, shared: &Shared) -> io::Result<()> {
    while let Some((head, body)) = connection.head().await? {
        let body = read_body(connection, body).await?;
        let request =
            Request { method: &head.method, path: &head.target, headers: &head.headers, body: &body };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let answer = shared.provider().respond(&request, now);
        shared.called.notify_all();
        if !answer.delay.is_zero() {
            tokio::time::sleep(answer.delay).await;
        }
        let more = carry_out(connection, answer, head.method == "HEAD", head.keep_alive()).await?;
        if !more {
            return connection.stream().shutdown().await;
        }
    }
    Ok(())
}

async fn read_body(connection: &mut Connection, mut body: Body) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(part) = connection.body_part(&mut body).await? {
        if bytes.len() + part.len() > MAX_BODY {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the body is too long"));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

/// Sends the answer or its fault; says whether the connection goes on.
async fn carry_out(
    connection: &mut Connection,
    mut answer: Answer,
    head_only: bool,
    keep_alive: bool,
) -> io::Result<bool> {
    let stream = connection.stream();
    match answer.fault {
        Some(Fault::Reset) => {
            // With zero linger, closing sends RST instead of FIN.
            stream.set_zero_linger()?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Some(Fault::Garbage) => {
            stream.write_all(b"\x16\x03\x01 this is not HTTP \x00\xff\r\n\r\n").await?;
            Ok(false)
        }
        Some(Fault::Hang) => {
            let mut ignored = [0; 1024];
            while stream.read(&mut ignored).await? > 0 {}
            Ok(false)
        }
        Some(Fault::Truncate) => {
            let length = answer.body.len().max(1);
            let half = answer.body.get(..length / 2).unwrap_or_default();
            connection.answer(answer.status, &answer.headers, length, half).await?;
            Ok(false)
        }
        None => {
            let length = answer.body.len();
            // A length that a rule made up leaves the client and us with different ideas of where
            // the answer ends.
            let framed = answer
                .headers
                .iter()
                .any(|(name, _)| name == "content-length" || name == "transfer-encoding");
            let more = keep_alive && !framed && !answer.headers.iter().any(|(name, _)| name == "connection");
            if !more && !answer.headers.iter().any(|(name, _)| name == "connection") {
                answer.headers.push(("connection".to_owned(), "close".to_owned()));
            }
            let body = if head_only { &[][..] } else { &answer.body };
            connection.answer(answer.status, &answer.headers, length, body).await?;
            Ok(more)
        }
    }
}

async fn control_port(handle: Handle, listener: TcpListener) {
    let serve = |stream| {
        let handle = handle.clone();
        async move {
            let service = service_fn(move |request| control(handle.clone(), request));
            // A broken control connection concerns its client only.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    };
    service::accept(listener, serve).await;
}

/// The answer of a control endpoint: a status other than 200 comes with a message.
type Controlled = Result<Value, (u16, String)>;

fn bad_input(error: impl ToString) -> (u16, String) {
    (400, error.to_string())
}

async fn control(
    handle: Handle,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let result = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => controlled(&handle, head.method.as_str(), head.uri.path(), &body.to_bytes()).await,
        Err(error) => Err(bad_input(error)),
    };
    let (status, value) = match result {
        Ok(value) => (200, value),
        Err((status, message)) => (status, json!({"error": message})),
    };
    let mut response = hyper::Response::new(Full::new(Bytes::from(format!("{value}\n"))));
    *response.status_mut() =
        hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    Ok(response)
}

async fn controlled(handle: &Handle, method: &str, path: &str, body: &[u8]) -> Controlled {
    let ok = || Ok(json!({"ok": true}));
    let provider = || handle.shared.provider();
    match (method, path) {
        ("GET", "/health") => ok(),
        ("GET", "/calls") => {
            serde_json::to_value(provider().calls()).map_err(|error| (500, error.to_string()))
        }
        ("GET", "/probes") => Ok(json!(provider().probes())),
        ("POST", "/script") => {
            let rules: Vec<Rule> = serde_json::from_slice(body).map_err(bad_input)?;
            provider().script(rules);
            ok()
        }
        ("POST", "/clear") => {
            provider().clear();
            ok()
        }
        ("POST", "/seed") => {
            let seed = Seed::from_json(std::str::from_utf8(body).map_err(bad_input)?).map_err(bad_input)?;
            provider().reseed(seed);
            ok()
        }
        ("POST", "/deliver") => {
            let delivery: Delivery = seed::object(body).map_err(bad_input)?;
            match deliver(&delivery).await {
                Ok(delivered) => Ok(json!(delivered)),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(bad_input(error)),
                Err(error) => Err((502, error.to_string())),
            }
        }
        ("POST", "/stop-accepting" | "/resume") => {
            let done = handle.accept(path == "/resume").await.unwrap_or_else(|_| Err(stopped()));
            done.map_err(|error| (500, error.to_string()))?;
            ok()
        }
        (
            _,
            "/health" | "/calls" | "/probes" | "/script" | "/clear" | "/seed" | "/deliver"
            | "/stop-accepting" | "/resume",
        ) => Err((405, "wrong method".to_owned())),
        _ => Err((404, "no such control endpoint".to_owned())),
    }
}

/// A server on its own thread, for tests that are not asynchronous. Dropping it stops it and closes
/// all connections.
pub struct Running {
    /// The API port.
    pub api: SocketAddr,
    /// The control port.
    pub control: SocketAddr,
    handle: Handle,
    _thread: service::Running,
}

impl Running {
    /// Starts on two free ports of 127.0.0.1.
    ///
    /// # Panics
    /// If the machine gives neither ports nor threads.
    pub fn start(seed: Seed) -> Running {
        Self::start_on(seed, 0)
    }

    /// The same with this control port; 0 is any free one.
    ///
    /// # Panics
    /// If the port is taken, or the machine gives neither ports nor threads.
    pub fn start_on(seed: Seed, control: u16) -> Running {
        let (commands, receiver) = mpsc::unbounded_channel();
        let handle = Handle { shared: Shared::new(Provider::new(seed)), commands };
        let ([api, control], thread) = service::Running::start_on([0, control], |[api, control]| {
            serve_shared(handle.clone(), receiver, api, control)
        });
        Running { api, control, handle, _thread: thread }
    }

    /// Appends rules.
    pub fn script(&self, rules: Vec<Rule>) {
        self.handle.shared.provider().script(rules);
    }

    /// Forgets all rules and recorded calls.
    pub fn clear(&self) {
        self.handle.shared.provider().clear();
    }

    /// Replaces the seed.
    pub fn reseed(&self, seed: Seed) {
        self.handle.shared.provider().reseed(seed);
    }

    /// The calls so far, oldest first. A call is recorded before its answer is sent.
    pub fn calls(&self) -> Vec<Call> {
        self.handle.shared.provider().calls().to_vec()
    }

    /// Waits until the calls satisfy `wanted`, at most `timeout`; says whether they did.
    pub fn wait_for_calls(&self, timeout: Duration, wanted: impl Fn(&[Call]) -> bool) -> bool {
        let end = Instant::now() + timeout;
        let mut provider = self.handle.shared.provider();
        while !wanted(provider.calls()) {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return false };
            let waited = self.handle.shared.called.wait_timeout(provider, left);
            provider = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Closes the API port and drops all its connections; returns when that is done.
    /// Not from asynchronous code: that has the control port.
    pub fn stop_accepting(&self) {
        // Closing cannot fail, and a server that is gone does not accept either.
        let _ = self.handle.accept(false).blocking_recv();
    }

    /// Opens the API port again, at the same address. Not from asynchronous code.
    pub fn resume(&self) -> io::Result<()> {
        self.handle.accept(true).blocking_recv().unwrap_or_else(|_| Err(stopped()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream as Socket;

    use super::*;

    const FORM: &str = "token=tok_alice&client_id=cli_gate&client_secret=cs_gate_secret_for_trials";

    fn running() -> Running {
        Running::start(Seed::embedded())
    }

    fn connect(address: SocketAddr) -> Socket {
        let socket = Socket::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    fn send(socket: &mut Socket, method: &str, path: &str, headers: &str, body: &str) {
        let length = body.len();
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
    }

    fn introspect(socket: &mut Socket) {
        send(
            socket,
            "POST",
            "/oauth2/introspect",
            "content-type: application/x-www-form-urlencoded\r\n",
            FORM,
        );
    }

    /// Head and body of one answer with `content-length`.
    fn read(socket: &mut Socket) -> (String, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        socket.read_exact(&mut body).unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    fn rest(socket: &mut Socket) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).map(|_| bytes)
    }

    fn post(running: &Running, path: &str, body: &str) -> (String, String) {
        let mut socket = connect(running.control);
        send(&mut socket, "POST", path, "", body);
        read(&mut socket)
    }

    fn get(running: &Running, path: &str) -> String {
        let mut socket = connect(running.control);
        send(&mut socket, "GET", path, "", "");
        read(&mut socket).1
    }

    fn faulty(fault: &str) -> (Running, Socket) {
        let running = running();
        running.script(vec![serde_json::from_value(json!({"fault": fault})).unwrap()]);
        let mut socket = connect(running.api);
        introspect(&mut socket);
        (running, socket)
    }

    #[test]
    fn keeps_connections_and_takes_chunks() {
        let running = running();
        let mut socket = connect(running.api);
        for _ in 0..3 {
            introspect(&mut socket);
            let (head, body) = read(&mut socket);
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(body.contains("usr_alice"), "{body}");
        }
        let (first, second) = FORM.split_at(10);
        write!(
            socket,
            "POST /oauth2/introspect HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             transfer-encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\nt: 1\r\n\r\n",
            first.len(),
            second.len()
        )
        .unwrap();
        assert!(read(&mut socket).1.contains("usr_alice"));
        assert_eq!(running.calls().len(), 4);
        write!(socket, "GET /nowhere HTTP/1.1\r\nconnection: close\r\n\r\n").unwrap();
        assert!(rest(&mut socket).unwrap().starts_with(b"HTTP/1.1 404 "));
    }

    #[test]
    fn continues_when_expected_to() {
        let running = running();
        let mut socket = connect(running.api);
        let length = FORM.len();
        write!(
            socket,
            "POST /oauth2/introspect HTTP/1.1\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             expect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        )
        .unwrap();
        let mut interim = [0; 25];
        socket.read_exact(&mut interim).unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        write!(socket, "{FORM}").unwrap();
        assert!(read(&mut socket).1.contains("usr_alice"));
    }

    #[test]
    fn malformed_requests() {
        let running = running();
        for request in [
            "nonsense\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
            "POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc",
        ] {
            let mut socket = connect(running.api);
            socket.write_all(request.as_bytes()).unwrap();
            let mut start = [0; 13];
            socket.read_exact(&mut start).unwrap();
            assert_eq!(&start, b"HTTP/1.1 400 ", "{request}");
        }
        assert!(running.calls().is_empty());
    }

    #[test]
    fn a_reset_is_a_reset() {
        let (_running, mut socket) = faulty("reset");
        assert_eq!(rest(&mut socket).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn truncation_announces_everything_and_sends_half() {
        let (_running, mut socket) = faulty("truncate");
        let text = String::from_utf8(rest(&mut socket).unwrap()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let length: usize =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        assert_eq!(body.len(), length / 2);
        assert!(length > 100);
    }

    #[test]
    fn an_empty_answer_is_truncated_too() {
        let running = running();
        running.script(vec![serde_json::from_value(json!({"status": 200, "fault": "truncate"})).unwrap()]);
        let mut socket = connect(running.api);
        introspect(&mut socket);
        assert!(rest(&mut socket).unwrap().ends_with(b"content-length: 1\r\n\r\n"));
    }

    #[test]
    fn garbage_is_not_http() {
        let (_running, mut socket) = faulty("garbage");
        let bytes = rest(&mut socket).unwrap();
        assert!(!bytes.is_empty() && !bytes.starts_with(b"HTTP"));
    }

    #[test]
    fn a_hang_ends_with_the_server_only() {
        let (running, mut socket) = faulty("hang");
        assert!(running.wait_for_calls(Duration::from_secs(20), |calls| calls.len() == 1));
        socket.set_nonblocking(true).unwrap();
        assert_eq!(socket.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        socket.set_nonblocking(false).unwrap();
        drop(running);
        assert!(matches!(socket.read(&mut [0]), Ok(0) | Err(_)));
    }

    #[test]
    fn a_delay_holds_one_answer_and_no_other() {
        let running = running();
        running.script(vec![serde_json::from_value(json!({"times": 1, "delay": "300ms"})).unwrap()]);
        let start = Instant::now();
        let (mut slow, mut quick) = (connect(running.api), connect(running.api));
        introspect(&mut slow);
        assert!(running.wait_for_calls(Duration::from_secs(20), |calls| calls.len() == 1));
        introspect(&mut quick);
        assert!(read(&mut quick).1.contains("usr_alice"));
        assert!(read(&mut slow).1.contains("usr_alice"));
        assert!(start.elapsed() >= Duration::from_millis(300));
    }

    #[test]
    fn scripted_framing_closes_the_connection() {
        let running = running();
        let rule = json!({"body": "abcdef", "headers": {"content-length": "3"}});
        running.script(vec![serde_json::from_value(rule).unwrap()]);
        let mut socket = connect(running.api);
        introspect(&mut socket);
        assert!(rest(&mut socket).unwrap().ends_with(b"\r\n\r\nabcdef"));
    }

    #[test]
    fn hundreds_of_connections_wait_at_once() {
        let running = running();
        running.script(vec![serde_json::from_value(json!({"fault": "hang"})).unwrap()]);
        let mut sockets: Vec<_> = (0..300).map(|_| connect(running.api)).collect();
        sockets.iter_mut().for_each(introspect);
        assert!(running.wait_for_calls(Duration::from_secs(20), |calls| calls.len() == 300));
    }

    #[test]
    fn stopping_refuses_and_drops_connections() {
        let running = running();
        let mut socket = connect(running.api);
        introspect(&mut socket);
        read(&mut socket);
        assert!(post(&running, "/stop-accepting", "").0.starts_with("HTTP/1.1 200"));
        assert!(matches!(socket.read(&mut [0]), Ok(0) | Err(_)));
        assert_eq!(Socket::connect(running.api).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(get(&running, "/health").contains("true"));
        assert!(post(&running, "/resume", "").0.starts_with("HTTP/1.1 200"));
        let mut socket = connect(running.api);
        introspect(&mut socket);
        assert!(read(&mut socket).1.contains("usr_alice"));
        running.stop_accepting();
        assert!(Socket::connect(running.api).is_err());
        running.resume().unwrap();
        running.resume().unwrap();
        connect(running.api);
    }

    #[test]
    fn the_control_port_scripts_and_shows() {
        let running = running();
        let script = r#"[{"on": "introspect", "times": 1, "status": 418}]"#;
        assert!(post(&running, "/script", script).0.starts_with("HTTP/1.1 200"));
        let mut socket = connect(running.api);
        introspect(&mut socket);
        assert!(read(&mut socket).0.starts_with("HTTP/1.1 418 "));
        let calls: Vec<Call> = serde_json::from_str(&get(&running, "/calls")).unwrap();
        assert_eq!(calls, running.calls());
        assert_eq!(calls[0].token.as_deref(), Some("tok_alice"));
        assert!(post(&running, "/clear", "").0.starts_with("HTTP/1.1 200"));
        assert!(running.calls().is_empty());
        assert!(post(&running, "/seed", "{}").0.starts_with("HTTP/1.1 200"));
        introspect(&mut socket);
        assert!(read(&mut socket).0.starts_with("HTTP/1.1 401 "));
        for (path, body) in
            [("/script", "{}"), ("/script", r#"[{"no": 1}]"#), ("/seed", "[]"), ("/deliver", "{}")]
        {
            assert!(post(&running, path, body).0.starts_with("HTTP/1.1 400 "), "{path} {body}");
        }
        assert!(post(&running, "/health", "").0.starts_with("HTTP/1.1 405 "));
        assert!(post(&running, "/nowhere", "").0.starts_with("HTTP/1.1 404 "));
    }

    #[test]
    fn delivers_webhooks() {
        let running = running();
        let url = format!("http://{}/hooks/in?x=1", running.api);
        let delivery =
            json!({"url": url, "secret": "whsec_a", "event": {"type": "user.created"}, "timestamp": 7});
        let (head, body) = post(&running, "/deliver", &delivery.to_string());
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}{body}");
        assert!(body.contains(r#""status":404"#), "{body}");
        let call = running.calls().remove(0);
        let header =
            |name: &str| call.headers.iter().find(|(existing, _)| existing == name).unwrap().1.as_str();
        assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/hooks/in?x=1"));
        assert_eq!(header("x-avnology-timestamp"), "7");
        assert_eq!(header("x-avnology-signature"), crate::sign("whsec_a", 7, call.body.as_bytes()));
        running.stop_accepting();
        assert!(post(&running, "/deliver", &delivery.to_string()).0.starts_with("HTTP/1.1 502 "));
    }

    #[test]
    fn the_health_check_wants_200() {
        let running = running();
        service::health(&format!("http://{}/health", running.control)).unwrap();
        assert!(service::health(&format!("http://{}/nowhere", running.control)).is_err());
        let control = running.control;
        drop(running);
        assert!(service::health(&format!("http://{control}/health")).is_err());
    }
}
