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
    ]
}

const BEGIN: &str = "<!-- demo -->";
const END: &str = "<!-- /demo -->";

/// The README's block is the demo's output. With `BLESS` set, it is written instead of compared.
fn readme() -> Outcome {
    let transcript = Demo::start(0, false)?.transcript()?;
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
