//! What everybody who reads or writes the log shares: the channels, the segments, the newest chunks in memory. What is
//! here was told to the tail; what the writer is about to do is not.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use shared::{ChannelId, Seq};

use super::{
    channel::Channel,
    index::Index,
    record::{HEADER, Header},
    segment::{START, Segment},
    volume::Blob,
};
use crate::store::{Bounds, Hole, StoreSettings, chunk::Chunk, selection::Selection};

/// The shared state of a store.
#[derive(Debug)]
pub(super) struct State {
    /// The last seq that the tail knows of.
    pub(super) head: Seq,
    /// The latest time that was given; time never goes back here.
    pub(super) time: u64,
    pub(super) ids: HashMap<ChannelId, u32>,
    pub(super) channels: HashMap<u32, Channel>,
    pub(super) next_id: u32,
    /// Channels that are not retired.
    pub(super) present: usize,
    /// Sealed segments, the oldest first.
    pub(super) segments: VecDeque<Sealed>,
    pub(super) active: Active,
    /// The chunks in memory, in the order of seqs; those that went meanwhile are known by their absence.
    pub(super) order: VecDeque<Recent>,
    /// How many chunks are in memory, and what they cost.
    pub(super) recent: usize,
    pub(super) recent_bytes: u64,
    /// Everything after this seq is in memory, or gone.
    pub(super) recent_after: Seq,
    /// The last message that retention let go, of each channel of which it did.
    pub(super) gone_through: BTreeMap<Seq, u32>,
    /// The first message that is kept, of each channel that has one.
    pub(super) firsts: BTreeMap<Seq, u32>,
    /// What all that is kept counts for.
    pub(super) bytes: u64,
    /// Behind which seqs, and up to which, crashes may have cost messages.
    pub(super) crashes: Vec<(Seq, Seq)>,
    pub(super) limits: Limits,
}

/// A sealed segment and how much of it is kept.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) segment: Arc<Segment>,
    /// Bytes of records whose chunks are kept.
    pub(super) live: u64,
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) number: u64,
    pub(super) blob: Arc<dyn Blob>,
    pub(super) index: Index,
    pub(super) live: u64,
    /// Up to where the tail was told.
    pub(super) end: u32,
}

/// A chunk that is in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recent {
    pub(super) first: Seq,
    pub(super) time: u64,
    pub(super) channel: u32,
}

/// What bounds it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of chunks in memory.
    pub(super) memory: u64,
    /// What all chunks on the disk may count for.
    pub(super) disk: u64,
    pub(super) channels: usize,
    pub(super) idle: Duration,
}

impl Active {
    /// An empty segment behind another.
    pub(super) fn after(before: &Self, number: u64, blob: Arc<dyn Blob>) -> Self {
        let mut index = Index::default();
        index.starts_after(before.index.last());
        Self { number, blob, index, live: 0, end: START }
    }
}

impl Active {
    /// A segment whose records are not known yet.
    pub(super) fn new(number: u64, blob: Arc<dyn Blob>) -> Self {
        Self { number, blob, index: Index::default(), live: 0, end: START }
    }
}

impl Limits {
    /// There are none.
    pub(super) const NONE: Self =
        Self { memory: u64::MAX, disk: u64::MAX, channels: usize::MAX, idle: Duration::MAX };

    pub(super) fn of(settings: &StoreSettings, disk: u64) -> Self {
        let memory = settings.memory.saturating_sub(settings.encodings);
        Self { memory, disk, channels: settings.channels, idle: settings.channel_idle }
    }
}

impl State {
    /// Of a log without channels and sealed segments.
    pub(super) fn empty(limits: Limits, active: Active) -> Self {
        Self {
            head: Seq::ZERO,
            time: 0,
            ids: HashMap::new(),
            channels: HashMap::new(),
            next_id: 1,
            present: 0,
            segments: VecDeque::new(),
            active,
            order: VecDeque::new(),
            recent: 0,
            recent_bytes: 0,
            recent_after: Seq::ZERO,
            gone_through: BTreeMap::new(),
            firsts: BTreeMap::new(),
            bytes: 0,
            crashes: Vec::new(),
            limits,
        }
    }

    /// A channel by its name.
    pub(super) fn named(&self, name: &ChannelId) -> Option<(u32, &Channel)> {
        let id = *self.ids.get(name)?;
        Some((id, self.channels.get(&id)?))
    }

    /// The channels of a selection.
    pub(super) fn selected<'a>(
        &'a self,
        selection: &'a Selection,
    ) -> Box<dyn Iterator<Item = (u32, &'a Channel)> + 'a> {
        match selection.as_channel() {
            Some(name) => Box::new(self.named(&name).into_iter()),
            None => {
                let channels = self.channels.iter().map(|(id, channel)| (*id, channel));
                Box::new(channels.filter(|(_, channel)| selection.matches(&channel.name)))
            }
        }
    }

    pub(super) fn bounds(&self, selection: &Selection) -> Bounds {
        self.selected(selection).fold(Bounds::default(), |bounds, (_, channel)| Bounds {
            first: match (bounds.first, channel.first) {
                (Seq::ZERO, first) | (first, Seq::ZERO) => first,
                (one, other) => one.min(other),
            },
            head: bounds.head.max(channel.last),
        })
    }

    pub(super) fn holes(&self, selection: &Selection, after: Seq) -> Vec<Hole> {
        if selection.as_channel().is_some() || after < self.crashed_through() {
            return self.selected(selection).filter_map(|(_, channel)| channel.hole(after)).collect();
        }
        let gone = self.gone_through.range(Seq(after.0 + 1)..).filter_map(|(_, id)| self.channels.get(id));
        gone.filter(|channel| selection.matches(&channel.name)).filter_map(|c| c.hole(after)).collect()
    }

    /// Up to where the last crash may have cost something.
    fn crashed_through(&self) -> Seq {
        self.crashes.last().map_or(Seq::ZERO, |(_, through)| *through)
    }

    /// Where the page of several channels that begins after a position has to end: before what a crash may have cost.
    pub(super) fn until(&self, after: Seq) -> Option<Seq> {
        let first = self.crashes.partition_point(|(head, _)| *head <= after);
        self.crashes.get(first).map(|(head, _)| *head)
    }

    /// A committed chunk, and where its record is, if it has one.
    pub(super) fn commit(&mut self, id: u32, chunk: &Arc<Chunk>, record: Option<(Header, u32, u32)>) {
        let Some(channel) = self.channels.get_mut(&id) else {
            unreachable!("it stays while something is planned")
        };
        channel.planned -= 1;
        let cost = match &record {
            Some((header, offset, length)) => {
                self.active.index.add(header, *offset, *length);
                self.active.live += u64::from(*length);
                match channel.parts.back_mut() {
                    Some((number, last)) if *number == self.active.number => *last = chunk.last(),
                    _ => channel.parts.push_back((self.active.number, chunk.last())),
                }
                u64::from(*length) + 256 - HEADER as u64
            }
            None => chunk.cost(),
        };
        if channel.first == Seq::ZERO {
            channel.first = chunk.first();
            channel.first_time = Some(chunk.time());
            self.firsts.insert(chunk.first(), id);
        }
        channel.newest = chunk.first();
        channel.last = chunk.last();
        channel.last_time = chunk.time();
        channel.messages += chunk.count();
        channel.bytes += cost;
        channel.note_next(chunk.first());
        channel.recent.push_back(Arc::clone(chunk));
        if channel.retired {
            channel.retired = false;
            self.present += 1;
        }
        self.bytes += if record.is_some() { cost } else { 0 };
        self.order.push_back(Recent { first: chunk.first(), time: chunk.time(), channel: id });
        self.recent += 1;
        self.recent_bytes += chunk.cost();
        self.head = chunk.last();
        self.time = self.time.max(chunk.time());
    }
}
