//! What is said of messages that pass on a route: `[[route.rule]]` and `[route.tap]`; what it means, and how it is
//! printed.

use std::{
    fmt::{self, Write as _},
    ops::RangeInclusive,
    sync::Arc,
};

use shared::Kind;

use super::{
    document::Section,
    keys::Unit,
    print::{quoted, word},
    report::{By, Mistake, Said},
};
use crate::gateway::{
    course::{SOURCES, Source},
    frame::may_be_sent,
    path::Prefix,
    pattern::{Pattern, Template},
    rate::Rate,
    rules::{Action, Closing, Over, RuleSettings},
    tap::TapSettings,
};

const RULE: &str = "[[route.rule]]";
const TAP: &str = "[route.tap]";

/// What is done, by its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Pass,
    Drop,
    Close,
    Replace,
}

const DEEDS: [(&str, Deed); 4] =
    [("pass", Deed::Pass), ("drop", Deed::Drop), ("close", Deed::Close), ("replace", Deed::Replace)];
const KINDS: [(&str, Kind); 2] = [("text", Kind::Text), ("binary", Kind::Binary)];

/// Bytes that a message may have and still not be longer than is said.
const LONGER_BOUNDS: RangeInclusive<u64> = 0..=1 << 30;
/// In a second, or at once; and one of how many.
const MANY_BOUNDS: RangeInclusive<u64> = 1..=1_000_000_000;
/// The same, of bytes.
const BYTES_BOUNDS: RangeInclusive<u64> = 1..=1 << 40;

/// Policy violation (RFC 6455, section 7.4.1).
const CLOSE_CODE: u16 = 1008;
/// What a close frame has room for (RFC 6455, section 5.5).
const REASON_BYTES: usize = 123;

/// Reads every `[[route.rule]]` of a route.
pub(super) fn read_rules(route: &mut Section<'_, '_>) -> Vec<RuleSettings> {
    let mut rules: Vec<RuleSettings> = Vec::new();
    let mut number = 0;
    route.sections("rule", RULE, |section| {
        number += 1;
        rules.extend(read_rule(section, number, &rules));
    });
    rules
}

/// Reads one, the one of this number, behind others; none if anything of it is wrong.
fn read_rule(mut section: Section<'_, '_>, number: usize, before: &[RuleSettings]) -> Option<RuleSettings> {
    let name = section.read("name", "a name like \"no-secrets\"", rule_name);
    let from = section.choice("from", &SOURCES);
    let kind = section.choice("kind", &KINDS);
    let matches = section.parsed::<Pattern>("matches", "a regular expression like \"secret\"", &[]);
    let longer_than = section.bounded("longer_than", Unit::Size, &LONGER_BOUNDS);
    let messages =
        read_rate(&mut section, "messages_per_second", "messages_burst", Unit::Count, &MANY_BOUNDS);
    let bytes = read_rate(&mut section, "bytes_per_second", "bytes_burst", Unit::Size, &BYTES_BOUNDS);
    let mut wrong = [
        ("name", name.is_none()),
        ("from", from.is_none()),
        ("kind", kind.is_none()),
        ("matches", matches.is_none()),
        ("longer_than", longer_than.is_none()),
    ]
    .iter()
    .any(|&(key, is_none)| is_none && section.has(key));
    let kind = kind.map(|said| said.value);
    if let Some(said) = &matches
        && let Err(error) = said.value.fits(kind)
    {
        section.mistake(Mistake::by(said.by.clone(), format!("`matches`: {error}")));
        wrong = true;
    }
    let action = read_action(&mut section, matches.as_ref());
    let called = name.as_ref().map_or_else(|| number.to_string(), |said| said.value.clone());
    if before.iter().any(|rule| rule.name == called) {
        let by = name.map_or_else(|| By::File(section.span()), |said| said.by);
        let message = format!("there is a rule `{}` of this route already", called.escape_debug());
        section.mistake(Mistake::by(by, message).label("give it another `name`"));
        wrong = true;
    }
    section.end();
    let (Some(messages), Some(bytes), Some(action), false) = (messages, bytes, action, wrong) else {
        return None;
    };
    Some(RuleSettings {
        name: called,
        from: from.map(|said| said.value),
        kind,
        matches: matches.map(|said| said.value),
        longer_than: longer_than.map(|said| said.value as usize),
        over: Over { messages, bytes },
        action,
    })
}

/// Reads how much may come in a second and at once; none if it is wrong.
fn read_rate(
    section: &mut Section<'_, '_>,
    key: &'static str,
    burst_key: &'static str,
    unit: Unit,
    bounds: &RangeInclusive<u64>,
) -> Option<Option<Rate>> {
    let rate = section.bounded(key, unit, bounds);
    let burst = section.bounded(burst_key, unit, bounds);
    if (rate.is_none() && section.has(key)) || (burst.is_none() && section.has(burst_key)) {
        return None;
    }
    match (rate, burst) {
        (Some(rate), burst) => {
            let burst = burst.map_or(rate.value, |said| said.value);
            Some(Some(Rate { per_second: rate.value, burst }))
        }
        (None, Some(burst)) => {
            let message = format!("`{burst_key}` is what may come at once beyond `{key}`, which is not said");
            section.mistake(Mistake::by(burst.by, message).label(format!("add {key}")));
            None
        }
        (None, None) => Some(None),
    }
}

/// Reads what is done; none if it is wrong.
fn read_action(section: &mut Section<'_, '_>, matches: Option<&Said<Pattern>>) -> Option<Action> {
    let deed = section.choice("action", &DEEDS);
    let with = section.read("with", "a text like \"***\"", |text| Ok(text.to_owned()));
    let code = section.bounded("code", Unit::Count, &(0..=u64::from(u16::MAX)));
    let reason = section.read("reason", "a text like \"not allowed here\"", close_reason);
    if !section.has("action") {
        let message = format!("{RULE} needs `action`");
        section.mistake(Mistake::at(section.span(), message).label("add action = \"drop\""));
    }
    let deed = deed?.value;
    let mut right = true;
    for (key, of, word) in
        [("with", Deed::Replace, "replace"), ("code", Deed::Close, "close"), ("reason", Deed::Close, "close")]
    {
        if let (true, Some(span)) = (deed != of, section.place(key)) {
            let message = format!("`{key}` is for action = \"{word}\"");
            section.mistake(Mistake::at(span, message).label("remove it"));
            right = false;
        }
    }
    let action = match deed {
        Deed::Pass => Action::Pass,
        Deed::Drop => Action::Drop,
        Deed::Close => {
            let code_of = |said: &Said<u64>| u16::try_from(said.value).ok().filter(|&code| may_be_sent(code));
            if let Some(said) = code.as_ref().filter(|said| code_of(said).is_none()) {
                let message = "a close code that may be sent is 1000 to 1003, 1007 to 1014 or 3000 to 4999";
                section.mistake(Mistake::by(said.by.clone(), message));
            }
            if (code.is_none() && section.has("code")) || (reason.is_none() && section.has("reason")) {
                return None;
            }
            let code = code.as_ref().map_or(Some(CLOSE_CODE), code_of)?;
            let reason = reason.map_or_else(|| "a rule does not allow this".into(), |said| said.value);
            Action::Close(Arc::new(Closing { code, reason }))
        }
        Deed::Replace => {
            for (key, advice) in [("matches", "add matches = \"secret\""), ("with", "add with = \"***\"")] {
                if !section.has(key) {
                    let message = format!("action = \"replace\" needs `{key}`");
                    section.mistake(Mistake::at(section.span(), message).label(advice));
                }
            }
            let (pattern, with) = (matches?, with?);
            match Template::new(&with.value, &pattern.value) {
                Ok(template) => Action::Replace(template),
                Err(error) => {
                    section.mistake(Mistake::by(with.by, format!("`with`: {error}")));
                    return None;
                }
            }
        }
    };
    right.then_some(action)
}

/// Reads the `[route.tap]` of a route of this path.
pub(super) fn read_tap(route: &mut Section<'_, '_>, path: Option<&Prefix>) -> Option<TapSettings> {
    let mut section = route.section("tap", TAP)?;
    let channel = section.parsed("channel", "a channel like \"tap/terminal\"", &[]);
    let from = section.choice("from", &SOURCES);
    let kind = section.choice("kind", &KINDS);
    let every = section.bounded("every", Unit::Count, &MANY_BOUNDS);
    let named = channel.map(|said| said.value);
    let channel = match (named, path) {
        (None, Some(path)) if !section.has("channel") => {
            let own = format!("tap{}", path.as_str());
            let named = own.parse().ok();
            if named.is_none() {
                let message = format!("`{}` is no channel's name", own.escape_debug());
                section.mistake(Mistake::at(section.span(), message).label("add channel = \"tap/terminal\""));
            }
            named
        }
        (named, _) => named,
    };
    section.end();
    Some(TapSettings {
        channel: channel?,
        from: from.map(|said| said.value),
        kind: kind.map(|said| said.value),
        every: every.map_or(1, |said| said.value),
        // What the relay's own channels may have is known when all was read.
        max_message: shared::limits::MAX_MESSAGE,
    })
}

/// Names stand in tables and reports.
fn rule_name(text: &str) -> Result<String, String> {
    const MOST: usize = 64;
    if text.is_empty() || text.chars().count() > MOST || text.chars().any(char::is_control) {
        return Err(format!("a name has 1 to {MOST} characters, none of them a control character"));
    }
    Ok(text.into())
}

fn close_reason(text: &str) -> Result<String, String> {
    if text.len() > REASON_BYTES {
        return Err(format!("the reason of a close frame has at most {REASON_BYTES} bytes"));
    }
    Ok(text.into())
}

/// Prints the rules and the tap of a route.
pub(super) fn write(out: &mut String, rules: &[RuleSettings], tap: Option<&TapSettings>) -> fmt::Result {
    rules.iter().try_for_each(|rule| write_rule(out, rule))?;
    let Some(tap) = tap else { return Ok(()) };
    writeln!(out, "\n{TAP}\nchannel = {}", quoted(tap.channel.as_str()))?;
    write_whose(out, tap.from, tap.kind)?;
    writeln!(out, "every = {}", tap.every)
}

fn write_rule(out: &mut String, rule: &RuleSettings) -> fmt::Result {
    writeln!(out, "\n{RULE}\nname = {}", quoted(&rule.name))?;
    write_whose(out, rule.from, rule.kind)?;
    if let Some(pattern) = &rule.matches {
        writeln!(out, "matches = {}", quoted(pattern.as_str()))?;
    }
    if let Some(longest) = rule.longer_than {
        writeln!(out, "longer_than = {}", Unit::Size.print(longest as u64))?;
    }
    if let Some(Rate { per_second, burst }) = rule.over.messages {
        writeln!(out, "messages_per_second = {per_second}\nmessages_burst = {burst}")?;
    }
    if let Some(Rate { per_second, burst }) = rule.over.bytes {
        let (rate, burst) = (Unit::Size.print(per_second), Unit::Size.print(burst));
        writeln!(out, "bytes_per_second = {rate}\nbytes_burst = {burst}")?;
    }
    writeln!(out, "action = {}", quoted(rule.action.word()))?;
    match &rule.action {
        Action::Pass | Action::Drop => Ok(()),
        Action::Close(closing) => {
            writeln!(out, "code = {}\nreason = {}", closing.code, quoted(&closing.reason))
        }
        Action::Replace(with) => writeln!(out, "with = {}", quoted(with.as_str())),
    }
}

fn write_whose(out: &mut String, from: Option<Source>, kind: Option<Kind>) -> fmt::Result {
    if let Some(from) = from {
        writeln!(out, "from = {}", quoted(from.word()))?;
    }
    match kind {
        Some(kind) => writeln!(out, "kind = {}", quoted(word(&KINDS, kind))),
        None => Ok(()),
    }
}
