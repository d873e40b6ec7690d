//! One direction of the way through: what is read goes on by its course, what the other side does not take waits, and an
//! end is passed on when all has gone. Where nothing can be written any more it says no more, but still listens: what the
//! other side said before that may still be on its way to this one.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{
    course::{Course, Halt, Output},
    stream::{Awaited, Ear, Passing},
    walk::Walked,
};

/// Reads of one side before the other, and then other connections, get their turn.
const READS: usize = 4;

/// Bytes of a frame that are read at a time when it has to be finished.
const FRAME_PIECE: usize = 16 * 1024;

/// One direction.
#[derive(Debug)]
pub(super) struct Way<W> {
    course: W,
    /// Read, and not looked at yet: by who asked, or since it becomes much.
    unread: Bytes,
    /// The close frame that passed, with its code.
    pub(super) close: Option<Option<u16>>,
    /// Whether what is read wakes the task when something comes.
    awaited: Awaited,
    /// Read, and not taken by the other side yet: nothing more is read until it is.
    rest: Bytes,
    /// What was written may still be on its way through TLS.
    unflushed: bool,
    pub(super) state: State,
    /// Its source is known to have failed, so that an end of what comes from there is none that was meant.
    pub(super) source_failed: bool,
    /// Whether the other side takes what goes on.
    pub(super) ear: Ear,
    /// Nothing more of what comes goes on.
    pub(super) halted: bool,
    /// Not counted yet.
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// How far a direction is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Flowing,
    /// The other side takes no more: what still comes is nothing.
    Deaf,
    /// Its source has ended; the other side is to be told.
    Ending,
    Ended,
}

/// Why a direction can't go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// The socket that is read failed.
    Source,
    /// What came must not go on.
    Halted(Halt),
}

impl<W: Course> Way<W> {
    pub(super) fn new(course: W, unread: Bytes) -> Self {
        // Who asked has read it, so it is counted here.
        let bytes = unread.len() as u64;
        Self {
            course,
            unread,
            close: None,
            awaited: Awaited::default(),
            rest: Bytes::new(),
            unflushed: false,
            state: State::Flowing,
            source_failed: false,
            ear: Ear::Open,
            halted: false,
            messages: 0,
            bytes,
        }
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
            if let Err(error) = ready!(self.send_rest(cx, to)) {
                self.takes_no_more(&error);
            }
            match self.state {
                State::Flowing if !self.unread.is_empty() => {
                    let count = self.take_unread(buffer);
                    self.pass_on(cx, to, &mut buffer[..count])?;
                }
                State::Flowing => match ready!(self.read(cx, from, buffer))? {
                    0 => self.state = State::Ending,
                    count => self.pass_on(cx, to, &mut buffer[..count])?,
                },
                State::Deaf => {
                    if ready!(self.read(cx, from, buffer))? == 0 {
                        self.state = State::Ended;
                    }
                }
                State::Ending => {
                    // It may be gone already.
                    let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
        // There is likely more; others come first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads what is there; 0 at the end.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Passing,
        buffer: &mut [u8],
    ) -> Poll<Result<usize, Broken>> {
        let count = ready!(from.poll_take(cx, buffer, &mut self.awaited)).map_err(|_| Broken::Source)?;
        self.bytes += count as u64;
        Poll::Ready(if count == 0 && self.source_failed { Err(Broken::Source) } else { Ok(count) })
    }

    /// Writing failed: nothing more goes on, and nothing of that is kept.
    fn takes_no_more(&mut self, error: &io::Error) {
        self.ear = Ear::of(error);
        (self.rest, self.unread, self.unflushed) = (Bytes::new(), Bytes::new(), false);
        self.state = match self.state {
            State::Flowing | State::Deaf => State::Deaf,
            State::Ending | State::Ended => State::Ended,
        };
    }

    /// Takes what was read before, as if it were read now.
    fn take_unread(&mut self, buffer: &mut [u8]) -> usize {
        let count = self.unread.len().min(buffer.len());
        self.unread.copy_to_slice(&mut buffer[..count]);
        if self.unread.is_empty() {
            // Its memory is not needed any more.
            self.unread = Bytes::new();
        }
        count
    }

    /// Keeps the rest of a read that was not taken, before what was read already.
    fn keep_unread(&mut self, left: &[u8]) {
        if !left.is_empty() {
            self.unread = [left, &self.unread].concat().into();
        }
    }

    /// Passes on what becomes of a read.
    fn pass_on(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut impl Passing,
        piece: &mut [u8],
    ) -> Result<(), Broken> {
        let mut output = Output::default();
        let taken = self.course.take(piece, &mut output);
        self.messages += taken.messages;
        self.close = self.close.or(taken.close);
        self.keep_unread(&piece[taken.used..]);
        if let Err(error) = self.send(cx, to, output.parts(piece)) {
            self.takes_no_more(&error);
        }
        match taken.halt {
            None => Ok(()),
            Some(halt) => {
                self.halted = true;
                Err(Broken::Halted(halt))
            }
        }
    }

    /// Writes what the other side takes; the rest is kept.
    fn send(&mut self, cx: &mut Context<'_>, to: &mut impl Passing, mut parts: [&[u8]; 2]) -> io::Result<()> {
        for part in 0..parts.len() {
            while !parts[part].is_empty() && self.rest.is_empty() {
                match to.poll_give(cx, parts[part]) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(count)) => parts[part] = &parts[part][count..],
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => self.rest = parts.concat().into(),
                }
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

    /// Passes on what an upstream still says to what came before the client had to be stopped, until it has answered the
    /// close frame that it was told. If it is given up meanwhile, what is left waits.
    pub(super) async fn pass_answers(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) {
        self.course.keep_close();
        let mut piece = vec![0; FRAME_PIECE];
        let mut more = self.state == State::Flowing;
        while more {
            while self.rest.has_remaining() {
                if !matches!(to.write_buf(&mut self.rest).await, Ok(1..)) {
                    return;
                }
            }
            let count = if self.unread.is_empty() {
                let count = from.read(&mut piece).await.unwrap_or(0);
                self.bytes += count as u64;
                count
            } else {
                self.take_unread(&mut piece)
            };
            let mut output = Output::default();
            let taken = self.course.take(&mut piece[..count], &mut output);
            self.messages += taken.messages;
            self.keep_unread(&piece[taken.used..count]);
            self.rest = output.parts(&piece).concat().into();
            more = count > 0 && taken.close.is_none() && taken.halt.is_none();
        }
    }

    /// Finishes what has begun: the rest, the current frame if its source is still there, then `last` where a frame
    /// may stand. Whether `last` went out.
    pub(super) async fn leave(
        &mut self,
        mut source: Option<&mut (impl AsyncRead + Unpin)>,
        to: &mut (impl AsyncWrite + Unpin),
        last: &[u8],
    ) -> bool {
        if to.write_all(&std::mem::take(&mut self.rest)).await.is_err() {
            return false;
        }
        let mut piece = Vec::new();
        while self.state == State::Flowing && self.course.unfinished().is_some() {
            piece.resize(FRAME_PIECE, 0);
            let count = match &mut source {
                _ if !self.unread.is_empty() => self.take_unread(&mut piece),
                Some(source) => source.read(&mut piece).await.unwrap_or(0),
                None => 0,
            };
            let Some(walker) = self.course.unfinished().filter(|_| count > 0) else { break };
            let end = walker.step(&piece[..count], &mut Walked::default());
            if to.write_all(&piece[..end]).await.is_err() {
                return false;
            }
        }
        let fits = !last.is_empty()
            && self.course.unfinished().is_none()
            && !self.course.is_closed()
            && self.state == State::Flowing;
        let told = fits && to.write_all(last).await.is_ok();
        let _ = to.shutdown().await;
        self.state = State::Ended;
        told
    }
}
