//! The side of the person who types: reading lines, in a thread of its own, and asking the sender for what they
//! mean. It waits for each answer, so that an answer stands before the next prompt.

use std::{
    fs,
    io::{self, BufRead},
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    thread,
};

use bytes::Bytes;
use rustyline::{Behavior, Config, Editor, error::ReadlineError, history::FileHistory};
use shared::ChannelId;
use tokio::sync::{mpsc, oneshot};

use super::{
    command::{self, Typed},
    complete::Completer,
    printer::Printer,
};
use crate::{console::write_stderr, failure::messages};

/// Lines that the history keeps.
const HISTORY: usize = 1000;

/// What the person wants.
#[derive(Debug)]
pub enum Ask {
    /// Send these messages.
    Send(Vec<Bytes>),
    /// Send to another channel from now on.
    Channel(ChannelId),
    /// Tell the channels used.
    Channels,
    /// Send the lines of a file.
    File(PathBuf),
    /// Tell what was sent.
    Stats,
    /// Wait for confirmations and leave.
    Leave,
    /// Leave now.
    Interrupt,
}

/// A wish, and where its answer goes.
#[derive(Debug)]
pub struct Request {
    /// What is wanted.
    pub ask: Ask,
    /// The answer; the next prompt waits for it.
    pub reply: oneshot::Sender<Reply>,
}

/// An answer.
#[derive(Debug, Default)]
pub struct Reply {
    /// What to show; nothing if it is empty.
    pub text: String,
    /// The channel that is sent to from now on, if it is another one.
    pub channel: Option<ChannelId>,
}

impl Reply {
    /// Shows a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), channel: None }
    }
}

/// Where lines come from.
enum Lines {
    /// A terminal that can edit.
    Edited(Box<Editor<Completer, FileHistory>>),
    /// One that can't, such as `TERM=dumb`.
    Plain,
}

enum Read {
    Line(String),
    Interrupted { empty: bool },
    End,
}

/// Reads what a person types for a channel.
#[expect(missing_debug_implementations, reason = "the line editor's state is of no use in a log")]
pub struct Typist {
    lines: Lines,
    history: Option<PathBuf>,
    requests: mpsc::Sender<Request>,
    channel: ChannelId,
}

/// The person has left, or there is nobody left to ask.
struct Gone;

impl Typist {
    /// A typist, what comes from it, and a printer; that is none where the terminal can't edit lines.
    pub fn new(channel: ChannelId) -> (Self, mpsc::Receiver<Request>, Option<Printer>) {
        let (requests, receiver) = mpsc::channel(1);
        let (lines, printer) = match edited() {
            Some((lines, printer)) => (lines, Some(printer)),
            None => (Lines::Plain, None),
        };
        (Self { lines, history: history_file(), requests, channel }, receiver, printer)
    }

    /// Begins to read lines.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(self) -> io::Result<()> {
        // Ends with Ctrl-D or Ctrl-C; while it waits for a key it ends with the process.
        thread::Builder::new().name("prompt".into()).spawn(move || self.run())?;
        Ok(())
    }

    fn run(mut self) {
        if let (Lines::Edited(editor), Some(path)) = (&mut self.lines, &self.history) {
            // A first start has no history; one that can't be read is no reason not to send.
            let _none = editor.load_history(path);
        }
        let mut interrupted = false;
        loop {
            let prompt = format!("{}> ", self.channel);
            let obeyed = match self.lines.read(&prompt) {
                Read::Line(line) => {
                    interrupted = false;
                    self.remember(&line);
                    self.obey(command::parse(&line))
                }
                Read::Interrupted { empty: true } if interrupted => {
                    let _gone = self.ask(Ask::Interrupt);
                    return;
                }
                Read::Interrupted { empty } => {
                    interrupted = empty;
                    if empty {
                        write_stderr("Ctrl-C once more leaves at once, Ctrl-D waits for confirmations\n");
                    }
                    Ok(())
                }
                Read::End => self.obey(Typed::Quit),
            };
            if obeyed.is_err() {
                return;
            }
        }
    }

    fn obey(&mut self, typed: Typed) -> Result<(), Gone> {
        match typed {
            Typed::Nothing => Ok(()),
            Typed::Message(text) => self.ask(Ask::Send(vec![text.into()])),
            Typed::Hex(bytes) => self.ask(Ask::Send(vec![bytes.into()])),
            Typed::Pasted(lines) => self.pasted(lines),
            Typed::Paste => self.paste(),
            Typed::Channel(channel) => self.ask(Ask::Channel(channel)),
            Typed::Channels => self.ask(Ask::Channels),
            Typed::File(path) => self.ask(Ask::File(path)),
            Typed::Stats => self.ask(Ask::Stats),
            Typed::Help => show(&command::help()),
            Typed::Wrong(text) => show(&text),
            Typed::Clear => self.lines.clear(),
            Typed::Quit => self.ask(Ask::Leave).and(Err(Gone)),
        }
    }

    /// Asks what several lines at once are: that many messages, or one.
    fn pasted(&mut self, lines: Vec<String>) -> Result<(), Gone> {
        let question = format!("send {}? [Y/n/(o)ne] ", messages(lines.len() as u64));
        match self.lines.read(&question) {
            Read::Line(answer) => match answer.trim().to_lowercase().as_str() {
                "" | "y" | "yes" => self.ask(Ask::Send(lines.into_iter().map(Into::into).collect())),
                "o" | "one" => self.ask(Ask::Send(vec![lines.join("\n").into()])),
                _ => show("not sent"),
            },
            Read::Interrupted { .. } | Read::End => show("not sent"),
        }
    }

    /// Reads lines up to a dot alone; they are one message.
    fn paste(&mut self) -> Result<(), Gone> {
        show("what follows is one message, up to a line with only a dot; Ctrl-C drops it")?;
        let mut text = Vec::new();
        loop {
            match self.lines.read("... ") {
                Read::Line(line) if line == "." => break,
                Read::Line(line) => text.push(line),
                Read::Interrupted { .. } => return show("not sent"),
                Read::End => break,
            }
        }
        if text.is_empty() {
            show("not sent: it is empty")
        } else {
            self.ask(Ask::Send(vec![text.join("\n").into()]))
        }
    }

    fn ask(&mut self, ask: Ask) -> Result<(), Gone> {
        let (reply, answer) = oneshot::channel();
        self.requests.blocking_send(Request { ask, reply }).map_err(|_| Gone)?;
        let Reply { text, channel } = answer.blocking_recv().map_err(|_| Gone)?;
        if let Some(channel) = channel {
            if let Lines::Edited(editor) = &mut self.lines
                && let Some(completer) = editor.helper_mut()
            {
                completer.used(&channel);
            }
            self.channel = channel;
        }
        if text.is_empty() { Ok(()) } else { show(&text) }
    }

    /// Keeps a line in the history, unless it begins with a space.
    fn remember(&mut self, line: &str) {
        let (Lines::Edited(editor), Some(path)) = (&mut self.lines, &self.history) else { return };
        if editor.add_history_entry(line).unwrap_or(false) {
            let directory =
                path.parent().map(|parent| fs::DirBuilder::new().recursive(true).mode(0o700).create(parent));
            // A history that can't be kept is no reason not to send.
            let _kept = directory.map(|_created| editor.append_history(path));
        }
    }
}

impl Lines {
    fn read(&mut self, prompt: &str) -> Read {
        match self {
            Self::Edited(editor) => match editor.readline(prompt) {
                Ok(line) => Read::Line(line),
                Err(ReadlineError::Interrupted) => {
                    Read::Interrupted { empty: editor.helper().is_none_or(Completer::line_was_empty) }
                }
                Err(_) => Read::End,
            },
            Self::Plain => {
                write_stderr(prompt);
                let mut line = String::new();
                match io::stdin().lock().read_line(&mut line) {
                    Ok(1..) => {
                        let end = if line.ends_with("\r\n") { 2 } else { usize::from(line.ends_with('\n')) };
                        line.truncate(line.len() - end);
                        Read::Line(line)
                    }
                    Ok(0) | Err(_) => {
                        write_stderr("\n");
                        Read::End
                    }
                }
            }
        }
    }

    fn clear(&mut self) -> Result<(), Gone> {
        if let Self::Edited(editor) = self {
            // A screen that stays as it is harms nobody.
            let _uncleared = editor.clear_screen();
        }
        Ok(())
    }
}

/// A line editor on the terminal, whatever stdout and stderr are.
fn edited() -> Option<(Lines, Printer)> {
    let config = Config::builder()
        .behavior(Behavior::PreferTerm)
        .history_ignore_space(true)
        .auto_add_history(false)
        .max_history_size(HISTORY)
        .ok()?
        .build();
    let mut editor = Editor::with_config(config).ok()?;
    editor.set_helper(Some(Completer::default()));
    let printer = Printer::start(editor.create_external_printer().ok()?).ok()?;
    Some((Lines::Edited(Box::new(editor)), printer))
}

/// `$XDG_STATE_HOME/relay/send-client.history`, or under `~/.local/state`.
fn history_file() -> Option<PathBuf> {
    use etcetera::BaseStrategy;
    let base = etcetera::base_strategy::Xdg::new().ok()?;
    Some(base.state_dir()?.join("relay").join("send-client.history"))
}

fn show(text: &str) -> Result<(), Gone> {
    write_stderr(&format!("{text}\n"));
    Ok(())
}
