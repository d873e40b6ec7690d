//! Channels: they come to be with the first message, keep what they are told to keep, go when they are idle, and are
//! bounded in number and memory.

use std::{ops::RangeInclusive, time::Duration};

use shared::{Kind, receiver::Subprotocol};
use tests::{
    chain::Chain,
    receiver::{Dial, Received, Receiver},
    relay::TestRelay,
    sender::{FramedSender, RawSender},
    within,
};
use tokio::time::interval;

/// What a channel keeps: all texts from the earliest on, up to live.
async fn kept(relay: &TestRelay, channel: &str) -> Vec<String> {
    let mut receiver = Receiver::json(relay.address(), channel, "?since=earliest").await;
    let mut texts = Vec::new();
    loop {
        match receiver.next().await {
            Received::Message(envelope) => texts.push(String::from_utf8(envelope.payload.into()).unwrap()),
            Received::Control(event) if event["type"] == "live" => return texts,
            Received::Control(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Publishes numbers, each in a chunk of its own.
async fn publish(sender: &mut FramedSender, alias: u16, numbers: RangeInclusive<u64>) {
    for n in numbers {
        sender.publish_all(alias, n, &[n.to_string()]).await;
    }
}

#[tokio::test]
async fn a_channel_comes_to_be_with_its_first_message_or_its_first_receiver() {
    let relay = TestRelay::start(&[]).await;
    let mut early = Receiver::json(relay.address(), "new", "").await;
    let hello = early.hello().await;
    assert_eq!((hello["first"].as_u64(), hello["head"].as_u64()), (Some(0), Some(0)));
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "new", 1).await;
    publish(&mut sender, 1, 1..=1).await;
    assert_eq!(early.text().await, "1");
    assert_eq!(kept(&relay, "new").await, ["1"]);
    assert_eq!(kept(&relay, "other").await, [""; 0]);
}

#[tokio::test]
async fn a_channel_keeps_as_many_messages_as_it_is_told() {
    let relay = TestRelay::start(&["--history", "1MiB,3"]).await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    publish(&mut sender, 1, 1..=10).await;
    assert_eq!(kept(&relay, "foo").await, ["8", "9", "10"]);
}

#[tokio::test]
async fn the_first_section_whose_pattern_matches_says_what_a_channel_keeps() {
    let config =
        "[[channel]]\npattern = \"few/*\"\nmessages = 2\n[[channel]]\npattern = \"**\"\nmessages = 4\n";
    let relay = TestRelay::with_config(config, &[]).await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "few/a", 1).await;
    sender.open(2, "more", 1).await;
    publish(&mut sender, 1, 1..=9).await;
    publish(&mut sender, 2, 1..=9).await;
    assert_eq!(kept(&relay, "few/a").await, ["8", "9"]);
    assert_eq!(kept(&relay, "more").await, ["6", "7", "8", "9"]);
}

#[tokio::test]
async fn what_is_too_old_and_a_channel_that_is_idle_go() {
    let config = "[timeouts]\nchannel_idle = \"200ms\"\n[[channel]]\npattern = \"aging\"\nage = \"200ms\"\n";
    let relay = TestRelay::with_config(config, &[]).await;
    let mut sender = FramedSender::connect(relay.address()).await;
    // Time is what takes them: asked again at a pace until they are gone.
    let mut pace = interval(Duration::from_millis(100));
    for (alias, channel) in [(1, "aging"), (2, "idle")] {
        sender.open(alias, channel, 1).await;
        publish(&mut sender, alias, 1..=2).await;
        let gone = async {
            while !kept(&relay, channel).await.is_empty() {
                pace.tick().await;
            }
        };
        within(format_args!("{channel} to go"), gone).await;
        // It goes on as if nothing had been.
        publish(&mut sender, alias, 3..=3).await;
    }
}

#[tokio::test]
async fn beyond_the_number_of_channels_a_message_is_refused_and_others_go_on() {
    let relay = TestRelay::with_config("[limits]\nchannels = 2\n", &[]).await;
    let mut answers = Vec::new();
    for channel in ["a", "b", "c", "a"] {
        let mut sender = RawSender::connect(relay.address()).await;
        sender.write(format!("RELAY/1 channel={channel} ack=yes\nhello\n")).await;
        let answer = sender.line().await.unwrap();
        answers.push(answer.split(' ').take(2).collect::<Vec<_>>().join(" "));
    }
    assert!(
        answers[0].starts_with("OK ") && answers[1].starts_with("OK ") && answers[3].starts_with("OK "),
        "{answers:?}"
    );
    assert_eq!(answers[2], "ERR too_many");
}

#[tokio::test]
async fn beyond_the_memory_of_all_channels_the_oldest_of_all_goes() {
    let relay = TestRelay::with_config("[limits]\nmemory = \"2MiB\"\nencodings = \"64KiB\"\n", &[]).await;
    let mut sender = FramedSender::connect(relay.address()).await;
    for (alias, channel) in [(1, "first"), (2, "second")] {
        sender.open(alias, channel, 1).await;
        for n in 1..=100 {
            sender.publish_all(alias, n, &[format!("{n} {}", "x".repeat(16_000))]).await;
        }
    }
    let (first, second) = (kept(&relay, "first").await, kept(&relay, "second").await);
    assert_eq!(second.len(), 100, "the newest 1.6 MB are within 2 MiB");
    assert!((1..40).contains(&first.len()), "{} of the older 1.6 MB are left", first.len());
    assert!(first.iter().chain(&second).all(|text| text.ends_with('x')));
}

#[tokio::test]
async fn a_batch_delay_changes_when_messages_come_and_nothing_else() {
    let config = "[[listener]]\naddress = \"127.0.0.1:0\"\nbatch_delay = \"100ms\"\n";
    let mut relay = TestRelay::with_config(config, &[]).await;
    let delayed = relay.addresses()[1];
    let mut receiver = Receiver::json(delayed, "batched/*", "").await;
    let mut chain = Chain::new(&receiver.hello().await);
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "batched/a", 1).await;
    sender.open(2, "batched/b", 1).await;
    let all: Vec<String> = (1..=100).map(|n| n.to_string()).collect();
    let mut texts = Vec::new();
    let mut next = async |texts: &mut Vec<String>| {
        let received = receiver.next().await;
        assert_eq!(chain.check(&received), None, "nothing is missing");
        match received {
            Received::Message(envelope) => texts.push(String::from_utf8(envelope.payload.into()).unwrap()),
            Received::Control(event) => assert_eq!(event["type"], "live"),
            Received::Closed(code, _) => return Some(code),
            other => panic!("{other:?}"),
        }
        None
    };
    // The first is written at once, and the others while what was written before rests.
    for (index, text) in all.iter().enumerate() {
        let (alias, n) = (1 + (index % 2) as u16, index as u64 / 2 + 1);
        sender.publish_all(alias, n, std::slice::from_ref(text)).await;
        if index % 10 == 0 {
            while texts.len() <= index {
                assert_eq!(next(&mut texts).await, None);
            }
        }
    }
    drop(sender);
    // Whoever stops the relay waits for no rest.
    let stop = relay.stop();
    let receive = async {
        loop {
            if let Some(code) = next(&mut texts).await {
                return code;
            }
        }
    };
    let (finished, code) = tokio::join!(stop, receive);
    assert_eq!((finished.code, code, texts), (Some(0), 1012, all));
}

#[tokio::test]
async fn a_channel_that_blocks_holds_its_senders_for_a_receiver_that_reads_slowly() {
    let config = "[[channel]]\npattern = \"careful\"\nhistory = \"256KiB\"\nlag = \"block\"\nblock_for = \"10m\"\n\
                  [limits]\nsend_buffer = \"16KiB\"\n";
    let relay = TestRelay::with_config(config, &[]).await;
    let mut dial = Dial::new("/c/careful", Some(Subprotocol::Json.name()));
    dial.receive_buffer = Some(4096);
    let mut receiver = dial.connect(relay.address()).await.unwrap();
    let mut chain = Chain::new(&receiver.hello().await);
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "careful", 1).await;
    let publish = sender.publish_each(1, 1..1001, |n, out| {
        out.extend_from_slice(format!("{n} ").as_bytes());
        out.resize(4000, b'x');
        Kind::Text
    });
    let receive = async {
        // The pace of a receiver that is far slower than its sender.
        let mut pace = interval(Duration::from_millis(20));
        for n in 1..=1000 {
            if n % 25 == 0 {
                pace.tick().await;
            }
            let envelope = loop {
                let received = receiver.next().await;
                assert_eq!(chain.check(&received), None, "nothing is missing");
                if let Received::Message(envelope) = received {
                    break envelope;
                }
            };
            assert!(envelope.payload.starts_with(format!("{n} ").as_bytes()), "{n}");
        }
    };
    tokio::join!(publish, receive);
}

#[tokio::test]
async fn a_channel_that_blocks_holds_its_senders_for_so_long_and_then_closes_the_receiver() {
    let config = "[[channel]]\npattern = \"careful\"\nhistory = \"256KiB\"\nlag = \"block\"\nblock_for = \"200ms\"\n\
                  [limits]\nsend_buffer = \"16KiB\"\n";
    let relay = TestRelay::with_config(config, &[]).await;
    let mut dial = Dial::new("/c/careful", Some(Subprotocol::Json.name()));
    dial.receive_buffer = Some(4096);
    let mut receiver = dial.connect(relay.address()).await.unwrap();
    receiver.hello().await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "careful", 1).await;
    // All of it is settled, though the receiver takes nothing.
    sender
        .publish_each(1, 1..2001, |_, out| {
            out.resize(4000, b'x');
            Kind::Text
        })
        .await;
    assert_eq!(receiver.close_code().await, 4001);
}
