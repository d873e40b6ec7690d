//! What is said to a peer whose connection ends for a reason that is not its own, and how its last bytes are waited
//! for.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{
    control::Order,
    counters::{Cause, Side},
    course::{Halt, Source},
    frame::Violation,
    rules::Closing,
};
use crate::senders::framing::FramingLost;

/// Why a connection ends, for those that are still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Farewell {
    /// The upstream's connection failed.
    UpstreamFailed,
    /// The gateway ends it.
    Ordered(Order),
    /// One side sent what must not be sent.
    Violated(Source, Violation),
    /// An upstream of bytes did not keep to its framing.
    Lost(FramingLost),
    /// A rule closes it.
    Ruled(Arc<Closing>),
}

/// Internal error (RFC 6455, section 7.4.1). Bad gateway, 1014, is unknown to browsers.
const INTERNAL: u16 = 1011;
/// Going away.
const AWAY: u16 = 1001;
/// Service restart: reconnect.
const RESTART: u16 = 1012;

impl Farewell {
    /// Of what came from one side, and can't go on.
    pub fn of(from: Source, halt: Halt) -> Self {
        match halt {
            Halt::Violation(violation) => Self::Violated(from, violation),
            Halt::Ruled(closing) => Self::Ruled(closing),
        }
    }

    /// The code that a client is told.
    pub fn code(&self) -> u16 {
        match self {
            Self::UpstreamFailed | Self::Lost(_) | Self::Violated(Source::Upstream, _) => INTERNAL,
            Self::Ordered(Order::Idle) => AWAY,
            Self::Ordered(Order::Changed | Order::Stop) => RESTART,
            Self::Violated(Source::Client, violation) => violation.code(),
            Self::Ruled(closing) => closing.code,
        }
    }

    /// The code that an upstream is told: to it the gateway is a client, which goes away.
    fn upstreams_code(&self) -> u16 {
        match self {
            Self::UpstreamFailed | Self::Lost(_) | Self::Ordered(_) | Self::Violated(Source::Client, _) => {
                AWAY
            }
            Self::Violated(Source::Upstream, violation) => violation.code(),
            Self::Ruled(closing) => closing.code,
        }
    }

    /// The text that both are told.
    pub fn text(&self) -> String {
        match self {
            Self::UpstreamFailed => "the upstream's connection failed".into(),
            Self::Ordered(Order::Idle) => "nothing came for too long".into(),
            Self::Ordered(Order::Changed) => "the route was changed: reconnect".into(),
            Self::Ordered(Order::Stop) => "the relay is stopping: reconnect".into(),
            Self::Violated(Source::Client, violation) => violation.to_string(),
            Self::Violated(Source::Upstream, violation) => format!("from the upstream: {violation}"),
            Self::Lost(lost) => lost.to_string(),
            Self::Ruled(closing) => closing.reason.clone(),
        }
    }

    /// Who ends it, and why.
    pub fn end(&self) -> (Side, Cause) {
        match self {
            Self::UpstreamFailed => (Side::Upstream, Cause::Failed),
            Self::Ordered(order) => (Side::Gateway, order.cause()),
            Self::Violated(source, _) => (source.side(), Cause::Misbehaved),
            Self::Lost(_) => (Side::Upstream, Cause::Misbehaved),
            Self::Ruled(_) => (Side::Gateway, Cause::Ruled),
        }
    }

    /// The close frame for a client.
    pub fn to_client(&self) -> Vec<u8> {
        close_frame(Some(self.code()), &self.text(), false)
    }

    /// The close frame for an upstream.
    pub fn to_upstream(&self) -> Vec<u8> {
        close_frame(Some(self.upstreams_code()), &self.text(), true)
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
