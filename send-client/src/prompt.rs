//! The prompt, seen from the sender: it answers what the person asks, and tells what happens meanwhile.

pub mod command;
pub mod complete;
pub mod editor;
pub mod printer;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use shared::{ChannelId, Kind, client::Exit, sender::Alias, units::format_size};
use tokio::{
    sync::{mpsc, oneshot},
    time::{self, sleep_until},
};

use self::editor::{Ask, Reply, Request, Typist};
use crate::{
    Settings,
    console::Console,
    failure::{Failure, Problem, messages, reason},
    feed::{Feed, Need},
    input::{Source, read},
    notices,
    outbox::Message,
    patience::Patience,
    sender::{Happening, Sender},
    signals::Signals,
    spool::Spool,
    terminal::Terminal,
};

/// A prompt in use.
struct Prompt<'a> {
    sender: &'a mut Sender,
    console: &'a mut Console,
    settings: &'a Settings,
    requests: mpsc::Receiver<Request>,
    alias: Alias,
    began: Instant,
    busy: Busy,
    /// How long leaving waits for a relay that is away.
    patience: Patience,
}

/// What the person waits for.
enum Busy {
    No,
    /// A channel is being opened.
    Opening(Alias, ChannelId, oneshot::Sender<Reply>),
    /// What was typed is on its way into the spool.
    Keeping(oneshot::Sender<Reply>),
    /// A file is being sent.
    File(Box<Feed>, oneshot::Sender<Reply>),
    /// Confirmations.
    Leaving,
}

/// Reads and sends lines until the person leaves.
///
/// # Errors
/// As [`Sender::next`]; and messages that stay unconfirmed (exit code 6).
pub async fn run(
    sender: &mut Sender,
    console: &mut Console,
    settings: &Settings,
    signals: &mut Signals,
    channel: ChannelId,
) -> Result<Exit, Failure> {
    let Some(alias) = sender.outbox.alias(&channel) else {
        return Err(Failure::new(Exit::Failure, "no channel can be opened"));
    };
    let receivers = tokio::select! {
        opened = first_open(sender, console, alias) => opened?,
        exit = signals.recv() => return Ok(exit),
    };
    const KEYS: &str = "Enter sends, /help for commands, Ctrl-D to leave";
    console.notice(&match receivers {
        Some(receivers) => {
            let receivers = count_receivers(receivers);
            format!("connected to {}, channel {channel}; {receivers}. {KEYS}", sender.relay())
        }
        None => format!("channel {channel}; what is typed goes into the spool. {KEYS}"),
    });
    let (typist, requests, printer) = Typist::new(channel);
    let terminal = printer.map(|printer| {
        console.set_prompt(printer);
        Terminal::keep_typed_ahead()
    });
    let failed = |error| Failure::new(Exit::Failure, format!("no thread for the prompt: {}", reason(&error)));
    typist.start().map_err(failed)?;
    let patience = Patience::new(settings.spool_wait);
    let (began, busy) = (Instant::now(), Busy::No);
    let mut prompt = Prompt { sender, console, settings, requests, alias, began, busy, patience };
    let ended = prompt.run(signals).await;
    if let Some(terminal) = terminal
        && !matches!(prompt.busy, Busy::Leaving)
    {
        terminal.leave_line();
    }
    prompt.console.end_prompt();
    ended
}

/// Waits until the first channel is open; how many receivers it has. With a spool also until it is known that the
/// relay is away.
async fn first_open(sender: &mut Sender, console: &Console, alias: Alias) -> Result<Option<u32>, Failure> {
    loop {
        match sender.next().await? {
            Happening::Opened(opened, receivers) if opened == alias => return Ok(Some(receivers)),
            happening @ Happening::Unreachable(_) => {
                notices::tell(&happening, sender, console);
                return Ok(None);
            }
            Happening::ChannelRefused(_, _, refusal) => return Err(Failure::refused(&refusal)),
            happening => notices::tell(&happening, sender, console),
        }
    }
}

impl Prompt<'_> {
    async fn run(&mut self, signals: &mut Signals) -> Result<Exit, Failure> {
        loop {
            let need = self.pump();
            if matches!(self.busy, Busy::Leaving) && self.is_done() {
                return Ok(Exit::Done);
            }
            self.reply_if_kept();
            let leaving = matches!(self.busy, Busy::Leaving);
            let grace = if leaving { self.patience.until(self.sender) } else { None };
            let free = matches!(self.busy, Busy::No);
            tokio::select! {
                biased;
                signal = signals.recv() => {
                    if !self.stop_file(signal) {
                        return Ok(signal);
                    }
                }
                request = self.requests.recv(), if free => match request {
                    Some(Request { ask: Ask::Interrupt, .. }) => {
                        self.busy = Busy::Leaving;
                        return Ok(Exit::Interrupted);
                    }
                    Some(Request { ask, reply }) => self.answer(ask, reply),
                    None => self.busy = Busy::Leaving,
                },
                happening = self.sender.next() => {
                    let happening = happening?;
                    self.happened(happening);
                }
                block = recv(&mut self.busy), if need == Need::Block => {
                    if let Busy::File(feed, _) = &mut self.busy {
                        feed.accept(block, self.console);
                    }
                }
                () = sleep_until(until(need)), if matches!(need, Need::Until(_)) => {}
                () = sleep_until(grace.unwrap_or_else(time::Instant::now)), if grace.is_some() => {
                    return Err(self.sender.incomplete(Failure::new(Exit::Incomplete, "the relay is away")));
                }
            }
        }
    }

    fn answer(&mut self, ask: Ask, reply: oneshot::Sender<Reply>) {
        let answer = match ask {
            Ask::Send(payloads) => return self.send(&payloads, reply),
            Ask::Channel(channel) => return self.change_channel(channel, reply),
            Ask::File(path) => return self.send_file(path, reply),
            Ask::Channels => Reply::text(self.channels()),
            Ask::Stats => Reply::text(self.stats()),
            Ask::Leave | Ask::Interrupt => {
                self.busy = Busy::Leaving;
                Reply::default()
            }
        };
        // The person may have left meanwhile.
        let _left = reply.send(answer);
    }

    fn send(&mut self, payloads: &[Bytes], reply: oneshot::Sender<Reply>) {
        let max = self.sender.max_message();
        for (index, payload) in payloads.iter().enumerate() {
            let refusal = if payload.len() > max {
                let (size, max) = (payload.len() as u64, max as u64);
                let number = index as u64 + 1;
                Problem::TooBig { number, size, max }.into_failure(index as u64).message
            } else if !self.sender.has_room() {
                let waiting = self.sender.spool().map_or(crate::outbox::MAX_HELD as u64, Spool::limit);
                let waiting = format_size(waiting);
                format!(
                    "{waiting} are waiting already; {} of these {} sent",
                    index,
                    if index == 1 { "is" } else { "are" }
                )
            } else {
                let message = Message { kind: Kind::of(payload), source_time: None, payload };
                self.sender.push(self.alias, message);
                continue;
            };
            // The person may have left meanwhile.
            let _left = reply.send(Reply::text(format!("not sent: {refusal}")));
            return;
        }
        self.busy = Busy::Keeping(reply);
        self.reply_if_kept();
    }

    /// Answers what was typed once it can't be lost any more.
    fn reply_if_kept(&mut self) {
        if !matches!(self.busy, Busy::Keeping(_)) || !self.sender.is_kept() {
            return;
        }
        if let Busy::Keeping(reply) = std::mem::replace(&mut self.busy, Busy::No) {
            let waiting = messages(self.sender.waiting());
            let _left = reply.send(match self.sender.spool() {
                _ if self.sender.is_up() => Reply::default(),
                Some(_) => Reply::text(format!("kept in the spool, {waiting} waiting")),
                None => Reply::text(format!("not sent yet, {waiting} waiting")),
            });
        }
    }

    fn change_channel(&mut self, channel: ChannelId, reply: oneshot::Sender<Reply>) {
        let known = self.sender.outbox.channels().any(|used| *used == channel);
        let Some(alias) = self.sender.outbox.alias(&channel) else {
            let _left = reply.send(Reply::text("there are too many channels on this connection"));
            return;
        };
        if self.sender.is_up() && !known {
            self.busy = Busy::Opening(alias, channel, reply);
            return;
        }
        self.alias = alias;
        let text = if self.sender.is_up() {
            String::new()
        } else {
            "the relay is away; it will be opened later".into()
        };
        let _left = reply.send(Reply { text, channel: Some(channel) });
    }

    fn send_file(&mut self, path: PathBuf, reply: oneshot::Sender<Reply>) {
        let source = Source::File(path);
        let channel = self.sender.outbox.channel(self.alias).cloned();
        let blocks = source
            .check()
            .map_err(|failure| failure.message)
            .and_then(|()| read(vec![source], 1).map_err(|error| error.to_string()));
        match blocks {
            Ok(blocks) => {
                let options = crate::feed::Options { channel, json: false, ..self.settings.feed.clone() };
                self.busy = Busy::File(Box::new(Feed::new(blocks, options)), reply);
            }
            Err(text) => {
                let _left = reply.send(Reply::text(text));
            }
        }
    }

    /// Moves a file on; what it needs.
    fn pump(&mut self) -> Need {
        let Busy::File(feed, _) = &mut self.busy else { return Need::Room };
        if !self.sender.takes() {
            return Need::Room;
        }
        let need = feed.pump(self.sender, self.console);
        if need == Need::Nothing {
            self.end_file();
        }
        need
    }

    fn end_file(&mut self) {
        if let Busy::File(feed, reply) = std::mem::replace(&mut self.busy, Busy::No) {
            let taken = feed.taken();
            let text = match feed.into_problem() {
                Some(problem) => problem.into_failure(taken).message,
                None => format!("{} sent", messages(taken)),
            };
            let _left = reply.send(Reply::text(text));
        }
    }

    /// Ctrl-C while a file is sent ends that, not the program.
    fn stop_file(&mut self, signal: Exit) -> bool {
        let is_file = matches!(self.busy, Busy::File(..)) && signal == Exit::Interrupted;
        if is_file {
            self.end_file();
        }
        is_file
    }

    fn happened(&mut self, happening: Happening) {
        match (happening, std::mem::replace(&mut self.busy, Busy::No)) {
            (Happening::Opened(opened, receivers), Busy::Opening(alias, channel, reply))
                if opened == alias =>
            {
                self.alias = alias;
                let text = format!("channel {channel}; {}", count_receivers(receivers));
                let _left = reply.send(Reply { text, channel: Some(channel) });
            }
            (Happening::ChannelRefused(refused, _, why), Busy::Opening(alias, channel, reply))
                if refused == alias =>
            {
                let _left =
                    reply.send(Reply::text(format!("channel {channel}: {}", Failure::refused(&why).message)));
            }
            (Happening::Lost, Busy::Opening(alias, channel, reply)) => {
                self.alias = alias;
                let text = "the relay went away; it will be opened later".into();
                let _left = reply.send(Reply { text, channel: Some(channel) });
                notices::tell(&Happening::Lost, self.sender, self.console);
            }
            (Happening::NotKept(_, why), Busy::Keeping(reply)) => {
                let _left = reply.send(Reply::text(format!("not sent: the spool can't keep it: {why}")));
            }
            (Happening::NotKept(lost, reason), Busy::File(mut feed, reply)) => {
                feed.stop(Problem::NotKept { lost, reason });
                self.busy = Busy::File(feed, reply);
            }
            (happening, busy) => {
                self.busy = busy;
                notices::tell(&happening, self.sender, self.console);
            }
        }
    }

    fn is_done(&self) -> bool {
        let confirmed = self.sender.is_settled() && !self.sender.has_news();
        confirmed || (self.settings.no_ack && self.sender.has_written())
    }

    fn channels(&self) -> String {
        let names = self.sender.outbox.channels().map(|channel| format!("  {channel}"));
        names.collect::<Vec<_>>().join("\n")
    }

    fn stats(&self) -> String {
        let outbox = &self.sender.outbox;
        let state = if self.sender.is_up() { "connected to" } else { "reconnecting to" };
        let seconds = Duration::from_secs(self.began.elapsed().as_secs());
        format!(
            "{}, {}; {} confirmed, {} waiting, {} refused\n{state} {} for {}",
            messages(outbox.pushed()),
            format_size(outbox.pushed_bytes()),
            outbox.confirmed(),
            self.sender.waiting(),
            outbox.refused(),
            self.sender.relay(),
            shared::units::format_duration(seconds),
        ) + &self.sender.spool().map_or_else(String::new, |spool| {
            let (size, limit) = (format_size(spool.size()), format_size(spool.limit()));
            format!("\nspool {}: {size} of {limit}", spool.path().display())
        })
    }
}

/// The next block of the file that is being sent.
async fn recv(busy: &mut Busy) -> Option<crate::input::Block> {
    match busy {
        Busy::File(feed, _) => feed.recv().await,
        Busy::No | Busy::Opening(..) | Busy::Keeping(_) | Busy::Leaving => std::future::pending().await,
    }
}

fn until(need: Need) -> time::Instant {
    match need {
        Need::Until(until) => until,
        Need::Room | Need::Block | Need::Nothing => time::Instant::now(),
    }
}

fn count_receivers(receivers: u32) -> String {
    if receivers == 1 { "1 receiver".into() } else { format!("{receivers} receivers") }
}
