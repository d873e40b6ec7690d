//! What waits for the writer, in the order in which it was asked for.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use shared::{ChannelId, sender::ProducerId};
use tokio::sync::{Notify, oneshot};

use super::record::HEADER;
use crate::store::{Batch, Claim, Done, Receipt, Refused, Stored};

/// Beyond so many bytes, or so much work, there is no room: whoever appends is held back.
const ROOM_BYTES: usize = 8 << 20;
const ROOM_WORK: usize = 4096;

/// Something that the writer is to do.
#[derive(Debug)]
pub(super) enum Work {
    Append(Batch, oneshot::Sender<Result<Receipt, Refused>>),
    Claim(Claiming, oneshot::Sender<Result<Claim, Refused>>),
    Open {
        claim: Claim,
        channel: ChannelId,
        first_pseq: u64,
        settle: oneshot::Sender<Result<Stored, Refused>>,
    },
    Release(Claim, u64),
    /// Producers that were silent for too long at this time are forgotten.
    Expire(u64),
    /// A checkpoint is written.
    Save,
    /// The store ends.
    Close(oneshot::Sender<io::Result<()>>),
}

/// Who wants a producer's place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claiming {
    pub(super) producer: ProducerId,
    pub(super) epoch: u32,
    pub(super) keep: Duration,
    pub(super) now: u64,
}

/// The queue before the writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    room: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    work: VecDeque<Work>,
    bytes: usize,
    /// The writer waits.
    idle: bool,
    /// Nobody is there any more who could ask for something.
    abandoned: bool,
}

/// What the writer gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Work was added to what it has.
    Work,
    /// None came in time.
    Nothing,
    /// None will come any more.
    End,
}

impl Work {
    /// At most so many bytes of the log.
    pub(super) fn bytes(&self) -> usize {
        const STAMP: usize = 36;
        const CHANNEL: usize = HEADER + 256;
        match self {
            Self::Append(batch, _) => {
                let times = batch.messages.source_times().map_or(0, |times| 8 * times.len());
                HEADER + STAMP + CHANNEL + times + batch.messages.frames().len()
            }
            Self::Claim(..) => HEADER + STAMP,
            Self::Open { .. } | Self::Release(..) | Self::Expire(_) | Self::Save | Self::Close(_) => 0,
        }
    }
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more thing to do.
    pub(super) fn push(&self, work: Work) {
        let mut waiting = self.waiting();
        waiting.bytes += work.bytes();
        waiting.work.push_back(work);
        if std::mem::take(&mut waiting.idle) {
            drop(waiting);
            self.arrived.notify_one();
        }
    }

    /// Takes what there is, up to that many bytes of the log, but at least one thing; waits for it until then.
    pub(super) fn take(&self, until: Option<Instant>, bytes: usize, into: &mut Vec<Work>) -> Taken {
        let mut waiting = self.waiting();
        while waiting.work.is_empty() {
            if waiting.abandoned {
                return Taken::End;
            }
            waiting.idle = true;
            waiting = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => {
                    waiting.idle = false;
                    return Taken::Nothing;
                }
                Some(rest) => {
                    self.arrived.wait_timeout(waiting, rest).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let mut taken = 0;
        while let Some(next) = waiting.work.front().map(Work::bytes) {
            if taken > 0 && taken + next > bytes {
                break;
            }
            taken += next;
            waiting.bytes -= next;
            into.extend(waiting.work.pop_front());
        }
        if waiting.has_room() {
            self.room.notify_waiters();
        }
        Taken::Work
    }

    /// The bytes of the log that the next thing needs.
    pub(super) fn next(&self) -> Option<usize> {
        self.waiting().work.front().map(Work::bytes)
    }

    /// Nobody asks for anything any more.
    pub(super) fn abandon(&self) {
        self.waiting().abandoned = true;
        self.arrived.notify_one();
    }

    /// None if there is room, else what is done when there is.
    pub(super) fn room(self: &Arc<Self>) -> Option<Done<'static>> {
        if self.waiting().has_room() {
            return None;
        }
        let queue = Arc::clone(self);
        Some(Box::pin(async move {
            loop {
                let mut notified = std::pin::pin!(queue.room.notified());
                // From here on it is told, so that what is looked up next is not missed.
                notified.as_mut().enable();
                if queue.waiting().has_room() {
                    return;
                }
                notified.await;
            }
        }))
    }
}

impl Waiting {
    fn has_room(&self) -> bool {
        self.bytes < ROOM_BYTES && self.work.len() < ROOM_WORK
    }
}
