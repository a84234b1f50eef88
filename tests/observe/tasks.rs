//! The pages about tasks: each policy is put in force, and each command run, against a gate with a
//! stand-in as `make run` starts it.

use std::fs;
use std::path::Path;

use harness::control::until;
use harness::demo::Demo;
use libtest_mimic::Trial;

use crate::page::{self, Shell};
use crate::{Outcome, ensure, trial};

/// The pages, with the files that their blocks of JSON are.
const PAGES: [(&str, &[&str]); 3] = [
    ("roll-out-in-shadow", &["shadow.json", "enforce.json"]),
    ("rotate-secrets", &["both.json", "new.json", "next.json", "wrong.json"]),
    ("outages", &["outage.json"]),
];

pub(crate) fn trials(tools: &Path) -> Vec<Trial> {
    let all = PAGES.map(|(name, files)| {
        let tools = tools.to_owned();
        trial(&format!("tasks/{name}"), move || played(name, files, &tools))
    });
    all.into()
}

fn played(name: &str, files: &[&str], tools: &Path) -> Outcome {
    let page = format!("docs/tasks/{name}.md");
    let text = page::read(&page)?;
    let policies = page::blocks(&text, "json");
    ensure!(policies.len() == files.len(), "{page} has {} policies", policies.len());
    let mut shell = Shell::new(name, tools)?;
    for (file, policy) in files.iter().zip(policies) {
        fs::write(shell.folder.join(file), policy).map_err(|error| format!("{file}: {error}"))?;
    }
    let mut demo: Option<Demo> = None;
    let count = page::play(&page, &mut shell, |shell, command| {
        if let Some(demo) = &demo {
            // The log has a line for each request when Envoy has finished it.
            let finished =
                || Ok(demo.envoy().stats("http.gate.downstream_rq_active").values().sum::<u64>() == 0);
            until(finished)?;
            until(|| copied(demo, shell))?;
        }
        let Some(file) = command.strip_prefix("make run POLICY=") else { return Ok(false) };
        let policy = fs::read(shell.folder.join(file.trim())).map_err(|error| format!("{file}: {error}"))?;
        // The one before has the log of this folder.
        drop(demo.take());
        let started = Demo::start(0, false, Some(policy))?;
        shell.names = vec![
            ("127.0.0.1:10000".to_owned(), started.gate.to_string()),
            ("127.0.0.1:10001".to_owned(), started.control.to_string()),
        ];
        demo = Some(started);
        Ok(true)
    })?;
    ensure!(count >= 5, "{count} commands");
    Ok(())
}

/// Copies the access log; whether it has a line of each request.
fn copied(demo: &Demo, shell: &Shell) -> Result<bool, String> {
    let log = fs::read_to_string(demo.access_log()).unwrap_or_default();
    fs::write(shell.folder.join("access.log"), &log).map_err(|error| error.to_string())?;
    let requests = demo.envoy().stats("%5Ehttp.gate.downstream_rq_total").values().sum::<u64>();
    Ok(u64::try_from(log.lines().count()).is_ok_and(|lines| lines == requests))
}
