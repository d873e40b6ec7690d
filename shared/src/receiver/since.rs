//! Where a subscription begins, in all the forms that a URL or a command may say it.

use std::{borrow::Cow, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Position, Seq, units};

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Since {
    /// With what is published from now on.
    #[default]
    Latest,
    /// With the oldest that is kept.
    Earliest,
    /// After a position.
    Position(Position),
    /// After a seq of whatever epoch; never `recovered`.
    Seq(Seq),
    /// With what was published this long ago.
    Ago(Duration),
    /// With what was published at this time: microseconds since 1970, UTC.
    Time(u64),
}

/// A text that says no beginning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is none of `earliest`, `latest`, a position (EPOCH-SEQ), a seq, a duration like 10m, a time like 2026-01-31T12:00:00Z"
)]
pub struct SinceError;

impl FromStr for Since {
    type Err = SinceError;

    fn from_str(text: &str) -> Result<Self, SinceError> {
        match text {
            "latest" => return Ok(Self::Latest),
            "earliest" => return Ok(Self::Earliest),
            _ => {}
        }
        if let Ok(position) = text.parse() {
            return Ok(Self::Position(position));
        }
        if let Ok(seq) = text.parse() {
            return Ok(Self::Seq(seq));
        }
        if let Ok(ago) = units::parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| SinceError)?;
        u64::try_from(time.as_microsecond()).map(Self::Time).map_err(|_| SinceError)
    }
}

impl std::fmt::Display for Since {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Earliest => f.write_str("earliest"),
            Self::Position(position) => position.fmt(f),
            Self::Seq(seq) => seq.fmt(f),
            Self::Ago(ago) => f.write_str(&units::format_duration(*ago)),
            Self::Time(time) => {
                match i64::try_from(*time).ok().and_then(|t| jiff::Timestamp::from_microsecond(t).ok()) {
                    Some(time) => time.fmt(f),
                    None => f.write_str("latest"),
                }
            }
        }
    }
}

impl Serialize for Since {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Since {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelling<'a> {
            Seq(Seq),
            #[serde(borrow)]
            Text(Cow<'a, str>),
        }
        match Spelling::deserialize(deserializer)? {
            Spelling::Seq(seq) => Ok(Self::Seq(seq)),
            Spelling::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    #[test]
    fn a_beginning_is_read_in_all_its_forms() {
        let parse = |text: &str| text.parse::<Since>().unwrap();
        assert_eq!(parse("latest"), Since::Latest);
        assert_eq!(parse("earliest"), Since::Earliest);
        assert_eq!(
            parse("00000000000000ff-12"),
            Since::Position(Position { epoch: Epoch(255), seq: Seq(12) })
        );
        assert_eq!(parse("12"), Since::Seq(Seq(12)));
        assert_eq!(parse("10m"), Since::Ago(Duration::from_secs(600)));
        assert_eq!(parse("1970-01-01T00:00:01Z"), Since::Time(1_000_000));
        assert!("yesterday".parse::<Since>().is_err());
        for text in ["latest", "earliest", "00000000000000ff-12", "12", "10m", "1970-01-01T00:00:01Z"] {
            assert_eq!(parse(&parse(text).to_string()), parse(text));
        }
    }
}
