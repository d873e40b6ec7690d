//! How much comes in a time: a bucket that fills at a rate and is emptied by what comes. Pure: time is given.

use std::time::Instant;

/// So much in a second, and at most so much at once after a silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In a second.
    pub per_second: u64,
    /// At once.
    pub burst: u64,
}

/// What is left of a [`Rate`].
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    rate: Rate,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, level: rate.burst as f64, at: now }
    }

    /// Whether so much is in it by now.
    pub fn has(&mut self, much: u64, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.level = (self.level + since * self.rate.per_second as f64).min(self.rate.burst as f64);
        much as f64 <= self.level
    }

    /// Takes out what it [`has`](Self::has).
    pub fn take(&mut self, much: u64) {
        self.level -= much as f64;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn after_a_burst_it_is_so_much_in_a_second() {
        let begun = Instant::now();
        let mut bucket = Bucket::new(Rate { per_second: 10, burst: 3 }, begun);
        let mut take = |millis| {
            let has = bucket.has(1, begun + Duration::from_millis(millis));
            if has {
                bucket.take(1);
            }
            has
        };
        assert_eq!([take(0), take(0), take(0), take(0)], [true, true, true, false]);
        assert_eq!([take(90), take(110), take(110), take(190), take(210)], [false, true, false, false, true]);
        // However long the silence, it is no more than the burst.
        assert_eq!([take(9000), take(9000), take(9000), take(9000)], [true, true, true, false]);
    }

    proptest! {
        #[test]
        fn never_more_passes_than_the_burst_and_the_rate_allow(
            per_second in 1u64..1000,
            burst in 1u64..1000,
            comes in prop::collection::vec((0u64..300, 1u64..500), 1..50),
        ) {
            let begun = Instant::now();
            let mut bucket = Bucket::new(Rate { per_second, burst }, begun);
            let (mut millis, mut passed) = (0, 0);
            for (after, much) in comes {
                millis += after;
                if bucket.has(much, begun + Duration::from_millis(millis)) {
                    bucket.take(much);
                    passed += much;
                }
                prop_assert!(passed as f64 <= burst as f64 + per_second as f64 * millis as f64 / 1000.0 + 1e-3);
            }
        }
    }
}
