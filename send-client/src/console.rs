//! What people get to see: notices, warnings and errors, all on stderr, above a prompt or a bar if there is one.
//! A stderr that is closed is no reason to stop.

use std::io::{self, IsTerminal, Write};

use clap::builder::styling::{AnsiColor, Style};

use crate::{failure::Failure, progress::Bar, prompt::printer::Printer};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();

/// Where texts for people go.
#[derive(Debug)]
pub struct Console {
    quiet: bool,
    verbose: bool,
    prompt: Option<Printer>,
    bar: Option<Bar>,
}

impl Console {
    /// With `-q` there are no notices; with `-v` there are more.
    pub fn new(quiet: bool, verbose: bool) -> Self {
        Self { quiet, verbose, prompt: None, bar: None }
    }

    /// A change of state.
    pub fn notice(&self, text: &str) {
        if !self.quiet {
            self.show(&format!("{text}\n"));
        }
    }

    /// Something for `-v`.
    pub fn detail(&self, text: &str) {
        if self.verbose {
            self.notice(text);
        }
    }

    /// The last word: for people at a terminal, and for `-v`.
    pub fn summary(&self, text: &str) {
        if self.verbose || io::stderr().is_terminal() {
            self.notice(text);
        }
    }

    /// Something that may be wrong; also with `-q`.
    pub fn warning(&self, text: &str) {
        self.show(&format!("{WARNING}warning:{WARNING:#} {text}\n"));
    }

    /// What went wrong, and what can be done.
    pub fn error(&self, failure: &Failure) {
        let advice = failure.advice.as_ref().map_or_else(String::new, |line| format!("  {line}\n"));
        self.show(&format!("{ERROR}error:{ERROR:#} {}\n{advice}", failure.message));
    }

    /// From now on texts go above this prompt.
    pub fn set_prompt(&mut self, printer: Printer) {
        self.prompt = Some(printer);
    }

    /// The prompt is gone: what it was told is shown, and from now on texts go straight to stderr.
    pub fn end_prompt(&mut self) {
        if let Some(printer) = self.prompt.take() {
            printer.finish();
        }
    }

    /// From now on texts go above this bar, which comes only where no line can be typed.
    pub fn set_bar(&mut self, bar: Option<Bar>) {
        self.bar = bar;
    }

    /// The bar there is.
    pub fn bar(&self) -> Option<&Bar> {
        self.bar.as_ref()
    }

    /// Ends the bar, if there is one, with this text; without one it stays as it is.
    pub fn end_bar(&mut self, text: Option<String>) {
        match (self.bar.take(), text) {
            (Some(bar), Some(text)) => bar.finish(text),
            (Some(bar), None) => bar.abandon(),
            (None, _) => {}
        }
    }

    fn show(&self, text: &str) {
        match (&self.bar, &self.prompt) {
            (Some(bar), _) => bar.aside(|| write_stderr(text)),
            (None, Some(printer)) => printer.print(text),
            (None, None) => write_stderr(text),
        }
    }
}

/// Writes to stderr, in colours if those are wanted.
pub fn write_stderr(text: &str) {
    // Nobody is left to be told that stderr is closed.
    let _closed = anstream::stderr().lock().write_all(text.as_bytes());
}
