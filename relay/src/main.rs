//! Parses the command line, runs, and gives the exit code.

use std::{
    fmt,
    io::{self, Write as _},
    pin::pin,
    process::{self, ExitCode},
};

use anstream::{stderr, stdout};
use clap::Parser as _;
use relay::{
    Relay,
    cli::{Cli, Command, ConfigCommand, LogCommand, RulesCommand, Serve, Side},
    config::{self, Config},
    diagnostics,
    gateway::{
        Gateway,
        course::Source,
        show,
        trial::{Form, Trial},
    },
    ready::Ready,
    runtime,
    shutdown::{Signals, Wanted},
    store::disk,
};
use tokio::sync::oneshot;

/// A mistake in flags or configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(serve) => self::serve(&serve),
        Command::Check { file } => match config::check(&file) {
            Ok(()) => print(format_args!("{}: no mistakes", file.display())),
            Err(e) => Err(fail(&e, USAGE)),
        },
        Command::Routes { url, json } => match show::ask(&url) {
            Ok(report) if json => print(format_args!("{report}")),
            Ok(report) => print(format_args!("{}", show::table(&report))),
            Err(e) => Err(fail(&e, 1)),
        },
        Command::Log { command } => log(&command),
        Command::Rules { command: RulesCommand::Test { file, route, from, json } } => {
            let from = match from {
                Side::Client => Source::Client,
                Side::Upstream => Source::Upstream,
            };
            let form = if json { Form::Json(from) } else { Form::Lines(from) };
            match config::route_with_rules(&file, route.as_deref()) {
                Ok(route) => {
                    Trial::new(&route).run(form, io::stdin().lock(), stdout().lock()).map_err(|e| fail(&e, 1))
                }
                Err(e) => Err(fail(&e, USAGE)),
            }
        }
        Command::Config { command: ConfigCommand::Example } => {
            print(format_args!("{}", config::example().trim_end()))
        }
    };
    outcome.map_or_else(|code| code, |()| ExitCode::SUCCESS)
}

fn log(command: &LogCommand) -> Result<(), ExitCode> {
    let (dir, outcome) = match command {
        LogCommand::Check { dir } => (dir, disk::check(dir)),
        LogCommand::Repair { dir } => (dir, disk::repair(dir)),
    };
    let report = outcome.map_err(|e| fail(&format_args!("cannot use {}: {e}", dir.display()), 1))?;
    print(format_args!("{}", report.text))?;
    if report.sound { Ok(()) } else { Err(ExitCode::FAILURE) }
}

fn serve(serve: &Serve) -> Result<(), ExitCode> {
    let config = config::load(serve).map_err(|e| fail(&e, USAGE))?;
    if serve.print_config {
        return print(format_args!("{}", config.to_toml().trim_end()));
    }
    let _written = diagnostics::start(&config.log);
    let runtime = runtime::start(&config.runtime).map_err(|e| fail(&e, 1))?;
    runtime.block_on(run(config, serve))
}

async fn run(config: Config, serve: &Serve) -> Result<(), ExitCode> {
    let ready = Ready::of(&config);
    let mut signals = Signals::new().map_err(|e| fail(&e, 1))?;
    let relay = Relay::bind(config).map_err(|e| fail(&e, 1))?;
    let addresses = relay.addresses().map_err(|e| fail(&e, 1))?;
    print(format_args!("{}", ready.block(&addresses)))?;
    let gateway = relay.gateway();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut running = pin!(relay.run(async { drop(stopped.await) }));
    let mut stop = Some(stop);
    loop {
        tokio::select! {
            ended = &mut running => {
                let lost = |error| fail(&format_args!("not everything that was stored is on the disk: {error}"), 1);
                return ended.map_err(lost);
            }
            wanted = signals.next() => match (wanted, stop.take()) {
                (Wanted::End(_), Some(stop)) => drop(stop),
                // At once: whatever else would be waited for may hang in a disk that does not answer.
                (Wanted::End(code), None) => process::exit(code.into()),
                (Wanted::Reload, still) => {
                    stop = still;
                    reload(serve, &gateway);
                }
            },
        }
    }
}

/// Reads the configuration again; of what it says, the routes change.
fn reload(serve: &Serve, gateway: &Gateway) {
    match config::load(serve) {
        Ok(config) => gateway.change(config.gateway),
        Err(e) => tracing::error!("the routes stay as they are: {e}"),
    }
}

fn print(text: fmt::Arguments<'_>) -> Result<(), ExitCode> {
    let mut out = stdout().lock();
    // Whoever closed our output does not want it.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    Ok(())
}

fn fail(error: &dyn fmt::Display, code: u8) -> ExitCode {
    let _ = writeln!(stderr().lock(), "error: {error}");
    ExitCode::from(code)
}
