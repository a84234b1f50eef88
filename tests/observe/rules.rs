//! What `promtool` says of the shipped files.

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::sample;
use libtest_mimic::Trial;

use crate::{Outcome, ensure, trial};

pub(crate) fn trials(tools: &Path) -> Vec<Trial> {
    let promtool = tools.join("promtool");
    let of = |name: &str, arguments: &'static [&str]| {
        let promtool = promtool.clone();
        trial(name, move || says(&promtool, arguments))
    };
    vec![
        of("promtool/takes_the_configuration", &["check", "config", "envoy/prometheus/prometheus.yml"]),
        of("promtool/each_alert_fires_and_does_not", &["test", "rules", "tests/observe/alerts.yml"]),
    ]
}

fn says(promtool: &PathBuf, arguments: &[&str]) -> Outcome {
    let output = Command::new(promtool)
        .args(arguments)
        .current_dir(sample::root())
        .output()
        .map_err(|error| error.to_string())?;
    let text = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&text));
    Ok(())
}
