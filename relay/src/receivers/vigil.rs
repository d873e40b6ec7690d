//! Whether a receiver is still there and fast enough: when to ping it, when to give it up. Times are given to it.

use std::time::Duration;

use tokio::time::Instant;

use super::ReceiverSettings;

/// Watches over one receiver.
#[derive(Debug)]
pub(super) struct Vigil {
    next_ping: Instant,
    misses: u32,
    /// It gave a sign of life since the last ping.
    heard: bool,
    stall: Option<Stall>,
}

/// Data waits for the receiver to take it.
#[derive(Debug)]
struct Stall {
    since: Instant,
    taken: u64,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// A ping.
    Ping,
    /// It did not answer: close with 4002.
    NoPong,
    /// It takes too little of what waits: drop it.
    Stalled,
}

impl Vigil {
    pub(super) fn new(now: Instant, settings: &ReceiverSettings) -> Self {
        Self { next_ping: now + settings.ping_every, misses: 0, heard: false, stall: None }
    }

    /// Something came from it.
    pub(super) fn heard(&mut self) {
        self.heard = true;
    }

    /// Data waits for it, after it took so many bytes. Taking something of what waited is a sign of life, since
    /// only its reading makes room.
    pub(super) fn waits(&mut self, taken: u64, now: Instant) {
        match &mut self.stall {
            Some(stall) => {
                stall.taken += taken;
                self.heard |= taken > 0;
            }
            None => self.stall = Some(Stall { since: now, taken: 0 }),
        }
    }

    /// Nothing waits for it.
    pub(super) fn drained(&mut self) {
        if self.stall.take().is_some() {
            self.heard = true;
        }
    }

    /// When to look again.
    pub(super) fn deadline(&self, settings: &ReceiverSettings) -> Instant {
        let stall = self.stall.as_ref().map(|stall| stall.since + settings.stall);
        stall.map_or(self.next_ping, |stall| stall.min(self.next_ping))
    }

    pub(super) fn due(&mut self, now: Instant, settings: &ReceiverSettings) -> Due {
        if let Some(stall) = &mut self.stall
            && now >= stall.since + settings.stall
        {
            if stall.taken == 0 || stall.taken < least(settings.least_rate, settings.stall) {
                return Due::Stalled;
            }
            *stall = Stall { since: now, taken: 0 };
        }
        if now < self.next_ping {
            return Due::Nothing;
        }
        self.next_ping = now + settings.ping_every;
        self.misses = if std::mem::take(&mut self.heard) { 0 } else { self.misses + 1 };
        // The first ping is not an answer to anything: only those that were sent can be missed.
        if self.misses > settings.ping_misses { Due::NoPong } else { Due::Ping }
    }
}

fn least(rate: u64, span: Duration) -> u64 {
    let bytes = u128::from(rate) * span.as_millis() / 1000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn settings() -> ReceiverSettings {
        ReceiverSettings {
            max_message: 1024,
            fragments: 16,
            subscriptions: 4,
            turn: 1024,
            send_buffer: 0,
            ping_every: 25 * SECOND,
            ping_misses: 2,
            stall: 30 * SECOND,
            least_rate: 1024,
            close: SECOND,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_receiver_is_given_up_after_two_unanswered_pings() {
        let (settings, start) = (settings(), Instant::now());
        let mut vigil = Vigil::new(start, &settings);
        assert_eq!(vigil.due(start + 24 * SECOND, &settings), Due::Nothing);
        assert_eq!(vigil.due(start + 25 * SECOND, &settings), Due::Ping);
        assert_eq!(vigil.due(start + 50 * SECOND, &settings), Due::Ping);
        assert_eq!(vigil.due(start + 75 * SECOND, &settings), Due::NoPong);
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_answers_is_never_given_up() {
        let (settings, start) = (settings(), Instant::now());
        let mut vigil = Vigil::new(start, &settings);
        for round in 1..100 {
            assert_eq!(vigil.due(start + round * 25 * SECOND, &settings), Due::Ping);
            vigil.heard();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn taking_bulk_is_no_silence_but_taking_too_little_is_a_stall() {
        let (settings, start) = (settings(), Instant::now());
        let mut vigil = Vigil::new(start, &settings);
        vigil.waits(500_000, start);
        for second in (5..200).step_by(5) {
            vigil.waits(10_000, start + second * SECOND);
            assert!(matches!(vigil.due(start + second * SECOND, &settings), Due::Nothing | Due::Ping));
        }
        let mut stuck = start + 200 * SECOND;
        while vigil.due(stuck, &settings) != Due::Stalled {
            vigil.waits(1, stuck);
            stuck += SECOND;
        }
        assert!(stuck <= start + 260 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_wait_does_not_stall() {
        let (settings, start) = (settings(), Instant::now());
        let mut vigil = Vigil::new(start, &settings);
        vigil.waits(0, start);
        vigil.drained();
        assert_eq!(vigil.deadline(&settings), start + 25 * SECOND);
        assert_eq!(vigil.due(start + 30 * SECOND, &settings), Due::Ping);
        vigil.waits(0, start + 31 * SECOND);
        assert_eq!(vigil.due(start + 61 * SECOND, &settings), Due::Stalled);
    }
}
