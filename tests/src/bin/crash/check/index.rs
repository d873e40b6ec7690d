//! Every message that anybody saw, by its seq; what all have to agree on, and what one store must not hold.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeBounds,
};

use shared::Epoch;

use super::{Law, Violations};
use crate::{
    cast::{self, Durability},
    content::{Content, Ident, SPOOLERS},
    history::{History, Message},
};

/// A message as it was seen.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) channel: u16,
    pub(super) prev: u64,
    pub(super) content: Content,
    /// The first era in which anybody saw it: it is no younger.
    pub(super) era: u32,
}

/// All that was seen, by anyone.
#[derive(Debug, Default)]
pub(super) struct Index {
    messages: BTreeMap<u64, Seen>,
    /// The same by channel.
    channels: HashMap<u16, BTreeMap<u64, ()>>,
}

impl Index {
    /// Puts together what everybody saw; where they contradict each other, the law is broken.
    pub(super) fn new(history: &History, found: &mut Violations) -> Self {
        let mut index = Self::default();
        let mut epoch: Option<Epoch> = None;
        let told = history.sessions.iter().flat_map(|s| s.hellos.iter().map(|hello| hello.epoch));
        let acked = history.lanes.iter().flat_map(|lane| lane.acks.iter().map(|ack| ack.epoch));
        for told in told.chain(acked) {
            if *epoch.get_or_insert(told) != told {
                found.add(Law::SameMessage, None, format!("the epoch became {told}"));
                epoch = Some(told);
            }
        }
        for session in &history.sessions {
            for message in session.messages() {
                index.add(message, session.era, session.receiver, found);
            }
        }
        for file in &history.files {
            for message in &file.messages {
                index.add(message, u32::MAX, file.name, found);
            }
        }
        index.tell_empty_ones();
        index
    }

    fn add(&mut self, message: &Message, era: u32, by: &str, found: &mut Violations) {
        let Message { channel, seq, prev, ref content } = *message;
        let new = || Seen { channel, prev, content: content.clone(), era };
        let seen = self.messages.entry(seq).or_insert_with(new);
        seen.era = seen.era.min(era);
        if (seen.channel, seen.prev, &seen.content) != (channel, prev, content) {
            let what = format!(
                "{by} got seq {seq} as {content} in {} with prev {prev}, others as {} in {} with prev {}",
                cast::name(channel),
                seen.content,
                cast::name(seen.channel),
                seen.prev
            );
            found.add(Law::SameMessage, Some((channel, seq)), what);
        }
        self.channels.entry(channel).or_default().insert(seq, ());
    }

    /// An empty message of a channel with one sender is the one between its neighbours.
    fn tell_empty_ones(&mut self) {
        let empty = self.messages.iter().filter_map(|(&seq, seen)| match seen.content {
            Content::Empty(kind) if cast::solo(seen.channel) => Some((seq, seen.channel, seen.prev, kind)),
            Content::Empty(_) | Content::Message(_) | Content::Foreign(_) => None,
        });
        for (seq, channel, prev, kind) in empty.collect::<Vec<_>>() {
            let before = self.messages.get(&prev).and_then(|seen| seen.content.ident());
            let after = self.of(channel, seq + 1..).next().filter(|(_, seen)| seen.prev == seq);
            let ident = match (before, after.and_then(|(_, seen)| seen.content.ident())) {
                (Some(before), _) => Ident { pseq: before.pseq + 1, ..before },
                (None, Some(after)) => Ident { pseq: after.pseq - 1, ..after },
                (None, None) => continue,
            };
            // One that was not sent empty, or not of that kind, stays what it is, which is foreign there.
            if ident.is_empty(true)
                && ident.payload(true).0 == kind
                && let Some(seen) = self.messages.get_mut(&seq)
            {
                seen.content = Content::Message(ident);
            }
        }
    }

    /// A message.
    pub(super) fn get(&self, seq: u64) -> Option<&Seen> {
        self.messages.get(&seq)
    }

    /// All messages between some seqs.
    pub(super) fn range(&self, seqs: impl RangeBounds<u64>) -> impl Iterator<Item = (u64, &Seen)> {
        self.messages.range(seqs).map(|(&seq, seen)| (seq, seen))
    }

    /// The messages of a channel between some seqs.
    pub(super) fn of(
        &self,
        channel: u16,
        seqs: impl RangeBounds<u64>,
    ) -> impl DoubleEndedIterator<Item = (u64, &Seen)> {
        let seqs = self.channels.get(&channel).into_iter().flat_map(move |all| {
            let bounds = (seqs.start_bound().cloned(), seqs.end_bound().cloned());
            all.range(bounds).map(|(&seq, ())| seq)
        });
        seqs.filter_map(|seq| Some((seq, self.get(seq)?)))
    }

    /// What one store must not hold, whoever saw it.
    pub(super) fn check(&self, history: &History, found: &mut Violations) {
        let lanes: HashMap<(u16, u16), u64> =
            history.lanes.iter().map(|lane| ((lane.producer, lane.channel), lane.sent)).collect();
        let spools: HashMap<(u16, u16), usize> = history
            .spools
            .iter()
            .enumerate()
            .map(|(at, spool)| ((spool.producer, spool.channel), at))
            .collect();
        let mut places: HashMap<Ident, u64> = HashMap::new();
        let mut last: HashMap<(u16, u16), (u64, u64)> = HashMap::new();
        for (&seq, seen) in &self.messages {
            let near = Some((seen.channel, seq));
            let ident = match &seen.content {
                Content::Message(ident) => *ident,
                // Where its neighbours were not seen nobody can tell which it was.
                Content::Empty(_) if cast::solo(seen.channel) && !self.has_neighbour(seq, seen) => continue,
                content @ (Content::Empty(_) | Content::Foreign(_)) => {
                    found.add(Law::Genuine, near, format!("seq {seq} was never sent: {content}"));
                    continue;
                }
            };
            let lane = (ident.producer, ident.channel);
            if ident.fenced {
                found.add(Law::Fenced, near, format!("seq {seq} is stored: {ident}"));
                continue;
            }
            let sent = if ident.producer >= SPOOLERS {
                let (run, line) = ident.run_and_line();
                let spool = spools.get(&lane).map(|&at| &history.spools[at]);
                spool.and_then(|spool| spool.run(run)).is_some_and(|run| (1..=run.lines).contains(&line))
            } else {
                lanes.get(&lane).is_some_and(|&sent| ident.pseq <= sent)
            };
            if !sent || ident.channel != seen.channel {
                let what = format!("seq {seq} in {}: {ident} was not sent there", cast::name(seen.channel));
                found.add(Law::Genuine, near, what);
            }
            // A channel that may lose messages in a crash gets again what was not acknowledged: there each stream
            // has to be in order, which is looked at where streams are.
            if cast::durability(seen.channel) != Durability::Sync {
                continue;
            }
            if let Some(first) = places.insert(ident, seq) {
                found.add(Law::StoredOnce, near, format!("{ident} is stored at seq {first} and at {seq}"));
            } else if let Some((pseq, before)) = last.insert(lane, (ident.pseq, seq))
                && pseq > ident.pseq
            {
                let what = format!("{ident} at seq {seq} is behind #{pseq} at seq {before}");
                found.add(Law::ProducersOrder, near, what);
            }
        }
    }

    fn has_neighbour(&self, seq: u64, seen: &Seen) -> bool {
        self.messages.contains_key(&seen.prev)
            || self.of(seen.channel, seq + 1..).next().is_some_and(|(_, next)| next.prev == seq)
    }
}
