//! Runs the gate in a real Envoy, with a stand-in for Avnology and an example service, until it is
//! interrupted.
//!
//! `gate-run` prints requests to try, `gate-run --demo` sends them itself and stops. `GATE_PORT`
//! chooses the port; the control port is the next one. `GATE_POLICY` names a policy to run in place
//! of the shipped one.

use std::io::{Write as _, stdout};
use std::process::ExitCode;
use std::time::Duration;

use harness::demo::Demo;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let demo = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--demo"] => true,
        _ => {
            eprintln!("usage: gate-run [--demo]");
            return ExitCode::from(2);
        }
    };
    match run(demo) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("gate-run: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(demo: bool) -> Result<(), String> {
    let port = match std::env::var("GATE_PORT") {
        Ok(text) => text.parse().map_err(|_| format!("GATE_PORT is {text:?}, expected a port"))?,
        Err(_) => 10_000,
    };
    // Before anything starts: an interrupt during the start must stop it as well.
    let mut stop = harness::interrupts().map_err(|error| error.to_string())?;
    let policy = match std::env::var("GATE_POLICY").ok().filter(|file| !file.is_empty()) {
        Some(file) => Some(std::fs::read(&file).map_err(|error| format!("{file}: {error}"))?),
        None => None,
    };
    let is_own = policy.is_some();
    let scene = Demo::start(port, !demo, policy)?;
    if demo {
        return scene.play(&mut stdout());
    }
    let text = format!(
        "The gate listens on http://{}, the stand-in for Avnology is controlled on http://{},\n\
         Envoy's admin page is http://{}. Ctrl-C stops them all.\n\
         {}\n",
        scene.gate,
        scene.control,
        scene.admin(),
        if is_own {
            "Your policy is in force; below, Envoy logs each request.".to_owned()
        } else {
            format!("Try these; below them, Envoy logs each request.\n\n{}", scene.instructions())
        }
    );
    stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush()).map_err(|error| error.to_string())?;
    while stop.pending().next().is_none() {
        if !scene.lives() {
            return Err("Envoy has ended".to_owned());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
