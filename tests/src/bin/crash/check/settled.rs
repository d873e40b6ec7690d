//! What was acknowledged is there, or older than what is kept: held against what was read when all was over.

use std::collections::{BTreeSet, HashMap};

use super::{Index, Law, Violations};
use crate::{
    cast::{self, CHANNELS, Durability},
    content::Ident,
    history::{History, Lane, Session},
};

/// Holds acknowledgements against the readings at the end.
pub(super) fn check(history: &History, index: &Index, found: &mut Violations) {
    for lane in &history.lanes {
        acks_fit(lane, index, found);
    }
    for session in history.sessions.iter().filter(|session| session.last) {
        let kept = Kept::of(session, index);
        for channel in (0..CHANNELS.len() as u16).filter(|&c| cast::durability(c) == Durability::Sync) {
            if kept.first(channel).is_none()
                && let Some((seq, _)) = index.of(channel, ..).next()
            {
                let what = format!("of {} nothing is left, and its newest stays always", cast::name(channel));
                found.add(Law::Settled, Some((channel, seq)), what);
            }
        }
        for lane in &history.lanes {
            if cast::durability(lane.channel) == Durability::Sync {
                is_kept(lane, &kept, index, found);
            }
        }
    }
}

/// What a reading at the end had.
#[derive(Debug)]
struct Kept {
    /// The first message of each channel, and whether others were before it once.
    firsts: HashMap<u16, (u64, bool)>,
    numbers: HashMap<(u16, u16), BTreeSet<u64>>,
}

impl Kept {
    fn of(session: &Session, index: &Index) -> Self {
        let mut kept = Self { firsts: HashMap::new(), numbers: HashMap::new() };
        for message in session.messages() {
            kept.firsts.entry(message.channel).or_insert((message.seq, message.prev > 0));
            if let Some(Ident { producer, channel, pseq, fenced: false }) =
                index.get(message.seq).and_then(|seen| seen.content.ident())
            {
                kept.numbers.entry((producer, channel)).or_default().insert(pseq);
            }
        }
        kept
    }

    fn first(&self, channel: u16) -> Option<(u64, bool)> {
        self.firsts.get(&channel).copied()
    }
}

fn is_kept(lane: &Lane, kept: &Kept, index: &Index, found: &mut Violations) {
    let (channel, settled) = (lane.channel, lane.settled());
    let none = BTreeSet::new();
    let numbers = kept.numbers.get(&(lane.producer, channel)).unwrap_or(&none);
    let Some((first, trimmed)) = kept.first(channel) else {
        if settled > 0 {
            found.add(
                Law::Settled,
                None,
                format!(
                    "p{} #{settled} was acknowledged in {}, which is empty",
                    lane.producer,
                    cast::name(channel)
                ),
            );
        }
        return;
    };
    // What was trimmed went from the front: behind the first that is left of this producer nothing may be missing.
    // Where none of it is left, even its last must have been before the first of all.
    let from = match numbers.first() {
        _ if !trimmed => 1,
        Some(&number) => number,
        None => {
            let last = lane.acks.iter().max_by_key(|ack| (ack.pseq, ack.seq));
            let gone = last.is_none_or(|ack| (1..first).contains(&ack.seq));
            if gone { settled + 1 } else { settled }
        }
    };
    for pseq in (from..=settled).filter(|pseq| !numbers.contains(pseq)) {
        let ident = Ident::new(lane.producer, channel, pseq);
        let place = index.of(channel, ..).find(|(_, seen)| seen.content.ident() == Some(ident));
        let what = match place {
            Some((seq, _)) => {
                format!("{ident} was acknowledged in {}, was at seq {seq}, and is gone", cast::name(channel))
            }
            None => format!("{ident} was acknowledged in {}, and is not there", cast::name(channel)),
        };
        found.add(Law::Settled, Some((channel, place.map_or(first, |(seq, _)| seq))), what);
    }
}

/// Acknowledgements go forward, and say where the message is.
fn acks_fit(lane: &Lane, index: &Index, found: &mut Violations) {
    for ack in &lane.acks {
        let Some(seen) = index.get(ack.seq) else { continue };
        let ident = Ident::new(lane.producer, lane.channel, ack.pseq);
        if seen.content.ident() != Some(ident) {
            let what = format!("{ident} was acknowledged at seq {}, where {} is", ack.seq, seen.content);
            found.add(Law::SameMessage, Some((lane.channel, ack.seq)), what);
        }
        if ack.pseq > lane.sent {
            let what = format!("{ident} was acknowledged, and never sent");
            found.add(Law::Genuine, Some((lane.channel, ack.seq)), what);
        }
    }
}
