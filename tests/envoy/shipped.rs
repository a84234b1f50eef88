//! The documentation's transcript, and the files of `envoy/` as they are.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use harness::client::{Answer, Ask, Version};
use harness::demo::Demo;
use harness::envoy::{Envoy, Refused};
use harness::sample;
use harness::scene::{LINE, Scene};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::{Fleet, Outcome, ensure};

pub(crate) fn trials(fleet: &Fleet) -> Vec<Trial> {
    let trial = |name: &str, run: fn() -> Outcome| Trial::test(name, move || run().map_err(Failed::from));
    let mut trials: Vec<Trial> = PROTECTIONS
        .iter()
        .map(|protection| {
            let (fleet, name) = (fleet.clone(), format!("shipped/protects_by::{}", protection.name()));
            Trial::test(name, move || {
                fleet.get(1).and_then(|envoy| protects(protection, &envoy)).map_err(Failed::from)
            })
        })
        .collect();
    trials.extend([
        trial("shipped/the_readme_shows_what_the_demo_prints", readme),
        trial("shipped/envoy_takes_the_bootstrap", bootstrap),
        trial("shipped/run_takes_a_policy_and_the_next_port", own_policy),
    ]);
    trials
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

/// The tests change nothing in the bootstrap but addresses, so it remains to be proven that Envoy
/// accepts the file itself.
fn bootstrap() -> Outcome {
    let output = Command::new(Envoy::binary()?)
        .args(["--mode", "validate", "--disable-hot-restart", "--config-path"])
        .arg(sample::root().join("envoy/envoy.yaml"))
        .output()
        .map_err(|error| error.to_string())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A line of envoy/listener.yaml that protects, and what becomes possible without it.
struct Protection {
    /// Where it stands, below the HTTP connection manager.
    pointer: &'static str,
    /// What a listener without it has in its place: nothing, or the weaker setting.
    weaker: Option<&'static str>,
    /// Whether a scene is protected. The second parameter differs from call to call.
    holds: fn(&Scene, &str) -> Result<bool, String>,
}

/// Each of them is removed in turn, and then its attack has to succeed: a line that protects from
/// nothing is a comment that is not true.
const PROTECTIONS: [Protection; 10] = [
    // Dot segments are resolved, for the service as for the gate.
    Protection {
        pointer: "/normalize_path",
        weaker: None,
        holds: |scene, _| Ok(get(scene, "/x/../healthz")?.status == 200),
    },
    Protection {
        pointer: "/merge_slashes",
        weaker: None,
        holds: |scene, _| Ok(get(scene, "//healthz")?.status == 200),
    },
    // Envoy refuses it, before any filter.
    Protection {
        pointer: "/path_with_escaped_slashes_action",
        weaker: None,
        holds: |scene, _| {
            let answer = get(scene, "/healthz%2Fx")?;
            Ok(answer.status == 400 && answer.error().is_none())
        },
    },
    Protection {
        pointer: "/strip_any_host_port",
        weaker: None,
        holds: |scene, id| Ok(authority_behind(scene, "api.example.com:10000", id)? == HOST),
    },
    Protection {
        pointer: "/strip_trailing_host_dot",
        weaker: None,
        holds: |scene, id| Ok(authority_behind(scene, "api.example.com.", id)? == HOST),
    },
    Protection {
        pointer: "/common_http_protocol_options/headers_with_underscores_action",
        weaker: None,
        holds: |scene, _| Ok(ask(scene, &healthz().header("x_avnology_user_id", "usr_evil"))?.status == 400),
    },
    // The service learns who really connects.
    Protection {
        pointer: "/use_remote_address",
        weaker: None,
        holds: |scene, id| {
            let request = healthz().header("x-forwarded-for", "198.51.100.7").header("x-request-id", id);
            let seen = behind(scene, &request, id)?;
            Ok(!seen.iter().any(|(name, value)| name == "x-forwarded-for" && value == "198.51.100.7"))
        },
    },
    // A header of the client's makes statistics, which are never freed: without a list of addresses,
    // loopback and private ones are trusted. (Without the line, Envoy 1.40 trusts none either.)
    Protection {
        pointer: "/internal_address_config",
        weaker: Some(r#"{"unix_sockets": false}"#),
        holds: makes_no_statistics,
    },
    Protection {
        pointer: "/http_filters/1/typed_config/suppress_envoy_headers",
        weaker: None,
        holds: |scene, _| Ok(get(scene, "/healthz")?.header("x-envoy-upstream-service-time").is_none()),
    },
    // A credential in a query that no route reads is in no access log.
    Protection {
        pointer: "/access_log/0/typed_config/log_format/json_format/path",
        weaker: Some(r#""%REQ(:PATH)%""#),
        holds: |scene, id| {
            let mut connection = scene.connect(Version::Http1, None)?;
            let port = connection.port().map_err(|error| error.to_string())?;
            let path = format!("/healthz?token={id}");
            connection.ask(&Ask::new("GET", &path, HOST)).map_err(|failure| failure.to_string())?;
            scene.line(port, 0, LINE)?.ok_or("no access log line")?;
            let log = fs::read_to_string(&scene.shape.access_log).map_err(|error| error.to_string())?;
            Ok(!log.contains(id))
        },
    },
];

const HOST: &str = "api.example.com";

impl Protection {
    fn name(&self) -> String {
        let line = self.pointer.rsplit('/').next().unwrap_or_default();
        let rather = if self.weaker.is_some() { "_rather_than_a_weaker_one" } else { "" };
        format!("{line}{rather}")
    }

    /// Takes the line out of a listener's connection manager.
    fn weaken(&self, manager: &mut Value) -> Outcome {
        let there = manager.pointer_mut(self.pointer).ok_or_else(|| format!("no {}", self.pointer))?;
        match self.weaker {
            Some(weaker) => *there = serde_json::from_str(weaker).map_err(|error| error.to_string())?,
            None => {
                let (parent, name) = self.pointer.rsplit_once('/').ok_or("a pointer begins with a slash")?;
                let parent = manager.pointer_mut(parent).and_then(Value::as_object_mut);
                parent.ok_or("its place is an object")?.remove(name);
            }
        }
        Ok(())
    }
}

/// With the line the attack fails, and without it it succeeds.
fn protects(protection: &Protection, envoy: &Arc<Envoy>) -> Outcome {
    let name = protection.name();
    let scene = Scene::with(envoy, &name, &sample::forgetful_policy())?;
    let id = |when: &str| format!("{}-{when}", scene.shape.name);
    ensure!((protection.holds)(&scene, &id("with"))?, "the shipped line {name} does not protect");
    let mut shape = scene.shape.clone();
    shape.label = "without".to_owned();
    let mut listener = sample::listener(&shape, &sample::module()?);
    let manager = listener.pointer_mut("/filter_chains/0/filters/0/typed_config").ok_or("no manager")?;
    protection.weaken(manager)?;
    envoy.put_raw_listener(&shape.name, listener).map_err(|Refused(text)| text)?;
    let holds = (protection.holds)(&scene, &id("without"))?;
    ensure!(!holds, "without the line {name} nothing is different: this test shows no attack");
    Ok(())
}

fn healthz() -> Ask {
    Ask::new("GET", "/healthz", HOST)
}

fn get(scene: &Scene, path: &str) -> Result<Answer, String> {
    ask(scene, &Ask::new("GET", path, HOST))
}

fn ask(scene: &Scene, request: &Ask) -> Result<Answer, String> {
    scene.connect(Version::Http1, None)?.ask(request).map_err(|failure| failure.to_string())
}

/// The headers of a request as the service saw them.
fn behind(scene: &Scene, request: &Ask, id: &str) -> Result<Vec<(String, String)>, String> {
    scene.upstream.clear()?;
    let answer = ask(scene, request)?;
    ensure_passed(&answer, id)?;
    let seen = scene.upstream.seen()?.into_iter().next().ok_or("the service saw nothing")?;
    Ok(seen.headers)
}

fn ensure_passed(answer: &Answer, id: &str) -> Outcome {
    ensure!(answer.status == 200, "{id}: {} {}", answer.status, answer.text());
    Ok(())
}

/// The host as the service saw it.
fn authority_behind(scene: &Scene, authority: &str, id: &str) -> Result<String, String> {
    let seen = behind(scene, &Ask::new("GET", "/healthz", authority), id)?;
    let host = seen.into_iter().find(|(name, _)| name == "host" || name == ":authority");
    host.map(|(_, value)| value).ok_or_else(|| "the service saw no host".to_owned())
}

fn makes_no_statistics(scene: &Scene, id: &str) -> Result<bool, String> {
    let answer = ask(scene, &healthz().header("x-envoy-upstream-alt-stat-name", id))?;
    ensure_passed(&answer, id)?;
    Ok(scene.envoy.stats(id).is_empty())
}
