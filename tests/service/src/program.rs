//! A service as a program: until a signal ends it.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Subcommand;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a service can be told to do instead of serving.
#[derive(Subcommand)]
pub enum Command {
    /// Succeeds if a GET of the URL answers 200.
    Health {
        /// For example http://127.0.0.1:8081/health of the stand-in's control port, or
        /// http://127.0.0.1:8080/__health of the upstream
        url: String,
    },
}

impl Command {
    /// Does what was asked for, else serves; an error is printed after the program's name.
    pub fn or_serve(
        command: Option<&Self>,
        name: &str,
        server: impl Future<Output = Result<(), String>>,
    ) -> ExitCode {
        let result = match command {
            Some(Self::Health { url }) => crate::health(url).map_err(|error| format!("{url}: {error}")),
            None => tokio::runtime::Runtime::new().map_err(text).and_then(|runtime| runtime.block_on(server)),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{name}: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

/// An error in its own words.
pub fn text(error: impl Display) -> String {
    error.to_string()
}

/// Tells whoever started the program that it listens, and where.
pub fn started(line: impl Display) {
    // Whoever started us may have stopped reading.
    let _ = writeln!(io::stdout(), "{line}");
}

/// The signals that end a program. Until this is made they end it at once.
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// Takes the signals from now on. A program does so before it says that it has started.
    pub fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Serves until a signal comes, which is a good end.
    pub async fn or(mut self, server: impl Future<Output = io::Result<()>>) -> io::Result<()> {
        tokio::select! {
            result = server => result,
            _ = self.interrupt.recv() => Ok(()),
            _ = self.terminate.recv() => Ok(()),
        }
    }
}
