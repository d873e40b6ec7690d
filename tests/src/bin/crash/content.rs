//! Payloads that say whose they are: producer, channel, number. What comes back is told apart from everything that
//! was never sent, byte by byte. Pure.

use std::fmt;

use shared::Kind;

/// Producers from here on are `send-client` processes: their messages are lines, and a number is that of a run and of
/// a line in it.
pub(crate) const SPOOLERS: u16 = 100;

/// Bits of a number that are the line's; those above are the run's.
const LINE_BITS: u32 = 24;

/// What stands before a payload that is not text: no UTF-8 begins so.
const BINARY: [u8; 2] = [0xff, 0xfe];

/// Which message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ident {
    /// Who sent it, as the cast counts them.
    pub(crate) producer: u16,
    /// Where to, as the cast counts them.
    pub(crate) channel: u16,
    /// Its number there.
    pub(crate) pseq: u64,
    /// Whether it was sent by a connection that a newer one had fenced: nobody may ever see it.
    pub(crate) fenced: bool,
}

/// What a delivered payload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// A message as it was sent.
    Message(Ident),
    /// No byte, of this kind: which message it was, its neighbours tell.
    Empty(Kind),
    /// Bytes that nobody sent, or another kind than they were sent with; how they begin.
    Foreign(Box<str>),
}

impl Ident {
    /// A message of a sender of the right incarnation.
    pub(crate) fn new(producer: u16, channel: u16, pseq: u64) -> Self {
        Self { producer, channel, pseq, fenced: false }
    }

    /// A line of a run of `send-client`; both are counted from 1.
    pub(crate) fn line(producer: u16, channel: u16, run: u64, line: u64) -> Self {
        Self::new(producer, channel, run << LINE_BITS | line)
    }

    /// The run and the line of one of those.
    pub(crate) fn run_and_line(self) -> (u64, u64) {
        (self.pseq >> LINE_BITS, self.pseq & ((1 << LINE_BITS) - 1))
    }

    /// Whether its payload has no byte. Never so of two in a row.
    pub(crate) fn is_empty(self, solo: bool) -> bool {
        solo && self.pseq % 7 == 3 && !self.fenced
    }

    /// Its kind and its payload, the same each time. `solo`: nobody else sends there, so that it may be empty.
    pub(crate) fn payload(self, solo: bool) -> (Kind, Vec<u8>) {
        if self.is_empty(solo) {
            return (if self.pseq.is_multiple_of(2) { Kind::Text } else { Kind::Binary }, Vec::new());
        }
        let head = format!(
            "{}.{}.{}{} ",
            self.producer,
            self.channel,
            self.pseq,
            if self.fenced { ".fenced" } else { "" }
        );
        let seed = self.pseq ^ u64::from(self.producer) << 48 ^ u64::from(self.channel) << 40;
        let mut rng = fastrand::Rng::with_seed(seed);
        let size = match rng.u32(0..1000) {
            0..2 => rng.usize(60_000..140_000),
            2..30 => rng.usize(2_000..8_000),
            _ => rng.usize(0..200),
        };
        // Lines are text, and end at a newline.
        if self.producer >= SPOOLERS || rng.bool() {
            let mut text = head;
            let size = if self.producer >= SPOOLERS { size.min(8_000) } else { size };
            text.extend((0..size / 8).map(|_| ['a', 'é', '"', '\\', '\t', '€', ' ', '0'][rng.usize(0..8)]));
            (Kind::Text, text.into_bytes())
        } else {
            let mut bytes = BINARY.to_vec();
            bytes.extend_from_slice(head.as_bytes());
            let from = bytes.len();
            bytes.resize(from + size, 0);
            rng.fill(&mut bytes[from..]);
            (Kind::Binary, bytes)
        }
    }
}

impl Content {
    /// What a payload is that came from a channel. `solo` says of each channel whether it has one sender alone.
    pub(crate) fn recognise(kind: Kind, payload: &[u8], solo: impl Fn(u16) -> bool) -> Self {
        if payload.is_empty() {
            return Self::Empty(kind);
        }
        let found = Self::head(payload).filter(|&ident| {
            let (sent_kind, sent) = ident.payload(solo(ident.channel));
            sent_kind == kind && sent == payload
        });
        found.map_or_else(|| Self::Foreign(describe(kind, payload)), Self::Message)
    }

    fn head(payload: &[u8]) -> Option<Ident> {
        let payload = payload.strip_prefix(&BINARY).unwrap_or(payload);
        let end = payload.iter().position(|&b| b == b' ')?;
        let mut parts = std::str::from_utf8(&payload[..end]).ok()?.split('.');
        let (producer, channel, pseq) = (parts.next()?, parts.next()?, parts.next()?);
        let fenced = parts.next().is_some();
        Some(Ident {
            producer: producer.parse().ok()?,
            channel: channel.parse().ok()?,
            pseq: pseq.parse().ok()?,
            fenced,
        })
    }

    /// The message, where it says which.
    pub(crate) fn ident(&self) -> Option<Ident> {
        match self {
            Self::Message(ident) => Some(*ident),
            Self::Empty(_) | Self::Foreign(_) => None,
        }
    }
}

fn describe(kind: Kind, payload: &[u8]) -> Box<str> {
    let begin = String::from_utf8_lossy(&payload[..payload.len().min(60)]).into_owned();
    format!("{kind:?}, {} B: {begin:?}", payload.len()).into()
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { producer, pseq, fenced, .. } = self;
        match (*producer >= SPOOLERS, fenced) {
            (true, _) => {
                let (run, line) = self.run_and_line();
                write!(f, "p{producer} run {run} line {line}")
            }
            (false, false) => write!(f, "p{producer} #{pseq}"),
            (false, true) => write!(f, "p{producer} #{pseq} of a fenced connection"),
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(ident) => write!(f, "{ident}"),
            Self::Empty(kind) => write!(f, "empty, {kind:?}"),
            Self::Foreign(what) => write!(f, "foreign ({what})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_payload_is_recognised_as_what_it_was() {
        for pseq in 1..3000 {
            for producer in [0, 3, SPOOLERS] {
                let ident = Ident::new(producer, 5, pseq);
                let (kind, payload) = ident.payload(false);
                assert_eq!(Content::recognise(kind, &payload, |_| false), Content::Message(ident));
                assert!(producer < SPOOLERS || !payload.contains(&b'\n'));
            }
        }
        let fenced = Ident { fenced: true, ..Ident::new(1, 2, 3) };
        let (kind, payload) = fenced.payload(true);
        assert_eq!(Content::recognise(kind, &payload, |_| true), Content::Message(fenced));
    }

    #[test]
    fn a_changed_byte_and_another_kind_are_foreign() {
        let (kind, payload) = Ident::new(1, 2, 3).payload(false);
        for at in 0..payload.len() {
            let mut changed = payload.clone();
            changed[at] ^= 1;
            let content = Content::recognise(kind, &changed, |_| false);
            assert!(matches!(content, Content::Foreign(_)), "byte {at}: {content}");
        }
        let other = if kind == Kind::Text { Kind::Binary } else { Kind::Text };
        assert!(matches!(Content::recognise(other, &payload, |_| false), Content::Foreign(_)));
        assert!(matches!(
            Content::recognise(kind, &payload[..payload.len() - 1], |_| false),
            Content::Foreign(_)
        ));
    }

    #[test]
    fn payloads_are_of_all_sizes_and_kinds_and_the_empty_ones_stand_apart() {
        let sizes: Vec<(Kind, usize)> = (1..3000)
            .map(|pseq| {
                let (kind, payload) = Ident::new(1, 2, pseq).payload(true);
                (kind, payload.len())
            })
            .collect();
        for kind in [Kind::Text, Kind::Binary] {
            assert!(sizes.contains(&(kind, 0)), "{kind:?}");
        }
        assert!(sizes.iter().any(|(_, size)| *size > shared::limits::CHUNK_BYTES));
        assert!(sizes.windows(2).all(|pair| pair[0].1 > 0 || pair[1].1 > 0));
    }

    #[test]
    fn a_line_has_its_run_and_its_number() {
        assert_eq!(Ident::line(100, 1, 7, 12).run_and_line(), (7, 12));
        assert!(Ident::line(100, 1, 7, 12) < Ident::line(100, 1, 8, 1));
    }
}
