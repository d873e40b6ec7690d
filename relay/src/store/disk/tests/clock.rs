//! A clock that jumps, while the store runs or between two runs: messages stay in order, nothing goes that need not,
//! and seeking by time goes on.

use std::time::Duration;

use shared::{Seq, sender::ProducerId};

use super::{forgetful::Forgetful, power::Rig};
use crate::store::{ChannelStore, Stored, selection::Selection};

const HOUR: u64 = 3_600_000_000;

#[tokio::test]
async fn a_clock_that_goes_back_reorders_nothing_and_loses_nobody() {
    let disk = Forgetful::new(5);
    let rig = Rig::open(disk.clone(), None).unwrap();
    let claim =
        rig.store.claim(ProducerId([1; 16]), 1, Duration::from_secs(60), 100 * HOUR).await.unwrap().unwrap();
    rig.store.open(claim, &"sync".parse().unwrap(), 8).await.unwrap().unwrap();
    let early = rig.append_at("sync", 100 * HOUR).await;
    let back = rig.append_at("sync", 40 * HOUR).await;
    let later = rig.append_at("sync", 101 * HOUR).await;
    let times = rig.times().await;
    assert_eq!(times, [100 * HOUR, 100 * HOUR, 101 * HOUR], "a message never comes before the one before it");
    rig.store.trim(40 * HOUR).await;
    rig.store.close().await.unwrap();
    drop(rig);

    // The next run begins with a clock that is years behind.
    let rig = Rig::open(disk, None).unwrap();
    let last = rig.append_at("sync", HOUR).await;
    rig.store.trim(HOUR).await;
    assert_eq!(rig.times().await, [100 * HOUR, 100 * HOUR, 101 * HOUR, 101 * HOUR]);
    let everything: Selection = ["**".parse().unwrap()].into_iter().collect();
    for (time, first) in [(0, early), (100 * HOUR, early), (100 * HOUR + 1, later), (101 * HOUR, later)] {
        let found = rig.store.find_time(&everything, time).await.unwrap();
        assert_eq!(found, Seq(first.0 - 1), "at {time}");
    }
    assert!(rig.store.find_time(&everything, 102 * HOUR).await.unwrap() >= last);
    assert!(back > early && later > back && last > later);
    let again = rig.store.claim(ProducerId([1; 16]), 0, Duration::from_secs(60), HOUR).await.unwrap();
    assert!(again.is_err(), "who was connected before is known: an older incarnation is refused");
    let claim =
        rig.store.claim(ProducerId([1; 16]), 1, Duration::from_secs(60), HOUR).await.unwrap().unwrap();
    let stored = rig.store.open(claim, &"other".parse().unwrap(), 1).await.unwrap();
    assert_eq!(stored, Ok(Stored { pseq: 0, seq: Seq::ZERO, lost: 0 }));
}

#[tokio::test]
async fn what_a_clock_that_jumped_ahead_let_come_is_no_older_than_what_comes_when_it_is_right_again() {
    let rig = Rig::open_with_age(Forgetful::new(6), Duration::from_secs(7200)).unwrap();
    rig.append_at("sync", 10 * HOUR).await;
    rig.append_at("sync", 50 * HOUR).await;
    // Right again: ages go by the greatest time there was, and what came since is not older than that.
    rig.append_at("sync", 11 * HOUR).await;
    rig.store.trim(11 * HOUR).await;
    assert_eq!(rig.times().await, [10 * HOUR, 50 * HOUR, 50 * HOUR], "nothing is too old at that time");
    rig.store.trim(52 * HOUR).await;
    assert_eq!(rig.times().await, [50 * HOUR, 50 * HOUR]);
}
