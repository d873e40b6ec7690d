//! An accepted connection: its socket, the bytes that were read while it was told what it is, its place among all.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};

/// Bytes read from a sender at a time: so many that short lines, with the headers of their frames, are a chunk and not
/// a little more.
pub const SENDER_READ: usize = 60 * 1024;

/// Reads of a sender that always has more, before its receivers get their turn: so many make their writes large, and
/// what was read is still in the processor's cache then.
pub const SENDER_TURN: usize = 4;

/// A connection, from accept to its end.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    /// Read already, to be read again first.
    read_ahead: Bytes,
    batch_delay: Duration,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Takes an accepted socket; the permit is given back when the connection is dropped. `batch_delay` is what its
    /// listener wants of receivers.
    ///
    /// # Errors
    /// If the socket is gone already.
    pub fn new(socket: TcpStream, permit: OwnedSemaphorePermit, batch_delay: Duration) -> io::Result<Self> {
        let (peer, local) = (socket.peer_addr()?, socket.local_addr()?);
        Ok(Self { socket, peer, local, read_ahead: Bytes::new(), batch_delay, _permit: permit })
    }

    /// Who is at the other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The address that it came to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// How long a receiver waits after each write, so that what is published meanwhile goes out together.
    pub fn batch_delay(&self) -> Duration {
        self.batch_delay
    }

    /// The socket, for readiness and for writing.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Gives bytes back, to be read first.
    pub fn unread(&mut self, bytes: Bytes) {
        self.read_ahead = if self.read_ahead.is_empty() {
            bytes
        } else {
            [bytes, std::mem::take(&mut self.read_ahead)].concat().into()
        };
    }

    /// Whether bytes can be read without the socket.
    pub fn has_read_ahead(&self) -> bool {
        self.read_ahead.has_remaining()
    }

    /// Waits until there is something to read, or the end.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn readable(&self) -> io::Result<()> {
        if self.has_read_ahead() { Ok(()) } else { self.socket.readable().await }
    }

    /// Reads at most [`SENDER_READ`] bytes of what is there, without waiting, and shows them; none at the end.
    /// The buffer belongs to the worker, not to the connection.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there, else what the socket says.
    pub fn read_with<T>(&mut self, show: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        thread_local! {
            static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SENDER_READ].into());
        }
        BUFFER.with_borrow_mut(|buffer| {
            let count = self.try_read(buffer)?;
            Ok(show(&buffer[..count]))
        })
    }

    /// Half-closes, and lets the peer read what was written before anything can reset the connection.
    pub async fn linger(&mut self, patience: Duration) {
        let _ = self.shutdown().await;
        let mut rest = Vec::with_capacity(4096);
        let drained = async {
            while matches!(self.read_buf(&mut rest).await, Ok(count) if count > 0) {
                rest.clear();
            }
        };
        let _ = tokio::time::timeout(patience, drained).await;
    }

    /// Reads what is there, without waiting; 0 at the end.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there, else what the socket says.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read_ahead.has_remaining() {
            let count = buffer.len().min(self.read_ahead.len());
            self.read_ahead.copy_to_slice(&mut buffer[..count]);
            if self.read_ahead.is_empty() {
                self.read_ahead = Bytes::new();
            }
            return Ok(count);
        }
        self.socket.try_read(buffer)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_ahead.has_remaining() {
            let count = buffer.remaining().min(self.read_ahead.len());
            buffer.put_slice(&self.read_ahead.split_to(count));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
