//! The tap of a route: what passes on it is mirrored into a channel, as JSON that says what it is and whose. It never
//! holds what it mirrors: what the channel does not take at once is dropped, and counted.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Serialize;
use serde_json::{Value, json};
use shared::{ChannelId, Kind, receiver::Data};

use super::{course::Source, message::Message};
use crate::channel::{
    hub::{self, Hub},
    mirror::{Batch, Mirror},
};

/// What is mirrored, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapSettings {
    /// The channel.
    pub channel: ChannelId,
    /// Whose messages; none: both sides'.
    pub from: Option<Source>,
    /// Text or binary; none: both.
    pub kind: Option<Kind>,
    /// Of so many messages one.
    pub every: u64,
    /// Bytes that a message of the channel may have; what would be longer is dropped.
    pub max_message: usize,
}

/// A tap.
#[derive(Debug)]
pub struct Tap {
    settings: TapSettings,
    mirror: Mirror,
    /// Messages that could have been mirrored.
    seen: AtomicU64,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    mirrored: AtomicU64,
    dropped: AtomicU64,
}

/// Whose messages are mirrored in one turn.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The path of the route.
    pub route: &'a str,
    /// The connection's number at that path.
    pub connection: u64,
    /// Who connected.
    pub client: SocketAddr,
    /// Which side sent them.
    pub from: Source,
}

/// What is mirrored of one turn of a connection.
#[derive(Debug)]
pub struct Turn<'t> {
    tap: &'t Tap,
    origin: Origin<'t>,
    batch: Batch,
    time: u64,
    mirrored: u64,
    dropped: u64,
    has_room: bool,
}

/// A message of the channel.
#[derive(Serialize)]
struct Mirrored<'a> {
    route: &'a str,
    connection: u64,
    client: SocketAddr,
    from: &'static str,
    kind: &'static str,
    time: u64,
    #[serde(flatten)]
    data: Data<'a>,
}

impl Tap {
    /// A tap; what was counted of the one before it goes on.
    pub fn new(settings: &TapSettings, hub: &Arc<Hub>, before: Option<&Self>) -> Self {
        Self {
            settings: settings.clone(),
            mirror: Mirror::new(hub, settings.channel.clone()),
            seen: AtomicU64::new(0),
            counts: before.map(|before| Arc::clone(&before.counts)).unwrap_or_default(),
        }
    }

    /// What comes from there in one turn; none if it is not mirrored at all.
    pub fn turn<'t>(&'t self, origin: Origin<'t>) -> Option<Turn<'t>> {
        self.settings.from.is_none_or(|from| from == origin.from).then(|| Turn {
            tap: self,
            origin,
            batch: Batch::default(),
            time: 0,
            mirrored: 0,
            dropped: 0,
            has_room: false,
        })
    }

    /// What it did, as JSON.
    pub fn report(&self) -> Value {
        self.counts.lost(self.mirror.lost());
        json!({
            "channel": self.settings.channel.as_str(),
            "mirrored": self.counts.mirrored.load(Ordering::Relaxed),
            "dropped": self.counts.dropped.load(Ordering::Relaxed),
        })
    }

    /// Whether it is the turn of this message, of those that could be mirrored.
    fn is_next(&self) -> bool {
        self.settings.every == 1
            || self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.settings.every)
    }
}

impl Turn<'_> {
    /// Mirrors a message that passes.
    pub fn mirror(&mut self, message: &Message<'_>) {
        let settings = &self.tap.settings;
        if settings.kind.is_some_and(|kind| kind != message.kind()) || !self.tap.is_next() {
            return;
        }
        if self.time == 0 {
            self.time = hub::now();
            self.has_room = self.tap.mirror.has_room();
        }
        // Without room it is not even written down.
        if !self.has_room || message.bytes().len() > settings.max_message {
            self.dropped += 1;
            return;
        }
        let Origin { route, connection, client, from } = self.origin;
        let mirrored = Mirrored {
            route,
            connection,
            client,
            from: from.word(),
            kind: match message.kind() {
                Kind::Text => "text",
                Kind::Binary => "binary",
            },
            time: self.time,
            data: Data::new(message.kind(), message.bytes()),
        };
        let Ok(text) = serde_json::to_vec(&mirrored) else { return };
        if text.len() > settings.max_message {
            self.dropped += 1;
            return;
        }
        if self.batch.push(Kind::Text, &text).is_err() {
            self.publish();
            // An empty one takes every message.
            let _ = self.batch.push(Kind::Text, &text);
        }
        self.mirrored += 1;
    }

    /// Publishes what came together, and counts.
    pub fn end(mut self) {
        // Nothing was looked at.
        if self.time == 0 {
            return;
        }
        self.publish();
        self.tap.counts.dropped.fetch_add(self.dropped, Ordering::Relaxed);
        self.tap.counts.lost(self.tap.mirror.lost());
    }

    /// It counts as mirrored before anybody can be told that it is lost.
    fn publish(&mut self) {
        self.tap.counts.mirrored.fetch_add(std::mem::take(&mut self.mirrored), Ordering::Relaxed);
        self.tap.mirror.publish(&mut self.batch);
    }
}

impl Counts {
    /// So many that were mirrored have got lost.
    fn lost(&self, messages: u64) {
        if messages > 0 {
            self.mirrored.fetch_sub(messages, Ordering::Relaxed);
            self.dropped.fetch_add(messages, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::Epoch;

    use super::*;
    use crate::{
        channel::hub::ChannelRules,
        store::{StoreSettings, memory::Memory},
    };

    #[test]
    fn what_is_lost_within_a_turn_is_never_more_than_what_was_mirrored() {
        let nothing = StoreSettings {
            memory: u64::MAX,
            encodings: 0,
            channels: 0,
            producers: 1,
            channel_idle: Duration::from_secs(3600),
            trim_every: Duration::from_secs(1),
            retention: Vec::new(),
            durability: Vec::new(),
        };
        let hub = Hub::new(Arc::new(Memory::new(Epoch(1), nothing)), 0, ChannelRules::default());
        let channel = "tap/a".parse().unwrap();
        let settings = TapSettings { channel, from: None, kind: None, every: 1, max_message: 1 << 20 };
        let tap = Tap::new(&settings, &hub, None);
        let client = SocketAddr::from(([127, 0, 0, 1], 1));
        let origin = Origin { route: "/a", connection: 1, client, from: Source::Client };
        let mut turn = tap.turn(origin).unwrap();
        // Together they are more than is published at once.
        for _ in 0..3 {
            turn.mirror(&Message::Text("x".repeat(40_000).into()));
        }
        let told = tap.report();
        assert_eq!((&told["mirrored"], &told["dropped"]), (&0.into(), &2.into()));
        turn.end();
        let told = tap.report();
        assert_eq!((&told["mirrored"], &told["dropped"]), (&0.into(), &3.into()));
    }
}
