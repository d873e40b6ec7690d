//! From messages to what is written: rendered into a batch that grows while the writer is busy, and handed over
//! as soon as it is free.

use std::time::Duration;

use shared::{Envelope, Epoch, Position};
use tokio::time::Instant;

use crate::{
    notices::{Remark, Weight},
    render::Renderer,
    sink::Part,
    writer::{Batch, Ended, Ending, Writer},
};

/// Bytes that may wait for the writer; beyond, nothing more is read from the relay.
const MAX_WAITING: usize = 1024 * 1024;

/// Remarks that may wait for the writer; likewise.
const MAX_REMARKS: usize = 1024;

/// How often a position is kept, at most.
const KEEP_EVERY: Duration = Duration::from_millis(200);

/// All output of messages.
#[derive(Debug)]
pub(crate) struct Output {
    renderer: Renderer,
    /// Whether the writer must know whose bytes are whose.
    per_channel: bool,
    batch: Batch,
    writer: Writer,
    keeping: Keeping,
}

/// Whether the position is kept, and when next.
#[derive(Debug, Clone, Copy)]
enum Keeping {
    Never,
    /// The position is kept; not before then again.
    Kept(Instant),
    /// It has moved; to be kept then.
    Moved(Instant),
}

impl Output {
    /// `durable`: whether the position is to be handed to the writer.
    pub(crate) fn new(renderer: Renderer, per_channel: bool, durable: bool, writer: Writer) -> Self {
        let keeping = if durable { Keeping::Kept(Instant::now()) } else { Keeping::Never };
        Self { renderer, per_channel, batch: Batch::default(), writer, keeping }
    }

    /// Whether more messages may be added.
    pub(crate) fn has_room(&self) -> bool {
        self.batch.bytes.len() < MAX_WAITING && self.batch.remarks.len() < MAX_REMARKS
    }

    /// Whether messages or remarks wait for the writer.
    fn is_waiting(&self) -> bool {
        !self.batch.bytes.is_empty() || !self.batch.remarks.is_empty()
    }

    /// Adds a message of the store's `epoch`.
    pub(crate) fn push(&mut self, epoch: Epoch, message: &Envelope) {
        let before = self.batch.bytes.len();
        self.renderer.push(&mut self.batch.bytes, epoch, message);
        if self.per_channel {
            let len = self.batch.bytes.len() - before;
            match self.batch.parts.last_mut() {
                Some(part) if part.channel == message.channel => part.len += len,
                _ => self.batch.parts.push(Part { channel: message.channel.clone(), len }),
            }
        }
    }

    /// Says something on stderr after the messages so far.
    pub(crate) fn remark(&mut self, weight: Weight, text: impl std::fmt::Display) {
        self.batch.remarks.push(Remark { at: self.batch.bytes.len(), weight, text: text.to_string() });
    }

    /// The position has moved.
    pub(crate) fn moved(&mut self) {
        if let Keeping::Kept(next) = self.keeping {
            self.keeping = Keeping::Moved(next);
        }
    }

    /// Whether there is something to hand over now.
    pub(crate) fn is_due(&self) -> bool {
        self.is_waiting() || matches!(self.keeping, Keeping::Moved(at) if at <= Instant::now())
    }

    /// When there will be, if it is not now: the position is to be kept then.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        match self.keeping {
            Keeping::Moved(at) if !self.is_due() => Some(at),
            Keeping::Moved(_) | Keeping::Kept(_) | Keeping::Never => None,
        }
    }

    /// Hands what is due to the writer if it is free, with the position if it is to be kept.
    pub(crate) fn hand_over(&mut self, position: Option<Position>) {
        if !self.is_due() {
            return;
        }
        let now = Instant::now();
        let keep = matches!(self.keeping, Keeping::Moved(at) if at <= now);
        self.batch.position = position.filter(|_| keep);
        if self.writer.try_write(&mut self.batch) {
            if keep {
                self.keeping = Keeping::Kept(now + KEEP_EVERY);
            }
        } else {
            // The batch will grow, and its position move, until the writer is free.
            self.batch.position = None;
        }
    }

    /// Waits until the writer is free.
    pub(crate) async fn ready(&self) {
        self.writer.ready().await;
    }

    /// Hands everything over and waits until it is written, the position kept.
    pub(crate) async fn finish(
        mut self,
        position: Option<Position>,
        ended: &mut Ended,
    ) -> anyhow::Result<Ending> {
        if let Keeping::Moved(_) = self.keeping {
            self.batch.position = position;
        }
        if self.is_waiting() || self.batch.position.is_some() {
            tokio::select! {
                () = self.writer.ready() => self.writer.try_write(&mut self.batch),
                ending = &mut *ended => return flatten(ending),
            };
        }
        drop(self.writer);
        flatten(ended.await)
    }
}

/// The thread tells how it ended unless it panicked.
pub(crate) fn flatten<E>(ending: Result<anyhow::Result<Ending>, E>) -> anyhow::Result<Ending> {
    ending.unwrap_or_else(|_| Err(anyhow::anyhow!("the writer has failed")))
}
