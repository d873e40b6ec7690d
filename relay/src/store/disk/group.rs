//! What is committed together: the chunks with their places, and whoever waits for an outcome.

use std::{collections::HashMap, sync::Arc, time::Duration};

use shared::{ChannelId, Seq};
use tokio::sync::oneshot;

use super::record::Header;
use crate::store::{
    Claim, Durability, Receipt, Refused, Stamp, Stored,
    chunk::Chunk,
    producers::{Last, Producers},
};

/// What a group does once it is written.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) chunks: Vec<Planned>,
    pub(super) replies: Vec<Reply>,
    /// What producers had before.
    pub(super) undo: Vec<(Stamp, ChannelId, Option<Last>)>,
    pub(super) claims: Vec<(Claim, u64, u64)>,
    /// It has to be on the disk itself before anybody is told.
    pub(super) sync: bool,
    /// Otherwise it has to be there so long after.
    pub(super) flush: Option<Duration>,
    pub(super) tips: HashMap<u32, (Seq, u64)>,
    pub(super) head: Seq,
}

#[derive(Debug)]
pub(super) struct Planned {
    pub(super) id: u32,
    pub(super) chunk: Arc<Chunk>,
    pub(super) stamp: Option<Stamp>,
    pub(super) durability: Durability,
    pub(super) record: Option<(Header, u32, u32)>,
}

#[derive(Debug)]
pub(super) enum Reply {
    Append(oneshot::Sender<Result<Receipt, Refused>>, Result<Receipt, Refused>),
    Claim(oneshot::Sender<Result<Claim, Refused>>, Result<Claim, Refused>, u64),
    Open(oneshot::Sender<Result<Stored, Refused>>, Result<Stored, Refused>),
}

impl Group {
    /// Whether it has something for the log.
    pub(super) fn writes(&self) -> bool {
        !self.chunks.is_empty() || !self.claims.is_empty()
    }
}

impl Reply {
    /// Turns what would have been confirmed into a refusal.
    pub(super) fn refuse(&mut self, refused: Refused, producers: &mut Producers) {
        match self {
            Self::Append(_, outcome) if outcome.is_ok() => *outcome = Err(refused),
            Self::Claim(_, outcome, now) => {
                if let Ok(claim) = *outcome {
                    producers.release(claim, *now);
                    *outcome = Err(refused);
                }
            }
            Self::Open(_, outcome) if outcome.is_ok() => *outcome = Err(refused),
            Self::Append(..) | Self::Open(..) => {}
        }
    }

    /// Tells whoever waits; who does not wait for a claim any more will not release it.
    pub(super) fn send(self, producers: &mut Producers) {
        match self {
            Self::Append(settle, outcome) => drop(settle.send(outcome)),
            Self::Open(settle, outcome) => drop(settle.send(outcome)),
            Self::Claim(settle, outcome, now) => {
                if let Err(Ok(claim)) = settle.send(outcome) {
                    producers.release(claim, now);
                }
            }
        }
    }
}
