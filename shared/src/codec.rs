//! Bytes ⇄ frames of the framed protocol, incremental and without copies: a decoder looks at what has come so
//! far and says what it is, or that more is needed.
//!
//! A frame is `u32 length of what follows, u8 type, body`, big-endian.

use bytes::BufMut;

use crate::{
    Kind, Seq, WireError,
    envelope::Epoch,
    sender::{
        Ack, Alias, Close, Hello, Levels, Open, Opened, PREAMBLE, ProducerId, Publish, Refusal, RelayFrame,
        SenderFrame, VERSION, Welcome,
    },
};

const HELLO: u8 = 0x01;
const WELCOME: u8 = 0x02;
const OPEN: u8 = 0x03;
const OPENED: u8 = 0x04;
const PUBLISH: u8 = 0x05;
const ACK: u8 = 0x06;
const ERROR: u8 = 0x07;
const PING: u8 = 0x08;
const PONG: u8 = 0x09;
const DRAIN: u8 = 0x0A;
const CLOSE: u8 = 0x0B;

/// An unknown type with this bit set may be skipped.
const SKIPPABLE: u8 = 0x80;
const KIND_TEXT: u8 = 0x01;
const HAS_SOURCE_TIME: u8 = 0x40;

/// What a decoder found at the beginning of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<T> {
    /// Not a whole frame yet; so many bytes in all would be one, or would tell how many.
    Incomplete(usize),
    /// A frame, and the bytes that it took.
    Frame(T, usize),
    /// A frame of a later version that may be passed over, and the bytes that it took.
    Skipped(usize),
}

/// Looks for the preamble of a framed sender at the beginning of the bytes.
pub fn decode_preamble(bytes: &[u8]) -> Result<Decoded<()>, WireError> {
    let whole = PREAMBLE.len() + 1;
    match bytes.get(..whole) {
        None => Ok(Decoded::Incomplete(whole)),
        Some(bytes) if bytes[..4] != PREAMBLE => Err(WireError::Malformed("preamble")),
        Some(bytes) if bytes[4] != VERSION => Err(WireError::Version(bytes[4])),
        Some(_) => Ok(Decoded::Frame((), whole)),
    }
}

/// Looks for a sender's frame at the beginning of the bytes; `max_frame` bounds what its header may announce.
pub fn decode_sender(bytes: &[u8], max_frame: usize) -> Result<Decoded<SenderFrame<'_>>, WireError> {
    decode(bytes, max_frame, |kind, mut body| {
        let frame = match kind {
            HELLO => SenderFrame::Hello(Hello {
                producer: ProducerId(body.array()?),
                producer_epoch: body.u32()?,
                keep_s: body.u32()?,
                token: body.counted()?,
            }),
            OPEN => SenderFrame::Open(Open {
                alias: Alias(body.u16()?),
                levels: Levels(body.u8()?),
                first_pseq: body.u64()?,
                channel: std::str::from_utf8(body.counted()?).ok()?,
            }),
            PUBLISH => {
                let (alias, pseq, flags) = (Alias(body.u16()?), body.u64()?, body.u8()?);
                if flags & !(KIND_TEXT | HAS_SOURCE_TIME) != 0 {
                    return None;
                }
                let kind = if flags & KIND_TEXT != 0 { Kind::Text } else { Kind::Binary };
                let source_time = if flags & HAS_SOURCE_TIME != 0 { Some(body.u64()?) } else { None };
                SenderFrame::Publish(Publish { alias, pseq, kind, source_time, payload: body.rest() })
            }
            PING => SenderFrame::Ping(body.u64()?),
            PONG => SenderFrame::Pong(body.u64()?),
            CLOSE => SenderFrame::Close(body.close()?),
            _ => return None,
        };
        body.ended(frame)
    })
}

/// Looks for a relay's frame at the beginning of the bytes; `max_frame` bounds what its header may announce.
pub fn decode_relay(bytes: &[u8], max_frame: usize) -> Result<Decoded<RelayFrame<'_>>, WireError> {
    decode(bytes, max_frame, |kind, mut body| {
        let frame = match kind {
            WELCOME => RelayFrame::Welcome(Welcome {
                epoch: Epoch(body.u64()?),
                max_message: body.u32()?,
                window_messages: body.u32()?,
                window_bytes: body.u32()?,
                ping_ms: body.u32()?,
            }),
            OPENED => RelayFrame::Opened(Opened {
                alias: Alias(body.u16()?),
                levels: Levels(body.u8()?),
                last_pseq: body.u64()?,
                receivers: body.u32()?,
            }),
            ACK => {
                RelayFrame::Ack(Ack { alias: Alias(body.u16()?), pseq: body.u64()?, seq: Seq(body.u64()?) })
            }
            ERROR => RelayFrame::Error(Refusal {
                code: body.u16()?,
                fatal: body.u8()? != 0,
                alias: Alias(body.u16()?),
                pseq: body.u64()?,
                retry_ms: body.u32()?,
                text: std::str::from_utf8(body.rest()).ok()?,
            }),
            PING => RelayFrame::Ping(body.u64()?),
            PONG => RelayFrame::Pong(body.u64()?),
            DRAIN => RelayFrame::Drain { deadline_ms: body.u32()? },
            CLOSE => RelayFrame::Close(body.close()?),
            _ => return None,
        };
        body.ended(frame)
    })
}

/// Writes the preamble of a framed sender.
pub fn encode_preamble(out: &mut impl BufMut) {
    out.put_slice(&PREAMBLE);
    out.put_u8(VERSION);
}

/// Writes a sender's frame.
///
/// # Panics
/// If a token or a channel's name is longer than 65 535 bytes.
pub fn encode_sender(frame: &SenderFrame<'_>, out: &mut impl BufMut) {
    match *frame {
        SenderFrame::Hello(Hello { producer, producer_epoch, keep_s, token }) => {
            header(out, HELLO, 26 + token.len());
            out.put_slice(&producer.0);
            out.put_u32(producer_epoch);
            out.put_u32(keep_s);
            put_counted(out, token);
        }
        SenderFrame::Open(Open { alias, levels, first_pseq, channel }) => {
            header(out, OPEN, 13 + channel.len());
            out.put_u16(alias.0);
            out.put_u8(levels.0);
            out.put_u64(first_pseq);
            put_counted(out, channel.as_bytes());
        }
        SenderFrame::Publish(Publish { alias, pseq, kind, source_time, payload }) => {
            header(out, PUBLISH, 11 + source_time.map_or(0, |_| 8) + payload.len());
            out.put_u16(alias.0);
            out.put_u64(pseq);
            let text = if kind == Kind::Text { KIND_TEXT } else { 0 };
            out.put_u8(text | source_time.map_or(0, |_| HAS_SOURCE_TIME));
            if let Some(time) = source_time {
                out.put_u64(time);
            }
            out.put_slice(payload);
        }
        SenderFrame::Ping(n) => put_u64_frame(out, PING, n),
        SenderFrame::Pong(n) => put_u64_frame(out, PONG, n),
        SenderFrame::Close(close) => put_close(out, close),
    }
}

/// Writes a relay's frame.
pub fn encode_relay(frame: &RelayFrame<'_>, out: &mut impl BufMut) {
    match *frame {
        RelayFrame::Welcome(Welcome { epoch, max_message, window_messages, window_bytes, ping_ms }) => {
            header(out, WELCOME, 24);
            out.put_u64(epoch.0);
            out.put_u32(max_message);
            out.put_u32(window_messages);
            out.put_u32(window_bytes);
            out.put_u32(ping_ms);
        }
        RelayFrame::Opened(Opened { alias, levels, last_pseq, receivers }) => {
            header(out, OPENED, 15);
            out.put_u16(alias.0);
            out.put_u8(levels.0);
            out.put_u64(last_pseq);
            out.put_u32(receivers);
        }
        RelayFrame::Ack(Ack { alias, pseq, seq }) => {
            header(out, ACK, 18);
            out.put_u16(alias.0);
            out.put_u64(pseq);
            out.put_u64(seq.0);
        }
        RelayFrame::Error(Refusal { code, fatal, alias, pseq, retry_ms, text }) => {
            header(out, ERROR, 17 + text.len());
            out.put_u16(code);
            out.put_u8(u8::from(fatal));
            out.put_u16(alias.0);
            out.put_u64(pseq);
            out.put_u32(retry_ms);
            out.put_slice(text.as_bytes());
        }
        RelayFrame::Ping(n) => put_u64_frame(out, PING, n),
        RelayFrame::Pong(n) => put_u64_frame(out, PONG, n),
        RelayFrame::Drain { deadline_ms } => {
            header(out, DRAIN, 4);
            out.put_u32(deadline_ms);
        }
        RelayFrame::Close(close) => put_close(out, close),
    }
}

fn decode<'a, T>(
    bytes: &'a [u8],
    max_frame: usize,
    read: impl FnOnce(u8, Body<'a>) -> Option<T>,
) -> Result<Decoded<T>, WireError> {
    let Some((header, rest)) = bytes.split_first_chunk::<4>() else { return Ok(Decoded::Incomplete(5)) };
    let length = u32::from_be_bytes(*header) as usize;
    if length == 0 || length > max_frame {
        return Err(WireError::FrameLength { length, max: max_frame });
    }
    let Some((&kind, body)) = rest.get(..length).and_then(<[u8]>::split_first) else {
        return Ok(Decoded::Incomplete(4 + length));
    };
    match read(kind, Body(body)) {
        Some(frame) => Ok(Decoded::Frame(frame, 4 + length)),
        None => match name_of(kind) {
            Some(name) => Err(WireError::Malformed(name)),
            None if kind & SKIPPABLE != 0 => Ok(Decoded::Skipped(4 + length)),
            None => Err(WireError::UnknownType(kind)),
        },
    }
}

fn name_of(kind: u8) -> Option<&'static str> {
    const NAMES: [&str; 11] =
        ["HELLO", "WELCOME", "OPEN", "OPENED", "PUBLISH", "ACK", "ERROR", "PING", "PONG", "DRAIN", "CLOSE"];
    NAMES.get(usize::from(kind).wrapping_sub(1)).copied()
}

/// What is left of a frame's body; every reader takes from the front, and gives nothing if it is too short.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn counted(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn close(&mut self) -> Option<Close<'a>> {
        Some(Close { code: self.u16()?, text: std::str::from_utf8(self.rest()).ok()? })
    }

    fn ended<T>(&self, frame: T) -> Option<T> {
        self.0.is_empty().then_some(frame)
    }
}

fn header(out: &mut impl BufMut, kind: u8, body: usize) {
    out.put_u32(u32::try_from(1 + body).expect("a frame is shorter than 4 GiB"));
    out.put_u8(kind);
}

fn put_counted(out: &mut impl BufMut, bytes: &[u8]) {
    out.put_u16(u16::try_from(bytes.len()).expect("a counted field is at most 65535 bytes"));
    out.put_slice(bytes);
}

fn put_u64_frame(out: &mut impl BufMut, kind: u8, n: u64) {
    header(out, kind, 8);
    out.put_u64(n);
}

fn put_close(out: &mut impl BufMut, close: Close<'_>) {
    header(out, CLOSE, 2 + close.text.len());
    out.put_u16(close.code);
    out.put_slice(close.text.as_bytes());
}

#[cfg(test)]
mod tests;
