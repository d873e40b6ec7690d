//! Who is connected as which producer: a newer connection is told to the older one, which ends. A connection that
//! ends gives its claim back to the store.

use std::{
    collections::{HashMap, hash_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shared::{ErrorCode, sender::ProducerId};
use tokio::sync::oneshot;

use crate::{
    channel::hub::{Hub, now},
    store::Claim,
};

/// The framed senders that are connected now.
#[derive(Debug, Default)]
pub struct Registry(Mutex<HashMap<ProducerId, Entry>>);

#[derive(Debug)]
struct Entry {
    claim: Claim,
    evict: oneshot::Sender<ErrorCode>,
}

/// A place in the registry, and the claim in the store; both are given back when it is dropped.
#[derive(Debug)]
pub struct Registered {
    registry: Arc<Registry>,
    hub: Arc<Hub>,
    claim: Claim,
    evicted: oneshot::Receiver<ErrorCode>,
}

impl Registry {
    /// Notes that the connection of a store's claim is here, and ends that of an older claim of the same producer.
    /// If a newer one is here already, since it was answered first, this one is told to end.
    pub fn register(self: &Arc<Self>, claim: Claim, hub: Arc<Hub>) -> Registered {
        let (evict, evicted) = oneshot::channel();
        let mut entry = Entry { claim, evict };
        let newest = match self.entries().entry(claim.producer) {
            hash_map::Entry::Vacant(place) => {
                place.insert(entry);
                return Registered { registry: Arc::clone(self), hub, claim, evicted };
            }
            hash_map::Entry::Occupied(mut place) => {
                if place.get().claim.number < claim.number {
                    std::mem::swap(place.get_mut(), &mut entry);
                }
                place.get().claim
            }
        };
        let code = if entry.claim.epoch < newest.epoch { ErrorCode::Fenced } else { ErrorCode::TakenOver };
        // It may have ended by itself meanwhile.
        let _ = entry.evict.send(code);
        Registered { registry: Arc::clone(self), hub, claim, evicted }
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
        drop(entries);
        self.hub.store().release(self.claim, now());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::Epoch;

    use super::*;
    use crate::{
        channel::hub::ChannelRules,
        store::{Refused, StoreSettings, memory::Memory},
    };

    fn hub() -> Arc<Hub> {
        let settings = StoreSettings {
            memory: 1 << 20,
            encodings: 0,
            channels: 1,
            producers: 1,
            channel_idle: Duration::MAX,
            trim_every: Duration::from_secs(1),
            retention: Vec::new(),
            durability: Vec::new(),
        };
        Hub::new(Arc::new(Memory::new(Epoch(1), settings)), 0, ChannelRules::default())
    }

    async fn claim(hub: &Hub, epoch: u32) -> Claim {
        hub.store().claim(ProducerId([1; 16]), epoch, Duration::ZERO, now()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn the_connection_of_the_newest_claim_stays_whichever_was_answered_first() {
        let hub = hub();
        let claims = [claim(&hub, 1).await, claim(&hub, 1).await, claim(&hub, 2).await];
        let registry = Arc::<Registry>::default();
        let register = |index: usize| registry.register(claims[index], Arc::clone(&hub));
        let (mut middle, mut oldest) = (register(1), register(0));
        assert_eq!(oldest.evicted().await, ErrorCode::TakenOver);
        let newest = register(2);
        assert_eq!(middle.evicted().await, ErrorCode::Fenced);
        drop((oldest, middle));
        assert_eq!(registry.entries()[&claims[2].producer].claim, claims[2]);
        drop(newest);
        assert!(registry.entries().is_empty());
    }

    #[tokio::test]
    async fn a_claim_is_held_until_its_connection_ends() {
        let hub = hub();
        let registry = Arc::<Registry>::default();
        let registered = registry.register(claim(&hub, 5).await, Arc::clone(&hub));
        let later = now() + 1_000_000_000;
        hub.store().trim(later).await;
        let known = hub.store().claim(ProducerId([1; 16]), 4, Duration::ZERO, later).await.unwrap();
        assert_eq!(known, Err(Refused::Fenced));
        drop(registered);
        hub.store().trim(later).await;
        claim(&hub, 4).await;
    }
}
