//! What is said of the gateway: `[gateway]` and `[[route]]`; what it means.
//!
//! - `rules`: what is said below a route of rules and the tap. `table`: the file of `--routes`. `write`: how all of it
//!   is printed.

mod rules;
mod table;
mod write;

use std::{num::NonZeroUsize, time::Duration};

use hyper::header::{self, HeaderName, HeaderValue};
use ipnet::IpNet;
use shared::{ChannelId, Kind};

pub(super) use self::{table::table, write::write};

use super::{
    document::Section,
    keys::{self, Unit},
    report::{By, Mistake, Said},
    value,
};
use crate::{
    gateway::{
        course::Source,
        path::Prefix,
        settings::{
            Address, Balance, GatewaySettings, HostHeader, OnChange, Origins, Plain, RouteLimits,
            RouteSettings, Sort,
        },
        tap::TapSettings,
    },
    senders::framing::Framing,
    tls::Authorities,
};

/// What is said of limits and waits, for the gateway or for one route.
#[derive(Debug, Clone, Default)]
pub(super) struct RawLimits {
    /// Microseconds.
    waits: [Option<u64>; WAITS.len()],
    connections: Option<u64>,
    on_change: Option<OnChange>,
}

/// A route that was said. Its limits are to be completed by those of the gateway.
#[derive(Debug)]
pub(super) struct RawRoute {
    pub(super) by: By,
    pub(super) limits: RawLimits,
    pub(super) max_message: Option<u64>,
    pub(super) tap: Option<RawTap>,
    pub(super) settings: RouteSettings,
}

/// A tap that was said, of whose messages the limit is to be completed.
#[derive(Debug)]
pub(super) struct RawTap {
    /// None: it was said wrongly.
    channel: Option<ChannelId>,
    from: Option<Source>,
    kind: Option<Kind>,
    every: u64,
}

/// A wait of the gateway: its key, and its field.
struct Wait {
    key: &'static str,
    get: fn(&RouteLimits) -> Duration,
    set: fn(&mut RouteLimits, Duration),
}

macro_rules! wait {
    ($field:ident) => {
        Wait {
            key: stringify!($field),
            get: |limits| limits.$field,
            set: |limits, wait| limits.$field = wait,
        }
    };
}

const WAITS: [Wait; 4] = [wait!(connect_timeout), wait!(upgrade_timeout), wait!(idle_timeout), wait!(rest)];

const ON_CHANGE: [(&str, OnChange); 2] = [("keep", OnChange::Keep), ("drain", OnChange::Drain)];
const BALANCE: [(&str, Balance); 2] = [("order", Balance::Order), ("round-robin", Balance::RoundRobin)];
const PLAIN: [(&str, Plain); 2] = [("refuse", Plain::Refuse), ("pass", Plain::Pass)];
const FRAMES: [(&str, Kind); 2] = [("binary", Kind::Binary), ("text", Kind::Text)];
const FRAMINGS: [&str; 5] = ["line", "null", "octet-count", "read", "auto"];

/// Keys that are for one sort of upstreams alone.
const OF_WEBSOCKET: [&str; 7] =
    ["rewrite", "host", "forwarded", "set_headers", "remove_headers", "plain", "ca"];
const OF_BYTES: [&str; 2] = ["framing", "frames"];

impl Default for GatewaySettings {
    /// No routes.
    fn default() -> Self {
        Self {
            defaults: RouteLimits {
                connect_timeout: Duration::from_secs(5),
                upgrade_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(5 * 60),
                rest: Duration::from_secs(10),
                connections: 4096,
                on_change: OnChange::Keep,
            },
            close: Duration::from_secs(2),
            keepalive: Duration::from_secs(60),
            routes: Vec::new(),
        }
    }
}

impl RawLimits {
    /// Reads the keys of a section.
    pub(super) fn read(section: &mut Section<'_, '_>) -> Self {
        let mut limits = Self::default();
        for (wait, said) in WAITS.iter().zip(&mut limits.waits) {
            *said = section.bounded(wait.key, Unit::Wait, &keys::ROUTE_WAIT_BOUNDS).map(|said| said.value);
        }
        let connections = section.bounded("connections", Unit::Count, &keys::ROUTE_CONNECTIONS_BOUNDS);
        limits.connections = connections.map(|said| said.value);
        limits.on_change = section.choice("on_change", &ON_CHANGE).map(|said| said.value);
        limits
    }

    /// What they mean where what they leave out is as in `defaults`.
    pub(super) fn over(&self, defaults: &RouteLimits) -> RouteLimits {
        let mut limits = defaults.clone();
        for (wait, said) in WAITS.iter().zip(self.waits) {
            if let Some(micros) = said {
                (wait.set)(&mut limits, Duration::from_micros(micros));
            }
        }
        limits.connections = self.connections.map_or(limits.connections, |connections| connections as usize);
        limits.on_change = self.on_change.unwrap_or(limits.on_change);
        limits
    }
}

impl RawRoute {
    /// What its tap means, where messages of channels have at most so many bytes.
    pub(super) fn tap(&self, max_message: usize) -> Option<TapSettings> {
        let RawTap { channel, from, kind, every } = self.tap.as_ref()?;
        let (channel, from, kind, every) = (channel.clone()?, *from, *kind, *every);
        Some(TapSettings { channel, from, kind, every, max_message })
    }

    /// Reads a `[[route]]`; what is wrong is told, and it is none then.
    pub(super) fn read(mut section: Section<'_, '_>) -> Option<Self> {
        let path = section.parsed::<Prefix>("path", "a path like \"/terminal\"", &[]);
        let upstreams =
            section.list("upstreams", "an address like \"ws://127.0.0.1:3000\"", |text| text.parse());
        let mut route = Self {
            by: By::Default,
            limits: RawLimits::read(&mut section),
            max_message: None,
            tap: None,
            settings: settings(Prefix::default(), Vec::new()),
        };
        for (key, missing, advice) in [
            ("path", !section.has("path"), "add path = \"/terminal\""),
            ("upstreams", !section.has("upstreams"), "add upstreams = [\"ws://127.0.0.1:3000\"]"),
        ] {
            if missing {
                let mistake = Mistake::at(section.span(), format!("[[route]] needs `{key}`")).label(advice);
                section.mistake(mistake);
            }
        }
        route.read_passing(&mut section);
        route.read_access(&mut section, path.as_ref().map(|said| &said.value));
        route.read_bytes(&mut section);
        if let Some(said) = &path {
            route.by = said.by.clone();
            route.settings.path = said.value.clone();
            if let Some(what) = said.value.reserved() {
                let shown = if said.value.is_root() { "/".into() } else { said.value.to_string() };
                section.mistake(
                    Mistake::by(said.by.clone(), format!("`{shown}` is the relay's own, for {what}"))
                        .label("choose another path"),
                );
            }
        }
        route.settings.rules = rules::read_rules(&mut section);
        let path = path.as_ref().map(|said| &said.value);
        route.tap = rules::read_tap(&mut section, path);
        let lost = upstreams.as_ref().is_none_or(Vec::is_empty);
        if let (Some([]), Some(span)) = (upstreams.as_deref(), section.place("upstreams")) {
            section.mistake(Mistake::at(span, "a route needs at least one upstream"));
        }
        route.take_upstreams(&mut section, upstreams.unwrap_or_default());
        section.end();
        (path.is_some() && !lost).then_some(route)
    }

    fn read_passing(&mut self, section: &mut Section<'_, '_>) {
        let settings = &mut self.settings;
        let said = section.choice("balance", &BALANCE);
        settings.balance = said.map_or(settings.balance, |said| said.value);
        let rewrite = section.parsed("rewrite", "a path like \"/\"", &[]);
        settings.rewrite = rewrite.map(|said| said.value);
        if let Some(said) = section.read("host", "\"pass\", \"upstream\" or a name", host_header) {
            settings.host = said.value;
        }
        settings.forwarded = section.flag("forwarded").is_some_and(|said| said.value);
        settings.set_headers = section.pairs("set_headers", "{ \"X-Team\" = \"blue\" }", set_header);
        let removed = section.list("remove_headers", "a header like \"Cookie\"", header_name);
        settings.remove_headers = plain_values(removed).unwrap_or_default();
        settings.subprotocols =
            plain_values(section.list("subprotocols", "a subprotocol like \"binary\"", subprotocol));
        let plain = section.choice("plain", &PLAIN);
        settings.plain = plain.map_or(settings.plain, |said| said.value);
        settings.ca = section.read("ca", "a file like \"ca.pem\"", Authorities::read).map(|said| said.value);
    }

    fn read_access(&mut self, section: &mut Section<'_, '_>, path: Option<&Prefix>) {
        const NETWORK: &str = "a network like \"10.0.0.0/8\"";
        let origins = section.list("origins", "an origin like \"https://example.org\"", origin_or_any);
        if let Some(origins) = origins {
            self.settings.origins = match origins.iter().find(|said| said.value.is_none()) {
                Some(any) => {
                    if origins.len() > 1 {
                        section.mistake(Mistake::by(any.by.clone(), "`*` is every origin: it stands alone"));
                    }
                    Origins::Any
                }
                None => Origins::These(origins.into_iter().filter_map(|said| said.value).collect()),
            };
        }
        self.settings.allow = plain_values(section.list("allow", NETWORK, network));
        self.settings.deny = plain_values(section.list("deny", NETWORK, network)).unwrap_or_default();
        let denied = section.list("deny_paths", "a path like \"/terminal/admin\"", str::parse::<Prefix>);
        for said in denied.unwrap_or_default() {
            if path.is_some_and(|path| !path.contains_prefix(&said.value)) {
                section.mistake(Mistake::by(said.by, format!("`{}` is not below `path`", said.value)));
            } else {
                self.settings.deny_paths.push(said.value);
            }
        }
        let connections =
            section.bounded("upstream_connections", Unit::Count, &keys::ROUTE_CONNECTIONS_BOUNDS);
        self.settings.upstream_connections = connections.map(|said| said.value as usize);
    }

    fn read_bytes(&mut self, section: &mut Section<'_, '_>) {
        if let Some(said) = section.parsed("framing", "a text like \"read\"", &FRAMINGS) {
            self.settings.framing = said.value;
        }
        if let Some(said) = section.choice("frames", &FRAMES) {
            self.settings.frames = said.value;
        }
        let max_message = section.bounded("max_message", Unit::Size, &keys::MESSAGE_BOUNDS);
        self.max_message = max_message.map(|said| said.value);
    }

    fn take_upstreams(&mut self, section: &mut Section<'_, '_>, upstreams: Vec<Said<Address>>) {
        let Some(first) = upstreams.first() else { return };
        let sort = first.value.sort;
        if let Some(other) = upstreams.iter().find(|said| said.value.sort != sort) {
            let message = "upstreams that speak WebSocket and upstreams of bytes can't share a route";
            section.mistake(Mistake::by(other.by.clone(), message));
        }
        let (wrong, whose): (&[&'static str], _) = match sort {
            Sort::WebSocket => (&OF_BYTES, "tcp:// and unix:"),
            Sort::Bytes => (&OF_WEBSOCKET, "ws://, wss:// and ws+unix:"),
        };
        for key in wrong {
            if let Some(span) = section.place(key) {
                let message = format!("`{key}` is for upstreams of {whose}, which this [[route]] has not");
                section.mistake(Mistake::at(span, message).label("remove it"));
            }
        }
        let governed = section.has("rule") || section.has("tap");
        if let (Sort::WebSocket, false, Some(span)) = (sort, governed, section.place("max_message")) {
            let message =
                "`max_message` is for routes with a rule or a tap, and for upstreams of tcp:// and unix:";
            section.mistake(Mistake::at(span, message).label("remove it, or add a [[route.rule]]"));
        }
        let tls = upstreams.iter().any(|said| said.value.is_tls());
        if let (false, Sort::WebSocket, Some(span)) = (tls, sort, section.place("ca")) {
            let message = "`ca` is for upstreams of wss://, which this [[route]] has not";
            section.mistake(Mistake::at(span, message).label("remove it"));
        }
        self.settings.upstreams = upstreams.into_iter().map(|said| said.value).collect();
    }
}

/// A route of which nothing but this was said.
fn settings(path: Prefix, upstreams: Vec<Address>) -> RouteSettings {
    RouteSettings {
        path,
        upstreams,
        balance: Balance::Order,
        rewrite: None,
        host: HostHeader::Pass,
        forwarded: false,
        set_headers: Vec::new(),
        remove_headers: Vec::new(),
        subprotocols: None,
        origins: Origins::Unsaid,
        plain: Plain::Refuse,
        allow: None,
        deny: Vec::new(),
        deny_paths: Vec::new(),
        upstream_connections: None,
        ca: None,
        framing: Framing::Read,
        frames: Kind::Binary,
        max_message: shared::limits::MAX_MESSAGE,
        rules: Vec::new(),
        tap: None,
        limits: GatewaySettings::default().defaults,
    }
}

fn plain_values<T>(said: Option<Vec<Said<T>>>) -> Option<Vec<T>> {
    said.map(|said| said.into_iter().map(|said| said.value).collect())
}

fn host_header(text: &str) -> Result<HostHeader, String> {
    const FORM: &str = "write \"pass\", \"upstream\", or a name like \"app.internal:8080\"";
    match text {
        "pass" => Ok(HostHeader::Pass),
        "upstream" => Ok(HostHeader::Upstream),
        name if !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c)) =>
        {
            HeaderValue::from_str(name).map(HostHeader::Named).map_err(|_| FORM.into())
        }
        _ => Err(FORM.into()),
    }
}

/// A header that a route may change: not one that makes the connection what it is.
fn header_name(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName = text.parse().map_err(|_| "it is no name of a header".to_owned())?;
    let own = [
        header::CONNECTION,
        header::UPGRADE,
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_VERSION,
        header::SEC_WEBSOCKET_ACCEPT,
    ];
    if name == header::HOST {
        return Err("`host` of the route says what it is".into());
    }
    if name == header::SEC_WEBSOCKET_PROTOCOL {
        return Err("`subprotocols` of the route says which go on".into());
    }
    if own.contains(&name) { Err("the connection needs it as it is".into()) } else { Ok(name) }
}

fn set_header(name: &str, text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let value = HeaderValue::from_str(text)
        .map_err(|_| "its value has characters that headers have not".to_owned())?;
    Ok((header_name(name)?, value))
}

fn subprotocol(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?={}".contains(c);
    if text.is_empty() || !text.chars().all(fits) {
        return Err("a subprotocol is a word, for example \"binary\"".into());
    }
    Ok(text.into())
}

fn origin_or_any(text: &str) -> Result<Option<String>, String> {
    if text == "*" { Ok(None) } else { value::origin(text).map(Some) }
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    text.parse::<IpNet>()
        .or_else(|_| address())
        .map(|net| net.trunc())
        .map_err(|_| "write it as a network like 10.0.0.0/8 or an address like ::1".into())
}

/// Whether messages of a fixed size are longer than is allowed; then how long they are.
pub(super) fn oversized(route: &RouteSettings) -> Option<NonZeroUsize> {
    match route.framing {
        Framing::Fixed(bytes) if bytes.get() > route.max_message => Some(bytes),
        _ => None,
    }
}
