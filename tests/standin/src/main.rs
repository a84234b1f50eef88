//! The stand-in as a program.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use standin::{Provider, Seed};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A stand-in for Avnology ID, scripted through its control port.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// The seed file; the built-in seed unless given.
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// Where the API listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    api: SocketAddr,
    /// Where the control port listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    control: SocketAddr,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Succeeds if a GET of the URL answers 200.
    Health {
        /// For example http://127.0.0.1:8081/health
        url: String,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Some(Command::Health { url }) => standin::health(url).map_err(|error| format!("{url}: {error}")),
        None => run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("standin: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let seed = match &arguments.seed {
        None => Seed::embedded(),
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| error.to_string())
            .and_then(|text| Seed::from_json(&text).map_err(|error| error.to_string()))
            .map_err(|error| format!("{}: {error}", file.display()))?,
    };
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(serve(arguments, seed))
}

async fn serve(arguments: &Arguments, seed: Seed) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let bind = async |address: SocketAddr| {
        TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))
    };
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt()).map_err(text)?, signal(SignalKind::terminate()).map_err(text)?);
    let (api, control) = (bind(arguments.api).await?, bind(arguments.control).await?);
    let (at, control_at) = (api.local_addr().map_err(text)?, control.local_addr().map_err(text)?);
    // Whoever started us may have stopped reading.
    let _ = writeln!(std::io::stdout(), "standin: api http://{at} control http://{control_at}");
    tokio::select! {
        result = standin::serve(Provider::new(seed), api, control) => result.map_err(text),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}
