//! What everything runs on: the threads of the asynchronous runtime.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// How many threads there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeSettings {
    /// Threads that serve connections; 0 is one for each core that the relay may use.
    pub workers: usize,
}

/// Starts the threads.
///
/// # Errors
/// If the system gives no threads, or nothing to wait for sockets with.
pub fn start(settings: &RuntimeSettings) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if settings.workers > 0 {
        builder.worker_threads(settings.workers);
    }
    builder.enable_all().build()
}
