//! What surrounds a payload: its channel, its place in the store, its time and kind. No encoding lives here.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{ChannelId, limits::MAX_SEQ};

/// The position of a message in the store: one space for all channels, in the order of commits, growing but
/// not dense. Below 2^53; 0 stands before every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

/// The incarnation of a store. Same epoch: the same messages at the same seqs. 16 hex digits in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

/// Where a receiver is, for a channel, a pattern or several alike. Text: `EPOCH-SEQ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The incarnation of the store that `seq` belongs to.
    pub epoch: Epoch,
    /// The last message that was seen.
    pub seq: Seq,
}

/// Whether a payload is text (valid UTF-8) or binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Any bytes.
    Binary,
    /// Valid UTF-8.
    Text,
}

/// A message as a receiver gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Where it was published.
    pub channel: ChannelId,
    /// Its place in the store.
    pub seq: Seq,
    /// The seq of the message before it in its channel; 0 if there is none.
    pub prev: Seq,
    /// Its time at the source if that was told, else of its arrival: microseconds since 1970, UTC.
    pub time: u64,
    /// Text or binary.
    pub kind: Kind,
    /// The bytes, unchanged.
    pub payload: Bytes,
}

/// A text is no epoch or position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a position is 16 hex digits, `-` and a number below 2^53")]
pub struct PositionError;

impl Seq {
    /// Before every message.
    pub const ZERO: Self = Self(0);
}

impl Kind {
    /// The kind that bytes of no declared kind have: text if they are valid UTF-8.
    pub fn of(payload: &[u8]) -> Self {
        // Nearly all text is ASCII, which is told in half the time.
        if payload.is_ascii() || std::str::from_utf8(payload).is_ok() { Self::Text } else { Self::Binary }
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

impl FromStr for Seq {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(seq) if digits && seq <= MAX_SEQ => Ok(Self(seq)),
            _ => Err(PositionError),
        }
    }
}

impl FromStr for Epoch {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !hex {
            return Err(PositionError);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| PositionError)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (epoch, seq) = text.split_once('-').ok_or(PositionError)?;
        Ok(Self { epoch: epoch.parse()?, seq: seq.parse()? })
    }
}

impl Serialize for Epoch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <std::borrow::Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_position_reads_back_as_it_was_written(epoch: u64, seq in 0..=MAX_SEQ) {
            let position = Position { epoch: Epoch(epoch), seq: Seq(seq) };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn reading_a_position_never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Position>();
        }
    }

    #[test]
    fn a_position_has_one_spelling_of_each_part() {
        for text in
            ["", "-", "1-1", "0000000000000001-", "0000000000000001-+1", "0000000000000001-9007199254740992"]
        {
            assert_eq!(text.parse::<Position>(), Err(PositionError), "{text}");
        }
    }
}
