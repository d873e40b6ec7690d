//! The command-line sender: it reads messages, sends them, and waits until they are confirmed.
//!
//! # Layout
//! - [`cli`]: what can be said on the command line.
//! - [`input`] reads blocks, [`split`] and [`json`] make messages of them, [`pace`] spreads them, [`feed`] does
//!   all that for an [`outbox`], which knows what is not settled.
//! - [`connection`] empties the outbox onto one connection; [`sender`] makes the next one when that is lost.
//! - [`spool`] keeps messages on disk before they come to the outbox, if that is wanted; [`patience`] says how long the
//!   end waits for a relay that is away.
//! - [`pipe`] and [`prompt`] are the two ways to use a sender.
//! - [`console`], [`notices`], [`progress`] and [`failure`]: what people get to see. [`signals`], [`terminal`].

pub mod cli;
pub mod connection;
pub mod console;
pub mod failure;
pub mod feed;
pub mod input;
pub mod json;
pub mod notices;
pub mod outbox;
pub mod pace;
pub mod patience;
pub mod pipe;
pub mod progress;
pub mod prompt;
pub mod sender;
pub mod signals;
pub mod split;
pub mod spool;
pub mod terminal;

use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    path::Path,
    time::Duration,
};

use shared::{ChannelId, client::Exit, limits::MAX_KEEP_PRODUCER_S, sender::ProducerId};

use crate::{
    cli::{Args, Stop},
    connection::Producer,
    console::Console,
    failure::Failure,
    feed::Feed,
    input::Source,
    sender::{Sender, Target},
    signals::Signals,
    split::Split,
    spool::Spool,
};

/// How long the goodbye may take when everything is confirmed: nothing depends on it.
const GOODBYE: Duration = Duration::from_millis(200);

/// How long it may take with `--no-ack`: until the relay has read everything.
const HANDOVER: Duration = Duration::from_secs(5);

/// What the two ways of sending need to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How input is understood.
    pub feed: feed::Options,
    /// Whether confirmations are not waited for.
    pub no_ack: bool,
    /// How long the end waits for a relay that is away.
    pub spool_wait: Duration,
}

/// Where messages come from.
enum Mode {
    Sources(Vec<Source>, u64),
    Prompt(ChannelId),
}

/// Does what the command line says; the first argument is the program's name.
pub fn run(args: impl Iterator<Item = OsString>) -> Exit {
    let console = Console::new(false, false);
    let args = match cli::parse(args) {
        Ok(args) => args,
        Err(Stop::Shown(exit)) => return exit,
        Err(Stop::Failure(failure)) => {
            console.error(&failure);
            return failure.exit;
        }
    };
    match args.color {
        clap::ColorChoice::Auto => anstream::ColorChoice::Auto,
        clap::ColorChoice::Always => anstream::ColorChoice::Always,
        clap::ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
    let mut console = Console::new(args.quiet, args.verbose);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = Failure::new(Exit::Failure, format!("cannot start: {}", failure::reason(&error)));
            console.error(&failure);
            return failure.exit;
        }
    };
    let exit = runtime.block_on(send(args, &mut console)).unwrap_or_else(|failure| {
        console.end_bar(None);
        console.error(&failure);
        failure.exit
    });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    exit
}

async fn send(args: Args, console: &mut Console) -> Result<Exit, Failure> {
    let mut signals = Signals::new().map_err(|error| Failure::new(Exit::Failure, failure::reason(&error)))?;
    let mode = mode(&args)?;
    let target = target(&args);
    let settings = Settings {
        feed: feed::Options {
            channel: args.channel,
            split: if args.null { Split::Null } else { args.split },
            json: args.json,
            rate: args.rate,
            progress: if args.quiet { progress::When::Never } else { args.progress },
        },
        no_ack: args.no_ack,
        spool_wait: args.spool_wait,
    };
    let mut sender = match &args.spool {
        Some(path) => spooled(target, path, args.spool_limit, console)?,
        None => tokio::select! {
            connected = Sender::connect(target) => connected?,
            exit = signals.recv() => return Ok(exit),
        },
    };
    let ended = match mode {
        Mode::Sources(sources, repeat) => {
            let blocks = input::read(sources, repeat);
            let blocks = blocks.map_err(|error| Failure::new(Exit::Failure, failure::reason(&error)))?;
            let feed = Feed::new(blocks, settings.feed.clone());
            pipe::run(&mut sender, console, &settings, &mut signals, feed).await
        }
        Mode::Prompt(channel) => prompt::run(&mut sender, console, &settings, &mut signals, channel).await,
    };
    console.end_bar(None);
    let unconfirmed = sender.waiting();
    match &ended {
        Ok(Exit::Done) => console.summary(&notices::summary(&sender)),
        Ok(_) if unconfirmed > 0 => console.warning(&notices::summary(&sender)),
        Ok(_) => console.summary(&notices::summary(&sender)),
        Err(_) => {}
    }
    let done = matches!(ended, Ok(Exit::Done));
    let goodbye = done.then_some(if unconfirmed > 0 { HANDOVER } else { GOODBYE });
    tokio::select! {
        lost = sender.close(goodbye) => if let Some((lost, why)) = lost {
            console.warning(&format!("the spool can't keep more: {why}; the last {} not taken", failure::were(lost)));
        },
        exit = signals.recv() => return Ok(exit),
    }
    ended
}

/// A sender of what is in a spool, and what comes to it.
fn spooled(mut target: Target, path: &Path, limit: u64, console: &Console) -> Result<Sender, Failure> {
    let spool = Spool::open(path, limit, target.producer.id.0).map_err(|error| error.into_failure(path))?;
    let (id, epoch) = spool.producer();
    target.producer = Producer { id, epoch, keep_s: MAX_KEEP_PRODUCER_S, ..target.producer };
    let sender = Sender::with_spool(target, spool);
    if sender.waiting() > 0 {
        console.notice(&format!("{} waiting in the spool", failure::messages(sender.waiting())));
    }
    Ok(sender)
}

/// What is sent: messages, else files, else a pipe, else what is typed.
fn mode(args: &Args) -> Result<Mode, Failure> {
    use std::os::unix::ffi::OsStrExt;
    let sources: Vec<Source> = if !args.messages.is_empty() {
        args.messages.iter().map(|text| Source::Message(text.as_bytes().into())).collect()
    } else if !args.files.is_empty() {
        args.files.iter().map(|path| Source::file(path)).collect()
    } else if io::stdin().is_terminal() {
        let Some(channel) = args.channel.clone().filter(|_| !args.json) else {
            if args.spool.is_some() && !args.json {
                // Nothing but what is in the spool.
                return Ok(Mode::Sources(Vec::new(), 1));
            }
            return Err(Failure::new(Exit::Usage, "--json is for -m, FILEs and pipes, not for a prompt"));
        };
        return Ok(Mode::Prompt(channel));
    } else {
        vec![Source::Stdin]
    };
    if args.repeat > 1 && sources.contains(&Source::Stdin) {
        let failure =
            Failure::new(Exit::Usage, "the standard input can be read only once, so --repeat can't be");
        return Err(failure.hint("--repeat is for -m and FILEs"));
    }
    sources.iter().try_for_each(Source::check)?;
    Ok(Mode::Sources(sources, args.repeat))
}

/// A target under a producer id of this process.
fn target(args: &Args) -> Target {
    let mut id = [0; 16];
    fastrand::fill(&mut id);
    let producer = Producer { id: ProducerId(id), epoch: 1, keep_s: 0, levels: args.level.wire() };
    Target {
        relay: args.relay.clone(),
        producer,
        connect_timeout: args.connect_timeout,
        reconnect: !args.no_reconnect,
    }
}
