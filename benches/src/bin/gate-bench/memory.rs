//! What a hundred thousand cached tokens cost one worker.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::Duration;

use serde_json::json;

use crate::machine::{Cores, Worker};
use crate::provider::Provider;
use crate::variants::{self, Kind, PATH, Variant, numbered, token};

/// As many as the cache holds; one of them is the token with which the listener was proven.
const TOKENS: u32 = 100_000;
/// Sent before memory is looked at first: connections and pools are not what is measured.
const FIRST: u32 = 100;
const CLIENTS: u32 = 8;
/// How a good answer begins.
const GOOD: &[u8] = b"HTTP/1.1 200 ";

/// What was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// How many tokens.
    pub tokens: u32,
    /// The bytes of one.
    pub size: usize,
    /// Envoy's resident bytes before.
    pub before: u64,
    /// How many more afterwards.
    pub grown: u64,
    /// How many more where nothing is kept: what so many requests cost in any case.
    pub control: u64,
    /// How many more where the workers share facts, which costs the process a bounded part beside.
    pub shared: u64,
}

impl Memory {
    /// What the cached tokens cost the worker.
    pub(crate) fn kept(&self) -> u64 {
        self.grown.saturating_sub(self.control)
    }
}

/// What is kept of the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    /// Nothing.
    Nothing,
    /// The worker's own facts: without a secret nothing is shared.
    Own,
    /// Those, and what the workers share.
    Shared,
}

/// Sends the tokens twice through a fresh Envoy each: the second time they are all cached where
/// they are kept, or the run fails.
pub(crate) fn measure(provider: &Provider, cores: &Cores) -> Result<Memory, String> {
    let control = grow(provider, cores, Keeps::Nothing)?.grown;
    let shared = grow(provider, cores, Keeps::Shared)?.grown;
    Ok(Memory { control, shared, ..grow(provider, cores, Keeps::Own)? })
}

fn grow(provider: &Provider, cores: &Cores, keeps: Keeps) -> Result<Memory, String> {
    let envoy = variants::envoy(provider)?;
    let worker = Worker::find(envoy.pid().ok_or("Envoy has no process")?, cores)?;
    let mut policy = Kind::Cached.policy().unwrap_or_default();
    policy["cache"]["introspection"]["max_entries"] = json!(TOKENS);
    if keeps == Keeps::Nothing {
        policy["cache"]["introspection"] = json!({"ttl": "0s", "negative_ttl": "0s"});
    }
    if keeps != Keeps::Shared {
        policy["provider"]["introspection"]["credentials"] = json!({"method": "none"});
    }
    let variant = Variant::add(&envoy, Kind::Cached, Some(&policy))?;

    let all = 0..TOKENS - 1;
    let send =
        |tokens| send(variant.address, tokens).map_err(|problem| format!("{problem}\n{}", envoy.log()));
    send(0..FIRST)?;
    let before = worker.resident()?;
    send(FIRST..all.end)?;
    let after = worker.resident()?;
    let calls = provider.calls();
    send(all.clone())?;
    let again = provider.calls().since(calls).total();
    if again > 0 && keeps != Keeps::Nothing {
        return Err(format!("of {} cached tokens, {again} were asked about again", all.end));
    }
    let tokens = all.end - FIRST;
    Ok(Memory {
        tokens,
        size: token().len(),
        before,
        grown: after.saturating_sub(before),
        control: 0,
        shared: 0,
    })
}

/// Sends a request with each of these tokens, over a few connections.
fn send(address: SocketAddr, tokens: Range<u32>) -> Result<(), String> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|first| {
                let tokens = tokens.clone().skip(first as usize).step_by(CLIENTS as usize);
                scope.spawn(move || client(address, tokens))
            })
            .collect();
        clients.into_iter().try_for_each(|client| match client.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("while filling the cache: {error}")),
            Err(_) => Err("a client of the memory measurement has panicked".to_owned()),
        })
    })
}

fn client(address: SocketAddr, tokens: impl Iterator<Item = u32>) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut buffer = [0_u8; 4096];
    for number in tokens {
        let token = numbered(number);
        let request = format!("GET {PATH} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut filled = 0;
        // The body is known, and its end is the answer's.
        while !buffer.get(..filled).unwrap_or_default().ends_with(b"\r\n\r\nok\n") {
            let read = stream.read(buffer.get_mut(filled..).unwrap_or_default())?;
            filled += read;
            let answer = buffer.get(..filled).unwrap_or_default();
            if read == 0 || filled >= GOOD.len() && !answer.starts_with(GOOD) {
                let answer = String::from_utf8_lossy(answer);
                return Err(io::Error::other(format!("token {number} was answered {answer:?}")));
            }
        }
    }
    Ok(())
}
