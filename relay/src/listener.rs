//! Accepts connections and passes them on. Never reads of them: that takes a permit and a task, which are not its.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::net::TcpListener;
use tracing::warn;

use crate::reception::{ListenerSettings, Reception};

/// A bound address.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    settings: Arc<ListenerSettings>,
}

/// Connections that the system may hold for us until they are accepted.
const BACKLOG: i32 = 4096;

impl Listener {
    /// Binds the address.
    ///
    /// # Errors
    /// What the system says: in use, not ours, not allowed.
    pub fn bind(settings: ListenerSettings) -> io::Result<Self> {
        let address = settings.address;
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self { socket: TcpListener::from_std(socket.into())?, settings: Arc::new(settings) })
    }

    /// The address, with the real port.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until the relay stops.
    pub async fn run(self, reception: Arc<Reception>) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = reception.stopping() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => reception.receive(socket, peer, &self.settings),
                Err(e) if is_of_one_connection(&e) => {}
                Err(e) => {
                    // No descriptors or memory left: trying again at once would only burn the processor.
                    warn!("cannot accept connections: {e}");
                    tokio::select! {
                        () = reception.stopping() => return,
                        () = tokio::time::sleep(reception.accept_pause()) => {}
                    }
                }
            }
        }
    }
}

/// Errors of `accept` that are about the one connection, which is gone (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
