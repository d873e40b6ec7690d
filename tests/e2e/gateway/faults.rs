//! Upstreams and clients that are late, wrong or gone: each has its status or close code, is counted for what it did,
//! and leaves nothing open.

use std::time::Duration;

use tests::{
    frames::{FIN, FrameClient, opcode},
    http,
    relay::TestRelay,
    sender,
    upstream::{Echo, Upstream, deaf, refusing, reset},
    within,
};
use tokio::{io::AsyncWriteExt, time::interval};

use super::{BINARY, CLOSE, TEXT, WAYS, app, close, ended, refused, relay_to, route, say};

/// A relay with an upstream, and a connection through both.
async fn connected(way: &str) -> (TestRelay, FrameClient, tests::upstream::Peer) {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), way).await;
    let (client, peer) = tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.upgraded());
    (relay, client, peer)
}

/// What is counted of requests that were refused, but for what is 0.
async fn refusals(relay: &TestRelay) -> Vec<(String, u64)> {
    let counted = route(relay, "/app").await;
    assert_eq!(counted["connections"]["open"], 0);
    assert_eq!(counted["connections"]["total"], 0);
    assert_eq!(counted["upstreams"][0]["open"], 0);
    let refused = counted["connections"]["refused"].as_object().unwrap().clone();
    let refused = refused.into_iter().map(|(why, count)| (why, count.as_u64().unwrap()));
    refused.filter(|(_, count)| *count > 0).collect()
}

#[tokio::test]
async fn an_upstream_that_refuses_is_502() {
    let upstream = refusing();
    let relay = relay_to(upstream, "").await;
    let answer = refused(&relay, "/app", "").await;
    assert_eq!(
        (answer.status, answer.body),
        (502, format!("the upstream {upstream} refused the connection\n"))
    );
    assert_eq!(refusals(&relay).await, [("unreachable".into(), 1)]);
}

#[tokio::test]
async fn an_upstream_whose_name_is_unknown_is_502() {
    let config = "[[route]]\npath = \"/app\"\nupstreams = [\"ws://nobody.invalid:80\"]\n";
    let relay = TestRelay::with_config(config, &[]).await;
    let answer = refused(&relay, "/app", "").await;
    assert_eq!(answer.status, 502, "{}", answer.body);
    assert!(answer.body.contains("the upstream nobody.invalid:80 "), "{}", answer.body);
}

#[tokio::test]
async fn an_upstream_that_hangs_in_connect_is_504() {
    let upstream = deaf();
    let config = format!("[gateway]\nconnect_timeout = \"200ms\"\n{}", app(upstream.address(), ""));
    let relay = TestRelay::with_config(&config, &[]).await;
    let answer = refused(&relay, "/app", "").await;
    assert_eq!(answer.status, 504, "{}", answer.body);
    assert!(answer.body.starts_with(&format!("the upstream {} ", upstream.address())), "{}", answer.body);
    assert_eq!(refusals(&relay).await, [("timed_out".into(), 1)]);
}

#[tokio::test]
async fn an_upstream_that_hangs_in_the_upgrade_is_504() {
    let upstream = Upstream::start().await;
    let config = format!("[gateway]\nupgrade_timeout = \"200ms\"\n{}", app(upstream.address(), ""));
    let relay = TestRelay::with_config(&config, &[]).await;
    for begin in ["", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso"] {
        let hang = async {
            let mut peer = upstream.request().await;
            peer.write(begin).await;
            peer.ended().await;
        };
        let (answer, ()) = tokio::join!(refused(&relay, "/app", ""), hang);
        assert_eq!(answer.status, 504, "{}", answer.body);
        assert!(answer.body.contains(&upstream.address().to_string()), "{}", answer.body);
    }
    assert_eq!(refusals(&relay).await, [("timed_out".into(), 2)]);
}

#[tokio::test]
async fn another_answer_of_the_upstream_than_an_upgrade_goes_on_as_it_is() {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), "").await;
    let answer_404 = async {
        let mut peer = upstream.request().await;
        let answer = "HTTP/1.1 404 Nothing Here\r\nContent-Type: text/x-test\r\nX-Why: because\r\n\
                      Content-Length: 12\r\nConnection: close\r\nKeep-Alive: timeout=5\r\n\r\nnot an app!\n";
        peer.write(answer).await;
        peer.ended().await;
    };
    let (answer, ()) = tokio::join!(refused(&relay, "/app", ""), answer_404);
    assert_eq!((answer.status, answer.body.as_str()), (404, "not an app!\n"));
    let head = answer.head.to_ascii_lowercase();
    assert!(head.contains("content-type: text/x-test") && head.contains("x-why: because"), "{head}");
    assert!(!head.contains("keep-alive:"), "what is about the other connection stays there: {head}");
    assert_eq!(refusals(&relay).await, [("answered".into(), 1)]);
}

#[tokio::test]
async fn an_answer_that_is_no_http_or_no_right_upgrade_is_502() {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), "").await;
    let wrong = [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\x16\x03\x01\x00\x05hello",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    ];
    for answer in wrong {
        let garble = async { upstream.request().await.write(answer).await };
        let (refused, ()) = tokio::join!(refused(&relay, "/app", ""), garble);
        assert_eq!(refused.status, 502, "{answer:?}: {}", refused.body);
        assert!(refused.body.contains(&upstream.address().to_string()), "{}", refused.body);
    }
    assert_eq!(refusals(&relay).await, [("unreachable".into(), wrong.len() as u64)]);
}

#[tokio::test]
async fn an_upstream_that_ends_or_resets_instead_of_answering_is_502() {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), "").await;
    let (answer, ()) = tokio::join!(refused(&relay, "/app", ""), async { drop(upstream.request().await) });
    assert_eq!(answer.status, 502, "{}", answer.body);
    let (answer, ()) = tokio::join!(refused(&relay, "/app", ""), async { upstream.request().await.reset() });
    assert_eq!(answer.status, 502, "{}", answer.body);
    assert_eq!(refusals(&relay).await, [("unreachable".into(), 2)]);
}

#[tokio::test]
async fn a_client_that_goes_before_its_answer_leaves_nothing() {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), "").await;
    let mut client = sender::connect(relay.address()).await;
    client.write_all(http::upgrade_head(relay.address(), "/app", "").as_bytes()).await.unwrap();
    let mut peer = upstream.request().await;
    reset(client);
    // The gateway gives the upstream's connection up, at the latest with its answer.
    peer.write(peer.head.upgrade("")).await;
    peer.ended().await;
    super::told(&relay, "/app", "nothing open", |told| {
        told["connections"]["open"] == 0 && told["upstreams"][0]["open"] == 0
    })
    .await;
}

#[tokio::test]
async fn a_close_of_the_client_passes_and_is_counted_as_its_own() {
    for way in WAYS {
        let (relay, mut client, mut peer) = connected(way).await;
        client.send(CLOSE, &close(4321, "done here")).await;
        peer.expect(CLOSE, &close(4321, "done here")).await;
        peer.send(CLOSE, &close(4321, "")).await;
        peer.finish().await;
        assert_eq!(client.closed().await, 4321);
        peer.ended().await;
        let counted = ended(&relay, "client", "closed").await;
        assert_eq!(counted["close_codes"]["4321"], 1);
        assert_eq!(counted["life"]["count"], 1);
    }
}

#[tokio::test]
async fn a_close_of_the_upstream_passes_and_is_counted_as_its_own() {
    for way in WAYS {
        let (relay, mut client, mut peer) = connected(way).await;
        peer.send(CLOSE, &close(1001, "")).await;
        client.expect(CLOSE, &close(1001, "")).await;
        client.send(CLOSE, &close(1001, "")).await;
        peer.expect(CLOSE, &close(1001, "")).await;
        drop(peer);
        assert_eq!(client.frame().await, None);
        drop(client);
        let counted = ended(&relay, "upstream", "closed").await;
        assert_eq!(counted["close_codes"]["1001"], 1);
    }
}

#[tokio::test]
async fn an_upstream_that_dies_in_a_message_ends_the_client_without_a_false_end_of_it() {
    for way in WAYS {
        let (relay, mut client, mut peer) = connected(way).await;
        peer.send(TEXT, b"whole").await;
        // Of a frame of 1 000 bytes come ten.
        peer.write(b"\x82\x7e\x03\xe8ten bytes!").await;
        client.expect(TEXT, b"whole").await;
        drop(peer);
        assert_eq!(client.frame().await, None, "half a message is none, and no close frame stands in it");
        drop(client);
        let counted = ended(&relay, "upstream", "ended").await;
        assert_eq!(counted["from_upstream"]["messages"], 1);
    }
}

#[tokio::test]
async fn an_upstream_that_resets_is_1011_for_the_client() {
    for way in WAYS {
        let (relay, mut client, mut peer) = connected(way).await;
        peer.send(TEXT, b"before").await;
        client.expect(TEXT, b"before").await;
        peer.reset();
        assert_eq!(client.closed().await, 1011);
        drop(client);
        let counted = ended(&relay, "upstream", "failed").await;
        assert_eq!(counted["close_codes"]["1011"], 1);
    }
}

#[tokio::test]
async fn an_upstream_that_resets_after_the_clients_close_is_no_fault() {
    for way in WAYS {
        let (relay, mut client, mut peer) = connected(way).await;
        client.send(CLOSE, &close(1000, "")).await;
        peer.expect(CLOSE, &close(1000, "")).await;
        peer.reset();
        assert_eq!(client.frame().await, None, "what the upstream did not say is not said for it");
        drop(client);
        ended(&relay, "client", "closed").await;
    }
}

#[tokio::test]
async fn an_upstream_that_resets_in_a_message_ends_the_client_without_a_close() {
    let (relay, mut client, mut peer) = connected("").await;
    peer.write(b"\x82\x7e\x03\xe8ten bytes!").await;
    // What the client answers shows that the half of a message is there.
    client.send(TEXT, b"x").await;
    peer.expect(TEXT, b"x").await;
    peer.reset();
    assert_eq!(client.frame().await, None);
    drop(client);
    ended(&relay, "upstream", "failed").await;
}

#[tokio::test]
async fn a_client_that_resets_ends_the_upstream() {
    for way in WAYS {
        let (relay, client, mut peer) = connected(way).await;
        reset(client.into_stream());
        peer.ended().await;
        drop(peer);
        ended(&relay, "client", "failed").await;
    }
}

#[tokio::test]
async fn a_client_that_dies_in_a_message_ends_the_upstream_as_if_there_were_no_gateway() {
    let (relay, mut client, mut peer) = connected("").await;
    client.send(TEXT, b"whole").await;
    client.send_bytes(b"\x82\xfe\x03\xe8\x00\x00\x00\x00ten bytes!").await;
    peer.expect(TEXT, b"whole").await;
    assert_eq!(peer.bytes(18).await, b"\x82\xfe\x03\xe8\x00\x00\x00\x00ten bytes!");
    drop(client);
    assert_eq!(peer.bytes(1).await, b"");
    drop(peer);
    let counted = ended(&relay, "client", "ended").await;
    assert_eq!(counted["from_client"]["messages"], 1);
}

#[tokio::test]
async fn a_client_that_ends_its_side_still_gets_what_comes() {
    for way in WAYS {
        let (relay, mut client, mut peer) = connected(way).await;
        client.send(TEXT, b"the last of mine").await;
        client.finish().await;
        peer.expect(TEXT, b"the last of mine").await;
        assert_eq!(peer.bytes(1).await, b"", "its end has come");
        for n in 0..100u8 {
            peer.send(BINARY, &[n; 1000]).await;
            client.expect(BINARY, &[n; 1000]).await;
        }
        drop(peer);
        assert_eq!(client.frame().await, None);
        ended(&relay, "client", "ended").await;
    }
}

#[tokio::test]
async fn an_upstream_that_ends_its_side_still_gets_what_comes() {
    for way in WAYS {
        let (relay, mut client, mut peer) = connected(way).await;
        peer.send(TEXT, b"the last of mine").await;
        peer.finish().await;
        client.expect(TEXT, b"the last of mine").await;
        assert_eq!(client.frame().await, None, "its end has come");
        for n in 0..100u8 {
            client.send(BINARY, &[n; 1000]).await;
            peer.expect(BINARY, &[n; 1000]).await;
        }
        drop(client);
        assert_eq!(peer.bytes(1).await, b"");
        drop(peer);
        ended(&relay, "upstream", "ended").await;
    }
}

#[tokio::test]
async fn what_no_websocket_would_send_passes_and_harms_nobody() {
    let (relay, mut client, mut peer) = connected("").await;
    // Reserved bits and opcodes, a control frame of 200 bytes, an announced length with its highest bit: whose frames
    // they are may judge them.
    let strange =
        [&b"\xf3\x82\0\0\0\0ab\x8b\x80\0\0\0\0\x89\xfe\x00\xc8\0\0\0\0"[..], &[7; 200][..]].concat();
    let endless = b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0and so on";
    client.send_bytes(&strange).await;
    assert_eq!(peer.bytes(strange.len()).await, strange);
    client.send_bytes(endless).await;
    assert_eq!(peer.bytes(endless.len()).await, endless);
    drop(peer);
    drop(client);
    super::told(&relay, "/app", "nothing open", |told| told["connections"]["open"] == 0).await;
    assert_eq!(http::get(relay.address(), "/nothing").await.status, 404);
}

#[tokio::test]
async fn connections_that_ended_in_any_way_leave_no_descriptor() {
    for way in WAYS {
        let echo = Echo::start().await;
        let upstream = Upstream::start().await;
        let config = format!(
            "[gateway]\nupgrade_timeout = \"50ms\"\n{}[[route]]\npath = \"/other\"\nupstreams = [\"ws://{}\"]\n{way}\
             [[route]]\npath = \"/refusing\"\nupstreams = [\"ws://{}\"]\n",
            app(echo.address(), way),
            upstream.address(),
            refusing()
        );
        let relay = TestRelay::with_config(&config, &[]).await;
        let mut witness = FrameClient::connect(relay.address(), "/app").await;
        say(&mut witness, "warm", "warm").await;
        let before = relay.open_files();
        for _ in 0..20 {
            say(&mut FrameClient::connect(relay.address(), "/app").await, "x", "x").await;
            reset(FrameClient::connect(relay.address(), "/app").await.into_stream());
            let mut closing = FrameClient::connect(relay.address(), "/app").await;
            closing.send(CLOSE, &close(1000, "")).await;
            assert_eq!(closing.closed().await, 1000);
            assert_eq!(refused(&relay, "/refusing", "").await.status, 502);
            let (client, peer) =
                tokio::join!(FrameClient::connect(relay.address(), "/other"), upstream.upgraded());
            peer.reset();
            drop(client);
            let silent = async { upstream.request().await.ended().await };
            let (answer, ()) = tokio::join!(refused(&relay, "/other", ""), silent);
            assert_eq!(answer.status, 504);
        }
        // Ends are noticed one by one: looked at again at a pace.
        let mut pace = interval(Duration::from_millis(20));
        let closed = async {
            while relay.open_files() > before {
                pace.tick().await;
            }
        };
        within("the descriptors of ended connections to be closed", closed).await;
        say(&mut witness, "still here", "still here").await;
        let counted = route(&relay, "/app").await;
        assert_eq!(counted["connections"]["open"], 1);
        assert_eq!(counted["connections"]["total"], 61);
    }
}

#[tokio::test]
async fn what_is_no_handshake_is_not_taken_to_an_upstream_as_one() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), "").await;
    let host = relay.host();
    let plain = format!("GET /app HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let posted = format!(
        "POST /app HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"
    );
    for request in [plain, posted] {
        let answer = http::request(relay.address(), &request).await;
        assert_eq!(answer.status, 426, "{}", answer.body);
        assert!(answer.head.to_ascii_lowercase().contains("upgrade: websocket"), "{}", answer.head);
    }
    assert!(echo.heads().is_empty());
    assert_eq!(refusals(&relay).await, [("not_upgrade".into(), 2)]);
}

#[tokio::test]
async fn the_first_byte_of_a_control_frame_may_come_alone() {
    let (_relay, mut client, mut peer) = connected("").await;
    // One byte at a time, as the slowest of networks: each is passed on when it comes.
    for byte in [FIN | opcode::PING, 0x82, 0, 0, 0, 0, b'h', b'i'] {
        client.send_bytes(&[byte]).await;
        assert_eq!(peer.bytes(1).await, [byte]);
    }
}
