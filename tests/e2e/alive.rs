//! What keeps the relay alive: deadlines for those who say nothing, pings for those who are gone, and a way through
//! when the system has nothing left. Every wait is a key of the configuration, set short here.

use std::time::Duration;

use shared::{Kind, receiver::Subprotocol};
use tests::{
    frames::{FIN, FrameClient, opcode},
    http,
    receiver::{Dial, Receiver},
    relay::TestRelay,
    sender::{FramedSender, Heard, RawSender},
    within,
};
use tokio::time::interval;

const PING: u8 = FIN | opcode::PING;

#[tokio::test]
async fn a_silent_connection_is_closed_where_no_raw_sender_is_taken() {
    let config = "[timeouts]\nsniff = \"200ms\"\nheaders = \"200ms\"\nhello = \"200ms\"\n\
                  [[listener]]\naddress = \"127.0.0.1:0\"\naccepts = \"http\"\n\
                  [[listener]]\naddress = \"127.0.0.1:0\"\naccepts = \"framed\"\n";
    let relay = TestRelay::with_config(config, &[]).await;
    for &address in &relay.addresses()[1..] {
        let mut silent = RawSender::connect(address).await;
        silent.closed().await;
    }
}

#[tokio::test]
async fn a_silent_connection_is_a_raw_sender_where_one_is_taken() {
    let relay = TestRelay::with_config("[timeouts]\nsniff = \"50ms\"\n", &[]).await;
    let mut receiver = Receiver::connect(relay.address(), "/", None).await;
    // Half of what would be a framed sender, and then nothing: when the time is over it is data.
    let mut sender = RawSender::connect(relay.address()).await;
    sender.write(b"\xF5WS").await;
    assert_eq!(receiver.payload().await, (Kind::Binary, b"\xF5WS"[..].into()));
    sender.write("a line\n").await;
    assert_eq!(receiver.payload().await.1, "a line\n");
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let relay = TestRelay::with_config("[timeouts]\nheaders = \"200ms\"\n", &[]).await;
    let mut slow = RawSender::connect(relay.address()).await;
    slow.write(format!("GET /c/foo HTTP/1.1\r\nHost: {}\r\n", relay.address())).await;
    // The pace of an attacker: a header now and then, for ever.
    let mut pace = interval(Duration::from_millis(50));
    let drip = async {
        loop {
            pace.tick().await;
            if !slow.try_write(b"X: y\r\n").await {
                break;
            }
        }
    };
    within("a slow head to be cut off", drip).await;
}

#[tokio::test]
async fn a_greeting_that_never_ends_is_cut_off() {
    let relay = TestRelay::with_config("[timeouts]\nhello = \"200ms\"\n", &[]).await;
    let mut sender = FramedSender::silent(relay.address()).await;
    sender.put_bytes(b"\xF5WSR\x01\0\0");
    sender.flush().await;
    while sender.heard().await != Heard::End {}
}

#[tokio::test]
async fn a_receiver_that_answers_no_ping_is_closed_with_4002() {
    let relay = TestRelay::with_config("[timeouts]\nping = \"200ms\"\n", &[]).await;
    let mut gone = FrameClient::connect(relay.address(), "/c/foo").await;
    let mut pings = 0;
    let code = loop {
        let frame = gone.frame().await.expect("a close before the end");
        match frame.first {
            PING => pings += 1,
            _ => break u16::from_be_bytes([frame.payload[0], frame.payload[1]]),
        }
    };
    assert_eq!((code, pings), (4002, 2));
}

#[tokio::test]
async fn a_receiver_that_answers_pings_stays() {
    let relay = TestRelay::with_config("[timeouts]\nping = \"100ms\"\n", &[]).await;
    let mut alive = FrameClient::connect(relay.address(), "/c/foo").await;
    for _ in 0..8 {
        let ping = alive.frame().await.expect("it stays open");
        assert_eq!(ping.first, PING);
        alive.send(FIN | opcode::PONG, &ping.payload).await;
    }
}

#[tokio::test]
async fn whatever_a_receiver_says_is_a_sign_of_life() {
    let relay = TestRelay::with_config("[timeouts]\nping = \"100ms\"\n", &[]).await;
    let mut talking = FrameClient::connect(relay.address(), "/c/foo").await;
    for _ in 0..8 {
        let ping = talking.frame().await.expect("it stays open");
        assert_eq!(ping.first, PING);
        talking.send(FIN | opcode::TEXT, b"no pong, but words").await;
    }
}

#[tokio::test]
async fn bulk_transfer_is_no_silence() {
    const MESSAGES: u64 = 64;
    let relay =
        TestRelay::with_config("[timeouts]\nping = \"100ms\"\n[limits]\nsend_buffer = \"64KiB\"\n", &[])
            .await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    sender
        .publish_each(1, 1..MESSAGES + 1, |_, out| {
            out.resize(128 << 10, 0);
            Kind::Binary
        })
        .await;
    let mut client = FrameClient::connect(relay.address(), "/c/foo?since=earliest").await;
    // The pace of a slow line: all of it takes many pings, of which none is answered.
    let mut pace = interval(Duration::from_millis(25));
    let mut messages = 0;
    while messages < MESSAGES {
        pace.tick().await;
        let frame = client.frame().await.expect("it is not closed while it takes what there is");
        match frame.first {
            PING => {}
            first => {
                assert_eq!((first, frame.payload.len()), (FIN | opcode::BINARY, 128 << 10));
                messages += 1;
            }
        }
    }
}

#[tokio::test]
async fn a_framed_sender_that_answers_no_ping_is_dropped_and_one_that_does_stays() {
    let relay = TestRelay::with_config("[timeouts]\nping = \"200ms\"\n", &[]).await;
    let mut gone = FramedSender::connect(relay.address()).await;
    let mut alive = FramedSender::connect(relay.address()).await;
    assert_eq!(alive.welcome().ping_ms, 200);
    alive.open(1, "foo", 1).await;
    // Pings are answered while it is listened for what never comes: until the other one is gone.
    tokio::select! {
        () = async { while gone.heard_any().await != Heard::End {} } => {}
        heard = alive.heard() => panic!("{heard:?}"),
    }
    alive.publish_all(1, 1, &["still here"]).await;
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_while_data_waits_is_dropped() {
    let relay =
        TestRelay::with_config("[timeouts]\nstall = \"200ms\"\n[limits]\nsend_buffer = \"16KiB\"\n", &[])
            .await;
    let mut dial = Dial::new("/c/foo", Some(Subprotocol::Json.name()));
    dial.receive_buffer = Some(4096);
    let mut stalled = dial.connect(relay.address()).await.unwrap();
    stalled.hello().await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    sender
        .publish_each(1, 1..1_001, |_, out| {
            out.resize(8 << 10, 0);
            Kind::Binary
        })
        .await;
    // What tells that it is gone is how many receivers a channel has: asked again and again, at a pace.
    let mut pace = interval(Duration::from_millis(50));
    let dropped = async {
        for alias in 2.. {
            pace.tick().await;
            if sender.open(alias, "foo", 1).await.receivers == 0 {
                break;
            }
        }
    };
    within("a receiver that takes nothing to be dropped", dropped).await;
}

#[tokio::test]
async fn without_descriptors_it_rests_and_serves_again_when_some_are_free() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::connect(relay.address(), "/c/foo?publish", None).await;
    // It has made room for its connections at its start: the system takes that away.
    let limit = relay.open_files() as u64 + 8;
    relay.allow_open_files(limit);
    let crowd: Vec<RawSender> = {
        let mut crowd = Vec::new();
        for _ in 0..80 {
            crowd.push(RawSender::connect(relay.address()).await);
        }
        crowd
    };
    // Who is connected is served, and while they talk for a second the relay does not spin.
    let before = relay.ticks();
    let mut pace = interval(Duration::from_millis(50));
    for n in 0..20 {
        pace.tick().await;
        receiver.send(n.to_string()).await;
        assert_eq!(receiver.text().await, n.to_string());
    }
    let ticks = relay.ticks() - before;
    assert!(ticks < 30, "{ticks} ticks of 10 ms in a second");
    drop(crowd);
    let mut late = Receiver::connect(relay.address(), "/c/foo?publish", None).await;
    late.send("late").await;
    assert_eq!(late.text().await, "late");
    assert_eq!(http::get(relay.address(), "/nonsense").await.status, 404);
}

#[tokio::test]
async fn what_has_ended_leaves_nothing_open() {
    let relay = TestRelay::start(&[]).await;
    let mut witness = Receiver::connect(relay.address(), "/c/foo?publish", None).await;
    witness.send("warm").await;
    witness.text().await;
    let before = relay.open_files();
    for _ in 0..20 {
        drop(Receiver::json(relay.address(), "foo", "").await);
        drop(FramedSender::connect(relay.address()).await);
        let mut sender = RawSender::connect(relay.address()).await;
        sender.write("bye").await;
        drop(sender);
        http::get(relay.address(), "/nonsense").await;
    }
    // Ends are noticed one by one: looked at again at a pace.
    let mut pace = interval(Duration::from_millis(20));
    let closed = async {
        while relay.open_files() > before {
            pace.tick().await;
        }
    };
    within("the descriptors of ended connections to be closed", closed).await;
}
