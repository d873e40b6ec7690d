//! Bodies of requests on their way to an upstream: how long they may take, and who is to blame when they do not come.

use std::time::Duration;

use tests::{
    http::{self, Answer},
    relay::TestRelay,
    sender,
    upstream::Upstream,
    within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::interval,
};

use super::{app, route};

/// A relay with these keys of `[gateway]`.
async fn relay_with(upstream: &Upstream, keys: &str) -> TestRelay {
    let config = format!("[gateway]\n{keys}\n{}", app(upstream.address(), "plain = \"pass\""));
    TestRelay::with_config(&config, &[]).await
}

/// A connection on which a request with a body in chunks has begun.
async fn begun(relay: &TestRelay, body: &str) -> TcpStream {
    let head = format!("POST /app HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n", relay.host());
    let mut client = sender::connect(relay.address()).await;
    client.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    client
}

/// The client is told with this status, and the upstream is not to blame.
async fn blamed_on_the_client(relay: &TestRelay, answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.body);
    let told = route(relay, "/app").await;
    assert_eq!(
        (&told["upstreams"][0]["failures"], &told["upstreams"][0]["resting"]),
        (&0.into(), &false.into())
    );
    assert_eq!(told["connections"]["refused"]["wrong"], 1);
}

#[tokio::test]
async fn a_body_that_comes_on_may_take_longer_than_the_answer() {
    let upstream = Upstream::start().await;
    let relay = relay_with(&upstream, "upgrade_timeout = \"200ms\"").await;
    let mut client = begun(&relay, "").await;
    let mut peer = upstream.request().await;
    let mut pace = interval(Duration::from_millis(50));
    for _ in 0..10 {
        pace.tick().await;
        client.write_all(b"1\r\nx\r\n").await.unwrap();
        assert_eq!(peer.bytes(6).await, b"1\r\nx\r\n");
    }
    client.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(peer.bytes(5).await, b"0\r\n\r\n");
    peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let answer = http::answer(&mut client, Vec::new()).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
}

#[tokio::test]
async fn an_answer_that_begins_early_rests_as_long_as_the_body_moves() {
    let upstream = Upstream::start().await;
    let relay = relay_with(&upstream, "idle_timeout = \"300ms\"").await;
    let mut client = begun(&relay, "1\r\nx\r\n").await;
    let mut peer = upstream.request().await;
    peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").await;
    let mut pace = interval(Duration::from_millis(50));
    for _ in 0..12 {
        pace.tick().await;
        client.write_all(b"1\r\nx\r\n").await.unwrap();
        assert_eq!(peer.bytes(6).await, b"1\r\nx\r\n");
    }
    peer.write("k").await;
    let answer = http::answer(&mut client, Vec::new()).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
}

#[tokio::test]
async fn the_answer_is_waited_for_from_the_end_of_the_body_on() {
    let upstream = Upstream::start().await;
    let relay = relay_with(&upstream, "upgrade_timeout = \"200ms\"").await;
    let mut client = begun(&relay, "1\r\nx\r\n0\r\n\r\n").await;
    let _peer = upstream.request().await;
    let answer = http::answer(&mut client, Vec::new()).await;
    assert_eq!(answer.status, 504, "{}", answer.body);
    assert!(answer.body.contains("did not answer within 200ms"), "{}", answer.body);
}

#[tokio::test]
async fn a_body_that_is_wrong_is_the_clients_fault() {
    let upstream = Upstream::start().await;
    let relay = relay_with(&upstream, "").await;
    let mut client = begun(&relay, "1\r\nx\r\nno length\r\n").await;
    upstream.request().await.ended().await;
    blamed_on_the_client(&relay, &http::answer(&mut client, Vec::new()).await, 400).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_on_is_the_clients_fault() {
    let upstream = Upstream::start().await;
    let relay = relay_with(&upstream, "idle_timeout = \"200ms\"").await;
    let mut client = begun(&relay, "1\r\nx\r\n").await;
    upstream.request().await.ended().await;
    blamed_on_the_client(&relay, &http::answer(&mut client, Vec::new()).await, 408).await;
}

#[tokio::test]
async fn a_client_that_vanishes_within_its_body_puts_no_upstream_to_rest() {
    let upstream = Upstream::start().await;
    let relay = relay_with(&upstream, "").await;
    let client = begun(&relay, "1\r\nx\r\n").await;
    let mut peer = upstream.request().await;
    drop(client);
    peer.ended().await;
    let told = route(&relay, "/app").await;
    assert_eq!(
        (&told["upstreams"][0]["failures"], &told["upstreams"][0]["resting"]),
        (&0.into(), &false.into())
    );
}

#[tokio::test]
async fn a_body_that_the_upstream_does_not_take_is_its_fault() {
    let upstream = Upstream::start().await;
    let relay = relay_with(&upstream, "idle_timeout = \"300ms\"").await;
    let mut client = sender::connect(relay.address()).await;
    let length = 64 << 20;
    let head = format!("POST /app HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n", relay.host());
    client.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = client.split();
    let (body, mut answer) = (vec![0; length], Vec::new());
    let ask = async { tokio::join!(write.write_all(&body), read.read_to_end(&mut answer)) };
    // The rest of the body is not read: the answer may end with a reset.
    let (_peer, _) = within("an answer", async { tokio::join!(upstream.request(), ask) }).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(answer.contains("did not take the request within 300ms"), "{answer}");
    assert_eq!(route(&relay, "/app").await["upstreams"][0]["failures"], 1);
}
