//! The way through for connections without rules: bytes go from one side to the other as they are. Frame headers are
//! walked on the way, for counts and to know who closed and where a frame ends; nothing is changed, kept or held
//! back, except by the side that takes it.

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
    farewell::{Farewell, drain},
    passage::Passage,
    stream::{Passing, with_buffer},
    walk::{Walked, Walker},
};

/// Reads of one side before the other, and then other connections, get their turn.
const READS: usize = 4;

/// Bytes of a frame that are read at a time when it has to be finished.
const FRAME_PIECE: usize = 16 * 1024;

/// A connection whose bytes pass as they are.
#[derive(Debug)]
pub struct Through<C, U> {
    client: C,
    upstream: U,
    up: Way,
    down: Way,
    /// Who closed first, or ended first.
    ended: Option<End>,
    /// Its task is woken by an order.
    listens: bool,
    passage: Passage,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    walker: Walker,
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

/// The socket that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Source,
    Sink,
}

/// Why bytes do not pass any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Both directions have ended.
    Ended,
    /// A socket failed.
    Failed(Side),
    /// The gateway wants it.
    Ordered(Order),
}

impl<C, U> Through<C, U>
where
    C: Passing,
    U: Passing,
{
    /// Between these two, after the answer to the upgrade. `early` is what the upstream sent right behind it.
    pub fn new(client: C, upstream: U, early: Bytes, passage: Passage) -> Self {
        let mut down = Way::default();
        down.walk(&early);
        down.rest = early;
        Self { client, upstream, up: Way::default(), down, ended: None, listens: false, passage }
    }

    /// Runs until the connection ends.
    pub async fn run(mut self) {
        let stop = poll_fn(|cx| self.poll(cx)).await;
        let end = match stop {
            Stop::Ended => {
                self.ended.unwrap_or(End { side: Side::Client, cause: Cause::Ended, close_code: None })
            }
            // What it takes to part is of no use before, so it is no part of what a connection costs.
            Stop::Failed(_) | Stop::Ordered(_) => Box::pin(self.part(stop)).await,
        };
        let Self { client, upstream, passage, .. } = self;
        drop((client, upstream));
        passage.end(end);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        // It runs in one task from its beginning to its end, so that it has to leave its waker but once.
        let order = if self.listens { self.passage.control().order() } else { self.listen(cx) };
        if let Some(order) = order {
            return Poll::Ready(Stop::Ordered(order));
        }
        let (up, down) = with_buffer(|buffer| {
            let up = self.up.pass(cx, &mut self.client, &mut self.upstream, buffer);
            let down = self.down.pass(cx, &mut self.upstream, &mut self.client, buffer);
            (up, down)
        });
        self.account();
        match (up, down) {
            (Poll::Ready(Err(Broken::Source)), _) | (_, Poll::Ready(Err(Broken::Sink))) => {
                Poll::Ready(Stop::Failed(Side::Client))
            }
            (Poll::Ready(Err(Broken::Sink)), _) | (_, Poll::Ready(Err(Broken::Source))) => {
                Poll::Ready(Stop::Failed(Side::Upstream))
            }
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
        let farewell = match stop {
            Stop::Failed(_) | Stop::Ended => Farewell::UpstreamFailed,
            Stop::Ordered(order) => Farewell::Ordered(order),
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
            (Stop::Ordered(order), _) => (Side::Gateway, order.cause()),
            (Stop::Ended, _) => (Side::Client, Cause::Ended),
        };
        End { side, cause, close_code: told.then(|| farewell.code()) }
    }
}

impl Way {
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
                    let count = ready!(from.poll_take(cx, buffer)).map_err(|_| Broken::Source)?;
                    if count == 0 {
                        self.state = State::Ending;
                    } else {
                        self.walk(&buffer[..count]);
                        self.send(cx, to, &buffer[..count]).map_err(|_| Broken::Sink)?;
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

    fn walk(&mut self, bytes: &[u8]) {
        let walked = self.walker.walk(bytes);
        self.messages += walked.messages;
        self.bytes += bytes.len() as u64;
        self.close = self.close.or(walked.close);
    }

    /// Writes what the other side takes; the rest is kept.
    fn send(&mut self, cx: &mut Context<'_>, to: &mut impl Passing, bytes: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        while sent < bytes.len() {
            match to.poll_give(cx, &bytes[sent..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => sent += count,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        if sent < bytes.len() {
            self.rest = Bytes::copy_from_slice(&bytes[sent..]);
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
        source: Option<&mut (impl AsyncRead + Unpin)>,
        to: &mut (impl AsyncWrite + Unpin),
        last: &[u8],
    ) -> bool {
        if to.write_all(&std::mem::take(&mut self.rest)).await.is_err() {
            return false;
        }
        if let Some(source) = source.filter(|_| self.state == State::Flowing) {
            let mut piece = vec![0; FRAME_PIECE];
            while !self.walker.is_between_frames() && !self.walker.is_closed() {
                let Ok(count @ 1..) = source.read(&mut piece).await else { break };
                let end = self.walker.step(&piece[..count], &mut Walked::default());
                if to.write_all(&piece[..end]).await.is_err() {
                    return false;
                }
            }
        }
        let fits = !last.is_empty()
            && self.walker.is_between_frames()
            && !self.walker.is_closed()
            && self.state == State::Flowing;
        let told = fits && to.write_all(last).await.is_ok();
        let _ = to.shutdown().await;
        self.state = State::Ended;
        told
    }
}
