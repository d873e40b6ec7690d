//! The configuration: from what was said (file, environment, flags) to what it means ([`Config`]). Every mistake is
//! told at once. Modules get their own settings out of it; none of them sees the whole.
//!
//! # Layout
//! - `raw`: what was said, with its place; `syntax`, `document`: TOML with spans; [`value`]: texts that mean
//!   something.
//! - `keys`: the table of limits and waits.
//! - `meaning`: raw → [`Config`]; `print`: [`Config`] → a file that says the same.
//! - `routes`: all that is said of the gateway.
//! - `report`: how mistakes are told.

mod document;
mod keys;
mod meaning;
mod print;
mod raw;
mod report;
mod routes;
mod syntax;
#[cfg(test)]
mod tests;
pub mod value;

use std::{
    fs::File,
    io::{self, Read as _},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use shared::{ChannelPattern, client::DEFAULT_PORT, limits};

pub use report::ConfigError;

use crate::{
    channel::LagPolicy,
    cli,
    gateway::settings::{GatewaySettings, RouteSettings},
    http::HttpSettings,
    receivers::ReceiverSettings,
    reception::{Accepts, ConnectionSettings, ListenerSettings},
    runtime::RuntimeSettings,
    senders::{RawSettings, SenderSettings, framing::Framing},
    store::{Durability, Retention, StoreSettings, disk::DiskSettings},
};

/// Bytes that a configuration file may have; a larger one is not one.
const MAX_FILE: u64 = 1024 * 1024;

/// When messages of a channel that is kept "async" are on the disk itself, unless said otherwise.
const DEFAULT_FLUSH: Duration = Duration::from_millis(100);

/// How long senders are held for a slow receiver of a channel that blocks, unless said otherwise.
const DEFAULT_BLOCK: Duration = Duration::from_secs(5);

/// What the relay is told to do: everything has a value here, and the values fit together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where to listen, and for what; at least one.
    pub listeners: Vec<ListenerSettings>,
    /// Whether addresses that others can reach are meant.
    pub open: bool,
    /// Of what everything runs on.
    pub runtime: RuntimeSettings,
    /// Of all connections.
    pub connections: ConnectionSettings,
    /// Of HTTP connections.
    pub http: HttpSettings,
    /// Of senders.
    pub senders: SenderSettings,
    /// Of receivers.
    pub receivers: ReceiverSettings,
    /// The directory of a store on disk; none: everything is in memory.
    pub data: Option<PathBuf>,
    /// Of a store on disk.
    pub disk: DiskSettings,
    /// Of the store; its last retention rule is for `**`.
    pub store: StoreSettings,
    /// What is done with receivers that are too slow: the first rule whose pattern matches. The same patterns as in
    /// the store's retention rules, in the same order.
    pub lag: Vec<(ChannelPattern, LagPolicy)>,
    /// Of the gateway.
    pub gateway: GatewaySettings,
    /// Of the log.
    pub log: LogSettings,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// A level, or levels by target; `tracing_subscriber::EnvFilter` reads it.
    pub filter: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: a JSON object.
    Json,
}

/// What flags, environment, the file and defaults mean together.
///
/// # Errors
/// When the file can't be read, or with every mistake in it and in how it and the flags fit together. Exit code 2.
pub fn load(flags: &cli::Serve) -> Result<Config, ConfigError> {
    match flags.config.as_deref().filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => understand(path, &read(path)?, flags),
        None => understand(Path::new(""), "", flags),
    }
}

/// Checks a file as [`load`] would without flags.
///
/// # Errors
/// As those of [`load`].
pub fn check(path: &Path) -> Result<(), ConfigError> {
    understand(path, &read(path)?, &cli::Serve::default()).map(|_| ())
}

/// The route of a file whose rules are meant: the one at `path`, or the only one that has any.
///
/// # Errors
/// As those of [`load`], and if it can't be told which one is meant.
pub fn route_with_rules(file: &Path, path: Option<&str>) -> Result<RouteSettings, ConfigError> {
    let routes = understand(file, &read(file)?, &cli::Serve::default())?.gateway.routes;
    let governed = || routes.iter().filter(|route| !route.rules.is_empty());
    let known: Vec<String> = governed().map(|route| route.path.to_string()).collect();
    let known =
        if known.is_empty() { "none has rules".into() } else { format!("rules have {}", known.join(", ")) };
    match path {
        Some(path) => {
            let prefix = path.parse().map_err(|e| ConfigError::plain(format!("--route {path}: {e}")))?;
            let found = routes.iter().find(|route| route.path == prefix).cloned();
            found
                .ok_or_else(|| ConfigError::plain(format!("--route {path}: there is no such route; {known}")))
        }
        None => match (governed().next(), governed().nth(1)) {
            (Some(only), None) => Ok(only.clone()),
            _ => Err(ConfigError::plain(format!("say which route with --route PATH; {known}"))),
        },
    }
}

/// A complete file with every key, its default and what it is for.
pub fn example() -> &'static str {
    include_str!("example.toml")
}

impl Config {
    /// As a file that says the same: what [`load`] gave comes back when it reads this.
    pub fn to_toml(&self) -> String {
        print::print(self)
    }
}

impl Default for Config {
    /// What `relay serve` means without a file and flags.
    fn default() -> Self {
        Self {
            listeners: vec![ListenerSettings {
                address: (Ipv4Addr::LOCALHOST, DEFAULT_PORT).into(),
                accepts: Accepts::Everything,
                raw: RawSettings { first_line: true, ..default_raw(limits::MAX_MESSAGE) },
                batch_delay: Duration::ZERO,
            }],
            open: false,
            runtime: RuntimeSettings { workers: 0 },
            connections: ConnectionSettings {
                connections: 16_384,
                sniff: Duration::from_secs(10),
                keepalive: Duration::from_secs(60),
                accept_pause: Duration::from_millis(100),
                drain: Duration::from_secs(10),
            },
            http: HttpSettings {
                header_bytes: 16 * 1024,
                headers: Duration::from_secs(5),
                stall: Duration::from_secs(30),
                close: Duration::from_secs(2),
                hosts: Vec::new(),
                origins: Vec::new(),
            },
            senders: SenderSettings {
                max_message: limits::MAX_MESSAGE,
                window_messages: limits::WINDOW_MESSAGES,
                window_bytes: limits::WINDOW_BYTES,
                aliases: 1024,
                undecided: Duration::from_secs(1),
                silence: Duration::from_millis(20),
                hold: Duration::from_millis(10),
                ping_every: Duration::from_secs(25),
                ping_misses: 2,
                hello: Duration::from_secs(10),
                stall: Duration::from_secs(30),
                close: Duration::from_secs(2),
                keep: Duration::from_secs(limits::KEEP_PRODUCER_S.into()),
            },
            receivers: ReceiverSettings {
                max_message: limits::MAX_MESSAGE,
                fragments: 256,
                subscriptions: 64,
                turn: 256 * 1024,
                send_buffer: 256 * 1024,
                ping_every: Duration::from_secs(25),
                ping_misses: 2,
                stall: Duration::from_secs(30),
                least_rate: 1024,
                close: Duration::from_secs(2),
            },
            data: None,
            disk: DiskSettings { segment: 64 << 20, limit: 0, retry: Duration::from_secs(1) },
            store: StoreSettings {
                memory: 1 << 30,
                encodings: 16 << 20,
                channels: 100_000,
                producers: 10_000,
                channel_idle: Duration::from_secs(12 * 3600),
                trim_every: Duration::from_secs(1),
                retention: vec![(any_channel(), Retention { bytes: 64 << 20, messages: None, age: None })],
                durability: vec![(any_channel(), Durability::Sync)],
            },
            lag: vec![(any_channel(), LagPolicy::Skip)],
            gateway: GatewaySettings::default(),
            log: LogSettings { filter: "info".into(), format: LogFormat::Text },
        }
    }
}

fn understand(path: &Path, source: &str, flags: &cli::Serve) -> Result<Config, ConfigError> {
    let mut mistakes = Vec::new();
    let (mut raw, whole) = raw::Raw::read(source, &mut mistakes);
    raw.apply(flags);
    if let Some(routes) = flags.routes.as_deref().filter(|path| !path.as_os_str().is_empty()) {
        raw.add_table(routes, &read(routes)?, &mut mistakes);
    }
    let (config, more) = meaning::settle(raw, source);
    // Where parts could not be read, nothing can be said of how all of it fits together.
    if whole {
        mistakes.extend(more);
    }
    report::report(path, source, mistakes).map(|()| config)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let cannot = |why: &str| ConfigError::plain(format!("cannot read {}: {why}", path.display()));
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return Err(match error.kind() {
            io::ErrorKind::NotFound => cannot("there is no such file"),
            io::ErrorKind::PermissionDenied => cannot("permission denied"),
            io::ErrorKind::IsADirectory => cannot("it is a directory"),
            _ => cannot(&error.to_string()),
        });
    }
    if bytes.len() as u64 > MAX_FILE {
        return Err(cannot("it is larger than 1MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line =
            1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        cannot(&format!("line {line} is not UTF-8 text"))
    })
}

/// The pattern that every channel matches.
fn any_channel() -> ChannelPattern {
    "**".parse().expect("it is a pattern")
}

/// What raw senders are where nothing is said of them.
fn default_raw(max_message: usize) -> RawSettings {
    RawSettings {
        channel: "default".parse().expect("it is a channel's name"),
        framing: Framing::Auto,
        first_line: false,
        max_message,
    }
}
