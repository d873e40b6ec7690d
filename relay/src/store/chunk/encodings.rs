//! Chunks in other forms than raw, kept for the next receiver that wants them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{Chunk, OVERHEAD};

/// Bounds the memory of chunks in other forms than raw: the oldest encoding goes when there is too much.
#[derive(Debug)]
pub struct Encodings {
    limit: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: u64,
    order: VecDeque<(Weak<Chunk>, usize, u64)>,
}

impl Encodings {
    /// Keeps at most so many bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, kept: Mutex::default() }
    }

    pub(super) fn keep(&self, chunk: &Arc<Chunk>, slot: usize, bytes: u64) {
        let mut dropped = Vec::new();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // A chunk that went leaves its struct here until it is the oldest: that is counted too.
        let bytes = bytes + OVERHEAD;
        kept.bytes += bytes;
        kept.order.push_back((Arc::downgrade(chunk), slot, bytes));
        while kept.bytes > self.limit
            || kept.order.front().is_some_and(|(chunk, ..)| chunk.strong_count() == 0)
        {
            let Some((chunk, slot, bytes)) = kept.order.pop_front() else { break };
            kept.bytes -= bytes;
            dropped.push((chunk, slot));
        }
        drop(kept);
        for (chunk, slot) in dropped {
            if let Some(chunk) = chunk.upgrade() {
                chunk.encoded.lock().unwrap_or_else(PoisonError::into_inner)[slot] = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::{Kind, Seq, receiver::Subprotocol};

    use super::*;
    use crate::store::chunk::{Messages, Place};

    fn chunk() -> Arc<Chunk> {
        let place = Place { first: Seq(10), prev: Seq(4), ordinal: 2, time: 99 };
        Arc::new(Chunk::new("a/b".parse().unwrap(), place, Messages::one(Kind::Text, b"x")))
    }

    #[test]
    fn encodings_beyond_the_limit_are_dropped_oldest_first() {
        let encodings = Encodings::new(600);
        let (old, new) = (chunk(), chunk());
        old.frames(Subprotocol::Json, &encodings);
        new.frames(Subprotocol::Json, &encodings);
        assert!(old.encoded.lock().unwrap()[0].is_none());
        assert!(new.encoded.lock().unwrap()[0].is_some());
    }

    #[test]
    fn encodings_of_chunks_that_went_are_not_counted() {
        let encodings = Encodings::new(1 << 20);
        for _ in 0..10 {
            chunk().frames(Subprotocol::Json, &encodings);
        }
        assert_eq!(encodings.kept.lock().unwrap().order.len(), 1);
    }
}
