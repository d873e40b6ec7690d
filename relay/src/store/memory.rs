//! The engine that keeps everything in memory: the default. Commits at once, in the order of appends.

mod log;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::ready,
    io,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use log::{Log, before_last};
use shared::{
    ChannelId, Epoch, Seq,
    receiver::GapReason,
    sender::{Levels, ProducerId},
};

use super::{
    Answer, Batch, Bounds, ChannelStore, Claim, Done, Hole, Page, Receipt, Refused, Retention, StoreSettings,
    Stored, Tail, Ticket,
    chunk::{Chunk, Place},
    producers::Producers,
    selection::Selection,
};

/// Entries that reading a pattern looks at before it gives what it has: bounds the time that the lock is held.
const SCAN: usize = 4096;

/// Keeps channels in memory, up to the limits of its settings.
pub struct Memory {
    epoch: Epoch,
    settings: StoreSettings,
    state: Mutex<State>,
    tail: OnceLock<Tail>,
}

struct State {
    /// The last seq that was given.
    head: Seq,
    /// The latest time that was given; time never goes back here.
    time: u64,
    channels: HashMap<ChannelId, Log>,
    /// Channels that went for being idle: what a receiver that comes back is told.
    retired: HashMap<ChannelId, Log>,
    /// Every chunk in the order of seqs; those that went meanwhile are known by their absence from their log.
    order: VecDeque<Entry>,
    /// Chunks that are kept.
    chunks: usize,
    /// What they cost.
    bytes: u64,
    /// The last message that is gone of each channel of which some are.
    gone_through: BTreeMap<Seq, ChannelId>,
    producers: Producers,
}

struct Entry {
    first: Seq,
    time: u64,
    channel: ChannelId,
}

impl Memory {
    /// An empty store.
    pub fn new(epoch: Epoch, settings: StoreSettings) -> Self {
        let state = State {
            head: Seq::ZERO,
            time: 0,
            channels: HashMap::new(),
            retired: HashMap::new(),
            order: VecDeque::new(),
            chunks: 0,
            bytes: 0,
            gone_through: BTreeMap::new(),
            producers: Producers::new(settings.producers),
        };
        Self { epoch, settings, state: Mutex::new(state), tail: OnceLock::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retention(&self, channel: &ChannelId) -> Retention {
        let rule = self.settings.retention.iter().find(|(pattern, _)| pattern.matches(channel));
        rule.map_or(Retention { bytes: self.settings.memory, messages: None, age: None }, |(_, retention)| {
            *retention
        })
    }

    fn commit(&self, batch: Batch) -> Result<Receipt, Refused> {
        let mut state = self.state();
        let state = &mut *state;
        if let Some(stamp) = &batch.stamp {
            state.producers.check(stamp, &batch.channel)?;
        }
        if !state.channels.contains_key(&batch.channel) {
            if state.channels.len() >= self.settings.channels {
                return Err(Refused::TooManyChannels);
            }
            let log = state.retired.remove(&batch.channel);
            let log = log.unwrap_or_else(|| Log::new(self.retention(&batch.channel)));
            state.channels.insert(batch.channel.clone(), log);
        }
        let Some(log) = state.channels.get_mut(&batch.channel) else { unreachable!("it was inserted above") };
        state.time = state.time.max(batch.time);
        let first = Seq(state.head.0 + 1);
        let place = Place { first, prev: log.last(), ordinal: log.ordinal(), time: state.time };
        let chunk = Arc::new(Chunk::new(batch.channel, place, batch.messages));
        state.head = chunk.last();
        state.bytes += chunk.cost();
        state.chunks += 1;
        state.order.push_back(Entry { first, time: state.time, channel: chunk.channel().clone() });
        log.push(Arc::clone(&chunk));
        let let_go = log.enforce();
        state.note_gone(chunk.channel(), let_go);
        if let Some(stamp) = &batch.stamp {
            state.producers.store(stamp, chunk.channel(), chunk.last(), state.time);
        }
        state.enforce(self.settings.memory.saturating_sub(self.settings.encodings));
        // Under the lock, so that the tail sees commits in the order of seqs.
        if let Some(tail) = self.tail.get() {
            tail(&chunk);
        }
        Ok(Receipt { first, last: chunk.last() })
    }
}

impl ChannelStore for Memory {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn levels(&self, _: &ChannelId) -> Levels {
        Levels::ACCEPTED
    }

    fn follow(&self, tail: Tail) {
        assert!(self.tail.set(tail).is_ok(), "a store has one tail");
    }

    fn head(&self) -> Seq {
        self.state().head
    }

    fn claim(
        &self,
        producer: ProducerId,
        epoch: u32,
        keep: Duration,
        now: u64,
    ) -> Answer<'_, Result<Claim, Refused>> {
        // Not before it is asked for: who drops the answer holds nothing.
        Box::pin(async move { Ok(self.state().producers.claim(producer, epoch, keep, now)) })
    }

    fn release(&self, claim: Claim, now: u64) {
        self.state().producers.release(claim, now);
    }

    fn open(
        &self,
        claim: Claim,
        channel: &ChannelId,
        first_pseq: u64,
    ) -> Answer<'_, Result<Stored, Refused>> {
        let stored = self.state().producers.open(claim, channel, first_pseq);
        Box::pin(ready(Ok(stored)))
    }

    fn append(&self, batch: Batch) -> Ticket {
        Ticket::Settled(self.commit(batch))
    }

    fn room(&self) -> Option<Done<'static>> {
        None
    }

    fn bounds(&self, selection: &Selection) -> Bounds {
        let state = self.state();
        state.logs(selection).fold(Bounds::default(), |bounds, (_, log)| Bounds {
            first: match (bounds.first, log.first()) {
                (Seq::ZERO, first) | (first, Seq::ZERO) => first,
                (one, other) => one.min(other),
            },
            head: bounds.head.max(log.last()),
        })
    }

    fn read(&self, selection: &Selection, after: Seq, bytes: u64) -> Answer<'_, Page> {
        let state = self.state();
        let page = match selection.as_channel() {
            Some(channel) => state.read_channel(&channel, after, bytes),
            None => state.read_pattern(selection, after, bytes),
        };
        Box::pin(ready(Ok(Page { holes: state.holes(selection, after), ..page })))
    }

    fn find_time(&self, _: &Selection, time: u64) -> Answer<'_, Seq> {
        let state = self.state();
        let index = state.order.partition_point(|entry| entry.time < time);
        let seq = state.order.get(index).map_or(state.head, |entry| Seq(entry.first.0 - 1));
        Box::pin(ready(Ok(seq)))
    }

    fn find_last(&self, selection: &Selection, count: u64) -> Answer<'_, Seq> {
        let state = self.state();
        let seq = match selection.as_channel() {
            Some(channel) => {
                let chunks = state.channels.get(&channel).map(Log::newest);
                before_last(chunks.into_iter().flatten(), count)
            }
            None => {
                let mut wanted = HashMap::new();
                let entries = state.order.iter().rev().filter(|entry| {
                    *wanted.entry(&entry.channel).or_insert_with(|| selection.matches(&entry.channel))
                });
                before_last(entries.filter_map(|entry| state.chunk(entry)), count)
            }
        };
        Box::pin(ready(Ok(seq.unwrap_or(state.head))))
    }

    fn trim(&self, now: u64) -> Done<'_> {
        let idle = self.settings.channel_idle;
        let state = &mut *self.state();
        let mut let_go = Vec::new();
        for (channel, log) in &mut state.channels {
            let_go.extend(log.expire(now, idle).map(|gone| (channel.clone(), gone)));
        }
        for (channel, gone) in let_go {
            state.note_gone(&channel, Some(gone));
        }
        let retired = state.channels.extract_if(|_, log| log.is_idle(now, idle));
        state.retired.extend(retired);
        state.forget_retired(self.settings.channels);
        state.compact();
        state.producers.expire(now);
        Box::pin(ready(()))
    }

    /// What is in memory goes with it: there is nothing to be done.
    fn close(&self) -> Done<'_, io::Result<()>> {
        Box::pin(ready(Ok(())))
    }
}

impl State {
    /// A channel's log, also if it is retired.
    fn log(&self, channel: &ChannelId) -> Option<&Log> {
        self.channels.get(channel).or_else(|| self.retired.get(channel))
    }

    /// The logs of a selection, those of retired channels too.
    fn logs<'a>(
        &'a self,
        selection: &'a Selection,
    ) -> Box<dyn Iterator<Item = (&'a ChannelId, &'a Log)> + 'a> {
        match selection.as_channel() {
            Some(channel) => {
                let log =
                    self.channels.get_key_value(&channel).or_else(|| self.retired.get_key_value(&channel));
                Box::new(log.into_iter())
            }
            None => Box::new(self.channels.iter().chain(&self.retired).filter(|(c, _)| selection.matches(c))),
        }
    }

    fn holes(&self, selection: &Selection, after: Seq) -> Vec<Hole> {
        let hole = |channel: &ChannelId| {
            let log = self.log(channel).filter(|log| log.gone_through() > after)?;
            let through = log.gone_through();
            let before = if log.first() == Seq::ZERO { Seq(through.0 + 1) } else { log.first() };
            let (channel, ordinal) = (channel.clone(), log.gone());
            Some(Hole { channel, through, before, ordinal, reason: GapReason::Retention })
        };
        match selection.as_channel() {
            Some(channel) => hole(&channel).into_iter().collect(),
            None => {
                let later = self.gone_through.range((Bound::Excluded(after), Bound::Unbounded));
                later.map(|(_, channel)| channel).filter(|c| selection.matches(c)).filter_map(hole).collect()
            }
        }
    }

    fn read_channel(&self, channel: &ChannelId, after: Seq, bytes: u64) -> Page {
        let mut page = Page { through: self.head.max(after), ..Page::default() };
        let Some(log) = self.channels.get(channel) else { return page };
        let mut cost = 0;
        for chunk in log.after(after) {
            if cost >= bytes {
                page.through = page.chunks.last().map_or(after, |chunk: &Arc<Chunk>| chunk.last());
                break;
            }
            cost += chunk.cost();
            page.chunks.push(Arc::clone(chunk));
        }
        page
    }

    fn read_pattern(&self, selection: &Selection, after: Seq, bytes: u64) -> Page {
        let mut page = Page { through: after, ..Page::default() };
        let mut wanted: HashMap<&ChannelId, bool> = HashMap::new();
        // The chunk that holds `after` may go on behind it.
        let from = self.order.partition_point(|entry| entry.first <= after).saturating_sub(1);
        let mut cost = 0;
        for (scanned, entry) in self.order.range(from..).enumerate() {
            if scanned >= SCAN || cost >= bytes {
                return page;
            }
            if *wanted.entry(&entry.channel).or_insert_with(|| selection.matches(&entry.channel))
                && let Some(chunk) = self.chunk(entry).filter(|chunk| chunk.last() > after)
            {
                cost += chunk.cost();
                page.through = chunk.last();
                page.chunks.push(Arc::clone(chunk));
            } else {
                page.through = page.through.max(entry.first);
            }
        }
        page.through = self.head.max(after);
        page
    }

    fn chunk(&self, entry: &Entry) -> Option<&Arc<Chunk>> {
        self.channels.get(&entry.channel)?.starting_at(entry.first)
    }

    /// Lets the oldest chunks of all go until the rest costs no more than that.
    fn enforce(&mut self, limit: u64) {
        while self.bytes > limit {
            let Some(entry) = self.order.pop_front() else { break };
            let log = self.channels.get_mut(&entry.channel);
            let gone = log.and_then(|log| log.let_go_of(entry.first));
            self.note_gone(&entry.channel, gone);
        }
        self.compact();
    }

    fn note_gone(&mut self, channel: &ChannelId, gone: Option<log::Gone>) {
        if let Some(gone) = gone {
            self.chunks -= gone.chunks;
            self.bytes -= gone.bytes;
            self.gone_through.remove(&gone.before);
            self.gone_through.insert(gone.through, channel.clone());
        }
    }

    /// Of retired channels at most so many are remembered, those that were used last.
    fn forget_retired(&mut self, limit: usize) {
        let Some(excess) = self.retired.len().checked_sub(limit).filter(|excess| *excess > 0) else { return };
        let mut lasts: Vec<Seq> = self.retired.values().map(Log::last).collect();
        let (_, newest_forgotten, _) = lasts.select_nth_unstable(excess - 1);
        let newest_forgotten = *newest_forgotten;
        self.retired.retain(|_, log| log.last() > newest_forgotten);
        let (channels, retired) = (&self.channels, &self.retired);
        self.gone_through
            .retain(|_, channel| channels.contains_key(channel) || retired.contains_key(channel));
    }

    /// Drops the entries of chunks that went, once they are more than half.
    fn compact(&mut self) {
        if self.order.len() <= 64 || self.order.len() <= 2 * self.chunks {
            return;
        }
        let mut order = std::mem::take(&mut self.order);
        order.retain(|entry| self.chunk(entry).is_some());
        self.order = order;
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        f.debug_struct("Memory")
            .field("epoch", &self.epoch)
            .field("head", &state.head)
            .field("channels", &state.channels.len())
            .field("chunks", &state.chunks)
            .field("bytes", &state.bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract;

    fn memory(settings: StoreSettings) -> Arc<dyn ChannelStore> {
        Arc::new(Memory::new(Epoch(7), settings))
    }

    #[tokio::test]
    async fn memory_keeps_the_contract_of_a_store() {
        contract::holds(memory).await;
    }
}
