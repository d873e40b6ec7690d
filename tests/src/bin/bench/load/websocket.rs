//! The client's side of WebSocket (RFC 6455) as far as the load needs it: the upgrade, frames of its own, and
//! taking the frames of a server off a stream that comes in any pieces.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::BufMut as _;

/// How long a server may take for any answer while a connection is opened.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of the longest header of a frame that is not masked.
const MAX_HEADER: usize = 10;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    /// More of a message.
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// Connects a socket for the load: no delay, and no answer taking forever.
pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream> {
    let socket = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// The request of an upgrade.
pub(crate) fn upgrade_request(address: SocketAddr, path: &str, protocol: Option<&str>) -> String {
    let protocol = protocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
    )
}

/// Connects and upgrades. What comes behind the answer is still to be read.
pub(crate) fn open(address: SocketAddr, path: &str, protocol: Option<&str>) -> Result<TcpStream> {
    let mut socket = connect(address)?;
    socket.write_all(upgrade_request(address, path, protocol).as_bytes())?;
    // Looked at before it is taken, so that what follows the head stays in the socket.
    let (mut head, mut look) = (Vec::new(), [0; 4096]);
    loop {
        let seen = socket.peek(&mut look).context("waiting for the answer to an upgrade")?;
        ensure!(seen > 0, "the server closed the connection instead of upgrading it");
        let before = head.len();
        head.extend_from_slice(&look[..seen]);
        let end = head.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| at + 4);
        let taken = end.unwrap_or(head.len());
        socket.read_exact(&mut look[..taken - before])?;
        if end.is_some() {
            let text = String::from_utf8_lossy(&head[..taken]);
            ensure!(text.starts_with("HTTP/1.1 101"), "no upgrade: {}", text.trim());
            return Ok(socket);
        }
        ensure!(head.len() < 16 * 1024, "the answer to an upgrade has no end");
    }
}

/// Writes a frame as a client does. The mask is zero, which is allowed and costs the load nothing; a server does
/// the same work for it as for any other.
pub(crate) fn put_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.put_u8(0x80 | opcode.number());
    match payload.len() {
        length @ 0..=125 => out.put_u8(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.put_u8(0x80 | 126);
            out.put_u16(length as u16);
        }
        length => {
            out.put_u8(0x80 | 127);
            out.put_u64(length as u64);
        }
    }
    out.put_u32(0);
    out.put_slice(payload);
}

/// Reads one whole frame from a blocking socket.
pub(crate) fn read_frame(socket: &mut TcpStream) -> Result<(Opcode, Vec<u8>)> {
    let mut header = [0; MAX_HEADER];
    let mut have = 0;
    loop {
        match Header::parse(&header[..have])? {
            Ok(parsed) => {
                let mut payload = vec![0; usize::try_from(parsed.payload)?];
                socket.read_exact(&mut payload).context("reading a frame")?;
                return Ok((parsed.opcode, payload));
            }
            Err(need) => {
                socket.read_exact(&mut header[have..need]).context("reading the header of a frame")?;
                have = need;
            }
        }
    }
}

/// The header of a server's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    opcode: Opcode,
    payload: u64,
    length: usize,
}

/// Takes the payloads of data frames off a stream.
#[derive(Debug, Default)]
pub(crate) struct Deframer {
    header: [u8; MAX_HEADER],
    have: usize,
    /// Bytes of the present frame's payload that are still to come.
    left: u64,
    /// The present frame is no data: what it carries is collected.
    control: Option<(Opcode, Vec<u8>)>,
}

impl Deframer {
    /// The next piece of data in the input, which is shortened by what was taken; none when it is used up.
    ///
    /// # Errors
    /// What is no frame of a server, and a frame that closes.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<&'a [u8]>> {
        loop {
            if self.left > 0 {
                if input.is_empty() {
                    return Ok(None);
                }
                let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
                let (piece, rest) = input.split_at(take);
                *input = rest;
                self.left -= take as u64;
                let Some((opcode, collected)) = &mut self.control else { return Ok(Some(piece)) };
                collected.extend_from_slice(piece);
                if self.left == 0 && *opcode == Opcode::Close {
                    bail!("the server closed it: {}", close_reason(collected));
                }
                continue;
            }
            let need = match Header::parse(&self.header[..self.have])? {
                Ok(header) => {
                    self.have = 0;
                    self.left = header.payload;
                    self.control = match header.opcode {
                        Opcode::Continuation | Opcode::Text | Opcode::Binary => None,
                        Opcode::Close if header.payload == 0 => {
                            bail!("the server closed it without a reason")
                        }
                        other => Some((other, Vec::new())),
                    };
                    continue;
                }
                Err(need) => need,
            };
            let take = (need - self.have).min(input.len());
            if take == 0 {
                return Ok(None);
            }
            self.header[self.have..self.have + take].copy_from_slice(&input[..take]);
            self.have += take;
            *input = &input[take..];
        }
    }
}

/// What the payload of a close frame says.
pub(crate) fn close_reason(payload: &[u8]) -> String {
    match payload {
        [high, low, text @ ..] => {
            format!("{} {}", u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(text))
        }
        _ => "without a reason".into(),
    }
}

impl Header {
    /// Looks for a header; else how many bytes it takes to know more.
    fn parse(bytes: &[u8]) -> Result<Result<Self, usize>> {
        let [first, second, rest @ ..] = bytes else { return Ok(Err(2)) };
        let opcode = match first & 0x0f {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            other => bail!("a frame of the unknown opcode {other}"),
        };
        ensure!(first & 0x70 == 0 && second & 0x80 == 0, "a frame with an extension, or masked");
        let (payload, length) = match (second, rest) {
            (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 4),
            (126, _) => return Ok(Err(4)),
            (127, [a, b, c, d, e, f, g, h, ..]) => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), MAX_HEADER)
            }
            (127, _) => return Ok(Err(MAX_HEADER)),
            (short, _) => (u64::from(*short), 2),
        };
        Ok(Ok(Self { opcode, payload, length }))
    }
}

impl Opcode {
    fn number(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::{Kind, ws_frame};

    use super::*;

    proptest! {
        #[test]
        fn data_comes_out_as_it_went_in_whatever_the_pieces(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            piece in 1usize..400,
        ) {
            let mut stream = Vec::new();
            for message in &messages {
                ws_frame::put(&mut stream, Kind::Binary, message);
                stream.extend_from_slice(&[0x89, 2, b'h', b'i']);
            }
            let (mut deframer, mut got) = (Deframer::default(), Vec::new());
            for mut input in stream.chunks(piece) {
                while let Some(data) = deframer.next(&mut input).unwrap() {
                    got.extend_from_slice(data);
                }
                prop_assert!(input.is_empty());
            }
            prop_assert_eq!(got, messages.concat());
        }
    }

    #[test]
    fn a_close_is_an_error_that_says_why() {
        let mut input: &[u8] = &[0x88, 6, 0x03, 0xf0, b's', b'l', b'o', b'w'];
        let error = Deframer::default().next(&mut input).unwrap_err();
        assert_eq!(error.to_string(), "the server closed it: 1008 slow");
    }
}
