//! The laws of the protocol over a whole history: a history in, violations out. Pure.
//!
//! # Layout
//! - `index`: every message that anybody saw, by its seq, and what they have to agree on.
//! - `streams`: what each connection must have got; `files`: the same of what programs wrote.
//! - `settled`: what was acknowledged; `spools`: what programs took.
//! - `right`: a right history; `planted`: each kind of violation planted in it, and found.

mod files;
mod index;
#[cfg(test)]
mod planted;
#[cfg(test)]
mod right;
mod settled;
mod spools;
mod streams;

use crate::{cast, history::History};
use index::Index;

/// A law, by the invariant of the protocol that it is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Law {
    /// I1: what is settled is delivered, or told to be gone.
    Settled,
    /// I1: nothing comes twice.
    Twice,
    /// I2: only what was sent is delivered, as it was sent.
    Genuine,
    /// I3: a message is stored once.
    StoredOnce,
    /// I4: a producer's order is kept.
    ProducersOrder,
    /// I4: seqs grow.
    SeqsGrow,
    /// I5: the chain is whole or a gap covers the hole.
    Chain,
    /// I5: a gap covers exactly the hole, and there is one.
    ExactGap,
    /// I6, I8: one epoch, in which a seq is always the same message.
    SameMessage,
    /// I7: what was seen of a channel is there after a crash, or told to be gone.
    SeenStays,
    /// I7: of a channel that is kept firmly nothing is lost in a crash.
    NoCrashGap,
    /// I9: recovered means that nothing is missing.
    Recovered,
    /// I11: nothing of a fenced producer is stored.
    Fenced,
    /// What a spool took arrives, once and in order.
    Spool,
    /// What a durable receiver wrote is whole.
    Output,
    /// Everything starts, and comes to an end.
    Alive,
}

/// Where a law is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) law: Law,
    pub(crate) what: String,
    /// Around where to look.
    pub(crate) near: Option<(u16, u64)>,
}

/// Collects violations.
#[derive(Debug, Default)]
struct Violations(Vec<Violation>);

impl Violations {
    fn add(&mut self, law: Law, near: Option<(u16, u64)>, what: String) {
        self.0.push(Violation { law, what, near });
    }
}

/// Holds a history against all laws.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    let mut found = Violations::default();
    for trouble in &history.troubles {
        found.add(Law::Alive, None, trouble.clone());
    }
    let index = Index::new(history, &mut found);
    index.check(history, &mut found);
    streams::check(history, &index, &mut found);
    settled::check(history, &index, &mut found);
    spools::check(history, &index, &mut found);
    files::check(history, &index, &mut found);
    found.0
}

/// What everybody saw and was told around a message, in lines.
pub(crate) fn around(history: &History, channel: u16, seq: u64) -> Vec<String> {
    const WIDTH: usize = 3;
    let index = Index::new(history, &mut Violations::default());
    let before = index.of(channel, ..seq).rev().take(WIDTH).collect::<Vec<_>>();
    let after = index.of(channel, seq..).take(WIDTH + 1);
    let shown: Vec<u64> = before.into_iter().rev().chain(after).map(|(seq, _)| seq).collect();
    let mut lines = Vec::new();
    for &seq in &shown {
        let seen = index.get(seq).expect("it was found there");
        lines.push(format!("{} seq {seq} prev {}: {}", cast::name(channel), seen.prev, seen.content));
        for session in history.sessions.iter().filter(|s| s.messages().any(|m| m.seq == seq)) {
            lines.push(format!(
                "    seen by {} in era {}, asked for {:?}",
                session.receiver, session.era, session.asked
            ));
        }
        for lane in history.lanes.iter().filter(|lane| lane.channel == channel) {
            for ack in lane.acks.iter().filter(|ack| ack.seq == seq) {
                lines.push(format!("    acknowledged: p{} #{} at {}", lane.producer, ack.pseq, ack.levels));
            }
        }
    }
    let (first, last) = (shown.first().copied().unwrap_or(seq), shown.last().copied().unwrap_or(seq));
    for session in &history.sessions {
        for event in &session.events {
            if let crate::history::Event::Gap(gap) = event
                && gap.channel == channel
                && gap.after <= last
                && first <= gap.before
            {
                lines.push(format!(
                    "gap told to {} in era {}: after {}, before {}, {:?}",
                    session.receiver, session.era, gap.after, gap.before, gap.reason
                ));
            }
        }
    }
    lines
}
