//! The limits and waits: one line for each key of `[limits]` and `[timeouts]` says its name, its bounds and where
//! it stands in [`Config`]. Reading, printing and suggestions all go by this table. Defaults: `Config::default`.

use std::{ops::RangeInclusive, time::Duration};

use shared::units;

use super::Config;

/// A key with a number: how many, how large or how long.
pub(super) struct Key {
    /// Its section, without brackets.
    pub(super) section: &'static str,
    /// Its name; unique over the sections.
    pub(super) name: &'static str,
    /// What it counts.
    pub(super) unit: Unit,
    /// What it may be.
    pub(super) bounds: RangeInclusive<u64>,
    get: fn(&Config) -> u64,
    set: fn(&mut Config, u64),
}

/// What a key's number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Size,
    /// Microseconds.
    Wait,
}

impl Key {
    /// The key of this name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Checks a value; the error says which bound it breaks.
    pub(super) fn check(&self, value: u64) -> Result<(), String> {
        within(value, self.unit, &self.bounds)
    }

    /// Sets a value that was checked.
    pub(super) fn set(&self, config: &mut Config, value: u64) {
        (self.set)(config, value);
    }

    /// Its value.
    pub(super) fn value(&self, config: &Config) -> u64 {
        (self.get)(config)
    }

    /// Its value, as the file writes it.
    pub(super) fn print(&self, config: &Config) -> String {
        self.unit.print(self.value(config))
    }
}

impl Unit {
    /// As the file writes it: a number, or a quoted text that reads back as exactly this value.
    pub(super) fn print(self, value: u64) -> String {
        match self {
            Self::Count => value.to_string(),
            Self::Size => format!("\"{}\"", exact_size(value)),
            Self::Wait => format!("\"{}\"", units::format_duration(Duration::from_micros(value))),
        }
    }

    /// What would be a value, after "must be".
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Count => "a number like 64",
            Self::Size => "a size like \"64KiB\"",
            Self::Wait => "a duration like \"10s\" or \"250ms\"",
        }
    }

    fn say(self, value: u64) -> String {
        match self {
            Self::Count => value.to_string(),
            Self::Size => exact_size(value),
            Self::Wait => units::format_duration(Duration::from_micros(value)),
        }
    }
}

/// Checks a value against bounds; the error says which one it breaks.
pub(super) fn within(value: u64, unit: Unit, bounds: &RangeInclusive<u64>) -> Result<(), String> {
    if value < *bounds.start() {
        Err(format!("must be at least {}", unit.say(*bounds.start())))
    } else if value > *bounds.end() {
        Err(format!("must be at most {}", unit.say(*bounds.end())))
    } else {
        Ok(())
    }
}

/// Microseconds of a duration; longer ones than that are cut, far beyond every bound.
pub(super) fn micros(wait: Duration) -> u64 {
    u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)
}

/// A size in the greatest unit that leaves no remainder, so that it reads back as the same number of bytes.
fn exact_size(bytes: u64) -> String {
    [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        .into_iter()
        .find(|&(unit, _)| bytes != 0 && bytes.is_multiple_of(unit))
        .map_or_else(|| bytes.to_string(), |(unit, name)| format!("{}{name}", bytes / unit))
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MANY: u64 = 1 << 24;
const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;
const HOUR: u64 = 3_600 * SECOND;
const YEAR: u64 = 365 * 24 * HOUR;

/// Bytes of one message: what 32-bit frame lengths carry with room to spare.
pub(super) const MESSAGE_BOUNDS: RangeInclusive<u64> = 1..=GIB;
/// Bytes of memory of all channels, and of one.
pub(super) const MEMORY_BOUNDS: RangeInclusive<u64> = MIB..=64 * (1 << 40);
/// Bytes that a channel keeps: less than this keeps next to nothing.
pub(super) const HISTORY_BOUNDS: RangeInclusive<u64> = KIB..=64 * (1 << 40);
/// Messages that a channel keeps; 0 is any number.
pub(super) const MESSAGES_BOUNDS: RangeInclusive<u64> = 0..=shared::limits::MAX_SEQ;
/// Age of what a channel keeps; 0 is any age.
pub(super) const AGE_BOUNDS: RangeInclusive<u64> = 0..=100 * YEAR;
/// How long what is published may wait to be written together. More is no batch, but a delay.
pub(super) const BATCH_DELAY_BOUNDS: RangeInclusive<u64> = 0..=1000 * MS;
/// Waits of a route.
pub(super) const ROUTE_WAIT_BOUNDS: RangeInclusive<u64> = MS..=24 * HOUR;
/// Connections of a route, or to an upstream.
pub(super) const ROUTE_CONNECTIONS_BOUNDS: RangeInclusive<u64> = 1..=MANY;
/// How long what was written may not be on the disk itself.
pub(super) const FLUSH_BOUNDS: RangeInclusive<u64> = MS..=HOUR;
/// What a rule lets come in a second, or at once: messages or bytes.
pub(super) const RULE_RATE_BOUNDS: RangeInclusive<u64> = 1..=1 << 40;
/// Of how many messages a tap mirrors one.
pub(super) const TAP_EVERY_BOUNDS: RangeInclusive<u64> = 1..=1 << 32;
/// How long senders are held for slow receivers.
pub(super) const BLOCK_BOUNDS: RangeInclusive<u64> = MS..=HOUR;

/// A key whose number stands in fields that are wide enough for its bounds: one, or the same in several modules.
macro_rules! number {
    ($section:literal, $name:literal, $unit:ident, $bounds:expr, $first:ident.$of_first:ident $(, $other:ident.$field:ident)*) => {
        Key {
            section: $section,
            name: $name,
            unit: Unit::$unit,
            bounds: $bounds,
            get: |config| config.$first.$of_first as u64,
            set: |config, value| {
                config.$first.$of_first = value as _;
                $(config.$other.$field = value as _;)*
            },
        }
    };
}

/// A key whose duration stands in fields: one, or the same in several modules.
macro_rules! wait {
    ($name:literal, $bounds:expr, $first:ident.$of_first:ident $(, $other:ident.$field:ident)*) => {
        Key {
            section: "timeouts",
            name: $name,
            unit: Unit::Wait,
            bounds: $bounds,
            get: |config| micros(config.$first.$of_first),
            set: |config, value| {
                config.$first.$of_first = Duration::from_micros(value);
                $(config.$other.$field = Duration::from_micros(value);)*
            },
        }
    };
}

/// Every key of `[limits]` and `[timeouts]`, in the order in which they are printed.
pub(super) static KEYS: &[Key] = &[
    // More than this the runtime does not take.
    number!("limits", "workers", Count, 0..=32_768, runtime.workers),
    number!("limits", "connections", Count, 1..=MANY, connections.connections),
    number!("limits", "channels", Count, 1..=MANY, store.channels),
    number!("limits", "producers", Count, 1..=MANY, store.producers),
    number!("limits", "subscriptions", Count, 1..=65_536, receivers.subscriptions),
    // An alias is a u16.
    number!("limits", "aliases", Count, 1..=65_536, senders.aliases),
    number!("limits", "max_message", Size, MESSAGE_BOUNDS, senders.max_message, receivers.max_message),
    number!("limits", "fragments", Count, 1..=65_536, receivers.fragments),
    number!("limits", "memory", Size, MEMORY_BOUNDS, store.memory),
    number!("limits", "encodings", Size, 64 * KIB..=64 * (1 << 40), store.encodings),
    // An offset in a segment is a u32.
    number!("disk", "segment", Size, 64 * KIB..=GIB, disk.segment),
    number!("disk", "limit", Size, 0..=64 * (1 << 40), disk.limit),
    Key {
        section: "disk",
        name: "retry",
        unit: Unit::Wait,
        bounds: MS..=HOUR,
        get: |config| micros(config.disk.retry),
        set: |config, value| config.disk.retry = Duration::from_micros(value),
    },
    number!("limits", "window_messages", Count, 1..=MANY, senders.window_messages),
    // A u32 on the wire.
    number!("limits", "window_bytes", Size, 1..=2 * GIB, senders.window_bytes),
    number!("limits", "turn", Size, KIB..=16 * MIB, receivers.turn),
    number!("limits", "send_buffer", Size, 0..=GIB, receivers.send_buffer),
    number!("limits", "least_rate", Size, 0..=GIB, receivers.least_rate),
    // hyper does not take less.
    number!("limits", "header_bytes", Size, 8 * KIB..=MIB, http.header_bytes),
    number!("limits", "ping_misses", Count, 1..=100, receivers.ping_misses, senders.ping_misses),
    wait!("sniff", MS..=HOUR, connections.sniff),
    wait!("headers", MS..=HOUR, http.headers),
    wait!("hello", MS..=HOUR, senders.hello),
    wait!("ping", MS..=24 * HOUR, receivers.ping_every, senders.ping_every),
    wait!("stall", MS..=24 * HOUR, receivers.stall, senders.stall, http.stall),
    wait!("close", MS..=HOUR, receivers.close, senders.close, http.close, gateway.close),
    wait!("keepalive", 1000 * MS..=HOUR, connections.keepalive, gateway.keepalive),
    wait!("undecided", MS..=HOUR, senders.undecided),
    wait!("silence", MS..=HOUR, senders.silence),
    wait!("hold", 0..=HOUR, senders.hold),
    wait!("keep_producer", MS..=YEAR, senders.keep),
    wait!("trim", MS..=HOUR, store.trim_every),
    wait!("channel_idle", MS..=100 * YEAR, store.channel_idle),
    wait!("drain", 0..=HOUR, connections.drain),
    // Less would spin.
    wait!("accept_pause", MS..=HOUR, connections.accept_pause),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_written_so_that_it_reads_back_exactly() {
        for bytes in [0, 1, 1000, 1024, 1025, 1 << 20, (1 << 20) + 1, 1536, 3 << 30, 5 << 40] {
            assert_eq!(units::parse_size(&exact_size(bytes)), Ok(bytes));
        }
        assert_eq!(exact_size(64 << 20), "64MiB");
    }

    #[test]
    fn every_key_has_a_name_of_its_own_and_a_default_within_its_bounds() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..index].iter().all(|other| other.name != key.name), "{}", key.name);
            let mut config = Config::default();
            let value = key.value(&config);
            assert_eq!(key.check(value), Ok(()), "{}", key.name);
            key.set(&mut config, value);
            assert_eq!(config, Config::default(), "{}", key.name);
        }
    }

    #[test]
    fn every_key_sets_what_it_prints_and_keeps_to_its_bounds() {
        for key in KEYS {
            let mut config = Config::default();
            let (least, most) = (*key.bounds.start(), *key.bounds.end());
            for value in [least, most] {
                assert_eq!(key.check(value), Ok(()));
                key.set(&mut config, value);
                assert_eq!(key.value(&config), value, "{}", key.name);
            }
            assert!(key.check(most + 1).unwrap_err().starts_with("must be at most "));
            if let Some(less) = least.checked_sub(1) {
                assert!(key.check(less).unwrap_err().starts_with("must be at least "));
            }
        }
    }
}
