//! Upstreams of bytes: a page's messages become bytes of a TCP server or a unix socket, and what that says becomes
//! messages.

use std::net::SocketAddr;

use tests::{
    frames::{FIN, FrameClient, frame, opcode},
    http,
    program::Signal,
    relay::TestRelay,
    upstream::{TcpEcho, Upstream, deaf, refusing, reset},
    within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixListener},
};

use super::{
    BINARY, CLOSE, PING, PONG, TEXT, WAYS,
    changes::reload,
    close, ended,
    pressure::{MOST, PIECE, read_copies, write_until_held},
    refused, told,
};

/// A relay with one route at `/app` to a TCP server; `more` are more keys of it.
async fn relay_to(upstream: SocketAddr, more: &str) -> TestRelay {
    TestRelay::with_config(&app(upstream, more), &[]).await
}

fn app(upstream: SocketAddr, more: &str) -> String {
    format!("[[route]]\npath = \"/app\"\nupstreams = [\"tcp://{upstream}\"]\n{more}\n")
}

/// A relay with an upstream of bytes, and a connection through both.
async fn connected(more: &str) -> (TestRelay, FrameClient, TcpStream) {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), more).await;
    let (client, peer) = tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.connection());
    (relay, client, peer)
}

async fn read(peer: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    within("bytes of the gateway", peer.read_exact(&mut bytes)).await.unwrap();
    assert!(bytes == expected, "other bytes than the {} that were sent", expected.len());
}

async fn read_end(peer: &mut TcpStream) {
    assert_eq!(within("the end", peer.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn payloads_go_as_bytes_and_bytes_come_as_binary_messages() {
    let (relay, mut client, mut peer) = connected("").await;
    client.send(TEXT, b"text, ").await;
    client.send(opcode::BINARY, b"frag").await;
    client.send(PING, b"within").await;
    client.send(FIN | opcode::CONTINUATION, b"ments").await;
    client.send(BINARY, b"").await;
    read(&mut peer, b"text, fragments").await;
    client.expect(PONG, b"within").await;
    peer.write_all(&[0, 0xff, b'x']).await.unwrap();
    client.expect(BINARY, &[0, 0xff, b'x']).await;
    let counted = told(&relay, "/app", "a message", |told| told["from_upstream"]["messages"] == 1).await;
    assert_eq!(counted["from_client"], serde_json::json!({ "messages": 3, "bytes": 15 }));
    assert_eq!(counted["from_upstream"]["bytes"], 3, "of bytes only they count, not what frames add");
}

#[tokio::test]
async fn an_upstream_may_speak_first() {
    let (_relay, mut client, mut peer) = connected("").await;
    peer.write_all(b"RFB 003.008\n").await.unwrap();
    client.expect(BINARY, b"RFB 003.008\n").await;
}

#[tokio::test]
async fn framings_of_raw_senders_make_messages() {
    for (framing, bytes, messages) in [
        ("line", &b"one\r\ntwo\n\nthree\n"[..], &[&b"one"[..], b"two", b"", b"three"][..]),
        ("null", b"one\0two\0", &[b"one", b"two"]),
        ("length:u16", b"\0\x03one\0\0\0\x02ab", &[b"one", b"", b"ab"]),
        ("fixed:4", b"onetwo__", &[b"onet", b"wo__"]),
        ("delimiter:7c", b"one|two|", &[b"one", b"two"]),
    ] {
        let (_relay, mut client, mut peer) = connected(&format!("framing = \"{framing}\"")).await;
        // In two pieces, so that a boundary is not what a read returns.
        let (begin, rest) = bytes.split_at(bytes.len() / 2 + 1);
        peer.write_all(begin).await.unwrap();
        peer.write_all(rest).await.unwrap();
        for message in messages {
            client.expect(BINARY, message).await;
        }
    }
}

#[tokio::test]
async fn what_is_left_without_its_boundary_is_told_at_the_end() {
    let (_relay, mut client, mut peer) = connected("framing = \"line\"\nframes = \"text\"").await;
    peer.write_all(b"whole\nand the rest").await.unwrap();
    client.expect(TEXT, b"whole").await;
    drop(peer);
    client.expect(TEXT, b"and the rest").await;
    assert_eq!(client.closed().await, 1000);
}

#[tokio::test]
async fn frames_are_text_where_the_bytes_are() {
    let (_relay, mut client, mut peer) = connected("frames = \"text\"").await;
    peer.write_all("grün".as_bytes()).await.unwrap();
    client.expect(TEXT, "grün".as_bytes()).await;
    // Half of a character waits for the rest of it.
    let euro = "€".as_bytes();
    peer.write_all(&[b"3 ", &euro[..2]].concat()).await.unwrap();
    client.expect(TEXT, b"3 ").await;
    peer.write_all(&euro[2..]).await.unwrap();
    client.expect(TEXT, euro).await;
    peer.write_all(b"\xff\xfe").await.unwrap();
    client.expect(BINARY, b"\xff\xfe").await;
}

#[tokio::test]
async fn a_subprotocol_of_the_route_is_chosen() {
    let echo = TcpEcho::start().await;
    let relay = relay_to(echo.address(), "subprotocols = [\"vnc\", \"binary\"]").await;
    let offered = "Sec-WebSocket-Protocol: other, binary\r\n";
    let client = FrameClient::connect_with(relay.address(), "/app", offered).await;
    assert!(
        client.head().to_ascii_lowercase().contains("sec-websocket-protocol: binary\r\n"),
        "{}",
        client.head()
    );
    let answer = refused(&relay, "/app", "Sec-WebSocket-Protocol: other\r\n").await;
    assert_eq!(answer.status, 400, "{}", answer.body);
}

#[tokio::test]
async fn pages_of_other_origins_reach_no_bytes_unless_they_are_allowed() {
    let echo = TcpEcho::start().await;
    let foreign = "Origin: http://elsewhere.example\r\n";
    let relay = relay_to(echo.address(), "").await;
    assert_eq!(refused(&relay, "/app", foreign).await.status, 403);
    let own = format!("Origin: http://{}\r\n", relay.host());
    FrameClient::connect_with(relay.address(), "/app", &own).await;
    FrameClient::connect(relay.address(), "/app").await;
    for keys in ["origins = [\"*\"]", "origins = [\"http://elsewhere.example\"]"] {
        let relay = relay_to(echo.address(), keys).await;
        FrameClient::connect_with(relay.address(), "/app", foreign).await;
    }
    let friends = format!("origins = [\"http://elsewhere.example\"]\n{}", app(echo.address(), ""));
    let relay = TestRelay::with_config(&friends, &[]).await;
    FrameClient::connect_with(relay.address(), "/app", foreign).await;
}

#[tokio::test]
async fn extensions_are_not_agreed_upon() {
    let echo = TcpEcho::start().await;
    let relay = relay_to(echo.address(), "").await;
    let offered = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let client = FrameClient::connect_with(relay.address(), "/app", offered).await;
    assert!(!client.head().to_ascii_lowercase().contains("sec-websocket-extensions"), "{}", client.head());
}

#[tokio::test]
async fn an_upstream_may_be_a_socket_in_the_file_system() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serial.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let config = format!("[[route]]\npath = \"/app\"\nupstreams = [\"unix:{}\"]\n", path.display());
    let relay = TestRelay::with_config(&config, &[]).await;
    let accept = within("a connection of the gateway", listener.accept());
    let (mut client, accepted) = tokio::join!(FrameClient::connect(relay.address(), "/app"), accept);
    let (mut peer, _) = accepted.unwrap();
    client.send(BINARY, b"there").await;
    let mut there = [0; 5];
    within("bytes", peer.read_exact(&mut there)).await.unwrap();
    assert_eq!(&there, b"there");
    peer.write_all(b"back").await.unwrap();
    client.expect(BINARY, b"back").await;
    drop(peer);
    assert_eq!(client.closed().await, 1000);
}

#[tokio::test]
async fn an_upstream_that_cannot_be_had_is_502_or_504_and_a_plain_request_426() {
    let relay = relay_to(refusing(), "").await;
    assert_eq!(refused(&relay, "/app", "").await.status, 502);
    assert_eq!(http::get(relay.address(), "/app").await.status, 426);
    let deaf = deaf();
    let config = format!("[gateway]\nconnect_timeout = \"200ms\"\n{}", app(deaf.address(), ""));
    let relay = TestRelay::with_config(&config, &[]).await;
    assert_eq!(refused(&relay, "/app", "").await.status, 504);
    let counted = super::route(&relay, "/app").await;
    assert_eq!((&counted["connections"]["open"], &counted["upstreams"][0]["open"]), (&0.into(), &0.into()));
}

#[tokio::test]
async fn a_wrong_handshake_is_refused_before_the_upstream_is_asked() {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), "").await;
    let head = http::upgrade_head(relay.address(), "/app", "");
    for (right, wrong, status) in [
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", 400..427),
        ("dGhlIHNhbXBsZSBub25jZQ==", "short", 400..401),
        ("Sec-WebSocket-Key", "X-Key", 400..401),
    ] {
        let answer = http::request(relay.address(), &head.replace(right, wrong)).await;
        assert!(status.contains(&answer.status), "{wrong}: {} {}", answer.status, answer.body);
    }
    assert_eq!(super::route(&relay, "/app").await["upstreams"][0]["total"], 0);
}

#[tokio::test]
async fn the_end_of_the_upstream_is_1000_and_what_still_comes_goes_on() {
    for way in WAYS {
        let (relay, mut client, mut peer) = connected(way).await;
        peer.write_all(b"goodbye").await.unwrap();
        peer.shutdown().await.unwrap();
        client.expect(BINARY, b"goodbye").await;
        client.expect(CLOSE, &close(1000, "")).await;
        client.send(BINARY, b"one thing more").await;
        client.send(CLOSE, &close(1000, "")).await;
        read(&mut peer, b"one thing more").await;
        read_end(&mut peer).await;
        assert_eq!(client.frame().await, None);
        drop((client, peer));
        let counted = ended(&relay, "upstream", "closed").await;
        assert_eq!(counted["close_codes"]["1000"], 1);
    }
}

#[tokio::test]
async fn a_close_of_the_client_ends_what_the_upstream_reads_and_its_last_words_come() {
    for way in WAYS {
        let (relay, mut client, mut peer) = connected(way).await;
        client.send(BINARY, b"quit").await;
        client.send(CLOSE, &close(4000, "enough")).await;
        read(&mut peer, b"quit").await;
        read_end(&mut peer).await;
        peer.write_all(b"last words").await.unwrap();
        drop(peer);
        client.expect(BINARY, b"last words").await;
        assert_eq!(client.closed().await, 4000);
        drop(client);
        let counted = ended(&relay, "client", "closed").await;
        assert_eq!(counted["close_codes"]["4000"], 1);
    }
}

#[tokio::test]
async fn an_upstream_that_resets_is_1011() {
    for way in WAYS {
        let (relay, mut client, peer) = connected(way).await;
        reset(peer);
        assert_eq!(client.closed().await, 1011);
        drop(client);
        ended(&relay, "upstream", "failed").await;
    }
}

#[tokio::test]
async fn an_upstream_that_loses_its_framing_is_1011_behind_what_was_whole() {
    let (relay, mut client, mut peer) = connected("framing = \"octet-count\"").await;
    peer.write_all(b"3 one5 whole3x garbage").await.unwrap();
    client.expect(BINARY, b"one").await;
    client.expect(BINARY, b"whole").await;
    assert_eq!(client.closed().await, 1011);
    drop((client, peer));
    ended(&relay, "upstream", "misbehaved").await;
}

#[tokio::test]
async fn a_client_that_resets_ends_the_upstream() {
    for way in WAYS {
        let (relay, client, mut peer) = connected(way).await;
        reset(client.into_stream());
        let _ = within("the end", peer.read(&mut [0])).await;
        drop(peer);
        ended(&relay, "client", "failed").await;
    }
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_closed_with_1002() {
    for wrong in [
        &b"\x82\x02ab"[..],
        &frame(FIN | 0x40 | opcode::TEXT, b"reserved"),
        &frame(FIN | 0x3, b"unknown"),
        &frame(FIN | opcode::CONTINUATION, b"of nothing"),
        &frame(opcode::PING, b"in fragments"),
        &frame(CLOSE, &[3]),
    ] {
        let (relay, mut client, mut peer) = connected("").await;
        // What was right goes on, though it comes together with what is wrong.
        client.send_bytes(&[&frame(BINARY, b"right"), wrong].concat()).await;
        assert_eq!(client.closed().await, 1002, "{wrong:?}");
        read(&mut peer, b"right").await;
        read_end(&mut peer).await;
        drop((client, peer));
        ended(&relay, "client", "misbehaved").await;
    }
}

#[tokio::test]
async fn silence_a_change_and_a_stop_end_it_with_their_codes() {
    for way in WAYS {
        let upstream = Upstream::start().await;
        let config = format!("[gateway]\nidle_timeout = \"200ms\"\n{}", app(upstream.address(), way));
        let relay = TestRelay::with_config(&config, &[]).await;
        let (mut client, _peer) =
            tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.connection());
        assert_eq!(client.closed().await, 1001);
        drop(client);
        ended(&relay, "gateway", "idle").await;

        let mut relay = relay_to(upstream.address(), &format!("on_change = \"drain\"\n{way}")).await;
        let (mut client, mut peer) =
            tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.connection());
        std::fs::write(relay.config().unwrap().path(), "").unwrap();
        relay.program().signal(Signal::Hup).await;
        assert_eq!(client.closed().await, 1012);
        read_end(&mut peer).await;

        let mut relay = relay_to(upstream.address(), way).await;
        let (mut client, _peer) =
            tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.connection());
        let (finished, code) = tokio::join!(relay.stop(), client.closed());
        assert_eq!((finished.code, code), (Some(0), 1012), "{}", finished.stderr);
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_upstream_back() {
    for way in WAYS {
        let (relay, client, mut peer) = connected(way).await;
        let before = relay.rss();
        let piece = vec![b'x'; PIECE];
        let taken = write_until_held(&mut peer, &piece).await;
        let grown = relay.rss().saturating_sub(before);
        assert!(grown < MOST, "{grown} bytes of memory for a client that does not read");
        drop(peer);
        let mut client = client;
        let mut came = 0;
        while let Some(frame) = client.frame().await {
            if frame.first == BINARY {
                assert!(frame.payload.iter().all(|&byte| byte == b'x'));
                came += frame.payload.len() as u64;
            }
        }
        assert_eq!(came, taken);
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_read_holds_the_client_back() {
    for way in WAYS {
        let (relay, client, mut peer) = connected(way).await;
        let mut client = client.into_stream();
        let before = relay.rss();
        let piece = frame(BINARY, &vec![b'x'; PIECE]);
        let taken = write_until_held(&mut client, &piece).await;
        let grown = relay.rss().saturating_sub(before);
        assert!(grown < MOST, "{grown} bytes of memory for an upstream that does not read");
        let rest = piece.len() - (taken % piece.len() as u64) as usize;
        let tail = &piece[piece.len() - rest..];
        let payloads = (taken + rest as u64) / piece.len() as u64 * PIECE as u64;
        let (written, ()) =
            tokio::join!(client.write_all(tail), read_copies(&mut peer, &[b'x'; PIECE], payloads));
        written.unwrap();
    }
}

#[tokio::test]
async fn what_the_gateway_has_of_a_client_comes_to_a_slow_upstream_though_the_gateway_ends_it() {
    for way in WAYS {
        let upstream = Upstream::start().await;
        let config = |more: &str| app(upstream.address(), &format!("on_change = \"drain\"\n{more}{way}"));
        let mut relay = TestRelay::with_config(&config(""), &[]).await;
        let (client, mut peer) =
            tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.connection());
        let mut client = client.into_stream();
        write_until_held(&mut client, &frame(BINARY, &vec![b'x'; PIECE])).await;
        reload(&mut relay, &config("connections = 10\n")).await;
        let mut said = Vec::new();
        within("the gateway's end", client.read_to_end(&mut said)).await.unwrap();
        assert_eq!(said[2..4], 1012u16.to_be_bytes());
        drop(client);
        let mut came = Vec::new();
        within("the upstream's end", peer.read_to_end(&mut came)).await.unwrap();
        drop(peer);
        let told = ended(&relay, "gateway", "changed").await;
        assert_eq!(told["from_client"]["bytes"], came.len());
    }
}
