//! `auto` before it is known what the sender writes.
//!
//! # The rule
//! The two kinds of sender that must come out right without any configuration: one that writes a reading per
//! `write` and never a newline (a message per reading), and one that writes lines (a message per line), even
//! if the first line arrives in pieces a second apart. So everything is held and silences (20 ms) are noted
//! until one of these, with U the undecided time (1 s):
//!
//! | what | then |
//! |---|---|
//! | a read that is not printable to its end | `idle` (it can't become `line` any more) |
//! | a read that has a `\n`, all so far printable | `line`, from the first byte held |
//! | more than 64 KiB (or than one message may have) | `idle` |
//! | the end | what is held is cut at the noted silences |
//! | a silence of 1.5 U | `idle`: the sender waits, perhaps for its message to arrive |
//! | U after the first byte, if a pause in it was shorter than U/2 | `idle`: so many short pauses make readings |
//! | 5 U after the first byte | `idle` |
//!
//! A pause of U/2 or more starts the U anew: such slow pieces are waited for as pieces of a line. `idle` is
//! `idle:20ms`: what is held is cut at the noted silences, the rest goes on. It still becomes `line` at a `\n`
//! if all since the first byte was printable; the line then begins at the last cut. `line` is final.
//!
//! A read is judged as a whole, so that binary data which happens to begin with text and a `\n` is not taken
//! for lines.

use std::time::Instant;

use shared::limits::CHUNK_BYTES;

use super::{
    AutoSettings, Piece, State, delimited::Delimited, partial::Partial, printable::Printable, quiet::Quiet,
};

/// What a sender may write undecided: one read.
const UNDECIDED_BYTES: usize = CHUNK_BYTES;

/// An `auto` sender that has shown neither lines nor readings.
#[derive(Debug)]
pub(super) struct Undecided {
    settings: AutoSettings,
    max_message: usize,
    held: Partial,
    printable: Printable,
    /// How many bytes were held at each silence.
    silences: Vec<usize>,
    rhythm: Option<Rhythm>,
}

/// When the bytes came.
#[derive(Debug, Clone, Copy)]
struct Rhythm {
    first: Instant,
    last: Instant,
    pace: Pace,
}

/// How long the pauses were.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// No short pause since `since`, the first byte or the first after the last long pause.
    Slow { since: Instant },
    /// A short one.
    Brisk { since: Instant },
}

impl Undecided {
    pub(super) fn new(settings: AutoSettings, max_message: usize) -> Self {
        Self {
            settings,
            max_message,
            held: Partial::new(UNDECIDED_BYTES.min(max_message)),
            printable: Printable::default(),
            silences: Vec::new(),
            rhythm: None,
        }
    }

    /// Takes bytes; returns what the sender is from here on, once that is known.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        now: Instant,
        out: &mut impl FnMut(Piece<'_>),
    ) -> Option<State> {
        let waiting = self.note(now);
        if !self.printable.goes_on_with(bytes) {
            let mut quiet = self.quiet(out);
            quiet.hold(bytes, now, out);
            return Some(State::Quiet(quiet));
        }
        if memchr::memchr(b'\n', bytes).is_some() {
            let mut lines = Delimited::line(self.max_message);
            lines.feed(self.held.as_slice(), out);
            lines.feed(bytes, out);
            return Some(State::Delimited(lines));
        }
        if bytes.len() > self.held.room() || !waiting {
            let mut quiet = self.printing_quiet(out);
            quiet.hold(bytes, now, out);
            return Some(State::Quiet(quiet));
        }
        self.held.push(bytes);
        None
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let rhythm = self.rhythm.as_ref()?;
        let decision = rhythm.decision(self.settings);
        if self.paused() {
            decision
        } else {
            earliest(decision, rhythm.last.checked_add(self.settings.silence))
        }
    }

    /// Notes a silence; returns what the sender is from here on, if it was undecided for long enough.
    pub(super) fn tick(&mut self, now: Instant, out: &mut impl FnMut(Piece<'_>)) -> Option<Quiet> {
        let rhythm = self.rhythm?;
        if !self.paused() && now.duration_since(rhythm.last) >= self.settings.silence {
            self.silences.push(self.held.len());
        }
        let decided = rhythm.decision(self.settings).is_some_and(|decision| decision <= now);
        decided.then(|| self.printing_quiet(out))
    }

    pub(super) fn finish(&mut self, out: &mut impl FnMut(Piece<'_>)) {
        self.quiet(out).finish(out);
    }

    /// Takes down when bytes came; false if they came too late to stay undecided.
    fn note(&mut self, now: Instant) -> bool {
        let paused = self.paused();
        let rhythm =
            self.rhythm.get_or_insert(Rhythm { first: now, last: now, pace: Pace::Slow { since: now } });
        if paused {
            rhythm.pace = match rhythm.pace {
                _ if now.duration_since(rhythm.last) * 2 >= self.settings.undecided => {
                    Pace::Slow { since: now }
                }
                Pace::Slow { since } | Pace::Brisk { since } => Pace::Brisk { since },
            };
        }
        rhythm.last = now;
        rhythm.decision(self.settings).is_none_or(|decision| now < decision)
    }

    /// Whether a silence was noted after the last byte.
    fn paused(&self) -> bool {
        self.silences.last().is_some_and(|&at| at == self.held.len())
    }

    fn printing_quiet(&mut self, out: &mut impl FnMut(Piece<'_>)) -> Quiet {
        let printable = std::mem::take(&mut self.printable);
        self.quiet(out).may_be_lines(printable)
    }

    /// Gives out what the silences have ended; the rest goes on as `idle`.
    fn quiet(&mut self, out: &mut impl FnMut(Piece<'_>)) -> Quiet {
        let mut begin = 0;
        for end in self.silences.drain(..) {
            out(Piece::Message(&self.held.as_slice()[begin..end]));
            begin = end;
        }
        let mut quiet = Quiet::new(self.settings.silence, self.max_message);
        if let Some(rhythm) = self.rhythm.take() {
            quiet.hold(&self.held.as_slice()[begin..], rhythm.last, out);
        }
        self.held.clear();
        quiet
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.held.capacity()
    }
}

impl Rhythm {
    /// When it is decided that the sender writes readings, if nothing more comes.
    fn decision(&self, settings: AutoSettings) -> Option<Instant> {
        let undecided = settings.undecided;
        let by_pace = match self.pace {
            Pace::Slow { .. } => self.last.checked_add(undecided + undecided / 2),
            Pace::Brisk { since } => since.checked_add(undecided),
        };
        earliest(by_pace, self.first.checked_add(undecided * 5))
    }
}

/// The earlier of two deadlines; none is never.
fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
