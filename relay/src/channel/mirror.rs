//! A way into one channel for who must never wait: what the store does not take at once is not published, and that is
//! told. It does not hold for receivers either, whatever the channel says of them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
    /// Messages that were not stored, and not told of.
    lost: u64,
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
        self.outstanding().bytes < MOST && self.hub.store().room().is_none()
    }

    /// Publishes what is in a batch, and leaves nothing in it.
    pub fn publish(&self, batch: &mut Batch) {
        let Some(messages) = batch.0.take() else { return };
        let mut outstanding = self.outstanding();
        let (count, bytes) = (messages.count(), messages.frames().len() as u64);
        if outstanding.bytes >= MOST || self.hub.store().room().is_some() {
            outstanding.lost += count;
            return;
        }
        match self.hub.publish(self.channel.clone(), messages, None) {
            Ticket::Settled(Ok(_)) => {}
            Ticket::Settled(Err(_)) => outstanding.lost += count,
            Ticket::Pending(outcome) => {
                outstanding.bytes += bytes;
                outstanding.tickets.push_back(Appended { outcome, messages: count, bytes });
            }
        }
    }

    /// How many messages of those that were to be published are known to be lost; each is told once.
    pub fn lost(&self) -> u64 {
        std::mem::take(&mut self.outstanding().lost)
    }

    /// What is still on its way by now.
    fn outstanding(&self) -> MutexGuard<'_, Outstanding> {
        let mut outstanding = self.outstanding.lock().unwrap_or_else(PoisonError::into_inner);
        outstanding.settle();
        outstanding
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
    /// Forgets what is settled.
    fn settle(&mut self) {
        while let Some(first) = self.tickets.front_mut() {
            match first.outcome.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => break,
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => self.lost += first.messages,
            }
            self.bytes -= first.bytes;
            self.tickets.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::Epoch;
    use tokio::task::yield_now;

    use super::*;
    use crate::{
        channel::hub::ChannelRules,
        store::{
            ChannelStore, StoreSettings, contract::grouped::Grouped, memory::Memory, selection::Selection,
        },
    };

    fn settings(channels: usize) -> StoreSettings {
        StoreSettings {
            memory: u64::MAX,
            encodings: 0,
            channels,
            producers: 1,
            channel_idle: Duration::from_secs(3600),
            trim_every: Duration::from_secs(1),
            retention: Vec::new(),
            durability: Vec::new(),
        }
    }

    fn mirror(store: Arc<dyn ChannelStore>) -> Mirror {
        Mirror::new(&Hub::new(store, 0, ChannelRules::default()), "tap/a".parse().unwrap())
    }

    fn stored(mirror: &Mirror) -> u64 {
        let selection = Selection::from("tap/a".parse::<shared::ChannelPattern>().unwrap());
        mirror.hub.store().bounds(&selection).head.0
    }

    /// Publishes so often a message of such a size.
    fn publish(mirror: &Mirror, times: usize, bytes: usize) {
        let mut batch = Batch::default();
        for _ in 0..times {
            batch.push(Kind::Text, &vec![b'x'; bytes]).unwrap();
            mirror.publish(&mut batch);
        }
    }

    #[tokio::test]
    async fn a_store_that_commits_later_is_not_waited_for_and_what_is_too_much_is_dropped_and_told() {
        // Once the bytes that are on their way are too many, once the store has no room for more.
        for (bytes, taken) in [(60_000, MOST.div_ceil(60_004)), (10, 33)] {
            let mirror = mirror(Arc::new(Grouped::new(settings(9))));
            publish(&mirror, 40, bytes);
            assert!(!mirror.has_room());
            assert_eq!((mirror.lost(), mirror.lost()), (40 - taken, 0));
            while stored(&mirror) < taken || !mirror.has_room() {
                yield_now().await;
            }
            publish(&mirror, 1, bytes);
            assert_eq!(mirror.lost(), 0);
            while stored(&mirror) < taken + 1 {
                yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn what_the_store_refuses_is_told_whenever_it_does() {
        let stores: [Arc<dyn ChannelStore>; 2] =
            [Arc::new(Memory::new(Epoch(1), settings(0))), Arc::new(Grouped::new(settings(0)))];
        for store in stores {
            let mirror = mirror(store);
            publish(&mirror, 2, 1);
            let mut lost = 0;
            while lost < 2 {
                lost += mirror.lost();
                yield_now().await;
            }
            assert_eq!(lost, 2);
        }
    }

    #[test]
    fn a_batch_takes_as_much_as_a_chunk() {
        let mut batch = Batch::default();
        assert_eq!(batch.push(Kind::Text, &[b'x'; 100_000]), Ok(()), "whatever there is, one fits");
        assert_eq!(batch.push(Kind::Text, b"x"), Err(Full));
    }
}
