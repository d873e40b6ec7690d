//! Which channels a receiver wants: one pattern or several.

use std::{collections::BTreeSet, fmt};

use shared::{ChannelId, ChannelPattern};

/// A set of channels, as one or several patterns; equal for the same patterns in whatever order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Selection(BTreeSet<ChannelPattern>);

impl Selection {
    /// Whether the channel is in the set.
    pub fn matches(&self, channel: &ChannelId) -> bool {
        self.0.iter().any(|pattern| pattern.matches(channel))
    }

    /// Whether it is every channel, for sure: by the pattern `**`.
    pub fn is_everything(&self) -> bool {
        self.0.iter().any(|pattern| pattern.as_str() == "**")
    }

    /// The one channel that it names, if it is a single name.
    pub fn as_channel(&self) -> Option<ChannelId> {
        let mut patterns = self.0.iter();
        let first = patterns.next()?;
        if patterns.next().is_some() { None } else { first.as_channel() }
    }

    /// Its patterns.
    pub fn patterns(&self) -> impl ExactSizeIterator<Item = &ChannelPattern> {
        self.0.iter()
    }

    /// The set with one more pattern.
    #[must_use]
    pub fn with(&self, pattern: ChannelPattern) -> Self {
        let mut patterns = self.0.clone();
        patterns.insert(pattern);
        Self(patterns)
    }

    /// The set without that pattern; what others of its patterns match stays.
    #[must_use]
    pub fn without(&self, pattern: &ChannelPattern) -> Self {
        let mut patterns = self.0.clone();
        patterns.remove(pattern);
        Self(patterns)
    }
}

impl FromIterator<ChannelPattern> for Selection {
    fn from_iter<I: IntoIterator<Item = ChannelPattern>>(patterns: I) -> Self {
        Self(patterns.into_iter().collect())
    }
}

impl From<ChannelPattern> for Selection {
    fn from(pattern: ChannelPattern) -> Self {
        Self(BTreeSet::from([pattern]))
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pattern) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            pattern.fmt(f)?;
        }
        Ok(())
    }
}
