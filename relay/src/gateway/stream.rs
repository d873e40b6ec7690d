//! A connection to an upstream, whatever it runs on, and the buffer that the connections of a worker share.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

use crate::{connection::Connection, tls::ClientStream};

/// A connection to an upstream.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A socket in the file system.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<ClientStream>),
}

/// Whether the other end of a connection still takes what is written to it. What it says counts all the same: it may have
/// said it before, and it may be still on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ear {
    /// It does, or nothing else is known.
    Open,
    /// It takes no more.
    Deaf,
    /// The same, and its connection has failed: an end of what it says is none that was meant.
    Failed,
}

impl Ear {
    /// As an error in writing tells. After an end that was meant a pipe is broken; whatever else it is, the system says it
    /// but once, and to whoever reads it is an end then.
    pub fn of(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Deaf } else { Self::Failed }
    }
}

/// Bytes that are read of a connection at a time.
pub const BUFFER: usize = 256 * 1024;

/// Lends the buffer of the worker: it belongs to none of the connections, so that those that rest cost nothing for
/// it. What is not passed on within the turn has to be kept elsewhere.
pub fn with_buffer<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
    }
    SHARED.with_borrow_mut(|buffer| use_it(buffer))
}

/// Bytes in and out, with the least that lies between them and the system: half of what a small message costs the
/// relay itself is how it is read and written.
pub trait Passing: AsyncRead + AsyncWrite + Unpin {
    /// Reads what is there; 0 at the end.
    fn poll_take(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Writes what is taken.
    fn poll_give(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
}

impl Passing for Connection {
    fn poll_take(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.has_read_ahead() {
            Poll::Ready(self.try_read(buffer))
        } else {
            take(self.socket(), cx, buffer)
        }
    }

    fn poll_give(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        give(self.socket(), cx, bytes)
    }
}

impl Passing for Stream {
    fn poll_take(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Self::Tcp(socket) = self {
            return take(socket, cx, buffer);
        }
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(self).poll_read(cx, &mut read))?;
        Poll::Ready(Ok(read.filled().len()))
    }

    fn poll_give(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(socket) => give(socket, cx, bytes),
            Self::Unix(_) | Self::Tls(_) => Pin::new(self).poll_write(cx, bytes),
        }
    }
}

/// Reads by a system call of its own: the C library's is a point where a thread may be cancelled, which costs more
/// than all else here.
fn take(socket: &TcpStream, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
    attempt(Interest::READABLE, socket, cx, buffer.len(), || {
        Ok(recv(socket, &mut *buffer, RecvFlags::empty())?.0)
    })
}

fn give(socket: &TcpStream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    attempt(Interest::WRITABLE, socket, cx, bytes.len(), || Ok(send(socket, bytes, SendFlags::NOSIGNAL)?))
}

/// Does something with a socket that is ready. When less than `whole` came of it, there is no more at the moment: the
/// system will say when there is (epoll(7), edge-triggered), so it is not asked.
fn attempt(
    interest: Interest,
    socket: &TcpStream,
    cx: &mut Context<'_>,
    whole: usize,
    mut act: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        let ready =
            if interest.is_readable() { socket.poll_read_ready(cx) } else { socket.poll_write_ready(cx) };
        ready!(ready)?;
        let mut done = None;
        let acted = socket.try_io(interest, || {
            let count = act()?;
            done = Some(count);
            // What is told here is that the socket is not ready any more, not that nothing was done.
            if 0 < count && count < whole { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (done, acted) {
            (Some(count), _) => return Poll::Ready(Ok(count)),
            (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            (None, Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            (None, Err(error)) => return Poll::Ready(Err(error)),
            (None, Ok(())) => {}
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
