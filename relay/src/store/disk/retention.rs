//! What goes: of each channel by its rules, of all together by their limits, of memory what is on the disk as well. Chunks
//! go one by one, by being counted as gone; [`care`](super::care) gives their space back.

use std::{io, sync::Arc, thread, time::Duration};

use shared::Seq;

use super::{
    Shared,
    channel::{Channel, is_past},
    index::Entry,
    record::{self, HEADER, Header},
    state::{Recent, State},
    volume::Blob,
};

/// Chunks that are let go at a time when they are too old: between two times others get their turn.
const TURN: usize = 256;
/// Entries of a channel that are read ahead when its oldest chunks go.
const WINDOW: usize = 256;

impl Shared {
    /// Lets go what is too old at this time: messages, and channels.
    ///
    /// # Errors
    /// If the index can't be read: then more is kept.
    pub(super) fn trim(&self, now: u64) -> io::Result<()> {
        let ids: Vec<u32> = self.state().channels.keys().copied().collect();
        for id in ids {
            while !self.state().trim_channel(id, now, TURN)? {
                thread::yield_now();
            }
        }
        self.state().forget_retired();
        Ok(())
    }
}

impl State {
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

    /// Lets go what is too old of a channel at this time, or all of it if it is idle; at most so many chunks. Whether that
    /// was all.
    fn trim_channel(&mut self, id: u32, now: u64, most: usize) -> io::Result<bool> {
        let Some(channel) = self.channels.get(&id) else { return Ok(true) };
        let age = channel.retention.age;
        let idle = channel.is_idle(now, self.limits.idle) && channel.planned == 0 && !channel.retired;
        for _ in 0..most {
            let too_old = match age {
                Some(age) => self.is_oldest_past(id, age, now)?,
                None => false,
            };
            if too_old || idle && self.channels.get(&id).is_some_and(|channel| channel.first != Seq::ZERO) {
                self.let_go(id)?;
                continue;
            }
            if let Some(channel) = self.channels.get_mut(&id).filter(|_| idle) {
                channel.retired = true;
                self.present -= 1;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether the oldest chunk of a channel came so long ago. Of a segment that is too old as a whole no chunk has to be
    /// looked at.
    fn is_oldest_past(&mut self, id: u32, age: Duration, now: u64) -> io::Result<bool> {
        if let Some(channel) = self.channels.get(&id).filter(|channel| channel.first != Seq::ZERO)
            && let Some((number, last)) = channel.parts.front()
            && channel.first <= *last
            && let Ok(at) = self.segments.binary_search_by_key(number, |kept| kept.segment.number)
            && is_past(self.segments[at].segment.index.last_time(), age, now)
        {
            return Ok(true);
        }
        Ok(self.first_time(id)?.is_some_and(|time| is_past(time, age, now)))
    }

    /// Of retired channels at most as many are remembered as there may be channels, those that were used last.
    fn forget_retired(&mut self) {
        let retired = self.channels.values().filter(|channel| channel.retired);
        let mut lasts: Vec<Seq> = retired.map(|channel| channel.last).collect();
        let excess = lasts.len().saturating_sub(self.limits.channels);
        if excess == 0 {
            return;
        }
        let (_, newest, _) = lasts.select_nth_unstable(excess - 1);
        let newest = *newest;
        for (id, channel) in self.channels.extract_if(|_, channel| channel.retired && channel.last <= newest)
        {
            if self.ids.get(&channel.name) == Some(&id) {
                self.ids.remove(&channel.name);
            }
            self.gone_through.remove(&channel.gone_through);
        }
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
