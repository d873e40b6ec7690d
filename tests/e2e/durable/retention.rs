//! What is kept on disk: by bytes, messages and age, in small segments, and no more of the disk than that needs.

use std::time::Duration;

use shared::Kind;
use tests::{relay::TestRelay, sender::FramedSender, within};
use tokio::time::interval;

use super::{Durable, publish, texts};

/// Publishes so many messages of a kilobyte.
async fn publish_kilobytes(relay: &TestRelay, channel: &str, count: u64) {
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, channel, 1).await;
    let place = sender.publish_each(1, 1..count + 1, |n, out| {
        out.extend_from_slice(format!("{n} ").as_bytes());
        out.resize(1024, b'x');
        Kind::Text
    });
    place.await;
}

fn size(durable: &Durable) -> u64 {
    let files = std::fs::read_dir(durable.data()).unwrap().map(|entry| entry.unwrap());
    // One that is gone meanwhile has none.
    files.map(|file| file.metadata().map_or(0, |data| data.len())).sum()
}

/// That space is given back announces nothing: looked at again and again.
async fn shrinks_to(durable: &Durable, bytes: u64) {
    let mut look = interval(Duration::from_millis(50));
    let shrink = async {
        while size(durable) > bytes {
            look.tick().await;
        }
    };
    within(format_args!("{} to have at most {bytes} B", durable.data().display()), shrink).await;
}

#[tokio::test]
async fn a_channel_keeps_what_it_is_told_while_running_and_after_each_start() {
    let config = "[disk]\nsegment = \"64KiB\"\n[timeouts]\ntrim = \"100ms\"\n\
                  [[channel]]\npattern = \"few\"\nmessages = 7\n\
                  [[channel]]\npattern = \"**\"\nhistory = \"256KiB\"\n";
    let mut durable = Durable::start(config).await;
    publish(&durable.relay, "few", &texts(1..=100)).await;
    publish_kilobytes(&durable.relay, "many", 3000).await;
    for end in 0..3 {
        match end {
            1 => durable.crash().await,
            2 => durable.restart().await,
            _ => {}
        }
        assert_eq!(durable.read("few", "?since=earliest").await.texts(), texts(94..=100), "end {end}");
        let many = durable.read("many", "?since=earliest").await;
        let numbers: Vec<u64> =
            many.texts().iter().map(|text| text.split(' ').next().unwrap().parse().unwrap()).collect();
        assert_eq!(numbers.last(), Some(&3000), "end {end}");
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "end {end}");
        assert!((100..=256).contains(&numbers.len()), "end {end}: {} are kept", numbers.len());
    }
    shrinks_to(&durable, 1024 * 1024).await;
}

#[tokio::test]
async fn a_slow_channel_outlives_fast_ones_and_does_not_keep_their_space() {
    let config = "[disk]\nsegment = \"64KiB\"\n[timeouts]\ntrim = \"100ms\"\n\
                  [[channel]]\npattern = \"fast\"\nhistory = \"128KiB\"\n";
    let mut durable = Durable::start(config).await;
    // One of its messages in every few segments.
    for n in 1..=10 {
        publish(&durable.relay, "slow", &texts(n..=n)).await;
        publish_kilobytes(&durable.relay, "fast", 1000).await;
    }
    shrinks_to(&durable, 1024 * 1024).await;
    for end in 0..3 {
        match end {
            1 => durable.crash().await,
            2 => durable.restart().await,
            _ => {}
        }
        let slow = durable.read("slow", "?since=earliest").await;
        assert_eq!(slow.texts(), texts(1..=10), "end {end}");
        assert_eq!(slow.messages[0].prev.0, 0, "end {end}");
        // From within it too.
        let stream = durable.read("slow", &format!("?since={}", slow.position_at(4))).await;
        assert_eq!((stream.recovered(), stream.texts()), ((true, None), texts(6..=10)), "end {end}");
    }
}

#[tokio::test]
async fn what_is_too_old_goes_while_the_relay_runs_or_while_it_is_away() {
    let config = "[timeouts]\ntrim = \"50ms\"\n[[channel]]\npattern = \"aging\"\nage = \"300ms\"\n";
    let mut durable = Durable::start(config).await;
    let mut look = interval(Duration::from_millis(50));
    for end in ["none", "crash"] {
        publish(&durable.relay, "aging", &texts(1..=3)).await;
        publish(&durable.relay, "other", &texts(1..=1)).await;
        if end == "crash" {
            durable.crash().await;
        }
        // Time is what takes them. The newest may stay.
        let gone = async {
            while durable.read("aging", "?since=earliest").await.messages.len() > 1 {
                look.tick().await;
            }
        };
        within("what is too old to go", gone).await;
    }
    assert_eq!(durable.read("other", "?since=earliest").await.messages.len(), 2);
}

#[tokio::test]
async fn beyond_the_limit_of_the_disk_the_oldest_of_all_goes() {
    let config = "[disk]\nsegment = \"64KiB\"\nlimit = \"1MiB\"\n[timeouts]\ntrim = \"100ms\"\n";
    let mut durable = Durable::start(config).await;
    for channel in ["first", "second", "third"] {
        publish_kilobytes(&durable.relay, channel, 700).await;
    }
    durable.crash().await;
    let third = durable.read("third", "?since=earliest").await;
    assert_eq!(third.messages.len(), 700);
    assert!(durable.read("first", "?since=earliest").await.messages.len() <= 64, "the oldest went");
    shrinks_to(&durable, 1536 * 1024).await;
}
