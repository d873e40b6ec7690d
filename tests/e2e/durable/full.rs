//! A disk that is full: nothing is acknowledged that is not kept, readers go on, and when there is room again
//! everything does.

use std::time::Duration;

use shared::Kind;
use tests::{
    disk::SmallDisk,
    missing,
    receiver::Receiver,
    relay::TestRelay,
    sender::{FramedSender, Heard, RawSender},
};
use tokio::time::interval;

use super::{read, texts};

const CONFIG: &str = "[disk]\nsegment = \"64KiB\"\nretry = \"150ms\"\n";

async fn on_a_small_disk() -> Option<(SmallDisk, TestRelay)> {
    let disk = match SmallDisk::mount("4m") {
        Ok(disk) => disk,
        Err(why) => {
            missing::not_run("a full disk", &why);
            return None;
        }
    };
    let data = disk.path().join("data");
    let relay = TestRelay::restartable_with_config(CONFIG, &["--data", &data.to_string_lossy()]).await;
    Some((disk, relay))
}

/// Publishes one after the other until the relay can't store one; the number of that one.
async fn publish_until_full(sender: &mut FramedSender, from: u64) -> u64 {
    for n in from.. {
        sender.put_message(1, n, Kind::Text, format!("message {n}").as_bytes());
        sender.flush().await;
        match sender.heard().await {
            Heard::Ack(ack) => assert_eq!(ack.pseq, n),
            Heard::Error { code, fatal, pseq, retry_ms, .. } => {
                assert_eq!((code.as_str(), fatal, pseq, retry_ms), ("store_unavailable", false, n, 150));
                return n;
            }
            other => panic!("{other:?}"),
        }
    }
    unreachable!("a small disk gets full")
}

#[tokio::test]
async fn senders_are_told_readers_go_on_and_with_room_again_everything_does() {
    let Some((mut disk, mut relay)) = on_a_small_disk().await else { return };
    let mut live = Receiver::json(relay.address(), "foo", "").await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    sender.publish_all(1, 1, &texts(1..=3)).await;
    disk.fill().unwrap();
    // What was reserved before may still be there.
    let refused = publish_until_full(&mut sender, 4).await;
    relay.program().notes("nothing is stored until there is room on the disk").await;

    // Whoever reads is not disturbed, and sees nothing that was not acknowledged.
    assert_eq!(read(&relay, "foo", "?since=earliest").await.texts(), texts(1..=refused - 1));
    assert_eq!(live.texts(refused as usize - 1).await, texts(1..=refused - 1));
    // A raw sender is not read from, and gets its answers late.
    let mut raw = RawSender::connect(relay.address()).await;
    raw.write("RELAY/1 channel=raw ack=yes framing=line\none\ntwo\n").await;
    assert!(read(&relay, "raw", "?since=earliest").await.messages.is_empty());

    disk.free().unwrap();
    relay.program().notes("there is room on the disk again").await;
    for n in ["one", "two"] {
        let answer = raw.line().await.unwrap();
        assert!(answer.starts_with("OK "), "{n}: {answer}");
    }
    assert_eq!(read(&relay, "raw", "?since=earliest").await.texts(), ["one", "two"]);
    // The same once more, as often as it takes; it is stored once.
    let mut pace = interval(Duration::from_millis(50));
    loop {
        sender.put_message(1, refused, Kind::Text, format!("message {refused}").as_bytes());
        sender.flush().await;
        match sender.heard().await {
            Heard::Ack(ack) => break assert_eq!(ack.pseq, refused),
            Heard::Error { code, .. } => assert_eq!(code, "store_unavailable"),
            other => panic!("{other:?}"),
        }
        pace.tick().await;
    }
    sender.publish_all(1, refused, &texts(refused..=refused + 5)).await;
    assert_eq!(read(&relay, "foo", "?since=earliest").await.texts(), texts(1..=refused + 5));
    relay.kill().await;
    relay.start_again().await;
    assert_eq!(read(&relay, "foo", "?since=earliest").await.texts(), texts(1..=refused + 5));
}

#[tokio::test]
async fn a_relay_starts_on_a_full_disk_and_serves_what_there_is() {
    let Some((mut disk, mut relay)) = on_a_small_disk().await else { return };
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    sender.publish_all(1, 1, &texts(1..=3)).await;
    disk.fill().unwrap();
    relay.kill().await;
    relay.start_again().await;
    assert_eq!(read(&relay, "foo", "?since=earliest").await.texts(), texts(1..=3));
    disk.free().unwrap();
    let mut raw = RawSender::connect(relay.address()).await;
    raw.write("RELAY/1 channel=foo ack=yes framing=line\nmessage 4\n").await;
    assert!(raw.line().await.unwrap().starts_with("OK "));
    assert_eq!(read(&relay, "foo", "?since=earliest").await.texts(), texts(1..=4));
}
