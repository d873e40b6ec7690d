//! Whole frames only: the chunks that a cursor gives and the control frames of the connection share one socket,
//! and go out at frame boundaries, by one writer.

use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use shared::{Kind, receiver::Event, ws_frame};
use tokio::net::TcpStream;

use crate::channel::cursor::{Cursor, Next, Ready};

/// Chunks in one write, with which goes what waits besides: more slices than 1 024 the system does not take. Where
/// chunks are large, the bytes of a turn are reached with a few.
const CHUNKS: usize = 1022;

/// What is to be written to one receiver besides what its cursor gives.
#[derive(Debug, Default)]
pub struct Outbound {
    /// The rest of what was begun: it must go out before anything else.
    begun: Bytes,
    /// Whole control frames and events, to go out next.
    control: Vec<u8>,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Everything is out.
    Head,
    /// There is more; others come first.
    More,
    /// The socket takes no more now.
    Blocked,
    /// What comes next has to be fetched from the store.
    Fetch,
}

impl Outbound {
    /// Where control frames are to be put: whole ones, appended.
    pub fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// How many control bytes wait.
    pub fn control_len(&self) -> usize {
        self.control.len()
    }

    /// Adds an event.
    pub fn event(&mut self, event: &Event<'_>) {
        ws_frame::put(&mut self.control, Kind::Text, event.to_json().as_bytes());
    }

    /// Whether something waits to be written that no cursor gives.
    pub fn is_waiting(&self) -> bool {
        self.begun.has_remaining() || !self.control.is_empty()
    }

    /// Writes until everything is out, the socket takes no more, or about `turn` bytes are written. Without a
    /// cursor only what waits here. Adds what was written to `written`.
    pub fn write(
        &mut self,
        socket: &TcpStream,
        mut cursor: Option<&mut Cursor>,
        turn: usize,
        written: &mut u64,
    ) -> io::Result<Turn> {
        let mut ready = Vec::new();
        let mut left = turn;
        loop {
            ready.clear();
            let next = match &mut cursor {
                Some(cursor) => cursor.peek(CHUNKS, left as u64, &mut ready),
                None => Next::Head,
            };
            if ready.is_empty() && !self.is_waiting() {
                return Ok(if next == Next::Fetch { Turn::Fetch } else { Turn::Head });
            }
            let count = match self.write_once(socket, &ready) {
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Turn::Blocked),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            *written += count as u64;
            self.settle(count, &ready, cursor.as_deref_mut());
            left = left.saturating_sub(count);
            if left == 0 {
                return Ok(Turn::More);
            }
        }
    }

    fn write_once(&self, socket: &TcpStream, ready: &[Ready]) -> io::Result<usize> {
        let mut slices = Vec::with_capacity(2 + ready.len());
        let waiting = [&self.begun[..], &self.control].into_iter().filter(|bytes| !bytes.is_empty());
        slices.extend(waiting.chain(ready.iter().map(|ready| &ready.frames[..])).map(IoSlice::new));
        socket.try_write_vectored(&slices)
    }

    /// Notes that so many bytes went out.
    fn settle(&mut self, mut count: usize, ready: &[Ready], cursor: Option<&mut Cursor>) {
        let of_begun = count.min(self.begun.len());
        self.begun.advance(of_begun);
        count -= of_begun;
        if count == 0 {
            return;
        }
        let control = std::mem::take(&mut self.control);
        if count < control.len() {
            self.begun = Bytes::from(control).slice(count..);
            return;
        }
        count -= control.len();
        let Some(cursor) = cursor else { return };
        for ready in ready {
            if count == 0 {
                return;
            }
            cursor.take(ready);
            let length = ready.frames.len();
            if count < length {
                self.begun = ready.frames.slice(count..);
                return;
            }
            count -= length;
        }
    }
}
