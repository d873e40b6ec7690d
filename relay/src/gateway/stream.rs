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
    task::coop::has_budget_remaining,
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

/// Whether the waker of a task lies with a socket that it reads. It lies there until something comes, so a task that is
/// woken by something else need not leave it again. It is for one task and one socket.
#[derive(Debug, Default)]
pub struct Awaited(bool);

/// Bytes in and out, with the least that lies between them and the system: half of what a small message costs the
/// relay itself is how it is read and written.
pub trait Passing: AsyncRead + AsyncWrite + Unpin {
    /// Reads what is there; 0 at the end.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        awaited: &mut Awaited,
    ) -> Poll<io::Result<usize>>;

    /// Writes what is taken.
    fn poll_give(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
}

impl Passing for Connection {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        awaited: &mut Awaited,
    ) -> Poll<io::Result<usize>> {
        if self.has_read_ahead() {
            Poll::Ready(self.try_read(buffer))
        } else {
            take(self.socket(), cx, buffer, awaited)
        }
    }

    fn poll_give(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        give(self.socket(), cx, bytes)
    }
}

impl Passing for Stream {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        awaited: &mut Awaited,
    ) -> Poll<io::Result<usize>> {
        if let Self::Tcp(socket) = self {
            return take(socket, cx, buffer, awaited);
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
fn take(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
    awaited: &mut Awaited,
) -> Poll<io::Result<usize>> {
    let whole = buffer.len();
    loop {
        let read = || {
            // It was ready, for whatever it was, and woke whoever waited.
            awaited.0 = false;
            Ok(recv(socket, &mut *buffer, RecvFlags::empty())?.0)
        };
        if let Some(outcome) = attempt(Interest::READABLE, socket, whole, read) {
            return Poll::Ready(outcome);
        }
        if awaited.0 {
            return Poll::Pending;
        }
        // Whose turn was long enough is told to come again, and its waker is not kept.
        let is_kept = has_budget_remaining();
        let ready = socket.poll_read_ready(cx);
        awaited.0 = is_kept && ready.is_pending();
        ready!(ready)?;
    }
}

fn give(socket: &TcpStream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        let write = || Ok(send(socket, bytes, SendFlags::NOSIGNAL)?);
        if let Some(outcome) = attempt(Interest::WRITABLE, socket, bytes.len(), write) {
            return Poll::Ready(outcome);
        }
        ready!(socket.poll_write_ready(cx))?;
    }
}

/// Does something with a socket, if it is ready. When less than `whole` came of it, there is no more at the moment: the
/// system will say when there is (epoll(7), edge-triggered), so it is not asked.
fn attempt(
    interest: Interest,
    socket: &TcpStream,
    whole: usize,
    mut act: impl FnMut() -> io::Result<usize>,
) -> Option<io::Result<usize>> {
    loop {
        let mut done = None;
        let acted = socket.try_io(interest, || {
            let count = act()?;
            done = Some(count);
            // What is told here is that the socket is not ready any more, not that nothing was done.
            if 0 < count && count < whole { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (done, acted) {
            (Some(count), _) => return Some(Ok(count)),
            (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return None,
            (None, Err(error)) if error.kind() != io::ErrorKind::Interrupted => return Some(Err(error)),
            (None, _) => {}
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

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Wake, Waker},
    };

    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    /// How often a task was woken.
    #[derive(Debug, Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A task that reads, which has its turns as a law says.
    struct Reader {
        near: TcpStream,
        far: TcpStream,
        woken: Arc<Woken>,
        awaited: Awaited,
    }

    impl Reader {
        async fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (far, _) = listener.accept().await.unwrap();
            Self { near, far, woken: Arc::default(), awaited: Awaited::default() }
        }

        fn turn(&mut self) -> Poll<usize> {
            let waker = Waker::from(Arc::clone(&self.woken));
            let count = take(&self.near, &mut Context::from_waker(&waker), &mut [0; 64], &mut self.awaited);
            count.map(|count| count.unwrap())
        }

        async fn something_comes(&mut self) {
            self.far.write_all(b"something").await.unwrap();
            self.near.readable().await.unwrap();
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn a_task_that_left_its_waker_once_is_woken_whenever_something_comes() {
        let mut reader = Reader::new().await;
        for round in 1..4 {
            for _ in 0..3 {
                assert!(reader.turn().is_pending());
            }
            reader.something_comes().await;
            assert_eq!(reader.woken(), round);
            assert_eq!(reader.turn(), Poll::Ready(9));
        }
    }

    #[tokio::test]
    async fn a_task_that_was_woken_for_nothing_is_woken_when_something_comes() {
        let mut reader = Reader::new().await;
        assert!(reader.turn().is_pending());
        reader.something_comes().await;
        let taken_by_another = recv(&reader.near, &mut [0; 64][..], RecvFlags::empty()).unwrap().0;
        assert_eq!(taken_by_another, 9);
        assert!(reader.turn().is_pending());
        reader.something_comes().await;
        assert_eq!(reader.woken(), 2);
        assert_eq!(reader.turn(), Poll::Ready(9));
    }

    #[tokio::test]
    async fn a_task_whose_turn_was_over_is_woken_when_something_comes() {
        let mut reader = Reader::new().await;
        poll_fn(|cx| {
            while has_budget_remaining() {
                assert!(reader.near.poll_write_ready(cx).is_ready());
            }
            assert!(reader.turn().is_pending());
            Poll::Ready(())
        })
        .await;
        tokio::task::yield_now().await;
        assert_eq!(reader.woken(), 1, "it has to come again");
        assert!(reader.turn().is_pending());
        reader.something_comes().await;
        assert_eq!(reader.woken(), 2);
        assert_eq!(reader.turn(), Poll::Ready(9));
    }
}
