//! Chunks that were read lately: who reads the same soon after, as receivers do that replay together, gets them at once.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use super::pool::Pool;
use crate::store::chunk::Chunk;

/// Bytes of records that were read lately and are kept for others who read the same.
const KEPT: usize = 16 << 20;

/// Chunks that were read lately.
#[derive(Debug, Default)]
pub(super) struct Lately {
    blocks: Mutex<VecDeque<Block>>,
    /// What is read into.
    pub(super) pool: Pool,
}

#[derive(Debug)]
struct Block {
    key: Key,
    cost: usize,
    chunks: Arc<[Arc<Chunk>]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// Which segment, as it is now: it may be written anew.
    pub(super) number: u64,
    pub(super) tip: u32,
    /// A block of a channel, or the stretch from there.
    pub(super) channel: Option<u32>,
    pub(super) place: usize,
}

impl Lately {
    /// What was read of a place lately, or what is read now.
    pub(super) fn get_or(
        &self,
        key: Key,
        read: impl FnOnce() -> io::Result<Vec<Arc<Chunk>>>,
    ) -> io::Result<Arc<[Arc<Chunk>]>> {
        let kept = || self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = kept().iter().rev().find(|block| block.key == key) {
            return Ok(Arc::clone(&block.chunks));
        }
        let chunks: Arc<[Arc<Chunk>]> = read()?.into();
        let cost = chunks.iter().map(|chunk| chunk.cost() as usize).sum::<usize>();
        let mut kept = kept();
        if cost <= KEPT / 4 && !kept.iter().any(|block| block.key == key) {
            kept.push_back(Block { key, cost, chunks: Arc::clone(&chunks) });
            let mut all: usize = kept.iter().map(|block| block.cost).sum();
            while all > KEPT {
                let Some(oldest) = kept.pop_front() else { break };
                all -= oldest.cost;
            }
        }
        Ok(chunks)
    }
}
