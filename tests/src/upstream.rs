//! Upstreams of the gateway: [`Echo`] serves WebSockets by itself, also over TLS and unix sockets; [`Upstream`] does
//! what its test says, right or wrong; [`TcpEcho`] speaks bytes, [`deaf`] accepts nobody.

mod echo;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use rustix::io::Errno;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub use self::echo::Echo;

use crate::{
    frames::{Frame, mask},
    within,
};

/// Bytes that a request may have here.
const MAX_HEAD: usize = 64 * 1024;

/// A request as it came, status line and headers, until the empty line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head(String);

impl Head {
    /// Its first line.
    pub fn line(&self) -> &str {
        self.0.lines().next().unwrap_or_default()
    }

    /// All values of a header, in their order.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let pairs = self.0.lines().skip(1).filter_map(|line| line.split_once(':'));
        pairs.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    /// The answer that upgrades; `more` are headers, each with its line end.
    pub fn upgrade(&self, more: &str) -> String {
        let key = self.values("sec-websocket-key").first().copied().unwrap_or_default();
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{more}\r\n",
            derive_accept_key(key.as_bytes())
        )
    }
}

/// A server that does what its test says.
#[derive(Debug)]
pub struct Upstream {
    listener: TcpListener,
}

/// A connection of the gateway to an [`Upstream`], the request of which has come.
#[derive(Debug)]
pub struct Peer {
    /// The request.
    pub head: Head,
    stream: TcpStream,
    read: BytesMut,
}

impl Upstream {
    /// Listens on a free port.
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port") }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("it listens")
    }

    /// The next connection, of which nothing is read.
    pub async fn connection(&self) -> TcpStream {
        within("the gateway to connect", self.listener.accept()).await.expect("it listens").0
    }

    /// The next connection with its request.
    pub async fn request(&self) -> Peer {
        let mut stream = self.connection().await;
        let mut read = BytesMut::new();
        let head = within("a request of the gateway", read_head(&mut stream, &mut read)).await;
        Peer { head: head.expect("a request"), stream, read }
    }

    /// The next connection, upgraded.
    pub async fn upgraded(&self) -> Peer {
        let mut peer = self.request().await;
        peer.write(peer.head.upgrade("")).await;
        peer
    }
}

impl Peer {
    /// Writes bytes of any kind. What the gateway no longer reads shows in what it does next.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within("the gateway to read", self.stream.write_all(bytes.as_ref())).await;
    }

    /// Sends a frame: its first byte (FIN, reserved bits, opcode) and its payload.
    pub async fn send(&mut self, first: u8, payload: &[u8]) {
        self.write(server_frame(first, payload)).await;
    }

    /// The next frame, its mask taken off; none at the end of the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((header, length)) = client_header(&self.read)
                && self.read.len() >= header + length
            {
                let first = self.read[0];
                assert!(self.read[1] & 0x80 != 0, "a client masks");
                let key = self.read[header - 4..header].try_into().expect("four bytes");
                self.read.advance(header);
                let mut payload = self.read.split_to(length).to_vec();
                mask(&mut payload, key);
                return Some(Frame { first, payload });
            }
            if !self.read_more().await {
                return None;
            }
        }
    }

    /// Expects this frame next.
    pub async fn expect(&mut self, first: u8, payload: &[u8]) {
        let frame = self.frame().await.expect("a frame before the end");
        assert_eq!(frame.first, first, "the first byte of a frame with {} B", frame.payload.len());
        assert!(frame.payload == payload, "another payload of {} B", frame.payload.len());
    }

    /// Reads bytes as they are until there are so many, or the end; gives them.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count && self.read_more().await {}
        self.read.split_to(count.min(self.read.len())).to_vec()
    }

    /// Waits until the gateway has ended its side; what came before is dropped.
    pub async fn ended(&mut self) {
        while self.read_more().await {
            self.read.clear();
        }
    }

    /// Sends the FIN: it has no more to say.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// The connection itself, for bytes of any kind. What was read already is dropped.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Ends the connection by a reset, whatever was sent.
    pub fn reset(self) {
        reset(self.stream);
    }

    async fn read_more(&mut self) -> bool {
        within("bytes of the gateway", self.stream.read_buf(&mut self.read)).await.is_ok_and(|n| n > 0)
    }
}

/// Ends a connection by a reset, whatever was sent.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket can linger");
}

/// The bytes of a frame that is not masked.
pub fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        n @ 0..=125 => bytes.push(n as u8),
        n @ 126..=0xffff => {
            bytes.push(126);
            bytes.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            bytes.push(127);
            bytes.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// The length of a masked frame's header with its mask, and that of its payload.
fn client_header(bytes: &[u8]) -> Option<(usize, usize)> {
    let (header, length) = match *bytes.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, usize::from(short)),
    };
    Some((header + 4, length))
}

/// Reads a request; what came behind it stays in `read`.
async fn read_head(stream: &mut (impl AsyncRead + Unpin), read: &mut BytesMut) -> io::Result<Head> {
    loop {
        if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = read.split_to(end + 4);
            return Ok(Head(String::from_utf8_lossy(&head).into_owned()));
        }
        if read.len() > MAX_HEAD || stream.read_buf(read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A server that says back every byte, and ends its side when the other has ended its own.
#[derive(Debug)]
pub struct TcpEcho {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl TcpEcho {
    /// Listens on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = write.shutdown().await;
                });
            }
        });
        Self { address, _tasks: tasks }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// An address where connections neither succeed nor fail: somebody listens who accepts nobody, and those who wait
/// to be accepted are as many as there may be.
#[derive(Debug)]
pub struct Deaf {
    address: SocketAddr,
    _sockets: Vec<Socket>,
}

/// Fills the queue of a listener.
pub fn deaf() -> Deaf {
    let socket = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        socket
    };
    let listener = socket();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    listener.listen(0).expect("it can listen");
    let address = listener.local_addr().ok().and_then(|a| a.as_socket()).expect("it listens");
    let mut sockets = vec![listener];
    // A queue of 0 takes one; whatever a system makes of it, there is one that no longer gets in.
    for _ in 0..64 {
        let client = socket();
        let begun = client.connect(&address.into());
        let begun = begun.is_err_and(|e| e.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()));
        // On loopback a connection is there at once or, with a full queue, not at all.
        let waits = begun && client.peer_addr().is_err();
        sockets.push(client);
        if waits {
            return Deaf { address, _sockets: sockets };
        }
    }
    panic!("a listener's queue has no end");
}

impl Deaf {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// An address that refuses connections, as long as nobody else takes its port.
pub fn refusing() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, crate::relay::lasting_port()))
}
