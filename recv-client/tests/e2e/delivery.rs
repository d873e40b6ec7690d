//! What comes and when it ends: counts, limits, signals, gaps.

use shared::receiver::GapReason;

use crate::{client::Client, fake_relay::FakeRelay};

#[tokio::test]
async fn the_first_use_reads_as_it_is_documented() {
    let relay = FakeRelay::start().await;
    let mut client = Client::start(&relay.addr(), "--channel foo -v");
    let mut connection = relay.accept_foo(0).await;
    assert_eq!(connection.target, "/c/foo");
    let connected = client.told("connected").await;
    let addr = relay.addr();
    assert_eq!(connected, format!("connected to {addr}, channel foo; waiting for messages (Ctrl-C to stop)"));
    connection.message("foo", 1, 0, b"hello").await;
    assert_eq!(client.line().await, "hello");
    client.signal("INT");
    connection.closed().await;
    let ended = client.end().await;
    assert_eq!(ended.code, 130);
    assert!(ended.stderr.starts_with("1 message, 5 B in "), "{}", ended.stderr);
}

#[tokio::test]
async fn a_count_ends_the_client_and_only_what_matches_is_counted() {
    let relay = FakeRelay::start().await;
    let client = Client::start(&relay.addr(), "--channel foo -n 2 --grep (?i)YES");
    let mut connection = relay.accept_foo(0).await;
    for (seq, payload) in [(1, "yes 1"), (2, "no 2"), (3, "Yes 3"), (4, "yes 4")] {
        connection.message("foo", seq, seq - 1, payload.as_bytes()).await;
    }
    connection.closed().await;
    let ended = client.end().await;
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (0, "yes 1\nYes 3\n", ""));
}

#[tokio::test]
async fn sigterm_ends_with_143_and_what_came_is_written() {
    let relay = FakeRelay::start().await;
    let mut client = Client::start(&relay.addr(), "--channel foo");
    let mut connection = relay.accept_foo(0).await;
    connection.number(1, 0).await;
    assert_eq!(client.line().await, "1");
    client.signal("TERM");
    connection.closed().await;
    assert_eq!(client.end().await.code, 143);
}

#[tokio::test]
async fn silence_ends_with_124_and_a_span_of_time_with_0() {
    let relay = FakeRelay::start().await;
    let client = Client::start(&relay.addr(), "--channel foo --timeout 50ms");
    relay.accept_foo(0).await.closed().await;
    let ended = client.end().await;
    assert_eq!((ended.code, ended.stderr.as_str()), (124, "error: no message came for 50ms\n"));
    let client = Client::start(&relay.addr(), "--channel foo --for 50ms");
    relay.accept_foo(0).await.closed().await;
    assert_eq!(client.end().await.code, 0);
}

#[tokio::test]
async fn a_closed_stdout_is_a_quiet_end() {
    let relay = FakeRelay::start().await;
    let mut client = Client::start(&relay.addr(), "--channel foo");
    let mut connection = relay.accept_foo(0).await;
    connection.number(1, 0).await;
    assert_eq!(client.line().await, "1");
    client.close_stdout();
    connection.number(2, 1).await;
    let ended = client.end().await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
}

#[tokio::test]
async fn a_gap_is_told_and_what_follows_is_shown() {
    let relay = FakeRelay::start().await;
    let client = Client::start(&relay.addr(), "--channel foo -n 3 -q");
    let mut connection = relay.accept_foo(0).await;
    connection.number(1001, 0).await;
    connection.gap(1001, 1250, 42, GapReason::Lagged).await;
    connection.number(1250, 1249).await;
    connection.number(1252, 1251).await;
    connection.closed().await;
    let ended = client.end().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "1001\n1250\n1252\n"));
    assert_eq!(
        ended.stderr,
        "warning: gap on foo: 42 messages are missing (after seq 1001, before 1250): this receiver was too slow\n\
         warning: gap on foo: messages are missing (after seq 1250, before 1252): the relay gave no notice of it\n"
    );
}

#[tokio::test]
async fn a_gap_ends_a_strict_client_before_what_follows_it() {
    let relay = FakeRelay::start().await;
    for silent in [false, true] {
        let client = Client::start(&relay.addr(), "--channel foo --strict");
        let mut connection = relay.accept_foo(0).await;
        connection.number(1, 0).await;
        if !silent {
            connection.gap(1, 9, 7, GapReason::Retention).await;
        }
        connection.number(9, 8).await;
        connection.closed().await;
        let ended = client.end().await;
        assert_eq!((ended.code, ended.stdout.as_str()), (6, "1\n"));
        assert!(ended.stderr.starts_with("error: gap on foo: "), "{}", ended.stderr);
    }
}
