//! What a request through the gateway is answered with: a text of the gateway's own, or what an upstream says, as it
//! comes.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    body::{Body as _, Frame, Incoming, SizeHint},
    header::{self, HeaderValue},
};
use tokio::time::Instant;

/// The body of an answer.
pub enum Body {
    /// Whole.
    Text(Full<Bytes>),
    /// Of an upstream, as it comes.
    Passed(Box<Passed>),
}

/// A body that comes from an upstream, and what has to last as long as it.
pub struct Passed {
    body: Incoming,
    /// Reads and writes the connection, until it is done.
    connection: Option<Driver>,
    pace: Arc<Pace>,
    _held: Held,
}

/// Whether the answer moves that passes on a client's connection, one at a time: it comes, and the client takes it, or
/// the request still goes on beside it.
/// Whoever serves the connection looks here, since a body is not asked for more as long as nobody reads it.
#[derive(Debug, Default)]
pub struct Pace {
    /// When it moved, and how long it may rest; none if there is no answer.
    passing: Mutex<Option<(Instant, Duration)>>,
}

/// A connection to an upstream that has to be polled.
pub type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What is given back when a body has ended.
pub type Held = Box<dyn Send>;

/// An answer of the gateway.
pub type Answer = Response<Body>;

/// The upstream's body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// What the connection says.
    #[error("the upstream's answer broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// A text does not fail.
    #[error("")]
    Never(#[from] Infallible),
}

impl From<Full<Bytes>> for Body {
    fn from(text: Full<Bytes>) -> Self {
        Self::Text(text)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "Text",
            Self::Passed(_) => "Passed",
        })
    }
}

impl fmt::Debug for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passed")
    }
}

impl Passed {
    /// A body that may rest for `idle` at most, on a connection whose pace this is.
    pub fn new(body: Incoming, connection: Driver, idle: Duration, pace: Arc<Pace>, held: Held) -> Self {
        pace.set(Some(idle));
        Self { body, connection: Some(connection), pace, _held: held }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(connection) = &mut self.connection
            && connection.as_mut().poll(cx).is_ready()
        {
            self.connection = None;
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.pace.moved();
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(BodyError::from)))
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        self.pace.set(None);
    }
}

impl Pace {
    /// Waits until an answer has rested for too long. Nothing but a deadline wakes it: it is to be polled after what
    /// makes answers move.
    pub async fn late(&self) {
        let mut deadline = pin!(tokio::time::sleep(Duration::ZERO));
        poll_fn(|cx| {
            let Some(due) = self.due() else { return Poll::Pending };
            if deadline.deadline() != due {
                deadline.as_mut().reset(due);
            }
            deadline.as_mut().poll(cx)
        })
        .await;
    }

    /// The answer moves, if there is one.
    pub fn moved(&self) {
        if let Some((moved, _)) = &mut *self.passing.lock().unwrap_or_else(PoisonError::into_inner) {
            *moved = Instant::now();
        }
    }

    /// An answer begins that may rest for so long, or there is none any more.
    fn set(&self, idle: Option<Duration>) {
        let passing = idle.map(|idle| (Instant::now(), idle));
        *self.passing.lock().unwrap_or_else(PoisonError::into_inner) = passing;
    }

    fn due(&self) -> Option<Instant> {
        let passing = *self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        passing.map(|(moved, idle)| moved + idle)
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Text(text) => Pin::new(text).poll_frame(cx).map_err(BodyError::from),
            Self::Passed(passed) => passed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_end_stream(),
            Self::Passed(passed) => passed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => text.size_hint(),
            Self::Passed(passed) => passed.body.size_hint(),
        }
    }
}

/// An answer of one line.
pub fn text(status: StatusCode, line: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{line}\n"))).into());
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    answer.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_late_when_it_has_rested_for_too_long() {
        const IDLE: Duration = Duration::from_secs(5);
        let pace = Pace::default();
        let mut late = pin!(pace.late());
        assert!(late.as_mut().now_or_never().is_none(), "there is no answer");
        pace.set(Some(IDLE));
        for _ in 0..3 {
            pace.moved();
            assert!(late.as_mut().now_or_never().is_none());
            advance(IDLE - Duration::from_millis(1)).await;
            assert!(late.as_mut().now_or_never().is_none(), "it moved before");
        }
        pace.set(None);
        pace.moved();
        advance(IDLE).await;
        assert!(late.as_mut().now_or_never().is_none(), "there is none any more");
        pace.set(Some(IDLE));
        assert!(late.as_mut().now_or_never().is_none());
        advance(IDLE).await;
        assert!(late.as_mut().now_or_never().is_some());
    }
}
