//! The bench: the relay and its peers side by side. `tests/bench` sets up what it needs and runs it.
//!
//! # Layout
//! - [`cli`]: what may be asked for. [`work`]: what servers are made to do, and what is measured of it.
//! - [`servers`]: how each is started and spoken to; [`process`]: a server as a process.
//! - [`gateway`]: the bench of the gateway, beside other proxies. [`durable`]: that of what is kept on disk.
//! - [`load`]: receivers, publishers, and the proof that every message arrived.
//! - [`results`]: what was measured, in a file; [`report`]: tables, plots and the document made of it.

mod cli;
mod durable;
mod gateway;
mod load;
mod process;
mod report;
mod results;
mod servers;
mod work;

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;

use cli::{Choice, Cli, Command, Measure, PartCommand, chosen};
use results::{Results, Run};
use servers::{Place, Server};
use work::plan::{self, Scale, Work};

/// Length of a run of the smoke.
const SMOKE: Duration = Duration::from_millis(200);

/// Peers that a smoke has to have.
const SMOKE_PEERS: usize = 2;

fn main() -> ExitCode {
    let Cli { command, measure } = Cli::parse();
    let outcome = match command {
        Some(Command::BareSend { address }) => servers::serve_bare(address),
        Some(Command::BareSockets { address, upstream }) => gateway::serve_bare(address, upstream),
        Some(Command::List) => list(),
        Some(Command::Gateway { command, rounds, seconds, choice }) => {
            place().and_then(|place| match command {
                Some(PartCommand::Smoke) => gateway::smoke(&place),
                Some(PartCommand::Report) => gateway::report(&place),
                None => gateway::measure(&place, &choice, rounds.get(), seconds),
            })
        }
        Some(Command::Durable { command, rounds, seconds, works }) => {
            place().and_then(|place| match command {
                Some(PartCommand::Smoke) => durable::smoke(&place),
                Some(PartCommand::Report) => durable::report(&place),
                None => durable::measure(&place, &works, rounds.get(), seconds),
            })
        }
        Some(Command::Report) => {
            place().and_then(|place| report::write(&Results::load(&results_file(&place))?))
        }
        Some(Command::Smoke) => smoke(),
        None => self::measure(&measure),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn place() -> Result<Place> {
    let programs = env::current_exe()?.parent().context("a program without a folder")?.to_owned();
    let folder = programs.parent().context("a build without a target folder")?.join("bench");
    fs::create_dir_all(&folder)?;
    Ok(Place { folder, programs, cores: "0" })
}

fn results_file(place: &Place) -> PathBuf {
    place.folder.join("results.json")
}

fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for work in plan::all(Scale::Full) {
        writeln!(out, "{:<20} {}\n{:20} {}", work.name, work.title, "", work.servers.join(", "))?;
    }
    Ok(())
}

fn measure(measure: &Measure) -> Result<()> {
    let Measure { choice, rounds, seconds } = measure;
    let Choice { works, servers } = choice;
    let place = place()?;
    let works =
        plan::all(Scale::Full).into_iter().filter(|work| chosen(works, &work.name)).collect::<Vec<_>>();
    let servers =
        servers::all().into_iter().filter(|server| chosen(servers, server.name())).collect::<Vec<_>>();
    ensure!(
        !works.is_empty() && !servers.is_empty(),
        "there is no such work or server; see tests/bench list"
    );
    let file = if choice.is_everything() { results_file(&place) } else { place.folder.join("chosen.json") };
    let mut results = prepare(&place, &works, &servers, *seconds, rounds.get())?;
    for round in 1..=rounds.get() {
        for work in &works {
            run(&place, work, &servers, round, Duration::from_secs_f64(*seconds), &mut results, Some(&file))?;
        }
    }
    write!(std::io::stdout().lock(), "\n{}", report::text(&results))?;
    if choice.is_everything() {
        report::write(&results)?;
    }
    results.nothing_failed()
}

fn smoke() -> Result<()> {
    let (place, works, servers) = (place()?, plan::all(Scale::Smoke), servers::all());
    let mut results = prepare(&place, &works, &servers, SMOKE.as_secs_f64(), 1)?;
    let peers = results.versions.keys().filter(|name| !name.starts_with("relay")).count();
    ensure!(peers >= SMOKE_PEERS, "only {peers} peers are there, and {SMOKE_PEERS} are needed");
    for work in &works {
        run(&place, work, &servers, 1, SMOKE, &mut results, None)?;
    }
    results.nothing_failed()
}

/// Asks every server for its version; what is not there is told, and left out.
fn prepare(
    place: &Place,
    works: &[Work],
    servers: &[Box<dyn Server>],
    seconds: f64,
    rounds: u32,
) -> Result<Results> {
    let mut results = Results::begin(rounds, seconds)?;
    for server in servers {
        let name = server.name().to_owned();
        if !works.iter().any(|work| work.servers.contains(&server.name())) {
            continue;
        }
        match server.version(place) {
            Ok(version) => results.versions.insert(name, version),
            Err(error) => {
                writeln!(std::io::stdout().lock(), "NOT RUN: {name}, {error:#}")?;
                results.missing.insert(name, format!("{error:#}"))
            }
        };
    }
    Ok(results)
}

/// All servers do one work.
fn run(
    place: &Place,
    work: &Work,
    servers: &[Box<dyn Server>],
    round: u32,
    length: Duration,
    results: &mut Results,
    file: Option<&Path>,
) -> Result<()> {
    for server in servers {
        let name = server.name();
        if !work.servers.contains(&name) || !results.versions.contains_key(name) {
            continue;
        }
        let figures = server.start(place).and_then(|running| work.run(&running, length));
        let mut out = std::io::stdout().lock();
        match figures {
            Ok(figures) => {
                let line = report::line(&figures);
                writeln!(out, "round {round}  {:<18} {name:<18} {line}", work.name)?;
                results.runs.push(Run { work: work.name.clone(), server: name.to_owned(), round, figures });
            }
            // The others may go on: what they show is as true as before.
            Err(error) => {
                let failure = format!("{}, {name}: {error:#}", work.name);
                writeln!(out, "FAILED: {failure}")?;
                results.failures.push(failure);
            }
        }
        if let Some(file) = file {
            results.save(file)?;
        }
    }
    Ok(())
}
