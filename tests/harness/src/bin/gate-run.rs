//! Runs the gate in a real Envoy, with a stand-in for Avnology and an example service, until it is
//! interrupted.
//!
//! `gate-run` prints requests to try, `gate-run --demo` sends them itself and stops. `GATE_PORT`
//! chooses the port.

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
    let scene = Demo::start(port, !demo)?;
    if demo {
        return scene.play(&mut stdout());
    }
    let text = format!(
        "The gate listens on http://{}, the stand-in for Avnology is controlled on http://{}. Ctrl-C stops both.\n\
         Try these; below them, Envoy logs each request.\n\n{}\n",
        scene.gate,
        scene.control,
        scene.instructions()
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
