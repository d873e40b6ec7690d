//! What a relay prints once it listens: where it is, and lines that can be pasted.

use std::{fmt::Write as _, net::SocketAddr};

use shared::{client::DEFAULT_PORT, units::format_size};

use crate::{
    config::Config,
    listener::{Accepts, ListenerSettings},
};

/// What is known before the addresses are bound.
#[derive(Debug)]
pub struct Ready {
    listeners: Vec<ListenerSettings>,
    history: u64,
}

impl Ready {
    /// Of a relay with this configuration.
    pub fn of(config: &Config) -> Self {
        let history =
            config.store.retention.last().map_or(config.store.memory, |(_, retention)| retention.bytes);
        Self { listeners: config.listeners.clone(), history }
    }

    /// The block; its first line alone says the version and the real addresses, in the order of the configuration.
    pub fn block(&self, addresses: &[SocketAddr]) -> String {
        let list = addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
        let mut block = format!("relay {} ready on {list}", env!("CARGO_PKG_VERSION"));
        let of_kind = |kinds: &[Accepts]| {
            let mut bound = self.listeners.iter().zip(addresses);
            bound.find(|(listener, _)| kinds.contains(&listener.accepts)).map(|(_, address)| *address)
        };
        let front = of_kind(&[Accepts::Everything, Accepts::Http]);
        let mut line = |what: &str, how: String| {
            // Writing to a text does not fail.
            let _ = write!(block, "\n  {what:<10} {how}");
        };
        if let Some(address) = front {
            line("page", format!("http://{address}/"));
        }
        let client = |address: SocketAddr| match (address.ip().is_loopback(), address.port()) {
            (true, DEFAULT_PORT) => "--channel foo".to_owned(),
            _ => format!("--relay {address} --channel foo"),
        };
        if let Some(address) = of_kind(&[Accepts::Everything]) {
            let nc = format!("echo hello | nc -N {} {}", address.ip(), address.port());
            line("send", format!("{nc:<37} send-client {}", client(address)));
        }
        if let Some(address) = front {
            let receiver = format!("recv-client {}", client(address));
            line("receive", format!("{receiver:<37} ws://{address}/c/foo"));
        }
        for (listener, address) in self.listeners.iter().zip(addresses) {
            if listener.accepts == Accepts::Raw {
                let raw = &listener.raw;
                line("raw", format!("{address} → channel {}, framing {}", raw.channel, raw.framing));
            }
        }
        line("keeps", format!("{} per channel, in memory", format_size(self.history)));
        let everyone = addresses.iter().any(|address| !address.ip().is_loopback());
        let reach = if everyone { "everyone who can reach it" } else { "this machine only" };
        line("open to", format!("{reach}, no token needed"));
        block
    }
}
