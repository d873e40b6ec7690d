//! One direction of a connection between two that speak WebSocket: what is read of one side, becomes what its [`Course`]
//! makes of it, and is written to the other. Nothing more is read while something waits to be written.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{
    course::{Course, Halt, Output},
    stream::Passing,
    walk::Walked,
};

/// Reads of one side before the other, and then other connections, get their turn.
const READS: usize = 4;

/// Bytes of a frame that are read at a time when it has to be finished.
const FRAME_PIECE: usize = 16 * 1024;

/// One direction.
#[derive(Debug)]
pub(super) struct Way<K> {
    pub(super) course: K,
    /// The close frame that came, with its code.
    pub(super) close: Option<Option<u16>>,
    /// Read, and not looked at yet.
    unread: Bytes,
    /// To go on, and not taken by the other side yet: nothing more is read until it is.
    rest: Bytes,
    /// What was written may still be on its way through TLS.
    unflushed: bool,
    state: State,
    /// Not counted yet.
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// How far a direction is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Flowing,
    /// Its source has ended; the other side is to be told.
    Ending,
    Ended,
    /// The other side was told by the gateway that it is over.
    Told,
}

/// Why a direction can't go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// The socket that it comes from failed.
    Source,
    /// The socket that it goes to failed.
    Sink,
    /// What came must not go on.
    Halted(Halt),
}

impl<K: Course> Way<K> {
    /// A direction of which this was read already.
    pub(super) fn new(course: K, unread: Bytes) -> Self {
        let bytes = unread.len() as u64;
        Self {
            course,
            close: None,
            unread,
            rest: Bytes::new(),
            unflushed: false,
            state: State::Flowing,
            messages: 0,
            bytes,
        }
    }

    /// Whether its source has not ended.
    pub(super) fn is_flowing(&self) -> bool {
        self.state == State::Flowing
    }

    /// Passes on what is there. Ready when the direction has ended.
    pub(super) fn pass(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Passing,
        to: &mut impl Passing,
        buffer: &mut [u8],
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..READS {
            ready!(self.send_rest(cx, to)).map_err(|_| Broken::Sink)?;
            match self.state {
                State::Flowing => ready!(self.pass_some(cx, from, to, buffer))?,
                State::Ending => {
                    // It may be gone already.
                    let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.state = State::Ended;
                }
                State::Ended | State::Told => return Poll::Ready(Ok(())),
            }
        }
        // There is likely more; others come first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Passes on what is there up to a close frame, or to the end. Ready then.
    pub(super) fn run_out(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Passing,
        to: &mut impl Passing,
        buffer: &mut [u8],
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..READS {
            ready!(self.send_rest(cx, to)).map_err(|_| Broken::Sink)?;
            if self.state == State::Ending {
                // Its sink was not told: a close frame still fits.
                self.state = State::Flowing;
                return Poll::Ready(Ok(()));
            }
            if self.close.is_some() || self.state != State::Flowing {
                return Poll::Ready(Ok(()));
            }
            ready!(self.pass_some(cx, from, to, buffer))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Passes on a read.
    fn pass_some(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Passing,
        to: &mut impl Passing,
        buffer: &mut [u8],
    ) -> Poll<Result<(), Broken>> {
        let count = if self.unread.is_empty() {
            let count = ready!(from.poll_take(cx, buffer)).map_err(|_| Broken::Source)?;
            self.bytes += count as u64;
            count
        } else {
            self.take_unread(buffer)
        };
        if count == 0 {
            self.state = State::Ending;
            return Poll::Ready(Ok(()));
        }
        let piece = &mut buffer[..count];
        let mut output = Output::default();
        let taken = self.course.take(piece, &mut output);
        self.messages += taken.messages;
        self.close = self.close.or(taken.close);
        if taken.used < count {
            let left = &piece[taken.used..];
            self.unread = if self.unread.is_empty() {
                Bytes::copy_from_slice(left)
            } else {
                [left, &self.unread].concat().into()
            };
        }
        self.send(cx, to, output.parts(piece)).map_err(|_| Broken::Sink)?;
        Poll::Ready(taken.halt.map_or(Ok(()), |halt| Err(Broken::Halted(halt))))
    }

    /// Puts what was read before into the buffer, as much as fits; how much.
    fn take_unread(&mut self, buffer: &mut [u8]) -> usize {
        let count = self.unread.len().min(buffer.len());
        self.unread.copy_to_slice(&mut buffer[..count]);
        if self.unread.is_empty() {
            self.unread = Bytes::new();
        }
        count
    }

    /// Writes what the other side takes; the rest is kept.
    fn send(&mut self, cx: &mut Context<'_>, to: &mut impl Passing, parts: [&[u8]; 2]) -> io::Result<()> {
        for bytes in parts {
            let mut sent = 0;
            while sent < bytes.len() && self.rest.is_empty() {
                match to.poll_give(cx, &bytes[sent..]) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(count)) => sent += count,
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => break,
                }
            }
            if sent < bytes.len() {
                self.rest = if self.rest.is_empty() {
                    Bytes::copy_from_slice(&bytes[sent..])
                } else {
                    [&self.rest, bytes].concat().into()
                };
            }
        }
        self.unflushed = !matches!(Pin::new(to).poll_flush(cx), Poll::Ready(Ok(())));
        Ok(())
    }

    fn send_rest(&mut self, cx: &mut Context<'_>, to: &mut impl Passing) -> Poll<io::Result<()>> {
        while self.rest.has_remaining() {
            let count = ready!(to.poll_give(cx, &self.rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.rest.advance(count);
            if self.rest.is_empty() {
                self.rest = Bytes::new();
            }
        }
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Finishes what has begun: the rest, the current frame if its source is still there, then `last` where a frame
    /// may stand; and ends the direction. Whether `last` went out.
    pub(super) async fn leave(
        &mut self,
        source: Option<&mut (impl AsyncRead + Unpin)>,
        to: &mut (impl AsyncWrite + Unpin),
        last: &[u8],
    ) -> bool {
        if self.finish_frame(source, to).await.is_err() {
            return false;
        }
        let told = self.finish(to, last).await;
        let _ = to.shutdown().await;
        self.state = State::Ended;
        told
    }

    /// Writes the rest of what was read, and of the frame in which that ends.
    async fn finish_frame(
        &mut self,
        source: Option<&mut (impl AsyncRead + Unpin)>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        to.write_all(&std::mem::take(&mut self.rest)).await?;
        let Some(source) = source.filter(|_| self.state == State::Flowing) else { return Ok(()) };
        let mut piece = vec![0; FRAME_PIECE];
        while self.course.unfinished().is_some() {
            let count = if self.unread.is_empty() {
                source.read(&mut piece).await.unwrap_or_default()
            } else {
                self.take_unread(&mut piece)
            };
            let Some(walker) = self.course.unfinished().filter(|_| count > 0) else { break };
            let end = walker.step(&piece[..count], &mut Walked::default());
            to.write_all(&piece[..end]).await?;
        }
        Ok(())
    }

    /// Writes what waits, and a frame where one may stand. Whether that went out.
    pub(super) async fn finish(&mut self, to: &mut (impl AsyncWrite + Unpin), last: &[u8]) -> bool {
        if to.write_all(&std::mem::take(&mut self.rest)).await.is_err() {
            return false;
        }
        let fits = !last.is_empty()
            && self.course.unfinished().is_none()
            && !self.course.is_closed()
            && self.state == State::Flowing;
        let told = fits && to.write_all(last).await.is_ok() && to.flush().await.is_ok();
        if told {
            self.state = State::Told;
        }
        told
    }
}
