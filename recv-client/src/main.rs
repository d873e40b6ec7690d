//! Parses the command line, runs the client, and ends with its exit code. No behaviour lives here.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use recv_client::cli::Cli;

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    // One thread receives; writing has its own, and a name is looked up on another.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let exit = runtime.block_on(recv_client::run(cli));
    // A look-up that hangs must not hold the end.
    runtime.shutdown_background();
    Ok(exit.into())
}
