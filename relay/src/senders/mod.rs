//! TCP in: raw senders and framed senders.
//!
//! - [`framing`]: bytes → messages for raw senders, pure. [`template`]: which channel they publish to;
//!   [`first_line`]: what their first line may say of it. [`raw`]: their session.
//! - [`protocol`]: what the frames of a framed sender mean, pure. [`framed`]: its session; [`registry`]: who is
//!   connected as which producer.

pub mod first_line;
pub mod framed;
pub mod framing;
pub mod protocol;
pub mod raw;
pub mod registry;
pub mod template;

use std::time::Duration;

use framing::Framing;
use template::ChannelTemplate;

/// What a listener says about the raw senders that connect to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawSettings {
    /// Which channel they publish to.
    pub channel: ChannelTemplate,
    /// Where one message ends and the next begins.
    pub framing: Framing,
    /// Whether a `RELAY/1` first line may say otherwise; else it is data.
    pub first_line: bool,
    /// Bytes that a message may have.
    pub max_message: usize,
}

/// What holds for all senders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderSettings {
    /// Bytes that a framed sender's message may have.
    pub max_message: usize,
    /// Messages that a framed sender may have unsettled.
    pub window_messages: u32,
    /// Bytes that a framed sender may have unsettled.
    pub window_bytes: u32,
    /// Channels that one connection may have open.
    pub aliases: usize,
    /// How long an `auto` sender may stay undecided.
    pub undecided: Duration,
    /// How long a silence cuts an undecided `auto` sender's bytes.
    pub silence: Duration,
    /// How long a sender is held per read while receivers that keep up catch up.
    pub hold: Duration,
    /// A framed sender is pinged after so long a silence.
    pub ping_every: Duration,
    /// Unanswered pings after which a framed sender is dropped.
    pub ping_misses: u32,
    /// How long HELLO may take.
    pub hello: Duration,
    /// How long a raw sender may take none of its answers before it is given up.
    pub stall: Duration,
    /// How long the peer may take to end its side after a close.
    pub close: Duration,
    /// How long a producer is remembered that does not say.
    pub keep: Duration,
}
