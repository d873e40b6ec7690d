//! The body of a request on its way to an upstream: how far it is, whom it waits for, and how long that may last.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{body::Pace, settings::RouteLimits};

/// The body of a request, which tells how far it is.
#[derive(Debug)]
pub struct Upload<B> {
    body: B,
    progress: Progress,
    pace: Arc<Pace>,
}

/// How far a body is, for who waits for the answer.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Mutex<Stage>>);

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// The upstream is to take what came, since then.
    Taken(Instant),
    /// The client is to send more, since then.
    Awaited(Instant),
    /// All of it went on then.
    Sent(Instant),
    /// What the client sends is no body, or it is gone.
    Broken,
}

/// How long an answer is waited for: while the body is on its way as long as it moves, and then for a time.
#[derive(Debug)]
pub struct Patience {
    progress: Progress,
    answer: Duration,
    idle: Duration,
    deadline: Pin<Box<Sleep>>,
}

/// Why nothing is waited for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// The upstream did not answer for so long.
    Answer(Duration),
    /// It did not take any of the body for so long.
    Upstream(Duration),
    /// The client did not send any of the body for so long.
    Client(Duration),
    /// The body has no end that could be waited for.
    Broken,
}

impl<B> Upload<B> {
    /// A body, and how far it is. Where it moves, so does an answer that has begun already, which has this pace.
    pub fn new(body: B, pace: Arc<Pace>) -> (Self, Progress) {
        let progress = Progress(Arc::new(Mutex::new(Stage::Taken(Instant::now()))));
        (Self { body, progress: progress.clone(), pace }, progress)
    }
}

impl<B: Body + Unpin> Body for Upload<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.pace.moved();
        }
        let now = Instant::now();
        self.progress.change(|stage| match (&polled, stage) {
            (Poll::Pending, Stage::Awaited(since)) => Stage::Awaited(since),
            (Poll::Pending, _) => Stage::Awaited(now),
            (Poll::Ready(Some(Ok(_))), _) => Stage::Taken(now),
            (Poll::Ready(Some(Err(_))), _) => Stage::Broken,
            (Poll::Ready(None), _) => Stage::Sent(now),
        });
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Upload<B> {
    /// Who knows the length of a body does not ask for its end, but lets go of it.
    fn drop(&mut self) {
        self.progress.change(|stage| match stage {
            Stage::Taken(_) | Stage::Awaited(_) => Stage::Sent(Instant::now()),
            Stage::Sent(_) | Stage::Broken => stage,
        });
    }
}

impl Progress {
    /// That of no body.
    pub fn sent() -> Self {
        Self(Arc::new(Mutex::new(Stage::Sent(Instant::now()))))
    }

    /// Whether the client is to blame for what becomes of the request.
    pub fn is_broken(&self) -> bool {
        matches!(self.stage(), Stage::Broken)
    }

    fn stage(&self) -> Stage {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, to: impl FnOnce(Stage) -> Stage) {
        let mut stage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *stage = to(*stage);
    }
}

impl Patience {
    /// As long as a route waits.
    pub fn new(progress: Progress, limits: &RouteLimits) -> Self {
        let (answer, idle) = (limits.upgrade_timeout, limits.idle_timeout);
        Self { progress, answer, idle, deadline: Box::pin(tokio::time::sleep(answer)) }
    }

    /// Waits for something, and moves the body meanwhile if that does.
    ///
    /// # Errors
    /// Whom it waited for in vain.
    pub async fn wait<T>(&mut self, what: impl Future<Output = T>) -> Result<T, Late> {
        let mut what = pin!(what);
        poll_fn(|cx| match what.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => self.poll_late(cx).map(Err),
        })
        .await
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Late> {
        let (due, late) = match self.progress.stage() {
            Stage::Sent(since) => (since + self.answer, Late::Answer(self.answer)),
            Stage::Taken(since) => (since + self.idle, Late::Upstream(self.idle)),
            Stage::Awaited(since) => (since + self.idle, Late::Client(self.idle)),
            Stage::Broken => return Poll::Ready(Late::Broken),
        };
        if self.deadline.deadline() != due {
            self.deadline.as_mut().reset(due);
        }
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(late)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use http_body_util::{BodyExt as _, Full};
    use tokio::time::advance;

    use super::*;
    use crate::gateway::settings::GatewaySettings;

    const ANSWER: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(300);
    const SHORT: Duration = Duration::from_millis(1);

    /// A body that waits for its client, if this does not come next.
    #[derive(Debug)]
    struct Scripted(Option<Result<Frame<Bytes>, &'static str>>);

    impl Body for Scripted {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            self.0.take().map_or(Poll::Pending, |next| Poll::Ready(Some(next)))
        }
    }

    fn patience(progress: Progress) -> Patience {
        let limits = RouteLimits {
            upgrade_timeout: ANSWER,
            idle_timeout: IDLE,
            ..GatewaySettings::default().defaults
        };
        Patience::new(progress, &limits)
    }

    /// Lets time pass, and says who is late then.
    async fn after(time: Duration, patience: &mut Patience) -> Option<Late> {
        advance(time).await;
        patience.wait(pending::<()>()).now_or_never().map(Result::unwrap_err)
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_the_answer_begins_when_the_body_is_gone() {
        let (upload, progress) = Upload::new(Scripted(None), Arc::default());
        let mut patience = patience(progress);
        assert_eq!(after(ANSWER * 2, &mut patience).await, None);
        drop(upload);
        assert_eq!(after(ANSWER - SHORT, &mut patience).await, None);
        assert_eq!(after(SHORT, &mut patience).await, Some(Late::Answer(ANSWER)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_body_is_told_whether_it_is_asked_for_or_not() {
        let (mut upload, progress) = Upload::new(Full::new(Bytes::from_static(b"x")), Arc::default());
        while upload.frame().await.is_some() {}
        let mut patience = patience(progress);
        assert_eq!(after(ANSWER, &mut patience).await, Some(Late::Answer(ANSWER)));
        advance(ANSWER).await;
        drop(upload);
        assert_eq!(after(Duration::ZERO, &mut patience).await, Some(Late::Answer(ANSWER)), "once is enough");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_waited_for_is_who_is_late() {
        let (mut upload, progress) = Upload::new(Scripted(None), Arc::default());
        let mut patience = patience(progress);
        assert_eq!(after(IDLE - SHORT, &mut patience).await, None);
        // It is asked for more only when the upstream has taken what there was.
        assert!(upload.frame().now_or_never().is_none());
        assert_eq!(after(IDLE - SHORT, &mut patience).await, None);
        assert!(upload.frame().now_or_never().is_none(), "asking again is no movement");
        assert_eq!(after(SHORT, &mut patience).await, Some(Late::Client(IDLE)));
        upload.body.0 = Some(Ok(Frame::data(Bytes::new())));
        assert!(upload.frame().now_or_never().is_some());
        assert_eq!(after(IDLE - SHORT, &mut patience).await, None);
        assert_eq!(after(SHORT, &mut patience).await, Some(Late::Upstream(IDLE)));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_behind_a_body_that_broke() {
        let (mut upload, progress) = Upload::new(Scripted(Some(Err("broken"))), Arc::default());
        assert!(upload.frame().now_or_never().is_some());
        drop(upload);
        assert!(progress.is_broken());
        assert_eq!(after(Duration::ZERO, &mut patience(progress)).await, Some(Late::Broken));
    }
}
