//! The way through between two sides that speak WebSocket: what one sends goes to the other, by the course of that
//! direction. Without rules bytes go as they are; frame headers are walked on the way, for counts and to know who closed
//! and where a frame ends; nothing is changed, kept or held back, except by the side that takes it.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::time::timeout;

use super::{
    control::Order,
    counters::{Cause, End, Side},
    course::{Course, Source},
    farewell::{Farewell, drain},
    passage::Passage,
    stream::{Ear, Passing, with_buffer},
    way::{Broken, State, Way},
};

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
    #[expect(
        clippy::manual_async_fn,
        reason = "that has room for `self` twice: as it was given and as it is used"
    )]
    pub fn run(mut self) -> impl Future<Output = ()> {
        async move {
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
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        // It runs in one task from its beginning to its end, so that it has to leave its waker but once.
        let order = if self.listens { self.passage.control().order() } else { self.listen(cx) };
        if let Some(order) = order {
            return Poll::Ready(Stop::Told(Farewell::Ordered(order)));
        }
        let (up, down) = with_buffer(|buffer| {
            let up = self.up.pass(cx, &mut self.client, &mut self.upstream, buffer);
            self.down.source_failed |= self.up.ear == Ear::Failed;
            let down = self.down.pass(cx, &mut self.upstream, &mut self.client, buffer);
            self.up.source_failed |= self.down.ear == Ear::Failed;
            (up, down)
        });
        self.account();
        match (up, down) {
            // A client that is gone has said all that it will: an upstream that only speaks learns of it by no end of
            // what it reads.
            (Poll::Ready(Ok(())), Poll::Pending) if self.down.state == State::Deaf => {
                Poll::Ready(Stop::Failed(Side::Client))
            }
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
            // What nobody takes does not keep a connection from being idle.
            heard |= way.bytes > 0 && way.state != State::Deaf;
            // What waited from an earlier read has messages, and no new bytes.
            if way.bytes > 0 || way.messages > 0 {
                traffic.add(std::mem::take(&mut way.messages), std::mem::take(&mut way.bytes));
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
                let is_over = |way: &Way<W>| matches!(way.state, State::Ending | State::Ended);
                let way = ways.iter().find(|(_, way)| is_over(way));
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
        if self.up.halted && upstream {
            // What the upstream answers to what came before is for the client, and comes before its end.
            let frame = farewell.to_upstream();
            let leaving = self.up.leave(None::<&mut C>, &mut self.upstream, &frame);
            let _ = timeout(patience, leaving).await;
            let _ = timeout(patience, self.down.pass_answers(&mut self.upstream, &mut self.client)).await;
            self.account();
        }
        if client {
            // A client that has closed gets what an upstream answers to that, or nothing.
            let parted = matches!(stop, Stop::Failed(_)) && self.up.close.is_some();
            let frame = if parted { Vec::new() } else { farewell.to_client() };
            let source = upstream.then_some(&mut self.upstream);
            let leaving = self.down.leave(source, &mut self.client, &frame);
            told = timeout(patience, leaving).await.unwrap_or(false);
        }
        if upstream && !self.up.halted {
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
            // It was closed before. Between two close frames a socket may fail without harm.
            (_, Some(ended)) if ended.cause == Cause::Closed => return ended,
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
        match self {
            Self::Source => Stop::Failed(from.side()),
            Self::Halted(halt) => Stop::Told(Farewell::of(from, halt)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::stream::Stream, *};
    use crate::{connection::Connection, gateway::walk::Walker};

    type Proxied = Through<Connection, Stream, Walker>;

    #[test]
    fn what_a_connection_is_stands_in_memory_once() {
        fn size_of_output<T, F>(_: impl Fn(T) -> F) -> usize {
            size_of::<F>()
        }
        let (itself, running) = (size_of::<Proxied>(), size_of_output(Proxied::run));
        assert!(running < itself + itself / 4, "{running} B for {itself}");
    }
}
