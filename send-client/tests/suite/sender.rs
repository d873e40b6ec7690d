//! The laws of a sender against a scripted relay: nothing lost, nothing twice, whatever happens to connections.

use std::time::{Duration, Instant};

use crate::fake_relay::{FakeRelay, Said, WELCOME};
use send_client::{
    connection::Producer,
    failure::Failure,
    outbox::Message,
    sender::{Happening, Sender, Target},
};
use shared::{
    Epoch, ErrorCode, Kind,
    client::Exit,
    sender::{Alias, Levels, ProducerId, RelayFrame, Welcome},
};

const ID: ProducerId = ProducerId([7; 16]);

fn target(relay: &FakeRelay) -> Target {
    let relay = relay.address().parse().unwrap();
    let producer = Producer { id: ID, epoch: 1, keep_s: 0, levels: Levels::ACCEPTED };
    Target { relay, producer, connect_timeout: Duration::from_secs(10), reconnect: true }
}

/// A connected sender with these messages for channel `a`.
async fn sender(target: Target, messages: &[&str]) -> Sender {
    let mut sender = Sender::connect(target).await.unwrap();
    let alias = sender.outbox.alias(&"a".parse().unwrap()).unwrap();
    messages.iter().for_each(|text| push(&mut sender, alias, text));
    sender
}

fn push(sender: &mut Sender, alias: Alias, text: &str) {
    sender.outbox.push(alias, Message { kind: Kind::Text, source_time: None, payload: text.as_bytes() });
}

/// Goes on until everything is settled and told; what happened, without mere progress.
async fn settle(sender: &mut Sender) -> Result<Vec<Happening>, Failure> {
    let mut happened = Vec::new();
    while sender.outbox.unsettled() > 0 || sender.has_news() {
        match sender.next().await? {
            Happening::Progress | Happening::Opened(..) => {}
            happening => happened.push(happening),
        }
    }
    Ok(happened)
}

fn numbered(messages: &[(u64, &str)]) -> Vec<(u64, String)> {
    messages.iter().map(|(pseq, text)| (*pseq, (*text).into())).collect()
}

#[tokio::test]
async fn after_a_lost_connection_only_what_is_not_stored_is_sent_again() {
    let relay = FakeRelay::bind().await;
    let script = async {
        let mut peer = relay.accept_open(WELCOME).await;
        assert_eq!(peer.publishes(3).await, numbered(&[(1, "one"), (2, "two"), (3, "three")]));
        peer.ack(0, 1).await;
        drop(peer);
        let mut peer = relay.accept(WELCOME).await;
        assert_eq!(peer.producer, ID);
        let Said::Open { alias, first_pseq, channel } = peer.next().await else { panic!("OPEN comes first") };
        // The ack may have been lost with the connection.
        assert!(first_pseq <= 2 && channel == "a");
        peer.opened(alias, 2).await;
        assert_eq!(peer.publishes(1).await, numbered(&[(3, "three")]));
        peer.ack(0, 3).await;
        peer
    };
    let client = async {
        let mut sender = sender(target(&relay), &["one", "two", "three"]).await;
        let happened = settle(&mut sender).await.unwrap();
        assert!(
            matches!(
                happened[..],
                [Happening::Lost, Happening::Back { delivered: 2 | 3, new_epoch: None, .. }]
            ),
            "{happened:?}"
        );
        assert_eq!(sender.outbox.confirmed(), 3);
    };
    tokio::join!(script, client);
}

#[tokio::test]
async fn a_relay_with_a_new_store_gets_everything_unconfirmed_and_its_epoch_is_told() {
    let relay = FakeRelay::bind().await;
    let script = async {
        let mut peer = relay.accept_open(WELCOME).await;
        peer.publishes(2).await;
        drop(peer);
        let mut peer = relay.accept_open(Welcome { epoch: Epoch(2), ..WELCOME }).await;
        assert_eq!(peer.publishes(2).await, numbered(&[(1, "one"), (2, "two")]));
        peer.ack(0, 2).await;
        peer
    };
    let client = async {
        let mut sender = sender(target(&relay), &["one", "two"]).await;
        let happened = settle(&mut sender).await.unwrap();
        let Happening::Back { delivered, new_epoch, .. } = happened[1] else { panic!("{happened:?}") };
        assert_eq!((delivered, new_epoch), (2, Some(Epoch(2))));
    };
    tokio::join!(script, client);
}

#[tokio::test]
async fn several_lost_connections_are_one_change_of_state() {
    let relay = FakeRelay::bind().await;
    let script = async {
        for _ in 0..3 {
            let mut peer = relay.accept_open(WELCOME).await;
            peer.publishes(1).await;
        }
        let mut peer = relay.accept_open(WELCOME).await;
        peer.publishes(1).await;
        peer.ack(0, 1).await;
        peer
    };
    let client = async {
        let mut sender = sender(target(&relay), &["one"]).await;
        let happened = settle(&mut sender).await.unwrap();
        assert!(matches!(happened[..], [Happening::Lost, Happening::Back { .. }]), "{happened:?}");
    };
    tokio::join!(script, client);
}

#[tokio::test]
async fn connections_that_each_bring_a_little_are_not_waited_for_ever_longer() {
    const MESSAGES: u64 = 12;
    let relay = FakeRelay::bind().await;
    let script = async {
        for stored in 0..MESSAGES {
            let mut peer = relay.accept(WELCOME).await;
            assert!(matches!(peer.next().await, Said::Open { .. }));
            peer.opened(0, stored).await;
            // All is read, so that closing is no reset, which could take the ack with it.
            peer.publishes((MESSAGES - stored) as usize).await;
            peer.ack(0, stored + 1).await;
        }
    };
    let texts = ["x"; MESSAGES as usize];
    let client = async { settle(&mut sender(target(&relay), &texts).await).await.unwrap() };
    let began = Instant::now();
    tokio::join!(script, client);
    // At most 250 ms for each. Waits that double each time would come to a minute.
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_gap_goes_back_to_the_message_that_is_expected() {
    let relay = FakeRelay::bind().await;
    let script = async {
        let mut peer = relay.accept_open(WELCOME).await;
        peer.publishes(4).await;
        peer.refuse(ErrorCode::Gap, 2, 0).await;
        peer.refuse(ErrorCode::Gap, 2, 0).await;
        assert_eq!(peer.publishes(3).await, numbered(&[(2, "two"), (3, "three"), (4, "four")]));
        peer.ack(0, 4).await;
        peer
    };
    let client = async {
        let mut sender = sender(target(&relay), &["one", "two", "three", "four"]).await;
        assert_eq!(settle(&mut sender).await, Ok(vec![]));
    };
    tokio::join!(script, client);
}

#[tokio::test]
async fn what_the_store_could_not_take_is_sent_again_and_what_it_refused_is_not() {
    let relay = FakeRelay::bind().await;
    let script = async {
        let mut peer = relay.accept_open(WELCOME).await;
        peer.publishes(3).await;
        peer.refuse(ErrorCode::Rate, 1, 0).await;
        peer.refuse(ErrorCode::StoreUnavailable, 2, 20).await;
        assert_eq!(peer.publishes(2).await, numbered(&[(2, "two"), (3, "three")]));
        peer.ack(0, 3).await;
        peer
    };
    let client = async {
        let mut sender = sender(target(&relay), &["one", "two", "three"]).await;
        let happened = settle(&mut sender).await.unwrap();
        assert!(matches!(happened[..], [Happening::Refused(Alias(0), 1, _)]), "{happened:?}");
        assert_eq!((sender.outbox.confirmed(), sender.outbox.refused()), (2, 1));
    };
    tokio::join!(script, client);
}

#[tokio::test]
async fn no_more_is_in_flight_than_the_relays_window() {
    let relay = FakeRelay::bind().await;
    let script = async {
        let mut peer = relay.accept_open(Welcome { window_messages: 2, ..WELCOME }).await;
        peer.publishes(2).await;
        // The answer to a ping shows that the sender had its turn and sent no third message before it.
        peer.send(RelayFrame::Ping(42)).await;
        assert_eq!(peer.next().await, Said::Pong(42));
        peer.ack(0, 1).await;
        assert_eq!(peer.publishes(1).await, numbered(&[(3, "three")]));
        peer.ack(0, 3).await;
        peer
    };
    let client = async {
        let mut sender = sender(target(&relay), &["one", "two", "three"]).await;
        settle(&mut sender).await.unwrap();
    };
    tokio::join!(script, client);
}

#[tokio::test]
async fn a_draining_relay_gets_no_more_and_the_next_connection_the_rest() {
    let relay = FakeRelay::bind().await;
    let script = async {
        let mut peer = relay.accept_open(Welcome { window_messages: 1, ..WELCOME }).await;
        peer.publishes(1).await;
        peer.send(RelayFrame::Drain { deadline_ms: 10_000 }).await;
        peer.ack(0, 1).await;
        assert_eq!(peer.next().await, Said::End);
        let mut peer = relay.accept_open(WELCOME).await;
        assert_eq!(peer.publishes(1).await, numbered(&[(2, "two")]));
        peer.ack(0, 2).await;
        peer
    };
    let client = async {
        let mut sender = sender(target(&relay), &["one", "two"]).await;
        let happened = settle(&mut sender).await.unwrap();
        assert!(
            matches!(happened[..], [Happening::Lost, Happening::Back { delivered: 1, .. }]),
            "{happened:?}"
        );
    };
    tokio::join!(script, client);
}

#[tokio::test]
async fn a_silent_relay_is_given_up_and_a_silent_connection_is_asked() {
    let relay = FakeRelay::bind().await;
    let script = async {
        let mut silent = relay.accept_open(Welcome { ping_ms: 20, ..WELCOME }).await;
        silent.publishes(1).await;
        let mut peer = relay.accept_open(Welcome { ping_ms: 200, ..WELCOME }).await;
        peer.publishes(1).await;
        peer.ack(0, 1).await;
        assert_eq!(peer.next().await, Said::Ping(1));
    };
    let client = async {
        let mut sender = sender(target(&relay), &["one"]).await;
        let happened = settle(&mut sender).await.unwrap();
        assert!(matches!(happened[..], [Happening::Lost, Happening::Back { .. }]), "{happened:?}");
        loop {
            sender.next().await.unwrap();
        }
    };
    tokio::select! {
        () = script => {}
        () = client => {}
    }
}

#[tokio::test]
async fn a_sender_that_was_taken_over_does_not_come_back() {
    for (code, exit) in [
        (ErrorCode::TakenOver, Exit::Failure),
        (ErrorCode::Fenced, Exit::Failure),
        (ErrorCode::Forbidden, Exit::Refused),
        (ErrorCode::TokenExpired, Exit::Refused),
        (ErrorCode::LevelUnsupported, Exit::Failure),
    ] {
        let relay = FakeRelay::bind().await;
        let script = async {
            let mut peer = relay.accept_open(WELCOME).await;
            peer.fail(code, "for a reason").await;
            peer
        };
        let client = async {
            let mut sender = sender(target(&relay), &["one"]).await;
            let failure = settle(&mut sender).await.unwrap_err();
            assert_eq!(failure.exit, exit);
            assert!(failure.message.contains("for a reason"), "{}", failure.message);
        };
        tokio::join!(script, client);
    }
}

#[tokio::test]
async fn without_reconnecting_a_lost_connection_is_the_end() {
    let relay = FakeRelay::bind().await;
    let script = async {
        let mut peer = relay.accept_open(WELCOME).await;
        peer.publishes(2).await;
    };
    let client = async {
        let mut sender = sender(Target { reconnect: false, ..target(&relay) }, &["one", "two"]).await;
        let failure = settle(&mut sender).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Incomplete);
        assert!(failure.message.ends_with("2 messages are not confirmed"), "{}", failure.message);
    };
    tokio::join!(script, client);
}
