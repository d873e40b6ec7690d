//! WebSocket out: receivers.
//!
//! - [`protocol`]: what a receiver asks for, and what its commands mean; pure.
//! - [`inbound`]: what its frames may be, before they are understood.
//! - [`outbound`]: whole frames only: chunks and control frames share one socket, which has one writer.
//! - `rest`: how writes are put off to become fewer. `vigil`: whether the receiver is still there.
//! - [`session`]: cursor → socket, and back.

pub mod inbound;
pub mod outbound;
pub mod protocol;
mod rest;
pub mod session;
mod vigil;

use std::time::Duration;

/// What holds for all receivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverSettings {
    /// Bytes that a message from a receiver may have.
    pub max_message: usize,
    /// Frames that a message from a receiver may come in.
    pub fragments: usize,
    /// Channels and patterns that one receiver may have subscribed.
    pub subscriptions: usize,
    /// Bytes written to one receiver before others get their turn.
    pub turn: usize,
    /// `SO_SNDBUF` of a receiver's socket; 0 leaves it to the system.
    pub send_buffer: u32,
    /// A receiver is pinged so often.
    pub ping_every: Duration,
    /// Pings without any sign of life after which it is closed with 4002.
    pub ping_misses: u32,
    /// How long data may wait with less than `least_rate` leaving before the receiver is dropped.
    pub stall: Duration,
    /// Bytes per second that must leave while data waits.
    pub least_rate: u64,
    /// How long the peer may take to answer a close.
    pub close: Duration,
}
