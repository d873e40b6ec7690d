//! The bench of the gateway: the relay and other proxies between the same clients and the same echo server, side by
//! side. `tests/gateway-bench` sets up what it needs and runs it.
//!
//! - [`proxies`]: how each is started; [`bare`]: the least that one can be. [`upstream`]: the server behind them, which echoes. [`echoes`]: clients that wait
//!   for each echo before they send again. [`mod@report`]: tables, and what the relay is to reach.

mod bare;
mod echoes;
mod proxies;
mod report;
mod upstream;

use std::{fs, io::Write as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    cli::{Choice, chosen},
    process::pause,
    results::{Results, Run},
    servers::Place,
    work::{Figures, figure},
};
pub(crate) use bare::serve as serve_bare;
use proxies::{Proxy, Started};
use upstream::Upstream;

/// Proxies that a smoke has to have, besides the relay.
const SMOKE_PEERS: usize = 2;

/// What proxies are made to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// So many connections, each of which sends so many bytes when it has got its last ones back.
    Echo { connections: usize, bytes: usize },
    /// The same with an upstream that speaks no WebSocket.
    Bytes { connections: usize, bytes: usize },
    /// So many connections that say nothing.
    Idle { connections: usize },
}

/// How large it all is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Full,
    Smoke,
}

const SMALL: usize = 128;
const BULK: usize = 64 * 1024;

impl Work {
    fn all(scale: Scale) -> Vec<Self> {
        let (many, few, idle) = match scale {
            Scale::Full => (100, 20, 2000),
            Scale::Smoke => (4, 2, 40),
        };
        vec![
            Self::Echo { connections: many, bytes: SMALL },
            Self::Echo { connections: few, bytes: BULK },
            Self::Bytes { connections: many, bytes: SMALL },
            Self::Bytes { connections: few, bytes: BULK },
            Self::Idle { connections: idle },
        ]
    }

    /// What it is called in results, whatever its scale.
    fn name(self) -> &'static str {
        match self {
            Self::Echo { bytes: SMALL, .. } => "echo-128",
            Self::Echo { .. } => "echo-65536",
            Self::Bytes { bytes: SMALL, .. } => "bytes-128",
            Self::Bytes { .. } => "bytes-65536",
            Self::Idle { .. } => "idle",
        }
    }
}

/// Measures: each proxy at each work, then the next round.
pub(crate) fn measure(place: &Place, choice: &Choice, rounds: u32, seconds: f64) -> Result<()> {
    let results = run(place, Scale::Full, choice, rounds, seconds)?;
    if choice.is_everything() {
        results.save(&file(place))?;
    }
    write!(std::io::stdout().lock(), "\n{}", report::text(&results))?;
    results.nothing_failed()
}

/// Whether it all works.
pub(crate) fn smoke(place: &Place) -> Result<()> {
    let results = run(place, Scale::Smoke, &Choice::default(), 1, 0.2)?;
    let others = [Proxy::Relay, Proxy::RelayRule, Proxy::Bare].map(Proxy::name);
    let peers = results.versions.keys().filter(|name| !others.contains(&name.as_str())).count();
    ensure!(peers >= SMOKE_PEERS, "only {peers} other proxies are there, and {SMOKE_PEERS} are needed");
    results.nothing_failed()
}

/// Puts what was measured last into the document.
pub(crate) fn report(place: &Place) -> Result<()> {
    report::write(&Results::load(&file(place))?)
}

fn file(place: &Place) -> PathBuf {
    place.folder.join("gateway.json")
}

fn run(place: &Place, scale: Scale, choice: &Choice, rounds: u32, seconds: f64) -> Result<Results> {
    let is_chosen = |proxy: &Proxy| chosen(&choice.servers, proxy.name());
    let proxies: Vec<Proxy> = Proxy::ALL.into_iter().filter(is_chosen).collect();
    let works: Vec<Work> =
        Work::all(scale).into_iter().filter(|work| chosen(&choice.works, work.name())).collect();
    ensure!(!proxies.is_empty() && !works.is_empty(), "there is no such proxy or work");
    let mut results = Results::begin(rounds, seconds)?;
    let place = &Place { folder: folder(place)?, programs: place.programs.clone(), cores: place.cores };
    for &proxy in &proxies {
        match proxy.version(place) {
            Ok(version) => results.versions.insert(proxy.name().to_owned(), version),
            Err(error) => {
                writeln!(std::io::stdout().lock(), "NOT RUN: {}, {error:#}", proxy.name())?;
                results.missing.insert(proxy.name().to_owned(), format!("{error:#}"))
            }
        };
    }
    for round in 1..=rounds {
        for &work in &works {
            for &proxy in &proxies {
                if !proxy.takes_part(work) || !results.versions.contains_key(proxy.name()) {
                    continue;
                }
                let figures = one(place, proxy, work, Duration::from_secs_f64(seconds), scale);
                note(&mut results, proxy, work, round, figures)?;
            }
        }
    }
    Ok(results)
}

/// A folder of its own: its configurations are others than those of the servers of channels.
fn folder(place: &Place) -> Result<PathBuf> {
    let folder = place.folder.join("gateway");
    fs::create_dir_all(&folder)?;
    folder.canonicalize().context("the folder of the bench")
}

fn one(place: &Place, proxy: Proxy, work: Work, length: Duration, scale: Scale) -> Result<Figures> {
    let upstream = Upstream::start()?;
    let proxied = proxy.start(place, &upstream)?;
    match work {
        Work::Echo { connections, bytes } | Work::Bytes { connections, bytes } => {
            echoes::run(&proxied, matches!(work, Work::Bytes { .. }), connections, bytes, length)
        }
        Work::Idle { connections } => {
            let settle = if scale == Scale::Full { Duration::from_secs(1) } else { Duration::ZERO };
            idle(&proxied, connections, settle)
        }
    }
}

/// What each connection that says nothing costs the proxy, beyond the first ones, with which it grows to its size.
fn idle(proxied: &Started, connections: usize, settle: Duration) -> Result<Figures> {
    let open = |count: usize| (0..count).map(|_| proxied.open(false)).collect::<Result<Vec<_>>>();
    let first = open(connections / 20)?;
    pause(settle);
    let before = proxied.process.resident()?;
    let rest = open(connections - first.len())?;
    pause(settle);
    let each = (proxied.process.resident()? as f64 - before as f64) / rest.len() as f64 / 1024.0;
    Ok([(figure::RESIDENT.to_owned(), each)].into())
}

fn note(results: &mut Results, proxy: Proxy, work: Work, round: u32, figures: Result<Figures>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let (work, server) = (work.name(), proxy.name());
    match figures {
        Ok(figures) => {
            writeln!(out, "round {round}  {work:<12} {server:<18} {}", report::line(&figures))?;
            results.runs.push(Run { work: work.to_owned(), server: server.to_owned(), round, figures });
        }
        // The others may go on: what they show is as true as before.
        Err(error) => {
            writeln!(out, "FAILED: {work}, {server}: {error:#}")?;
            results.failures.push(format!("{work}, {server}: {error:#}"));
        }
    }
    Ok(())
}
