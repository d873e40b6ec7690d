//! What went wrong with peers, counted. It is noted now and then, not each time: a peer can make it happen as often
//! as it likes, and must not fill what is noted.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::warn;

/// Counters since the last report.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections that were refused since as many were open as are allowed.
    pub connections_refused: AtomicU64,
    /// Raw senders that were closed since they sent an HTTP request: no page may publish there.
    pub requests_to_raw: AtomicU64,
    /// Messages of raw senders that were too long, or broke off, and were dropped.
    pub messages_dropped: AtomicU64,
    /// Messages of raw senders without boundaries that were cut at the limit.
    pub messages_cut: AtomicU64,
}

impl Metrics {
    /// One more.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells what was counted since it was last told, if anything was.
    pub fn report(&self) {
        let taken = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        let connections_refused = taken(&self.connections_refused);
        if connections_refused > 0 {
            warn!(connections_refused, "as many connections are open as are allowed: raise `connections`");
        }
        let requests_to_raw = taken(&self.requests_to_raw);
        if requests_to_raw > 0 {
            warn!(requests_to_raw, "closed raw senders that sent an HTTP request: no page may publish there");
        }
        let (dropped, cut) = (taken(&self.messages_dropped), taken(&self.messages_cut));
        if dropped + cut > 0 {
            warn!(
                dropped,
                cut, "messages of raw senders were too long: raise `max_message`, or look at the framing"
            );
        }
    }
}
