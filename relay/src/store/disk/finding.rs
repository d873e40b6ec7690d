//! Looking for a place: by time, and by number from the end; and reading a page from there.

use std::{collections::HashMap, io, sync::Arc};

use shared::Seq;

use super::{
    Shared,
    reading::{Job, Plan},
    record, segment,
    state::State,
    volume::Blob,
};
use crate::store::{Page, selection::Selection};

/// Stretches without anything that is wanted that are passed over for one page.
const STRETCHES: usize = 16;

/// Where a chunk is: between two places of a segment, or else it is the one that begins with that seq.
struct Place {
    blob: Arc<dyn Blob>,
    from: u32,
    to: u32,
    next: Seq,
}

impl Shared {
    /// The page of a selection that begins after a position, if all of it can be had without waiting for the disk.
    pub(super) fn read_at_once(
        &self,
        selection: &Selection,
        after: Seq,
        job: &Job,
    ) -> io::Result<Option<Page>> {
        let found = match job.run(selection, &|ids| self.names(ids), &self.lately) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            found => found?,
        };
        let page = self.state().page(selection, after, found);
        Ok(Some(page).filter(|page| !page.chunks.is_empty()))
    }

    /// The page of a selection that begins after a position, of which a part is to be read.
    pub(super) fn read(&self, selection: &Selection, after: Seq, bytes: u64, job: Job) -> io::Result<Page> {
        let mut job = job.patient();
        for _ in 0..STRETCHES {
            let found = job.run(selection, &|ids| self.names(ids), &self.lately)?;
            let state = self.state();
            let page = state.page(selection, after, found);
            if !page.chunks.is_empty() || state.until(after) == Some(page.through) {
                return Ok(page);
            }
            // Nothing of it is wanted, or it went meanwhile.
            match state.plan(selection, page.through.max(after), bytes) {
                Plan::Read(next) => job = next.patient(),
                Plan::Given(next) => return Ok(Page { holes: page.holes, ..next }),
            }
        }
        let holes = self.state().holes(selection, after);
        Ok(Page { holes, chunks: Vec::new(), through: job.begins_after() })
    }

    /// The position before the first message that is at least this new.
    pub(super) fn find_time(&self, time: u64) -> io::Result<Seq> {
        let (recent, source) = {
            let state = self.state();
            let at = state.order.partition_point(|recent| recent.time < time);
            let recent = state.order.get(at).map_or(state.head, |recent| Seq(recent.first.0 - 1));
            (recent, state.place_of(time))
        };
        let Some(Place { blob, from, to, next }) = source else { return Ok(recent) };
        let mut first = None;
        segment::each(&*blob, from, to, |record, _| {
            if first.is_none() && record.sort == record::Sort::Chunk && record.time >= time {
                first = Some(record.first);
            }
        })?;
        Ok(Seq(first.unwrap_or(next).0 - 1).min(recent))
    }

    /// The position before the last so many messages that are kept.
    pub(super) fn find_last(&self, selection: &Selection, count: u64) -> io::Result<Seq> {
        let state = self.state();
        let head = state.head;
        let wanted: HashMap<u32, Seq> =
            state.selected(selection).map(|(id, channel)| (id, channel.gone_through)).collect();
        let mut chunks: Vec<(Seq, u64)> = state
            .selected(selection)
            .filter(|(_, channel)| channel.is_in_memory())
            .flat_map(|(_, channel)| &channel.recent)
            .map(|chunk| (chunk.last(), chunk.count()))
            .collect();
        let mut have = 0;
        let active = state.active.index.clone_of(&wanted);
        let segments: Vec<_> = state.segments.iter().map(|kept| Arc::clone(&kept.segment)).collect();
        drop(state);
        for index in std::iter::once(&active).chain(segments.iter().rev().map(|segment| &segment.index)) {
            for (id, gone) in &wanted {
                let Some(part) = index.part(*id).filter(|part| part.last > *gone) else { continue };
                let from = index.position(*id, *gone)?;
                // Of one channel no more is needed than what is asked for.
                let from =
                    from.max(part.chunks().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX)));
                let entries = index.entries(*id, from, usize::MAX)?;
                have += entries.iter().map(|entry| u64::from(entry.count)).sum::<u64>();
                chunks.extend(entries.iter().map(|entry| (entry.last(), u64::from(entry.count))));
            }
            if have >= count {
                break;
            }
        }
        chunks.sort_unstable_by_key(|(last, _)| std::cmp::Reverse(*last));
        let (mut missing, mut before) = (count, None);
        for (last, messages) in chunks.into_iter().take_while(|_| count > 0) {
            if missing == 0 {
                break;
            }
            let taken = missing.min(messages);
            missing -= taken;
            before = Some(Seq(last.0 - taken));
        }
        Ok(before.unwrap_or(head))
    }
}

impl State {
    /// Where on the disk the first chunk is that is at least this new.
    fn place_of(&self, time: u64) -> Option<Place> {
        let at = self.segments.partition_point(|kept| kept.segment.index.last_time() < time);
        let (blob, index, end) = match self.segments.get(at) {
            Some(kept) => (&kept.segment.blob, &kept.segment.index, kept.segment.length),
            None => (&self.active.blob, &self.active.index, self.active.end),
        };
        if index.is_empty() {
            return None;
        }
        let (from, to) = index.stretch(|landmark| landmark.time < time);
        let (to, next) = to.unwrap_or((end, Seq(u64::MAX)));
        Some(Place { blob: Arc::clone(blob), from, to, next })
    }
}
