//! Routes whose messages are understood: what comes in whatever frames goes on as whole messages, and what is no message
//! ends the connection with the code that says so.

use tests::{
    frames::{FIN, FrameClient, frame, opcode},
    relay::TestRelay,
    upstream::{Echo, Peer, Upstream, server_frame},
};

use super::{
    BINARY, CLOSE, PING, PONG, RULE, TEXT, app, close, ended,
    pressure::{MOST, read_copies, write_until_held},
    refused, relay_to, route, say, told,
};

/// A relay with an upstream, and a connection through both; `more` are more keys of its governed route.
async fn connected(more: &str) -> (TestRelay, FrameClient, Peer) {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), &format!("{more}\n{RULE}")).await;
    let (client, peer) = tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.upgraded());
    (relay, client, peer)
}

#[tokio::test]
async fn fragments_come_as_one_frame_and_control_frames_where_they_stood() {
    let (relay, mut client, mut peer) = connected("").await;
    let parts = [
        (opcode::TEXT, "grü".as_bytes()),
        (PING, b"within"),
        (opcode::CONTINUATION, b"\xc3"),
        (PONG, b""),
        (FIN | opcode::CONTINUATION, b"\x9fe"),
    ];
    for (first, payload) in parts {
        client.send(first, payload).await;
        peer.send(first, payload).await;
    }
    peer.expect(PING, b"within").await;
    peer.expect(PONG, b"").await;
    peer.expect(TEXT, "grüße".as_bytes()).await;
    client.expect(PING, b"within").await;
    client.expect(PONG, b"").await;
    client.expect(TEXT, "grüße".as_bytes()).await;
    let counted = told(&relay, "/app", "a message", |told| told["from_upstream"]["messages"] == 1).await;
    let bytes = |frame: fn(u8, &[u8]) -> Vec<u8>| -> usize {
        parts.iter().map(|&(first, payload)| frame(first, payload).len()).sum()
    };
    assert_eq!(counted["from_client"]["messages"], 1);
    assert_eq!(counted["from_client"]["bytes"], bytes(frame), "what came counts, not what went on");
    assert_eq!(counted["from_upstream"]["bytes"], bytes(server_frame));
}

#[tokio::test]
async fn messages_of_every_size_come_as_they_are_in_pieces_of_every_size() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), RULE).await;
    let mut random = fastrand::Rng::with_seed(77);
    let mut client = FrameClient::connect(relay.address(), "/app").await;
    let lengths = [0, 1, 125, 126, 65_535, 65_536, 1 << 20].into_iter();
    for (round, length) in lengths.chain((0..30).map(|n| n * 2311)).enumerate() {
        let payload: Vec<u8> = (0..length).map(|_| random.alphanumeric() as u8).collect();
        let first = if round % 2 == 0 { TEXT } else { BINARY };
        let bytes = frame(first, &payload);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let most = if length > 70_000 { 50_000 } else { 5_000 };
            let (piece, behind) = rest.split_at(random.usize(1..=rest.len()).min(random.usize(1..most)));
            client.send_bytes(piece).await;
            rest = behind;
        }
        client.expect(first, &payload).await;
    }
}

#[tokio::test]
async fn many_small_messages_at_once_come_in_their_order() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), RULE).await;
    let mut client = FrameClient::connect(relay.address(), "/app").await;
    let burst: Vec<u8> = (0..5_000).flat_map(|n| frame(TEXT, format!("message {n}").as_bytes())).collect();
    client.send_bytes(&burst).await;
    for n in 0..5_000 {
        client.expect(TEXT, format!("message {n}").as_bytes()).await;
    }
}

#[tokio::test]
async fn many_connections_with_messages_beyond_a_read_do_not_mix_or_stand_still() {
    const CONNECTIONS: u8 = 16;
    const ECHOES: usize = 100;
    let echo = Echo::start().await;
    let config = format!("[limits]\nworkers = 1\n{}", app(echo.address(), RULE));
    let relay = TestRelay::with_config(&config, &[]).await;
    let address = relay.address();
    let mut load = tokio::task::JoinSet::new();
    for n in 0..CONNECTIONS {
        load.spawn(async move {
            let mut random = fastrand::Rng::with_seed(n.into());
            let mut client = FrameClient::connect(address, "/app").await;
            for _ in 0..ECHOES {
                let message = vec![b'a' + n; random.usize(60_000..300_000)];
                client.send(TEXT, &message).await;
                client.expect(TEXT, &message).await;
            }
        });
    }
    load.join_all().await;
}

#[tokio::test]
async fn extensions_are_not_offered_and_who_agrees_all_the_same_is_502() {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), RULE).await;
    let offered = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let agree = async {
        let mut peer = upstream.request().await;
        assert_eq!(peer.head.values("sec-websocket-extensions"), [""; 0]);
        peer.write(peer.head.upgrade("Sec-WebSocket-Extensions: permessage-deflate\r\n")).await;
    };
    let (answer, ()) = tokio::join!(refused(&relay, "/app", offered), agree);
    assert_eq!(answer.status, 502);
    assert!(answer.body.contains("agreed to an extension that it was not offered"), "{}", answer.body);
    let (client, _peer) =
        tokio::join!(FrameClient::connect_with(relay.address(), "/app", offered), upstream.upgraded());
    assert!(!client.head().to_ascii_lowercase().contains("sec-websocket-extensions"), "{}", client.head());
}

/// What must not be sent, as the first byte of a frame and its payload, with the code for it.
const WRONG: [(u8, &[u8], u16); 9] = [
    (FIN | 0x40 | opcode::TEXT, b"reserved", 1002),
    (FIN | 0x3, b"unknown", 1002),
    (FIN | opcode::CONTINUATION, b"of nothing", 1002),
    (opcode::PING, b"in fragments", 1002),
    (FIN | opcode::PING, &[0; 126], 1002),
    (CLOSE, &[3], 1002),
    (CLOSE, &[0x03, 0xed], 1002),
    (TEXT, b"\xffno text", 1007),
    (BINARY, &[7; 1001], 1009),
];

#[tokio::test]
async fn a_client_that_breaks_the_protocol_gets_the_code_for_it_and_the_upstream_1001() {
    for (first, payload, code) in WRONG {
        let (relay, mut client, mut peer) = connected("max_message = 1000").await;
        client.send(TEXT, b"before").await;
        client.send(first, payload).await;
        client.send(TEXT, b"behind").await;
        peer.expect(TEXT, b"before").await;
        let frame = peer.frame().await.expect("a close");
        assert_eq!((frame.first, &frame.payload[..2]), (CLOSE, &1001u16.to_be_bytes()[..]));
        // It still answers what came before, and then the close.
        peer.send(TEXT, b"an answer").await;
        peer.send(CLOSE, &close(1001, "")).await;
        client.expect(TEXT, b"an answer").await;
        assert_eq!(client.closed().await, code, "{first:x}");
        peer.finish().await;
        peer.ended().await;
        drop((client, peer));
        let counted = ended(&relay, "client", "misbehaved").await;
        assert_eq!(counted["close_codes"][code.to_string()], 1);
    }
    let (_relay, mut client, _peer) = connected("").await;
    client.send_bytes(b"\x81\x02ab").await;
    assert_eq!(client.closed().await, 1002, "a frame that is not masked");
}

#[tokio::test]
async fn an_upstream_that_breaks_the_protocol_gets_the_code_for_it_and_the_client_1011() {
    for (first, payload, code) in WRONG {
        let (relay, mut client, mut peer) = connected("max_message = 1000").await;
        peer.send(TEXT, b"before").await;
        peer.send(first, payload).await;
        peer.send(TEXT, b"behind").await;
        client.expect(TEXT, b"before").await;
        let frame = client.frame().await.expect("a close");
        assert_eq!((frame.first, &frame.payload[..2]), (CLOSE, &1011u16.to_be_bytes()[..]));
        assert!(frame.payload[2..].starts_with(b"from the upstream: "), "{:?}", frame.payload);
        let frame = peer.frame().await.expect("a close");
        assert_eq!((frame.first, &frame.payload[..2]), (CLOSE, &code.to_be_bytes()[..]));
        peer.finish().await;
        drop((client, peer));
        let counted = ended(&relay, "upstream", "misbehaved").await;
        assert_eq!(counted["close_codes"]["1011"], 1);
    }
    let (_relay, mut client, mut peer) = connected("").await;
    peer.write(frame(TEXT, b"masked")).await;
    assert_eq!(client.closed().await, 1011);
}

#[tokio::test]
async fn what_is_no_text_ends_it_before_its_message_is_whole() {
    let (_relay, mut client, _peer) = connected("").await;
    client.send(opcode::TEXT, b"so far, so good").await;
    client.send(opcode::CONTINUATION, b"\xf4\x90").await;
    assert_eq!(client.closed().await, 1007);
}

#[tokio::test]
async fn a_message_has_as_many_bytes_as_the_relay_allows_unless_the_route_says_so() {
    let upstream = Upstream::start().await;
    let config = format!("[limits]\nmax_message = 100\n{}", app(upstream.address(), RULE));
    let relay = TestRelay::with_config(&config, &[]).await;
    let (mut client, mut peer) =
        tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.upgraded());
    client.send(TEXT, &[b'x'; 100]).await;
    peer.expect(TEXT, &[b'x'; 100]).await;
    // Fragments count together; the sum is told by a header, without its payload.
    client.send(opcode::TEXT, &[b'x'; 60]).await;
    client.send_bytes(b"\x80\xa9\0\0\0\0").await;
    assert_eq!(client.closed().await, 1009);
}

#[tokio::test]
async fn a_message_that_is_not_whole_costs_what_has_come_of_it() {
    const CONNECTIONS: u64 = 40;
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), &format!("max_message = \"64MiB\"\n{RULE}")).await;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.upgraded()));
    }
    let before = relay.rss();
    // Each announces 64 MiB in one frame, and says a thousand bytes of it.
    let begun = [&b"\x82\xff\0\0\0\0\x04\0\0\0\0\0\0\0"[..], &[b'x'; 1000]].concat();
    for (client, _) in &mut connections {
        client.send_bytes(&begun).await;
    }
    let all = CONNECTIONS * begun.len() as u64;
    told(&relay, "/app", "what has come", |told| told["from_client"]["bytes"] == all).await;
    let grown = relay.rss().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes of memory for what is announced");
}

#[tokio::test]
async fn an_upstream_that_resets_in_a_message_is_1011_for_the_client() {
    // No half of a message has gone on, so that a close frame may stand there.
    let (relay, mut client, mut peer) = connected("").await;
    peer.write(b"\x82\x7e\x03\xe8ten bytes!").await;
    client.send(TEXT, b"x").await;
    peer.expect(TEXT, b"x").await;
    peer.reset();
    assert_eq!(client.closed().await, 1011);
    drop(client);
    ended(&relay, "upstream", "failed").await;
}

#[tokio::test]
async fn a_client_that_dies_in_a_message_ends_the_upstream_without_the_half_of_it() {
    let (relay, mut client, mut peer) = connected("").await;
    client.send(TEXT, b"whole").await;
    client.send_bytes(b"\x82\xfe\x03\xe8\x00\x00\x00\x00ten bytes!").await;
    peer.expect(TEXT, b"whole").await;
    drop(client);
    assert_eq!(peer.bytes(1).await, b"");
    drop(peer);
    ended(&relay, "client", "ended").await;
}

#[tokio::test]
async fn what_either_side_sends_at_once_is_understood_too() {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), RULE).await;
    let early = vec![b'e'; 300_000];
    let mut client = tests::sender::connect(relay.address()).await;
    let mut request = tests::http::upgrade_head(relay.address(), "/app", "").into_bytes();
    request.extend(frame(TEXT, b"right behind the request"));
    tokio::io::AsyncWriteExt::write_all(&mut client, &request).await.unwrap();
    let mut peer = upstream.request().await;
    let mut answer = peer.head.upgrade("").into_bytes();
    answer.extend(server_frame(opcode::BINARY, &early));
    answer.extend(server_frame(FIN | opcode::CONTINUATION, b"!"));
    peer.write(answer).await;
    let mut client = FrameClient::upgraded(client).await.unwrap();
    client.expect(BINARY, &[&early[..], b"!"].concat()).await;
    peer.expect(TEXT, b"right behind the request").await;
}

#[tokio::test]
async fn a_close_passes_with_its_code_and_its_words_and_nothing_behind_it() {
    let (_relay, mut client, mut peer) = connected("").await;
    client.send_bytes(&[frame(CLOSE, &close(4000, "grün")), frame(TEXT, b"late")].concat()).await;
    peer.expect(CLOSE, &close(4000, "grün")).await;
    peer.send(CLOSE, &close(4001, "too")).await;
    peer.finish().await;
    assert_eq!(client.closed().await, 4001);
    assert_eq!(peer.bytes(1).await, b"");
}

#[tokio::test]
async fn connections_of_other_routes_pass_as_they_are() {
    let echo = Echo::start().await;
    let upstream = Upstream::start().await;
    let config = format!(
        "{}[[route]]\npath = \"/plain\"\nupstreams = [\"ws://{}\"]\n",
        app(echo.address(), RULE),
        upstream.address()
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    let (mut plain, mut peer) =
        tokio::join!(FrameClient::connect(relay.address(), "/plain"), upstream.upgraded());
    plain.send(FIN | 0x40 | opcode::TEXT, b"\xff").await;
    peer.expect(FIN | 0x40 | opcode::TEXT, b"\xff").await;
    say(&mut FrameClient::connect(relay.address(), "/app").await, "x", "x").await;
    assert_eq!(route(&relay, "/plain").await["rules"], serde_json::json!([]));
}

#[tokio::test]
async fn what_rules_make_of_many_messages_at_once_is_bounded_too() {
    // Each byte becomes a thousand, and more of these messages fit one read than any memory holds of what they become.
    let rule =
        format!("[[route.rule]]\nmatches = \"x\"\naction = \"replace\"\nwith = \"{}\"\n", "y".repeat(1000));
    let (relay, client, peer) = connected(&rule).await;
    let (mut client, mut peer) = (client.into_stream(), peer.into_stream());
    let before = relay.rss();
    let one = server_frame(TEXT, &[b'x'; 500]);
    let taken = write_until_held(&mut peer, &one.repeat(128)).await;
    let grown = relay.peak_rss().saturating_sub(before);
    assert!(grown < MOST, "{grown} bytes of memory for what a rule makes");
    // It goes on when it is read, and nothing is missing.
    let became = server_frame(TEXT, &vec![b'y'; 500_000]);
    let count = taken / one.len() as u64 * became.len() as u64;
    read_copies(&mut client, &became, count).await;
}

#[tokio::test]
async fn messages_that_wait_for_what_rules_make_of_others_are_counted_too() {
    let rule =
        format!("[[route.rule]]\nmatches = \"x\"\naction = \"replace\"\nwith = \"{}\"\n", "y".repeat(1000));
    let (relay, mut client, mut peer) = connected(&rule).await;
    peer.write(server_frame(TEXT, &[b'x'; 500]).repeat(64)).await;
    for _ in 0..64 {
        client.expect(TEXT, &vec![b'y'; 500_000]).await;
    }
    told(&relay, "/app", "all messages", |told| told["from_upstream"]["messages"] == 64).await;
}

#[tokio::test]
async fn what_rules_make_of_the_bytes_of_an_upstream_is_bounded_too() {
    let upstream = Upstream::start().await;
    let rule = format!(
        "framing = \"line\"\n[[route.rule]]\nmatches = \"x\"\naction = \"replace\"\nwith = \"{}\"\n",
        "y".repeat(1000)
    );
    let config =
        format!("[[route]]\npath = \"/app\"\nupstreams = [\"tcp://{}\"]\n{rule}", upstream.address());
    let relay = TestRelay::with_config(&config, &[]).await;
    let (client, mut peer) =
        tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.connection());
    let mut client = client.into_stream();
    let before = relay.rss();
    let line = format!("{}\n", "x".repeat(499)).into_bytes();
    let taken = write_until_held(&mut peer, &line.repeat(128)).await;
    let grown = relay.peak_rss().saturating_sub(before);
    assert!(grown < MOST, "{grown} bytes of memory for what a rule makes");
    let became = server_frame(BINARY, &vec![b'y'; 499_000]);
    read_copies(&mut client, &became, taken / line.len() as u64 * became.len() as u64).await;
    // And of what a browser sends.
    let before = relay.peak_rss();
    let one = frame(TEXT, &[b'x'; 500]);
    let taken = write_until_held(&mut client, &one.repeat(128)).await;
    let grown = relay.peak_rss().saturating_sub(before);
    assert!(grown < MOST, "{grown} bytes of memory for what a rule makes");
    read_copies(&mut peer, &[b'y'; 1000], taken / one.len() as u64 * 500_000).await;
}

#[tokio::test]
async fn what_a_rule_makes_too_long_is_1009_for_both_whoever_said_it() {
    let rule = "max_message = 10\n[[route.rule]]\nmatches = \"x\"\naction = \"replace\"\nwith = \"yyy\"\n";
    let told = close(1009, "a rule made a message longer than is allowed here");
    for from_client in [true, false] {
        let (relay, mut client, mut peer) = connected(rule).await;
        if from_client {
            client.send(TEXT, b"xxxx").await;
            peer.expect(CLOSE, &told).await;
            peer.send(CLOSE, &close(1009, "")).await;
            peer.finish().await;
            client.expect(CLOSE, &told).await;
        } else {
            peer.send(TEXT, b"xxxx").await;
            client.expect(CLOSE, &told).await;
            peer.expect(CLOSE, &told).await;
        }
        drop((client, peer));
        ended(&relay, "gateway", "ruled").await;
    }
}
