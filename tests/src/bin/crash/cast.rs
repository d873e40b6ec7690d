//! Who plays: channels with their rules, senders, receivers, and the programs among them. The same in every run; what
//! they do when is drawn from the seed.

use shared::{ChannelPattern, receiver::Subprotocol};

use crate::content::SPOOLERS;

/// How firmly a channel is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// On the disk before it is acknowledged.
    Sync,
    /// On the disk soon.
    Async,
    /// Not on the disk.
    Memory,
}

/// A channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Channel {
    pub(crate) name: &'static str,
    pub(crate) durability: Durability,
    /// Whether one producer alone sends there.
    pub(crate) solo: bool,
}

/// A sender of the framed protocol, in this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender {
    /// To which channels.
    pub(crate) channels: &'static [u16],
    /// How many messages it has unsettled in each, at most.
    pub(crate) window: u64,
    /// How many it sends at once, at most.
    pub(crate) burst: u64,
}

/// How a receiver behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// It reads on, and comes back where it was.
    Steady,
    /// The same, at a pace below that of its senders.
    Slow,
    /// It breaks off now and then, and comes back where it was or further back.
    Restless,
    /// It breaks off now and then, and begins with the earliest each time.
    Fresh,
}

/// A receiver in this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receiver {
    pub(crate) name: &'static str,
    /// Channels or patterns.
    pub(crate) wants: &'static [&'static str],
    pub(crate) form: Subprotocol,
    pub(crate) habit: Habit,
    /// Whether it begins with the earliest.
    pub(crate) earliest: bool,
}

const fn channel(name: &'static str, durability: Durability, solo: bool) -> Channel {
    Channel { name, durability, solo }
}

/// All channels.
pub(crate) const CHANNELS: [Channel; 10] = [
    channel("keep/one", Durability::Sync, false),
    channel("keep/two", Durability::Sync, false),
    channel("keep/solo", Durability::Sync, true),
    channel("trim/one", Durability::Sync, false),
    channel("trim/two", Durability::Sync, false),
    channel("soft/one", Durability::Async, false),
    channel("soft/two", Durability::Async, false),
    channel("ram/one", Durability::Memory, false),
    channel("spool/one", Durability::Sync, false),
    channel("spool/two", Durability::Sync, false),
];

/// The senders in this process, by the number of their producer.
pub(crate) const SENDERS: [Sender; 4] = [
    Sender { channels: &[0, 1, 3, 5], window: 64, burst: 8 },
    Sender { channels: &[0, 2, 3, 7], window: 1, burst: 1 },
    Sender { channels: &[1, 3, 4], window: 512, burst: 60 },
    Sender { channels: &[5, 6, 7], window: 128, burst: 16 },
];

/// The `send-client` processes: producer, channel, level.
pub(crate) const SPOOLED: [(u16, u16, &str); 2] = [(SPOOLERS, 8, "fsynced"), (SPOOLERS + 1, 9, "accepted")];

/// The `recv-client` processes: the name of their position, and what they want.
pub(crate) const TAILS: [(&str, &str); 2] = [("one", "keep/one"), ("all", "*/*")];

const fn receiver(
    name: &'static str,
    wants: &'static [&'static str],
    form: Subprotocol,
    habit: Habit,
    earliest: bool,
) -> Receiver {
    Receiver { name, wants, form, habit, earliest }
}

use Habit::{Fresh, Restless, Slow, Steady};
use Subprotocol::{Binary, Json, Raw};

/// The receivers in this process.
pub(crate) const RECEIVERS: [Receiver; 13] = [
    receiver("witness", &["**"], Json, Steady, true),
    receiver("keep", &["keep/*"], Binary, Steady, false),
    receiver("keep-two", &["keep/two"], Binary, Restless, true),
    receiver("everything", &["**"], Binary, Restless, false),
    receiver("soft", &["soft/*"], Json, Restless, true),
    receiver("ram", &["ram/one"], Json, Restless, false),
    receiver("two", &["keep/one", "soft/one"], Json, Steady, true),
    receiver("trimmed", &["trim/*"], Json, Fresh, true),
    receiver("slow", &["trim/one"], Json, Slow, true),
    receiver("slow-pattern", &["trim/*"], Binary, Slow, false),
    receiver("raw", &["keep/one"], Raw, Steady, false),
    receiver("raw-solo", &["keep/solo"], Raw, Steady, false),
    receiver("raw-slow", &["trim/one"], Raw, Slow, false),
];

/// Whether one producer alone sends to a channel.
pub(crate) fn solo(channel: u16) -> bool {
    CHANNELS.get(usize::from(channel)).is_some_and(|channel| channel.solo)
}

/// How firmly a channel is kept.
pub(crate) fn durability(channel: u16) -> Durability {
    CHANNELS[usize::from(channel)].durability
}

/// The name of a channel.
pub(crate) fn name(channel: u16) -> &'static str {
    CHANNELS[usize::from(channel)].name
}

/// The channel of a name.
pub(crate) fn find(name: &str) -> Option<u16> {
    CHANNELS.iter().position(|channel| channel.name == name).map(|at| at as u16)
}

/// Whether one of these channels or patterns has a channel.
pub(crate) fn wanted(wants: &[&str], channel: u16) -> bool {
    let channel = name(channel).parse().expect("a channel of the cast");
    wants.iter().any(|want| {
        let want: ChannelPattern = want.parse().expect("a pattern of the cast");
        want.matches(&channel)
    })
}

/// The configuration of the relay. On a disk that is small less is kept.
pub(crate) fn config(small: bool) -> String {
    let keep = if small { "1MiB" } else { "1GiB" };
    format!(
        r#"[disk]
segment = "{}"
retry = "100ms"
[limits]
send_buffer = "16KiB"
[timeouts]
trim = "100ms"
[[channel]]
pattern = "trim/two"
messages = 200
[[channel]]
pattern = "trim/**"
history = "128KiB"
[[channel]]
pattern = "soft/two"
durability = "async"
flush = "20ms"
history = "256KiB"
[[channel]]
pattern = "soft/**"
durability = "async"
flush = "100ms"
history = "{keep}"
[[channel]]
pattern = "ram/**"
durability = "memory"
history = "256KiB"
[[channel]]
pattern = "**"
history = "{keep}"
"#,
        if small { "64KiB" } else { "256KiB" }
    )
}
