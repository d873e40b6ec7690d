//! Blocks of input → the sender: splitting, `--json`, `--rate`, and what is too big. It stops at the first
//! problem; what came before is delivered.

use bytes::Bytes;
use shared::{ChannelId, Kind, sender::Alias};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    console::Console,
    failure::{Problem, messages},
    input::Block,
    json,
    outbox::Message,
    pace::{Pace, Rate},
    progress::{Bar, When},
    sender::Sender,
    split::{Piece, Split, Splitter},
};

/// How input is understood.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to; with `--json` each line may say it.
    pub channel: Option<ChannelId>,
    /// How it is cut.
    pub split: Split,
    /// Whether each message is an object.
    pub json: bool,
    /// How fast it is sent.
    pub rate: Option<Rate>,
    /// Whether files have bars.
    pub progress: When,
}

/// An input on its way to the sender.
#[derive(Debug)]
pub struct Feed {
    blocks: mpsc::Receiver<Block>,
    options: Options,
    splitter: Splitter,
    pace: Option<Pace>,
    /// A message that came whole and waits for its time.
    whole: Option<Bytes>,
    /// The channel that was used last.
    last: Option<(ChannelId, Alias)>,
    taken: u64,
    skipped: u64,
    taken_before_file: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Reading,
    /// An input has ended; its bar is to be finished when all of it is taken.
    Ending,
    Ended,
    Stopped(Problem),
}

/// What the feed waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Room for more.
    Room,
    /// A [`Block`].
    Block,
    /// The time.
    Until(Instant),
    /// Nothing: it has ended, or stopped for a problem.
    Nothing,
}

impl Feed {
    /// A feed of what the reading thread brings.
    pub fn new(blocks: mpsc::Receiver<Block>, options: Options) -> Self {
        Self {
            blocks,
            splitter: Splitter::new(options.split),
            pace: options.rate.map(Pace::new),
            options,
            whole: None,
            last: None,
            taken: 0,
            skipped: 0,
            taken_before_file: 0,
            stage: Stage::Reading,
        }
    }

    /// The next block; for when it is what is needed. May be dropped and called again.
    pub async fn recv(&mut self) -> Option<Block> {
        self.blocks.recv().await
    }

    /// The next block, if it is there already.
    pub fn try_recv(&mut self) -> Option<Block> {
        self.blocks.try_recv().ok()
    }

    /// Takes the block that was received.
    pub fn accept(&mut self, block: Option<Block>, console: &mut Console) {
        match block {
            None => self.stage = Stage::Ended,
            Some(Block::Message(message)) => self.whole = Some(message),
            Some(Block::Begin(name, length)) => {
                self.taken_before_file = self.taken;
                console.set_bar(Bar::start(name, length, self.options.progress));
            }
            Some(Block::Data(bytes)) => {
                self.splitter.feed(bytes);
            }
            Some(Block::End) => {
                self.splitter.end();
                self.stage = Stage::Ending;
            }
            Some(Block::Failed(name, reason)) => self.stop(Problem::Input { name, reason }),
        }
    }

    /// Gives the sender as much as can be; what it needs to go on.
    pub fn pump(&mut self, sender: &mut Sender, console: &mut Console) -> Need {
        let need = self.fill(sender, console);
        show_progress(&mut self.splitter, console);
        need
    }

    fn fill(&mut self, sender: &mut Sender, console: &mut Console) -> Need {
        loop {
            match self.stage {
                Stage::Ended | Stage::Stopped(_) => return Need::Nothing,
                Stage::Reading | Stage::Ending => {}
            }
            if !sender.has_room() {
                return Need::Room;
            }
            if let Some(pace) = &self.pace
                && let Err(until) = pace.due(Instant::now())
            {
                return Need::Until(until);
            }
            match self.take(sender) {
                Ok(true) => {}
                Ok(false) if matches!(self.stage, Stage::Ending) => {
                    let count = self.taken - self.taken_before_file;
                    show_progress(&mut self.splitter, console);
                    console.end_bar(Some(messages(count)));
                    self.stage = Stage::Reading;
                }
                Ok(false) => return Need::Block,
                Err(problem) => self.stop(problem),
            }
        }
    }

    /// Takes no more: a problem came from elsewhere. The first one counts.
    pub fn stop(&mut self, problem: Problem) {
        if !matches!(self.stage, Stage::Stopped(_)) {
            self.blocks.close();
            self.stage = Stage::Stopped(problem);
        }
    }

    /// Whether nothing more will come.
    pub fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended | Stage::Stopped(_))
    }

    /// Messages that were taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Lines of `--json` that are no messages.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The problem that it stopped for.
    pub fn into_problem(self) -> Option<Problem> {
        match self.stage {
            Stage::Stopped(problem) => Some(problem),
            Stage::Reading | Stage::Ending | Stage::Ended => None,
        }
    }

    /// Takes the next message that there is; false if there is none.
    fn take(&mut self, sender: &mut Sender) -> Result<bool, Problem> {
        let max = sender.max_message();
        let number = self.taken + self.skipped + 1;
        let too_big = |size| Problem::TooBig { number, size, max: max as u64 };
        let limit = if self.options.json { max * json::GROWTH + json::OVERHEAD } else { max };
        let whole = self.whole.take();
        let piece = match &whole {
            Some(message) if message.len() > limit => Piece::TooLong(message.len() as u64),
            Some(message) => Piece::Message(message),
            None => match self.splitter.next(limit) {
                Some(piece) => piece,
                None => return Ok(false),
            },
        };
        let bytes = match piece {
            Piece::Message(bytes) => bytes,
            Piece::TooLong(size) => return Err(too_big(size)),
        };
        if !self.options.json {
            let channel = self.options.channel.as_ref();
            let message = Message { kind: Kind::of(bytes), source_time: None, payload: bytes };
            push(sender, &mut self.last, channel, message, number)?;
        } else if let Some(line) =
            json::parse(bytes).map_err(|reason| Problem::NoMessage { number, reason })?
        {
            if line.payload.len() > max {
                return Err(too_big(line.payload.len() as u64));
            }
            let channel = self.options.channel.as_ref().or(line.channel.as_ref());
            let message = Message { kind: line.kind, source_time: line.time, payload: &line.payload };
            push(sender, &mut self.last, channel, message, number)?;
        } else {
            self.skipped += 1;
            return Ok(true);
        }
        self.taken += 1;
        if let Some(pace) = &mut self.pace {
            pace.count(Instant::now());
        }
        Ok(true)
    }
}

fn show_progress(splitter: &mut Splitter, console: &Console) {
    let used = splitter.take_used();
    if let Some(bar) = console.bar() {
        bar.advance(used);
    }
}

/// Hands a message to the sender, under the alias of its channel.
fn push(
    sender: &mut Sender,
    last: &mut Option<(ChannelId, Alias)>,
    channel: Option<&ChannelId>,
    message: Message<'_>,
    number: u64,
) -> Result<(), Problem> {
    let no_message = |reason: &str| Problem::NoMessage { number, reason: reason.into() };
    let channel = channel.ok_or_else(|| no_message("it names no channel, and neither does --channel"))?;
    let alias = match last {
        Some((used, alias)) if used == channel => *alias,
        _ => sender.outbox.alias(channel).ok_or_else(|| no_message("there are more than 65536 channels"))?,
    };
    if last.as_ref().is_none_or(|(used, _)| used != channel) {
        *last = Some((channel.clone(), alias));
    }
    sender.push(alias, message);
    Ok(())
}
