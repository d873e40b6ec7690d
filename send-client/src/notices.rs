//! What a change of state is called, for pipes and the prompt alike.

use std::time::Duration;

use crate::{
    console::Console,
    failure::{Failure, messages},
    sender::{Happening, Sender},
};

/// Tells what happened, if it is worth a notice.
pub fn tell(happening: &Happening, sender: &Sender, console: &Console) {
    match happening {
        Happening::Progress => {}
        Happening::Opened(alias, receivers) => {
            if let Some(channel) = sender.outbox.channel(*alias) {
                console.detail(&format!("channel {channel} is open; receivers: {receivers}"));
            }
        }
        Happening::Lost => {
            let waiting = messages(sender.waiting());
            console.notice(&format!("relay went away; reconnecting, {waiting} waiting"));
        }
        Happening::Unreachable(why) => {
            let waiting = messages(sender.waiting());
            let relay = sender.relay();
            console.notice(&format!(
                "cannot reach a relay at {relay}: {why}; trying on, {waiting} waiting in the spool"
            ));
        }
        Happening::Back { after, again, delivered: count, new_epoch } => {
            let delivered =
                if *count == 0 { String::new() } else { format!(", {} delivered", messages(*count)) };
            let connected = if *again { "reconnected" } else { "connected" };
            console.notice(&format!("{connected} after {}{delivered}", seconds(*after)));
            if let Some(epoch) = new_epoch {
                let again = if *count == 0 { "" } else { "; what was not confirmed was sent again" };
                console.notice(&format!("the relay's store is new (epoch {epoch}){again}"));
            }
        }
        Happening::Refused(alias, pseq, refusal) => {
            let place =
                sender.outbox.channel(*alias).map_or_else(String::new, |name| format!(" of channel {name}"));
            console.warning(&format!("message {pseq}{place} was refused: {refusal}"));
        }
        Happening::ChannelRefused(alias, given_up, refusal) => {
            let name = sender.outbox.channel(*alias).map_or_else(String::new, ToString::to_string);
            let text = Failure::refused(refusal).message;
            console.warning(&format!("channel {name}: {text}; {} not sent", messages(*given_up)));
        }
        Happening::NotKept(lost, why) => {
            console.warning(&format!("the spool can't keep more: {why}; {} not sent", messages(*lost)));
        }
    }
}

/// What became of everything.
pub fn summary(sender: &Sender) -> String {
    let outbox = &sender.outbox;
    let (confirmed, refused, unconfirmed) = (outbox.confirmed(), outbox.refused(), sender.waiting());
    if let (Some(spool), 1..) = (sender.spool(), unconfirmed) {
        let confirmed = messages(confirmed);
        return format!("{confirmed} confirmed, {unconfirmed} in the spool {}", spool.path().display());
    }
    let mut text = format!("{} sent", messages(outbox.pushed() - refused));
    match (unconfirmed, confirmed) {
        (0, 0) => {}
        (0, 1) => text.push_str(", confirmed"),
        (0, _) => text.push_str(", all confirmed"),
        (n, _) => text.push_str(&format!(", {n} not confirmed")),
    }
    if refused > 0 {
        text.push_str(&format!(", {refused} refused"));
    }
    text
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}
