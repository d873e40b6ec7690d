//! Streams that can't be foretold: the messages of many senders or channels in the order that the server chose, and
//! the relay's own subprotocols with their seqs and times. The fastest receiver's stream is looked at message by
//! message here; the others must get the same bytes.

use std::{fmt, rc::Rc};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::load::payload::{Mark, Payloads};

/// Looks at whole messages at the beginning of the bytes.
pub(crate) trait Verify: fmt::Debug {
    /// Gives the bytes that they took, and how many they were.
    ///
    /// # Errors
    /// The first message that is not what had to come next.
    fn verify(&mut self, bytes: &[u8]) -> Result<(usize, u64)>;
}

/// The form of the relay's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The payload alone.
    Raw,
    /// `relay.v1.binary`.
    Binary,
    /// `relay.v1.json`.
    Json,
}

/// WebSocket frames of the relay.
#[derive(Debug)]
pub(crate) struct RelayFrames {
    form: Form,
    channel: String,
    payloads: Rc<Payloads>,
    /// Of each origin the number that comes next.
    next: Vec<u64>,
    /// The last seq, where the form has them.
    seq: u64,
    expected: Vec<u8>,
}

/// A message of `relay.v1.json`.
#[derive(Deserialize)]
struct JsonMessage<'a> {
    r#type: &'a str,
    channel: &'a str,
    seq: u64,
    prev: u64,
    time: u64,
    #[serde(borrow)]
    text: std::borrow::Cow<'a, str>,
}

impl RelayFrames {
    /// Frames with messages of so many origins.
    pub(crate) fn new(form: Form, channel: &str, payloads: Rc<Payloads>, origins: usize) -> Self {
        Self { form, channel: channel.into(), payloads, next: vec![0; origins], seq: 0, expected: Vec::new() }
    }

    fn message(&mut self, payload: &[u8]) -> Result<()> {
        match self.form {
            Form::Raw => self.payload(payload),
            Form::Json => {
                let message: JsonMessage<'_> = serde_json::from_slice(payload)?;
                ensure!(message.r#type == "message", "an event `{}` instead of a message", message.r#type);
                ensure!(message.channel == self.channel, "a message of channel {}", message.channel);
                self.chained(message.seq, message.prev, message.time)?;
                self.payload(message.text.as_bytes())
            }
            Form::Binary => {
                let rest = payload.strip_prefix(&[1]).context("no message of relay.v1.binary")?;
                let (length, rest) = rest.split_first().context("a message without a channel")?;
                let (channel, rest) =
                    rest.split_at_checked(usize::from(*length)).context("a torn channel")?;
                ensure!(channel == self.channel.as_bytes(), "a message of another channel");
                let (numbers, rest) = rest.split_at_checked(24).context("a message without seq and time")?;
                let number = |at: usize| {
                    numbers[at..at + 8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
                };
                self.chained(number(0), number(8), number(16))?;
                let payload = rest.strip_prefix(&[1]).context("a message that is no text")?;
                self.payload(payload)
            }
        }
    }

    /// The seq follows the one before, and there is a time.
    fn chained(&mut self, seq: u64, prev: u64, time: u64) -> Result<()> {
        ensure!(prev == self.seq, "message {seq} says that {prev} was before it, but {} was", self.seq);
        ensure!(seq > prev, "message {seq} after {prev}");
        ensure!(time > 1_600_000_000_000_000, "message {seq} has the time {time}");
        self.seq = seq;
        Ok(())
    }

    fn payload(&mut self, payload: &[u8]) -> Result<()> {
        let Some(mark) = Mark::of(payload) else { bail!("a payload that nobody published") };
        let next =
            self.next.get_mut(usize::from(mark.origin)).context("a payload of an origin that is none")?;
        ensure!(
            mark.number == *next,
            "message {} of origin {} came instead of its message {next}",
            mark.number,
            mark.origin
        );
        *next += 1;
        self.payloads.write(mark, &mut self.expected);
        ensure!(
            payload == self.expected,
            "message {} of origin {} has another content",
            mark.number,
            mark.origin
        );
        Ok(())
    }
}

impl Verify for RelayFrames {
    fn verify(&mut self, bytes: &[u8]) -> Result<(usize, u64)> {
        let (mut taken, mut messages) = (0, 0);
        while let [first, second, ..] = bytes[taken..] {
            let (header, length) = match second {
                126 => match bytes[taken..] {
                    [_, _, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
                    _ => break,
                },
                127 => bail!("a frame of 64 KiB or more, which none here has"),
                short => (2, usize::from(short)),
            };
            let Some(payload) = bytes.get(taken + header..taken + header + length) else { break };
            let opcode = if self.form == Form::Binary { 0x82 } else { 0x81 };
            if first == 0x88 {
                bail!("the server closed it: {}", super::websocket::close_reason(payload));
            }
            ensure!(first == opcode, "a frame that begins with {first:#x}");
            self.message(payload)?;
            taken += header + length;
            messages += 1;
        }
        Ok((taken, messages))
    }
}

#[cfg(test)]
mod tests {
    use shared::{Kind, ws_frame};

    use super::*;

    fn frames(marks: &[(u16, u64)]) -> Vec<u8> {
        let (payloads, mut payload, mut out) = (Payloads::new(20), Vec::new(), Vec::new());
        for &(origin, number) in marks {
            payloads.write(Mark { origin, number }, &mut payload);
            ws_frame::put(&mut out, Kind::Text, &payload);
        }
        out
    }

    fn verify(bytes: &[u8]) -> Result<(usize, u64)> {
        RelayFrames::new(Form::Raw, "bench", Rc::new(Payloads::new(20)), 2).verify(bytes)
    }

    #[test]
    fn origins_may_mix_as_long_as_each_is_in_order() {
        assert_eq!(verify(&frames(&[(0, 0), (1, 0), (1, 1), (0, 1)])).unwrap(), (88, 4));
    }

    #[test]
    fn half_a_message_waits_for_the_rest() {
        assert_eq!(verify(&frames(&[(0, 0), (0, 1)])[..30]).unwrap(), (22, 1));
    }

    #[test]
    fn a_lost_a_repeated_and_a_changed_message_are_found() {
        for marks in [[(0, 1), (0, 2)], [(0, 0), (0, 2)], [(0, 0), (0, 0)], [(0, 0), (2, 0)]] {
            assert!(verify(&frames(&marks)).is_err(), "{marks:?}");
        }
        let mut changed = frames(&[(0, 0)]);
        changed[20] ^= 1;
        assert!(verify(&changed).unwrap_err().to_string().contains("another content"));
    }

    #[test]
    fn seqs_and_their_predecessors_are_a_chain() {
        let mut chain = RelayFrames::new(Form::Json, "bench", Rc::new(Payloads::new(20)), 1);
        assert!(chain.chained(5, 0, 2_000_000_000_000_000).is_ok());
        assert!(chain.chained(9, 5, 2_000_000_000_000_000).is_ok());
        assert!(chain.chained(12, 11, 2_000_000_000_000_000).is_err());
    }
}
