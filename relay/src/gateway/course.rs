//! What becomes of the bytes of one direction on their way: what a [`Course`] makes of each read. Pure.

use std::{ops::Range, sync::Arc};

use super::{
    counters::Side,
    frame::Violation,
    rules::Closing,
    walk::{Walked, Walker},
};

/// Whose messages they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Who connected to the gateway.
    Client,
    /// Whom the gateway connected to.
    Upstream,
}

/// What becomes of the bytes of one direction.
pub trait Course {
    /// Takes a read, or only a part of it if what goes on is much more than that; what goes on is in the output.
    fn take(&mut self, piece: &mut [u8], output: &mut Output) -> Taken;

    /// What walks to the end of the frame that has gone on in part; none if nothing may be put behind a close frame, or
    /// if what went on has ended with a frame.
    fn unfinished(&mut self) -> Option<&mut Walker>;

    /// Whether a close frame has gone on.
    fn is_closed(&self) -> bool;

    /// A close frame that still comes does not go on. This is asked where the other direction has halted.
    fn keep_close(&mut self);
}

/// What a read was found to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of the read that were taken. The rest is to be given again once the output is out.
    pub used: usize,
    /// Messages that ended in it.
    pub messages: u64,
    /// What they carried, where that is looked at.
    pub payload: u64,
    /// A close frame, with its code if it has one.
    pub close: Option<Option<u16>>,
    /// Nothing more goes on.
    pub halt: Option<Halt>,
}

/// Why a connection can't go on after what came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halt {
    /// It must not be sent.
    Violation(Violation),
    /// A rule closes it.
    Ruled(Arc<Closing>),
}

/// What goes on of a read: bytes of its own first, then a part of the read. Most often there is only the latter, so that
/// nothing is copied.
#[derive(Debug, Default)]
pub struct Output {
    own: Vec<u8>,
    /// What of `own` counts begins here.
    begin: usize,
    kept: Range<usize>,
}

/// Bytes of its own that an output may have before the rest of a read has to wait.
const MOST: usize = 256 * 1024;

impl Source {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
        }
    }

    /// The party that it is.
    pub fn side(self) -> Side {
        match self {
            Self::Client => Side::Client,
            Self::Upstream => Side::Upstream,
        }
    }
}

impl Output {
    /// A part of the read goes on as it is, behind what went on so far.
    pub fn keep(&mut self, piece: &[u8], range: Range<usize>) {
        if self.kept.end != range.start {
            self.settle(piece);
            self.kept = range;
        } else {
            self.kept.end = range.end;
        }
    }

    /// Something else goes on: where it is to be appended.
    pub fn own(&mut self, piece: &[u8]) -> &mut Vec<u8> {
        self.settle(piece);
        &mut self.own
    }

    /// Something else goes on: these bytes from `begin` on.
    pub fn give(&mut self, piece: &[u8], bytes: Vec<u8>, begin: usize) {
        self.settle(piece);
        if self.own.is_empty() {
            (self.own, self.begin) = (bytes, begin);
        } else {
            self.own.extend_from_slice(&bytes[begin..]);
        }
    }

    /// Whether the rest of the read has to wait: what rules make of it may be any number of times as much.
    pub fn is_full(&self) -> bool {
        self.own.len() - self.begin >= MOST
    }

    /// What goes on: the first part, then the second.
    pub fn parts<'a>(&'a self, piece: &'a [u8]) -> [&'a [u8]; 2] {
        [&self.own[self.begin..], &piece[self.kept.clone()]]
    }

    /// The same, to be changed.
    pub fn parts_mut<'a>(&'a mut self, piece: &'a mut [u8]) -> [&'a mut [u8]; 2] {
        [&mut self.own[self.begin..], &mut piece[self.kept.clone()]]
    }

    fn settle(&mut self, piece: &[u8]) {
        self.own.extend_from_slice(&piece[self.kept.clone()]);
        self.kept = 0..0;
    }
}

/// Bytes pass as they are, and are walked over.
impl Course for Walker {
    fn take(&mut self, piece: &mut [u8], output: &mut Output) -> Taken {
        let Walked { messages, close } = self.walk(piece);
        output.keep(piece, 0..piece.len());
        Taken { used: piece.len(), messages, close, ..Taken::default() }
    }

    fn unfinished(&mut self) -> Option<&mut Walker> {
        (!self.is_between_frames() && !Self::is_closed(self)).then_some(self)
    }

    fn is_closed(&self) -> bool {
        Self::is_closed(self)
    }

    fn keep_close(&mut self) {
        // Who only walks over what passes does not halt.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_in_its_order_and_copied_only_where_it_has_to_be() {
        let piece = b"abcdefghi";
        let mut output = Output::default();
        output.keep(piece, 0..2);
        output.keep(piece, 2..3);
        assert_eq!(output.parts(piece), [&b""[..], b"abc"]);
        output.keep(piece, 4..6);
        assert_eq!(output.parts(piece), [&b"abc"[..], b"ef"]);
        output.own(piece).extend_from_slice(b"new");
        output.keep(piece, 8..9);
        assert_eq!(output.parts(piece), [&b"abcefnew"[..], b"i"]);
        output.give(piece, b"__given".to_vec(), 2);
        assert_eq!(output.parts(piece), [&b"abcefnewigiven"[..], b""]);
        let mut output = Output::default();
        output.give(piece, b"__given".to_vec(), 2);
        output.own(piece).push(b'!');
        assert_eq!(output.parts(piece), [&b"given!"[..], b""]);
    }
}
