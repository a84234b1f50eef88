//! A provider that answers everything with yes, at once: introspection, permission checks, and the
//! check of `ext_authz`.
//!
//! The gate and `ext_authz` ask the same one, so neither is measured against a slower provider. One
//! thread a connection, nothing parsed that is not needed, every answer made beforehand.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

/// What the provider says of every token; `benches/keys/test-only.jwt` says the same of itself.
pub(crate) const IDENTITY: [(&str, &str, &str); 4] = [
    ("x-avnology-user-id", "sub", "usr_01hqz8k4v9n2m7c3x5b6d8f0ga"),
    ("x-avnology-scopes", "scope", "profile projects:read projects:write"),
    ("x-avnology-org-id", "org_id", "org_01hqz8k4v9n2m7c3x5b6d8f0gc"),
    ("x-avnology-client-id", "client_id", "cli_01hqz8k4v9n2m7c3x5b6d8f0gb"),
];

/// Who issued the token, and for whom.
pub(crate) const ISSUER: &str = "https://api-id.avnology.net";
/// See [`ISSUER`].
pub(crate) const AUDIENCE: &str = "https://api.example.com";
/// Under this `ext_authz` asks.
pub(crate) const AUTHZ: &str = "/authz";

/// How often each endpoint was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    /// `POST /oauth2/introspect`.
    pub introspections: u64,
    /// `POST /v1/permissions:check`.
    pub permissions: u64,
    /// Anything under [`AUTHZ`].
    pub authz: u64,
    /// Anything else, which nobody should ask.
    pub others: u64,
}

impl Calls {
    /// What was called since.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            introspections: self.introspections - before.introspections,
            permissions: self.permissions - before.permissions,
            authz: self.authz - before.authz,
            others: self.others - before.others,
        }
    }

    /// All of them.
    pub(crate) fn total(self) -> u64 {
        self.introspections + self.permissions + self.authz + self.others
    }
}

/// The provider, until the process ends.
pub(crate) struct Provider {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    counts: [AtomicU64; 4],
    answers: [Vec<u8>; 4],
}

impl Provider {
    /// Starts it.
    pub(crate) fn start() -> io::Result<Self> {
        let mut token = json!({
            "active": true,
            "token_type": "Bearer",
            "iss": ISSUER,
            "aud": [AUDIENCE],
            "iat": 1_764_201_600_u64,
            "exp": 4_102_444_800_u64,
        });
        for (_, claim, value) in IDENTITY {
            token[claim] = json!(value);
        }
        let headers: String =
            IDENTITY.iter().map(|(header, _, value)| format!("{header}: {value}\r\n")).collect();
        let answers = [
            answer(200, "content-type: application/json\r\n", &token.to_string()),
            answer(200, "content-type: application/json\r\n", r#"{"allowed":true}"#),
            answer(200, &headers, ""),
            answer(404, "", ""),
        ];
        let state = Arc::new(State { answers, ..State::default() });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A connection that breaks shows as a request that was not answered 200.
                std::thread::spawn(move || state.serve(stream));
            }
        });
        Ok(Self { address, state })
    }

    /// How often it was called so far.
    pub(crate) fn calls(&self) -> Calls {
        let [introspections, permissions, authz, others] =
            self.state.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        Calls { introspections, permissions, authz, others }
    }
}

fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let reason = if status == 200 { "OK" } else { "Not Found" };
    format!("HTTP/1.1 {status} {reason}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

impl State {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = vec![0_u8; 64 * 1024];
        let mut filled = 0;
        loop {
            while let Some(length) = request(buffer.get(..filled).unwrap_or_default()) {
                let kind = kind(&buffer);
                self.counts[kind].fetch_add(1, Ordering::Relaxed);
                stream.write_all(&self.answers[kind])?;
                buffer.copy_within(length..filled, 0);
                filled -= length;
            }
            match stream.read(buffer.get_mut(filled..).unwrap_or_default())? {
                0 => return Ok(()),
                read => filled += read,
            }
        }
    }
}

/// The length of the first request, once all of it is there.
fn request(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(bytes.get(..head)?);
    let body = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse::<usize>().ok() } else { None }
    });
    let length = head + body.unwrap_or(0);
    (bytes.len() >= length).then_some(length)
}

/// Which endpoint a request is for.
fn kind(request: &[u8]) -> usize {
    if request.starts_with(b"POST /oauth2/introspect ") {
        0
    } else if request.starts_with(b"POST /v1/permissions:check ") {
        1
    } else if request.starts_with(b"GET /authz/") {
        2
    } else {
        3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_with_its_body() {
        let bytes = b"POST /oauth2/introspect HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET";
        assert_eq!(request(bytes), Some(bytes.len() - 3));
        assert_eq!(request(&bytes[..bytes.len() - 4]), None);
        assert_eq!(request(b"GET / HTTP/1.1\r\n\r"), None);
        assert_eq!([kind(bytes), kind(b"GET /authz/a HTTP/1.1"), kind(b"GET / HTTP/1.1")], [0, 2, 3]);
    }
}
