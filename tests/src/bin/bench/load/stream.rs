//! What every receiver of a channel has to get, byte for byte, from the slowest receiver to the fastest.

use std::collections::VecDeque;

use anyhow::Result;

use crate::load::verify::Verify;

/// The bytes that receivers of one channel or pattern get, each the same.
#[derive(Debug)]
pub(crate) struct Stream {
    /// What is kept of it: from the slowest receiver on.
    bytes: VecDeque<u8>,
    /// The position of the first byte that is kept.
    begin: u64,
    /// Bytes of a message with everything around it; all are of the same length where it can be foretold.
    unit: usize,
    led: Option<Led>,
}

/// A stream that can't be foretold: what the fastest receiver gets is verified, and all others must get the same.
#[derive(Debug)]
struct Led {
    verify: Box<dyn Verify>,
    /// The position up to which it is.
    verified: u64,
    /// Messages up to there.
    messages: u64,
}

/// How bytes differ from what should have come.
#[derive(Debug)]
pub(crate) enum Mismatch {
    /// From this index of the bytes on; this should have been there.
    Differs { at: usize, expected: Vec<u8> },
    /// They came before anybody published them.
    Unpublished { at: usize },
    /// The fastest receiver's bytes are wrong by themselves.
    Wrong(anyhow::Error),
}

impl Stream {
    /// A stream that is known when it is published, in units of so many bytes.
    pub(crate) fn foretold(unit: usize) -> Self {
        Self { bytes: VecDeque::new(), begin: 0, unit, led: None }
    }

    /// A stream that is known when the fastest receiver has it.
    pub(crate) fn led(verify: Box<dyn Verify>) -> Self {
        let led = Led { verify, verified: 0, messages: 0 };
        Self { bytes: VecDeque::new(), begin: 0, unit: 0, led: Some(led) }
    }

    /// Adds what was published, and leaves nothing of it.
    pub(crate) fn publish(&mut self, units: &mut Vec<u8>) {
        if self.led.is_none() {
            debug_assert!(units.len().is_multiple_of(self.unit), "units are of one length");
            self.bytes.extend(&units[..]);
        }
        units.clear();
    }

    /// Compares what a receiver got at a position with what it should have got there.
    pub(crate) fn check(&mut self, position: u64, got: &[u8]) -> Result<(), Mismatch> {
        let from = (position - self.begin) as usize;
        let known = got.len().min(self.bytes.len() - from);
        let (first, second) = self.bytes.as_slices();
        let in_first = first.get(from..).unwrap_or_default();
        let (got_first, got_second) = got[..known].split_at(known.min(in_first.len()));
        let skip = from.saturating_sub(first.len());
        if got_first != &in_first[..got_first.len()] || got_second != &second[skip..skip + got_second.len()] {
            let expected = self.bytes.range(from..from + known);
            let at = got.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(known);
            let expected = self.bytes.range(from + at..).take(32).copied().collect();
            return Err(Mismatch::Differs { at, expected });
        }
        if known < got.len() {
            let Some(led) = &mut self.led else { return Err(Mismatch::Unpublished { at: known }) };
            self.bytes.extend(&got[known..]);
            led.verify(&mut self.bytes, self.begin).map_err(Mismatch::Wrong)?;
        }
        Ok(())
    }

    /// Forgets what every receiver has.
    pub(crate) fn trim(&mut self, slowest: u64) {
        let until = self.led.as_ref().map_or(slowest, |led| slowest.min(led.verified));
        let gone = (until - self.begin) as usize;
        drop(self.bytes.drain(..gone));
        self.begin = until;
    }

    /// Bytes that are kept.
    pub(crate) fn kept(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of a message on the wire; of a led stream those of an average one, 0 before the first.
    pub(crate) fn unit(&self) -> f64 {
        match &self.led {
            Some(Led { messages: 0, .. }) => 0.0,
            Some(led) => led.verified as f64 / led.messages as f64,
            None => self.unit as f64,
        }
    }

    /// Bytes of a message where all have the same.
    pub(crate) fn fixed_unit(&self) -> Option<usize> {
        self.led.is_none().then_some(self.unit)
    }

    /// Messages that were verified, of a led stream.
    pub(crate) fn verified(&self) -> Option<(u64, u64)> {
        self.led.as_ref().map(|led| (led.messages, led.verified))
    }
}

impl Led {
    /// Verifies the whole messages that are there.
    fn verify(&mut self, bytes: &mut VecDeque<u8>, begin: u64) -> Result<()> {
        let from = (self.verified - begin) as usize;
        // They are looked at as one slice; a ring that has wrapped is put straight for it, once per round.
        let (first, _) = bytes.as_slices();
        let rest = if bytes.len() == first.len() { &first[from..] } else { &bytes.make_contiguous()[from..] };
        let (taken, messages) = self.verify.verify(rest)?;
        self.verified += taken as u64;
        self.messages += messages;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn published(units: u8) -> Stream {
        let mut stream = Stream::foretold(3);
        for unit in 0..units {
            stream.publish(&mut vec![unit; 3]);
        }
        stream
    }

    proptest! {
        #[test]
        fn what_was_published_is_right_in_any_pieces(trimmed in 0u64..30, piece in 1usize..10) {
            let mut stream = published(10);
            stream.trim(trimmed);
            for unit in 10..40 {
                stream.publish(&mut vec![unit; 3]);
            }
            let all: Vec<u8> = (0..40).flat_map(|unit| [unit; 3]).collect();
            let mut position = trimmed;
            for got in all[trimmed as usize..].chunks(piece) {
                prop_assert!(stream.check(position, got).is_ok());
                position += got.len() as u64;
            }
        }

        #[test]
        fn a_byte_that_was_changed_is_found(at in 0usize..30) {
            let mut got: Vec<u8> = (0..10).flat_map(|unit| [unit; 3]).collect();
            got[at] ^= 0x80;
            let Err(Mismatch::Differs { at: found, .. }) = published(10).check(0, &got) else {
                return Err(TestCaseError::fail("it was not found"));
            };
            prop_assert_eq!(found, at);
        }
    }

    #[test]
    fn what_nobody_published_is_found() {
        assert!(matches!(published(1).check(0, &[0, 0, 0, 1]), Err(Mismatch::Unpublished { at: 3 })));
    }
}
