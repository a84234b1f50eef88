//! The stand-in as a program.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use service::{Command, Stop, started, text};
use standin::{Provider, Seed};
use tokio::net::TcpListener;

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

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    Command::or_serve(arguments.command.as_ref(), "standin", serve(&arguments))
}

async fn serve(arguments: &Arguments) -> Result<(), String> {
    let seed = match &arguments.seed {
        None => Seed::embedded(),
        Some(file) => std::fs::read_to_string(file)
            .map_err(text)
            .and_then(|json| Seed::from_json(&json).map_err(text))
            .map_err(|error| format!("{}: {error}", file.display()))?,
    };
    let bind = async |address: SocketAddr| {
        TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))
    };
    let stop = Stop::new().map_err(text)?;
    let (api, control) = (bind(arguments.api).await?, bind(arguments.control).await?);
    let (at, control_at) = (api.local_addr().map_err(text)?, control.local_addr().map_err(text)?);
    started(format_args!("standin: api http://{at} control http://{control_at}"));
    stop.or(standin::serve(Provider::new(seed), api, control)).await.map_err(text)
}
