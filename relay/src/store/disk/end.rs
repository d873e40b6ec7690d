//! The end of the log, where records are added: in a buffer first, which is then written as a whole.

use std::sync::Arc;

use super::{
    record::{self, Context, Header, Sort},
    segment,
    volume::Blob,
};
use crate::store::{
    Stamp,
    chunk::{Chunk, Place},
};

/// The end of the log.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) number: u64,
    pub(super) blob: Arc<dyn Blob>,
    pub(super) end: u32,
    pub(super) tip: u32,
    /// Up to where it is on the disk itself.
    pub(super) synced: u32,
    /// Up to where a record says so.
    pub(super) noted: u32,
    pub(super) buffer: Vec<u8>,
}

impl Log {
    fn context(&self) -> Context {
        Context { before: self.tip, synced: self.synced }
    }

    pub(super) fn put(&mut self, header: &Header, body: &[u8]) {
        let (before, context) = (self.buffer.len(), self.context());
        self.tip = record::put(&mut self.buffer, context, header, &[body]);
        self.end += segment::offset((self.buffer.len() - before) as u64);
    }

    /// Its header, and where it stands.
    pub(super) fn put_chunk(&mut self, id: u32, chunk: &Chunk, stamp: Option<&Stamp>) -> (Header, u32, u32) {
        let (before, offset, place) = (self.buffer.len(), self.end, chunk.place());
        let context = self.context();
        self.tip = record::put_chunk(&mut self.buffer, context, id, place, chunk.messages(), stamp);
        let length = segment::offset((self.buffer.len() - before) as u64);
        self.end += length;
        let Place { first, prev, ordinal, time } = place;
        let count = u16::try_from(chunk.count()).unwrap_or(u16::MAX);
        (Header { count, channel: id, first, prev, ordinal, time, ..Header::of(Sort::Chunk) }, offset, length)
    }

    /// Notes what is on the disk, so that damage to it is told from what was being written. It is no harm if the note
    /// is lost.
    pub(super) fn note(&mut self) {
        let (start, tip) = (self.end, self.tip);
        self.buffer.clear();
        self.put(&Header::of(Sort::Synced), &[]);
        let written = self.blob.write_at(&self.buffer, start.into());
        if written.is_err() {
            (self.end, self.tip) = (start, tip);
            let _ = self.blob.cut(start.into());
        }
        self.noted = self.synced;
    }
}
