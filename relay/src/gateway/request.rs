//! What an upstream is asked, out of what the client asked: the path, the headers, the subprotocols. Pure.

use std::net::SocketAddr;

use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};

use super::settings::{Address, HostHeader, RouteSettings};

/// Headers that are about one connection and not about what is asked (RFC 9110, section 7.6.1).
const OF_THE_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Whether an upgrade is asked for, or something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// An upgrade to WebSocket, whose messages pass as they are.
    Upgrade,
    /// An upgrade to WebSocket, whose messages are understood here: extensions would change them.
    GovernedUpgrade,
    /// Anything else.
    Plain,
}

/// Takes out what is about one connection alone.
pub fn strip_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_THE_CONNECTION) {
        headers.remove(name);
    }
}

/// The headers for an upstream, out of those of the client at `peer`.
pub fn headers(
    client: &HeaderMap,
    route: &RouteSettings,
    upstream: &Address,
    peer: SocketAddr,
    purpose: Purpose,
) -> HeaderMap {
    let mut headers = client.clone();
    strip_connection(&mut headers);
    let host = client.get(header::HOST).cloned();
    for name in &route.remove_headers {
        headers.remove(name);
    }
    if purpose == Purpose::GovernedUpgrade {
        headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
    }
    if purpose != Purpose::Plain {
        // There is no body, and the upstream is to wait for none.
        for name in [header::CONTENT_LENGTH, header::EXPECT] {
            headers.remove(name);
        }
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Some(wanted) = &route.subprotocols {
            let left: Vec<&str> =
                offered(client).filter(|name| wanted.iter().any(|known| known == name)).collect();
            headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
            if let Ok(left) = HeaderValue::try_from(left.join(", "))
                && !left.is_empty()
            {
                headers.insert(header::SEC_WEBSOCKET_PROTOCOL, left);
            }
        }
    }
    if route.forwarded {
        forward(&mut headers, peer, host.clone());
    }
    let host = match &route.host {
        HostHeader::Pass => host,
        HostHeader::Upstream => HeaderValue::try_from(upstream.host_header()).ok(),
        HostHeader::Named(name) => Some(name.clone()),
    };
    if let Some(host) = host {
        headers.insert(header::HOST, host);
    }
    for (name, value) in &route.set_headers {
        headers.insert(name, value.clone());
    }
    headers
}

/// The subprotocols that a client offers, in its order.
pub fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

/// The last address is the one that connected here; what stands before it the client said.
fn forward(headers: &mut HeaderMap, peer: SocketAddr, host: Option<HeaderValue>) {
    let before = headers.get_all(&FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let own = peer.ip().to_canonical().to_string();
    let all: Vec<&str> = before.chain([own.as_str()]).collect();
    if let Ok(all) = HeaderValue::try_from(all.join(", ")) {
        headers.insert(FORWARDED_FOR, all);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    match host {
        Some(host) => headers.insert(FORWARDED_HOST, host),
        None => headers.remove(FORWARDED_HOST),
    };
}
