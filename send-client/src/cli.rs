//! The command line: what can be said, and what is wrong with what was said. No behaviour.

use std::{error::Error, ffi::OsString, fmt, path::PathBuf, str::FromStr, time::Duration};

use clap::{
    CommandFactory, FromArgMatches, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};
use shared::{
    ChannelId,
    client::{Exit, RelayAddr},
    sender::Levels,
    units::{UnitError, format_size, parse_duration, parse_size},
};

use crate::{
    failure::{Failure, printable},
    pace::Rate,
    progress,
    split::Split,
    spool::MIN_LIMIT,
};

const ABOUT: &str = "Send messages to a channel of the relay: lines, files, or what is typed";

const LONG_ABOUT: &str = "Send messages to a channel of the relay: lines, files, or what is typed.

What is sent is, in this order: the messages of -m; the FILEs; what comes through a pipe; else there is a prompt. \
A line is a message, without its end; every other byte goes unchanged. At the end it waits until the relay has \
confirmed everything. If the connection is lost it is made again, and what was not confirmed is sent again, once. \
While there is none, or while 4 MiB are not confirmed, the input is not read.";

const AFTER_HELP: &str = "\
Examples:
  echo hello | send-client --channel foo
  send-client --channel foo -m hello -m world
  send-client --channel plant/serial readings.txt
  tail -f log | send-client --channel logs
  send-client --channel pictures --split none picture.png
  recv-client --channel foo --json | send-client --channel bar --json

With --json a line is an object as `recv-client --json` writes it: \"text\" or \"base64\"; \"time\", if it is there, \
in microseconds since 1970; \"channel\", unless --channel says where everything goes. Other keys, and lines that are \
events but no messages, are passed over.

With --spool DIR nothing that was taken is lost when this program, the relay or the machine fails, and nothing is \
stored twice: what is read is written to DIR and synced before it is sent, and deleted once it is confirmed. While the \
relay is away, input is taken all the same. At the end it waits for a relay that is away as long as --spool-wait says, \
then it leaves with exit code 6; the next start with that DIR sends what is left, first of all. `send-client --spool \
DIR` does just that. One process at a time can use a DIR.

Exit codes:
  0    everything is confirmed (with --no-ack: handed over)
  1    another failure
  2    wrong usage, a value or a file that can't be used
  3    the relay can't be reached
  4    the relay does not allow it
  5    a message was refused
  6    the connection was lost with --no-reconnect, or messages are not confirmed
  130  SIGINT    143  SIGTERM";

/// What was said on the command line and in the environment.
#[derive(Debug, Parser)]
#[command(name = "send-client", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = AFTER_HELP)]
#[command(max_term_width = 100)]
pub struct Args {
    /// Where to send; with --json it overrides what the lines say
    #[arg(short, long, value_name = "NAME", env = "RELAY_CHANNEL")]
    #[arg(required_unless_present_any = ["json", "spool"])]
    pub channel: Option<ChannelId>,

    /// The relay: HOST:PORT, also with tcp://, ws:// or http://
    #[arg(short, long, value_name = "ADDR", env = "RELAY_ADDR", default_value_t)]
    pub relay: RelayAddr,

    /// A message; may be given several times
    #[arg(
        short,
        long = "message",
        value_name = "TEXT",
        allow_hyphen_values = true,
        conflicts_with = "files"
    )]
    pub messages: Vec<OsString>,

    /// Files to send; `-` is the standard input
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Where a message ends: lines, null (a zero byte), none (a file is a message), or a SIZE like 64KiB
    #[arg(short, long, value_name = "HOW", default_value = "lines", conflicts_with_all = ["null", "json"])]
    pub split: Split,

    /// Messages end with a zero byte, as --split null
    #[arg(short = '0', conflicts_with = "json")]
    pub null: bool,

    /// Each line is an object with a message, as `recv-client --json` writes it
    #[arg(long)]
    pub json: bool,

    /// Messages per second at most, like 100/s or 30/m
    #[arg(long, value_name = "N/s")]
    pub rate: Option<Rate>,

    /// Send everything so many times; for -m and FILEs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub repeat: u64,

    /// Do not wait for confirmations at the end
    #[arg(long)]
    pub no_ack: bool,

    /// What a confirmation means: accepted (it is kept as safely as its channel is) or fsynced (it is on the
    /// relay's disk)
    #[arg(long, value_name = "LEVEL", env = "RELAY_LEVEL", default_value = "accepted")]
    pub level: Level,

    /// Keep messages in this directory until they are confirmed, over restarts; see below
    #[arg(long, value_name = "DIR", env = "RELAY_SPOOL", conflicts_with = "no_ack")]
    pub spool: Option<PathBuf>,

    /// Bytes that the spool may have; while it has them, the input is not read
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = spool_limit)]
    pub spool_limit: u64,

    /// With --spool: how long to wait at the end for a relay that is away
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = parse_duration)]
    pub spool_wait: Duration,

    /// A bar for each file
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = progress::When::Auto)]
    pub progress: progress::When,

    /// How long a connection may take to come to be
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = positive_duration)]
    pub connect_timeout: Duration,

    /// End when the connection is lost, with exit code 6
    #[arg(long)]
    pub no_reconnect: bool,

    /// No notices, only warnings and errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// More notices, and the summary also where stderr is no terminal
    #[arg(short, long)]
    pub verbose: bool,

    /// Colours in what is told
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: clap::ColorChoice,
}

/// What a confirmation means, at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The relay has it, and keeps it as its channel does: in memory, or on disk, which may be reached later.
    Accepted,
    /// It is on the relay's disk.
    Fsynced,
}

/// A level that can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// It will come.
    #[error("it is not available yet; it may be accepted or fsynced")]
    NotYet,
    /// There is none of that name.
    #[error("it is neither accepted nor fsynced")]
    Unknown,
}

impl FromStr for Level {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, LevelError> {
        match text {
            "accepted" => Ok(Self::Accepted),
            "fsynced" => Ok(Self::Fsynced),
            "replicated" => Err(LevelError::NotYet),
            _ => Err(LevelError::Unknown),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted"),
            Self::Fsynced => f.write_str("fsynced"),
        }
    }
}

impl Level {
    /// As the protocol says it.
    pub fn wire(self) -> Levels {
        match self {
            Self::Accepted => Levels::ACCEPTED,
            Self::Fsynced => Levels(Levels::ACCEPTED.0 | Levels::FSYNCED.0),
        }
    }
}

/// Why there is nothing to run.
#[derive(Debug)]
pub enum Stop {
    /// Help or version were shown, or clap's own error.
    Shown(Exit),
    /// A value is wrong.
    Failure(Failure),
}

/// Reads the command line.
///
/// # Errors
/// If there is nothing to run: help, a version, a mistake.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Args, Stop> {
    let mut command = Args::command();
    let parsed =
        command.try_get_matches_from_mut(args).and_then(|mut found| Args::from_arg_matches_mut(&mut found));
    parsed.map_err(|error| match invalid_value(&error) {
        Some(failure) => Stop::Failure(failure),
        None => {
            // A closed stdout is no failure, and of a closed stderr nobody can be told.
            let _closed = error.print();
            Stop::Shown(if error.use_stderr() { Exit::Usage } else { Exit::Done })
        }
    })
}

/// A value that its type refuses, in the words of that type.
fn invalid_value(error: &clap::Error) -> Option<Failure> {
    if error.kind() != ErrorKind::ValueValidation {
        return None;
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (argument, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
    let name = argument.split(' ').next().unwrap_or(argument);
    let cause = error.source()?;
    let failure =
        Failure::new(Exit::Usage, format!("invalid value '{}' for '{name}': {cause}", printable(value)));
    Some(match name {
        "--channel" => failure.advice(
            "channel names use letters, digits and _ - . ~ : in segments separated by /, for example sensors/kitchen",
        ),
        _ => failure.hint("try --help"),
    })
}

fn spool_limit(text: &str) -> Result<u64, String> {
    let size = parse_size(text).map_err(|error| error.to_string())?;
    if size < MIN_LIMIT {
        return Err(format!("it must be at least {}", format_size(MIN_LIMIT)));
    }
    Ok(size)
}

fn positive_duration(text: &str) -> Result<Duration, UnitError> {
    match parse_duration(text) {
        Ok(Duration::ZERO) => Err(UnitError::Duration),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Args, Stop> {
        super::parse(std::iter::once("send-client").chain(args.iter().copied()).map(Into::into))
    }

    fn failure(args: &[&str]) -> Failure {
        match parse(args) {
            Err(Stop::Failure(failure)) => failure,
            other => panic!("{args:?} is no wrong value: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_wrong_channel_is_told_with_its_place_and_what_would_be_right() {
        let failure = failure(&["--channel", "my channel"]);
        assert_eq!(
            failure.message,
            "invalid value 'my channel' for '--channel': a space is not allowed at position 3"
        );
        assert!(
            failure
                .advice
                .unwrap()
                .starts_with("channel names use letters, digits and _ - . ~ : in segments")
        );
        assert_eq!(failure.exit, Exit::Usage);
    }

    #[test]
    fn a_level_that_comes_later_says_so() {
        let message = failure(&["-c", "a", "--level", "replicated"]).message;
        assert!(
            message.starts_with("invalid value 'replicated' for '--level': it is not available yet"),
            "{message}"
        );
    }

    #[test]
    fn values_are_refused_in_their_own_words() {
        for args in [
            ["--split", "0"],
            ["--rate", "fast"],
            ["--connect-timeout", "0s"],
            ["--relay", "wss://a"],
            ["--repeat", "0"],
        ] {
            assert!(failure(&[&["-c", "a"], &args[..]].concat()).message.contains(args[1]));
        }
    }

    #[test]
    fn messages_may_begin_with_a_hyphen() {
        let args = parse(&["-c", "a", "-m", "-1", "-m", "--"]).unwrap();
        assert_eq!(args.messages, ["-1", "--"]);
    }
}
