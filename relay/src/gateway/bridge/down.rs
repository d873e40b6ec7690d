//! From the upstream to the browser: messages, out of what is read.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};

use super::{Bridge, DONE, Half, READS, Stop, give, send, up::PONGS};
use crate::gateway::{
    counters::{Cause, End, Side},
    course::{Course as _, Output, Source},
    farewell::{Farewell, close_frame},
    reframe::ROOM,
    stream::Ear,
};

impl<C, U> Bridge<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// From the upstream to the browser. Ready when everything is out, the last close frame too.
    pub(super) fn pass_down(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<(), Stop>> {
        for _ in 0..READS {
            if let Err(error) = ready!(self.send_to_client(cx)) {
                self.client_takes_no_more(&error);
            }
            if let Some(unread) = self.governed.as_mut().map(|governed| &mut governed.unread_down)
                && !unread.is_empty()
            {
                let mut frames = Vec::from(std::mem::take(unread));
                self.give_frames(cx, &mut frames)?;
                continue;
            }
            match self.from_upstream {
                Half::Flowing => {
                    let mut read = ReadBuf::new(&mut buffer[ROOM..ROOM + self.read]);
                    match Pin::new(&mut self.upstream).poll_read(cx, &mut read) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) => return Poll::Ready(Err(Stop::Failed(Side::Upstream))),
                        Poll::Pending => {
                            ready!(self.poll_silence(cx))?;
                            continue;
                        }
                    }
                    let count = read.filled().len();
                    self.take_bytes(cx, &mut buffer[..ROOM + count])?;
                }
                Half::Ending => {
                    self.close_said = true;
                    if self.client_ear == Ear::Open {
                        let code = self.closed.unwrap_or(Some(DONE));
                        self.control.extend(close_frame(code, "", false));
                    }
                    self.from_upstream = Half::Ended;
                    self.set_due();
                }
                Half::Ended if self.from_client == Half::Flowing => return Poll::Pending,
                Half::Ended => {
                    let _ = ready!(Pin::new(&mut self.client).poll_shutdown(cx));
                    return Poll::Ready(Ok(()));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes what was read, which stands behind the room in `piece`.
    fn take_bytes(&mut self, cx: &mut Context<'_>, piece: &mut [u8]) -> Result<(), Stop> {
        let bytes = (piece.len() - ROOM) as u64;
        let mut out = Vec::new();
        if bytes == 0 && self.upstream_ear == Ear::Failed {
            return Err(Stop::Failed(Side::Upstream));
        }
        if bytes == 0 {
            self.from_upstream = Half::Ending;
            self.ended.get_or_insert(End {
                side: Side::Upstream,
                cause: Cause::Closed,
                close_code: Some(DONE),
            });
            let frames = self.reframer.finish(&mut out);
            self.passage.counters().from_upstream.add(frames, 0);
            return self.give_frames(cx, &mut out);
        }
        if self.client_ear != Ear::Open {
            // What nobody takes does not keep a connection from being idle.
            self.passage.counters().from_upstream.add(0, bytes);
            return Ok(());
        }
        self.heard = true;
        let now = Instant::now().into_std();
        match self.reframer.take(piece, now, &mut out) {
            Ok((range, frames)) => {
                self.passage.counters().from_upstream.add(frames, bytes);
                self.give_frames(cx, &mut out)?;
                self.give_frames(cx, &mut piece[range])
            }
            Err(lost) => {
                // What came before is whole.
                self.give_frames(cx, &mut out)?;
                Err(Stop::Told(Farewell::Lost(lost)))
            }
        }
    }

    /// Passes frames on to the browser, as the rules say.
    fn give_frames(&mut self, cx: &mut Context<'_>, frames: &mut [u8]) -> Result<(), Stop> {
        if self.client_ear != Ear::Open {
            return Ok(());
        }
        let mut output = Output::default();
        let halt = match &mut self.governed {
            Some(governed) => {
                let taken = governed.down.take(frames, &mut output);
                let left = &frames[taken.used..];
                if !left.is_empty() {
                    governed.unread_down = [&governed.unread_down, left].concat().into();
                }
                taken.halt
            }
            None => {
                output.keep(frames, 0..frames.len());
                None
            }
        };
        for part in output.parts(frames) {
            if let Err(error) = give(cx, &mut self.client, &mut self.to_client, part) {
                self.client_takes_no_more(&error);
                break;
            }
        }
        match halt {
            None => Ok(()),
            Some(halt) => Err(Stop::Told(Farewell::of(Source::Upstream, halt))),
        }
    }

    /// What still comes of the upstream is nothing then.
    fn client_takes_no_more(&mut self, error: &io::Error) {
        self.client_ear = Ear::of(error);
        (self.to_client, self.control) = (Bytes::new(), Vec::new());
        if let Some(governed) = &mut self.governed {
            governed.unread_down = Bytes::new();
        }
    }

    /// Ready when a silence has ended a message.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let Some(deadline) = self.reframer.deadline().map(Instant::from_std) else {
            self.silence = None;
            return Poll::Pending;
        };
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if silence.deadline() != deadline {
            silence.as_mut().reset(deadline);
        }
        ready!(silence.as_mut().poll(cx));
        let mut out = Vec::new();
        let frames = self.reframer.tick(Instant::now().into_std(), &mut out);
        self.passage.counters().from_upstream.add(frames, 0);
        Poll::Ready(self.give_frames(cx, &mut out))
    }

    /// Writes what waits for the browser: the rest of a message, then control frames.
    fn send_to_client(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(send(cx, &mut self.client, &mut self.to_client))?;
        if !self.control.is_empty() {
            let waited = self.control.len() > PONGS;
            self.to_client = std::mem::take(&mut self.control).into();
            if waited {
                cx.waker().wake_by_ref();
            }
            ready!(send(cx, &mut self.client, &mut self.to_client))?;
        }
        Poll::Ready(Ok(()))
    }
}
