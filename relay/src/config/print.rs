//! The configuration as a file that says the same: every key, nothing left to defaults.

use std::fmt::{self, Write as _};

use super::{
    Config, default_raw,
    keys::{self, KEYS, Unit},
    raw::{ACCEPTS, LOG_FORMATS},
    routes,
};
use crate::{
    channel::LagPolicy,
    reception::{Accepts, ListenerSettings},
    senders::RawSettings,
    store::{Durability, Retention},
};
use shared::ChannelPattern;

/// Writes the configuration.
pub(super) fn print(config: &Config) -> String {
    let mut out = String::new();
    // Writing to a `String` never fails.
    let _ = write(&mut out, config);
    out
}

fn write(out: &mut String, config: &Config) -> fmt::Result {
    let max_message = config.senders.max_message;
    let plain = config.listeners.iter().take_while(|listener| is_plain(listener, max_message)).count();
    let (listen, listeners) = config.listeners.split_at(plain);
    let addresses: Vec<String> = listen.iter().map(|listener| listener.address.to_string()).collect();
    writeln!(out, "listen = {}", list(&addresses))?;
    writeln!(out, "open = {}", config.open)?;
    writeln!(out, "hosts = {}", list(&config.http.hosts))?;
    writeln!(out, "origins = {}", list(&config.http.origins))?;
    if let Some(data) = &config.data {
        writeln!(out, "data = {}", quoted(&data.display().to_string()))?;
    }
    for listener in listeners {
        write_listener(out, listener)?;
    }
    for section in ["limits", "timeouts", "disk"] {
        writeln!(out, "\n[{section}]")?;
        for key in KEYS.iter().filter(|key| key.section == section) {
            writeln!(out, "{} = {}", key.name, key.print(config))?;
        }
    }
    writeln!(out, "\n[log]")?;
    writeln!(out, "filter = {}", quoted(&config.log.filter))?;
    writeln!(out, "format = {}", quoted(word(&LOG_FORMATS, config.log.format)))?;
    let rules = config.store.retention.iter().zip(&config.lag).zip(&config.store.durability);
    for (((pattern, kept), (_, lag)), (_, durability)) in rules {
        write_rule(out, pattern, kept, *lag)?;
        if config.data.is_some() {
            write_durability(out, *durability)?;
        }
    }
    routes::write(out, &config.gateway)
}

/// Whether it is what `listen` makes of an address.
fn is_plain(listener: &ListenerSettings, max_message: usize) -> bool {
    listener.accepts == Accepts::Everything
        && listener.batch_delay.is_zero()
        && listener.raw == RawSettings { first_line: true, ..default_raw(max_message) }
}

fn write_listener(out: &mut String, listener: &ListenerSettings) -> fmt::Result {
    let ListenerSettings { address, accepts, raw, batch_delay } = listener;
    writeln!(out, "\n[[listener]]\naddress = \"{address}\"")?;
    writeln!(out, "accepts = {}", quoted(word(&ACCEPTS, *accepts)))?;
    if matches!(accepts, Accepts::Everything | Accepts::Http) {
        writeln!(out, "batch_delay = {}", Unit::Wait.print(keys::micros(*batch_delay)))?;
    }
    if matches!(accepts, Accepts::Http | Accepts::Framed) {
        return Ok(());
    }
    writeln!(out, "channel = {}", quoted(&raw.channel.to_string()))?;
    writeln!(out, "framing = {}", quoted(&raw.framing.to_string()))?;
    writeln!(out, "first_line = {}", raw.first_line)?;
    writeln!(out, "max_message = {}", Unit::Size.print(raw.max_message as u64))
}

fn write_rule(out: &mut String, pattern: &ChannelPattern, kept: &Retention, lag: LagPolicy) -> fmt::Result {
    writeln!(out, "\n[[channel]]\npattern = {}", quoted(pattern.as_str()))?;
    writeln!(out, "history = {}", Unit::Size.print(kept.bytes))?;
    writeln!(out, "messages = {}", kept.messages.unwrap_or(0))?;
    writeln!(out, "age = {}", Unit::Wait.print(kept.age.map_or(0, keys::micros)))?;
    match lag {
        LagPolicy::Skip => writeln!(out, "lag = \"skip\""),
        LagPolicy::Close => writeln!(out, "lag = \"close\""),
        LagPolicy::Block(wait) => {
            writeln!(out, "lag = \"block\"\nblock_for = {}", Unit::Wait.print(keys::micros(wait)))
        }
    }
}

fn write_durability(out: &mut String, durability: Durability) -> fmt::Result {
    match durability {
        Durability::Sync => writeln!(out, "durability = \"sync\""),
        Durability::Memory => writeln!(out, "durability = \"memory\""),
        Durability::Async { flush } => {
            writeln!(out, "durability = \"async\"\nflush = {}", Unit::Wait.print(keys::micros(flush)))
        }
    }
}

/// The word for a value.
pub(super) fn word<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, meaning)| *meaning == value).map_or("", |(word, _)| word)
}

/// A list of texts.
pub(super) fn list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

/// A basic string of TOML.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::LogFormat, *};

    proptest! {
        #[test]
        fn a_quoted_text_reads_back(text in "\\PC{0,20}|[\\x00-\\x7f]{0,20}") {
            let document = format!("a = {}", quoted(&text));
            let read = toml::de::DeTable::parse(&document).unwrap();
            prop_assert_eq!(read.get_ref().get("a").and_then(|value| value.get_ref().as_str()), Some(text.as_str()));
        }
    }

    #[test]
    fn every_word_is_found_again() {
        assert_eq!(word(&LOG_FORMATS, LogFormat::Json), "json");
        assert_eq!(word(&ACCEPTS, Accepts::Framed), "framed");
    }
}
