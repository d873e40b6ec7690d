//! How writes to a receiver are put off, so that what is published meanwhile goes out in one. Times are given to it.

use std::time::Duration;

use tokio::time::Instant;

/// The rests of one receiver: one after each write, of the same length. With a length of nothing there are none.
#[derive(Debug)]
pub(super) struct Rest {
    length: Duration,
    end: Option<Instant>,
}

impl Rest {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, end: None }
    }

    /// Everything that there was went out.
    pub(super) fn begin(&mut self, now: Instant) {
        self.end = (!self.length.is_zero()).then(|| now + self.length);
    }

    /// Nothing shall wait.
    pub(super) fn end_now(&mut self) {
        self.end = None;
    }

    /// Whether it is not over; once it is, it has no [end](Self::end) any more.
    pub(super) fn goes_on(&mut self, now: Instant) -> bool {
        self.end = self.end.filter(|end| now < *end);
        self.end.is_some()
    }

    /// When it is over, if there is one.
    pub(super) fn end(&self) -> Option<Instant> {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(4);

    #[tokio::test(start_paused = true)]
    async fn what_comes_after_a_silence_waits_for_nothing_and_what_comes_soon_after_a_write_waits_for_the_rest_of_it()
     {
        let (mut rest, start) = (Rest::new(DELAY), Instant::now());
        assert!(!rest.goes_on(start));
        rest.begin(start);
        assert_eq!(rest.end(), Some(start + DELAY));
        assert!(rest.goes_on(start + DELAY / 2));
        assert!(!rest.goes_on(start + DELAY));
        assert_eq!(rest.end(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_delay_nothing_ever_waits() {
        let (mut rest, start) = (Rest::new(Duration::ZERO), Instant::now());
        rest.begin(start);
        assert!(!rest.goes_on(start) && rest.end().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_can_be_ended() {
        let (mut rest, start) = (Rest::new(DELAY), Instant::now());
        rest.begin(start);
        rest.end_now();
        assert!(!rest.goes_on(start));
    }
}
