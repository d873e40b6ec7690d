//! From what was typed to what it means. Everything that can be wrong before connecting is found here.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use jiff::tz::TimeZone;
use regex::bytes::Regex;
use shared::{
    ChannelPattern,
    client::{Exit, RelayAddr},
    receiver::Since,
};

use crate::{
    cli::Cli,
    durable::{self, Durable},
    failure::Failure,
    notices::color_choice,
    render::{Renderer, Shape},
    resume::Resume,
    sink::Sink,
    times::Stamp,
};

/// How to tail: what does not change while it runs.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Where the relay is.
    pub(crate) relay: RelayAddr,
    /// What to receive, at least one, none twice.
    pub(crate) patterns: Vec<ChannelPattern>,
    /// How long a connection may take to be made.
    pub(crate) connect_timeout: Duration,
    /// Whether to come back after a loss.
    pub(crate) reconnect: bool,
    /// Whether to end at a gap.
    pub(crate) strict: bool,
    /// To end after so many messages.
    pub(crate) count: Option<u64>,
    /// What to show.
    pub(crate) grep: Option<Regex>,
}

/// Where messages go and how.
#[derive(Debug)]
pub(crate) struct Destination {
    /// In which form.
    pub(crate) renderer: Renderer,
    /// To where.
    pub(crate) sink: Sink,
    /// Where the position is kept.
    pub(crate) durable: Option<Durable>,
}

impl Plan {
    /// Reads the command line. Opens files: what they hold is replaced if so asked for.
    ///
    /// # Errors
    /// A channel that is none, a file that can't be opened, a durable position that can't be used.
    pub(crate) fn new(cli: Cli) -> anyhow::Result<(Self, Destination, Resume)> {
        let patterns = parse_patterns(&cli.channels)?;
        let terminal = cli.output.is_none() && cli.output_dir.is_none() && io::stdout().is_terminal();
        let labels = terminal && (patterns.len() > 1 || patterns.iter().any(|p| p.as_channel().is_none()));
        let color = color_choice(cli.color, &io::stdout()) != anstream::ColorChoice::Never;

        let asked = || Resume::new(cli.since.unwrap_or_default(), cli.last);
        let (durable, resume) = match &cli.durable {
            None => (None, asked()),
            Some(name) => {
                let (durable, kept) = Durable::open(&durable::directory()?, name, &cli.relay, &patterns)?;
                let kept = kept.map(|position| Resume::new(Since::Position(position), None));
                (Some(durable), kept.unwrap_or_else(asked))
            }
        };
        let sink = match (cli.output, cli.output_dir) {
            (Some(path), _) if durable.is_some() => Sink::appended(path)?,
            (Some(path), _) => Sink::file(path)?,
            (None, Some(root)) => Sink::directory(root)?,
            (None, None) => Sink::Stdout,
        };
        let shape = match (cli.format, cli.json, cli.raw, cli.hex) {
            (Some(template), ..) => Shape::Template(template),
            (_, true, ..) => Shape::Json,
            (_, _, true, _) => Shape::Raw,
            (.., true) => Shape::Hex,
            _ => Shape::Plain,
        };
        let zone = TimeZone::system();
        let renderer = Renderer {
            shape,
            end: if cli.null { 0 } else { b'\n' },
            terminal,
            color: terminal && color,
            labels,
            stamp: cli.timestamps.map(|how| Stamp::new(how, zone.clone())),
            zone,
        };
        let plan = Self {
            relay: cli.relay,
            patterns,
            connect_timeout: cli.connect_timeout,
            reconnect: !cli.no_reconnect,
            strict: cli.strict,
            count: cli.count,
            grep: cli.grep,
        };
        Ok((plan, Destination { renderer, sink, durable }, resume))
    }

    /// `channel foo`, `channels foo, bar`, `pattern sensors/**`.
    pub(crate) fn describe(&self) -> String {
        let names: Vec<&str> = self.patterns.iter().map(ChannelPattern::as_str).collect();
        let what = match self.patterns.as_slice() {
            [one] if one.as_channel().is_none() => "pattern",
            [_] => "channel",
            _ => "channels",
        };
        format!("{what} {}", names.join(", "))
    }
}

fn parse_patterns(names: &[String]) -> Result<Vec<ChannelPattern>, Failure> {
    let mut patterns = Vec::new();
    for name in names {
        let pattern: ChannelPattern = name.parse().map_err(|error| {
            let what = format!("invalid value '{}' for '--channel': {error}", name.escape_debug());
            Failure::new(Exit::Usage, what).note(
                "channel names use letters, digits and _ - . ~ : in segments separated by /, for example \
                 sensors/kitchen",
            )
        })?;
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
    }
    Ok(patterns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn plan(line: &str) -> anyhow::Result<(Plan, Destination, Resume)> {
        Plan::new(Cli::parse_from(line.split('|')))
    }

    #[test]
    fn a_channel_that_is_none_is_told_with_its_place_and_what_would_be_one() {
        let error = plan("recv-client|--channel|my channel").unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid value 'my channel' for '--channel': a space is not allowed at position 3\n  \
             channel names use letters, digits and _ - . ~ : in segments separated by /, for example sensors/kitchen"
        );
        assert_eq!(error.downcast_ref::<Failure>().unwrap().exit(), Exit::Usage);
    }

    #[test]
    fn channels_are_named_as_they_were_given_and_none_twice() {
        let describe = |line: &str| plan(line).unwrap().0.describe();
        assert_eq!(describe("recv-client|-c|foo"), "channel foo");
        assert_eq!(describe("recv-client|-c|a/**"), "pattern a/**");
        assert_eq!(describe("recv-client|-c|foo|-c|a/*|-c|foo"), "channels foo, a/*");
    }

    #[test]
    fn a_file_never_gets_what_is_for_terminals() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let (_, destination, _) =
            plan(&format!("recv-client|-c|**|--color|always|-o|{}", out.display())).unwrap();
        let renderer = destination.renderer;
        assert!(!renderer.terminal && !renderer.color && !renderer.labels);
    }
}
