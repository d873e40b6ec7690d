//! The harness of the end-to-end tests: the real binaries, and peers that speak to them over real sockets.
//! The tests themselves are in `e2e/`.
//!
//! # Layout
//! - [`program`]: a running binary, its lines and its end; [`relay`]: a relay on a port of its own.
//! - [`sender`]: raw and framed senders; [`receiver`]: a WebSocket receiver; [`frames`]: WebSocket frames by
//!   hand, also wrong ones; [`http`]: requests by hand; [`chain`]: the law of `prev`, seq and gap.
//! - [`upstream`]: servers behind the gateway, right and wrong ones.
//! - [`disk`]: a disk that can be full; [`strace`]: what a program asks of the system.
//! - [`terminal`]: a program in a real terminal; [`browser`]: a page in a real browser; [`python`]: a receiver
//!   that is not of this house; [`node`]: servers that are not either.
//! - [`trace`]: the readings of a sensor that the tests send; [`missing`]: what to do where a tool is missing.
//!
//! # Rules
//! Every wait is for an event and has the same generous deadline, [`DEADLINE`]; nothing sleeps. What fails
//! panics with what was awaited, and every program prints what it said when its test fails.

pub mod browser;
pub mod chain;
pub mod disk;
pub mod frames;
pub mod http;
pub mod missing;
pub mod node;
pub mod program;
pub mod python;
pub mod receiver;
pub mod relay;
pub mod sender;
pub mod strace;
pub mod terminal;
pub mod trace;
pub mod upstream;

use std::{fmt, panic::Location, time::Duration};

/// How long a test waits for any one event. Generous: it passes only where something is broken.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Awaits an event; panics with what was awaited when [`DEADLINE`] passes.
#[track_caller]
pub fn within<T>(what: impl fmt::Display, event: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        match tokio::time::timeout(DEADLINE, event).await {
            Ok(value) => value,
            Err(_) => panic!("{caller}: waited {DEADLINE:?} in vain for {what}"),
        }
    }
}
