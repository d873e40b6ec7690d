//! Walks over WebSocket frames that pass, in either direction, without touching them: counts messages, finds the
//! close frame and the ends of frames. Pure. RFC 6455, section 5.2.

/// Where in a stream of frames a walk is.
#[derive(Debug, Default)]
pub struct Walker {
    /// Bytes of the current payload to come.
    left: u64,
    /// The header so far; of a close frame its code belongs to it.
    header: [u8; MAX_HEADER],
    have: u8,
    /// The current frame is the last one of a message.
    ends_message: bool,
    /// A close frame has passed: what follows is nothing.
    closed: bool,
}

/// What some bytes brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Walked {
    /// Messages whose last byte they had.
    pub messages: u64,
    /// A close frame, with its code if it has one.
    pub close: Option<Option<u16>>,
}

/// Two bytes, eight of length, four of mask, two of a close code.
const MAX_HEADER: usize = 16;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const CONTROL: u8 = 0x08;
const CLOSE: u8 = 0x08;

impl Walker {
    /// Walks on over all of what came.
    pub fn walk(&mut self, mut bytes: &[u8]) -> Walked {
        let mut walked = Walked::default();
        while !bytes.is_empty() {
            let used = self.step(bytes, &mut walked);
            bytes = &bytes[used..];
        }
        walked
    }

    /// Whether a frame may be put here.
    pub fn is_between_frames(&self) -> bool {
        self.left == 0 && self.have == 0
    }

    /// Whether a close frame has passed.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Walks to the end of the current frame, or of the bytes; how many they were.
    pub fn step(&mut self, bytes: &[u8], walked: &mut Walked) -> usize {
        if self.closed {
            return bytes.len();
        }
        if self.left > 0 {
            return self.skip(bytes, walked);
        }
        let mut used = 0;
        // The header is mostly there as a whole.
        if self.have == 0 && bytes.len() >= MAX_HEADER {
            used = needed(bytes);
            self.understand(bytes, used, walked);
        } else {
            loop {
                let Some(&byte) = bytes.get(used) else { return used };
                self.header[usize::from(self.have)] = byte;
                self.have += 1;
                used += 1;
                if self.have >= 2 && usize::from(self.have) == needed(&self.header) {
                    break;
                }
            }
            let header = self.header;
            self.understand(&header, usize::from(self.have), walked);
            self.have = 0;
        }
        if self.closed { bytes.len() } else { used + self.skip(&bytes[used..], walked) }
    }

    fn skip(&mut self, bytes: &[u8], walked: &mut Walked) -> usize {
        let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.left -= skipped as u64;
        if self.left == 0 {
            walked.messages += u64::from(std::mem::take(&mut self.ends_message));
        }
        skipped
    }

    fn understand(&mut self, header: &[u8], length: usize, walked: &mut Walked) {
        let payload = payload_len(header);
        let opcode = header[0] & 0x0f;
        self.left = payload;
        if opcode == CLOSE {
            self.closed = true;
            self.left = 0;
            walked.close = Some((payload >= 2).then(|| close_code(header, length)));
        } else {
            self.ends_message = opcode & CONTROL == 0 && header[0] & FINAL != 0;
        }
    }
}

/// The bytes of the header that these two begin; of a close frame with its code.
fn needed(header: &[u8]) -> usize {
    let length = match header[1] & 0x7f {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let mask = if header[1] & MASKED != 0 { 4 } else { 0 };
    let code = if header[0] & 0x0f == CLOSE && matches!(header[1] & 0x7f, 2..=125) { 2 } else { 0 };
    length + mask + code
}

fn payload_len(header: &[u8]) -> u64 {
    match header[1] & 0x7f {
        126 => u64::from(u16::from_be_bytes([header[2], header[3]])),
        127 => u64::from_be_bytes(std::array::from_fn(|i| header[2 + i])),
        short => u64::from(short),
    }
}

fn close_code(header: &[u8], length: usize) -> u16 {
    let code = [header[length - 2], header[length - 1]];
    let mask = if header[1] & MASKED != 0 { [header[2], header[3]] } else { [0, 0] };
    u16::from_be_bytes([code[0] ^ mask[0], code[1] ^ mask[1]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::frame::written as frame, *};

    proptest! {
        #[test]
        fn messages_and_the_close_code_are_found_in_whatever_pieces_they_come(
            parts in prop::collection::vec((any::<bool>(), prop_oneof![0usize..200, Just(65_535), Just(70_000)]), 0..6),
            key: Option<[u8; 4]>,
            code in prop::option::of(1000u16..5000),
            piece in 1usize..3000,
        ) {
            let mut bytes = Vec::new();
            for (last, length) in &parts {
                bytes.extend(frame(if *last { 0x81 } else { 0x01 }, &vec![0xff; *length], key));
                bytes.extend(frame(0x89, b"ping", key));
            }
            let mut walker = Walker::default();
            let mut total = Walked::default();
            for piece in bytes.chunks(piece) {
                total.messages += walker.walk(piece).messages;
            }
            prop_assert!(walker.is_between_frames());
            prop_assert_eq!(total.messages, parts.iter().filter(|(last, _)| *last).count() as u64);
            let payload = code.map(|code| [&code.to_be_bytes()[..], b"reason"].concat()).unwrap_or_default();
            let mut close = None;
            for piece in frame(0x88, &payload, key).chunks(piece) {
                let walked = walker.walk(piece);
                close = close.or(walked.close);
            }
            prop_assert_eq!(close, Some(code));
            prop_assert!(walker.is_closed());
        }

        #[test]
        fn a_step_ends_where_a_frame_does(lengths in prop::collection::vec(0usize..300, 1..5), piece in 1usize..400) {
            let frames: Vec<Vec<u8>> = lengths.iter().map(|n| frame(0x82, &vec![7; *n], Some([1, 2, 3, 4]))).collect();
            let bytes = frames.concat();
            let mut walker = Walker::default();
            let (mut at, mut ends) = (0, Vec::new());
            while at < bytes.len() {
                let end = bytes.len().min(at + piece);
                at += walker.step(&bytes[at..end], &mut Walked::default());
                if walker.is_between_frames() {
                    ends.push(at);
                }
            }
            let expected: Vec<usize> = frames.iter().scan(0, |at, frame| { *at += frame.len(); Some(*at) }).collect();
            prop_assert_eq!(ends, expected);
        }

        #[test]
        fn a_message_counts_with_its_last_byte(length in 0usize..70_000, key: Option<[u8; 4]>) {
            let bytes = frame(0x82, &vec![7; length], key);
            let (last, rest) = bytes.split_last().expect("a frame has a header");
            let mut walker = Walker::default();
            prop_assert_eq!(walker.walk(rest).messages, 0);
            prop_assert_eq!(walker.walk(&[*last]).messages, 1);
        }

        #[test]
        fn arbitrary_bytes_never_panic(pieces: Vec<Vec<u8>>) {
            let mut walker = Walker::default();
            for piece in &pieces {
                walker.walk(piece);
            }
        }
    }
}
