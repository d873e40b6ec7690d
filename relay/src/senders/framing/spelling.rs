//! How framings are written: in the configuration, on the command line and in first lines.

use std::{fmt, num::NonZeroUsize, str::FromStr, time::Duration};

use shared::units::{format_duration, parse_duration, parse_size};

use super::{Delimiter, Framing, LengthPrefix, MAX_DELIMITER};

/// A text that is no framing, with what would be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Not the name of a framing, or a parameter where it has none.
    #[error(
        "not a framing; use one of line, null, delimiter:HEX, idle:DUR, fixed:N, length:u16, length:u16le, \
         length:u32, length:u32le, octet-count, read, auto"
    )]
    Unknown,
    /// Not the bytes of a delimiter.
    #[error("a delimiter is 1 to {MAX_DELIMITER} bytes in hexadecimal, for example delimiter:0d0a")]
    Delimiter,
    /// Not a time of silence.
    #[error("idle needs a duration above zero, for example idle:20ms")]
    Idle,
    /// Not a number of bytes.
    #[error("fixed needs a number of bytes above zero, for example fixed:16")]
    Fixed,
    /// Not a kind of length.
    #[error("a length is one of length:u16, length:u16le, length:u32, length:u32le")]
    Length,
}

impl FromStr for Framing {
    type Err = FramingError;

    fn from_str(text: &str) -> Result<Self, FramingError> {
        let (name, parameter) = match text.split_once(':') {
            Some((name, parameter)) => (name, Some(parameter)),
            None => (text, None),
        };
        match (name, parameter) {
            ("line", None) => Ok(Self::Line),
            ("null", None) => Ok(Self::Null),
            ("octet-count", None) => Ok(Self::OctetCount),
            ("read", None) => Ok(Self::Read),
            ("auto", None) => Ok(Self::Auto),
            ("delimiter", _) => {
                let bytes = parameter.and_then(from_hex).ok_or(FramingError::Delimiter)?;
                Delimiter::new(&bytes).map(Self::Delimiter).ok_or(FramingError::Delimiter)
            }
            ("idle", _) => {
                let duration = parameter.and_then(|text| parse_duration(text).ok());
                duration
                    .filter(|duration| *duration > Duration::ZERO)
                    .map(Self::Idle)
                    .ok_or(FramingError::Idle)
            }
            ("fixed", _) => {
                let size = parameter.and_then(|text| parse_size(text).ok());
                let bytes = size.and_then(|size| usize::try_from(size).ok()).and_then(NonZeroUsize::new);
                bytes.map(Self::Fixed).ok_or(FramingError::Fixed)
            }
            ("length", _) => {
                let prefix =
                    parameter.and_then(|text| LengthPrefix::ALL.into_iter().find(|p| p.name() == text));
                prefix.map(Self::Length).ok_or(FramingError::Length)
            }
            _ => Err(FramingError::Unknown),
        }
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line => f.write_str("line"),
            Self::Null => f.write_str("null"),
            Self::Delimiter(delimiter) => {
                f.write_str("delimiter:")?;
                delimiter.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Idle(duration) => write!(f, "idle:{}", format_duration(*duration)),
            Self::Fixed(bytes) => write!(f, "fixed:{bytes}"),
            Self::Length(prefix) => write!(f, "length:{}", prefix.name()),
            Self::OctetCount => f.write_str("octet-count"),
            Self::Read => f.write_str("read"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl LengthPrefix {
    const ALL: [Self; 4] = [Self::U16, Self::U16Le, Self::U32, Self::U32Le];

    const fn name(self) -> &'static str {
        match self {
            Self::U16 => "u16",
            Self::U16Le => "u16le",
            Self::U32 => "u32",
            Self::U32Le => "u32le",
        }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |&byte: &u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_framing_is_written_as_it_was_read() {
        for text in [
            "line",
            "null",
            "delimiter:0d0a",
            "delimiter:ff",
            "idle:20ms",
            "idle:1s",
            "fixed:1",
            "fixed:4096",
            "length:u16",
            "length:u16le",
            "length:u32",
            "length:u32le",
            "octet-count",
            "read",
            "auto",
        ] {
            assert_eq!(text.parse::<Framing>().unwrap().to_string(), text);
        }
        assert_eq!("delimiter:0D0A".parse::<Framing>().unwrap().to_string(), "delimiter:0d0a");
        assert_eq!("fixed:4KiB".parse::<Framing>().unwrap().to_string(), "fixed:4096");
    }

    #[test]
    fn what_is_no_framing_says_what_would_be_one() {
        let error = |text: &str| text.parse::<Framing>().unwrap_err();
        for text in ["", "lines", "Line", "line:", "auto:1s", "octet-count:5", "lenght:u16"] {
            assert_eq!(error(text), FramingError::Unknown, "{text}");
        }
        for text in
            ["delimiter", "delimiter:", "delimiter:0", "delimiter:0d0", "delimiter:xy", "delimiter:\u{e9}"]
        {
            assert_eq!(error(text), FramingError::Delimiter, "{text}");
        }
        assert_eq!(error(&format!("delimiter:{}", "00".repeat(MAX_DELIMITER + 1))), FramingError::Delimiter);
        for text in ["idle", "idle:", "idle:0s", "idle:20"] {
            assert_eq!(error(text), FramingError::Idle, "{text}");
        }
        for text in ["fixed", "fixed:", "fixed:0", "fixed:-1", "fixed:many"] {
            assert_eq!(error(text), FramingError::Fixed, "{text}");
        }
        for text in ["length", "length:", "length:u8", "length:u16be"] {
            assert_eq!(error(text), FramingError::Length, "{text}");
        }
        assert!(error("lines").to_string().contains("octet-count"));
    }

    proptest! {
        #[test]
        fn reading_a_framing_never_panics(text in "(delimiter|idle|fixed|length)?:?\\PC{0,20}") {
            if let Ok(framing) = text.parse::<Framing>() {
                prop_assert_eq!(framing.to_string().parse(), Ok(framing));
            }
        }
    }
}
