//! What an upstream is told of a client, and a client of an upstream.

use tests::{
    frames::FrameClient,
    relay::TestRelay,
    upstream::{Echo, TcpEcho, Upstream},
};

use super::{app, refused, relay_to};

#[tokio::test]
async fn host_is_that_of_the_client_that_of_the_upstream_or_another() {
    let echo = Echo::start().await;
    let upstream = echo.address().to_string();
    for (said, host) in [
        ("", None),
        ("host = \"pass\"", None),
        ("host = \"upstream\"", Some(upstream.as_str())),
        ("host = \"inner.example:8080\"", Some("inner.example:8080")),
    ] {
        let relay = relay_to(echo.address(), said).await;
        FrameClient::connect(relay.address(), "/app").await;
        assert_eq!(echo.last_head().values("host"), [host.unwrap_or(&relay.host())], "{said}");
    }
}

#[tokio::test]
async fn an_upstream_is_told_for_whom_it_is_asked_if_the_route_says_so() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), "forwarded = true\nhost = \"upstream\"").await;
    FrameClient::connect_with(relay.address(), "/app", "X-Forwarded-For: 203.0.113.7\r\n").await;
    let head = echo.last_head();
    assert_eq!(head.values("x-forwarded-for"), ["203.0.113.7, 127.0.0.1"]);
    assert_eq!(head.values("x-forwarded-proto"), ["http"]);
    assert_eq!(head.values("x-forwarded-host"), [relay.host()]);
}

#[tokio::test]
async fn headers_are_set_and_removed_as_the_route_says() {
    let echo = Echo::start().await;
    let keys = "set_headers = { \"X-Team\" = \"blue\", \"User-Agent\" = \"gateway\" }\n\
                remove_headers = [\"Cookie\", \"X-Secret\"]";
    let relay = relay_to(echo.address(), keys).await;
    let said = "Cookie: a=b\r\nX-Secret: 1\r\nX-Secret: 2\r\nX-Team: red\r\nUser-Agent: browser\r\nX-Kept: yes\r\n\
                Authorization: Bearer token\r\nAccept-Language: de, en\r\n";
    FrameClient::connect_with(relay.address(), "/app", said).await;
    let head = echo.last_head();
    for (name, values) in [
        ("cookie", &[][..]),
        ("x-secret", &[]),
        ("x-team", &["blue"]),
        ("user-agent", &["gateway"]),
        ("x-kept", &["yes"]),
        ("authorization", &["Bearer token"]),
        ("accept-language", &["de, en"]),
    ] {
        assert_eq!(head.values(name), values, "{name}");
    }
}

#[tokio::test]
async fn what_is_about_one_connection_alone_does_not_go_on() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), "").await;
    // The first of two Connection headers stands in every upgrade here.
    let said = "Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\n\
                Proxy-Authorization: Basic abc\r\nProxy-Connection: keep-alive\r\n";
    FrameClient::connect_with(relay.address(), "/app", said).await;
    let head = echo.last_head();
    for name in ["x-hop", "keep-alive", "te", "proxy-authorization", "proxy-connection"] {
        assert!(head.values(name).is_empty(), "{name}");
    }
    assert_eq!(head.values("connection").len(), 1);
    assert!(head.values("connection")[0].eq_ignore_ascii_case("upgrade"));
    assert_eq!(head.values("upgrade"), ["websocket"]);
}

#[tokio::test]
async fn an_upgrade_has_no_body_and_says_nothing_of_one() {
    let (echo, bytes) = (Echo::start().await, TcpEcho::start().await);
    let config = format!(
        "{}[[route]]\npath = \"/bytes\"\nupstreams = [\"tcp://{}\"]\n",
        app(echo.address(), ""),
        bytes.address()
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    for path in ["/app", "/bytes"] {
        for said in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
            let answer = refused(&relay, path, said).await;
            assert_eq!(
                (answer.status, answer.body.trim_end()),
                (400, "an upgrade has no body"),
                "{path} {said}"
            );
        }
    }
    assert!(echo.heads().is_empty(), "the upstream would take frames for it");
    FrameClient::connect_with(relay.address(), "/app", "Content-Length: 0\r\nExpect: 100-continue\r\n").await;
    for name in ["content-length", "transfer-encoding", "expect"] {
        assert!(echo.last_head().values(name).is_empty(), "{name}");
    }
}

#[tokio::test]
async fn key_version_extensions_and_origin_go_on_as_they_came() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), "").await;
    let said = "Origin: http://elsewhere.example\r\n\
                Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-other\r\n";
    FrameClient::connect_with(relay.address(), "/app", said).await;
    let head = echo.last_head();
    assert_eq!(head.values("sec-websocket-key"), ["dGhlIHNhbXBsZSBub25jZQ=="]);
    assert_eq!(head.values("sec-websocket-version"), ["13"]);
    assert_eq!(head.values("origin"), ["http://elsewhere.example"]);
    assert_eq!(
        head.values("sec-websocket-extensions"),
        ["permessage-deflate; client_max_window_bits, x-other"]
    );
}

#[tokio::test]
async fn of_subprotocols_only_those_of_the_route_go_on() {
    let echo = Echo::start().await;
    for (keys, offered, asked) in [
        ("", "one, two", &["one, two"][..]),
        ("subprotocols = [\"vnc\", \"binary\"]", "one, binary, two, vnc", &["binary, vnc"]),
        ("subprotocols = [\"vnc\"]", "one, two", &[]),
    ] {
        let relay = relay_to(echo.address(), keys).await;
        let said = format!("Sec-WebSocket-Protocol: {offered}\r\n");
        FrameClient::connect_with(relay.address(), "/app", &said).await;
        assert_eq!(echo.last_head().values("sec-websocket-protocol"), asked, "{keys}");
    }
}

#[tokio::test]
async fn what_the_upstream_chooses_and_says_is_what_the_client_gets() {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), "").await;
    let serve = async {
        let mut peer = upstream.request().await;
        let more = "Sec-WebSocket-Protocol: two\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
                    Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Server: inner\r\n";
        peer.write(peer.head.upgrade(more)).await;
        peer
    };
    let offered = "Sec-WebSocket-Protocol: one, two\r\n";
    let (client, _peer) = tokio::join!(FrameClient::connect_with(relay.address(), "/app", offered), serve);
    let head = client.head().to_ascii_lowercase();
    for line in [
        "sec-websocket-protocol: two",
        "sec-websocket-extensions: permessage-deflate",
        "set-cookie: a=1",
        "set-cookie: b=2",
        "x-server: inner",
    ] {
        assert!(head.lines().any(|said| said == line), "no {line} in {head}");
    }
}
