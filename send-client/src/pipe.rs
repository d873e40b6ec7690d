//! Sending what nobody types: messages of the command line, files, a pipe.

use shared::client::Exit;
use tokio::time::{Instant, sleep_until};

use crate::{
    Settings,
    console::Console,
    failure::{Failure, Problem},
    feed::{Feed, Need},
    notices,
    sender::{Happening, Sender},
    signals::Signals,
};

/// Sends all of the feed, and waits for its confirmations.
///
/// # Errors
/// As [`Sender::next`]; and a message that can't be sent or was refused (exit code 5).
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
    loop {
        let max = sender.max_message();
        let need = if sender.is_up() { feed.pump(&mut sender.outbox, max, console) } else { Need::Room };
        let ended = need == Need::Nothing || feed.has_ended();
        if ended && is_done(sender, settings) {
            break;
        }
        let until = if let Need::Until(until) = need { until } else { Instant::now() };
        tokio::select! {
            biased;
            signal = signals.recv() => return Ok(signal),
            happening = sender.next() => happened(happening?, &mut feed, sender, console),
            block = feed.recv(), if need == Need::Block => feed.accept(block, console),
            () = sleep_until(until), if matches!(need, Need::Until(_)) => {}
        }
    }
    if feed.skipped() > 0 {
        console.detail(&format!("{} lines were no messages", feed.skipped()));
    }
    match feed.into_problem() {
        Some(problem) => Err(problem.into_failure(sender.outbox.confirmed())),
        None => Ok(Exit::Done),
    }
}

fn is_done(sender: &Sender, settings: &Settings) -> bool {
    let confirmed = sender.outbox.unsettled() == 0 && !sender.has_news();
    confirmed || (settings.no_ack && sender.has_written())
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
        Happening::Progress | Happening::Lost | Happening::Back { .. } | Happening::Opened(..) => {
            notices::tell(&happening, sender, console);
        }
    }
}
