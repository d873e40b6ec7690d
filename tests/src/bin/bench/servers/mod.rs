//! The servers that are measured: how each is started, and how it is spoken to. Each on its own terms: its own way
//! to publish and to subscribe.

mod bare;
mod mosquitto;
mod nats;
mod nchan;
mod plain;
mod relay;
mod scripts;

use std::{
    fmt,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    thread,
};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    load::{Delivery, payload::Payloads, publisher::Publish, verify::Verify},
    process::Process,
};

pub(crate) use bare::serve as serve_bare;
pub(crate) use relay::raw as raw_relay;

/// What servers are called, in results, tables and on the command line.
pub(crate) mod name {
    pub(crate) const RELAY: &str = "relay";
    pub(crate) const RELAY_BINARY: &str = "relay.v1.binary";
    pub(crate) const RELAY_JSON: &str = "relay.v1.json";
    pub(crate) const RELAY_FRAMED: &str = "relay, framed sender";
    pub(crate) const RELAY_BATCHED: &str = "relay, batch_delay";
    pub(crate) const RELAY_TWO_WORKERS: &str = "relay, 2 workers";
    pub(crate) const BARE: &str = "bare send";
    pub(crate) const NATS: &str = "nats-server";
    pub(crate) const NCHAN: &str = "nchan";
    pub(crate) const MOSQUITTO: &str = "mosquitto";
    pub(crate) const NODE_WS: &str = "node ws";
    pub(crate) const WEBSOCAT: &str = "websocat";
    pub(crate) const PYTHON_WEBSOCKETS: &str = "Python websockets";
}

/// A kind of server.
pub(crate) trait Server: fmt::Debug {
    /// What it is called, one of [`name`].
    fn name(&self) -> &'static str;

    /// Its version as it says itself, or why it can't be had.
    fn version(&self, place: &Place) -> Result<String>;

    /// Starts it and waits until it listens.
    fn start(&self, place: &Place) -> Result<Running>;
}

/// Where programs are and files may be put.
#[derive(Debug)]
pub(crate) struct Place {
    /// For configurations, logs and programs of peers.
    pub(crate) folder: PathBuf,
    /// The programs of this project.
    pub(crate) programs: PathBuf,
    /// The cores of the server, as taskset has them.
    pub(crate) cores: &'static str,
}

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) dialect: Box<dyn Dialect>,
}

/// Where a receiver of a channel upgrades.
#[derive(Debug, Clone)]
pub(crate) struct Entrance {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) protocol: Option<&'static str>,
}

/// How a running server is spoken to.
pub(crate) trait Dialect: fmt::Debug + Sync {
    /// Where its receivers upgrade.
    fn entrance(&self, channel: &str) -> Entrance;

    /// Opens a receiver of a channel; it is subscribed when this returns, and nothing of it is read yet.
    fn subscribe(&self, channel: &str) -> Result<TcpStream>;

    /// How messages come.
    fn delivery(&self) -> Delivery;

    /// Writes what a receiver of that channel gets of a message.
    fn expect(&self, channel: &str, payload: &[u8], out: &mut Vec<u8>);

    /// Where what a receiver gets can't be foretold: who looks at it.
    fn verify(
        &self,
        channel: &str,
        payloads: &Rc<Payloads>,
        origins: usize,
        mixed: bool,
    ) -> Option<Box<dyn Verify>>;

    /// Opens a connection that publishes to these channels.
    fn publish(&self, channels: &[String]) -> Result<(TcpStream, Box<dyn Publish>)>;

    /// Messages that may be in flight, where the server would lose more.
    fn most_in_flight(&self) -> u64;
}

/// All servers.
pub(crate) fn all() -> Vec<Box<dyn Server>> {
    vec![
        Box::new(relay::Relay::RAW),
        Box::new(relay::Relay::BINARY),
        Box::new(relay::Relay::JSON),
        Box::new(relay::Relay::FRAMED),
        Box::new(relay::Relay::BATCHED),
        Box::new(relay::Relay::TWO_WORKERS),
        Box::new(bare::Bare),
        Box::new(nats::Nats),
        Box::new(nchan::Nchan),
        Box::new(mosquitto::Mosquitto),
        Box::new(scripts::NodeWs),
        Box::new(scripts::Websocat),
        Box::new(scripts::PythonWebsockets),
    ]
}

/// The first line that a program prints.
pub(crate) fn first_line(program: impl AsRef<Path>, arguments: &[&str]) -> Result<String> {
    let program = program.as_ref();
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("{} is not there", program.display()))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned())
}

/// Opens a receiver of each of these channels, in their order. The first comes alone, since with it websocat connects
/// to where lines come from; then many at a time, since some servers take their time for each.
pub(crate) fn subscribe(dialect: &dyn Dialect, channels: &[&str]) -> Result<Vec<TcpStream>> {
    const THREADS: usize = 64;
    let some =
        |channels: &[&str]| channels.iter().map(|name| dialect.subscribe(name)).collect::<Result<Vec<_>>>();
    let (first, rest) = channels.split_at(channels.len().min(1));
    let first = some(first)?;
    thread::scope(|scope| {
        let parts = rest.chunks(rest.len().div_ceil(THREADS).max(1));
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || some(part))).collect();
        threads.into_iter().try_fold(first, |mut all, thread| {
            all.extend(thread.join().map_err(|_| anyhow!("a thread that connects has panicked"))??);
            Ok(all)
        })
    })
}
