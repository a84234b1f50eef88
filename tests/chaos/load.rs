//! Clients that ask as fast as they are answered.

use std::thread;

use crate::report::Tally;
use crate::wire::{Reply, Wire, request};

/// How many threads ask; each has its share of the connections, and keeps all of them busy.
const THREADS: usize = 4;

/// After so many wrong answers there is nothing left to measure.
const ENOUGH: usize = 1000;

/// Numbers that look random, and are the same in every run.
pub(crate) struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number (xorshift64*).
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below this one.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.roll() >> 16) % end
    }
}

/// Who asks for `/any`, and what the answer must be.
pub(crate) trait Script: Sync {
    /// The token of a thread's nth request.
    fn next(&self, nth: u64, dice: &mut Dice, token: &mut String);
    /// What kind of a right answer it is, or what is wrong about it.
    fn judge(&self, token: &str, reply: &Reply) -> Result<&'static str, String>;
}

/// Sends so many requests over all connections and judges the answers.
pub(crate) fn drive(
    wires: &mut [Wire],
    requests: u64,
    seed: u64,
    script: &impl Script,
) -> Result<Tally, String> {
    let share = wires.len().div_ceil(THREADS);
    let threads = u64::try_from(wires.len().div_ceil(share)).unwrap_or(1);
    let mut whole = Tally::default();
    thread::scope(|scope| {
        let clients: Vec<_> = wires
            .chunks_mut(share)
            .zip(0_u64..)
            .map(|(wires, number)| {
                let count = requests / threads + u64::from(number < requests % threads);
                let dice = Dice::new(seed * 1000 + number + 1);
                scope.spawn(move || lane(wires, count, dice, script))
            })
            .collect();
        for client in clients {
            whole.merge(client.join().map_err(|_| "a client panicked".to_owned())??);
        }
        Ok(whole)
    })
}

/// One thread's part: a request on each connection, then the answers, and again.
fn lane(wires: &mut [Wire], count: u64, mut dice: Dice, script: &impl Script) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let mut tokens = vec![String::new(); wires.len()];
    let mut sent = 0;
    while sent < count {
        let mut asked = 0;
        for (wire, token) in wires.iter_mut().zip(&mut tokens) {
            if sent == count {
                break;
            }
            script.next(sent, &mut dice, token);
            wire.send(&request("GET", "/any", token))?;
            sent += 1;
            asked += 1;
        }
        for (wire, token) in wires.iter_mut().zip(&tokens).take(asked) {
            // Whoever is let down cannot tell a late answer from the next one.
            let reply =
                wire.answer().map_err(|problem| format!("{problem}; before that {}", tally.report()))?;
            tally.count(script.judge(token, &reply));
        }
        if tally.wrong.len() > ENOUGH {
            return Err(format!("too many wrong answers: {}", tally.report()));
        }
    }
    Ok(tally)
}
