//! Rules on messages: what passes, what does not, what it becomes, and what both sides are told.

use serde_json::json;
use tests::{
    frames::{FIN, FrameClient, frame, opcode},
    relay::TestRelay,
    upstream::{Echo, Peer, Upstream, server_frame},
};
use tokio::io::AsyncWriteExt;

use super::{
    BINARY, CLOSE, PING, PONG, TEXT, app, close, ended,
    pressure::{MOST, PIECE, read_copies, write_until_held},
    relay_to, route, told,
};

/// A rule that is about nothing that is sent here.
pub(super) const IDLE_RULE: &str = "[[route.rule]]\nmatches = \"^nobody says this$\"\naction = \"drop\"\n";

/// A relay with a route that has these rules, and a connection through it.
async fn connected(rules: &str) -> (TestRelay, FrameClient, Peer) {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), rules).await;
    let (client, peer) = tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.upgraded());
    (relay, client, peer)
}

/// Ends a connection as sides that wish each other well do.
async fn part(mut client: FrameClient, mut peer: Peer) {
    client.send(CLOSE, &close(1000, "")).await;
    peer.expect(CLOSE, &close(1000, "")).await;
    peer.send(CLOSE, &close(1000, "")).await;
    peer.finish().await;
    assert_eq!(client.closed().await, 1000);
}

#[tokio::test]
async fn what_no_rule_is_about_passes_as_it_came() {
    let (relay, mut client, mut peer) = connected(IDLE_RULE).await;
    let mut random = fastrand::Rng::with_seed(1);
    for length in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
        let mut bytes = vec![0; length];
        random.fill(&mut bytes);
        let text: String = std::iter::repeat_with(|| random.char(..)).take(length / 4).collect();
        for (first, payload) in [(BINARY, bytes.as_slice()), (TEXT, text.as_bytes())] {
            tokio::join!(client.send(first, payload), peer.expect(first, payload));
            tokio::join!(peer.send(first, payload), client.expect(first, payload));
        }
    }
    // Messages in fragments go on whole; what came between them comes before.
    client.send(opcode::TEXT, b"in ").await;
    client.send(PING, b"p").await;
    client.send(opcode::CONTINUATION, b"frag").await;
    client.send(FIN | opcode::CONTINUATION, b"ments").await;
    peer.expect(PING, b"p").await;
    peer.expect(TEXT, b"in fragments").await;
    peer.send(PONG, b"p").await;
    client.expect(PONG, b"p").await;
    part(client, peer).await;
    let counted = ended(&relay, "client", "closed").await;
    assert_eq!(counted["from_client"]["messages"], 15);
    assert_eq!(counted["rules"][0]["from_client"], json!({ "messages": 0, "bytes": 0 }));
}

#[tokio::test]
async fn what_a_rule_drops_does_not_pass_and_is_counted() {
    let rules = "[[route.rule]]\nname = \"up\"\nfrom = \"client\"\nmatches = \"secret\"\naction = \"drop\"\n\
                 [[route.rule]]\nname = \"down\"\nfrom = \"upstream\"\nkind = \"binary\"\naction = \"drop\"\n";
    let (relay, mut client, mut peer) = connected(rules).await;
    for (first, payload) in [(TEXT, &b"a secret"[..]), (BINARY, b"secret\xff"), (TEXT, b"none")] {
        client.send(first, payload).await;
        peer.send(first, payload).await;
    }
    peer.expect(TEXT, b"none").await;
    client.expect(TEXT, b"a secret").await;
    client.expect(TEXT, b"none").await;
    part(client, peer).await;
    let counted = ended(&relay, "client", "closed").await;
    assert_eq!(
        counted["rules"],
        json!([
            {
                "name": "up", "action": "drop",
                "from_client": { "messages": 2, "bytes": 15 }, "from_upstream": { "messages": 0, "bytes": 0 },
            },
            {
                "name": "down", "action": "drop",
                "from_client": { "messages": 0, "bytes": 0 }, "from_upstream": { "messages": 1, "bytes": 7 },
            },
        ])
    );
    assert_eq!(counted["from_client"]["messages"], 3, "what came counts, whatever became of it");
}

#[tokio::test]
async fn what_matches_is_replaced_in_either_direction_and_text_stays_text() {
    let rules = "[[route.rule]]\nfrom = \"client\"\nmatches = \"(?<user>\\\\w+):\\\\w+@\"\naction = \"replace\"\nwith = \"${user}:***@\"\n\
                 [[route.rule]]\nfrom = \"upstream\"\nmatches = \"ü+\"\naction = \"replace\"\nwith = \"€\"\n";
    let (relay, mut client, mut peer) = connected(rules).await;
    client.send(TEXT, "grüße an anna:geheim@host, ben:x@host".as_bytes()).await;
    peer.expect(TEXT, "grüße an anna:***@host, ben:***@host".as_bytes()).await;
    peer.send(TEXT, "grüüün".as_bytes()).await;
    client.expect(TEXT, "gr€n".as_bytes()).await;
    let around = [&b"\xff"[..], "ü".as_bytes(), b"\xff"].concat();
    peer.send(BINARY, &around).await;
    client.expect(BINARY, &[&b"\xff"[..], "€".as_bytes(), b"\xff"].concat()).await;
    client.send(BINARY, b"").await;
    peer.expect(BINARY, b"").await;
    let told = route(&relay, "/app").await;
    assert_eq!(told["rules"][0]["from_client"]["messages"], 1);
    assert_eq!(told["rules"][1]["from_upstream"]["messages"], 2);
}

#[tokio::test]
async fn a_rule_closes_both_sides_and_what_came_before_is_answered() {
    let rules = "[[route.rule]]\nfrom = \"client\"\nmatches = \"quit\"\naction = \"close\"\ncode = 4001\nreason = \"not here\"\n";
    let (relay, mut client, mut peer) = connected(rules).await;
    let all = [frame(TEXT, b"before"), frame(TEXT, b"quit"), frame(TEXT, b"behind")].concat();
    client.send_bytes(&all).await;
    peer.expect(TEXT, b"before").await;
    peer.expect(CLOSE, &close(4001, "not here")).await;
    peer.send(TEXT, b"answer").await;
    peer.send(CLOSE, &close(4001, "")).await;
    peer.finish().await;
    client.expect(TEXT, b"answer").await;
    client.expect(CLOSE, &close(4001, "not here")).await;
    client.finish().await;
    assert_eq!(client.frame().await, None);
    drop((client, peer));
    let counted = ended(&relay, "gateway", "ruled").await;
    assert_eq!(counted["close_codes"]["4001"], 1);
    assert_eq!(counted["rules"][0]["from_client"], json!({ "messages": 1, "bytes": 4 }));
}

#[tokio::test]
async fn a_rule_closes_for_what_the_upstream_says() {
    let rules = "[[route.rule]]\nfrom = \"upstream\"\nlonger_than = 4\naction = \"close\"\n";
    let (relay, mut client, mut peer) = connected(rules).await;
    client.send(TEXT, b"long enough for a client").await;
    peer.expect(TEXT, b"long enough for a client").await;
    peer.send(TEXT, b"four").await;
    peer.send(TEXT, b"more!").await;
    client.expect(TEXT, b"four").await;
    client.expect(CLOSE, &close(1008, "a rule does not allow this")).await;
    peer.expect(CLOSE, &close(1008, "a rule does not allow this")).await;
    drop((client, peer));
    ended(&relay, "gateway", "ruled").await;
}

#[tokio::test]
async fn what_comes_too_fast_is_dropped_or_closes() {
    // The rate is so low that within the test nothing comes back.
    let rate = "messages_per_second = 1\nmessages_burst = 5\nbytes_per_second = 1\nbytes_burst = 20\n";
    let rules = format!("[[route.rule]]\nfrom = \"client\"\n{rate}action = \"drop\"\n");
    let (relay, mut client, mut peer) = connected(&rules).await;
    let mut all = frame(TEXT, b"123456789012345678901");
    (0..9).for_each(|n| all.extend(frame(TEXT, format!("{n}").as_bytes())));
    all.extend(frame(PING, b"end"));
    client.send_bytes(&all).await;
    for n in 0..5 {
        peer.expect(TEXT, format!("{n}").as_bytes()).await;
    }
    peer.expect(PING, b"end").await;
    assert_eq!(route(&relay, "/app").await["rules"][0]["from_client"], json!({ "messages": 5, "bytes": 25 }));

    let rules = format!("[[route.rule]]\nfrom = \"upstream\"\n{rate}action = \"close\"\ncode = 1013\n");
    let (relay, mut client, mut peer) = connected(&rules).await;
    for n in 0..6 {
        peer.send(TEXT, format!("{n}").as_bytes()).await;
    }
    for n in 0..5 {
        client.expect(TEXT, format!("{n}").as_bytes()).await;
    }
    assert_eq!(client.closed().await, 1013);
    drop((client, peer));
    ended(&relay, "gateway", "ruled").await;
}

#[tokio::test]
async fn a_message_longer_than_the_route_allows_is_1009_for_both() {
    let keys = format!("max_message = 1000\n{IDLE_RULE}");
    for fragments in [false, true] {
        let (relay, mut client, mut peer) = connected(&keys).await;
        client.send(BINARY, &[7; 1000]).await;
        peer.expect(BINARY, &[7; 1000]).await;
        if fragments {
            client.send(opcode::BINARY, &[7; 999]).await;
            client.send(opcode::CONTINUATION, &[7; 2]).await;
        } else {
            // The header alone tells it.
            client.send_bytes(&frame(BINARY, &[7; 1001])[..8]).await;
        }
        let told = peer.frame().await.expect("a close");
        assert_eq!((told.first, &told.payload[..2]), (CLOSE, &1001u16.to_be_bytes()[..]));
        peer.send(CLOSE, &close(1001, "")).await;
        peer.finish().await;
        assert_eq!(client.closed().await, 1009);
        drop((client, peer));
        let counted = ended(&relay, "client", "misbehaved").await;
        assert_eq!(counted["close_codes"]["1009"], 1);
    }
    let (relay, mut client, mut peer) = connected(&keys).await;
    peer.send(TEXT, &[b'x'; 1001]).await;
    assert_eq!(client.closed().await, 1009);
    let told = peer.frame().await.expect("a close");
    assert_eq!((told.first, &told.payload[..2]), (CLOSE, &1009u16.to_be_bytes()[..]));
    drop((client, peer));
    ended(&relay, "upstream", "misbehaved").await;
}

#[tokio::test]
async fn whoever_breaks_the_protocol_is_told_and_the_other_side_too() {
    for (wrong, code) in [
        (&b"\x82\x02ab"[..], 1002),
        (&frame(FIN | 0x40 | opcode::TEXT, b"reserved"), 1002),
        (&frame(FIN | opcode::CONTINUATION, b"of nothing"), 1002),
        (&frame(TEXT, b"\xc3\x28"), 1007),
        (&frame(CLOSE, &[3]), 1002),
    ] {
        let (relay, mut client, mut peer) = connected(IDLE_RULE).await;
        client.send(TEXT, b"right").await;
        client.send_bytes(wrong).await;
        peer.expect(TEXT, b"right").await;
        let told = peer.frame().await.expect("a close");
        assert_eq!((told.first, &told.payload[..2]), (CLOSE, &1001u16.to_be_bytes()[..]));
        peer.send(TEXT, b"an answer").await;
        peer.send(CLOSE, &close(1001, "")).await;
        client.expect(TEXT, b"an answer").await;
        assert_eq!(client.closed().await, code, "{wrong:?}");
        drop((client, peer));
        ended(&relay, "client", "misbehaved").await;
    }
    for (wrong, code) in [
        (&frame(TEXT, b"masked")[..], 1002),
        (&server_frame(FIN | 0x40 | opcode::TEXT, b"reserved"), 1002),
        (&server_frame(TEXT, b"\xff"), 1007),
    ] {
        let (relay, mut client, mut peer) = connected(IDLE_RULE).await;
        peer.write(wrong).await;
        assert_eq!(client.closed().await, 1011, "{wrong:?}");
        let told = peer.frame().await.expect("a close");
        assert_eq!(told.payload[..2], u16::to_be_bytes(code));
        drop((client, peer));
        ended(&relay, "upstream", "misbehaved").await;
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_does_not_keep_a_client_that_is_closed() {
    let upstream = Upstream::start().await;
    let rules = "[[route.rule]]\naction = \"close\"\n";
    let config = format!("[timeouts]\nclose = \"200ms\"\n{}", app(upstream.address(), rules));
    let relay = TestRelay::with_config(&config, &[]).await;
    let (mut client, mut peer) =
        tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.upgraded());
    client.send(TEXT, b"anything").await;
    assert_eq!(client.closed().await, 1008);
    assert_eq!(peer.frame().await.expect("a close").first, CLOSE);
    peer.ended().await;
    drop((client, peer));
    ended(&relay, "gateway", "ruled").await;
}

#[tokio::test]
async fn ends_are_as_without_rules() {
    // The end of the client's bytes, without a close frame.
    let (relay, mut client, mut peer) = connected(IDLE_RULE).await;
    client.send(TEXT, b"last").await;
    client.finish().await;
    peer.expect(TEXT, b"last").await;
    assert!(peer.frame().await.is_none());
    peer.send(TEXT, b"and an answer").await;
    client.expect(TEXT, b"and an answer").await;
    drop((client, peer));
    ended(&relay, "client", "ended").await;
    // A close of the upstream, with its code.
    let (relay, mut client, mut peer) = connected(IDLE_RULE).await;
    peer.send(CLOSE, &close(4007, "done")).await;
    client.expect(CLOSE, &close(4007, "done")).await;
    client.send(CLOSE, &close(4007, "")).await;
    peer.expect(CLOSE, &close(4007, "")).await;
    drop((client, peer));
    let counted = ended(&relay, "upstream", "closed").await;
    assert_eq!(counted["close_codes"]["4007"], 1);
    // A reset in the middle of a message.
    let (relay, mut client, mut peer) = connected(IDLE_RULE).await;
    peer.write(&server_frame(TEXT, b"whole")).await;
    client.expect(TEXT, b"whole").await;
    peer.write(&server_frame(TEXT, b"half of it")[..5]).await;
    peer.reset();
    client.expect(CLOSE, &close(1011, "the upstream's connection failed")).await;
    drop(client);
    ended(&relay, "upstream", "failed").await;
    // The relay stops.
    let (mut relay, mut client, mut peer) = connected(IDLE_RULE).await;
    client.send_bytes(&frame(TEXT, b"half of it")[..9]).await;
    let talk = async {
        assert_eq!(client.closed().await, 1012);
        peer.expect(CLOSE, &close(1001, "the relay is stopping: reconnect")).await;
        drop(peer);
    };
    let (finished, ()) = tokio::join!(relay.stop(), talk);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

#[tokio::test]
async fn extensions_are_not_offered_to_the_upstream() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), IDLE_RULE).await;
    let offered = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let mut client = FrameClient::connect_with(relay.address(), "/app", offered).await;
    assert_eq!(echo.last_head().values("sec-websocket-extensions"), Vec::<&str>::new());
    super::say(&mut client, "x", "x").await;
}

#[tokio::test]
async fn what_either_side_sends_at_once_is_judged_too() {
    let upstream = Upstream::start().await;
    let rules = "[[route.rule]]\nmatches = \"a\"\naction = \"replace\"\nwith = \"b\"\n";
    let relay = relay_to(upstream.address(), rules).await;
    let mut client = tests::sender::connect(relay.address()).await;
    let mut request = tests::http::upgrade_head(relay.address(), "/app", "").into_bytes();
    request.extend(frame(TEXT, b"a at once"));
    client.write_all(&request).await.unwrap();
    let mut peer = upstream.request().await;
    let mut answer = peer.head.upgrade("").into_bytes();
    answer.extend(server_frame(TEXT, b"a early"));
    peer.write(answer).await;
    let mut client = FrameClient::upgraded(client).await.unwrap();
    client.expect(TEXT, b"b ebrly").await;
    peer.expect(TEXT, b"b bt once").await;
}

#[tokio::test]
async fn a_side_that_does_not_read_holds_the_other_back_with_rules_too() {
    // Each message becomes twice as long: what is made here is held within bounds too.
    let rules = "[[route.rule]]\nmatches = \"x\"\naction = \"replace\"\nwith = \"yy\"\n";
    let (relay, client, peer) = connected(rules).await;
    let (mut client, mut peer) = (client.into_stream(), peer.into_stream());
    let (short, long) = (vec![b'x'; PIECE], vec![b'y'; 2 * PIECE]);
    let before = relay.rss();
    let (up, down) = (frame(TEXT, &short), server_frame(TEXT, &short));
    let taken_down = write_until_held(&mut peer, &down).await;
    let taken_up = write_until_held(&mut client, &up).await;
    let grown = relay.rss().saturating_sub(before);
    assert!(grown < MOST, "{grown} bytes of memory for sides that do not read");
    // It goes on when they read, and nothing is missing.
    let rest = down.len() - (taken_down % down.len() as u64) as usize;
    let tail = &down[down.len() - rest..];
    let whole = server_frame(TEXT, &long);
    let count = (taken_down + rest as u64) / down.len() as u64 * whole.len() as u64;
    let (written, ()) = tokio::join!(peer.write_all(tail), read_copies(&mut client, &whole, count));
    written.unwrap();
    let rest = up.len() - (taken_up % up.len() as u64) as usize;
    let tail = &up[up.len() - rest..];
    let whole = frame(TEXT, &long);
    let count = (taken_up + rest as u64) / up.len() as u64 * whole.len() as u64;
    let (written, ()) = tokio::join!(client.write_all(tail), read_copies(&mut peer, &whole, count));
    written.unwrap();
}

#[tokio::test]
async fn a_message_costs_no_more_memory_than_it_may_have() {
    const LENGTH: usize = 4 << 20;
    let keys = format!("max_message = {LENGTH}\n{IDLE_RULE}");
    let (relay, mut client, mut peer) = connected(&keys).await;
    let before = relay.rss();
    let message = vec![b'x'; LENGTH];
    for _ in 0..8 {
        tokio::join!(client.send(TEXT, &message), peer.expect(TEXT, &message));
        tokio::join!(peer.send(TEXT, &message), client.expect(TEXT, &message));
    }
    let grown = relay.peak_rss().saturating_sub(before);
    assert!(grown < 6 * LENGTH as u64, "{grown} bytes of memory for messages of {LENGTH}");
    told(&relay, "/app", "all messages", |told| told["from_upstream"]["messages"] == 8).await;
}
