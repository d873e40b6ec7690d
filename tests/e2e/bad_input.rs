//! Bad input: every error of the terminal programs with its words and exit code, every refusal of the wire, and that
//! nobody else notices.

use serde_json::json;
use shared::{Kind, receiver::Subprotocol};
use tests::{
    http,
    program::{self, Finished, Program, Signal},
    receiver::{Receiver, position},
    relay::{TestRelay, config_file, lasting_port},
    sender::{FramedSender, RawSender},
};

/// Runs a program to its end, with this input.
async fn run(name: &str, args: &[&str], input: &[u8]) -> Finished {
    let mut program = Program::start(name, args);
    if !input.is_empty() {
        program.write(input).await;
    }
    program.finish().await
}

fn assert_fails(finished: &Finished, code: i32, stderr: &str) {
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(code), stderr));
}

#[tokio::test]
async fn no_relay_there_is_3_and_a_hint_for_both_clients() {
    let host = format!("127.0.0.1:{}", lasting_port());
    let expected = format!(
        "error: cannot reach a relay at {host}: connection refused\n  \
         hint: start one with `relay serve`, or choose another with --relay HOST:PORT\n"
    );
    assert_fails(&run("send-client", &["-c", "foo", "-r", &host, "-m", "x"], b"").await, 3, &expected);
    assert_fails(&run("recv-client", &["-c", "foo", "-r", &host], b"").await, 3, &expected);
}

#[tokio::test]
async fn an_address_in_use_is_1_and_a_hint() {
    let relay = TestRelay::start(&[]).await;
    let host = relay.host();
    let expected = format!(
        "error: cannot listen on {host}: address already in use\n  \
         hint: another relay may be running (`relay status`); choose another port with --listen 127.0.0.1:0\n"
    );
    let finished = run("relay", &["serve", "--listen", &host], b"").await;
    // `relay status` comes later: until then the hint does not name it.
    let expected_now = expected.replace(" (`relay status`)", "");
    assert_eq!((finished.code, finished.stdout.as_slice()), (Some(1), &b""[..]));
    assert!([expected, expected_now].contains(&finished.stderr), "{}", finished.stderr);
}

#[tokio::test]
async fn a_bad_name_is_2_with_its_position_and_an_example() {
    let expected = "error: invalid value 'my channel' for '--channel': a space is not allowed at position 3\n  \
                    channel names use letters, digits and _ - . ~ : in segments separated by /, for example sensors/kitchen\n";
    for client in ["send-client", "recv-client"] {
        assert_fails(&run(client, &["--channel", "my channel"], b"").await, 2, expected);
    }
}

#[tokio::test]
async fn wrong_usage_is_2() {
    for (name, args) in [
        ("relay", &["serve", "--lisen", "127.0.0.1:0"][..]),
        ("relay", &["serve", "--tls-dev"]),
        ("relay", &["serve", "--max-message", "big"]),
        ("relay", &[]),
        ("send-client", &[]),
        ("send-client", &["-c", "foo", "--spool", "x", "--no-ack"]),
        ("send-client", &["-c", "foo", "--level", "replicated", "-m", "x"]),
        ("send-client", &["-c", "foo", "-r", "tls://127.0.0.1", "-m", "x"]),
        ("recv-client", &["-c", "foo", "--since", "yesterday"]),
        ("recv-client", &["-c", "foo", "--count", "0"]),
        ("recv-client", &["-c", "foo", "--token-file", "x"]),
    ] {
        let finished = run(name, args, b"").await;
        assert_eq!(finished.code, Some(2), "{name} {args:?}: {}", finished.stderr);
        assert_eq!(finished.stdout, b"", "{name} {args:?}");
        assert_ne!(finished.stderr, "", "{name} {args:?}");
    }
}

#[tokio::test]
async fn a_level_that_the_relay_can_not_give_is_told_before_anything_is_sent() {
    let relay = TestRelay::start(&[]).await;
    let finished =
        run("send-client", &["-c", "foo", "-r", &relay.host(), "--level", "fsynced", "-m", "x"], b"").await;
    assert!(finished.stderr.starts_with("error: --level can't be had: "), "{}", finished.stderr);
    assert_eq!(finished.code, Some(1));
}

#[tokio::test]
async fn listening_for_others_needs_to_be_said() {
    let finished = run("relay", &["serve", "--listen", "0.0.0.0:0"], b"").await;
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    assert!(
        finished.stderr.starts_with("error: ") && finished.stderr.contains("--open"),
        "{}",
        finished.stderr
    );
    let mut relay = TestRelay::start(&["--listen", "0.0.0.0:0", "--open"]).await;
    assert_eq!(relay.stop().await.code, Some(0));
}

#[tokio::test]
async fn every_mistake_of_a_configuration_is_told_at_once_with_its_place() {
    let file =
        config_file("[limits]\nconnections = 5\nmax_mesage = \"1MiB\"\n\n[timeouts]\nping = \"soon\"\n");
    let path = file.path().to_string_lossy().into_owned();
    let expected = format!(
        "error: {path}:3:1: unknown key `max_mesage` in [limits]\n  \
         3 | max_mesage = \"1MiB\"\n    | ^^^^^^^^^^ did you mean `max_message`?\n"
    );
    for args in [&["check", &path][..], &["serve", "--config", &path]] {
        let finished = run("relay", args, b"").await;
        assert_eq!(finished.code, Some(2), "{args:?}");
        assert!(finished.stderr.starts_with(&expected), "{}", finished.stderr);
        assert!(finished.stderr.contains(&format!("error: {path}:6:8: ")), "{}", finished.stderr);
    }
}

#[tokio::test]
async fn the_example_is_a_configuration_without_mistakes_and_without_effect() {
    let example = run("relay", &["config", "example"], b"").await;
    assert_eq!(example.code, Some(0));
    let file = config_file(&String::from_utf8(example.stdout).unwrap());
    let path = file.path().to_string_lossy().into_owned();
    let checked = run("relay", &["check", &path], b"").await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let with = run("relay", &["serve", "--config", &path, "--print-config"], b"").await;
    let without = run("relay", &["serve", "--print-config"], b"").await;
    assert_eq!((with.code, without.code), (Some(0), Some(0)));
    assert_eq!(String::from_utf8(with.stdout), String::from_utf8(without.stdout));
}

#[tokio::test]
async fn a_message_too_large_is_5_and_what_came_before_is_sent() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::connect(relay.address(), "/c/foo", None).await;
    let input = [b"one\ntwo\n".to_vec(), vec![b'x'; 2 << 20], b"\nfour\n".to_vec()].concat();
    let mut program = Program::start("send-client", ["-c", "foo", "-r", &relay.host()]);
    program.write(input).await;
    let finished = program.finish().await;
    let expected = "error: message 3 is 2.0 MiB, the relay accepts at most 1 MiB; 2 messages were sent\n  \
                    hint: send it in pieces with --split 512KiB, or raise max_message on the relay\n";
    assert_eq!(finished.code, Some(5));
    assert!(finished.stderr.ends_with(expected), "{}", finished.stderr);
    assert_eq!(receiver.texts(2).await, ["one", "two"]);
}

#[tokio::test]
async fn a_gap_is_a_warning_and_with_strict_6() {
    let relay = TestRelay::start(&["--history", "64KiB"]).await;
    let mut receiver = Receiver::json(relay.address(), "foo", "").await;
    let hello = receiver.hello().await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    for n in 1..=200 {
        sender.publish_all(1, n, &[format!("{n} {}", "x".repeat(1000))]).await;
    }
    let since = position(&hello, receiver.envelope().await.seq).to_string();
    let args = ["-c", "foo", "-r", &relay.host(), "--since", &since, "-n", "1"];
    let lenient = run("recv-client", &args, b"").await;
    assert_eq!(lenient.code, Some(0), "{}", lenient.stderr);
    let told = lenient.stderr.lines().find(|line| line.starts_with("warning: gap on foo: "));
    assert!(told.is_some_and(|line| line.contains(" missing")), "{}", lenient.stderr);
    let strict = run("recv-client", &[&args[..], &["--strict"]].concat(), b"").await;
    assert_eq!(strict.code, Some(6), "{}", strict.stderr);
}

#[tokio::test]
async fn a_lost_connection_with_no_reconnect_is_6() {
    let mut relay = TestRelay::restartable(&[]).await;
    let host = relay.host();
    let mut receiver = Program::start("recv-client", ["-v", "-c", "foo", "-r", &host, "--no-reconnect"]);
    receiver.notes("connected to").await;
    let mut sender = Program::start("send-client", ["-c", "foo", "-r", &host, "--no-reconnect"]);
    sender.write("one\n").await;
    receiver.says("one\n").await;
    relay.kill().await;
    assert_eq!(receiver.ended().await.code, Some(6));
    // Its input is still open: it ends because the relay is gone.
    assert_eq!(sender.ended().await.code, Some(6));
}

#[tokio::test]
async fn a_timeout_is_124_and_signals_are_130_and_143() {
    let relay = TestRelay::start(&[]).await;
    let host = relay.host();
    let timed = run("recv-client", &["-c", "foo", "-r", &host, "--timeout", "50ms"], b"").await;
    assert_eq!(timed.code, Some(124), "{}", timed.stderr);
    let passed = run("recv-client", &["-c", "foo", "-r", &host, "--for", "50ms"], b"").await;
    assert_eq!(passed.code, Some(0), "{}", passed.stderr);
    for (signal, code) in [(Signal::Int, 130), (Signal::Term, 143)] {
        let mut receiver = Program::start("recv-client", ["-v", "-c", "foo", "-r", &host]);
        receiver.notes("connected to").await;
        receiver.signal(signal).await;
        assert_eq!(receiver.ended().await.code, Some(code));

        let mut seen = Receiver::connect(relay.address(), "/c/bar", None).await;
        let mut sender = Program::start("send-client", ["-c", "bar", "-r", &host]);
        sender.write("on its way\n").await;
        assert_eq!(seen.text().await, "on its way");
        sender.signal(signal).await;
        assert_eq!(sender.ended().await.code, Some(code));
    }
}

#[tokio::test]
async fn a_closed_stdout_is_a_quiet_end() {
    let relay = TestRelay::start(&[]).await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    let texts: Vec<String> =
        (0..20_000).map(|n| format!("a line that makes a pipe full at some time {n}")).collect();
    sender.publish_all(1, 1, &texts).await;
    let client = program::command("recv-client");
    let client = client.as_std().get_program().to_owned();
    let mut pipe = tokio::process::Command::new("sh");
    pipe.arg("-c").arg("{ \"$0\" \"$@\"; echo $? >&2; } | head -n 1").arg(client);
    pipe.args(["-c", "foo", "-r", &relay.host(), "--since", "earliest"]);
    let finished = Program::spawn("recv-client | head", pipe).finish().await;
    assert_eq!((finished.lines(), finished.stderr.as_str()), (vec![texts[0].clone()], "0\n"));
}

#[tokio::test]
async fn a_message_too_large_closes_its_receiver_with_1009_and_disturbs_no_other() {
    let relay = TestRelay::start(&["--max-message", "64KiB"]).await;
    let mut other = Receiver::json(relay.address(), "foo", "").await;
    for form in [None, Some(Subprotocol::Json)] {
        let mut large = Receiver::connect(relay.address(), "/c/foo?publish", form).await;
        large.send("x".repeat(200 << 10)).await;
        assert_eq!(large.close_code().await, 1009, "{form:?}");
    }
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    sender.publish_all(1, 1, &["undisturbed"]).await;
    assert_eq!(other.text().await, "undisturbed");
}

#[tokio::test]
async fn a_message_of_very_many_fragments_closes_its_receiver() {
    let relay = TestRelay::start(&[]).await;
    let mut client = tests::frames::FrameClient::connect(relay.address(), "/c/foo?publish").await;
    client.send(tests::frames::opcode::TEXT, b"").await;
    let empty = tests::frames::frame(tests::frames::opcode::CONTINUATION, b"");
    client.send_bytes(&empty.repeat(10_000)).await;
    assert!([1008, 1009].contains(&client.closed().await));
}

#[tokio::test]
async fn what_the_port_is_not_for_is_closed_and_never_becomes_a_message() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::json(relay.address(), "**", "").await;
    receiver.hello().await;
    receiver.control("live").await;
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        b"\x16\x03\x01\x00\x05hello",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nhello\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
        b"\0\x01\0\0\x21\x12\xA4\x42abcdefghijkl",
    ] {
        http::exchange(relay.address(), bytes).await;
    }
    let mut sender = RawSender::connect(relay.address()).await;
    sender.write("still raw\n").await;
    assert_eq!(receiver.text().await, "still raw");
}

#[tokio::test]
async fn bytes_declared_as_text_that_are_none_are_refused() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::json(relay.address(), "foo", "").await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    sender.put_message(1, 1, Kind::Text, b"\xff");
    sender.flush().await;
    let heard = sender.heard().await;
    assert!(
        matches!(&heard, tests::sender::Heard::Error { code, fatal: false, .. } if code == "invalid_text"),
        "{heard:?}"
    );

    let mut client = tests::frames::FrameClient::connect(relay.address(), "/c/foo?publish").await;
    client.send(tests::frames::FIN | tests::frames::opcode::TEXT, b"\xff").await;
    assert_eq!(client.closed().await, 1007);

    receiver.command(json!({ "type": "publish", "id": 1, "text": "fine" })).await;
    assert_eq!(receiver.text().await, "fine");
}

#[tokio::test]
async fn arbitrary_first_bytes_disturb_nobody() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::connect(relay.address(), "/c/calm?publish", None).await;
    let mut random = fastrand::Rng::with_seed(12);
    let prefixes: [&[u8]; 6] =
        [b"", b"\xF5WSR\x01", b"GET / HTTP/1.1\r\n", b"RELAY/1 ", b"\xF5WS", b"\0\0\0\0\x21\x12"];
    for n in 0..120 {
        let mut bytes = prefixes[n % prefixes.len()].to_vec();
        bytes.extend((0..random.usize(0..300)).map(|_| random.u8(..)));
        let mut sender = RawSender::connect(relay.address()).await;
        for piece in bytes.chunks(random.usize(1..100)) {
            if !sender.try_write(piece).await {
                break;
            }
        }
        drop(sender);
        receiver.send(n.to_string()).await;
        assert_eq!(receiver.text().await, n.to_string());
    }
}
