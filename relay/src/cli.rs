//! The command line of `relay`: what may be said, and how help tells it. No behaviour.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{
    Args, Parser, Subcommand,
    builder::{OsStringValueParser, TypedValueParser as _},
};

use crate::{
    config::{LogFormat, value, value::RawListener},
    store::Retention,
};

const EXIT_CODES: &str = "\
Exit codes:
  0  done; after SIGTERM or SIGINT, when everything accepted is settled
  1  a failure, for example an address that is in use
  2  wrong usage, or a mistake in the configuration";

const LOG_EXIT_CODES: &str = "\
Exit codes:
  0  it is sound, or has been repaired
  1  it is damaged, or can't be looked at";

const EXAMPLES: &str = "\
Examples:
  relay serve
  relay serve --listen 127.0.0.1:0 --raw 127.0.0.1:5000=plant/serial,line
  relay config example > relay.toml && relay check relay.toml";

const RULES_EXAMPLES: &str = "\
Examples:
  echo 'token=secret' | relay rules test relay.toml --route /app
  recv-client --channel tap/app --last 100 | relay rules test new.toml --json";

const SERVE_EXAMPLES: &str = "\
Examples:
  relay serve
      listens on 127.0.0.1:12000, for this machine only
  relay serve --listen 0.0.0.0:12000 --open --host relay.example.org
      for everyone who can reach this machine, in browsers also by that name
  relay serve --raw 127.0.0.1:5000=plant/serial,line
      besides, whatever writes lines to port 5000 publishes to plant/serial
  relay serve --history 512MiB,100000,24h
      keeps of each channel at most 512 MiB, 100 000 messages and a day
  relay serve --data /var/lib/relay
      keeps every channel on disk, at most 1 GiB of each
  relay serve --routes routes.json
      WebSocket connections to /NAME go to the host and port that the file says
  relay serve --config relay.toml --print-config
      shows what file, environment and flags mean together

A flag comes before the environment, the environment before the file, the file before the default.
Sizes are written like 64KiB or 1MB, durations like 250ms or 1h30m.";

/// TCP in, WebSocket out: one port, named channels, every message in order
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "relay", version, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
#[command(disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `relay` can do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Take messages in and deliver them, until SIGTERM or SIGINT
    Serve(Box<Serve>),
    /// Tell every mistake of a configuration file, with line, column and caret
    #[command(after_long_help = EXIT_CODES)]
    Check {
        /// The file
        file: PathBuf,
    },
    /// Show the routes of a running relay's gateway: connections, traffic, how connections ended
    #[command(after_long_help = EXIT_CODES)]
    Routes {
        /// Where the relay is
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:12000", value_parser = value::relay_url)]
        url: String,
        /// Print what the relay says, as JSON
        #[arg(long)]
        json: bool,
    },
    /// About a directory that `--data` names, while no relay uses it
    #[command(disable_help_subcommand = true)]
    Log {
        /// What about it.
        #[command(subcommand)]
        command: LogCommand,
    },
    /// About the rules of the gateway's routes
    #[command(disable_help_subcommand = true)]
    Rules {
        /// What about them.
        #[command(subcommand)]
        command: RulesCommand,
    },
    /// About the configuration
    #[command(disable_help_subcommand = true)]
    Config {
        /// What about it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// What `relay log` can do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum LogCommand {
    /// Look at every byte and say all that is wrong; nothing is changed
    #[command(after_long_help = LOG_EXIT_CODES)]
    Check {
        /// The directory
        dir: PathBuf,
    },
    /// Go on with what is whole, say exactly what is lost, and set aside what was damaged
    ///
    /// If anything that was stored may be lost, the store has a new epoch, so that receivers are told.
    #[command(after_long_help = LOG_EXIT_CODES)]
    Repair {
        /// The directory
        dir: PathBuf,
    },
}

/// What `relay rules` can do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum RulesCommand {
    /// Tell what the rules of a route would make of messages, a line of the input each, and which of them did it
    #[command(after_long_help = format!("{RULES_EXAMPLES}\n\n{EXIT_CODES}"))]
    Test {
        /// The configuration file
        file: PathBuf,
        /// The route; need not be said where only one has rules
        #[arg(long, value_name = "PATH")]
        route: Option<String>,
        /// Whose messages they are
        #[arg(long, value_name = "SIDE", value_enum, default_value = "client")]
        from: Side,
        /// Lines are JSON as a tap tells it, in and out: {"from": "client", "text": "hello"}
        ///
        /// `from` and `time` (in microseconds) need not be there; for binary messages it is `base64`. Without it a
        /// line is a text, or binary if it is not UTF-8, and all come at once, which matters to rules about rates.
        #[arg(long)]
        json: bool,
    },
}

/// Whose messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Side {
    /// Who connected to the gateway
    Client,
    /// Whom the gateway connected to
    Upstream,
}

/// What `relay config` can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum ConfigCommand {
    /// Print a complete configuration file with every key, its default and what it is for
    Example,
}

/// What `relay serve` is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(after_long_help = format!("{SERVE_EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Serve {
    /// Configuration file (TOML); `relay config example` prints one
    // An empty variable is an unset one, so an empty path has to get through.
    #[arg(long, value_name = "FILE", env = "RELAY_CONFIG")]
    #[arg(value_parser = OsStringValueParser::new().map(|path: OsString| PathBuf::from(path)))]
    pub config: Option<PathBuf>,

    /// Address for everything: senders, receivers, browsers; repeatable
    ///
    /// What a connection is, its first bytes tell. Port 0 takes a free one; the ready line says which. Takes the
    /// place of `listen` in the file. [default: 127.0.0.1:12000]
    #[arg(long, value_name = "ADDR", value_parser = value::address)]
    pub listen: Vec<SocketAddr>,

    /// Address for raw senders to one channel; repeatable
    ///
    /// Whatever connects there is a raw sender, and what it writes is data: nothing is told by first bytes.
    /// FRAMING says where a message ends: line, null, delimiter:HEX, idle:DUR, fixed:N, length:u16, length:u32,
    /// octet-count, read or auto. [default: auto]
    #[arg(long, value_name = "ADDR=CHANNEL[,FRAMING]", value_parser = value::raw_listener)]
    pub raw: Vec<RawListener>,

    /// Directory in which every channel is kept, over restarts
    ///
    /// It is created. What is confirmed is on the disk then, and what a receiver missed it gets. Without it messages
    /// are in memory, and end with the relay.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Allow addresses that others can reach
    ///
    /// Without it, listening on anything but a loopback address is refused: everyone who reaches the relay may
    /// publish and subscribe.
    #[arg(long)]
    pub open: bool,

    /// Name that browsers may reach the relay by; repeatable
    ///
    /// Besides localhost and IP addresses. Others are refused, so that no web page can make its own name point
    /// here.
    #[arg(long = "host", value_name = "NAME", value_parser = value::host)]
    pub hosts: Vec<String>,

    /// Bytes that a message may have, at most 1GiB [default: 1MiB]
    #[arg(long, value_name = "SIZE", value_parser = value::max_message)]
    pub max_message: Option<u64>,

    /// What a channel keeps for receivers that come back or are late [default: 64MiB, with --data 1GiB]
    ///
    /// At most so many bytes, and so many messages and such an age where they are said. Rules of the file for some
    /// channels come before it.
    #[arg(long, value_name = "SIZE[,COUNT][,DUR]", value_parser = value::history)]
    pub history: Option<Retention>,

    /// Origin of web pages that may subscribe and publish; repeatable
    ///
    /// Besides the relay's own. For example `https://example.org`
    #[arg(long = "allow-origin", value_name = "ORIGIN", value_parser = value::origin)]
    pub allow_origins: Vec<String>,

    /// File of gateway routes (JSON): {"name": {"host": "127.0.0.1", "port": "3000"}}
    ///
    /// WebSocket connections to /name are passed to that host and port. Besides the routes of the configuration
    /// file, which can say more; SIGHUP reads both again.
    #[arg(long, value_name = "FILE")]
    pub routes: Option<PathBuf>,

    /// What to log to stderr: a level, or TARGET=LEVEL for parts [default: info]
    #[arg(long, value_name = "FILTER", env = "RELAY_LOG", value_parser = value::log_filter)]
    pub log: Option<String>,

    /// Form of the log [default: text]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,

    /// Print what file, environment and flags mean together, as a configuration file, and end
    #[arg(long)]
    pub print_config: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, String> {
        Cli::try_parse_from(line.split(' ')).map_err(|error| {
            assert_eq!(error.exit_code(), 2, "{line}");
            error.to_string()
        })
    }

    fn serve(line: &str) -> Serve {
        match parse(line).unwrap().command {
            Command::Serve(serve) => *serve,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_serve_is_read() {
        let line = "relay serve --config a.toml --listen localhost:0 --listen [::1]:9 --raw 127.0.0.1:5000=plant/serial,line \
                    --open --host A.example --max-message 2MiB --history 1MiB,5,1h --allow-origin https://B.example \
                    --routes r.json --data d --log warn --log-format json --print-config";
        let serve = serve(line);
        assert_eq!(serve.config, Some("a.toml".into()));
        assert_eq!(serve.listen, ["127.0.0.1:0".parse().unwrap(), "[::1]:9".parse().unwrap()]);
        assert_eq!(serve.raw[0].channel.to_string(), "plant/serial");
        assert!(serve.open && serve.print_config);
        assert_eq!(serve.hosts, ["a.example"]);
        assert_eq!(serve.max_message, Some(2 << 20));
        assert_eq!(serve.history.unwrap().messages, Some(5));
        assert_eq!(serve.allow_origins, ["https://b.example"]);
        assert_eq!(serve.routes, Some("r.json".into()));
        assert_eq!(serve.data, Some("d".into()));
        assert_eq!(serve.log.as_deref(), Some("warn"));
        assert_eq!(serve.log_format, Some(LogFormat::Json));
    }

    #[test]
    fn a_bad_value_is_wrong_usage_and_says_what_would_be_right() {
        let cases = [
            (
                "--listen 12000",
                "'12000' for '--listen <ADDR>': the host is missing; did you mean 127.0.0.1:12000",
            ),
            (
                "--raw 127.0.0.1:1",
                "--raw <ADDR=CHANNEL[,FRAMING]>': write it as ADDR=CHANNEL[,FRAMING], for example",
            ),
            ("--max-message big", "not a size; write it like 512, 64KiB, 1MB"),
            ("--max-message 0", "'0' for '--max-message <SIZE>': must be at least 1"),
            ("--max-message 2GiB", "must be at most 1GiB"),
            ("--history 1h", "'1h' is not a size"),
            ("--allow-origin *", "every origin must be named"),
            ("--log relay=loud", "write it as a level or TARGET=LEVEL"),
            ("--log-format xml", "[possible values: text, json]"),
            ("--lisen 127.0.0.1:1", "a similar argument exists: '--listen'"),
        ];
        for (flags, expected) in cases {
            let error = parse(&format!("relay serve {flags}")).unwrap_err();
            assert!(error.contains(expected), "{flags}: {error}");
        }
    }

    #[test]
    fn what_belongs_to_later_work_is_not_accepted() {
        for line in ["serve --nats u", "serve --tls-dev", "status", "token new"] {
            assert!(parse(&format!("relay {line}")).is_err(), "{line}");
        }
    }

    #[test]
    fn long_help_has_examples_and_exit_codes_and_short_help_has_not() {
        let help = |line: &str| Cli::try_parse_from(line.split(' ')).unwrap_err().to_string();
        for line in ["relay --help", "relay serve --help"] {
            assert!(help(line).contains("Examples:") && help(line).contains("Exit codes:"), "{line}");
        }
        assert!(!help("relay serve -h").contains("Examples:"));
        assert!(help("relay -V").starts_with("relay "));
    }
}
