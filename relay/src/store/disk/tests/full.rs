//! A full disk gets room again by itself once retention lets go, however much there is to know of the log.

use std::{sync::Arc, time::Duration};

use shared::Kind;

use super::{forgetful::Forgetful, power::settings};
use crate::store::{
    Batch, ChannelStore,
    chunk::Messages,
    disk::{Disk, DiskSettings, volume::Volume as _},
};

const HOUR: u64 = 3_600_000_000;
/// So many that a checkpoint is several times of the least reserve.
const CHANNELS: usize = 4000;

fn open(disk: &Forgetful) -> Disk {
    let mut settings = settings(None);
    (settings.channels, settings.memory) = (2 * CHANNELS, 1 << 20);
    settings.retention[0].1.age = Some(Duration::from_secs(3600));
    let own = DiskSettings { segment: 64 << 10, limit: 0, retry: Duration::from_millis(1) };
    Disk::open_volume(Arc::new(disk.clone()), "DIR".as_ref(), None, own, settings, 1).unwrap()
}

fn batch(channel: &str, time: u64) -> Batch {
    let messages = Messages::one(Kind::Text, &[b'x'; 1000]);
    Batch { channel: channel.parse().unwrap(), messages, time, stamp: None }
}

async fn filled() -> Forgetful {
    let disk = Forgetful::new(3);
    let store = open(&disk);
    let name = |n: usize| format!("{}/{n}", "a-name-of-some-length".repeat(8));
    let tickets: Vec<_> = (0..CHANNELS).map(|n| store.append(batch(&name(n), HOUR))).collect();
    for ticket in tickets {
        ticket.await.unwrap();
    }
    // Whoever takes care of space has seen it all then.
    store.close().await.unwrap();
    drop(store);
    let used: usize = disk.list().unwrap().iter().map(|name| disk.bytes(name).len()).sum();
    disk.set_size(used + 200_000);
    disk
}

#[tokio::test]
async fn with_many_channels_too_a_full_disk_gets_room_when_retention_lets_go() {
    let disk = filled().await;
    let store = open(&disk);
    while store.append(batch("more", HOUR)).await.is_ok() {}
    // Several times of what is held in reserve.
    let (mut stored, mut refused) = (0, 0);
    while stored < 2000 {
        match store.append(batch("more", 9 * HOUR)).await {
            Ok(_) => stored += 1,
            Err(_) => {
                refused += 1;
                assert!(refused < 5000, "it gets out of that by itself");
                store.trim(9 * HOUR).await;
            }
        }
    }
}

#[tokio::test]
async fn a_store_that_ends_on_a_full_disk_ends_as_it_should() {
    let disk = filled().await;
    let store = open(&disk);
    while store.append(batch("more", HOUR)).await.is_ok() {}
    store.close().await.unwrap();
}
