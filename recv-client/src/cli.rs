//! What can be typed: flags, their values and their help. What they mean together is decided in `plan`.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, ColorChoice, Parser, ValueEnum};
use regex::bytes::Regex;
use shared::{client::RelayAddr, receiver::Since, units::parse_duration};

use crate::template::Template;

const AFTER_HELP: &str = "\
Examples:
  recv-client --channel sensors/kitchen                  what is published from now on
  recv-client -c 'sensors/**' --since 10m -t             a pattern, ten minutes back, with times
  recv-client -c foo --last 1 -n 1 -W 5s                 the newest message, or exit 124 after 5 s
  recv-client -c foo --durable backup -o foo.log         goes on where it was at the next start
  recv-client -c foo -f '{time:%T} {channel} {seq} {data}'
  recv-client -c foo --json | send-client -c bar --json  copies a channel, binary messages too

Exit codes:
  0 done   1 other failure   2 wrong usage   3 relay not reachable   4 permission refused
  6 connection lost with --no-reconnect, or a gap with --strict
  124 --timeout passed   130 SIGINT   143 SIGTERM";

/// Tails channels of a relay to the terminal, a pipe or files, across reconnects
#[derive(Debug, Parser)]
#[command(name = "recv-client", version, after_long_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    /// Channel or pattern to receive; may be given several times
    ///
    /// Names use letters, digits and _ - . ~ : in segments separated by /. In a pattern a segment may be `*`
    /// (any one segment) and the last may be `**` (one or more).
    #[arg(short, long = "channel", value_name = "NAME|PATTERN", env = "RELAY_CHANNEL", required = true)]
    pub(crate) channels: Vec<String>,

    /// The relay's address, HOST:PORT
    #[arg(short, long, value_name = "ADDR", env = "RELAY_ADDR", default_value_t, hide_default_value = false)]
    pub(crate) relay: RelayAddr,

    /// End after this many messages
    ///
    /// With --grep only messages that match are counted.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Where to begin: 10m, a time, a position, `earliest` or `latest` [default: latest]
    ///
    /// A duration goes back from now. A time is written like 2026-01-31T12:00:00Z. A position is what
    /// `{position}` in --format shows; messages after it follow.
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<Since>,

    /// Begin with the last N messages that are kept
    ///
    /// With several channels: with the last N of all together.
    #[arg(long, value_name = "N", conflicts_with = "since")]
    pub(crate) last: Option<u64>,

    /// End with exit code 124 when no message was shown for so long
    ///
    /// The time starts anew with each message. For a limit on the whole, see --for.
    #[arg(short = 'W', long, value_name = "DUR", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,

    /// End after so long, with exit code 0
    #[arg(long = "for", value_name = "DUR", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,

    /// Keep the position under this name, and go on there at the next start
    ///
    /// It is kept in $XDG_STATE_HOME/relay/durable/NAME and moved only after the messages were written. When
    /// there is one already, --since and --last are not used. One process at a time can use a name. After a kill
    /// messages may come again on stdout; in files they stand once.
    #[arg(long, value_name = "NAME")]
    pub(crate) durable: Option<String>,

    /// Show each message like this: '{time:%T} {channel} {seq} {data}'
    ///
    /// Fields: {data} {channel} {seq} {prev} {position} {time} {size} {kind}; {time:…} takes a strftime format.
    /// Times are local. \n \t \r \0 \\ are escapes, {{ and }} are braces. A newline follows each message.
    #[arg(short, long, value_name = "FORMAT", group = "shape")]
    pub(crate) format: Option<Template>,

    /// Write one JSON object per message, which `send-client --json` reads
    #[arg(long, group = "shape")]
    pub(crate) json: bool,

    /// Write payloads only, with nothing between them
    #[arg(long, group = "shape", conflicts_with = "null")]
    pub(crate) raw: bool,

    /// Show each message as a hexdump
    #[arg(long, group = "shape")]
    pub(crate) hex: bool,

    /// End each message with a zero byte instead of a newline
    #[arg(short = '0', long)]
    pub(crate) null: bool,

    /// Put the time before each message
    #[arg(
        short,
        long,
        value_name = "HOW",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "local",
        conflicts_with_all = ["format", "json", "raw"]
    )]
    pub(crate) timestamps: Option<Timestamps>,

    /// Show only messages whose payload matches
    #[arg(long, value_name = "REGEX", value_parser = Regex::new)]
    pub(crate) grep: Option<Regex>,

    /// Write messages to this file instead of stdout
    ///
    /// The file is replaced, or with --durable appended to; then one process at a time can use it.
    #[arg(short, long, value_name = "FILE", conflicts_with = "output_dir")]
    pub(crate) output: Option<PathBuf>,

    /// Append messages to a file per channel: DIR/sensors/kitchen.log
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,

    /// Print counts, rates and lag to stderr every so often
    #[arg(
        long,
        value_name = "DUR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "5s",
        value_parser = parse_interval
    )]
    pub(crate) stats: Option<Duration>,

    /// End with exit code 6 when messages are missing
    #[arg(long)]
    pub(crate) strict: bool,

    /// End with exit code 6 when the connection is lost
    #[arg(long)]
    pub(crate) no_reconnect: bool,

    /// How long a connection may take to be made
    #[arg(long, value_name = "DUR", value_parser = parse_interval, default_value = "5s")]
    pub(crate) connect_timeout: Duration,

    /// Print no notices; warnings and errors remain
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Print more on stderr, also where it is no terminal
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub(crate) verbose: bool,

    /// Colours
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    pub(crate) color: ColorChoice,
}

/// How the time of a message is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Timestamps {
    /// The local date and time, to the millisecond
    Local,
    /// The date and time in UTC, to the microsecond
    Utc,
    /// Seconds since 1970
    Epoch,
    /// Seconds since the message before
    Delta,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|e| e.to_string())?;
    if duration.is_zero() { Err("it must be longer than nothing".into()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_is_well_formed() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_value_of_an_optional_kind_needs_its_equals_sign() {
        let cli = parse("recv-client -c foo -t --stats --color never").unwrap();
        assert_eq!((cli.timestamps, cli.stats), (Some(Timestamps::Local), Some(Duration::from_secs(5))));
        let cli = parse("recv-client -c foo --timestamps=utc --stats=1s").unwrap();
        assert_eq!((cli.timestamps, cli.stats), (Some(Timestamps::Utc), Some(Duration::from_secs(1))));
    }

    #[test]
    fn flags_that_contradict_each_other_are_wrong_usage() {
        for line in [
            "recv-client -c foo --json --raw",
            "recv-client -c foo --hex -f {data}",
            "recv-client -c foo --raw -0",
            "recv-client -c foo --json -t",
            "recv-client -c foo -q -v",
            "recv-client -c foo -o x --output-dir y",
            "recv-client -c foo --since 1m --last 3",
            "recv-client -c foo -n 0",
            "recv-client -c foo --stats=0s",
            "recv-client -c foo --grep (",
            "recv-client -c foo --format {nonsense}",
            "recv-client -c foo --token-file x",
            "recv-client",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_regex_may_ignore_case() {
        assert!(parse("recv-client -c foo --grep (?i)error").is_ok());
    }
}
