//! The bar of a file that is being sent: by bytes, with the number of messages at its end.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

/// Redraws per second: a person can't follow more.
const HZ: u8 = 10;

/// Columns of a bar where there is no terminal to ask.
const WIDTH: u16 = 80;

/// When bars are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// If stderr is a terminal.
    Auto,
    /// Also into a file or pipe.
    Always,
    /// Not at all.
    Never,
}

/// A bar on stderr.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar for a file of so many bytes, if bars are shown; without a length, a count.
    pub fn start(name: String, length: Option<u64>, when: When) -> Option<Self> {
        let terminal = io::stderr().is_terminal();
        let target = match when {
            When::Never => return None,
            When::Auto if !terminal => return None,
            When::Auto | When::Always if terminal => ProgressDrawTarget::stderr_with_hz(HZ),
            When::Auto | When::Always => ProgressDrawTarget::term_like_with_hz(Box::new(Plain), HZ),
        };
        let template = match length {
            Some(_) => "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {msg}",
            None => "{prefix} {bytes} {bytes_per_sec} {msg}",
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Some(Self(ProgressBar::with_draw_target(length, target).with_style(style).with_prefix(name)))
    }

    /// So many bytes more were given to send.
    pub fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// The file has ended; the bar stays, with the number of its messages.
    pub fn finish(self, messages: String) {
        self.0.finish_with_message(messages);
    }

    /// The bar stays as it is: the file is not sent to its end.
    pub fn abandon(self) {
        self.0.abandon();
    }

    /// Does something while the bar is not on the screen.
    pub fn aside<R>(&self, show: impl FnOnce() -> R) -> R {
        self.0.suspend(show)
    }
}

/// Stderr where it is no terminal, for `--progress always`: the same codes as for one.
#[derive(Debug)]
struct Plain;

impl Plain {
    fn write(text: impl std::fmt::Display) -> io::Result<()> {
        write!(io::stderr().lock(), "{text}")
    }
}

impl TermLike for Plain {
    fn width(&self) -> u16 {
        WIDTH
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        if n > 0 { Self::write(format_args!("\x1b[{n}A")) } else { Ok(()) }
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        if n > 0 { Self::write(format_args!("\x1b[{n}B")) } else { Ok(()) }
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        if n > 0 { Self::write(format_args!("\x1b[{n}C")) } else { Ok(()) }
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        if n > 0 { Self::write(format_args!("\x1b[{n}D")) } else { Ok(()) }
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        Self::write(format_args!("{s}\n"))
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        Self::write(s)
    }

    fn clear_line(&self) -> io::Result<()> {
        Self::write("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        io::stderr().flush()
    }
}
