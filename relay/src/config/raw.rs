//! What was said, by the file and by flags, each part with its place; not yet what it means together.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
};

use shared::ChannelPattern;

use super::{
    LogFormat,
    document::Section,
    keys::{self, KEYS, Unit},
    report::{By, Mistake, Said, line_of},
    routes::{self, RawLimits, RawRoute},
    syntax, value,
};
use crate::{
    cli,
    reception::Accepts,
    senders::{framing::Framing, template::ChannelTemplate},
    store::Retention,
};

/// All that was said. What was said wrongly is a mistake and not here.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub(super) listen: Option<Vec<Said<SocketAddr>>>,
    pub(super) listeners: Vec<RawListener>,
    /// Whether an address was said wrongly, so that there may be none here.
    pub(super) lost_address: bool,
    pub(super) open: bool,
    /// The directory of a store on disk.
    pub(super) data: Option<PathBuf>,
    pub(super) hosts: Vec<String>,
    pub(super) origins: Vec<String>,
    /// Limits and waits by key.
    pub(super) numbers: BTreeMap<&'static str, Said<u64>>,
    /// Keys that were said wrongly: nothing can be told about how they fit others.
    pub(super) wrong: Vec<&'static str>,
    pub(super) log_filter: Option<String>,
    pub(super) log_format: Option<LogFormat>,
    pub(super) rules: Vec<RawRule>,
    /// What holds for routes that do not say otherwise.
    pub(super) gateway: RawLimits,
    pub(super) routes: Vec<RawRoute>,
    /// What `--history` says in place of the last rule.
    pub(super) history: Option<Said<Retention>>,
}

/// A `[[listener]]`, or a `--raw`.
#[derive(Debug)]
pub(super) struct RawListener {
    pub(super) address: Said<SocketAddr>,
    pub(super) accepts: Accepts,
    pub(super) channel: Option<ChannelTemplate>,
    pub(super) framing: Option<Said<Framing>>,
    pub(super) first_line: Option<bool>,
    pub(super) max_message: Option<Said<u64>>,
    /// Microseconds.
    pub(super) batch_delay: Option<u64>,
}

/// A `[[channel]]`.
#[derive(Debug)]
pub(super) struct RawRule {
    pub(super) pattern: Said<ChannelPattern>,
    pub(super) history: Option<Said<u64>>,
    pub(super) messages: Option<u64>,
    /// Microseconds.
    pub(super) age: Option<u64>,
    pub(super) lag: Option<Lag>,
    /// Microseconds.
    pub(super) block_for: Option<Said<u64>>,
    /// Whether `lag` was said wrongly.
    pub(super) wrong_lag: bool,
    pub(super) durability: Option<Said<Keeping>>,
    /// Microseconds.
    pub(super) flush: Option<Said<u64>>,
    /// Whether `durability` was said wrongly.
    pub(super) wrong_durability: bool,
}

/// How firmly a channel is kept, by its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeping {
    Memory,
    Async,
    Sync,
}

/// A lag policy by its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lag {
    Skip,
    Close,
    Block,
}

/// The words for what a listener accepts.
pub(super) const ACCEPTS: [(&str, Accepts); 4] = [
    ("everything", Accepts::Everything),
    ("raw", Accepts::Raw),
    ("http", Accepts::Http),
    ("framed", Accepts::Framed),
];

/// The words for the forms of the log.
pub(super) const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

const LAGS: [(&str, Lag); 3] = [("skip", Lag::Skip), ("close", Lag::Close), ("block", Lag::Block)];
const KEEPINGS: [(&str, Keeping); 3] =
    [("sync", Keeping::Sync), ("async", Keeping::Async), ("memory", Keeping::Memory)];
/// The framings without parameters, for suggestions.
const FRAMINGS: [&str; 5] = ["line", "null", "octet-count", "read", "auto"];
const ADDRESS: &str = "an address like \"127.0.0.1:12000\"";

impl Raw {
    /// Reads a file. Whether its syntax is right says the second part: if not, parts of it may be missing.
    pub(super) fn read(source: &str, mistakes: &mut Vec<Mistake>) -> (Self, bool) {
        let syntax = syntax::parse(source);
        let whole = syntax.mistakes.is_empty();
        let mut raw = Self::default();
        if let Some(document) = &syntax.document {
            let mut found = Vec::new();
            raw.read_top(Section::new(document, "", 0..0, &mut found));
            found.retain(|mistake| {
                mistake.start().is_none_or(|at| !syntax.lines.contains(&line_of(source, at)))
            });
            mistakes.append(&mut found);
        }
        mistakes.extend(syntax.mistakes);
        (raw, whole)
    }

    /// Adds what the flags say, in place of what the file says of the same.
    pub(super) fn apply(&mut self, flags: &cli::Serve) {
        if !flags.listen.is_empty() {
            let by = |address: &SocketAddr| By::Flag(format!("--listen {address}"));
            self.listen = Some(flags.listen.iter().map(|&value| Said { value, by: by(&value) }).collect());
        }
        for raw in &flags.raw {
            let by = By::Flag(format!("--raw {}={}", raw.address, raw.channel));
            self.listeners.push(RawListener {
                address: Said { value: raw.address, by: by.clone() },
                accepts: Accepts::Raw,
                channel: Some(raw.channel.clone()),
                framing: raw.framing.clone().map(|value| Said { value, by }),
                first_line: None,
                max_message: None,
                batch_delay: None,
            });
        }
        self.open |= flags.open;
        if let Some(data) = flags.data.as_ref().filter(|data| !data.as_os_str().is_empty()) {
            self.data = Some(data.clone());
        }
        if !flags.hosts.is_empty() {
            self.hosts = flags.hosts.clone();
        }
        if !flags.allow_origins.is_empty() {
            self.origins = flags.allow_origins.clone();
        }
        if let Some(value) = flags.max_message {
            self.numbers.insert("max_message", Said { value, by: By::Flag("--max-message".into()) });
            self.wrong.retain(|name| *name != "max_message");
        }
        if let Some(value) = flags.history {
            self.history = Some(Said { value, by: By::Flag("--history".into()) });
        }
        if let Some(filter) = flags.log.as_ref().filter(|filter| !filter.is_empty()) {
            self.log_filter = Some(filter.clone());
        }
        self.log_format = flags.log_format.or(self.log_format);
    }

    /// Adds the routes of a table in JSON.
    pub(super) fn add_table(&mut self, path: &Path, source: &str, mistakes: &mut Vec<Mistake>) {
        match routes::table(source, &By::Flag(format!("--routes {}", path.display()))) {
            Ok(routes) => self.routes.extend(routes),
            Err(found) => mistakes.extend(found),
        }
    }

    fn read_top(&mut self, mut top: Section<'_, '_>) {
        self.listen = top.list("listen", ADDRESS, value::address);
        self.lost_address = self.listen.is_none() && top.has("listen");
        // A wrong `open` is one mistake, not another one for each address that it may have been for.
        self.open = top.flag("open").map_or_else(|| top.has("open"), |open| open.value);
        let path = |text: &str| match text {
            "" => Err("must not be empty".to_owned()),
            path => Ok(PathBuf::from(path)),
        };
        self.data = top.read("data", "a directory like \"/var/lib/relay\"", path).map(|said| said.value);
        self.hosts = values(top.list("hosts", "a name like \"relay.example.org\"", value::host));
        self.origins = values(top.list("origins", "an origin like \"https://example.org\"", value::origin));
        for title in ["[limits]", "[timeouts]", "[disk]"] {
            let name = title.trim_matches(['[', ']']);
            if let Some(mut section) = top.section(name, title) {
                self.read_numbers(&mut section, name);
                section.end();
            }
        }
        if let Some(mut section) = top.section("log", "[log]") {
            self.log_filter =
                section.read("filter", "a text like \"info\"", value::log_filter).map(|said| said.value);
            self.log_format = section.choice("format", &LOG_FORMATS).map(|said| said.value);
            section.end();
        }
        top.sections("listener", "[[listener]]", |section| self.read_listener(section));
        top.sections("channel", "[[channel]]", |section| self.read_rule(section));
        if let Some(mut section) = top.section("gateway", "[gateway]") {
            self.gateway = RawLimits::read(&mut section);
            section.end();
        }
        top.sections("route", "[[route]]", |section| self.routes.extend(RawRoute::read(section)));
        top.end();
    }

    fn read_numbers(&mut self, section: &mut Section<'_, '_>, name: &str) {
        for key in KEYS.iter().filter(|key| key.section == name) {
            let Some(said) = section
                .number(key.name, key.unit)
                .and_then(|said| bounded(section, key.name, said, |v| key.check(v)))
            else {
                if section.has(key.name) {
                    self.wrong.push(key.name);
                }
                continue;
            };
            self.numbers.insert(key.name, said);
        }
    }

    fn read_listener(&mut self, mut section: Section<'_, '_>) {
        let address = section.read("address", ADDRESS, value::address);
        let accepts = section.choice("accepts", &ACCEPTS);
        let channel = section.parsed("channel", "a name like \"plant/serial\"", &[]);
        let framing = section.parsed("framing", "a text like \"line\"", &FRAMINGS);
        let first_line = section.flag("first_line");
        let max_message = section.number("max_message", Unit::Size).and_then(|said| {
            bounded(&mut section, "max_message", said, |v| keys::within(v, Unit::Size, &keys::MESSAGE_BOUNDS))
        });
        let batch_delay = section.number("batch_delay", Unit::Wait).and_then(|said| {
            bounded(&mut section, "batch_delay", said, |v| {
                keys::within(v, Unit::Wait, &keys::BATCH_DELAY_BOUNDS)
            })
        });
        if !section.has("address") {
            section.mistake(
                Mistake::at(section.span(), "[[listener]] needs an `address`")
                    .label("add address = \"127.0.0.1:5000\""),
            );
        }
        let wrong_accepts = accepts.is_none() && section.has("accepts");
        let wrong_limit = max_message.is_none() && section.has("max_message");
        let accepts = accepts.map_or(Accepts::Everything, |said| said.value);
        if matches!(accepts, Accepts::Http | Accepts::Framed) && !wrong_accepts {
            let places = [
                ("channel", place(&channel)),
                ("framing", place(&framing)),
                ("first_line", place(&first_line)),
                ("max_message", place(&max_message)),
            ];
            for (key, span) in places {
                if let Some(span) = span {
                    let message =
                        format!("`{key}` is for raw senders, which this [[listener]] does not accept");
                    section.mistake(
                        Mistake::at(span, message).label("remove it, or set accepts = \"everything\""),
                    );
                }
            }
        }
        if let (Accepts::Raw | Accepts::Framed, Some(span)) = (accepts, place(&batch_delay)) {
            let message = "`batch_delay` is for receivers, which this [[listener]] does not accept";
            section.mistake(Mistake::at(span, message).label("remove it, or set accepts = \"everything\""));
        }
        section.end();
        let Some(address) = address else {
            self.lost_address = true;
            return;
        };
        self.listeners.push(RawListener {
            address,
            accepts,
            channel: channel.map(|said| said.value),
            // Whether messages of a fixed size fit can't be told without the limit.
            framing: framing.filter(|_| !wrong_limit),
            first_line: first_line.map(|said| said.value),
            max_message,
            batch_delay: batch_delay.map(|said| said.value),
        });
    }

    fn read_rule(&mut self, mut section: Section<'_, '_>) {
        let pattern = section.parsed("pattern", "a pattern like \"sensors/**\"", &[]);
        let mut number = |key, unit, bounds| {
            let said = section.number(key, unit)?;
            bounded(&mut section, key, said, |value| keys::within(value, unit, &bounds))
        };
        let history = number("history", Unit::Size, keys::HISTORY_BOUNDS);
        let messages = number("messages", Unit::Count, keys::MESSAGES_BOUNDS);
        let age = number("age", Unit::Wait, keys::AGE_BOUNDS);
        let lag = section.choice("lag", &LAGS);
        let block_for = section.number("block_for", Unit::Wait).and_then(|said| {
            bounded(&mut section, "block_for", said, |v| keys::within(v, Unit::Wait, &keys::BLOCK_BOUNDS))
        });
        let durability = section.choice("durability", &KEEPINGS);
        let flush = section.number("flush", Unit::Wait).and_then(|said| {
            bounded(&mut section, "flush", said, |v| keys::within(v, Unit::Wait, &keys::FLUSH_BOUNDS))
        });
        if !section.has("pattern") {
            section.mistake(
                Mistake::at(section.span(), "[[channel]] needs a `pattern`")
                    .label("add pattern = \"sensors/**\""),
            );
        }
        let wrong_lag = lag.is_none() && section.has("lag");
        let wrong_durability = durability.is_none() && section.has("durability");
        section.end();
        let Some(pattern) = pattern else { return };
        self.rules.push(RawRule {
            pattern,
            history,
            messages: messages.map(|said| said.value),
            age: age.map(|said| said.value),
            lag: lag.map(|said| said.value),
            block_for,
            wrong_lag,
            durability,
            flush,
            wrong_durability,
        });
    }
}

/// The value if it is within bounds; else a mistake.
fn bounded(
    section: &mut Section<'_, '_>,
    key: &str,
    said: Said<u64>,
    check: impl FnOnce(u64) -> Result<(), String>,
) -> Option<Said<u64>> {
    match check(said.value) {
        Ok(()) => Some(said),
        Err(error) => {
            section.mistake(Mistake::by(said.by, format!("`{key}` {error}")));
            None
        }
    }
}

fn values<T>(list: Option<Vec<Said<T>>>) -> Vec<T> {
    list.unwrap_or_default().into_iter().map(|said| said.value).collect()
}

fn place<T>(said: &Option<Said<T>>) -> Option<Range<usize>> {
    match &said.as_ref()?.by {
        By::File(span) => Some(span.clone()),
        By::Flag(_) | By::Default => None,
    }
}
