//! The relay: TCP in, WebSocket out.
//!
//! # Layout
//! The tree reads as the way of the data: bytes in → framing → publish → log → fan-out → frames out.
//! - [`listener`] accepts, [`reception`] finds out by [`sniff`] what a connection is, [`connection`] is one.
//! - [`descriptors`]: how many of them the system allows.
//! - [`senders`]: raw and framed, each a pure protocol and a session around it.
//! - [`channel`]: from a publish to the cursors of receivers. [`store`]: where messages are kept.
//! - [`receivers`]: cursors to WebSockets. [`http`]: upgrades and the page. [`gateway`]: paths to upstreams.
//! - [`tls`]: all of TLS.
//! - [`config`]: what an operator said, and what it means; [`cli`]: how it is said on the command line.
//! - [`diagnostics`]: where what the relay notes goes; [`metrics`]: what is counted, and noted now and then.
//! - [`runtime`]: the threads. [`ready`]: what is printed once it listens. [`shutdown`]: who spawns, and how everything ends.

pub mod channel;
pub mod cli;
pub mod config;
pub mod connection;
pub mod descriptors;
pub mod diagnostics;
pub mod gateway;
pub mod http;
pub mod listener;
pub mod metrics;
pub mod ready;
pub mod receivers;
pub mod reception;
pub mod runtime;
pub mod senders;
pub mod shutdown;
pub mod sniff;
pub mod store;
pub mod tls;

use std::{hash::BuildHasher, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use channel::hub::{ChannelRules, Hub, now};
use config::Config;
use gateway::Gateway;
use http::Front;
use listener::Listener;
use metrics::Metrics;
use reception::Reception;
use shared::{ChannelPattern, Epoch, client::DEFAULT_PORT};
use shutdown::Life;
use store::{
    ChannelStore, Retention,
    disk::{Disk, OpenError},
    memory::Memory,
};
use tokio::time::Instant;

/// A relay whose addresses are bound.
#[derive(Debug)]
pub struct Relay {
    listeners: Vec<Listener>,
    reception: Arc<Reception>,
    hub: Arc<Hub>,
    gateway: Arc<Gateway>,
    life: Life,
    metrics: Arc<Metrics>,
    trim_every: Duration,
    drain: Duration,
}

/// Why a relay can't begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The store can't be opened.
    #[error("cannot use {} for messages: {error}", directory.display())]
    Store {
        /// Which.
        directory: PathBuf,
        /// Why not.
        #[source]
        error: OpenError,
    },
}

/// An address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}\n  hint: {}", reason(error), self.hint())]
pub struct BindError {
    /// Which.
    pub address: SocketAddr,
    /// Why not.
    #[source]
    pub error: io::Error,
}

impl BindError {
    fn hint(&self) -> String {
        let elsewhere =
            format!("choose another port with --listen {}", SocketAddr::new(self.address.ip(), 0));
        match self.error.kind() {
            io::ErrorKind::AddrInUse => format!("another relay may be running; {elsewhere}"),
            io::ErrorKind::PermissionDenied => format!("ports below 1024 need a privilege; {elsewhere}"),
            _ => format!("choose another address, for example --listen 127.0.0.1:{DEFAULT_PORT}"),
        }
    }
}

/// What the system says, as people write it.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".into(),
        _ => error.to_string(),
    }
}

impl Relay {
    /// Binds every address of the configuration, and opens its store. Nothing is accepted before [`run`](Self::run).
    ///
    /// # Errors
    /// The first address that can't be listened on, or why the store can't be opened.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        let Config {
            listeners, connections, http, senders, receivers, store, lag, gateway, data, disk, ..
        } = config;
        let listeners = listeners.into_iter().map(|settings| {
            let address = settings.address;
            Listener::bind(settings).map_err(|error| BindError { address, error })
        });
        let listeners = listeners.collect::<Result<_, _>>()?;
        let life = Life::default();
        let (encodings, trim_every) = (store.encodings, store.trim_every);
        // Receivers that keep up are those within what is in memory.
        let in_memory = |(pattern, kept): &(ChannelPattern, Retention)| {
            (pattern.clone(), Retention { bytes: kept.bytes.min(store.memory), ..*kept })
        };
        let rules = ChannelRules { lag, retention: store.retention.iter().map(in_memory).collect() };
        let store: Arc<dyn ChannelStore> = match data {
            Some(directory) => match Disk::open(&directory, disk, store, now()) {
                Ok(disk) => Arc::new(disk),
                Err(error) => return Err(StartError::Store { directory, error }),
            },
            None => Arc::new(Memory::new(new_epoch(), store)),
        };
        let hub = Hub::new(store, encodings, rules);
        let drain = connections.drain;
        let metrics = Arc::<Metrics>::default();
        let permits = reception::permits(&connections);
        let gateway = Arc::new(Gateway::new(gateway, life.clone(), Arc::clone(&permits), Arc::clone(&hub)));
        let front = Front::new(Arc::clone(&hub), Arc::clone(&gateway), life.clone(), http, receivers);
        let reception = Reception::new(
            Arc::clone(&hub),
            life.clone(),
            front,
            senders,
            connections,
            permits,
            Arc::clone(&metrics),
        );
        Ok(Self { listeners, reception: Arc::new(reception), hub, gateway, life, metrics, trim_every, drain })
    }

    /// The bound addresses, with their real ports, in the order of the configuration.
    ///
    /// # Errors
    /// What the system says.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(Listener::address).collect()
    }

    /// Its gateway, whose routes can be changed while it runs.
    pub fn gateway(&self) -> Arc<Gateway> {
        Arc::clone(&self.gateway)
    }

    /// Serves until `shutdown` is there; then no new connection is taken, senders are drained, receivers get what
    /// there is and 1012. Ends when all have ended or the drain time is over, and the store has.
    ///
    /// # Errors
    /// If something that was stored could not be kept as firmly as it should.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self { listeners, reception, hub, gateway, life, metrics, trim_every, drain } = self;
        life.spawn(gateway.attend());
        for listener in listeners {
            life.spawn(listener.run(Arc::clone(&reception)));
        }
        let trimmed = Arc::clone(&hub);
        let trimming = life.clone();
        life.spawn(async move {
            let mut every = tokio::time::interval(trim_every);
            every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = trimming.stopping() => return,
                    _ = every.tick() => {
                        trimmed.trim().await;
                        metrics.report();
                    }
                }
            }
        });
        shutdown.await;
        tracing::info!("stopping: no new connections; those that are open may take {drain:?}");
        life.stop();
        // Half of the time is for senders, so that receivers get what these have sent.
        let until = Instant::now() + drain;
        life.senders_ended(drain / 2).await;
        hub.stop();
        if !life.ended(until.saturating_duration_since(Instant::now())).await {
            tracing::warn!("stopped before all connections had ended");
        }
        hub.store().close().await
    }
}

/// A new incarnation of the store: a random number.
fn new_epoch() -> Epoch {
    Epoch(std::hash::RandomState::new().hash_one(std::time::SystemTime::now()))
}
