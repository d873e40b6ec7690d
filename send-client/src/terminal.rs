//! The terminal's own settings: kept, changed for the prompt, and put back however the program leaves.

use std::io;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::console::write_stderr;

/// Ends bracketed paste, and the line that was being typed.
const PASTE_OFF: &str = "\x1b[?2004l\n";

/// How the terminal was; it is so again when this is dropped.
#[derive(Debug)]
pub struct Terminal(Option<Termios>);

impl Terminal {
    /// Changes the terminal so that what is typed between two prompts waits for the next one as it is. With lines
    /// edited by the terminal, a Ctrl-D that comes then would be lost: the line editor switches that off for
    /// each prompt, and the terminal turns a waiting end of input into a zero byte.
    pub fn keep_typed_ahead() -> Self {
        let Ok(before) = tcgetattr(io::stdin()) else { return Self(None) };
        let mut settings = before.clone();
        settings.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        // Without it what is typed too early may be lost, and nothing else.
        let _unchanged = tcsetattr(io::stdin(), OptionalActions::Drain, &settings);
        Self(Some(before))
    }

    /// Leaves while a line is being typed.
    pub fn leave_line(&self) {
        if self.0.is_some() {
            write_stderr(PASTE_OFF);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that is gone needs nothing.
            let _gone = tcsetattr(io::stdin(), OptionalActions::Drain, before);
        }
    }
}
