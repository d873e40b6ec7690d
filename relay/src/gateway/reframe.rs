//! Bytes of an upstream → frames for a browser: a message is what one read returned, or what a framing of raw senders
//! makes of the bytes. Pure: time is given.

use std::{ops::Range, time::Instant};

use shared::{Kind, ws_frame};

use super::settings::RouteSettings;
use crate::senders::framing::{AutoSettings, Framer, Framing, FramingLost, Piece};

/// Makes frames of what an upstream sends.
#[derive(Debug)]
pub struct Reframer {
    kind: Kind,
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    /// A message is a read. Of a text the beginning of a character waits for the rest of it.
    Read {
        begun: Vec<u8>,
    },
    Framed(Box<Framer>),
}

/// The longest beginning of a character.
pub const BEGUN: usize = 3;

/// What a read has to leave free before it: a header, and the beginning of a character.
pub const ROOM: usize = ws_frame::MAX_HEADER + BEGUN;

impl Reframer {
    /// As the route says.
    pub fn new(route: &RouteSettings) -> Self {
        let mode = match &route.framing {
            Framing::Read => Mode::Read { begun: Vec::new() },
            framing => {
                Mode::Framed(Box::new(Framer::new(framing, route.max_message, AutoSettings::default())))
            }
        };
        Self { kind: route.frames, mode }
    }

    /// Makes frames of a read, which stands in `piece` from [`ROOM`] on. They are in the given range of `piece`, or in
    /// `out`; and they are so many.
    ///
    /// # Errors
    /// If no further boundary can be found; frames before it are in `out`.
    pub fn take(
        &mut self,
        piece: &mut [u8],
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(Range<usize>, u64), FramingLost> {
        match &mut self.mode {
            Mode::Framed(framer) => {
                let mut frames = 0;
                framer.feed(&piece[ROOM..], now, &mut put(self.kind, out, &mut frames))?;
                Ok((0..0, frames))
            }
            Mode::Read { begun } => {
                let from = ROOM - begun.len();
                piece[from..ROOM].copy_from_slice(begun);
                begun.clear();
                let (kind, end) = match self.kind {
                    Kind::Binary => (Kind::Binary, piece.len()),
                    Kind::Text => {
                        text(&piece[from..]).map_or((Kind::Binary, piece.len()), |n| (Kind::Text, from + n))
                    }
                };
                begun.extend_from_slice(&piece[end..]);
                if from == end {
                    return Ok((0..0, 0));
                }
                let begin = from - ws_frame::header_len(end - from);
                ws_frame::put_header(&mut &mut piece[begin..from], kind, end - from);
                Ok((begin..end, 1))
            }
        }
    }

    /// When [`tick`](Self::tick) has to be called if nothing is read before.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.mode {
            Mode::Framed(framer) => framer.deadline(),
            Mode::Read { .. } => None,
        }
    }

    /// Nothing was there to read: gives out what the silence has ended; how many frames.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<u8>) -> u64 {
        let mut frames = 0;
        if let Mode::Framed(framer) = &mut self.mode {
            framer.tick(now, &mut put(self.kind, out, &mut frames));
        }
        frames
    }

    /// The upstream has ended: gives out what is left; how many frames.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> u64 {
        let mut frames = 0;
        let mut put = put(self.kind, out, &mut frames);
        match &mut self.mode {
            Mode::Framed(framer) => framer.finish(&mut put),
            Mode::Read { begun } if !begun.is_empty() => put(Piece::Message(begun)),
            Mode::Read { .. } => {}
        }
        drop(put);
        frames
    }
}

/// How many of these bytes are text, if what follows is only the beginning of a character.
fn text(bytes: &[u8]) -> Option<usize> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text.len()),
        Err(error) if error.error_len().is_none() => Some(error.valid_up_to()),
        Err(_) => None,
    }
}

/// Puts messages out as frames, as text where that is wanted and they are. What was too long is dropped, as of raw
/// senders.
fn put<'a>(wanted: Kind, out: &'a mut Vec<u8>, frames: &'a mut u64) -> impl FnMut(Piece<'_>) + 'a {
    move |piece| {
        let (Piece::Message(message) | Piece::Cut(message)) = piece else { return };
        let kind = if wanted == Kind::Text { Kind::of(message) } else { Kind::Binary };
        ws_frame::put(out, kind, message);
        *frames += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reframer(kind: Kind, framing: &str) -> Reframer {
        let mode = match framing.parse().unwrap() {
            Framing::Read => Mode::Read { begun: Vec::new() },
            framing => Mode::Framed(Box::new(Framer::new(&framing, 1024, AutoSettings::default()))),
        };
        Reframer { kind, mode }
    }

    fn frames(reframer: &mut Reframer, reads: &[&[u8]]) -> Vec<(Kind, Vec<u8>)> {
        let now = Instant::now();
        let mut out = Vec::new();
        for read in reads {
            let mut piece = [&[0; ROOM][..], read].concat();
            let (range, count) = reframer.take(&mut piece, now, &mut out).unwrap();
            out.extend_from_slice(&piece[range.clone()]);
            assert_eq!(range.is_empty(), count == 0 || matches!(reframer.mode, Mode::Framed(_)));
        }
        reframer.tick(now + std::time::Duration::from_millis(20), &mut out);
        reframer.finish(&mut out);
        ws_frame::walk(&out).map(|frame| (frame.kind, frame.payload.to_vec())).collect()
    }

    #[test]
    fn a_read_is_a_message_and_lines_are_lines() {
        let binary = |bytes: &[u8]| (Kind::Binary, bytes.to_vec());
        assert_eq!(
            frames(&mut reframer(Kind::Binary, "read"), &[b"ab", b"c"]),
            [binary(b"ab"), binary(b"c")]
        );
        assert_eq!(
            frames(&mut reframer(Kind::Binary, "line"), &[b"a\nb", b"c\n"]),
            [binary(b"a"), binary(b"bc")]
        );
        assert_eq!(frames(&mut reframer(Kind::Binary, "idle:20ms"), &[b"a", b"b"]), [binary(b"ab")]);
    }

    #[test]
    fn a_character_is_not_torn_and_what_is_no_text_is_binary() {
        let text = |text: &str| (Kind::Text, text.as_bytes().to_vec());
        let reads: [&[u8]; 4] = [b"a\xe2", b"\x82", b"\xacb", b"\xf0\x9f"];
        let expected = [text("a"), text("\u{20ac}b"), (Kind::Binary, b"\xf0\x9f".to_vec())];
        assert_eq!(frames(&mut reframer(Kind::Text, "read"), &reads), expected);
        assert_eq!(frames(&mut reframer(Kind::Text, "read"), &[b"\xff"]), [(Kind::Binary, vec![0xff])]);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_or_changed(reads: Vec<Vec<u8>>, text: bool) {
            let kind = if text { Kind::Text } else { Kind::Binary };
            let slices: Vec<&[u8]> = reads.iter().filter(|read| !read.is_empty()).map(Vec::as_slice).collect();
            let out: Vec<u8> = frames(&mut reframer(kind, "read"), &slices).into_iter().flat_map(|(_, bytes)| bytes).collect();
            prop_assert_eq!(out, reads.concat());
        }
    }
}
