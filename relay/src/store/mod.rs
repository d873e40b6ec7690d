//! Where messages are kept. What a store is ([`ChannelStore`]), what it keeps ([`chunk`]), and the engines.
//! A store knows no senders' sockets and no receivers.

pub mod chunk;
pub mod memory;

use std::time::Duration;

use shared::ChannelPattern;

/// What bounds a store as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// Bytes of memory for the chunks of all channels, encodings included; beyond it the oldest chunk of all goes.
    pub memory: u64,
    /// Bytes of those for chunks in forms other than raw; beyond it the oldest encoding goes.
    pub encodings: u64,
    /// How many channels there may be.
    pub channels: usize,
    /// How many producers are remembered.
    pub producers: usize,
    /// A channel without messages for so long is retired.
    pub channel_idle: Duration,
    /// What each channel keeps: the first rule whose pattern matches.
    pub retention: Vec<(ChannelPattern, Retention)>,
}

/// What a channel keeps; whole chunks go, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Bytes of memory.
    pub bytes: u64,
    /// Messages.
    pub messages: Option<u64>,
    /// Age of a chunk's last message.
    pub age: Option<Duration>,
}
