//! Who is connected as which producer: a newer connection is told to the older one, which ends.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shared::{ErrorCode, sender::ProducerId};
use tokio::sync::oneshot;

use crate::store::Claim;

/// The framed senders that are connected now.
#[derive(Debug, Default)]
pub struct Registry(Mutex<HashMap<ProducerId, Entry>>);

#[derive(Debug)]
struct Entry {
    claim: Claim,
    evict: oneshot::Sender<ErrorCode>,
}

/// A place in the registry; given back when it is dropped.
#[derive(Debug)]
pub struct Registered {
    registry: Arc<Registry>,
    claim: Claim,
    evicted: oneshot::Receiver<ErrorCode>,
}

impl Registry {
    /// Notes that a claim's connection is here, and ends that of an older claim of the same producer.
    pub fn register(self: &Arc<Self>, claim: Claim) -> Registered {
        let (evict, evicted) = oneshot::channel();
        let older = self.entries().insert(claim.producer, Entry { claim, evict });
        if let Some(older) = older {
            let code = if older.claim.epoch < claim.epoch { ErrorCode::Fenced } else { ErrorCode::TakenOver };
            // It may have ended by itself meanwhile.
            let _ = older.evict.send(code);
        }
        Registered { registry: Arc::clone(self), claim, evicted }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<ProducerId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registered {
    /// Waits until a newer connection takes the place, and says why.
    pub async fn evicted(&mut self) -> ErrorCode {
        // The sender lives in the registry until this place is given back or taken.
        (&mut self.evicted).await.unwrap_or(ErrorCode::TakenOver)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut entries = self.registry.entries();
        if entries.get(&self.claim.producer).is_some_and(|entry| entry.claim == self.claim) {
            entries.remove(&self.claim.producer);
        }
    }
}
