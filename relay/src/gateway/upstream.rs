//! The upstreams of a route: which is tried, who rests after a failure, how many connections each has, and how one
//! is connected to.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::{
    net::{TcpStream, UnixStream, lookup_host},
    time::{Instant, timeout_at},
};

use super::{
    counters::Refused,
    settings::{Address, Balance, Place},
    stream::Stream,
};
use crate::tls::Connector;

/// The upstreams of a route.
#[derive(Debug)]
pub struct Upstreams {
    all: Vec<Arc<Upstream>>,
    balance: Balance,
    turn: AtomicUsize,
}

/// An upstream, and how it does.
#[derive(Debug)]
pub struct Upstream {
    /// Where it is.
    pub address: Address,
    open: AtomicU64,
    total: AtomicU64,
    failures: AtomicU64,
    rests_until: Mutex<Option<Instant>>,
}

/// One of the connections that an upstream may have.
#[derive(Debug)]
pub struct Seat {
    upstream: Arc<Upstream>,
}

/// An upstream did not do what it is for, or could not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It can't be connected to.
    #[error("the upstream {0} {1}")]
    Unreachable(String, String),
    /// It takes too long.
    #[error("the upstream {0} did not {1} within {2:?}")]
    TimedOut(String, &'static str, Duration),
    /// As many connections to it are open as are allowed.
    #[error("the upstream {0} has as many connections as it may")]
    Full(String),
    /// The relay itself has no descriptors left.
    #[error("the gateway can't open a connection to the upstream {0}: {1}")]
    Exhausted(String, String),
    /// It can't be asked for so long a path.
    #[error("the path is too long for the upstream {0}")]
    TooLong(String),
    /// The client sent something else than a body.
    #[error("the body of the request is no HTTP, or broke off")]
    Broken,
    /// The client began a body, and sent nothing for so long.
    #[error("the body of the request did not go on within {0:?}")]
    Stalled(Duration),
}

impl Failure {
    /// What the client is told.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unreachable(..) => StatusCode::BAD_GATEWAY,
            Self::TimedOut(..) => StatusCode::GATEWAY_TIMEOUT,
            Self::Full(_) | Self::Exhausted(..) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLong(_) => StatusCode::URI_TOO_LONG,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::Stalled(_) => StatusCode::REQUEST_TIMEOUT,
        }
    }

    /// What is counted.
    pub fn refused(&self) -> Refused {
        match self {
            Self::Unreachable(..) => Refused::Unreachable,
            Self::TimedOut(..) => Refused::TimedOut,
            Self::Full(_) | Self::Exhausted(..) => Refused::Limit,
            Self::TooLong(_) | Self::Broken | Self::Stalled(_) => Refused::Wrong,
        }
    }

    /// Whether the upstream is to blame, and rests.
    fn is_its(&self) -> bool {
        matches!(self, Self::Unreachable(..) | Self::TimedOut(..))
    }
}

impl Upstreams {
    /// Those at these addresses; what is known of one in `before` goes on.
    pub fn new(addresses: &[Address], balance: Balance, before: Option<&Self>) -> Self {
        let known = |address: &Address| {
            let before = before.map(|before| before.all.as_slice()).unwrap_or_default();
            before.iter().find(|upstream| upstream.address == *address).map(Arc::clone)
        };
        let new = |address: &Address| {
            Arc::new(Upstream {
                address: address.clone(),
                open: AtomicU64::new(0),
                total: AtomicU64::new(0),
                failures: AtomicU64::new(0),
                rests_until: Mutex::default(),
            })
        };
        let all = addresses.iter().map(|address| known(address).unwrap_or_else(|| new(address))).collect();
        Self { all, balance, turn: AtomicUsize::new(0) }
    }

    /// All of them, in the order in which they are to be tried now: those that rest come last.
    pub fn to_try(&self) -> Vec<Arc<Upstream>> {
        let first = match self.balance {
            Balance::Order => 0,
            Balance::RoundRobin => self.turn.fetch_add(1, Ordering::Relaxed) % self.all.len().max(1),
        };
        let now = Instant::now();
        let turned = self.all[first..].iter().chain(&self.all[..first]);
        let (resting, awake): (Vec<_>, Vec<_>) = turned.cloned().partition(|upstream| upstream.rests(now));
        awake.into_iter().chain(resting).collect()
    }

    /// As JSON.
    pub fn report(&self) -> Value {
        let now = Instant::now();
        let report = |upstream: &Arc<Upstream>| {
            json!({
                "address": upstream.address.to_string(),
                "resting": upstream.rests(now),
                "failures": upstream.failures.load(Ordering::Relaxed),
                "open": upstream.open.load(Ordering::Relaxed),
                "total": upstream.total.load(Ordering::Relaxed),
            })
        };
        self.all.iter().map(report).collect()
    }
}

impl Upstream {
    /// Takes one of the `limit` connections that it may have.
    ///
    /// # Errors
    /// [`Failure::Full`].
    pub fn seat(self: &Arc<Self>, limit: usize) -> Result<Seat, Failure> {
        let limit = limit as u64;
        let one_more = |open: u64| (open < limit).then_some(open + 1);
        match self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Seat { upstream: Arc::clone(self) }),
            Err(_) => Err(Failure::Full(self.name())),
        }
    }

    /// Connects, in at most `patience`; `tls` is for those whose address says so.
    ///
    /// # Errors
    /// Whose fault it is that there is no connection.
    pub async fn connect(
        &self,
        patience: Duration,
        keepalive: Duration,
        tls: Option<&Connector>,
    ) -> Result<Stream, Failure> {
        let connected = timeout_at(Instant::now() + patience, self.open(keepalive, tls)).await;
        match connected {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) if is_exhausted(&error) => Err(Failure::Exhausted(self.name(), error.to_string())),
            Ok(Err(error)) => Err(self.unreachable(reason(&error))),
            Err(_) => Err(self.timed_out("accept a connection", patience)),
        }
    }

    /// It can't be used, for a reason that reads on after its name.
    pub fn unreachable(&self, reason: impl Into<String>) -> Failure {
        Failure::Unreachable(self.name(), reason.into())
    }

    /// It did not do something in time.
    pub fn timed_out(&self, what: &'static str, patience: Duration) -> Failure {
        Failure::TimedOut(self.name(), what, patience)
    }

    /// It can't be asked for so long a path.
    pub fn too_long(&self) -> Failure {
        Failure::TooLong(self.name())
    }

    /// It failed: if it is to blame, it rests.
    pub fn failed(&self, failure: &Failure, rest: Duration) {
        if failure.is_its() {
            self.failures.fetch_add(1, Ordering::Relaxed);
            *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + rest);
        }
    }

    /// It did what it is for.
    pub fn worked(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn rests(&self, now: Instant) -> bool {
        self.rests_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| until > now)
    }

    fn name(&self) -> String {
        self.address.place.to_string()
    }

    async fn open(&self, keepalive: Duration, tls: Option<&Connector>) -> io::Result<Stream> {
        match &self.address.place {
            Place::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
            Place::Tcp { host, port, tls: speaks_tls } => {
                let socket = connect_to_any(lookup_host((host.as_str(), *port)).await?).await?;
                // Best effort: a connection without them works too.
                let _ = socket.set_nodelay(true);
                let keepalive = socket2::TcpKeepalive::new().with_time(keepalive);
                let _ = socket2::SockRef::from(&socket).set_tcp_keepalive(&keepalive);
                match (speaks_tls, tls) {
                    (false, _) => Ok(Stream::Tcp(socket)),
                    (true, Some(tls)) => Ok(Stream::Tls(Box::new(tls.connect(host, socket).await?))),
                    // What is to be said in secret is never said aloud.
                    (true, None) => Err(io::Error::other("the route has nothing to speak TLS with")),
                }
            }
        }
    }
}

impl Seat {
    /// Whose it is.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.upstream.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connects to the first address that takes it.
async fn connect_to_any(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether the relay's own machine has nothing left to connect with.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let own = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL, Errno::AGAIN];
    error.raw_os_error().is_some_and(|code| own.iter().any(|errno| errno.raw_os_error() == code))
}

/// What happened, as it reads on after the upstream's name.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused the connection".into(),
        io::ErrorKind::ConnectionReset => "reset the connection".into(),
        io::ErrorKind::NotFound => format!("is not there: {error}"),
        io::ErrorKind::UnexpectedEof => "closed the connection within the TLS handshake".into(),
        io::ErrorKind::InvalidData => format!("can't be trusted: {error}"),
        _ => format!("can't be connected to: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Address> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn order(upstreams: &Upstreams) -> Vec<String> {
        upstreams.to_try().iter().map(|upstream| upstream.name()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_failed_is_tried_last_until_it_has_rested() {
        let upstreams = Upstreams::new(&addresses(&["ws://a", "ws://b", "ws://c"]), Balance::Order, None);
        assert_eq!(order(&upstreams), ["a:80", "b:80", "c:80"]);
        let a = &upstreams.all[0];
        a.failed(&a.unreachable("refused the connection"), Duration::from_secs(10));
        assert_eq!(order(&upstreams), ["b:80", "c:80", "a:80"]);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(order(&upstreams), ["a:80", "b:80", "c:80"]);
    }

    #[tokio::test(start_paused = true)]
    async fn round_robin_begins_with_each_in_its_turn() {
        let upstreams =
            Upstreams::new(&addresses(&["ws://a", "ws://b", "ws://c"]), Balance::RoundRobin, None);
        assert_eq!(order(&upstreams), ["a:80", "b:80", "c:80"]);
        assert_eq!(order(&upstreams), ["b:80", "c:80", "a:80"]);
        assert_eq!(order(&upstreams), ["c:80", "a:80", "b:80"]);
    }

    #[tokio::test]
    async fn small_messages_are_not_held_back_and_a_silent_machine_is_asked_whether_it_is_there() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("ws://{}", listener.local_addr().unwrap());
        let upstreams = Upstreams::new(&addresses(&[&address]), Balance::Order, None);
        let (patience, keepalive) = (Duration::from_secs(5), Duration::from_secs(77));
        let Ok(Stream::Tcp(socket)) = upstreams.all[0].connect(patience, keepalive, None).await else {
            panic!("no connection")
        };
        assert!(socket.nodelay().unwrap());
        let socket = socket2::SockRef::from(&socket);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), keepalive);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_of_an_upstream_goes_on_and_its_seats_are_limited() {
        let before = Upstreams::new(&addresses(&["ws://a"]), Balance::Order, None);
        let seat = before.all[0].seat(1).unwrap();
        let after = Upstreams::new(&addresses(&["ws://b", "ws://a"]), Balance::Order, Some(&before));
        assert_eq!(after.all[1].seat(1).unwrap_err(), Failure::Full("a:80".into()));
        drop(seat);
        assert!(after.all[1].seat(1).is_ok());
    }
}
