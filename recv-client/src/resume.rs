//! Where a receiver is in its channels, and what is missing: pure, fed with what the relay says, asked where to
//! go on. Without I/O and without a clock.
//!
//! The relay serves all channels of a connection as one stream in the order of seqs, so that one position stands
//! for all of them.

use std::collections::HashMap;

use shared::{ChannelId, Envelope, Epoch, Position, Seq, receiver::Since};

use crate::gap::Gap;

/// Channels whose last seq is remembered, as many as a relay has by default. Beyond, all are forgotten: the
/// chain of their messages is then not checked again until the store is new.
const MAX_CHANNELS: usize = 100_000;

/// The state of one receiver.
#[derive(Debug)]
pub(crate) struct Resume {
    place: Place,
    /// Whether the relay has said on this connection where it begins.
    confirmed: bool,
    /// Where the stream began, if every message of this store after that must come or be told to be missing.
    /// What a history lacks at its beginning is not told.
    origin: Option<Seq>,
    channels: HashMap<ChannelId, Chain>,
}

/// From where to ask the relay for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    /// After this.
    pub(crate) since: Since,
    /// With the last so many.
    pub(crate) last: Option<u64>,
}

/// What a hello means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// A beginning: nothing was to be resumed.
    Fresh,
    /// Nothing after this is missing.
    Recovered(Seq),
    /// Something after this is missing; gap notices say what.
    Incomplete(Seq),
    /// The store is another one, of this epoch; what the old one had is gone.
    NewStore(Epoch),
}

/// What a message is, seen from those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// The next one.
    Next,
    /// One that was there already.
    Duplicate,
    /// One before which others are missing without a notice: those after this seq.
    Missing(Seq),
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// Where the user wants to begin; the relay has not said where that is.
    Asked(Request),
    /// After this.
    At(Position),
}

/// The last that is known of a channel.
#[derive(Debug, Clone, Copy)]
enum Chain {
    /// The last message.
    Seen(Seq),
    /// A notice that what is missing is before this one.
    Hole(Seq),
}

impl Resume {
    /// Begins as the user asked, or where a position was kept.
    pub(crate) fn new(since: Since, last: Option<u64>) -> Self {
        let place = Place::Asked(Request { since, last });
        Self { place, confirmed: false, origin: None, channels: HashMap::new() }
    }

    /// Begins a connection, and says what to ask for on it.
    pub(crate) fn request(&mut self) -> Request {
        self.confirmed = false;
        self.wanted()
    }

    /// The relay confirms that messages after `from` follow. It does so for each pattern; the first time on a
    /// connection says all.
    pub(crate) fn hello(&mut self, epoch: Epoch, from: Seq, recovered: bool) -> Option<Greeting> {
        if std::mem::replace(&mut self.confirmed, true) {
            return None;
        }
        let seq = match self.place {
            Place::At(position) if position.epoch == epoch => position.seq.max(from),
            Place::At(_) | Place::Asked(_) => from,
        };
        let Request { since, last } = self.wanted();
        let greeting = match (since, last) {
            // Whoever names a position wants to know what is missing after it.
            (Since::Position(position), None) if position.epoch != epoch => {
                self.channels.clear();
                self.origin = None;
                Greeting::NewStore(epoch)
            }
            (Since::Position(position), None) if recovered => {
                self.origin.get_or_insert(from);
                Greeting::Recovered(position.seq)
            }
            (Since::Position(position), None) => {
                self.origin = Some(from);
                Greeting::Incomplete(position.seq)
            }
            _ => {
                self.origin = (since == Since::Latest && last.is_none()).then_some(from);
                Greeting::Fresh
            }
        };
        self.place = Place::At(Position { epoch, seq });
        Some(greeting)
    }

    /// Everything up to `seq` has come.
    pub(crate) fn reach(&mut self, seq: Seq) {
        if let Place::At(position) = &mut self.place {
            position.seq = position.seq.max(seq);
        }
    }

    /// The store, once the relay has told of it on this connection.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.position().filter(|_| self.confirmed).map(|position| position.epoch)
    }

    /// Everything up to here was taken, once it has begun.
    pub(crate) fn position(&self) -> Option<Position> {
        match self.place {
            Place::At(position) => Some(position),
            Place::Asked(_) => None,
        }
    }

    /// Whether a message is the next of its channel. Changes nothing.
    pub(crate) fn check(&self, message: &Envelope) -> Check {
        if self.position().is_some_and(|position| message.seq <= position.seq) {
            return Check::Duplicate;
        }
        let missing = match self.channels.get(message.channel.as_str()) {
            // The channel is new, or the relay has forgotten it while it was idle: it begins anew.
            _ if message.prev == Seq::ZERO => None,
            Some(&Chain::Seen(last)) => (message.prev != last).then_some(last),
            Some(&Chain::Hole(before)) => (message.prev > before).then_some(before),
            None => self.origin.filter(|origin| message.prev > *origin),
        };
        missing.map_or(Check::Next, Check::Missing)
    }

    /// The message was taken.
    pub(crate) fn advance(&mut self, message: &Envelope) {
        self.remember(&message.channel, Chain::Seen(message.seq));
        self.reach(message.seq);
    }

    /// The relay told that messages are missing; whether that is news.
    pub(crate) fn gap(&mut self, gap: &Gap) -> bool {
        let known = self.channels.get(gap.channel.as_str()).copied().map_or(Seq::ZERO, Chain::seq);
        let news = gap.before > known;
        if news {
            self.remember(&gap.channel, Chain::Hole(gap.before));
        }
        news
    }

    fn wanted(&self) -> Request {
        match self.place {
            Place::Asked(request) => request,
            Place::At(position) => Request { since: Since::Position(position), last: None },
        }
    }

    fn remember(&mut self, channel: &ChannelId, now: Chain) {
        if let Some(chain) = self.channels.get_mut(channel.as_str()) {
            *chain = now;
            return;
        }
        if self.channels.len() >= MAX_CHANNELS {
            self.channels.clear();
            self.origin = None;
        }
        self.channels.insert(channel.clone(), now);
    }
}

impl Chain {
    /// What is before this is known.
    fn seq(self) -> Seq {
        match self {
            Self::Seen(seq) | Self::Hole(seq) => seq,
        }
    }
}

#[cfg(test)]
mod tests;
