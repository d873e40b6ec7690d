//! A framed sender: its frames in, acknowledgements out. Reads, asks the protocol, hands messages to the store.

mod frames;

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, BytesMut};
use shared::{
    ErrorCode,
    codec::encode_relay,
    sender::{Ack, Alias, Close, RelayFrame},
};
use tokio::{
    io::Interest,
    time::{Instant, sleep_until},
};

use super::{
    SenderSettings,
    protocol::{Limits, Protocol, Refused},
    registry::{Registered, Registry},
};
use crate::{
    channel::{hub::Hub, publisher::Publisher, room::Room},
    connection::{Connection, SENDER_READ, SENDER_TURN},
    shutdown::Life,
    store::{self, Receipt, Ticket, chunk::ChunkBuilder},
};

/// Bytes of answers that may wait for the sender to read them: beyond them nothing more is read of it.
const UNREAD_ANSWERS: usize = 64 * 1024;

/// A framed sender's connection.
#[derive(Debug)]
pub struct FramedSession {
    connection: Connection,
    hub: Arc<Hub>,
    registry: Arc<Registry>,
    settings: Arc<SenderSettings>,
    protocol: Protocol,
    registered: Option<Registered>,
    publishers: HashMap<Alias, Publisher>,
    unparsed: BytesMut,
    /// Messages of one alias that go to the store together.
    builder: ChunkBuilder,
    building: Option<Building>,
    room: Room,
    unsettled: VecDeque<Unsettled>,
    unsettled_bytes: usize,
    unsettled_messages: u64,
    /// Aliases whose ACK is due.
    due: Vec<Alias>,
    /// Aliases that were published to since senders were last held.
    published: Vec<Alias>,
    answers: Vec<u8>,
    heard: bool,
    misses: u32,
    phase: Phase,
}

/// Of which alias messages are collected, up to which pseq, and how many bytes they have.
#[derive(Debug)]
struct Building {
    alias: Alias,
    last: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Unsettled {
    alias: Alias,
    last: u64,
    bytes: usize,
    count: u64,
    ticket: Ticket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// HELLO is due by then.
    Greeting(Instant),
    Open,
    /// The relay is stopping; the sender may wait for acknowledgements until then.
    Draining(Instant),
    /// The last frame is on its way, for so long at most.
    Ending(Instant),
}

/// The connection is over: nothing more can be said on it.
#[derive(Debug)]
struct Over;

impl FramedSession {
    /// Takes a connection that begins with the preamble.
    pub fn new(
        connection: Connection,
        hub: Arc<Hub>,
        registry: Arc<Registry>,
        settings: Arc<SenderSettings>,
    ) -> Self {
        let limits = Limits { max_message: settings.max_message, aliases: settings.aliases };
        Self {
            protocol: Protocol::new(limits),
            phase: Phase::Greeting(Instant::now() + settings.hello),
            connection,
            hub,
            registry,
            settings,
            registered: None,
            publishers: HashMap::new(),
            unparsed: BytesMut::new(),
            builder: ChunkBuilder::default(),
            building: None,
            room: Room::default(),
            unsettled: VecDeque::new(),
            unsettled_bytes: 0,
            unsettled_messages: 0,
            due: Vec::new(),
            published: Vec::new(),
            answers: Vec::new(),
            heard: false,
            misses: 0,
        }
    }

    /// Runs until the sender ends, or at most `drain` after the relay was told to stop.
    pub async fn run(mut self, life: Life, drain: Duration) {
        let mut ping = Instant::now() + self.settings.ping_every;
        let mut greeted = false;
        let mut reads = 0;
        while !(matches!(self.phase, Phase::Ending(_)) && self.answers.is_empty()) {
            let deadline = match self.phase {
                Phase::Greeting(deadline) | Phase::Draining(deadline) | Phase::Ending(deadline) => {
                    deadline.min(ping)
                }
                Phase::Open => ping,
            };
            let room = self.room.ask(&self.hub);
            let reading = self.is_reading();
            let interest = match (reading, self.answers.is_empty()) {
                (true, true) => Interest::READABLE,
                (true, false) => Interest::READABLE | Interest::WRITABLE,
                (false, _) => Interest::WRITABLE,
            };
            let stopped = matches!(self.phase, Phase::Draining(_) | Phase::Ending(_));
            let outcome = tokio::select! {
                biased;
                () = life.stopping(), if !stopped => { self.drain(drain); Ok(false) }
                code = evicted(&mut self.registered), if self.registered.is_some() => { self.evict(code); Ok(false) }
                outcome = settled(&mut self.unsettled), if !self.unsettled.is_empty() => {
                    self.settled(outcome);
                    Ok(false)
                }
                () = self.room.wait(), if !room => Ok(false),
                ready = ready(&self.connection, interest, reading), if reading || !self.answers.is_empty() => match ready {
                    Ok(true) => self.read(&mut greeted).await,
                    Ok(false) => Ok(false),
                    Err(_) => Err(Over),
                },
                () = sleep_until(deadline) => self.attend(&mut ping).map(|()| false),
            };
            let Ok(more) = outcome else { return };
            if self.answer().is_err() {
                return;
            }
            tokio::select! {
                () = self.hold() => {}
                () = life.stopping(), if !stopped => {}
            }
            reads += 1;
            if !more || reads >= SENDER_TURN {
                reads = 0;
                // Receivers take what was published while it is still near; and a socket that always has something
                // would let nobody else run, since readiness takes no budget.
                tokio::task::yield_now().await;
            }
        }
        self.connection.linger(self.settings.close).await;
    }

    /// The store, the window, and what the sender has not read of its answers.
    fn is_reading(&self) -> bool {
        !matches!(self.phase, Phase::Ending(_)) && self.answers.len() < UNREAD_ANSWERS && !self.is_held()
    }

    /// Whether the store has no room, or has not settled what the window allows.
    fn is_held(&self) -> bool {
        !self.room.is_there()
            || self.unsettled_bytes > self.settings.window_bytes as usize
            || self.unsettled_messages > u64::from(self.settings.window_messages)
    }

    /// Reads what is there, and acts on it; whether there is likely more.
    async fn read(&mut self, greeted: &mut bool) -> Result<bool, Over> {
        let unparsed = &mut self.unparsed;
        let count = match self.connection.read_with(|bytes| {
            unparsed.extend_from_slice(bytes);
            bytes.len()
        }) {
            Ok(0) => return Err(Over),
            Ok(count) => count,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(false);
            }
            Err(_) => return Err(Over),
        };
        self.heard = true;
        let bytes = std::mem::take(&mut self.unparsed);
        let taken = self.parse(&bytes, greeted).await;
        self.unparsed = bytes;
        match taken {
            Ok(taken) => self.unparsed.advance(taken),
            Err(e) => self.refuse(&Refused::fatal(ErrorCode::Protocol, e.to_string()), 0),
        }
        if self.unparsed.is_empty() {
            self.unparsed = BytesMut::new();
        }
        Ok(count == SENDER_READ)
    }

    fn acknowledge(&mut self, alias: Alias) {
        if !self.due.contains(&alias) {
            self.due.push(alias);
        }
    }

    /// Writes what there is to say, as far as the socket takes it.
    fn answer(&mut self) -> Result<(), Over> {
        self.say_due();
        while !self.answers.is_empty() {
            match self.connection.socket().try_write(&self.answers) {
                Ok(count) => drop(self.answers.drain(..count)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Over),
            }
        }
        Ok(())
    }

    /// One ACK for each alias, however much was settled.
    fn say_due(&mut self) {
        for alias in std::mem::take(&mut self.due) {
            if let Some((pseq, seq)) = self.protocol.settled(alias) {
                self.say(&RelayFrame::Ack(Ack { alias, pseq, seq }));
            }
        }
    }

    /// Waits for receivers, as far as the channels want it.
    async fn hold(&mut self) {
        let until = Instant::now() + self.settings.hold;
        for alias in std::mem::take(&mut self.published) {
            if let Some(publisher) = self.publishers.get(&alias) {
                publisher.hold(until.saturating_duration_since(Instant::now())).await;
            }
        }
    }

    fn attend(&mut self, ping: &mut Instant) -> Result<(), Over> {
        let now = Instant::now();
        match self.phase {
            Phase::Greeting(deadline) if now >= deadline => {
                self.refuse(&Refused::fatal(ErrorCode::Protocol, "no HELLO came"), 0);
            }
            Phase::Draining(deadline) if now >= deadline => {
                self.close(ErrorCode::Draining, "the relay is stopping")
            }
            Phase::Ending(deadline) if now >= deadline => return Err(Over),
            Phase::Greeting(_) | Phase::Draining(_) | Phase::Ending(_) | Phase::Open => {}
        }
        if now >= *ping {
            *ping = now + self.settings.ping_every;
            // One that is not read can't be heard; it is told all the same that the relay is there.
            let held = self.is_held();
            self.misses = if std::mem::take(&mut self.heard) || held { 0 } else { self.misses + 1 };
            if self.misses > self.settings.ping_misses {
                return Err(Over);
            }
            if (self.misses > 0 || held) && self.phase == Phase::Open {
                self.say(&RelayFrame::Ping(u64::from(self.misses)));
            }
        }
        Ok(())
    }

    fn drain(&mut self, drain: Duration) {
        if matches!(self.phase, Phase::Greeting(_)) {
            return self.close(ErrorCode::Draining, "the relay is stopping");
        }
        self.phase = Phase::Draining(Instant::now() + drain);
        let deadline_ms = u32::try_from(drain.as_millis()).unwrap_or(u32::MAX);
        self.say(&RelayFrame::Drain { deadline_ms });
    }

    fn evict(&mut self, code: ErrorCode) {
        self.registered = None;
        let text = match code {
            ErrorCode::Fenced => "a newer incarnation of this producer is connected",
            _ => "the same producer connected anew",
        };
        self.close(code, text);
    }

    fn close(&mut self, code: ErrorCode, text: &str) {
        if !matches!(self.phase, Phase::Ending(_)) {
            self.say_due();
            self.say(&RelayFrame::Close(Close { code: code.number(), text }));
            self.end();
        }
    }

    fn refuse(&mut self, refused: &Refused, retry_ms: u32) {
        if matches!(self.phase, Phase::Ending(_)) {
            return;
        }
        self.say_due();
        self.say(&RelayFrame::Error(refused.frame(retry_ms)));
        if refused.fatal {
            self.end();
        }
    }

    fn end(&mut self) {
        self.phase = Phase::Ending(Instant::now() + self.settings.close);
    }

    fn say(&mut self, frame: &RelayFrame<'_>) {
        encode_relay(frame, &mut self.answers);
    }
}

async fn ready(connection: &Connection, interest: Interest, reading: bool) -> io::Result<bool> {
    if reading && connection.has_read_ahead() {
        return Ok(true);
    }
    Ok(connection.socket().ready(interest).await?.is_readable())
}

async fn evicted(registered: &mut Option<Registered>) -> ErrorCode {
    match registered {
        Some(registered) => registered.evicted().await,
        None => std::future::pending().await,
    }
}

async fn settled(unsettled: &mut VecDeque<Unsettled>) -> Result<Receipt, store::Refused> {
    match unsettled.front_mut() {
        Some(unsettled) => (&mut unsettled.ticket).await,
        None => std::future::pending().await,
    }
}
