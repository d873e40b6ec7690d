//! The way through for upstreams of bytes: the gateway is the WebSocket server, what a browser's messages carry goes
//! to the upstream as it comes, what the upstream sends becomes messages. Both halves end apart: a close frame ends
//! the bytes towards the upstream, which may still answer; its end becomes a close frame, and what the browser still
//! sends until it answers that is passed on. Where nothing can be written to a side any more, what it said before still
//! comes to the other one.

mod down;
mod up;

use std::{
    future::{Future as _, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, Sleep, sleep, timeout},
};

use super::{
    counters::{Cause, End, Side},
    course::Source,
    farewell::{Farewell, close_frame, drain},
    govern::Governor,
    passage::Passage,
    reframe::{BEGUN, Reframer},
    stream::{Ear, with_buffer},
    unframe::Unframer,
};

/// Reads of one side before the other, and then other connections, get their turn.
const READS: usize = 4;

/// Bytes that are read at a time: with framing `read` a message has at most so many.
const READ: usize = 64 * 1024;

/// The upstream has ended, and so it is done.
const DONE: u16 = 1000;

/// A connection between a browser and an upstream of bytes.
#[derive(Debug)]
pub struct Bridge<C, U> {
    client: C,
    upstream: U,
    unframer: Unframer,
    reframer: Reframer,
    governed: Option<Box<Governed>>,
    /// Bytes that are read of the upstream at a time.
    read: usize,
    from_client: Half,
    from_upstream: Half,
    to_upstream: Bytes,
    to_client: Bytes,
    /// Whether the upstream takes what goes there, and the browser.
    upstream_ear: Ear,
    client_ear: Ear,
    /// Whole control frames, to go out behind that.
    control: Vec<u8>,
    /// The code that the browser closed with.
    closed: Option<Option<u16>>,
    /// Our close frame is on its way.
    close_said: bool,
    /// Who ended it first.
    ended: Option<End>,
    /// When the side that has not ended yet has to have, unless bytes still come of the browser or move to the upstream.
    due: Option<Pin<Box<Sleep>>>,
    moved: bool,
    /// When a silence ends a message.
    silence: Option<Pin<Box<Sleep>>>,
    /// Something came.
    heard: bool,
    passage: Passage,
}

/// What governs the frames of the browser: those that come, and those that go there.
#[derive(Debug)]
struct Governed {
    up: Governor,
    down: Governor,
    /// Frames that are not looked at before what became of others is out.
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
    /// For a reason that the browser is told.
    Told(Farewell),
}

impl<C, U> Bridge<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// Between these two, after the answer to the upgrade.
    pub fn new(client: C, upstream: U, passage: Passage) -> Self {
        let settings = &passage.route().settings;
        let is_governed = settings.is_governed();
        // What one read returned is a message, and may have the beginning of a character before it.
        let read = if is_governed { settings.max_message.saturating_sub(BEGUN).clamp(1, READ) } else { READ };
        let governed = || Governed {
            up: Governor::new(&passage, Source::Client),
            down: Governor::new(&passage, Source::Upstream),
            unread_up: Bytes::new(),
            unread_down: Bytes::new(),
        };
        Self {
            read,
            governed: is_governed.then(governed).map(Box::new),
            client,
            upstream,
            unframer: Unframer::default(),
            reframer: Reframer::new(&passage.route().settings),
            from_client: Half::Flowing,
            from_upstream: Half::Flowing,
            to_upstream: Bytes::new(),
            to_client: Bytes::new(),
            upstream_ear: Ear::Open,
            client_ear: Ear::Open,
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
        let end = match (stop, self.ended) {
            (Stop::Ended, Some(ended)) => ended,
            // What it takes to part is of no use before, so it is no part of what a connection costs.
            (stop, _) => Box::pin(self.part(stop)).await,
        };
        let Self { client, upstream, passage, .. } = *self;
        drop((client, upstream));
        passage.end(end);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        if let Poll::Ready(order) = self.passage.control().poll_order(cx) {
            return Poll::Ready(Stop::Told(Farewell::Ordered(order)));
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

    fn set_due(&mut self) {
        let patience = self.passage.close();
        match &mut self.due {
            Some(due) => due.as_mut().reset(Instant::now() + patience),
            None => self.due = Some(Box::pin(sleep(patience))),
        }
    }

    /// Tells those that are still there why it ends.
    async fn part(&mut self, stop: Stop) -> End {
        let patience = self.passage.close();
        let failed = Farewell::UpstreamFailed;
        let (side, cause, code, text) = match &stop {
            Stop::Ended => (Side::Client, Cause::Ended, DONE, String::new()),
            Stop::Failed(side) => (*side, Cause::Failed, failed.code(), failed.text()),
            Stop::Told(farewell) => {
                let (side, cause) = farewell.end();
                (side, cause, farewell.code(), farewell.text())
            }
        };
        let told = stop != Stop::Failed(Side::Client) && self.client_ear == Ear::Open && !self.close_said;
        let mut last = std::mem::take(&mut self.to_client).to_vec();
        last.append(&mut self.control);
        last.extend(close_frame(Some(code), &text, false));
        let tell = async {
            if told && self.client.write_all(&last).await.is_ok() && self.client.shutdown().await.is_ok() {
                drain(&mut self.client).await;
            }
        };
        let finish = async {
            // What the browser sent came before the end.
            let _ = self.upstream.write_all_buf(&mut self.to_upstream).await;
            let _ = self.upstream.shutdown().await;
        };
        let _ = tokio::join!(timeout(patience, tell), timeout(patience, finish));
        match self.ended {
            // It was closed before. After the end of one side the other may fail without harm.
            Some(ended) if ended.cause == Cause::Closed || matches!(stop, Stop::Failed(_)) => ended,
            _ => End { side, cause, close_code: told.then_some(code) },
        }
    }
}

/// Writes what is taken, behind what waits; the rest waits too.
fn give(
    cx: &mut Context<'_>,
    to: &mut (impl AsyncWrite + Unpin),
    rest: &mut Bytes,
    bytes: &[u8],
) -> io::Result<()> {
    *rest = if rest.is_empty() { write(cx, to, bytes)? } else { [rest, bytes].concat().into() };
    Ok(())
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
