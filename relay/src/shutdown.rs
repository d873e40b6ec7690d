//! The life of a relay: who spawns tasks, and how they all come to an end. The one place that spawns.

use std::{io, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFuture},
    task::TaskTracker,
};

/// Owns every task of a relay, and says when they shall end. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub struct Life {
    tasks: TaskTracker,
    senders: TaskTracker,
    stop: CancellationToken,
}

/// SIGTERM, SIGINT and SIGHUP.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// An end, with this exit code of a process that it ends at once.
    End(u8),
    /// That the configuration is read again.
    Reload,
}

impl Life {
    /// Spawns a task that ends by itself, at the latest some time after [`stop`](Self::stop).
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Spawns the task of a sender: those end first, so that receivers get what they sent.
    pub fn spawn_sender(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.senders.track_future(task));
    }

    /// Waits until every sender has ended, at most so long.
    pub async fn senders_ended(&self, grace: Duration) {
        self.senders.close();
        let _ = tokio::time::timeout(grace, self.senders.wait()).await;
    }

    /// Tells every task to end.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until tasks are told to end.
    pub fn stopping(&self) -> WaitForCancellationFuture<'_> {
        self.stop.cancelled()
    }

    /// Whether tasks were told to end.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits until every task has ended, at most so long; whether they have.
    pub async fn ended(&self, grace: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(grace, self.tasks.wait()).await.is_ok()
    }
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let hangup = signal(SignalKind::hangup())?;
        Ok(Self { terminate, interrupt, hangup })
    }

    /// Waits for the next.
    pub async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.terminate.recv() => Wanted::End(143),
            _ = self.interrupt.recv() => Wanted::End(130),
            _ = self.hangup.recv() => Wanted::Reload,
        }
    }
}
