//! One WebSocket connection to the relay: made, listened to, and found dead. What its messages mean is decided
//! elsewhere, and so is whether to come back.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use shared::{
    ChannelPattern, Envelope,
    client::{Exit, RelayAddr},
    receiver::{Since, Subprotocol, decode_binary},
    units::format_duration,
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message, Utf8Bytes,
        client::IntoClientRequest as _,
        http::{HeaderValue, header},
        protocol::WebSocketConfig,
    },
};

use crate::{
    failure::{Failure, reason},
    loss::{DialError, Loss},
    plan::Plan,
    resume::Request,
};

/// Bytes read at once: many small messages per system call.
const READ_BUFFER: usize = 256 * 1024;

/// Bytes of the largest message taken: far beyond what relays accept by default, and still no way to exhaust
/// memory with one header.
const MAX_MESSAGE: usize = 256 * 1024 * 1024;

/// After so long without anything a ping is sent. The relay's own come more often.
const PING_AFTER: Duration = Duration::from_secs(30);

/// After so long without anything the connection is lost.
const LOST_AFTER: Duration = Duration::from_secs(60);

/// What a polite end may take.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// A connection on which all channels were asked for.
#[derive(Debug)]
pub(crate) struct Session {
    socket: WebSocketStream<TcpStream>,
    /// When anything came last.
    heard: Instant,
    /// Whether it was asked since whether it is still there.
    pinged: bool,
}

/// What comes from the relay.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A message.
    Message(Envelope),
    /// A control message, in JSON.
    Control(Utf8Bytes),
}

impl Session {
    /// Connects, and asks for all channels from there on.
    pub(crate) async fn dial(plan: &Plan, request: Request) -> Result<Self, DialError> {
        let (path, within) = (path(&plan.patterns, request), plan.connect_timeout);
        timeout(within, Self::connect(&plan.relay, &path)).await.unwrap_or_else(|_| {
            let why = format!("no answer within {}", format_duration(within));
            Err(DialError::unreachable(&plan.relay, &why))
        })
    }

    async fn connect(relay: &RelayAddr, path: &str) -> Result<Self, DialError> {
        let url = format!("ws://{relay}{path}");
        let mut request = url.into_client_request().map_err(|e| {
            let what = format!("no URL can be made of the relay's address {relay} and the channels: {e}");
            DialError::Final(Failure::new(Exit::Usage, what))
        })?;
        let subprotocol = HeaderValue::from_static(Subprotocol::Binary.name());
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);

        let stream = TcpStream::connect((relay.host(), relay.port()))
            .await
            .map_err(|e| DialError::unreachable(relay, &reason(&e)))?;
        // Pings and their answers are small and must not wait for each other. Without it they still go.
        let _ = stream.set_nodelay(true);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let (socket, _) = client_async_with_config(request, stream, Some(config))
            .await
            .map_err(|e| DialError::refused_by(relay, e))?;
        Ok(Self { socket, heard: Instant::now(), pinged: false })
    }

    /// What comes next. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Incoming, Loss> {
        loop {
            let item = self.socket.next().await;
            if let Some(incoming) = self.receive(item)? {
                return Ok(incoming);
            }
        }
    }

    /// What has come already, if anything.
    pub(crate) fn next_ready(&mut self) -> Result<Option<Incoming>, Loss> {
        while let Some(item) = self.socket.next().now_or_never() {
            if let Some(incoming) = self.receive(item)? {
                return Ok(Some(incoming));
            }
        }
        Ok(None)
    }

    /// When to call [`Self::check_alive`] unless something comes before.
    pub(crate) fn check_at(&self) -> Instant {
        self.heard + if self.pinged { LOST_AFTER } else { PING_AFTER }
    }

    /// Asks the relay whether it is still there, or finds that it is not.
    pub(crate) async fn check_alive(&mut self) -> Result<(), Loss> {
        if self.heard.elapsed() >= LOST_AFTER {
            let why = format!("nothing came for {}", format_duration(LOST_AFTER));
            return Err(Loss::Gone { why, at_once: false });
        }
        if self.heard.elapsed() >= PING_AFTER {
            self.pinged = true;
            // A socket that is full of pings is as silent as one without an answer.
            if let Ok(Err(error)) = timeout(CLOSE_WITHIN, self.socket.send(Message::Ping(Bytes::new()))).await
            {
                return Err(Loss::from(error));
            }
        }
        Ok(())
    }

    /// Ends politely, as far as the relay listens.
    pub(crate) async fn close(mut self) {
        // The process goes on whatever comes of it.
        let _ = timeout(CLOSE_WITHIN, self.socket.close(None)).await;
    }

    fn receive(
        &mut self,
        item: Option<Result<Message, tungstenite::Error>>,
    ) -> Result<Option<Incoming>, Loss> {
        self.heard = Instant::now();
        self.pinged = false;
        match item {
            Some(Ok(Message::Binary(bytes))) => match decode_binary(&bytes) {
                Ok(envelope) => Ok(Some(Incoming::Message(envelope))),
                Err(error) => Err(Loss::protocol(error)),
            },
            Some(Ok(Message::Text(text))) => Ok(Some(Incoming::Control(text))),
            Some(Ok(Message::Close(frame))) => {
                // The reply to the close, if it goes out at once.
                let _ = self.socket.flush().now_or_never();
                Err(Loss::closed(frame))
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
            Some(Err(error)) => Err(error.into()),
            None => Err(Loss::closed(None)),
        }
    }
}

/// Names of channels and patterns, and the spellings of beginnings, are safe in URLs as they are.
fn path(patterns: &[ChannelPattern], Request { since, last }: Request) -> String {
    let mut names = patterns.iter().map(ChannelPattern::as_str);
    let first = names.next().unwrap_or_default();
    let others = names.map(|name| format!("channel={name}"));
    let since = (since != Since::default()).then(|| format!("since={since}"));
    let last = last.map(|last| format!("last={last}"));
    let query: Vec<String> = others.chain(since).chain(last).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("/c/{first}{mark}{}", query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser as _;

    #[test]
    fn all_channels_are_one_url_that_says_only_what_differs_from_the_default() {
        let path = |patterns: &str, since: &str, last| {
            let patterns: Vec<_> = patterns.split(' ').map(|p| p.parse().unwrap()).collect();
            path(&patterns, Request { since: since.parse().unwrap(), last })
        };
        assert_eq!(path("a/**", "latest", None), "/c/a/**");
        assert_eq!(path("a/**", "10m", None), "/c/a/**?since=10m");
        assert_eq!(path("a/**", "latest", Some(3)), "/c/a/**?last=3");
        assert_eq!(path("a b/* c", "latest", None), "/c/a?channel=b/*&channel=c");
        assert_eq!(
            path("a b", "00000000000000ff-12", Some(3)),
            "/c/a?channel=b&since=00000000000000ff-12&last=3"
        );
    }

    /// A relay that upgrades and then says what the test says.
    async fn dialled() -> (Session, WebSocketStream<TcpStream>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = listener.local_addr().unwrap().to_string();
        let line = ["recv-client", "--channel", "foo", "--relay", &relay];
        let (plan, _, mut resume) = Plan::new(Cli::parse_from(line)).unwrap();
        let accept = async {
            let stream = listener.accept().await.unwrap().0;
            // The type is tungstenite's.
            #[expect(clippy::result_large_err)]
            let echo = |_: &_, mut response: tungstenite::handshake::server::Response| {
                let name = HeaderValue::from_static(Subprotocol::Binary.name());
                response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, name);
                Ok(response)
            };
            tokio_tungstenite::accept_hdr_async(stream, echo).await.unwrap()
        };
        let (session, socket) = tokio::join!(Session::dial(&plan, resume.request()), accept);
        (session.unwrap(), socket)
    }

    #[tokio::test]
    async fn a_relay_that_is_silent_is_asked_and_then_given_up() {
        let (mut session, mut socket) = dialled().await;
        tokio::time::pause();
        tokio::time::sleep_until(session.check_at()).await;
        session.check_alive().await.unwrap();
        assert!(matches!(socket.next().await, Some(Ok(Message::Ping(_)))));
        tokio::time::sleep_until(session.check_at()).await;
        match session.check_alive().await {
            Err(Loss::Gone { why, at_once: false }) => assert_eq!(why, "nothing came for 1m"),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_relay_that_answers_is_there() {
        let (mut session, mut socket) = dialled().await;
        tokio::time::pause();
        tokio::time::sleep_until(session.check_at()).await;
        session.check_alive().await.unwrap();
        let before = session.check_at();
        // Reading the ping sends the answer, which is read with what follows it.
        assert!(matches!(socket.next().await, Some(Ok(Message::Ping(_)))));
        socket.send(Message::text("{}")).await.unwrap();
        assert!(matches!(session.next().await, Ok(Incoming::Control(_))));
        assert!(session.check_at() >= before, "it has as long again");
        assert!(!session.pinged);
    }
}
