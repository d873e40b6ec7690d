//! From the browser to the upstream: what its messages carry, without their boundaries.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Bridge, Half, READ, READS, Stop, give, send};
use crate::gateway::{
    counters::{Cause, End, Side},
    course::{Course as _, Halt, Output, Source},
    farewell::Farewell,
    stream::Ear,
    unframe::Unframed,
};

/// Bytes of pongs that may wait: beyond them nothing is read that could add to them.
pub(super) const PONGS: usize = 4096;

impl<C, U> Bridge<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// From the browser to the upstream. Ready when that has ended.
    pub(super) fn pass_up(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<(), Stop>> {
        for _ in 0..READS {
            let before = self.to_upstream.len();
            let sent = send(cx, &mut self.upstream, &mut self.to_upstream);
            self.moved |= self.to_upstream.len() < before;
            if let Err(error) = ready!(sent) {
                self.upstream_takes_no_more(&error);
            }
            match self.from_client {
                // Woken by what is written: that is what is waited for.
                Half::Flowing if self.control.len() > PONGS => return Poll::Pending,
                Half::Flowing => {
                    let count = ready!(self.read_client(cx, &mut buffer[..READ]))?;
                    if count == 0 {
                        self.client_ended(Cause::Ended);
                    } else {
                        self.take_frames(cx, &mut buffer[..count])?;
                    }
                }
                Half::Ending => {
                    // It may be gone already.
                    let _ = ready!(Pin::new(&mut self.upstream).poll_shutdown(cx));
                    self.from_client = Half::Ended;
                    self.set_due();
                }
                Half::Ended => return Poll::Ready(Ok(())),
            }
        }
        // There is likely more; others come first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads of the browser, what was read before first.
    fn read_client(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, Stop>> {
        if let Some(unread) = self.governed.as_mut().map(|governed| &mut governed.unread_up)
            && !unread.is_empty()
        {
            let unread = std::mem::take(unread);
            buffer[..unread.len()].copy_from_slice(&unread);
            return Poll::Ready(Ok(unread.len()));
        }
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.client).poll_read(cx, &mut read))
            .map_err(|_| Stop::Failed(Side::Client))?;
        match read.filled().len() {
            0 if self.client_ear == Ear::Failed => Poll::Ready(Err(Stop::Failed(Side::Client))),
            count => Poll::Ready(Ok(count)),
        }
    }

    fn take_frames(&mut self, cx: &mut Context<'_>, piece: &mut [u8]) -> Result<(), Stop> {
        // What nobody takes does not keep a connection from being idle.
        self.heard |= self.upstream_ear == Ear::Open;
        self.moved = true;
        let mut output = Output::default();
        let taken = match &mut self.governed {
            Some(governed) => {
                let taken = governed.up.take(piece, &mut output);
                governed.unread_up = Bytes::copy_from_slice(&piece[taken.used..]);
                Some(taken)
            }
            None => {
                output.keep(piece, 0..piece.len());
                None
            }
        };
        let (mut messages, mut bytes, mut violation) = (0, 0, None);
        for part in output.parts_mut(piece) {
            let found = self.unframer.take(part);
            (messages, bytes) = (messages + found.messages, bytes + found.bytes as u64);
            violation = violation.or(found.violation);
            self.take_found(cx, found, part);
        }
        if let Some(taken) = &taken {
            (messages, bytes) = (taken.messages, taken.payload);
        }
        self.passage.counters().from_client.add(messages, bytes);
        let halt = taken.and_then(|taken| taken.halt);
        match violation.map(Halt::Violation).or(halt) {
            None => Ok(()),
            Some(halt) => Err(Stop::Told(Farewell::of(Source::Client, halt))),
        }
    }

    /// Passes on what was found in a piece.
    fn take_found(&mut self, cx: &mut Context<'_>, found: Unframed, piece: &[u8]) {
        if !self.close_said && self.client_ear == Ear::Open {
            for ping in &found.pings {
                self.control.extend_from_slice(&[0x8a, ping.len() as u8]);
                self.control.extend_from_slice(ping);
            }
        }
        if self.upstream_ear == Ear::Open
            && let Err(error) = give(cx, &mut self.upstream, &mut self.to_upstream, &piece[..found.bytes])
        {
            self.upstream_takes_no_more(&error);
        }
        if let Some(code) = found.close {
            self.closed = Some(code);
            self.client_ended(Cause::Closed);
        }
    }

    fn client_ended(&mut self, cause: Cause) {
        self.from_client = Half::Ending;
        let close_code = self.closed.flatten();
        self.ended.get_or_insert(End { side: Side::Client, cause, close_code });
        self.set_due();
    }

    /// What still comes of the browser is nothing then.
    fn upstream_takes_no_more(&mut self, error: &io::Error) {
        self.upstream_ear = Ear::of(error);
        self.to_upstream = Bytes::new();
    }
}
