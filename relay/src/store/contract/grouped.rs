//! An engine for tests that commits in groups and later, as one does that writes to a disk: what is to be done waits
//! in a bounded queue, a task does what is there, and tells the tail and then the outcomes when the whole group is
//! committed. What reads the store waits for that.

use std::{
    io,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shared::{ChannelId, Epoch, Seq, sender::Levels, sender::ProducerId};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinSet, yield_now},
};

use crate::store::{
    Answer, Batch, Bounds, ChannelStore, Claim, Done, Page, ReadError, Receipt, Refused, StoreSettings,
    Stored, Tail, Ticket, chunk::Chunk, memory::Memory, selection::Selection,
};

/// How much may wait.
const QUEUE: usize = 64;

/// Commits in groups what memory then keeps.
#[derive(Debug)]
pub(crate) struct Grouped {
    kept: Arc<Kept>,
    queue: mpsc::Sender<Work>,
    /// The task of the engine: it ends with it.
    _commits: JoinSet<()>,
}

struct Kept {
    memory: Memory,
    /// What is committed and the tail was not told yet.
    untold: Arc<Mutex<Vec<Arc<Chunk>>>>,
    tail: OnceLock<Tail>,
    head: AtomicU64,
    /// Held from the first commit of a group until all of it is told.
    group: tokio::sync::Mutex<()>,
}

enum Work {
    Append(Batch, oneshot::Sender<Result<Receipt, Refused>>),
    Claim(ProducerId, u32, Duration, u64, oneshot::Sender<Result<Claim, Refused>>),
    Open(Claim, ChannelId, u64, oneshot::Sender<Result<Stored, Refused>>),
    End(oneshot::Sender<Result<(), Refused>>),
}

impl Grouped {
    pub(crate) fn new(settings: StoreSettings) -> Self {
        let memory = Memory::new(Epoch(8), settings);
        let untold = Arc::<Mutex<Vec<Arc<Chunk>>>>::default();
        let committed = Arc::clone(&untold);
        memory.follow(Box::new(move |chunk| {
            committed.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(chunk));
        }));
        let (tail, head, group) = (OnceLock::new(), AtomicU64::new(0), tokio::sync::Mutex::default());
        let kept = Arc::new(Kept { memory, untold, tail, head, group });
        let (queue, waiting) = mpsc::channel(QUEUE);
        let mut commits = JoinSet::new();
        commits.spawn(commit_groups(Arc::clone(&kept), waiting));
        Self { kept, queue, _commits: commits }
    }

    /// Does something in its turn.
    async fn ask<T>(
        &self,
        work: impl FnOnce(oneshot::Sender<Result<T, Refused>>) -> Work,
    ) -> Result<Result<T, Refused>, ReadError> {
        let (settle, outcome) = oneshot::channel();
        let ended = || ReadError(io::ErrorKind::BrokenPipe.into());
        self.queue.send(work(settle)).await.map_err(|_| ended())?;
        outcome.await.map_err(|_| ended())
    }
}

async fn commit_groups(kept: Arc<Kept>, mut waiting: mpsc::Receiver<Work>) {
    let mut group = Vec::new();
    while waiting.recv_many(&mut group, QUEUE).await > 0 {
        yield_now().await;
        let whole = kept.group.lock().await;
        let mut outcomes = Vec::new();
        for work in group.drain(..) {
            outcomes.push(kept.act(work).await);
            yield_now().await;
        }
        kept.tell();
        drop(whole);
        yield_now().await;
        outcomes.into_iter().for_each(|tell| tell(&kept));
    }
}

/// Tells an outcome to whoever asked for it.
type Outcome = Box<dyn FnOnce(&Kept) + Send>;

impl Kept {
    /// Does one thing; its outcome is known then, and told later.
    async fn act(&self, work: Work) -> Outcome {
        match work {
            Work::Append(batch, settle) => {
                let outcome = self.memory.append(batch).await;
                // Whoever appended may have gone; what it appended is committed all the same.
                Box::new(move |_| {
                    let _ = settle.send(outcome);
                })
            }
            Work::Claim(producer, epoch, keep, now, settle) => {
                let outcome = self.memory.claim(producer, epoch, keep, now).await;
                let outcome = outcome.unwrap_or_else(|e| panic!("{e}"));
                // Who does not wait for a claim will not release it.
                Box::new(move |kept| {
                    if let Err(Ok(claim)) = settle.send(outcome) {
                        kept.memory.release(claim, now);
                    }
                })
            }
            Work::End(settle) => Box::new(move |_| {
                let _ = settle.send(Ok(()));
            }),
            Work::Open(claim, channel, first_pseq, settle) => {
                let outcome = self.memory.open(claim, &channel, first_pseq).await;
                let outcome = outcome.unwrap_or_else(|e| panic!("{e}"));
                Box::new(move |_| {
                    let _ = settle.send(outcome);
                })
            }
        }
    }

    fn tell(&self) {
        let untold = std::mem::take(&mut *self.untold.lock().unwrap_or_else(PoisonError::into_inner));
        for chunk in untold {
            if let Some(tail) = self.tail.get() {
                tail(&chunk);
            }
            self.head.store(chunk.last().0, Ordering::Release);
        }
    }
}

impl ChannelStore for Grouped {
    fn epoch(&self) -> Epoch {
        self.kept.memory.epoch()
    }

    fn levels(&self, _: &ChannelId) -> Levels {
        Levels::ACCEPTED
    }

    fn follow(&self, tail: Tail) {
        assert!(self.kept.tail.set(tail).is_ok(), "a store has one tail");
    }

    fn head(&self) -> Seq {
        Seq(self.kept.head.load(Ordering::Acquire))
    }

    fn claim(
        &self,
        producer: ProducerId,
        epoch: u32,
        keep: Duration,
        now: u64,
    ) -> Answer<'_, Result<Claim, Refused>> {
        Box::pin(self.ask(move |settle| Work::Claim(producer, epoch, keep, now, settle)))
    }

    fn release(&self, claim: Claim, now: u64) {
        self.kept.memory.release(claim, now);
    }

    fn open(
        &self,
        claim: Claim,
        channel: &ChannelId,
        first_pseq: u64,
    ) -> Answer<'_, Result<Stored, Refused>> {
        let channel = channel.clone();
        Box::pin(self.ask(move |settle| Work::Open(claim, channel, first_pseq, settle)))
    }

    fn append(&self, batch: Batch) -> Ticket {
        let (settle, outcome) = oneshot::channel();
        match self.queue.try_send(Work::Append(batch, settle)) {
            Ok(()) => Ticket::Pending(outcome),
            Err(_) => Ticket::Settled(Err(Refused::Unavailable { retry: Duration::from_millis(10) })),
        }
    }

    fn bounds(&self, selection: &Selection) -> Bounds {
        self.kept.memory.bounds(selection)
    }

    fn read(&self, selection: &Selection, after: Seq, bytes: u64) -> Answer<'_, Page> {
        let selection = selection.clone();
        Box::pin(async move {
            let _whole = self.kept.group.lock().await;
            self.kept.memory.read(&selection, after, bytes).await
        })
    }

    fn find_time(&self, selection: &Selection, time: u64) -> Answer<'_, Seq> {
        let selection = selection.clone();
        Box::pin(async move {
            let _whole = self.kept.group.lock().await;
            self.kept.memory.find_time(&selection, time).await
        })
    }

    fn find_last(&self, selection: &Selection, count: u64) -> Answer<'_, Seq> {
        let selection = selection.clone();
        Box::pin(async move {
            let _whole = self.kept.group.lock().await;
            self.kept.memory.find_last(&selection, count).await
        })
    }

    fn room(&self) -> Option<Done<'static>> {
        let queue = self.queue.clone();
        // Who asked before may append a few more: half of the queue is for them.
        (queue.capacity() < QUEUE / 2)
            .then(|| -> Done<'static> { Box::pin(async move { drop(queue.reserve_many(QUEUE / 2).await) }) })
    }

    fn trim(&self, now: u64) -> Done<'_> {
        self.kept.memory.trim(now)
    }

    fn close(&self) -> Done<'_, io::Result<()>> {
        // What was there before is done before.
        Box::pin(async { self.ask(Work::End).await.map(|_| ()).map_err(|e| e.0) })
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.memory.fmt(f)
    }
}

#[tokio::test]
async fn an_engine_that_commits_in_groups_keeps_the_contract() {
    super::holds(|settings| Arc::new(Grouped::new(settings))).await;
}
