//! The program as it is run: what goes in by pipes, files and flags, what comes out, and its exit codes.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
    thread,
};

use crate::fake_relay::{FakeRelay, Said, WELCOME};
use shared::{ErrorCode, sender::Welcome};

/// Runs the program with these arguments and this input.
fn run(relay: &str, args: &[&str], input: Vec<u8>) -> thread::JoinHandle<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_send-client"));
    command.args(["--relay", relay]).args(args).env_remove("RELAY_CHANNEL").env_remove("RELAY_ADDR");
    command.env_remove("RELAY_LEVEL").env_remove("RELAY_SPOOL");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    thread::spawn(move || {
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = thread::spawn(move || {
            // The program may leave before it has read everything.
            let _broken = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    })
}

/// Runs the program against a relay that stores everything; what was stored, and what it said.
async fn sent(args: &[&str], input: &[u8]) -> (Vec<String>, Output) {
    let relay = FakeRelay::bind().await;
    let running = run(&relay.address(), args, input.to_vec());
    let mut peer = relay.accept(WELCOME).await;
    let stored = peer.serve().await;
    let stored = stored.into_iter().map(|payload| String::from_utf8_lossy(&payload).into_owned()).collect();
    drop(peer);
    (stored, running.join().unwrap())
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn a_pipe_is_sent_line_by_line_and_stdout_stays_empty() {
    let (stored, output) = sent(&["-c", "foo"], b"one\r\n\ntwo\nthree").await;
    assert_eq!(stored, ["one", "", "two", "three"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!((output.stdout.len(), stderr(&output)), (0, String::new()));
    let (_, output) = sent(&["-c", "foo", "-v"], b"one\ntwo\n").await;
    assert!(stderr(&output).ends_with("2 messages sent, all confirmed\n"), "{}", stderr(&output));
}

#[tokio::test]
async fn flags_say_what_a_message_is() {
    assert_eq!(
        sent(&["-c", "foo", "-m", "a b", "-m", "-c", "--repeat", "2"], b"").await.0,
        ["a b", "-c", "a b", "-c"]
    );
    assert_eq!(sent(&["-c", "foo", "-0"], b"a\nb\0c").await.0, ["a\nb", "c"]);
    assert_eq!(sent(&["-c", "foo", "-s", "3"], b"abcdefg").await.0, ["abc", "def", "g"]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"of\na\nfile\n").unwrap();
    let path = file.path().to_str().unwrap();
    assert_eq!(sent(&["-c", "foo", "-s", "none", path, "-"], b"in").await.0, ["of\na\nfile\n", "in"]);
}

#[tokio::test]
async fn bars_are_shown_where_they_are_wanted_and_end_with_the_number_of_messages() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"one\ntwo\n").unwrap();
    let path = file.path().to_str().unwrap();
    let (_, output) = sent(&["-c", "foo", "--progress", "always", path], b"").await;
    assert!(stderr(&output).contains("2 messages"), "{}", stderr(&output));
    let (_, output) = sent(&["-c", "foo", path], b"").await;
    assert_eq!(stderr(&output), "");
}

#[tokio::test]
async fn json_lines_say_where_they_go_unless_the_command_line_does() {
    let lines = br#"{"type":"hello","channel":"x"}
{"type":"message","channel":"a/b","seq":3,"prev":0,"time":5,"text":"hi"}
{"channel":"c","base64":"/wA="}
"#;
    for (args, channels) in [(&["--json"][..], ["a/b", "c"].as_slice()), (&["--json", "-c", "z"], &["z"])] {
        let relay = FakeRelay::bind().await;
        let running = run(&relay.address(), args, lines.to_vec());
        let mut peer = relay.accept(WELCOME).await;
        let (mut opened, mut payloads) = (Vec::new(), Vec::new());
        loop {
            match peer.next().await {
                Said::Open { alias, first_pseq, channel } => {
                    opened.push(channel);
                    peer.opened(alias, first_pseq - 1).await;
                }
                Said::Publish { alias, pseq, time, payload } => {
                    payloads.push((time, payload));
                    peer.ack(alias, pseq).await;
                }
                _ => break,
            }
        }
        drop(peer);
        assert_eq!(opened, channels);
        assert_eq!(payloads, [(Some(5), b"hi".to_vec()), (None, b"\xff\0".to_vec())]);
        assert_eq!(running.join().unwrap().status.code(), Some(0));
    }
}

#[tokio::test]
async fn a_message_that_is_too_big_ends_the_reading_and_what_came_before_is_delivered() {
    let relay = FakeRelay::bind().await;
    let input = [b"one\ntwo\n".to_vec(), vec![b'x'; 2 << 20], b"\nnever\n".to_vec()].concat();
    let running = run(&relay.address(), &["-c", "foo"], input);
    let mut peer = relay.accept(WELCOME).await;
    assert_eq!(peer.serve().await, [b"one", b"two"]);
    drop(peer);
    let output = running.join().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(
        stderr(&output),
        "error: message 3 is 2.0 MiB, the relay accepts at most 1 MiB; 2 messages were sent\n  \
         hint: send it in pieces with --split 512KiB, or raise max_message on the relay\n"
    );
}

#[tokio::test]
async fn a_relay_that_opens_a_channel_without_the_level_is_not_sent_to() {
    let relay = FakeRelay::bind().await;
    let running = run(&relay.address(), &["-c", "foo", "--level", "fsynced"], b"one\n".to_vec());
    let mut peer = relay.accept_open(WELCOME).await;
    let (stored, output) = (peer.serve().await, running);
    assert!(stored.is_empty(), "{stored:?}");
    let output = output.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).starts_with("error: channel foo: --level can't be had: the channel does not give it"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn a_line_that_is_no_message_is_told_with_its_number() {
    let (stored, output) = sent(&["--json", "-c", "a"], b"{\"text\":\"x\"}\nhello\n").await;
    assert_eq!((stored, output.status.code()), (vec!["x".into()], Some(5)));
    assert!(stderr(&output).starts_with("error: line 2 is no message: "), "{}", stderr(&output));
}

#[tokio::test]
async fn a_message_that_the_relay_refuses_is_told_with_its_number() {
    let relay = FakeRelay::bind().await;
    let running = run(&relay.address(), &["-c", "foo"], b"one\ntwo\n".to_vec());
    let mut peer = relay.accept_open(WELCOME).await;
    peer.publishes(2).await;
    peer.ack(0, 1).await;
    peer.refuse(ErrorCode::Rate, 2, 0).await;
    assert!(peer.serve().await.is_empty());
    drop(peer);
    let output = running.join().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(stderr(&output), "error: message 2 was refused: no; 1 message was sent\n");
}

#[tokio::test]
async fn a_pipe_goes_on_over_a_restart_of_the_relay_and_tells_each_change_once() {
    let relay = FakeRelay::bind().await;
    let running = run(&relay.address(), &["-c", "foo"], b"one\ntwo\n".to_vec());
    let mut peer = relay.accept_open(WELCOME).await;
    peer.publishes(2).await;
    drop(peer);
    let mut peer = relay.accept_open(Welcome { epoch: shared::Epoch(2), ..WELCOME }).await;
    assert_eq!(peer.serve().await, [b"one", b"two"]);
    drop(peer);
    let output = running.join().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = stderr(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "relay went away; reconnecting, 2 messages waiting");
    assert!(
        lines[1].starts_with("reconnected after ") && lines[1].ends_with("s, 2 messages delivered"),
        "{text}"
    );
    assert_eq!(
        lines[2],
        "the relay's store is new (epoch 0000000000000002); what was not confirmed was sent again"
    );
    assert_eq!(lines.len(), 3);
}

#[tokio::test]
async fn with_no_ack_it_leaves_when_everything_is_handed_over() {
    let relay = FakeRelay::bind().await;
    let running = run(&relay.address(), &["-c", "foo", "--no-ack", "-v"], b"one\ntwo\n".to_vec());
    let mut peer = relay.accept_open(WELCOME).await;
    peer.publishes(2).await;
    assert_eq!(peer.next().await, Said::Close(0));
    drop(peer);
    let output = running.join().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).ends_with("2 messages sent, 2 not confirmed\n"), "{}", stderr(&output));
}

#[tokio::test]
async fn a_signal_ends_it_with_its_code_and_tells_what_is_not_confirmed() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let relay = FakeRelay::bind().await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_send-client"));
        command.args(["--relay", &relay.address(), "-c", "foo", "-m", "one"]).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let mut peer = relay.accept_open(WELCOME).await;
        peer.publishes(1).await;
        let kill = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert_eq!(stderr(&output), "warning: 1 message sent, 1 not confirmed\n");
    }
}

#[tokio::test]
async fn without_reconnecting_it_ends_with_6_when_the_relay_goes_away() {
    let relay = FakeRelay::bind().await;
    let running = run(&relay.address(), &["-c", "foo", "--no-reconnect"], b"one\n".to_vec());
    let mut peer = relay.accept_open(WELCOME).await;
    peer.publishes(1).await;
    drop(peer);
    let output = running.join().unwrap();
    assert_eq!(output.status.code(), Some(6));
    assert!(stderr(&output).ends_with("; 1 message is not confirmed\n"), "{}", stderr(&output));
}

#[tokio::test]
async fn what_is_no_relay_is_told_apart() {
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = other.local_addr().unwrap().to_string();
    let running = run(&address, &["-c", "foo"], Vec::new());
    let (mut stream, _) = other.accept().await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let output = running.join().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let expected = format!("error: cannot reach a relay at {address}: what answers there is no relay");
    assert!(stderr(&output).starts_with(&expected), "{}", stderr(&output));
}

#[tokio::test]
async fn an_unreachable_relay_is_told_at_once_with_a_way_out() {
    let address = FakeRelay::bind().await.address();
    let output = run(&address, &["-c", "foo"], b"one\n".to_vec()).join().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        stderr(&output),
        format!(
            "error: cannot reach a relay at {address}: connection refused\n  \
             hint: start one with `relay serve`, or choose another with --relay HOST:PORT\n"
        )
    );
}

#[test]
fn wrong_usage_ends_with_2_before_connecting() {
    let nowhere = "127.0.0.1:1";
    for args in [
        &["-c", "my channel"][..],
        &[],
        &["-c", "foo", "--spool", "dir", "--no-ack"],
        &["-c", "foo", "--spool", "dir", "--spool-limit", "1KiB"],
        &["-c", "foo", "--token-file", "file"],
        &["-c", "foo", "--insecure"],
        &["-c", "foo", "--ca", "file"],
        &["-c", "foo", "--level", "replicated"],
        &["-c", "foo", "--repeat", "2"],
        &["-c", "foo", "no/such/file"],
        &["-c", "foo", "-m", "a", "file"],
    ] {
        let output = run(nowhere, args, Vec::new()).join().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).starts_with("error: "), "{}", stderr(&output));
    }
    let output = run(nowhere, &["-c", "my channel"], Vec::new()).join().unwrap();
    assert_eq!(
        stderr(&output),
        "error: invalid value 'my channel' for '--channel': a space is not allowed at position 3\n  \
         channel names use letters, digits and _ - . ~ : in segments separated by /, for example sensors/kitchen\n"
    );
}
