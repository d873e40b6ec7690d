//! What a view points to, in the order of seqs: the newest chunks of a selection, and how far behind the newest of
//! them a receiver is.

use std::{
    collections::VecDeque,
    ops::{Add, Sub},
    sync::{Arc, Weak},
};

use shared::Seq;

use super::progress::Progress;
use crate::store::chunk::Chunk;

/// Pointers to chunks; the oldest go first.
#[derive(Debug)]
pub(super) struct Ring {
    /// The index of the first entry; indices grow for ever.
    base: u64,
    entries: VecDeque<Entry>,
    /// Everything of the selection after this seq is in the ring.
    complete_after: Seq,
    /// Everything that was ever pushed.
    total: Amount,
    /// What was pushed before the first entry.
    begin: Amount,
}

#[derive(Debug)]
struct Entry {
    last: Seq,
    /// Everything up to and with this chunk.
    end: Amount,
    chunk: Weak<Chunk>,
}

/// How much that is: of what was published, or of what a receiver has not taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    /// What its chunks cost, in bytes.
    pub(super) bytes: u64,
    pub(super) messages: u64,
}

/// What a view has after a position.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// These many chunks.
    Chunks(usize),
    /// Nothing: the position is the head.
    Head,
    /// The position is older than what the view holds: the store knows.
    Older,
}

impl Ring {
    /// Holds what is committed after `head`.
    pub(super) fn new(head: Seq) -> Self {
        Self {
            base: 0,
            entries: VecDeque::new(),
            complete_after: head,
            total: Amount::default(),
            begin: Amount::default(),
        }
    }

    /// Everything that was ever pushed.
    pub(super) fn total(&self) -> Amount {
        self.total
    }

    /// Points to one more chunk, and to at most so many.
    pub(super) fn push(&mut self, chunk: &Arc<Chunk>, limit: usize) {
        self.total = self.total + Amount { bytes: chunk.cost(), messages: chunk.count() };
        let entry = Entry { last: chunk.last(), end: self.total, chunk: Arc::downgrade(chunk) };
        self.entries.push_back(entry);
        self.forget(limit);
    }

    /// Lets the oldest entries go whose chunks went; gives memory back that is not needed.
    pub(super) fn forget_gone(&mut self) {
        self.forget(usize::MAX);
        if self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to_fit();
        }
    }

    /// Whether nothing was pushed that is after a position.
    pub(super) fn has_nothing_after(&self, after: Seq) -> bool {
        after >= self.complete_after && self.entries.back().is_none_or(|entry| entry.last <= after)
    }

    /// Lets the oldest entries go whose chunks went, and those beyond the limit.
    fn forget(&mut self, limit: usize) {
        while self.entries.len() > limit || self.entries.front().is_some_and(|e| e.chunk.strong_count() == 0)
        {
            let Some(entry) = self.entries.pop_front() else { break };
            self.complete_after = entry.last;
            self.begin = entry.end;
            self.base += 1;
        }
    }

    /// Chunks with messages after a position: at most `limit`, and so many that they cost about `bytes`. Takes note
    /// of where the receiver is.
    pub(super) fn collect(
        &self,
        after: Seq,
        (limit, bytes): (usize, u64),
        progress: &Progress,
        out: &mut Vec<Arc<Chunk>>,
    ) -> Found {
        if after < self.complete_after {
            progress.is_elsewhere();
            return Found::Older;
        }
        let from = self.position(after, progress.next());
        let mut cost = 0;
        let mut found = 0;
        for entry in self.entries.range(from..).take(limit) {
            if found > 0 && cost >= bytes {
                break;
            }
            let Some(chunk) = entry.chunk.upgrade() else {
                if found > 0 {
                    break;
                }
                progress.is_elsewhere();
                return Found::Older;
            };
            cost += chunk.cost();
            found += 1;
            out.push(chunk);
        }
        progress.is_at(self.base + from as u64, from == self.entries.len());
        if found == 0 { Found::Head } else { Found::Chunks(found) }
    }

    /// Where in the entries the first chunk with messages after that seq is; `hint` is likely its index.
    fn position(&self, after: Seq, hint: Option<u64>) -> usize {
        let guess = hint.and_then(|hint| usize::try_from(hint.saturating_sub(self.base)).ok());
        let guess = guess.unwrap_or(usize::MAX);
        let fits = guess <= self.entries.len()
            && (guess == 0 || self.entries[guess - 1].last <= after)
            && self.entries.get(guess).is_none_or(|entry| entry.last > after);
        if fits { guess } else { self.entries.partition_point(|entry| entry.last <= after) }
    }

    /// How far behind the newest chunk a receiver is; nothing for one that is not counted.
    pub(super) fn lag(&self, progress: &Progress) -> Amount {
        let Some(next) = progress.next() else { return Amount::default() };
        let before =
            next.checked_sub(self.base + 1).and_then(|index| self.entries.get(usize::try_from(index).ok()?));
        self.total - before.map_or(self.begin, |entry| entry.end)
    }
}

impl Amount {
    /// Whether it is as much as that in bytes or in messages.
    pub(super) fn reaches(self, limit: Self) -> bool {
        self.bytes >= limit.bytes || self.messages >= limit.messages
    }

    /// The greater of each.
    pub(super) fn max(self, other: Self) -> Self {
        Self { bytes: self.bytes.max(other.bytes), messages: self.messages.max(other.messages) }
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(more.bytes),
            messages: self.messages.saturating_add(more.messages),
        }
    }
}

impl Sub for Amount {
    type Output = Self;

    fn sub(self, less: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(less.bytes),
            messages: self.messages.saturating_sub(less.messages),
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::Kind;

    use super::*;
    use crate::store::chunk::{Messages, Place};

    #[test]
    fn a_ring_without_publishes_lets_go_of_what_the_store_let_go() {
        let mut ring = Ring::new(Seq::ZERO);
        let chunks: Vec<Arc<Chunk>> = (1..=100).map(chunk).collect();
        chunks.iter().for_each(|chunk| ring.push(chunk, usize::MAX));
        assert!(!ring.has_nothing_after(Seq(99)) && ring.has_nothing_after(Seq(100)));
        drop(chunks);
        ring.forget_gone();
        assert_eq!(ring.entries.capacity(), 0);
        assert!(
            !ring.has_nothing_after(Seq(99)) && ring.has_nothing_after(Seq(100)),
            "it knows what is gone"
        );
    }

    fn chunk(seq: u64) -> Arc<Chunk> {
        let place = Place { first: Seq(seq), prev: Seq(seq - 1), ordinal: seq - 1, time: 0 };
        Arc::new(Chunk::new("c".parse().unwrap(), place, Messages::one(Kind::Text, b"x")))
    }
}
