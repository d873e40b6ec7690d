//! Receivers that fall behind what the store keeps: they are told exactly what they missed, or closed, as they want it,
//! and they cost the others nothing.

use shared::{Kind, receiver::Subprotocol};
use tests::{
    chain::Chain,
    receiver::{Dial, Received, Receiver},
    relay::TestRelay,
    sender::FramedSender,
};

/// Publishes far more than the store keeps and the sockets hold, to a receiver that does not read meanwhile.
async fn overrun(relay: &TestRelay, query: &str, form: Option<Subprotocol>) -> Receiver {
    let path = format!("/c/foo{query}");
    let mut dial = Dial::new(&path, form.map(Subprotocol::name));
    dial.receive_buffer = Some(4096);
    let receiver = dial.connect(relay.address()).await.unwrap();
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    sender
        .publish_each(1, 1..8_001, |n, out| {
            out.extend_from_slice(format!("{n} ").as_bytes());
            out.resize(2_000, b'x');
            Kind::Text
        })
        .await;
    receiver
}

fn number_of(payload: &[u8]) -> u64 {
    std::str::from_utf8(payload).unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_receiver_that_fell_behind_is_told_exactly_what_it_missed_and_goes_on() {
    let relay = TestRelay::start(&["--history", "256KiB"]).await;
    for form in [Subprotocol::Json, Subprotocol::Binary] {
        let mut receiver = overrun(&relay, "", Some(form)).await;
        let mut chain = Chain::new(&receiver.hello().await);
        let (mut last, mut missed) = (0, 0);
        while last < 8_000 {
            let received = receiver.next().await;
            let gap = chain.check(&received);
            if let Received::Message(envelope) = &received {
                let number = number_of(&envelope.payload);
                if let Some(gap) = gap {
                    missed += number - last - 1;
                    assert!(gap.count.is_none_or(|count| count == number - last - 1), "{gap:?}");
                } else {
                    assert_eq!(number, last + 1);
                }
                last = number;
            }
            assert!(!matches!(received, Received::Closed(..) | Received::Lost), "{received:?} after {last}");
        }
        assert!(missed > 1_000, "it was behind, but missed only {missed}");
    }
}

#[tokio::test]
async fn a_receiver_that_fell_behind_is_closed_where_it_wants_that_or_can_not_be_told() {
    let relay = TestRelay::start(&["--history", "256KiB"]).await;
    for (query, form) in [("?lag=close", Some(Subprotocol::Json)), ("", None), ("", Some(Subprotocol::Raw))] {
        let mut receiver = overrun(&relay, query, form).await;
        let mut last = 0;
        let (code, reason) = loop {
            match receiver.next().await {
                Received::Raw(_, payload) => {
                    assert_eq!(number_of(&payload), last + 1, "whole until the close");
                    last += 1;
                }
                Received::Message(envelope) => {
                    assert_eq!(number_of(&envelope.payload), last + 1, "whole until the close");
                    last += 1;
                }
                Received::Control(event) => assert_ne!(event["type"], "gap"),
                Received::Closed(code, reason) => break (code, reason),
                Received::Lost => panic!("lost without a close"),
            }
        };
        assert_eq!(code, 4001, "{query} {form:?}");
        assert!(reason.contains('-'), "the reason has the last position: {reason:?}");
        assert!(last < 8_000);
    }
}

#[tokio::test]
async fn a_raw_receiver_may_ask_to_skip() {
    let relay = TestRelay::start(&["--history", "256KiB"]).await;
    let mut receiver = overrun(&relay, "?lag=skip", None).await;
    let mut last = 0;
    while last < 8_000 {
        let (_, payload) = receiver.payload().await;
        let number = number_of(&payload);
        assert!(number > last);
        last = number;
    }
}

#[tokio::test]
async fn a_slow_receiver_delays_no_other() {
    let relay = TestRelay::start(&["--history", "256KiB"]).await;
    let slow = overrun(&relay, "", Some(Subprotocol::Json)).await;
    let mut other = Receiver::json(relay.address(), "foo", "").await;
    other.hello().await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    for n in 1..=100 {
        sender.publish(1, n, &n.to_string()).await;
        assert_eq!(other.text().await, n.to_string());
    }
    drop(slow);
}
