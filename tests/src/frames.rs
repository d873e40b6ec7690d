//! WebSocket frames by hand, right and wrong ones: a client with no opinion, for tests of RFC 6455.

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    http::{self, Answer},
    sender, within,
};

/// Opcodes of RFC 6455.
pub mod opcode {
    /// The next fragment of a message.
    pub const CONTINUATION: u8 = 0x0;
    /// Text, or its first fragment.
    pub const TEXT: u8 = 0x1;
    /// Binary, or its first fragment.
    pub const BINARY: u8 = 0x2;
    /// The end.
    pub const CLOSE: u8 = 0x8;
    /// To be answered with a pong.
    pub const PING: u8 = 0x9;
    /// The answer to a ping.
    pub const PONG: u8 = 0xA;
}

/// The bit of a frame's first byte that ends a message.
pub const FIN: u8 = 0x80;

/// A connection after its upgrade.
#[derive(Debug)]
pub struct FrameClient {
    stream: TcpStream,
    read: BytesMut,
    head: String,
}

/// A frame that came from the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// FIN, the reserved bits and the opcode.
    pub first: u8,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl FrameClient {
    /// Connects and upgrades, with no subprotocol.
    pub async fn connect(address: SocketAddr, path: &str) -> Self {
        Self::connect_with(address, path, "").await
    }

    /// Connects and upgrades with more headers, each with its line end.
    pub async fn connect_with(address: SocketAddr, path: &str, more: &str) -> Self {
        let upgraded = Self::upgrade(sender::connect(address).await, address, path, more).await;
        upgraded.unwrap_or_else(|answer| panic!("not upgraded: {}\n{}", answer.head, answer.body))
    }

    /// Connects and upgrades, or gives the answer that was no upgrade.
    pub async fn try_connect(address: SocketAddr, path: &str, more: &str) -> Result<Self, Answer> {
        Self::upgrade(sender::connect(address).await, address, path, more).await
    }

    /// Upgrades a connection, or gives the answer that was no upgrade.
    pub async fn upgrade(
        mut stream: TcpStream,
        address: SocketAddr,
        path: &str,
        more: &str,
    ) -> Result<Self, Answer> {
        let head = http::upgrade_head(address, path, more);
        within("the relay to read an upgrade", stream.write_all(head.as_bytes())).await.expect("it reads");
        Self::upgraded(stream).await
    }

    /// Reads the answer to an upgrade that was sent.
    pub async fn upgraded(mut stream: TcpStream) -> Result<Self, Answer> {
        let mut read = BytesMut::new();
        let end = loop {
            if let Some(at) = read.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            let n = within("the answer to an upgrade", stream.read_buf(&mut read)).await.expect("an answer");
            assert!(n > 0, "the relay closed instead of upgrading");
        };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(http::answer(&mut stream, read.to_vec()).await);
        }
        // The answer to the key of `upgrade_head`, as RFC 6455 itself has it.
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "a wrong accept key: {head}");
        read.advance(end);
        Ok(Self { stream, read, head })
    }

    /// The head of the answer that upgraded.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// The connection itself, for bytes of any kind. What was read already is dropped.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Sends the FIN: it has no more to say.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Sends a frame: its first byte (FIN, reserved bits, opcode) and its payload, masked.
    pub async fn send(&mut self, first: u8, payload: &[u8]) {
        self.send_bytes(&frame(first, payload)).await;
    }

    /// Sends bytes as they are. What the relay no longer reads shows in what it sends next.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = within("the relay to read frames", self.stream.write_all(bytes)).await;
    }

    /// The next frame; none at the end of the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((header, length)) = header(&self.read)
                && self.read.len() >= header + length
            {
                let first = self.read[0];
                assert!(self.read[1] & 0x80 == 0, "a server does not mask");
                self.read.advance(header);
                return Some(Frame { first, payload: self.read.split_to(length).to_vec() });
            }
            let read = within("a frame of the relay", self.stream.read_buf(&mut self.read)).await;
            if !read.is_ok_and(|n| n > 0) {
                return None;
            }
        }
    }

    /// Expects this frame next.
    pub async fn expect(&mut self, first: u8, payload: &[u8]) {
        let frame = self.frame().await.expect("a frame before the end");
        assert_eq!(frame.first, first, "the first byte of a frame with {} B", frame.payload.len());
        assert!(
            frame.payload == payload,
            "another payload of {} B than the {} B sent",
            frame.payload.len(),
            payload.len()
        );
    }

    /// Waits for the relay's close, passing over messages, and then for the end of the connection; the code,
    /// 1005 if the close had none.
    pub async fn closed(&mut self) -> u16 {
        loop {
            let frame = self.frame().await.expect("a close before the end");
            if frame.first == FIN | opcode::CLOSE {
                // What is not ours to send any more: the peer may wait for our side's FIN.
                let _ = self.stream.shutdown().await;
                assert_eq!(self.frame().await, None, "nothing follows a close");
                return match frame.payload.as_slice() {
                    [] => 1005,
                    [high, low, ..] => u16::from_be_bytes([*high, *low]),
                    [_] => panic!("a close with one byte"),
                };
            }
        }
    }
}

/// The mask of all frames here.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Masks, or takes the mask off.
pub fn mask(payload: &mut [u8], key: [u8; 4]) {
    // Eight bytes at a time: without optimisation, single ones would take seconds for what some tests send.
    let [a, b, c, d] = key;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    rest.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
}

/// The bytes of a masked frame.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        n @ 0..=125 => bytes.push(0x80 | n as u8),
        n @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    let at = bytes.len();
    bytes.extend_from_slice(payload);
    mask(&mut bytes[at..], MASK);
    bytes
}

/// The length of an unmasked frame's header, and that of its payload.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.get(1)? & 0x7f {
        126 => Some((4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)))),
        127 => Some((10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?)),
        short => Some((2, usize::from(short))),
    }
}
