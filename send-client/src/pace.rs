//! `--rate`: when the next message is due. Pure; the caller brings the time.

use std::{str::FromStr, time::Duration};

use tokio::time::Instant;

/// How much of a stall is caught up afterwards; what was missed beyond it is not sent faster later.
const CATCH_UP: Duration = Duration::from_millis(100);

/// Messages per second, greater than 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(f64);

/// A text that is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a rate; write it like 100/s, 0.5/s, 30/m")]
pub struct RateError;

/// Spreads messages evenly over time.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    next: Option<Instant>,
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
        let seconds = match unit {
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => return Err(RateError),
        };
        let number: f64 = number.parse().map_err(|_| RateError)?;
        let rate = number / seconds;
        if (1e-6..=1e9).contains(&rate) { Ok(Self(rate)) } else { Err(RateError) }
    }
}

impl Pace {
    /// A pace whose first message is due at once.
    pub fn new(rate: Rate) -> Self {
        Self { interval: Duration::from_secs_f64(1.0 / rate.0), next: None }
    }

    /// Whether a message is due; else when the next one is.
    pub fn due(&self, now: Instant) -> Result<(), Instant> {
        match self.next {
            Some(next) if next > now => Err(next),
            _ => Ok(()),
        }
    }

    /// Counts a message that was due.
    pub fn count(&mut self, now: Instant) {
        let next = self.next.unwrap_or(now);
        let earliest = now.checked_sub(CATCH_UP.max(self.interval)).unwrap_or(next);
        self.next = Some(next.max(earliest) + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rate: &str) -> Pace {
        Pace::new(rate.parse().unwrap())
    }

    fn take(pace: &mut Pace, now: Instant) -> Result<(), Instant> {
        pace.due(now).map(|()| pace.count(now))
    }

    #[test]
    fn a_rate_needs_a_number_and_may_have_a_unit() {
        assert_eq!("100/s".parse(), Ok(Rate(100.0)));
        assert_eq!("100".parse(), Ok(Rate(100.0)));
        assert_eq!("30/m".parse(), Ok(Rate(0.5)));
        for text in ["", "0", "-1/s", "x", "1/d", "inf", "nan"] {
            assert_eq!(text.parse::<Rate>(), Err(RateError), "{text}");
        }
    }

    #[test]
    fn messages_are_spread_evenly() {
        let start = Instant::now();
        let mut pace = pace("10/s");
        assert_eq!(take(&mut pace, start), Ok(()));
        assert_eq!(take(&mut pace, start), Err(start + Duration::from_millis(100)));
        assert_eq!(take(&mut pace, start + Duration::from_millis(130)), Ok(()));
        assert_eq!(
            take(&mut pace, start + Duration::from_millis(130)),
            Err(start + Duration::from_millis(200))
        );
    }

    #[test]
    fn a_long_stall_is_not_caught_up_in_a_burst() {
        let start = Instant::now();
        let mut pace = pace("1000/s");
        assert_eq!(take(&mut pace, start), Ok(()));
        let later = start + Duration::from_secs(60);
        let burst = (0..10_000).take_while(|_| take(&mut pace, later).is_ok()).count();
        assert_eq!(burst, 101);
    }
}
