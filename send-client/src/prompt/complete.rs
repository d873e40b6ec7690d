//! What Tab offers at the prompt: commands, the channels used after `/channel`, paths after `/file`. It also sees
//! every change of the line, and so knows whether it was empty when Ctrl-C came.

use std::sync::atomic::{AtomicBool, Ordering};

use rustyline::{
    Context, Helper,
    completion::{Completer as Complete, FilenameCompleter, Pair},
    highlight::Highlighter,
    hint::Hinter,
    validate::Validator,
};
use shared::ChannelId;

use super::command::COMMANDS;

/// The helper of the line editor.
#[expect(missing_debug_implementations, reason = "the completer of paths has none")]
pub struct Completer {
    paths: FilenameCompleter,
    channels: Vec<String>,
    empty: AtomicBool,
}

impl Completer {
    /// Offers this channel from now on.
    pub fn used(&mut self, channel: &ChannelId) {
        if !self.channels.iter().any(|used| used == channel.as_str()) {
            self.channels.push(channel.to_string());
        }
    }

    /// Whether the line was empty when it was last changed.
    pub fn line_was_empty(&self) -> bool {
        self.empty.load(Ordering::Relaxed)
    }
}

impl Default for Completer {
    fn default() -> Self {
        Self { paths: FilenameCompleter::new(), channels: Vec::new(), empty: AtomicBool::new(true) }
    }
}

impl Complete for Completer {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..at];
        if typed.starts_with("/file ") {
            return self.paths.complete(line, at, context);
        }
        if let Some(name) = typed.strip_prefix("/channel ") {
            let fitting = self.channels.iter().filter(|channel| channel.starts_with(name));
            let pairs =
                fitting.map(|channel| Pair { display: channel.clone(), replacement: channel.clone() });
            return Ok((at - name.len(), pairs.collect()));
        }
        if typed.starts_with('/') && !typed.contains(' ') {
            let fitting = COMMANDS.iter().filter(|(word, ..)| word.starts_with(typed));
            let pairs = fitting.map(|(word, argument, _)| Pair {
                display: (*word).into(),
                replacement: if argument.is_empty() { (*word).into() } else { format!("{word} ") },
            });
            return Ok((0, pairs.collect()));
        }
        Ok((at, Vec::new()))
    }
}

impl Hinter for Completer {
    type Hint = String;

    fn hint(&self, line: &str, _at: usize, _context: &Context<'_>) -> Option<String> {
        self.empty.store(line.is_empty(), Ordering::Relaxed);
        None
    }
}

impl Highlighter for Completer {}
impl Validator for Completer {}
impl Helper for Completer {}

#[cfg(test)]
mod tests {
    use super::*;
    use rustyline::history::MemHistory;

    fn offered(line: &str) -> Vec<String> {
        let mut completer = Completer::default();
        completer.used(&"sensors/kitchen".parse().unwrap());
        completer.used(&"sensors/kitchen".parse().unwrap());
        let history = MemHistory::new();
        let (_, pairs) = completer.complete(line, line.len(), &Context::new(&history)).unwrap();
        pairs.into_iter().map(|pair| pair.replacement).collect()
    }

    #[test]
    fn tab_offers_commands_channels_and_nothing_inside_a_message() {
        assert_eq!(offered("/ch"), ["/channel ", "/channels"]);
        assert_eq!(offered("/channel se"), ["sensors/kitchen"]);
        assert!(offered("/channel x").is_empty());
        assert!(offered("hello /ch").is_empty());
    }

    #[test]
    fn tab_offers_paths_after_file() {
        assert!(offered("/file Cargo.to").iter().any(|path| path.ends_with("Cargo.toml")));
    }
}
