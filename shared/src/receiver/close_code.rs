//! Why a WebSocket connection ends.

macro_rules! close_codes {
    ($($(#[doc = $doc:literal])* $variant:ident = $number:literal,)*) => {
        /// Why a WebSocket connection ends: RFC 6455, section 7.4.1, and the relay's own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CloseCode {
            $($(#[doc = $doc])* $variant,)*
        }

        impl CloseCode {
            /// Its number on the wire.
            pub const fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)* }
            }

            /// The one with that number.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

close_codes! {
    /// Done.
    Done = 1000,
    /// The peer is going away.
    GoingAway = 1001,
    /// Not WebSocket.
    Protocol = 1002,
    /// Data of a kind that is not taken.
    Unsupported = 1003,
    /// Text that is not UTF-8.
    InvalidText = 1007,
    /// Against the rules of this relay.
    Policy = 1008,
    /// A message larger than the limit.
    TooBig = 1009,
    /// A mistake of the relay.
    Internal = 1011,
    /// The relay restarts: reconnect at once and resume.
    Restart = 1012,
    /// Try later.
    TryLater = 1013,
    /// Too slow for what is kept; reconnect.
    Lagged = 4001,
    /// No answer to pings.
    NoPong = 4002,
    /// The token's time is over; reconnect with a new one.
    TokenExpired = 4003,
    /// The channel is elsewhere; reconnect.
    Moved = 4004,
    /// A newer connection took over.
    TakenOver = 4005,
    /// Too much in too short a time; reconnect.
    Rate = 4006,
    /// The token is not valid; final.
    BadToken = 4500,
    /// Not allowed; final.
    Forbidden = 4501,
    /// There is no such channel; final.
    NoSuchChannel = 4502,
    /// None of the subprotocols is known; final.
    BadSubprotocol = 4504,
    /// Too many connections; final.
    TooManyConnections = 4505,
}

impl CloseCode {
    /// Whether a receiver closed with this number should come back: all but 45xx.
    pub const fn reconnects(number: u16) -> bool {
        !(number >= 4500 && number < 4600)
    }
}
