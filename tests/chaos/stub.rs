//! A small HTTP/1.1 server, fast enough for a flood: a thread per connection, which is what Envoy's
//! pools keep few.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use harness::control::until;
use socket2::{Domain, SockRef, Socket, Type};

/// What connections' threads need; the system's own choice would be two megabytes for each of a
/// thousand.
const STACK: usize = 256 * 1024;

/// Connections that are not accepted yet; the kernel may allow fewer.
const BACKLOG: i32 = 4096;

/// What answers.
pub(crate) trait Serve: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: &Request<'_>) -> Does;
}

/// A request as it came.
pub(crate) struct Request<'r> {
    /// Method, target and headers.
    pub(crate) head: &'r str,
    pub(crate) body: &'r [u8],
}

/// What is done about a request.
pub(crate) enum Does {
    /// The bytes are the whole answer.
    Answers(Vec<u8>),
    /// The bytes are a part of one; then the connection is reset.
    Breaks(Vec<u8>),
}

impl Request<'_> {
    /// The target.
    pub(crate) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// Headers in order.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "))
    }
}

/// An answer with a JSON or text body.
pub(crate) fn reply(status: &str, extra: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{extra}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A server at work. Dropping it closes its port and its connections.
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    serve: Arc<dyn Serve>,
    stop: AtomicBool,
    connections: Mutex<HashMap<u64, TcpStream>>,
}

/// A panic of another thread has been told; what it held is still good.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port on which many can connect at the same moment: the standard library lets 128 of them wait,
/// and the others would be taken for a provider that is not there.
fn listener(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Stub {
    /// Starts on any free port.
    pub(crate) fn start(serve: Arc<dyn Serve>) -> Result<Self, String> {
        let listener = listener(SocketAddr::from(([127, 0, 0, 1], 0))).map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let shared = Arc::new(Shared { serve, stop: AtomicBool::new(false), connections: Mutex::default() });
        let stub = Self { address, shared, accepting: Mutex::default() };
        stub.listen(listener);
        Ok(stub)
    }

    fn listen(&self, listener: TcpListener) {
        self.shared.stop.store(false, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        let accepting = std::thread::spawn(move || {
            for number in 0.. {
                let Ok((stream, _)) = listener.accept() else { continue };
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                let _ = stream.set_nodelay(true);
                if let Ok(same) = stream.try_clone() {
                    lock(&shared.connections).insert(number, same);
                }
                let served = Arc::clone(&shared);
                let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || {
                    serve(&served, stream);
                    lock(&served.connections).remove(&number);
                });
                if thread.is_err() {
                    lock(&shared.connections).remove(&number);
                }
            }
        });
        *lock(&self.accepting) = Some(accepting);
    }

    /// Closes the port and all connections: whoever connects is refused.
    pub(crate) fn stop(&self) {
        let Some(accepting) = lock(&self.accepting).take() else { return };
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        let _ = accepting.join();
        for (_, stream) in lock(&self.shared.connections).drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Opens the same port again.
    pub(crate) fn resume(&self) -> Result<(), String> {
        let mut open = None;
        until(|| {
            open = listener(self.address).ok();
            Ok(open.is_some())
        })?;
        open.into_iter().for_each(|listener| self.listen(listener));
        Ok(())
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Answers the requests of a connection, one after the other, until it ends.
fn serve(shared: &Shared, mut stream: TcpStream) {
    let mut buffer = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        let (used, does) = match request(&buffer) {
            Some((request, used)) => (used, shared.serve.answer(&request)),
            None => match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    buffer.extend_from_slice(&chunk[..count]);
                    continue;
                }
            },
        };
        buffer.drain(..used);
        match does {
            Does::Answers(bytes) => {
                if stream.write_all(&bytes).is_err() {
                    return;
                }
            }
            Does::Breaks(bytes) => {
                let _ = stream.write_all(&bytes);
                // A reset overtakes what the other side has not read yet, and nothing tells whether
                // it has.
                std::thread::sleep(Duration::from_millis(20));
                // With no time to linger, closing is a reset: that of the last handle, which the
                // caller has.
                let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                return;
            }
        }
    }
}

/// A whole request at the beginning of the buffer, and how long it is. Envoy announces the length
/// of every body here.
fn request(buffer: &[u8]) -> Option<(Request<'_>, usize)> {
    let end = head_end(buffer)?;
    let head = std::str::from_utf8(&buffer[..end]).ok()?;
    let length = head
        .split("\r\n")
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0);
    let body = buffer.get(end + 4..end + 4 + length)?;
    Some((Request { head, body }, end + 4 + length))
}

/// Where the empty line begins that ends a head.
pub(crate) fn head_end(buffer: &[u8]) -> Option<usize> {
    buffer.windows(4).position(|window| window == b"\r\n\r\n")
}
