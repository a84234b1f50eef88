//! A DNS server that knows one name, with a configurable delay.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The server. Dropping it stops it.
pub(crate) struct Names {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    name: String,
    answer: Mutex<(Ipv4Addr, Option<Duration>)>,
    asked: AtomicUsize,
    stop: AtomicBool,
}

impl State {
    fn answer(&self) -> MutexGuard<'_, (Ipv4Addr, Option<Duration>)> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    /// Serves on a free port of this local address.
    pub(crate) fn serve(ours: &str, name: &str, points_to: Ipv4Addr) -> Result<Self, String> {
        let ip: IpAddr = ours.parse().map_err(|_| format!("{ours:?} is no address"))?;
        let bound = UdpSocket::bind((ip, 0)).and_then(|socket| {
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            Ok((socket.local_addr()?, Arc::new(socket)))
        });
        let (address, socket) = bound.map_err(|error| format!("a name server on {ip}: {error}"))?;
        let state = Arc::new(State {
            name: name.to_owned(),
            answer: Mutex::new((points_to, Some(Duration::ZERO))),
            asked: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let served = Arc::clone(&state);
        std::thread::spawn(move || {
            let mut packet = [0; 512];
            while !served.stop.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut packet) else { continue };
                let Some((question, is_a)) = question(&packet[..length], &served.name) else { continue };
                served.asked.fetch_add(1, Ordering::Relaxed);
                // The answer as of now: a later change does not affect a query that has already
                // arrived.
                let (address, delay) = *served.answer();
                let Some(delay) = delay else { continue };
                let (socket, reply) =
                    (Arc::clone(&socket), reply(&packet[..question], is_a.then_some(address)));
                std::thread::spawn(move || {
                    std::thread::sleep(delay);
                    // A client that no longer listens does not get it.
                    let _ = socket.send_to(&reply, client);
                });
            }
        });
        Ok(Self { address, state })
    }

    /// Sets how long an answer takes; with `None`, there is no answer.
    pub(crate) fn delay(&self, delay: Option<Duration>) {
        self.state.answer().1 = delay;
    }

    /// Sets the address that the name resolves to from now on.
    pub(crate) fn point_to(&self, address: Ipv4Addr) {
        self.state.answer().0 = address;
    }

    /// How many queries for the name have arrived.
    pub(crate) fn asked(&self) -> usize {
        self.state.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
    }
}

/// Where the question of a packet ends, and whether it is for an IPv4 address; `None` unless it is
/// a question for the name.
fn question(packet: &[u8], name: &str) -> Option<(usize, bool)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).into_owned());
        at += length;
    }
    let kind = packet.get(at..at + 4)?;
    labels.join(".").eq_ignore_ascii_case(name).then_some((at + 4, kind[..2] == [0, 1]))
}

/// An answer: the question and, for an A query, the address with a TTL of one second.
fn reply(question: &[u8], address: Option<Ipv4Addr>) -> Vec<u8> {
    let mut out = question.to_vec();
    // An answer, recursion desired and available, no error; one question, one answer or none,
    // nothing else.
    out[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    if let Some(address) = address {
        out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        out.extend_from_slice(&address.octets());
    }
    out
}
