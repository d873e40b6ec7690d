//! From what was said to what it means: defaults that fit it, which rule counts, and whether the parts fit together.

mod channels;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use shared::client::DEFAULT_PORT;

use super::{
    Config, default_raw,
    keys::{Key, Unit},
    raw::{Raw, RawListener},
    report::{By, Mistake, Said, line_of},
    routes::oversized,
};
use crate::{
    reception::{Accepts, ListenerSettings},
    senders::{RawSettings, framing::Framing},
};

/// Pairs of keys of which the first may not be greater than that part of the second.
const ORDERED: [(&str, Part, &str); 4] = [
    ("max_message", Part::All, "window_bytes"),
    ("max_message", Part::All, "memory"),
    // What encodings have, messages have not.
    ("encodings", Part::Half, "memory"),
    ("silence", Part::All, "undecided"),
];

/// How much of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    All,
    Half,
}

/// What was said, as a configuration, with the mistakes that only show when all of it is seen together.
pub(super) fn settle(raw: Raw, source: &str) -> (Config, Vec<Mistake>) {
    let mut config = Config::default();
    for (name, said) in &raw.numbers {
        if let Some(key) = Key::named(name) {
            key.set(&mut config, said.value);
        }
    }
    fit_defaults(&mut config, &raw);
    let mut settling = Settling { source, mistakes: Vec::new() };
    settling.check_order(&config, &raw);
    settling.settle_rules(&mut config, &raw);
    settling.settle_listeners(&mut config, &raw);
    settling.settle_routes(&mut config, &raw);
    config.open = raw.open;
    config.data = raw.data;
    config.http.hosts = raw.hosts;
    config.http.origins = raw.origins;
    if let Some(filter) = raw.log_filter {
        config.log.filter = filter;
    }
    if let Some(format) = raw.log_format {
        config.log.format = format;
    }
    (config, settling.mistakes)
}

/// Who sets one limit should not have to set the others that depend on it.
fn fit_defaults(config: &mut Config, raw: &Raw) {
    let unsaid = |name: &str| !raw.numbers.contains_key(name);
    if unsaid("window_bytes") {
        let message = u32::try_from(config.senders.max_message).unwrap_or(u32::MAX);
        config.senders.window_bytes = config.senders.window_bytes.max(message);
    }
    if unsaid("max_message") {
        // A window below the default limit is there to bound what one sender costs: the limit follows it.
        let most = config.senders.window_bytes as usize;
        config.senders.max_message = config.senders.max_message.min(most);
        config.receivers.max_message = config.senders.max_message;
    }
    if unsaid("encodings") {
        config.store.encodings = config.store.encodings.min(config.store.memory / 4);
    }
    if raw.data.is_some() {
        // What is on the disk need not be in memory as well, and is not lost for nobody having asked for it.
        if unsaid("memory") {
            config.store.memory = 256 << 20;
        }
        if unsaid("channel_idle") {
            config.store.channel_idle = Duration::from_secs(100 * 365 * 24 * 3600);
        }
    }
    if unsaid("silence") {
        config.senders.silence = config.senders.silence.min(config.senders.undecided);
    }
    if unsaid("undecided") {
        config.senders.undecided = config.senders.undecided.max(config.senders.silence);
    }
}

struct Settling<'s> {
    source: &'s str,
    mistakes: Vec<Mistake>,
}

impl Settling<'_> {
    fn check_order(&mut self, config: &Config, raw: &Raw) {
        for (less, part, more) in ORDERED {
            let (Some(less_key), Some(more_key)) = (Key::named(less), Key::named(more)) else { continue };
            let (limit, of) = match part {
                Part::All => (more_key.value(config), ""),
                Part::Half => (more_key.value(config) / 2, "half of "),
            };
            let fits = less_key.value(config) <= limit;
            if fits || raw.wrong.contains(&less) || raw.wrong.contains(&more) {
                continue;
            }
            let by = raw
                .numbers
                .get(less)
                .or_else(|| raw.numbers.get(more))
                .map_or(By::Default, |said| said.by.clone());
            let (is, limit) = (less_key.print(config), more_key.print(config));
            let message = format!("`{less}` = {is} is more than {of}`{more}` = {limit}");
            self.mistakes.push(Mistake::by(by, message));
        }
    }

    fn settle_listeners(&mut self, config: &mut Config, raw: &Raw) {
        let serves = |listener: &RawListener| matches!(listener.accepts, Accepts::Everything | Accepts::Http);
        let listen = match &raw.listen {
            Some(listen) => listen.clone(),
            // Receivers need a door: the default is there unless a listener is one.
            None if raw.lost_address || raw.listeners.iter().any(serves) => Vec::new(),
            None => vec![Said { value: (Ipv4Addr::LOCALHOST, DEFAULT_PORT).into(), by: By::Default }],
        };
        let addresses: Vec<&Said<SocketAddr>> =
            listen.iter().chain(raw.listeners.iter().map(|listener| &listener.address)).collect();
        if addresses.is_empty() && !raw.lost_address {
            self.mistakes.push(
                Mistake::by(By::Default, "there is nothing to listen on")
                    .hint("set listen = [\"127.0.0.1:12000\"], or pass --listen 127.0.0.1:12000"),
            );
        }
        for (index, address) in addresses.iter().enumerate() {
            if let Some(earlier) =
                addresses[..index].iter().find(|earlier| overlap(earlier.value, address.value))
            {
                self.taken(address, earlier);
            }
            if !raw.open && !address.value.ip().to_canonical().is_loopback() {
                self.mistakes.push(would_be_open(address));
            }
        }
        for listener in &raw.listeners {
            let limit = listener.max_message.as_ref().filter(|said| said.value > config.store.memory);
            if let Some(said) = limit.filter(|_| !raw.wrong.contains(&"memory")) {
                self.too_much(&said.by, "max_message", said.value, config.store.memory);
            }
        }
        let max_message = config.senders.max_message;
        let everything = |address: &Said<SocketAddr>| ListenerSettings {
            address: address.value,
            accepts: Accepts::Everything,
            raw: RawSettings { first_line: true, ..default_raw(max_message) },
            batch_delay: Duration::ZERO,
        };
        config.listeners = listen.iter().map(everything).collect();
        for said in &raw.listeners {
            let settings = listener(said, max_message);
            if !raw.wrong.contains(&"max_message") {
                self.check_framing(said.framing.as_ref(), settings.raw.max_message);
            }
            config.listeners.push(settings);
        }
    }

    fn settle_routes(&mut self, config: &mut Config, raw: &Raw) {
        config.gateway.defaults = raw.gateway.over(&config.gateway.defaults);
        for (index, said) in raw.routes.iter().enumerate() {
            let mut route = said.settings.clone();
            if let Some(earlier) =
                raw.routes[..index].iter().find(|earlier| earlier.settings.path == route.path)
            {
                let message =
                    format!("there is a route for `{}` already{}", route.path, self.in_line(&earlier.by));
                self.mistakes.push(Mistake::by(said.by.clone(), message));
            }
            route.limits = said.limits.over(&config.gateway.defaults);
            route.max_message = said.max_message.map_or(config.senders.max_message, |bytes| bytes as usize);
            route.tap = said.tap(config.senders.max_message);
            if let Some(bytes) = oversized(&route).filter(|_| !raw.wrong.contains(&"max_message")) {
                let limit = Unit::Size.print(route.max_message as u64);
                let message =
                    format!("messages of {bytes} bytes are all longer than `max_message` = {limit}");
                self.mistakes.push(Mistake::by(said.by.clone(), message));
            }
            config.gateway.routes.push(route);
        }
    }

    fn check_framing(&mut self, framing: Option<&Said<Framing>>, max_message: usize) {
        let Some(Said { value: Framing::Fixed(bytes), by }) = framing else { return };
        if bytes.get() > max_message {
            let limit = Unit::Size.print(max_message as u64);
            let message = format!("messages of {bytes} bytes are all longer than `max_message` = {limit}");
            self.mistakes.push(Mistake::by(by.clone(), message));
        }
    }

    fn taken(&mut self, address: &Said<SocketAddr>, earlier: &Said<SocketAddr>) {
        let place = match &earlier.by {
            By::File(_) => self.in_line(&earlier.by),
            By::Flag(flag) => format!(" by {flag}"),
            By::Default => " by default".into(),
        };
        let which = if earlier.value == address.value {
            format!("{} is listened on already{place}", address.value)
        } else {
            format!("{} overlaps with {}, which is listened on already{place}", address.value, earlier.value)
        };
        let mistake = Mistake::by(address.by.clone(), which);
        self.mistakes.push(match earlier.by {
            By::Default => mistake.hint("choose where everything else connects with `listen` or --listen"),
            By::File(_) | By::Flag(_) => mistake,
        });
    }

    fn too_much(&mut self, by: &By, key: &str, bytes: u64, memory: u64) {
        let (bytes, memory) = (Unit::Size.print(bytes), Unit::Size.print(memory));
        let message =
            format!("`{key}` = {bytes} is more than `memory` = {memory}, which is for all channels");
        self.mistakes.push(
            Mistake::by(by.clone(), message).hint("raise `memory` in [limits] of the configuration file"),
        );
    }

    fn in_line(&self, by: &By) -> String {
        match by {
            By::File(span) => format!(" in line {}", line_of(self.source, span.start)),
            By::Flag(_) | By::Default => String::new(),
        }
    }
}

fn would_be_open(address: &Said<SocketAddr>) -> Mistake {
    let message = format!("relay would be open to everyone who can reach {}", address.value);
    let private = SocketAddr::from((Ipv4Addr::LOCALHOST, address.value.port()));
    match &address.by {
        by @ By::File(_) => Mistake::by(by.clone(), message)
            .hint(format!("if that is meant, set `open = true` or pass --open; else listen on {private}")),
        By::Flag(_) | By::Default => Mistake::by(By::Default, message)
            .hint(format!("if that is meant, pass --open; else listen on {private}")),
    }
}

fn listener(raw: &RawListener, max_message: usize) -> ListenerSettings {
    let default = default_raw(max_message);
    let settings = match raw.accepts {
        Accepts::Everything | Accepts::Raw => RawSettings {
            channel: raw.channel.clone().unwrap_or(default.channel),
            framing: raw.framing.as_ref().map_or(default.framing, |said| said.value.clone()),
            first_line: raw.first_line.unwrap_or(raw.accepts == Accepts::Everything),
            max_message: raw.max_message.as_ref().map_or(default.max_message, |said| said.value as usize),
        },
        Accepts::Http | Accepts::Framed => default,
    };
    let batch_delay = Duration::from_micros(raw.batch_delay.unwrap_or(0));
    ListenerSettings { address: raw.address.value, accepts: raw.accepts, raw: settings, batch_delay }
}

/// Whether the system would refuse the second address after the first.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port()
        && one.port() != 0
        && (one.ip() == other.ip() || (any && one.is_ipv4() == other.is_ipv4()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_overlap_where_the_system_would_refuse_one() {
        let overlap = |one: &str, other: &str| overlap(one.parse().unwrap(), other.parse().unwrap());
        assert!(overlap("127.0.0.1:1", "127.0.0.1:1"));
        assert!(overlap("0.0.0.0:1", "127.0.0.1:1") && overlap("[::1]:1", "[::]:1"));
        assert!(!overlap("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!overlap("127.0.0.1:1", "127.0.0.1:2") && !overlap("127.0.0.1:1", "127.0.0.2:1"));
        assert!(!overlap("0.0.0.0:1", "[::1]:1"));
    }
}
