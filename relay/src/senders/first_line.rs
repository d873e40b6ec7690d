//! The first line by which a raw sender may say more than its listener knows:
//! `RELAY/1 channel=NAME [framing=FRAMING] [ack=yes]`.

use memchr::memchr;
use shared::{ChannelId, ErrorCode, channel_id::NameError, limits::MAX_FIRST_LINE};

use super::framing::{Framing, FramingError};

/// What a first line begins with; nothing else is one.
pub const PREFIX: &[u8] = b"RELAY/1 ";

/// What a first line says; what it leaves out is as the listener has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FirstLine {
    /// Where to publish.
    pub channel: Option<ChannelId>,
    /// Where messages end.
    pub framing: Option<Framing>,
    /// Whether each message is answered with `OK` or `ERR`.
    pub ack: bool,
}

/// What the first bytes of a raw sender are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning<'a> {
    /// They may still become a first line.
    NeedMore,
    /// No first line: all of it is data.
    Data,
    /// A first line, and what follows it.
    Line {
        /// The line without its end, for [`FirstLine::parse`].
        line: &'a [u8],
        /// How many bytes it takes, its end included; data begins there.
        length: usize,
    },
    /// Begins like a first line but does not end within [`MAX_FIRST_LINE`] bytes.
    TooLong,
}

/// Why a first line is refused. The sender is at fault; the connection ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FirstLineError {
    /// No end within [`MAX_FIRST_LINE`] bytes.
    #[error("the first line is longer than {MAX_FIRST_LINE} bytes; end it with a newline after the options")]
    TooLong,
    /// Not text.
    #[error("the first line is not UTF-8; write it like: RELAY/1 channel=sensors/kitchen ack=yes")]
    NotText,
    /// A word that is no option.
    #[error("`{0}` is not known in a first line; there are channel=NAME, framing=FRAMING and ack=yes")]
    Unknown(String),
    /// An option that stands there twice.
    #[error("{0}= stands in the first line twice; say it once")]
    Twice(&'static str),
    /// Not the name of a channel.
    #[error("the channel in the first line is no name: {0}; write one like sensors/kitchen")]
    Channel(#[from] NameError),
    /// Not a framing.
    #[error("the framing in the first line: {0}")]
    Framing(#[from] FramingError),
    /// Neither yes nor no.
    #[error("ack in the first line is ack=yes or ack=no")]
    Ack,
    /// Tokens are not taken by this version.
    #[error("this relay takes no tokens; leave token= out of the first line")]
    Token,
}

impl<'a> Beginning<'a> {
    /// Judges the bytes that have come so far. `last`: no more are waited for, because the sender has ended or
    /// the time is over; then it is never `NeedMore`, and a line needs no end.
    pub fn of(bytes: &'a [u8], last: bool) -> Self {
        let compared = bytes.len().min(PREFIX.len());
        if bytes[..compared] != PREFIX[..compared] {
            return Self::Data;
        }
        if compared < PREFIX.len() {
            return if last { Self::Data } else { Self::NeedMore };
        }
        let within = &bytes[..bytes.len().min(MAX_FIRST_LINE)];
        match memchr(b'\n', within) {
            Some(end) => {
                let line = &bytes[..end];
                Self::Line { line: line.strip_suffix(b"\r").unwrap_or(line), length: end + 1 }
            }
            None if bytes.len() >= MAX_FIRST_LINE => Self::TooLong,
            None if last => Self::Line { line: bytes, length: bytes.len() },
            None => Self::NeedMore,
        }
    }
}

impl FirstLine {
    /// Reads a line that begins with [`PREFIX`], without its end. Options may stand in any order.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub fn parse(line: &[u8]) -> Result<Self, FirstLineError> {
        let options = line.strip_prefix(PREFIX).unwrap_or(line);
        let options = std::str::from_utf8(options).map_err(|_| FirstLineError::NotText)?;
        let (mut channel, mut framing, mut ack) = (None, None, None);
        for word in options.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("channel", name)) => once("channel", &mut channel, name.parse()?)?,
                Some(("framing", text)) => once("framing", &mut framing, text.parse()?)?,
                Some(("ack", "yes")) => once("ack", &mut ack, true)?,
                Some(("ack", "no")) => once("ack", &mut ack, false)?,
                Some(("ack", _)) => return Err(FirstLineError::Ack),
                Some(("token", _)) => return Err(FirstLineError::Token),
                _ => return Err(FirstLineError::Unknown(name_of(word))),
            }
        }
        Ok(Self { channel, framing, ack: ack.unwrap_or(false) })
    }
}

impl FirstLineError {
    /// What the sender is told beside the text.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Channel(_) => ErrorCode::InvalidChannel,
            Self::Token => ErrorCode::BadToken,
            Self::TooLong
            | Self::NotText
            | Self::Unknown(_)
            | Self::Twice(_)
            | Self::Framing(_)
            | Self::Ack => ErrorCode::Protocol,
        }
    }
}

fn once<T>(name: &'static str, option: &mut Option<T>, value: T) -> Result<(), FirstLineError> {
    match option.replace(value) {
        None => Ok(()),
        Some(_) => Err(FirstLineError::Twice(name)),
    }
}

/// The name of an option, fit for an answer of one line: what stands behind the `=` may be a secret.
fn name_of(word: &str) -> String {
    let name = word.split_once('=').map_or(word, |(name, _)| name);
    name.chars().take(32).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_first_line_says_channel_framing_and_ack_in_any_order() {
        let line = FirstLine::parse(b"RELAY/1 ack=yes  framing=idle:20ms channel=a/b ").unwrap();
        assert_eq!(line.channel, Some("a/b".parse().unwrap()));
        assert_eq!(line.framing, Some("idle:20ms".parse().unwrap()));
        assert!(line.ack);
        assert_eq!(FirstLine::parse(b"RELAY/1 "), Ok(FirstLine::default()));
    }

    #[test]
    fn a_wrong_first_line_says_what_to_write_instead() {
        let error = |options: &str| FirstLine::parse(format!("RELAY/1 {options}").as_bytes()).unwrap_err();
        assert_eq!(error("channel=a//b").code(), ErrorCode::InvalidChannel);
        assert_eq!(
            error("channel=a//b").to_string(),
            "the channel in the first line is no name: the segment at position 3 is empty; write one like sensors/kitchen"
        );
        assert_eq!(error("channel=a channel=b"), FirstLineError::Twice("channel"));
        assert_eq!(error("framing=lines"), FirstLineError::Framing(FramingError::Unknown));
        assert_eq!(error("ack=maybe"), FirstLineError::Ack);
        assert_eq!(error("secret=hunter2"), FirstLineError::Unknown("secret".into()));
        assert_eq!(error("a\x1b"), FirstLineError::Unknown("a\\u{1b}".into()));
        assert_eq!(FirstLine::parse(b"RELAY/1 channel=\xFF"), Err(FirstLineError::NotText));
    }

    #[test]
    fn a_token_is_refused_by_name_and_not_repeated() {
        let error = FirstLine::parse(b"RELAY/1 channel=a token=hunter2").unwrap_err();
        assert_eq!(error.code(), ErrorCode::BadToken);
        assert!(error.to_string().contains("token=") && !error.to_string().contains("hunter2"));
    }

    #[test]
    fn what_can_not_become_a_first_line_is_data_at_its_first_strange_byte() {
        assert_eq!(Beginning::of(b"", false), Beginning::NeedMore);
        assert_eq!(Beginning::of(b"RELAY/1", false), Beginning::NeedMore);
        assert_eq!(Beginning::of(b"RELAY/1", true), Beginning::Data);
        assert_eq!(Beginning::of(b"RELAX", false), Beginning::Data);
        assert_eq!(Beginning::of(b"RELAY/2 ", false), Beginning::Data);
        assert_eq!(Beginning::of(b"21.5", false), Beginning::Data);
    }

    #[test]
    fn a_first_line_ends_with_a_newline_or_with_the_sender() {
        let line = b"RELAY/1 channel=a";
        assert_eq!(Beginning::of(line, false), Beginning::NeedMore);
        assert_eq!(Beginning::of(line, true), Beginning::Line { line, length: 17 });
        assert_eq!(
            Beginning::of(b"RELAY/1 channel=a\r\ndata\n", false),
            Beginning::Line { line, length: 19 }
        );
    }

    #[test]
    fn a_first_line_has_a_limit() {
        let mut line = PREFIX.to_vec();
        line.resize(MAX_FIRST_LINE - 1, b' ');
        assert_eq!(Beginning::of(&line, false), Beginning::NeedMore);
        line.push(b'\n');
        assert!(matches!(Beginning::of(&line, false), Beginning::Line { length: MAX_FIRST_LINE, .. }));
        line.insert(MAX_FIRST_LINE - 1, b' ');
        assert_eq!(Beginning::of(&line, false), Beginning::TooLong);
    }

    proptest! {
        #[test]
        fn pieces_do_not_change_the_verdict(bytes in "(RELAY/1 )?[a-zR/=\n ]{0,30}", cut in 0usize..40) {
            let bytes = bytes.as_bytes();
            let early = Beginning::of(&bytes[..cut.min(bytes.len())], false);
            prop_assert!(early == Beginning::NeedMore || early == Beginning::of(bytes, false));
        }

        #[test]
        fn parsing_never_panics_and_errors_are_one_line(options in "\\PC{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let line = [PREFIX, options.as_bytes()].concat();
            for line in [&line, &bytes] {
                if let Err(error) = FirstLine::parse(line) {
                    prop_assert!(!error.to_string().contains(['\n', '\r']));
                }
            }
        }
    }
}
