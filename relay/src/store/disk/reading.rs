//! Reading: what is in memory is given at once; else it is planned under the lock where to look, read without it, and
//! what retention let go meanwhile is left out under the lock again.

use std::{collections::HashMap, io, sync::Arc};

use shared::{ChannelId, Seq};

use super::{
    fetching::{Names, read_entries, read_stretch},
    index::Entry,
    lately::{Key, Lately},
    segment::Segment,
    state::State,
    volume::{Blob, Patience},
};
use crate::store::{Page, chunk::Chunk, selection::Selection};

/// Chunks in memory that reading a pattern looks at before it gives what it has: bounds the time of the lock.
const SCAN: usize = 4096;
/// What the chunks of a block count for, about.
const BLOCK: u64 = 192 * 1024;
/// What is to be done for a page.
pub(super) enum Plan {
    /// Nothing more.
    Given(Page),
    /// This is to be read.
    Read(Job),
}

/// A part of a segment that is to be read.
pub(super) struct Job {
    source: Source,
    part: Part,
    /// Only messages behind this, and up to that.
    after: Seq,
    until: Seq,
    bytes: u64,
    patience: Patience,
}

enum Source {
    Sealed(Arc<Segment>),
    /// The segment that is written.
    Active {
        number: u64,
        blob: Arc<dyn Blob>,
    },
}

enum Part {
    /// Some chunks of a channel; of a sealed segment they are looked up.
    Channel { id: u32, name: ChannelId, entries: Vec<Entry> },
    /// From one place to another, whatever is there of the selection; everything up to `through` is.
    Stretch { from: u32, to: u32, through: Seq },
}

/// What was read, and up to where it is everything.
pub(super) struct Found {
    chunks: Vec<Arc<Chunk>>,
    through: Seq,
}

impl State {
    /// What is to be done for the page of a selection that begins after a position.
    pub(super) fn plan(&self, selection: &Selection, after: Seq, bytes: u64) -> Plan {
        let page = match selection.as_channel() {
            Some(name) => self.plan_channel(&name, after, bytes),
            None => self.plan_pattern(selection, after, bytes),
        };
        match page {
            Plan::Given(page) => Plan::Given(Page { holes: self.holes(selection, after), ..page }),
            read @ Plan::Read(_) => read,
        }
    }

    fn plan_channel(&self, name: &ChannelId, after: Seq, bytes: u64) -> Plan {
        let mut page = Page { through: self.head.max(after), ..Page::default() };
        let Some((id, channel)) = self.named(name) else { return Plan::Given(page) };
        let until = channel.until(after);
        if after >= channel.last || channel.first == Seq::ZERO {
            return Plan::Given(page);
        }
        if bytes == 0 {
            return Plan::Given(Page { through: after, ..page });
        }
        let from = after.max(channel.gone_through);
        if channel.has_recent_after(from) || channel.is_in_memory() {
            let mut cost = 0;
            page.through = until.unwrap_or(page.through);
            for chunk in channel.recent_after(from) {
                if until.is_some_and(|until| chunk.first() > until) {
                    break;
                }
                if cost >= bytes {
                    page.through = page.chunks.last().map_or(after, |chunk: &Arc<Chunk>| chunk.last());
                    break;
                }
                cost += chunk.cost();
                page.chunks.push(Arc::clone(chunk));
            }
            return Plan::Given(page);
        }
        let part = channel.parts.partition_point(|(_, last)| *last <= from);
        let Some((number, _)) = channel.parts.get(part) else { return Plan::Given(page) };
        let (source, entries) = match self.segments.binary_search_by_key(number, |kept| kept.segment.number) {
            Ok(at) => (Source::Sealed(Arc::clone(&self.segments[at].segment)), Vec::new()),
            Err(_) => {
                let active = &self.active;
                let source = Source::Active { number: active.number, blob: Arc::clone(&active.blob) };
                (source, active.index.block_after(id, from, bytes.min(BLOCK)))
            }
        };
        let part = Part::Channel { id, name: channel.name.clone(), entries };
        Plan::Read(Job {
            source,
            part,
            after: from,
            until: until.unwrap_or(channel.last),
            bytes,
            patience: Patience::None,
        })
    }

    fn plan_pattern(&self, selection: &Selection, after: Seq, bytes: u64) -> Plan {
        let until = self.until(after);
        let mut page = Page { through: after, ..Page::default() };
        if bytes == 0 {
            return Plan::Given(page);
        }
        if after >= self.recent_after {
            self.read_recent(selection, until, bytes, &mut page);
            return Plan::Given(page);
        }
        // Behind that, chunks are in memory which are nowhere else.
        let until = until.map_or(self.recent_after, |until| until.min(self.recent_after));
        let at = self.segments.partition_point(|kept| kept.segment.index.last() <= after);
        let (source, index, end) = match self.segments.get(at) {
            Some(kept) => {
                let segment = &kept.segment;
                (Source::Sealed(Arc::clone(segment)), &segment.index, segment.length)
            }
            None if self.active.index.last() > after => {
                let active = &self.active;
                let source = Source::Active { number: active.number, blob: Arc::clone(&active.blob) };
                (source, &active.index, active.end)
            }
            None => return Plan::Given(Page { through: until, ..page }),
        };
        let (from, to) = index.stretch(|landmark| landmark.first.0 <= after.0 + 1);
        let (to, through) = match to {
            Some((offset, first)) => (offset, Seq(first.0 - 1)),
            None => (end, index.last()),
        };
        let part = Part::Stretch { from, to, through };
        Plan::Read(Job { source, part, after, until, bytes, patience: Patience::None })
    }

    fn read_recent(&self, selection: &Selection, until: Option<Seq>, bytes: u64, page: &mut Page) {
        let after = page.through;
        let mut wanted: HashMap<u32, bool> = HashMap::new();
        // The chunk that holds `after` may go on behind it.
        let from = self.order.partition_point(|recent| recent.first <= after).saturating_sub(1);
        let mut cost = 0;
        for (scanned, recent) in self.order.range(from..).enumerate() {
            if until.is_some_and(|until| recent.first > until) {
                break;
            }
            if scanned >= SCAN || cost >= bytes {
                return;
            }
            let Some(channel) = self.channels.get(&recent.channel) else { continue };
            let wanted = *wanted.entry(recent.channel).or_insert_with(|| selection.matches(&channel.name));
            match channel.recent_at(recent.first).filter(|chunk| wanted && chunk.last() > after) {
                Some(chunk) => {
                    cost += chunk.cost();
                    page.through = chunk.last();
                    page.chunks.push(Arc::clone(chunk));
                }
                None => page.through = page.through.max(recent.first),
            }
        }
        page.through = until.unwrap_or(self.head).max(after);
    }

    /// The page of what was read: without what is gone by now, and with the holes before it.
    pub(super) fn page(&self, selection: &Selection, after: Seq, found: Found) -> Page {
        let Found { mut chunks, mut through } = found;
        chunks
            .retain(|chunk| self.named(chunk.channel()).is_some_and(|(_, c)| chunk.last() > c.gone_through));
        if let Some(name) = selection.as_channel()
            && let Some((_, channel)) = self.named(&name)
        {
            match channel.until(after) {
                Some(until) => through = through.min(until),
                None if through >= channel.last => through = self.head,
                None => {}
            }
        }
        Page { holes: self.holes(selection, after), chunks, through: through.max(after) }
    }
}

impl Job {
    /// The position that it begins after.
    pub(super) fn begins_after(&self) -> Seq {
        self.after
    }

    /// It may wait for the disk.
    pub(super) fn patient(self) -> Self {
        Self { patience: Patience::Wait, ..self }
    }

    /// Reads. `names` gives the channels' names.
    pub(super) fn run(
        &self,
        selection: &Selection,
        names: &dyn Fn(&[u32]) -> Names,
        lately: &Lately,
    ) -> io::Result<Found> {
        let found = match &self.part {
            Part::Channel { id, name, entries } => self.read_channel(*id, name, entries, lately)?,
            Part::Stretch { from, to, through } => {
                let chunks = self.read_stretch(*from, *to, names, lately)?;
                Found { chunks: chunks.to_vec(), through: *through }
            }
        };
        Ok(self.cut(selection, found))
    }

    /// Leaves out what was not asked for, and what is too much.
    fn cut(&self, selection: &Selection, found: Found) -> Found {
        let all = matches!(self.part, Part::Channel { .. }) || selection.is_everything();
        let mut wanted: HashMap<ChannelId, bool> = HashMap::new();
        let (mut cost, mut chunks, mut through) = (0, Vec::new(), found.through.min(self.until));
        for chunk in found.chunks {
            if chunk.last() <= self.after {
                continue;
            }
            if chunk.first() > self.until {
                break;
            }
            if cost >= self.bytes {
                through = chunks.last().map_or(self.after, |chunk: &Arc<Chunk>| chunk.last());
                break;
            }
            if !all {
                let name = chunk.channel();
                let known = wanted.get(name).copied();
                let wanted = known.unwrap_or_else(|| {
                    let matches = selection.matches(name);
                    wanted.insert(name.clone(), matches);
                    matches
                });
                if !wanted {
                    continue;
                }
            }
            cost += chunk.cost();
            chunks.push(chunk);
        }
        Found { chunks, through }
    }

    fn read_channel(
        &self,
        id: u32,
        name: &ChannelId,
        entries: &[Entry],
        lately: &Lately,
    ) -> io::Result<Found> {
        let segment = match &self.source {
            Source::Active { number, blob } => {
                let chunks = read_entries((&lately.pool, self.patience), &**blob, *number, name, entries)?;
                let through = chunks.last().map_or(self.after, |chunk| chunk.last());
                return Ok(Found { chunks, through });
            }
            Source::Sealed(segment) => segment,
        };
        let nothing = || Found { chunks: Vec::new(), through: self.after };
        let Some(part) = segment.index.part(id) else { return Ok(nothing()) };
        let position = segment.index.position_with(id, self.after, self.patience)?;
        // Blocks begin at the same entries for everybody, so that they can be shared.
        let each = part.bytes / (part.chunks() as u64).max(1) + 196;
        let size = usize::try_from(BLOCK / each).unwrap_or(1).max(1);
        let place = position / size * size;
        let key = Key { number: segment.number, tip: segment.tip, channel: Some(id), place };
        let chunks = lately.get_or(key, || {
            let entries = segment.index.entries_with(id, place, place + size, self.patience)?;
            read_entries((&lately.pool, self.patience), &*segment.blob, segment.number, name, &entries)
        })?;
        let through = chunks.last().map_or(self.after, |chunk| chunk.last());
        Ok(Found { chunks: chunks.to_vec(), through })
    }

    fn read_stretch(
        &self,
        from: u32,
        to: u32,
        names: &dyn Fn(&[u32]) -> Names,
        lately: &Lately,
    ) -> io::Result<Arc<[Arc<Chunk>]>> {
        match &self.source {
            Source::Active { number, blob } => {
                Ok(read_stretch((&lately.pool, self.patience), &**blob, *number, from, to, names)?.into())
            }
            Source::Sealed(segment) => {
                let place = from as usize;
                let key = Key { number: segment.number, tip: segment.tip, channel: None, place };
                lately.get_or(key, || {
                    read_stretch(
                        (&lately.pool, self.patience),
                        &*segment.blob,
                        segment.number,
                        from,
                        to,
                        names,
                    )
                })
            }
        }
    }
}
