//! Servers that say back what comes as WebSocket messages.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use super::{Head, read_head};

/// A server that says back each message, behind its name, and each plain request's first line.
#[derive(Debug)]
pub struct Echo {
    address: Option<SocketAddr>,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    subprotocol: Option<String>,
    heads: Mutex<Vec<Head>>,
}

impl Echo {
    /// Says back what comes as it came.
    pub async fn start() -> Self {
        Self::named("").await
    }

    /// Says its name before each text that it says back.
    pub async fn named(name: &str) -> Self {
        Self::tcp(name, None).await
    }

    /// Chooses this subprotocol.
    pub async fn with_subprotocol(subprotocol: &str) -> Self {
        Self::tcp("", Some(subprotocol)).await
    }

    async fn tcp(name: &str, subprotocol: Option<&str>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        Self::on(listener, name, subprotocol)
    }

    /// Takes this listener, for an upstream that comes back where it was.
    pub fn on(listener: TcpListener, name: &str, subprotocol: Option<&str>) -> Self {
        let address = listener.local_addr().expect("it listens");
        let mut echo = Self::new(name, subprotocol);
        let shared = Arc::clone(&echo.shared);
        echo._tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        echo.address = Some(address);
        echo
    }

    /// Listens at a path.
    pub fn unix(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("a path that is free");
        let mut echo = Self::new("", None);
        let shared = Arc::clone(&echo.shared);
        echo._tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        echo
    }

    /// Speaks TLS.
    pub async fn tls(acceptor: tokio_rustls::TlsAcceptor) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let mut echo = Self::new("", None);
        echo.address = listener.local_addr().ok();
        let shared = Arc::clone(&echo.shared);
        echo._tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    // A client that does not trust the certificate ends it here.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, shared).await;
                    }
                });
            }
        });
        echo
    }

    fn new(name: &str, subprotocol: Option<&str>) -> Self {
        let (name, subprotocol) = (name.to_owned(), subprotocol.map(str::to_owned));
        let shared = Arc::new(Shared { name, subprotocol, heads: Mutex::default() });
        Self { address: None, shared, _tasks: JoinSet::new() }
    }

    /// Where it listens.
    ///
    /// # Panics
    /// If it listens at a path.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("it listens on TCP")
    }

    /// The requests that came so far.
    pub fn heads(&self) -> Vec<Head> {
        self.shared.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last request that came.
    pub fn last_head(&self) -> Head {
        self.heads().pop().expect("a request has come")
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let mut read = BytesMut::new();
    let Ok(head) = read_head(&mut stream, &mut read).await else { return };
    shared.heads.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
    if head.values("upgrade").is_empty() {
        let body = format!("{}{}", shared.name, head.line());
        let answer = format!(
            "HTTP/1.1 200 OK\r\nX-Upstream: yes\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
        return;
    }
    let chosen = shared.subprotocol.as_ref().map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
    if stream.write_all(head.upgrade(&chosen.unwrap_or_default()).as_bytes()).await.is_err() {
        return;
    }
    let mut socket = WebSocketStream::from_partially_read(stream, read.to_vec(), Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        let back = match message {
            Message::Text(text) if !shared.name.is_empty() => Message::text(format!("{}{text}", shared.name)),
            Message::Text(_) | Message::Binary(_) => message,
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {
                // tungstenite answers these by itself, with the next flush.
                if socket.flush().await.is_err() {
                    break;
                }
                continue;
            }
        };
        if socket.send(back).await.is_err() {
            break;
        }
    }
}
