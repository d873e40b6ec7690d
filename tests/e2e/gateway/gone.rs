//! What a side said before it went comes to the other one, though that still says something that nobody takes.

use std::{
    net::{Shutdown, SocketAddr},
    time::Duration,
};

use serde_json::{Value, json};
use socket2::SockRef;
use tests::{
    frames::{FrameClient, frame},
    relay::TestRelay,
    upstream::{Upstream, reset, server_frame},
    within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixListener},
    time::interval,
};

use super::{BINARY, CLOSE, RULE, TEXT, close, ended, pressure::read_copies, route, told};

/// The ways through, with what their upstreams speak.
const WAYS: [(&str, &str); 4] = [("ws", ""), ("ws", RULE), ("tcp", ""), ("tcp", RULE)];

/// Bytes that a piece carries.
const PAYLOAD: usize = 16_000;

/// So much has come and is not read when the gateway reads no more: less than any system takes without that.
const LEFT: u64 = 32_000;

/// So often it has to be seen, for it may be about to read.
const LOOKS: u32 = 50;

/// A relay with a route to such an upstream, and both ends of a connection through it.
async fn connected(speaks: &str, way: &str) -> (TestRelay, FrameClient, TcpStream) {
    let upstream = Upstream::start().await;
    let config =
        format!("[[route]]\npath = \"/app\"\nupstreams = [\"{speaks}://{}\"]\n{way}\n", upstream.address());
    let relay = TestRelay::with_config(&config, &[]).await;
    let peer = async {
        match speaks {
            "ws" => upstream.upgraded().await.into_stream(),
            _ => upstream.connection().await,
        }
    };
    let (client, peer) = tokio::join!(FrameClient::connect(relay.address(), "/app"), peer);
    (relay, client, peer)
}

/// Whether all that was written to a socket has come to the other end's system, and its FIN if it was sent.
fn has_come(stream: &TcpStream, finished: bool) -> bool {
    /// It has sent its FIN, and that has been acknowledged.
    const FIN_WAIT_2: &str = "05";
    let is = |field: &str, address: SocketAddr| field.ends_with(&format!(":{:04X}", address.port()));
    let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("the kernel tells of its sockets");
    let mut sockets = sockets.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let socket = sockets.find(|fields| is(fields[1], local) && is(fields[2], remote)).expect("it is open");
    if finished { socket[3] == FIN_WAIT_2 } else { socket[4].starts_with("00000000:") }
}

/// Writes copies of a piece until the gateway does not read them any more, since the other end does not; then what is
/// last, and the FIN if it is to be `finished`. All of that has come to the gateway's system then. How many pieces it
/// were; `read` is how many bytes of them the gateway has read.
async fn say_all(
    relay: &TestRelay,
    from: &mut TcpStream,
    (piece, last): (&[u8], &[u8]),
    finished: bool,
    read: impl Fn(&Value) -> u64,
) -> u64 {
    // Nothing announces what the systems have passed on, and what the gateway leaves: looked at again at a pace.
    let mut pace = interval(Duration::from_millis(1));
    let mut pieces = 0;
    let mut has_left = 0;
    while has_left < LOOKS {
        let left = pieces * piece.len() as u64 - read(&route(relay, "/app").await);
        if left < LEFT {
            within("the gateway to read", from.write_all(piece)).await.unwrap();
            (pieces, has_left) = (pieces + 1, 0);
        } else {
            has_left += 1;
        }
        pace.tick().await;
    }
    from.write_all(last).await.unwrap();
    if finished {
        from.shutdown().await.unwrap();
    }
    let come = async {
        while !has_come(from, finished) {
            pace.tick().await;
        }
    };
    within("all of it to come to the gateway", come).await;
    pieces
}

/// Reads messages, of which that many bytes are payload from here on, and then a close with this code.
async fn read_to_close(client: &mut FrameClient, mut payload: u64, code: u16) {
    while payload > 0 {
        let frame = client.frame().await.unwrap_or_else(|| panic!("an end {payload} bytes too early"));
        assert_eq!(frame.first, BINARY, "{payload} bytes before the end: {:?}", &frame.payload[..4]);
        payload -= frame.payload.len() as u64;
    }
    assert_eq!(client.closed().await, code);
}

/// What an upstream writes, as pieces and at last.
fn said_by_upstream(speaks: &str) -> (Vec<u8>, Vec<u8>) {
    let payload = vec![b'x'; PAYLOAD];
    match speaks {
        "ws" => (server_frame(BINARY, &payload), server_frame(CLOSE, &close(4000, ""))),
        _ => (payload, Vec::new()),
    }
}

fn bytes_of_upstream(told: &Value) -> u64 {
    told["from_upstream"]["bytes"].as_u64().unwrap()
}

#[tokio::test]
async fn what_an_upstream_said_before_it_ended_comes_though_the_client_still_speaks() {
    for (speaks, way) in WAYS {
        let (relay, mut client, mut peer) = connected(speaks, way).await;
        let (piece, last) = said_by_upstream(speaks);
        let pieces = say_all(&relay, &mut peer, (&piece, &last), true, bytes_of_upstream).await;
        drop(peer);
        // The first of these is answered by a reset, so that the others can't be written.
        for n in 1..=3 {
            client.send(TEXT, b"still there?").await;
            let heard = |told: &Value| told["from_client"]["bytes"].as_u64() >= Some(n * 12);
            told(&relay, "/app", "what the client says", heard).await;
        }
        let code = if speaks == "ws" { 4000 } else { 1000 };
        read_to_close(&mut client, pieces * PAYLOAD as u64, code).await;
        drop(client);
        let counted = ended(&relay, "upstream", "closed").await;
        assert_eq!(counted["close_codes"][code.to_string()], 1);
        assert_eq!(bytes_of_upstream(&counted), pieces * piece.len() as u64 + last.len() as u64);
    }
}

#[tokio::test]
async fn an_upstream_that_resets_behind_what_it_said_is_1011_behind_that_though_the_client_still_speaks() {
    for (speaks, way) in WAYS {
        let (relay, mut client, mut peer) = connected(speaks, way).await;
        let (piece, _) = said_by_upstream(speaks);
        let pieces = say_all(&relay, &mut peer, (&piece, b""), false, bytes_of_upstream).await;
        reset(peer);
        client.send(TEXT, b"still there?").await;
        told(&relay, "/app", "what the client says", |told| told["from_client"]["messages"] == 1).await;
        read_to_close(&mut client, pieces * PAYLOAD as u64, 1011).await;
        drop(client);
        ended(&relay, "upstream", "failed").await;
    }
}

#[tokio::test]
async fn what_a_client_said_before_it_closed_comes_though_the_upstream_still_speaks() {
    for (speaks, way) in WAYS {
        let (relay, client, mut peer) = connected(speaks, way).await;
        let mut client = client.into_stream();
        let (piece, last) = (frame(BINARY, &[b'x'; PAYLOAD]), frame(CLOSE, &close(4000, "")));
        let read = |told: &Value| told["from_client"]["messages"].as_u64().unwrap() * piece.len() as u64;
        let pieces = say_all(&relay, &mut client, (&piece, &last), true, read).await;
        drop(client);
        let is_ws = speaks == "ws";
        let hello = if is_ws { server_frame(TEXT, b"still there?") } else { b"still there?".into() };
        for n in 1..=3 {
            peer.write_all(&hello).await.unwrap();
            let heard = |told: &Value| bytes_of_upstream(told) >= n * 12;
            told(&relay, "/app", "what the upstream says", heard).await;
        }
        let comes = if is_ws { &piece[..] } else { &[b'x'; PAYLOAD] };
        read_copies(&mut peer, comes, pieces * comes.len() as u64).await;
        let mut end = Vec::new();
        within("the gateway's end", peer.read_to_end(&mut end)).await.unwrap();
        assert_eq!(end, if is_ws { last } else { Vec::new() });
        drop(peer);
        let counted = ended(&relay, "client", "closed").await;
        assert_eq!(counted["close_codes"]["4000"], 1);
    }
}

#[tokio::test]
async fn a_client_that_speaks_to_an_upstream_that_takes_nothing_and_says_nothing_is_idle() {
    for (speaks, way) in [("ws+unix", ""), ("ws+unix", RULE), ("unix", ""), ("unix", RULE)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upstream.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let keys = format!("idle_timeout = \"200ms\"\n{way}\n[timeouts]\nclose = \"100ms\"");
        let config =
            format!("[[route]]\npath = \"/app\"\nupstreams = [\"{speaks}:{}\"]\n{keys}\n", path.display());
        let relay = TestRelay::with_config(&config, &[]).await;
        let accept = async {
            let (mut peer, _) = within("the gateway to connect", listener.accept()).await.unwrap();
            if speaks == "ws+unix" {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    within("a request", peer.read_buf(&mut head)).await.unwrap();
                }
                // The answer to the key of all clients here.
                let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
                peer.write_all(answer.as_bytes()).await.unwrap();
            }
            SockRef::from(&peer).shutdown(Shutdown::Read).unwrap();
            peer
        };
        let (mut client, _peer) = tokio::join!(FrameClient::connect(relay.address(), "/app"), accept);
        let mut pace = interval(Duration::from_millis(10));
        let speak = async {
            while route(&relay, "/app").await["ends"]["gateway"]["idle"] != 1 {
                client.send(TEXT, b"hello?").await;
                pace.tick().await;
            }
        };
        within("its end", speak).await;
        assert_eq!(client.closed().await, 1001);
    }
}

#[tokio::test]
async fn an_end_of_an_upstream_of_bytes_counts_as_its_own_though_a_rule_closes_then() {
    let rule = "[[route.rule]]\nmatches = \"DROP TABLE\"\naction = \"close\"\ncode = 4321\n";
    let (relay, mut client, mut peer) = connected("tcp", rule).await;
    peer.shutdown().await.unwrap();
    client.expect(CLOSE, &close(1000, "")).await;
    client.send(TEXT, b"DROP TABLE").await;
    assert_eq!(client.frame().await, None, "one close is enough");
    drop((client, peer));
    let counted = ended(&relay, "upstream", "closed").await;
    assert_eq!(counted["close_codes"], json!({ "1000": 1 }));
}
