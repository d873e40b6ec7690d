//! Times of messages as text. The clock is never read here.

use std::io::Write as _;

use jiff::{Timestamp, Zoned, fmt::strtime, tz::TimeZone};

use crate::cli::Timestamps;

/// Writes the time before each message; remembers the one before for [`Timestamps::Delta`].
#[derive(Debug)]
pub(crate) struct Stamp {
    how: Timestamps,
    zone: TimeZone,
    before: Option<u64>,
}

impl Stamp {
    /// `zone` is that of [`Timestamps::Local`].
    pub(crate) fn new(how: Timestamps, zone: TimeZone) -> Self {
        Self { how, zone, before: None }
    }

    /// Appends the time of a message: microseconds since 1970.
    pub(crate) fn push(&mut self, out: &mut Vec<u8>, micros: u64) {
        // Writing to memory does not fail.
        let _ = match self.how {
            Timestamps::Local => {
                write!(out, "{}", zoned(micros, &self.zone).strftime("%Y-%m-%d %H:%M:%S%.3f"))
            }
            Timestamps::Utc => write!(out, "{:.6}", timestamp(micros)),
            Timestamps::Epoch => write!(out, "{}.{:06}", micros / 1_000_000, micros % 1_000_000),
            Timestamps::Delta => {
                // Times at the source may go backwards.
                let delta = i128::from(micros) - i128::from(self.before.replace(micros).unwrap_or(micros));
                let (sign, delta) = (if delta < 0 { '-' } else { '+' }, delta.unsigned_abs());
                write!(out, "{sign}{}.{:06}", delta / 1_000_000, delta % 1_000_000)
            }
        };
    }
}

/// Microseconds since 1970 in a zone; what no calendar has becomes the last that one has.
pub(crate) fn zoned(micros: u64, zone: &TimeZone) -> Zoned {
    timestamp(micros).to_zoned(zone.clone())
}

/// Why a text is no strftime format, or nothing if it is one.
pub(crate) fn check_format(format: &str) -> Result<(), jiff::Error> {
    strtime::format(format, &zoned(0, &TimeZone::UTC)).map(drop)
}

fn timestamp(micros: u64) -> Timestamp {
    i64::try_from(micros).ok().and_then(|t| Timestamp::from_microsecond(t).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamps(how: Timestamps, times: &[u64]) -> Vec<String> {
        let mut stamp = Stamp::new(how, TimeZone::fixed(jiff::tz::offset(1)));
        times
            .iter()
            .map(|&time| {
                let mut out = Vec::new();
                stamp.push(&mut out, time);
                String::from_utf8(out).unwrap()
            })
            .collect()
    }

    #[test]
    fn a_time_is_shown_in_the_way_that_was_asked_for() {
        let time = 1_000_000_123_456;
        assert_eq!(stamps(Timestamps::Local, &[time]), ["1970-01-12 14:46:40.123"]);
        assert_eq!(stamps(Timestamps::Utc, &[time]), ["1970-01-12T13:46:40.123456Z"]);
        assert_eq!(stamps(Timestamps::Epoch, &[time]), ["1000000.123456"]);
        assert_eq!(
            stamps(Timestamps::Delta, &[time, time + 1_500_000, time]),
            ["+0.000000", "+1.500000", "-1.500000"]
        );
    }

    proptest! {
        #[test]
        fn no_time_panics(times: Vec<u64>) {
            for how in [Timestamps::Local, Timestamps::Utc, Timestamps::Epoch, Timestamps::Delta] {
                prop_assert_eq!(stamps(how, &times).len(), times.len());
            }
        }
    }
}
