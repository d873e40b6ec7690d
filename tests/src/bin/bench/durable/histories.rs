//! What is kept before it is read: made once, by the relay itself, and read in every round.

use anyhow::Result;

use super::{
    Scale,
    disk::Folder,
    publishing,
    senders::Shape,
    servers::{Keeping, Server},
};
use crate::servers::Place;

/// A relay's data.
#[derive(Debug)]
pub(super) struct History {
    pub(super) data: Folder,
    pub(super) shape: Shape,
    pub(super) messages: u64,
}

/// Which data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// 1 GiB in one channel.
    Channel,
    /// A channel that many write to, each a message and then one to each of its 25 other channels, so that no two of
    /// the channel's messages are in one chunk or stand beside each other.
    Scattered,
    /// 10 million small messages in 1 000 channels, written in batches by a relay that was killed.
    Batches,
}

/// The channel of [`Kind::Scattered`] that is read alone.
pub(super) const SCATTERED: &str = "bench/scattered";

impl History {
    /// Makes it.
    pub(super) fn make(kind: Kind, place: &Place, scale: Scale) -> Result<Self> {
        let (shape, each) = kind.shape(scale);
        let data = Folder::new(place.folder.join(match kind {
            Kind::Channel => "channel",
            Kind::Scattered => "scattered",
            Kind::Batches => "batches",
        }))?;
        let server = Server::Relay.start(place, data.path(), Keeping::ALL)?;
        let messages = publishing::fill(&server, &shape, each)?;
        if kind == Kind::Batches {
            // What a relay does when it ends is not there yet: for a start after a crash.
            server.process.kill()?;
        }
        Ok(Self { data, shape, messages })
    }

    /// Messages of [`SCATTERED`]: each connection publishes one in each turn over its channels.
    pub(super) fn scattered(&self) -> u64 {
        let turn: usize = self.shape.channels.iter().map(Vec::len).sum();
        self.messages / turn as u64 * self.shape.channels.len() as u64
    }
}

impl Kind {
    /// Who publishes, and how many messages each connection.
    fn shape(self, scale: Scale) -> (Shape, u64) {
        match self {
            Self::Channel => (Shape::single(1000, 1024), scale.many(1024 * 1024, 500)),
            Self::Scattered => {
                let (connections, others) = (scale.many(40, 3) as usize, 25);
                let channels = (0..connections).map(|connection| {
                    let own = (0..others).map(move |index| format!("bench/{connection:02}/{index:02}"));
                    std::iter::once(SCATTERED.to_owned()).chain(own).collect()
                });
                // A window of one turn: a read of the relay has one message of each channel at most.
                let turn = others + 1;
                let shape = Shape { channels: channels.collect(), window: turn, batch: 1, bytes: 1024 };
                (shape, turn * scale.many(1640, 20))
            }
            Self::Batches => {
                let channels = (0..10).map(|connection| {
                    (0..scale.many(100, 3)).map(|index| format!("bench/{connection}/{index:02}")).collect()
                });
                let shape = Shape { channels: channels.collect(), window: 1000, batch: 100, bytes: 128 };
                (shape, scale.many(1_000_000, 600))
            }
        }
    }
}
