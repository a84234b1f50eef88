//! One reading of a request: what the gate judged, and what a framework behind it read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use harness::attack::{self, Reading};
use harness::client::{Answer, Connection, PATIENCE, Version};
use harness::envoy::Refused;
use harness::framework::Framework;
use harness::sample;
use harness::scene::{LINE, Scene};
use harness::standin;
use libtest_mimic::{Failed, Trial};
use serde_json::{Map, Value, json};

use crate::stage::{HOST, Stages, policy};
use crate::{Outcome, ensure};

/// Differs with each request, or says where Envoy connects from.
const NOT_COMPARED: [&str; 3] = ["HTTP_X_REQUEST_ID", "REMOTE_PORT", "RAW_URI"];

type Scenes = Arc<Mutex<BTreeMap<bool, Result<Arc<Scene>, String>>>>;
type Found = Result<Option<Arc<Framework>>, String>;

/// A trial for each request and listener, and one that reads it without the gate. Where the
/// framework is not installed they are ignored, and `make` says so.
pub(crate) fn trials(folder: &Path, framework: Found, stages: &Stages) -> Vec<Trial> {
    let (readings, framework) = match (attack::readings(folder), framework) {
        (Ok(readings), Ok(framework)) => (readings, framework),
        (Err(problem), _) | (_, Err(problem)) => {
            return vec![Trial::test("framework", move || Err(problem.into()))];
        }
    };
    let scenes = Scenes::default();
    let mut trials = Vec::new();
    for reading in readings.into_iter().map(Arc::new) {
        for how in ["unguarded", "shipped", "raw"] {
            let name = format!("{}::{how}", reading.id);
            let (reading, framework) = (Arc::clone(&reading), framework.clone());
            let (scenes, stages) = (Arc::clone(&scenes), stages.clone());
            let ignored = framework.is_none();
            let run = move || {
                let framework = framework.ok_or("gunicorn is not installed")?;
                let outcome = match how {
                    "unguarded" => unguarded(&reading, &framework),
                    _ => {
                        guarded(&reading, &*scene(&scenes, &stages, &framework, how == "raw")?, how == "raw")
                    }
                };
                outcome.map_err(Failed::from)
            };
            trials.push(Trial::test(name, run).with_ignored_flag(ignored));
        }
    }
    trials
}

/// The listener in front of the framework.
fn scene(scenes: &Scenes, stages: &Stages, framework: &Framework, raw: bool) -> Result<Arc<Scene>, String> {
    let mut scenes = scenes.lock().unwrap_or_else(PoisonError::into_inner);
    let start = || {
        let envoy = stages.envoy()?;
        let name = if raw { "framework-raw" } else { "framework" };
        let mut scene = Scene::new(&envoy, name, standin::Seed::embedded())?;
        let cluster = sample::cluster("upstream", name, Some(framework.address));
        envoy.put_clusters(vec![cluster]).map_err(|Refused(text)| text)?;
        scene.shape.service = name.to_owned();
        scene.shape.raw = raw;
        let mut policy = policy();
        // A named host: what a framework takes for the host must then be the gate's, too.
        policy["routes"].as_array_mut().ok_or("no routes")?.push(
            json!({"name": "hosted", "match": {"hosts": ["hosted.example.com"], "path": "/hosted/{*rest}"}}),
        );
        scene.configure(&policy).map_err(|Refused(text)| text)?;
        Ok(Arc::new(scene))
    };
    scenes.entry(raw).or_insert_with(start).clone()
}

/// What the framework read, and nothing where it refused.
fn read(answer: &Answer) -> Option<Map<String, Value>> {
    if answer.status != 200 {
        return None;
    }
    let mut read = answer.json().as_object().cloned()?;
    let compared = |name: &str| {
        !NOT_COMPARED.contains(&name)
            && (name.starts_with("HTTP_")
                || name.starts_with("REMOTE_")
                || [
                    "PATH_INFO",
                    "SCRIPT_NAME",
                    "REQUEST_METHOD",
                    "QUERY_STRING",
                    "wsgi.url_scheme",
                    "AUTH_TYPE",
                ]
                .contains(&name))
    };
    read.retain(|name, _| compared(name));
    Some(read)
}

/// What differs from another reading; null stands for what is gone.
fn difference(read: &Map<String, Value>, plain: &Map<String, Value>) -> Value {
    let mut difference = Map::new();
    for name in plain.keys().chain(read.keys()) {
        if read.get(name) != plain.get(name) {
            difference.insert(name.clone(), read.get(name).cloned().unwrap_or_default());
        }
    }
    Value::Object(difference)
}

fn send(connection: &mut Connection, reading: &Reading) -> Result<Answer, String> {
    let mut head = format!("{} {} HTTP/1.1\r\nhost: {}\r\n", reading.method, reading.target, reading.host);
    for line in &reading.headers {
        head += line;
        head += "\r\n";
    }
    head += "\r\n";
    connection.send_raw(&harness::corpus::unescape(&head)).map_err(|failure| failure.to_string())?;
    connection.answer(PATIENCE).map_err(|failure| failure.to_string())
}

/// The request that every other one is compared with.
fn plain() -> Reading {
    Reading {
        name: String::new(),
        id: String::new(),
        target: "/public/x".to_owned(),
        method: "GET".to_owned(),
        host: HOST.to_owned(),
        headers: Vec::new(),
        shipped: Value::Null,
        raw: Value::Null,
        unguarded: Value::Null,
    }
}

/// Without the gate: what the framework makes of the request by itself.
fn unguarded(reading: &Reading, framework: &Framework) -> Outcome {
    let ask = |reading: &Reading| {
        let mut connection =
            Connection::open(framework.address, Version::Http1).map_err(|error| error.to_string())?;
        send(&mut connection, reading)
    };
    let plain = read(&ask(&plain())?).ok_or("the framework does not answer a plain request")?;
    let answer = ask(reading)?;
    let got = read(&answer).map_or(json!("refused"), |read| difference(&read, &plain));
    ensure!(got == reading.unguarded, "the framework reads {got}, expected {}", reading.unguarded);
    Ok(())
}

/// Through the gate: what arrives is what was judged.
fn guarded(reading: &Reading, scene: &Scene, raw: bool) -> Outcome {
    let ask = |reading: &Reading| {
        let mut connection = scene.connect(Version::Http1, None)?;
        let port = connection.port().map_err(|error| error.to_string())?;
        // The system may reuse the port of an earlier connection.
        let earlier = scene.lines()?.iter().filter(|line| line.is_of(port)).count();
        let answer = send(&mut connection, reading)?;
        let line = scene.line(port, earlier, LINE)?.ok_or("no access log line")?;
        Ok::<_, String>((answer, line))
    };
    let plain = read(&ask(&plain())?.0).ok_or("the framework does not answer a plain request")?;
    let (answer, line) = ask(reading)?;
    let wanted = if raw { &reading.raw } else { &reading.shipped };
    let Some(read) = read(&answer) else {
        let word = match answer.error() {
            Some(error) => format!("{} {error}", answer.status),
            None => answer.status.to_string(),
        };
        ensure!(*wanted == json!(word), "refused with {word}, expected {wanted}: {:.300}", answer.text());
        return Ok(());
    };
    let got = difference(&read, &plain);
    ensure!(got == *wanted, "the framework reads {got}, expected {wanted}");

    // Whatever a row says, these hold.
    let text = |name: &str| read.get(name).and_then(Value::as_str).unwrap_or_default();
    ensure!(text("SCRIPT_NAME").is_empty(), "the application begins at {:?}", text("SCRIPT_NAME"));
    let gate: Value =
        line.gate.as_deref().and_then(|gate| serde_json::from_str(gate).ok()).unwrap_or_default();
    let judged = gate["route"].as_str().unwrap_or_default();
    let path = text("PATH_INFO");
    let read_as = match path {
        path if path.starts_with("/public/") => "public",
        path if path.starts_with("/admin/") => "admin",
        path if path.starts_with("/hosted/") => "hosted",
        _ => "none",
    };
    ensure!(judged == read_as, "the gate judged the route {judged:?}, and the framework reads {path:?}");
    ensure!(text("REQUEST_METHOD") == reading.method, "another method: {}", text("REQUEST_METHOD"));
    ensure!(!read.contains_key("REMOTE_USER"), "a remote user: {:?}", read.get("REMOTE_USER"));
    let identity = read.keys().find(|name| {
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        name.to_ascii_uppercase().starts_with("HTTP_X_AVNOLOGY_")
    });
    ensure!(identity.is_none(), "on a public route, {identity:?} arrives");
    Ok(())
}
