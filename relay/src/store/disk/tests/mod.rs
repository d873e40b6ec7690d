//! Laws of the engine that others need not keep.

mod busy;
mod clock;
mod damage;
mod forgetful;
mod full;
mod gated;
mod power;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{Disk, DiskSettings};
use crate::store::{ChannelStore, StoreSettings, contract};

/// Makes stores in folders of their own, with so many bytes of chunks in memory.
async fn holds_with(memory: u64) {
    let folders = tempfile::tempdir().unwrap();
    let count = AtomicUsize::new(0);
    let make = |settings: StoreSettings| -> Arc<dyn ChannelStore> {
        let directory = folders.path().join(count.fetch_add(1, Ordering::Relaxed).to_string());
        let disk = DiskSettings { segment: 2048, limit: settings.memory, retry: Duration::from_millis(10) };
        Arc::new(Disk::open(&directory, disk, StoreSettings { memory, ..settings }, 0).unwrap())
    };
    contract::holds(make).await;
}

#[tokio::test]
async fn the_disk_keeps_the_contract_of_a_store() {
    holds_with(1 << 30).await;
}

#[tokio::test]
async fn it_keeps_the_contract_with_nothing_in_memory_too() {
    holds_with(0).await;
}

#[tokio::test]
async fn it_keeps_the_contract_with_little_in_memory_too() {
    holds_with(1500).await;
}
