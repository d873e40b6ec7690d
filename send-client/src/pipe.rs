//! Sending what nobody types: messages of the command line, files, a pipe.

use shared::client::Exit;
use tokio::time::{Instant, sleep_until};

use crate::{
    Settings,
    console::Console,
    failure::{Failure, Problem},
    feed::{Feed, Need},
    notices,
    patience::Patience,
    sender::{Happening, Sender},
    signals::Signals,
};

/// Sends all of the feed, and waits for its confirmations. With a spool, that is not longer than `spool_wait` while
/// the relay is away.
///
/// # Errors
/// As [`Sender::next`]; a message that can't be sent or was refused (exit code 5); messages that stay in the spool
/// (exit code 6).
pub async fn run(
    sender: &mut Sender,
    console: &mut Console,
    settings: &Settings,
    signals: &mut Signals,
    mut feed: Feed,
) -> Result<Exit, Failure> {
    if let Some(channel) = &settings.feed.channel {
        // Opened before there is anything to send, so that a refusal is not told late.
        sender.outbox.alias(channel);
    }
    let mut patience = Patience::new(settings.spool_wait);
    loop {
        let need = if sender.takes() { feed.pump(sender, console) } else { Need::Room };
        let ended = need == Need::Nothing || feed.has_ended();
        if ended && is_done(sender, settings) {
            break;
        }
        let waits = ended && sender.spool().is_some() && sender.is_kept();
        let away = if waits { patience.until(sender) } else { None };
        let until = if let Need::Until(until) = need { until } else { Instant::now() };
        tokio::select! {
            biased;
            signal = signals.recv() => {
                if sender.spool().is_some() {
                    keep_what_was_read(sender, &mut feed, console);
                }
                return Ok(signal);
            }
            happening = sender.next() => happened(happening?, &mut feed, sender, console),
            block = feed.recv(), if need == Need::Block => feed.accept(block, console),
            () = sleep_until(until), if matches!(need, Need::Until(_)) => {}
            () = sleep_until(away.unwrap_or(until)), if away.is_some() => break,
        }
    }
    if feed.skipped() > 0 {
        console.detail(&format!("{} lines were no messages", feed.skipped()));
    }
    let failure = match feed.into_problem() {
        Some(problem) => problem.into_failure(sender.outbox.confirmed()),
        None if is_done(sender, settings) => return Ok(Exit::Done),
        None => Failure::new(Exit::Incomplete, format!("the relay at {} is away", sender.relay())),
    };
    Err(if sender.spool().is_some() { sender.incomplete(failure) } else { failure })
}

fn is_done(sender: &Sender, settings: &Settings) -> bool {
    let confirmed = sender.is_settled() && !sender.has_news();
    confirmed || (settings.no_ack && sender.has_written())
}

/// What was read of a pipe is nowhere else: it goes into the spool before the end.
fn keep_what_was_read(sender: &mut Sender, feed: &mut Feed, console: &mut Console) {
    while feed.pump(sender, console) == Need::Block
        && let Some(block) = feed.try_recv()
    {
        feed.accept(Some(block), console);
    }
}

/// A refusal ends the reading; everything else is only told.
fn happened(happening: Happening, feed: &mut Feed, sender: &Sender, console: &Console) {
    let name = |alias| sender.outbox.channel(alias).map(ToString::to_string);
    match happening {
        Happening::Refused(alias, number, reason) => {
            let channel = name(alias).filter(|_| sender.outbox.channels().count() > 1);
            feed.stop(Problem::Refused { number, channel, reason });
        }
        Happening::ChannelRefused(alias, _, reason) => {
            feed.stop(Problem::Channel { channel: name(alias).unwrap_or_default(), reason });
        }
        Happening::NotKept(lost, reason) => feed.stop(Problem::NotKept { lost, reason }),
        Happening::Progress
        | Happening::Lost
        | Happening::Unreachable(_)
        | Happening::Back { .. }
        | Happening::Opened(..) => {
            notices::tell(&happening, sender, console);
        }
    }
}
