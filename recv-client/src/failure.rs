//! A failure as the user reads it: what happened, a line that helps, and the exit code. Whatever else goes
//! wrong travels as a plain [`anyhow::Error`] and ends with [`Exit::Failure`].

use std::{fmt, io};

use shared::client::Exit;

/// What is printed after `error: `, and what the process ends with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    note: Option<String>,
}

impl Failure {
    /// What happened, in one line.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), note: None }
    }

    /// With something to paste.
    pub(crate) fn hint(self, hint: impl fmt::Display) -> Self {
        self.note(format!("hint: {hint}"))
    }

    /// With a second line, indented.
    pub(crate) fn note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    /// What the process ends with.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.note {
            Some(note) => write!(f, "\n  {note}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// The system's words for an error, without its number: `connection refused`.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => "unknown error".into(),
    }
}

/// Text from the other side, made safe for a terminal and short: its first line, at most 200 characters.
pub(crate) fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_error_reads_as_a_sentence_without_its_number() {
        assert_eq!(reason(&io::Error::from_raw_os_error(111)), "connection refused");
    }

    #[test]
    fn a_hint_stands_on_a_line_of_its_own() {
        let failure = Failure::new(Exit::Unreachable, "cannot reach it").hint("start one");
        assert_eq!(failure.to_string(), "cannot reach it\n  hint: start one");
    }

    #[test]
    fn text_from_the_relay_cannot_drive_the_terminal() {
        assert_eq!(one_line("no\x1b[2J such\nsecond"), "no[2J such");
    }
}
