//! The first minute with the relay: it starts with no configuration, one line of `nc` reaches a bare WebSocket,
//! and it stops cleanly.

use std::process::Stdio;

use shared::{Kind, receiver::Subprotocol};
use tests::{
    program::{Program, Signal},
    receiver::{Received, Receiver},
    relay::TestRelay,
    sender::{FramedSender, Heard, RawSender},
};
use tokio::{net::TcpStream, process::Command};

#[tokio::test]
async fn the_ready_block_names_the_real_port_in_lines_that_can_be_pasted() {
    let mut relay = TestRelay::start(&[]).await;
    let address = relay.address();
    let mut block = Vec::new();
    for _ in 0..5 {
        block.push(relay.program().line().await);
    }
    assert_ne!(address.port(), 0);
    assert_eq!(relay.version(), env!("CARGO_PKG_VERSION"));
    assert_eq!(block[0], format!("  page       http://{address}/"));
    // The clients need to be told where it is, since it is not where they look first.
    let port = address.port();
    assert_eq!(
        words(&block[1]),
        format!("send echo hello | nc -N 127.0.0.1 {port} send-client --relay {address} --channel foo")
    );
    assert_eq!(
        words(&block[2]),
        format!("receive recv-client --relay {address} --channel foo ws://{address}/c/foo")
    );
    assert!(block[3].starts_with("  keeps      64 MiB per channel, in memory"), "{block:?}");
    assert_eq!(block[4], "  open to    this machine only, no token needed");
}

/// With single spaces, however the columns stand.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn every_listener_is_in_the_ready_line_and_open() {
    let relay =
        TestRelay::start(&["--listen", "127.0.0.1:0", "--raw", "127.0.0.1:0=plant/serial,line"]).await;
    assert_eq!(relay.addresses().len(), 3, "{:?}", relay.addresses());
    for &address in relay.addresses() {
        RawSender::connect(address).await;
    }
}

#[tokio::test]
async fn a_line_of_nc_reaches_a_bare_websocket_and_nc_ends() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::connect(relay.address(), "/", None).await;
    assert_eq!(receiver.subprotocol(), None);
    let mut command = Command::new("nc");
    command.args(["-N", "127.0.0.1", &relay.address().port().to_string()]);
    let mut nc = Program::spawn("nc", command);
    nc.write("hello\n").await;
    assert_eq!(nc.finish().await.code, Some(0));
    assert_eq!(receiver.next().await, Received::Raw(Kind::Text, "hello".into()));
}

#[tokio::test]
async fn a_piped_line_comes_out_of_recv_client() {
    let relay = TestRelay::start(&[]).await;
    let mut receiver =
        Program::start("recv-client", ["-v", "-c", "foo", "-r", &relay.host(), "--count", "1"]);
    receiver.notes("connected to").await;
    let mut sender = Program::start("send-client", ["-c", "foo", "-r", &relay.host()]);
    sender.write("hello\n").await;
    assert_eq!(sender.finish().await.code, Some(0));
    let finished = receiver.finish().await;
    assert_eq!((finished.code, finished.stdout.as_slice()), (Some(0), &b"hello\n"[..]));
}

#[tokio::test]
async fn sigterm_drains_framed_senders_closes_receivers_with_1012_and_ends_with_0() {
    for signal in [Signal::Term, Signal::Int] {
        let mut relay = TestRelay::start(&[]).await;
        let mut bare = Receiver::connect(relay.address(), "/c/foo", None).await;
        let mut json = Receiver::json(relay.address(), "foo", "").await;
        json.hello().await;
        let mut sender = FramedSender::connect(relay.address()).await;
        sender.open(1, "foo", 1).await;
        sender.publish(1, 1, "before").await;
        sender.acked(1, 1).await;

        relay.program().signal(signal).await;
        assert_eq!(sender.heard().await, Heard::Drain);
        drop(sender);
        assert_eq!(bare.text().await, "before");
        assert_eq!((bare.close_code().await, json.close_code().await), (1012, 1012));
        drop((bare, json));
        assert_eq!(relay.program().finish().await.code, Some(0));
        assert!(TcpStream::connect(relay.address()).await.is_err(), "nothing listens any more");
    }
}

#[tokio::test]
async fn what_a_raw_sender_wrote_before_sigterm_is_delivered() {
    let mut relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::connect(relay.address(), "/", None).await;
    let mut sender = RawSender::connect(relay.address()).await;
    sender.write("one\ntwo\n").await;
    assert_eq!(receiver.texts(2).await, ["one", "two"]);
    relay.program().signal(Signal::Term).await;
    assert_eq!(receiver.close_code().await, 1012);
    drop((sender, receiver));
    assert_eq!(relay.program().finish().await.code, Some(0));
}

#[tokio::test]
async fn what_was_acked_by_the_end_was_delivered_by_the_end_and_the_rest_is_not_acked() {
    let mut relay = TestRelay::start(&[]).await;
    let mut receiver = Receiver::json(relay.address(), "foo", "").await;
    receiver.hello().await;
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    let (mut published, mut acked) = (0, 0);
    let mut asked = false;
    loop {
        // In full flow, until it is told to stop.
        if published < acked + 100 {
            published += 1;
            sender.publish(1, published, &published.to_string()).await;
            continue;
        }
        if acked > 500 && !asked {
            asked = true;
            relay.program().signal(Signal::Term).await;
        }
        match sender.heard().await {
            Heard::Ack(ack) => acked = ack.pseq,
            Heard::Drain => break,
            other => panic!("{other:?}"),
        }
    }
    while acked < published {
        match sender.heard().await {
            Heard::Ack(ack) => acked = ack.pseq,
            Heard::Close(_) | Heard::End => break,
            other => panic!("{other:?}"),
        }
    }
    drop(sender);
    let mut delivered = 0;
    let code = loop {
        match receiver.next().await {
            Received::Message(envelope) => {
                delivered += 1;
                assert_eq!(envelope.payload, delivered.to_string());
            }
            Received::Closed(code, _) => break code,
            Received::Control(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 1012);
    assert!(acked > 500 && delivered >= acked, "{acked} were acked, {delivered} delivered");
    assert_eq!(relay.program().finish().await.code, Some(0));
}

#[tokio::test]
async fn a_second_sigterm_ends_at_once() {
    let mut relay = TestRelay::with_config("[timeouts]\ndrain = \"10m\"\nclose = \"10m\"\n", &[]).await;
    // It never answers the drain, and the receiver never the close.
    let mut sender = FramedSender::connect(relay.address()).await;
    sender.open(1, "foo", 1).await;
    let _receiver = Receiver::connect(relay.address(), "/c/foo", Some(Subprotocol::Raw)).await;
    relay.program().signal(Signal::Term).await;
    assert_eq!(sender.heard().await, Heard::Drain);
    // It may have ended already: then there is nobody to signal.
    let id = relay.program().id().to_string();
    let _ = Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).stderr(Stdio::null()).status().await;
    relay.program().finish().await;
}

#[tokio::test]
async fn version_and_help_go_to_stdout_with_0() {
    for program in ["relay", "send-client", "recv-client"] {
        for (flag, wanted) in [("-V", env!("CARGO_PKG_VERSION")), ("-h", "Usage"), ("--help", "Usage")] {
            let finished = Program::start(program, [flag]).finish().await;
            assert_eq!(finished.code, Some(0), "{program} {flag}");
            assert!(String::from_utf8_lossy(&finished.stdout).contains(wanted), "{program} {flag}");
            assert_eq!(finished.stderr, "", "{program} {flag}");
        }
    }
}
