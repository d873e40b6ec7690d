//! The frames between a framed sender and the relay, and what each field means. Their bytes are in
//! [`codec`](crate::codec).
//!
//! A sender opens with [`PREAMBLE`] and [`Hello`]; the relay answers [`Welcome`]. It opens channels under
//! aliases of its own choice, publishes under them with growing pseqs, and keeps what is not acknowledged.

use std::fmt;

use crate::{Epoch, ErrorCode, Kind, Seq};

/// The first bytes of a framed sender; a byte with the [`VERSION`] follows.
pub const PREAMBLE: [u8; 4] = *b"\xF5WSR";

/// The version of the protocol that this crate speaks.
pub const VERSION: u8 = 1;

/// Who a sender is, over its reconnects: 16 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub [u8; 16]);

/// What a sender calls a channel on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alias(pub u16);

/// A set of delivery levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Levels(pub u8);

/// From a sender, first: who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Who it is.
    pub producer: ProducerId,
    /// Its incarnation: a higher one fences the connections of lower ones.
    pub producer_epoch: u32,
    /// Seconds that the relay shall remember it after its last message; 0 for the relay's default.
    pub keep_s: u32,
    /// A secret, or nothing.
    pub token: &'a [u8],
}

/// From the relay, in answer to [`Hello`]: what holds on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// The incarnation of the store.
    pub epoch: Epoch,
    /// Bytes that a message may have.
    pub max_message: u32,
    /// Messages that may be unsettled.
    pub window_messages: u32,
    /// Bytes of payload that may be unsettled.
    pub window_bytes: u32,
    /// The relay pings after so many milliseconds of silence.
    pub ping_ms: u32,
}

/// From a sender: it wants to publish to a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open<'a> {
    /// What it will call the channel.
    pub alias: Alias,
    /// The levels that an ACK shall mean.
    pub levels: Levels,
    /// The lowest pseq that it still holds.
    pub first_pseq: u64,
    /// The channel's name, not checked yet.
    pub channel: &'a str,
}

/// From the relay, in answer to [`Open`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Which channel.
    pub alias: Alias,
    /// The levels that an ACK means.
    pub levels: Levels,
    /// The last pseq that is stored; the next to send is one more.
    pub last_pseq: u64,
    /// How many receivers the channel has now.
    pub receivers: u32,
}

/// From a sender: a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// To which channel.
    pub alias: Alias,
    /// Its number there: one more than the last.
    pub pseq: u64,
    /// Text or binary.
    pub kind: Kind,
    /// When it came to be, if the source knows: microseconds since 1970, UTC.
    pub source_time: Option<u64>,
    /// The bytes.
    pub payload: &'a [u8],
}

/// From the relay: everything up to `pseq` is settled at the levels of [`Opened`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// In which channel.
    pub alias: Alias,
    /// The last settled one.
    pub pseq: u64,
    /// Where the last stored one is in the store.
    pub seq: Seq,
}

/// From the relay: something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// Why; a number of [`ErrorCode`], kept as it came so that newer relays can be understood.
    pub code: u16,
    /// The connection ends with it.
    pub fatal: bool,
    /// Which channel it is about.
    pub alias: Alias,
    /// Which message it is about; for a gap the expected one; 0 if about none.
    pub pseq: u64,
    /// When it is worth another try, in milliseconds; 0 if not said.
    pub retry_ms: u32,
    /// For people.
    pub text: &'a str,
}

/// From either side: the end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close<'a> {
    /// Why: 0 when done, else a number of [`ErrorCode`].
    pub code: u16,
    /// For people.
    pub text: &'a str,
}

/// What a sender says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SenderFrame<'a> {
    /// Who it is; the first frame, and only that.
    Hello(Hello<'a>),
    /// It wants to publish to a channel.
    Open(Open<'a>),
    /// A message.
    Publish(Publish<'a>),
    /// To be answered with the same number.
    Ping(u64),
    /// The answer to a ping.
    Pong(u64),
    /// It is done.
    Close(Close<'a>),
}

/// What the relay says to a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayFrame<'a> {
    /// The answer to HELLO.
    Welcome(Welcome),
    /// The answer to OPEN.
    Opened(Opened),
    /// Messages are settled.
    Ack(Ack),
    /// Something was refused.
    Error(Refusal<'a>),
    /// To be answered with the same number.
    Ping(u64),
    /// The answer to a ping.
    Pong(u64),
    /// The relay is stopping: send no more, wait for acks so many milliseconds at most, reconnect.
    Drain {
        /// How long acks may still come.
        deadline_ms: u32,
    },
    /// The end.
    Close(Close<'a>),
}

impl Levels {
    /// The store has it, in memory at least.
    pub const ACCEPTED: Self = Self(1);
    /// It is on this relay's disk.
    pub const FSYNCED: Self = Self(2);
    /// It is on other machines too.
    pub const REPLICATED: Self = Self(4);

    /// Whether every level of `other` is among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and the others.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Levels {
    /// As people write them: `accepted and fsynced`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Levels, &str); 3] = [
            (Levels::ACCEPTED, "accepted"),
            (Levels::FSYNCED, "fsynced"),
            (Levels::REPLICATED, "replicated"),
        ];
        let mut names = NAMES.iter().filter(|(level, _)| self.contains(*level)).map(|(_, name)| *name);
        f.write_str(names.next().unwrap_or("none"))?;
        names.try_for_each(|name| write!(f, " and {name}"))
    }
}

impl Refusal<'_> {
    /// The code, if this version knows it.
    pub fn error_code(&self) -> Option<ErrorCode> {
        ErrorCode::from_number(self.code)
    }
}
