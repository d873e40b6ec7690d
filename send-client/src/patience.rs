//! How long the end waits for a relay that is away.

use std::time::Duration;

use tokio::time::Instant;

use crate::sender::Sender;

/// A wait that begins anew with everything that is confirmed. A connection that brings nothing does not count.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    until: Option<Instant>,
    settled: u64,
}

impl Patience {
    /// Waits for so long.
    pub fn new(limit: Duration) -> Self {
        Self { limit, until: None, settled: 0 }
    }

    /// When it is over; none while there is a connection, or the first one is still tried.
    pub fn until(&mut self, sender: &Sender) -> Option<Instant> {
        if sender.settled() != self.settled || !sender.is_in_trouble() {
            (self.until, self.settled) = (None, sender.settled());
        }
        let limit = self.limit;
        (sender.is_in_trouble() && !sender.is_up())
            .then(|| *self.until.get_or_insert_with(|| Instant::now() + limit))
    }
}
