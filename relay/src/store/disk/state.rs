//! What everybody who reads or writes the log shares: the channels, the segments, the newest chunks in memory. What is
//! here was told to the tail; what the writer is about to do is not.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};

use shared::{ChannelId, Seq};

use super::{
    channel::Channel,
    index::{Entry, Index},
    record::{self, HEADER, Header},
    segment::{START, Segment},
    volume::Blob,
};
use crate::store::{Bounds, Hole, StoreSettings, chunk::Chunk, selection::Selection};

/// Entries of a channel that are read ahead when its oldest chunks go.
const WINDOW: usize = 256;

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
        let Some(channel) = self.channels.get_mut(&id) else { return };
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

    /// Lets the oldest chunks of a channel go until what it keeps is within its limits.
    ///
    /// # Errors
    /// If the index can't be read: then more is kept.
    pub(super) fn enforce(&mut self, id: u32) -> io::Result<()> {
        while self.channels.get(&id).is_some_and(Channel::is_over) {
            self.let_go(id)?;
        }
        Ok(())
    }

    /// Lets the oldest chunks of all go until the rest is within the limits: from memory, and from the disk.
    ///
    /// # Errors
    /// If the index can't be read: then more is kept.
    pub(super) fn enforce_all(&mut self) -> io::Result<()> {
        while self.recent_bytes > self.limits.memory {
            let Some(oldest) = self.order.pop_front() else { break };
            self.forget(oldest)?;
        }
        self.compact_order();
        while self.bytes > self.limits.disk {
            let oldest =
                self.firsts.values().find(|id| self.channels.get(id).is_some_and(|c| !c.is_in_memory()));
            let Some(id) = oldest.copied() else { break };
            self.let_go(id)?;
        }
        Ok(())
    }

    /// A chunk leaves memory; where it is nowhere else it is gone.
    fn forget(&mut self, oldest: Recent) -> io::Result<()> {
        let Some(channel) = self.channels.get_mut(&oldest.channel) else { return Ok(()) };
        let Some(chunk) = channel.recent_at(oldest.first) else { return Ok(()) };
        self.recent_after = self.recent_after.max(chunk.last());
        if channel.is_in_memory() {
            return self.let_go(oldest.channel);
        }
        if let Some(chunk) = channel.recent.pop_front() {
            self.recent -= 1;
            self.recent_bytes -= chunk.cost();
        }
        Ok(())
    }

    /// Drops the places of chunks that went, once they are more than half.
    fn compact_order(&mut self) {
        if self.order.len() > 64 && self.order.len() > 2 * self.recent {
            let channels = &self.channels;
            self.order.retain(|recent| {
                channels.get(&recent.channel).is_some_and(|c| c.recent_at(recent.first).is_some())
            });
        }
    }

    /// Lets the oldest chunk of a channel go.
    pub(super) fn let_go(&mut self, id: u32) -> io::Result<()> {
        let oldest = self.oldest(id)?;
        let Some(channel) = self.channels.get_mut(&id) else { return Ok(()) };
        let Some(Oldest { segment, first, last, count, cost, length, .. }) = oldest else {
            // Nothing is left, whatever was thought.
            self.firsts.remove(&channel.first);
            channel.first = Seq::ZERO;
            return Ok(());
        };
        self.gone_through.remove(&channel.gone_through);
        self.gone_through.insert(last, id);
        channel.gone_through = last;
        channel.gone += count;
        channel.bytes = channel.bytes.saturating_sub(cost);
        channel.window.pop_front();
        channel.first_time = None;
        if let Some(chunk) = channel.recent.pop_front_if(|chunk| chunk.first() == first) {
            self.recent -= 1;
            self.recent_bytes -= chunk.cost();
        }
        self.firsts.remove(&channel.first);
        channel.first = Seq::ZERO;
        if let Some(segment) = segment {
            self.bytes = self.bytes.saturating_sub(cost);
            if let Some(live) = self.live(segment) {
                *live = live.saturating_sub(length);
            }
        }
        self.find_first(id)
    }

    /// Finds the first message that a channel keeps.
    pub(super) fn find_first(&mut self, id: u32) -> io::Result<()> {
        let first = self.oldest(id)?.map(|oldest| oldest.first);
        if let (Some(first), Some(channel)) = (first, self.channels.get_mut(&id)) {
            channel.first = first;
            self.firsts.insert(first, id);
        }
        Ok(())
    }

    /// The oldest chunk that a channel keeps.
    fn oldest(&mut self, id: u32) -> io::Result<Option<Oldest>> {
        let Some(channel) = self.channels.get_mut(&id) else { return Ok(None) };
        if channel.is_in_memory() {
            return Ok(channel.recent.front().map(|chunk| Oldest {
                segment: None,
                first: chunk.first(),
                last: chunk.last(),
                count: chunk.count(),
                cost: chunk.cost(),
                offset: 0,
                length: 0,
            }));
        }
        while let Some(&(number, last)) = channel.parts.front() {
            if last <= channel.gone_through {
                channel.parts.pop_front();
                channel.window.clear();
                continue;
            }
            if channel.window.is_empty() {
                let index = match self.segments.binary_search_by_key(&number, |kept| kept.segment.number) {
                    Ok(at) => &self.segments[at].segment.index,
                    Err(_) => &self.active.index,
                };
                let from = index.position(id, channel.gone_through)?;
                // Of the segment that is written more may come: its entries cost nothing to look up.
                let ahead = if number == self.active.number { 1 } else { WINDOW };
                channel.window = index.entries(id, from, from + ahead)?.into();
            }
            if let Some(entry) = channel.window.front() {
                return Ok(Some(Oldest::of(number, entry)));
            }
            channel.parts.pop_front();
        }
        Ok(None)
    }

    /// When the oldest chunk of a channel came; none if it has none.
    pub(super) fn first_time(&mut self, id: u32) -> io::Result<Option<u64>> {
        let Some(channel) = self.channels.get(&id).filter(|channel| channel.first != Seq::ZERO) else {
            return Ok(None);
        };
        if let Some(time) = channel.first_time {
            return Ok(Some(time));
        }
        let time = match channel.recent_at(channel.first) {
            Some(chunk) => Some(chunk.time()),
            None => self.oldest_header(id)?.map(|header| header.time),
        };
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.first_time = time;
        }
        Ok(time)
    }

    /// Learns from the first chunk that is kept what is gone: more may be than a checkpoint knew of.
    pub(super) fn find_gone(&mut self, id: u32) -> io::Result<()> {
        let header = self.oldest_header(id)?;
        let Some(channel) = self.channels.get_mut(&id) else { return Ok(()) };
        let (through, count) = match header {
            Some(header) => (header.prev, header.ordinal),
            None => (channel.last, channel.messages),
        };
        self.gone_through.remove(&channel.gone_through);
        (channel.gone_through, channel.gone) = (through, count);
        if through > Seq::ZERO {
            self.gone_through.insert(through, id);
        }
        Ok(())
    }

    /// The header of the oldest chunk of a channel; none if it has none on the disk.
    fn oldest_header(&mut self, id: u32) -> io::Result<Option<Header>> {
        let Some(Oldest { segment: Some(number), offset, .. }) = self.oldest(id)? else { return Ok(None) };
        let mut header = [0; HEADER];
        self.blob(number).read_exact_at(&mut header, offset.into())?;
        Ok(record::parse(&header).map(|found| found.header))
    }

    /// The file of a segment.
    fn blob(&self, number: u64) -> &Arc<dyn Blob> {
        match self.segments.binary_search_by_key(&number, |kept| kept.segment.number) {
            Ok(at) => &self.segments[at].segment.blob,
            Err(_) => &self.active.blob,
        }
    }

    /// How much of a segment is kept.
    fn live(&mut self, number: u64) -> Option<&mut u64> {
        if number == self.active.number {
            return Some(&mut self.active.live);
        }
        let at = self.segments.binary_search_by_key(&number, |kept| kept.segment.number).ok()?;
        self.segments.get_mut(at).map(|kept| &mut kept.live)
    }
}

/// The oldest chunk of a channel.
#[derive(Debug, Clone, Copy)]
struct Oldest {
    /// Where its record is, if it has one.
    segment: Option<u64>,
    first: Seq,
    last: Seq,
    count: u64,
    cost: u64,
    offset: u32,
    length: u64,
}

impl Oldest {
    fn of(segment: u64, entry: &Entry) -> Self {
        Self {
            segment: Some(segment),
            first: entry.first,
            last: entry.last(),
            count: entry.count.into(),
            cost: entry.cost(),
            offset: entry.offset,
            length: entry.length.into(),
        }
    }
}
