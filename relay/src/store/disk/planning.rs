//! What the writer gives before anything is written: places to batches, numbers to channels, claims to producers.

use std::sync::Arc;

use shared::{ChannelId, Seq};
use tokio::sync::oneshot;

use super::{
    channel::Channel,
    group::{Group, Planned, Reply},
    queue::Claiming,
    state::State,
    writer::Writer,
};
use crate::store::{
    Batch, Claim, Durability, Receipt, Refused,
    chunk::{Chunk, Place},
};

impl Writer {
    /// Gives a batch its place.
    pub(super) fn plan(
        &mut self,
        state: &mut State,
        group: &mut Group,
        batch: Batch,
    ) -> Result<Receipt, Refused> {
        if let Some(stamp) = &batch.stamp {
            self.producers.check(stamp, &batch.channel)?;
        }
        let id = match state.ids.get(&batch.channel) {
            Some(id) => *id,
            None => self.new_channel(state, &batch.channel)?,
        };
        let Some(channel) = state.channels.get_mut(&id) else { unreachable!("it was found or made above") };
        if channel.retired {
            if state.present >= state.limits.channels {
                return Err(Refused::TooManyChannels);
            }
            channel.retired = false;
            state.present += 1;
        }
        state.time = state.time.max(batch.time);
        let (prev, ordinal) = group.tips.get(&id).copied().unwrap_or((channel.last, channel.messages));
        let place = Place { first: Seq(group.head.0 + 1), prev, ordinal, time: state.time };
        let chunk = Arc::new(Chunk::new(channel.name.clone(), place, batch.messages));
        group.head = chunk.last();
        group.tips.insert(id, (chunk.last(), ordinal + chunk.count()));
        if let Some(stamp) = &batch.stamp {
            group.undo.push((*stamp, channel.name.clone(), self.producers.stored(stamp, &channel.name)));
            self.producers.store(stamp, &channel.name, chunk.last(), state.time);
        }
        match channel.durability {
            Durability::Sync => group.sync = true,
            Durability::Async { flush } => {
                group.flush = Some(group.flush.map_or(flush, |other| other.min(flush)));
            }
            Durability::Memory => {}
        }
        let receipt = Receipt { first: place.first, last: chunk.last() };
        let durability = channel.durability;
        channel.planned += 1;
        group.chunks.push(Planned { id, chunk, stamp: batch.stamp, durability, record: None });
        Ok(receipt)
    }

    fn new_channel(&mut self, state: &mut State, name: &ChannelId) -> Result<u32, Refused> {
        if state.present >= state.limits.channels {
            return Err(Refused::TooManyChannels);
        }
        let id = state.next_id;
        state.next_id += 1;
        let (durability, retention) = self.shared.rules(name);
        state.ids.insert(name.clone(), id);
        state.channels.insert(id, Channel::new(name.clone(), durability, retention));
        state.present += 1;
        self.unwritten.insert(id);
        Ok(id)
    }

    /// Gives a producer's place to whoever wants it, if that may be.
    pub(super) fn claim(
        &mut self,
        group: &mut Group,
        claiming: Claiming,
        settle: oneshot::Sender<Result<Claim, Refused>>,
    ) {
        let Claiming { producer, epoch, keep, now } = claiming;
        let outcome = self.producers.claim(producer, epoch, keep, now);
        if let Ok(claim) = outcome {
            let keep = u64::try_from(keep.as_micros()).unwrap_or(u64::MAX);
            group.claims.push((claim, keep, now));
            // Nobody whose place was taken may come back after a crash.
            group.sync = true;
        }
        group.replies.push(Reply::Claim(settle, outcome, now));
    }
}
