//! Where connections are brought to: finds out what each is by its first bytes, with a deadline, and gives it to
//! those who speak that.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{net::TcpStream, sync::Semaphore, time::Instant};
use tracing::{debug, warn};

use crate::{
    channel::hub::Hub,
    connection::Connection,
    descriptors::connections_within_limit,
    http::Front,
    metrics::Metrics,
    senders::{RawSettings, SenderSettings, framed::FramedSession, raw::RawSession, registry::Registry},
    shutdown::Life,
    sniff::{RequestGuard, Verdict, classify},
};

/// An address to listen on, and what may connect there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Port 0 takes a free one.
    pub address: SocketAddr,
    /// What connections may be.
    pub accepts: Accepts,
    /// What raw senders on it are.
    pub raw: RawSettings,
    /// How long receivers on it wait after each write, so that what is published meanwhile goes out together.
    pub batch_delay: Duration,
}

/// What the connections of a listener may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// Told apart by their first bytes.
    Everything,
    /// Raw senders only; nothing is sniffed.
    Raw,
    /// HTTP and WebSocket only.
    Http,
    /// Framed senders only.
    Framed,
}

/// What holds for all connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// How many there may be at once.
    pub connections: usize,
    /// How long the first bytes may leave it open what a connection is.
    pub sniff: Duration,
    /// How long accepting rests when the system has no descriptors left.
    pub accept_pause: Duration,
    /// Silence on a connection after which the system asks whether the other end is still there; at least 1 s.
    pub keepalive: Duration,
    /// How long a stop may take.
    pub drain: Duration,
}

/// What connections are brought to.
#[derive(Debug)]
pub struct Reception {
    hub: Arc<Hub>,
    life: Life,
    front: Arc<Front>,
    registry: Arc<Registry>,
    senders: Arc<SenderSettings>,
    settings: ConnectionSettings,
    metrics: Arc<Metrics>,
    /// Bytes that the first line of a request may have.
    header_bytes: usize,
    permits: Arc<Semaphore>,
}

impl Reception {
    /// Brings connections to these.
    pub fn new(
        hub: Arc<Hub>,
        life: Life,
        front: Front,
        senders: SenderSettings,
        settings: ConnectionSettings,
        permits: Arc<Semaphore>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let header_bytes = front.header_bytes();
        let (front, registry, senders) = (Arc::new(front), Arc::default(), Arc::new(senders));
        Self { hub, life, front, registry, senders, settings, metrics, header_bytes, permits }
    }

    /// How long accepting rests when the system has no descriptors left.
    pub fn accept_pause(&self) -> Duration {
        self.settings.accept_pause
    }

    /// Waits until the relay stops.
    pub async fn stopping(&self) {
        self.life.stopping().await;
    }

    /// Takes an accepted socket: a permit, then a task of its own.
    pub fn receive(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr, listener: &Arc<ListenerSettings>) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            debug!(%peer, "refused a connection: as many are open as are allowed");
            Metrics::count(&self.metrics.connections_refused);
            return;
        };
        let reception = Arc::clone(self);
        let listener = Arc::clone(listener);
        self.life.spawn(async move {
            prepare(&socket, reception.settings.keepalive);
            if let Ok(connection) = Connection::new(socket, permit, listener.batch_delay) {
                reception.greet(connection, &listener).await;
            }
        });
    }

    /// Finds out what a connection is, and brings it there: to a task of its own, so that what it took to find
    /// out does not stay.
    async fn greet(self: Arc<Self>, mut connection: Connection, listener: &Arc<ListenerSettings>) {
        let verdict = match listener.accepts {
            Accepts::Everything => {
                tokio::select! {
                    verdict = self.sniff(&mut connection) => verdict,
                    () = self.life.stopping() => return,
                }
            }
            Accepts::Raw => Ok(Verdict::Raw),
            Accepts::Http => Ok(Verdict::Http),
            Accepts::Framed => Ok(Verdict::Framed),
        };
        let (hub, life, senders) = (Arc::clone(&self.hub), self.life.clone(), Arc::clone(&self.senders));
        match verdict {
            Ok(Verdict::Http) => self.life.spawn(Arc::clone(&self.front).serve(connection)),
            Ok(Verdict::Framed) => {
                let session = FramedSession::new(connection, hub, Arc::clone(&self.registry), senders);
                // Half of the time is for the senders, the other for receivers to get what they sent.
                self.life.spawn_sender(session.run(life, self.settings.drain / 2));
            }
            Ok(Verdict::Raw) => {
                let guard = RequestGuard::new(self.header_bytes);
                let metrics = Arc::clone(&self.metrics);
                let session =
                    RawSession::begin(connection, &hub, &listener.raw, senders, Some(guard), metrics, &life)
                        .await;
                if let Some(session) = session {
                    self.life.spawn_sender(session.run(life));
                }
            }
            Ok(verdict) => {
                debug!(peer = %connection.peer(), ?verdict, "closed a connection that is not spoken to here");
                if verdict == Verdict::Tls {
                    // A fatal alert, handshake_failure: TLS is not spoken here (RFC 8446, section 6).
                    let _ = connection.socket().try_write(&[0x15, 3, 1, 0, 2, 2, 40]);
                }
                connection.linger(self.senders.hold).await;
            }
            Err(e) => {
                debug!(peer = %connection.peer(), "a connection ended before it was known what it is: {e}")
            }
        }
    }

    /// Reads until it is known what the connection is. The bytes are given back.
    async fn sniff(&self, connection: &mut Connection) -> io::Result<Verdict> {
        let silent = Instant::now() + self.settings.sniff;
        let mut quiet = silent;
        let mut bytes = Vec::new();
        let mut ended = false;
        let verdict = loop {
            match classify(&bytes, ended, self.header_bytes) {
                Verdict::NeedMore => {}
                verdict => break verdict,
            }
            match tokio::time::timeout_at(quiet.min(silent), connection.readable()).await {
                Ok(readable) => readable?,
                Err(_) => {
                    ended = true;
                    continue;
                }
            }
            let before = bytes.len();
            match connection.read_with(|read| bytes.extend_from_slice(read)) {
                Ok(()) => ended = bytes.len() == before,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Err(e) => return Err(e),
            }
            // Once something has come, the rest of what tells is soon there.
            quiet = Instant::now() + self.senders.undecided;
        };
        connection.unread(Bytes::from(bytes));
        Ok(verdict)
    }
}

/// The connections that there may be at once: as many as are said, less where the system allows fewer.
pub fn permits(settings: &ConnectionSettings) -> Arc<Semaphore> {
    let connections = connections_within_limit(settings.connections);
    if connections < settings.connections {
        warn!("the limit on open files leaves room for {connections} connections; raise it with `ulimit -n`");
    }
    Arc::new(Semaphore::new(connections))
}

fn prepare(socket: &TcpStream, keepalive: Duration) {
    // Best effort: a connection without them works too.
    let _ = socket.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new().with_time(keepalive);
    let _ = socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive);
}
