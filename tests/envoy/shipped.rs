//! The documentation's transcript, and the files of `envoy/` as they are.

use std::fs;
use std::process::Command;

use harness::demo::Demo;
use harness::envoy::Envoy;
use harness::sample;
use libtest_mimic::{Failed, Trial};

use crate::{Outcome, ensure};

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |name: &str, run: fn() -> Outcome| Trial::test(name, move || run().map_err(Failed::from));
    vec![
        trial("shipped/the_readme_shows_what_the_demo_prints", readme),
        trial("shipped/envoy_takes_the_bootstrap", bootstrap),
        trial("shipped/run_takes_a_policy_and_the_next_port", own_policy),
    ]
}

/// `make run POLICY=file`, on ports that README shows in their usual place.
fn own_policy() -> Outcome {
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr());
    let port = free.map_err(|error| error.to_string())?.port().min(65_534);
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
    let ask = harness::client::Ask::new("GET", "/here", "localhost");
    let answer = harness::client::ask(demo.gate, harness::client::Version::Http1, &ask);
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
