//! The messages of a spool in segment files: appended and synced, read in order, and dropped once confirmed.
//! Blocking; the keeper's thread owns it.
//!
//! A segment begins with a group that names every channel and the number that comes next there, so that what was
//! confirmed can go and the numbers still go on. Segments go from the front only.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
};

use shared::{
    ChannelId,
    codec::{Decoded, decode_sender, encode_sender},
    sender::{Alias, Levels, Open, SenderFrame},
};

use super::{
    error::SpoolError,
    files::{Files, Replacing, replace},
    group::{self, Found, HEADER},
};

/// What the name of a segment ends with, after the number of its first group.
const EXTENSION: &str = ".spool";

/// The file with what is confirmed. It is only a help: the relay knows better.
const CONFIRMED: &str = "confirmed";

/// A segment of so many bytes is replaced at the end if all of it is confirmed.
const TIDY: u64 = 64 * 1024;

/// A channel of the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) channel: ChannelId,
    /// The number of the next message.
    pub(super) next: u64,
    /// Up to here everything is confirmed.
    pub(super) settled: u64,
}

/// All that is kept.
#[derive(Debug)]
pub(super) struct Log<F> {
    files: F,
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    /// By their aliases.
    lanes: Vec<Lane>,
    next_group: u64,
    cursor: Cursor,
    state: State,
}

#[derive(Debug)]
struct Segment {
    /// The number of its first group.
    first: u64,
    length: u64,
    /// The last message in it of each channel that has one.
    lasts: HashMap<u16, u64>,
}

/// Where the next group is read.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    segment: u64,
    offset: u64,
    group: u64,
}

#[derive(Debug)]
enum State {
    Sound,
    /// What is on disk is not known any more, for this reason: nothing is appended.
    Failed(String),
}

impl<F: Files> Log<F> {
    /// Reads what is there, and cuts off what was not written to its end.
    pub(super) fn open(files: F, segment_bytes: u64) -> Result<Self, SpoolError> {
        let mut log = Self {
            files,
            segment_bytes,
            segments: VecDeque::new(),
            lanes: Vec::new(),
            next_group: 1,
            cursor: Cursor { segment: 1, offset: 0, group: 1 },
            state: State::Sound,
        };
        let mut numbers: Vec<u64> = log.files.list()?.iter().filter_map(|name| number(name)).collect();
        numbers.sort_unstable();
        let last = numbers.last().copied();
        for first in numbers {
            if !log.segments.is_empty() && first != log.next_group {
                let why = format!("the files between it and {} are missing", name(first));
                let (file, at) = log.segments.back().map_or((0, 0), |s| (s.first, s.length));
                return Err(SpoolError::damaged(&name(file), at, why));
            }
            log.load(first, Some(first) == last)?;
        }
        if let Some(front) = log.segments.front() {
            log.cursor = Cursor { segment: front.first, offset: 0, group: front.first };
        }
        log.load_confirmed()?;
        Ok(log)
    }

    fn load(&mut self, first: u64, is_last: bool) -> Result<(), SpoolError> {
        let name = name(first);
        let bytes = self.files.read(&name)?;
        let mut segment = Segment { first, length: 0, lasts: HashMap::new() };
        self.next_group = first;
        loop {
            let rest = &bytes[segment.length as usize..];
            match group::find(rest, self.next_group) {
                Found::Group(frames) => {
                    absorb(frames, &mut self.lanes, &mut segment.lasts)
                        .map_err(|why| SpoolError::damaged(&name, segment.length, why))?;
                    segment.length += (HEADER + frames.len()) as u64;
                    self.next_group += 1;
                }
                Found::End if segment.length > 0 => break,
                Found::End | Found::Bad if is_last && !group::has_later(rest, self.next_group) => {
                    // It was being written when all ended: nobody was told that it is kept.
                    match segment.length {
                        0 => self.files.remove(&name)?,
                        length => self.files.cut(&name, length)?,
                    }
                    break;
                }
                Found::End | Found::Bad => {
                    return Err(SpoolError::damaged(&name, segment.length, "what stands there went bad"));
                }
            }
        }
        if segment.length > 0 {
            self.segments.push_back(segment);
        }
        Ok(())
    }

    fn load_confirmed(&mut self) -> Result<(), SpoolError> {
        if !self.files.list()?.iter().any(|name| name == CONFIRMED) {
            return Ok(());
        }
        // Not there in whole: as if it were not there.
        let confirmed: BTreeMap<String, u64> =
            serde_json::from_slice(&self.files.read(CONFIRMED)?).unwrap_or_default();
        for (channel, pseq) in confirmed {
            let lane = self.lanes.iter_mut().find(|lane| lane.channel.as_str() == channel);
            match lane {
                Some(lane) if pseq < lane.next => lane.settled = lane.settled.max(pseq),
                _ => {
                    let why = format!("message {pseq} of channel {channel} was confirmed, and is not there");
                    return Err(SpoolError::damaged(CONFIRMED, 0, why));
                }
            }
        }
        Ok(())
    }

    /// Its channels, by their aliases.
    pub(super) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Bytes on disk.
    pub(super) fn size(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    /// Keeps these frames. They are on disk when this returns; after an error nothing of them is kept.
    pub(super) fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        if let State::Failed(reason) = &self.state {
            return Err(io::Error::other(reason.clone()));
        }
        if self.segments.back().is_none_or(|segment| segment.length >= self.segment_bytes) {
            self.rotate()?;
        }
        let Some(segment) = self.segments.back_mut() else {
            return Err(io::Error::other("there is no file to append to"));
        };
        let mut sealed = Vec::with_capacity(HEADER + frames.len());
        group::seal(self.next_group, frames, &mut sealed);
        let name = name(segment.first);
        if let Err(error) = self.files.append(&name, &sealed) {
            if let Err(worse) = self.files.cut(&name, segment.length) {
                self.state = State::Failed(worse.to_string());
            }
            return Err(error);
        }
        if let Err(error) = self.files.sync(&name) {
            // What an fsync that failed has left on disk can't be known; cut off it does no harm.
            let _unknown = self.files.cut(&name, segment.length);
            self.state = State::Failed(error.to_string());
            return Err(error);
        }
        segment.length += sealed.len() as u64;
        self.next_group += 1;
        absorb(frames, &mut self.lanes, &mut segment.lasts).map_err(io::Error::other)
    }

    /// Begins a segment.
    fn rotate(&mut self) -> io::Result<()> {
        let mut frames = Vec::new();
        for (index, lane) in self.lanes.iter().enumerate() {
            encode_open(Alias(index as u16), lane.next, &lane.channel, &mut frames);
        }
        let mut sealed = Vec::new();
        group::seal(self.next_group, &frames, &mut sealed);
        let name = name(self.next_group);
        let begun = self.files.append(&name, &sealed).and_then(|()| self.files.sync(&name));
        if let Err(error) = begun.and_then(|()| self.files.sync_names()) {
            if let Err(worse) = self.discard(&name) {
                self.state = State::Failed(worse.to_string());
            }
            return Err(error);
        }
        if self.segments.is_empty() {
            self.cursor = Cursor { segment: self.next_group, offset: 0, group: self.next_group };
        }
        let length = sealed.len() as u64;
        self.segments.push_back(Segment { first: self.next_group, length, lasts: HashMap::new() });
        self.next_group += 1;
        Ok(())
    }

    /// Removes a file that could not be begun.
    fn discard(&mut self, name: &str) -> io::Result<()> {
        match self.files.remove(name) {
            // It was not even created, so there is no name to sync. That would fail too if no file can be opened.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| self.files.sync_names()),
        }
    }

    /// The frames of the next group that was not read yet.
    pub(super) fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(mut index) = self.segments.iter().position(|s| s.first == self.cursor.segment) else {
            return Ok(None);
        };
        if self.cursor.offset >= self.segments[index].length {
            let Some(next) = self.segments.get(index + 1) else { return Ok(None) };
            self.cursor = Cursor { segment: next.first, offset: 0, group: next.first };
            index += 1;
        }
        let name = name(self.cursor.segment);
        let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("what stands in {name} went bad"));
        let mut header = [0; HEADER];
        self.files.read_at(&name, self.cursor.offset, &mut header)?;
        let length = group::announced(&header, self.cursor.group).ok_or_else(bad)?;
        if self.cursor.offset + (HEADER + length) as u64 > self.segments[index].length {
            return Err(bad());
        }
        let mut bytes = vec![0; HEADER + length];
        self.files.read_at(&name, self.cursor.offset, &mut bytes)?;
        if !matches!(group::find(&bytes, self.cursor.group), Found::Group(_)) {
            return Err(bad());
        }
        self.cursor.offset += bytes.len() as u64;
        self.cursor.group += 1;
        bytes.drain(..HEADER);
        Ok(Some(bytes))
    }

    /// Messages up to these are confirmed. What is no longer needed goes.
    pub(super) fn confirm(&mut self, settled: &[(Alias, u64)]) -> io::Result<()> {
        for (alias, pseq) in settled {
            if let Some(lane) = self.lanes.get_mut(usize::from(alias.0)) {
                lane.settled = lane.settled.max((*pseq).min(lane.next - 1));
            }
        }
        self.free(self.segment_bytes)
    }

    /// Writes down what is confirmed.
    pub(super) fn record(&mut self, how: Replacing) -> io::Result<()> {
        let settled = self.lanes.iter().filter(|lane| lane.settled > 0);
        let confirmed: BTreeMap<&str, u64> =
            settled.map(|lane| (lane.channel.as_str(), lane.settled)).collect();
        replace(&mut self.files, CONFIRMED, &serde_json::to_vec(&confirmed)?, how)
    }

    /// The end: leaves as little as can be.
    pub(super) fn close(&mut self) -> io::Result<()> {
        let freed = self.free(TIDY);
        self.record(Replacing::Durable).and(freed)
    }

    /// Removes what is no longer needed: the last segment too, if it has so many bytes.
    fn free(&mut self, renewed: u64) -> io::Result<()> {
        // What can go without a new segment goes first: on a full disk this makes the room for it.
        self.drop_confirmed()?;
        if self.segments.back().is_none_or(|segment| segment.length < renewed) {
            return Ok(());
        }
        self.renew()?;
        self.drop_confirmed()
    }

    /// Begins a segment if everything is confirmed, so that the one there is can go.
    fn renew(&mut self) -> io::Result<()> {
        let confirmed = self.lanes.iter().all(|lane| lane.settled + 1 == lane.next);
        if confirmed && matches!(self.state, State::Sound) { self.rotate() } else { Ok(()) }
    }

    fn drop_confirmed(&mut self) -> io::Result<()> {
        while self.segments.len() > 1
            && let Some(front) = self.segments.front()
            && front.lasts.iter().all(|(alias, last)| *last <= self.lanes[usize::from(*alias)].settled)
        {
            let first = front.first;
            self.files.remove(&name(first))?;
            // One by one: the names that stay must be those of segments that follow each other.
            self.files.sync_names()?;
            self.segments.pop_front();
            if let Some(next) = self.segments.front()
                && self.cursor.segment == first
            {
                self.cursor = Cursor { segment: next.first, offset: 0, group: next.first };
            }
        }
        Ok(())
    }
}

/// Writes what a channel is called and which number comes next in it.
pub(super) fn encode_open(alias: Alias, next: u64, channel: &ChannelId, out: &mut Vec<u8>) {
    let open = Open { alias, levels: Levels::ACCEPTED, first_pseq: next, channel: channel.as_str() };
    encode_sender(&SenderFrame::Open(open), out);
}

/// Walks over the frames of a group.
pub(super) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Result<SenderFrame<'_>, String>> {
    std::iter::from_fn(move || match decode_sender(bytes, u32::MAX as usize) {
        _ if bytes.is_empty() => None,
        Ok(Decoded::Frame(frame, used)) => {
            bytes = &bytes[used..];
            Some(Ok(frame))
        }
        Ok(Decoded::Incomplete(_) | Decoded::Skipped(_)) | Err(_) => {
            bytes = &[];
            Some(Err("a frame that this version does not know".into()))
        }
    })
}

/// Takes note of what the frames of a group hold; what is wrong with them.
fn absorb(bytes: &[u8], lanes: &mut Vec<Lane>, lasts: &mut HashMap<u16, u64>) -> Result<(), String> {
    for frame in frames(bytes) {
        match frame? {
            SenderFrame::Open(Open { alias, first_pseq, channel, .. }) => {
                let channel: ChannelId = channel.parse().map_err(|error| format!("{channel}: {error}"))?;
                match lanes.get(usize::from(alias.0)) {
                    Some(lane) if lane.channel == channel && lane.next == first_pseq => {}
                    None if lanes.len() == usize::from(alias.0) && first_pseq > 0 => {
                        lanes.push(Lane { channel, next: first_pseq, settled: first_pseq - 1 });
                    }
                    _ => return Err(format!("channel {channel} does not go on where it was")),
                }
            }
            SenderFrame::Publish(publish) => {
                let lane = lanes.get_mut(usize::from(publish.alias.0));
                let Some(lane) = lane.filter(|lane| lane.next == publish.pseq) else {
                    return Err(format!("message {} does not go on where it was", publish.pseq));
                };
                lane.next += 1;
                lasts.insert(publish.alias.0, publish.pseq);
            }
            _ => return Err("a frame that does not belong there".into()),
        }
    }
    Ok(())
}

fn name(first: u64) -> String {
    format!("{first:016x}{EXTENSION}")
}

/// The number of the first group of the segment of this name.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(EXTENSION).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}
