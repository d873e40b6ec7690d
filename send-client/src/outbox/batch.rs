//! Neighbouring messages of one channel as the frames that go on the wire.

use shared::sender::Alias;

/// Bytes at which a batch is full; a single message may be larger.
const BATCH_BYTES: usize = 64 * 1024;

/// Messages at which a batch is full.
const BATCH_MESSAGES: usize = 1024;

/// Neighbouring messages of one channel, encoded.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) alias: Alias,
    /// The first pseq in it.
    pub(super) first: u64,
    pub(super) frames: Vec<u8>,
    /// Where in `frames` each message ends.
    pub(super) ends: Vec<u32>,
}

impl Batch {
    /// One that holds nothing yet.
    pub(super) fn new(alias: Alias, first: u64) -> Self {
        Self { alias, first, frames: Vec::new(), ends: Vec::new() }
    }

    /// Whether another message of that channel may be added.
    pub(super) fn takes(&self, alias: Alias) -> bool {
        let used = 1..BATCH_MESSAGES;
        self.alias == alias && used.contains(&self.ends.len()) && self.frames.len() < BATCH_BYTES
    }

    /// The last pseq in it.
    pub(super) fn last(&self) -> u64 {
        self.first + self.ends.len() as u64 - 1
    }

    /// Where the frame of the `index`th message begins.
    pub(super) fn start(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.ends[index - 1] as usize }
    }

    /// The bytes of its frames with `after < pseq <= upto`.
    pub(super) fn bytes(&self, after: u64, upto: u64) -> usize {
        let index = |pseq: u64| ((pseq + 1).saturating_sub(self.first) as usize).min(self.ends.len());
        self.start(index(upto.max(after))) - self.start(index(after))
    }
}
