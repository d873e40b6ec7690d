//! Rules on messages: what each does, to whose, and what is told of it.

use serde_json::{Value, json};
use tests::{
    frames::{FrameClient, frame},
    program::{Finished, Program},
    relay::{TestRelay, config_file},
    upstream::{Echo, TcpEcho, Upstream},
    within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

use super::{
    BINARY, CLOSE, TEXT, app,
    changes::{reload, until_routes},
    close, ended, relay_to, route, say, told,
};

/// A rule that replaces.
fn replace(name: &str, more: &str, matches: &str, with: &str) -> String {
    format!(
        "[[route.rule]]\nname = \"{name}\"\n{more}\nmatches = '{matches}'\naction = \"replace\"\nwith = '{with}'\n"
    )
}

/// A relay with a connection through it to an upstream.
async fn connected(rules: &str) -> (TestRelay, FrameClient, tests::upstream::Peer) {
    let upstream = Upstream::start().await;
    let relay = relay_to(upstream.address(), rules).await;
    let (client, peer) = tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.upgraded());
    (relay, client, peer)
}

#[tokio::test]
async fn messages_are_dropped_and_replaced_by_side_and_each_rule_tells_what_it_did() {
    let rules = replace("no secrets", "", r"token=(\w)\w*", "token=$1***")
        + "[[route.rule]]\nname = \"read only\"\nfrom = \"client\"\nmatches = \"^write \"\naction = \"drop\"\n"
        + "[[route.rule]]\nfrom = \"upstream\"\nkind = \"binary\"\naction = \"drop\"\n";
    let (relay, mut client, mut peer) = connected(&rules).await;
    for text in ["write it", "a token=secret!", "read it"] {
        client.send(TEXT, text.as_bytes()).await;
    }
    peer.expect(TEXT, b"a token=s***!").await;
    peer.expect(TEXT, b"read it").await;
    for (first, payload) in
        [(BINARY, &b"token=abc"[..]), (TEXT, b"write token=x token=yz"), (TEXT, "ü".as_bytes())]
    {
        peer.send(first, payload).await;
    }
    client.expect(TEXT, b"write token=x*** token=y***").await;
    client.expect(TEXT, "ü".as_bytes()).await;
    client.send(BINARY, b"\xfftoken=abc\xff").await;
    peer.expect(BINARY, b"\xfftoken=a***\xff").await;
    let told = route(&relay, "/app").await;
    let count = |messages: u64, bytes: u64| json!({ "messages": messages, "bytes": bytes });
    let rule = |name: &str, action: &str, client: Value, upstream: Value| json!({ "name": name, "action": action, "from_client": client, "from_upstream": upstream });
    let expected = json!([
        rule("no secrets", "replace", count(2, 15 + 11), count(2, 9 + 22)),
        rule("read only", "drop", count(1, 8), count(0, 0)),
        // What the first one made of it has three bytes more.
        rule("3", "drop", count(0, 0), count(1, 10)),
    ]);
    assert_eq!(told["rules"], expected);
    assert_eq!(told["from_client"]["messages"], 4, "what came counts, whatever became of it");
    let shown =
        Program::start("relay", ["routes", "--url", &format!("http://{}", relay.host())]).finish().await;
    assert!(
        shown.lines().contains(&"  rule no secrets, replace  2 from clients, 2 from upstreams".to_owned()),
        "{:?}",
        shown.lines()
    );
}

#[tokio::test]
async fn a_rule_closes_both_sides_with_its_code_and_words() {
    let rule = "[[route.rule]]\nmatches = \"DROP TABLE\"\naction = \"close\"\ncode = 4321\nreason = \"no such words\"\n";
    for from_client in [true, false] {
        let (relay, mut client, mut peer) = connected(rule).await;
        if from_client {
            client
                .send_bytes(
                    &[frame(TEXT, b"before"), frame(TEXT, b"; DROP TABLE"), frame(TEXT, b"x")].concat(),
                )
                .await;
            peer.expect(TEXT, b"before").await;
        } else {
            peer.send(TEXT, b"before").await;
            peer.send(TEXT, b"; DROP TABLE").await;
            client.expect(TEXT, b"before").await;
        }
        peer.expect(CLOSE, &close(4321, "no such words")).await;
        peer.send(CLOSE, &close(4321, "")).await;
        client.expect(CLOSE, &close(4321, "no such words")).await;
        drop((client, peer));
        let counted = ended(&relay, "gateway", "ruled").await;
        assert_eq!(counted["close_codes"]["4321"], 1);
    }
}

#[tokio::test]
async fn who_has_its_close_gets_no_other_from_a_rule_and_who_closed_first_counts() {
    let rule = "[[route.rule]]\nmatches = \"DROP TABLE\"\naction = \"close\"\ncode = 4321\nreason = \"no\"\n";
    for from_client in [true, false] {
        let (relay, mut client, mut peer) = connected(rule).await;
        let (side, code) = if from_client { ("client", "4000") } else { ("upstream", "4001") };
        if from_client {
            client.send(CLOSE, &close(4000, "")).await;
            peer.expect(CLOSE, &close(4000, "")).await;
            peer.send(TEXT, b"DROP TABLE").await;
            assert_eq!(peer.frame().await, None);
            client.expect(CLOSE, &close(4321, "no")).await;
        } else {
            peer.send(CLOSE, &close(4001, "")).await;
            client.expect(CLOSE, &close(4001, "")).await;
            client.send(TEXT, b"DROP TABLE").await;
            peer.expect(CLOSE, &close(4321, "no")).await;
            peer.finish().await;
            assert_eq!(client.frame().await, None);
        }
        drop((client, peer));
        let counted = ended(&relay, side, "closed").await;
        assert_eq!(counted["close_codes"], json!({ code: 1 }));
    }
}

#[tokio::test]
async fn what_is_over_a_rate_is_dropped_or_closes_with_4006() {
    let rate = "[[route.rule]]\nfrom = \"client\"\nmessages_per_second = 1\nburst_messages = 3\n";
    let (relay, mut client, mut peer) = connected(&format!("{rate}action = \"drop\"\n")).await;
    let burst: Vec<u8> = (0..10).flat_map(|n| frame(TEXT, &[b'0' + n])).collect();
    client.send_bytes(&burst).await;
    for n in [b'0', b'1', b'2'] {
        peer.expect(TEXT, &[n]).await;
    }
    // The other side has no such rate.
    for n in 0..10 {
        peer.send(TEXT, &[n]).await;
        client.expect(TEXT, &[n]).await;
    }
    told(&relay, "/app", "seven drops", |told| told["rules"][0]["from_client"]["messages"] == 7).await;

    let (relay, mut client, _peer) = connected(&format!("{rate}action = \"close\"\n")).await;
    client.send_bytes(&burst).await;
    client.expect(CLOSE, &close(4006, "too much at once")).await;
    drop(client);
    ended(&relay, "gateway", "ruled").await;

    let bytes = "[[route.rule]]\nbytes_per_second = 100\nburst_bytes = 150\naction = \"drop\"\n";
    let (_relay, mut client, mut peer) = connected(bytes).await;
    for (payload, passes) in [(&[b'a'; 100][..], true), (&[b'b'; 100], false), (&[b'c'; 20], true)] {
        client.send(BINARY, payload).await;
        if passes {
            peer.expect(BINARY, payload).await;
        }
    }
}

#[tokio::test]
async fn what_is_longer_is_dropped_or_closes_with_1009() {
    let long = "[[route.rule]]\nfrom = \"client\"\nlonger_than = 5\n";
    let (_relay, mut client, mut peer) = connected(&format!("{long}action = \"drop\"\n")).await;
    for text in ["123456", "12345"] {
        client.send(TEXT, text.as_bytes()).await;
    }
    peer.expect(TEXT, b"12345").await;
    let (_relay, mut client, mut peer) = connected(&format!("{long}action = \"close\"\n")).await;
    client.send(TEXT, b"123456").await;
    client.expect(CLOSE, &close(1009, "a message is too long")).await;
    peer.expect(CLOSE, &close(1009, "a message is too long")).await;
}

#[tokio::test]
async fn only_what_is_allowed_passes_where_the_last_rule_drops_the_rest() {
    let rules = "[[route.rule]]\nmatches = \"^(GET|HEAD) \"\naction = \"pass\"\n[[route.rule]]\nfrom = \"client\"\naction = \"drop\"\n";
    let (_relay, mut client, mut peer) = connected(rules).await;
    for text in ["DELETE x", "GET y"] {
        client.send(TEXT, text.as_bytes()).await;
    }
    peer.expect(TEXT, b"GET y").await;
}

#[tokio::test]
async fn a_message_in_which_replacing_would_take_the_square_of_its_length_closes_with_1008() {
    let (relay, mut client, mut peer) = connected(&replace("slow", "", ".*x|y", "z")).await;
    client.send(TEXT, "y".repeat(200_000).as_bytes()).await;
    let told = close(1008, "a rule would take too long with a message");
    peer.expect(CLOSE, &told).await;
    peer.send(CLOSE, &close(1008, "")).await;
    client.expect(CLOSE, &told).await;
    drop((client, peer));
    ended(&relay, "gateway", "ruled").await;
}

#[tokio::test]
async fn a_rule_that_makes_too_much_of_a_message_closes_with_1009() {
    let (relay, mut client, _peer) =
        connected(&format!("max_message = 100\n{}", replace("grow", "", "a", "aaaaaaaaaa"))).await;
    client.send(TEXT, &[b'a'; 11]).await;
    assert_eq!(client.closed().await, 1009);
    drop(client);
    ended(&relay, "gateway", "ruled").await;
}

#[tokio::test]
async fn rules_are_for_upstreams_of_bytes_too_in_the_messages_of_the_browser() {
    let upstream = Upstream::start().await;
    let rules = replace("no secrets", "", r"token=\w+", "token=***")
        + "[[route.rule]]\nfrom = \"upstream\"\nmatches = \"^#\"\naction = \"drop\"\n"
        + "[[route.rule]]\nfrom = \"client\"\nmatches = \"quit\"\naction = \"close\"\ncode = 4001\n";
    let config = format!(
        "[[route]]\npath = \"/app\"\nupstreams = [\"tcp://{}\"]\nframing = \"line\"\nframes = \"text\"\n{rules}",
        upstream.address()
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    let (mut client, mut peer) =
        tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.connection());
    // In fragments, with a ping between: the rule sees the message.
    client.send(0x1, b"tok").await;
    client.send(super::PING, b"p").await;
    client.send(0x80, b"en=abc\n").await;
    client.expect(super::PONG, b"p").await;
    let mut bytes = [0; 10];
    within("bytes of the gateway", peer.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"token=***\n");
    peer.write_all(b"# a comment\ntoken=1\nplain\n").await.unwrap();
    client.expect(TEXT, b"token=***").await;
    client.expect(TEXT, b"plain").await;
    client.send(TEXT, b"quit").await;
    assert_eq!(client.closed().await, 4001);
    assert_eq!(within("the end", peer.read(&mut [0])).await.unwrap(), 0);
    drop((client, peer));
    let counted = ended(&relay, "gateway", "ruled").await;
    assert_eq!(counted["from_client"], json!({ "messages": 2, "bytes": 14 }));
    assert_eq!(counted["rules"][1]["from_upstream"]["messages"], 1);
}

#[tokio::test]
async fn what_an_upstream_of_bytes_says_at_once_comes_in_messages_that_the_route_allows() {
    for frames in ["binary", "text"] {
        let upstream = Upstream::start().await;
        let config = format!(
            "[[route]]\npath = \"/app\"\nupstreams = [\"tcp://{}\"]\nframes = \"{frames}\"\nmax_message = 1000\n{}",
            upstream.address(),
            super::RULE
        );
        let relay = TestRelay::with_config(&config, &[]).await;
        let (mut client, mut peer) =
            tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.connection());
        let said = "€".repeat(20_000).into_bytes();
        peer.write_all(&said).await.unwrap();
        let mut came = Vec::new();
        while came.len() < said.len() {
            let frame = client.frame().await.expect("all of it before the end");
            assert!(frame.payload.len() <= 1000, "{} bytes", frame.payload.len());
            came.extend(frame.payload);
        }
        assert_eq!(came, said);
    }
}

#[tokio::test]
async fn a_client_of_bytes_that_breaks_the_protocol_or_says_too_much_gets_the_code_for_it() {
    let echo = TcpEcho::start().await;
    let route = format!(
        "[[route]]\npath = \"/app\"\nupstreams = [\"tcp://{}\"]\nmax_message = 100\n",
        echo.address()
    );
    for (bytes, code) in [
        (frame(TEXT, b"\xff"), 1007),
        (frame(BINARY, &[0; 101]), 1009),
        (frame(0x83, b""), 1002),
        (b"\x82\x01a".to_vec(), 1002),
    ] {
        let relay = TestRelay::with_config(&format!("{route}{}", super::RULE), &[]).await;
        let mut client = FrameClient::connect(relay.address(), "/app").await;
        client.send_bytes(&bytes).await;
        assert_eq!(client.closed().await, code);
        drop(client);
        ended(&relay, "client", "misbehaved").await;
    }
}

#[tokio::test]
async fn rules_change_for_new_connections_and_what_they_did_goes_on_by_name() {
    let echo = Echo::start().await;
    let config = |with: &str, marker: usize| {
        let marker =
            format!("[[route]]\npath = \"/marker{marker}\"\nupstreams = [\"ws://{}\"]\n", echo.address());
        marker + &app(echo.address(), &replace("swap", "from = \"client\"", "x", with))
    };
    let mut relay = TestRelay::with_config(&config("one", 0), &[]).await;
    let mut before = FrameClient::connect(relay.address(), "/app").await;
    say(&mut before, "x", "one").await;
    reload(&mut relay, &config("two", 1)).await;
    until_routes(&relay, &["/app", "/marker1"]).await;
    say(&mut FrameClient::connect(relay.address(), "/app").await, "x", "two").await;
    say(&mut before, "x", "one").await;
    let now = route(&relay, "/app").await;
    assert_eq!(now["rules"][0]["from_client"]["messages"], 3);
}

#[tokio::test]
async fn two_hundred_reloads_under_load_touch_no_connection_of_a_governed_route_that_stays() {
    const RELOADS: usize = 200;
    let echo = Echo::start().await;
    let rules = replace("swap", "from = \"client\"", "secret", "******") + "[route.tap]\n";
    let config = |n: usize| {
        let marker = replace("other", "", "a", &n.to_string());
        format!(
            "[gateway]\non_change = \"drain\"\n{}[[route]]\npath = \"/marker/{n}\"\nupstreams = [\"ws://{}\"]\n{marker}",
            app(echo.address(), &rules),
            echo.address()
        )
    };
    let mut relay = TestRelay::with_config(&config(0), &[]).await;
    let address = relay.address();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut load = JoinSet::new();
    for lasting in 0..8u64 {
        let stopped = stopped.clone();
        load.spawn(async move {
            let mut client = FrameClient::connect(address, "/app").await;
            let mut echoes = 0u64;
            while !*stopped.borrow() {
                say(
                    &mut client,
                    &format!("{lasting} secret {echoes}"),
                    &format!("{lasting} ****** {echoes}"),
                )
                .await;
                echoes += 1;
            }
            echoes
        });
    }
    for n in 1..=RELOADS {
        reload(&mut relay, &config(n)).await;
        until_routes(&relay, &["/app", &format!("/marker/{n}")]).await;
    }
    stop.send(true).unwrap();
    let mut echoes = 0;
    while let Some(of_one) = load.join_next().await {
        echoes += of_one.unwrap();
    }
    let counted = told(&relay, "/app", "no connection", |told| told["connections"]["open"] == 0).await;
    assert_eq!(counted["ends"]["gateway"], json!({}), "the gateway ended none");
    assert_eq!(counted["rules"][0]["from_client"]["messages"], echoes);
    assert_eq!(counted["tap"]["mirrored"], 2 * echoes);
}

async fn rules_test(args: &[&str], config: &str, input: &[u8]) -> Finished {
    let file = config_file(config);
    let path = file.path().to_str().unwrap();
    let all = ["rules", "test", path].into_iter().chain(args.iter().copied());
    let mut program = Program::start("relay", all);
    program.try_write(input).await;
    program.end_input();
    program.finish().await
}

#[tokio::test]
async fn rules_are_tried_from_the_command_line_with_exit_codes() {
    let route =
        |path: &str, rules: &str| format!("[[route]]\npath = \"{path}\"\nupstreams = \"ws://a:1\"\n{rules}");
    let swap = route("/one", &replace("swap", "from = \"upstream\"", "a", "b"));
    let drop = route("/two", "[[route.rule]]\naction = \"drop\"\n");
    let tried = rules_test(&["--from", "upstream"], &swap, b"abc\nxyz\n").await;
    assert_eq!(
        (tried.code, tried.lines()),
        (Some(0), vec!["replaced  bbc  by \"swap\"".into(), "passes    xyz".into()])
    );
    let tried = rules_test(&[], &swap, b"abc").await;
    assert_eq!((tried.code, tried.lines()), (Some(0), vec!["passes    abc".to_owned()]));
    let both = swap.clone() + &drop;
    let tried = rules_test(&["--route", "/two"], &both, b"\xff\n").await;
    assert_eq!((tried.code, tried.lines()), (Some(0), vec!["dropped   base64 /w==  by \"1\"".to_owned()]));
    for (args, config, says) in [
        (&[][..], both.as_str(), "say which route with --route PATH; rules have /one, /two"),
        (&["--route", "/three"], &both, "--route /three: there is no such route; rules have /one, /two"),
        (&[], "[[route]]\npath = 5\n", "`path` must be"),
    ] {
        let tried = rules_test(args, config, b"").await;
        assert_eq!(tried.code, Some(2));
        assert!(tried.stderr.contains(says), "{}", tried.stderr);
    }
    let tried = rules_test(&["--json"], &swap, b"no JSON\n").await;
    assert_eq!(tried.code, Some(1));
    assert!(tried.stderr.starts_with("error: line 1: not a message like"), "{}", tried.stderr);
}
