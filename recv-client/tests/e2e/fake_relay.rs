//! The relay's side of connections, said word for word by a test.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use shared::{
    Epoch, Kind, Seq,
    receiver::{Event, GapReason, put_binary_header},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// No step of a test takes longer, however slow the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The store that these relays have unless a test says otherwise.
pub(crate) const EPOCH: Epoch = Epoch(0xab);

/// Listens for receivers.
pub(crate) struct FakeRelay {
    listener: TcpListener,
}

/// One receiver's connection.
pub(crate) struct Connection {
    /// Path and query of its URL.
    pub(crate) target: String,
    socket: WebSocketStream<TcpStream>,
}

impl FakeRelay {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn addr(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// The next receiver.
    pub(crate) async fn accept(&self) -> Connection {
        let stream = self.accept_tcp().await;
        let mut target = String::new();
        // The type is tungstenite's.
        #[expect(clippy::result_large_err)]
        let handshake = |request: &Request, mut response: Response| {
            target = request.uri().to_string();
            assert_eq!(request.headers()["sec-websocket-protocol"], "relay.v1.binary");
            response.headers_mut().insert("sec-websocket-protocol", "relay.v1.binary".parse().unwrap());
            Ok(response)
        };
        let socket = timeout(PATIENCE, accept_hdr_async(stream, handshake)).await.unwrap().unwrap();
        Connection { target, socket }
    }

    /// The next receiver, which is subscribed to `foo` from a seq.
    pub(crate) async fn accept_foo(&self, from: u64) -> Connection {
        let mut connection = self.accept().await;
        connection.hello("foo", EPOCH, from, from > 0).await;
        connection
    }

    /// Upgrades the next receiver without a word on the subprotocol.
    pub(crate) async fn accept_without_subprotocol(&self) {
        let stream = self.accept_tcp().await;
        let _ = timeout(PATIENCE, tokio_tungstenite::accept_async(stream)).await.unwrap();
    }

    /// Answers the next receiver's request with these bytes.
    pub(crate) async fn answer(&self, response: &str) {
        let mut stream = self.accept_tcp().await;
        let mut request = [0; 4096];
        let _ = timeout(PATIENCE, stream.read(&mut request)).await.unwrap().unwrap();
        stream.write_all(response.as_bytes()).await.unwrap();
    }

    /// Listens no more. The port stays free for nobody else as long as the test does not end.
    pub(crate) fn stop(self) -> String {
        self.addr()
    }

    async fn accept_tcp(&self) -> TcpStream {
        timeout(PATIENCE, self.listener.accept()).await.expect("a receiver comes").unwrap().0
    }
}

impl Connection {
    pub(crate) async fn hello(&mut self, pattern: &str, epoch: Epoch, from: u64, recovered: bool) {
        self.event(&Event::Hello {
            channel: pattern.parse().unwrap(),
            epoch,
            first: Seq(1),
            head: Seq(from),
            from: Seq(from),
            recovered,
            reason: None,
        })
        .await;
    }

    pub(crate) async fn event(&mut self, event: &Event<'_>) {
        self.socket.send(Message::text(event.to_json())).await.unwrap();
    }

    pub(crate) async fn gap(&mut self, after: u64, before: u64, count: u64, reason: GapReason) {
        let channel = "foo".parse().unwrap();
        let (after, before) = (Seq(after), Seq(before));
        self.event(&Event::Gap { channel, after, before, count: Some(count), reason }).await;
    }

    /// A message of `foo`; its payload is its seq.
    pub(crate) async fn number(&mut self, seq: u64, prev: u64) {
        self.message("foo", seq, prev, seq.to_string().as_bytes()).await;
    }

    pub(crate) async fn message(&mut self, channel: &str, seq: u64, prev: u64, payload: &[u8]) {
        let mut bytes = Vec::new();
        let channel = channel.parse().unwrap();
        put_binary_header(&mut bytes, &channel, Seq(seq), Seq(prev), 1_000_000, Kind::of(payload));
        bytes.extend_from_slice(payload);
        self.socket.send(Message::binary(bytes)).await.unwrap();
    }

    pub(crate) async fn close(mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        self.socket.close(Some(frame)).await.unwrap();
        self.closed().await;
    }

    /// Waits until the receiver is gone. It has nothing to say.
    pub(crate) async fn closed(mut self) {
        while let Some(Ok(message)) =
            timeout(PATIENCE, self.socket.next()).await.expect("the receiver leaves")
        {
            assert!(message.is_close(), "{message:?}");
        }
    }
}
