//! What ends the program without success: an exit code, what happened, and a line of advice.

use std::{io, path::Path};

use shared::{
    ErrorCode,
    client::{Exit, RelayAddr},
    units::format_size,
};

use crate::connection::{End, Refusal};

/// An end without success. `advice` is a whole line, such as `hint: …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, in one line.
    pub message: String,
    /// What can be done about it.
    pub advice: Option<String>,
}

/// A message that could not be sent, or a reason not to read on. What came before it is still delivered; how
/// many messages that were is told with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Larger than the relay accepts; it was not sent.
    TooBig {
        /// Which, counted from 1.
        number: u64,
        /// Its bytes.
        size: u64,
        /// Bytes that the relay accepts.
        max: u64,
    },
    /// A line of `--json` that is no message.
    NoMessage {
        /// Which line, counted from 1.
        number: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The relay refused it.
    Refused {
        /// Which, counted from 1 in its channel.
        number: u64,
        /// The channel, where there are several.
        channel: Option<String>,
        /// In the relay's words.
        reason: Refusal,
    },
    /// The relay refused a channel.
    Channel {
        /// Which.
        channel: String,
        /// In the relay's words.
        reason: Refusal,
    },
    /// It could not be kept in the spool.
    NotKept {
        /// How many messages, with those that came before it was known.
        lost: u64,
        /// In the system's words.
        reason: String,
    },
    /// The input could not be read.
    Input {
        /// Its name.
        name: String,
        /// In the system's words.
        reason: String,
    },
}

impl Failure {
    /// An end with this exit code and message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), advice: None }
    }

    /// With a line `hint: …`.
    pub fn hint(self, hint: impl AsRef<str>) -> Self {
        self.advice(format!("hint: {}", hint.as_ref()))
    }

    /// With a line of advice.
    pub fn advice(self, line: impl Into<String>) -> Self {
        Self { advice: Some(line.into()), ..self }
    }

    /// With the number of messages whose outcome is unknown, if there are any.
    pub fn unconfirmed(self, waiting: u64) -> Self {
        let are = match waiting {
            0 => return self,
            1 => "is",
            _ => "are",
        };
        Self { message: format!("{}; {} {are} not confirmed", self.message, messages(waiting)), ..self }
    }

    /// With the number of messages that stay in a spool, if there are any, and how they are sent.
    pub fn stays(self, waiting: u64, spool: &Path) -> Self {
        let stay = match waiting {
            0 => return self,
            1 => "stays",
            _ => "stay",
        };
        let message = format!("{}; {} {stay} in the spool", self.message, messages(waiting));
        let hint = format!("hint: `send-client --spool {}` sends what is there", spool.display());
        let advice = Some(self.advice.map_or_else(|| hint.clone(), |advice| format!("{advice}\n  {hint}")));
        Self { message, advice, ..self }
    }

    /// An input that can't be read.
    pub fn unreadable(exit: Exit, name: &str, error: &io::Error) -> Self {
        Self::new(exit, format!("cannot read {name}: {}", reason(error)))
    }

    /// The first connection did not come to be.
    pub fn unreachable(relay: &RelayAddr, end: &End) -> Self {
        let stopping = |refusal: &Refusal| refusal.error_code() == Some(ErrorCode::Draining);
        match end {
            End::Refused(refusal) if !stopping(refusal) => Self::refused(refusal),
            end => Self::new(Exit::Unreachable, format!("cannot reach a relay at {relay}: {end}"))
                .hint("start one with `relay serve`, or choose another with --relay HOST:PORT"),
        }
    }

    /// The relay ended the connection for a reason.
    pub fn refused(refusal: &Refusal) -> Self {
        match refusal.error_code() {
            Some(ErrorCode::Forbidden) => {
                Self::new(Exit::Refused, format!("the relay does not allow this: {refusal}"))
            }
            Some(ErrorCode::BadToken | ErrorCode::TokenExpired) => {
                Self::new(Exit::Refused, format!("the relay refused the token: {refusal}"))
            }
            Some(ErrorCode::TooBig) => {
                Self::new(Exit::MessageRefused, format!("a message was refused: {refusal}"))
            }
            Some(ErrorCode::LevelUnsupported) => {
                Self::new(Exit::Failure, format!("--level can't be had: {refusal}")).hint(
                    "a relay with `--data DIR` gives fsynced; without --level it is what the channel gives",
                )
            }
            Some(ErrorCode::Fenced | ErrorCode::TakenOver) => Self::new(
                Exit::Failure,
                format!("another sender goes on in the place of this one: {refusal}"),
            ),
            Some(ErrorCode::Protocol) => Self::new(Exit::Failure, format!("not understood: {refusal}")),
            Some(code) => Self::new(Exit::Failure, format!("the relay refused ({code}): {refusal}")),
            None => Self::new(Exit::Failure, format!("the relay refused: {refusal}")),
        }
    }
}

impl Problem {
    /// The failure that it ends with, when so many messages were stored.
    pub fn into_failure(self, sent: u64) -> Failure {
        let sent = match sent {
            1 => "1 message was sent".into(),
            n => format!("{n} messages were sent"),
        };
        match self {
            Self::TooBig { number, size, max } => {
                let (is, accepts) = sizes(size, max);
                let message =
                    format!("message {number} is {is}, the relay accepts at most {accepts}; {sent}");
                let piece = format_size((max / 2).max(1)).replace(' ', "");
                Failure::new(Exit::MessageRefused, message).hint(format!(
                    "send it in pieces with --split {piece}, or raise max_message on the relay"
                ))
            }
            Self::NoMessage { number, reason } => {
                let message = format!("line {number} is no message: {reason}; {sent}");
                Failure::new(Exit::MessageRefused, message)
                    .hint(r#"a line is an object like {"channel":"foo","text":"hello"} or {"base64":"/wA="}"#)
            }
            Self::Refused { number, channel, reason } => {
                let place = channel.map_or_else(String::new, |channel| format!(" of channel {channel}"));
                let message = format!("message {number}{place} was refused: {reason}; {sent}");
                Failure::new(Exit::MessageRefused, message)
            }
            Self::Channel { channel, reason } => {
                let failure = Failure::refused(&reason);
                Failure { message: format!("channel {channel}: {}; {sent}", failure.message), ..failure }
            }
            Self::NotKept { lost, reason } => {
                let message =
                    format!("the spool can't keep more: {reason}; the last {} not taken; {sent}", were(lost));
                Failure::new(Exit::Failure, message)
            }
            Self::Input { name, reason } => {
                Failure::new(Exit::Failure, format!("cannot read {name}: {reason}; {sent}"))
            }
        }
    }
}

/// What the system says, without its number: `connection refused`.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// A text from elsewhere as a terminal may get it: control characters are written out.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { printable.extend(c.escape_default()) } else { printable.push(c) }
    }
    printable
}

/// `n message` or `n messages`.
pub fn messages(n: u64) -> String {
    if n == 1 { "1 message".into() } else { format!("{n} messages") }
}

/// `message was` or `n messages were`.
pub fn were(n: u64) -> String {
    if n == 1 { "message was".into() } else { format!("{n} messages were") }
}

/// A size and the limit that it is over, so that they read differently.
fn sizes(size: u64, max: u64) -> (String, String) {
    let (is, accepts) = (format_size(size), format_size(max));
    if is == accepts {
        return (format!("{size} B"), format!("{max} B"));
    }
    match is.split_once(' ') {
        Some((number, unit)) if unit != "B" && !number.contains('.') => {
            (format!("{number}.0 {unit}"), accepts)
        }
        _ => (is, accepts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_too_big_is_told_with_both_sizes_and_a_way_out() {
        let failure = Problem::TooBig { number: 3, size: 2 << 20, max: 1 << 20 }.into_failure(2);
        assert_eq!(
            failure.message,
            "message 3 is 2.0 MiB, the relay accepts at most 1 MiB; 2 messages were sent"
        );
        assert_eq!(
            failure.advice.as_deref(),
            Some("hint: send it in pieces with --split 512KiB, or raise max_message on the relay")
        );
        assert_eq!(failure.exit, Exit::MessageRefused);
        let near = Problem::TooBig { number: 1, size: (1 << 20) + 1, max: 1 << 20 }.into_failure(0);
        assert_eq!(
            near.message,
            "message 1 is 1048577 B, the relay accepts at most 1048576 B; 0 messages were sent"
        );
    }

    #[test]
    fn a_text_from_elsewhere_can_not_command_the_terminal() {
        assert_eq!(printable("it can't \x1b[2J\n"), "it can't \\u{1b}[2J\\n");
    }

    #[test]
    fn an_unreachable_relay_is_told_in_the_systems_words_without_a_number() {
        let error = io::Error::from_raw_os_error(111);
        let failure = Failure::unreachable(&RelayAddr::default(), &End::from(error));
        assert_eq!(failure.message, "cannot reach a relay at 127.0.0.1:12000: connection refused");
        assert_eq!(
            failure.advice.as_deref(),
            Some("hint: start one with `relay serve`, or choose another with --relay HOST:PORT")
        );
    }
}
