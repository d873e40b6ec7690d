//! Accepts connections: take a permit, spawn, and only then look at what it is. Never handshakes.

use std::{net::SocketAddr, time::Duration};

use crate::senders::RawSettings;

/// An address to listen on, and what may connect there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Port 0 takes a free one.
    pub address: SocketAddr,
    /// What connections may be.
    pub accepts: Accepts,
    /// What raw senders on it are.
    pub raw: RawSettings,
}

/// What the connections of a listener may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// Told apart by their first bytes.
    Everything,
    /// Raw senders only; nothing is sniffed.
    Raw,
    /// HTTP and WebSocket only.
    Http,
    /// Framed senders only.
    Framed,
}

/// What holds for all connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// How many there may be at once.
    pub connections: usize,
    /// How long the first bytes may leave it open what a connection is.
    pub sniff: Duration,
    /// How long accepting rests when the system has no descriptors left.
    pub accept_pause: Duration,
    /// How long a stop may take.
    pub drain: Duration,
}
