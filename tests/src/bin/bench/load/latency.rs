//! Latencies of messages with a schedule: from the time at which each was to be sent to the time at which each
//! receiver had it, so that a sender that was held up counts as delay and not as a pause.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

/// The schedule of the messages of one channel, and how late they came.
#[derive(Debug)]
pub(crate) struct Latency {
    began: Instant,
    /// Nanoseconds between two messages.
    interval: f64,
    /// Messages before this one are not counted: the server warms up with them.
    first: u64,
    /// In microseconds.
    histogram: Histogram<u64>,
}

impl Latency {
    /// A schedule of so many messages per second from now on, of which the first are not counted.
    pub(crate) fn new(rate: f64, first: u64) -> Result<Self> {
        let histogram = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        Ok(Self { began: Instant::now(), interval: 1e9 / rate, first, histogram })
    }

    /// How many messages should have been sent by now.
    pub(crate) fn due(&self) -> u64 {
        (self.began.elapsed().as_nanos() as f64 / self.interval) as u64
    }

    /// Messages in this range arrived at a receiver now.
    pub(crate) fn arrived(&mut self, messages: std::ops::Range<u64>) {
        let now = self.began.elapsed().as_nanos() as f64;
        for message in messages.start.max(self.first)..messages.end {
            // The message is due when the interval before it has passed.
            let late = now - (message + 1) as f64 * self.interval;
            self.histogram.saturating_record(((late / 1e3) as u64).max(1));
        }
    }

    /// The latency that so many percent were at most as late as.
    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.histogram.value_at_percentile(percent))
    }
}
