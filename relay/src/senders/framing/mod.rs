//! Raw framings: where a message of a raw sender ends and the next begins. Pure: bytes and times go in,
//! messages come out; nothing here reads a socket or a clock, and nothing changes a byte of a message.
//!
//! # Layout
//! - [`Framing`] is what a listener or a first line says; `spelling` reads and writes it.
//! - [`Framer`] is the state of one sender. `delimited`: line, null, delimiter. `counted`: fixed, length,
//!   octet-count. `quiet`: idle. `undecided`: auto, until it has become one of the others; its rule is
//!   written there.
//! - `partial` keeps an unfinished message, `printable` tells text from other bytes.
//!
//! # What a session does with it
//! Each read goes to [`Framer::feed`]; at [`Framer::deadline`] it calls [`Framer::tick`]; at the sender's FIN
//! [`Framer::finish`]. A silence is a deadline that passed while the session waited and nothing was there to
//! read, so it must try to read *before* it looks at the deadline (a biased `select!`): then time that the
//! relay itself lost (a slow store, a busy processor) never cuts a message. `feed` alone never sees a silence.

#[cfg(test)]
mod auto_laws;
mod counted;
mod delimited;
#[cfg(test)]
mod laws;
mod partial;
mod printable;
mod quiet;
mod spelling;
mod undecided;

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use shared::ErrorCode;

use counted::Counted;
use delimited::Delimited;
use quiet::Quiet;
use undecided::Undecided;

pub use spelling::FramingError;

/// Bytes that a delimiter may have: more is no separator but a message.
pub const MAX_DELIMITER: usize = 64;

/// Where a message of a raw sender ends. Read and written as in the protocol: `line`, `idle:20ms`, `fixed:16`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framing {
    /// Up to `\n`; a `\r` before it is not part of the message. The last needs no `\n`.
    Line,
    /// Up to a zero byte.
    Null,
    /// Up to these bytes.
    Delimiter(Delimiter),
    /// What came before a silence of so long.
    Idle(Duration),
    /// So many bytes each; at the end what is left is a message too.
    Fixed(NonZeroUsize),
    /// A length, then that many bytes.
    Length(LengthPrefix),
    /// A decimal length, a space, that many bytes (RFC 6587).
    OctetCount,
    /// What one read returned.
    Read,
    /// `line` or `idle`, told by what comes.
    Auto,
}

/// The bytes that end a message: 1 to [`MAX_DELIMITER`] of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delimiter(Box<[u8]>);

/// How the length before a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LengthPrefix {
    /// Two bytes, big-endian.
    U16,
    /// Two bytes, little-endian.
    U16Le,
    /// Four bytes, big-endian.
    U32,
    /// Four bytes, little-endian.
    U32Le,
}

/// What holds for `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoSettings {
    /// How long a sender may stay undecided; one whose bytes come in slow pieces up to five times as long.
    pub undecided: Duration,
    /// How long a silence ends a message.
    pub silence: Duration,
}

/// What a framer makes of the bytes, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A message, at most `max_message` bytes. It may be empty.
    Message(&'a [u8]),
    /// The first `max_message` bytes of a message without other boundaries that got too long. They are
    /// published like a message, and counted; what follows is the next piece.
    Cut(&'a [u8]),
    /// A message of so many bytes was too long and is dropped. Said once for each.
    TooLong {
        /// How many bytes it had.
        bytes: u64,
    },
    /// The sender ended within a message whose length it had announced; what came of it is dropped.
    Incomplete {
        /// How many bytes of the message had come.
        bytes: u64,
    },
}

/// The next boundary can't be found any more: the connection has to be closed. The sender is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingLost {
    /// A length prefix beyond what a message may have.
    #[error("a length of {length} bytes was announced, at most {max} are allowed")]
    TooLong {
        /// What the prefix says.
        length: u64,
        /// The greatest allowed.
        max: usize,
    },
    /// Something else where `octet-count` needs a length.
    #[error("a message must begin with its length in at most 10 decimal digits and a space, as in `5 hello`")]
    NoCount,
}

/// The framing of one raw sender: its bytes in, messages out. Keeps at most one unfinished message.
#[derive(Debug)]
pub struct Framer {
    max_message: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Delimited(Delimited),
    Counted(Counted),
    Quiet(Quiet),
    Undecided(Undecided),
    Read,
    Lost(FramingLost),
}

impl Delimiter {
    /// The bytes as a delimiter; none if there are none or more than [`MAX_DELIMITER`].
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (1..=MAX_DELIMITER).contains(&bytes.len()).then(|| Self(bytes.into()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Default for AutoSettings {
    fn default() -> Self {
        Self { undecided: Duration::from_secs(1), silence: Duration::from_millis(20) }
    }
}

impl FramingLost {
    /// What the sender is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLong { .. } => ErrorCode::TooBig,
            Self::NoCount => ErrorCode::Protocol,
        }
    }
}

impl Framer {
    /// A framer for a new sender. `max_message` is in bytes, at least 1; `auto` matters for that framing only.
    pub fn new(framing: &Framing, max_message: usize, auto: AutoSettings) -> Self {
        let max_message = max_message.max(1);
        let state = match framing {
            Framing::Line => State::Delimited(Delimited::line(max_message)),
            Framing::Null => State::Delimited(Delimited::until(&[0], max_message)),
            Framing::Delimiter(delimiter) => {
                State::Delimited(Delimited::until(delimiter.as_bytes(), max_message))
            }
            Framing::Idle(silence) => State::Quiet(Quiet::new(*silence, max_message)),
            Framing::Fixed(bytes) => State::Counted(Counted::fixed(*bytes, max_message)),
            Framing::Length(prefix) => State::Counted(Counted::length(*prefix, max_message)),
            Framing::OctetCount => State::Counted(Counted::octet_count(max_message)),
            Framing::Read => State::Read,
            Framing::Auto => State::Undecided(Undecided::new(auto, max_message)),
        };
        Self { max_message, state }
    }

    /// Takes what one read returned, at the time it did; gives every message that it completes to `out`.
    ///
    /// # Errors
    /// [`FramingLost`] if no further boundary can be found, then and ever after. The messages before it were
    /// given out.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        now: Instant,
        out: &mut impl FnMut(Piece<'_>),
    ) -> Result<(), FramingLost> {
        if bytes.is_empty() {
            return Ok(());
        }
        let next = match &mut self.state {
            State::Delimited(delimited) => {
                delimited.feed(bytes, out);
                None
            }
            State::Counted(counted) => {
                let lost = counted.feed(bytes, out).err();
                lost.map(State::Lost)
            }
            State::Quiet(quiet) => quiet.feed(bytes, now, out).map(State::Delimited),
            State::Undecided(undecided) => undecided.feed(bytes, now, out),
            State::Read => {
                let rest = quiet::cut(bytes, self.max_message, out);
                out(Piece::Message(rest));
                None
            }
            State::Lost(_) => None,
        };
        self.advance(next);
        match self.state {
            State::Lost(lost) => Err(lost),
            _ => Ok(()),
        }
    }

    /// When [`tick`](Self::tick) has to be called if nothing is read before; none: not at all.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Quiet(quiet) => quiet.deadline(),
            State::Undecided(undecided) => undecided.deadline(),
            State::Delimited(_) | State::Counted(_) | State::Read | State::Lost(_) => None,
        }
    }

    /// Nothing was there to read at `now`. Gives out what the silence has ended; before the deadline nothing.
    pub fn tick(&mut self, now: Instant, out: &mut impl FnMut(Piece<'_>)) {
        let next = match &mut self.state {
            State::Quiet(quiet) => {
                quiet.tick(now, out);
                None
            }
            State::Undecided(undecided) => undecided.tick(now, out).map(State::Quiet),
            State::Delimited(_) | State::Counted(_) | State::Read | State::Lost(_) => None,
        };
        self.advance(next);
    }

    /// The sender has ended: gives out what is left, if anything is.
    pub fn finish(&mut self, out: &mut impl FnMut(Piece<'_>)) {
        match &mut self.state {
            State::Delimited(delimited) => delimited.finish(out),
            State::Counted(counted) => counted.finish(out),
            State::Quiet(quiet) => quiet.finish(out),
            State::Undecided(undecided) => undecided.finish(out),
            State::Read | State::Lost(_) => {}
        }
    }

    /// Whether the sender may be held back for receivers. Not where time makes the messages (`idle`, `read`,
    /// undecided `auto`): holding it would put messages together that were apart.
    pub fn holds_back(&self) -> bool {
        match self.state {
            State::Delimited(_) | State::Counted(_) | State::Lost(_) => true,
            State::Quiet(_) | State::Undecided(_) | State::Read => false,
        }
    }

    fn advance(&mut self, next: Option<State>) {
        if let Some(next) = next {
            self.state = next;
        }
    }
}
