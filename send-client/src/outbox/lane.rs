//! What an outbox knows of one channel.

use std::collections::{BTreeSet, VecDeque};

use shared::ChannelId;

/// A channel and the producer's numbers in it. `settled <= sent < next`.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) channel: ChannelId,
    pub(super) state: LaneState,
    /// What was settled before this outbox was.
    pub(super) before: u64,
    /// The last number that an earlier outbox of this producer may have sent.
    pub(super) known: u64,
    pub(super) next: u64,
    pub(super) settled: u64,
    pub(super) sent: u64,
    pub(super) refused: BTreeSet<u64>,
    pub(super) refusals: u64,
    /// Where sending went back to for a gap; told once per message that was in flight, obeyed once.
    pub(super) went_back: Option<u64>,
    /// The numbers of its batches.
    pub(super) batches: VecDeque<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneState {
    /// Nothing is to be sent; it need not be open.
    Idle,
    Closed,
    Opening,
    Open,
    Refused,
}

impl Lane {
    /// One of which an earlier outbox has settled so many messages, and may have sent so many.
    pub(super) fn new(channel: ChannelId, settled: u64, known: u64) -> Self {
        Self {
            channel,
            state: LaneState::Idle,
            before: settled,
            known,
            next: settled + 1,
            settled,
            sent: settled,
            refused: BTreeSet::new(),
            refusals: 0,
            went_back: None,
            batches: VecDeque::new(),
        }
    }
}
