//! Blocks of input → messages. Pure; pieces may come in any size.

use std::str::FromStr;

use bytes::Bytes;
use memchr::memchr;
use shared::units::parse_size;

/// Bytes at which a message that is too long is no longer counted to its end.
const MAX_COUNTED: u64 = 1 << 30;

/// How an input is cut into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// At `\n` or `\r\n`, which is not part of the message.
    Lines,
    /// At a zero byte.
    Null,
    /// Not at all: an input is a message.
    None,
    /// Into pieces of so many bytes, at least 1; the last may be shorter.
    Size(usize),
}

/// A text that says no way of splitting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is none of lines, null, none, or a size like 64KiB")]
pub struct SplitError;

/// What was cut off.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A message.
    Message(&'a [u8]),
    /// A message of so many bytes, more than the limit. Of one that is endless, a gigabyte.
    TooLong(u64),
}

/// Cuts one input after another.
#[derive(Debug)]
pub struct Splitter {
    split: Split,
    block: Bytes,
    /// What of the block was used up.
    at: usize,
    /// Bytes of earlier blocks that [`take_used`](Self::take_used) has not told yet.
    used: u64,
    /// Up to where it has told those of this block.
    told: usize,
    /// The beginning of a message whose end has not come; at most `max + 1` bytes of it are kept.
    carry: Vec<u8>,
    /// The bytes of that message so far, kept or not.
    length: u64,
    ended: bool,
    /// The carry was given out as a message and is to be cleared.
    spent: bool,
}

impl FromStr for Split {
    type Err = SplitError;

    fn from_str(text: &str) -> Result<Self, SplitError> {
        match text {
            "lines" => Ok(Self::Lines),
            "null" => Ok(Self::Null),
            "none" => Ok(Self::None),
            size => match parse_size(size).ok().and_then(|size| usize::try_from(size).ok()) {
                Some(size) if size > 0 => Ok(Self::Size(size)),
                _ => Err(SplitError),
            },
        }
    }
}

impl Splitter {
    /// A splitter at the beginning of an input.
    pub fn new(split: Split) -> Self {
        Self {
            split,
            block: Bytes::new(),
            at: 0,
            used: 0,
            told: 0,
            carry: Vec::new(),
            length: 0,
            ended: false,
            spent: false,
        }
    }

    /// Goes on with more of the input; to be called when [`next`](Self::next) has nothing left.
    pub fn feed(&mut self, block: Bytes) {
        debug_assert_eq!(self.at, self.block.len(), "the block before was not used up");
        self.used += (self.at - self.told) as u64;
        (self.block, self.at, self.told) = (block, 0, 0);
    }

    /// The bytes that were used since the last call.
    pub fn take_used(&mut self) -> u64 {
        let used = self.used + (self.at - self.told) as u64;
        (self.used, self.told) = (0, self.at);
        used
    }

    /// The input has ended; what is left is a message. The next block begins another input.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The next message, of at most `max` bytes; none if more input is needed.
    pub fn next(&mut self, max: usize) -> Option<Piece<'_>> {
        if std::mem::take(&mut self.spent) {
            self.carry.clear();
            self.length = 0;
        }
        let rest = &self.block[self.at..];
        let end = match self.split {
            Split::Lines => memchr(b'\n', rest).map(|end| (end, 1)),
            Split::Null => memchr(0, rest).map(|end| (end, 1)),
            Split::None => None,
            Split::Size(size) => {
                let missing = (size as u64).saturating_sub(self.length);
                (rest.len() as u64 >= missing).then_some((missing as usize, 0))
            }
        };
        let Some((end, delimiter)) = end else { return self.without_end(max) };
        let lines = self.split == Split::Lines;
        if self.length == 0 {
            // The common case: all of it is in this block, and nothing is copied.
            let start = self.at;
            self.at += end + delimiter;
            let message = &self.block[start..start + end];
            return Some(piece(
                if lines { message.strip_suffix(b"\r").unwrap_or(message) } else { message },
                max,
            ));
        }
        self.keep(end, max);
        self.at += delimiter;
        self.spent = true;
        if lines && self.carry.last() == Some(&b'\r') {
            self.carry.pop();
            self.length -= 1;
        }
        Some(self.carried(max))
    }

    /// Keeps what there is; it is a message only if the input has ended, or if it has become hopelessly long.
    fn without_end(&mut self, max: usize) -> Option<Piece<'_>> {
        self.keep(self.block.len() - self.at, max);
        if self.length > MAX_COUNTED.max(max as u64) {
            self.spent = true;
            return Some(Piece::TooLong(self.length));
        }
        if !std::mem::take(&mut self.ended) || (self.length == 0 && self.split != Split::None) {
            return None;
        }
        self.spent = true;
        Some(self.carried(max))
    }

    /// Moves bytes of the block to the carry, as far as they may be of use.
    fn keep(&mut self, count: usize, max: usize) {
        let bytes = &self.block[self.at..self.at + count];
        let room = (max + 1).saturating_sub(self.carry.len()).min(count);
        self.carry.extend_from_slice(&bytes[..room]);
        if room < count
            && let (Some(kept), Some(&last)) = (self.carry.last_mut(), bytes.last())
        {
            // It is too long, so only its end matters: whether a `\r` stands before the `\n`.
            *kept = last;
        }
        self.length += count as u64;
        self.at += count;
    }

    fn carried(&self, max: usize) -> Piece<'_> {
        if self.length > max as u64 { Piece::TooLong(self.length) } else { Piece::Message(&self.carry) }
    }
}

fn piece(message: &[u8], max: usize) -> Piece<'_> {
    if message.len() > max { Piece::TooLong(message.len() as u64) } else { Piece::Message(message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What an input gives, cut into blocks of so many bytes; `None` is one that is too long.
    fn split(split: Split, input: &[u8], block: usize, max: usize) -> Vec<Result<Vec<u8>, u64>> {
        let mut splitter = Splitter::new(split);
        let mut messages = Vec::new();
        let mut drain = |splitter: &mut Splitter| {
            while let Some(piece) = splitter.next(max) {
                messages.push(match piece {
                    Piece::Message(bytes) => Ok(bytes.to_vec()),
                    Piece::TooLong(size) => Err(size),
                });
            }
        };
        for block in input.chunks(block) {
            splitter.feed(Bytes::copy_from_slice(block));
            drain(&mut splitter);
        }
        splitter.end();
        drain(&mut splitter);
        messages
    }

    fn texts(mode: Split, input: &str) -> Vec<String> {
        split(mode, input.as_bytes(), 1000, 1000)
            .into_iter()
            .map(|message| String::from_utf8(message.unwrap()).unwrap())
            .collect()
    }

    #[test]
    fn a_lines_end_is_not_part_of_the_message_and_every_other_byte_is() {
        assert_eq!(texts(Split::Lines, "a\nb\r\n\n c \nd"), ["a", "b", "", " c ", "d"]);
        assert_eq!(texts(Split::Lines, "a\rb\r\r\nc\r"), ["a\rb\r", "c\r"]);
        assert!(texts(Split::Lines, "").is_empty());
    }

    #[test]
    fn other_ways_cut_at_zero_bytes_at_sizes_or_not_at_all() {
        assert_eq!(texts(Split::Null, "a\0b\n\0\0c"), ["a", "b\n", "", "c"]);
        assert_eq!(texts(Split::Size(3), "abcdefgh"), ["abc", "def", "gh"]);
        assert_eq!(texts(Split::Size(3), "abcdef"), ["abc", "def"]);
        assert_eq!(texts(Split::None, "a\nb\n"), ["a\nb\n"]);
        assert_eq!(texts(Split::None, ""), [""]);
    }

    #[test]
    fn ways_are_read_as_people_write_them() {
        assert_eq!("64KiB".parse(), Ok(Split::Size(65536)));
        assert_eq!("null".parse(), Ok(Split::Null));
        for text in ["", "0", "line", "-1"] {
            assert_eq!(text.parse::<Split>(), Err(SplitError), "{text}");
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_counted_and_not_kept() {
        let input = [&b"ok\n"[..], &[b'x'; 5000], b"\r\nafter\n"].concat();
        for block in [1, 7, 100, 10_000] {
            let expected = [Ok(b"ok".to_vec()), Err(5000), Ok(b"after".to_vec())];
            assert_eq!(split(Split::Lines, &input, block, 10), expected, "{block}");
        }
        let mut splitter = Splitter::new(Split::Lines);
        for _ in 0..100 {
            splitter.feed(Bytes::from_static(&[b'x'; 100]));
            assert_eq!(splitter.next(10), None);
        }
        assert!(splitter.carry.capacity() < 200);
    }

    proptest! {
        #[test]
        fn messages_do_not_depend_on_the_blocks(
            input in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(0), any::<u8>()], 0..200),
            block in 1usize..50,
            max in 0usize..60,
            mode in prop_oneof![Just(Split::Lines), Just(Split::Null), Just(Split::None), (1usize..9).prop_map(Split::Size)],
        ) {
            prop_assert_eq!(split(mode, &input, block, max), split(mode, &input, 1000, max));
        }

        #[test]
        fn lines_joined_again_are_the_input(lines in prop::collection::vec("[a-z \r]{0,9}[a-z]|", 0..20), block in 1usize..30) {
            let mut input = lines.join("\n");
            if !lines.is_empty() {
                input.push('\n');
            }
            let got: Vec<_> = split(Split::Lines, input.as_bytes(), block, 1000).into_iter().map(Result::unwrap).collect();
            prop_assert_eq!(got, lines.iter().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>());
        }
    }
}
