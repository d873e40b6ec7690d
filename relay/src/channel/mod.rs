//! Channels: from a publish to the cursors of receivers. Knows no TCP, WebSocket or HTTP.
//!
//! - [`hub`]: takes what senders publish to the store, and what the store commits to the views.
//! - [`view`]: the newest chunks of one selection, for all its receivers; [`ring`] points to them, [`progress`] knows
//!   how far each receiver is.
//! - [`cursor`]: where one receiver is.
//! - [`publisher`]: a sender's way into one channel, and what holds it back; [`room`]: whether the store does.
//!   [`mirror`]: the way of who never waits.

pub mod cursor;
pub mod hub;
pub mod mirror;
pub mod progress;
pub mod publisher;
pub mod ring;
pub mod room;
#[cfg(test)]
mod tests;
pub mod view;

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
