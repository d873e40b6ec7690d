//! One connection to the relay: the greeting, whole frames out of the outbox onto the socket, and what the relay
//! answers back into the outbox. Reconnecting is the business of [`Sender`](crate::sender::Sender).

mod end;

use std::{io, time::Duration};

use bytes::{Buf, BytesMut};
use shared::{
    Epoch, ErrorCode,
    client::RelayAddr,
    codec::{Decoded, decode_relay, encode_preamble, encode_sender},
    sender::{Alias, Close, Hello, Levels, Open, ProducerId, RelayFrame, SenderFrame, Welcome},
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

pub use self::end::{End, Refusal};
use crate::outbox::{Outbox, Window};

/// Bytes of frames that are handed to the socket at once.
const WRITE_BYTES: usize = 256 * 1024;

/// Bytes that a frame of the relay may have; the longest carries a text for people.
const MAX_RELAY_FRAME: usize = 64 * 1024;

/// The shortest wait before a message is sent again that the store could not take.
const MIN_RETRY: Duration = Duration::from_millis(10);

/// Who sends, and what a confirmation shall mean to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    /// Its id, over its connections.
    pub id: ProducerId,
    /// Its incarnation: a higher one fences the connections of lower ones.
    pub epoch: u32,
    /// Seconds that the relay shall remember it after its last message; 0 for the relay's default.
    pub keep_s: u32,
    /// The levels that a channel has to give.
    pub levels: Levels,
}

/// A connection on which the relay has said its welcome.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    levels: Levels,
    inbound: BytesMut,
    outbound: BytesMut,
    welcome: Welcome,
    last_heard: Instant,
    ping: Ping,
    phase: Phase,
}

/// What may be sent.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Everything.
    Sending,
    /// No messages before then: the store could not take one.
    Paused(Instant),
    /// No messages any more; acks may come until then.
    Draining(Instant),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ping {
    None,
    Awaited,
}

/// What the relay said that someone may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The state of the outbox may have changed.
    Progress,
    /// A channel is open and has so many receivers.
    Opened(Alias, u32),
    /// A message was refused.
    Refused(Alias, u64, Refusal),
    /// A channel was refused; what waits for it is the sender's to decide.
    ChannelRefused(Alias, Refusal),
}

impl Connection {
    /// Connects and greets, both within `limit`.
    pub async fn open(relay: RelayAddr, producer: Producer, limit: Duration) -> Result<Self, End> {
        let too_late = || End::Lost(format!("no answer within {}", shared::units::format_duration(limit)));
        timeout(limit, Self::greet(relay, producer)).await.unwrap_or_else(|_| Err(too_late()))
    }

    async fn greet(relay: RelayAddr, producer: Producer) -> Result<Self, End> {
        let stream = TcpStream::connect((relay.host(), relay.port())).await?;
        stream.set_nodelay(true)?;
        let mut outbound = BytesMut::new();
        encode_preamble(&mut outbound);
        let Producer { id, epoch, keep_s, levels } = producer;
        let hello = Hello { producer: id, producer_epoch: epoch, keep_s, token: b"" };
        encode_sender(&SenderFrame::Hello(hello), &mut outbound);
        let mut inbound = BytesMut::new();
        loop {
            write_some(&stream, &mut outbound)?;
            let decoded = decode_relay(&inbound, MAX_RELAY_FRAME);
            match decoded.map_err(|_| End::Lost("what answers there is no relay of this version".into()))? {
                Decoded::Frame(RelayFrame::Welcome(welcome), n) => {
                    inbound.advance(n);
                    let last_heard = Instant::now();
                    let (ping, phase) = (Ping::None, Phase::Sending);
                    return Ok(Self { stream, levels, inbound, outbound, welcome, last_heard, ping, phase });
                }
                Decoded::Frame(RelayFrame::Error(refusal), _) => {
                    return Err(End::Refused(Refusal::new(refusal.code, refusal.text)));
                }
                Decoded::Frame(RelayFrame::Close(close), _) => return Err(End::closed(&close)),
                Decoded::Frame(_, n) | Decoded::Skipped(n) => inbound.advance(n),
                Decoded::Incomplete(_) => {
                    stream.readable().await?;
                    read_some(&stream, &mut inbound)?;
                }
            }
        }
    }

    /// The incarnation of the relay's store.
    pub fn epoch(&self) -> Epoch {
        self.welcome.epoch
    }

    /// Bytes that a message may have.
    pub fn max_message(&self) -> usize {
        self.welcome.max_message as usize
    }

    /// Whether everything that may be sent now has been handed to the system.
    pub fn has_written(&self, outbox: &Outbox) -> bool {
        self.outbound.is_empty() && !outbox.has_unsent()
    }

    /// Sends and receives until something happened. May be dropped and called again at any time.
    pub async fn step(&mut self, outbox: &mut Outbox) -> Result<Event, End> {
        loop {
            if let Some(event) = self.next_event(outbox)? {
                return Ok(event);
            }
            if matches!(self.phase, Phase::Draining(_)) && outbox.in_flight() == 0 {
                return Err(End::Lost("it is stopping".into()));
            }
            let wrote = self.write(outbox)?;
            if wrote && self.has_written(outbox) {
                return Ok(Event::Progress);
            }
            let wake = self.wake(outbox);
            tokio::select! {
                ready = self.stream.readable() => {
                    ready?;
                    if read_some(&self.stream, &mut self.inbound)? {
                        (self.last_heard, self.ping) = (Instant::now(), Ping::None);
                    }
                }
                ready = self.stream.writable(), if !self.outbound.is_empty() => ready?,
                () = sleep_until(wake.unwrap_or(self.last_heard)), if wake.is_some() => self.on_time(outbox)?,
            }
        }
    }

    /// Says goodbye and waits, at most for `limit`, until the relay has read everything and closed. Closing at
    /// once could reset the connection, and with it discard what the relay has not read yet.
    pub async fn close(mut self, limit: Duration) {
        encode_sender(&SenderFrame::Close(Close { code: 0, text: "" }), &mut self.outbound);
        let goodbye = async {
            while !self.outbound.is_empty() {
                self.stream.writable().await?;
                write_some(&self.stream, &mut self.outbound)?;
            }
            tokio::io::AsyncWriteExt::shutdown(&mut self.stream).await?;
            loop {
                self.stream.readable().await?;
                self.inbound.clear();
                read_some(&self.stream, &mut self.inbound)?;
            }
        };
        // Ends with an error when the relay closes, which is what it waits for.
        let _ended: Result<Result<(), End>, _> = timeout(limit, goodbye).await;
    }

    /// Decodes what has come until there is something to tell.
    fn next_event(&mut self, outbox: &mut Outbox) -> Result<Option<Event>, End> {
        let mut progress = None;
        loop {
            let (event, used) = match decode_relay(&self.inbound, MAX_RELAY_FRAME)? {
                Decoded::Incomplete(_) => return Ok(progress),
                Decoded::Skipped(n) => (None, n),
                Decoded::Frame(RelayFrame::Ping(n), used) => {
                    encode_sender(&SenderFrame::Pong(n), &mut self.outbound);
                    (None, used)
                }
                Decoded::Frame(RelayFrame::Opened(opened), _) if !opened.levels.contains(self.levels) => {
                    return Err(End::level_unsupported(opened.alias));
                }
                Decoded::Frame(frame, used) => (obey(&frame, outbox, &mut self.phase)?, used),
            };
            self.inbound.advance(used);
            match event {
                None => {}
                Some(Event::Progress) => progress = Some(Event::Progress),
                event => return Ok(event),
            }
        }
    }

    /// Writes until there is nothing more, or the socket is full. Whether anything was written.
    fn write(&mut self, outbox: &mut Outbox) -> Result<bool, End> {
        let mut wrote = false;
        loop {
            self.fill(outbox);
            if self.outbound.is_empty() {
                return Ok(wrote);
            }
            if !write_some(&self.stream, &mut self.outbound)? {
                return Ok(wrote);
            }
            wrote = true;
        }
    }

    fn fill(&mut self, outbox: &mut Outbox) {
        while let Some((alias, first_pseq, channel)) = outbox.next_to_open() {
            let open = Open { alias, levels: self.levels, first_pseq, channel: channel.as_str() };
            encode_sender(&SenderFrame::Open(open), &mut self.outbound);
        }
        if matches!(self.phase, Phase::Sending) && self.outbound.len() < WRITE_BYTES {
            let window = Window {
                messages: u64::from(self.welcome.window_messages),
                bytes: self.welcome.window_bytes as usize,
            };
            let room = WRITE_BYTES - self.outbound.len();
            outbox.take(window, &mut self.outbound, room);
        }
    }

    /// When there is something to do without a word from the relay.
    fn wake(&self, outbox: &Outbox) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Sending => None,
            Phase::Paused(until) | Phase::Draining(until) => Some(until),
        };
        let silence = (self.welcome.ping_ms > 0).then(|| self.last_heard + self.patience(outbox));
        [phase, silence].into_iter().flatten().min()
    }

    /// How long the relay may be silent: it pings after `ping_ms`. One that is asked gets twice that to answer.
    fn patience(&self, outbox: &Outbox) -> Duration {
        let ping = Duration::from_millis(self.welcome.ping_ms.into());
        if self.ping == Ping::Awaited || outbox.in_flight() > 0 {
            ping.mul_f64(2.5)
        } else {
            ping.mul_f64(1.25)
        }
    }

    fn on_time(&mut self, outbox: &Outbox) -> Result<(), End> {
        let now = Instant::now();
        match self.phase {
            Phase::Paused(until) if until <= now => self.phase = Phase::Sending,
            Phase::Draining(until) if until <= now => return Err(End::Lost("it is stopping".into())),
            Phase::Sending | Phase::Paused(_) | Phase::Draining(_) => {}
        }
        if self.welcome.ping_ms > 0 && self.last_heard + self.patience(outbox) <= now {
            if self.ping == Ping::Awaited || outbox.in_flight() > 0 {
                return Err(End::Lost("it has been silent for too long".into()));
            }
            encode_sender(&SenderFrame::Ping(1), &mut self.outbound);
            self.ping = Ping::Awaited;
        }
        Ok(())
    }
}

/// Does what a frame says.
fn obey(frame: &RelayFrame<'_>, outbox: &mut Outbox, phase: &mut Phase) -> Result<Option<Event>, End> {
    match *frame {
        RelayFrame::Ack(ack) => outbox.acked(ack.alias, ack.pseq)?,
        RelayFrame::Opened(opened) => {
            outbox.opened(opened.alias, opened.last_pseq)?;
            return Ok(Some(Event::Opened(opened.alias, opened.receivers)));
        }
        RelayFrame::Error(refusal) => return refused(&refusal, outbox, phase),
        RelayFrame::Drain { deadline_ms } => {
            *phase = Phase::Draining(Instant::now() + Duration::from_millis(deadline_ms.into()));
        }
        RelayFrame::Close(close) => return Err(End::closed(&close)),
        RelayFrame::Welcome(_) | RelayFrame::Ping(_) | RelayFrame::Pong(_) => return Ok(None),
    }
    Ok(Some(Event::Progress))
}

fn refused(
    refusal: &shared::sender::Refusal<'_>,
    outbox: &mut Outbox,
    phase: &mut Phase,
) -> Result<Option<Event>, End> {
    let shared::sender::Refusal { alias, pseq, .. } = *refusal;
    let said = Refusal::new(refusal.code, refusal.text);
    if refusal.fatal {
        let of_channel = pseq == 0 && outbox.can_spare(alias);
        return Err(if of_channel { End::ChannelRefused(alias, said) } else { End::Refused(said) });
    }
    match refusal.error_code() {
        Some(ErrorCode::Gap) => outbox.gap(alias, pseq)?,
        Some(ErrorCode::StoreUnavailable) => {
            outbox.send_again(alias, pseq)?;
            if !matches!(phase, Phase::Draining(_)) {
                let wait = Duration::from_millis(refusal.retry_ms.into()).max(MIN_RETRY);
                *phase = Phase::Paused(Instant::now() + wait);
            }
        }
        _ if pseq == 0 => return Ok(Some(Event::ChannelRefused(alias, said))),
        _ => {
            if outbox.refuse(alias, pseq)? {
                return Ok(Some(Event::Refused(alias, pseq, said)));
            }
        }
    }
    Ok(Some(Event::Progress))
}

/// Writes what the socket takes; false if it is full.
fn write_some(stream: &TcpStream, outbound: &mut BytesMut) -> Result<bool, End> {
    let mut wrote = false;
    while !outbound.is_empty() {
        match stream.try_write(outbound) {
            Ok(n) => {
                outbound.advance(n);
                wrote = true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(wrote),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(wrote)
}

/// Reads what has come; false if nothing had.
fn read_some(stream: &TcpStream, inbound: &mut BytesMut) -> Result<bool, End> {
    inbound.reserve(4096);
    match stream.try_read_buf(inbound) {
        Ok(0) => Err(End::Lost("it closed the connection".into())),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.into()),
    }
}
