//! The law that every stream of messages keeps: seqs grow, and what `prev` names has been delivered, stands before
//! the beginning, or is covered exactly by a gap notice. No notice without a hole.

use std::collections::HashMap;

use serde_json::Value;
use shared::{ChannelId, Envelope, Seq};

use crate::receiver::Received;

/// Checks one subscription from its hello on.
#[derive(Debug)]
pub struct Chain {
    from: Seq,
    seq: Seq,
    seen: HashMap<ChannelId, Seq>,
    gaps: HashMap<String, Gap>,
}

/// A gap notice whose next message has not come yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The last seq that was delivered.
    pub after: u64,
    /// A seq behind all that is missing.
    pub before: u64,
    /// How many are missing, if it says.
    pub count: Option<u64>,
}

impl Chain {
    /// A stream that begins as its hello says.
    pub fn new(hello: &Value) -> Self {
        let from = Seq(hello["from"].as_u64().expect("hello says from where"));
        Self { from, seq: from, seen: HashMap::new(), gaps: HashMap::new() }
    }

    /// Checks what came; gives the gap before a message, if one was told.
    ///
    /// # Panics
    /// If it breaks the law.
    pub fn check(&mut self, received: &Received) -> Option<Gap> {
        match received {
            Received::Message(envelope) => self.message(envelope),
            Received::Control(event) if event["type"] == "gap" => {
                let number = |key: &str| event[key].as_u64();
                let gap = Gap {
                    after: number("after").expect("a gap is after a seq"),
                    before: number("before").expect("a gap is before a seq"),
                    count: number("count"),
                };
                let channel = event["channel"].as_str().expect("a gap is in a channel").to_owned();
                assert_eq!(self.gaps.insert(channel, gap), None, "one notice for a hole");
                None
            }
            Received::Raw(..) | Received::Control(_) | Received::Closed(..) | Received::Lost => None,
        }
    }

    fn message(&mut self, message: &Envelope) -> Option<Gap> {
        let Envelope { channel, seq, prev, .. } = message;
        assert!(*seq > self.seq, "{channel}: seq {seq} after {}", self.seq);
        self.seq = *seq;
        let seen = self.seen.insert(channel.clone(), *seq);
        let whole = match seen {
            Some(seen) => seen == *prev,
            None => *prev <= self.from,
        };
        let gap = self.gaps.remove(channel.as_str());
        match gap {
            None => {
                assert!(whole, "{channel}: seq {seq} has prev {prev}, seen was {seen:?}, no gap was told")
            }
            Some(gap) => {
                assert!(!whole, "{channel}: a gap was told before seq {seq}, and there is none: {gap:?}");
                let after = seen.unwrap_or(self.from).0;
                assert_eq!(gap.after, after, "{channel}: the gap before seq {seq} begins elsewhere");
                assert!(
                    prev.0 < gap.before && gap.before <= seq.0,
                    "{channel}: {gap:?} ends elsewhere than before {seq}"
                );
            }
        }
        gap
    }
}
