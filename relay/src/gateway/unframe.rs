//! Frames of a browser → bytes, as they come: payloads are unmasked where they lie and passed on before a message is
//! whole, since for an upstream of bytes messages have no boundaries. Pure. RFC 6455, section 5.

use super::frame::{Header, MAX_HEADER, Opcode, Violation, close_code, mask};

/// Where in a stream of a client's frames one is.
#[derive(Debug, Default)]
pub struct Unframer {
    state: State,
    /// Within a message in fragments.
    fragmented: bool,
}

#[derive(Debug)]
enum State {
    Header {
        have: [u8; MAX_HEADER],
        len: u8,
    },
    Data {
        left: u64,
        key: [u8; 4],
        at: u8,
    },
    Control {
        opcode: Opcode,
        key: [u8; 4],
        left: u8,
        payload: Vec<u8>,
    },
    /// A close frame has come: what follows is nothing.
    Closed,
}

/// What a piece of bytes brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unframed {
    /// Payload, at the beginning of the piece.
    pub bytes: usize,
    /// Messages whose last frame began.
    pub messages: u64,
    /// Payloads of pings, to be answered.
    pub pings: Vec<Vec<u8>>,
    /// A close frame, with its code if it has one.
    pub close: Option<Option<u16>>,
    /// What the client must not do: nothing behind what else was found can be understood.
    pub violation: Option<Violation>,
}

impl Default for State {
    fn default() -> Self {
        Self::Header { have: [0; MAX_HEADER], len: 0 }
    }
}

impl Unframer {
    /// Takes a piece of what came; leaves the payloads in it at its beginning.
    pub fn take(&mut self, piece: &mut [u8]) -> Unframed {
        let mut found = Unframed::default();
        found.violation = self.find(piece, &mut found).err();
        found
    }

    fn find(&mut self, piece: &mut [u8], found: &mut Unframed) -> Result<(), Violation> {
        let mut at = 0;
        while at < piece.len() {
            match &mut self.state {
                State::Closed => break,
                State::Header { have, len } => {
                    have[usize::from(*len)] = piece[at];
                    *len += 1;
                    at += 1;
                    if let Some(header) = Header::read(&have[..usize::from(*len)], true)? {
                        self.state = self.begin(header, found)?;
                        self.end_control(found)?;
                    }
                }
                State::Data { left, key, at: phase } => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len() - at);
                    piece.copy_within(at..at + count, found.bytes);
                    mask(&mut piece[found.bytes..found.bytes + count], *key, *phase);
                    *phase = ((usize::from(*phase) + count) % 4) as u8;
                    *left -= count as u64;
                    found.bytes += count;
                    at += count;
                    if *left == 0 {
                        self.state = State::default();
                    }
                }
                State::Control { key, left, payload, .. } => {
                    let count = usize::from(*left).min(piece.len() - at);
                    let from = payload.len();
                    payload.extend_from_slice(&piece[at..at + count]);
                    mask(&mut payload[from..], *key, (from % 4) as u8);
                    *left -= count as u8;
                    at += count;
                    self.end_control(found)?;
                }
            }
        }
        Ok(())
    }

    /// A header is there.
    fn begin(&mut self, header: Header, found: &mut Unframed) -> Result<State, Violation> {
        let Header { opcode, last, length, .. } = header;
        let key = header.key.unwrap_or_default();
        if opcode.is_control() {
            return Ok(State::Control { opcode, key, left: length as u8, payload: Vec::new() });
        }
        if (opcode == Opcode::Continuation) != self.fragmented {
            return Err(Violation::Fragments);
        }
        self.fragmented = !last;
        found.messages += u64::from(last);
        Ok(if length == 0 { State::default() } else { State::Data { left: length, key, at: 0 } })
    }

    /// Understands a control frame if it is whole.
    fn end_control(&mut self, found: &mut Unframed) -> Result<(), Violation> {
        let State::Control { opcode, left: 0, payload, .. } = &mut self.state else { return Ok(()) };
        let payload = std::mem::take(payload);
        let opcode = *opcode;
        self.state = State::default();
        match opcode {
            Opcode::Ping => found.pings.push(payload),
            Opcode::Close => {
                found.close = Some(close_code(&payload)?);
                self.state = State::Closed;
            }
            Opcode::Pong | Opcode::Continuation | Opcode::Message(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            short @ 0..=125 => bytes.push(0x80 | short as u8),
            middle @ 126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend((middle as u16).to_be_bytes());
            }
            long => {
                bytes.push(0x80 | 127);
                bytes.extend((long as u64).to_be_bytes());
            }
        }
        bytes.extend(KEY);
        bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    fn violation(bytes: &[u8]) -> Violation {
        Unframer::default().take(&mut bytes.to_vec()).violation.unwrap()
    }

    proptest! {
        #[test]
        fn payloads_come_out_as_they_went_in_whatever_the_pieces(
            parts in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..400)), 1..8),
            piece in 1usize..500,
        ) {
            let (mut bytes, mut payload, mut within) = (Vec::new(), Vec::new(), false);
            for (last, part) in &parts {
                bytes.extend(frame(u8::from(*last) << 7 | if within { 0 } else { 2 }, part));
                bytes.extend(frame(0x89, &[1, 2, 3]));
                payload.extend_from_slice(part);
                within = !last;
            }
            bytes.extend(frame(0x88, b"\x03\xe8done"));
            let mut unframer = Unframer::default();
            let (mut out, mut pings, mut messages, mut close) = (Vec::new(), 0, 0, None);
            for piece in bytes.chunks_mut(piece) {
                let found = unframer.take(piece);
                prop_assert_eq!(found.violation, None);
                out.extend_from_slice(&piece[..found.bytes]);
                prop_assert!(found.pings.iter().all(|ping| ping == &[1, 2, 3]));
                pings += found.pings.len();
                messages += found.messages;
                close = close.or(found.close);
            }
            prop_assert_eq!(out, payload);
            prop_assert_eq!(pings, parts.len());
            prop_assert_eq!(messages, parts.iter().filter(|(last, _)| *last).count() as u64);
            prop_assert_eq!(close, Some(Some(1000)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(pieces: Vec<Vec<u8>>) {
            let mut unframer = Unframer::default();
            for mut piece in pieces {
                if unframer.take(&mut piece).violation.is_some() {
                    break;
                }
            }
        }
    }

    #[test]
    fn what_a_client_must_not_send_is_told() {
        assert_eq!(violation(b"\x82\x01a"), Violation::Unmasked);
        assert_eq!(violation(&frame(0xc2, b"a")), Violation::Reserved);
        assert_eq!(violation(&frame(0x83, b"a")), Violation::Reserved);
        assert_eq!(violation(&frame(0x09, b"a")), Violation::Control);
        assert_eq!(violation(&frame(0x89, &[0; 126])), Violation::Control);
        assert_eq!(violation(&frame(0x80, b"a")), Violation::Fragments);
        assert_eq!(violation(&[frame(0x02, b"a"), frame(0x82, b"b")].concat()), Violation::Fragments);
        assert_eq!(violation(b"\x82\xfe\0\x01\0\0\0\0"), Violation::Length);
        assert_eq!(violation(&frame(0x88, b"\x03")), Violation::Close);
        assert_eq!(violation(&frame(0x88, b"\x03\xed")), Violation::Close);
    }

    #[test]
    fn nothing_counts_after_a_close_frame() {
        let mut bytes = [frame(0x88, b""), frame(0x82, b"late")].concat();
        let found = Unframer::default().take(&mut bytes);
        assert_eq!((found.bytes, found.close), (0, Some(None)));
    }
}
