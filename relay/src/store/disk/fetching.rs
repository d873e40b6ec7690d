//! Chunks as they are read from a segment: each is looked at before it is believed.

use std::{collections::HashMap, io, sync::Arc};

use shared::ChannelId;

use super::{
    index::Entry,
    pool::Pool,
    record, segment,
    volume::{Blob, Patience},
};
use crate::store::chunk::Chunk;

/// Records that lie no further apart are read together with what lies between.
const GAP: u32 = 4096;

/// The names of channels by their numbers.
pub(super) type Names = HashMap<u32, ChannelId>;

/// The chunks of a channel at these places. What lies together is read at once.
pub(super) fn read_entries(
    (pool, patience): (&Pool, Patience),
    blob: &dyn Blob,
    number: u64,
    name: &ChannelId,
    entries: &[Entry],
) -> io::Result<Vec<Arc<Chunk>>> {
    let mut chunks = Vec::with_capacity(entries.len());
    let mut rest = entries;
    while let Some(begin) = rest.first() {
        let (mut end, mut run) = (begin.offset, 0);
        for entry in rest {
            if run > 0 && entry.offset > end.saturating_add(GAP) {
                break;
            }
            end = entry.offset.saturating_add(entry.length);
            run += 1;
        }
        let length = (end - begin.offset) as usize;
        let bytes =
            pool.filled(length, |bytes| blob.read_exact_with(bytes, begin.offset.into(), patience))?;
        for entry in &rest[..run] {
            let at = (entry.offset - begin.offset) as usize;
            let record = bytes.slice(at..at + entry.length as usize);
            let found = record::parse(&record).filter(|found| found.header.first == entry.first);
            let found = found.filter(|found| record::is_whole(found, &record));
            let chunk = found.and_then(|found| record::chunk(&found, name, &record));
            chunks.push(Arc::new(chunk.ok_or_else(|| damaged(number, entry.offset))?));
        }
        rest = &rest[run..];
    }
    Ok(chunks)
}

/// All chunks between two places.
pub(super) fn read_stretch(
    (pool, patience): (&Pool, Patience),
    blob: &dyn Blob,
    number: u64,
    from: u32,
    to: u32,
    names: &dyn Fn(&[u32]) -> Names,
) -> io::Result<Vec<Arc<Chunk>>> {
    let bytes =
        pool.filled((to - from) as usize, |bytes| blob.read_exact_with(bytes, from.into(), patience))?;
    let (mut at, mut records, mut ids) = (0, Vec::new(), Vec::new());
    while at < bytes.len() {
        let found = record::parse(&bytes[at..]).filter(|found| at + found.length <= bytes.len());
        let Some(found) = found.filter(|found| record::is_whole(found, &bytes[at..at + found.length])) else {
            return Err(damaged(number, from + at as u32));
        };
        if found.header.sort == record::Sort::Chunk {
            records.push((found, at));
            ids.push(found.header.channel);
        }
        at += found.length;
    }
    ids.sort_unstable();
    ids.dedup();
    let names = names(&ids);
    // Of a channel without a name nobody wants anything: it was forgotten.
    let chunks = records.into_iter().filter_map(|(found, at)| {
        let name = names.get(&found.header.channel)?;
        record::chunk(&found, name, &bytes.slice(at..at + found.length)).map(Arc::new)
    });
    Ok(chunks.collect())
}

fn damaged(number: u64, offset: u32) -> io::Error {
    let name = segment::file_name(number);
    io::Error::new(io::ErrorKind::InvalidData, format!("{name} is damaged at byte {offset}"))
}
