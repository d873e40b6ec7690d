//! An engine for tests that commits in groups and later, as one does that writes to a disk: appends wait in a
//! bounded queue, a task commits what is there, and tells their outcomes when the whole group is committed.

use std::{sync::Arc, time::Duration};

use shared::{ChannelId, Epoch, Seq, sender::Levels, sender::ProducerId};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinSet, yield_now},
};

use crate::store::{
    Answer, Batch, Bounds, ChannelStore, Claim, Page, Receipt, Refused, StoreSettings, Stored, Tail, Ticket,
    memory::Memory, selection::Selection,
};

/// Appends that may wait.
const QUEUE: usize = 64;

/// Commits in groups what memory then keeps.
#[derive(Debug)]
struct Grouped {
    kept: Arc<Memory>,
    queue: mpsc::Sender<Waiting>,
    /// The task of the engine: it ends with it.
    _commits: JoinSet<()>,
}

type Waiting = (Batch, oneshot::Sender<Result<Receipt, Refused>>);

impl Grouped {
    fn new(settings: StoreSettings) -> Self {
        let kept = Arc::new(Memory::new(Epoch(8), settings));
        let (queue, waiting) = mpsc::channel(QUEUE);
        let mut commits = JoinSet::new();
        commits.spawn(commit_groups(Arc::clone(&kept), waiting));
        Self { kept, queue, _commits: commits }
    }
}

async fn commit_groups(kept: Arc<Memory>, mut waiting: mpsc::Receiver<Waiting>) {
    let mut group = Vec::new();
    while waiting.recv_many(&mut group, QUEUE).await > 0 {
        yield_now().await;
        let mut outcomes = Vec::new();
        for (batch, settle) in group.drain(..) {
            outcomes.push((kept.append(batch).await, settle));
        }
        yield_now().await;
        for (outcome, settle) in outcomes {
            // Whoever appended may have gone; what it appended is committed all the same.
            let _ = settle.send(outcome);
        }
    }
}

impl ChannelStore for Grouped {
    fn epoch(&self) -> Epoch {
        self.kept.epoch()
    }

    fn levels(&self) -> Levels {
        Levels::ACCEPTED
    }

    fn follow(&self, tail: Tail) {
        self.kept.follow(tail);
    }

    fn claim(&self, producer: ProducerId, epoch: u32, keep: Duration, now: u64) -> Result<Claim, Refused> {
        self.kept.claim(producer, epoch, keep, now)
    }

    fn open(
        &self,
        claim: Claim,
        channel: &ChannelId,
        first_pseq: u64,
    ) -> Answer<'_, Result<Stored, Refused>> {
        self.kept.open(claim, channel, first_pseq)
    }

    fn append(&self, batch: Batch) -> Ticket {
        let (settle, outcome) = oneshot::channel();
        match self.queue.try_send((batch, settle)) {
            Ok(()) => Ticket::Pending(outcome),
            Err(_) => Ticket::Settled(Err(Refused::Unavailable { retry: Duration::from_millis(10) })),
        }
    }

    fn bounds(&self, selection: &Selection) -> Bounds {
        self.kept.bounds(selection)
    }

    fn read(&self, selection: &Selection, after: Seq, bytes: u64) -> Answer<'_, Page> {
        self.kept.read(selection, after, bytes)
    }

    fn find_time(&self, selection: &Selection, time: u64) -> Answer<'_, Seq> {
        self.kept.find_time(selection, time)
    }

    fn find_last(&self, selection: &Selection, count: u64) -> Answer<'_, Seq> {
        self.kept.find_last(selection, count)
    }

    fn trim(&self, now: u64) {
        self.kept.trim(now);
    }
}

#[tokio::test]
async fn an_engine_that_commits_in_groups_keeps_the_contract() {
    super::holds(|settings| Arc::new(Grouped::new(settings))).await;
}
