//! What is said to a peer whose connection ends for a reason that is not its own, and how its last bytes are waited
//! for.

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{control::Order, counters::Side, course::Halt, frame::Violation};

/// Why a connection ends, for those that are still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Farewell {
    /// The upstream's connection failed.
    UpstreamFailed,
    /// The gateway ends it.
    Ordered(Order),
    /// What this side sent must not go on.
    Halted(Side, Halt),
}

/// Internal error (RFC 6455, section 7.4.1). Bad gateway, 1014, is unknown to browsers.
const INTERNAL: u16 = 1011;
/// Going away.
const AWAY: u16 = 1001;
/// Service restart: reconnect.
const RESTART: u16 = 1012;

impl Farewell {
    /// The code that a client is told.
    pub fn code(&self) -> u16 {
        match self {
            Self::UpstreamFailed => INTERNAL,
            Self::Ordered(Order::Idle) => AWAY,
            Self::Ordered(Order::Changed | Order::Stop) => RESTART,
            Self::Halted(_, Halt::Ruled(closing)) => closing.code,
            Self::Halted(_, Halt::Violation(Violation::TooLong)) => Violation::TooLong.code(),
            Self::Halted(Side::Upstream, Halt::Violation(_)) => INTERNAL,
            Self::Halted(Side::Client | Side::Gateway, Halt::Violation(violation)) => violation.code(),
        }
    }

    /// The code that an upstream is told: to it the gateway is a client that goes away, unless it was itself the one
    /// that did wrong.
    fn code_for_upstream(&self) -> u16 {
        match self {
            Self::Halted(_, Halt::Ruled(closing)) => closing.code,
            Self::Halted(Side::Upstream, Halt::Violation(violation)) => violation.code(),
            Self::Halted(..) | Self::UpstreamFailed | Self::Ordered(_) => AWAY,
        }
    }

    /// The text that both are told.
    pub fn text(&self) -> String {
        match self {
            Self::UpstreamFailed => "the upstream's connection failed".into(),
            Self::Ordered(Order::Idle) => "nothing came for too long".into(),
            Self::Ordered(Order::Changed) => "the route was changed: reconnect".into(),
            Self::Ordered(Order::Stop) => "the relay is stopping: reconnect".into(),
            Self::Halted(_, Halt::Ruled(closing)) => closing.reason.clone(),
            Self::Halted(_, Halt::Violation(violation)) => violation.to_string(),
        }
    }

    /// The close frame for a client.
    pub fn to_client(&self) -> Vec<u8> {
        close_frame(Some(self.code()), &self.text(), false)
    }

    /// The close frame for an upstream.
    pub fn to_upstream(&self) -> Vec<u8> {
        close_frame(Some(self.code_for_upstream()), &self.text(), true)
    }
}

/// A close frame; its text is cut to what fits (RFC 6455, section 5.5). `masked`: as a client writes it. The mask is
/// zero: no page has a say in these bytes.
pub fn close_frame(code: Option<u16>, text: &str, masked: bool) -> Vec<u8> {
    let text = if code.is_some() { &text[..text.floor_char_boundary(123)] } else { "" };
    let code = code.map(u16::to_be_bytes);
    let payload = code.iter().flatten().copied().chain(text.bytes());
    let length = code.map_or(0, |code| code.len()) + text.len();
    let (bit, mask): (u8, &[u8]) = if masked { (0x80, &[0; 4]) } else { (0, &[]) };
    [0x88, bit | length as u8].into_iter().chain(mask.iter().copied()).chain(payload).collect()
}

/// Reads until the peer has ended its side: closing a socket that has unread bytes would reset what it was told.
pub async fn drain(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = Vec::with_capacity(4096);
    while matches!(stream.read_buf(&mut rest).await, Ok(count) if count > 0) {
        rest.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_frame_is_as_the_side_writes_it() {
        assert_eq!(close_frame(Some(1000), "ok", false), b"\x88\x04\x03\xe8ok");
        assert_eq!(close_frame(Some(1000), "", true), b"\x88\x82\0\0\0\0\x03\xe8");
        assert_eq!(close_frame(None, "not said", false), b"\x88\0");
        assert_eq!(close_frame(Some(1011), &"\u{e9}".repeat(100), false).len(), 2 + 2 + 122);
    }
}
