//! Replays inputs of one target: `cargo run --package avnology-fuzz -- TARGET FILE…`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(target) = arguments.next() else {
        eprintln!("usage: avnology-fuzz TARGET FILE…");
        return ExitCode::FAILURE;
    };
    for file in arguments {
        match std::fs::read(&file) {
            Ok(data) => fuzz::run(&target, &data),
            Err(error) => {
                eprintln!("{file}: {error}");
                return ExitCode::FAILURE;
            }
        }
        println!("{file}: ok");
    }
    ExitCode::SUCCESS
}
