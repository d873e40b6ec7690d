//! Who may use a route, and how many at once.

use std::net::{Ipv4Addr, SocketAddr};

use tests::{
    frames::FrameClient,
    http::{self, Answer},
    relay::TestRelay,
    sender,
    upstream::{Echo, Upstream},
    within,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

use super::{app, refused, relay_to, route, say, told};

/// Connects from another address of the loopback network.
async fn connect_from(from: [u8; 4], relay: &TestRelay) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::from(from), 0))).unwrap();
    within("a connection", socket.connect(relay.address())).await.unwrap()
}

async fn upgrade_from(from: [u8; 4], relay: &TestRelay) -> Result<FrameClient, Answer> {
    FrameClient::upgrade(connect_from(from, relay).await, relay.address(), "/app", "").await
}

#[tokio::test]
async fn networks_are_allowed_and_denied_and_denied_wins() {
    let echo = Echo::start().await;
    let keys = "allow = [\"127.0.1.0/24\", \"127.0.2.2\"]\ndeny = [\"127.0.1.128/25\"]";
    let relay = relay_to(echo.address(), keys).await;
    for from in [[127, 0, 1, 1], [127, 0, 1, 127], [127, 0, 2, 2]] {
        say(&mut upgrade_from(from, &relay).await.unwrap(), "x", "x").await;
    }
    for from in [[127, 0, 0, 1], [127, 0, 1, 128], [127, 0, 2, 3]] {
        let answer = upgrade_from(from, &relay).await.unwrap_err();
        assert_eq!(answer.status, 403, "{from:?}");
        assert!(answer.body.contains(&Ipv4Addr::from(from).to_string()), "{}", answer.body);
    }
    assert_eq!(echo.heads().len(), 3, "those who may not are no matter of the upstream");
    assert_eq!(route(&relay, "/app").await["connections"]["refused"]["denied"], 3);
}

#[tokio::test]
async fn origins_are_checked_here_where_the_route_says_which_and_passed_on() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), "origins = [\"https://example.com\"]").await;
    for origin in ["https://example.com", "HTTPS://EXAMPLE.COM"] {
        let said = format!("Origin: {origin}\r\n");
        FrameClient::connect_with(relay.address(), "/app", &said).await;
        assert_eq!(echo.last_head().values("origin"), [origin]);
    }
    // Who is no page has no origin.
    FrameClient::connect(relay.address(), "/app").await;
    for origin in ["https://example.com:444", "http://example.com", "https://example.com.evil", "null", ""] {
        let answer = refused(&relay, "/app", &format!("Origin: {origin}\r\n")).await;
        assert_eq!(answer.status, 403, "{origin}: {}", answer.body);
    }
    assert_eq!(echo.heads().len(), 3);
}

#[tokio::test]
async fn without_a_word_of_origins_the_upstream_decides() {
    let echo = Echo::start().await;
    for keys in ["", "origins = [\"*\"]"] {
        let relay = relay_to(echo.address(), keys).await;
        FrameClient::connect_with(relay.address(), "/app", "Origin: http://evil.example\r\n").await;
        assert_eq!(echo.last_head().values("origin"), ["http://evil.example"]);
    }
}

#[tokio::test]
async fn a_name_that_the_relay_does_not_go_by_reaches_no_upstream() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), "").await;
    let head = http::upgrade_head(relay.address(), "/app", "").replacen(&relay.host(), "evil.example", 1);
    assert_eq!(http::request(relay.address(), &head).await.status, 421);
    assert!(echo.heads().is_empty());
}

#[tokio::test]
async fn pages_from_elsewhere_do_not_see_the_routes() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), "").await;
    let request = |origin: &str| {
        format!("GET /api/v1/routes HTTP/1.1\r\nHost: {}\r\nOrigin: {origin}\r\n\r\n", relay.host())
    };
    assert_eq!(http::request(relay.address(), &request("http://evil.example")).await.status, 403);
    let own = format!("http://{}", relay.host());
    assert_eq!(http::request(relay.address(), &request(&own)).await.status, 200);
}

#[tokio::test]
async fn a_route_has_no_more_connections_than_it_may() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), "connections = 2").await;
    let mut first = FrameClient::connect(relay.address(), "/app").await;
    let mut second = FrameClient::connect(relay.address(), "/app").await;
    let answer = refused(&relay, "/app", "").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.head.to_ascii_lowercase().contains("retry-after:"), "{}", answer.head);
    let counted = route(&relay, "/app").await;
    assert_eq!(counted["connections"]["open"], 2);
    assert_eq!(counted["connections"]["refused"]["limit"], 1);
    say(&mut first, "1", "1").await;
    drop(first);
    told(&relay, "/app", "one connection", |told| told["connections"]["open"] == 1).await;
    say(&mut FrameClient::connect(relay.address(), "/app").await, "3", "3").await;
    say(&mut second, "2", "2").await;
}

#[tokio::test]
async fn what_is_no_connection_takes_a_place_of_the_route_until_it_is_answered() {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), "connections = 2\nplain = \"pass\"").await;
    let plain = format!("GET /app/plain HTTP/1.1\r\nHost: {}\r\n\r\n", relay.host());
    let upgrade = http::upgrade_head(relay.address(), "/app", "");
    let (mut clients, mut peers) = (Vec::new(), Vec::new());
    for request in [plain, upgrade] {
        let mut client = sender::connect(relay.address()).await;
        client.write_all(request.as_bytes()).await.unwrap();
        clients.push(client);
        peers.push(upstream.request().await);
    }
    // It is no upgrade, and not over.
    peers[1].write("HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno").await;
    told(&relay, "/app", "an answer", |told| told["connections"]["refused"]["answered"] == 1).await;
    assert_eq!(http::get(relay.address(), "/app").await.status, 503);
    assert_eq!(refused(&relay, "/app", "").await.status, 503);
    let counted = route(&relay, "/app").await;
    assert_eq!((&counted["connections"]["open"], &counted["connections"]["total"]), (&2.into(), &0.into()));
    assert_eq!(counted["connections"]["refused"]["limit"], 2);
    peers[0].write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    peers[1].write("!").await;
    told(&relay, "/app", "no connection", |told| told["connections"]["open"] == 0).await;
}

#[tokio::test]
async fn an_upstream_that_is_full_leaves_the_rest_to_the_next() {
    let (first, second) = (Echo::named("first:").await, Echo::named("second:").await);
    let config = format!(
        "[[route]]\npath = \"/app\"\nupstreams = [\"ws://{}\", \"ws://{}\"]\nupstream_connections = 1\n",
        first.address(),
        second.address()
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    let mut one = FrameClient::connect(relay.address(), "/app").await;
    say(&mut one, "x", "first:x").await;
    let mut two = FrameClient::connect(relay.address(), "/app").await;
    say(&mut two, "x", "second:x").await;
    let answer = refused(&relay, "/app", "").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    let counted = route(&relay, "/app").await;
    for upstream in [0, 1] {
        assert_eq!(counted["upstreams"][upstream]["open"], 1);
        assert_eq!(counted["upstreams"][upstream]["resting"], false, "being full is no failure");
    }
}

#[tokio::test]
async fn a_proxied_connection_is_two_of_those_that_the_relay_may_have() {
    let echo = Echo::start().await;
    let config = format!("[limits]\nconnections = 5\n{}", app(echo.address(), ""));
    let relay = TestRelay::with_config(&config, &[]).await;
    let mut first = FrameClient::connect(relay.address(), "/app").await;
    let mut second = FrameClient::connect(relay.address(), "/app").await;
    // The fifth is its client's own; there is none left for the upstream's side.
    let answer = refused(&relay, "/app", "").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    say(&mut first, "1", "1").await;
    say(&mut second, "2", "2").await;
}
