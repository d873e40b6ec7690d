//! Durations and sizes as people write them: `250ms`, `10m`, `1h30m`; `64KiB`, `1MB`.

use std::time::Duration;

use bytesize::ByteSize;

/// A text that is no duration or size, with what would be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error("not a duration; write it like 250ms, 10s, 1h30m")]
    Duration,
    /// Not a size.
    #[error("not a size; write it like 512, 64KiB, 1MB")]
    Size,
}

/// Reads a duration; a number needs its unit.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| UnitError::Duration)?;
    if text.starts_with(['P', 'p', '-', '+']) || text.ends_with("ago") {
        return Err(UnitError::Duration);
    }
    Duration::try_from(span).map_err(|_| UnitError::Duration)
}

/// Writes a duration so that [`parse_duration`] reads the same.
pub fn format_duration(duration: Duration) -> String {
    match jiff::SignedDuration::try_from(duration) {
        Ok(span) => format!("{span:#}").replace(' ', ""),
        Err(_) => format!("{}s", duration.as_secs()),
    }
}

/// Reads a size in bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let size: ByteSize = text.parse().map_err(|_| UnitError::Size)?;
    Ok(size.as_u64())
}

/// Writes a size for people, in binary units: `64 MiB`, `1.5 KiB`, `5 B`.
pub fn format_size(bytes: u64) -> String {
    let text = ByteSize::b(bytes).display().iec().to_string();
    text.replacen(".0 ", " ", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        for text in ["", "10", "-1s", "PT10S", "soon", "1s ago"] {
            assert_eq!(parse_duration(text), Err(UnitError::Duration), "{text}");
        }
    }

    #[test]
    fn a_written_duration_is_read_again() {
        for ms in [1, 250, 1000, 90_000, 5_400_000, 43_200_000, 100_000_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }

    #[test]
    fn sizes_are_read_and_written_as_people_do() {
        assert_eq!(parse_size("512"), Ok(512));
        assert_eq!(parse_size("64KiB"), Ok(65536));
        assert_eq!(parse_size("1MB"), Ok(1_000_000));
        assert_eq!(parse_size("big"), Err(UnitError::Size));
        assert_eq!(format_size(5), "5 B");
        assert_eq!(format_size(64 << 20), "64 MiB");
        assert_eq!(format_size(1536), "1.5 KiB");
    }
}
