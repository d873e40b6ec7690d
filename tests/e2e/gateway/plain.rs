//! Requests of a route's path that are no upgrades: refused, or passed to the same upstream.

use std::time::Duration;

use tests::{
    http,
    relay::TestRelay,
    sender,
    upstream::{Echo, Peer, Upstream, refusing},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::interval,
};

use super::{app, relay_to, route, told};

#[tokio::test]
async fn plain_requests_go_to_the_upstream_where_the_route_says_so() {
    let echo = Echo::named("echo: ").await;
    let relay = relay_to(echo.address(), "plain = \"pass\"\nrewrite = \"/inner\"\nhost = \"upstream\"").await;
    let answer = http::get(relay.address(), "/app/x?y=1").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "echo: GET /inner/x?y=1 HTTP/1.1"));
    assert!(answer.head.to_ascii_lowercase().contains("x-upstream: yes"), "{}", answer.head);
    assert_eq!(echo.last_head().values("host"), [echo.address().to_string()]);
    let counted = route(&relay, "/app").await;
    assert_eq!((&counted["requests"], &counted["connections"]["total"]), (&1.into(), &0.into()));
}

#[tokio::test]
async fn bodies_pass_both_ways_whatever_their_length() {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), "plain = \"pass\"").await;
    let body: String = (0..50_000).map(|n| format!("{n},")).collect();
    let serve = async {
        let mut peer = upstream.request().await;
        assert_eq!(peer.head.line(), "PUT /app/upload HTTP/1.1");
        assert_eq!(peer.head.values("content-length"), [body.len().to_string()]);
        let came = peer.bytes(body.len()).await;
        assert!(came == body.as_bytes());
        // Without a length: its end is the end of the connection.
        peer.write("HTTP/1.1 201 Created\r\nConnection: close\r\n\r\n").await;
        peer.write(&came).await;
        peer.finish().await;
        peer.ended().await;
    };
    let request = format!(
        "PUT /app/upload HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        relay.host(),
        body.len()
    );
    let ask = async {
        let mut stream = sender::connect(relay.address()).await;
        let (mut read, mut write) = stream.split();
        let mut answer = Vec::new();
        let (sent, came) = tokio::join!(write.write_all(request.as_bytes()), read.read_to_end(&mut answer));
        sent.unwrap();
        came.unwrap();
        String::from_utf8(answer).unwrap()
    };
    let (answer, ()) = tests::within("an answer with a body", async { tokio::join!(ask, serve) }).await;
    let (head, chunked) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 201 "), "{head}");
    assert_eq!(unchunked(head, chunked), body);
}

#[tokio::test]
async fn a_body_in_chunks_goes_on_in_chunks_whatever_is_asked_and_said_beside_it() {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), "plain = \"pass\"").await;
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    for (method, more) in [("GET", ""), ("DELETE", ""), ("POST", ""), ("POST", "Content-Length: 3\r\n")] {
        let request = format!(
            "{method} /app HTTP/1.1\r\nHost: {}\r\n{more}Transfer-Encoding: chunked\r\n\r\n{chunks}",
            relay.host()
        );
        let serve = async {
            let mut peer = upstream.request().await;
            assert_eq!(peer.head.values("transfer-encoding"), ["chunked"], "{method} {more}");
            assert!(peer.head.values("content-length").is_empty(), "{method} {more}");
            assert_eq!(peer.bytes(chunks.len()).await, chunks.as_bytes(), "{method} {more}");
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            peer
        };
        let (answer, _peer) = tokio::join!(http::request(relay.address(), &request), serve);
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"), "{method} {more}");
    }
    let (answer, peer) = tokio::join!(http::get(relay.address(), "/app"), async {
        let mut peer = upstream.request().await;
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        peer
    });
    assert_eq!(answer.status, 200);
    assert!(peer.head.values("transfer-encoding").is_empty(), "there was no body");
}

/// A body without its chunks, if it has any.
fn unchunked(head: &str, body: &str) -> String {
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let (mut rest, mut whole) = (body, String::new());
    while let Some((length, behind)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("the length of a chunk");
        whole.push_str(&behind[..length]);
        rest = &behind[length + 2..];
    }
    whole
}

#[tokio::test]
async fn an_upstream_that_fails_a_plain_request_is_502_or_504() {
    let relay = relay_to(refusing(), "plain = \"pass\"").await;
    assert_eq!(http::get(relay.address(), "/app").await.status, 502);
    let upstream = Upstream::start().await;
    let config =
        format!("[gateway]\nupgrade_timeout = \"200ms\"\n{}", app(upstream.address(), "plain = \"pass\""));
    let relay = TestRelay::with_config(&config, &[]).await;
    let silent = async { upstream.request().await.ended().await };
    let (answer, ()) = tokio::join!(http::get(relay.address(), "/app"), silent);
    assert_eq!(answer.status, 504, "{}", answer.body);
}

/// A relay on which nothing may rest for long, and a client whose request for plain text has come to this upstream.
async fn asked(upstream: &Upstream) -> (TestRelay, TcpStream, Peer) {
    let config = format!(
        "[gateway]\nidle_timeout = \"300ms\"\n[timeouts]\nclose = \"100ms\"\n{}",
        app(upstream.address(), "plain = \"pass\"")
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    let mut client = sender::connect(relay.address()).await;
    let request = format!("GET /app HTTP/1.1\r\nHost: {}\r\n\r\n", relay.host());
    client.write_all(request.as_bytes()).await.unwrap();
    let peer = upstream.request().await;
    (relay, client, peer)
}

#[tokio::test]
async fn an_answer_that_the_client_does_not_read_holds_nothing_for_ever() {
    let upstream = Upstream::start().await;
    let (relay, _client, mut peer) = asked(&upstream).await;
    let length = 64 << 20;
    peer.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")).await;
    // Nobody takes all of it: its end is that of the connection.
    peer.write(vec![0; length]).await;
    peer.ended().await;
    let told = told(&relay, "/app", "no connection", |told| told["connections"]["open"] == 0).await;
    assert_eq!(told["upstreams"][0]["open"], 0);
}

#[tokio::test]
async fn an_answer_that_does_not_come_on_ends_with_the_connection() {
    let upstream = Upstream::start().await;
    let (_relay, mut client, mut peer) = asked(&upstream).await;
    peer.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha").await;
    let answer = http::answer(&mut client, Vec::new()).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ha"));
    peer.ended().await;
}

#[tokio::test]
async fn an_answer_may_take_as_long_as_it_moves() {
    let upstream = Upstream::start().await;
    let (_relay, mut client, mut peer) = asked(&upstream).await;
    let mut pace = interval(Duration::from_millis(50));
    let serve = async {
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n").await;
        for _ in 0..12 {
            pace.tick().await;
            peer.write("x").await;
        }
    };
    let (answer, ()) = tokio::join!(http::answer(&mut client, Vec::new()), serve);
    assert_eq!(answer.body, "x".repeat(12));
}

#[tokio::test]
async fn plain_requests_need_the_same_right_as_connections() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), "plain = \"pass\"\nallow = [\"10.0.0.0/8\"]").await;
    assert_eq!(http::get(relay.address(), "/app").await.status, 403);
    assert!(echo.heads().is_empty());
}

#[tokio::test]
async fn no_tunnel_leads_through_a_route() {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), "plain = \"pass\"").await;
    let request = format!("CONNECT http://{0}/app HTTP/1.1\r\nHost: {0}\r\n\r\n", relay.host());
    let answer = http::request(relay.address(), &request).await;
    assert_eq!(answer.status, 405, "{}", answer.body);
    assert!(answer.head.to_ascii_lowercase().contains("allow: get, "), "{}", answer.head);
}
