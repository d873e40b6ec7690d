//! Looking at every byte of a log: what is whole, what is not, and which messages that costs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, io,
    sync::Arc,
};

use shared::{ChannelId, Epoch, Seq};

use super::{
    checkpoint::Checkpoint,
    identity::{Identity, VERSION},
    index::{self, Index, Loaded},
    record::{self, Header, Sort},
    segment::{self, START, Trouble},
    volume::{Blob, Volume},
};

/// What was found in a directory.
#[derive(Debug, Default)]
pub(super) struct Examination {
    pub(super) identity: Option<Identity>,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) segments: Vec<Examined>,
    pub(super) names: HashMap<u32, ChannelId>,
    pub(super) channels: BTreeMap<u32, Seen>,
    /// Up to where retention let go, as the checkpoint knows it.
    gone: HashMap<u32, Seq>,
    /// How many messages that were, of channels that a crash costs nothing.
    begins: HashMap<u32, u64>,
    pub(super) messages: u64,
    pub(super) findings: Vec<Finding>,
}

/// A segment that was looked at.
#[derive(Debug)]
pub(super) struct Examined {
    pub(super) number: u64,
    pub(super) through: u64,
    pub(super) blob: Arc<dyn Blob>,
    /// Where whole records are.
    pub(super) runs: Vec<(u32, u32)>,
    /// It is not what was written.
    pub(super) damaged: bool,
}

/// What was seen of a channel.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) last: Seq,
    /// How many messages it had up to there.
    pub(super) messages: u64,
    /// The last message before its first chunk here, and how many those were.
    pub(super) before: (Seq, u64),
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// What was being written when the last run ended: it was never confirmed.
    Torn { file: String, at: u32, bytes: u64 },
    /// It can be made anew without a loss.
    Derived { file: String },
    /// It is needed and not there, or not what was written.
    Missing { file: String },
    /// Bytes that are not what was written.
    Damaged { file: String, from: u32, to: u64 },
    /// These messages of a channel are not there.
    Lost { channel: String, count: u64, after: Seq, before: Option<Seq> },
    /// A channel whose name is lost: what there is of it has this one now.
    Unnamed { messages: u64, now: ChannelId },
    /// Seqs in damaged bytes, of which nobody knows whose they were.
    Unknown { after: Seq, before: Seq },
}

impl Finding {
    /// Whether something that was stored may be gone.
    pub(super) fn is_loss(&self) -> bool {
        !matches!(self, Self::Torn { .. } | Self::Derived { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Torn { file, at, bytes } => {
                write!(
                    f,
                    "{file}: the last {bytes} bytes, from byte {at}, were being written when the relay ended; nobody was told that they are kept"
                )
            }
            Self::Derived { file } => {
                write!(f, "{file}: is not as it should be, and can be made anew without a loss")
            }
            Self::Missing { file } => write!(f, "{file}: is not there, or is not what was written"),
            Self::Damaged { file, from, to } => write!(f, "{file}: damaged from byte {from} to {to}"),
            Self::Lost { channel, count, after, before } => {
                let messages = if *count == 1 { "message" } else { "messages" };
                write!(f, "lost: {count} {messages} of {channel}, after seq {after}")?;
                before.map_or(Ok(()), |before| write!(f, " and before {before}"))
            }
            Self::Unnamed { messages, now } => {
                write!(
                    f,
                    "lost: the name of a channel with {messages} messages, which is {now} once repaired"
                )
            }
            Self::Unknown { after, before } => {
                write!(
                    f,
                    "lost: whatever had a seq after {after} and before {before} and is not told of above"
                )
            }
        }
    }
}

impl Examination {
    /// Looks at everything. An `Err` is what the system says, or that the directory can't be understood.
    pub(super) fn of(volume: &dyn Volume) -> io::Result<Self> {
        let mut all = Self { identity: Identity::load(volume)?, ..Self::default() };
        if all.identity.is_none() {
            all.findings.push(Finding::Missing { file: super::identity::NAME.into() });
        }
        if all.identity.is_some_and(|identity| identity.version > VERSION) {
            return Ok(all);
        }
        all.checkpoint = Checkpoint::load(volume)?;
        match &all.checkpoint {
            Some(checkpoint) => {
                let names = checkpoint.channels.iter().map(|(id, known)| (*id, known.name.clone()));
                all.names.extend(names);
                all.gone = checkpoint.channels.iter().map(|(id, known)| (*id, known.gone_through)).collect();
                let firm = checkpoint.channels.iter().filter(|(_, known)| !known.volatile);
                all.begins = firm.map(|(id, known)| (*id, known.gone)).collect();
            }
            None => all.findings.push(Finding::Missing { file: super::checkpoint::NAME.into() }),
        }
        let names = volume.list()?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
        numbers.sort_unstable();
        let mut covered = 0;
        for (at, number) in numbers.iter().enumerate() {
            if *number > covered {
                covered = all.examine(volume, *number, at + 1 == numbers.len())?.max(*number);
            }
        }
        all.look_for_segments();
        all.name_the_unnamed();
        all.compare_with_checkpoint();
        Ok(all)
    }

    /// Segments that have to be there, as the checkpoint knows it.
    fn look_for_segments(&mut self) {
        let Some(checkpoint) = &self.checkpoint else { return };
        let newest = self.segments.last().map_or(0, |segment| segment.through);
        let there = |number: &u64| {
            self.segments.iter().any(|segment| (segment.number..=segment.through).contains(number))
        };
        let behind = checkpoint.at.segment..=newest.max(checkpoint.at.segment);
        let needed = checkpoint.segments.iter().copied().chain(behind);
        let missing: BTreeSet<u64> = needed.filter(|number| !there(number)).collect();
        let findings =
            missing.into_iter().map(|number| Finding::Missing { file: segment::file_name(number) });
        self.findings.extend(findings);
    }

    /// Looks at a segment; up to which number it stands.
    fn examine(&mut self, volume: &dyn Volume, number: u64, is_last: bool) -> io::Result<u64> {
        let file = segment::file_name(number);
        let blob = volume.open(&file)?;
        let length = blob.len()?;
        let named = segment::numbers(&*blob)?.filter(|(own, _)| *own == number);
        let mut damaged = named.is_none();
        if damaged {
            self.findings.push(Finding::Damaged {
                file: file.clone(),
                from: 0,
                to: length.min(START.into()),
            });
        }
        let beside = Index::load(volume, number)?;
        if let Some(beside) = &beside {
            for (id, name) in &beside.names {
                self.names.entry(*id).or_insert_with(|| name.clone());
            }
        }
        let (mut index, mut runs, mut from, mut tip) = (Index::default(), Vec::new(), START, 0);
        let mut head = None;
        loop {
            let scan =
                segment::scan(&*blob, from.min(segment::offset(length)), tip, |found, offset, body| {
                    self.record(&found.header, &body[record::HEADER..], head.take());
                    index.add(&found.header, offset, segment::offset(found.length as u64));
                })?;
            runs.push((from, scan.end));
            match scan.trouble {
                None => break,
                Some(Trouble::Torn(bytes)) if is_last => {
                    self.findings.push(Finding::Torn { file: file.clone(), at: scan.end, bytes });
                    break;
                }
                Some(trouble) => {
                    damaged = true;
                    let next = match trouble {
                        Trouble::Damaged { next } => next,
                        Trouble::Torn(_) => segment::next_whole(&*blob, scan.end)?,
                    };
                    let to = next.map_or(length, u64::from);
                    self.findings.push(Finding::Damaged { file: file.clone(), from: scan.end, to });
                    let Some(next) = next else { break };
                    head = Some(self.head());
                    (from, tip) = (next, segment::before(&*blob, next)?);
                }
            }
        }
        let agrees = match &beside {
            Some(Loaded { index: other, of, .. }) => {
                u64::from(of.length) == length && of.number == number && other.agrees_with(&index)?
            }
            // The last one gets its index when it is sealed.
            None => is_last,
        };
        if !agrees {
            self.findings.push(Finding::Derived { file: index::file_name(number) });
        }
        let through = named.map_or(number, |(_, through)| through);
        self.segments.push(Examined { number, through, blob, runs, damaged });
        Ok(through)
    }

    /// The last seq that was seen.
    pub(super) fn head(&self) -> Seq {
        self.channels.values().map(|seen| seen.last).max().unwrap_or(Seq::ZERO)
    }

    /// One more whole record; behind damaged bytes with the last seq before them.
    fn record(&mut self, header: &Header, body: &[u8], head: Option<Seq>) {
        if header.sort == Sort::Channel
            && let Some((name, _)) = record::channel_of(body)
        {
            self.names.insert(header.channel, name);
        }
        if header.sort != Sort::Chunk {
            return;
        }
        if let Some(head) = head.filter(|head| header.first.0 > head.0 + 1) {
            self.findings.push(Finding::Unknown { after: head, before: header.first });
        }
        self.messages += u64::from(header.count);
        let seen = self.channels.entry(header.channel).or_default();
        let known = seen.messages > 0 || seen.last > Seq::ZERO;
        let begins = self.begins.get(&header.channel).copied().filter(|_| !known);
        let count = header.ordinal.saturating_sub(begins.unwrap_or(seen.messages));
        let last = seen.last;
        let before = if known { seen.before } else { (header.prev, header.ordinal) };
        *seen = Seen { last: header.last(), messages: header.ordinal + u64::from(header.count), before };
        // What retention let go may be gone in any places.
        let gone = self.gone.get(&header.channel).copied().unwrap_or(Seq::ZERO);
        if (known || begins.is_some()) && header.prev > last.max(gone) && count > 0 {
            self.lose(header.channel, count, if known { last } else { gone }, Some(header.first));
        }
    }

    fn lose(&mut self, id: u32, count: u64, after: Seq, before: Option<Seq>) {
        let channel = self
            .names
            .get(&id)
            .map_or_else(|| format!("a channel whose name is lost ({id})"), ToString::to_string);
        self.findings.push(Finding::Lost { channel, count, after, before });
    }

    /// A channel whose only record was damaged goes on under a name that says so.
    fn name_the_unnamed(&mut self) {
        for (id, seen) in &self.channels {
            if !self.names.contains_key(id)
                && let Ok(now) = format!("recovered/{id}").parse::<ChannelId>()
            {
                self.names.insert(*id, now.clone());
                self.findings.push(Finding::Unnamed { messages: seen.messages, now });
            }
        }
    }

    /// What the checkpoint knows to have been there at the end of channels.
    fn compare_with_checkpoint(&mut self) {
        let Some(checkpoint) = &self.checkpoint else { return };
        let ends = checkpoint.channels.iter().filter_map(|(id, known)| {
            let kept = known.last > known.gone_through;
            let nothing = Seen { last: known.gone_through, messages: known.gone, before: (Seq::ZERO, 0) };
            let seen = self.channels.get(id).copied().unwrap_or(nothing);
            (kept && known.messages > seen.messages).then(|| (*id, known.messages - seen.messages, seen.last))
        });
        for (id, count, after) in ends.collect::<Vec<_>>() {
            self.lose(id, count, after, None);
        }
    }

    /// The epoch, if it is known.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.identity.map(|identity| identity.epoch)
    }

    /// Whether something that was stored may be gone.
    pub(super) fn has_losses(&self) -> bool {
        self.findings.iter().any(Finding::is_loss)
    }
}
