//! One question to an upstream over a connection of its own, and what it answers: an upgrade, or anything else.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    pin::pin,
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Body, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    body::Driver,
    request::strip_connection,
    settings::RouteLimits,
    stream::Stream,
    upload::{Late, Patience, Progress},
    upstream::{Failure, Upstream},
};

/// What an upstream answered.
pub enum Answered {
    /// It upgraded: its answer, the connection, and what it sent right behind the answer.
    Upgraded(Response<()>, Stream, Bytes),
    /// It said something else; the connection is needed for the rest of it.
    Other(Response<Incoming>, Driver),
}

/// Asks, and waits for the answer's head as long as `limits` allow, with a body that is that far.
///
/// # Errors
/// What the upstream did instead of answering, or the client instead of asking.
pub async fn ask<B>(
    upstream: &Upstream,
    stream: Stream,
    request: Request<B>,
    progress: Progress,
    limits: &RouteLimits,
) -> Result<Answered, Failure>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let mut patience = Patience::new(progress.clone(), limits);
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned();
    let handshake = http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| upstream.unreachable(reason(&error)))?;
    let mut connection: Option<Driver> = Some(Box::pin(async move {
        // What goes wrong is said to whoever waits for the answer.
        let _ = connection.with_upgrades().await;
    }));
    let answer = patience.wait(beside(&mut connection, sender.send_request(request))).await;
    let mut answer = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) if progress.is_broken() => return Err(Failure::Broken),
        Ok(Err(error)) => return Err(upstream.unreachable(reason(&error))),
        Err(late) => return Err(failure(upstream, late)),
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        strip_connection(answer.headers_mut());
        let connection = connection.unwrap_or_else(|| Box::pin(async {}));
        return Ok(Answered::Other(answer, connection));
    }
    let accept = key.map(|key| derive_accept_key(key.as_bytes()));
    if !is_websocket(answer.headers(), accept.as_deref()) {
        return Err(upstream.unreachable("answered the upgrade wrongly"));
    }
    let upgrade = hyper::upgrade::on(&mut answer);
    let upgraded = match patience.wait(beside(&mut connection, upgrade)).await {
        Ok(Ok(upgraded)) => upgraded,
        Ok(Err(error)) => return Err(upstream.unreachable(reason(&error))),
        Err(late) => return Err(failure(upstream, late)),
    };
    let parts = upgraded
        .downcast::<TokioIo<Stream>>()
        .map_err(|_| upstream.unreachable("answered the upgrade in an unknown way"))?;
    // Memory of its own, so that hyper's buffer goes.
    let early = Bytes::copy_from_slice(&parts.read_buf);
    Ok(Answered::Upgraded(answer.map(|_| ()), parts.io.into_inner(), early))
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upgraded(answer, ..) => write!(f, "Upgraded({:?})", answer.status()),
            Self::Other(answer, _) => write!(f, "Other({:?})", answer.status()),
        }
    }
}

/// Who is to blame for what did not come.
fn failure(upstream: &Upstream, late: Late) -> Failure {
    match late {
        Late::Answer(patience) => upstream.timed_out("answer", patience),
        Late::Upstream(patience) => upstream.timed_out("take the request", patience),
        Late::Client(patience) => Failure::Stalled(patience),
        Late::Broken => Failure::Broken,
    }
}

/// Whether this is an upgrade to WebSocket, for that key if it is known (RFC 6455, section 4.1).
fn is_websocket(headers: &HeaderMap, accept: Option<&str>) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    let accepted = headers.get(header::SEC_WEBSOCKET_ACCEPT).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
        && (accept.is_none() || accepted.map(str::trim) == accept)
}

/// Waits for something that needs the connection to be read and written meanwhile.
async fn beside<T>(connection: &mut Option<Driver>, what: impl Future<Output = T>) -> T {
    let mut what = pin!(what);
    poll_fn(|cx| {
        if let Some(driver) = connection
            && driver.as_mut().poll(cx).is_ready()
        {
            *connection = None;
        }
        what.as_mut().poll(cx)
    })
    .await
}

/// What happened, as it reads on after the upstream's name.
fn reason(error: &hyper::Error) -> String {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                return "reset the connection".into();
            }
            Some(_) | None => source = error.source(),
        }
    }
    if error.is_parse() || error.is_parse_too_large() {
        "did not answer in HTTP".into()
    } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        "closed the connection without an answer".into()
    } else {
        format!("did not answer: {error}")
    }
}
