//! Messages that end with given bytes: `line`, `null`, `delimiter`.
//!
//! A message that lies whole in one read is given out as a slice of it. Of an unfinished one at most
//! `max_message` bytes and what may belong to its end are kept; once it is longer, only the latter.

use memchr::{memchr, memmem};

use super::{MAX_DELIMITER, Piece, partial::Partial};

/// A sender whose messages end with a delimiter.
#[derive(Debug)]
pub(super) struct Delimited {
    end: End,
    max_message: usize,
    rest: Rest,
}

/// What ends a message.
#[derive(Debug)]
enum End {
    /// `\n`, or `\r\n`.
    Line,
    Byte(u8),
    Bytes(Box<memmem::Finder<'static>>),
}

/// What has come of a message whose end has not.
#[derive(Debug)]
enum Rest {
    Kept(Partial),
    /// Too long already. `tail` are its last bytes: as many as may be the beginning of its end.
    Skipped {
        bytes: u64,
        tail: Partial,
    },
}

/// Where a message ends that began in an earlier read.
enum Found {
    /// So many bytes before the read; so many bytes of the read belong to the delimiter.
    Before { back: usize, used: usize },
    /// After so many bytes of the read.
    Within(usize),
}

impl Delimited {
    pub(super) fn line(max_message: usize) -> Self {
        Self::new(End::Line, max_message)
    }

    /// Up to `delimiter`, which has 1 to [`MAX_DELIMITER`] bytes.
    pub(super) fn until(delimiter: &[u8], max_message: usize) -> Self {
        let end = match delimiter {
            [byte] => End::Byte(*byte),
            bytes => End::Bytes(Box::new(memmem::Finder::new(bytes).into_owned())),
        };
        Self::new(end, max_message)
    }

    fn new(end: End, max_message: usize) -> Self {
        let rest = Rest::Kept(Partial::new(max_message + end.overhang()));
        Self { end, max_message, rest }
    }

    pub(super) fn feed(&mut self, mut input: &[u8], out: &mut impl FnMut(Piece<'_>)) {
        if self.has_begun() {
            let Some(found) = self.find_end(input) else { return self.keep(input) };
            let used = self.complete(&found, input, out);
            input = &input[used..];
        }
        while let Some(length) = self.end.find(input) {
            self.give(self.end.strip(&input[..length]), out);
            input = &input[length + self.end.width()..];
        }
        self.keep(input);
    }

    /// The end of the sender ends the last message too; an empty rest is none.
    pub(super) fn finish(&mut self, out: &mut impl FnMut(Piece<'_>)) {
        match &self.rest {
            Rest::Kept(kept) if kept.is_empty() => {}
            Rest::Kept(kept) => self.give(kept.as_slice(), out),
            Rest::Skipped { bytes, .. } => out(Piece::TooLong { bytes: *bytes }),
        }
        self.begin();
    }

    fn has_begun(&self) -> bool {
        match &self.rest {
            Rest::Kept(kept) => !kept.is_empty(),
            Rest::Skipped { .. } => true,
        }
    }

    fn begin(&mut self) {
        match &mut self.rest {
            Rest::Kept(kept) => kept.clear(),
            Rest::Skipped { .. } => {
                self.rest = Rest::Kept(Partial::new(self.max_message + self.end.overhang()));
            }
        }
    }

    /// Where the begun message ends. The delimiter may have begun before this read.
    fn find_end(&self, input: &[u8]) -> Option<Found> {
        if let End::Bytes(finder) = &self.end {
            let (Rest::Kept(last) | Rest::Skipped { tail: last, .. }) = &self.rest;
            let before = &last.as_slice()[last.len().saturating_sub(self.end.overhang())..];
            let after = &input[..input.len().min(self.end.overhang())];
            let mut seam = [0; 2 * MAX_DELIMITER];
            seam[..before.len()].copy_from_slice(before);
            seam[before.len()..][..after.len()].copy_from_slice(after);
            if let Some(at) = finder.find(&seam[..before.len() + after.len()]) {
                let back = before.len() - at;
                return Some(Found::Before { back, used: self.end.width() - back });
            }
        }
        self.end.find(input).map(Found::Within)
    }

    /// Gives out the begun message; returns how much of the read it and its delimiter took.
    fn complete(&mut self, found: &Found, input: &[u8], out: &mut impl FnMut(Piece<'_>)) -> usize {
        let used = match *found {
            Found::Before { back, used } => {
                match &self.rest {
                    Rest::Kept(kept) => self.give(&kept.as_slice()[..kept.len() - back], out),
                    Rest::Skipped { bytes, .. } => out(Piece::TooLong { bytes: bytes - back as u64 }),
                }
                used
            }
            Found::Within(length) => {
                self.keep(&input[..length]);
                match &self.rest {
                    Rest::Kept(kept) => self.give(self.end.strip(kept.as_slice()), out),
                    Rest::Skipped { bytes, tail } => {
                        let stripped = tail.len() - self.end.strip(tail.as_slice()).len();
                        out(Piece::TooLong { bytes: bytes - stripped as u64 });
                    }
                }
                length + self.end.width()
            }
        };
        self.begin();
        used
    }

    fn give(&self, message: &[u8], out: &mut impl FnMut(Piece<'_>)) {
        out(if message.len() > self.max_message {
            Piece::TooLong { bytes: message.len() as u64 }
        } else {
            Piece::Message(message)
        });
    }

    /// Takes bytes in which the message does not end.
    fn keep(&mut self, input: &[u8]) {
        match &mut self.rest {
            Rest::Kept(kept) if input.len() <= kept.room() => kept.push(input),
            Rest::Kept(kept) => {
                let mut tail = Partial::new(self.end.overhang());
                keep_last(&mut tail, kept.as_slice());
                keep_last(&mut tail, input);
                self.rest = Rest::Skipped { bytes: (kept.len() + input.len()) as u64, tail };
            }
            Rest::Skipped { bytes, tail } => {
                *bytes += input.len() as u64;
                keep_last(tail, input);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        let (Rest::Kept(kept) | Rest::Skipped { tail: kept, .. }) = &self.rest;
        kept.capacity()
    }
}

impl End {
    fn find(&self, input: &[u8]) -> Option<usize> {
        match self {
            Self::Line => memchr(b'\n', input),
            Self::Byte(byte) => memchr(*byte, input),
            Self::Bytes(finder) => finder.find(input),
        }
    }

    /// Bytes of the delimiter, without a `\r`.
    fn width(&self) -> usize {
        match self {
            Self::Line | Self::Byte(_) => 1,
            Self::Bytes(finder) => finder.needle().len(),
        }
    }

    /// Bytes at the end of an unfinished message that may turn out not to be part of it.
    fn overhang(&self) -> usize {
        match self {
            Self::Line => 1,
            Self::Byte(_) => 0,
            Self::Bytes(finder) => finder.needle().len() - 1,
        }
    }

    fn strip<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Line => message.strip_suffix(b"\r").unwrap_or(message),
            Self::Byte(_) | Self::Bytes(_) => message,
        }
    }
}

/// Appends bytes, dropping the oldest for which there is no room.
fn keep_last(tail: &mut Partial, input: &[u8]) {
    let limit = tail.len() + tail.room();
    let input = &input[input.len().saturating_sub(limit)..];
    let stay = tail.len().min(limit - input.len());
    tail.drop_first(tail.len() - stay);
    tail.push(input);
}
