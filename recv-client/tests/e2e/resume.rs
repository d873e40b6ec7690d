//! Across lost connections, restarts of the relay and of the client.

use shared::{Epoch, Seq, receiver::Event};

use crate::{
    client::Client,
    fake_relay::{EPOCH, FakeRelay},
};

#[tokio::test]
async fn a_lost_connection_is_resumed_without_loss_or_duplicates() {
    let relay = FakeRelay::start().await;
    let client = Client::start(&relay.addr(), "--channel foo -n 6");
    let mut connection = relay.accept_foo(0).await;
    for seq in 1..=3 {
        connection.number(seq, seq - 1).await;
    }
    drop(connection);
    let connection = relay.accept().await;
    assert_eq!(connection.target, "/c/foo?since=00000000000000ab-3");
    // Lost again before the relay has said anything: no second notice.
    drop(connection);
    let mut connection = relay.accept().await;
    assert_eq!(connection.target, "/c/foo?since=00000000000000ab-3");
    connection.hello("foo", EPOCH, 3, true).await;
    for seq in 3..=6 {
        connection.number(seq, seq - 1).await;
    }
    connection.closed().await;
    let ended = client.end().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "1\n2\n3\n4\n5\n6\n"));
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], "relay went away; reconnecting");
    assert!(
        lines[1].starts_with("reconnected after ") && lines[1].ends_with("s, resumed after seq 3"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn what_is_published_before_the_first_message_came_is_not_lost_with_the_connection() {
    let relay = FakeRelay::start().await;
    let mut client = Client::start(&relay.addr(), "--channel foo -v");
    let connection = relay.accept_foo(7).await;
    client.told("connected").await;
    connection.close(1012, "restart").await;
    let connection = relay.accept().await;
    assert_eq!(connection.target, "/c/foo?since=00000000000000ab-7");
}

#[tokio::test]
async fn several_channels_are_one_stream_and_one_position() {
    let relay = FakeRelay::start().await;
    let client =
        Client::start(&relay.addr(), "--channel foo --channel bar/** --channel foo -n 3 --since 10m");
    let mut connection = relay.accept().await;
    assert_eq!(connection.target, "/c/foo?channel=bar/**&since=10m");
    // The relay names patterns in an order of its own.
    for pattern in ["bar/**", "foo"] {
        connection.hello(pattern, EPOCH, 4, false).await;
    }
    connection.message("foo", 5, 0, b"a").await;
    connection.message("bar/x", 6, 0, b"b").await;
    drop(connection);
    let mut connection = relay.accept().await;
    assert_eq!(connection.target, "/c/foo?channel=bar/**&since=00000000000000ab-6");
    for pattern in ["bar/**", "foo"] {
        connection.hello(pattern, EPOCH, 6, true).await;
    }
    connection.message("foo", 7, 5, b"c").await;
    connection.closed().await;
    let ended = client.end().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "a\nb\nc\n"));
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].ends_with("s, resumed after seq 6"), "{lines:?}");
}

#[tokio::test]
async fn what_the_relay_says_to_have_passed_is_not_asked_for_again() {
    let relay = FakeRelay::start().await;
    let mut client = Client::start(&relay.addr(), "--channel foo --channel bar --last 2 -v");
    let mut connection = relay.accept().await;
    assert_eq!(connection.target, "/c/foo?channel=bar&last=2");
    connection.hello("bar", EPOCH, 4, false).await;
    connection.hello("foo", EPOCH, 4, false).await;
    connection.message("foo", 5, 3, b"a").await;
    connection.event(&Event::Live { seq: Seq(90) }).await;
    client.told("caught up at seq 90").await;
    drop(connection);
    let connection = relay.accept().await;
    assert_eq!(connection.target, "/c/foo?channel=bar&since=00000000000000ab-90");
}

#[tokio::test]
async fn a_new_store_is_told_and_received_from_its_beginning() {
    let relay = FakeRelay::start().await;
    let client = Client::start(&relay.addr(), "--channel foo -n 2");
    let mut connection = relay.accept_foo(0).await;
    connection.number(1000, 0).await;
    drop(connection);
    let mut connection = relay.accept().await;
    connection.hello("foo", Epoch(0xcd), 0, false).await;
    connection.number(1, 0).await;
    connection.closed().await;
    let ended = client.end().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "1000\n1\n"));
    let last = ended.stderr.lines().last().unwrap();
    assert!(
        last.ends_with("s; the relay's store is new (epoch 00000000000000cd); messages before it are gone"),
        "{last}"
    );
}

#[tokio::test]
async fn a_position_of_another_store_is_told_and_ends_a_strict_client() {
    let relay = FakeRelay::start().await;
    for strict in [false, true] {
        let line = if strict { "--strict" } else { "-n 1" };
        let line = format!("--channel foo --since 00000000000000ff-5 {line}");
        let client = Client::start(&relay.addr(), &line);
        let mut connection = relay.accept().await;
        assert_eq!(connection.target, "/c/foo?since=00000000000000ff-5");
        connection.hello("foo", EPOCH, 0, false).await;
        connection.number(1, 0).await;
        connection.closed().await;
        let ended = client.end().await;
        let (code, stdout, label) = if strict { (6, "", "error") } else { (0, "1\n", "warning") };
        assert_eq!((ended.code, ended.stdout.as_str()), (code, stdout));
        assert_eq!(
            ended.stderr,
            format!("{label}: the relay's store is new (epoch {EPOCH}); messages before it are gone\n")
        );
    }
}

#[tokio::test]
async fn a_durable_client_goes_on_where_it_was_at_the_next_start() {
    let state = tempfile::tempdir().unwrap();
    let relay = FakeRelay::start().await;
    let line = "--channel foo --durable backup --since earliest -n 2";
    for (target, from) in [("earliest", 0), ("00000000000000ab-2", 2), ("00000000000000ab-4", 4)] {
        let client = Client::start_in(state.path(), &relay.addr(), line);
        let mut connection = relay.accept().await;
        assert_eq!(connection.target, format!("/c/foo?since={target}"));
        connection.hello("foo", EPOCH, from, true).await;
        for seq in from + 1..=from + 3 {
            connection.number(seq, seq - 1).await;
        }
        connection.closed().await;
        let ended = client.end().await;
        let expected = format!("{}\n{}\n", from + 1, from + 2);
        assert_eq!((ended.code, ended.stdout, ended.stderr), (0, expected, String::new()));
    }
    assert!(state.path().join("relay/durable/backup").exists());
}

#[tokio::test]
async fn a_durable_name_is_for_one_client_of_one_relay_and_its_channels() {
    let state = tempfile::tempdir().unwrap();
    let relay = FakeRelay::start().await;
    let mut first = Client::start_in(state.path(), &relay.addr(), "--channel foo --durable backup -v");
    let _connection = relay.accept_foo(3).await;
    first.told("connected").await;
    let second = Client::start_in(state.path(), &relay.addr(), "--channel foo --durable backup").end().await;
    assert_eq!(second.code, 1);
    assert!(second.stderr.starts_with("error: another recv-client is using"), "{}", second.stderr);
    first.signal("INT");
    assert_eq!(first.end().await.code, 130);
    let other = Client::start_in(state.path(), &relay.addr(), "--channel bar --durable backup").end().await;
    assert_eq!(other.code, 2);
    assert!(
        other.stderr.starts_with("error: the durable position `backup` is one of foo at"),
        "{}",
        other.stderr
    );
}

#[tokio::test]
async fn a_position_is_not_ahead_of_what_was_written() {
    let state = tempfile::tempdir().unwrap();
    let relay = FakeRelay::start().await;
    let line = "--channel foo --durable backup";
    let mut client = Client::start_in(state.path(), &relay.addr(), line);
    let mut connection = relay.accept_foo(0).await;
    connection.number(1, 0).await;
    assert_eq!(client.line().await, "1");
    // More than the pipe takes: the writer is stuck in it.
    let big = vec![b'x'; 1 << 20];
    connection.message("foo", 2, 1, &big).await;
    connection.message("foo", 3, 2, &big).await;
    client.signal("KILL");
    drop(client.end().await);
    let _client = Client::start_in(state.path(), &relay.addr(), line);
    let target = relay.accept().await.target;
    assert!(
        ["/c/foo", "/c/foo?since=00000000000000ab-0", "/c/foo?since=00000000000000ab-1"].contains(&&*target),
        "{target}"
    );
}
