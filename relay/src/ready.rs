//! What a relay prints once it listens: where it is, and lines that can be pasted.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use shared::{client::DEFAULT_PORT, units::format_size};

use crate::{
    config::Config,
    reception::{Accepts, ListenerSettings},
};

/// What is known before the addresses are bound.
#[derive(Debug)]
pub struct Ready {
    listeners: Vec<ListenerSettings>,
    history: u64,
    data: Option<PathBuf>,
    /// What the gateway leads where.
    routes: Vec<String>,
}

/// Routes that are told of one by one.
const ROUTES: usize = 8;

impl Ready {
    /// Of a relay with this configuration.
    pub fn of(config: &Config) -> Self {
        let history =
            config.store.retention.last().map_or(config.store.memory, |(_, retention)| retention.bytes);
        let routes = config.gateway.routes.iter().map(|route| {
            let upstreams: Vec<String> = route.upstreams.iter().map(ToString::to_string).collect();
            format!("{} → {}", route.path, upstreams.join(", "))
        });
        Self {
            listeners: config.listeners.clone(),
            history,
            data: config.data.clone(),
            routes: routes.collect(),
        }
    }

    /// The block; its first line alone says the version and the real addresses, in the order of the configuration.
    pub fn block(&self, addresses: &[SocketAddr]) -> String {
        let list = addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
        let mut block = format!("relay {} ready on {list}", env!("CARGO_PKG_VERSION"));
        let of_kind = |kinds: &[Accepts]| {
            let mut bound = self.listeners.iter().zip(addresses);
            bound.find(|(listener, _)| kinds.contains(&listener.accepts)).map(|(_, address)| *address)
        };
        let front = of_kind(&[Accepts::Everything, Accepts::Http]).map(reachable);
        let client = |program: &str, address: SocketAddr| match (address.ip().is_loopback(), address.port()) {
            (true, DEFAULT_PORT) => format!("{program} --channel foo"),
            _ => format!("{program} --relay {address} --channel foo"),
        };
        let send = of_kind(&[Accepts::Everything]).map(reachable).map(|address| {
            let nc = format!("echo hello | nc -N {} {}", address.ip(), address.port());
            (nc, client("send-client", address))
        });
        let receive = front.map(|address| (client("recv-client", address), format!("ws://{address}/c/foo")));
        let first =
            [&send, &receive].into_iter().flatten().map(|(first, _)| first.len()).max().unwrap_or_default();
        let mut line = |what: &str, how: &str| {
            // Writing to a text does not fail.
            let _ = write!(block, "\n  {what:<10} {how}");
        };
        if let Some(address) = front {
            line("page", &format!("http://{address}/"));
        }
        for (what, ways) in [("send", &send), ("receive", &receive)] {
            if let Some((one, other)) = ways {
                line(what, &format!("{one:<first$}     {other}"));
            }
        }
        for (listener, address) in self.listeners.iter().zip(addresses) {
            if listener.accepts == Accepts::Raw {
                let raw = &listener.raw;
                line("raw", &format!("{address} → channel {}, framing {}", raw.channel, raw.framing));
            }
        }
        for route in self.routes.iter().take(ROUTES) {
            line("route", route);
        }
        if let Some(more) = self.routes.len().checked_sub(ROUTES).filter(|more| *more > 0) {
            line("route", &format!("and {more} more: relay routes"));
        }
        let place = match &self.data {
            Some(data) => format!("on disk in {}", data.display()),
            None => "in memory (--data DIR to keep them on disk)".into(),
        };
        line("keeps", &format!("{} per channel, {place}", format_size(self.history)));
        let everyone = addresses.iter().any(|address| !address.ip().is_loopback());
        let reach = if everyone { "everyone who can reach it" } else { "this machine only" };
        line("open to", &format!("{reach}, no token needed"));
        block
    }
}

/// An address that this machine can be reached at: every address is no address to connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}
