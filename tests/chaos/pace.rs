//! Clients that ask at a steady pace, however long the answers take.

use std::thread;
use std::time::{Duration, Instant};

use crate::report::Tally;
use crate::wire::{Reply, Wire, request};

/// What is asked.
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) token: String,
}

impl Ask {
    pub(crate) fn get(path: &str, token: impl Into<String>) -> Self {
        Self { method: "GET", path: path.to_owned(), token: token.into() }
    }

    pub(crate) fn put(path: String, token: impl Into<String>) -> Self {
        Self { method: "PUT", path, token: token.into() }
    }

    pub(crate) fn text(&self) -> String {
        request(self.method, &self.path, &self.token)
    }
}

/// How much is asked.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) per_second: u64,
    pub(crate) requests: u64,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) tally: Tally,
    pub(crate) slowest: Duration,
}

impl Heard {
    pub(crate) fn merge(&mut self, other: Self) {
        self.tally.merge(other.tally);
        self.slowest = self.slowest.max(other.slowest);
    }

    pub(crate) fn report(&self) -> String {
        format!("{} in ≤ {} ms", self.tally.report(), self.slowest.as_millis())
    }
}

/// Whether the nth request is sent at its time depends on no other one's answer, as long as there are
/// enough connections.
pub(crate) fn paced(
    wires: &mut [Wire],
    pace: Pace,
    ask: &(impl Fn(u64) -> Ask + Sync),
    judge: &(impl Fn(&Ask, &Reply) -> Result<&'static str, String> + Sync),
) -> Result<Heard, String> {
    let began = Instant::now();
    let step = wires.len();
    thread::scope(|scope| {
        let clients: Vec<_> = wires
            .iter_mut()
            .zip(0_u64..)
            .map(|(wire, first)| {
                scope.spawn(move || {
                    let mut heard = Heard::default();
                    for nth in (first..pace.requests).step_by(step) {
                        let due = Duration::from_micros(nth * 1_000_000 / pace.per_second);
                        // The pace is the load, and no condition.
                        thread::sleep(due.saturating_sub(began.elapsed()));
                        let ask = ask(nth);
                        let reply = wire.ask(&ask.text())?;
                        heard.slowest = heard.slowest.max(reply.took);
                        heard.tally.count(judge(&ask, &reply));
                    }
                    Ok::<_, String>(heard)
                })
            })
            .collect();
        let mut all = Heard::default();
        for client in clients {
            all.merge(client.join().map_err(|_| "a client panicked".to_owned())??);
        }
        Ok(all)
    })
}

/// How many threads send a burst.
const THREADS: usize = 4;

/// Sends a request on each connection, all as nearly at once as this machine can, and then reads the
/// answers. Also how long the sending took.
pub(crate) fn burst(
    wires: &mut [Wire],
    ask: &(impl Fn(u64) -> Ask + Sync),
    judge: &(impl Fn(&Ask, &Reply) -> Result<&'static str, String> + Sync),
) -> Result<(Heard, Duration), String> {
    let share = wires.len().div_ceil(THREADS).max(1);
    let asks: Vec<(Ask, String)> = (0_u64..)
        .take(wires.len())
        .map(|nth| {
            let ask = ask(nth);
            let text = ask.text();
            (ask, text)
        })
        .collect();
    thread::scope(|scope| {
        let clients: Vec<_> = wires
            .chunks_mut(share)
            .zip(asks.chunks(share))
            .map(|(wires, asks)| {
                scope.spawn(move || {
                    let began = Instant::now();
                    for (wire, (_, text)) in wires.iter_mut().zip(asks) {
                        wire.send(text)?;
                    }
                    let sent = began.elapsed();
                    let mut heard = Heard::default();
                    for (wire, (ask, _)) in wires.iter_mut().zip(asks) {
                        let reply = wire.answer()?;
                        heard.slowest = heard.slowest.max(reply.took);
                        heard.tally.count(judge(ask, &reply));
                    }
                    Ok::<_, String>((heard, sent))
                })
            })
            .collect();
        let mut all = (Heard::default(), Duration::ZERO);
        for client in clients {
            let (heard, sent) = client.join().map_err(|_| "a client panicked".to_owned())??;
            all.0.merge(heard);
            all.1 = all.1.max(sent);
        }
        Ok(all)
    })
}
