//! Taps: what passes on a route is seen in a channel, and nobody who looks there can hold what passes.

use serde_json::{Value, json};
use tests::{
    frames::FrameClient,
    program::Program,
    receiver::{Dial, Receiver},
    relay::TestRelay,
    sender,
    upstream::{Echo, Upstream},
};
use tokio::io::AsyncWriteExt;

use super::{BINARY, PING, PONG, TEXT, app, relay_to, say, told};

/// The next message of a tap.
async fn next(tap: &mut Receiver) -> Value {
    serde_json::from_str(&tap.text().await).expect("a tap tells JSON")
}

/// A message of a tap without what differs each time; the time is looked at.
fn stripped(mut message: Value) -> Value {
    let time = message["time"].take().as_u64().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    assert!(now.abs_diff(time.into()) < 60_000_000, "{time} is not about now");
    message.as_object_mut().unwrap().remove("time");
    message
}

async fn tapped(relay: &TestRelay) -> Receiver {
    Receiver::connect(relay.address(), "/c/tap/app", None).await
}

#[tokio::test]
async fn recv_client_shows_what_passes_both_ways_with_whose_it_is() {
    let echo = Echo::named("echo:").await;
    let relay = relay_to(echo.address(), "[route.tap]\n").await;
    let args = ["--verbose", "--relay", &relay.host(), "--channel", "tap/app", "--count", "4"];
    let mut receiver = Program::start("recv-client", args);
    receiver.notes("connected to").await;
    let stream = sender::connect(relay.address()).await;
    let client_address = stream.local_addr().unwrap().to_string();
    let mut client = FrameClient::upgrade(stream, relay.address(), "/app", "").await.unwrap();
    say(&mut client, "grün \"1\"", "echo:grün \"1\"").await;
    client.send(PING, b"no message").await;
    client.expect(PONG, b"no message").await;
    client.send(BINARY, &[0, 255]).await;
    client.expect(BINARY, &[0, 255]).await;
    let shown = receiver.finish().await;
    assert_eq!(shown.code, Some(0));
    let told: Vec<Value> =
        shown.lines().iter().map(|line| stripped(serde_json::from_str(line).unwrap())).collect();
    let message = |from: &str, kind: &str, form: &str, data: &str| json!({ "route": "/app", "connection": 1, "client": client_address, "from": from, "kind": kind, form: data });
    let expected = [
        message("client", "text", "text", "grün \"1\""),
        message("upstream", "text", "text", "echo:grün \"1\""),
        message("client", "binary", "base64", "AP8="),
        message("upstream", "binary", "base64", "AP8="),
    ];
    assert_eq!(told, expected);
    let counted = super::route(&relay, "/app").await;
    assert_eq!(counted["tap"], json!({ "channel": "tap/app", "mirrored": 4, "dropped": 0 }));
}

#[tokio::test]
async fn what_rules_drop_is_not_mirrored_and_what_they_change_is_mirrored_as_it_goes_on() {
    let upstream = Upstream::start().await;
    let rules = "[route.tap]\n[[route.rule]]\nmatches = \"secret\"\naction = \"replace\"\nwith = \"***\"\n\
                 [[route.rule]]\nmatches = \"spam\"\naction = \"drop\"\n";
    let relay = relay_to(upstream.address(), rules).await;
    let mut tap = tapped(&relay).await;
    let (mut client, mut peer) =
        tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.upgraded());
    for text in ["spam", "a secret", "plain"] {
        client.send(TEXT, text.as_bytes()).await;
    }
    peer.expect(TEXT, b"a ***").await;
    assert_eq!(next(&mut tap).await["text"], "a ***");
    assert_eq!(next(&mut tap).await["text"], "plain");
}

#[tokio::test]
async fn a_tap_is_of_one_side_of_text_or_of_every_so_many_where_it_says_so() {
    for (keys, expected) in [
        ("from = \"upstream\"", &["upstream 0", "upstream 1", "upstream 2", "upstream 3"][..]),
        ("from = \"client\"\nkind = \"text\"", &["client 0", "client 2"]),
        ("from = \"client\"\nevery = 3", &["client 0", "client 3"]),
        ("kind = \"binary\"\nevery = 2", &["client 1", "client 3"]),
    ] {
        let echo = Echo::start().await;
        let relay = relay_to(echo.address(), &format!("[route.tap]\nchannel = \"watched\"\n{keys}\n")).await;
        let mut tap = Receiver::connect(relay.address(), "/c/watched", None).await;
        let mut client = FrameClient::connect(relay.address(), "/app").await;
        for n in 0..4u8 {
            let first = if n % 2 == 0 { TEXT } else { BINARY };
            client.send(first, &[b'0' + n]).await;
            client.expect(first, &[b'0' + n]).await;
        }
        for expected in expected {
            let message = next(&mut tap).await;
            let data = match &message["base64"] {
                Value::String(base64) => ["MA==", "MQ==", "Mg==", "Mw=="].iter().position(|n| n == base64),
                _ => message["text"].as_str().and_then(|text| text.parse().ok()),
            };
            let told = format!("{} {}", message["from"].as_str().unwrap(), data.unwrap());
            assert_eq!(told, *expected, "{keys}");
        }
        let counted = super::route(&relay, "/app").await;
        assert_eq!(counted["tap"]["mirrored"], expected.len(), "{keys}");
    }
}

#[tokio::test]
async fn upstreams_of_bytes_are_tapped_in_the_messages_of_the_browser() {
    let upstream = Upstream::start().await;
    let config = format!(
        "[[route]]\npath = \"/app\"\nupstreams = [\"tcp://{}\"]\nframing = \"line\"\nframes = \"text\"\n[route.tap]\n",
        upstream.address()
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    let mut tap = tapped(&relay).await;
    let (mut client, mut peer) =
        tokio::join!(FrameClient::connect(relay.address(), "/app"), upstream.connection());
    client.send(TEXT, b"hello").await;
    let message = stripped(next(&mut tap).await);
    assert_eq!((&message["from"], &message["text"]), (&"client".into(), &"hello".into()));
    peer.write_all(b"one\ntwo\n").await.unwrap();
    for text in ["one", "two"] {
        client.expect(TEXT, text.as_bytes()).await;
        let message = stripped(next(&mut tap).await);
        assert_eq!((&message["from"], &message["text"]), (&"upstream".into(), &text.into()));
    }
}

#[tokio::test]
async fn who_does_not_read_the_tap_holds_nothing_even_where_its_channel_blocks() {
    const MESSAGES: usize = 1000;
    let echo = Echo::start().await;
    let config = format!(
        "[[channel]]\npattern = \"tap/**\"\nhistory = \"1MiB\"\nlag = \"block\"\nblock_for = \"1h\"\n{}[route.tap]\n",
        app(echo.address(), "")
    );
    let relay = TestRelay::with_config(&config, &[]).await;
    let deaf = Dial { receive_buffer: Some(4096), ..Dial::new("/c/tap/app", None) };
    let _deaf = deaf.connect(relay.address()).await.unwrap();
    let mut client = FrameClient::connect(relay.address(), "/app").await;
    let before = relay.rss();
    let payload = vec![b'x'; 64 << 10];
    // Each echo has a deadline: 128 MB pass a tap of which a megabyte is kept and nothing is read.
    for _ in 0..MESSAGES {
        client.send(TEXT, &payload).await;
        client.expect(TEXT, &payload).await;
    }
    let grown = relay.rss().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes of memory for a tap that nobody reads");
    let counted = super::route(&relay, "/app").await;
    assert_eq!(counted["tap"], json!({ "channel": "tap/app", "mirrored": 2 * MESSAGES, "dropped": 0 }));
}

#[tokio::test]
async fn what_the_channel_does_not_take_is_dropped_and_counted_and_passes_all_the_same() {
    let echo = Echo::start().await;
    let config =
        format!("[limits]\nchannels = 1\nmax_message = 1000\n{}[route.tap]\n", app(echo.address(), ""));
    let relay = TestRelay::with_config(&config, &[]).await;
    let mut client = FrameClient::connect(relay.address(), "/app").await;
    // As JSON it is longer than a message may be.
    let long = "\u{1}".repeat(900);
    say(&mut client, &long, &long).await;
    told(&relay, "/app", "two drops", |told| told["tap"]["dropped"] == 2).await;
    // The only channel that there may be is another one.
    let mut other = Receiver::connect(relay.address(), "/c/other?publish", None).await;
    other.send("first").await;
    assert_eq!(other.text().await, "first");
    for n in 0..10 {
        say(&mut client, &n.to_string(), &n.to_string()).await;
    }
    let counted = told(&relay, "/app", "all drops", |told| told["tap"]["dropped"] == 22).await;
    assert_eq!(counted["tap"]["mirrored"], 0);
    assert_eq!(counted["from_upstream"]["messages"], 11);
}

#[tokio::test]
async fn a_store_that_commits_later_holds_nothing_and_loses_nothing_that_it_took() {
    const MESSAGES: u64 = 2_000;
    let echo = Echo::start().await;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let relay = TestRelay::with_config(&app(echo.address(), "[route.tap]\n"), &["--data", data]).await;
    let mut tap = tapped(&relay).await;
    let mut client = FrameClient::connect(relay.address(), "/app").await;
    for n in 0..MESSAGES {
        say(&mut client, &n.to_string(), &n.to_string()).await;
    }
    let counted = told(&relay, "/app", "all that was mirrored or dropped", |told| {
        let count = |key: &str| told["tap"][key].as_u64().unwrap_or_default();
        count("mirrored") + count("dropped") == 2 * MESSAGES
    })
    .await;
    for _ in 0..counted["tap"]["mirrored"].as_u64().unwrap() {
        assert_eq!(next(&mut tap).await["route"], "/app");
    }
}

#[tokio::test]
async fn what_a_tap_told_can_be_tried_against_other_rules() {
    let echo = Echo::start().await;
    let relay = relay_to(echo.address(), "[route.tap]\nfrom = \"client\"\n").await;
    let mut tap = tapped(&relay).await;
    let mut client = FrameClient::connect(relay.address(), "/app").await;
    let mut lines = String::new();
    for text in ["spam", "fine"] {
        say(&mut client, text, text).await;
        lines += &format!("{}\n", tap.text().await);
    }
    let file = tests::relay::config_file(&app(
        echo.address(),
        "[[route.rule]]\nmatches = \"spam\"\naction = \"drop\"\n",
    ));
    let mut tried = Program::start("relay", ["rules", "test", "--json", file.path().to_str().unwrap()]);
    tried.write(&lines).await;
    tried.end_input();
    let tried = tried.finish().await;
    let expected = [
        r#"{"verdict":"dropped","rules":["1"],"text":"spam"}"#,
        r#"{"verdict":"passes","rules":[],"text":"fine"}"#,
    ];
    assert_eq!((tried.code, tried.lines()), (Some(0), expected.map(str::to_owned).to_vec()));
}
