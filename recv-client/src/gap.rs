//! A hole in a channel, and how it reads.

use std::fmt;

use shared::{ChannelId, Seq, receiver::GapReason};

/// Messages that are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    /// In which channel.
    pub(crate) channel: ChannelId,
    /// Those after this seq,
    pub(crate) after: Seq,
    /// and before this one,
    pub(crate) before: Seq,
    /// so many, where that is known.
    pub(crate) count: Option<u64>,
    /// Why; none if the relay gave no notice.
    pub(crate) reason: Option<GapReason>,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gap on {}: ", self.channel)?;
        match self.count {
            None => f.write_str("messages are missing")?,
            Some(1) => f.write_str("1 message is missing")?,
            Some(count) => write!(f, "{count} messages are missing")?,
        }
        if self.after == Seq::ZERO {
            write!(f, " (before {}): ", self.before)?;
        } else {
            write!(f, " (after seq {}, before {}): ", self.after, self.before)?;
        }
        f.write_str(match self.reason {
            Some(GapReason::Lagged) => "this receiver was too slow",
            Some(GapReason::Retention) => "they were older than what the relay keeps",
            Some(GapReason::Epoch) => "the relay's store is new",
            Some(GapReason::Crash) => "they were not on disk yet when the relay crashed",
            None => "the relay gave no notice of it",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_reads_as_a_sentence() {
        let gap = |after, count, reason| {
            Gap { channel: "foo".parse().unwrap(), after: Seq(after), before: Seq(1250), count, reason }
                .to_string()
        };
        assert_eq!(
            gap(1001, Some(42), Some(GapReason::Lagged)),
            "gap on foo: 42 messages are missing (after seq 1001, before 1250): this receiver was too slow"
        );
        assert_eq!(
            gap(0, None, Some(GapReason::Retention)),
            "gap on foo: messages are missing (before 1250): they were older than what the relay keeps"
        );
        assert!(gap(1, Some(1), None).starts_with("gap on foo: 1 message is missing (after"));
    }
}
