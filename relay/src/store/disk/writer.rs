//! The one who writes: a thread that takes what waits, gives seqs, writes all of it at once, has it synced once where
//! that was promised, and then tells the tail and whoever waits.

use std::{
    collections::HashSet,
    io, mem,
    sync::{Arc, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use shared::Seq;
use tokio::sync::oneshot;

use super::{
    Shared,
    care::Care,
    checkpoint::{self, At, Checkpoint, Saved},
    end::Log,
    group::{Group, Planned, Reply},
    queue::{Queue, Taken, Work},
    record::{self, Header, Sort},
    reserve,
    segment::{self, START, Segment},
    state::{Active, Sealed, State},
    volume,
};
use crate::store::{Durability, Refused, producers::Producers};

/// Seqs that are reserved at a time.
const RESERVED: u64 = 1 << 24;
/// How long it is quiet before it is noted what is on the disk.
const QUIET: Duration = Duration::from_millis(20);

/// The writer of a store.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Arc<Queue>,
    pub(super) care: Option<mpsc::Sender<Care>>,
    pub(super) producers: Producers,
    pub(super) log: Log,
    /// The last seq that was given, and up to which seqs may be given.
    pub(super) head: Seq,
    pub(super) mark: Seq,
    /// What has to be written first: that the last run ended without a word.
    pub(super) crash: Option<(Header, Vec<u8>)>,
    /// Channels whose record has to come before their next chunk.
    pub(super) unwritten: HashSet<u32>,
    /// When what is written has to be on the disk itself.
    pub(super) flush: Option<Instant>,
    /// Why nothing is written any more.
    pub(super) failed: Option<String>,
    pub(super) full: bool,
    /// Until when nothing is tried: whoever was refused learns of it before something behind it is stored.
    pub(super) resting: Option<Instant>,
}

impl Writer {
    /// Writes until nobody can ask for it any more, or the store was closed.
    pub(super) fn run(mut self) {
        let mut work = Vec::new();
        loop {
            let quiet = (self.log.noted < self.log.synced).then(|| Instant::now() + QUIET);
            let until = [self.flush, quiet].into_iter().flatten().min();
            let room = self.room();
            match self.queue.take(until, room, &mut work) {
                Taken::Work => {
                    if let Some(closed) = self.commit(&mut work) {
                        let outcome = self.close();
                        let _ = closed.send(outcome);
                        return self.refuse_all();
                    }
                    self.flush_what_is_due();
                }
                Taken::Nothing => self.rest(),
                Taken::End => return,
            }
        }
    }

    /// Bytes that still belong into this segment; where what comes next does not fit, a new one is begun.
    fn room(&mut self) -> usize {
        let size = self.shared.settings.segment as usize;
        let left = size.saturating_sub(self.log.end as usize);
        let next = self.queue.next().unwrap_or_default();
        if (left == 0 || next > left) && self.log.end > START && self.failed.is_none() {
            match self.seal() {
                Ok(()) => return size - START as usize,
                Err(error) => self.trouble(&error),
            }
        }
        left
    }

    /// Does what is asked for, as one group; whoever wants the store to end.
    fn commit(&mut self, work: &mut Vec<Work>) -> Option<oneshot::Sender<io::Result<()>>> {
        let mut group = Group { head: self.head, ..Group::default() };
        let (mut closed, mut save) = (None, false);
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        for work in work.drain(..) {
            match work {
                Work::Append(batch, settle) => {
                    let outcome = self.plan(&mut state, &mut group, batch);
                    group.replies.push(Reply::Append(settle, outcome));
                }
                Work::Claim(claiming, settle) => self.claim(&mut group, claiming, settle),
                Work::Open { claim, channel, first_pseq, settle } => {
                    let outcome = self.producers.open(claim, &channel, first_pseq);
                    group.replies.push(Reply::Open(settle, outcome));
                }
                Work::Release(claim, now) => self.producers.release(claim, now),
                Work::Expire(now) => self.producers.expire(now),
                Work::Save => save = true,
                Work::Close(settle) => closed = Some(settle),
            }
        }
        drop(state);
        match self.write(&mut group) {
            Ok(()) => {
                self.head = group.head;
                self.tell(&group.chunks);
            }
            Err(error) => {
                self.trouble(&error);
                self.take_back(&mut group);
            }
        }
        group.replies.into_iter().for_each(|reply| reply.send(&mut self.producers));
        if save {
            self.save();
        }
        closed
    }

    /// Writes the records of a group, and has them synced if that has to be.
    fn write(&mut self, group: &mut Group) -> io::Result<()> {
        if group.head > self.mark {
            group.sync = true;
        }
        let (start, tip) = (self.log.end, self.log.tip);
        let mark = self.encode(group);
        if self.log.buffer.is_empty() {
            return Ok(());
        }
        if self.failed.is_some() || self.resting.is_some_and(|until| Instant::now() < until) {
            (self.log.end, self.log.tip) = (start, tip);
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Err(error) = self.log.blob.write_at(&self.log.buffer, start.into()) {
            (self.log.end, self.log.tip) = (start, tip);
            if let Err(error) = self.log.blob.cut(start.into()) {
                self.fail(&error);
            }
            return Err(error);
        }
        if group.sync {
            self.sync()?;
        } else if let Some(flush) = group.flush {
            let until = Instant::now() + flush;
            self.flush = Some(self.flush.map_or(until, |other| other.min(until)));
        }
        if mem::take(&mut self.full) {
            tracing::info!("there is room on the disk again: messages are stored");
        }
        self.mark = mark;
        self.crash = None;
        for planned in &group.chunks {
            self.unwritten.remove(&planned.id);
        }
        Ok(())
    }

    /// Puts the records of a group into the buffer, as if they were written; up to which seqs may be given then.
    fn encode(&mut self, group: &mut Group) -> Seq {
        let log = &mut self.log;
        log.buffer.clear();
        let start = log.end;
        let mut mark = self.mark;
        if let Some((header, body)) = self.crash.as_ref().filter(|_| group.writes()) {
            log.put(header, body);
            group.sync = true;
        }
        if group.head > mark {
            mark = Seq(group.head.0 + RESERVED);
            log.put(&Header { first: mark, ..Header::of(Sort::Reserve) }, &[]);
        }
        for (claim, keep, now) in &group.claims {
            log.put(&Header { time: *now, ..Header::of(Sort::Claim) }, &record::claim_body(claim, *keep));
        }
        let mut written = HashSet::new();
        for planned in &mut group.chunks {
            let name = planned.chunk.channel();
            if self.unwritten.contains(&planned.id) && written.insert(planned.id) {
                let header = Header { channel: planned.id, ..Header::of(Sort::Channel) };
                log.put(&header, &record::channel_body(name, planned.durability));
                // That it is there must not be lost with its messages: a receiver has to be told of those.
                group.sync = true;
            }
            if planned.durability != Durability::Memory {
                planned.record = Some(log.put_chunk(planned.id, &planned.chunk, planned.stamp.as_ref()));
            }
        }
        debug_assert_eq!(log.end as usize - start as usize, log.buffer.len());
        // A group without a record on the disk needs no disk.
        group.sync &= !log.buffer.is_empty();
        mark
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Err(error) = self.log.blob.sync() {
            // What the system did with what it could not write is not known: no sync of this file means anything
            // any more.
            self.fail(&error);
            return Err(error);
        }
        self.log.synced = self.log.end;
        self.flush = None;
        Ok(())
    }

    /// Tells the tail of what is committed, and lets go what is too much then.
    fn tell(&self, chunks: &[Planned]) {
        let mut state = self.shared.state();
        for Planned { id, chunk, record, .. } in chunks {
            state.commit(*id, chunk, *record);
            let enforced = state.enforce(*id).and_then(|()| state.enforce_all());
            if let Err(error) = enforced {
                tracing::error!("more is kept than should be: {error}");
            }
            // Under the lock, so that nobody reads more than the tail was told.
            self.shared.tail.tell(chunk);
        }
        state.active.end = self.log.end;
    }

    /// A group did not come to be.
    fn take_back(&mut self, group: &mut Group) {
        for (stamp, channel, before) in group.undo.drain(..).rev() {
            self.producers.restore(&stamp, &channel, before);
        }
        let mut state = self.shared.state();
        for planned in &group.chunks {
            if let Some(channel) = state.channels.get_mut(&planned.id) {
                channel.planned -= 1;
            }
        }
        drop(state);
        let refused = Refused::Unavailable { retry: self.shared.settings.retry };
        for reply in &mut group.replies {
            reply.refuse(refused, &mut self.producers);
        }
    }

    /// Something could not be written.
    fn trouble(&mut self, error: &io::Error) {
        if self.resting.is_none_or(|until| until < Instant::now()) {
            self.resting = Some(Instant::now() + self.shared.settings.retry / 2);
        }
        if self.failed.is_none() && !mem::replace(&mut self.full, true) {
            tracing::error!("nothing is stored until there is room on the disk: {error}");
        }
    }

    fn fail(&mut self, error: &io::Error) {
        if self.failed.is_none() {
            tracing::error!(
                "the disk failed, so that nothing is stored until the relay is started again: {error}"
            );
            self.failed = Some(error.to_string());
        }
    }

    /// It is quiet, or something has to be on the disk by now.
    fn rest(&mut self) {
        if self.failed.is_some() {
            (self.flush, self.log.noted) = (None, self.log.synced);
            return;
        }
        self.flush_what_is_due();
        if self.flush.is_none() && self.log.noted < self.log.synced {
            self.log.note();
        }
    }

    /// Brings to the disk what has to be there by now.
    fn flush_what_is_due(&mut self) {
        if self.failed.is_none() && self.flush.is_some_and(|until| until <= Instant::now()) {
            let _ = self.sync();
        }
    }

    /// Seals the segment and begins another.
    fn seal(&mut self) -> io::Result<()> {
        if self.log.synced < self.log.end {
            self.sync()?;
        }
        let number = self.log.number + 1;
        let directory = &*self.shared.volume;
        let blob = match segment::begin(directory, number) {
            Ok(blob) => blob,
            Err(error) => {
                // The segment that is written on has to be the last one, after any crash.
                if let Err(error) = segment::give_up(directory, number) {
                    self.fail(&error);
                }
                return Err(error);
            }
        };
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        let active = Active::after(&state.active, number, Arc::clone(&blob));
        let Active { number: sealed, blob: sealed_blob, index, live, .. } =
            mem::replace(&mut state.active, active);
        let segment = Segment {
            number: sealed,
            through: sealed,
            length: self.log.end,
            blob: sealed_blob,
            index,
            tip: self.log.tip,
        };
        state.segments.push_back(Sealed { segment: Arc::new(segment), live });
        let buffer = mem::take(&mut self.log.buffer);
        self.log = Log { number, blob, end: START, tip: 0, synced: START, noted: START, buffer };
        let checkpoint = shared.wants_checkpoint().then(|| self.checkpoint(&state, false));
        drop(state);
        if let Some(care) = &self.care {
            let _ = care.send(Care::Sealed { number: sealed, checkpoint });
        }
        Ok(())
    }

    /// A checkpoint here; everything before it is on the disk.
    fn checkpoint(&self, state: &State, clean: bool) -> Saved {
        let segment = self.log.number;
        let at = At { segment, offset: self.log.end, tip: self.log.tip, clean };
        let mark = if clean { self.head } else { self.mark };
        let bytes = Checkpoint::encode(at, (self.head, mark), state, &self.producers);
        let gone = state.channels.iter().map(|(id, channel)| (*id, channel.gone_through));
        Saved { bytes, segment, gone: gone.collect() }
    }

    /// Has a checkpoint written, since space depends on it.
    fn save(&mut self) {
        let cannot = self.failed.is_some() || self.log.synced < self.log.end && self.sync().is_err();
        if cannot || !self.shared.wants_checkpoint() {
            return;
        }
        let checkpoint = self.checkpoint(&self.shared.state(), false);
        if let Some(care) = &self.care {
            let _ = care.send(Care::Checkpoint(checkpoint));
        }
    }

    /// Brings everything to the disk, and a checkpoint with it.
    fn close(&mut self) -> io::Result<()> {
        if let Some(failed) = &self.failed {
            return Err(io::Error::other(failed.clone()));
        }
        if self.log.synced < self.log.end {
            self.sync()?;
        }
        // Whoever takes care has the last word on the segments: it ends first.
        if let Some(care) = self.care.take() {
            self.shared.ending.store(true, Ordering::Relaxed);
            let (done, ended) = mpsc::channel();
            let _ = care.send(Care::End(done));
            let _ = ended.recv();
        }
        let checkpoint = self.checkpoint(&self.shared.state(), true);
        let volume = &*self.shared.volume;
        reserve::with(volume, || volume::replace(volume, checkpoint::NAME, &checkpoint.bytes))
    }

    /// Nothing is stored any more.
    fn refuse_all(mut self) {
        let mut work = Vec::new();
        self.failed = Some("the store has ended".into());
        while self.queue.take(None, usize::MAX, &mut work) == Taken::Work {
            for work in work.drain(..) {
                let retry = Refused::Unavailable { retry: self.shared.settings.retry };
                match work {
                    Work::Append(_, settle) => drop(settle.send(Err(retry))),
                    Work::Claim(_, settle) => drop(settle.send(Err(retry))),
                    Work::Open { settle, .. } => drop(settle.send(Err(retry))),
                    Work::Close(settle) => drop(settle.send(Ok(()))),
                    Work::Release(..) | Work::Expire(_) | Work::Save => {}
                }
            }
        }
    }
}
