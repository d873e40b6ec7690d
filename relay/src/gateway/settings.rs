//! What an operator says of the gateway and its routes, as types: each text has one door, which says what would be
//! right.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use hyper::header::{HeaderName, HeaderValue};
use ipnet::IpNet;
use shared::Kind;

use super::{path::Prefix, rules::RuleSettings, tap::TapSettings};
use crate::{senders::framing::Framing, tls::Authorities};

/// What holds for the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewaySettings {
    /// What holds for routes that do not say otherwise.
    pub defaults: RouteLimits,
    /// How long the other end of a connection that is closed may take to end its side.
    pub close: Duration,
    /// Silence on a connection to an upstream after which the system asks whether it is still there; at least 1 s.
    pub keepalive: Duration,
    /// The routes, in the order in which they were said; their prefixes differ.
    pub routes: Vec<RouteSettings>,
}

/// Limits and waits of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteLimits {
    /// How long an upstream may take to accept a connection, TLS included.
    pub connect_timeout: Duration,
    /// How long it may take to answer an upgrade or a request.
    pub upgrade_timeout: Duration,
    /// A connection on which nothing comes from either side for so long is closed.
    pub idle_timeout: Duration,
    /// How long an upstream that failed is passed over while there are others.
    pub rest: Duration,
    /// Connections at once.
    pub connections: usize,
    /// What becomes of open connections when the route is changed or removed.
    pub on_change: OnChange,
}

/// What becomes of the open connections of a route that is changed or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnChange {
    /// They go on to their end.
    Keep,
    /// They are closed with 1012.
    Drain,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSettings {
    /// Which paths are its.
    pub path: Prefix,
    /// Where they lead to: at least one, all of one [`Sort`].
    pub upstreams: Vec<Address>,
    /// Which upstream is tried first.
    pub balance: Balance,
    /// What takes the place of the prefix; none: the path goes on as it came.
    pub rewrite: Option<Prefix>,
    /// What the upstream is told as `Host`.
    pub host: HostHeader,
    /// Whether `X-Forwarded-For`, `-Proto` and `-Host` are said.
    pub forwarded: bool,
    /// Headers that are set on requests, in place of what the client says.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers of the client that do not go on.
    pub remove_headers: Vec<HeaderName>,
    /// Subprotocols that go on of those that are offered; none: all.
    pub subprotocols: Option<Vec<String>>,
    /// Whose pages may connect.
    pub origins: Origins,
    /// What is done with requests that are no upgrades.
    pub plain: Plain,
    /// Networks that may connect; none: all.
    pub allow: Option<Vec<IpNet>>,
    /// Networks that may not, whatever is allowed.
    pub deny: Vec<IpNet>,
    /// Paths below the route that are nobody's.
    pub deny_paths: Vec<Prefix>,
    /// Connections at once to each of its upstreams; none: as many as the route may have.
    pub upstream_connections: Option<usize>,
    /// Who vouches for upstreams of `wss`; none: whom the system trusts.
    pub ca: Option<Authorities>,
    /// With upstreams of bytes, where their messages end.
    pub framing: Framing,
    /// With upstreams of bytes, as what their messages go out.
    pub frames: Kind,
    /// With a framing that has boundaries, and with rules or a tap, the bytes that a message may have.
    pub max_message: usize,
    /// What is done with messages, in this order.
    pub rules: Vec<RuleSettings>,
    /// Where what passes is mirrored to.
    pub tap: Option<TapSettings>,
    /// Its limits and waits.
    pub limits: RouteLimits,
}

impl RouteSettings {
    /// Whether its messages are understood, and do not just pass.
    pub fn is_governed(&self) -> bool {
        !self.rules.is_empty() || self.tap.is_some()
    }

    /// Connections at once to each of its upstreams.
    pub fn seats(&self) -> usize {
        self.upstream_connections.unwrap_or(self.limits.connections)
    }
}

/// The origins whose pages may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Not said: for upstreams that speak WebSocket any, since they are told the origin and decide; for upstreams of
    /// bytes only those that may subscribe.
    Unsaid,
    /// Any.
    Any,
    /// These, as browsers send them.
    These(Vec<String>),
}

/// What is done with requests that are no upgrades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    /// They get 426.
    Refuse,
    /// They go to the same upstreams.
    Pass,
}

/// Which upstream is tried first; the others follow in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// The first.
    Order,
    /// Each in its turn.
    RoundRobin,
}

/// What the upstream is told as `Host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostHeader {
    /// What the client said.
    Pass,
    /// The upstream's own address.
    Upstream,
    /// This.
    Named(HeaderValue),
}

/// What an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// WebSocket, and HTTP.
    WebSocket,
    /// Bytes.
    Bytes,
}

/// Where an upstream is and what it speaks: `ws://host:port/base`, `wss://…`, `tcp://host:port`, `unix:/path`,
/// `ws+unix:/path` or `ws+unix:/path:/base`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// How it is connected to.
    pub place: Place,
    /// What it speaks.
    pub sort: Sort,
    /// What comes before the path; none for bytes.
    pub base: Prefix,
}

/// How an upstream is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A host, which is a name or an IP address without brackets, and a port.
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// Whether TLS is spoken there.
        tls: bool,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, sort, base } = self;
        match (place, sort) {
            (Place::Tcp { tls: true, .. }, _) => write!(f, "wss://{place}{base}"),
            (Place::Tcp { .. }, Sort::WebSocket) => write!(f, "ws://{place}{base}"),
            (Place::Tcp { .. }, Sort::Bytes) => write!(f, "tcp://{place}"),
            (Place::Unix(_), Sort::Bytes) => write!(f, "unix:{place}"),
            (Place::Unix(_), Sort::WebSocket) if base.is_root() => write!(f, "ws+unix:{place}"),
            (Place::Unix(_), Sort::WebSocket) => write!(f, "ws+unix:{place}:{base}"),
        }
    }
}

const FORMS: &str = "write it as ws://HOST:PORT, wss://HOST, tcp://HOST:PORT, unix:/PATH or ws+unix:/PATH, for example ws://127.0.0.1:3000";

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let place = unix_place(path)?;
            return Ok(Self { place, sort: Sort::Bytes, base: Prefix::default() });
        }
        if let Some(rest) = text.strip_prefix("ws+unix:") {
            let (path, base) =
                rest.split_once(":/").map_or((rest, ""), |(path, _)| (path, &rest[path.len() + 1..]));
            let base = base_path(base)?;
            return Ok(Self { place: unix_place(path)?, sort: Sort::WebSocket, base });
        }
        let (scheme, rest) = text.split_once("://").ok_or(FORMS)?;
        let (sort, tls, default_port) = match scheme {
            "ws" => (Sort::WebSocket, false, Some(80)),
            "wss" => (Sort::WebSocket, true, Some(443)),
            "tcp" => (Sort::Bytes, false, None),
            "http" => {
                return Err(
                    "write ws:// in place of http://: requests go there too with plain = \"pass\"".into()
                );
            }
            "https" => {
                return Err(
                    "write wss:// in place of https://: requests go there too with plain = \"pass\"".into()
                );
            }
            _ => return Err(FORMS.into()),
        };
        let (authority, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let base = base_path(base)?;
        if sort == Sort::Bytes && !base.is_root() {
            return Err("an address of tcp:// has no path".into());
        }
        let (host, port) = host_and_port(authority, default_port)?;
        Ok(Self { place: Place::Tcp { host, port, tls }, sort, base })
    }
}

impl Address {
    /// What a WebSocket server at this host and port is reached by.
    ///
    /// # Errors
    /// A text that says what would be a host.
    pub fn websocket(host: &str, port: u16) -> Result<Self, String> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let (host, port) = host_and_port(&format!("{host}:{port}"), None)?;
        let place = Place::Tcp { host, port, tls: false };
        Ok(Self { place, sort: Sort::WebSocket, base: Prefix::default() })
    }

    /// Whether TLS is spoken there.
    pub fn is_tls(&self) -> bool {
        matches!(self.place, Place::Tcp { tls: true, .. })
    }

    /// What it goes by in `Host`: without the port where that is the scheme's own.
    pub fn host_header(&self) -> String {
        match &self.place {
            Place::Unix(_) => "localhost".into(),
            Place::Tcp { port, tls, .. } => {
                let whole = self.place.to_string();
                let default = if *tls { 443 } else { 80 };
                let cut = if *port == default { format!(":{port}").len() } else { 0 };
                whole[..whole.len() - cut].to_owned()
            }
        }
    }
}

fn unix_place(path: &str) -> Result<Place, String> {
    // The length of a socket's name in the system's addresses, with its end.
    const LONGEST: usize = 107;
    if !path.starts_with('/') || path.contains('\0') {
        return Err("the path of a unix socket begins with /, for example unix:/run/app.sock".into());
    }
    if path.len() > LONGEST {
        return Err(format!("the path of a unix socket may have {LONGEST} bytes"));
    }
    Ok(Place::Unix(path.into()))
}

fn base_path(text: &str) -> Result<Prefix, String> {
    if text.is_empty() { Ok(Prefix::default()) } else { text.parse().map_err(|e| format!("its path: {e}")) }
}

fn host_and_port(authority: &str, default: Option<u16>) -> Result<(String, u16), String> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|&port| port > 0),
        None => Some(default.ok_or("its port is missing, for example tcp://127.0.0.1:23")?),
    };
    let port = port.ok_or("its port must be a number from 1 to 65535")?;
    let host = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner.to_owned(),
        None if !host.is_empty()
            && host.len() <= 253
            && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) =>
        {
            host.to_ascii_lowercase()
        }
        Some(_) | None => return Err("its host must be a name, an IPv4 address or an [IPv6 address]".into()),
    };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<Address, String> {
        text.parse()
    }

    #[test]
    fn an_address_is_written_as_it_is_read() {
        for text in [
            "ws://127.0.0.1:3000",
            "wss://example.org:443",
            "ws://[::1]:80/base/path",
            "tcp://serial.local:23",
            "unix:/run/vnc.sock",
            "ws+unix:/run/app.sock",
            "ws+unix:/run/app.sock:/base",
        ] {
            assert_eq!(address(text).unwrap().to_string(), text);
        }
        assert_eq!(address("wss://Example.org/").unwrap().to_string(), "wss://example.org:443");
    }

    #[test]
    fn what_is_no_address_says_what_would_be_one() {
        for (text, says) in [
            ("127.0.0.1:3000", "ws://HOST:PORT"),
            ("http://127.0.0.1:3000", "in place of http://"),
            ("tcp://127.0.0.1", "port is missing"),
            ("ws://127.0.0.1:0", "1 to 65535"),
            ("ws://:80", "host must be"),
            ("ws://a b:80", "host must be"),
            ("tcp://a:1/x", "has no path"),
            ("unix:run/x", "begins with /"),
            ("ws://a/%zz", "its path"),
        ] {
            let error = address(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn host_leaves_the_schemes_own_port_out() {
        let host = |text: &str| address(text).unwrap().host_header();
        assert_eq!(host("ws://a"), "a");
        assert_eq!(host("ws://a:443"), "a:443");
        assert_eq!(host("wss://a"), "a");
        assert_eq!(host("ws://[::1]:3000"), "[::1]:3000");
        assert_eq!(host("ws+unix:/a"), "localhost");
    }
}
