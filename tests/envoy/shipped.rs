//! The documentation's transcript, and what starts from the files of `envoy/`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use harness::client::{Ask, Version};
use harness::demo::Demo;
use harness::envoy::{Envoy, Options};
use harness::sample::{self, Policy, Shape};
use harness::scene::Scene;
use libtest_mimic::{Failed, Trial};
use semver::VersionReq;
use serde_json::{Value, json};

use crate::{Fleet, Outcome, ensure};

pub(crate) fn trials(fleet: &Fleet) -> Vec<Trial> {
    let retrying = VersionReq::parse(RETRY_POLICY_OF_A_CLUSTER).ok();
    let trial = |name: &str, run: fn() -> Outcome| Trial::test(name, move || run().map_err(Failed::from));
    vec![
        trial("shipped/the_readme_shows_what_the_demo_prints", readme),
        fleet.since(retrying.as_ref(), "shipped/envoy_takes_the_bootstrap", || {
            validate(&sample::root().join("envoy/envoy.yaml")).map_err(Failed::from)
        }),
        trial("shipped/older_envoys_take_the_bootstrap_without_its_retry_policy", without_retry_policy),
        trial("shipped/a_refused_listener_in_the_bootstrap_ends_the_process", refused_at_start),
        crate::trial(fleet, "shipped/prometheus_sees_decisions_by_their_labels", 1, labels),
        trial("shipped/run_takes_a_policy_and_the_next_port", own_policy),
    ]
}

/// `make run POLICY=file`, on ports that README shows in their usual place.
fn own_policy() -> Outcome {
    // Any port may be the near end of somebody's connection.
    let bind = |port| std::net::TcpListener::bind(("127.0.0.1", port));
    let is_free = |port: &u16| bind(*port).is_ok() && bind(port.saturating_add(1)).is_ok();
    let port = (20_000..30_000).step_by(2).find(is_free).ok_or("no two free ports")?;
    let policy = br#"{"routes": [], "ready_path": "/here"}"#;
    ensure!(Demo::start(port, false, Some(policy.to_vec())).is_err(), "no routes, and it runs");
    let policy = br#"{"routes": [{"match": {"path": "/x"}, "access": "public"}], "ready_path": "/here"}"#;
    let demo = Demo::start(port, false, Some(policy.to_vec()))?;
    ensure!(
        (demo.gate.port(), demo.control.port()) == (port, port.saturating_add(1)),
        "{} {}",
        demo.gate,
        demo.control
    );
    let ask = Ask::new("GET", "/here", "localhost");
    let answer = harness::client::ask(demo.gate, Version::Http1, &ask);
    let answer = answer.map_err(|failure| failure.to_string())?;
    ensure!(answer.text() == "ok", "{} {}", answer.status, answer.text());
    Ok(())
}

const BEGIN: &str = "<!-- demo -->";
const END: &str = "<!-- /demo -->";

/// The README's block is the demo's output. With `BLESS` set, it is written instead of compared.
fn readme() -> Outcome {
    let transcript = Demo::start(0, false, None)?.transcript()?;
    let path = sample::root().join("README.md");
    let readme = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (before, rest) = readme.split_once(BEGIN).ok_or("README.md has no block for the demo")?;
    let (block, after) = rest.split_once(END).ok_or("README.md's block for the demo has no end")?;
    let expected = format!("\n```console\n{transcript}```\n");
    if std::env::var_os("BLESS").is_some() {
        let readme = format!("{before}{BEGIN}{expected}{END}{after}");
        return fs::write(&path, readme).map_err(|error| format!("{}: {error}", path.display()));
    }
    let differs = block.lines().zip(expected.lines()).find(|(shown, printed)| shown != printed);
    let hint = "`BLESS=1 make e2e FILTER=shipped` writes it anew";
    ensure!(
        differs.is_none(),
        "README.md shows {:?}, the demo prints {:?}; {hint}",
        differs.unzip().0,
        differs.unzip().1
    );
    ensure!(
        block == expected,
        "README.md's transcript is shorter or longer than what the demo prints; {hint}"
    );
    Ok(())
}

/// The versions in which a cluster can have a `retry_policy`.
const RETRY_POLICY_OF_A_CLUSTER: &str = ">=1.37";

/// The tests change nothing in the bootstrap but addresses, so it remains to be proven that Envoy
/// accepts the file itself.
fn validate(bootstrap: &Path) -> Outcome {
    let output = Command::new(Envoy::binary()?)
        .args(["--mode", "validate", "--disable-hot-restart", "--config-path"])
        .arg(bootstrap)
        .output()
        .map_err(|error| error.to_string())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What docs/versions.md tells those who have an older Envoy to leave out.
fn without_retry_policy() -> Outcome {
    let text = fs::read_to_string(sample::root().join("envoy/envoy.yaml")).map_err(|e| e.to_string())?;
    let mut bootstrap: Value = serde_norway::from_str(&text).map_err(|e| e.to_string())?;
    let options = "/static_resources/clusters/0/typed_extension_protocol_options/\
                   envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let options = bootstrap.pointer_mut(options).and_then(Value::as_object_mut);
    let removed = options.and_then(|options| options.remove("retry_policy"));
    ensure!(removed.is_some(), "envoy/envoy.yaml has no retry_policy any more");
    let file = std::env::temp_dir().join(format!("avnology-gate-bootstrap-{}.json", std::process::id()));
    fs::write(&file, bootstrap.to_string()).map_err(|e| e.to_string())?;
    let outcome = validate(&file);
    fs::remove_file(&file).map_err(|e| e.to_string())?;
    outcome
}

/// Why the shipped listener is in no bootstrap.
fn refused_at_start() -> Outcome {
    let start = |policy: &str| {
        let shape =
            Shape::new("static", Policy::Document(policy.as_bytes().to_vec()), "s", "/dev/null".into());
        let mut listener = sample::listener(&shape, &sample::module()?);
        listener.as_object_mut().and_then(|listener| listener.remove("@type"));
        let options =
            Options { workers: 1, environment: Vec::new(), module: sample::module()?, narrate: false };
        Envoy::start_edited(options, |bootstrap| {
            let mut cluster = sample::cluster("upstream", "s", None);
            cluster.as_object_mut().and_then(|cluster| cluster.remove("@type"));
            bootstrap["static_resources"] = json!({"listeners": [listener], "clusters": [cluster]});
            Ok(())
        })
    };
    start(r#"{"routes": [{"match": {"path": "/x"}, "access": "public"}]}"#)?;
    let refused = start(r#"{"routes": []}"#).err().unwrap_or_default();
    ensure!(refused.contains("ended at start-up"), "it goes on: {refused}");
    Ok(())
}

fn labels(envoy: &Arc<Envoy>) -> Outcome {
    let scene = Scene::with(envoy, "labels", &sample::policy())?;
    let answer =
        scene.connect(Version::Http1, None)?.ask(&Ask::new("GET", "/api/profile", "api.example.com"));
    let answer = answer.map_err(|failure| failure.to_string())?;
    ensure!(answer.status == 401, "{} {}", answer.status, answer.text());
    let metrics = envoy.get("/stats/prometheus?filter=avnology_gate")?;
    let is_it = |line: &str| {
        line.starts_with("avnology_gate_decisions_total{")
            && line.contains("decision=\"deny\"")
            && line.contains("reason=\"missing_token\"")
    };
    ensure!(metrics.lines().any(is_it), "{metrics}");
    Ok(())
}
