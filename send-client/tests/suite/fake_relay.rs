//! The other end of the wire for tests: it does what a test's script says, frame by frame.

use bytes::{Buf, BytesMut};
use shared::{
    Epoch, ErrorCode, Seq,
    codec::{Decoded, decode_preamble, decode_sender, encode_relay},
    sender::{Ack, Alias, Levels, Opened, ProducerId, Refusal, RelayFrame, SenderFrame, Welcome},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const MAX_FRAME: usize = 4 << 20;

/// What holds on a connection unless a test says otherwise.
pub(crate) const WELCOME: Welcome = Welcome {
    epoch: Epoch(1),
    max_message: 1 << 20,
    window_messages: 1024,
    window_bytes: 16 << 20,
    ping_ms: 25_000,
};

/// Listens on a port of its own.
pub(crate) struct FakeRelay(TcpListener);

/// A sender that has connected.
pub(crate) struct Peer {
    stream: TcpStream,
    inbound: BytesMut,
    pub(crate) producer: ProducerId,
    pub(crate) producer_epoch: u32,
    pub(crate) keep_s: u32,
}

/// What a sender said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Open {
        alias: u16,
        first_pseq: u64,
        channel: String,
    },
    Publish {
        alias: u16,
        pseq: u64,
        time: Option<u64>,
        payload: Vec<u8>,
    },
    Ping(u64),
    Pong(u64),
    Close(u16),
    /// The connection is closed.
    End,
}

impl FakeRelay {
    pub(crate) async fn bind() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    /// The next sender, greeted.
    pub(crate) async fn accept(&self, welcome: Welcome) -> Peer {
        let (stream, _) = self.0.accept().await.unwrap();
        let producer = ProducerId([0; 16]);
        let mut peer = Peer { stream, inbound: BytesMut::new(), producer, producer_epoch: 0, keep_s: 0 };
        while decode_preamble(&peer.inbound) == Ok(Decoded::Incomplete(5)) {
            assert_ne!(peer.read().await, 0, "it left without a preamble");
        }
        peer.inbound.advance(5);
        loop {
            let hello = match decode_sender(&peer.inbound, MAX_FRAME).unwrap() {
                Decoded::Frame(SenderFrame::Hello(hello), n) => {
                    Some(((hello.producer, hello.producer_epoch, hello.keep_s), n))
                }
                _ => None,
            };
            if let Some((hello, n)) = hello {
                (peer.producer, peer.producer_epoch, peer.keep_s) = hello;
                peer.inbound.advance(n);
                peer.send(RelayFrame::Welcome(welcome)).await;
                return peer;
            }
            assert_ne!(peer.read().await, 0, "it left without HELLO");
        }
    }

    /// The next sender, greeted, with its first channel open from what it says on.
    pub(crate) async fn accept_open(&self, welcome: Welcome) -> Peer {
        let mut peer = self.accept(welcome).await;
        let Said::Open { alias, first_pseq, .. } = peer.next().await else { panic!("OPEN comes first") };
        peer.opened(alias, first_pseq - 1).await;
        peer
    }
}

impl Peer {
    pub(crate) async fn send(&mut self, frame: RelayFrame<'_>) {
        let mut bytes = BytesMut::new();
        encode_relay(&frame, &mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    pub(crate) async fn opened(&mut self, alias: u16, last_pseq: u64) {
        let levels = Levels::ACCEPTED;
        self.send(RelayFrame::Opened(Opened { alias: Alias(alias), levels, last_pseq, receivers: 1 })).await;
    }

    pub(crate) async fn ack(&mut self, alias: u16, pseq: u64) {
        self.send(RelayFrame::Ack(Ack { alias: Alias(alias), pseq, seq: Seq(pseq) })).await;
    }

    pub(crate) async fn refuse(&mut self, code: ErrorCode, pseq: u64, retry_ms: u32) {
        let alias = Alias(0);
        let refusal = Refusal { code: code.number(), fatal: false, alias, pseq, retry_ms, text: "no" };
        self.send(RelayFrame::Error(refusal)).await;
    }

    pub(crate) async fn fail(&mut self, code: ErrorCode, text: &str) {
        let refusal =
            Refusal { code: code.number(), fatal: true, alias: Alias(0), pseq: 0, retry_ms: 0, text };
        self.send(RelayFrame::Error(refusal)).await;
    }

    pub(crate) async fn next(&mut self) -> Said {
        loop {
            if let Some((said, n)) = self.decode() {
                self.inbound.advance(n);
                return said;
            }
            if self.read().await == 0 {
                return Said::End;
            }
        }
    }

    /// The payloads of the next publishes, as text, with their pseqs.
    pub(crate) async fn publishes(&mut self, count: usize) -> Vec<(u64, String)> {
        let mut all = Vec::new();
        while all.len() < count {
            match self.next().await {
                Said::Publish { pseq, payload, .. } => all.push((pseq, String::from_utf8(payload).unwrap())),
                other => panic!("{other:?} is no publish; before it {all:?}"),
            }
        }
        all
    }

    /// Stores and acks everything until the sender says goodbye; the payloads.
    pub(crate) async fn serve(&mut self) -> Vec<Vec<u8>> {
        let mut stored = Vec::new();
        loop {
            match self.next().await {
                Said::Open { alias, first_pseq, .. } => self.opened(alias, first_pseq - 1).await,
                Said::Publish { alias, pseq, payload, .. } => {
                    stored.push(payload);
                    self.ack(alias, pseq).await;
                }
                Said::Ping(n) => self.send(RelayFrame::Pong(n)).await,
                Said::Pong(_) => {}
                Said::Close(_) | Said::End => return stored,
            }
        }
    }

    fn decode(&self) -> Option<(Said, usize)> {
        let Decoded::Frame(frame, n) = decode_sender(&self.inbound, MAX_FRAME).unwrap() else { return None };
        let said = match frame {
            SenderFrame::Hello(_) => panic!("a second HELLO"),
            SenderFrame::Open(open) => {
                Said::Open { alias: open.alias.0, first_pseq: open.first_pseq, channel: open.channel.into() }
            }
            SenderFrame::Publish(publish) => Said::Publish {
                alias: publish.alias.0,
                pseq: publish.pseq,
                time: publish.source_time,
                payload: publish.payload.to_vec(),
            },
            SenderFrame::Ping(n) => Said::Ping(n),
            SenderFrame::Pong(n) => Said::Pong(n),
            SenderFrame::Close(close) => Said::Close(close.code),
        };
        Some((said, n))
    }

    async fn read(&mut self) -> usize {
        self.stream.read_buf(&mut self.inbound).await.unwrap_or(0)
    }
}
