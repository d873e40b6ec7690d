//! Names of channels and patterns over them. Parsing is the only door: who holds a [`ChannelId`] or a
//! [`ChannelPattern`] need not check it again.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use crate::limits::MAX_CHANNEL_NAME;

/// The name of a channel: 1–255 bytes of `A–Z a–z 0–9 _ - . ~ :` in segments separated by `/`.
///
/// No segment is empty, `.` or `..`, so that a name is a safe URL path. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(Arc<str>);

/// A set of channels: a name in which a segment may be `*` (any one segment) and the last may be `**`
/// (one or more segments). A pattern without either is exactly that channel.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelPattern(Arc<str>);

/// Why a text is not the name of a channel or a pattern, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is no text at all.
    #[error("it is empty")]
    Empty,
    /// Longer than [`MAX_CHANNEL_NAME`] bytes.
    #[error("it is {0} bytes long, at most {MAX_CHANNEL_NAME} are allowed")]
    TooLong(usize),
    /// A character that names can't have, and its position, counted in characters from 1.
    #[error("{} is not allowed at position {position}", describe(*character))]
    Character {
        /// What stands there.
        character: char,
        /// Where, in characters from 1.
        position: usize,
    },
    /// Two `/` in a row, or one at either end; the position of the empty segment, from 1.
    #[error("the segment at position {0} is empty")]
    EmptySegment(usize),
    /// A segment `.` or `..`, which URLs would resolve away.
    #[error("a segment may not be `{0}`")]
    DotSegment(&'static str),
    /// `*` inside a segment, or `**` before the last one.
    #[error("`*` must be a whole segment, and `**` the last")]
    Wildcard,
}

impl ChannelId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ChannelPattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one channel that this pattern names, if it has no wildcard.
    pub fn as_channel(&self) -> Option<ChannelId> {
        (!self.0.contains('*')).then(|| ChannelId(Arc::clone(&self.0)))
    }

    /// Whether the channel is in the set.
    pub fn matches(&self, channel: &ChannelId) -> bool {
        let mut segments = channel.0.split('/');
        let mut pattern = self.0.split('/').peekable();
        while let Some(want) = pattern.next() {
            let Some(segment) = segments.next() else { return false };
            if want == "**" && pattern.peek().is_none() {
                return true;
            }
            if want != "*" && want != segment {
                return false;
            }
        }
        segments.next().is_none()
    }
}

impl FromStr for ChannelId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text, false)?;
        Ok(Self(text.into()))
    }
}

impl FromStr for ChannelPattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text, true)?;
        Ok(Self(text.into()))
    }
}

impl From<ChannelId> for ChannelPattern {
    fn from(channel: ChannelId) -> Self {
        Self(channel.0)
    }
}

impl Borrow<str> for ChannelId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

fn check(text: &str, wildcards: bool) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_CHANNEL_NAME {
        return Err(NameError::TooLong(text.len()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.~:/".contains(c) || (wildcards && c == '*');
    if let Some((index, character)) = text.chars().enumerate().find(|&(_, c)| !allowed(c)) {
        return Err(NameError::Character { character, position: index + 1 });
    }
    let last = text.matches('/').count();
    let mut position = 1;
    for (index, segment) in text.split('/').enumerate() {
        match segment {
            "" => return Err(NameError::EmptySegment(position)),
            "." => return Err(NameError::DotSegment(".")),
            ".." => return Err(NameError::DotSegment("..")),
            "*" => {}
            "**" if index == last => {}
            _ if segment.contains('*') => return Err(NameError::Wildcard),
            _ => {}
        }
        position += segment.len() + 1;
    }
    Ok(())
}

fn describe(character: char) -> String {
    match character {
        ' ' => "a space".into(),
        '*' => "`*` (only patterns have wildcards)".into(),
        c if c.is_control() => format!("the control character {}", c.escape_unicode()),
        c => format!("`{c}`"),
    }
}

macro_rules! text_type {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(|e| serde::de::Error::custom(format_args!("invalid name {text:?}: {e}")))
            }
        }
    };
}
text_type!(ChannelId);
text_type!(ChannelPattern);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> ChannelId {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_says_what_is_wrong_and_where() {
        let error = |text: &str| text.parse::<ChannelId>().unwrap_err().to_string();
        assert_eq!(error("my channel"), "a space is not allowed at position 3");
        assert_eq!(error("caf\u{e9}"), "`\u{e9}` is not allowed at position 4");
        assert_eq!(error(""), "it is empty");
        assert_eq!(error("a//b"), "the segment at position 3 is empty");
        assert_eq!(error("/a"), "the segment at position 1 is empty");
        assert_eq!(error("a/.."), "a segment may not be `..`");
        assert_eq!(error("a/*"), "`*` (only patterns have wildcards) is not allowed at position 3");
        assert_eq!(error(&"x".repeat(256)), "it is 256 bytes long, at most 255 are allowed");
        assert_eq!("a*/b".parse::<ChannelPattern>().unwrap_err(), NameError::Wildcard);
        assert_eq!("**/b".parse::<ChannelPattern>().unwrap_err(), NameError::Wildcard);
    }

    #[test]
    fn a_star_is_one_segment_and_two_stars_are_one_or_more() {
        let matches =
            |pattern: &str, channel: &str| pattern.parse::<ChannelPattern>().unwrap().matches(&id(channel));
        assert!(matches("a/*", "a/b") && !matches("a/*", "a") && !matches("a/*", "a/b/c"));
        assert!(matches("*/b", "a/b") && !matches("*/b", "a/c"));
        assert!(matches("**", "a") && matches("**", "a/b/c"));
        assert!(
            matches("a/**", "a/b")
                && matches("a/**", "a/b/c")
                && !matches("a/**", "a")
                && !matches("a/**", "b/a")
        );
        assert!(matches("a/b", "a/b") && !matches("a/b", "a/b/c") && !matches("a/b/c", "a/b"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_what_parses_prints_as_it_was(text in "\\PC{0,300}") {
            if let Ok(channel) = text.parse::<ChannelId>() {
                prop_assert_eq!(channel.as_str(), text.as_str());
                prop_assert!(ChannelPattern::from(channel.clone()).matches(&channel));
            }
        }

        #[test]
        fn every_name_matches_itself_with_any_segment_starred(name in "[a-z]{1,3}(/[a-z]{1,3}){0,4}", star in 0usize..5) {
            let channel = id(&name);
            let starred: Vec<&str> = name.split('/').enumerate().map(|(i, s)| if i == star { "*" } else { s }).collect();
            prop_assert!(starred.join("/").parse::<ChannelPattern>().unwrap().matches(&channel));
        }
    }
}
