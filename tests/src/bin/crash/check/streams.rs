//! What each connection of a receiver must have got: seqs grow, the chain is whole or a gap covers exactly the hole,
//! what others saw is there, and `recovered` says the truth.

use std::collections::HashMap;

use shared::receiver::GapReason;

use super::{Index, Law, Violations};
use crate::{
    cast::{self, CHANNELS, Durability},
    content::Content,
    history::{Asked, Event, Gap, History, Message, RawSession, Session},
};

/// Holds all connections against the laws of streams.
pub(super) fn check(history: &History, index: &Index, found: &mut Violations) {
    for session in &history.sessions {
        let Some(from) = session.hellos.first().map(|hello| hello.from) else {
            if !session.events.is_empty() {
                found.add(Law::Chain, None, format!("{} got something before a hello", session.receiver));
            }
            continue;
        };
        recovered(session, found);
        let mut stream = Stream::new(session.receiver, from, session.asked == Asked::Earliest);
        for event in &session.events {
            match event {
                Event::Gap(gap) => stream.gap(*gap, found),
                Event::Message(message) => stream.message(message, index, found),
                Event::Live(seq) => stream.position = stream.position.max(*seq),
            }
        }
        stream.check_coverage(index, |channel| cast::wanted(session.wants, channel), session.era, found);
    }
    history.raws.iter().for_each(|raw| check_raw(raw, found));
}

/// A stream of messages of several channels, from its beginning on.
#[derive(Debug)]
pub(super) struct Stream {
    name: &'static str,
    from: u64,
    /// Whether what is older than its first message of a channel is not its business.
    earliest: bool,
    pub(super) position: u64,
    last: HashMap<u16, u64>,
    first: HashMap<u16, u64>,
    /// Gaps whose next message has not come.
    pending: HashMap<u16, Vec<Gap>>,
    told: Vec<Gap>,
    got: Vec<u64>,
    /// The last number of each producer in each channel.
    numbers: HashMap<(u16, u16), u64>,
    /// Whether it goes on over crashes: of channels that are not firm a producer sends again what was lost then, also
    /// if it was seen.
    outlives: bool,
}

impl Stream {
    pub(super) fn new(name: &'static str, from: u64, earliest: bool) -> Self {
        let (last, first, pending, numbers) = Default::default();
        Self {
            name,
            from,
            earliest,
            position: from,
            last,
            first,
            pending,
            told: Vec::new(),
            got: Vec::new(),
            numbers,
            outlives: false,
        }
    }

    /// One that is put together over the ends of the relay.
    pub(super) fn over_crashes(name: &'static str) -> Self {
        Self { outlives: true, ..Self::new(name, 0, true) }
    }

    pub(super) fn gap(&mut self, gap: Gap, found: &mut Violations) {
        let Gap { channel, after, before, reason } = gap;
        let near = Some((channel, before));
        let what = format!(
            "{} was told of a gap in {} after {after}, before {before}",
            self.name,
            cast::name(channel)
        );
        if reason == GapReason::Crash && cast::durability(channel) == Durability::Sync {
            found.add(Law::NoCrashGap, near, format!("{what}, lost in a crash"));
        }
        if reason == GapReason::Epoch {
            found.add(Law::SameMessage, near, format!("{what}, of another epoch"));
        }
        let last = self.last.get(&channel).copied().unwrap_or(0);
        if after >= before || after < last {
            found.add(Law::ExactGap, near, format!("{what}, where {last} was there"));
        }
        self.pending.entry(channel).or_default().push(gap);
        self.told.push(gap);
    }

    pub(super) fn message(&mut self, message: &Message, index: &Index, found: &mut Violations) {
        let Message { channel, seq, prev, .. } = *message;
        let (name, near, place) = (self.name, Some((channel, seq)), cast::name(channel));
        if seq <= self.position {
            let law = if self.got.binary_search(&seq).is_ok() { Law::Twice } else { Law::SeqsGrow };
            found.add(law, near, format!("{name} got seq {seq} of {place} at {}", self.position));
            return;
        }
        let seen = self.last.insert(channel, seq);
        let whole = seen.map_or(prev <= self.from, |seen| seen == prev);
        let gaps = self.pending.remove(&channel).unwrap_or_default();
        match gaps.last() {
            None if !(whole || self.earliest && seen.is_none()) => {
                let seen = seen.unwrap_or(self.from);
                let what =
                    format!("{name} got seq {seq} of {place} with prev {prev} after {seen}, and no gap");
                found.add(Law::Chain, near, what);
            }
            Some(gap) if gap.before > seq || prev >= gap.before => {
                let what = format!("{name} got seq {seq} of {place} with prev {prev} behind a gap {gap:?}");
                found.add(Law::ExactGap, near, what);
            }
            // In a crash it may be that nothing was lost, and nobody can know.
            Some(gap) if whole && gaps.iter().all(|gap| gap.reason != GapReason::Crash) => {
                let what = format!("{name} was told of {gap:?} in {place}, and seq {seq} has prev {prev}");
                found.add(Law::ExactGap, near, what);
            }
            None | Some(_) => {}
        }
        self.position = seq;
        self.first.entry(channel).or_insert(seq);
        self.got.push(seq);
        // What an empty one is the index knows.
        let content = index.get(seq).map_or(&message.content, |seen| &seen.content);
        let again = self.outlives && cast::durability(channel) != Durability::Sync;
        if let Some(ident) = content.ident().filter(|_| !again)
            && let Some(before) = self.numbers.insert((ident.producer, channel), ident.pseq)
            && before >= ident.pseq
        {
            let law = if before == ident.pseq { Law::StoredOnce } else { Law::ProducersOrder };
            found.add(law, near, format!("{name} got {ident} of {place} at seq {seq} behind #{before}"));
        }
    }

    /// What anybody saw between the beginning and the end is there, or told to be gone.
    pub(super) fn check_coverage(
        &self,
        index: &Index,
        wanted: impl Fn(u16) -> bool,
        era: u32,
        found: &mut Violations,
    ) {
        let wanted: Vec<bool> = (0..CHANNELS.len()).map(|at| wanted(at as u16)).collect();
        if let Some(&channel) = self.first.keys().find(|&&channel| !wanted[usize::from(channel)]) {
            found.add(Law::Genuine, None, format!("{} got a message of {}", self.name, cast::name(channel)));
        }
        if self.position <= self.from {
            return;
        }
        let mut told: HashMap<u16, Vec<Gap>> = HashMap::new();
        for gap in &self.told {
            told.entry(gap.channel).or_default().push(*gap);
        }
        for (seq, seen) in index.range(self.from + 1..=self.position) {
            let channel = seen.channel;
            if !wanted[usize::from(channel)] || self.got.binary_search(&seq).is_ok() {
                continue;
            }
            if told.get(&channel).is_some_and(|gaps| gaps.iter().any(|gap| gap.covers(channel, seq))) {
                continue;
            }
            // Before what was the earliest then; where there is none of the channel, all of it was gone.
            if self.earliest && self.first.get(&channel).is_none_or(|&first| seq < first) {
                continue;
            }
            // What was in memory alone ended with its relay, and so did all that was known of it.
            if cast::durability(channel) == Durability::Memory && seen.era < era {
                continue;
            }
            let what = format!(
                "{} did not get seq {seq} of {} ({}), and was not told",
                self.name,
                cast::name(channel),
                seen.content
            );
            found.add(Law::SeenStays, Some((channel, seq)), what);
        }
    }
}

/// What the hellos of a connection claim.
fn recovered(session: &Session, found: &mut Violations) {
    let begins = session.events.iter().take_while(|event| matches!(event, Event::Gap(_)));
    let lost: Vec<&Gap> = begins
        .filter_map(|event| match event {
            Event::Gap(gap) if gap.reason != GapReason::Lagged => Some(gap),
            Event::Gap(_) | Event::Message(_) | Event::Live(_) => None,
        })
        .collect();
    // What several channels were asked for at once is one stream: each hello speaks of all of it.
    let firm = (0..CHANNELS.len() as u16)
        .filter(|&channel| cast::wanted(session.wants, channel))
        .all(|channel| cast::durability(channel) == Durability::Sync);
    for (want, hello) in session.wants.iter().zip(&session.hellos) {
        let name = session.receiver;
        let mut wrong = |what: String| found.add(Law::Recovered, None, format!("{name}, {want}: {what}"));
        match (session.asked, hello.recovered) {
            (Asked::After(position), true) => {
                if position.epoch != hello.epoch || position.seq.0 != hello.from {
                    wrong(format!("recovered at {} of what was asked after {position}", hello.from));
                }
                if let Some(gap) = lost.first() {
                    wrong(format!("recovered, and {gap:?}"));
                }
            }
            (Asked::Latest | Asked::Earliest, true) => wrong("recovered, and no position was given".into()),
            (Asked::After(position), false) => match hello.reason {
                Some(GapReason::Retention) if lost.is_empty() && !session.events.is_empty() => {
                    wrong(format!("not recovered after {position}, and nothing is told to be missing"));
                }
                Some(GapReason::Crash) if firm => {
                    wrong(format!("something after {position} was lost in a crash"));
                }
                Some(GapReason::Retention | GapReason::Crash) => {}
                reason => wrong(format!("not recovered after {position} because of {reason:?}")),
            },
            (Asked::Latest | Asked::Earliest, false) => {}
        }
    }
}

/// Without seqs there is only the order of numbers: in a channel that is kept firmly a connection misses none.
fn check_raw(raw: &RawSession, found: &mut Violations) {
    let mut last: HashMap<(u16, u16), u64> = HashMap::new();
    let mut empty = 0;
    for content in &raw.contents {
        let ident = match content {
            Content::Message(ident) => *ident,
            Content::Empty(_) => {
                empty += 1;
                continue;
            }
            Content::Foreign(_) => {
                found.add(Law::Genuine, None, format!("{} got {content}", raw.receiver));
                continue;
            }
        };
        if ident.fenced {
            found.add(Law::Fenced, None, format!("{} got {ident}", raw.receiver));
        }
        let between = std::mem::take(&mut empty);
        if let Some(before) = last.insert((ident.producer, ident.channel), ident.pseq)
            && before + between + 1 != ident.pseq
        {
            let law = match before {
                before if before == ident.pseq => Law::Twice,
                before if before > ident.pseq => Law::ProducersOrder,
                _ => Law::Chain,
            };
            let what = format!("{} got {ident} behind #{before} and {between} empty ones", raw.receiver);
            found.add(law, None, what);
        }
    }
}
