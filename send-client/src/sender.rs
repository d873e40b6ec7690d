//! A sender that outlives its connections: it connects, hands the outbox over, and when the connection is lost
//! comes back and goes on. What is worth a notice it returns; it shows nothing itself.

mod link;

use std::time::Duration;

use shared::{
    Epoch, ErrorCode,
    client::{Backoff, Exit, RelayAddr},
    limits::MAX_MESSAGE,
    sender::Alias,
};
use tokio::time::Instant;

use self::link::{Link, Step, step};
use crate::{
    connection::{Connection, End, Event, Producer, Refusal},
    failure::Failure,
    outbox::{Message, Outbox},
    spool::{Done, Kept, Spool},
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

/// An outbox and the connection that empties it, perhaps with a spool before it.
#[derive(Debug)]
pub struct Sender {
    /// What is to be sent.
    pub outbox: Outbox,
    spool: Option<Spool>,
    target: Target,
    link: Link,
    backoff: Backoff,
    trouble: Option<Trouble>,
    /// What was settled when the connection was made.
    settled_before: u64,
    /// The incarnation of the relay's store, once there was a connection.
    epoch: Option<Epoch>,
    max_message: usize,
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
    again: bool,
    new_epoch: Option<Epoch>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// The outbox may have room again.
    Progress,
    /// The connection is lost; another is tried.
    Lost,
    /// There is no connection yet, for this reason; it is tried again. Only with a spool.
    Unreachable(String),
    /// There is a connection, and what waited for it is delivered.
    Back {
        /// How long there was none.
        after: Duration,
        /// Whether there was one before.
        again: bool,
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
    /// So many messages could not be kept in the spool, for this reason; they are not sent.
    NotKept(u64, String),
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
            spool: None,
            target,
            epoch: Some(connection.epoch()),
            max_message: connection.max_message(),
            link: Link::Up(connection),
            backoff: Backoff::default(),
            trouble: None,
            settled_before: 0,
        })
    }

    /// A sender of what is in a spool and what comes to it. It connects when it can.
    pub fn with_spool(target: Target, spool: Spool) -> Self {
        let mut outbox = Outbox::default();
        spool.restore(&mut outbox);
        Self {
            outbox,
            spool: Some(spool),
            target,
            link: Link::Waiting(Instant::now()),
            backoff: Backoff::default(),
            trouble: None,
            settled_before: 0,
            epoch: None,
            max_message: MAX_MESSAGE,
        }
    }

    /// The spool, if there is one.
    pub fn spool(&self) -> Option<&Spool> {
        self.spool.as_ref()
    }

    /// Whether more may be taken in.
    pub fn has_room(&self) -> bool {
        self.spool.as_ref().map_or_else(|| self.outbox.has_room(), Spool::has_room)
    }

    /// Takes a message in, under an alias of the outbox.
    pub fn push(&mut self, alias: Alias, message: Message<'_>) {
        match &mut self.spool {
            Some(spool) => spool.push(&self.outbox, alias, message),
            None => self.outbox.push(alias, message),
        }
    }

    /// Whether messages may be taken in now: with a spool also while there is no connection.
    pub fn takes(&self) -> bool {
        self.spool.is_some() || self.is_up()
    }

    /// Whether everything that was taken in is safe from a crash of this process, if there is a spool.
    pub fn is_kept(&self) -> bool {
        self.spool.as_ref().is_none_or(Spool::is_kept)
    }

    /// Messages that are not settled.
    pub fn waiting(&self) -> u64 {
        self.outbox.unsettled() + self.spool.as_ref().map_or(0, |spool| spool.behind(&self.outbox))
    }

    /// Whether everything that was taken in is settled.
    pub fn is_settled(&self) -> bool {
        self.outbox.unsettled() == 0 && self.spool.as_ref().is_none_or(Spool::is_handed_over)
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

    /// Whether a connection was lost or did not come to be, and none has delivered since what waited for it.
    pub fn is_in_trouble(&self) -> bool {
        self.trouble.is_some()
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
            if let Some(spool) = &mut self.spool {
                spool.order(&self.outbox);
            }
            match step(&mut self.link, &mut self.outbox, self.spool.as_mut()).await {
                Step::Event(Ok(event)) => return self.happened(event),
                Step::Event(Err(End::ChannelRefused(alias, refusal))) => {
                    let happening = self.refused(alias, refusal)?;
                    // Not a loss: it goes on at once without that channel.
                    self.outbox.disconnected();
                    self.link = Link::Waiting(Instant::now());
                    return Ok(happening);
                }
                Step::Event(Err(end)) => {
                    if self.lost(&end)? {
                        return Ok(Happening::Lost);
                    }
                }
                Step::Time => {
                    let Target { relay, producer, connect_timeout, .. } = self.target.clone();
                    self.link =
                        Link::Connecting(Box::pin(Connection::open(relay, producer, connect_timeout)));
                }
                Step::Attempt(Ok(connection)) => self.established(connection),
                Step::Attempt(Err(End::Refused(refusal))) if !may_pass(&refusal) => {
                    return Err(self.incomplete(Failure::refused(&refusal)));
                }
                Step::Attempt(Err(end)) => {
                    self.wait();
                    if self.epoch.is_none() && !self.target.reconnect {
                        return Err(self.incomplete(Failure::unreachable(&self.target.relay, &end)));
                    }
                    if self.trouble.is_none() {
                        self.trouble = Some(Trouble { since: Instant::now(), back: None });
                        return Ok(Happening::Unreachable(end.to_string()));
                    }
                }
                Step::Disk(done) => {
                    if let Some(happening) = self.kept(done)? {
                        return Ok(happening);
                    }
                }
            }
        }
    }

    fn happened(&mut self, event: Event) -> Result<Happening, Failure> {
        match event {
            Event::Progress => Ok(Happening::Progress),
            Event::Opened(alias, receivers) => Ok(Happening::Opened(alias, receivers)),
            Event::Refused(alias, pseq, refusal) => Ok(Happening::Refused(alias, pseq, refusal)),
            Event::ChannelRefused(alias, refusal) => self.refused(alias, refusal),
        }
    }

    /// A channel was refused, and what waits for it is given up. What is in the spool is not: the refusal may be
    /// mended.
    fn refused(&mut self, alias: Alias, refusal: Refusal) -> Result<Happening, Failure> {
        let unsettled = self.outbox.settled_pseq(alias) + 1 < self.outbox.next_pseq(alias);
        if self.spool.as_ref().is_some_and(|spool| unsettled || !spool.is_handed_over()) {
            return Err(self.incomplete(Failure::refused(&refusal)));
        }
        let given_up = self.outbox.refuse_channel(alias).unwrap_or_default();
        Ok(Happening::ChannelRefused(alias, given_up, refusal))
    }

    /// Takes note of what the disk has done.
    fn kept(&mut self, done: Done) -> Result<Option<Happening>, Failure> {
        let Some(spool) = &mut self.spool else { return Ok(None) };
        match spool.take(done, &mut self.outbox) {
            Kept::Progress => Ok(Some(Happening::Progress)),
            Kept::Failed(lost, why) => Ok(Some(Happening::NotKept(lost, why))),
            Kept::Unreadable(why) => {
                let path = spool.path().display();
                let failure = Failure::new(Exit::Failure, format!("cannot read the spool {path}: {why}"));
                Err(self.incomplete(failure))
            }
        }
    }

    /// An end, with what becomes of what is not settled.
    pub fn incomplete(&self, failure: Failure) -> Failure {
        match &self.spool {
            Some(spool) => failure.stays(self.waiting(), spool.path()),
            None => failure.unconfirmed(self.waiting()),
        }
    }

    /// Keeps what was taken in, if there is a spool, and says goodbye, if there is a connection; at most for
    /// `goodbye`. How many messages could not be kept, and why.
    pub async fn close(mut self, goodbye: Option<Duration>) -> Option<(u64, String)> {
        let lost = match self.spool.take() {
            Some(spool) => spool.close(&mut self.outbox).await,
            None => None,
        };
        if let (Link::Up(connection), Some(limit)) = (self.link, goodbye) {
            connection.close(limit).await;
        }
        lost
    }

    /// The connection ended. Whether that is news: a connection that delivered nothing was never told.
    fn lost(&mut self, end: &End) -> Result<bool, Failure> {
        self.outbox.disconnected();
        // A connection that brought something was a good one, though it did not bring all.
        if self.settled() > self.settled_before {
            self.backoff.reset();
        }
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
            return Err(self.incomplete(failure));
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
        let again = self.epoch.is_some();
        let new_epoch = self.epoch.is_some_and(|before| before != epoch).then_some(epoch);
        self.epoch = Some(epoch);
        self.max_message = connection.max_message();
        self.link = Link::Up(connection);
        self.settled_before = self.settled();
        let waiting = self.waiting();
        let backlog = Backlog { waiting, upto: self.settled() + waiting, again, new_epoch };
        if let Some(trouble) = &mut self.trouble {
            trouble.back = Some(backlog);
        }
    }

    /// The end of the trouble, if it is over.
    fn back(&mut self) -> Option<Happening> {
        let (since, Backlog { waiting, again, new_epoch, .. }) = self.backlog_delivered()?;
        self.trouble = None;
        self.backoff.reset();
        Some(Happening::Back { after: since.elapsed(), again, delivered: waiting, new_epoch })
    }

    fn backlog_delivered(&self) -> Option<(Instant, Backlog)> {
        let trouble = self.trouble?;
        let backlog = trouble.back?;
        (self.settled() >= backlog.upto).then_some((trouble.since, backlog))
    }

    /// Messages that are settled.
    pub fn settled(&self) -> u64 {
        self.outbox.pushed() - self.outbox.unsettled()
    }
}

/// Whether a refusal may be another one's turn: the same may work later, or on the relay's next start.
fn may_pass(refusal: &Refusal) -> bool {
    use ErrorCode::{Draining, Internal, Rate, StoreUnavailable, TooMany};
    matches!(refusal.error_code(), Some(Draining | Internal | Rate | StoreUnavailable | TooMany))
}
