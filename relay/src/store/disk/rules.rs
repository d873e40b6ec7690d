//! What holds for each channel: how firmly it is kept, and how much of it.

use shared::{ChannelId, ChannelPattern};

use crate::store::{Durability, Retention};

/// What holds for each channel.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) durability: Vec<(ChannelPattern, Durability)>,
    pub(super) retention: Vec<(ChannelPattern, Retention)>,
}

impl Rules {
    /// What holds for a channel: the first rule of each sort that is about it.
    pub(super) fn of(&self, name: &ChannelId) -> (Durability, Retention) {
        let durability = self.durability.iter().find(|(pattern, _)| pattern.matches(name));
        let retention = self.retention.iter().find(|(pattern, _)| pattern.matches(name));
        let everything = Retention { bytes: u64::MAX, messages: None, age: None };
        (
            durability.map_or(Durability::Sync, |(_, durability)| *durability),
            retention.map_or(everything, |(_, retention)| *retention),
        )
    }
}
