//! Frames ⇄ messages, in either direction: what comes is understood message by message, each is judged, and what goes on
//! are whole messages in one frame each, and control frames where they stood. Pure.
//!
//! A message that lies whole in what was read, and goes on as it came, is not copied. Others are held until they are
//! whole; that is all that is held.

mod held;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, sync::Arc};

use bytes::BufMut;
use shared::{Kind, ws_frame};

use self::held::{Body, Held};
use super::{
    course::{Halt, Output, Taken},
    frame::{Header, MAX_HEADER, Opcode, Violation, close_code, mask},
    message::{Message, Verdict},
    pattern::Excess,
    rules::Closing,
};

/// Where in a stream of frames one is, and what is held of it.
#[derive(Debug)]
pub struct Messages {
    /// Frames of clients are masked.
    masked: bool,
    /// Bytes that a message may have.
    limit: usize,
    state: State,
    /// The message that has begun and was not whole in what was read.
    held: Option<Box<Held>>,
    /// A close frame does not go on.
    keeps_close: bool,
}

#[derive(Debug)]
enum State {
    /// A part of a header.
    Header { have: [u8; MAX_HEADER], len: u8 },
    /// Within a frame whose message is held.
    Data { left: u64, key: [u8; 4], phase: u8, last: bool },
    /// A part of a control frame, which has so many bytes in all.
    Control { header: Header, frame: Vec<u8> },
    /// A close frame has come: what follows is nothing.
    Closed,
}

/// What is to be done once a message was judged.
enum Fate {
    Kept,
    Changed(Kind, Vec<u8>),
    Dropped,
    Halted(Halt),
}

impl Fate {
    fn of(verdict: Verdict<'_>, limit: usize) -> Self {
        let (kind, bytes) = match verdict {
            Verdict::Pass(Message::Text(Cow::Borrowed(_)) | Message::Binary(Cow::Borrowed(_))) => {
                return Self::Kept;
            }
            Verdict::Pass(Message::Text(Cow::Owned(text))) => (Kind::Text, text.into_bytes()),
            Verdict::Pass(Message::Binary(Cow::Owned(bytes))) => (Kind::Binary, bytes),
            Verdict::Drop => return Self::Dropped,
            Verdict::Close(closing) => return Self::Halted(Halt::Ruled(closing)),
            Verdict::Excess(Excess::Length) => return Self::grown(),
            Verdict::Excess(Excess::Work) => return Self::laborious(),
        };
        if bytes.len() > limit { Self::grown() } else { Self::Changed(kind, bytes) }
    }

    /// It takes too long to replace all that a rule wants replaced.
    fn laborious() -> Self {
        let reason = "a rule would take too long with a message".into();
        Self::Halted(Halt::Ruled(Arc::new(Closing { code: 1008, reason })))
    }

    /// It is longer than a message may be, and not by who sent it.
    fn grown() -> Self {
        let reason = "a rule made a message longer than is allowed here".into();
        Self::Halted(Halt::Ruled(Arc::new(Closing { code: Violation::TooLong.code(), reason })))
    }
}

impl Default for State {
    fn default() -> Self {
        Self::Header { have: [0; MAX_HEADER], len: 0 }
    }
}

impl Messages {
    /// Those of a client, whose frames are masked, or those of a server; each has at most `limit` bytes.
    pub fn new(masked: bool, limit: usize) -> Self {
        Self { masked, limit, state: State::default(), held: None, keeps_close: false }
    }

    /// Takes what came, up to where the output is full, and judges each message that is whole with it.
    pub fn take(
        &mut self,
        piece: &mut [u8],
        output: &mut Output,
        judge: &mut impl for<'a> FnMut(Message<'a>) -> Verdict<'a>,
    ) -> Taken {
        let mut taken = Taken::default();
        while taken.used < piece.len() && !output.is_full() {
            match self.step(piece, taken.used, output, &mut taken, judge) {
                Ok(end) => taken.used = end,
                Err(halt) => {
                    // What is behind it is nothing.
                    taken.used = piece.len();
                    taken.halt = Some(halt);
                }
            }
        }
        taken
    }

    /// Whether a close frame has gone on.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed) && !self.keeps_close
    }

    /// A close frame that still comes does not go on; one that has gone on already has.
    pub fn keep_close(&mut self) {
        self.keeps_close = !self.is_closed();
    }

    /// Takes the next frame, or what there is of it; up to where.
    fn step(
        &mut self,
        piece: &mut [u8],
        at: usize,
        output: &mut Output,
        taken: &mut Taken,
        judge: &mut impl for<'a> FnMut(Message<'a>) -> Verdict<'a>,
    ) -> Result<usize, Halt> {
        match &mut self.state {
            State::Closed => Ok(piece.len()),
            State::Header { len: 0, .. } => {
                let Some(header) = Header::read(&piece[at..], self.masked)? else {
                    return self.begin_header(&piece[at..]).map(|count| at + count);
                };
                let payload = at + header.size;
                let whole =
                    usize::try_from(header.length).is_ok_and(|length| length <= piece.len() - payload);
                match header.opcode {
                    opcode if opcode.is_control() && whole => {
                        let end = payload + header.length as usize;
                        if self.control(header, &piece[at..end], taken)? {
                            output.keep(piece, at..end);
                        }
                        Ok(end)
                    }
                    Opcode::Message(kind) if header.last && whole && self.held.is_none() => {
                        let end = payload + header.length as usize;
                        self.whole(kind, header, piece, at..end, output, taken, judge)?;
                        Ok(end)
                    }
                    _ => {
                        self.begin(header, &piece[at..payload])?;
                        self.end(piece, output, taken, judge)?;
                        Ok(payload)
                    }
                }
            }
            State::Header { have, len } => {
                have[usize::from(*len)] = piece[at];
                *len += 1;
                let have = *have;
                let begun = &have[..usize::from(*len)];
                if let Some(header) = Header::read(begun, self.masked)? {
                    self.begin(header, begun)?;
                    self.end(piece, output, taken, judge)?;
                }
                Ok(at + 1)
            }
            State::Data { left, key, phase, .. } => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len() - at);
                let part = &mut piece[at..at + count];
                mask(part, *key, *phase);
                *phase = ((usize::from(*phase) + count) % 4) as u8;
                *left -= count as u64;
                if let Some(held) = &mut self.held {
                    held.body.push(part)?;
                }
                self.end(piece, output, taken, judge)?;
                Ok(at + count)
            }
            State::Control { header, frame } => {
                let whole = header.size + header.length as usize;
                let count = (whole - frame.len()).min(piece.len() - at);
                frame.extend_from_slice(&piece[at..at + count]);
                self.end(piece, output, taken, judge)?;
                Ok(at + count)
            }
        }
    }

    /// The rest of what was read is the beginning of a header.
    fn begin_header(&mut self, bytes: &[u8]) -> Result<usize, Halt> {
        let mut have = [0; MAX_HEADER];
        have[..bytes.len()].copy_from_slice(bytes);
        self.state = State::Header { have, len: bytes.len() as u8 };
        Ok(bytes.len())
    }

    /// A frame begins that is not whole in what was read, or no whole message.
    fn begin(&mut self, header: Header, bytes: &[u8]) -> Result<(), Halt> {
        let Header { opcode, last, key, length, .. } = header;
        if opcode.is_control() {
            self.state = State::Control { header, frame: bytes.to_vec() };
            return Ok(());
        }
        self.admit(length)?;
        match (opcode, &self.held) {
            (Opcode::Message(kind), None) => {
                self.held = Some(Box::new(Held { key, body: Body::new(kind, length) }));
            }
            (Opcode::Continuation, Some(_)) => {}
            _ => return Err(Violation::Fragments.into()),
        }
        self.state = State::Data { left: length, key: key.unwrap_or_default(), phase: 0, last };
        Ok(())
    }

    /// Whether so many bytes more are not too many.
    fn admit(&self, length: u64) -> Result<(), Violation> {
        let held = self.held.as_ref().map_or(0, |held| held.body.len());
        let most = self.limit.saturating_sub(held) as u64;
        if length > most { Err(Violation::TooLong) } else { Ok(()) }
    }

    /// Does what is to be done at the end of a frame, if this is one.
    fn end(
        &mut self,
        piece: &[u8],
        output: &mut Output,
        taken: &mut Taken,
        judge: &mut impl for<'a> FnMut(Message<'a>) -> Verdict<'a>,
    ) -> Result<(), Halt> {
        match &mut self.state {
            State::Data { left: 0, last, .. } => {
                let held = if *last { self.held.take() } else { None };
                self.state = State::default();
                match held {
                    Some(held) => self.joined(*held, piece, output, taken, judge),
                    None => Ok(()),
                }
            }
            State::Control { header, frame } if frame.len() == header.size + header.length as usize => {
                let (header, frame) = (*header, std::mem::take(frame));
                self.state = State::default();
                if self.control(header, &frame, taken)? {
                    output.own(piece).extend_from_slice(&frame);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A message lies whole in what was read.
    #[allow(clippy::too_many_arguments, reason = "it is one step of `step`, and borrows all that it does")]
    fn whole(
        &self,
        kind: Kind,
        header: Header,
        piece: &mut [u8],
        frame: std::ops::Range<usize>,
        output: &mut Output,
        taken: &mut Taken,
        judge: &mut impl for<'a> FnMut(Message<'a>) -> Verdict<'a>,
    ) -> Result<(), Halt> {
        self.admit(header.length)?;
        let payload = frame.start + header.size..frame.end;
        if let Some(key) = header.key {
            mask(&mut piece[payload.clone()], key, 0);
        }
        let message = Message::new(kind, &piece[payload.clone()])?;
        taken.messages += 1;
        taken.payload += header.length;
        match Fate::of(judge(message), self.limit) {
            Fate::Kept => {
                if let Some(key) = header.key {
                    mask(&mut piece[payload], key, 0);
                }
                output.keep(piece, frame);
            }
            Fate::Changed(kind, bytes) => put(output.own(piece), kind, header.key, &bytes),
            Fate::Dropped => {}
            Fate::Halted(halt) => return Err(halt),
        }
        Ok(())
    }

    /// A message that was held is whole.
    fn joined(
        &self,
        held: Held,
        piece: &[u8],
        output: &mut Output,
        taken: &mut Taken,
        judge: &mut impl for<'a> FnMut(Message<'a>) -> Verdict<'a>,
    ) -> Result<(), Halt> {
        let Held { key, body } = held;
        taken.messages += 1;
        taken.payload += body.len() as u64;
        match Fate::of(judge(body.message()?), self.limit) {
            Fate::Kept => {
                let kind = body.kind();
                let mut bytes = body.into_bytes();
                let length = bytes.len() - MAX_HEADER;
                let size = ws_frame::header_len(length) + key.map_or(0, |key| key.len());
                let begin = MAX_HEADER - size;
                put_header(&mut &mut bytes[begin..MAX_HEADER], kind, key, length);
                if let Some(key) = key {
                    mask(&mut bytes[MAX_HEADER..], key, 0);
                }
                output.give(piece, bytes, begin);
            }
            Fate::Changed(kind, bytes) => put(output.own(piece), kind, key, &bytes),
            Fate::Dropped => {}
            Fate::Halted(halt) => return Err(halt),
        }
        Ok(())
    }

    /// A control frame is whole; whether it goes on.
    fn control(&mut self, header: Header, frame: &[u8], taken: &mut Taken) -> Result<bool, Violation> {
        if header.opcode == Opcode::Close {
            let mut payload = frame[header.size..].to_vec();
            mask(&mut payload, header.key.unwrap_or_default(), 0);
            taken.close = Some(close_code(&payload)?);
            self.held = None;
            self.state = State::Closed;
        }
        Ok(header.opcode != Opcode::Close || !self.keeps_close)
    }
}

impl From<Violation> for Halt {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

fn put(out: &mut Vec<u8>, kind: Kind, key: Option<[u8; 4]>, payload: &[u8]) {
    put_header(out, kind, key, payload.len());
    let at = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = key {
        mask(&mut out[at..], key, 0);
    }
}

/// As the side writes it whose frames are masked, or not.
fn put_header(out: &mut impl BufMut, kind: Kind, key: Option<[u8; 4]>, length: usize) {
    let mut header = [0; ws_frame::MAX_HEADER];
    let size = ws_frame::header_len(length);
    ws_frame::put_header(&mut &mut header[..], kind, length);
    if key.is_some() {
        header[1] |= 0x80;
    }
    out.put_slice(&header[..size]);
    if let Some(key) = key {
        out.put_slice(&key);
    }
}
