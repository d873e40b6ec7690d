//! A raw sender: any program that can write to a socket. Reads, frames, publishes; answers each message if it was
//! asked to.

mod opening;
mod outcomes;

use std::{future::poll_fn, io, sync::Arc};

use shared::{ErrorCode, Kind, Position, Seq};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep_until},
};
use tracing::debug;

use self::{
    opening::first_line,
    outcomes::{Outcome, Outcomes},
};
use super::{
    RawSettings, SenderSettings,
    first_line::FirstLine,
    framing::{AutoSettings, Framer, Piece},
};
use crate::{
    channel::{hub::Hub, publisher::Publisher, room::Room},
    connection::{Connection, SENDER_READ, SENDER_TURN},
    metrics::Metrics,
    shutdown::Life,
    sniff::{RequestGuard, Watch},
    store::{
        Receipt, Refused,
        chunk::{ChunkBuilder, Messages},
    },
};

/// Reads that may follow the relay's order to stop: what has arrived by then.
const LAST_READS: usize = 64;

/// Bytes of answers that are written at a time.
const ANSWERS: usize = 16 * 1024;

/// A raw sender's connection.
#[derive(Debug)]
pub struct RawSession {
    connection: Connection,
    hub: Arc<Hub>,
    room: Room,
    publisher: Publisher,
    settings: Arc<SenderSettings>,
    epoch: shared::Epoch,
    framer: Framer,
    guard: Option<RequestGuard>,
    ack: bool,
    builder: ChunkBuilder,
    /// What is not answered yet, in the sender's order.
    outcomes: Outcomes,
    metrics: Arc<Metrics>,
}

/// The connection is over: it was refused, or does not take its answers.
#[derive(Debug)]
struct Over;

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// Bytes; there are likely more of them.
    Bytes {
        more: bool,
    },
    Nothing,
    /// The sender is done, or what it sends can't be understood any more.
    End,
}

impl RawSession {
    /// Takes a connection: what its listener says holds, unless its first line says otherwise. `guard` watches
    /// for a browser's request.
    ///
    /// Gives none if it ended, or was refused, before it was known where to publish.
    pub async fn begin(
        mut connection: Connection,
        hub: &Arc<Hub>,
        raw: &RawSettings,
        settings: Arc<SenderSettings>,
        guard: Option<RequestGuard>,
        metrics: Arc<Metrics>,
        life: &Life,
    ) -> Option<Self> {
        let line = if raw.first_line {
            tokio::select! {
                line = first_line(&mut connection, &settings) => line.ok()?,
                () = life.stopping() => return None,
            }
        } else {
            Ok(FirstLine::default())
        };
        let line = match line {
            Ok(line) => line,
            Err(e) => {
                debug!(peer = %connection.peer(), "first line refused: {e}");
                let _ = connection.write_all(format!("ERR {} {e}\n", e.code()).as_bytes()).await;
                connection.linger(settings.close).await;
                return None;
            }
        };
        let named = || raw.channel.resolve(connection.peer(), connection.local(), None);
        let channel = match line.channel.map_or_else(named, Ok) {
            Ok(channel) => channel,
            Err(e) => {
                debug!(peer = %connection.peer(), "the listener's channel is no name for this connection: {e}");
                return None;
            }
        };
        let auto = AutoSettings { undecided: settings.undecided, silence: settings.silence };
        let framing = line.framing.as_ref().unwrap_or(&raw.framing);
        Some(Self {
            framer: Framer::new(framing, raw.max_message, auto),
            hub: Arc::clone(hub),
            room: Room::default(),
            publisher: Publisher::new(hub, channel),
            epoch: hub.store().epoch(),
            ack: line.ack,
            connection,
            settings,
            guard,
            builder: ChunkBuilder::default(),
            outcomes: Outcomes::default(),
            metrics,
        })
    }

    /// Runs until the sender ends or the relay stops.
    pub async fn run(mut self, life: Life) {
        let close = self.settings.close;
        // A sender that goes on writing, or does not read its answers, must not hold up the end of the relay.
        let overdue = async {
            life.stopping().await;
            tokio::time::sleep(close).await;
        };
        tokio::select! {
            () = self.serve(&life) => {}
            () = overdue => {}
        }
        self.connection.linger(self.settings.close).await;
    }

    async fn serve(&mut self, life: &Life) {
        let mut reads = 0;
        loop {
            if !self.room.ask(&self.hub) {
                tokio::select! {
                    () = life.stopping() => return self.stop().await,
                    () = self.room.wait() => {}
                }
            }
            let deadline = self.framer.deadline().map(Instant::from_std);
            let may_read = !self.outcomes.is_full();
            let heard = tokio::select! {
                biased;
                () = life.stopping() => return self.stop().await,
                outcome = poll_fn(|cx| self.outcomes.poll_next(cx)) => {
                    if self.settle(outcome).await.and(self.settle_known().await).is_err() {
                        return;
                    }
                    continue;
                }
                readable = self.connection.readable(), if may_read => match readable {
                    Ok(()) => self.read(),
                    Err(_) => Heard::End,
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    let (framer, mut sink) = self.framing();
                    framer.tick(Instant::now().into_std(), &mut |piece| sink.take(piece));
                    sink.publish();
                    Heard::Bytes { more: false }
                }
            };
            let settled = match heard {
                Heard::End => self.settle_all().await,
                Heard::Bytes { .. } | Heard::Nothing => self.settle_known().await,
            };
            if settled.is_err() {
                return;
            }
            let more = match heard {
                Heard::End => return,
                Heard::Nothing => continue,
                Heard::Bytes { more } => more,
            };
            if self.framer.holds_back() {
                self.publisher.hold(self.settings.hold).await;
            }
            reads += 1;
            if !more || reads >= SENDER_TURN {
                reads = 0;
                // Receivers take what was published while it is still near.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Publishes what has arrived already, but no half line: its other half would come to another relay.
    async fn stop(&mut self) {
        for _ in 0..LAST_READS {
            if !matches!(self.read(), Heard::Bytes { .. }) || self.settle_known().await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if !self.framer.holds_back() {
            let (framer, mut sink) = self.framing();
            framer.finish(&mut |piece| sink.take(piece));
            sink.publish();
        }
        // What is refused now can't be helped any more.
        let _ = self.settle_all().await;
    }

    fn read(&mut self) -> Heard {
        let Self { connection, framer, guard, builder, outcomes, publisher, ack, metrics, .. } = self;
        let peer = connection.peer();
        let read = connection.read_with(|bytes| {
            match guard.as_mut().map(|guard| guard.watch(bytes)) {
                Some(Watch::Request) => {
                    debug!(%peer, "closed a raw sender that sent an HTTP request");
                    Metrics::count(&metrics.requests_to_raw);
                    return Heard::End;
                }
                Some(Watch::Clear) => *guard = None,
                Some(Watch::Open) | None => {}
            }
            let mut sink = Sink { builder, outcomes, publisher, metrics, ack: *ack };
            let lost = if bytes.is_empty() {
                framer.finish(&mut |piece| sink.take(piece));
                None
            } else {
                framer.feed(bytes, Instant::now().into_std(), &mut |piece| sink.take(piece)).err()
            };
            sink.publish();
            if let Some(lost) = lost {
                outcomes.refused(lost.code(), lost.to_string());
            }
            match bytes.len() {
                0 => Heard::End,
                _ if lost.is_some() => Heard::End,
                count => Heard::Bytes { more: count == SENDER_READ },
            }
        });
        match read {
            Ok(heard) => heard,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Heard::Nothing
            }
            Err(_) => Heard::End,
        }
    }

    /// The framer, and where its pieces go.
    fn framing(&mut self) -> (&mut Framer, Sink<'_>) {
        let Self { framer, builder, outcomes, publisher, ack, metrics, .. } = self;
        (framer, Sink { builder, outcomes, publisher, metrics, ack: *ack })
    }

    /// Answers what is known by now.
    async fn settle_known(&mut self) -> Result<(), Over> {
        let mut answers = String::new();
        while let Some(outcome) = self.outcomes.try_next() {
            self.note(outcome, &mut answers).await?;
        }
        self.answer(&mut answers).await
    }

    /// Waits until the store has everything that was published, and answers.
    async fn settle_all(&mut self) -> Result<(), Over> {
        while !self.outcomes.is_empty() {
            let outcome = poll_fn(|cx| self.outcomes.poll_next(cx)).await;
            self.settle(outcome).await?;
        }
        Ok(())
    }

    /// Answers an outcome.
    async fn settle(&mut self, outcome: Outcome) -> Result<(), Over> {
        let mut answers = String::new();
        self.note(outcome, &mut answers).await?;
        self.answer(&mut answers).await
    }

    /// Notes what there is to answer to an outcome.
    async fn note(&mut self, outcome: Outcome, answers: &mut String) -> Result<(), Over> {
        match outcome {
            Outcome::Published(messages, known) => match stored(&self.publisher, &messages, known).await {
                Ok(first) if self.ack => {
                    for index in 0..messages.count() {
                        let position = Position { epoch: self.epoch, seq: Seq(first.0 + index) };
                        answers.push_str(&format!("OK {position}\n"));
                        if answers.len() >= ANSWERS {
                            self.answer(answers).await?;
                        }
                    }
                }
                Ok(_) => {}
                Err(refused) => {
                    debug!(channel = %self.publisher.channel(), "a raw sender was refused: {refused}");
                    answers.push_str(&format!("ERR {} {refused}\n", refused.code()));
                    self.answer(answers).await?;
                    return Err(Over);
                }
            },
            Outcome::Refused(code, text) => {
                debug!(channel = %self.publisher.channel(), "a raw sender's message was refused: {text}");
                answers.push_str(&format!("ERR {code} {text}\n"));
            }
        }
        Ok(())
    }

    /// Writes answers, if they are wanted. A sender that takes none of them for so long is given up; one that is gone
    /// is noticed at the next read.
    async fn answer(&mut self, answers: &mut String) -> Result<(), Over> {
        if self.ack && !answers.is_empty() {
            let written = self.connection.write_all(answers.as_bytes());
            let _ = tokio::time::timeout(self.settings.stall, written).await.map_err(|_| Over)?;
        }
        answers.clear();
        Ok(())
    }
}

/// The seq of the first of the messages, once they are stored. Where the store can't take them they are published
/// again; those behind them have the same outcome then, and their turn.
async fn stored(
    publisher: &Publisher,
    messages: &Messages,
    mut known: Result<Receipt, Refused>,
) -> Result<Seq, Refused> {
    loop {
        match known {
            Ok(receipt) => return Ok(receipt.first),
            Err(Refused::Unavailable { retry }) => {
                tokio::time::sleep(retry).await;
                known = publisher.publish(messages.clone(), None).await;
            }
            Err(refused) => return Err(refused),
        }
    }
}

/// Where a framer's pieces go.
struct Sink<'a> {
    builder: &'a mut ChunkBuilder,
    outcomes: &'a mut Outcomes,
    publisher: &'a Publisher,
    metrics: &'a Metrics,
    ack: bool,
}

impl Sink<'_> {
    fn take(&mut self, piece: Piece<'_>) {
        let (code, text) = match piece {
            Piece::Message(message) | Piece::Cut(message) => {
                if matches!(piece, Piece::Cut(_)) {
                    Metrics::count(&self.metrics.messages_cut);
                }
                if self.builder.is_full_for(message.len()) {
                    self.publish();
                }
                return self.builder.push(Kind::of(message), message, 0);
            }
            Piece::TooLong { bytes } => {
                (ErrorCode::TooBig, format!("a message of {bytes} bytes is longer than is accepted"))
            }
            Piece::Incomplete { bytes } => {
                (ErrorCode::Protocol, format!("ended within a message, after {bytes} bytes of it"))
            }
        };
        Metrics::count(&self.metrics.messages_dropped);
        // Answers are given in the order of messages.
        if self.ack {
            self.publish();
        }
        self.outcomes.refused(code, text);
    }

    fn publish(&mut self) {
        if let Some(messages) = self.builder.take() {
            let ticket = self.publisher.publish(messages.clone(), None);
            self.outcomes.published(messages, ticket);
        }
    }
}
