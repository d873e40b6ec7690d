//! What is recorded of a run: what senders sent and were told, what receivers got, what became of the programs. The
//! checker sees nothing else.

use shared::{Epoch, Position, receiver::GapReason, sender::Levels};

use crate::content::Content;

/// A whole run.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// What each producer in this process sent to each of its channels.
    pub(crate) lanes: Vec<Lane>,
    /// What receivers in this process got in json or binary, connection by connection.
    pub(crate) sessions: Vec<Session>,
    /// The same in raw.
    pub(crate) raws: Vec<RawSession>,
    /// What `send-client` processes were given.
    pub(crate) spools: Vec<Spool>,
    /// What `recv-client` processes wrote.
    pub(crate) files: Vec<OutputFile>,
    /// What must not happen to begin with: a program that does not start, a sender that is never done.
    pub(crate) troubles: Vec<String>,
}

/// A producer in a channel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lane {
    pub(crate) producer: u16,
    pub(crate) channel: u16,
    /// Up to this number it has sent.
    pub(crate) sent: u64,
    /// What it was told, in order.
    pub(crate) acks: Vec<Ack>,
}

/// That everything up to a number is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) epoch: Epoch,
    pub(crate) levels: Levels,
    pub(crate) pseq: u64,
    /// Where the last one is; 0 if that was not told.
    pub(crate) seq: u64,
}

/// A connection of a receiver.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// Whose.
    pub(crate) receiver: &'static str,
    /// What it wanted.
    pub(crate) wants: &'static [&'static str],
    /// Which start of the relay it was, counted from 1.
    pub(crate) era: u32,
    pub(crate) asked: Asked,
    /// One for each of what it wanted, as far as they came.
    pub(crate) hellos: Vec<Hello>,
    pub(crate) events: Vec<Event>,
    /// Whether it is a reading of everything when all was over.
    pub(crate) last: bool,
}

/// From where a receiver asked for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Latest,
    Earliest,
    After(Position),
}

/// What a connection began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) epoch: Epoch,
    pub(crate) from: u64,
    pub(crate) recovered: bool,
    pub(crate) reason: Option<GapReason>,
}

/// What came on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Message(Message),
    Gap(Gap),
    Live(u64),
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) channel: u16,
    pub(crate) seq: u64,
    pub(crate) prev: u64,
    pub(crate) content: Content,
}

/// A notice of what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) channel: u16,
    pub(crate) after: u64,
    pub(crate) before: u64,
    pub(crate) reason: GapReason,
}

/// A connection of a raw receiver.
#[derive(Debug, Clone)]
pub(crate) struct RawSession {
    pub(crate) receiver: &'static str,
    pub(crate) contents: Vec<Content>,
}

/// What a `send-client` was given over its runs.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    pub(crate) producer: u16,
    pub(crate) channel: u16,
    /// The first run is that of number 1.
    pub(crate) runs: Vec<Run>,
}

/// A run of `send-client`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Lines that were written to its input.
    pub(crate) lines: u64,
    /// Whether it said itself that it took all of them; a killed one may have taken fewer.
    pub(crate) took_all: bool,
}

/// The output of a `recv-client` over all of its runs.
#[derive(Debug, Clone)]
pub(crate) struct OutputFile {
    pub(crate) name: &'static str,
    pub(crate) wants: &'static str,
    pub(crate) messages: Vec<Message>,
    /// Lines that are no message.
    pub(crate) broken: Vec<String>,
    /// What it told on stderr, in any order.
    pub(crate) gaps: Vec<Gap>,
}

impl Session {
    /// The messages that came.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.events.iter().filter_map(|event| match event {
            Event::Message(message) => Some(message),
            Event::Gap(_) | Event::Live(_) => None,
        })
    }
}

impl Lane {
    /// The last number that is settled.
    pub(crate) fn settled(&self) -> u64 {
        self.acks.iter().map(|ack| ack.pseq).max().unwrap_or(0)
    }
}

impl Spool {
    /// A run, by its number.
    pub(crate) fn run(&self, number: u64) -> Option<&Run> {
        usize::try_from(number).ok()?.checked_sub(1).and_then(|at| self.runs.get(at))
    }
}

impl Gap {
    /// Whether it says of a message that it is missing.
    pub(crate) fn covers(&self, channel: u16, seq: u64) -> bool {
        self.channel == channel && self.after < seq && seq < self.before
    }
}
