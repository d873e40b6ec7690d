//! The newest chunks of one selection, in the order of seqs, for all its receivers. It points to chunks and keeps
//! none: what the store lets go is gone here too, and receivers that want older ones read the store.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use shared::Seq;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::store::{chunk::Chunk, selection::Selection};

/// Chunks that the view of a pattern points to; a receiver that is further behind reads the store. The view of a
/// single channel points to all that are kept: each chunk is in one of those at most, and its cost allows for it.
const RING: usize = 16 * 1024;

/// A receiver in no hurry to be waited for: it reads the store, or has been waited for in vain.
const NOT_COUNTED: u64 = u64::MAX;

/// The newest chunks of a selection.
#[derive(Debug)]
pub(super) struct View {
    selection: Selection,
    single: bool,
    ring: Mutex<Ring>,
    head: watch::Sender<Seq>,
    receivers: Mutex<Vec<Arc<Progress>>>,
    /// Publishes up to this cost need not look for slow receivers.
    calm_until: AtomicU64,
    waiting: AtomicUsize,
    moved: Notify,
}

#[derive(Debug)]
struct Ring {
    /// The index of the first entry; indices grow for ever.
    base: u64,
    entries: VecDeque<Entry>,
    /// Everything of the selection after this seq is in the ring.
    complete_after: Seq,
    /// The cost of everything that was ever pushed.
    total: u64,
    /// The cost of what was pushed before the first entry.
    begin: u64,
    /// Until when receivers were charged for senders that are held.
    charged_until: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    last: Seq,
    /// The cost of everything up to and with this chunk.
    end: u64,
    chunk: Weak<Chunk>,
}

/// How far a receiver is, as far as senders need to know.
#[derive(Debug)]
pub(super) struct Progress {
    /// The index in the view of the chunk that it wants next.
    next: AtomicU64,
    /// It was waited for in vain and counts again when it is back at the head.
    tired: AtomicBool,
    /// Microseconds that senders may still be held for it in all, where its channel says `block`.
    credit: AtomicU64,
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

/// How far behind a receiver may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// Bytes from which on a sender is held.
    pub(super) held_from: u64,
    /// Bytes from which on it is not held any more, since the receiver does not keep up.
    pub(super) given_up_from: u64,
}

impl View {
    /// Begins with what is committed after `head`.
    pub(super) fn new(selection: Selection, head: Seq) -> Self {
        Self {
            single: selection.as_channel().is_some(),
            selection,
            ring: Mutex::new(Ring {
                base: 0,
                entries: VecDeque::new(),
                complete_after: head,
                total: 0,
                begin: 0,
                charged_until: None,
            }),
            head: watch::Sender::new(head),
            receivers: Mutex::default(),
            calm_until: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            moved: Notify::new(),
        }
    }

    pub(super) fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Whether it is the view of a single channel.
    pub(super) fn is_single(&self) -> bool {
        self.single
    }

    /// Is told of every chunk from now on.
    pub(super) fn follow(&self) -> watch::Receiver<Seq> {
        self.head.subscribe()
    }

    /// A receiver that begins at a place of its own.
    pub(super) fn join(&self, credit: Duration) -> Arc<Progress> {
        let credit = AtomicU64::new(u64::try_from(credit.as_micros()).unwrap_or(u64::MAX));
        let progress =
            Arc::new(Progress { next: AtomicU64::new(NOT_COUNTED), tired: AtomicBool::new(false), credit });
        self.receivers().push(Arc::clone(&progress));
        progress
    }

    /// A receiver leaves.
    pub(super) fn leave(&self, progress: &Arc<Progress>) {
        self.receivers().retain(|other| !Arc::ptr_eq(other, progress));
        self.moved.notify_waiters();
    }

    pub(super) fn push(&self, chunk: &Arc<Chunk>) {
        let mut ring = self.ring();
        ring.total += chunk.cost();
        let entry = Entry { last: chunk.last(), end: ring.total, chunk: Arc::downgrade(chunk) };
        ring.entries.push_back(entry);
        ring.forget(if self.single { usize::MAX } else { RING });
        drop(ring);
        self.head.send_replace(chunk.last());
    }

    /// Lets go of what is left of chunks that went; where nothing is published, only this does.
    pub(super) fn forget_gone(&self) {
        let mut ring = self.ring();
        ring.forget(usize::MAX);
        if ring.entries.len() < ring.entries.capacity() / 8 {
            ring.entries.shrink_to_fit();
        }
    }

    /// Whether there is nothing of the selection after a position, as far as the view was told.
    pub(super) fn has_nothing_after(&self, after: Seq) -> bool {
        let ring = self.ring();
        after >= ring.complete_after && ring.entries.back().is_none_or(|entry| entry.last <= after)
    }

    /// Lets every receiver look up, though there is nothing new.
    pub(super) fn wake(&self) {
        self.head.send_modify(|_| {});
    }

    /// Chunks with messages after a position: at most `limit`, and so many that they cost about `bytes`.
    pub(super) fn collect(
        &self,
        after: Seq,
        (limit, bytes): (usize, u64),
        progress: &Progress,
        out: &mut Vec<Arc<Chunk>>,
    ) -> Found {
        let found = self.ring().collect(after, (limit, bytes), progress, out);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.moved.notify_waiters();
        }
        found
    }

    /// Whether a sender should wait for receivers that keep up.
    pub(super) fn is_outrun(&self, reach: Reach) -> bool {
        if self.ring().total < self.calm_until.load(Ordering::Relaxed) {
            return false;
        }
        let slowest = self.slowest(reach, |progress| !progress.tired.load(Ordering::Relaxed));
        if slowest < reach.held_from {
            self.calm_until.store(self.ring().total + (reach.held_from - slowest), Ordering::Relaxed);
        }
        slowest >= reach.held_from
    }

    /// Waits until no receiver that counts is that far behind.
    pub(super) async fn caught_up(&self, reach: Reach) {
        self.wait_while(|| self.slowest(reach, |p| !p.tired.load(Ordering::Relaxed)) >= reach.held_from)
            .await;
    }

    /// From now on, receivers that are that far behind are not waited for until they are back at the head.
    pub(super) fn tire(&self, reach: Reach) {
        let ring = self.ring();
        for progress in self.receivers().iter() {
            if ring.lag(progress) >= reach.held_from {
                progress.tired.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Whether a receiver with credit is so far behind that senders are held for it.
    pub(super) fn is_blocked(&self, reach: Reach) -> bool {
        self.slowest(Reach { given_up_from: u64::MAX, ..reach }, Progress::has_credit) >= reach.held_from
    }

    /// Waits until no receiver with credit is that far behind, and charges those that are for the wait.
    pub(super) async fn unblocked(&self, reach: Reach) {
        const STEP: Duration = Duration::from_millis(20);
        while self.is_blocked(reach) {
            let began = Instant::now();
            let moved = self.wait_while(|| self.is_blocked(reach));
            let _ = tokio::time::timeout(STEP, moved).await;
            let mut ring = self.ring();
            // Several senders that are held at the same time are charged for once.
            let now = Instant::now();
            let from = ring.charged_until.map_or(began, |until| until.max(began));
            let waited = u64::try_from((now - from).as_micros()).unwrap_or(u64::MAX);
            ring.charged_until = Some(now);
            let mut overdrawn = false;
            for progress in self.receivers().iter().filter(|p| p.has_credit()) {
                if ring.lag(progress) >= reach.held_from {
                    let left = progress.credit.load(Ordering::Relaxed).saturating_sub(waited);
                    progress.credit.store(left, Ordering::Relaxed);
                    overdrawn |= left == 0;
                }
            }
            drop(ring);
            if overdrawn {
                self.wake();
            }
        }
    }

    /// The greatest lag of receivers that count, in bytes.
    fn slowest(&self, reach: Reach, counts: impl Fn(&Progress) -> bool) -> u64 {
        let ring = self.ring();
        let receivers = self.receivers();
        let lags = receivers.iter().filter(|progress| counts(progress)).map(|progress| ring.lag(progress));
        lags.filter(|lag| *lag < reach.given_up_from).max().unwrap_or(0)
    }

    async fn wait_while(&self, condition: impl Fn() -> bool) {
        let _counted = Waiting::new(&self.waiting);
        loop {
            let moved = self.moved.notified();
            if !condition() {
                return;
            }
            moved.await;
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receivers(&self) -> MutexGuard<'_, Vec<Arc<Progress>>> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
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

    fn collect(
        &self,
        after: Seq,
        (limit, bytes): (usize, u64),
        progress: &Progress,
        out: &mut Vec<Arc<Chunk>>,
    ) -> Found {
        if after < self.complete_after {
            progress.next.store(NOT_COUNTED, Ordering::Relaxed);
            return Found::Older;
        }
        let from = self.position(after, progress.next.load(Ordering::Relaxed));
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
                progress.next.store(NOT_COUNTED, Ordering::Relaxed);
                return Found::Older;
            };
            cost += chunk.cost();
            found += 1;
            out.push(chunk);
        }
        progress.next.store(self.base + from as u64, Ordering::Relaxed);
        if from == self.entries.len() {
            progress.tired.store(false, Ordering::Relaxed);
        }
        if found == 0 { Found::Head } else { Found::Chunks(found) }
    }

    /// Where in the entries the first chunk with messages after that seq is; `hint` is likely its index.
    fn position(&self, after: Seq, hint: u64) -> usize {
        let guess = usize::try_from(hint.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let fits = guess <= self.entries.len()
            && (guess == 0 || self.entries[guess - 1].last <= after)
            && self.entries.get(guess).is_none_or(|entry| entry.last > after);
        if fits { guess } else { self.entries.partition_point(|entry| entry.last <= after) }
    }

    /// How far behind the head a receiver is, in bytes; 0 for one that is not counted.
    fn lag(&self, progress: &Progress) -> u64 {
        let next = progress.next.load(Ordering::Relaxed);
        if next == NOT_COUNTED {
            return 0;
        }
        let before =
            next.checked_sub(self.base + 1).and_then(|index| self.entries.get(usize::try_from(index).ok()?));
        self.total - before.map_or(self.begin, |entry| entry.end)
    }
}

impl Progress {
    /// Whether senders may still be held for it.
    pub(super) fn has_credit(&self) -> bool {
        self.credit.load(Ordering::Relaxed) > 0
    }
}

/// Counts a waiting sender for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use shared::Kind;

    use super::*;
    use crate::store::chunk::{Messages, Place};

    #[test]
    fn a_view_without_publishes_lets_go_of_what_the_store_let_go() {
        let selection: Selection = ["c".parse().unwrap()].into_iter().collect();
        let view = View::new(selection, Seq::ZERO);
        let chunks: Vec<Arc<Chunk>> = (1..=100).map(chunk).collect();
        chunks.iter().for_each(|chunk| view.push(chunk));
        assert!(!view.has_nothing_after(Seq(99)) && view.has_nothing_after(Seq(100)));
        drop(chunks);
        view.forget_gone();
        assert_eq!(view.ring().entries.capacity(), 0);
        assert!(
            !view.has_nothing_after(Seq(99)) && view.has_nothing_after(Seq(100)),
            "it knows what is gone"
        );
    }

    fn chunk(seq: u64) -> Arc<Chunk> {
        let place = Place { first: Seq(seq), prev: Seq(seq - 1), ordinal: seq - 1, time: 0 };
        Arc::new(Chunk::new("c".parse().unwrap(), place, Messages::one(Kind::Text, b"x")))
    }
}
