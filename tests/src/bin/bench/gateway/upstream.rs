//! The server behind the proxies: it echoes, as WebSocket at one address and bare bytes at another one. A thread of the
//! load's core; the proxy is what is measured, so it does as little as it can: an echo leaves as it comes in, without
//! waiting for the end of a message.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    thread,
};

use anyhow::{Result, bail};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Bytes of one read.
const READ: usize = 256 * 1024;

/// Bytes of the longest header of a masked frame.
const MAX_HEADER: usize = 14;

/// Bytes that a request may have.
const MAX_HEAD: usize = 16 * 1024;

const WEBSOCKET: Token = Token(0);
const BYTES: Token = Token(1);

/// Where it listens. Its thread goes when its last connection does, and nobody can open another one.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) websocket: SocketAddr,
    pub(super) bytes: SocketAddr,
    waker: mio::Waker,
}

const STOP: Token = Token(2);

impl Upstream {
    pub(super) fn start() -> Result<Self> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (mut websocket, mut bytes) = (TcpListener::bind(any)?, TcpListener::bind(any)?);
        let poll = Poll::new()?;
        poll.registry().register(&mut websocket, WEBSOCKET, Interest::READABLE)?;
        poll.registry().register(&mut bytes, BYTES, Interest::READABLE)?;
        let waker = mio::Waker::new(poll.registry(), STOP)?;
        let upstream = Self { websocket: websocket.local_addr()?, bytes: bytes.local_addr()?, waker };
        // What goes wrong here shows at the clients, as a connection that ended.
        thread::spawn(move || serve(poll, &websocket, &bytes));
        Ok(upstream)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.waker.wake();
    }
}

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    state: State,
    /// What the socket did not take.
    out: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// The request of an upgrade, as far as it is there.
    Head(Vec<u8>),
    Frames(Unmask),
    Bytes,
}

fn serve(mut poll: Poll, websocket: &TcpListener, bytes: &TcpListener) -> Result<()> {
    let (mut events, mut buffer) = (Events::with_capacity(1024), vec![0; READ]);
    let (mut connections, mut next) = (HashMap::new(), STOP.0);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            let token = event.token();
            match token {
                WEBSOCKET | BYTES => {
                    let listener = if token == WEBSOCKET { websocket } else { bytes };
                    while let Ok((mut socket, _)) = listener.accept() {
                        socket.set_nodelay(true)?;
                        next += 1;
                        let both = Interest::READABLE | Interest::WRITABLE;
                        poll.registry().register(&mut socket, Token(next), both)?;
                        let state = if token == BYTES { State::Bytes } else { State::Head(Vec::new()) };
                        connections.insert(Token(next), Connection { socket, state, out: Vec::new() });
                    }
                }
                STOP => return Ok(()),
                _ => {
                    let turn = connections.get_mut(&token).map(|connection| connection.turn(&mut buffer));
                    if !matches!(turn, Some(Ok(()))) {
                        connections.remove(&token);
                    }
                }
            }
        }
    }
}

impl Connection {
    /// Reads and echoes until nothing more comes, or the socket takes no more.
    fn turn(&mut self, buffer: &mut [u8]) -> Result<()> {
        while self.flush()? {
            let count = match self.socket.read(buffer) {
                Ok(0) => bail!("it has ended"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            match &mut self.state {
                State::Bytes => {
                    let written = match self.socket.write(&buffer[..count]) {
                        Ok(written) => written,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                        Err(error) => return Err(error.into()),
                    };
                    self.out.extend_from_slice(&buffer[written..count]);
                }
                State::Frames(unmask) => unmask.echo(&mut buffer[..count], &mut self.out)?,
                State::Head(head) => {
                    head.extend_from_slice(&buffer[..count]);
                    if let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                        let early = head.split_off(end + 4);
                        self.out = answer(head)?;
                        let mut unmask = Unmask::default();
                        unmask.echo(&mut { early }, &mut self.out)?;
                        self.state = State::Frames(unmask);
                    } else if head.len() > MAX_HEAD {
                        bail!("a request without an end");
                    }
                }
            }
            // A read that did not fill the buffer took all there was: the next bytes are a new event, epoll(7).
            if count < buffer.len() {
                self.flush()?;
                break;
            }
        }
        Ok(())
    }

    /// Writes what is left; whether all of it went out.
    fn flush(&mut self) -> Result<bool> {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

/// The answer to an upgrade.
fn answer(head: &[u8]) -> Result<Vec<u8>> {
    let head = std::str::from_utf8(head)?;
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let Some(key) = key else { bail!("a request without a key") };
    let accept = derive_accept_key(key.as_bytes());
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes())
}

/// Makes frames of a server of those of a client, in whatever pieces they come.
#[derive(Debug, Default)]
struct Unmask {
    header: [u8; MAX_HEADER],
    have: usize,
    /// Bytes of the present frame's payload that are still to come.
    left: u64,
    /// The mask, turned to the next byte.
    mask: [u8; 4],
}

impl Unmask {
    fn echo(&mut self, mut input: &mut [u8], out: &mut Vec<u8>) -> Result<()> {
        while !input.is_empty() {
            if self.left > 0 {
                let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
                let (piece, rest) = input.split_at_mut(take);
                if self.mask != [0; 4] {
                    let (words, tail) = piece.as_chunks_mut::<4>();
                    for word in words {
                        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(self.mask)).to_ne_bytes();
                    }
                    tail.iter_mut().zip(self.mask).for_each(|(byte, mask)| *byte ^= mask);
                    self.mask.rotate_left(take % 4);
                }
                out.extend_from_slice(piece);
                self.left -= take as u64;
                input = rest;
                continue;
            }
            self.header[self.have] = input[0];
            self.have += 1;
            input = &mut input[1..];
            self.begin(out)?;
        }
        Ok(())
    }

    /// Begins the next frame, once its header is whole.
    fn begin(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let [first, second, rest @ ..] = &self.header;
        if self.have < 2 {
            return Ok(());
        }
        if second & 0x80 == 0 {
            bail!("a client masks");
        }
        let length = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.have < 2 + length + 4 {
            return Ok(());
        }
        self.left = match length {
            0 => u64::from(second & 0x7f),
            _ => rest[..length].iter().fold(0, |value, &byte| value << 8 | u64::from(byte)),
        };
        self.mask.copy_from_slice(&rest[length..length + 4]);
        // A ping is answered by a pong; all else is said back, a close too.
        out.push(if first & 0x0f == 9 { first + 1 } else { *first });
        out.push(second & 0x7f);
        out.extend_from_slice(&rest[..length]);
        self.have = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::{Kind, ws_frame};

    use super::*;

    proptest! {
        #[test]
        fn frames_come_back_unmasked_in_any_pieces(
            messages in prop::collection::vec((any::<[u8; 4]>(), prop::collection::vec(any::<u8>(), 0..300)), 0..8),
            piece in 1usize..400,
        ) {
            let (mut input, mut expected) = (Vec::new(), Vec::new());
            for (mask, message) in &messages {
                let at = expected.len();
                ws_frame::put(&mut expected, Kind::Binary, message);
                let header = expected.len() - at - message.len();
                input.extend_from_slice(&expected[at..at + header]);
                let second = input.len() - header + 1;
                input[second] |= 0x80;
                input.extend_from_slice(mask);
                input.extend(message.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
            }
            let (mut unmask, mut out) = (Unmask::default(), Vec::new());
            for piece in input.chunks_mut(piece) {
                unmask.echo(piece, &mut out).unwrap();
            }
            prop_assert_eq!(out, expected);
        }
    }
}
