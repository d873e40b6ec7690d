//! What comes while the writer is busy with something else.

use std::{
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use shared::{Kind, Seq, sender::ProducerId};

use super::{forgetful::Forgetful, gated::Gated, power::settings};
use crate::store::{
    Batch, ChannelStore, Durability, Retention, Stamp, StoreSettings,
    chunk::Messages,
    disk::{Disk, DiskSettings},
    selection::Selection,
};

const HOUR: u64 = 3_600_000_000;

fn open(volume: &Gated, change: impl FnOnce(&mut StoreSettings)) -> Disk {
    let own = DiskSettings { segment: 4096, limit: 0, retry: Duration::from_millis(1) };
    let mut settings = settings(None);
    change(&mut settings);
    let store = Disk::open_volume(Arc::new(volume.clone()), "DIR".as_ref(), None, own, settings, 1).unwrap();
    store.follow(Box::new(|_| {}));
    store
}

/// Two channels are remembered, and retired when they are idle for an hour.
fn few(settings: &mut StoreSettings) {
    (settings.channels, settings.channel_idle) = (2, Duration::from_secs(3600));
}

fn batch(channel: &str, time: u64, stamp: Option<Stamp>) -> Batch {
    Batch { channel: channel.parse().unwrap(), messages: Messages::one(Kind::Text, b"text"), time, stamp }
}

fn only(channel: &str) -> Selection {
    [channel.parse().unwrap()].into_iter().collect()
}

#[tokio::test]
async fn a_new_channel_is_not_forgotten_while_its_first_message_is_synced() {
    let volume = Gated::new(Forgetful::new(1));
    let store = open(&volume, few);
    for name in ["a", "b"] {
        store.append(batch(name, 10 * HOUR, None)).await.unwrap();
    }
    store.trim(20 * HOUR).await;
    volume.syncs.close();
    let ticket = store.append(batch("new", 20 * HOUR, None));
    volume.syncs.has_somebody();
    store.trim(20 * HOUR).await;
    volume.syncs.open();
    let receipt = ticket.await.unwrap();
    assert_eq!(store.head(), receipt.last);
    store.close().await.unwrap();
    drop(store);
    let page = open(&volume, few).read(&only("new"), Seq::ZERO, 1 << 20).await.unwrap();
    assert_eq!(page.chunks.len(), 1);
}

#[tokio::test]
async fn who_was_fenced_stays_fenced_after_a_kill_whatever_was_written_together() {
    let volume = Gated::new(Forgetful::new(1));
    let store = open(&volume, |_| {});
    let (producer, keep) = (ProducerId([7; 16]), Duration::from_secs(600));
    let old = store.claim(producer, 1, keep, HOUR).await.unwrap().unwrap();
    store.open(old, &"sync".parse().unwrap(), 1).await.unwrap().unwrap();
    // What comes while something else is synced is written together.
    volume.syncs.close();
    let other = store.append(batch("other", HOUR, None));
    volume.syncs.has_somebody();
    let last = store.append(batch("sync", HOUR, Some(Stamp { claim: old, after: 0, last: 1 })));
    let mut claim = store.claim(producer, 2, keep, HOUR);
    assert!(matches!(claim.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    volume.syncs.open();
    other.await.unwrap();
    last.await.unwrap();
    claim.await.unwrap().unwrap();
    let again = open(&Gated::new(volume.disk.after_kill()), |_| {});
    assert!(again.claim(producer, 1, keep, HOUR).await.unwrap().is_err());
}

#[tokio::test]
async fn what_is_async_is_synced_in_time_though_there_is_always_more_to_write() {
    let volume = Gated::new(Forgetful::new(1));
    let store = open(&volume, |settings| {
        settings.durability[0].1 = Durability::Async { flush: Duration::ZERO };
    });
    store.append(batch("async", HOUR, None)).await.unwrap();
    volume.writes.close();
    let (mut tickets, mut synced) = (vec![store.append(batch("async", HOUR, None))], Vec::new());
    for _ in 0..5 {
        volume.writes.has_somebody();
        let before = volume.syncs.passed();
        tickets.push(store.append(batch("async", HOUR, None)));
        volume.writes.let_one_through();
        tickets.remove(0).await.unwrap();
        volume.writes.has_somebody();
        synced.push(volume.syncs.passed() - before);
    }
    volume.writes.open();
    assert_eq!(synced, [1; 5], "each was due, and the next one came already");
}

#[tokio::test]
async fn a_channel_that_was_forgotten_and_came_back_is_one_channel_after_a_kill() {
    let volume = Gated::new(Forgetful::new(1));
    let store = open(&volume, few);
    store.append(batch("x", HOUR, None)).await.unwrap();
    store.trim(3 * HOUR).await;
    for name in ["b", "c"] {
        store.append(batch(name, 3 * HOUR, None)).await.unwrap();
    }
    // Of three that are idle the one that was so for longest is forgotten.
    store.trim(5 * HOUR).await;
    store.append(batch("x", 6 * HOUR, None)).await.unwrap();
    let store = open(&Gated::new(volume.disk.after_kill()), few);
    let kept = store.append(batch("x", 6 * HOUR + 1, None)).await.unwrap();
    store.trim(6 * HOUR + 2).await;
    store.append(batch("d", 6 * HOUR + 3, None)).await.unwrap();
    store.trim(6 * HOUR + 4).await;
    assert_eq!(store.bounds(&only("x")).head, kept.last);
}

#[tokio::test]
async fn a_segment_that_could_not_be_begun_leaves_a_log_that_opens() {
    for seed in 0..30 {
        let volume = Gated::new(Forgetful::new(seed));
        let store = open(&volume, |_| {});
        for _ in 0..20 {
            store.append(batch("async", HOUR, None)).await.unwrap();
        }
        // What does not fit any more, and is there when the writer looks, wants another segment, of which the name can't
        // be synced.
        volume.syncs.close();
        let before = store.append(batch("sync", HOUR, None));
        volume.syncs.has_somebody();
        let large =
            Batch { messages: Messages::one(Kind::Text, &[b'x'; 3000]), ..batch("async", HOUR, None) };
        let large = store.append(large);
        volume.names_fail.store(true, Ordering::SeqCst);
        volume.syncs.open();
        before.await.unwrap();
        large.await.unwrap_err();
        // What is small still fits: if any of it is taken, it is not synced.
        let mut taken = 0;
        for _ in 0..200 {
            taken += usize::from(taken < 12 && store.append(batch("async", HOUR, None)).await.is_ok());
        }
        open(&Gated::new(volume.disk.after_power_loss()), |_| {});
    }
}

#[tokio::test]
async fn of_old_segments_and_new_ones_exactly_what_is_too_old_goes_however_much_it_is() {
    let volume = Gated::new(Forgetful::new(1));
    let with_age = |settings: &mut StoreSettings| {
        settings.retention[0].1.age = Some(Duration::from_secs(3600));
    };
    let store = open(&volume, with_age);
    for n in 0..1000 {
        store.append(batch("sync", HOUR + n, None)).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    // What was indexed by another run counts like what was written by this one.
    let store = open(&volume, with_age);
    for n in 1000..2000 {
        store.append(batch("sync", HOUR + n, None)).await.unwrap();
    }
    for gone in [0, 1, 700, 1500, 1990, 2000] {
        store.trim(2 * HOUR + gone).await;
        let (mut count, mut at) = (0, Seq::ZERO);
        loop {
            let page = store.read(&only("sync"), at, 1 << 20).await.unwrap();
            let (chunks, through) = (page.chunks.len(), page.through);
            count += chunks;
            if chunks == 0 && through == at {
                break;
            }
            at = through;
        }
        assert_eq!(count as u64, 2000 - gone);
    }
}

#[tokio::test]
async fn an_end_does_not_wait_for_all_space_to_be_given_back() {
    let volume = Gated::new(Forgetful::new(1));
    let store = open(&volume, |settings| {
        let few = Retention { messages: Some(5), ..settings.retention[0].1 };
        settings.retention.push(("**".parse().unwrap(), few));
        settings.retention[0].0 = "kept".parse().unwrap();
    });
    volume.rewrites.close();
    // Of each segment a little is kept.
    for n in 0..2000 {
        store.append(batch(if n % 20 == 0 { "kept" } else { "sync" }, HOUR, None)).await.unwrap();
    }
    volume.rewrites.has_somebody();
    let end = store.close();
    while !store.shared.ending.load(Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }
    volume.rewrites.open();
    end.await.unwrap();
    assert_eq!(volume.rewrites.passed(), 1);
}
