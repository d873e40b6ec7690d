//! The run itself: a relay that is killed, and everybody who speaks to it. What happened is recorded; whether it was
//! right is for the checker.
//!
//! # Layout
//! - `relay`: the relay as a process; `disk`: where its data is, and how that gets full.
//! - `sender`, `receiver`: in this process. `spooler`, `tail`: `send-client` and `recv-client`, which are killed too.
//! - `director`: when what happens.

pub(crate) mod director;
mod disk;
mod receiver;
mod relay;
mod sender;
mod spooler;
mod tail;

use std::{net::SocketAddr, ops::Range, path::PathBuf, time::Duration};

use tokio::{sync::watch, time::sleep};

/// What everybody on the stage knows.
#[derive(Debug, Clone)]
struct Stage {
    /// Where the relay is, or will be again.
    address: SocketAddr,
    /// Where files may be kept.
    folder: PathBuf,
    scene: watch::Receiver<Scene>,
}

/// How far the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scene {
    /// Which start of the relay it is, counted from 1.
    era: u32,
    phase: Phase,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Everything goes on.
    Play,
    /// Nothing new is sent; what is not settled is.
    Settle,
    /// Nothing is sent; receivers get the rest.
    CatchUp,
}

impl Stage {
    fn scene(&self) -> Scene {
        *self.scene.borrow()
    }

    /// Waits until there is no more to play.
    async fn played(&mut self) {
        self.reached(Phase::Settle).await;
    }

    async fn reached(&mut self, phase: Phase) {
        // The director goes last.
        let _gone = self.scene.wait_for(|scene| scene.phase >= phase).await;
    }
}

/// A moment that is drawn: when something is killed, or tried again, is up to chance. That is what this program is
/// for; nothing is waited for this way.
async fn moment(rng: &mut fastrand::Rng, millis: Range<u64>) {
    sleep(Duration::from_millis(rng.u64(millis))).await;
}
