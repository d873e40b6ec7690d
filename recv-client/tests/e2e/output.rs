//! Where messages go and in which form.

use std::fs;

use crate::{client::Client, fake_relay::FakeRelay};

/// What a client writes for these messages of `foo`, with a line of arguments.
async fn written(line: &str, payloads: &[&[u8]]) -> String {
    let relay = FakeRelay::start().await;
    let client = Client::start(&relay.addr(), &format!("--channel foo -n {} {line}", payloads.len()));
    let mut connection = relay.accept_foo(0).await;
    for (seq, payload) in (1..).zip(payloads) {
        connection.message("foo", seq, seq - 1, payload).await;
    }
    connection.closed().await;
    let ended = client.end().await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    ended.stdout
}

#[tokio::test]
async fn a_pipe_gets_exact_bytes_and_the_separator_that_was_asked_for() {
    assert_eq!(written("", &[b"a\x1b[31m", b"", b"c\n"]).await, "a\x1b[31m\n\nc\n\n");
    assert_eq!(written("-0", &[b"a", b"b"]).await, "a\0b\0");
    assert_eq!(written("--raw", &[b"a", b"b"]).await, "ab");
}

#[tokio::test]
async fn json_is_the_message_event() {
    assert_eq!(
        written("--json", &[b"hi", b"\xff\x00"]).await,
        "{\"type\":\"message\",\"channel\":\"foo\",\"seq\":1,\"prev\":0,\"time\":1000000,\"text\":\"hi\"}\n\
         {\"type\":\"message\",\"channel\":\"foo\",\"seq\":2,\"prev\":1,\"time\":1000000,\"base64\":\"/wA=\"}\n"
    );
}

#[tokio::test]
async fn a_format_is_followed() {
    let out = written(r"--format {channel}|{seq}|{prev}|{size}|{kind}|{position}\t{data}", &[b"hi"]).await;
    assert_eq!(out, "foo|1|0|2|text|00000000000000ab-1\thi\n");
    assert_eq!(written("--timestamps=epoch", &[b"hi"]).await, "1.000000 hi\n");
    assert!(written("--hex", &[b"hi"]).await.starts_with("2 bytes\n00000000  68 69 "));
}

#[tokio::test]
async fn a_file_gets_what_stdout_would_get() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let line = format!("-o {}", path.display());
    for _ in 0..2 {
        assert_eq!(written(&line, &[b"a", b"b"]).await, "");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\nb\n");
    }
}

#[tokio::test]
async fn each_channel_has_its_file_in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let relay = FakeRelay::start().await;
    let line = format!("--channel ** -n 4 --output-dir {}", dir.path().display());
    let client = Client::start(&relay.addr(), &line);
    let mut connection = relay.accept().await;
    connection.hello("**", crate::fake_relay::EPOCH, 0, false).await;
    for (seq, channel) in [(1, "a"), (2, "a/b"), (3, "a"), (4, "c")] {
        connection.message(channel, seq, 0, channel.as_bytes()).await;
    }
    connection.closed().await;
    assert_eq!(client.end().await.code, 0);
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!([read("a.log"), read("a/b.log"), read("c.log")], ["a\na\n", "a/b\n", "c\n"]);
}

#[tokio::test]
async fn stats_are_told_every_so_often() {
    let relay = FakeRelay::start().await;
    let mut client = Client::start(&relay.addr(), "--channel foo --stats=20ms");
    let mut connection = relay.accept_foo(0).await;
    connection.number(1, 0).await;
    let line = client.told("1 message, ").await;
    assert!(line.contains("/s, 1 B, "), "{line}");
}
