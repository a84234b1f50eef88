//! Lines of the two clusters.

use std::net::{SocketAddr, TcpListener};
use std::thread;

use socket2::{Domain, Socket, Type};

use super::*;

pub(super) const PLAYS: &[(&str, Play)] = &[
    ("route_timeout", Play::Scene(gives_a_silent_service_up)),
    ("circuit_breakers_of_the_service", Play::Scene(spares_the_service)),
    ("connect_timeout_of_the_service", Play::Given(gives_a_connection_up)),
    (
        "connect_timeout_of_the_provider",
        Play::Given(|scene, cluster| nobody_notices(scene, cluster, Broken::Gone)),
    ),
    ("retry_host_predicate", Play::Given(|scene, cluster| nobody_notices(scene, cluster, Broken::Silent))),
    (
        "host_selection_retry_max_attempts",
        Play::Given(|scene, cluster| nobody_notices(scene, cluster, Broken::Refusing)),
    ),
    ("lb_policy", Play::Given(asks_the_faster)),
];

/// A port that takes connections and says nothing.
fn silent() -> Result<TcpListener, String> {
    TcpListener::bind("127.0.0.1:0").map_err(text)
}

/// A port at which connections are neither taken nor refused, as long as these live.
fn gone() -> Result<(SocketAddr, Vec<Socket>), String> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(text)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).map_err(text)?;
    socket.listen(0).map_err(text)?;
    let address = socket.local_addr().map_err(text)?.as_socket().ok_or("no address")?;
    let mut sockets = vec![socket];
    // More than wait to be taken: the kernel does not hear those who come later.
    for _ in 0..8 {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(text)?;
        client.set_nonblocking(true).map_err(text)?;
        // It is under way, whatever it says.
        let _ = client.connect(&address.into());
        sockets.push(client);
    }
    Ok((address, sockets))
}

/// Sets a cluster's only endpoints, and uses it.
fn lead(scene: &Scene, mut cluster: Value, to: &[SocketAddr]) -> Outcome {
    let endpoint = |to: &SocketAddr| {
        let socket = json!({"address": to.ip().to_string(), "port_value": to.port()});
        json!({"endpoint": {"address": {"socket_address": socket}}})
    };
    let endpoints: Vec<Value> = to.iter().map(endpoint).collect();
    cluster["load_assignment"]["endpoints"] = json!([{"lb_endpoints": endpoints}]);
    put_cluster(scene, cluster)
}

fn gives_a_silent_service_up(scene: &Scene, _: &str) -> Result<bool, String> {
    let service = silent()?;
    let to = service.local_addr().map_err(text)?;
    lead(scene, sample::cluster("upstream", &scene.shape.service, None), &[to])?;
    Ok(status_in_time(scene, &healthz())? == Some(504))
}

/// Of four requests that a service keeps, one reaches it, and one waits.
fn spares_the_service(scene: &Scene, _: &str) -> Result<bool, String> {
    let half = Ask::new("POST", "/healthz", HOST).body("ab").incomplete();
    let mut connections = Vec::new();
    for _ in 0..4 {
        let mut connection = scene.connect(Version::Http1, None)?;
        connection.send(&half).map_err(text)?;
        connections.push(connection);
    }
    let refused = |connection: &mut harness::client::Connection| {
        connection.answer(Duration::from_millis(300)).is_ok_and(|answer| answer.status == 503)
    };
    Ok(connections.iter_mut().any(refused))
}

fn gives_a_connection_up(scene: &mut Scene, cluster: Value) -> Result<bool, String> {
    let (to, _open) = gone()?;
    lead(scene, cluster, &[to])?;
    Ok(status_in_time(scene, &healthz())? == Some(503))
}

/// What is wrong with one of two endpoints.
#[derive(Clone, Copy)]
enum Broken {
    Gone,
    Silent,
    Refusing,
}

/// Whether all callers, whose tokens nobody knows, are told so. They are fewer than half of what may
/// be under way: beyond that, the gate does not try a second time.
fn nobody_notices(scene: &mut Scene, cluster: Value, broken: Broken) -> Result<bool, String> {
    let (gone, _open) = gone()?;
    let silent = silent()?;
    let closed = silent_then_closed()?;
    let other = match broken {
        Broken::Gone => gone,
        Broken::Silent => silent.local_addr().map_err(text)?,
        Broken::Refusing => closed,
    };
    lead(scene, cluster, &[other, scene.provider_api().ok_or("no provider")?])?;
    scene.put(slow_policy(scene, sample::uncached_policy())).map_err(|Refused(text)| text)?;
    let statuses = crowd(scene, 28, 1)?;
    Ok(statuses.iter().all(|status| *status == 401))
}

fn silent_then_closed() -> Result<SocketAddr, String> {
    silent()?.local_addr().map_err(text)
}

/// The statuses that so many callers got who ask so often, one after the other.
fn crowd(scene: &Scene, callers: usize, times: usize) -> Result<Vec<u16>, String> {
    let _crowd = harness::scene::crowd();
    let call = |caller: usize| -> Result<Vec<u16>, String> {
        let mut connection = scene.connect(Version::Http1, None)?;
        (0..times)
            .map(|nth| {
                let token = format!("tok_{caller}_{nth}_{}", scene.shape.label);
                let ask = Ask::new("GET", "/api/profile", HOST).bearer(&token);
                connection.ask(&ask).map(|answer| answer.status).map_err(text)
            })
            .collect()
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..callers).map(|caller| scope.spawn(move || call(caller))).collect();
        let mut statuses = Vec::new();
        for caller in callers {
            statuses.extend(caller.join().map_err(|_| "a caller failed")??);
        }
        Ok(statuses)
    })
}

/// Whether a slow endpoint is asked clearly less often than a fast one.
fn asks_the_faster(scene: &mut Scene, cluster: Value) -> Result<bool, String> {
    let slow = standin::Running::start(standin::Seed::embedded());
    slow.script(vec![serde_json::from_value(json!({"delay": "100ms"})).map_err(text)?]);
    lead(scene, cluster, &[slow.api, scene.provider_api().ok_or("no provider")?])?;
    scene.put(slow_policy(scene, sample::uncached_policy())).map_err(|Refused(text)| text)?;
    scene.provider.clear()?;
    let statuses = crowd(scene, 8, 20)?;
    ensure!(statuses.iter().all(|status| *status == 401), "{statuses:?}");
    let (slow, fast) = (slow.calls().len(), scene.provider.calls()?.len());
    // Two are drawn, and the less busy one is asked: a quarter of the draws are the slow one twice.
    Ok(slow * 5 < (slow + fast) * 2)
}
