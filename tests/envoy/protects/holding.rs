//! Lines that bound what one client may hold, and for how long.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::Instant;

use harness::client::frames::Session;

use super::*;
use crate::ensure;

pub(super) const PLAYS: &[(&str, Play)] = &[
    ("idle_timeout", Play::Scene(tells_the_idle_to_go)),
    ("stream_idle_timeout", Play::Scene(|scene, _| ends(scene, half_a_body(scene)?, ""))),
    ("request_timeout", Play::Scene(|scene, _| ends(scene, half_a_body(scene)?, "1\r\nx\r\n"))),
    (
        "request_headers_timeout",
        Play::Scene(|scene, _| {
            ends(scene, begun(scene, &format!("GET /healthz HTTP/1.1\r\nhost: {HOST}\r\nx-long: "))?, "x")
        }),
    ),
    ("max_stream_duration", Play::Scene(|scene, _| ends(scene, a_stream(scene)?, "1\r\nx\r\n"))),
    ("route_idle_timeout", Play::Scene(|scene, _| ends(scene, a_stream(scene)?, ""))),
    ("per_connection_buffer_limit_bytes", Play::Scene(|scene, _| Ok(held_back(scene)? < 24 * MIB))),
    ("max_concurrent_streams", Play::Scene(takes_a_hundred_streams)),
    ("initial_stream_window_size", Play::Scene(|scene, _| too_much(scene, 1, 5 * MIB))),
    ("initial_connection_window_size", Play::Scene(|scene, _| too_much(scene, 8, 3 * MIB))),
    ("overload_manager", Play::Alone(takes_three_connections)),
];

const MIB: usize = 1024 * 1024;

/// A connection on which this was sent.
fn begun(scene: &Scene, sent: &str) -> Result<TcpStream, String> {
    let mut stream = scene.envoy.open(scene.address).map_err(text)?;
    stream.write_all(sent.as_bytes()).map_err(text)?;
    Ok(stream)
}

/// A request that anybody may send, but for its end.
fn half_a_body(scene: &Scene) -> Result<TcpStream, String> {
    begun(scene, &format!("POST /healthz HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n"))
}

/// A stream that was let in.
fn a_stream(scene: &Scene) -> Result<TcpStream, String> {
    let head = format!("GET /streams/x HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer tok_alice\r\n");
    begun(scene, &format!("{head}transfer-encoding: chunked\r\n\r\n"))
}

/// Whether a connection, or the request on it, is ended by Envoy while its client goes on sending
/// this now and then.
fn ends(scene: &Scene, mut stream: TcpStream, trickle: &str) -> Result<bool, String> {
    let end = Instant::now() + patience(scene);
    stream.set_read_timeout(Some(Duration::from_millis(100))).map_err(text)?;
    let (mut read, mut part) = (Vec::new(), [0; 4096]);
    while Instant::now() < end {
        match stream.read(&mut part) {
            Ok(0) => return Ok(true),
            Ok(count) => read.extend_from_slice(&part[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if stream.write_all(trickle.as_bytes()).is_err() {
                    return Ok(true);
                }
            }
            Err(_) => return Ok(true),
        }
        let read = String::from_utf8_lossy(&read);
        ensure!(!read.contains("HTTP/1.1 401") && !read.contains("HTTP/1.1 403"), "{read}");
        if read.contains("HTTP/1.1 4") || read.contains("HTTP/1.1 5") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// After this, Envoy waits five seconds more for a request that crosses its word.
fn tells_the_idle_to_go(scene: &Scene, _: &str) -> Result<bool, String> {
    let counter = || {
        let name = format!("http.{}.downstream_cx_idle_timeout", scene.shape.name);
        scene.envoy.stats(&name.replace('.', "%5C.")).get(&name).copied().unwrap_or(0)
    };
    let before = counter();
    let mut connection = scene.connect(Version::Http1, None)?;
    passed(&connection.ask(&healthz()).map_err(text)?)?;
    let end = Instant::now() + patience(scene);
    while Instant::now() < end {
        if counter() > before {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(false)
}

/// How many bytes of one body Envoy and the kernel take while the request waits for the provider.
fn held_back(scene: &Scene) -> Result<usize, String> {
    scene.provider.clear()?;
    scene.provider.rule(json!({"on": "introspect", "fault": "hang"}))?;
    let head = format!("PUT /api/projects/1 HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer tok_alice\r\n");
    let mut stream = begun(scene, &format!("{head}content-length: 1000000000\r\n\r\n"))?;
    // No byte more for a while: nobody takes any.
    stream.set_write_timeout(Some(Duration::from_secs(1))).map_err(text)?;
    socket2::SockRef::from(&stream).set_send_buffer_size(64 * 1024).map_err(text)?;
    let (mut taken, part) = (0, vec![b'x'; 64 * 1024]);
    while taken < 64 * MIB {
        match stream.write(&part) {
            Ok(count) => taken += count,
            Err(_) => break,
        }
    }
    Ok(taken)
}

fn fields(pairs: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// Whether a client that sends this much of so many bodies, whatever it was allowed, is cut off
/// while they wait for the provider.
fn too_much(scene: &Scene, streams: u32, bytes: usize) -> Result<bool, String> {
    scene.provider.clear()?;
    scene.provider.rule(json!({"on": "introspect", "fault": "hang"}))?;
    let mut session = Session::over(scene.envoy.open(scene.address).map_err(text)?).map_err(text)?;
    let head = fields(&[
        (":method", "PUT"),
        (":path", "/api/projects/1"),
        (":scheme", "http"),
        (":authority", HOST),
        ("authorization", "Bearer tok_alice"),
    ]);
    // Only once the client has confirmed the settings, they are what it may send.
    let first =
        fields(&[(":method", "GET"), (":path", "/healthz"), (":scheme", "http"), (":authority", HOST)]);
    session.head(1, &first, true, 1).map_err(text)?;
    session.read_until(PATIENCE, |session| session.streams.get(&1).is_some_and(|s| s.ended)).map_err(text)?;
    session.streams.clear();
    let part = vec![b'x'; 16 * 1024];
    let count = u32::try_from(bytes / part.len()).map_err(text)?;
    for stream in (1..=streams).map(|nth| nth * 2 + 1) {
        session.head(stream, &head, false, 1).map_err(text)?;
        session.data(stream, &part, false, count).map_err(text)?;
    }
    let is_answered = |session: &Session| session.streams.values().any(|stream| stream.answer.status != 0);
    let is_cut_off = |session: &Session| {
        session.goaway.is_some() || session.streams.values().any(|stream| stream.reset.is_some())
    };
    session.read_until(PATIENCE, |session| is_cut_off(session) || is_answered(session)).map_err(text)?;
    Ok(session.ended || is_cut_off(&session))
}

fn takes_a_hundred_streams(scene: &Scene, _: &str) -> Result<bool, String> {
    let mut session = Session::over(scene.envoy.open(scene.address).map_err(text)?).map_err(text)?;
    let head =
        fields(&[(":method", "POST"), (":path", "/healthz"), (":scheme", "http"), (":authority", HOST)]);
    for nth in 0..130 {
        session.head(nth * 2 + 1, &head, false, 1).map_err(text)?;
    }
    let name = format!("http.{}.downstream_rq_active", scene.shape.name);
    let filter = format!("%5Ehttp%5C.{}%5C.downstream_rq_active%24", scene.shape.name);
    let is_refused = |session: &Session| {
        session.goaway.is_some() || session.streams.values().any(|stream| stream.reset.is_some())
    };
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if scene.envoy.stats(&filter).get(&name).is_some_and(|active| *active > 100) {
            return Ok(false);
        }
        let is_over = session.read_until(Duration::from_millis(50), is_refused);
        if session.ended || matches!(is_over, Ok(true)) {
            return Ok(true);
        }
    }
    Err("neither taken nor refused".to_owned())
}

/// Of six clients, each with one connection that it keeps.
fn takes_three_connections(envoy: &Arc<Envoy>) -> Result<bool, String> {
    let scene = Scene::with(envoy, "connections", &sample::forgetful_policy())?;
    let mut taken = Vec::new();
    for _ in 0..6 {
        let mut connection = scene.connect(Version::Http1, None)?;
        if connection.ask(&healthz()).is_ok_and(|answer| answer.status == 200) {
            taken.push(connection);
        }
    }
    ensure!(!taken.is_empty(), "it takes none at all");
    Ok(taken.len() <= 3)
}
