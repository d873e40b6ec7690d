//! Opening: from the files to the state. The checkpoint says what was known at one place of the log; what comes behind
//! is read. What was being written when the last run ended without a word is cut off; anything else that is not what
//! was written is refused, and `relay log repair` can say what it costs.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::Path,
    sync::Arc,
};

use shared::{ChannelId, Epoch, Seq};

use super::{
    checkpoint::{self, At, Checkpoint},
    identity::Identity,
    index::{self, Index, Loaded},
    record::{HEADER, Header},
    replay::{Replay, note_crash},
    segment::{self, START, Scan, Segment, Trouble},
    state::{Active, Limits, Sealed, State},
    volume::{self, Blob, DRAFT, Volume},
};
use crate::store::{Durability, Retention, producers::Producers};

/// Why a directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another relay uses it.
    #[error("another relay is using it\n  hint: two relays need two directories")]
    Locked,
    /// A newer version has written it.
    #[error("a newer version of relay has written it (version {0})\n  hint: use that version")]
    Newer(u64),
    /// It has files of a log, but not the one that says so.
    #[error(
        "it has files of a log, but `store`, which says what they are, is not there or not readable\n  hint: `relay log repair {0}` makes it anew; with another directory the relay starts empty"
    )]
    NoIdentity(String),
    /// Something in it was stored and is not what it was.
    #[error(
        "{what}\n  hint: `relay log check {directory}` tells all of it, `relay log repair {directory}` says what was lost and goes on with the rest"
    )]
    Damaged {
        /// What.
        what: String,
        /// The directory.
        directory: String,
    },
    /// The system says no.
    #[error("{}", describe(.0))]
    System(#[from] io::Error),
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => "it is on a file system that is read-only".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::StorageFull => "the disk is full".into(),
        _ => error.to_string(),
    }
}

/// What a log is opened with.
pub(super) struct Opening<'a> {
    pub(super) volume: &'a dyn Volume,
    pub(super) directory: &'a Path,
    pub(super) limits: Limits,
    pub(super) producers: usize,
    pub(super) now: u64,
    pub(super) rules: &'a dyn Fn(&ChannelId) -> (Durability, Retention),
}

/// Segments by their numbers, with up to which number each stands.
type Files = BTreeMap<u64, (u64, Arc<dyn Blob>)>;

/// A log that was opened.
pub(super) struct Opened {
    pub(super) epoch: Epoch,
    pub(super) state: State,
    pub(super) producers: Producers,
    pub(super) end: End,
    /// Channels whose record says something else than the rules.
    pub(super) changed: HashSet<u32>,
    /// Segments without an index beside them.
    pub(super) unindexed: Vec<u64>,
}

/// Where the log is written on.
pub(super) struct End {
    pub(super) number: u64,
    pub(super) blob: Arc<dyn Blob>,
    pub(super) end: u32,
    pub(super) tip: u32,
    pub(super) head: Seq,
    pub(super) mark: Seq,
    /// What has to be written before anything else.
    pub(super) crash: Option<(Header, Vec<u8>)>,
}

impl Opening<'_> {
    /// Opens what is there, or begins anew in an empty directory.
    pub(super) fn open(&self) -> Result<Opened, OpenError> {
        let names = self.volume.list()?;
        let segments: BTreeMap<u64, ()> =
            names.iter().filter_map(|name| segment::number_of(name)).map(|number| (number, ())).collect();
        let epoch = match Identity::load(self.volume)? {
            Some(identity) if identity.version > super::identity::VERSION => {
                return Err(OpenError::Newer(identity.version));
            }
            Some(identity) => identity.epoch,
            None if self.is_unused(&segments)? => self.begin()?,
            None => return Err(OpenError::NoIdentity(self.directory.display().to_string())),
        };
        for name in names.iter().filter(|name| name.ends_with(DRAFT)) {
            self.volume.remove(name)?;
        }
        self.recover(epoch)
    }

    /// Whether nothing was ever stored: a beginning that was broken off counts as that.
    fn is_unused(&self, segments: &BTreeMap<u64, ()>) -> Result<bool, OpenError> {
        match segments.keys().collect::<Vec<_>>()[..] {
            [] => Ok(true),
            [number] => Ok(self.volume.open(&segment::file_name(*number))?.len()? <= u64::from(START)),
            _ => Ok(false),
        }
    }

    /// An empty log: what says that it is one comes last.
    fn begin(&self) -> Result<Epoch, OpenError> {
        let blob = segment::create(self.volume, &segment::file_name(1), 1, 1)?;
        blob.sync()?;
        let at = At { segment: 1, offset: START, tip: 0, clean: true };
        let state = State::empty(self.limits, Active::new(1, blob));
        let checkpoint =
            Checkpoint::encode(at, (Seq::ZERO, Seq::ZERO), &state, &Producers::new(self.producers));
        volume::replace(self.volume, checkpoint::NAME, &checkpoint)?;
        let identity = Identity::new();
        identity.write(self.volume)?;
        Ok(identity.epoch)
    }

    fn damaged(&self, what: String) -> OpenError {
        OpenError::Damaged { what, directory: self.directory.display().to_string() }
    }

    fn recover(&self, epoch: Epoch) -> Result<Opened, OpenError> {
        let Some(checkpoint) = Checkpoint::load(self.volume)? else {
            return Err(self.damaged("`checkpoint` is not there or damaged".into()));
        };
        let files = self.segments()?;
        let Some((last, _)) = files.last_key_value() else {
            return Err(self.damaged("there is no segment of the log".into()));
        };
        let (last, at) = (*last, checkpoint.at);
        if at.segment > last {
            return Err(self.damaged(format!("{} is not there", segment::file_name(at.segment))));
        }
        // None behind the checkpoint can be gone, and of those before it none of which something was kept.
        let there = |number: u64| {
            files.range(..=number).next_back().is_some_and(|(_, (through, _))| *through >= number)
        };
        if let Some(missing) =
            checkpoint.segments.iter().copied().chain(at.segment..=last).find(|n| !there(*n))
        {
            return Err(self.damaged(format!("{} is not there", segment::file_name(missing))));
        }
        let blob = Arc::clone(&files[&last].1);
        let mut state = State::empty(self.limits, Active::new(last, blob));
        let mut producers = Producers::new(self.producers);
        let mut replay = Replay::begin(checkpoint, &mut state, &mut producers, self.now);
        let (mut unindexed, mut end) = (Vec::new(), None);
        for (number, (through, blob)) in &files {
            let name = segment::file_name(*number);
            let beside = Index::load(self.volume, *number)?;
            let length = segment::offset(blob.len()?);
            let fits = beside.filter(|Loaded { of, .. }| {
                (of.number, of.through, of.length) == (*number, *through, length)
            });
            let before = state.segments.back().map_or(Seq::ZERO, |kept| kept.segment.index.last());
            if let Some(Loaded { mut index, of, .. }) =
                fits.filter(|_| *number < at.segment && *number < last)
            {
                index.starts_after(before);
                let segment = Segment {
                    number: *number,
                    through: *through,
                    length,
                    blob: Arc::clone(blob),
                    index,
                    tip: of.tip,
                };
                state.segments.push_back(Sealed { segment: Arc::new(segment), live: 0 });
                continue;
            }
            let mut index = Index::default();
            index.starts_after(before);
            let scan = segment::scan(&**blob, START, 0, |found, offset, bytes| {
                index.add(&found.header, offset, segment::offset(found.length as u64));
                let behind = *number > at.segment || *number == at.segment && offset >= at.offset;
                if behind {
                    replay.record(&mut state, &mut producers, found, &bytes[HEADER..]);
                }
            })?;
            if *number < last {
                if scan.trouble.is_some() {
                    return Err(self.damaged(format!("{name} is damaged at byte {}", scan.end)));
                }
                unindexed.push(*number);
                let segment = Segment {
                    number: *number,
                    through: *through,
                    length: scan.end,
                    blob: Arc::clone(blob),
                    index,
                    tip: scan.tip,
                };
                state.segments.push_back(Sealed { segment: Arc::new(segment), live: 0 });
                continue;
            }
            if let Some(Trouble::Damaged { .. }) = scan.trouble {
                return Err(self.damaged(format!("{name} is damaged at byte {}", scan.end)));
            }
            if *number == at.segment && scan.end < at.offset {
                let ends =
                    format!("{name} ends at byte {}, and had {} when the relay ended", scan.end, at.offset);
                return Err(self.damaged(ends));
            }
            state.active.index = index;
            end = Some(scan);
        }
        let Some(scan) = end else { return Err(self.damaged("there is no segment of the log".into())) };
        let clean = at.clean && at.segment == last && at.offset == scan.end && scan.trouble.is_none();
        let blob = if clean { Arc::clone(&state.active.blob) } else { self.settle(last, &state, &scan)? };
        state.active.blob = Arc::clone(&blob);
        state.active.end = scan.end;
        let mut end = End {
            number: last,
            blob,
            end: scan.end,
            tip: scan.tip,
            head: replay.head,
            mark: replay.mark.max(replay.head),
            crash: None,
        };
        if !clean && end.mark > end.head {
            end.crash = Some(note_crash(&mut state, end.head, end.mark));
            end.head = end.mark;
        }
        let changed = self.apply_rules(&mut state);
        state.head = end.head;
        state.recent_after = end.head;
        state.active.end = end.end;
        self.count(&mut state)?;
        Ok(Opened { epoch, state, producers, end, changed, unindexed })
    }

    /// The segments by their numbers; what another stands for is a leftover and goes, and so do indices of nothing.
    fn segments(&self) -> Result<Files, OpenError> {
        let mut files = Files::new();
        let mut covered = 0;
        let names = self.volume.list()?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
        numbers.sort_unstable();
        let newest = numbers.last().copied();
        for number in numbers {
            let name = segment::file_name(number);
            if number <= covered {
                self.volume.remove(&name)?;
                continue;
            }
            let blob = self.volume.open(&name)?;
            match segment::numbers(&*blob)? {
                Some((own, through)) if own == number => {
                    covered = through;
                    files.insert(number, (through, blob));
                }
                // The last one may not have come to be.
                _ if Some(number) == newest && !files.is_empty() && blob.len()? <= u64::from(START) => {
                    self.volume.remove(&name)?;
                }
                _ => return Err(self.damaged(format!("{name} is damaged at its beginning"))),
            }
        }
        let index_number =
            |name: &str| name.strip_suffix(".idx").and_then(|digits| digits.parse::<u64>().ok());
        for number in names.iter().filter_map(|name| index_number(name)) {
            if !files.contains_key(&number) {
                self.volume.remove(&index::file_name(number))?;
            }
        }
        Ok(files)
    }

    /// Brings to the disk itself what was found in the last segment: it may be in the system's memory alone, or be
    /// followed by what was being written. In a file of its own: after an error the system may take what it has in
    /// memory for written.
    fn settle(&self, number: u64, state: &State, scan: &Scan) -> Result<Arc<dyn Blob>, OpenError> {
        if let Some(Trouble::Torn(bytes)) = scan.trouble {
            tracing::warn!("cut off {bytes} bytes that were being written when the last run ended");
        }
        let mut bytes = vec![0; scan.end as usize];
        state.active.blob.read_exact_at(&mut bytes, 0)?;
        let name = segment::file_name(number);
        match volume::replace(self.volume, &name, &bytes) {
            Ok(()) => Ok(self.volume.open(&name)?),
            // It is still served; what comes has to wait for room.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                let _ = self.volume.remove(&format!("{name}{DRAFT}"));
                state.active.blob.cut(scan.end.into())?;
                state.active.blob.sync()?;
                Ok(Arc::clone(&state.active.blob))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What the rules say now holds now; which channels' records say something else.
    fn apply_rules(&self, state: &mut State) -> HashSet<u32> {
        let mut changed = HashSet::new();
        for (id, channel) in &mut state.channels {
            let (mut durability, retention) = (self.rules)(&channel.name);
            if durability == Durability::Memory && channel.last > channel.gone_through {
                // What it has on the disk stays there until it goes.
                durability = Durability::Async { flush: std::time::Duration::from_secs(1) };
            }
            if (durability != Durability::Sync) != channel.is_volatile() {
                changed.insert(*id);
            }
            (channel.durability, channel.retention) = (durability, retention);
        }
        changed
    }

    /// Counts what is kept, and lets go what is too much.
    fn count(&self, state: &mut State) -> Result<(), OpenError> {
        let segments: Vec<Arc<Segment>> =
            state.segments.iter().map(|kept| Arc::clone(&kept.segment)).collect();
        for (at, segment) in segments.iter().enumerate() {
            state.segments[at].live = state.live_of(&segment.index)?;
            count_parts(state, segment.number, &segment.index)?;
        }
        let index = std::mem::take(&mut state.active.index);
        state.active.live = state.live_of(&index)?;
        count_parts(state, state.active.number, &index)?;
        state.active.index = index;
        state.present = state.channels.values().filter(|channel| !channel.retired).count();
        let ids: Vec<u32> = state.channels.keys().copied().collect();
        for id in ids {
            state.find_first(id)?;
            state.find_gone(id)?;
            state.enforce(id)?;
        }
        state.enforce_all()?;
        Ok(())
    }
}

/// Adds what a segment has of each channel.
fn count_parts(state: &mut State, number: u64, index: &Index) -> io::Result<()> {
    for (id, part) in index.parts() {
        let Some(channel) = state.channels.get_mut(&id).filter(|c| part.last > c.gone_through) else {
            continue;
        };
        channel.parts.push_back((number, part.last));
        let from = index.position(id, channel.gone_through)?;
        let cost = if from == 0 {
            part.bytes + (256 - HEADER as u64) * part.chunks() as u64
        } else {
            index.entries(id, from, usize::MAX)?.iter().map(index::Entry::cost).sum()
        };
        channel.bytes += cost;
        state.bytes += cost;
        let last = index.entries(id, part.chunks().saturating_sub(1), usize::MAX)?;
        channel.newest = last.first().map_or(channel.newest, |entry| entry.first);
    }
    Ok(())
}
