//! One channel's ordered chunks in memory, and what is known of those that went.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use shared::Seq;

use crate::store::{Retention, chunk::Chunk};

/// A channel's messages, the oldest first.
#[derive(Debug)]
pub(super) struct Log {
    retention: Retention,
    chunks: VecDeque<Arc<Chunk>>,
    bytes: u64,
    last: Seq,
    last_time: u64,
    /// Messages that there ever were.
    messages: u64,
    gone_through: Seq,
    /// Messages that are gone.
    gone: u64,
}

/// What was let go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) chunks: usize,
    pub(super) bytes: u64,
    /// Up to where.
    pub(super) through: Seq,
    /// Up to where everything was gone already; 0: nothing was.
    pub(super) before: Seq,
}

impl Log {
    pub(super) fn new(retention: Retention) -> Self {
        Self {
            retention,
            chunks: VecDeque::new(),
            bytes: 0,
            last: Seq::ZERO,
            last_time: 0,
            messages: 0,
            gone_through: Seq::ZERO,
            gone: 0,
        }
    }

    /// The first message that is kept; 0: none.
    pub(super) fn first(&self) -> Seq {
        self.chunks.front().map_or(Seq::ZERO, |chunk| chunk.first())
    }

    /// The last message that ever was; 0: none.
    pub(super) fn last(&self) -> Seq {
        self.last
    }

    /// How many messages there ever were.
    pub(super) fn ordinal(&self) -> u64 {
        self.messages
    }

    /// The last message that is gone; 0: none.
    pub(super) fn gone_through(&self) -> Seq {
        self.gone_through
    }

    /// How many messages are gone.
    pub(super) fn gone(&self) -> u64 {
        self.gone
    }

    /// The chunks with messages after that seq.
    pub(super) fn after(&self, after: Seq) -> impl Iterator<Item = &Arc<Chunk>> {
        let from = self.chunks.partition_point(|chunk| chunk.last() <= after);
        self.chunks.range(from..)
    }

    /// The chunks, the newest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = &Arc<Chunk>> {
        self.chunks.iter().rev()
    }

    /// The chunk that begins with that seq.
    pub(super) fn starting_at(&self, first: Seq) -> Option<&Arc<Chunk>> {
        let index = self.chunks.binary_search_by_key(&first, |chunk| chunk.first()).ok()?;
        self.chunks.get(index)
    }

    pub(super) fn push(&mut self, chunk: Arc<Chunk>) {
        self.last = chunk.last();
        self.last_time = chunk.time();
        self.messages += chunk.count();
        self.bytes += chunk.cost();
        self.chunks.push_back(chunk);
    }

    /// Lets the oldest chunks go until the limits on bytes and messages hold; the newest always stays.
    pub(super) fn enforce(&mut self) -> Option<Gone> {
        let Retention { bytes, messages, .. } = self.retention;
        self.let_go_while(|log| {
            let too_many = messages.is_some_and(|limit| log.messages - log.gone > limit);
            log.chunks.len() > 1 && (log.bytes > bytes || too_many)
        })
    }

    /// Lets go of what is too old at that time, and of everything if the channel was idle for so long.
    pub(super) fn expire(&mut self, now: u64, idle: Duration) -> Option<Gone> {
        let all = self.is_idle(now, idle);
        let age = self.retention.age;
        self.let_go_while(|log| {
            let oldest = log.chunks.front().map_or(now, |chunk| chunk.time());
            all || age.is_some_and(|age| is_past(oldest, age, now))
        })
    }

    /// Whether nothing came for so long.
    pub(super) fn is_idle(&self, now: u64, idle: Duration) -> bool {
        is_past(self.last_time, idle, now)
    }

    /// Lets the chunk go that begins with that seq, if it is the oldest.
    pub(super) fn let_go_of(&mut self, first: Seq) -> Option<Gone> {
        let mut once = self.first() == first;
        self.let_go_while(|_| std::mem::take(&mut once))
    }

    fn let_go_while(&mut self, mut too_much: impl FnMut(&Self) -> bool) -> Option<Gone> {
        let mut gone = Gone { before: self.gone_through, ..Gone::default() };
        while !self.chunks.is_empty() && too_much(self) {
            let Some(chunk) = self.chunks.pop_front() else { break };
            self.bytes -= chunk.cost();
            self.gone += chunk.count();
            self.gone_through = chunk.last();
            gone.chunks += 1;
            gone.bytes += chunk.cost();
            gone.through = chunk.last();
        }
        (gone.chunks > 0).then_some(gone)
    }
}

/// The position before the last so many messages of chunks that are given newest first; none if there are none.
pub(super) fn before_last<'a>(chunks: impl Iterator<Item = &'a Arc<Chunk>>, count: u64) -> Option<Seq> {
    let mut missing = count;
    let mut before = None;
    for chunk in chunks {
        if missing == 0 {
            break;
        }
        let taken = missing.min(chunk.count());
        missing -= taken;
        before = Some(Seq(chunk.last().0 - taken));
    }
    before
}

fn is_past(time: u64, span: Duration, now: u64) -> bool {
    let span = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    time.saturating_add(span) < now
}
