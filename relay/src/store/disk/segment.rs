//! A file of the log: a header of 32 bytes, then records. It is written at its end until it is as large as segments
//! are; then it is sealed, with an index beside it. Retention writes sealed ones anew, without what is gone, and takes
//! neighbours together.

use std::{io, sync::Arc};

use bytes::{Buf as _, BufMut as _};

use super::{
    index::{Index, Of},
    record::{self, Found, HEADER, Header},
    volume::{self, Blob, Volume},
};

/// Where the first record begins.
pub(super) const START: u32 = 32;

const MAGIC: &[u8; 8] = b"RLOGSEG1";
/// Bytes that are read at a time.
const WINDOW: usize = 1 << 20;

/// A sealed segment.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its own number, and up to which it stands for.
    pub(super) number: u64,
    pub(super) through: u64,
    pub(super) length: u32,
    pub(super) blob: Arc<dyn Blob>,
    pub(super) index: Index,
    /// The CRC of its last record.
    pub(super) tip: u32,
}

/// How a look through a segment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scan {
    /// Behind the last whole record.
    pub(super) end: u32,
    /// The CRC of that.
    pub(super) tip: u32,
    /// What stands there, if the file does not end there.
    pub(super) trouble: Option<Trouble>,
}

/// What stands where a record should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// So many bytes that were being written: nobody was told that they are kept.
    Torn(u64),
    /// Something that was on the disk and is not what it was; the next whole record begins there.
    Damaged {
        /// Where, if there is one.
        next: Option<u32>,
    },
}

impl Segment {
    /// Which segment its index is of.
    pub(super) fn of(&self) -> Of {
        Of { number: self.number, through: self.through, length: self.length, tip: self.tip }
    }
}

/// The name of a segment's file.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:012}.log")
}

/// The number of the segment with that name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".log").filter(|digits| digits.len() == 12)?.parse().ok()
}

/// An empty segment: its name is not on the disk itself yet.
pub(super) fn create(
    volume: &dyn Volume,
    name: &str,
    number: u64,
    through: u64,
) -> io::Result<Arc<dyn Blob>> {
    let blob = volume.create(name)?;
    let mut header = Vec::with_capacity(START as usize);
    header.put_slice(MAGIC);
    header.put_u64_le(number);
    header.put_u64_le(through);
    let crc = crc32fast::hash(&header);
    header.put_u32_le(crc);
    header.put_u32_le(0);
    blob.write_at(&header, 0)?;
    Ok(blob)
}

/// The numbers that a segment stands for; none if this is no segment.
pub(super) fn numbers(blob: &dyn Blob) -> io::Result<Option<(u64, u64)>> {
    let mut header = [0; START as usize];
    if blob.len()? < u64::from(START) {
        return Ok(None);
    }
    blob.read_exact_at(&mut header, 0)?;
    let mut rest = &header[8..];
    let (number, through, crc) = (rest.get_u64_le(), rest.get_u64_le(), rest.get_u32_le());
    Ok((&header[..8] == MAGIC && crc32fast::hash(&header[..24]) == crc).then_some((number, through)))
}

/// Looks at every record from there on, in order, for as long as they are whole and follow each other. `tip` is the CRC
/// of the record before.
pub(super) fn scan(
    blob: &dyn Blob,
    from: u32,
    mut tip: u32,
    mut visit: impl FnMut(&Found, u32, &[u8]),
) -> io::Result<Scan> {
    let length = blob.len()?;
    let (mut end, mut buffer, mut at) = (u64::from(from), Vec::new(), 0);
    loop {
        let window: &[u8] = buffer.get(at..).unwrap_or_default();
        let wanted = match record::parse(window) {
            Some(found) if found.length > window.len() => found.length,
            Some(found) => {
                let record = &window[..found.length];
                if !record::is_whole(&found, record) || found.before != tip {
                    break;
                }
                visit(&found, offset(end), record);
                tip = found.crc;
                at += found.length;
                end += found.length as u64;
                continue;
            }
            None if window.len() >= HEADER => break,
            None => HEADER,
        };
        if end + wanted as u64 > length {
            break;
        }
        let rest = usize::try_from(length - end).unwrap_or(usize::MAX);
        buffer.resize(wanted.max(WINDOW).min(rest), 0);
        blob.read_exact_at(&mut buffer, end)?;
        at = 0;
    }
    let trouble = if end < length { Some(trouble(blob, end, length)?) } else { None };
    Ok(Scan { end: offset(end), tip, trouble })
}

/// Looks at the headers of the records between two places, which are whole.
pub(super) fn each(
    blob: &dyn Blob,
    from: u32,
    to: u32,
    mut visit: impl FnMut(&Header, u32),
) -> io::Result<()> {
    let mut bytes = vec![0; to.saturating_sub(from) as usize];
    blob.read_exact_at(&mut bytes, from.into())?;
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(record::parse) {
        visit(&found.header, from + offset(at as u64));
        at += found.length;
    }
    Ok(())
}

/// Whether what begins there was on the disk when a later record was written.
fn trouble(blob: &dyn Blob, at: u64, length: u64) -> io::Result<Trouble> {
    let mut rest = vec![0; usize::try_from(length - at).unwrap_or(usize::MAX)];
    blob.read_exact_at(&mut rest, at)?;
    let (mut from, mut next) = (0, None);
    while let Some((skipped, found)) = rest.get(from..).and_then(record::find) {
        let start = from + skipped;
        next.get_or_insert_with(|| offset(at + start as u64));
        if u64::from(found.synced) > at {
            return Ok(Trouble::Damaged { next });
        }
        from = start + found.length;
    }
    Ok(Trouble::Torn(length - at))
}

/// Where the next whole record begins that is not at that place.
pub(super) fn next_whole(blob: &dyn Blob, at: u32) -> io::Result<Option<u32>> {
    let mut rest =
        vec![0; usize::try_from(blob.len()?.saturating_sub(u64::from(at) + 1)).unwrap_or(usize::MAX)];
    blob.read_exact_at(&mut rest, u64::from(at) + 1)?;
    Ok(record::find(&rest).map(|(skipped, _)| at + 1 + offset(skipped as u64)))
}

/// The CRC that the record at that place has of the one before.
pub(super) fn before(blob: &dyn Blob, at: u32) -> io::Result<u32> {
    let mut header = [0; HEADER];
    blob.read_exact_at(&mut header, at.into())?;
    Ok(record::parse(&header).map_or(0, |found| found.before))
}

/// Segments are smaller than that.
pub(super) fn offset(at: u64) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Begins a segment, which is there after any crash.
pub(super) fn begin(directory: &dyn Volume, number: u64) -> io::Result<Arc<dyn Blob>> {
    let blob = create(directory, &file_name(number), number, number)?;
    blob.sync()?;
    directory.sync_names()?;
    Ok(blob)
}

/// Removes what there is of a segment that was not begun, so that it is not there after any crash.
pub(super) fn give_up(directory: &dyn Volume, number: u64) -> io::Result<()> {
    volume::remove_if_there(directory, &file_name(number))?;
    directory.sync_names()
}
