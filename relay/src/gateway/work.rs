//! How much of the processor's time may go into replacing in one message. A search takes time in proportion to what it
//! looks at, but one search for each match may take the square of that: `.*x|y` looks to the end of the message behind
//! each `y`.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What a message of no length may take, and each byte besides: several times of what expressions take that look at
/// each byte a few times.
const LEAST: Duration = Duration::from_millis(20);
const PER_BYTE: Duration = Duration::from_micros(1);
/// Matches between two looks at the clock.
const EACH: u32 = 16;

/// Time of the processor that this thread has had. Other threads, however busy, do not count.
pub(super) type Clock = fn() -> Duration;

/// The clock of the system.
pub(super) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// The work on one message.
#[derive(Debug)]
pub(super) struct Work {
    clock: Clock,
    until: Duration,
    matches: u32,
}

impl Work {
    /// Begins work on a message of so many bytes.
    pub(super) fn begin(clock: Clock, bytes: usize) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self { clock, until: clock() + LEAST + PER_BYTE * bytes, matches: 0 }
    }

    /// One more match was found; whether there is time for another.
    pub(super) fn goes_on(&mut self) -> bool {
        self.matches += 1;
        !self.matches.is_multiple_of(EACH) || (self.clock)() < self.until
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local!(static TIME: Cell<Duration> = const { Cell::new(Duration::ZERO) });

    #[test]
    fn work_ends_when_a_message_has_had_its_time_however_few_matches_that_were() {
        for (bytes, millis) in [(0, 20), (30_000, 50)] {
            TIME.set(Duration::ZERO);
            let mut work = Work::begin(|| TIME.get(), bytes);
            TIME.set(Duration::from_millis(millis) - Duration::from_nanos(1));
            assert!((0..1000).all(|_| work.goes_on()));
            TIME.set(Duration::from_millis(millis));
            let more = (0..1000).take_while(|_| work.goes_on()).count();
            assert!(more < EACH as usize, "{more} matches");
        }
    }
}
