//! Records, of which the log consists: how they are written and told from what is none. Pure.
//!
//! A record is a header of 60 bytes and a body; all numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `RLOG` |
//! | 4 | CRC-32 of everything behind it |
//! | 4 | that CRC of the record before, 0 at a segment's beginning: records that belong elsewhere are noticed |
//! | 4 | length of the body |
//! | 4 | synced: all of this segment before that offset was on the disk when this was written |
//! | 1, 1, 2 | sort, flags, how many messages |
//! | 4 | channel |
//! | 8, 8, 8, 8 | first seq, seq before it in the channel, messages before it in the channel, time |
//!
//! The body of a chunk: the stamp if there is one (producer 16, epoch 4, pseq before 8, last pseq 8), 8 bytes of source
//! time for each message if there are any, then frames as they go to receivers.

use bytes::{Buf as _, BufMut as _, Bytes};
use shared::{ChannelId, Seq, sender::ProducerId};

use crate::store::{
    Claim, Durability, Stamp,
    chunk::{Chunk, Messages, Place},
};

/// Bytes of a header.
pub(super) const HEADER: usize = 60;

const MAGIC: &[u8; 4] = b"RLOG";
/// Where the bytes begin that the CRC is of.
const CHECKED: usize = 8;
const STAMP: usize = 36;
const STAMPED: u8 = 1;
const TIMED: u8 = 2;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// Messages.
    Chunk,
    /// A channel gets its number.
    Channel,
    /// A producer's place was taken.
    Claim,
    /// Seqs up to `first` may be given.
    Reserve,
    /// Nothing but what `synced` says.
    Synced,
    /// After a crash: of the channels in the body nobody knows whether there were messages after `prev` and up to
    /// `first`.
    Crash,
}

const SORTS: [(u8, Sort); 6] = [
    (1, Sort::Chunk),
    (2, Sort::Channel),
    (3, Sort::Claim),
    (4, Sort::Reserve),
    (5, Sort::Synced),
    (6, Sort::Crash),
];

/// A record's header, but for what [`put`] and [`parse`] know themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) sort: Sort,
    pub(super) flags: u8,
    pub(super) count: u16,
    pub(super) channel: u32,
    pub(super) first: Seq,
    pub(super) prev: Seq,
    pub(super) ordinal: u64,
    pub(super) time: u64,
}

/// What was found where a record should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) header: Header,
    /// With its header.
    pub(super) length: usize,
    pub(super) crc: u32,
    pub(super) before: u32,
    pub(super) synced: u32,
}

/// What a record stands in.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Context {
    /// The CRC of the record before.
    pub(super) before: u32,
    /// Up to where its segment is on the disk itself.
    pub(super) synced: u32,
}

impl Header {
    /// A record that is no chunk.
    pub(super) fn of(sort: Sort) -> Self {
        let (first, prev) = (Seq::ZERO, Seq::ZERO);
        Self { sort, flags: 0, count: 0, channel: 0, first, prev, ordinal: 0, time: 0 }
    }

    /// The seq of the last message of a chunk.
    pub(super) fn last(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.count).max(1) - 1)
    }
}

/// Appends a record; its CRC.
pub(super) fn put(out: &mut Vec<u8>, context: Context, header: &Header, body: &[&[u8]]) -> u32 {
    let start = out.len();
    let length: usize = body.iter().map(|part| part.len()).sum();
    out.put_slice(MAGIC);
    out.put_u32_le(0);
    out.put_u32_le(context.before);
    out.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
    out.put_u32_le(context.synced);
    out.put_u8(SORTS.iter().find(|(_, sort)| *sort == header.sort).map_or(0, |(number, _)| *number));
    out.put_u8(header.flags);
    out.put_u16_le(header.count);
    out.put_u32_le(header.channel);
    for number in [header.first.0, header.prev.0, header.ordinal, header.time] {
        out.put_u64_le(number);
    }
    body.iter().for_each(|part| out.put_slice(part));
    let crc = crc32fast::hash(&out[start + CHECKED..]);
    out[start + 4..start + CHECKED].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Appends a chunk; its CRC.
pub(super) fn put_chunk(
    out: &mut Vec<u8>,
    context: Context,
    channel: u32,
    place: Place,
    messages: &Messages,
    stamp: Option<&Stamp>,
) -> u32 {
    let mut extra = Vec::new();
    let mut flags = 0;
    if let Some(Stamp { claim, after, last }) = stamp {
        flags |= STAMPED;
        extra.put_slice(&claim.producer.0);
        extra.put_u32_le(claim.epoch);
        extra.put_u64_le(*after);
        extra.put_u64_le(*last);
    }
    if let Some(times) = messages.source_times() {
        flags |= TIMED;
        times.iter().for_each(|time| extra.put_u64_le(*time));
    }
    let Place { first, prev, ordinal, time } = place;
    let count = u16::try_from(messages.count()).unwrap_or(u16::MAX);
    let header = Header { sort: Sort::Chunk, flags, count, channel, first, prev, ordinal, time };
    put(out, context, &header, &[&extra, messages.frames()])
}

/// What a channel's record has as its body.
pub(super) fn channel_body(name: &ChannelId, durability: Durability) -> Vec<u8> {
    let mut body = vec![u8::from(durability != Durability::Sync)];
    body.put_slice(name.as_str().as_bytes());
    body
}

/// The channel of a record about one, and whether it may lose messages in a crash.
pub(super) fn channel_of(body: &[u8]) -> Option<(ChannelId, bool)> {
    let (volatile, name) = body.split_first()?;
    Some((std::str::from_utf8(name).ok()?.parse().ok()?, *volatile != 0))
}

/// What a claim's record has as its body.
pub(super) fn claim_body(claim: &Claim, keep: u64) -> Vec<u8> {
    let mut body = Vec::with_capacity(28);
    body.put_slice(&claim.producer.0);
    body.put_u32_le(claim.epoch);
    body.put_u64_le(keep);
    body
}

/// The producer of a record about a claim, its epoch, and how long it is kept.
pub(super) fn claim_of(mut body: &[u8]) -> Option<(ProducerId, u32, u64)> {
    (body.len() == 28).then(|| (ProducerId(take_16(&mut body)), body.get_u32_le(), body.get_u64_le()))
}

/// The header at the beginning of some bytes, if it looks like one; whether the record is whole is not known then.
pub(super) fn parse(bytes: &[u8]) -> Option<Found> {
    let mut rest = bytes.get(..HEADER)?.strip_prefix(MAGIC)?;
    let (crc, before, length, synced) =
        (rest.get_u32_le(), rest.get_u32_le(), rest.get_u32_le(), rest.get_u32_le());
    let number = rest.get_u8();
    let (_, sort) = *SORTS.iter().find(|(known, _)| *known == number)?;
    let (flags, count, channel) = (rest.get_u8(), rest.get_u16_le(), rest.get_u32_le());
    let (first, prev) = (Seq(rest.get_u64_le()), Seq(rest.get_u64_le()));
    let (ordinal, time) = (rest.get_u64_le(), rest.get_u64_le());
    let header = Header { sort, flags, count, channel, first, prev, ordinal, time };
    Some(Found { header, length: HEADER + length as usize, crc, before, synced })
}

/// Whether the bytes of a record are what was written; they are as many as its header said.
pub(super) fn is_whole(found: &Found, record: &[u8]) -> bool {
    record.len() == found.length && crc32fast::hash(&record[CHECKED..]) == found.crc
}

/// The record at the beginning of some bytes, if it is whole.
pub(super) fn whole(bytes: &[u8]) -> Option<(Found, &[u8])> {
    let found = parse(bytes)?;
    let record = bytes.get(..found.length)?;
    is_whole(&found, record).then_some((found, record))
}

/// Where in some bytes the next whole record begins, if there is one.
pub(super) fn find(bytes: &[u8]) -> Option<(usize, Found)> {
    memchr::memmem::find_iter(bytes, MAGIC).find_map(|at| whole(&bytes[at..]).map(|(found, _)| (at, found)))
}

/// Whose messages a chunk's record has: producer, epoch, pseq before, last pseq.
pub(super) fn stamp_of(header: &Header, body: &[u8]) -> Option<(ProducerId, u32, u64, u64)> {
    let mut stamp = body.get(..STAMP).filter(|_| header.flags & STAMPED != 0)?;
    Some((ProducerId(take_16(&mut stamp)), stamp.get_u32_le(), stamp.get_u64_le(), stamp.get_u64_le()))
}

/// The chunk of a whole record; the frames stay where they are. None if the record is no chunk of that channel.
pub(super) fn chunk(found: &Found, channel: &ChannelId, record: &Bytes) -> Option<Chunk> {
    let Header { sort, flags, count, first, prev, ordinal, time, .. } = found.header;
    let mut body = record.slice(HEADER..);
    if sort != Sort::Chunk || count == 0 {
        return None;
    }
    if flags & STAMPED != 0 {
        (body.len() >= STAMP).then(|| body.advance(STAMP))?;
    }
    let mut source_times = None;
    if flags & TIMED != 0 {
        let times = usize::from(count) * 8;
        let mut times = (body.len() >= times).then(|| body.split_to(times))?;
        source_times = Some((0..count).map(|_| times.get_u64_le()).collect());
    }
    let place = Place { first, prev, ordinal, time };
    Some(Chunk::new(channel.clone(), place, Messages::stored(body, count.into(), source_times)))
}

/// Sixteen bytes off the front of at least as many.
pub(super) fn take_16(bytes: &mut &[u8]) -> [u8; 16] {
    let mut taken = [0; 16];
    bytes.copy_to_slice(&mut taken);
    taken
}
