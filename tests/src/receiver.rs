//! A receiver: a WebSocket client of tokio-tungstenite in any of the subprotocols.

use std::{io, net::SocketAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use shared::{
    Envelope, Epoch, Kind, Position, Seq,
    receiver::{self, Event, Subprotocol},
};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        handshake::client::Response,
        http::{HeaderName, HeaderValue},
        protocol::WebSocketConfig,
    },
};

use crate::within;

/// A connected receiver.
#[derive(Debug)]
pub struct Receiver {
    stream: WebSocketStream<TcpStream>,
    form: Subprotocol,
    subprotocol: Option<String>,
}

/// What a receiver got.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    /// A message without a subprotocol or in `relay.v1.raw`.
    Raw(Kind, Bytes),
    /// A message in the other two.
    Message(Envelope),
    /// A control message.
    Control(Value),
    /// The relay closed, with this code and reason.
    Closed(u16, String),
    /// The connection ended without a close.
    Lost,
}

/// The answer to an upgrade that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct Dial<'a> {
    /// Path and query.
    pub path: &'a str,
    /// What is offered in `Sec-WebSocket-Protocol`.
    pub offer: Option<&'a str>,
    /// More headers.
    pub headers: &'a [(&'static str, &'a str)],
    /// Bytes of the socket's receive buffer, for a receiver that shall fall behind soon.
    pub receive_buffer: Option<u32>,
}

impl<'a> Dial<'a> {
    /// A path, with what is offered.
    pub fn new(path: &'a str, offer: Option<&'a str>) -> Self {
        Self { path, offer, headers: &[], receive_buffer: None }
    }

    /// Connects, or tells how it was refused.
    pub async fn connect(self, address: SocketAddr) -> Result<Receiver, Refused> {
        let socket = within("a connection", self.socket(address)).await;
        let shake = self.shake(address, socket.expect("the relay accepts connections"));
        match within(format_args!("the upgrade of {}", self.path), shake).await {
            Ok((stream, response)) => Ok(Receiver::new(stream, &response)),
            Err(tungstenite::Error::Http(response)) => {
                let (parts, body) = response.into_parts();
                let body = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
                Err(Refused { status: parts.status.as_u16(), body })
            }
            Err(error) => panic!("the upgrade of {} failed: {error}", self.path),
        }
    }

    /// Connects to a relay that may be away, or go away meanwhile; none then.
    pub async fn try_connect(self, address: SocketAddr) -> Option<Receiver> {
        let socket = within("a connection", self.socket(address)).await.ok()?;
        let what = format!("the upgrade of {}", self.path);
        let upgraded = within(what, self.shake(address, socket)).await;
        upgraded.ok().map(|(stream, response)| Receiver::new(stream, &response))
    }

    async fn socket(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn shake(
        &self,
        address: SocketAddr,
        socket: TcpStream,
    ) -> Result<(WebSocketStream<TcpStream>, Response), tungstenite::Error> {
        let mut request =
            format!("ws://{address}{}", self.path).into_client_request().expect("a path of a URL");
        let offer = self.offer.map(|offer| ("sec-websocket-protocol", offer));
        for (name, value) in offer.iter().chain(self.headers) {
            let value = HeaderValue::from_str(value).expect("the value of a header");
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        client_async_with_config(request, socket, Some(config)).await
    }
}

impl Receiver {
    /// Connects to a path, offering one subprotocol or none.
    pub async fn connect(address: SocketAddr, path: &str, offer: Option<Subprotocol>) -> Self {
        Dial::new(path, offer.map(Subprotocol::name)).connect(address).await.expect("the upgrade is granted")
    }

    /// Connects to a channel or pattern in `relay.v1.json`; `query` is added to the path.
    pub async fn json(address: SocketAddr, channel: &str, query: &str) -> Self {
        Self::connect(address, &format!("/c/{channel}{query}"), Some(Subprotocol::Json)).await
    }

    fn new(stream: WebSocketStream<TcpStream>, response: &Response) -> Self {
        let name = response.headers().get("sec-websocket-protocol").and_then(|v| v.to_str().ok());
        let form = name.and_then(Subprotocol::from_name).unwrap_or(Subprotocol::Raw);
        Self { stream, form, subprotocol: name.map(str::to_owned) }
    }

    /// The subprotocol that the relay chose.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// The next thing that comes.
    pub async fn next(&mut self) -> Received {
        // One deadline for all of it: pings, which come for ever, are no progress.
        within("something for a receiver", self.whenever()).await
    }

    /// The next thing that comes, whenever that is: for who may be left without anything.
    pub async fn whenever(&mut self) -> Received {
        while let Some(Ok(message)) = self.stream.next().await {
            return match message {
                Message::Text(text) if self.form == Subprotocol::Raw => {
                    Received::Raw(Kind::Text, text.into())
                }
                Message::Binary(bytes) if self.form == Subprotocol::Raw => Received::Raw(Kind::Binary, bytes),
                Message::Text(text) => decode_json(&text),
                Message::Binary(bytes) => {
                    Received::Message(receiver::decode_binary(&bytes).expect("a message of relay.v1.binary"))
                }
                Message::Close(Some(frame)) => Received::Closed(frame.code.into(), frame.reason.to_string()),
                Message::Close(None) => Received::Closed(1005, String::new()),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
        }
        Received::Lost
    }

    /// The next message's payload as text; control messages are passed over.
    pub async fn text(&mut self) -> String {
        let (_, payload) = self.payload().await;
        String::from_utf8(payload.into()).expect("the payload is text")
    }

    /// The next message's kind and payload; control messages are passed over.
    pub async fn payload(&mut self) -> (Kind, Bytes) {
        loop {
            match self.next().await {
                Received::Raw(kind, payload) => return (kind, payload),
                Received::Message(envelope) => return (envelope.kind, envelope.payload),
                Received::Control(_) => {}
                end => panic!("waited for a message, got {end:?}"),
            }
        }
    }

    /// The payloads of the next messages as texts.
    pub async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::with_capacity(count);
        while texts.len() < count {
            texts.push(self.text().await);
        }
        texts
    }

    /// The next message with what surrounds it; control messages are passed over.
    pub async fn envelope(&mut self) -> Envelope {
        loop {
            match self.next().await {
                Received::Message(envelope) => return envelope,
                Received::Control(_) => {}
                other => panic!("waited for a message, got {other:?}"),
            }
        }
    }

    /// The next control message of a type; messages are not expected before it.
    pub async fn control(&mut self, kind: &str) -> Value {
        loop {
            match self.next().await {
                Received::Control(event) if event["type"] == kind => return event,
                Received::Control(_) => {}
                other => panic!("waited for {kind}, got {other:?}"),
            }
        }
    }

    /// The hello that every subscription begins with.
    pub async fn hello(&mut self) -> Value {
        match self.next().await {
            Received::Control(event) if event["type"] == "hello" => event,
            other => panic!("waited for hello, got {other:?}"),
        }
    }

    /// How the relay closes; everything before is passed over.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            match self.next().await {
                Received::Closed(code, _) => return code,
                Received::Lost => panic!("waited for a close, the connection was lost"),
                Received::Raw(..) | Received::Message(_) | Received::Control(_) => {}
            }
        }
    }

    /// Sends text.
    pub async fn send(&mut self, text: impl Into<String>) {
        self.send_message(Message::text(text.into())).await;
    }

    /// Sends binary.
    pub async fn send_binary(&mut self, bytes: impl Into<Bytes>) {
        self.send_message(Message::binary(bytes)).await;
    }

    /// Sends a command.
    pub async fn command(&mut self, command: Value) {
        self.send(command.to_string()).await;
    }

    /// Closes from this side and waits until the relay has answered.
    pub async fn close(mut self) {
        self.stream.close(None).await.expect("the connection is open");
        let drained = async { while self.stream.next().await.is_some_and(|m| m.is_ok()) {} };
        within("the relay to answer a close", drained).await;
    }

    async fn send_message(&mut self, message: Message) {
        within("the relay to read a receiver", self.stream.send(message))
            .await
            .expect("the connection is open");
    }
}

/// Where a message is, from the hello of its stream.
pub fn position(hello: &Value, seq: Seq) -> Position {
    let epoch: Epoch = hello["epoch"].as_str().and_then(|e| e.parse().ok()).expect("hello has an epoch");
    Position { epoch, seq }
}

/// The payload of a JSON message in base64.
pub fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

fn decode_json(text: &str) -> Received {
    match serde_json::from_str::<Event<'_>>(text) {
        Ok(Event::Message { channel, seq, prev, time, data }) => {
            let (kind, payload) = data.decode().expect("base64 is base64");
            Received::Message(Envelope { channel, seq, prev, time, kind, payload })
        }
        // Control messages are looked at as they are spelt on the wire.
        Ok(_) => Received::Control(serde_json::from_str(text).expect("it was JSON before")),
        Err(error) => panic!("not an event: {error}: {text}"),
    }
}
