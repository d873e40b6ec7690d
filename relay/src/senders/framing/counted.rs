//! Messages whose length is known before they come: `fixed`, `length`, `octet-count`.

use std::num::NonZeroUsize;

use super::{FramingLost, LengthPrefix, Piece, partial::Partial};

/// Digits of an octet count: 10 GB, far more than any message.
const MAX_DIGITS: u8 = 10;

/// A sender that counts its messages' bytes.
#[derive(Debug)]
pub(super) struct Counted {
    count: Count,
    max_message: usize,
    stage: Stage,
    held: Partial,
}

/// How the length is told.
#[derive(Debug, Clone, Copy)]
enum Count {
    Always(NonZeroUsize),
    Prefix(LengthPrefix),
    Decimal,
}

/// Where in a message the next byte belongs.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// In the length, of which `seen` bytes have come and say `value` so far.
    Length { seen: u8, value: u64 },
    /// In the message; so many bytes have not come.
    Body { missing: usize },
    /// In a message that is dropped; so many bytes have not come.
    Skipped { missing: u64 },
}

impl Stage {
    const START: Self = Self::Length { seen: 0, value: 0 };
}

impl Counted {
    pub(super) fn fixed(bytes: NonZeroUsize, max_message: usize) -> Self {
        Self::new(Count::Always(bytes), max_message)
    }

    pub(super) fn length(prefix: LengthPrefix, max_message: usize) -> Self {
        Self::new(Count::Prefix(prefix), max_message)
    }

    pub(super) fn octet_count(max_message: usize) -> Self {
        Self::new(Count::Decimal, max_message)
    }

    fn new(count: Count, max_message: usize) -> Self {
        Self { count, max_message, stage: Stage::START, held: Partial::new(max_message) }
    }

    pub(super) fn feed(
        &mut self,
        mut input: &[u8],
        out: &mut impl FnMut(Piece<'_>),
    ) -> Result<(), FramingLost> {
        while !input.is_empty() {
            match self.stage {
                Stage::Length { seen, value } => match self.count.take(seen, value, &mut input)? {
                    Taken::All(length) => input = self.begin(length, input, out)?,
                    Taken::Part { seen, value } => self.stage = Stage::Length { seen, value },
                },
                Stage::Body { missing } => {
                    let (body, rest) = input.split_at(missing.min(input.len()));
                    self.held.push(body);
                    input = rest;
                    if body.len() == missing {
                        out(Piece::Message(self.held.as_slice()));
                        self.held.clear();
                        self.stage = Stage::START;
                    } else {
                        self.stage = Stage::Body { missing: missing - body.len() };
                    }
                }
                Stage::Skipped { missing } => input = self.skip(missing, input),
            }
        }
        Ok(())
    }

    /// The rest of a `fixed` sender is a message. An announced one that has not come whole is none.
    pub(super) fn finish(&mut self, out: &mut impl FnMut(Piece<'_>)) {
        match (self.stage, self.count) {
            (Stage::Body { .. }, Count::Always(_)) => out(Piece::Message(self.held.as_slice())),
            (Stage::Body { .. }, Count::Prefix(_) | Count::Decimal) => {
                out(Piece::Incomplete { bytes: self.held.len() as u64 });
            }
            (Stage::Length { seen: 1.., .. }, _) => out(Piece::Incomplete { bytes: 0 }),
            (Stage::Length { seen: 0, .. } | Stage::Skipped { .. }, _) => {}
        }
        self.held.clear();
        self.stage = Stage::START;
    }

    /// The length of the next message is known; returns what follows that part of it which is here.
    fn begin<'a>(
        &mut self,
        length: u64,
        input: &'a [u8],
        out: &mut impl FnMut(Piece<'_>),
    ) -> Result<&'a [u8], FramingLost> {
        let max = self.max_message;
        let Some(bytes) = usize::try_from(length).ok().filter(|&bytes| bytes <= max) else {
            // A binary length that is too great is rather a sender out of step than a great message.
            if let Count::Prefix(_) = self.count {
                return Err(FramingLost::TooLong { length, max });
            }
            out(Piece::TooLong { bytes: length });
            return Ok(self.skip(length, input));
        };
        self.stage = match input.split_at_checked(bytes) {
            Some((message, rest)) => {
                out(Piece::Message(message));
                self.stage = Stage::START;
                return Ok(rest);
            }
            None => Stage::Body { missing: bytes },
        };
        Ok(input)
    }

    fn skip<'a>(&mut self, missing: u64, input: &'a [u8]) -> &'a [u8] {
        let here = usize::try_from(missing).map_or(input.len(), |missing| missing.min(input.len()));
        let missing = missing - here as u64;
        self.stage = if missing == 0 { Stage::START } else { Stage::Skipped { missing } };
        &input[here..]
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.held.capacity()
    }
}

/// What a read had of a length.
enum Taken {
    All(u64),
    Part { seen: u8, value: u64 },
}

impl Count {
    /// Takes the bytes of the length from the input, going on after `seen` ones that say `value`.
    fn take(self, seen: u8, value: u64, input: &mut &[u8]) -> Result<Taken, FramingLost> {
        match self {
            Self::Always(bytes) => Ok(Taken::All(bytes.get() as u64)),
            Self::Prefix(prefix) => Ok(prefix.take(seen, value, input)),
            Self::Decimal => take_decimal(seen, value, input),
        }
    }
}

impl LengthPrefix {
    fn take(self, mut seen: u8, mut value: u64, input: &mut &[u8]) -> Taken {
        let width = match self {
            Self::U16 | Self::U16Le => 2,
            Self::U32 | Self::U32Le => 4,
        };
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            value = match self {
                Self::U16 | Self::U32 => value << 8 | u64::from(byte),
                Self::U16Le | Self::U32Le => value | u64::from(byte) << (8 * seen),
            };
            seen += 1;
            if seen == width {
                return Taken::All(value);
            }
        }
        Taken::Part { seen, value }
    }
}

fn take_decimal(mut seen: u8, mut value: u64, input: &mut &[u8]) -> Result<Taken, FramingLost> {
    while let Some((&byte, rest)) = input.split_first() {
        *input = rest;
        match byte {
            b' ' if seen > 0 => return Ok(Taken::All(value)),
            b'0'..=b'9' if seen < MAX_DIGITS => value = value * 10 + u64::from(byte - b'0'),
            _ => return Err(FramingLost::NoCount),
        }
        seen += 1;
    }
    Ok(Taken::Part { seen, value })
}
