//! The state as the records of a log change it: from a checkpoint on when it is opened, from its beginning when it is
//! repaired; and what a run that ended without a word may have cost.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::BufMut as _;
use shared::{ChannelId, Seq};

use super::{
    channel::Channel,
    checkpoint::{At, Checkpoint},
    examination::Examination,
    record::{self, Found, Header, Sort},
    state::{Active, Limits, State},
    volume::Blob,
};
use crate::store::{Durability, Retention, producers::Producers};

const EVERYTHING: Retention = Retention { bytes: u64::MAX, messages: None, age: None };

/// The state as records change it.
pub(super) struct Replay {
    /// The last seq that was given.
    pub(super) head: Seq,
    /// Up to which seqs may have been.
    pub(super) mark: Seq,
    now: u64,
}

impl Replay {
    /// The state at a checkpoint.
    pub(super) fn begin(
        checkpoint: Checkpoint,
        state: &mut State,
        producers: &mut Producers,
        now: u64,
    ) -> Self {
        let Checkpoint { head, mark, time, next_id, crashes, channels, producers: known, .. } = checkpoint;
        (state.time, state.next_id, state.crashes) = (time, next_id, crashes);
        for (id, known) in channels {
            let durability = Self::durability(known.volatile);
            let mut channel = Channel::new(known.name.clone(), durability, EVERYTHING);
            channel.retired = known.retired;
            channel.newest = known.newest;
            (channel.last, channel.last_time) = (known.last, known.last_time);
            channel.messages = known.messages;
            (channel.gone_through, channel.gone) = (known.gone_through, known.gone);
            channel.crashes = known.crashes;
            if known.gone_through > Seq::ZERO {
                state.gone_through.insert(known.gone_through, id);
            }
            state.ids.insert(known.name, id);
            state.channels.insert(id, channel);
        }
        for producer in known {
            producers.remember(producer.id, producer.epoch, Some(producer.keep), producer.time.max(now));
            for (channel, pseq, seq) in producer.stored {
                if let Some(channel) = state.channels.get(&channel) {
                    producers.remember_stored(producer.id, &channel.name, pseq, seq);
                }
            }
        }
        Self { head, mark, now }
    }

    /// What is known of how firmly a channel was kept: whether a crash can have cost it something.
    fn durability(volatile: bool) -> Durability {
        if volatile { Durability::Async { flush: Duration::ZERO } } else { Durability::Sync }
    }

    /// A channel has that number.
    fn name(&self, state: &mut State, id: u32, name: ChannelId, volatile: bool) {
        state.next_id = state.next_id.max(id + 1);
        // One of the same name was forgotten before it came back.
        let forgotten = state.ids.insert(name.clone(), id).filter(|before| *before != id);
        if let Some(forgotten) = forgotten.and_then(|before| state.channels.remove(&before)) {
            state.gone_through.remove(&forgotten.gone_through);
        }
        let durability = Self::durability(volatile);
        let channel = state.channels.entry(id);
        channel.or_insert_with(|| Channel::new(name, durability, EVERYTHING)).durability = durability;
    }

    /// One more record.
    pub(super) fn record(
        &mut self,
        state: &mut State,
        producers: &mut Producers,
        found: &Found,
        body: &[u8],
    ) {
        let header = &found.header;
        match header.sort {
            Sort::Chunk => {
                self.head = self.head.max(header.last());
                state.time = state.time.max(header.time);
                let Some(channel) = state.channels.get_mut(&header.channel) else { return };
                channel.replay(header);
                if let Some((producer, epoch, _, last)) = record::stamp_of(header, body) {
                    producers.remember(producer, epoch, None, header.time.max(self.now));
                    producers.remember_stored(producer, &channel.name, last, header.last());
                }
            }
            Sort::Channel => {
                let Some((name, volatile)) = record::channel_of(body) else { return };
                self.name(state, header.channel, name, volatile);
            }
            Sort::Claim => {
                if let Some((producer, epoch, keep)) = record::claim_of(body) {
                    producers.remember(producer, epoch, Some(keep), header.time.max(self.now));
                }
            }
            Sort::Reserve => self.mark = self.mark.max(header.first),
            Sort::Synced => {}
            Sort::Crash => {
                crashed(state, header.prev, header.first, body);
                self.head = self.head.max(header.first);
                self.mark = self.mark.max(header.first);
            }
        }
    }
}

/// The state of a log that is repaired: what its checkpoint knew, if there is one, and its whole records.
pub(super) struct Rebuilt {
    state: State,
    producers: Producers,
    replay: Replay,
    at: At,
}

impl Rebuilt {
    /// `blob` is any segment of it.
    pub(super) fn begin(found: &Examination, blob: Arc<dyn Blob>) -> Self {
        let mut state = State::empty(Limits::NONE, Active::new(0, blob));
        let mut producers = Producers::new(usize::MAX);
        let checkpoint = found.checkpoint.clone().unwrap_or_default();
        let at = checkpoint.at;
        let replay = Replay::begin(checkpoint, &mut state, &mut producers, 0);
        // Of the same name the one that came last.
        let names: BTreeMap<_, _> = found.names.iter().collect();
        for (id, name) in names {
            replay.name(&mut state, *id, name.clone(), false);
        }
        Self { state, producers, replay, at }
    }

    /// One more record, which was at this place.
    pub(super) fn record(&mut self, number: u64, offset: u32, found: &Found, body: &[u8]) {
        if number > self.at.segment || number == self.at.segment && offset >= self.at.offset {
            self.replay.record(&mut self.state, &mut self.producers, found, body);
        }
    }

    /// The file for a log that ends there.
    pub(super) fn checkpoint(mut self, end: At, found: &Examination) -> Vec<u8> {
        for (id, channel) in &mut self.state.channels {
            match found.channels.get(id) {
                Some(seen) => {
                    (channel.last, channel.messages) = (seen.last, seen.messages);
                    if seen.before.0 > channel.gone_through {
                        (channel.gone_through, channel.gone) = seen.before;
                    }
                }
                None => (channel.gone_through, channel.gone) = (channel.last, channel.messages),
            }
            channel.crashes.clear();
        }
        self.state.crashes.clear();
        let head = self.replay.head.max(found.head());
        Checkpoint::encode(end, (head, head), &self.state, &self.producers)
    }
}

/// The last run ended without a word: seqs go on where none was ever given, and channels that may have lost messages
/// remember it. The record of that.
pub(super) fn note_crash(state: &mut State, head: Seq, mark: Seq) -> (Header, Vec<u8>) {
    let mut body = Vec::new();
    let volatile = state.channels.iter().filter(|(_, channel)| channel.is_volatile()).map(|(id, _)| *id);
    volatile.for_each(|id| body.put_u32_le(id));
    crashed(state, head, mark, &body);
    (Header { first: mark, prev: head, ..Header::of(Sort::Crash) }, body)
}

/// Notes a crash with the channels that it may have cost something; once, though a checkpoint and a record tell it.
fn crashed(state: &mut State, head: Seq, through: Seq, ids: &[u8]) {
    if state.crashes.last() == Some(&(head, through)) {
        return;
    }
    for id in ids.as_chunks::<4>().0 {
        if let Some(channel) = state.channels.get_mut(&u32::from_le_bytes(*id)) {
            channel.note_crash(through);
        }
    }
    state.crashes.push((head, through));
}
