//! The state of a store at one place of its log, as a file: what would else have to be read from all of the log, or is
//! in none of its segments any more. It is written when a segment is sealed and when the store ends.
//!
//! All numbers are little-endian. The file is replaced as a whole; a CRC-32 of everything behind it tells whether it is
//! what was written.

use std::{collections::HashMap, io};

use bytes::{Buf as _, BufMut as _};
use shared::{ChannelId, Seq, sender::ProducerId};

use super::{
    channel::{Channel, Crash},
    record::take_16,
    state::State,
    volume::{self, Volume},
};
use crate::store::producers::{Producers, Remembered};

/// The file's name.
pub(super) const NAME: &str = "checkpoint";

const MAGIC: &[u8; 8] = b"RLOGCKP1";

/// A place of the log, and what was known there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) at: At,
    /// The last seq that was given, and up to which seqs may have been.
    pub(super) head: Seq,
    pub(super) mark: Seq,
    pub(super) time: u64,
    pub(super) next_id: u32,
    pub(super) crashes: Vec<(Seq, Seq)>,
    pub(super) channels: Vec<(u32, Known)>,
    pub(super) producers: Vec<Producer>,
    /// The sealed segments of which something is kept: they have to be there.
    pub(super) segments: Vec<u64>,
}

/// A checkpoint that is to be written.
#[derive(Debug)]
pub(super) struct Saved {
    /// The file.
    pub(super) bytes: Vec<u8>,
    /// In which segment it belongs: those before are not needed to know the state.
    pub(super) segment: u64,
    /// Up to where each channel's messages are gone, as it says.
    pub(super) gone: HashMap<u32, Seq>,
}

/// Where in the log a checkpoint belongs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct At {
    pub(super) segment: u64,
    pub(super) offset: u32,
    /// The CRC of the record before.
    pub(super) tip: u32,
    /// The store came to its end here.
    pub(super) clean: bool,
}

/// What is known of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) name: ChannelId,
    pub(super) volatile: bool,
    pub(super) retired: bool,
    pub(super) newest: Seq,
    pub(super) last: Seq,
    pub(super) last_time: u64,
    pub(super) messages: u64,
    pub(super) gone_through: Seq,
    pub(super) gone: u64,
    pub(super) crashes: Vec<Crash>,
}

/// What is known of a producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Producer {
    pub(super) id: ProducerId,
    pub(super) epoch: u32,
    pub(super) keep: u64,
    pub(super) time: u64,
    /// Of which channel up to which pseq, and where that is.
    pub(super) stored: Vec<(u32, u64, Seq)>,
}

impl Checkpoint {
    /// The file of a state. `given` are the last seq that was given, and up to which seqs may be.
    pub(super) fn encode(at: At, given: (Seq, Seq), state: &State, producers: &Producers) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_slice(MAGIC);
        out.put_u32_le(0);
        out.put_u64_le(at.segment);
        out.put_u32_le(at.offset);
        out.put_u32_le(at.tip);
        out.put_u8(at.clean.into());
        for number in [given.0.0, given.1.0, state.time, state.next_id.into()] {
            out.put_u64_le(number);
        }
        put_count(&mut out, state.crashes.len());
        for (head, through) in &state.crashes {
            out.put_u64_le(head.0);
            out.put_u64_le(through.0);
        }
        put_count(&mut out, state.channels.len());
        for (id, channel) in &state.channels {
            put_channel(&mut out, *id, channel);
        }
        put_count(&mut out, producers.all().count());
        for Remembered { id, epoch, keep, last_time, stored } in producers.all() {
            out.put_slice(&id.0);
            out.put_u32_le(epoch);
            out.put_u64_le(keep);
            out.put_u64_le(last_time);
            let stored = stored.iter().filter_map(|(name, place)| Some((*state.ids.get(name)?, *place)));
            put_count(&mut out, stored.clone().count());
            for (channel, (pseq, seq)) in stored {
                out.put_u32_le(channel);
                out.put_u64_le(pseq);
                out.put_u64_le(seq.0);
            }
        }
        let kept: Vec<_> = state.segments.iter().filter(|kept| kept.live > 0).collect();
        put_count(&mut out, kept.len());
        kept.iter().for_each(|kept| out.put_u64_le(kept.segment.number));
        let crc = crc32fast::hash(&out[12..]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the file; none if there is none, or it is not what was written.
    pub(super) fn load(volume: &dyn Volume) -> io::Result<Option<Self>> {
        match volume::read(volume, NAME) {
            Ok(bytes) => Ok(Self::decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What [`encode`](Self::encode) wrote. The CRC covers all, so what it fits is complete.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC).filter(|rest| rest.len() > 4)?;
        let crc = rest.get_u32_le();
        if crc32fast::hash(rest) != crc {
            return None;
        }
        let rest = &mut rest;
        let at = At {
            segment: rest.get_u64_le(),
            offset: rest.get_u32_le(),
            tip: rest.get_u32_le(),
            clean: rest.get_u8() != 0,
        };
        let (head, mark, time) = (Seq(rest.get_u64_le()), Seq(rest.get_u64_le()), rest.get_u64_le());
        let next_id = u32::try_from(rest.get_u64_le()).ok()?;
        let crashes = take_each(rest, |rest| Some((Seq(rest.get_u64_le()), Seq(rest.get_u64_le()))))?;
        let channels = take_each(rest, take_channel)?;
        let producers = take_each(rest, |rest| {
            Some(Producer {
                id: ProducerId(take_16(rest)),
                epoch: rest.get_u32_le(),
                keep: rest.get_u64_le(),
                time: rest.get_u64_le(),
                stored: take_each(rest, |rest| {
                    Some((rest.get_u32_le(), rest.get_u64_le(), Seq(rest.get_u64_le())))
                })?,
            })
        })?;
        let segments = take_each(rest, |rest| Some(rest.get_u64_le()))?;
        Some(Self { at, head, mark, time, next_id, crashes, channels, producers, segments })
    }
}

fn put_channel(out: &mut Vec<u8>, id: u32, channel: &Channel) {
    out.put_u32_le(id);
    out.put_u8(u8::from(channel.is_volatile()) | u8::from(channel.retired) << 1);
    out.put_u8(u8::try_from(channel.name.as_str().len()).unwrap_or(u8::MAX));
    out.put_slice(channel.name.as_str().as_bytes());
    // What is in memory alone is gone for whoever reads this.
    let (gone_through, gone) = if channel.is_in_memory() {
        (channel.last, channel.messages)
    } else {
        (channel.gone_through, channel.gone)
    };
    let (last, messages, time) = (channel.last.0, channel.messages, channel.last_time);
    for number in [channel.newest.0, last, time, messages, gone_through.0, gone] {
        out.put_u64_le(number);
    }
    put_count(out, channel.crashes.len());
    for crash in &channel.crashes {
        for seq in [crash.last, crash.through, crash.next] {
            out.put_u64_le(seq.0);
        }
    }
}

fn take_channel(rest: &mut &[u8]) -> Option<(u32, Known)> {
    let (id, flags) = (rest.get_u32_le(), rest.get_u8());
    let length = usize::from(rest.get_u8());
    let name = std::str::from_utf8(rest.get(..length)?).ok()?.parse().ok()?;
    rest.advance(length);
    Some((
        id,
        Known {
            name,
            volatile: flags & 1 != 0,
            retired: flags & 2 != 0,
            newest: Seq(rest.get_u64_le()),
            last: Seq(rest.get_u64_le()),
            last_time: rest.get_u64_le(),
            messages: rest.get_u64_le(),
            gone_through: Seq(rest.get_u64_le()),
            gone: rest.get_u64_le(),
            crashes: take_each(rest, |rest| {
                let (last, through) = (Seq(rest.get_u64_le()), Seq(rest.get_u64_le()));
                Some(Crash { last, through, next: Seq(rest.get_u64_le()) })
            })?,
        },
    ))
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.put_u32_le(u32::try_from(count).unwrap_or(u32::MAX));
}

fn take_each<T>(rest: &mut &[u8], mut take: impl FnMut(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    (0..rest.get_u32_le()).map(|_| take(rest)).collect()
}
