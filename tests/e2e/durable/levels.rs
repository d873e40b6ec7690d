//! What an acknowledgement means: a channel gives the level that it is kept at, and a crash takes only what it may.

use shared::sender::{Alias, Levels, Open, SenderFrame};
use tests::{
    program::Program,
    receiver::{Received, Receiver},
    sender::{FramedSender, Heard},
};

use super::{Durable, publish, texts};

const CONFIG: &str = "[[channel]]\npattern = \"soft/*\"\ndurability = \"async\"\nflush = \"1h\"\n\
                      [[channel]]\npattern = \"ram/*\"\ndurability = \"memory\"\n";

const FSYNCED: Levels = Levels(Levels::ACCEPTED.0 | Levels::FSYNCED.0);

async fn open(durable: &Durable, channel: &str, levels: Levels) -> Heard {
    let mut sender = FramedSender::connect(durable.relay.address()).await;
    sender.put(&SenderFrame::Open(Open { alias: Alias(1), levels, first_pseq: 1, channel }));
    sender.flush().await;
    sender.heard().await
}

#[tokio::test]
async fn a_channel_gives_the_levels_that_it_is_kept_at() {
    let durable = Durable::start(CONFIG).await;
    match open(&durable, "firm", FSYNCED).await {
        Heard::Opened(opened) => assert!(opened.levels.contains(FSYNCED), "{}", opened.levels),
        other => panic!("{other:?}"),
    }
    for channel in ["soft/a", "ram/a"] {
        match open(&durable, channel, FSYNCED).await {
            Heard::Error { code, fatal: true, .. } => assert_eq!(code, "level_unsupported"),
            other => panic!("{channel}: {other:?}"),
        }
        match open(&durable, channel, Levels::ACCEPTED).await {
            Heard::Opened(opened) => assert!(!opened.levels.contains(Levels::FSYNCED), "{}", opened.levels),
            other => panic!("{channel}: {other:?}"),
        }
    }
    match open(&durable, "firm", Levels::REPLICATED).await {
        Heard::Error { code, fatal: true, .. } => assert_eq!(code, "level_unsupported"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn send_client_gets_the_level_that_it_asks_for_or_says_that_it_can_not() {
    let mut durable = Durable::start(CONFIG).await;
    let host = durable.relay.host();
    let send = async |channel: &str| {
        let args = ["-r", &host, "-c", channel, "--level", "fsynced", "-m", "one"];
        Program::start("send-client", args).finish().await
    };
    let sent = send("firm").await;
    assert_eq!((sent.code, sent.stderr.as_str()), (Some(0), ""));
    let refused = send("soft/a").await;
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("--level can't be had"), "{}", refused.stderr);
    durable.crash().await;
    assert_eq!(durable.read("firm", "?since=earliest").await.texts(), ["one"]);
    assert!(durable.read("soft/a", "?since=earliest").await.messages.is_empty());
}

#[tokio::test]
async fn a_crash_is_told_of_channels_that_are_not_synced_and_never_of_others() {
    let mut durable = Durable::start(CONFIG).await;
    let channels = ["firm", "soft/a", "ram/a"];
    let mut positions = Vec::new();
    for channel in channels {
        publish(&durable.relay, channel, &texts(1..=5)).await;
        positions.push(durable.read(channel, "?since=earliest").await.position());
    }
    durable.crash().await;
    for (channel, position) in channels.into_iter().zip(positions) {
        let mut receiver =
            Receiver::json(durable.relay.address(), channel, &format!("?since={position}")).await;
        let hello = receiver.hello().await;
        let firm = channel == "firm";
        let expected = if firm { (Some(true), None) } else { (Some(false), Some("crash")) };
        assert_eq!((hello["recovered"].as_bool(), hello["reason"].as_str()), expected, "{channel}");
        publish(&durable.relay, channel, &texts(6..=6)).await;
        let mut gaps = Vec::new();
        let message = loop {
            match receiver.next().await {
                Received::Message(envelope) => break envelope,
                Received::Control(event) if event["type"] == "gap" => gaps.push(event),
                Received::Control(event) => assert_eq!(event["type"], "live"),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(message.payload, "message 6");
        if firm {
            assert_eq!((gaps.len(), message.prev), (0, position.seq), "{channel}");
            continue;
        }
        let [gap] = &gaps[..] else { panic!("{channel}: {gaps:?}") };
        assert_eq!((gap["reason"].as_str(), gap["after"].as_u64()), (Some("crash"), Some(position.seq.0)));
        let before = gap["before"].as_u64().unwrap();
        assert!(
            position.seq.0 < before && before <= message.seq.0,
            "{channel}: {gap} before {}",
            message.seq
        );
    }
}

#[tokio::test]
async fn a_polite_end_takes_nothing_of_what_is_on_the_disk_late() {
    let mut durable = Durable::start(CONFIG).await;
    publish(&durable.relay, "soft/a", &texts(1..=5)).await;
    let position = durable.read("soft/a", "?since=earliest").await.position_at(1);
    durable.restart().await;
    let stream = durable.read("soft/a", &format!("?since={position}")).await;
    assert_eq!((stream.recovered(), stream.texts()), ((true, None), texts(3..=5)));
    assert!(stream.gaps.is_empty());
}

#[tokio::test]
async fn a_producer_is_known_over_restarts_and_stores_nothing_twice() {
    let mut durable = Durable::start("").await;
    let producer = tests::sender::new_producer();
    for round in 0..4 {
        let mut sender = FramedSender::connect_as(durable.relay.address(), producer, 1).await;
        assert_eq!(sender.open(1, "foo", 1).await.last_pseq, round * 5);
        // All of it again, and five more.
        sender.publish_all(1, 1, &texts(1..=round * 5 + 5)).await;
        if round % 2 == 0 { durable.crash().await } else { durable.restart().await }
    }
    assert_eq!(durable.read("foo", "?since=earliest").await.texts(), texts(1..=20));
    // An older incarnation stays fenced.
    FramedSender::connect_as(durable.relay.address(), producer, 3).await;
    durable.crash().await;
    let mut old = FramedSender::greet(durable.relay.address(), producer, 2).await;
    let fenced = loop {
        match old.heard().await {
            Heard::Close(code) | Heard::Error { code, fatal: true, .. } => break code,
            Heard::Welcome(_) => panic!("an older incarnation is welcome"),
            Heard::End => panic!("ended without a word"),
            _ => {}
        }
    };
    assert_eq!(fenced, "fenced");
}
