//! Channels: from a publish to the cursors of receivers. Knows no TCP, WebSocket or HTTP.

use std::time::Duration;

/// What is done with receivers that are too slow for what a channel keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LagPolicy {
    /// They are told what is missing and go on.
    Skip,
    /// They are closed.
    Close,
    /// Senders are held for them, for at most so long in all per receiver; then they are closed.
    Block(Duration),
}
