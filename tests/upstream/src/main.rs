//! The example upstream as a program.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use service::{Command, Stop, started};
use tokio::net::TcpListener;

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

fn main() -> ExitCode {
    let Arguments { listen, command } = Arguments::parse();
    let server = async { serve(listen).await.map_err(|error| format!("{listen}: {error}")) };
    Command::or_serve(command.as_ref(), "upstream", server)
}

async fn serve(address: SocketAddr) -> std::io::Result<()> {
    let stop = Stop::new()?;
    let listener = TcpListener::bind(address).await?;
    started(format_args!("upstream: http://{}", listener.local_addr()?));
    stop.or(upstream::serve(listener, upstream::Log::default())).await
}
