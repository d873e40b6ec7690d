//! Senders: [`RawSender`] writes bytes to a socket, [`FramedSender`] speaks the framed protocol.

use std::{net::SocketAddr, ops::Range};

use bytes::{Buf, BytesMut};
use shared::{
    Kind, Seq,
    codec::{self, Decoded},
    limits,
    sender::{
        Ack, Alias, Hello, Levels, Open, Opened, ProducerId, Publish, RelayFrame, SenderFrame, Welcome,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::within;

/// A program that can write to a socket, and no more.
#[derive(Debug)]
pub struct RawSender {
    stream: TcpStream,
    read: BytesMut,
}

impl RawSender {
    /// Connects; every write leaves at once.
    pub async fn connect(address: SocketAddr) -> Self {
        Self { stream: connect(address).await, read: BytesMut::new() }
    }

    /// Writes all of it.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let write = self.stream.write_all(bytes.as_ref());
        within("the relay to read a raw sender", write).await.expect("the relay reads");
    }

    /// Writes what the relay takes before it closes; whether that was all.
    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        within("the relay to read a raw sender", self.stream.write_all(bytes)).await.is_ok()
    }

    /// Sends the FIN: it has no more to say.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.expect("the connection is open");
    }

    /// The next line of the relay's answer, without its end; none at the end.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.iter().position(|&b| b == b'\n') {
                let line = self.read.split_to(end + 1);
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.read_more("an answer line").await {
                return None;
            }
        }
    }

    /// Waits until the relay has closed, and gives what it said before.
    pub async fn closed(&mut self) -> Vec<u8> {
        while self.read_more("the relay to close a raw sender").await {}
        self.read.split().to_vec()
    }

    /// A reset ends it as a FIN does: data that nobody reads any more makes the kernel send one.
    async fn read_more(&mut self, what: &str) -> bool {
        within(what, self.stream.read_buf(&mut self.read)).await.is_ok_and(|n| n > 0)
    }
}

/// What the relay said to a framed sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The answer to HELLO.
    Welcome(Welcome),
    /// The answer to OPEN.
    Opened(Opened),
    /// Messages are settled.
    Ack(Ack),
    /// Something was refused.
    Error {
        /// Its name, or the number if it has none.
        code: String,
        /// The connection ends with it.
        fatal: bool,
        /// The channel.
        alias: u16,
        /// The message; for a gap the expected one.
        pseq: u64,
        /// When to try again, in milliseconds.
        retry_ms: u32,
    },
    /// A ping.
    Ping(u64),
    /// The answer to a ping.
    Pong(u64),
    /// The relay is stopping.
    Drain,
    /// The end as the protocol has it, with the name of its code.
    Close(String),
    /// The end of the connection.
    End,
}

/// A sender of the framed protocol that answers pings and does nothing else by itself.
#[derive(Debug)]
pub struct FramedSender {
    stream: TcpStream,
    read: BytesMut,
    write: Vec<u8>,
    welcome: Welcome,
}

impl FramedSender {
    /// The connection itself, for bytes of any kind. What was read already is dropped.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Connects as a producer of its own, in its first epoch.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_as(address, new_producer(), 1).await
    }

    /// Connects as a producer in an epoch, and waits for the welcome.
    pub async fn connect_as(address: SocketAddr, producer: ProducerId, producer_epoch: u32) -> Self {
        let mut sender = Self::greet(address, producer, producer_epoch).await;
        match sender.heard().await {
            Heard::Welcome(welcome) => sender.welcome = welcome,
            other => panic!("not welcomed: {other:?}"),
        }
        sender
    }

    /// Connects as a producer to a relay that may be away, or go away meanwhile; none then.
    pub async fn try_connect_as(
        address: SocketAddr,
        producer: ProducerId,
        producer_epoch: u32,
    ) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let mut sender = Self::over(stream);
        sender.put_hello(producer, producer_epoch);
        sender.flush().await;
        match sender.heard().await {
            Heard::Welcome(welcome) => sender.welcome = welcome,
            _ => return None,
        }
        Some(sender)
    }

    /// Connects and says HELLO, but does not wait for an answer.
    pub async fn greet(address: SocketAddr, producer: ProducerId, producer_epoch: u32) -> Self {
        let mut sender = Self::silent(address).await;
        sender.put_hello(producer, producer_epoch);
        sender.flush().await;
        sender
    }

    fn put_hello(&mut self, producer: ProducerId, producer_epoch: u32) {
        codec::encode_preamble(&mut self.write);
        self.put(&SenderFrame::Hello(Hello { producer, producer_epoch, keep_s: 0, token: b"" }));
    }

    /// Connects and says nothing, for what is written by hand.
    pub async fn silent(address: SocketAddr) -> Self {
        Self::over(connect(address).await)
    }

    fn over(stream: TcpStream) -> Self {
        let welcome = Welcome {
            epoch: shared::Epoch(0),
            max_message: 0,
            window_messages: 0,
            window_bytes: 0,
            ping_ms: 0,
        };
        Self { stream, read: BytesMut::new(), write: Vec::new(), welcome }
    }

    /// What holds on this connection.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Opens a channel under an alias for a producer that still holds everything from `first_pseq` on.
    pub async fn open(&mut self, alias: u16, channel: &str, first_pseq: u64) -> Opened {
        self.put(&SenderFrame::Open(Open {
            alias: Alias(alias),
            levels: Levels::ACCEPTED,
            first_pseq,
            channel,
        }));
        self.flush().await;
        match self.heard().await {
            Heard::Opened(opened) => opened,
            other => panic!("{channel} not opened: {other:?}"),
        }
    }

    /// Publishes text.
    pub async fn publish(&mut self, alias: u16, pseq: u64, text: &str) {
        self.put_message(alias, pseq, Kind::Text, text.as_bytes());
        self.flush().await;
    }

    /// Puts a message behind what the next [`flush`](Self::flush) sends.
    pub fn put_message(&mut self, alias: u16, pseq: u64, kind: Kind, payload: &[u8]) {
        self.put(&SenderFrame::Publish(Publish {
            alias: Alias(alias),
            pseq,
            kind,
            source_time: None,
            payload,
        }));
    }

    /// Puts a frame behind what the next [`flush`](Self::flush) sends.
    pub fn put(&mut self, frame: &SenderFrame<'_>) {
        codec::encode_sender(frame, &mut self.write);
    }

    /// Puts bytes behind what the next [`flush`](Self::flush) sends.
    pub fn put_bytes(&mut self, bytes: &[u8]) {
        self.write.extend_from_slice(bytes);
    }

    /// Sends what was put. What the relay no longer reads shows in what is heard next.
    pub async fn flush(&mut self) {
        let _ = within("the relay to read a framed sender", self.stream.write_all(&self.write)).await;
        self.write.clear();
    }

    /// Publishes texts from `pseq` on and waits until all are settled; the last one's place.
    pub async fn publish_all(&mut self, alias: u16, pseq: u64, texts: &[impl AsRef<str>]) -> Seq {
        let end = pseq + texts.len() as u64;
        self.publish_each(alias, pseq..end, |n, out| {
            out.extend_from_slice(texts[(n - pseq) as usize].as_ref().as_bytes());
            Kind::Text
        })
        .await
    }

    /// Publishes a message for each number, as fast as the window allows, and waits until all are settled; the
    /// last one's place. `message` writes a payload and says its kind.
    pub async fn publish_each(
        &mut self,
        alias: u16,
        pseqs: Range<u64>,
        mut message: impl FnMut(u64, &mut Vec<u8>) -> Kind,
    ) -> Seq {
        let window = u64::from(self.welcome.window_messages.max(1));
        let (mut settled, mut place) = (pseqs.start - 1, Seq::ZERO);
        let mut next = pseqs.start;
        let mut payload = Vec::new();
        while settled + 1 < pseqs.end {
            let mut bytes = 0;
            while next < pseqs.end && next - settled <= window && bytes < 64 * 1024 {
                payload.clear();
                let kind = message(next, &mut payload);
                self.put_message(alias, next, kind, &payload);
                (next, bytes) = (next + 1, bytes + payload.len());
            }
            self.flush().await;
            if bytes == 0 {
                let ack = self.acked(alias, settled + 1).await;
                (settled, place) = (ack.pseq, ack.seq);
            }
        }
        place
    }

    /// Waits until everything up to a number is settled; pings are answered meanwhile.
    pub async fn acked(&mut self, alias: u16, pseq: u64) -> Ack {
        loop {
            match self.heard().await {
                Heard::Ack(ack) if ack.alias.0 == alias && ack.pseq >= pseq => return ack,
                Heard::Ack(_) => {}
                other => panic!("waited for the ack of {pseq}, heard {other:?}"),
            }
        }
    }

    /// The next frame of the relay; pings are answered and passed over.
    pub async fn heard(&mut self) -> Heard {
        // One deadline for all of it: pings, which come for ever, are no progress.
        within("a frame of the relay", async {
            loop {
                match self.read_frame().await {
                    Heard::Ping(n) => {
                        self.put(&SenderFrame::Pong(n));
                        self.flush().await;
                    }
                    other => return other,
                }
            }
        })
        .await
    }

    /// The next frame of the relay, pings too, which are not answered.
    pub async fn heard_any(&mut self) -> Heard {
        within("a frame of the relay", self.read_frame()).await
    }

    async fn read_frame(&mut self) -> Heard {
        loop {
            let max = limits::MAX_MESSAGE + limits::FRAME_OVERHEAD;
            let (heard, taken) =
                match codec::decode_relay(&self.read, max).expect("the relay speaks the protocol") {
                    Decoded::Frame(frame, taken) => (Some(own(frame)), taken),
                    Decoded::Skipped(taken) => (None, taken),
                    Decoded::Incomplete(_) => {
                        if !self.stream.read_buf(&mut self.read).await.is_ok_and(|n| n > 0) {
                            return Heard::End;
                        }
                        continue;
                    }
                };
            self.read.advance(taken);
            if let Some(heard) = heard {
                return heard;
            }
        }
    }
}

/// A producer that no other is.
pub fn new_producer() -> ProducerId {
    ProducerId(std::array::from_fn(|_| fastrand::u8(..)))
}

/// Connects and sends every write at once.
pub async fn connect(address: SocketAddr) -> TcpStream {
    let stream =
        within("a connection", TcpStream::connect(address)).await.expect("the relay accepts connections");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

fn own(frame: RelayFrame<'_>) -> Heard {
    let name = |code: u16| match shared::ErrorCode::from_number(code) {
        Some(known) => known.name().to_owned(),
        None => code.to_string(),
    };
    match frame {
        RelayFrame::Welcome(welcome) => Heard::Welcome(welcome),
        RelayFrame::Opened(opened) => Heard::Opened(opened),
        RelayFrame::Ack(ack) => Heard::Ack(ack),
        RelayFrame::Error(refusal) => Heard::Error {
            code: name(refusal.code),
            fatal: refusal.fatal,
            alias: refusal.alias.0,
            pseq: refusal.pseq,
            retry_ms: refusal.retry_ms,
        },
        RelayFrame::Ping(n) => Heard::Ping(n),
        RelayFrame::Pong(n) => Heard::Pong(n),
        RelayFrame::Drain { .. } => Heard::Drain,
        RelayFrame::Close(close) => Heard::Close(name(close.code)),
    }
}
