//! The newest chunks of one selection, in the order of seqs, for all its receivers. It points to chunks and keeps
//! none: what the store lets go is gone here too, and receivers that want older ones read the store.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
    time::Duration,
};

use shared::Seq;
use tokio::{sync::Notify, time::Instant};

use super::{
    progress::{Progress, Receivers},
    ring::{Amount, Found, Ring},
};
use crate::store::{chunk::Chunk, selection::Selection};

/// Chunks that the view of a pattern points to; a receiver that is further behind reads the store. The view of a
/// single channel points to all that are kept: each chunk is in one of those at most, and its cost allows for it.
const RING: usize = 16 * 1024;

/// The newest chunks of a selection.
#[derive(Debug)]
pub(super) struct View {
    selection: Selection,
    single: bool,
    ring: Mutex<Ring>,
    /// How often there was something for receivers to look at.
    news: AtomicU64,
    /// A receiver waits since they were woken last: under load most publishes find none.
    asleep: AtomicBool,
    /// Locked after the ring, where both are.
    receivers: Mutex<Receivers>,
    calm: Mutex<Option<Calm>>,
    /// Until when receivers were charged for senders that are held.
    charged_until: Mutex<Option<Instant>>,
    waiting: AtomicUsize,
    moved: Notify,
}

/// Senders that are held from that far on need not look for slow receivers until so much was published.
#[derive(Debug, Clone, Copy)]
struct Calm {
    held_from: Amount,
    until: Amount,
}

/// How far behind a receiver may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// From which lag on a sender is held.
    pub(super) held_from: Amount,
    /// From which lag on it is not held any more, since the receiver does not keep up.
    pub(super) given_up_from: Amount,
}

impl View {
    /// Begins with what is committed after `head`.
    pub(super) fn new(selection: Selection, head: Seq) -> Self {
        Self {
            single: selection.as_channel().is_some(),
            selection,
            ring: Mutex::new(Ring::new(head)),
            news: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            receivers: Mutex::default(),
            calm: Mutex::default(),
            charged_until: Mutex::default(),
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

    /// How often there was something for receivers to look at: what they compare to know whether there is something
    /// new.
    pub(super) fn news(&self) -> u64 {
        self.news.load(Ordering::SeqCst)
    }

    /// Has a receiver woken when there is something new from now on: it has to look at the [news](Self::news) once
    /// more, for what came before.
    pub(super) fn wait(&self, progress: &Progress, waker: &Waker) {
        progress.wait(waker);
        // In one order with the news: either this is seen by who publishes, or the news by who waits.
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// A receiver that begins at a place of its own.
    pub(super) fn join(&self, credit: Duration) -> Arc<Progress> {
        lock(&self.receivers).join(credit)
    }

    /// A receiver leaves.
    pub(super) fn leave(&self, progress: &Arc<Progress>) {
        lock(&self.receivers).leave(progress);
        self.moved.notify_waiters();
    }

    pub(super) fn push(&self, chunk: &Arc<Chunk>) {
        lock(&self.ring).push(chunk, if self.single { usize::MAX } else { RING });
        self.wake();
    }

    /// Lets go of what is left of chunks that went; where nothing is published, only this does.
    pub(super) fn forget_gone(&self) {
        lock(&self.ring).forget_gone();
    }

    /// Whether there is nothing of the selection after a position, as far as the view was told.
    pub(super) fn has_nothing_after(&self, after: Seq) -> bool {
        lock(&self.ring).has_nothing_after(after)
    }

    /// Lets every receiver look up, though there is nothing new.
    pub(super) fn wake(&self) {
        self.news.fetch_add(1, Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            lock(&self.receivers).wake();
        }
    }

    /// Chunks with messages after a position: at most `limit`, and so many that they cost about `bytes`.
    pub(super) fn collect(
        &self,
        after: Seq,
        (limit, bytes): (usize, u64),
        progress: &Progress,
        out: &mut Vec<Arc<Chunk>>,
    ) -> Found {
        let found = lock(&self.ring).collect(after, (limit, bytes), progress, out);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.moved.notify_waiters();
        }
        found
    }

    /// Whether a sender should wait for receivers that keep up.
    pub(super) fn is_outrun(&self, reach: Reach) -> bool {
        let Reach { held_from, .. } = reach;
        let ring = lock(&self.ring);
        let mut calm = lock(&self.calm);
        if calm.is_some_and(|calm| calm.held_from == held_from && !ring.total().reaches(calm.until)) {
            return false;
        }
        let slowest = self.slowest(&ring, reach, |progress| !progress.is_tired());
        let outrun = slowest.reaches(held_from);
        *calm = (!outrun).then(|| Calm { held_from, until: ring.total() + (held_from - slowest) });
        outrun
    }

    /// Waits until no receiver that counts is that far behind.
    pub(super) async fn caught_up(&self, reach: Reach) {
        let is_outrun = || {
            let slowest = self.slowest(&lock(&self.ring), reach, |progress| !progress.is_tired());
            slowest.reaches(reach.held_from)
        };
        self.wait_while(is_outrun).await;
    }

    /// From now on, receivers that are that far behind are not waited for until they are back at the head.
    pub(super) fn tire(&self, reach: Reach) {
        let ring = lock(&self.ring);
        let receivers = lock(&self.receivers);
        receivers.iter().filter(|p| ring.lag(p).reaches(reach.held_from)).for_each(Progress::tire);
    }

    /// Whether a receiver with credit is so far behind that senders are held for it.
    pub(super) fn is_blocked(&self, held_from: Amount) -> bool {
        let ring = lock(&self.ring);
        let receivers = lock(&self.receivers);
        receivers.iter().any(|p| p.has_credit() && ring.lag(p).reaches(held_from))
    }

    /// Waits until no receiver with credit is that far behind, and charges those that are for the wait.
    pub(super) async fn unblocked(&self, held_from: Amount) {
        const STEP: Duration = Duration::from_millis(20);
        while self.is_blocked(held_from) {
            let began = Instant::now();
            let moved = self.wait_while(|| self.is_blocked(held_from));
            let _ = tokio::time::timeout(STEP, moved).await;
            if self.charge(held_from, began) {
                self.wake();
            }
        }
    }

    /// Charges receivers that are that far behind for a wait that began then; whether the credit of one is used.
    fn charge(&self, held_from: Amount, began: Instant) -> bool {
        let ring = lock(&self.ring);
        // Several senders that are held at the same time are charged for once.
        let now = Instant::now();
        let until = lock(&self.charged_until).replace(now);
        let from = until.map_or(began, |until| until.max(began));
        let waited = u64::try_from((now - from).as_micros()).unwrap_or(u64::MAX);
        let mut overdrawn = false;
        for progress in lock(&self.receivers).iter().filter(|p| p.has_credit()) {
            if ring.lag(progress).reaches(held_from) {
                overdrawn |= !progress.charge(waited);
            }
        }
        overdrawn
    }

    /// The greatest lag of receivers that count and are not given up.
    fn slowest(&self, ring: &Ring, reach: Reach, counts: impl Fn(&Progress) -> bool) -> Amount {
        let receivers = lock(&self.receivers);
        let lags = receivers.iter().filter(|progress| counts(progress)).map(|progress| ring.lag(progress));
        lags.filter(|lag| !lag.reaches(reach.given_up_from)).fold(Amount::default(), Amount::max)
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
