//! Who takes care of sealed segments: a thread that writes their indices and the checkpoints, and gives back the space
//! of what is gone. All that it does can be done again, and the writer does not wait for it.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::{Arc, mpsc},
};

use shared::Seq;

use super::{
    Shared, checkpoint,
    index::{self, Index, Of},
    record::{self, Context, HEADER, Sort},
    segment::{self, START, Segment},
    state::{Sealed, State},
    volume,
};

/// So many neighbours are made one, if all of them together are no more than half of a segment.
const NEIGHBOURS: usize = 8;
/// Bytes that are written at a time.
const PIECE: usize = 1 << 20;

/// Something to take care of.
#[derive(Debug)]
pub(super) enum Care {
    /// A segment was sealed; the checkpoint, if there is a new one, belongs behind it.
    Sealed { number: u64, checkpoint: Option<Vec<u8>> },
    /// Something may be gone.
    Trimmed,
    /// The store ends.
    End(mpsc::Sender<()>),
}

/// Takes care of what it is told, until the store ends.
#[derive(Debug)]
pub(super) struct Caring {
    shared: Arc<Shared>,
    /// Segments below this are not needed to know the state.
    checkpointed: u64,
    /// Segments that can't be read: they stay as they are.
    damaged: BTreeSet<u64>,
}

impl Caring {
    pub(super) fn new(shared: Arc<Shared>, checkpointed: u64) -> Self {
        Self { shared, checkpointed, damaged: BTreeSet::new() }
    }

    pub(super) fn run(mut self, tasks: &mpsc::Receiver<Care>) {
        while let Ok(care) = tasks.recv() {
            let outcome = match care {
                Care::Sealed { number, checkpoint } => {
                    self.finish(number, checkpoint.as_deref()).and_then(|()| self.reclaim())
                }
                Care::Trimmed => self.reclaim(),
                Care::End(done) => {
                    let _ = done.send(());
                    return;
                }
            };
            if let Err(error) = outcome {
                tracing::warn!("space of what is gone is not given back yet: {error}");
            }
        }
    }

    /// Writes the index of a segment that was sealed, and the checkpoint behind it.
    fn finish(&mut self, number: u64, checkpoint: Option<&[u8]>) -> io::Result<()> {
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
        if let Some(checkpoint) = checkpoint {
            volume::replace(&*self.shared.volume, checkpoint::NAME, checkpoint)?;
            self.checkpointed = self.checkpointed.max(number + 1);
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
        loop {
            if let Some(segment) = self.shared.state().remove_dead(self.checkpointed) {
                self.remove(segment.number)?;
                continue;
            }
            let run = self.shared.state().worth_rewriting(self);
            if run.is_empty() {
                return Ok(());
            }
            self.rewrite(&run)?;
        }
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        self.shared.volume.remove(&segment::file_name(number))?;
        match self.shared.volume.remove(&index::file_name(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes one segment with what is kept of neighbours, in their order, in place of the first of them.
    fn rewrite(&mut self, run: &[Arc<Segment>]) -> io::Result<()> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let gone: HashMap<u32, Seq> = {
            let state = self.shared.state();
            state.channels.iter().map(|(id, channel)| (*id, channel.gone_through)).collect()
        };
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

    /// Takes out a segment below that number of which nothing is kept.
    fn remove_dead(&mut self, below: u64) -> Option<Arc<Segment>> {
        let dead = |kept: &Sealed| kept.live == 0 && kept.segment.through < below;
        let at = self.segments.iter().position(dead)?;
        self.segments.remove(at).map(|kept| kept.segment)
    }

    /// Neighbours that should be one segment, or a single one that should be smaller.
    fn worth_rewriting(&self, caring: &Caring) -> Vec<Arc<Segment>> {
        let size = u64::from(caring.shared.settings.segment);
        let sealed: Vec<&Sealed> = self.segments.iter().collect();
        let may = |kept: &&&Sealed| {
            kept.segment.through < caring.checkpointed && !caring.damaged.contains(&kept.segment.number)
        };
        let mut run: Vec<Arc<Segment>> = Vec::new();
        let mut live = 0;
        for kept in &sealed {
            if !may(&kept) || live + kept.live > size / 2 {
                run.clear();
                live = 0;
                if !may(&kept) || kept.live > size / 2 {
                    continue;
                }
            }
            live += kept.live;
            run.push(Arc::clone(&kept.segment));
            if run.len() == NEIGHBOURS {
                return run;
            }
        }
        let total: u64 = sealed.iter().map(|kept| u64::from(kept.segment.length)).sum();
        let live: u64 = sealed.iter().map(|kept| kept.live).sum();
        if total <= 2 * live + size {
            return Vec::new();
        }
        let emptier =
            sealed.iter().filter(may).filter(|kept| 2 * kept.live <= u64::from(kept.segment.length));
        let emptiest = emptier.min_by_key(|kept| {
            // In thousandths.
            kept.live * 1000 / u64::from(kept.segment.length)
        });
        emptiest.map(|kept| vec![Arc::clone(&kept.segment)]).unwrap_or_default()
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
