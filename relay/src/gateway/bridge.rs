//! The way through for upstreams of bytes: the gateway is the WebSocket server, what a browser's messages carry goes
//! to the upstream as it comes, what the upstream sends becomes messages. Both halves end apart: a close frame ends
//! the bytes towards the upstream, which may still answer; its end becomes a close frame, and what the browser still
//! sends until it answers that is passed on. Rules and a tap see the messages as the browser sends and gets them.

mod part;

use std::{
    future::{Future as _, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::{
    control::Order,
    counters::{Cause, End, Side},
    course::{Course as _, Halt, Output, Source, Taken},
    farewell::close_frame,
    governed::Governed,
    passage::Passage,
    reframe::{ROOM, Reframer},
    stream::with_buffer,
    unframe::Unframer,
};
use crate::senders::framing::FramingLost;

/// Reads of one side before the other, and then other connections, get their turn.
const READS: usize = 4;

/// Bytes that are read at a time: with framing `read` a message has at most so many.
const READ: usize = 64 * 1024;

/// Bytes of pongs that may wait: beyond them nothing is read that could add to them.
const PONGS: usize = 4096;

/// The upstream has ended, and so it is done.
const DONE: u16 = 1000;

/// A connection between a browser and an upstream of bytes.
#[derive(Debug)]
pub struct Bridge<C, U> {
    client: C,
    upstream: U,
    unframer: Unframer,
    reframer: Reframer,
    /// What is done with messages in between, if anything is.
    governed: Option<Box<Between>>,
    from_client: Half,
    from_upstream: Half,
    to_upstream: Bytes,
    to_client: Bytes,
    /// Whole control frames, to go out behind that.
    control: Vec<u8>,
    /// The code that the browser closed with.
    closed: Option<Option<u16>>,
    /// Our close frame is on its way.
    close_said: bool,
    /// Who ended it first.
    ended: Option<End>,
    /// When the side that has not ended yet has to have, unless bytes still move towards the upstream.
    due: Option<Pin<Box<Sleep>>>,
    moved: bool,
    /// When a silence ends a message.
    silence: Option<Pin<Box<Sleep>>>,
    /// Something came.
    heard: bool,
    passage: Passage,
}

/// Messages in frames, between a side and the other.
#[derive(Debug)]
struct Between {
    up: Governed,
    down: Governed,
    /// Frames that wait for those before them to be out.
    unread_up: Bytes,
    unread_down: Bytes,
}

/// What comes from one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Flowing,
    /// It has ended; the other side is to be told.
    Ending,
    Ended,
}

/// Why bytes do not pass any more.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stop {
    /// Both sides have ended.
    Ended,
    /// A socket failed.
    Failed(Side),
    /// The gateway wants it.
    Ordered(Order),
    /// What this side sent must not go on.
    Halted(Side, Halt),
    /// The upstream did not keep to its framing.
    Lost(FramingLost),
}

impl<C, U> Bridge<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// Between these two, after the answer to the upgrade.
    pub fn new(client: C, upstream: U, passage: Passage) -> Self {
        let limit = passage.route().settings.max_message;
        let governed = passage.route().is_governed().then(|| {
            Box::new(Between {
                up: Governed::new(&passage, Source::Client, limit),
                // A read may be longer than a message with boundaries may be.
                down: Governed::new(&passage, Source::Upstream, limit.max(ROOM + READ)),
                unread_up: Bytes::new(),
                unread_down: Bytes::new(),
            })
        });
        Self {
            governed,
            client,
            upstream,
            unframer: Unframer::default(),
            reframer: Reframer::new(&passage.route().settings),
            from_client: Half::Flowing,
            from_upstream: Half::Flowing,
            to_upstream: Bytes::new(),
            to_client: Bytes::new(),
            control: Vec::new(),
            closed: None,
            close_said: false,
            ended: None,
            due: None,
            moved: false,
            silence: None,
            heard: false,
            passage,
        }
    }

    /// Runs until the connection ends.
    pub async fn run(mut self: Box<Self>) {
        let stop = poll_fn(|cx| self.poll(cx)).await;
        let end = match self.ended {
            Some(ended) if stop == Stop::Ended => ended,
            // What it takes to part is of no use before, so it is no part of what a connection costs.
            _ => Box::pin(self.part(stop)).await,
        };
        let Self { client, upstream, passage, .. } = *self;
        drop((client, upstream));
        passage.end(end);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        if let Poll::Ready(order) = self.passage.control().poll_order(cx) {
            return Poll::Ready(Stop::Ordered(order));
        }
        let (up, down) = with_buffer(|buffer| (self.pass_up(cx, buffer), self.pass_down(cx, buffer)));
        if std::mem::take(&mut self.heard) {
            self.passage.control().heard();
        }
        match (up, down) {
            (Poll::Ready(Err(stop)), _) | (_, Poll::Ready(Err(stop))) => Poll::Ready(stop),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Stop::Ended),
            (Poll::Pending, _) | (_, Poll::Pending) => self.poll_due(cx),
        }
    }

    /// Whoever has to end and does not is not waited for longer.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        let Some(due) = &mut self.due else { return Poll::Pending };
        ready!(due.as_mut().poll(cx));
        if std::mem::take(&mut self.moved) && self.from_client != Half::Ended {
            due.as_mut().reset(Instant::now() + self.passage.close());
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.from_upstream != Half::Flowing || self.close_said {
            return Poll::Ready(Stop::Ended);
        }
        self.from_upstream = Half::Ending;
        due.as_mut().reset(Instant::now() + self.passage.close());
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// From the browser to the upstream. Ready when that has ended.
    fn pass_up(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<(), Stop>> {
        for _ in 0..READS {
            let before = self.to_upstream.len();
            let sent = send(cx, &mut self.upstream, &mut self.to_upstream);
            self.moved |= self.to_upstream.len() < before;
            if ready!(sent).is_err() {
                self.upstream_takes_no_more()?;
            }
            match self.from_client {
                // Woken by what is written: that is what is waited for.
                Half::Flowing if self.control.len() > PONGS => return Poll::Pending,
                Half::Flowing => {
                    let waiting =
                        self.governed.as_mut().map(|between| std::mem::take(&mut between.unread_up));
                    let count = match waiting.filter(|waiting| !waiting.is_empty()) {
                        Some(mut waiting) => {
                            let count = waiting.len();
                            waiting.copy_to_slice(&mut buffer[..count]);
                            count
                        }
                        None => {
                            let mut read = ReadBuf::new(&mut buffer[..READ]);
                            let client = Pin::new(&mut self.client).poll_read(cx, &mut read);
                            ready!(client).map_err(|_| Stop::Failed(Side::Client))?;
                            read.filled().len()
                        }
                    };
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

    /// Takes what was read of the browser.
    fn take_frames(&mut self, cx: &mut Context<'_>, piece: &mut [u8]) -> Result<(), Stop> {
        (self.heard, self.moved) = (true, true);
        let Some(between) = &mut self.governed else {
            let (messages, bytes) = self.unframe(cx, piece)?;
            self.passage.counters().from_client.add(messages, bytes);
            return Ok(());
        };
        let mut output = Output::default();
        let Taken { used, messages, payload, halt, .. } = between.up.take(piece, &mut output);
        between.unread_up = Bytes::copy_from_slice(&piece[used..]);
        self.passage.counters().from_client.add(messages, payload);
        for part in output.parts_mut(piece) {
            self.unframe(cx, part)?;
        }
        halt.map_or(Ok(()), |halt| Err(Stop::Halted(Side::Client, halt)))
    }

    /// Passes on what frames carry; how many messages, and bytes of them.
    fn unframe(&mut self, cx: &mut Context<'_>, frames: &mut [u8]) -> Result<(u64, u64), Stop> {
        let found = self.unframer.take(frames);
        let found = found.map_err(|violation| Stop::Halted(Side::Client, violation.into()))?;
        if !self.close_said {
            for ping in &found.pings {
                self.control.extend_from_slice(&[0x8a, ping.len() as u8]);
                self.control.extend_from_slice(ping);
            }
        }
        let bytes = &frames[..found.bytes];
        if !self.to_upstream.is_empty() {
            self.to_upstream = [&self.to_upstream, bytes].concat().into();
        } else {
            match write(cx, &mut self.upstream, bytes) {
                Ok(rest) => self.to_upstream = rest,
                Err(_) => self.upstream_takes_no_more()?,
            }
        }
        if let Some(code) = found.close {
            self.closed = Some(code);
            self.client_ended(Cause::Closed);
        }
        Ok((found.messages, found.bytes as u64))
    }

    fn client_ended(&mut self, cause: Cause) {
        self.from_client = Half::Ending;
        let close_code = self.closed.flatten();
        self.ended.get_or_insert(End { side: Side::Client, cause, close_code });
        self.set_due();
    }

    /// After its own end an upstream owes nobody anything.
    fn upstream_takes_no_more(&mut self) -> Result<(), Stop> {
        self.to_upstream = Bytes::new();
        if self.from_upstream == Half::Flowing { Err(Stop::Failed(Side::Upstream)) } else { Ok(()) }
    }

    /// From the upstream to the browser. Ready when everything is out, the last close frame too.
    fn pass_down(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<(), Stop>> {
        for _ in 0..READS {
            ready!(self.send_to_client(cx)).map_err(|_| Stop::Failed(Side::Client))?;
            let waiting = self.governed.as_mut().map(|between| std::mem::take(&mut between.unread_down));
            if let Some(waiting) = waiting.filter(|waiting| !waiting.is_empty()) {
                self.deliver(cx, &mut Vec::from(waiting))?;
                continue;
            }
            match self.from_upstream {
                Half::Flowing => {
                    let mut read = ReadBuf::new(&mut buffer[ROOM..ROOM + READ]);
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
                    let code = self.closed.unwrap_or(Some(DONE));
                    self.control.extend(close_frame(code, "", false));
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
        if bytes == 0 {
            self.from_upstream = Half::Ending;
            self.ended.get_or_insert(End {
                side: Side::Upstream,
                cause: Cause::Closed,
                close_code: Some(DONE),
            });
            let frames = self.reframer.finish(&mut out);
            self.passage.counters().from_upstream.add(frames, 0);
        } else {
            self.heard = true;
            let now = Instant::now().into_std();
            let (range, frames) = self.reframer.take(piece, now, &mut out).map_err(Stop::Lost)?;
            self.passage.counters().from_upstream.add(frames, bytes);
            self.deliver(cx, &mut piece[range])?;
        }
        self.deliver(cx, &mut out)
    }

    /// Sends frames to the browser, of those that go on.
    fn deliver(&mut self, cx: &mut Context<'_>, frames: &mut [u8]) -> Result<(), Stop> {
        if frames.is_empty() {
            return Ok(());
        }
        let mut output = Output::default();
        let halt = match &mut self.governed {
            None => {
                output.keep(frames, 0..frames.len());
                None
            }
            Some(between) => {
                let taken = between.down.take(frames, &mut output);
                between.unread_down = Bytes::copy_from_slice(&frames[taken.used..]);
                taken.halt
            }
        };
        for part in output.parts(frames) {
            if !self.to_client.is_empty() {
                self.to_client = [&self.to_client, part].concat().into();
            } else {
                let rest = write(cx, &mut self.client, part);
                self.to_client = rest.map_err(|_| Stop::Failed(Side::Client))?;
            }
        }
        halt.map_or(Ok(()), |halt| Err(Stop::Halted(Side::Upstream, halt)))
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
        Poll::Ready(self.deliver(cx, &mut out))
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

    fn set_due(&mut self) {
        let patience = self.passage.close();
        match &mut self.due {
            Some(due) => due.as_mut().reset(Instant::now() + patience),
            None => self.due = Some(Box::pin(sleep(patience))),
        }
    }
}

/// Writes what is taken; gives the rest.
fn write(cx: &mut Context<'_>, to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<Bytes> {
    let mut sent = 0;
    while sent < bytes.len() {
        match Pin::new(&mut *to).poll_write(cx, &bytes[sent..]) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(count)) => sent += count,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => return Ok(Bytes::copy_from_slice(&bytes[sent..])),
        }
    }
    Ok(Bytes::new())
}

/// Writes what waits.
fn send(cx: &mut Context<'_>, to: &mut (impl AsyncWrite + Unpin), rest: &mut Bytes) -> Poll<io::Result<()>> {
    while rest.has_remaining() {
        let count = ready!(Pin::new(&mut *to).poll_write(cx, rest))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        rest.advance(count);
    }
    *rest = Bytes::new();
    Poll::Ready(Ok(()))
}
