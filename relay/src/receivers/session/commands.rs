//! What a receiver says: understood by the WebSocket core, which works on memory, and acted upon.

use std::io::{self, Read, Write};

use bytes::{Buf, BytesMut};
use shared::{
    ChannelId, ChannelPattern, ErrorCode, Kind,
    receiver::{CloseCode, Command, Data, Event, Since, Subprotocol},
};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Error as WsError, Message, error::CapacityError};

use super::{Over, Phase, Session};
use crate::{
    channel::cursor::{Beginning, Cursor},
    receivers::protocol,
    store::{
        Receipt, Refused, Ticket,
        chunk::{ChunkBuilder, Messages},
        selection::Selection,
    },
};

impl Session {
    /// Acts on what was read.
    pub(super) async fn understand(&mut self) -> Result<(), Over> {
        let mut echo = ChunkBuilder::default();
        while self.unread && matches!(self.phase, Phase::Open) && self.is_reading() {
            let mut memory = Memory { unread: &mut self.inbound, written: self.outbound.control() };
            match self.core.read(&mut memory) {
                Ok(Message::Text(text)) => match self.form {
                    Subprotocol::Raw => self.echo(&mut echo, Kind::Text, text.as_bytes()),
                    Subprotocol::Json | Subprotocol::Binary => self.obey(&text).await?,
                },
                Ok(Message::Binary(bytes)) => match self.form {
                    Subprotocol::Raw => self.echo(&mut echo, Kind::Binary, &bytes),
                    Subprotocol::Json | Subprotocol::Binary => {
                        self.refuse_command(ErrorCode::Protocol, "commands are JSON text", None);
                    }
                },
                Ok(Message::Close(_)) => {
                    let mut close = Vec::new();
                    let _ = self.core.flush(&mut Memory { unread: &mut self.inbound, written: &mut close });
                    self.phase = Phase::Leaving { close, deadline: Instant::now() + self.settings.close };
                }
                Ok(_) => {}
                Err(WsError::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => self.unread = false,
                Err(WsError::Capacity(CapacityError::MessageTooLong { .. })) => {
                    self.leave(CloseCode::TooBig, "the message is larger than the relay accepts");
                }
                Err(WsError::Utf8(_)) => self.leave(CloseCode::InvalidText, "text that is not UTF-8"),
                Err(e) => self.leave(CloseCode::Protocol, &e.to_string()),
            }
        }
        self.publish_echo(&mut echo);
        if self.inbound.is_empty() {
            // An idle receiver shall not keep a buffer.
            self.inbound = BytesMut::new();
        }
        self.settle_publishes()
    }

    /// What a raw receiver sent: published if it asked for that, else ignored.
    fn echo(&mut self, echo: &mut ChunkBuilder, kind: Kind, payload: &[u8]) {
        if self.publish {
            if echo.is_full_for(payload.len()) {
                self.publish_echo(echo);
            }
            echo.push(kind, payload, 0);
        }
    }

    fn publish_echo(&mut self, echo: &mut ChunkBuilder) {
        if let (Some(messages), Some(channel)) = (echo.take(), &self.channel) {
            self.unsettled.push_back((None, self.hub.publish(channel.clone(), messages, None)));
            self.room.ask(&self.hub);
        }
    }

    async fn obey(&mut self, text: &str) -> Result<(), Over> {
        match protocol::command(text) {
            Ok(Command::Publish { id, channel, data }) => self.publish(id, channel, &data),
            // Rare, and larger than all else that a session waits for.
            Ok(Command::Subscribe { channel, since, last }) => {
                Box::pin(self.subscribe(channel, since, last)).await?
            }
            Ok(Command::Unsubscribe { channel }) => {
                let past = Selection::from(channel.clone());
                for backfill in std::mem::take(&mut self.backfills) {
                    if *backfill.selection() == past {
                        self.cursor.go_on_from(&backfill);
                    } else {
                        self.backfills.push_back(backfill);
                    }
                }
                self.reselect(&self.cursor.selection().without(&channel));
            }
            Ok(Command::Ping) => self.outbound.event(&Event::Pong),
            Err((code, message, id)) => self.refuse_command(code, &message, id),
        }
        Ok(())
    }

    fn publish(&mut self, id: u64, channel: Option<ChannelId>, data: &Data<'_>) {
        let Some(channel) = channel.or_else(|| self.channel.clone()) else {
            let text = "which channel? a pattern was subscribed, so `channel` must say it";
            return self.refuse_command(ErrorCode::InvalidChannel, text, Some(id));
        };
        let Ok((kind, payload)) = data.decode() else {
            return self.refuse_command(ErrorCode::Protocol, "`base64` is not valid base64", Some(id));
        };
        if payload.len() > self.settings.max_message {
            let text = format!("at most {} bytes are accepted", self.settings.max_message);
            return self.refuse_command(ErrorCode::TooBig, &text, Some(id));
        }
        let ticket = self.hub.publish(channel, Messages::one(kind, &payload), None);
        self.unsettled.push_back((Some(id), ticket));
        self.room.ask(&self.hub);
    }

    async fn subscribe(
        &mut self,
        pattern: ChannelPattern,
        since: Since,
        last: Option<u64>,
    ) -> Result<(), Over> {
        let selection = self.cursor.selection().with(pattern.clone());
        if selection.patterns().len() > self.settings.subscriptions
            || self.backfills.len() >= self.settings.subscriptions
        {
            let text = format!("at most {} channels or patterns at once", self.settings.subscriptions);
            self.refuse_command(ErrorCode::TooMany, &text, None);
            return Ok(());
        }
        let past = Cursor::begin(&self.hub, &pattern.clone().into(), self.form, since, last).await;
        let (mut past, mut beginning) = past.map_err(|_| Over)?;
        self.reselect(&selection);
        let here = self.cursor.position().seq;
        if beginning.from < here {
            past.end_at(here);
            self.backfills.push_back(past);
            self.live = false;
        } else {
            beginning.from = here;
        }
        self.hello(&pattern, &beginning);
        self.tell(beginning.missing);
        Ok(())
    }

    fn reselect(&mut self, selection: &Selection) {
        if selection != self.cursor.selection() {
            self.cursor.reselect(selection);
        }
    }

    fn refuse_command(&mut self, code: ErrorCode, message: &str, id: Option<u64>) {
        self.outbound.event(&Event::Error { code, message: message.into(), id });
    }

    pub(super) fn hello(&mut self, pattern: &ChannelPattern, beginning: &Beginning) {
        if self.form == Subprotocol::Raw {
            return;
        }
        let bounds = self.hub.store().bounds(&pattern.clone().into());
        self.outbound.event(&Event::Hello {
            channel: pattern.clone(),
            epoch: self.hub.store().epoch(),
            first: bounds.first,
            head: bounds.head,
            from: beginning.from,
            recovered: beginning.recovered,
            reason: beginning.reason,
        });
    }

    /// Takes note of the publishes that are settled, in order.
    pub(super) fn settle_publishes(&mut self) -> Result<(), Over> {
        while let Some((_, Ticket::Settled(outcome))) = self.unsettled.front() {
            let outcome = *outcome;
            self.settled(outcome)?;
        }
        Ok(())
    }

    pub(super) fn settled(&mut self, outcome: Result<Receipt, Refused>) -> Result<(), Over> {
        let Some((id, _)) = self.unsettled.pop_front() else { return Ok(()) };
        match (outcome, id) {
            (Ok(receipt), id) => {
                self.own = receipt.last;
                if let Some(id) = id {
                    self.outbound.event(&Event::Ack { id, seq: receipt.last });
                }
            }
            (Err(refused), Some(id)) => self.refuse_command(refused.code(), &refused.to_string(), Some(id)),
            (Err(refused), None) => self.leave(CloseCode::TryLater, &refused.to_string()),
        }
        Ok(())
    }
}

/// Memory in place of a socket for the WebSocket core: what was read and not understood, and where it writes.
struct Memory<'a> {
    unread: &'a mut BytesMut,
    written: &'a mut Vec<u8>,
}

impl Read for Memory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = buffer.len().min(self.unread.len());
        self.unread.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

impl Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
