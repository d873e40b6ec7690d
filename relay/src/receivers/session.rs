//! One receiver: its cursor's chunks to its socket, its commands back. The session alone owns the socket; the
//! WebSocket core works on memory.

mod commands;
mod missing;
mod waiting;

use std::{collections::VecDeque, future::poll_fn, io, pin::Pin, sync::Arc, time::Duration};

use bytes::BytesMut;
use shared::{
    ChannelId, Seq,
    receiver::{CloseCode, Event, Subprotocol},
};
use tokio::{
    io::AsyncWriteExt,
    task::coop,
    time::{Instant, Sleep, sleep_until},
};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

use self::waiting::Woken;
use super::{
    ReceiverSettings,
    inbound::FrameCounter,
    outbound::{Outbound, Turn},
    protocol::{Lag, Request},
    rest::Rest,
    vigil::{Due, Vigil},
};
use crate::{
    channel::{
        LagPolicy,
        cursor::{Beginning, Cursor, Missing},
        hub::Hub,
        room::Room,
    },
    connection::Connection,
    store::{ReadError, Ticket},
};

/// Bytes read from a receiver at a time.
const READ: usize = 16 * 1024;

/// Control bytes that may wait: beyond them nothing is read that could add to them.
const CONTROL: usize = 4096;

/// Publishes that may be unsettled: beyond them nothing is read.
const UNSETTLED: usize = 64;

/// A receiver's connection after the upgrade.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    hub: Arc<Hub>,
    settings: Arc<ReceiverSettings>,
    form: Subprotocol,
    /// The channel that it publishes to unless it says another.
    channel: Option<ChannelId>,
    publish: bool,
    lag: Lag,
    cursor: Cursor,
    /// What is missing and was not told yet; until it is, nothing else is taken.
    untold: VecDeque<Missing>,
    /// Parts of the past of channels that were subscribed later.
    backfills: VecDeque<Cursor>,
    /// It was told that it has caught up.
    live: bool,
    core: WebSocketContext,
    inbound: BytesMut,
    /// Something was read that is not understood yet, here or in the core.
    unread: bool,
    fragments: FrameCounter,
    outbound: Outbound,
    unsettled: VecDeque<(Option<u64>, Ticket)>,
    room: Room,
    /// The last message that it published itself.
    own: Seq,
    vigil: Vigil,
    rest: Rest,
    phase: Phase,
}

/// A receiver's place, before its connection is upgraded.
#[derive(Debug)]
pub struct Prepared {
    form: Subprotocol,
    request: Request,
    cursor: Cursor,
    beginning: Beginning,
}

/// Where in its life a session is.
#[derive(Debug)]
enum Phase {
    /// Both ways.
    Open,
    /// Nothing is read any more; what it published itself goes out to it, then this close frame.
    Leaving { close: Vec<u8>, deadline: Instant },
    /// The close frame is on its way; the peer may answer for so long.
    Left { deadline: Instant },
}

/// The connection is over: nothing more can be said on it.
#[derive(Debug)]
struct Over;

impl Session {
    /// Takes a place where the request says: from then on nothing is missed.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn prepare(hub: &Arc<Hub>, form: Subprotocol, request: Request) -> Result<Prepared, ReadError> {
        let (cursor, beginning) =
            Cursor::begin(hub, &request.selection, form, request.since, request.last).await?;
        Ok(Prepared { form, request, cursor, beginning })
    }

    /// Begins at the prepared place.
    pub fn new(
        connection: Connection,
        hub: Arc<Hub>,
        settings: Arc<ReceiverSettings>,
        prepared: Prepared,
    ) -> Self {
        let Prepared { form, request, cursor, beginning } = prepared;
        let Request { selection, channel, lag, publish, .. } = request;
        // Without control messages a receiver can't be told of a gap: it is closed, unless it wants to go on.
        let default = match (hub.lag_policy_of(&selection), form) {
            (LagPolicy::Skip, Subprotocol::Json | Subprotocol::Binary) => Lag::Skip,
            _ => Lag::Close,
        };
        // A message in base64 is a third longer; a text with escapes may be more, and is then too big.
        let max_inbound = match form {
            Subprotocol::Raw => settings.max_message,
            Subprotocol::Json | Subprotocol::Binary => settings.max_message * 2 + READ,
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(256)
            .write_buffer_size(0)
            .max_message_size(Some(max_inbound))
            .max_frame_size(Some(max_inbound));
        let mut session = Self {
            vigil: Vigil::new(Instant::now(), &settings),
            rest: Rest::new(connection.batch_delay()),
            connection,
            form,
            channel,
            publish,
            lag: lag.unwrap_or(default),
            cursor,
            untold: VecDeque::new(),
            backfills: VecDeque::new(),
            live: false,
            core: WebSocketContext::new(Role::Server, Some(config)),
            inbound: BytesMut::new(),
            unread: true,
            fragments: FrameCounter::default(),
            outbound: Outbound::default(),
            unsettled: VecDeque::new(),
            room: Room::default(),
            own: Seq::ZERO,
            phase: Phase::Open,
            hub,
            settings,
        };
        for pattern in selection.patterns() {
            session.hello(pattern, &beginning);
        }
        session.tell(beginning.missing);
        // Frames that came right behind the request are here already.
        if session.connection.has_read_ahead() {
            let _ = session.read();
        }
        session
    }

    /// Runs until the connection ends. In a box, so that the task that it runs in stays small.
    pub async fn run(mut self: Box<Self>) {
        let mut timer = Box::pin(sleep_until(self.vigil.deadline(&self.settings)));
        while self.round(timer.as_mut()).await.is_ok() {}
    }

    /// A close right after the upgrade, for a browser that is refused.
    pub async fn refuse(mut connection: Connection, code: CloseCode, text: &str, patience: Duration) {
        if connection.write_all(&close_frame(code, text)).await.is_ok() {
            connection.linger(patience).await;
        }
    }

    async fn round(&mut self, mut timer: Pin<&mut Sleep>) -> Result<(), Over> {
        coop::consume_budget().await;
        if self.cursor.is_overdrawn() && matches!(self.phase, Phase::Open) {
            let text = format!("too slow; resume after {}", self.cursor.position());
            self.give_up(CloseCode::Lagged, &text);
        }
        self.understand().await?;
        let turn = self.write().await?;
        if turn == Turn::More {
            tokio::task::yield_now().await;
            return if self.is_reading() && !self.unread { self.read() } else { Ok(()) };
        }
        let reading = self.is_reading();
        if reading && self.unread && matches!(self.phase, Phase::Open) {
            tokio::task::yield_now().await;
            return Ok(());
        }
        // A deadline that moves away is looked at when it would have been due: most never are.
        if self.deadline() < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(self.deadline());
        }
        let blocked = turn == Turn::Blocked;
        match poll_fn(|cx| self.poll_woken(cx, blocked, timer.as_mut())).await? {
            Woken::Readable => {
                self.read()?;
                // A socket that always has something would let nobody else run.
                tokio::task::yield_now().await;
            }
            Woken::Writable | Woken::Room => {}
            Woken::Settled(outcome) => self.settled(outcome)?,
            Woken::Due if Instant::now() < self.deadline() => {}
            Woken::Due => self.attend()?,
        }
        Ok(())
    }

    /// Reads what is there.
    fn read(&mut self) -> Result<(), Over> {
        let mut buffer = [0; READ];
        match self.connection.try_read(&mut buffer) {
            Ok(0) => Err(Over),
            Ok(count) => {
                self.vigil.heard();
                if matches!(self.phase, Phase::Open) {
                    self.unread = true;
                    self.inbound.extend_from_slice(&buffer[..count]);
                    if self.fragments.walk(&buffer[..count]) > self.settings.fragments {
                        self.leave(CloseCode::Policy, "a message in too many fragments");
                    }
                }
                Ok(())
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(_) => Err(Over),
        }
    }

    /// Writes what there is, and what is to be told on the way.
    async fn write(&mut self) -> Result<Turn, Over> {
        loop {
            if self.cursor.position().seq >= self.own {
                self.say_farewell();
            }
            self.tell_untold();
            let resting = self.is_resting();
            let cursor = match (&self.phase, self.backfills.front_mut()) {
                (Phase::Left { .. }, _) => None,
                _ if resting || !self.untold.is_empty() => None,
                (_, Some(backfill)) => Some(backfill),
                (_, None) => Some(&mut self.cursor),
            };
            let mut written = 0;
            let socket = self.connection.socket();
            let turn =
                self.outbound.write(socket, cursor, self.settings.turn, &mut written).map_err(|_| Over)?;
            match turn {
                Turn::Fetch => self.fetch().await?,
                Turn::More | Turn::Blocked => {
                    self.vigil.waits(written, Instant::now());
                    return Ok(turn);
                }
                Turn::Head => {
                    self.vigil.drained();
                    if resting {
                        return Ok(turn);
                    }
                    if written > 0 {
                        self.rest.begin(Instant::now());
                    }
                    if !self.at_head().await? {
                        return Ok(turn);
                    }
                }
            }
        }
    }

    /// Everything is out: whether that gives something more to write.
    async fn at_head(&mut self) -> Result<bool, Over> {
        if let Phase::Left { deadline } = self.phase {
            self.connection.linger(deadline.saturating_duration_since(Instant::now())).await;
            return Err(Over);
        }
        if !self.untold.is_empty() {
            return Ok(true);
        }
        if let Some(past) = self.backfills.pop_front_if(|past| past.is_at_end()) {
            self.cursor.go_on_from(&past);
            return Ok(true);
        }
        if !self.live {
            self.live = true;
            if self.form != Subprotocol::Raw {
                self.outbound.event(&Event::Live { seq: self.cursor.position().seq });
                return Ok(true);
            }
        }
        if !matches!(self.phase, Phase::Open) {
            return Ok(self.say_farewell());
        }
        if self.hub.is_stopping() {
            self.leave(CloseCode::Restart, "the relay is stopping: reconnect and resume");
            return Ok(true);
        }
        Ok(false)
    }

    /// Does what is due now.
    fn attend(&mut self) -> Result<(), Over> {
        if !matches!(self.phase, Phase::Open) {
            return Err(Over);
        }
        match self.vigil.due(Instant::now(), &self.settings) {
            Due::Nothing => {}
            Due::Ping => self.outbound.control().extend_from_slice(&[0x89, 0]),
            Due::NoPong => self.give_up(CloseCode::NoPong, "no answer to pings"),
            Due::Stalled => return Err(Over),
        }
        Ok(())
    }

    /// Ends the session with a close frame, after what the receiver published itself.
    fn leave(&mut self, code: CloseCode, text: &str) {
        let deadline = Instant::now() + self.settings.close;
        self.phase = Phase::Leaving { close: close_frame(code, text), deadline };
    }

    /// Ends the session with a close frame, before anything that has not been begun.
    fn give_up(&mut self, code: CloseCode, text: &str) {
        self.own = Seq::ZERO;
        self.leave(code, text);
    }

    /// Puts the close frame out if it is its turn; whether it was.
    fn say_farewell(&mut self) -> bool {
        match &mut self.phase {
            Phase::Leaving { close, .. } if self.unsettled.is_empty() => {
                let close = std::mem::take(close);
                self.outbound.control().extend_from_slice(&close);
                self.phase = Phase::Left { deadline: Instant::now() + self.settings.close };
                true
            }
            Phase::Leaving { .. } | Phase::Open | Phase::Left { .. } => false,
        }
    }
}

/// A close frame as a server writes it; its text is cut to what fits (RFC 6455, section 5.5).
fn close_frame(code: CloseCode, text: &str) -> Vec<u8> {
    let text = &text[..text.floor_char_boundary(123)];
    let mut frame = vec![0x88, 2 + text.len() as u8];
    frame.extend_from_slice(&code.number().to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame
}
