//! Framed senders: numbers that make a message stored once, fencing, refusals, and what ends a connection.

use shared::{
    Epoch, Kind, limits,
    sender::{Alias, Levels, Open, Publish, SenderFrame},
};
use tests::{
    receiver::Receiver,
    relay::TestRelay,
    sender::{FramedSender, Heard, new_producer},
};

fn error(code: &str, fatal: bool, alias: u16, pseq: u64) -> Heard {
    Heard::Error { code: code.into(), fatal, alias, pseq, retry_ms: 0 }
}

/// The connection ends with an error or a close of this code.
async fn ends_with(sender: &mut FramedSender, code: &str) {
    let mut heard = Vec::new();
    loop {
        match sender.heard().await {
            Heard::End => break,
            other => heard.push(other),
        }
    }
    let told = heard.iter().any(|h| match h {
        Heard::Error { code: told, fatal, .. } => *fatal && told == code,
        Heard::Close(told) => told == code,
        _ => false,
    });
    assert!(told, "ended without {code}: {heard:?}");
}

#[tokio::test]
async fn the_welcome_tells_the_epoch_and_the_limits() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::json(relay.address(), "foo", "").await;
    let hello = receiver.hello().await;
    let sender = FramedSender::connect(relay.address()).await;
    let welcome = sender.welcome();
    assert_eq!(Some(welcome.epoch.to_string().as_str()), hello["epoch"].as_str());
    assert_eq!(welcome.max_message as usize, limits::MAX_MESSAGE);
    assert_eq!(
        (welcome.window_messages, welcome.window_bytes),
        (limits::WINDOW_MESSAGES, limits::WINDOW_BYTES)
    );
    assert_eq!(welcome.ping_ms, 25_000);
}

#[tokio::test]
async fn a_greeting_may_come_byte_by_byte() {
    let relay = TestRelay::start(&[]).await;
    let mut sender = FramedSender::silent(relay.address()).await;
    let mut bytes = Vec::new();
    shared::codec::encode_preamble(&mut bytes);
    let hello = shared::sender::Hello { producer: new_producer(), producer_epoch: 1, keep_s: 0, token: b"" };
    shared::codec::encode_sender(&SenderFrame::Hello(hello), &mut bytes);
    for byte in bytes {
        sender.put_bytes(&[byte]);
        sender.flush().await;
    }
    assert!(matches!(sender.heard().await, Heard::Welcome(_)));
}

#[tokio::test]
async fn what_is_published_is_acked_and_delivered_once_in_order_with_its_kind() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::json(relay.address(), "foo", "").await;
    let mut sender = FramedSender::connect(relay.address()).await;
    let opened = sender.open(7, "foo", 1).await;
    assert_eq!((opened.alias.0, opened.last_pseq, opened.receivers), (7, 0, 1));
    assert_eq!(opened.levels, Levels::ACCEPTED);
    sender.put_message(7, 1, Kind::Text, b"one");
    sender.put_message(7, 2, Kind::Binary, b"two");
    sender.put_message(7, 3, Kind::Text, b"");
    sender.flush().await;
    let ack = sender.acked(7, 3).await;
    for (kind, payload) in [(Kind::Text, "one"), (Kind::Binary, "two"), (Kind::Text, "")] {
        assert_eq!(receiver.payload().await, (kind, payload.into()));
    }
    sender.publish(7, 4, "four").await;
    let envelope = receiver.envelope().await;
    assert_eq!((envelope.payload.as_ref(), envelope.prev), (&b"four"[..], ack.seq));
}

#[tokio::test]
async fn a_source_time_is_the_time_of_the_message() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::json(relay.address(), "foo", "").await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    let source_time = Some(1_600_000_000_000_000);
    sender.put(&SenderFrame::Publish(Publish {
        alias: Alias(1),
        pseq: 1,
        kind: Kind::Text,
        source_time,
        payload: b"x",
    }));
    sender.flush().await;
    assert_eq!(receiver.envelope().await.time, 1_600_000_000_000_000);
}

#[tokio::test]
async fn a_message_sent_again_is_acked_and_not_stored_again() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::json(relay.address(), "foo", "").await;
    let producer = new_producer();
    let mut sender = FramedSender::connect_as(relay.address(), producer, 1).await;
    sender.open(1, "foo", 1).await;
    sender.publish_all(1, 1, &["one", "two", "three"]).await;
    sender.publish(1, 2, "two").await;
    assert!(sender.acked(1, 2).await.pseq >= 2);

    // A connection that was lost after the relay had stored everything.
    let mut sender = FramedSender::connect_as(relay.address(), producer, 1).await;
    assert_eq!(sender.open(9, "foo", 1).await.last_pseq, 3);
    sender.publish_all(9, 1, &["one", "two", "three", "four"]).await;
    assert_eq!(receiver.texts(4).await, ["one", "two", "three", "four"]);
}

#[tokio::test]
async fn a_gap_is_told_with_the_expected_number_and_the_sender_goes_back() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::json(relay.address(), "foo", "").await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    sender.publish_all(1, 1, &["one"]).await;
    sender.publish(1, 3, "three").await;
    assert_eq!(sender.heard().await, error("gap", false, 1, 2));
    sender.publish_all(1, 2, &["two", "three"]).await;
    assert_eq!(receiver.texts(3).await, ["one", "two", "three"]);
}

#[tokio::test]
async fn a_higher_epoch_fences_the_older_connection_and_goes_on_with_the_numbers() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::json(relay.address(), "foo", "").await;
    let producer = new_producer();
    let mut old = FramedSender::connect_as(relay.address(), producer, 1).await;
    old.open(1, "foo", 1).await;
    old.publish_all(1, 1, &["one"]).await;
    let mut new = FramedSender::connect_as(relay.address(), producer, 2).await;
    assert_eq!(new.open(1, "foo", 2).await.last_pseq, 1);
    ends_with(&mut old, "fenced").await;
    // Nothing of a fenced producer is stored.
    old.publish(1, 2, "not this").await;
    new.publish_all(1, 2, &["two"]).await;
    assert_eq!(receiver.texts(2).await, ["one", "two"]);

    let mut late = FramedSender::greet(relay.address(), producer, 1).await;
    late.put(&SenderFrame::Open(Open {
        alias: Alias(1),
        levels: Levels::ACCEPTED,
        first_pseq: 1,
        channel: "foo",
    }));
    late.flush().await;
    ends_with(&mut late, "fenced").await;
}

#[tokio::test]
async fn the_newer_connection_of_an_epoch_takes_over() {
    let relay = TestRelay::start(&[]).await;
    let producer = new_producer();
    let mut old = FramedSender::connect_as(relay.address(), producer, 1).await;
    old.open(1, "foo", 1).await;
    let mut new = FramedSender::connect_as(relay.address(), producer, 1).await;
    new.open(1, "foo", 1).await;
    ends_with(&mut old, "taken_over").await;
    new.publish_all(1, 1, &["one"]).await;
}

#[tokio::test]
async fn a_refused_message_is_told_counts_as_settled_and_the_next_is_taken() {
    let relay = TestRelay::start(&["--max-message", "1KiB"]).await;
    let mut receiver = Receiver::json(relay.address(), "foo", "").await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    sender.put_message(1, 1, Kind::Text, b"one");
    sender.put_message(1, 2, Kind::Text, &[b'x'; 1025]);
    sender.put_message(1, 3, Kind::Text, b"caf\xe9");
    sender.put_message(1, 4, Kind::Text, b"four");
    sender.flush().await;
    let (mut refused, mut settled) = (Vec::new(), 0);
    while settled < 4 {
        match sender.heard().await {
            Heard::Ack(ack) => settled = ack.pseq,
            other => refused.push(other),
        }
    }
    assert_eq!(refused, [error("too_big", false, 1, 2), error("invalid_text", false, 1, 3)]);
    assert_eq!(receiver.texts(2).await, ["one", "four"]);
}

#[tokio::test]
async fn a_frame_that_can_be_no_frame_ends_the_connection() {
    let relay = TestRelay::start(&[]).await;
    let too_long = ((limits::MAX_MESSAGE + limits::FRAME_OVERHEAD + 1) as u32).to_be_bytes();
    let unknown = [0, 0, 0, 1, 0x0C];
    let not_for_a_sender = [0, 0, 0, 1, 0x04];
    let too_short = [0, 0, 0, 2, 0x05, 0];
    for bytes in [&too_long[..], &[0, 0, 0, 0], &unknown, &not_for_a_sender, &too_short] {
        let mut sender = FramedSender::connect(relay.address()).await;
        sender.put_bytes(bytes);
        sender.flush().await;
        ends_with(&mut sender, "protocol").await;
    }
}

#[tokio::test]
async fn an_unknown_frame_with_its_high_bit_is_passed_over() {
    let relay = TestRelay::start(&[]).await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.put_bytes(&[0, 0, 0, 4, 0x8C, 1, 2, 3]);
    sender.put(&SenderFrame::Ping(42));
    sender.flush().await;
    assert_eq!(sender.heard().await, Heard::Pong(42));
}

#[tokio::test]
async fn another_version_or_a_first_frame_that_is_no_hello_ends_the_connection() {
    let relay = TestRelay::start(&[]).await;
    let open_first = b"\xF5WSR\x01\0\0\0\x0e\x03\0\x01\x01\0\0\0\0\0\0\0\x01\0\0";
    for bytes in [&b"\xF5WSR\x02"[..], open_first] {
        let mut sender = FramedSender::silent(relay.address()).await;
        sender.put_bytes(bytes);
        sender.flush().await;
        ends_with(&mut sender, "protocol").await;
    }
}

#[tokio::test]
async fn a_level_that_a_channel_cannot_give_is_refused_at_open() {
    let relay = TestRelay::start(&[]).await;
    let mut sender = FramedSender::connect(relay.address()).await;
    let levels = Levels(Levels::ACCEPTED.0 | Levels::FSYNCED.0);
    sender.put(&SenderFrame::Open(Open { alias: Alias(1), levels, first_pseq: 1, channel: "foo" }));
    sender.flush().await;
    ends_with(&mut sender, "level_unsupported").await;
}

#[tokio::test]
async fn a_name_that_is_no_channel_is_refused_at_open() {
    let relay = TestRelay::start(&[]).await;
    for channel in ["a//b", "a/*", "my channel", ""] {
        let mut sender = FramedSender::connect(relay.address()).await;
        sender.put(&SenderFrame::Open(Open {
            alias: Alias(1),
            levels: Levels::ACCEPTED,
            first_pseq: 1,
            channel,
        }));
        sender.flush().await;
        match sender.heard().await {
            Heard::Error { code, .. } => assert_eq!(code, "invalid_channel", "{channel:?}"),
            other => panic!("{channel:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_message_for_no_open_channel_ends_the_connection() {
    let relay = TestRelay::start(&[]).await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.publish(3, 1, "where to?").await;
    ends_with(&mut sender, "protocol").await;
}

#[tokio::test]
async fn a_ping_is_answered_while_a_window_of_messages_is_under_way() {
    let relay =
        TestRelay::with_config("[limits]\nwindow_bytes = \"64KiB\"\nwindow_messages = 16\n", &[]).await;
    let mut receiver = Receiver::json(relay.address(), "foo", "").await;
    let mut sender = FramedSender::connect(relay.address()).await;
    assert_eq!((sender.welcome().window_messages, sender.welcome().window_bytes), (16, 65_536));
    sender.open(1, "foo", 1).await;
    // Far more than the window, without reading a single ack.
    let payload = [b'x'; 4096];
    for pseq in 1..=256 {
        sender.put_message(1, pseq, Kind::Text, &payload);
    }
    sender.put(&SenderFrame::Ping(42));
    sender.flush().await;
    let (mut ponged, mut settled) = (false, 0);
    while !ponged || settled < 256 {
        match sender.heard().await {
            Heard::Pong(42) => ponged = true,
            Heard::Ack(ack) => {
                assert!(ack.pseq > settled, "acks only go forward");
                settled = ack.pseq;
            }
            other => panic!("{other:?}"),
        }
    }
    for _ in 0..256 {
        assert_eq!(receiver.payload().await.1.len(), 4096);
    }
}

#[tokio::test]
async fn one_connection_serves_many_channels_each_with_its_own_numbers() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::json(relay.address(), "many/*", "").await;
    receiver.hello().await;
    let mut sender = FramedSender::connect(relay.address()).await;
    for alias in 0..200 {
        sender.open(alias, &format!("many/{alias}"), 1).await;
    }
    for pseq in 1..=3 {
        for alias in 0..200 {
            sender.put_message(alias, pseq, Kind::Text, format!("{alias}:{pseq}").as_bytes());
        }
    }
    sender.flush().await;
    let mut settled = [0; 200];
    while settled.contains(&0) || settled.iter().any(|&pseq| pseq < 3) {
        match sender.heard().await {
            Heard::Ack(ack) => settled[usize::from(ack.alias.0)] = ack.pseq,
            other => panic!("{other:?}"),
        }
    }
    let mut next = [1; 200];
    let mut last = 0;
    for _ in 0..600 {
        let envelope = receiver.envelope().await;
        let alias: usize = envelope.channel.as_str().trim_start_matches("many/").parse().unwrap();
        assert_eq!(envelope.payload, format!("{alias}:{}", next[alias]));
        assert!(envelope.seq.0 > last, "a pattern's messages come in the order of seqs");
        (next[alias], last) = (next[alias] + 1, envelope.seq.0);
    }
}

#[tokio::test]
async fn a_relay_that_does_not_know_the_producer_goes_on_at_its_first_number() {
    let mut relay = TestRelay::restartable(&[]).await;
    let producer = new_producer();
    let mut sender = FramedSender::connect_as(relay.address(), producer, 1).await;
    let epoch: Epoch = sender.welcome().epoch;
    sender.open(1, "foo", 1).await;
    sender.publish_all(1, 1, &["one", "two", "three"]).await;
    relay.kill().await;
    relay.start_again().await;

    let mut receiver = Receiver::json(relay.address(), "foo", "").await;
    let mut sender = FramedSender::connect_as(relay.address(), producer, 1).await;
    assert_ne!(sender.welcome().epoch, epoch, "a store that begins anew has another epoch");
    // It still holds the third, of which it has seen no ack.
    assert_eq!(sender.open(1, "foo", 3).await.last_pseq, 2);
    sender.publish_all(1, 3, &["three", "four"]).await;
    assert_eq!(receiver.texts(2).await, ["three", "four"]);
}

#[tokio::test]
async fn a_producer_that_lost_its_messages_goes_on_behind_them() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::json(relay.address(), "foo", "").await;
    let producer = new_producer();
    let mut sender = FramedSender::connect_as(relay.address(), producer, 1).await;
    sender.open(1, "foo", 1).await;
    sender.publish_all(1, 1, &["one"]).await;
    let mut sender = FramedSender::connect_as(relay.address(), producer, 2).await;
    assert_eq!(sender.open(1, "foo", 5).await.last_pseq, 4);
    sender.publish_all(1, 5, &["five"]).await;
    assert_eq!(receiver.texts(2).await, ["one", "five"]);
}

#[tokio::test]
async fn a_sender_that_says_it_is_done_is_closed() {
    let relay = TestRelay::start(&[]).await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    sender.put_message(1, 1, Kind::Text, b"last words");
    sender.put(&SenderFrame::Close(shared::sender::Close { code: 0, text: "" }));
    sender.flush().await;
    sender.acked(1, 1).await;
    while sender.heard().await != Heard::End {}
}
