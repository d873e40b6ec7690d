//! Frames as peers write them: their headers, their masks, and what is wrong with them. Pure. RFC 6455, section 5.

use shared::Kind;

/// The header of a frame that is right by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it carries.
    pub opcode: Opcode,
    /// The frame is the last one of its message.
    pub last: bool,
    /// What its payload is masked with.
    pub key: Option<[u8; 4]>,
    /// Bytes of its payload.
    pub length: u64,
    /// Bytes of the header itself.
    pub size: usize,
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The beginning of a message, or all of it.
    Message(Kind),
    /// More of the message.
    Continuation,
    /// The end of what a side sends.
    Close,
    /// To be answered.
    Ping,
    /// The answer.
    Pong,
}

/// What a peer must not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Frames of clients are masked.
    #[error("a frame is not masked")]
    Unmasked,
    /// Frames of servers are not.
    #[error("a frame is masked")]
    Masked,
    /// Nothing that would use them was negotiated.
    #[error("reserved bits or opcodes are used")]
    Reserved,
    /// It is in fragments, or has more than 125 bytes.
    #[error("a control frame is too long or in fragments")]
    Control,
    /// A message within another, or the rest of none.
    #[error("fragments are out of order")]
    Fragments,
    /// Its length is written in more bytes than it needs, or its highest bit is set.
    #[error("a length is written wrongly")]
    Length,
    /// A close frame has one byte, or a code that must not be sent.
    #[error("a close frame is wrong")]
    Close,
    /// It says that it is text.
    #[error("a text is not UTF-8")]
    NotText,
    /// It has more bytes than the route allows.
    #[error("a message is longer than is allowed here")]
    TooLong,
}

/// Two bytes, eight of length, four of mask.
pub const MAX_HEADER: usize = 14;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;

impl Header {
    /// Reads the header that these bytes begin with, of a frame that has to be masked or must not be; none if there
    /// are too few of them.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &[u8], masked: bool) -> Result<Option<Self>, Violation> {
        let [first, second, ..] = *bytes else { return Ok(None) };
        let size = header_len(second);
        if bytes.len() < size {
            return Ok(None);
        }
        let last = first & FINAL != 0;
        let opcode = match first & 0x7f {
            0 => Opcode::Continuation,
            1 => Opcode::Message(Kind::Text),
            2 => Opcode::Message(Kind::Binary),
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(Violation::Reserved),
        };
        let key = match (masked, second & MASKED != 0) {
            (true, true) => Some(std::array::from_fn(|i| bytes[size - 4 + i])),
            (false, false) => None,
            (true, false) => return Err(Violation::Unmasked),
            (false, true) => return Err(Violation::Masked),
        };
        let length = payload_len(bytes)?;
        if opcode.is_control() && (!last || length > 125) {
            return Err(Violation::Control);
        }
        Ok(Some(Self { opcode, last, key, length, size }))
    }
}

impl Opcode {
    /// Whether it is a matter of the connection and of no message.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

impl Violation {
    /// The code that whoever did it is told (RFC 6455, section 7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Self::NotText => 1007,
            Self::TooLong => 1009,
            Self::Unmasked
            | Self::Masked
            | Self::Reserved
            | Self::Control
            | Self::Fragments
            | Self::Length
            | Self::Close => 1002,
        }
    }
}

/// The code in the payload of a close frame, if it has one.
///
/// # Errors
/// If it is none that may be sent, or the text behind it is none.
pub fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::Close),
        [high, low, text @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let right = may_be_sent(code) && std::str::from_utf8(text).is_ok();
            if right { Ok(Some(code)) } else { Err(Violation::Close) }
        }
    }
}

/// Whether a peer may send a close code (RFC 6455, section 7.4).
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Takes the mask off, or puts it on; the first of the bytes is masked by `key[phase]`.
pub fn mask(bytes: &mut [u8], key: [u8; 4], phase: u8) {
    let key: [u8; 4] = std::array::from_fn(|i| key[(i + usize::from(phase)) % 4]);
    let wide = u64::from_ne_bytes(std::array::from_fn(|i| key[i % 4]));
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// The bytes of the header whose second byte this is.
fn header_len(second: u8) -> usize {
    let mask = if second & MASKED != 0 { 4 } else { 0 };
    mask + match second & 0x7f {
        126 => 4,
        127 => 10,
        _ => 2,
    }
}

fn payload_len(header: &[u8]) -> Result<u64, Violation> {
    let length = match header[1] & 0x7f {
        126 => u64::from(u16::from_be_bytes([header[2], header[3]])),
        127 => u64::from_be_bytes(std::array::from_fn(|i| header[2 + i])),
        short => return Ok(u64::from(short)),
    };
    let least = if header[1] & 0x7f == 126 { 126 } else { 0x1_0000 };
    if length < least || length >> 63 != 0 { Err(Violation::Length) } else { Ok(length) }
}

/// A frame as a peer would write it, masked by a key or not, right or wrong.
#[cfg(test)]
pub(super) fn written(first: u8, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let mut bytes = vec![first];
    let masked = if key.is_some() { 0x80 } else { 0 };
    match payload.len() {
        short @ 0..=125 => bytes.push(masked | short as u8),
        middle @ 126..=0xffff => {
            bytes.push(masked | 126);
            bytes.extend((middle as u16).to_be_bytes());
        }
        long => {
            bytes.push(masked | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    let key = key.inspect(|key| bytes.extend(key)).unwrap_or_default();
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_is_right_or_says_what_is_not() {
        let read = |bytes: &[u8], masked| Header::read(bytes, masked);
        assert_eq!(read(b"\x81\x01a", true), Err(Violation::Unmasked));
        assert_eq!(read(b"\x81\x81abcd", false), Err(Violation::Masked));
        assert_eq!(read(b"\xc1\x01a", false), Err(Violation::Reserved));
        assert_eq!(read(b"\x83\x01a", false), Err(Violation::Reserved));
        assert_eq!(read(b"\x09\x00", false), Err(Violation::Control));
        assert_eq!(read(b"\x89\x7e\0\x7e", false), Err(Violation::Control));
        assert_eq!(read(b"\x82\x7e\0\x7d", false), Err(Violation::Length));
        assert_eq!(read(b"\x82\x7f\x80\0\0\0\0\x01\0\0", false), Err(Violation::Length));
        assert_eq!(read(b"\x82\x7f\0\0\0\0\0\0\xff\xff", false), Err(Violation::Length));
        let header = Header { opcode: Opcode::Continuation, last: false, key: None, length: 126, size: 4 };
        assert_eq!(read(b"\0\x7e\0\x7e and so on", false), Ok(Some(header)));
    }

    #[test]
    fn a_close_has_a_code_that_may_be_sent_and_a_text() {
        assert_eq!(close_code(b""), Ok(None));
        assert_eq!(close_code(b"\x03\xe8done"), Ok(Some(1000)));
        for wrong in [&b"\x03"[..], b"\x03\xed", b"\x03\xe8\xff", b"\x13\x88"] {
            assert_eq!(close_code(wrong), Err(Violation::Close), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn a_mask_that_is_put_on_in_pieces_comes_off_in_one(mut bytes: Vec<u8>, key: [u8; 4], at: usize) {
            let before = bytes.clone();
            let at = at % (bytes.len() + 1);
            mask(&mut bytes[..at], key, 0);
            mask(&mut bytes[at..], key, (at % 4) as u8);
            mask(&mut bytes, key, 0);
            prop_assert_eq!(bytes, before);
        }

        #[test]
        fn any_bytes_are_a_header_or_wrong_or_too_few(bytes: Vec<u8>, masked: bool) {
            if let Ok(Some(header)) = Header::read(&bytes, masked) {
                prop_assert!(header.size <= bytes.len().min(MAX_HEADER));
                prop_assert_eq!(Header::read(&bytes[..header.size], masked), Ok(Some(header)));
                prop_assert_eq!(Header::read(&bytes[..header.size - 1], masked), Ok(None));
            }
        }
    }
}
