//! Who keeps messages: the relay on disk and in memory, and nats-server with JetStream. Each is started on a folder of
//! its own on the same file system.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use shared::sender::Levels;

use super::acknowledge::{Acknowledge, Framed, PubAcks};
use crate::{
    process::{Process, free_address},
    servers::{Place, Running, first_line, raw_relay},
};

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    /// What it acknowledges is synced to the disk.
    Relay,
    /// It is synced a little later.
    RelayAsync,
    /// It is in memory alone.
    RelayMemory,
    /// That of Debian, which syncs every two minutes.
    JetStream,
    /// A newer one; it syncs every two minutes too.
    JetStreamNew,
    /// The newer one, which syncs what it acknowledges.
    JetStreamAlways,
}

/// A server that runs.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) process: Process,
    pub(super) address: SocketAddr,
    server: Server,
}

/// How the relay is set besides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keeping {
    /// More keys of `[disk]`.
    pub(super) disk: &'static str,
    /// What each channel keeps.
    pub(super) history: &'static str,
}

impl Keeping {
    /// Everything that a run publishes.
    pub(super) const ALL: Self = Self { disk: "", history: "64GiB" };
}

impl Server {
    pub(super) const ALL: [Self; 6] = [
        Self::Relay,
        Self::RelayAsync,
        Self::RelayMemory,
        Self::JetStream,
        Self::JetStreamNew,
        Self::JetStreamAlways,
    ];

    /// What it is called in results and tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::RelayAsync => "relay, async",
            Self::RelayMemory => "relay, in memory",
            Self::JetStream => "JetStream of Debian",
            Self::JetStreamNew => "JetStream",
            Self::JetStreamAlways => "JetStream, sync_interval: always",
        }
    }

    /// Whether it is this project's.
    pub(super) const fn is_relay(self) -> bool {
        matches!(self, Self::Relay | Self::RelayAsync | Self::RelayMemory)
    }

    /// What an acknowledgement means.
    const fn levels(self) -> Levels {
        match self {
            Self::Relay => Levels::FSYNCED,
            _ => Levels::ACCEPTED,
        }
    }

    /// Its version as it says itself, or why it can't be had.
    pub(super) fn version(self, place: &Place) -> Result<String> {
        if self.is_relay() {
            let relay = place.programs.join("relay");
            let config = self.relay_config(place, free_address()?, Path::new("data"), Keeping::ALL)?;
            let check =
                Command::new(&relay).arg("check").arg(config).output().context("the relay is not built")?;
            ensure!(check.status.success(), "this relay has no such configuration");
            return first_line(relay, &["--version"]);
        }
        let program = self.nats(place);
        let version = first_line(&program, &["--version"])?;
        let config = self.nats_config(place, free_address()?, Path::new("data"))?;
        let check = Command::new(&program).arg("-t").arg("-c").arg(config).output()?;
        ensure!(check.status.success(), "{version} has no such configuration");
        Ok(version)
    }

    /// Starts it with its data in the folder, and waits until it listens.
    pub(super) fn start(self, place: &Place, data: &Path, keeping: Keeping) -> Result<Started> {
        let address = free_address()?;
        let (log, command) = if self.is_relay() {
            let mut command = Command::new(place.programs.join("relay"));
            let config = self.relay_config(place, address, data, keeping)?;
            command.args(["serve", "--log", "warn", "--config"]).arg(config);
            ("relay", command)
        } else {
            let mut command = Command::new(self.nats(place));
            command.arg("-c").arg(self.nats_config(place, address, data)?);
            ("nats-server", command)
        };
        let mut process = Process::start(place.cores, &place.folder, log, &command)?;
        if self.is_relay() {
            // A relay on a long log listens when it has read it; nobody is to knock until then.
            process.said_by("ready on")?;
        } else {
            process.listening(&[address])?;
            PubAcks::create_stream(address)?;
        }
        Ok(Started { process, address, server: self })
    }

    fn relay_config(
        self,
        place: &Place,
        address: SocketAddr,
        data: &Path,
        keeping: Keeping,
    ) -> Result<PathBuf> {
        let path = place.folder.join("relay.toml");
        let Keeping { disk, history } = keeping;
        let (kept, rule) = match self {
            Self::Relay => (Some(data), format!("history = \"{history}\"")),
            Self::RelayAsync => (Some(data), format!("history = \"{history}\"\ndurability = \"async\"")),
            _ => (None, "history = \"64MiB\"".to_owned()),
        };
        let kept = kept.map(|data| format!("data = {data:?}\n")).unwrap_or_default();
        let disk = if kept.is_empty() { String::new() } else { format!("[disk]\n{disk}\n") };
        let text = format!(
            "listen = [\"{address}\"]\n{kept}[limits]\nworkers = 1\n[timeouts]\nping = \"10m\"\n\
             {disk}[[channel]]\npattern = \"**\"\n{rule}\n"
        );
        fs::write(&path, text)?;
        Ok(path)
    }

    fn nats(self, place: &Place) -> PathBuf {
        match self {
            Self::JetStream => "nats-server".into(),
            _ => place.folder.join("../nats/bin/nats-server"),
        }
    }

    fn nats_config(self, place: &Place, address: SocketAddr, data: &Path) -> Result<PathBuf> {
        let path = place.folder.join("nats.conf");
        let sync = if self == Self::JetStreamAlways { ", sync_interval: always" } else { "" };
        let text = format!(
            "listen: \"{address}\"\nping_interval: \"10m\"\n\
             jetstream {{ store_dir: {data:?}, max_file_store: 64GB{sync} }}\n"
        );
        fs::write(&path, text)?;
        Ok(path)
    }
}

impl Started {
    /// Opens a connection that publishes to these channels and is told what is stored.
    pub(super) fn publisher(
        &self,
        number: usize,
        channels: &[String],
    ) -> Result<(std::net::TcpStream, Box<dyn Acknowledge>)> {
        if self.server.is_relay() {
            let (socket, framed) = Framed::open(self.address, number, channels, self.server.levels())?;
            return Ok((socket, Box::new(framed)));
        }
        let (socket, client) = PubAcks::open(self.address, number, channels)?;
        Ok((socket, Box::new(client)))
    }

    /// How many messages it says it has of the connections with these channels.
    pub(super) fn stored(&self, channels: &[Vec<String>]) -> Result<u64> {
        if !self.server.is_relay() {
            return PubAcks::stored(self.address);
        }
        let each = channels.iter().enumerate();
        each.map(|(number, channels)| Framed::stored(self.address, number, channels)).sum()
    }

    /// The relay for the works of the other bench: lines in, WebSocket out.
    pub(super) fn into_running(self) -> Running {
        raw_relay(self.process, self.address)
    }
}
