//! A way into one channel for who must never wait: what the store does not take at once is not published, and that is
//! told. It does not hold for receivers either, whatever the channel says of them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use shared::{ChannelId, Kind};
use tokio::sync::oneshot;

use super::hub::Hub;
use crate::store::{Receipt, Refused, Ticket, chunk::ChunkBuilder};

/// Publishes to one channel what may be lost.
#[derive(Debug)]
pub struct Mirror {
    hub: Arc<Hub>,
    channel: ChannelId,
    outstanding: Mutex<Outstanding>,
}

/// Messages that are to be published together.
#[derive(Debug, Default)]
pub struct Batch(ChunkBuilder);

/// What was appended, and is not known to be stored.
#[derive(Debug, Default)]
struct Outstanding {
    bytes: u64,
    tickets: VecDeque<Appended>,
}

#[derive(Debug)]
struct Appended {
    outcome: oneshot::Receiver<Result<Receipt, Refused>>,
    messages: u64,
    bytes: u64,
}

/// Bytes that may be on their way into the store; beyond them it takes nothing more.
const MOST: u64 = 1 << 20;

impl Mirror {
    /// A way into a channel, which is created by the first message.
    pub fn new(hub: &Arc<Hub>, channel: ChannelId) -> Self {
        Self { hub: Arc::clone(hub), channel, outstanding: Mutex::default() }
    }

    /// Whether something would be taken now.
    pub fn has_room(&self) -> bool {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner).bytes < MOST
            && self.hub.store().room().is_none()
    }

    /// Publishes what is in a batch, and leaves nothing in it. How many messages were lost by it: these, or some of
    /// before of which it was not known yet.
    pub fn publish(&self, batch: &mut Batch) -> u64 {
        let mut outstanding = self.outstanding.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lost = outstanding.settle();
        let Some(messages) = batch.0.take() else { return lost };
        let (count, bytes) = (messages.count(), messages.frames().len() as u64);
        if outstanding.bytes >= MOST || self.hub.store().room().is_some() {
            return lost + count;
        }
        match self.hub.publish(self.channel.clone(), messages, None) {
            Ticket::Settled(Ok(_)) => {}
            Ticket::Settled(Err(_)) => lost += count,
            Ticket::Pending(outcome) => {
                outstanding.bytes += bytes;
                outstanding.tickets.push_back(Appended { outcome, messages: count, bytes });
            }
        }
        lost
    }

    /// Looks what has become of what was appended; how many messages were lost.
    pub fn settle(&self) -> u64 {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner).settle()
    }
}

impl Batch {
    /// Adds a message, if it belongs in the same batch.
    ///
    /// # Errors
    /// If what there is has to be published first.
    pub fn push(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Full> {
        if self.0.is_full_for(payload.len()) {
            return Err(Full);
        }
        self.0.push(kind, payload, 0);
        Ok(())
    }
}

/// A batch takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the batch is full")]
pub struct Full;

impl Outstanding {
    /// Forgets what is known by now; how many messages of it were not stored.
    fn settle(&mut self) -> u64 {
        let mut lost = 0;
        while let Some(first) = self.tickets.front_mut() {
            match first.outcome.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => break,
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => lost += first.messages,
            }
            self.bytes -= first.bytes;
            self.tickets.pop_front();
        }
        lost
    }
}
