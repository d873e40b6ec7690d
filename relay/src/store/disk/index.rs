//! Where in a segment the chunks of each channel are. Of the segment that is written it is in memory; of the others
//! only a summary is, and the entries are in a file beside the segment, which can be made anew from it at any time.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::Arc,
};

use bytes::{Buf as _, BufMut as _};
use shared::{ChannelId, Seq};

use super::{
    record::{HEADER, Header, Sort},
    segment::START,
    volume::{self, Blob, Patience, Volume},
};

/// Bytes of a segment between two landmarks; the small segments of tests have several too.
const STRIDE: u32 = if cfg!(test) { 300 } else { 256 * 1024 };
/// Bytes of an entry in the file.
const ENTRY: usize = 20;
const MAGIC: &[u8; 8] = b"RLOGIDX1";

/// One chunk of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) first: Seq,
    pub(super) offset: u32,
    /// Of its record.
    pub(super) length: u32,
    /// Messages.
    pub(super) count: u32,
}

/// What a segment has of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) first: Seq,
    pub(super) last: Seq,
    pub(super) messages: u64,
    /// Bytes of its records.
    pub(super) bytes: u64,
    entries: Entries,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entries {
    Memory(Vec<Entry>),
    /// So many in the file, from that entry on.
    File {
        start: u32,
        count: u32,
    },
}

/// Some place in a segment: the chunk there, or behind it, is the first with at least that seq and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Landmark {
    pub(super) first: Seq,
    pub(super) time: u64,
    pub(super) offset: u32,
}

/// The index of a segment.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    parts: BTreeMap<u32, Part>,
    landmarks: Vec<Landmark>,
    last: Seq,
    last_time: u64,
    file: Option<Arc<dyn Blob>>,
    /// Where the entries begin there.
    entries_at: u64,
}

/// Which segment an index belongs to: as it was when the index was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Of {
    pub(super) number: u64,
    /// It stands for all segments up to this.
    pub(super) through: u64,
    pub(super) length: u32,
    /// The CRC of its last record.
    pub(super) tip: u32,
}

/// An index as it was found beside its segment.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) index: Index,
    /// The names of its channels.
    pub(super) names: Vec<(u32, ChannelId)>,
    pub(super) of: Of,
}

impl Entry {
    /// The seq of its last message.
    pub(super) fn last(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.count) - 1)
    }

    /// What it counts for: as the same chunk does in memory.
    pub(super) fn cost(&self) -> u64 {
        u64::from(self.length) + 256 - HEADER as u64
    }
}

impl Part {
    /// How many chunks.
    pub(super) fn chunks(&self) -> usize {
        match &self.entries {
            Entries::Memory(entries) => entries.len(),
            Entries::File { count, .. } => *count as usize,
        }
    }
}

impl Index {
    /// One more record of the segment.
    pub(super) fn add(&mut self, header: &Header, offset: u32, length: u32) {
        if header.sort != Sort::Chunk {
            return;
        }
        let entry = Entry { first: header.first, offset, length, count: header.count.into() };
        if self.landmarks.last().is_none_or(|landmark| offset - landmark.offset >= STRIDE) {
            self.landmarks.push(Landmark { first: header.first, time: header.time, offset });
        }
        self.last = entry.last();
        self.last_time = header.time;
        let part = self.parts.entry(header.channel).or_insert_with(|| Part {
            first: header.first,
            last: header.first,
            messages: 0,
            bytes: 0,
            entries: Entries::Memory(Vec::new()),
        });
        part.last = entry.last();
        part.messages += u64::from(entry.count);
        part.bytes += u64::from(length);
        if let Entries::Memory(entries) = &mut part.entries {
            entries.push(entry);
        }
    }

    /// There was no message behind this one when the segment began.
    pub(super) fn starts_after(&mut self, last: Seq) {
        self.last = self.last.max(last);
    }

    /// Whether there is no chunk.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The last message; 0: none.
    pub(super) fn last(&self) -> Seq {
        self.last
    }

    /// The time of the last chunk.
    pub(super) fn last_time(&self) -> u64 {
        self.last_time
    }

    /// What there is of a channel.
    pub(super) fn part(&self, channel: u32) -> Option<&Part> {
        self.parts.get(&channel)
    }

    /// All channels of which there is something.
    pub(super) fn parts(&self) -> impl Iterator<Item = (u32, &Part)> {
        self.parts.iter().map(|(channel, part)| (*channel, part))
    }

    /// Where to begin to look for the first chunk that `is_before` is not true of; and the offset and seq where to end,
    /// if there is more behind.
    pub(super) fn stretch(&self, is_before: impl Fn(&Landmark) -> bool) -> (u32, Option<(u32, Seq)>) {
        let next = self.landmarks.partition_point(is_before);
        let from = self.landmarks.get(next.saturating_sub(1)).map_or(START, |from| from.offset);
        (from, self.landmarks.get(next.max(1)).map(|next| (next.offset, next.first)))
    }

    /// The entries of a channel in memory behind a seq, so many that they count for about so many bytes.
    pub(super) fn block_after(&self, channel: u32, after: Seq, bytes: u64) -> Vec<Entry> {
        let Some(Part { entries: Entries::Memory(entries), .. }) = self.parts.get(&channel) else {
            return Vec::new();
        };
        let from = entries.partition_point(|entry| entry.last() <= after);
        let mut cost = 0;
        let within = |entry: &&Entry| {
            let begins_within = cost < bytes;
            cost += entry.cost();
            begins_within
        };
        entries[from..].iter().take_while(within).copied().collect()
    }

    /// The part of it that is about these channels.
    pub(super) fn clone_of<T>(&self, channels: &HashMap<u32, T>) -> Self {
        let parts = self.parts.iter().filter(|(id, _)| channels.contains_key(id));
        Self {
            parts: parts.map(|(id, part)| (*id, part.clone())).collect(),
            file: self.file.clone(),
            landmarks: Vec::new(),
            ..*self
        }
    }

    /// The entries of a channel, those with these indices.
    pub(super) fn entries(&self, channel: u32, from: usize, to: usize) -> io::Result<Vec<Entry>> {
        self.entries_with(channel, from, to, Patience::Wait)
    }

    /// The same, if they can be had so fast.
    pub(super) fn entries_with(
        &self,
        channel: u32,
        from: usize,
        to: usize,
        patience: Patience,
    ) -> io::Result<Vec<Entry>> {
        let Some(part) = self.parts.get(&channel) else { return Ok(Vec::new()) };
        let to = to.min(part.chunks());
        match (&part.entries, &self.file) {
            (Entries::Memory(entries), _) => Ok(entries.get(from..to).unwrap_or_default().to_vec()),
            (Entries::File { start, .. }, Some(file)) => {
                let mut bytes = vec![0; to.saturating_sub(from) * ENTRY];
                let at = self.entries_at + (u64::from(*start) + from as u64) * ENTRY as u64;
                file.read_exact_with(&mut bytes, at, patience)?;
                Ok(bytes.chunks_exact(ENTRY).map(take_entry).collect())
            }
            (Entries::File { .. }, None) => Ok(Vec::new()),
        }
    }

    /// The index of the first entry of a channel with messages after a seq.
    pub(super) fn position(&self, channel: u32, after: Seq) -> io::Result<usize> {
        self.position_with(channel, after, Patience::Wait)
    }

    /// The same, if it can be had so fast.
    pub(super) fn position_with(&self, channel: u32, after: Seq, patience: Patience) -> io::Result<usize> {
        let Some(part) = self.parts.get(&channel) else { return Ok(0) };
        if after < part.first {
            return Ok(0);
        }
        let (mut from, mut to) = (0, part.chunks());
        // The last steps are one read.
        while to - from > 128 {
            let middle = from.midpoint(to);
            match self.entries_with(channel, middle, middle + 1, patience)?.first() {
                Some(entry) if entry.last() <= after => from = middle + 1,
                _ => to = middle,
            }
        }
        let entries = self.entries_with(channel, from, to, patience)?;
        Ok(from + entries.partition_point(|entry| entry.last() <= after))
    }

    /// Writes it beside its segment, and gives it as it is with its entries there.
    pub(super) fn write(
        &self,
        volume: &dyn Volume,
        of: Of,
        name: impl Fn(u32) -> Option<ChannelId>,
    ) -> io::Result<Self> {
        let mut head = Vec::new();
        head.put_slice(MAGIC);
        head.put_u32_le(0);
        head.put_u32_le(0);
        for number in [of.number, of.through, of.length.into(), of.tip.into()] {
            head.put_u64_le(number);
        }
        for number in [self.last.0, self.last_time] {
            head.put_u64_le(number);
        }
        head.put_u32_le(u32::try_from(self.parts.len()).unwrap_or(u32::MAX));
        head.put_u32_le(u32::try_from(self.landmarks.len()).unwrap_or(u32::MAX));
        let mut entries = Vec::new();
        for (channel, part) in &self.parts {
            let name = name(*channel);
            let name = name.as_ref().map_or("", ChannelId::as_str).as_bytes();
            head.put_u32_le(*channel);
            head.put_u32_le(u32::try_from(part.chunks()).unwrap_or(u32::MAX));
            for number in [part.first.0, part.last.0, part.messages, part.bytes] {
                head.put_u64_le(number);
            }
            head.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
            head.put_slice(name);
            for entry in self.entries(*channel, 0, usize::MAX)? {
                put_entry(&mut entries, &entry);
            }
        }
        for landmark in &self.landmarks {
            head.put_u64_le(landmark.first.0);
            head.put_u64_le(landmark.time);
            head.put_u32_le(landmark.offset);
        }
        let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
        head[12..16].copy_from_slice(&length.to_le_bytes());
        let crc = crc32fast::hash(&head[12..]);
        head[8..12].copy_from_slice(&crc.to_le_bytes());
        head.append(&mut entries);
        volume::replace(volume, &file_name(of.number), &head)?;
        match Self::load(volume, of.number)? {
            Some(Loaded { index, of: found, .. }) if found == of => Ok(index),
            _ => Err(io::Error::other("an index is not what was written")),
        }
    }

    /// Reads the index that stands beside a segment, with the names of its channels; none if there is none that is
    /// whole.
    pub(super) fn load(volume: &dyn Volume, number: u64) -> io::Result<Option<Loaded>> {
        let file = match volume.open(&file_name(number)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut start = [0; 16];
        let length = file.len()?;
        if length < 16 {
            return Ok(None);
        }
        file.read_exact_at(&mut start, 0)?;
        let (crc, head) = (word(&start[8..12]), word(&start[12..16]));
        if &start[..8] != MAGIC || u64::from(head) > length || head < 16 {
            return Ok(None);
        }
        let mut bytes = vec![0; head as usize];
        file.read_exact_at(&mut bytes, 0)?;
        if crc32fast::hash(&bytes[12..]) != crc {
            return Ok(None);
        }
        let mut rest = &bytes[16..];
        let (number, through) = (rest.get_u64_le(), rest.get_u64_le());
        let (of_length, tip) = (rest.get_u64_le() as u32, rest.get_u64_le() as u32);
        let (last, last_time) = (Seq(rest.get_u64_le()), rest.get_u64_le());
        let (parts, landmarks) = (rest.get_u32_le(), rest.get_u32_le());
        let mut index = Self { last, last_time, entries_at: head.into(), ..Self::default() };
        let (mut names, mut start) = (Vec::new(), 0);
        for _ in 0..parts {
            let (channel, count) = (rest.get_u32_le(), rest.get_u32_le());
            let (first, last) = (Seq(rest.get_u64_le()), Seq(rest.get_u64_le()));
            let (messages, bytes) = (rest.get_u64_le(), rest.get_u64_le());
            let length = usize::from(rest.get_u8());
            let name = std::str::from_utf8(&rest[..length]).ok().and_then(|name| name.parse().ok());
            rest.advance(length);
            names.extend(name.map(|name| (channel, name)));
            let entries = Entries::File { start, count };
            index.parts.insert(channel, Part { first, last, messages, bytes, entries });
            start += count;
        }
        for _ in 0..landmarks {
            let (first, time) = (Seq(rest.get_u64_le()), rest.get_u64_le());
            index.landmarks.push(Landmark { first, time, offset: rest.get_u32_le() });
        }
        if u64::from(head) + u64::from(start) * ENTRY as u64 != length {
            return Ok(None);
        }
        index.file = Some(file);
        Ok(Some(Loaded { index, names, of: Of { number, through, length: of_length, tip } }))
    }

    /// Whether it says the same as another about where chunks are.
    pub(super) fn agrees_with(&self, other: &Self) -> io::Result<bool> {
        if self.parts.len() != other.parts.len() || self.landmarks != other.landmarks {
            return Ok(false);
        }
        for channel in self.parts.keys() {
            if self.entries(*channel, 0, usize::MAX)? != other.entries(*channel, 0, usize::MAX)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The name of the index of a segment.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:012}.idx")
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.put_u64_le(entry.first.0);
    out.put_u32_le(entry.offset);
    out.put_u32_le(entry.length);
    out.put_u32_le(entry.count);
}

fn take_entry(mut bytes: &[u8]) -> Entry {
    let (first, offset) = (Seq(bytes.get_u64_le()), bytes.get_u32_le());
    Entry { first, offset, length: bytes.get_u32_le(), count: bytes.get_u32_le() }
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}
