//! What is known of one channel: where its chunks are, the newest of them themselves, and what is gone of it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use shared::{ChannelId, Seq, receiver::GapReason};

use super::{index::Entry, record::Header};
use crate::store::{Durability, Hole, Retention, chunk::Chunk};

/// Crashes that are remembered of a channel, those with messages between them: a receiver that comes back from before
/// that many is not told what they may have cost.
const CRASHES: usize = 4096;

/// A channel of the log.
#[derive(Debug, Clone)]
pub(super) struct Channel {
    pub(super) name: ChannelId,
    pub(super) durability: Durability,
    pub(super) retention: Retention,
    /// The first message that is kept; 0: none.
    pub(super) first: Seq,
    /// The last message that ever was; 0: none.
    pub(super) last: Seq,
    /// The first message of the last chunk.
    pub(super) newest: Seq,
    pub(super) last_time: u64,
    /// How many messages there ever were.
    pub(super) messages: u64,
    /// The last message that retention let go; 0: none.
    pub(super) gone_through: Seq,
    /// How many it let go.
    pub(super) gone: u64,
    /// What its kept chunks count for.
    pub(super) bytes: u64,
    /// Its newest chunks, in memory.
    pub(super) recent: VecDeque<Arc<Chunk>>,
    /// The segments that have something of it, and the last message there.
    pub(super) parts: VecDeque<(u64, Seq)>,
    /// The next entries of the first of those segments, behind what is gone.
    pub(super) window: VecDeque<Entry>,
    /// When the first chunk came, if that was looked up.
    pub(super) first_time: Option<u64>,
    /// The crashes that may have cost it messages, the oldest first.
    pub(super) crashes: Vec<Crash>,
    /// It went for being idle.
    pub(super) retired: bool,
    /// Chunks that have a place and are not committed yet: it stays until they are, or did not come to be.
    pub(super) planned: u32,
}

/// Nobody knows whether there were messages of a channel behind its last one then and up to `through`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crash {
    pub(super) last: Seq,
    pub(super) through: Seq,
    /// The first message that came later; 0: none yet.
    pub(super) next: Seq,
}

impl Channel {
    pub(super) fn new(name: ChannelId, durability: Durability, retention: Retention) -> Self {
        Self {
            name,
            durability,
            retention,
            first: Seq::ZERO,
            last: Seq::ZERO,
            newest: Seq::ZERO,
            last_time: 0,
            messages: 0,
            gone_through: Seq::ZERO,
            gone: 0,
            bytes: 0,
            recent: VecDeque::new(),
            parts: VecDeque::new(),
            window: VecDeque::new(),
            first_time: None,
            crashes: Vec::new(),
            retired: false,
            planned: 0,
        }
    }

    /// A chunk of it was found in the log.
    pub(super) fn replay(&mut self, header: &Header) {
        self.newest = header.first;
        self.last = header.last();
        self.last_time = header.time;
        self.messages += u64::from(header.count);
        self.retired = false;
        self.note_next(header.first);
    }

    /// A message came, perhaps the first after a crash.
    pub(super) fn note_next(&mut self, first: Seq) {
        for crash in self.crashes.iter_mut().rev().take_while(|crash| crash.next == Seq::ZERO) {
            crash.next = first;
        }
    }

    /// Whether its messages are on no disk.
    pub(super) fn is_in_memory(&self) -> bool {
        self.durability == Durability::Memory
    }

    /// Whether a crash can lose messages that somebody saw.
    pub(super) fn is_volatile(&self) -> bool {
        self.durability != Durability::Sync
    }

    /// Nobody knows whether there were messages behind the last one and up to that seq.
    pub(super) fn note_crash(&mut self, through: Seq) {
        let crash = Crash { last: self.last, through, next: Seq::ZERO };
        match self.crashes.last_mut() {
            // Nothing came between: what one and the other may have cost is one hole.
            Some(before) if before.last == crash.last => *before = crash,
            _ => self.crashes.push(crash),
        }
        if self.crashes.len() > CRASHES {
            self.crashes.remove(0);
        }
    }

    /// Whether everything in memory is everything after a seq.
    pub(super) fn has_recent_after(&self, after: Seq) -> bool {
        self.recent.front().is_some_and(|chunk| after >= chunk.prev())
    }

    /// The chunks in memory with messages after a seq.
    pub(super) fn recent_after(&self, after: Seq) -> impl Iterator<Item = &Arc<Chunk>> {
        let from = self.recent.partition_point(|chunk| chunk.last() <= after);
        self.recent.range(from..)
    }

    /// The chunk in memory that begins with that seq.
    pub(super) fn recent_at(&self, first: Seq) -> Option<&Arc<Chunk>> {
        let at = self.recent.binary_search_by_key(&first, |chunk| chunk.first()).ok()?;
        self.recent.get(at)
    }

    /// Whether it keeps more than it should; its newest chunk always stays.
    pub(super) fn is_over(&self) -> bool {
        let Retention { bytes, messages, .. } = self.retention;
        let too_many = messages.is_some_and(|limit| self.messages - self.gone > limit);
        self.first != Seq::ZERO && self.first != self.newest && (self.bytes > bytes || too_many)
    }

    /// Whether nothing came for so long.
    pub(super) fn is_idle(&self, now: u64, idle: Duration) -> bool {
        is_past(self.last_time, idle, now)
    }

    /// What is gone after a position and before the next message that is kept.
    pub(super) fn hole(&self, after: Seq) -> Option<Hole> {
        let gone = self.gone_through.max(after);
        let (mut through, mut next, mut reason) = (gone, self.first, GapReason::Retention);
        let first = self.crashes.partition_point(|crash| crash.through <= gone);
        for crash in &self.crashes[first..] {
            // Behind messages that are kept a crash has its turn when those were read.
            if crash.last > through {
                break;
            }
            (through, next, reason) = (crash.through, crash.next.max(self.first), GapReason::Crash);
        }
        if through == after {
            return None;
        }
        let before = if next > through { next } else { Seq(through.0 + 1) };
        Some(Hole { channel: self.name.clone(), through, before, ordinal: self.gone, reason })
    }

    /// Where a page that begins after a position has to end: before what a crash may have cost.
    pub(super) fn until(&self, after: Seq) -> Option<Seq> {
        let from = after.max(self.gone_through);
        let first = self.crashes.partition_point(|crash| crash.last <= from);
        self.crashes.get(first).map(|crash| crash.last)
    }
}

/// Whether so much time lies between.
pub(super) fn is_past(time: u64, span: Duration, now: u64) -> bool {
    let span = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    time.saturating_add(span) < now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_however_many_crashes_each_may_have_cost_what_lay_behind_its_last_message_and_nothing_else() {
        let everything = Retention { bytes: u64::MAX, messages: None, age: None };
        let mut channel = Channel::new("c".parse().unwrap(), Durability::Memory, everything);
        channel.first = Seq(1);
        for round in 0..300u64 {
            // A message in every third round; then a crash that may have cost up to nine more.
            let seq = Seq(round * 10 + 1);
            if round % 3 == 0 {
                channel.note_next(seq);
                channel.last = seq;
            }
            channel.note_crash(Seq(round * 10 + 10));
        }
        assert_eq!(channel.crashes.len(), 100, "those without a message between are one");
        for message in (0..300u64).step_by(3).map(|round| round * 10 + 1) {
            let hole = channel.hole(Seq(message)).unwrap();
            assert_eq!((hole.through, hole.before), (Seq(message + 29), Seq(message + 30)), "{message}");
            assert_eq!(hole.reason, GapReason::Crash);
            assert_eq!(channel.until(Seq(message - 1)), Some(Seq(message)));
        }
    }
}
