//! Who is told of commits.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use crate::store::{Tail, chunk::Chunk};

/// Who is told of commits, once there is somebody.
#[derive(Default)]
pub(super) struct Told(OnceLock<Tail>);

impl Told {
    /// Tells this one, and no other.
    pub(super) fn set(&self, tail: Tail) {
        assert!(self.0.set(tail).is_ok(), "a store has one tail");
    }

    pub(super) fn tell(&self, chunk: &Arc<Chunk>) {
        if let Some(tail) = self.0.get() {
            tail(chunk);
        }
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Told").field(&self.0.get().is_some()).finish()
    }
}
