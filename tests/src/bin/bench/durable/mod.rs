//! The bench of what is kept on disk: the relay beside nats-server with JetStream, itself in memory, and a bare write
//! and sync. `tests/durable-bench` sets up what it needs and runs it.
//!
//! - [`servers`]: how each is started. [`acknowledge`]: how it is published to, and says what is stored; [`senders`]:
//!   many who do so. [`disk`]: folders and their file system.
//! - [`publishing`]: works that publish. [`histories`]: what is kept before it is read; [`replay`]: works that read it.
//! - [`mod@report`]: tables, and what the relay is to reach.

mod acknowledge;
mod disk;
mod histories;
mod publishing;
mod replay;
mod report;
mod senders;
mod servers;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs,
    io::Write as _,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    cli::chosen,
    results::{Results, Run},
    servers::Place,
    work::{Crowd, Figures, closed},
};
use disk::{FileSystem, Folder};
use histories::{History, SCATTERED};
use senders::Shape;
use servers::{Keeping, Server};

/// The names of figures that only this bench has.
mod figure {
    /// Messages per second that were acknowledged.
    pub(super) const ACKNOWLEDGED: &str = "acknowledged per second";
    /// Latency in milliseconds of a bare write and sync of the same bytes.
    pub(super) const BARE_P50: &str = "bare p50 ms";
    pub(super) const BARE_P99: &str = "bare p99 ms";
    /// The median latency of an acknowledgement beyond that.
    pub(super) const ABOVE_BARE: &str = "p50 above bare ms";
    /// Bytes that the server has made the kernel write, for each byte of payload.
    pub(super) const WRITTEN: &str = "written per payload";
    /// Bytes that its files have grown by, for each byte of payload.
    pub(super) const GROWN: &str = "grown per payload";
    /// Bytes that the device has taken from everyone, for each byte of payload.
    pub(super) const DEVICE: &str = "device per payload";
    /// Bytes of payload per second that receivers got of what was kept.
    pub(super) const REPLAYED: &str = "replayed per second";
    /// Memory of the relay meanwhile beyond that of an idle one, in MiB.
    pub(super) const MEMORY: &str = "MiB above idle";
    /// Seconds from the start of the relay until it is ready.
    pub(super) const START: &str = "start s";
    /// The same after one that was killed.
    pub(super) const START_AFTER_KILL: &str = "start after kill s";
    /// Bytes of the file system's blocks for each byte of payload.
    pub(super) const DISK: &str = "disk per payload";
    /// Memory of a relay that has started and does nothing, in MiB.
    pub(super) const IDLE: &str = "idle MiB";
}

/// What servers are made to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// One sender, a window of 1 000.
    OneSender,
    /// 100 senders with a channel each, a window of 10.
    ManySenders,
    /// One message when the one before is acknowledged.
    OneAtATime,
    /// 100 receivers of 128 B, as fast as they take them.
    FanOut,
    /// So many receivers of 1 GiB in one channel.
    Replay { receivers: usize },
    /// One receiver of a channel whose messages lie among those of 1 000 others.
    Scattered,
    /// One receiver of all these channels.
    Everything,
    /// A start with 10 million messages in 1 000 channels.
    Start,
    /// 1 000 messages per second, each synced alone, while the oldest segments go.
    Steady,
}

/// How large it all is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Full,
    Smoke,
}

impl Scale {
    /// So many, or as few as will do.
    const fn many(self, full: u64, few: u64) -> u64 {
        match self {
            Self::Full => full,
            Self::Smoke => few,
        }
    }
}

/// How much longer [`Work::Steady`] is than others: segments have to go.
const STEADY: u32 = 5;

/// What was measured, and where.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    file_system: String,
    #[serde(flatten)]
    results: Results,
}

impl Work {
    const ALL: [Self; 10] = [
        Self::OneSender,
        Self::ManySenders,
        Self::OneAtATime,
        Self::FanOut,
        Self::Replay { receivers: 1 },
        Self::Replay { receivers: 10 },
        Self::Scattered,
        Self::Everything,
        Self::Start,
        Self::Steady,
    ];

    /// What it is called in results and on the command line.
    const fn name(self) -> &'static str {
        match self {
            Self::OneSender => "one-sender",
            Self::ManySenders => "many-senders",
            Self::OneAtATime => "one-at-a-time",
            Self::FanOut => "fan-out",
            Self::Replay { receivers: 1 } => "replay-1",
            Self::Replay { .. } => "replay-10",
            Self::Scattered => "replay-scattered",
            Self::Everything => "replay-everything",
            Self::Start => "start",
            Self::Steady => "steady",
        }
    }

    /// Who does it.
    const fn servers(self) -> &'static [Server] {
        match self {
            Self::OneSender | Self::ManySenders => &Server::ALL,
            Self::OneAtATime => {
                &[Server::Relay, Server::JetStream, Server::JetStreamNew, Server::JetStreamAlways]
            }
            Self::FanOut => &[Server::RelayMemory, Server::Relay, Server::RelayAsync],
            Self::Steady => &[Server::Relay],
            Self::Replay { .. } | Self::Scattered | Self::Everything | Self::Start => &[Server::Relay],
        }
    }

    /// What has to be there before.
    const fn history(self) -> Option<histories::Kind> {
        match self {
            Self::Replay { .. } => Some(histories::Kind::Channel),
            Self::Scattered | Self::Everything => Some(histories::Kind::Scattered),
            Self::Start => Some(histories::Kind::Batches),
            Self::OneSender | Self::ManySenders | Self::OneAtATime | Self::FanOut | Self::Steady => None,
        }
    }
}

/// Measures: each server at each work, then the next round.
pub(crate) fn measure(place: &Place, works: &[String], rounds: u32, seconds: f64) -> Result<()> {
    let measured = run(place, Scale::Full, works, rounds, seconds)?;
    let name = if works.is_empty() { "durable.json" } else { "durable-chosen.json" };
    fs::write(place.folder.join(name), serde_json::to_vec_pretty(&measured)?)?;
    write!(std::io::stdout().lock(), "\n{}", report::text(&measured))?;
    measured.results.nothing_failed()
}

/// Whether it all works.
pub(crate) fn smoke(place: &Place) -> Result<()> {
    let Measured { results, .. } = run(place, Scale::Smoke, &[], 1, 0.2)?;
    for server in [Server::Relay, Server::JetStream] {
        ensure!(results.versions.contains_key(server.name()), "{} is needed", server.name());
    }
    results.nothing_failed()
}

/// Puts what was measured last into the document.
pub(crate) fn report(place: &Place) -> Result<()> {
    let file = place.folder.join("durable.json");
    let text = fs::read(&file).with_context(|| format!("{}: nothing was measured yet", file.display()))?;
    report::write(&serde_json::from_slice(&text).with_context(|| file.display().to_string())?)
}

fn run(place: &Place, scale: Scale, works: &[String], rounds: u32, seconds: f64) -> Result<Measured> {
    let works: Vec<Work> = Work::ALL.into_iter().filter(|work| chosen(works, work.name())).collect();
    ensure!(!works.is_empty(), "there is no such work");
    let mut results = Results::begin(rounds, seconds)?;
    let place = &Place { folder: folder(place)?, programs: place.programs.clone(), cores: place.cores };
    let file_system = FileSystem::of(&place.folder)?.kind;
    for server in Server::ALL {
        if !works.iter().any(|work| work.servers().contains(&server)) {
            continue;
        }
        let name = server.name().to_owned();
        match server.version(place) {
            Ok(version) => results.versions.insert(name, version),
            Err(error) => {
                writeln!(std::io::stdout().lock(), "NOT RUN: {name}, {error:#}")?;
                results.missing.insert(name, format!("{error:#}"))
            }
        };
    }
    let mut histories = BTreeMap::new();
    for round in 1..=rounds {
        for &work in &works {
            for &server in work.servers() {
                if results.versions.contains_key(server.name()) {
                    let length = Duration::from_secs_f64(seconds);
                    let figures = one(place, work, server, length, scale, &mut histories);
                    note(&mut results, work, server, round, figures)?;
                }
            }
        }
    }
    Ok(Measured { file_system, results })
}

/// A folder of its own: its configurations and data are others than those of the servers of channels.
fn folder(place: &Place) -> Result<PathBuf> {
    let folder = place.folder.join("durable");
    fs::create_dir_all(&folder)?;
    folder.canonicalize().context("the folder of the bench")
}

/// One server does one work.
fn one(
    place: &Place,
    work: Work,
    server: Server,
    length: Duration,
    scale: Scale,
    histories: &mut BTreeMap<histories::Kind, History>,
) -> Result<Figures> {
    if let Some(kind) = work.history() {
        let history = match histories.entry(kind) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(room) => {
                room.insert(History::make(kind, place, scale).context("what is to be read")?)
            }
        };
        return read(place, work, history);
    }
    let data = Folder::new(place.folder.join("data"))?;
    let start = |keeping| server.start(place, data.path(), keeping);
    match work {
        Work::ManySenders => {
            let shape = Shape::each_its_own(scale.many(100, 5) as usize, 10, 1024);
            publishing::as_fast_as_acknowledged(&start(Keeping::ALL)?, &data, &shape, length)
        }
        Work::OneAtATime => publishing::one_at_a_time(&start(Keeping::ALL)?, &data, 1024, length),
        Work::FanOut => {
            let crowd = Crowd::fan_out(scale.many(100, 10) as usize, 128);
            closed::run(&start(Keeping::ALL)?.into_running(), crowd, closed::Window::Bytes, length)
        }
        Work::Steady => {
            // Some of what is published goes already while the first quarter of the run is not measured.
            let little = Keeping { disk: "segment = \"1MiB\"", history: "2MiB" };
            let length = length * scale.many(STEADY.into(), 1) as u32;
            publishing::paced(&start(little)?, &data, 1000.0, 1024, length)
        }
        _ => {
            let shape = Shape::single(1000, 1024);
            publishing::as_fast_as_acknowledged(&start(Keeping::ALL)?, &data, &shape, length)
        }
    }
}

/// The relay reads what it has kept.
fn read(place: &Place, work: Work, history: &History) -> Result<Figures> {
    match work {
        Work::Replay { receivers } => replay::run(place, history, "bench", history.messages, receivers),
        Work::Scattered => replay::run(place, history, SCATTERED, history.scattered(), 1),
        Work::Everything => replay::run(place, history, "**", history.messages, 1),
        _ => replay::start(place, history),
    }
}

fn note(
    results: &mut Results,
    work: Work,
    server: Server,
    round: u32,
    figures: Result<Figures>,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let (work, server) = (work.name(), server.name());
    match figures {
        Ok(figures) => {
            writeln!(out, "round {round}  {work:<18} {server:<34} {}", report::line(&figures))?;
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
