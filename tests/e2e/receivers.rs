//! Receivers: subprotocols, where a stream begins, what a receiver may say, and patterns.

use serde_json::{Value, json};
use shared::{Kind, Seq, receiver::Subprotocol};
use tests::{
    chain::Chain,
    receiver::{Dial, Received, Receiver, base64, position},
    relay::TestRelay,
    sender::FramedSender,
};

/// Publishes `count` numbered messages to a new channel; the position of each.
async fn numbered(relay: &TestRelay, channel: &str, count: u64) -> Vec<Seq> {
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, channel, 1).await;
    let mut places = Vec::new();
    for n in 1..=count {
        places.push(sender.publish_all(1, n, &[n.to_string()]).await);
    }
    places
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn a_stream_begins_with_hello_and_says_when_it_is_live() {
    let relay = TestRelay::start(&[]).await;
    let places = numbered(&relay, "foo", 3).await;
    for form in [Subprotocol::Json, Subprotocol::Binary] {
        let mut receiver = Receiver::connect(relay.address(), "/c/foo?since=earliest", Some(form)).await;
        assert_eq!(receiver.subprotocol(), Some(form.name()));
        let hello = receiver.hello().await;
        assert_eq!(hello["channel"], "foo");
        assert_eq!(hello["epoch"].as_str().map(str::len), Some(16));
        assert_eq!((hello["first"].as_u64(), hello["head"].as_u64()), (Some(places[0].0), Some(places[2].0)));
        let mut chain = Chain::new(&hello);
        for place in &places {
            let received = receiver.next().await;
            chain.check(&received);
            let Received::Message(envelope) = received else { panic!("{received:?}") };
            assert_eq!(envelope.seq, *place);
            assert!(envelope.time > 1_600_000_000_000_000, "microseconds since 1970: {}", envelope.time);
        }
        let Received::Control(live) = receiver.next().await else { panic!("live comes after the last") };
        assert_eq!(live, json!({ "type": "live", "seq": places[2].0 }));
    }
}

#[tokio::test]
async fn nothing_published_after_the_upgrade_is_missed() {
    let relay = TestRelay::start(&[]).await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    for n in 1..=50 {
        let mut receiver = Receiver::connect(relay.address(), "/c/foo", None).await;
        sender.publish(1, n, &n.to_string()).await;
        assert_eq!(receiver.text().await, n.to_string());
    }
}

#[tokio::test]
async fn the_first_known_subprotocol_of_those_offered_is_taken() {
    let relay = TestRelay::start(&[]).await;
    for (offer, taken) in [
        ("relay.v1.raw", Some("relay.v1.raw")),
        ("chat, relay.v1.binary, relay.v1.json", Some("relay.v1.binary")),
        ("relay.v1.json, relay.v1.raw", Some("relay.v1.json")),
    ] {
        let receiver = Dial::new("/c/foo", Some(offer)).connect(relay.address()).await.unwrap();
        assert_eq!(receiver.subprotocol(), taken, "{offer}");
    }
}

#[tokio::test]
async fn every_subprotocol_carries_every_payload_unchanged() {
    let relay = TestRelay::start(&[]).await;
    let mut receivers = Vec::new();
    for form in [None, Some(Subprotocol::Raw), Some(Subprotocol::Json), Some(Subprotocol::Binary)] {
        receivers.push(Receiver::connect(relay.address(), "/c/foo", form).await);
    }
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    let payloads: Vec<(Kind, Vec<u8>)> = vec![
        (Kind::Text, b"".into()),
        (Kind::Binary, b"".into()),
        (Kind::Text, "quote \" backslash \\ caf\u{e9} \u{1f980} \u{1}\r\n".into()),
        (Kind::Binary, (0..=255).collect()),
        (Kind::Binary, b"valid text, declared binary".into()),
        (Kind::Text, vec![b'x'; 125]),
        (Kind::Text, vec![b'x'; 126]),
        (Kind::Text, vec![b'x'; 65_535]),
        (Kind::Binary, vec![0; 65_536]),
        (Kind::Binary, vec![7; 1 << 20]),
    ];
    for (n, (kind, payload)) in (1..).zip(&payloads) {
        sender.put_message(1, n, *kind, payload);
    }
    sender.flush().await;
    for receiver in &mut receivers {
        for (kind, payload) in &payloads {
            let got = receiver.payload().await;
            assert!(
                got == (*kind, payload.clone().into()),
                "{:?}, {} B",
                receiver.subprotocol(),
                payload.len()
            );
        }
    }
}

#[tokio::test]
async fn since_begins_where_it_says() {
    let relay = TestRelay::start(&[]).await;
    let places = numbered(&relay, "foo", 5).await;
    let epoch = position(&Receiver::json(relay.address(), "foo", "").await.hello().await, Seq::ZERO).epoch;
    for (query, expected, recovered) in [
        ("?since=earliest".into(), numbers(1..=5), None),
        (format!("?since={epoch}-{}", places[1]), numbers(3..=5), Some(true)),
        (format!("?since={epoch}-{}", places[4]), vec![], Some(true)),
        (format!("?since={}", places[2]), numbers(4..=5), Some(false)),
        ("?since=1h".into(), numbers(1..=5), None),
        ("?since=2020-01-31T12:00:00Z".into(), numbers(1..=5), None),
        ("?last=2".into(), numbers(4..=5), None),
        ("?last=100".into(), numbers(1..=5), None),
        ("?last=0".into(), vec![], None),
        ("?since=latest".into(), vec![], None),
        (String::new(), vec![], None),
    ] {
        let mut receiver = Receiver::json(relay.address(), "foo", &query).await;
        let hello = receiver.hello().await;
        if let Some(recovered) = recovered {
            assert_eq!(hello["recovered"], recovered, "{query}");
        }
        let mut chain = Chain::new(&hello);
        let mut got = Vec::new();
        loop {
            let received = receiver.next().await;
            chain.check(&received);
            match received {
                Received::Message(envelope) => got.push(String::from_utf8(envelope.payload.into()).unwrap()),
                Received::Control(event) if event["type"] == "live" => break,
                other => panic!("{query}: {other:?}"),
            }
        }
        assert_eq!(got, expected, "{query}");
    }
}

#[tokio::test]
async fn a_raw_receiver_may_begin_in_the_past_too() {
    let relay = TestRelay::start(&[]).await;
    numbered(&relay, "foo", 5).await;
    let mut receiver = Receiver::connect(relay.address(), "/c/foo?last=3", None).await;
    assert_eq!(receiver.texts(3).await, numbers(3..=5));
}

#[tokio::test]
async fn a_position_of_another_epoch_is_not_recovered_and_says_why() {
    let relay = TestRelay::start(&[]).await;
    numbered(&relay, "foo", 3).await;
    let mut receiver = Receiver::json(relay.address(), "foo", "?since=00000000000000aa-2").await;
    let hello = receiver.hello().await;
    assert_eq!((&hello["recovered"], &hello["reason"]), (&json!(false), &json!("epoch")));
    assert_eq!(receiver.texts(3).await, numbers(1..=3), "everything of the new epoch follows");
}

#[tokio::test]
async fn what_retention_took_is_told_as_a_gap_that_covers_it_exactly() {
    let relay = TestRelay::start(&["--history", "64KiB"]).await;
    let mut early = Receiver::json(relay.address(), "foo", "").await;
    let hello = early.hello().await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    let texts: Vec<String> = (1..=300).map(|n| format!("{n} {}", "x".repeat(1000))).collect();
    for (n, text) in (1..).zip(&texts) {
        sender.publish_all(1, n, &[text]).await;
    }
    let second = {
        early.texts(1).await;
        early.envelope().await.seq
    };

    let mut late =
        Receiver::json(relay.address(), "foo", &format!("?since={}", position(&hello, second))).await;
    let hello = late.hello().await;
    assert_eq!((&hello["recovered"], &hello["reason"]), (&json!(false), &json!("retention")));
    let mut next = None;
    let mut gaps = Vec::new();
    loop {
        let received = late.next().await;
        match &received {
            Received::Control(event) if event["type"] == "gap" => gaps.push(event.clone()),
            Received::Message(envelope) => {
                let text = String::from_utf8(envelope.payload.to_vec()).unwrap();
                let number: u64 = text.split(' ').next().unwrap().parse().unwrap();
                let expected = *next.get_or_insert(number);
                assert_eq!(number, expected);
                if gaps.len() == 1 && number == next.unwrap() {
                    let gap = &gaps[0];
                    assert_eq!((&gap["channel"], &gap["reason"]), (&json!("foo"), &json!("retention")));
                    assert_eq!(gap["after"].as_u64(), Some(second.0));
                    let before = gap["before"].as_u64().unwrap();
                    assert!(
                        envelope.prev.0 < before && before <= envelope.seq.0,
                        "{gap} before {}",
                        envelope.seq
                    );
                    if let Some(count) = gap["count"].as_u64() {
                        assert_eq!(count, number - 3);
                    }
                    gaps.push(Value::Null);
                }
                next = Some(number + 1);
            }
            Received::Control(event) if event["type"] == "live" => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((gaps.len(), next), (2, Some(301)), "one gap, then everything to the end");
}

#[tokio::test]
async fn what_a_receiver_publishes_is_acked_and_comes_to_itself_too() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::json(relay.address(), "foo", "").await;
    let mut other = Receiver::json(relay.address(), "bar", "").await;
    receiver.hello().await;
    receiver.control("live").await;
    for (id, data) in [(1, json!({ "text": "hello" })), (2, json!({ "base64": base64(&[0, 255]) }))] {
        let mut command = json!({ "type": "publish", "id": id });
        command.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
        receiver.command(command).await;
        let (mut acked, mut came) = (None, None);
        while acked.is_none() || came.is_none() {
            match receiver.next().await {
                Received::Control(event) => {
                    assert_eq!((&event["type"], &event["id"]), (&json!("ack"), &json!(id)), "{event}");
                    acked = event["seq"].as_u64();
                }
                Received::Message(envelope) => came = Some(envelope.seq.0),
                end => panic!("{end:?}"),
            }
        }
        assert_eq!(acked, came);
    }
    receiver.command(json!({ "type": "publish", "id": 3, "channel": "bar", "text": "elsewhere" })).await;
    assert_eq!(receiver.control("ack").await["id"], 3);
    assert_eq!(other.text().await, "elsewhere");
}

#[tokio::test]
async fn what_a_receiver_says_wrong_is_answered_and_the_stream_goes_on() {
    let relay = TestRelay::start(&["--max-message", "1KiB"]).await;
    let mut receiver = Receiver::json(relay.address(), "foo", "").await;
    receiver.hello().await;
    for (said, code, id) in [
        ("not json", "protocol", None),
        ("{\"type\":\"nonsense\"}", "protocol", None),
        ("{\"type\":\"publish\",\"id\":1,\"base64\":\"?\"}", "protocol", Some(1)),
        ("{\"type\":\"publish\",\"id\":2,\"channel\":\"a//b\",\"text\":\"x\"}", "invalid_channel", Some(2)),
        ("{\"type\":\"subscribe\",\"channel\":\"a b\"}", "invalid_channel", None),
    ] {
        receiver.send(said).await;
        let error = receiver.control("error").await;
        assert_eq!((error["code"].as_str(), error["id"].as_u64()), (Some(code), id), "{said}: {error}");
    }
    receiver.command(json!({ "type": "publish", "id": 9, "text": "still here" })).await;
    assert_eq!(receiver.text().await, "still here");
}

#[tokio::test]
async fn ping_is_answered_with_pong() {
    let relay = TestRelay::start(&[]).await;
    for form in [Subprotocol::Json, Subprotocol::Binary] {
        let mut receiver = Receiver::connect(relay.address(), "/c/foo", Some(form)).await;
        receiver.command(json!({ "type": "ping" })).await;
        assert_eq!(receiver.control("pong").await, json!({ "type": "pong" }));
    }
}

#[tokio::test]
async fn a_receiver_may_subscribe_to_more_and_to_less() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::json(relay.address(), "a", "").await;
    assert_eq!(receiver.hello().await["channel"], "a");
    receiver.control("live").await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "a", 1).await;
    sender.open(2, "b/x", 1).await;
    sender.publish_all(2, 1, &["b before"]).await;

    receiver.command(json!({ "type": "subscribe", "channel": "b/*", "since": "earliest" })).await;
    assert_eq!(receiver.control("hello").await["channel"], "b/*");
    assert_eq!(receiver.text().await, "b before");
    sender.publish_all(1, 1, &["a"]).await;
    assert_eq!(receiver.text().await, "a");
    sender.publish_all(2, 2, &["b"]).await;
    assert_eq!(receiver.text().await, "b");

    receiver.command(json!({ "type": "unsubscribe", "channel": "a" })).await;
    receiver.command(json!({ "type": "ping" })).await;
    receiver.control("pong").await;
    sender.publish_all(1, 2, &["not for it"]).await;
    sender.publish_all(2, 3, &["b again"]).await;
    assert_eq!(receiver.text().await, "b again");
}

#[tokio::test]
async fn subscriptions_are_bounded_and_the_refusal_is_told() {
    let relay = TestRelay::with_config("[limits]\nsubscriptions = 3\n", &[]).await;
    let mut receiver = Receiver::json(relay.address(), "a", "").await;
    receiver.hello().await;
    for channel in ["b", "c"] {
        receiver.command(json!({ "type": "subscribe", "channel": channel })).await;
        assert_eq!(receiver.control("hello").await["channel"], channel);
    }
    receiver.command(json!({ "type": "subscribe", "channel": "d" })).await;
    assert_eq!(receiver.control("error").await["code"], "too_many");
}

#[tokio::test]
async fn publish_without_a_subprotocol_is_an_echo() {
    let relay = TestRelay::start(&[]).await;
    let mut echo = Receiver::connect(relay.address(), "/c/echo?publish", None).await;
    echo.send("hello").await;
    assert_eq!(echo.next().await, Received::Raw(Kind::Text, "hello".into()));
    echo.send_binary(vec![0, 255]).await;
    assert_eq!(echo.next().await, Received::Raw(Kind::Binary, vec![0, 255].into()));
}

#[tokio::test]
async fn what_a_raw_receiver_says_without_publish_is_ignored() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::connect(relay.address(), "/c/foo", None).await;
    receiver.send("nobody hears this").await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    sender.publish_all(1, 1, &["first"]).await;
    assert_eq!(receiver.text().await, "first");
}

#[tokio::test]
async fn a_pattern_is_resumed_over_all_its_channels_by_one_position() {
    let relay = TestRelay::start(&[]).await;
    let mut sender = FramedSender::connect(relay.address()).await;
    for (alias, channel) in (0..).zip(["a/x", "a/y", "b/x", "a/y/z"]) {
        sender.open(alias, channel, 1).await;
    }
    let mut receiver = Receiver::json(relay.address(), "a/*", "").await;
    let hello = receiver.hello().await;
    for n in 1..=10 {
        for alias in 0..4 {
            sender.publish_all(alias, n, &[format!("{alias}:{n}")]).await;
        }
    }
    let expected: Vec<String> = (1..=10).flat_map(|n| [format!("0:{n}"), format!("1:{n}")]).collect();
    let mut chain = Chain::new(&hello);
    let mut got = Vec::new();
    let mut last = Seq::ZERO;
    while got.len() < 7 {
        let received = receiver.next().await;
        chain.check(&received);
        if let Received::Message(envelope) = received {
            last = envelope.seq;
            got.push(String::from_utf8(envelope.payload.into()).unwrap());
        }
    }
    drop(receiver);
    let mut receiver =
        Receiver::json(relay.address(), "a/*", &format!("?since={}", position(&hello, last))).await;
    assert_eq!(receiver.hello().await["recovered"], true);
    got.extend(receiver.texts(13).await);
    assert_eq!(got, expected);
}

#[tokio::test]
async fn a_close_is_answered() {
    let relay = TestRelay::start(&[]).await;
    Receiver::json(relay.address(), "foo", "").await.close().await;
}
