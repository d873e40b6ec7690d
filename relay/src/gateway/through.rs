//! The way through between two sides that speak WebSocket: what one sends goes to the other, by the course of that
//! direction. Without rules bytes go as they are; frame headers are walked on the way, for counts and to know who closed
//! and where a frame ends; nothing is changed, kept or held back, except by the side that takes it.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    control::Order,
    counters::{Cause, End, Side},
    course::{Course, Halt, Output, Source},
    farewell::{Farewell, drain},
    passage::Passage,
    stream::{Passing, with_buffer},
    walk::Walked,
};

/// Reads of one side before the other, and then other connections, get their turn.
const READS: usize = 4;

/// Bytes of a frame that are read at a time when it has to be finished.
const FRAME_PIECE: usize = 16 * 1024;

/// A connection whose bytes pass by such courses.
#[derive(Debug)]
pub struct Through<C, U, W> {
    client: C,
    upstream: U,
    up: Way<W>,
    down: Way<W>,
    /// Who closed first, or ended first.
    ended: Option<End>,
    /// Its task is woken by an order.
    listens: bool,
    passage: Passage,
}

/// One direction.
#[derive(Debug)]
struct Way<W> {
    course: W,
    /// Read by who asked, and not passed on yet.
    early: Bytes,
    /// The close frame that passed, with its code.
    close: Option<Option<u16>>,
    /// Read, and not taken by the other side yet: nothing more is read until it is.
    rest: Bytes,
    /// What was written may still be on its way through TLS.
    unflushed: bool,
    state: State,
    /// Not counted yet.
    messages: u64,
    bytes: u64,
}

/// How far a direction is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Flowing,
    /// Its source has ended; the other side is to be told.
    Ending,
    Ended,
}

/// Why a direction can't go on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Broken {
    /// The socket that is read failed.
    Source,
    /// The socket that is written to failed.
    Sink,
    /// What came must not go on.
    Halted(Halt),
}

/// Why bytes do not pass any more.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stop {
    /// Both directions have ended.
    Ended,
    /// A socket failed.
    Failed(Side),
    /// For a reason that both sides are told.
    Told(Farewell),
}

impl<C, U, W> Through<C, U, W>
where
    C: Passing,
    U: Passing,
    W: Course,
{
    /// Between these two, after the answer to the upgrade. `early` is what the upstream sent right behind it.
    pub fn new(client: C, upstream: U, early: Bytes, up: W, down: W, passage: Passage) -> Self {
        let (up, down) = (Way::new(up, Bytes::new()), Way::new(down, early));
        Self { client, upstream, up, down, ended: None, listens: false, passage }
    }

    /// Runs until the connection ends.
    pub async fn run(mut self) {
        let stop = poll_fn(|cx| self.poll(cx)).await;
        let end = match stop {
            Stop::Ended => {
                self.ended.unwrap_or(End { side: Side::Client, cause: Cause::Ended, close_code: None })
            }
            // What it takes to part is of no use before, so it is no part of what a connection costs.
            Stop::Failed(_) | Stop::Told(_) => Box::pin(self.part(stop)).await,
        };
        let Self { client, upstream, passage, .. } = self;
        drop((client, upstream));
        passage.end(end);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        // It runs in one task from its beginning to its end, so that it has to leave its waker but once.
        let order = if self.listens { self.passage.control().order() } else { self.listen(cx) };
        if let Some(order) = order {
            return Poll::Ready(Stop::Told(Farewell::Ordered(order)));
        }
        let (up, down) = with_buffer(|buffer| {
            let up = self.up.pass(cx, &mut self.client, &mut self.upstream, buffer);
            let down = self.down.pass(cx, &mut self.upstream, &mut self.client, buffer);
            (up, down)
        });
        self.account();
        match (up, down) {
            (Poll::Ready(Err(broken)), _) => Poll::Ready(broken.stop(Source::Client)),
            (_, Poll::Ready(Err(broken))) => Poll::Ready(broken.stop(Source::Upstream)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Stop::Ended),
            (Poll::Pending, _) | (_, Poll::Pending) => Poll::Pending,
        }
    }

    fn listen(&mut self, cx: &mut Context<'_>) -> Option<Order> {
        self.listens = true;
        match self.passage.control().poll_order(cx) {
            Poll::Ready(order) => Some(order),
            Poll::Pending => None,
        }
    }

    /// Counts what passed, and notes who ended it first.
    fn account(&mut self) {
        let counters = self.passage.counters();
        let mut heard = false;
        for (way, traffic) in
            [(&mut self.up, &counters.from_client), (&mut self.down, &counters.from_upstream)]
        {
            if way.bytes > 0 {
                traffic.add(std::mem::take(&mut way.messages), std::mem::take(&mut way.bytes));
                heard = true;
            }
        }
        if heard {
            self.passage.control().heard();
        }
        if self.ended.is_none() {
            let ways = [(Side::Client, &self.up), (Side::Upstream, &self.down)];
            let closed = ways.iter().find_map(|(side, way)| {
                way.close.map(|close_code| End { side: *side, cause: Cause::Closed, close_code })
            });
            let ended = || {
                let way = ways.iter().find(|(_, way)| way.state != State::Flowing);
                way.map(|(side, _)| End { side: *side, cause: Cause::Ended, close_code: None })
            };
            self.ended = closed.or_else(ended);
        }
    }

    /// Tells those that are still there why it ends, where a frame may be put.
    async fn part(&mut self, stop: Stop) -> End {
        let farewell = match &stop {
            Stop::Failed(_) | Stop::Ended => Farewell::UpstreamFailed,
            Stop::Told(farewell) => farewell.clone(),
        };
        let patience = self.passage.close();
        let (client, upstream) = (stop != Stop::Failed(Side::Client), stop != Stop::Failed(Side::Upstream));
        let mut told = false;
        if client {
            // A client that has closed gets what an upstream answers to that, or nothing.
            let parted = matches!(stop, Stop::Failed(_)) && self.up.close.is_some();
            let frame = if parted { Vec::new() } else { farewell.to_client() };
            let source = upstream.then_some(&mut self.upstream);
            let leaving = self.down.leave(source, &mut self.client, &frame);
            told = timeout(patience, leaving).await.unwrap_or(false);
        }
        if upstream {
            // A client that is gone says nothing any more; for an upstream that is what it is without a gateway.
            let frame = if client { farewell.to_upstream() } else { Vec::new() };
            let source = client.then_some(&mut self.client);
            let _ = timeout(patience, self.up.leave(source, &mut self.upstream, &frame)).await;
        }
        let drained = async {
            let client = async {
                if client {
                    drain(&mut self.client).await
                }
            };
            let upstream = async {
                if upstream {
                    drain(&mut self.upstream).await
                }
            };
            tokio::join!(client, upstream);
        };
        let _ = timeout(patience, drained).await;
        let (side, cause) = match (stop, self.ended) {
            // Between two close frames a socket may fail without harm.
            (Stop::Failed(_) | Stop::Ended, Some(ended)) if ended.cause == Cause::Closed => return ended,
            (Stop::Failed(side), _) => (side, Cause::Failed),
            (Stop::Told(farewell), _) => farewell.end(),
            (Stop::Ended, _) => (Side::Client, Cause::Ended),
        };
        End { side, cause, close_code: told.then(|| farewell.code()) }
    }
}

impl Broken {
    /// What it means for the connection, in the direction from this side.
    fn stop(self, from: Source) -> Stop {
        match (self, from) {
            (Self::Source, _) => Stop::Failed(from.side()),
            (Self::Sink, Source::Client) => Stop::Failed(Side::Upstream),
            (Self::Sink, Source::Upstream) => Stop::Failed(Side::Client),
            (Self::Halted(halt), _) => Stop::Told(Farewell::of(from, halt)),
        }
    }
}

impl<W: Course> Way<W> {
    fn new(course: W, early: Bytes) -> Self {
        Self {
            course,
            early,
            close: None,
            rest: Bytes::new(),
            unflushed: false,
            state: State::Flowing,
            messages: 0,
            bytes: 0,
        }
    }

    /// Passes on what is there. Ready when the direction has ended.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Passing,
        to: &mut impl Passing,
        buffer: &mut [u8],
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..READS {
            ready!(self.send_rest(cx, to)).map_err(|_| Broken::Sink)?;
            match self.state {
                State::Flowing => {
                    let count = if self.early.is_empty() {
                        ready!(from.poll_take(cx, buffer)).map_err(|_| Broken::Source)?
                    } else {
                        self.take_early(buffer)
                    };
                    if count == 0 {
                        self.state = State::Ending;
                    } else {
                        self.pass_on(cx, to, &mut buffer[..count])?;
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

    /// Takes what was read by who asked, as if it were read now.
    fn take_early(&mut self, buffer: &mut [u8]) -> usize {
        let count = self.early.len().min(buffer.len());
        self.early.copy_to_slice(&mut buffer[..count]);
        if self.early.is_empty() {
            // Its memory is not needed any more.
            self.early = Bytes::new();
        }
        count
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
        self.bytes += piece.len() as u64;
        self.close = self.close.or(taken.close);
        self.send(cx, to, output.parts(piece)).map_err(|_| Broken::Sink)?;
        match taken.halt {
            None => Ok(()),
            Some(halt) => Err(Broken::Halted(halt)),
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

    /// Finishes what has begun: the rest, the current frame if its source is still there, then `last` where a frame
    /// may stand. Whether `last` went out.
    async fn leave(
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
                _ if !self.early.is_empty() => self.take_early(&mut piece),
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
