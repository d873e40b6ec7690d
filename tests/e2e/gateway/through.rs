//! Connections without rules: every byte passes as it is, and is counted.

use std::time::Duration;

use tests::{
    frames::{FIN, FrameClient, frame, opcode},
    http,
    relay::TestRelay,
    sender,
    upstream::{Echo, Upstream, server_frame},
};
use tokio::{io::AsyncWriteExt, time::interval};

use super::{BINARY, CLOSE, PING, PONG, TEXT, WAYS, app, close, ended, relay_to, say, told};

/// Random bytes, the same each time.
fn random(seed: u64, count: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; count];
    random.fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn messages_of_every_kind_and_size_come_as_they_are() {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), "").await;
    let (mut client, mut peer) =
        tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.upgraded());
    let frames = [
        (TEXT, 0),
        (BINARY, 0),
        (TEXT, 125),
        (BINARY, 126),
        (opcode::TEXT, 65_535),
        (opcode::CONTINUATION, 1),
        (PING, 125),
        (FIN | opcode::CONTINUATION, 65_536),
        (PONG, 0),
        (BINARY, 300_000),
        // A reserved bit belongs to an extension that both sides agreed upon.
        (FIN | 0x40 | opcode::TEXT, 1000),
    ];
    for (seed, (first, length)) in frames.into_iter().enumerate() {
        let payload = random(seed as u64, length);
        client.send(first, &payload).await;
        peer.expect(first, &payload).await;
        peer.send(first, &payload).await;
        client.expect(first, &payload).await;
    }
    let counted = told(&relay, "/app", "all messages", |told| told["from_upstream"]["messages"] == 7).await;
    assert_eq!(counted["from_client"]["messages"], 7, "neither pings nor fragments are messages");
    let bytes = |frame: &dyn Fn(u8, &[u8]) -> Vec<u8>| -> usize {
        frames.iter().map(|&(first, length)| frame(first, &vec![0; length]).len()).sum()
    };
    assert_eq!(counted["from_client"]["bytes"], bytes(&|first, payload| frame(first, payload)));
    assert_eq!(counted["from_upstream"]["bytes"], bytes(&|first, payload| server_frame(first, payload)));
}

#[tokio::test]
async fn what_either_side_sends_at_once_is_not_lost() {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), "").await;
    let early = random(7, 100_000);
    let mut client = sender::connect(relay.address()).await;
    let mut request = http::upgrade_head(relay.address(), "/app", "").into_bytes();
    request.extend(frame(TEXT, b"right behind the request"));
    client.write_all(&request).await.unwrap();
    let mut peer = upstream.request().await;
    let mut answer = peer.head.upgrade("").into_bytes();
    answer.extend(server_frame(BINARY, &early));
    peer.write(answer).await;
    let mut client = FrameClient::upgraded(client).await.unwrap();
    client.expect(BINARY, &early).await;
    peer.expect(TEXT, b"right behind the request").await;
}

#[tokio::test]
async fn a_message_may_be_longer_than_anything_that_is_buffered() {
    const LENGTH: usize = 48 << 20;
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), "").await;
    let (mut client, mut peer) =
        tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.upgraded());
    say_nothing_more_than(&relay, async {
        let message = random(11, LENGTH);
        tokio::join!(client.send(BINARY, &message), peer.expect(BINARY, &message));
        tokio::join!(peer.send(BINARY, &message), client.expect(BINARY, &message));
    })
    .await;
}

/// The relay's memory must not grow by a message that passes.
async fn say_nothing_more_than(relay: &TestRelay, passing: impl Future<Output = ()>) {
    let before = relay.rss();
    passing.await;
    let grown = relay.peak_rss().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes of memory for what only passes");
}

#[tokio::test]
async fn pieces_of_any_size_make_the_same_stream() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), "").await;
    let mut random = fastrand::Rng::with_seed(42);
    let mut client = FrameClient::connect(relay.address(), "/app").await;
    for round in 0..40u64 {
        let payload = self::random(round, random.usize(0..70_000));
        let bytes = frame(BINARY, &payload);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(random.usize(1..=rest.len()).min(random.usize(1..5000)));
            client.send_bytes(piece).await;
            rest = behind;
        }
        client.expect(BINARY, &payload).await;
    }
    let counted = told(&relay, "/app", "40 messages", |told| told["from_upstream"]["messages"] == 40).await;
    assert_eq!(counted["from_client"]["messages"], 40);
}

#[tokio::test]
async fn many_connections_at_once_do_not_mix() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), "").await;
    let mut clients = Vec::new();
    for _ in 0..64 {
        clients.push(FrameClient::connect(relay.address(), "/app").await);
    }
    for round in 0..10 {
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(TEXT, format!("{round} of {n}").as_bytes()).await;
        }
        for (n, client) in clients.iter_mut().enumerate() {
            client.expect(TEXT, format!("{round} of {n}").as_bytes()).await;
        }
    }
    let counted = told(&relay, "/app", "640 messages", |told| told["from_upstream"]["messages"] == 640).await;
    assert_eq!(counted["connections"]["open"], 64);
    assert_eq!(counted["upgrade"]["count"], 64);
}

#[tokio::test]
async fn a_connection_on_which_nothing_comes_is_closed() {
    for way in WAYS {
        let upstream = Upstream::start().await;
        let config = format!("[gateway]\nidle_timeout = \"300ms\"\n{}", app(upstream.address(), way));
        let relay = TestRelay::with_config(&config, &[]).await;
        let (mut client, mut peer) =
            tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.upgraded());
        assert_eq!(client.closed().await, 1001);
        let told = peer.frame().await.expect("the upstream is told too");
        assert_eq!((told.first, &told.payload[..2]), (CLOSE, &1001u16.to_be_bytes()[..]));
        peer.ended().await;
        drop((client, peer));
        ended(&relay, "gateway", "idle").await;
    }
}

#[tokio::test]
async fn a_ping_of_either_side_is_no_silence() {
    for way in WAYS {
        let upstream = Upstream::start().await;
        let config = format!("[gateway]\nidle_timeout = \"400ms\"\n{}", app(upstream.address(), way));
        let relay = TestRelay::with_config(&config, &[]).await;
        let (mut client, mut peer) =
            tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.upgraded());
        // The pace of those who ping: three times the idle time-out in all, on each side.
        let mut pace = interval(Duration::from_millis(100));
        for n in 0..12u8 {
            pace.tick().await;
            client.send(PING, &[n]).await;
            peer.expect(PING, &[n]).await;
        }
        for n in 0..12u8 {
            pace.tick().await;
            peer.send(PING, &[n]).await;
            client.expect(PING, &[n]).await;
        }
    }
}

#[tokio::test]
async fn a_stop_tells_both_sides_and_ends_in_time() {
    for way in WAYS {
        let echo = Echo::start().await;
        let upstream = Upstream::start().await;
        let config = format!(
            "{}[[route]]\npath = \"/manual\"\nupstreams = [\"ws://{}\"]\n{way}",
            app(echo.address(), way),
            upstream.address()
        );
        let mut relay = TestRelay::with_config(&config, &[]).await;
        let mut client = FrameClient::connect(relay.address(), "/app").await;
        say(&mut client, "x", "x").await;
        let (mut manual, mut peer) =
            tokio::join!(FrameClient::connect(relay.address(), "/manual"), upstream.upgraded());
        let talk = async {
            assert_eq!(client.closed().await, 1012);
            assert_eq!(manual.closed().await, 1012);
            assert_eq!(peer.frame().await.expect("a close").first, CLOSE);
            peer.send(CLOSE, &close(1001, "")).await;
            peer.finish().await;
            peer.ended().await;
        };
        let (finished, ()) = tokio::join!(relay.stop(), talk);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    }
}
