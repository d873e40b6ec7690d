//! What goes wrong, how it reads, and the exit code.

use shared::{ErrorCode, receiver::Event};

use crate::{
    client::{Client, Ended},
    fake_relay::FakeRelay,
};

/// What a client makes of an HTTP answer.
async fn answered(response: &str) -> Ended {
    let relay = FakeRelay::start().await;
    let client = Client::start(&relay.addr(), "--channel foo");
    relay.answer(response).await;
    client.end().await
}

#[tokio::test]
async fn a_relay_that_is_not_there_is_told_with_a_hint() {
    let addr = FakeRelay::start().await.stop();
    let ended = Client::start(&addr, "--channel foo -v").end().await;
    assert_eq!(ended.code, 3);
    assert_eq!(
        ended.stderr,
        format!(
            "error: cannot reach a relay at {addr}: connection refused\n  \
             hint: start one with `relay serve`, or choose another with --relay HOST:PORT\n"
        )
    );
}

#[tokio::test]
async fn a_channel_that_is_none_is_found_before_connecting() {
    let ended = Client::start("127.0.0.1:1", "--channel a//b").end().await;
    assert_eq!(ended.code, 2);
    assert_eq!(
        ended.stderr,
        "error: invalid value 'a//b' for '--channel': the segment at position 3 is empty\n  channel names use \
         letters, digits and _ - . ~ : in segments separated by /, for example sensors/kitchen\n"
    );
}

#[tokio::test]
async fn closes_of_45xx_are_final() {
    let relay = FakeRelay::start().await;
    for (code, exit, text) in [
        (4500, 4, "error: the relay refused the token: not yours (close code 4500)\n"),
        (4501, 4, "error: the relay refused the subscription: not yours (close code 4501)\n"),
        (4502, 1, "error: the relay has no such channel: not yours (close code 4502)\n"),
        (4505, 1, "error: the relay has too many connections: not yours (close code 4505)\n"),
    ] {
        let client = Client::start(&relay.addr(), "--channel foo");
        relay.accept().await.close(code, "not yours").await;
        let ended = client.end().await;
        assert_eq!((ended.code, ended.stderr.as_str()), (exit, text));
    }
}

#[tokio::test]
async fn a_refusal_over_http_is_told_in_the_relays_words() {
    let forbidden = "HTTP/1.1 403 Forbidden\r\ncontent-length: 9\r\n\r\nnot you\r\n";
    let ended = answered(forbidden).await;
    assert_eq!(ended.code, 4);
    assert_eq!(ended.stderr, "error: the relay refused the connection: not you (HTTP 403)\n");
    let too_many = "HTTP/1.1 400 Bad Request\r\ncontent-length: 11\r\n\r\nat most 64\n";
    let ended = answered(too_many).await;
    assert_eq!(ended.code, 1);
    assert_eq!(ended.stderr, "error: the relay refused the subscription: at most 64 (HTTP 400)\n");
    let ended = answered("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(ended.code, 1);
    assert_eq!(ended.stderr, "error: the relay refused the subscription: HTTP 404 Not Found\n");
    let ended = answered("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(ended.code, 3);
    assert!(
        ended.stderr.contains("takes no receivers now: HTTP 503 Service Unavailable"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn what_is_no_relay_is_told_as_such() {
    let ended = answered("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("is no relay: HTTP 200 OK\n"), "{}", ended.stderr);
    let ended = answered("SSH-2.0-server\r\n").await;
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("is no relay: "), "{}", ended.stderr);
    let ended = answered("").await;
    assert_eq!(ended.code, 3);
    assert!(ended.stderr.contains(": it closed the connection\n"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_relay_that_does_not_echo_the_subprotocol_is_told_as_such() {
    let relay = FakeRelay::start().await;
    let client = Client::start(&relay.addr(), "--channel foo");
    relay.accept_without_subprotocol().await;
    let ended = client.end().await;
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("does not speak relay.v1.binary\n"), "{}", ended.stderr);
}

#[tokio::test]
async fn what_the_relay_reports_is_told() {
    let relay = FakeRelay::start().await;
    let client = Client::start(&relay.addr(), "--channel foo -n 1");
    let mut connection = relay.accept_foo(0).await;
    connection.event(&Event::Error { code: ErrorCode::Rate, message: "too fast".into(), id: None }).await;
    connection.number(1, 0).await;
    connection.closed().await;
    let ended = client.end().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "1\n"));
    assert_eq!(ended.stderr, format!("warning: the relay reports: too fast ({})\n", ErrorCode::Rate));
}

#[tokio::test]
async fn a_message_before_its_hello_ends_the_client() {
    let relay = FakeRelay::start().await;
    let client = Client::start(&relay.addr(), "--channel foo");
    let mut connection = relay.accept_foo(0).await;
    connection.number(1, 0).await;
    drop(connection);
    let mut connection = relay.accept().await;
    connection.number(2, 1).await;
    connection.closed().await;
    let ended = client.end().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (1, "1\n"));
    assert!(ended.stderr.contains("error: the relay broke the protocol: "), "{}", ended.stderr);
}

#[tokio::test]
async fn without_reconnecting_a_lost_connection_ends_with_6() {
    let relay = FakeRelay::start().await;
    let client = Client::start(&relay.addr(), "--channel foo --no-reconnect");
    let mut connection = relay.accept_foo(0).await;
    connection.number(1, 0).await;
    connection.close(1012, "restart").await;
    let ended = client.end().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (6, "1\n"));
    assert_eq!(ended.stderr, "error: the connection was lost: restart (close code 1012)\n");
}
