//! Bare sockets: what the kernel does for anyone between two connections. What one side sends is written to the other
//! as it comes; no protocol, no counts, no waits. No proxy that reads and writes its sockets costs less.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read as _, Write as _},
    net::SocketAddr,
};

use anyhow::Result;
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};

/// Bytes of one read.
const READ: usize = 256 * 1024;

const LISTENER: Token = Token(0);

/// One side of a proxied connection. Its other side has the number beside its own.
#[derive(Debug)]
struct Side {
    socket: TcpStream,
    /// What came from the other side, and the socket did not take.
    out: Vec<u8>,
}

/// Proxies until it is ended.
pub(crate) fn serve(address: SocketAddr, upstream: SocketAddr) -> Result<()> {
    let mut listener = TcpListener::bind(address)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let (mut events, mut buffer) = (Events::with_capacity(1024), vec![0; READ]);
    let (mut pairs, mut next) = (HashMap::new(), 2);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((client, _)) = listener.accept() {
                    let mut pair = [client, TcpStream::connect(upstream)?]
                        .map(|socket| Side { socket, out: Vec::new() });
                    for (side, token) in pair.iter_mut().zip(next..) {
                        side.socket.set_nodelay(true)?;
                        let both = Interest::READABLE | Interest::WRITABLE;
                        poll.registry().register(&mut side.socket, Token(token), both)?;
                    }
                    pairs.insert(next, pair);
                    next += 2;
                }
                continue;
            }
            let (pair, side) = (event.token().0 & !1, event.token().0 & 1);
            let Some(sides) = pairs.get_mut(&pair) else { continue };
            let [one, other] = sides;
            let (side, other) = if side == 0 { (one, other) } else { (other, one) };
            let mut passed = Ok(());
            if event.is_writable() && !side.out.is_empty() {
                passed = pass(other, side, &mut buffer);
            }
            if event.is_readable() {
                passed = passed.and_then(|()| pass(side, other, &mut buffer));
            }
            if passed.is_err() {
                pairs.remove(&pair);
            }
        }
    }
}

/// Passes on what there is, as far as it is taken.
fn pass(from: &mut Side, to: &mut Side, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        let written = write(&mut to.socket, &to.out)?;
        to.out.drain(..written);
        if !to.out.is_empty() {
            return Ok(());
        }
        let count = match from.socket.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if waits(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let written = write(&mut to.socket, &buffer[..count])?;
        to.out.extend_from_slice(&buffer[written..count]);
        // A read that did not fill the buffer took all there was: the next bytes are a new event, epoll(7).
        if count < buffer.len() {
            return Ok(());
        }
    }
}

/// Writes what is taken; how much that is.
fn write(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match socket.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if waits(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// Whether there will be an event when it can go on; a socket that is not connected yet is one of that kind.
fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}
