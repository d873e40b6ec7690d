//! A sender that outlives its connections: it connects, hands the outbox over, and when the connection is lost
//! comes back and goes on. What is worth a notice it returns; it shows nothing itself.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use shared::{
    Epoch, ErrorCode,
    client::{Backoff, Exit, RelayAddr},
    sender::Alias,
};
use tokio::time::{Instant, sleep_until};

use crate::{
    connection::{Connection, End, Event, Producer, Refusal},
    failure::Failure,
    outbox::Outbox,
};

/// Where a sender sends, and how it connects.
#[derive(Debug, Clone)]
pub struct Target {
    /// The relay.
    pub relay: RelayAddr,
    /// Who this sender is.
    pub producer: Producer,
    /// How long a connection may take to come to be.
    pub connect_timeout: Duration,
    /// Whether another connection is tried when one is lost.
    pub reconnect: bool,
}

/// An outbox and the connection that empties it.
#[derive(Debug)]
pub struct Sender {
    /// What is to be sent.
    pub outbox: Outbox,
    target: Target,
    link: Link,
    backoff: Backoff,
    trouble: Option<Trouble>,
    epoch: Epoch,
    max_message: usize,
}

enum Link {
    Up(Connection),
    Waiting(Instant),
    Connecting(Pin<Box<dyn Future<Output = Result<Connection, End>> + Send>>),
}

/// A lost connection, until what waited for the next one is delivered.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    since: Instant,
    back: Option<Backlog>,
}

/// What waited when the next connection stood.
#[derive(Debug, Clone, Copy)]
struct Backlog {
    waiting: u64,
    /// Messages that are settled when all of it is.
    upto: u64,
    new_epoch: Option<Epoch>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// The outbox may have room again.
    Progress,
    /// The connection is lost; another is tried.
    Lost,
    /// There is a connection again, and what waited for it is delivered.
    Back {
        /// How long there was none.
        after: Duration,
        /// How many messages waited for it.
        delivered: u64,
        /// The incarnation of the store, if it is another one than before.
        new_epoch: Option<Epoch>,
    },
    /// A channel is open and has so many receivers.
    Opened(Alias, u32),
    /// A message was refused.
    Refused(Alias, u64, Refusal),
    /// A channel was refused, and with it so many messages that waited for it.
    ChannelRefused(Alias, u64, Refusal),
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up(_) => "Up",
            Self::Waiting(_) => "Waiting",
            Self::Connecting(_) => "Connecting",
        })
    }
}

impl Sender {
    /// Connects for the first time; that this succeeds is waited for, and is not tried again.
    ///
    /// # Errors
    /// The relay can't be reached (exit code 3), or refuses.
    pub async fn connect(target: Target) -> Result<Self, Failure> {
        let connection =
            Connection::open(target.relay.clone(), target.producer, target.connect_timeout).await;
        let connection = connection.map_err(|end| Failure::unreachable(&target.relay, &end))?;
        Ok(Self {
            outbox: Outbox::default(),
            target,
            epoch: connection.epoch(),
            max_message: connection.max_message(),
            link: Link::Up(connection),
            backoff: Backoff::default(),
            trouble: None,
        })
    }

    /// The relay.
    pub fn relay(&self) -> &RelayAddr {
        &self.target.relay
    }

    /// Bytes that a message may have.
    pub fn max_message(&self) -> usize {
        self.max_message
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    /// Whether everything was handed to the system on the connection that there is.
    pub fn has_written(&self) -> bool {
        matches!(&self.link, Link::Up(connection) if connection.has_written(&self.outbox))
    }

    /// Whether [`next`](Self::next) has something to tell at once.
    pub fn has_news(&self) -> bool {
        self.backlog_delivered().is_some()
    }

    /// Goes on until something happened. May be dropped and called again at any time.
    ///
    /// # Errors
    /// The relay refuses to go on, or the connection is lost and shall not be made again (exit code 6).
    pub async fn next(&mut self) -> Result<Happening, Failure> {
        loop {
            if let Some(back) = self.back() {
                return Ok(back);
            }
            match &mut self.link {
                Link::Up(connection) => match connection.step(&mut self.outbox).await {
                    Ok(event) => return Ok(event.into()),
                    Err(End::ChannelRefused(alias, refusal)) => {
                        // Not a loss: it goes on at once without that channel.
                        let given_up = self.outbox.refuse_channel(alias).unwrap_or_default();
                        self.outbox.disconnected();
                        self.link = Link::Waiting(Instant::now());
                        return Ok(Happening::ChannelRefused(alias, given_up, refusal));
                    }
                    Err(end) => {
                        if self.lost(&end)? {
                            return Ok(Happening::Lost);
                        }
                    }
                },
                Link::Waiting(until) => {
                    sleep_until(*until).await;
                    let Target { relay, producer, connect_timeout, .. } = self.target.clone();
                    self.link =
                        Link::Connecting(Box::pin(Connection::open(relay, producer, connect_timeout)));
                }
                Link::Connecting(attempt) => match attempt.await {
                    Ok(connection) => self.established(connection),
                    Err(End::Refused(refusal)) if !may_pass(&refusal) => {
                        return Err(Failure::refused(&refusal));
                    }
                    Err(_) => self.wait(),
                },
            }
        }
    }

    /// Says goodbye, if there is a connection; at most for `limit`.
    pub async fn close(self, limit: Duration) {
        if let Link::Up(connection) = self.link {
            connection.close(limit).await;
        }
    }

    /// The connection ended. Whether that is news: a connection that delivered nothing was never told.
    fn lost(&mut self, end: &End) -> Result<bool, Failure> {
        self.outbox.disconnected();
        self.wait();
        let failure = match end {
            End::Refused(refusal) if !may_pass(refusal) => Some(Failure::refused(refusal)),
            _ if self.target.reconnect => None,
            end => {
                let message = format!("lost the connection to {}: {end}", self.target.relay);
                Some(Failure::new(Exit::Incomplete, message))
            }
        };
        if let Some(failure) = failure {
            return Err(failure.unconfirmed(self.outbox.unsettled()));
        }
        match &mut self.trouble {
            Some(trouble) => {
                trouble.back = None;
                Ok(false)
            }
            None => {
                self.trouble = Some(Trouble { since: Instant::now(), back: None });
                Ok(true)
            }
        }
    }

    fn wait(&mut self) {
        self.link = Link::Waiting(Instant::now() + self.backoff.next(fastrand::f64()));
    }

    fn established(&mut self, connection: Connection) {
        let epoch = connection.epoch();
        let new_epoch = (epoch != self.epoch).then_some(epoch);
        self.epoch = epoch;
        self.max_message = connection.max_message();
        self.link = Link::Up(connection);
        let backlog = Backlog { waiting: self.outbox.unsettled(), upto: self.outbox.pushed(), new_epoch };
        if let Some(trouble) = &mut self.trouble {
            trouble.back = Some(backlog);
        }
    }

    /// The end of the trouble, if it is over.
    fn back(&mut self) -> Option<Happening> {
        let (since, Backlog { waiting, new_epoch, .. }) = self.backlog_delivered()?;
        self.trouble = None;
        self.backoff.reset();
        Some(Happening::Back { after: since.elapsed(), delivered: waiting, new_epoch })
    }

    fn backlog_delivered(&self) -> Option<(Instant, Backlog)> {
        let trouble = self.trouble?;
        let backlog = trouble.back?;
        let settled = self.outbox.pushed() - self.outbox.unsettled();
        (settled >= backlog.upto).then_some((trouble.since, backlog))
    }
}

impl From<Event> for Happening {
    fn from(event: Event) -> Self {
        match event {
            Event::Progress => Self::Progress,
            Event::Opened(alias, receivers) => Self::Opened(alias, receivers),
            Event::Refused(alias, pseq, refusal) => Self::Refused(alias, pseq, refusal),
            Event::ChannelRefused(alias, given_up, refusal) => Self::ChannelRefused(alias, given_up, refusal),
        }
    }
}

/// Whether a refusal may be another one's turn: the same may work later, or on the relay's next start.
fn may_pass(refusal: &Refusal) -> bool {
    use ErrorCode::{Draining, Internal, Rate, StoreUnavailable, TooMany};
    matches!(refusal.error_code(), Some(Draining | Internal | Rate | StoreUnavailable | TooMany))
}
