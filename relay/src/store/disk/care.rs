//! Who takes care of sealed segments: a thread that writes their indices and the checkpoints, and gives back the space
//! of what is gone. All that it does can be done again, and the writer does not wait for it.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::{Arc, atomic::Ordering, mpsc},
};

use shared::Seq;

use super::{
    Shared,
    checkpoint::{self, Saved},
    index::{self, Index, Of},
    queue::{Queue, Work},
    record::{self, Context, HEADER, Sort},
    reserve,
    segment::{self, START, Segment},
    state::{Sealed, State},
    volume,
};

/// So many neighbours are made one, if all of them together are no more than half of a segment. The short logs of tests
/// have such ones too.
const NEIGHBOURS: usize = if cfg!(test) { 2 } else { 8 };
/// Bytes that are written at a time.
const PIECE: usize = 1 << 20;

/// Something to take care of.
#[derive(Debug)]
pub(super) enum Care {
    /// A sealed segment has no index beside it.
    Unindexed(u64),
    /// A segment was sealed; the checkpoint belongs behind it. None: one was waiting already.
    Sealed { number: u64, checkpoint: Option<Saved> },
    /// A checkpoint was made.
    Checkpoint(Saved),
    /// Something may be gone.
    Trimmed,
    /// The store ends.
    End(mpsc::Sender<()>),
}

/// Takes care of what it is told, until the store ends.
#[derive(Debug)]
pub(super) struct Caring {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    /// Segments below this are not needed to know the state.
    checkpointed: u64,
    /// Up to where each channel's messages are gone, as the checkpoint on the disk says it. Nothing else is removed: a
    /// hole has to be known before it is there.
    gone: HashMap<u32, Seq>,
    /// Bytes of the last checkpoint.
    size: usize,
    /// Sealed segments that have no index beside them yet.
    unindexed: BTreeSet<u64>,
    /// Segments that can't be read: they stay as they are.
    damaged: BTreeSet<u64>,
}

impl Caring {
    /// Nothing is removed before the first checkpoint of this run.
    pub(super) fn new(shared: Arc<Shared>, queue: Arc<Queue>) -> Self {
        Self {
            shared,
            queue,
            checkpointed: 0,
            gone: HashMap::new(),
            size: 0,
            unindexed: BTreeSet::new(),
            damaged: BTreeSet::new(),
        }
    }

    pub(super) fn run(mut self, tasks: &mpsc::Receiver<Care>) {
        reserve::keep(&*self.shared.volume, self.size);
        while let Ok(care) = tasks.recv() {
            let outcome = match care {
                Care::Unindexed(number) => {
                    self.unindexed.insert(number);
                    Ok(())
                }
                Care::Sealed { number, checkpoint } => {
                    self.unindexed.insert(number);
                    match checkpoint {
                        Some(checkpoint) => self.give_back(checkpoint),
                        None => {
                            self.queue.push(Work::Save);
                            Ok(())
                        }
                    }
                }
                Care::Checkpoint(checkpoint) => self.give_back(checkpoint),
                Care::Trimmed => {
                    if self.shared.state().has_dead() {
                        self.queue.push(Work::Save);
                    }
                    Ok(())
                }
                Care::End(done) => {
                    let _ = done.send(());
                    return;
                }
            };
            if let Err(error) = outcome.and_then(|()| self.finish_all()) {
                tracing::warn!("space of what is gone is not given back yet: {error}");
            }
        }
    }

    /// Writes a checkpoint, and gives the space back that it knows to be free; where there is none for that, from the
    /// reserve.
    fn give_back(&mut self, checkpoint: Saved) -> io::Result<()> {
        self.shared.waiting.store(false, Ordering::Relaxed);
        self.size = checkpoint.bytes.len();
        let shared = Arc::clone(&self.shared);
        let volume = &*shared.volume;
        reserve::with(volume, || volume::replace(volume, checkpoint::NAME, &checkpoint.bytes))?;
        self.checkpointed = self.checkpointed.max(checkpoint.segment);
        self.gone = checkpoint.gone;
        let outcome = reserve::with(volume, || self.reclaim());
        reserve::keep(volume, self.size);
        outcome
    }

    /// Writes the indices that are not there yet.
    fn finish_all(&mut self) -> io::Result<()> {
        while let Some(number) = self.unindexed.first().copied() {
            self.finish(number)?;
            self.unindexed.remove(&number);
        }
        Ok(())
    }

    /// Writes the index of a segment that was sealed.
    fn finish(&self, number: u64) -> io::Result<()> {
        let sealed = self.shared.state().segment(number);
        if let Some(segment) = sealed {
            let index = self.write_index(&segment.index, segment.of())?;
            let blob = Arc::clone(&segment.blob);
            let Segment { number, through, length, tip, .. } = *segment;
            let finished = Arc::new(Segment { number, through, length, blob, index, tip });
            let mut state = self.shared.state();
            if let Some(kept) = state.sealed_mut(number) {
                kept.segment = finished;
            }
        }
        Ok(())
    }

    fn write_index(&self, index: &Index, of: Of) -> io::Result<Index> {
        index.write(&*self.shared.volume, of, |id| {
            self.shared.state().channels.get(&id).map(|c| c.name.clone())
        })
    }

    /// Removes segments of which nothing is kept; where more than half is gone over all, takes together what is kept.
    fn reclaim(&mut self) -> io::Result<()> {
        while !self.shared.ending.load(Ordering::Relaxed) {
            let dead = self.shared.state().remove_dead(self);
            if let Some(segment) = dead {
                self.remove(segment.number)?;
                continue;
            }
            let run = self.shared.state().worth_rewriting(self);
            if run.is_empty() {
                return Ok(());
            }
            self.rewrite(&run).inspect_err(|_| self.drop_drafts())?;
        }
        Ok(())
    }

    /// What was begun and not finished takes space.
    fn drop_drafts(&self) {
        for name in self.shared.volume.list().unwrap_or_default() {
            if name.ends_with(".log.new") || name.ends_with(".idx.new") {
                let _ = self.shared.volume.remove(&name);
            }
        }
    }

    /// How many bytes would be left of a segment at most, if it may be written anew at all.
    fn may(&self, segment: &Segment) -> Option<u64> {
        if segment.through >= self.checkpointed || self.damaged.contains(&segment.number) {
            return None;
        }
        // A channel that the checkpoint does not know was forgotten.
        let left = segment
            .index
            .parts()
            .filter(|(id, part)| self.gone.get(id).is_some_and(|gone| part.last > *gone));
        Some(left.map(|(_, part)| part.bytes).sum())
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        self.shared.volume.remove(&segment::file_name(number))?;
        volume::remove_if_there(&*self.shared.volume, &index::file_name(number))
    }

    /// Writes one segment with what is kept of neighbours, in their order, in place of the first of them.
    fn rewrite(&mut self, run: &[Arc<Segment>]) -> io::Result<()> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let gone = &self.gone;
        let volume = &*self.shared.volume;
        let name = segment::file_name(first.number);
        let draft = format!("{name}{}", volume::DRAFT);
        let blob = segment::create(volume, &draft, first.number, last.through)?;
        let (mut index, mut buffer, mut end, mut tip) = (Index::default(), Vec::new(), START, 0);
        for segment in run {
            let mut written = Ok(());
            let scan = segment::scan(&*segment.blob, START, 0, |found, _, bytes| {
                // Of a channel that was forgotten, too, nothing is kept.
                let kept = found.header.sort == Sort::Chunk
                    && gone.get(&found.header.channel).is_some_and(|gone| found.header.last() > *gone);
                if !kept || written.is_err() {
                    return;
                }
                let at = end;
                let before = buffer.len();
                let context = Context { before: tip, synced: at };
                tip = record::put(&mut buffer, context, &found.header, &[&bytes[HEADER..]]);
                let length = segment::offset((buffer.len() - before) as u64);
                index.add(&found.header, at, length);
                end += length;
                if buffer.len() >= PIECE {
                    written = blob.write_at(&buffer, u64::from(end) - buffer.len() as u64);
                    buffer.clear();
                }
            })?;
            written?;
            if scan.trouble.is_some() || scan.end != segment.length {
                self.damaged.insert(segment.number);
                volume.remove(&draft)?;
                let name = segment::file_name(segment.number);
                tracing::error!(
                    "{name} is damaged at byte {}; stop the relay and use `relay log repair`",
                    scan.end
                );
                return Ok(());
            }
        }
        blob.write_at(&buffer, u64::from(end) - buffer.len() as u64)?;
        blob.sync()?;
        let of = Of { number: first.number, through: last.through, length: end, tip };
        index.starts_after(last.index.last());
        let index = self.write_index(&index, of)?;
        volume.rename(&draft, &name)?;
        volume.sync_names()?;
        let Of { number, through, length, tip } = of;
        let segment = Arc::new(Segment { number, through, length, blob, index, tip });
        self.shared.state().replace(run, segment)?;
        for segment in &run[1..] {
            self.remove(segment.number)?;
        }
        Ok(())
    }
}

impl State {
    fn segment(&self, number: u64) -> Option<Arc<Segment>> {
        let at = self.segments.binary_search_by_key(&number, |kept| kept.segment.number).ok()?;
        Some(Arc::clone(&self.segments[at].segment))
    }

    fn sealed_mut(&mut self, number: u64) -> Option<&mut Sealed> {
        let at = self.segments.binary_search_by_key(&number, |kept| kept.segment.number).ok()?;
        self.segments.get_mut(at)
    }

    /// Whether nothing is kept of some segment.
    fn has_dead(&self) -> bool {
        self.segments.iter().any(|kept| kept.live == 0)
    }

    /// Takes out a segment of which nothing is kept.
    fn remove_dead(&mut self, caring: &Caring) -> Option<Arc<Segment>> {
        let at =
            self.segments.iter().position(|kept| kept.live == 0 && caring.may(&kept.segment) == Some(0))?;
        self.segments.remove(at).map(|kept| kept.segment)
    }

    /// Neighbours that should be one segment, or a single one that should be smaller.
    fn worth_rewriting(&self, caring: &Caring) -> Vec<Arc<Segment>> {
        let size = u64::from(caring.shared.settings.segment);
        let mut run: Vec<Arc<Segment>> = Vec::new();
        let mut together = 0;
        for segment in self.segments.iter().map(|kept| &kept.segment) {
            let left = caring.may(segment).unwrap_or(u64::MAX);
            if left > size / 2 {
                run.clear();
                together = 0;
                continue;
            }
            if together + left > size / 2 {
                run.clear();
                together = 0;
            }
            together += left;
            run.push(Arc::clone(segment));
            if run.len() == NEIGHBOURS {
                return run;
            }
        }
        let total: u64 = self.segments.iter().map(|kept| u64::from(kept.segment.length)).sum();
        let live: u64 = self.segments.iter().map(|kept| kept.live).sum();
        if total <= 2 * live + size {
            return Vec::new();
        }
        let emptier = self.segments.iter().filter_map(|kept| {
            let left = caring.may(&kept.segment)?;
            // In thousandths.
            let share = left * 1000 / u64::from(kept.segment.length);
            (share <= 500).then_some((share, &kept.segment))
        });
        emptier
            .min_by_key(|(share, _)| *share)
            .map(|(_, segment)| vec![Arc::clone(segment)])
            .unwrap_or_default()
    }

    /// Has one segment stand for neighbours.
    fn replace(&mut self, run: &[Arc<Segment>], by: Arc<Segment>) -> io::Result<()> {
        let numbers: BTreeSet<u64> = run.iter().map(|segment| segment.number).collect();
        let Ok(at) = self.segments.binary_search_by_key(&by.number, |kept| kept.segment.number) else {
            return Ok(());
        };
        let ids: BTreeSet<u32> = run
            .iter()
            .flat_map(|segment| segment.index.parts().map(|(id, _)| id).collect::<Vec<_>>())
            .collect();
        for id in ids {
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            channel.window.clear();
            channel.parts.retain(|(number, _)| !numbers.contains(number));
            if let Some(part) = by.index.part(id).filter(|part| part.last > channel.gone_through) {
                let place = channel.parts.partition_point(|(number, _)| *number < by.number);
                channel.parts.insert(place, (by.number, part.last));
            }
        }
        let live = self.live_of(&by.index)?;
        self.segments.drain(at..at + run.len());
        self.segments.insert(at, Sealed { segment: by, live });
        Ok(())
    }

    /// Bytes of records of a segment whose chunks are kept.
    pub(super) fn live_of(&self, index: &Index) -> io::Result<u64> {
        let mut live = 0;
        for (id, part) in index.parts() {
            let Some(channel) = self.channels.get(&id) else { continue };
            if part.first > channel.gone_through {
                live += part.bytes;
            } else if part.last > channel.gone_through {
                let from = index.position(id, channel.gone_through)?;
                let entries = index.entries(id, from, usize::MAX)?;
                live += entries.iter().map(|entry| u64::from(entry.length)).sum::<u64>();
            }
        }
        Ok(live)
    }
}
