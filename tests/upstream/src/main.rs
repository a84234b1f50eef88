//! The example upstream as a program.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Answers every request with what it received.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Where to listen.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Succeeds if a GET of the URL answers 200.
    Health {
        /// For example http://127.0.0.1:8080/__health
        url: String,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Some(Command::Health { url }) => standin::health(url).map_err(|error| format!("{url}: {error}")),
        None => tokio::runtime::Runtime::new()
            .and_then(|runtime| runtime.block_on(serve(arguments.listen)))
            .map_err(|error| format!("{}: {error}", arguments.listen)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("upstream: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(address: SocketAddr) -> std::io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let listener = TcpListener::bind(address).await?;
    // Whoever started us may have stopped reading.
    let _ = writeln!(std::io::stdout(), "upstream: http://{}", listener.local_addr()?);
    tokio::select! {
        result = upstream::serve(listener, upstream::Log::default()) => result,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}
