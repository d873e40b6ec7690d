//! What is said on stderr beside the messages: notices, warnings, errors.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use anstream::AutoStream;
use clap::{
    ColorChoice,
    builder::styling::{AnsiColor, Style},
};
use shared::units::format_duration;

/// Says things on stderr, as much as was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Notices {
    volume: Volume,
    terminal: bool,
    color: anstream::ColorChoice,
}

/// Who wants to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Who asked for more.
    Detail,
    /// A person, and no script's log.
    Greeting,
    /// Everybody: a change of state.
    Notice,
    /// Also who asked for quiet: something is not as it should be.
    Warning,
}

/// Something to be said between two messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remark {
    /// Bytes of the batch that stand before it.
    pub(crate) at: usize,
    /// Who wants to know it.
    pub(crate) weight: Weight,
    /// One line.
    pub(crate) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Volume {
    Quiet,
    Normal,
    Verbose,
}

impl Notices {
    /// As `--quiet`, `--verbose` and `--color` say.
    pub(crate) fn new(quiet: bool, verbose: bool, color: ColorChoice) -> Self {
        let volume = match (quiet, verbose) {
            (true, _) => Volume::Quiet,
            (_, true) => Volume::Verbose,
            _ => Volume::Normal,
        };
        let stderr = io::stderr();
        Self { volume, terminal: stderr.is_terminal(), color: color_choice(color, &stderr) }
    }

    /// Says it to who wants to know.
    pub(crate) fn tell(&self, weight: Weight, text: impl fmt::Display) {
        match (weight, self.volume) {
            (Weight::Warning, _) => self.say(AnsiColor::Yellow.on_default().bold(), "warning: ", text),
            (_, Volume::Verbose) | (Weight::Notice, Volume::Normal) => self.say(Style::new(), "", text),
            (Weight::Greeting, Volume::Normal) if self.terminal => self.say(Style::new(), "", text),
            (Weight::Detail | Weight::Greeting, Volume::Normal) | (_, Volume::Quiet) => {}
        }
    }

    /// Why the process ends.
    pub(crate) fn error(&self, text: impl fmt::Display) {
        self.say(AnsiColor::Red.on_default().bold(), "error: ", text);
    }

    /// What was asked for on stderr.
    pub(crate) fn line(&self, text: impl fmt::Display) {
        self.say(Style::new(), "", text);
    }

    /// Leaves the line in which a terminal has shown `^C`.
    pub(crate) fn leave_line(&self) {
        if self.terminal && self.volume != Volume::Quiet {
            self.say(Style::new(), "", "");
        }
    }

    fn say(&self, style: Style, label: &str, text: impl fmt::Display) {
        let mut stderr = AutoStream::new(io::stderr().lock(), self.color);
        // With stderr closed there is nobody to tell.
        let _ = writeln!(stderr, "{style}{label}{style:#}{text}");
    }
}

/// Whether escapes are welcome there: `--color`, else `NO_COLOR`, `CLICOLOR_FORCE`, `TERM` and what it is.
pub(crate) fn color_choice<S: anstream::stream::RawStream>(
    asked: ColorChoice,
    stream: &S,
) -> anstream::ColorChoice {
    match asked {
        ColorChoice::Auto => AutoStream::choice(stream),
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    }
}

/// How long something took, for people: `350ms`, `2.1s`, `41s`, `1h2m3s`.
pub(crate) fn elapsed(duration: Duration) -> String {
    match duration.as_millis() {
        ms @ 0..1_000 => format!("{ms}ms"),
        ms @ 1_000..10_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        _ => format_duration(Duration::from_secs(duration.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_as_exact_as_it_is_short() {
        let text = |ms| elapsed(Duration::from_millis(ms));
        assert_eq!([text(0), text(350), text(2_149), text(41_900)], ["0ms", "350ms", "2.1s", "41s"]);
        assert_eq!(text(3_723_000), "1h2m3s");
    }
}
