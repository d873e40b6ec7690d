//! Messages that a silence ends: `idle`, and `auto` for a sender that writes no lines.

use std::time::{Duration, Instant};

use super::{Piece, delimited::Delimited, partial::Partial, printable::Printable};

/// A sender whose messages end with a silence.
#[derive(Debug)]
pub(super) struct Quiet {
    silence: Duration,
    max_message: usize,
    held: Partial,
    /// When the last of the held bytes came; of no meaning while nothing is held.
    last: Option<Instant>,
    /// For `auto`, as long as all was printable: a `\n` makes it `line`.
    may_be_lines: Option<Printable>,
}

impl Quiet {
    pub(super) fn new(silence: Duration, max_message: usize) -> Self {
        Self { silence, max_message, held: Partial::new(max_message), last: None, may_be_lines: None }
    }

    /// For `auto`: a `\n` still makes it `line` while what comes is printable.
    pub(super) fn may_be_lines(self, so_far: Printable) -> Self {
        Self { may_be_lines: Some(so_far), ..self }
    }

    /// Takes bytes; returns what the sender is from here on if it turned out to write lines.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        now: Instant,
        out: &mut impl FnMut(Piece<'_>),
    ) -> Option<Delimited> {
        if let Some(printable) = &mut self.may_be_lines {
            if !printable.goes_on_with(bytes) {
                self.may_be_lines = None;
            } else if memchr::memchr(b'\n', bytes).is_some() {
                let mut lines = Delimited::line(self.max_message);
                lines.feed(self.held.as_slice(), out);
                lines.feed(bytes, out);
                return Some(lines);
            }
        }
        self.hold(bytes, now, out);
        None
    }

    /// Takes bytes that are known to make no lines; cuts where a message gets too long.
    pub(super) fn hold(&mut self, mut bytes: &[u8], now: Instant, out: &mut impl FnMut(Piece<'_>)) {
        if !self.held.is_empty() && bytes.len() > self.held.room() {
            let (fits, rest) = bytes.split_at(self.held.room());
            self.held.push(fits);
            out(Piece::Cut(self.held.as_slice()));
            self.held.clear();
            bytes = rest;
        }
        self.held.push(cut(bytes, self.max_message, out));
        self.last = Some(now);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.held.is_empty() { None } else { self.last?.checked_add(self.silence) }
    }

    pub(super) fn tick(&mut self, now: Instant, out: &mut impl FnMut(Piece<'_>)) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.finish(out);
        }
    }

    pub(super) fn finish(&mut self, out: &mut impl FnMut(Piece<'_>)) {
        if !self.held.is_empty() {
            out(Piece::Message(self.held.as_slice()));
            self.held.clear();
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.held.capacity()
    }
}

/// Cuts off full pieces while there is more than one message's worth; returns the rest, which is never empty
/// unless `bytes` is.
pub(super) fn cut<'a>(mut bytes: &'a [u8], max_message: usize, out: &mut impl FnMut(Piece<'_>)) -> &'a [u8] {
    while bytes.len() > max_message {
        let (piece, rest) = bytes.split_at(max_message);
        out(Piece::Cut(piece));
        bytes = rest;
    }
    bytes
}
