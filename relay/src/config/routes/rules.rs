//! What is said of a route's rules and its tap: `[[route.rule]]` and `[route.tap]`.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use shared::{ChannelId, Kind};

use super::RawTap;
use crate::{
    config::{
        document::Section,
        keys::{self, Unit},
        print::{quoted, word},
        report::{Mistake, Said},
    },
    gateway::{
        course::Source,
        frame::may_be_sent,
        path::Prefix,
        pattern::{Pattern, Template},
        rate::Rate,
        rules::{Action, Closing, Over, RuleSettings},
        settings::RouteSettings,
    },
};

const RULE: &str = "[[route.rule]]";

/// What a rule does, by its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Pass,
    Drop,
    Close,
    Replace,
}

const ACTS: [(&str, Act); 4] =
    [("pass", Act::Pass), ("drop", Act::Drop), ("close", Act::Close), ("replace", Act::Replace)];
const SOURCES: [(&str, Source); 2] = [("client", Source::Client), ("upstream", Source::Upstream)];
const KINDS: [(&str, Kind); 2] = [("text", Kind::Text), ("binary", Kind::Binary)];

/// Bytes that the text of a close frame may have (RFC 6455, section 5.5).
const REASON: usize = 123;

/// Policy violation, too big (RFC 6455, section 7.4.1), and too much at once, after which to come back.
const POLICY: u16 = 1008;
const TOO_BIG: u16 = 1009;
const TOO_MUCH: u16 = 4006;

/// Reads the rules of a route.
pub(super) fn read_rules(route: &mut Section<'_, '_>) -> Vec<RuleSettings> {
    let mut rules: Vec<RuleSettings> = Vec::new();
    let mut number = 0;
    route.sections("rule", RULE, |section| {
        number += 1;
        rules.extend(read_rule(section, number, &rules));
    });
    rules
}

fn read_rule(mut section: Section<'_, '_>, number: usize, before: &[RuleSettings]) -> Option<RuleSettings> {
    let said = section.read("name", "a name like \"no secrets\"", name);
    let name = said.as_ref().map_or_else(|| number.to_string(), |said| said.value.clone());
    if before.iter().any(|rule| rule.name == name) {
        let mistake = match said {
            Some(said) => Mistake::by(said.by, format!("there is a rule `{name}` of this route already")),
            None => Mistake::at(section.span(), format!("another rule of this route is called `{name}`"))
                .label("add a `name`"),
        };
        section.mistake(mistake);
    }
    let from = section.choice("from", &SOURCES).map(|said| said.value);
    let kind = section.choice("kind", &KINDS).map(|said| said.value);
    let matches = section.parsed::<Pattern>("matches", "a regular expression like \"secret=\"", &[]);
    if let Some(Err(error)) = matches.as_ref().map(|said| said.value.fits(kind)) {
        let by = matches.as_ref().map(|said| said.by.clone());
        section.mistake(Mistake::by(by?, format!("`matches`: {error}")));
    }
    let longer_than = section.bounded("longer_than", Unit::Size, &(0..=*keys::MESSAGE_BOUNDS.end()));
    let over = Over {
        messages: read_rate(&mut section, "messages_per_second", "burst_messages", Unit::Count),
        bytes: read_rate(&mut section, "bytes_per_second", "burst_bytes", Unit::Size),
    };
    let act = section.choice("action", &ACTS);
    if !section.has("action") {
        let mistake = Mistake::at(section.span(), format!("{RULE} needs an `action`"));
        section.mistake(mistake.label("add action = \"drop\""));
    }
    let with = section.read("with", "a text like \"***\"", |text| Ok(text.to_owned()));
    let code = section.number("code", Unit::Count);
    let reason = section.read("reason", "a text like \"not here\"", reason);
    if let Some(act) = &act {
        for (key, of) in [("with", Act::Replace), ("code", Act::Close), ("reason", Act::Close)] {
            if let Some(span) = section.place(key).filter(|_| act.value != of) {
                let message =
                    format!("`{key}` is for action = \"{}\", which this {RULE} has not", word(&ACTS, of));
                section.mistake(Mistake::at(span, message).label("remove it"));
            }
        }
    }
    let action = match act.map(|said| said.value) {
        Some(Act::Replace) => read_replace(&mut section, matches.as_ref(), with),
        Some(Act::Close) => {
            let (usual, text) = if over.is_said() {
                (TOO_MUCH, "too much at once")
            } else if longer_than.is_some() {
                (TOO_BIG, "a message is too long")
            } else {
                (POLICY, "a message is not allowed here")
            };
            let code = code.map_or(Some(usual), |said| close_code(&mut section, &said));
            let reason = reason.map_or_else(|| text.to_owned(), |said| said.value);
            code.map(|code| Action::Close(Arc::new(Closing { code, reason })))
        }
        Some(Act::Drop) => Some(Action::Drop),
        Some(Act::Pass) => Some(Action::Pass),
        None => None,
    };
    section.end();
    Some(RuleSettings {
        name,
        from,
        kind,
        matches: matches.map(|said| said.value),
        longer_than: longer_than.map(|said| said.value as usize),
        over,
        action: action?,
    })
}

fn read_rate(
    section: &mut Section<'_, '_>,
    key: &'static str,
    burst_key: &'static str,
    unit: Unit,
) -> Option<Rate> {
    let rate = section.bounded(key, unit, &keys::RULE_RATE_BOUNDS);
    let burst = section.bounded(burst_key, unit, &keys::RULE_RATE_BOUNDS);
    if let (false, Some(span)) = (section.has(key), section.place(burst_key)) {
        let message = format!("`{burst_key}` is for `{key}`, which this {RULE} has not");
        section.mistake(Mistake::at(span, message).label(format!("remove it, or add {key}")));
    }
    let per_second = rate?.value;
    Some(Rate { per_second, burst: burst.map_or(per_second, |said| said.value) })
}

fn read_replace(
    section: &mut Section<'_, '_>,
    matches: Option<&Said<Pattern>>,
    with: Option<Said<String>>,
) -> Option<Action> {
    for (key, advice) in [("matches", "add matches = \"secret=\""), ("with", "add with = \"***\"")] {
        if !section.has(key) {
            let mistake = Mistake::at(section.span(), format!("action = \"replace\" needs `{key}`"));
            section.mistake(mistake.label(advice));
        }
    }
    let (pattern, with) = (matches?, with?);
    match Template::new(&with.value, &pattern.value) {
        Ok(template) => Some(Action::Replace(template)),
        Err(error) => {
            section.mistake(Mistake::by(with.by, format!("`with`: {error}")));
            None
        }
    }
}

fn close_code(section: &mut Section<'_, '_>, said: &Said<u64>) -> Option<u16> {
    let code = u16::try_from(said.value).ok().filter(|&code| may_be_sent(code));
    if code.is_none() {
        let message = "`code` must be one that may be sent: 1000 to 1003, 1007 to 1014, or 3000 to 4999";
        section.mistake(Mistake::by(said.by.clone(), message));
    }
    code
}

fn name(text: &str) -> Result<String, String> {
    let fits = !text.trim().is_empty() && text.len() <= 64 && !text.chars().any(char::is_control);
    if fits { Ok(text.into()) } else { Err("a name has 1 to 64 bytes, and no line ends".into()) }
}

fn reason(text: &str) -> Result<String, String> {
    if text.len() <= REASON { Ok(text.into()) } else { Err(format!("a reason may have {REASON} bytes")) }
}

/// Reads the tap of a route.
pub(super) fn read_tap(route: &mut Section<'_, '_>, path: Option<&Prefix>) -> Option<RawTap> {
    let mut section = route.section("tap", "[route.tap]")?;
    let mut channel = section.parsed("channel", "a name like \"tap/terminal\"", &[]).map(|said| said.value);
    if let (None, false, Some(path)) = (&channel, section.has("channel"), path) {
        match format!("tap{path}").parse::<ChannelId>() {
            Ok(name) => channel = Some(name),
            Err(error) => {
                let message = format!("`tap{path}` is no name of a channel: {error}");
                let mistake = Mistake::at(section.span(), message);
                section.mistake(mistake.label("add channel = \"tap/terminal\""));
            }
        }
    }
    let from = section.choice("from", &SOURCES).map(|said| said.value);
    let kind = section.choice("kind", &KINDS).map(|said| said.value);
    let every = section.bounded("every", Unit::Count, &keys::TAP_EVERY_BOUNDS);
    section.end();
    Some(RawTap { channel, from, kind, every: every.map_or(1, |said| said.value) })
}

/// Prints the rules and the tap of a route.
pub(super) fn write(out: &mut String, route: &RouteSettings) -> fmt::Result {
    route.rules.iter().try_for_each(|rule| write_rule(out, rule))?;
    let Some(tap) = &route.tap else { return Ok(()) };
    writeln!(out, "\n[route.tap]\nchannel = {}", quoted(tap.channel.as_str()))?;
    write_of(out, tap.from, tap.kind)?;
    writeln!(out, "every = {}", tap.every)
}

fn write_rule(out: &mut String, rule: &RuleSettings) -> fmt::Result {
    writeln!(out, "\n{RULE}\nname = {}", quoted(&rule.name))?;
    write_of(out, rule.from, rule.kind)?;
    if let Some(pattern) = &rule.matches {
        writeln!(out, "matches = {}", quoted(pattern.as_str()))?;
    }
    if let Some(longest) = rule.longer_than {
        writeln!(out, "longer_than = {}", Unit::Size.print(longest as u64))?;
    }
    let rates = [
        (rule.over.messages, ["messages_per_second", "burst_messages"], Unit::Count),
        (rule.over.bytes, ["bytes_per_second", "burst_bytes"], Unit::Size),
    ];
    for (rate, [key, burst], unit) in rates {
        if let Some(rate) = rate {
            writeln!(out, "{key} = {}", unit.print(rate.per_second))?;
            writeln!(out, "{burst} = {}", unit.print(rate.burst))?;
        }
    }
    writeln!(out, "action = {}", quoted(rule.action.word()))?;
    match &rule.action {
        Action::Close(closing) => {
            writeln!(out, "code = {}\nreason = {}", closing.code, quoted(&closing.reason))
        }
        Action::Replace(with) => writeln!(out, "with = {}", quoted(with.as_str())),
        Action::Pass | Action::Drop => Ok(()),
    }
}

fn write_of(out: &mut String, from: Option<Source>, kind: Option<Kind>) -> fmt::Result {
    if let Some(from) = from {
        writeln!(out, "from = {}", quoted(word(&SOURCES, from)))?;
    }
    if let Some(kind) = kind {
        writeln!(out, "kind = {}", quoted(word(&KINDS, kind)))?;
    }
    Ok(())
}
