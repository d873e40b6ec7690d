//! Walks over the frames that a receiver sends, before they are understood: bounds what one message may come in,
//! since the WebSocket core shows whole messages only. RFC 6455, section 5.

/// Counts the frames of each message in a stream of bytes, in whatever pieces it comes.
#[derive(Debug, Default)]
pub struct FrameCounter {
    state: State,
    /// Frames of the current message so far.
    frames: usize,
}

#[derive(Debug)]
enum State {
    Header { have: [u8; 14], len: usize },
    Payload { left: u64 },
}

impl Default for State {
    fn default() -> Self {
        Self::Header { have: [0; 14], len: 0 }
    }
}

impl FrameCounter {
    /// Walks on over what came; the greatest number of frames that any message in it has so far.
    pub fn walk(&mut self, mut bytes: &[u8]) -> usize {
        let mut most = self.frames;
        while !bytes.is_empty() {
            match &mut self.state {
                State::Payload { left } => {
                    let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = &bytes[skipped..];
                    *left -= skipped as u64;
                    if *left == 0 {
                        self.state = State::default();
                    }
                }
                State::Header { have, len } => {
                    have[*len] = bytes[0];
                    *len += 1;
                    bytes = &bytes[1..];
                    if *len < 2 || *len < header_len(have[1]) {
                        continue;
                    }
                    let (first, left) = (have[0], payload_len(have));
                    let is_control = first & 0x08 != 0;
                    if !is_control {
                        self.frames += 1;
                        most = most.max(self.frames);
                        if first & 0x80 != 0 {
                            self.frames = 0;
                        }
                    }
                    self.state = if left == 0 { State::default() } else { State::Payload { left } };
                }
            }
        }
        most
    }
}

/// The bytes of a header whose second byte this is.
fn header_len(second: u8) -> usize {
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    mask + match second & 0x7f {
        126 => 4,
        127 => 10,
        _ => 2,
    }
}

fn payload_len(header: &[u8; 14]) -> u64 {
    match header[1] & 0x7f {
        126 => u64::from(u16::from_be_bytes([header[2], header[3]])),
        127 => u64::from_be_bytes(std::array::from_fn(|i| header[2 + i])),
        short => u64::from(short),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(fin: bool, opcode: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![u8::from(fin) << 7 | opcode];
        match payload {
            0..=125 => bytes.push(0x80 | payload as u8),
            126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend((payload as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        bytes.extend(vec![0xff; payload]);
        bytes
    }

    proptest! {
        #[test]
        fn fragments_are_counted_in_whatever_pieces_they_come(
            parts in prop::collection::vec(prop_oneof![0usize..200, Just(70_000)], 1..8),
            pings in 0usize..3,
            piece in 1usize..5000,
        ) {
            let mut bytes = Vec::new();
            for (index, part) in parts.iter().enumerate() {
                bytes.extend(frame(index + 1 == parts.len(), u8::from(index == 0), *part));
                (0..pings).for_each(|_| bytes.extend(frame(true, 9, 5)));
            }
            let mut counter = FrameCounter::default();
            let most = bytes.chunks(piece).map(|piece| counter.walk(piece)).max();
            prop_assert_eq!(most, Some(parts.len()));
            prop_assert_eq!(counter.frames, 0);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            FrameCounter::default().walk(&bytes);
        }
    }
}
