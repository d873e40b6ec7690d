//! What can be wrong on the wire: the codes that both sides know, and what a decoder refuses.

use serde::{Deserialize, Serialize};

macro_rules! error_codes {
    ($($(#[doc = $doc:literal])* $variant:ident = $number:literal $name:literal,)*) => {
        /// Why something was refused: one list for ERROR and CLOSE frames, `ERR` lines and error events.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode {
            $($(#[doc = $doc])* $variant,)*
        }

        impl ErrorCode {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its number in frames.
            pub const fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)* }
            }

            /// Its name in text.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The code of a number; none for one that this version does not know.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

error_codes! {
    /// The message is larger than the relay accepts.
    TooBig = 1 "too_big",
    /// Declared as text, but not valid UTF-8.
    InvalidText = 2 "invalid_text",
    /// Not the name of a channel.
    InvalidChannel = 3 "invalid_channel",
    /// A pseq that is not the next one; the expected one stands beside it.
    Gap = 4 "gap",
    /// More than is allowed in this time.
    Rate = 5 "rate",
    /// Not allowed to do this.
    Forbidden = 6 "forbidden",
    /// The token is not known or not valid.
    BadToken = 7 "bad_token",
    /// The token was valid once.
    TokenExpired = 8 "token_expired",
    /// The channel can't give the level that was asked for.
    LevelUnsupported = 9 "level_unsupported",
    /// The store can't take messages now; the outcome is unknown: send the same again.
    StoreUnavailable = 10 "store_unavailable",
    /// A limit on the number of channels, producers, aliases or subscriptions.
    TooMany = 11 "too_many",
    /// A newer incarnation of the same producer is connected.
    Fenced = 12 "fenced",
    /// The same producer connected anew; the newer connection goes on.
    TakenOver = 13 "taken_over",
    /// What came is not this protocol.
    Protocol = 14 "protocol",
    /// The relay is stopping: reconnect.
    Draining = 15 "draining",
    /// A mistake of the relay.
    Internal = 16 "internal",
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Bytes that are not the protocol. The peer is at fault; the connection can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A frame of length 0, or longer than agreed.
    #[error("a frame of {length} bytes; 1 to {max} are allowed")]
    FrameLength {
        /// What its header says.
        length: usize,
        /// The greatest allowed.
        max: usize,
    },
    /// A frame type that is not known and has not the bit that allows to skip it.
    #[error("unknown frame type {0:#04x}")]
    UnknownType(u8),
    /// A frame whose body is too short, too long or not what its type needs.
    #[error("malformed {0} frame")]
    Malformed(&'static str),
    /// Not the four bytes and the version that a framed sender begins with.
    #[error("version {0} of the protocol is not known")]
    Version(u8),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_again_by_its_number_and_spelt_alike_in_json() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), Some(code));
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{}\"", code.name()));
        }
    }
}
