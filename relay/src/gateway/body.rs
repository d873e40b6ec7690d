//! What a request through the gateway is answered with: a text of the gateway's own, or what an upstream says, as it
//! comes.

use std::{
    convert::Infallible,
    fmt,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    body::{Body as _, Frame, Incoming, SizeHint},
    header::{self, HeaderValue},
};
use tokio::time::{Instant, Sleep};

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
    idle: Duration,
    deadline: Pin<Box<Sleep>>,
    _held: Held,
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
    /// Nothing came for too long.
    #[error("the upstream's answer stalled")]
    Stalled,
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
    /// A body that may be silent for `idle` at most.
    pub fn new(body: Incoming, connection: Driver, idle: Duration, held: Held) -> Self {
        let deadline = Box::pin(tokio::time::sleep(idle));
        Self { body, connection: Some(connection), idle, deadline, _held: held }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(connection) = &mut self.connection
            && connection.as_mut().poll(cx).is_ready()
        {
            self.connection = None;
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.deadline.as_mut().reset(Instant::now() + self.idle);
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)));
        }
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyError::Stalled)))
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
