//! The way through between two sides that speak WebSocket: what one sends goes to the other, as its [`Course`] says.
//! Without rules and taps bytes go on as they are, and frame headers are walked on the way, for counts and to know who
//! closed and where a frame ends; with them messages are understood and judged. Nothing is kept or held back, except by
//! the side that takes it.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::time::timeout;

use super::{
    control::Order,
    counters::{Cause, End, Side},
    course::{Course, Halt},
    farewell::{Farewell, drain},
    passage::Passage,
    stream::{Passing, with_buffer},
    way::{Broken, Way},
};

/// A proxied connection between two that speak WebSocket.
#[derive(Debug)]
pub struct Through<C, U, K> {
    client: C,
    upstream: U,
    up: Way<K>,
    down: Way<K>,
    /// Who closed first, or ended first.
    ended: Option<End>,
    /// Its task is woken by an order.
    listens: bool,
    passage: Passage,
}

/// Why bytes do not pass any more.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stop {
    /// Both directions have ended.
    Ended,
    /// A socket failed.
    Failed(Side),
    /// The gateway wants it.
    Ordered(Order),
    /// What this side sent must not go on.
    Halted(Side, Halt),
}

impl<C, U, K> Through<C, U, K>
where
    C: Passing,
    U: Passing,
    K: Course,
{
    /// Between these two, after the answer to the upgrade. `early` is what the upstream sent right behind it; `up` and
    /// `down` are what becomes of what the client sends, and of what the upstream does.
    pub fn new(client: C, upstream: U, early: Bytes, (up, down): (K, K), passage: Passage) -> Self {
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
            stop => Box::pin(self.part(stop)).await,
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
            (Poll::Ready(Err(Broken::Halted(halt))), _) => Poll::Ready(Stop::Halted(Side::Client, halt)),
            (_, Poll::Ready(Err(Broken::Halted(halt)))) => Poll::Ready(Stop::Halted(Side::Upstream, halt)),
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
                let way = ways.iter().find(|(_, way)| !way.is_flowing());
                way.map(|(side, _)| End { side: *side, cause: Cause::Ended, close_code: None })
            };
            self.ended = closed.or_else(ended);
        }
    }

    /// Tells those that are still there why it ends, where a frame may be put.
    async fn part(&mut self, stop: Stop) -> End {
        let farewell = match &stop {
            Stop::Failed(_) | Stop::Ended => Farewell::UpstreamFailed,
            Stop::Ordered(order) => Farewell::Ordered(*order),
            Stop::Halted(side, halt) => Farewell::Halted(*side, halt.clone()),
        };
        let patience = self.passage.close();
        let (client, upstream) = (stop != Stop::Failed(Side::Client), stop != Stop::Failed(Side::Upstream));
        if let Stop::Halted(Side::Client, _) = stop {
            let _ = timeout(patience, self.answered(&farewell.to_upstream())).await;
            self.account();
        }
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
            (Stop::Halted(side, halt), _) => halt.end(side),
            (Stop::Ended, _) => (Side::Client, Cause::Ended),
        };
        End { side, cause, close_code: told.then(|| farewell.code()) }
    }

    /// After what the client must not send: the upstream is told that it is over, and what it answers to what came
    /// before goes to the client, up to its own close frame. The client would have that without a gateway too.
    async fn answered(&mut self, frame: &[u8]) {
        if !self.up.finish(&mut self.upstream, frame).await {
            return;
        }
        self.down.course.withhold_close();
        let Self { client, upstream, down, .. } = self;
        let _ = poll_fn(|cx| with_buffer(|buffer| down.run_out(cx, upstream, client, buffer))).await;
    }
}
