//! The receiving command-line client: tails channels of a relay to the terminal, a pipe or files, across
//! reconnects. Here it is only put together.
//!
//! # Layout
//! - [`cli`]: what can be typed; `plan`: what it means.
//! - `tail`: connect, follow, come back; `connection`: one WebSocket; `loss`: why there is none;
//!   `reception`: what comes on it.
//! - `resume`: where the receiver is and what is missing, pure; `gap`: how that reads; `durable`: a position that
//!   outlives the process.
//! - `render`, with `template`, `times`, `escape`, `hexdump`: a message as bytes.
//! - `output`, `writer`, `sink`: the bytes on their way to stdout or files, on a thread of their own.
//! - `notices`, `progress`, `failure`: what is said on stderr.

pub mod cli;

mod connection;
mod durable;
mod escape;
mod failure;
mod gap;
mod hexdump;
mod loss;
mod notices;
mod output;
mod plan;
mod progress;
mod reception;
mod render;
mod resume;
mod sink;
mod tail;
mod template;
mod times;
mod writer;

use std::time::Duration;

use anyhow::Context as _;
use shared::{client::Exit, units::format_duration};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    cli::Cli,
    failure::Failure,
    notices::{Notices, Weight},
    output::{Output, flatten},
    plan::Plan,
    progress::Progress,
    reception::Reception,
    tail::Tail,
    writer::{Ending, Writer},
};

/// What was received is still written for so long after a signal; a second signal ends at once.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// Runs the client. Errors are printed; the exit code tells how it ended.
pub async fn run(cli: Cli) -> Exit {
    let notices = Notices::new(cli.quiet, cli.verbose, cli.color);
    match receive(cli, &notices).await {
        Ok(exit) => exit,
        Err(error) => {
            notices.error(format_args!("{error:#}"));
            error.downcast_ref().map_or(Exit::Failure, Failure::exit)
        }
    }
}

async fn receive(cli: Cli, notices: &Notices) -> anyhow::Result<Exit> {
    let (timeout, duration, stats) = (cli.timeout, cli.duration, cli.stats);
    let per_channel = cli.output_dir.is_some();
    let (plan, destination, resume) = Plan::new(cli)?;
    let mut signals = Signals::new()?;
    let progress = Progress::new();
    let durable = destination.durable.is_some();
    let (writer, mut ended) = Writer::start(destination.sink, destination.durable, *notices)?;
    let output = Output::new(destination.renderer, per_channel, durable, writer);
    let mut tail = Tail::new(&plan, Reception::new(&plan, &progress, resume, output));

    let outcome = tokio::select! {
        biased;
        exit = signals.next() => Ok(exit),
        ending = &mut ended => return ended_early(flatten(ending)?),
        () = after(duration) => Ok(Exit::Done),
        silent = silence(&progress, timeout) => Err(silent),
        never = report(&progress, stats, notices) => match never {},
        result = tail.run() => result.map(|()| Exit::Done),
    };

    let Tail { reception: Reception { output, resume, .. }, session, .. } = tail;
    let close = async {
        if let Some(session) = session {
            session.close().await;
        }
    };
    let flush_within = matches!(outcome, Ok(Exit::Interrupted | Exit::Terminated)).then_some(FLUSH_WITHIN);
    let finish = async { tokio::join!(output.finish(resume.position(), &mut ended), close).0 };
    let ending = tokio::select! {
        ending = finish => Some(ending),
        // Somebody has stopped reading: what was not written yet is not waited for.
        () = after(flush_within) => None,
        exit = signals.next() => return Ok(exit),
    };
    if let Some(Ending::Closed) = ending.transpose()? {
        return Ok(outcome?);
    }
    if matches!(outcome, Ok(Exit::Interrupted)) {
        notices.leave_line();
    }
    // Where no relay has ever answered there is nothing to sum up.
    if resume.position().is_some() {
        notices.tell(Weight::Greeting, &progress);
    }
    Ok(outcome?)
}

/// The writer ends by itself only when nobody reads.
fn ended_early(ending: Ending) -> anyhow::Result<Exit> {
    match ending {
        Ending::Closed => Ok(Exit::Done),
        Ending::Complete => anyhow::bail!("the writer has ended too early"),
    }
}

async fn after(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

async fn silence(progress: &Progress, limit: Option<Duration>) -> Failure {
    match limit {
        Some(limit) => {
            progress.silence(limit).await;
            Failure::new(Exit::Timeout, format!("no message came for {}", format_duration(limit)))
        }
        None => std::future::pending().await,
    }
}

async fn report(progress: &Progress, every: Option<Duration>, notices: &Notices) -> std::convert::Infallible {
    match every {
        Some(every) => progress.report(every, |stats| notices.line(stats)).await,
        None => std::future::pending().await,
    }
}

/// SIGINT and SIGTERM.
#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// The exit code of the next signal.
    async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }
}
