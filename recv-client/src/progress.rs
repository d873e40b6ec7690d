//! What has been shown so far: counts for `--count`, the summary and `--stats`; the clock of `--timeout`.

use std::{
    cell::Cell,
    fmt,
    time::{Duration, SystemTime},
};

use shared::{Envelope, units::format_size};
use tokio::time::Instant;

use crate::notices::elapsed;

/// Counters of one run. Shared within one thread.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    messages: Cell<u64>,
    bytes: Cell<u64>,
    /// When the last message came, and its own time in microseconds since 1970.
    last: Cell<(Instant, u64)>,
}

/// A difference between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stats {
    messages: u64,
    bytes: u64,
    new_messages: u64,
    new_bytes: u64,
    over: Duration,
    lag: Option<Duration>,
}

impl Progress {
    /// Begins to count.
    pub(crate) fn new() -> Self {
        let started = Instant::now();
        Self { started, messages: Cell::new(0), bytes: Cell::new(0), last: Cell::new((started, 0)) }
    }

    /// A message was shown.
    pub(crate) fn add(&self, message: &Envelope) {
        self.messages.set(self.messages.get() + 1);
        self.bytes.set(self.bytes.get() + message.payload.len() as u64);
        self.last.set((Instant::now(), message.time));
    }

    /// Messages shown so far.
    pub(crate) fn messages(&self) -> u64 {
        self.messages.get()
    }

    /// Ends when nothing was shown for so long.
    pub(crate) async fn silence(&self, limit: Duration) {
        loop {
            let end = self.last.get().0 + limit;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }

    /// Passes a line to `say` every so often, for ever.
    pub(crate) async fn report(
        &self,
        every: Duration,
        say: impl Fn(&dyn fmt::Display),
    ) -> std::convert::Infallible {
        let (mut messages, mut bytes) = (0, 0);
        loop {
            tokio::time::sleep(every).await;
            let stats = Stats {
                messages: self.messages.get(),
                bytes: self.bytes.get(),
                new_messages: self.messages.get() - messages,
                new_bytes: self.bytes.get() - bytes,
                over: every,
                lag: (self.messages.get() > messages).then(|| self.lag()),
            };
            (messages, bytes) = (stats.messages, stats.bytes);
            say(&stats);
        }
    }

    /// How long the last message was under way, as far as the clocks agree.
    fn lag(&self) -> Duration {
        let (came, sent) = self.last.get();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(came.elapsed()).saturating_sub(Duration::from_micros(sent))
    }
}

/// The summary: `1 message, 5 B in 41s`.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = format_size(self.bytes.get());
        write!(f, "{}, {bytes} in {}", count(self.messages.get()), elapsed(self.started.elapsed()))
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = |n: u64| (n as f64 / self.over.as_secs_f64()).round() as u64;
        write!(
            f,
            "{}, {}/s, {}, {}/s",
            count(self.messages),
            per_second(self.new_messages),
            format_size(self.bytes),
            format_size(per_second(self.new_bytes))
        )?;
        match self.lag {
            Some(lag) => write!(f, ", lag {}", elapsed(lag)),
            None => Ok(()),
        }
    }
}

fn count(messages: u64) -> String {
    format!("{messages} message{}", if messages == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::{Kind, Seq};

    fn message(payload: &str) -> Envelope {
        Envelope {
            channel: "foo".parse().unwrap(),
            seq: Seq(1),
            prev: Seq(0),
            time: 0,
            kind: Kind::Text,
            payload: payload.to_owned().into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_summary_counts_messages_bytes_and_time() {
        let progress = Progress::new();
        progress.add(&message("hello"));
        tokio::time::advance(Duration::from_secs(41)).await;
        assert_eq!(progress.to_string(), "1 message, 5 B in 41s");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_begins_anew_with_each_message() {
        let progress = Progress::new();
        let began = Instant::now();
        let silence = progress.silence(Duration::from_secs(10));
        let talk = async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            progress.add(&message("x"));
        };
        tokio::join!(silence, talk);
        assert_eq!(began.elapsed(), Duration::from_secs(19));
    }

    #[test]
    fn stats_are_totals_and_rates() {
        let stats = Stats {
            messages: 1234,
            bytes: 2048,
            new_messages: 500,
            new_bytes: 1024,
            over: Duration::from_secs(5),
            lag: Some(Duration::from_millis(3)),
        };
        assert_eq!(stats.to_string(), "1234 messages, 100/s, 2 KiB, 205 B/s, lag 3ms");
    }
}
