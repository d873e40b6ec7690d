//! Which works there are, and which servers take part in each.

use std::time::Duration;

use anyhow::Result;

use super::{Crowd, Figures, closed, closed::Window, connections, idle, paced};
use crate::servers::{Running, name};

/// A work.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// Its name on the command line and in results.
    pub(crate) name: String,
    /// What it is, for people.
    pub(crate) title: String,
    pub(crate) kind: Kind,
    /// The servers that take part.
    pub(crate) servers: Vec<&'static str>,
}

/// What is done.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// As fast as it goes.
    Closed(Crowd, Window),
    /// As fast as it goes, while so many receivers per second come and go.
    Churn(Crowd, u32),
    /// At so many messages per second.
    Paced(Crowd, f64),
    /// So many receivers and nothing to receive.
    Idle(usize),
    /// Connections one after the other, so many at the same time.
    Connections(usize),
}

/// How large works are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// As the document has them.
    Full,
    /// As small as they can be and still be what they are.
    Smoke,
}

const EVERYONE: &[&str] = &[
    name::RELAY,
    name::BARE,
    name::NATS,
    name::NCHAN,
    name::MOSQUITTO,
    name::NODE_WS,
    name::WEBSOCAT,
    name::PYTHON_WEBSOCKETS,
];
/// Where few receivers leave time for more than 32 768 messages in a second: nchan numbers those of a second with 16
/// bits, and delivers none beyond.
const WITHOUT_NCHAN: &[&str] = &[
    name::RELAY,
    name::BARE,
    name::NATS,
    name::MOSQUITTO,
    name::NODE_WS,
    name::WEBSOCAT,
    name::PYTHON_WEBSOCKETS,
];
const PEERS: &[&str] = &[
    name::RELAY,
    name::NATS,
    name::NCHAN,
    name::MOSQUITTO,
    name::NODE_WS,
    name::WEBSOCAT,
    name::PYTHON_WEBSOCKETS,
];
/// Those whose cost per delivery leaves something in a second for a thousand receivers and more.
const FAST: &[&str] = &[name::RELAY, name::BARE, name::NATS];
const CHANNELS: &[&str] = &[name::RELAY, name::NATS];
const FORMS: &[&str] = &[name::RELAY, name::RELAY_FRAMED, name::RELAY_BINARY, name::RELAY_JSON];
const WORKERS: &[&str] = &[name::RELAY, name::RELAY_TWO_WORKERS];
const BATCHED: &[&str] = &[name::RELAY, name::RELAY_BATCHED, name::BARE, name::NATS];
const RELAY: &[&str] = &[name::RELAY];

impl Scale {
    /// A count of receivers, channels or senders.
    fn many(self, count: usize) -> usize {
        match self {
            Self::Full => count,
            Self::Smoke => count.min(20),
        }
    }

    fn rate(self, rate: f64) -> f64 {
        match self {
            Self::Full => rate,
            Self::Smoke => rate.min(500.0),
        }
    }
}

/// All works, in the order of the document.
pub(crate) fn all(scale: Scale) -> Vec<Work> {
    let mut works = Vec::new();
    let mut add = |name: String, title: String, kind, servers: &'static [&'static str]| {
        // The slower peers at one work are enough to see that they are spoken to as they want it.
        let shortened = scale == Scale::Smoke && !works.is_empty();
        let slow = |server: &&str| !FAST.contains(server) && PEERS.contains(server);
        let servers = servers.iter().copied().filter(|server| !(shortened && slow(server))).collect();
        works.push(Work { name, title, kind, servers });
    };
    let fan_out = |receivers, bytes| Crowd::fan_out(scale.many(receivers), bytes);

    for (receivers, bytes, servers) in [
        (100, 128, EVERYONE),
        (1000, 128, FAST),
        (10, 128, WITHOUT_NCHAN),
        (1, 128, WITHOUT_NCHAN),
        (100, 16, EVERYONE),
        (100, 1024, EVERYONE),
        (100, 16 * 1024, EVERYONE),
        // For the plots only.
        (10_000, 128, FAST),
        (100, 4096, FAST),
        (100, 64 * 1024, FAST),
    ] {
        add(
            format!("fan-out-{receivers}x{bytes}"),
            format!("{} × {}", thousands(receivers), size(bytes)),
            Kind::Closed(fan_out(receivers, bytes), Window::Bytes),
            servers,
        );
    }
    add(
        "window-100x128".into(),
        "100 × 128 B, window of 64 messages".into(),
        Kind::Closed(fan_out(100, 128), Window::Messages(64)),
        EVERYONE,
    );
    add(
        "forms-100x128".into(),
        "100 × 128 B by sender and subprotocol".into(),
        Kind::Closed(fan_out(100, 128), Window::Bytes),
        FORMS,
    );
    add(
        "workers-100x128".into(),
        "100 × 128 B by workers".into(),
        Kind::Closed(fan_out(100, 128), Window::Bytes),
        WORKERS,
    );
    for (rate, receivers, servers) in
        [(1000, 100, FAST), (10_000, 100, BATCHED), (100, 1000, FAST), (10, 10_000, FAST)]
    {
        add(
            format!("paced-{rate}x{receivers}"),
            format!("{} messages/s × {}", thousands(rate as usize), thousands(receivers)),
            Kind::Paced(fan_out(receivers, 128), scale.rate(f64::from(rate))),
            servers,
        );
    }
    for channels in [1, 10, 100, 1000, 10_000] {
        let count = scale.many(channels);
        let crowd = Crowd { channels: count, receivers: count, ..Crowd::fan_out(0, 128) };
        add(
            format!("channels-{channels}"),
            format!("{} channels with a receiver each", thousands(channels)),
            Kind::Closed(crowd, Window::Bytes),
            CHANNELS,
        );
    }
    add(
        "senders-1000".into(),
        "1 000 senders into one channel, 100 receivers".into(),
        Kind::Closed(Crowd { senders: scale.many(1000), ..fan_out(100, 128) }, Window::Bytes),
        RELAY,
    );
    add(
        "churn-200".into(),
        "100 receivers while 200 others per second come and go".into(),
        Kind::Churn(fan_out(100, 128), 200),
        RELAY,
    );
    add(
        "pattern-1000x100".into(),
        "a pattern over 1 000 channels, 100 receivers".into(),
        Kind::Closed(Crowd { channels: scale.many(1000), pattern: true, ..fan_out(100, 128) }, Window::Bytes),
        RELAY,
    );
    add("idle-10000".into(), "10 000 idle receivers".into(), Kind::Idle(scale.many(10_000)), PEERS);
    add("connections".into(), "upgrades, 64 at a time".into(), Kind::Connections(64), PEERS);
    works
}

impl Work {
    /// Does it with a server that runs.
    pub(crate) fn run(&self, running: &Running, length: Duration) -> Result<Figures> {
        match self.kind {
            Kind::Closed(crowd, window) => closed::run(running, crowd, window, length),
            Kind::Churn(crowd, rate) => closed::with_churn(running, crowd, rate, length),
            Kind::Paced(crowd, rate) => paced::run(running, crowd, rate, length),
            Kind::Idle(receivers) => idle::run(running, receivers, length / 4),
            Kind::Connections(at_a_time) => connections::run(running, at_a_time, length),
        }
    }
}

/// A count with a space at the thousands.
pub(crate) fn thousands(count: usize) -> String {
    match (count / 1000, count % 1000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{thousands} {rest:03}"),
    }
}

fn size(bytes: usize) -> String {
    if bytes < 1024 { format!("{bytes} B") } else { format!("{} KiB", bytes / 1024) }
}
